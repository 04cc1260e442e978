"""What a check says: how it went, what it saw, what it expected, and the line that mends it.

Pure; imported by every check.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple

from push_server.doctor.visit import Visit


class Status(StrEnum):
    """How a check went; the same four words as in the PHP client."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One sentence of a check, and for a fault its remedy."""

    status: Status
    seen: str
    expected: str = ""
    place: str = ""
    """Where the remedy belongs: a file, or a shell."""
    paste: str = ""
    """The line to put there."""


Examine = Callable[[Visit], Iterator[Finding]]


class Check(NamedTuple):
    """A row of the table."""

    name: str
    """Stable: machines and the CMS modules know the check by it."""
    title: str
    examine: Examine
    needs: tuple[str, ...] = ()
    """Checks without which this one would only repeat their fault."""
    after: tuple[str, ...] = ()
    """Checks that leave something for this one, which can do without it."""


# Where a line goes.
SHELL = "a root shell"
CONFIG = "push-server.toml"
NGINX = "nginx, the server block of the push host"
NGINX_PROXY = "nginx, beside the proxy_pass of the push host"
NGINX_SITE = "nginx, every server and location block of the site that has an add_header"


def good(seen: str) -> Finding:
    """All is well here."""
    return Finding(Status.OK, seen)


def skipped(why: str) -> Finding:
    """There is nothing to look at, or no way to look at it from here."""
    return Finding(Status.SKIPPED, why)


def doubtful(seen: str, expected: str, place: str = "", paste: str = "") -> Finding:
    """It works, and may not for long or not for everybody."""
    return Finding(Status.WARNING, seen, expected, place, paste)


def wrong(seen: str, expected: str, place: str = "", paste: str = "") -> Finding:
    """This is a hop that fails."""
    return Finding(Status.ERROR, seen, expected, place, paste)
