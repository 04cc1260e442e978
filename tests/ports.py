"""Ports for what the tests start, and whether somebody is there.

A port is given out well before anybody listens on it. In between, Linux may give it to any
connection that a client opens, if it is from the range for those. So ours are from below it; and
of the processes that share a run, each has ports that no other has.
Imported by the tests and by what they start.
"""

import itertools
import os
import random
import socket
from collections.abc import Iterator

PORTS = range(10_100, 32_700)
"""Below what Linux gives to connections by itself, and above what browsers refuse."""

_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ours = PORTS[_number :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
# Begun somewhere else each time: two runs hardly meet.
_start = random.SystemRandom().randrange(len(_ours))
_ports: Iterator[int] = itertools.cycle([*_ours[_start:], *_ours[:_start]])


def free_port() -> int:
    """A loopback port that nobody listens on; never the same twice in a run."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def listens(address: int | str) -> bool:
    """Whether somebody listens on a loopback port, or at the path of a Unix socket."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    where = address if isinstance(address, str) else ("127.0.0.1", address)
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(where) == 0
