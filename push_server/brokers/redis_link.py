"""The connections to Redis: one that asks, one that listens, and others aside.

The link sends what gathered while it waited for the last replies in one write and reads as many
replies back. It belongs to a task of its own; whoever asks only waits for a future. So a caller
that is cancelled leaves no reply behind for the next one, which is how one user once got
another's data (CVE-2023-28858). Whatever else goes wrong between a command and its reply, this
connection is closed and never used again.

What is asked goes before what is only read, so that a crowd of clients coming back does not hold
up those who publish. Nobody waits longer than `PATIENCE` for an answer, and `READ_PATIENCE` for
something to read. An answer that does not come in time is `Unavailable`, which says that nobody
knows whether it happened.

Only the event loop runs this. Imported by the Redis broker and whoever else talks to a Redis; the
only importer of redis.
"""

import asyncio
import contextlib
import random
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
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

from push_server import log
from push_server.brokers.redis_url import RedisAddress
from push_server.errors import PushError, StorageFull, Unavailable

__all__ = [
    "FAILURES",
    "PATIENCE",
    "READ_PATIENCE",
    "RETRY_SECONDS",
    "SILENCE",
    "Aside",
    "Call",
    "Ear",
    "Link",
    "ResponseError",
    "Script",
    "ServerInfo",
    "Unusable",
]

PATIENCE = 1.5
"""Seconds for an answer; whoever publishes hears `Unavailable` within two."""
READ_PATIENCE = 5.0
"""Seconds for something to read: refusing a client that waits makes more work than serving it."""
CONNECT_SECONDS = 5.0
SILENCE = 5.0
"""Seconds in which a listening connection must hear something: it has its own heartbeat."""
BATCH_COMMANDS = 500
BATCH_READS = 100
"""Commands in one write; what is asked meanwhile waits for their replies."""
RETRY_SECONDS = (0.05, 1.0)
"""The first and the longest pause between two attempts to connect."""

OLDEST = (7, 0)
"""The first Redis that always passes scripts on by their effects, never to be run again."""

T = TypeVar("T")

AnyConnection = Connection | UnixDomainSocketConnection


class Unusable(Exception):
    """Raised if this Redis must not be used; the message says what to do."""


class Script:
    """A Lua script beside this file; several files make one script."""

    def __init__(self, *names: str) -> None:
        folder = files("push_server.brokers")
        self.text = "".join((folder / f"{name}.lua").read_text("utf-8") for name in names)
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """A script, its keys and arguments; `stamped` ones get three more in front (`Link.stamp`)."""

    script: Script
    keys: Sequence[str | bytes]
    args: Sequence[str | bytes | int | float]
    stamped: bool = False


Command = Call | tuple[str | bytes | int, ...]


class ServerInfo(NamedTuple):
    """What a Redis says of itself."""

    run_id: str
    trusted: bool
    """Whether a restart of it loses nothing that was answered."""


@dataclass(slots=True, eq=False)
class _Job:
    commands: Sequence[Command]
    answer: asyncio.Future[list[Any]]
    reads: bool
    """It changes nothing: if its answer is lost, it is asked again."""


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


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
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


async def _opened(address: RedisAddress) -> AnyConnection:
    """A connection that is open; raises one of `FAILURES`."""
    connection = _connection(address)
    try:
        await _within(CONNECT_SECONDS, connection.connect())  # type: ignore[no-untyped-call]
    except BaseException:
        await _close(connection)
        raise
    return connection


async def _close(connection: AnyConnection) -> None:
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


async def _ask(connection: AnyConnection, *command: str | bytes) -> Any:
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    return await connection.read_response()


async def _inspect(connection: AnyConnection) -> ServerInfo:
    """What the server says of itself, if it may be used. Raises `Unusable` otherwise."""
    text = (await _ask(connection, "INFO")).decode("utf-8", "replace")
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    version = info.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise Unusable(f"Redis {version} is too old; 7.0 or newer is needed")
    if info.get("role") != "master":
        raise Unusable("this Redis is a replica; name its primary")
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
            found = await _ask(connection, "CONFIG", "GET", name)
            settings.update(zip(found[::2], found[1::2], strict=True))
    flushed = settings == {b"appendonly": b"yes", b"appendfsync": b"always"}
    # One that has been a replica may lack what its primary had answered.
    never_replica = not info.get("master_replid2", "").strip("0")
    return ServerInfo(info["run_id"], flushed and never_replica)


