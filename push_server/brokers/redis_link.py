"""The connection to Redis that everybody of this node shares.

The link sends what gathered while it waited for the last replies in one write and reads as many
replies back. It belongs to a task of its own; whoever asks only waits for a future. So a caller
that is cancelled leaves no reply behind for the next one, which is how one user once got
another's data (CVE-2023-28858). Whatever else goes wrong between a command and its reply, this
connection is closed and never used again.

What is asked goes before what is only read, so that a crowd of clients coming back does not hold
up those who publish. Nobody waits longer than `PATIENCE` for an answer, and `READ_PATIENCE` for
something to read; while Redis is away all wait together, not one after the other. An answer that
does not come in time is `Unavailable`, which says that nobody knows whether it happened.

Only the event loop runs this. Imported by the Redis broker and its parts.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

from push_server import log
from push_server.brokers.redis_connection import (
    CONNECT_SECONDS,
    FAILURES,
    PATIENCE,
    RETRY_SECONDS,
    AnyConnection,
    AuthenticationError,
    Away,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    ServerInfo,
    Unusable,
    ask,
    check_open,
    close_connection,
    end,
    open_connection,
    reason_of,
    server_info,
    within,
)
from push_server.brokers.redis_url import RedisAddress
from push_server.errors import PushError, StorageFull, Unavailable

READ_PATIENCE = 5.0
"""Seconds for something to read: refusing a client that waits makes more work than serving it."""
BATCH_COMMANDS = 500
BATCH_READS = 100
"""Commands in one write; what is asked meanwhile waits for their replies."""


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


@dataclass(slots=True, eq=False)
class _Job:
    commands: Sequence[Command]
    answer: asyncio.Future[list[Any]]
    reads: bool
    """It changes nothing: if its answer is lost, it is asked again."""


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
        self._listening = False
        """Whether it is looked after how long the connection is silent."""
        self._away_since: float | None = None
        """Since when Redis does not answer, as far as is known."""
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
        except Unusable:
            raise
        except FAILURES as error:
            raise _explained(error) from error
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
        patience = self._left(READ_PATIENCE if reads else PATIENCE)
        expiry = loop.call_later(patience, self._expire, job)
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
        if not self._listening:
            self._listening = True
            self._break_off()

    def _break_off(self) -> None:
        """End a connection that owes replies, as soon as it has been silent for `PATIENCE`."""
        loop = asyncio.get_running_loop()
        if self._heard_at is None:
            self._listening = False
        elif (left := self._heard_at + PATIENCE - loop.time()) > 0:
            loop.call_later(left, self._break_off)
        else:
            self._listening = False
            self._away_since = self._heard_at
            for job in self._jobs:
                _fail(job, "no answer in time")
            assert self._life is not None
            self._life.cancel()

    def _left(self, patience: float) -> float:
        """What is left of it: a worker waits for each request, and a crowd has more than those."""
        if self._away_since is None:
            return patience
        return max(self._away_since + patience - asyncio.get_running_loop().time(), 0.0)

    async def wait(self) -> None:
        """Return when the connection is up. Raises `Unavailable` if that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._left(PATIENCE)):
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
        connection = await open_connection(self._address)
        try:
            await within(CONNECT_SECONDS, self._greet(connection))
        except BaseException:
            await close_connection(connection)
            raise
        self.generation += 1
        return connection

    async def _greet(self, connection: AnyConnection) -> None:
        self._server = await server_info(connection)
        for script in self._scripts:
            await ask(connection, "SCRIPT", "LOAD", script.text)

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
                await close_connection(connection)

    def _set_up(self, up: bool, reason: str = "") -> None:
        if up == self.up:
            return
        self.up = up
        if up:
            self._away_since = None
            self._came_up.set()
            log.info("broker.up", generation=self.generation)
        else:
            if self._away_since is None:
                self._away_since = asyncio.get_running_loop().time()
            self._came_up.clear()
            log.warn("broker.down", reason=reason)
        self._changed(up)

    async def _serve(self, connection: AnyConnection) -> None:
        """Exchange until the connection fails or the link is closed and nothing is left."""
        while self._jobs or self._reads or not self._closing:
            if not self._jobs and not self._reads:
                self._wake.clear()
                await self._wake.wait()
                await check_open(connection)
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


def _explained(error: BaseException) -> Unusable:
    if isinstance(error, AuthenticationError) or str(error).startswith(("WRONGPASS", "NOAUTH")):
        return Unusable(f"Redis does not accept the user or the password ({reason_of(error)})")
    return Away(f"Redis cannot be reached ({reason_of(error)})")


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
