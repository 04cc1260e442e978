"""Connections to Redis: how they are opened, what is asked of a Redis before it is trusted with
anything, and what can happen to them.

`Aside` and `Ear` are connections with one user; the broker's own, which many share, is the business
of `redis_link`.

Only the event loop runs this. Imported by whoever talks to a Redis; the only importer of redis.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

import redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    InvalidResponse,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from push_server.brokers.redis_url import RedisAddress

__all__ = [
    "FAILURES",
    "PATIENCE",
    "RETRY_SECONDS",
    "AnyConnection",
    "Aside",
    "AuthenticationError",
    "Ear",
    "NoScriptError",
    "ReadOnlyError",
    "ResponseError",
    "ServerInfo",
    "Unusable",
    "ask",
    "check_open",
    "close_connection",
    "end",
    "open_connection",
    "reason_of",
    "server_info",
    "within",
]

PATIENCE = 1.5
"""Seconds for an answer; whoever publishes hears `Unavailable` within two."""
CONNECT_SECONDS = 5.0
RETRY_SECONDS = (0.05, 1.0)
"""The first and the longest pause between two attempts to connect."""

OLDEST = (7, 0)
"""The first Redis that always passes scripts on by their effects, never to be run again."""

T = TypeVar("T")

AnyConnection = Connection | UnixDomainSocketConnection


class Unusable(Exception):
    """Raised if this Redis must not be used; the message says what to do."""


class Away(Unusable):
    """Raised if there is none now, which may pass by itself."""


class ServerInfo(NamedTuple):
    """What a Redis says of itself."""

    run_id: str
    trusted: bool
    """Whether a restart of it loses nothing that was answered."""


def _connection(address: RedisAddress) -> AnyConnection:
    """A connection that is closed as yet.

    It has no timeouts of its own: they would blame Redis when it is the loop that is late, and
    `asyncio.wait_for`, which they are made of, loses cancellations in Python 3.11.
    """
    options: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "socket_timeout": None,
        "socket_connect_timeout": PATIENCE,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "push-server",
        "health_check_interval": 0,
    }
    # Version 8 would choose RESP3, where messages come another way; version 4 knows no other.
    if not redis.__version__.startswith("4."):
        options["protocol"] = 2
    if address.path:
        return UnixDomainSocketConnection(path=address.path, **options)
    options.update(host=address.host, port=address.port)
    if address.tls:
        return SSLConnection(ssl_cert_reqs="required", ssl_ca_certs=address.ca, **options)
    return Connection(**options)


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of something that may take so long, or else is a `TimeoutError`.

    It has a task of its own. Releases of redis-py differ in what they do with cancellations, and
    version 4 leaves a task behind that `asyncio.timeout` does not work in any more.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done() or task.cancelled():
            raise TimeoutError("no answer in time")
        return task.result()
    finally:
        await end(task)


async def open_connection(address: RedisAddress) -> AnyConnection:
    """A connection that is open; raises one of `FAILURES`."""
    connection = _connection(address)
    try:
        await within(CONNECT_SECONDS, connection.connect())  # type: ignore[no-untyped-call]
    except BaseException:
        await close_connection(connection)
        raise
    return connection


async def close_connection(connection: AnyConnection) -> None:
    """Hang up, whatever state the connection is in."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect()


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended, because cancellations get lost."""
    for task in tasks:
        task.add_done_callback(_seen)
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=0.1)


def _seen(task: asyncio.Task[Any]) -> None:
    """Look at what a task ended with, or asyncio complains."""
    if not task.cancelled():
        task.exception()


FAILURES = (RedisError, OSError, TimeoutError, ssl.SSLError, Unusable)
"""What can happen to a connection. The last: Redis has become one we must not use."""


def reason_of(error: BaseException) -> str:
    """One line for the log or the administrator. Redis never quotes a password."""
    if isinstance(error, asyncio.CancelledError):
        return "no answer in time"
    if isinstance(error, InvalidResponse):
        return "not the protocol of Redis"  # the text quotes what came, a payload perhaps
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


async def ask(connection: AnyConnection, *command: str | bytes) -> Any:
    """The reply to one command, where no other is under way."""
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    return await connection.read_response()


async def server_info(connection: AnyConnection) -> ServerInfo:
    """What the server says of itself, if it may be used. Raises `Unusable` otherwise."""
    text = (await ask(connection, "INFO")).decode("utf-8", "replace")
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    version = info.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise Unusable(f"Redis {version} is too old; 7.0 or newer is needed")
    if info.get("role") != "master":
        raise Away("this Redis is a replica; name its primary")  # or it is yet to take over
    if (policy := info.get("maxmemory_policy")) != "noeviction":
        raise Unusable(
            f"Redis may evict what we keep (maxmemory-policy {policy}); write"
            " `maxmemory-policy noeviction` into redis.conf, or run"
            " `redis-cli config set maxmemory-policy noeviction`"
        )
    settings: dict[bytes, bytes] = {}
    # An account without CONFIG GET is fine: then the log is not trusted over a restart.
    with contextlib.suppress(ResponseError):
        for name in ("appendonly", "appendfsync"):
            found = await ask(connection, "CONFIG", "GET", name)
            settings.update(zip(found[::2], found[1::2], strict=True))
    flushed = settings == {b"appendonly": b"yes", b"appendfsync": b"always"}
    # One that has been a replica may lack what its primary had answered.
    never_replica = not info.get("master_replid2", "").strip("0")
    return ServerInfo(info["run_id"], flushed and never_replica)


async def check_open(connection: AnyConnection) -> None:
    """Notice that an idle connection was closed before anything is trusted to it."""
    # Releases before 8 have only the second.
    check = getattr(connection, "can_read", None) or connection.can_read_destructive
    if await check():
        raise Unusable("the connection was closed while it was idle")


class Aside:
    """A connection beside the broker's, for who asks one thing at a time and may wait long."""

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, address: RedisAddress) -> "Aside":
        """Connect; raises one of `FAILURES`."""
        return cls(await open_connection(address))

    async def ask(self, *command: str | bytes, seconds: float = PATIENCE) -> Any:
        """The reply to one command.

        Raises `ResponseError` if Redis refuses it, else one of `FAILURES`: then, or if whoever asks
        is cancelled, the connection is closed, because the reply may still come; the next question
        opens another.
        """
        try:
            return await within(seconds, ask(self._connection, *command))
        except ResponseError:
            raise
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Hang up."""
        await close_connection(self._connection)


class Ear:
    """A connection that listens to bus names."""

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, address: RedisAddress) -> "Ear":
        """Connect; raises one of `FAILURES`."""
        return cls(await open_connection(address))

    async def send(self, command: str, names: Sequence[str]) -> None:
        """SUBSCRIBE, PSUBSCRIBE, or the opposite."""
        if not self._connection.is_connected:
            raise Unusable("the connection was closed")  # else it would make another one
        packed = self._connection.pack_command(command, *names)
        await self._connection.send_packed_command(packed, check_health=False)

    async def hear(self) -> tuple[bytes, bytes, bytes, Any]:
        """What comes next: its kind, the pattern or nothing, the name, the message or a number.

        Raises `ResponseError` if Redis refuses what was sent.
        """
        heard = await self._connection.read_response()
        if isinstance(heard, list) and len(heard) == 3:
            kind, name, message = heard
            return kind, b"", name, message
        if not isinstance(heard, list) or len(heard) != 4:
            raise Unusable("the bus speaks another protocol")
        kind, pattern, name, message = heard
        return kind, pattern, name, message

    async def close(self) -> None:
        """Hang up."""
        await close_connection(self._connection)