async def _check_open(connection: AnyConnection) -> None:
    """Notice that an idle connection was closed before anything is trusted to it."""
    # Releases before 8 have only the second.
    check = getattr(connection, "can_read", None) or connection.can_read_destructive
    if await check():
        raise Unusable("the connection was closed while it was idle")


class Link:
    """The connection that asks."""

    def __init__(
        self,
        address: RedisAddress,
        scripts: Sequence[Script],
        stamp: Callable[[ServerInfo], tuple[str, ...]],
        changed: Callable[[bool], None],
    ) -> None:
        self.up = False
        self.generation = 0
        """Counts the connections. What the last one sent may still be carried out."""
        self._address = address
        self._scripts = scripts
        self._stamp = stamp
        self._changed = changed
        self._jobs: deque[_Job] = deque()
        self._reads: deque[_Job] = deque()
        self._heard_at: float | None = None
        """When the last reply came, while more are to come."""
        self._life: asyncio.Task[None] | None = None
        """The task that the connection lives in: it ends with it, however that is."""
        self._wake = asyncio.Event()
        self._came_up = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect. Raises `Unusable`, naming what to do, if that fails."""
        try:
            connection = await self._connect()
        except FAILURES as error:
            raise Unusable(_explained(error)) from error
        self._task = asyncio.create_task(self._run(connection), name="redis-link")

    async def close(self) -> None:
        """Finish what was asked, then close the connection."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=2 * PATIENCE)
            await end(self._task)

    async def ask(self, *commands: Command) -> list[Any]:
        """The replies to these commands, in order; an error is in its place among them.

        Raises `Unavailable` if the replies do not come in time: then nobody knows.
        """
        return await self._queue(commands, reads=False)

    async def read(self, *commands: Command) -> list[Any]:
        """The same for what may wait until everything that was asked is answered."""
        return await self._queue(commands, reads=True)

    async def _queue(self, commands: Sequence[Command], reads: bool) -> list[Any]:
        if self._closing:
            raise Unavailable("broker_closed", "The log is closed.", retry_after=1)
        loop = asyncio.get_running_loop()
        job = _Job(commands, loop.create_future(), reads)
        line = self._reads if reads else self._jobs
        line.append(job)
        self._wake.set()
        expiry = loop.call_later(READ_PATIENCE if reads else PATIENCE, self._expire, job)
        try:
            return await job.answer
        finally:
            expiry.cancel()
            # While Redis is away nobody else takes them out, and an outage can last.
            while line and line[0].answer.done():
                line.popleft()

    def _expire(self, job: _Job, turns: int = 2) -> None:
        """Wait for an answer no longer."""
        loop = asyncio.get_running_loop()
        if job.answer.done():
            return
        if turns:
            # If the loop was late, the answer may be here, and not looked at yet.
            loop.call_soon(self._expire, job, turns - 1)
            return
        _fail(job, "no answer in time")
        if self._heard_at is not None and loop.time() - self._heard_at >= PATIENCE:
            assert self._life is not None
            self._life.cancel()

    async def wait(self) -> None:
        """Return when the connection is up. Raises `Unavailable` if that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._came_up.wait()
        if not self.up:
            raise unavailable("the connection is down")

    async def one(self, command: Command) -> Any:
        """The reply to one command; raises what went wrong with it as a `PushError`."""
        (reply,) = await self.ask(command)
        if isinstance(reply, ResponseError):
            raise failure(reply)
        return reply

    async def _connect(self) -> AnyConnection:
        connection = await _opened(self._address)
        try:
            await _within(CONNECT_SECONDS, self._greet(connection))
        except BaseException:
            await _close(connection)
            raise
        self.generation += 1
        return connection

    async def _greet(self, connection: AnyConnection) -> None:
        self._server = await _inspect(connection)
        for script in self._scripts:
            await _ask(connection, "SCRIPT", "LOAD", script.text)

    async def _run(self, connection: AnyConnection | None) -> None:
        pause = RETRY_SECONDS[0]
        while True:
            life = self._life = asyncio.create_task(self._live(connection))
            try:
                await asyncio.wait([life])
            finally:
                await end(life)
            connection = None
            if self.up:
                pause = RETRY_SECONDS[0]
            error = TimeoutError("no answer in time") if life.cancelled() else life.exception()
            if error is None or self._closing:
                return
            self._set_up(False, reason_of(error))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, RETRY_SECONDS[1])

    async def _live(self, connection: AnyConnection | None) -> None:
        try:
            if connection is None:
                connection = await self._connect()
            self._set_up(True)
            await self._serve(connection)
        finally:
            if connection is not None:
                await _close(connection)

    def _set_up(self, up: bool, reason: str = "") -> None:
        if up == self.up:
            return
        self.up = up
        if up:
            self._came_up.set()
            log.info("broker.up", generation=self.generation)
        else:
            self._came_up.clear()
            log.warn("broker.down", reason=reason)
        self._changed(up)

    async def _serve(self, connection: AnyConnection) -> None:
        """Exchange until the connection fails or the link is closed and nothing is left."""
        while self._jobs or self._reads or not self._closing:
            if not self._jobs and not self._reads:
                self._wake.clear()
                await self._wake.wait()
                await _check_open(connection)
                continue
            batch = [*_taken(self._jobs, BATCH_COMMANDS), *_taken(self._reads, BATCH_READS)]
            try:
                await self._exchange(connection, batch)
            except BaseException as error:
                for job in reversed(batch):
                    if job.reads:
                        self._reads.appendleft(job)
                    else:
                        _fail(job, reason_of(error))
                raise
            finally:
                self._heard_at = None

    async def _exchange(self, connection: AnyConnection, batch: Sequence[_Job]) -> None:
        loop = asyncio.get_running_loop()
        commands = [self._packable(command) for job in batch for command in job.commands]
        packed = connection.pack_commands(commands)
        self._heard_at = loop.time()
        await connection.send_packed_command(packed, check_health=False)
        for job in batch:
            replies: list[Any] = []
            for _ in job.commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
            self._heard_at = loop.time()
            if not job.answer.done():
                job.answer.set_result(replies)
            for reply in replies:
                if isinstance(reply, NoScriptError):
                    raise Unusable("the scripts were flushed")  # a new connection loads them
                if isinstance(reply, ReadOnlyError):
                    # The next connection may lead to its successor.
                    raise Unusable("this Redis has become a replica")

    def _packable(self, command: Command) -> tuple[str | bytes | int | float, ...]:
        if not isinstance(command, Call):
            return command
        # Stamped only now: it must speak of the Redis that is going to run it.
        stamp = self._stamp(self._server) if command.stamped else ()
        script = command.script.sha
        return ("EVALSHA", script, len(command.keys), *command.keys, *stamp, *command.args)


def _taken(jobs: deque[_Job], most: int) -> list[_Job]:
    """Take the first jobs, with so many commands or a little more, that anybody waits for."""
    taken: list[_Job] = []
    size = 0
    while jobs and size < most:
        job = jobs.popleft()
        if not job.answer.done():  # else its time was over before it was sent
            taken.append(job)
            size += len(job.commands)
    return taken


def _explained(error: BaseException) -> str:
    if isinstance(error, Unusable):
        return str(error)
    if isinstance(error, AuthenticationError) or str(error).startswith(("WRONGPASS", "NOAUTH")):
        return f"Redis does not accept the user or the password ({reason_of(error)})"
    return f"Redis cannot be reached ({reason_of(error)})"


def _fail(job: _Job, reason: str) -> None:
    if not job.answer.done():
        job.answer.set_exception(unavailable(reason))


def unavailable(reason: str) -> Unavailable:
    """The answer while Redis is away."""
    return Unavailable(
        "broker_unavailable", f"Redis does not answer ({reason}); try again.", retry_after=1
    )


def failure(error: ResponseError) -> PushError:
    """What an error reply of Redis is to whoever asked."""
    # Version 4 has no class for it, later ones take the word away.
    if str(error).startswith("OOM") or type(error).__name__ == "OutOfMemoryError":
        return StorageFull(
            "storage_full", "Redis has reached its `maxmemory`; nothing was stored."
        )
    log.rejected("broker.refused", "all", reason=reason_of(error))
    return unavailable("it refused the command")


class Aside:
    """A connection beside the broker's, for who asks one thing at a time and may wait long."""

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, address: RedisAddress) -> "Aside":
        """Connect; raises one of `FAILURES`."""
        return cls(await _opened(address))

    async def ask(self, *command: str | bytes, seconds: float = PATIENCE) -> Any:
        """The reply to one command.

        Raises `ResponseError` if Redis refuses it, else one of `FAILURES`: then, or if whoever asks
        is cancelled, the connection is closed, because the reply may still come; the next question
        opens another.
        """
        try:
            return await _within(seconds, _ask(self._connection, *command))
        except ResponseError:
            raise
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Hang up."""
        await _close(self._connection)


class Ear:
    """A connection that listens to bus names."""

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, address: RedisAddress) -> "Ear":
        """Connect; raises one of `FAILURES`."""
        return cls(await _opened(address))

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
        await _close(self._connection)
