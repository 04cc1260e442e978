"""What the setting `broker` says about a Redis: where it is, who we are there, and our prefix.

    redis://[user:password@]host[:port][/db][?prefix=site:]
    rediss://…                                   the same over TLS; ?ca=/path/to/ca.pem
    unix://[user:password@]/path/to/redis.sock[?db=0&prefix=site:]

Everything we keep in Redis begins with the prefix, so one Redis can serve several sites; no
site's prefix may begin with another's.

Pure. Imported by the Redis broker.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

DEFAULT_PREFIX = "push:"
_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_OPTIONS = {"redis": {"prefix"}, "rediss": {"prefix", "ca"}, "unix": {"prefix", "db"}}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One database of one Redis."""

    shown: str
    """The URL without the password, for messages and the log."""
    host: str = ""
    port: int = 6379
    path: str = ""
    """Of a Unix socket; then host and port mean nothing."""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None
    prefix: str = DEFAULT_PREFIX


def parse_redis_url(url: str) -> RedisAddress:
    """The address that a URL names. Raises `ValueError` saying what is wrong with it."""
    parts = urlsplit(url)
    known = _OPTIONS[parts.scheme]
    # Their own errors quote what cannot be read, which may be a piece of a password.
    try:
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("nobody can read what follows the ? (in a password: %3F)") from None
    try:
        port = parts.port or 6379
    except ValueError:
        raise ValueError("the port is no number up to 65535 (a / in a password: %2F)") from None
    options = dict(given)
    if len(options) != len(given) or not known.issuperset(options):
        raise ValueError(f"after the ? only {', '.join(sorted(known))} can be set, each once")
    if parts.fragment:
        raise ValueError("a # in a password is written %23")
    prefix = options.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("the prefix is 1 to 64 of A-Z a-z 0-9 . _ : -")
    socket = parts.scheme == "unix"
    if socket and (parts.hostname or not parts.path.strip("/")):
        raise ValueError("a Unix socket is named as unix:///path/to/redis.sock")
    if not socket and not parts.hostname:
        raise ValueError("it names no host")
    return RedisAddress(
        shown=shown(url),
        host=parts.hostname or "",
        port=port,
        path=unquote(parts.path) if socket else "",
        db=_database(options.get("db", "0") if socket else parts.path.strip("/") or "0"),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "rediss",
        ca=options.get("ca"),
        prefix=prefix,
    )


def _database(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text):
        raise ValueError("the database is a number")
    return int(text)


def shown(url: str) -> str:
    """The URL as it may be seen: whoever reads the log does not need the password."""
    try:
        parts: SplitResult = urlsplit(url)
    except ValueError:  # half an IPv6 address: where the password ends is anybody's guess
        return _hidden(url)
    if parts.netloc and "@" in parts.path + parts.query + parts.fragment:
        return _hidden(url)  # the password, maybe, has a / in it, and goes on behind that
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0] + at
    return f"{parts.scheme}://{name}{host}{parts.path}"


def _hidden(url: str) -> str:
    return f"{url.partition(':')[0]}://…"
