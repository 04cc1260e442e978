"""The thread that owns a blocking store, and the group commit that makes one sync serve many.

The loop puts jobs into a queue. The thread takes what has gathered, does all writing jobs in
one transaction, commits, and hands every result of that round to the loop in one call: first
what was placed (to be delivered), then the answers. Reading jobs come after the commit, so
that they never show what might still be undone, and a few at a time, so that ten thousand
clients coming back after a restart do not hold up the publishers.

Rule 1: the store is touched on this thread only. Rule 2: `settle`, `done` and `renewed` run on
the loop only, in the order of the rounds. Rule 3: no job is left without an answer; a round that
fails is undone as a whole and answered with one error.

Imported by the SQLite broker.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from push_server import log
from push_server.errors import PushError, Unavailable
from push_server.publications import Publication

ROUND_LIMIT = 1_000
"""Publications in one transaction, about: bounds how long the first of them waits."""

READS_PER_ROUND = 16
"""Windows read from the disk (a few milliseconds each) before publishers get their turn."""

WAITING_BYTES = 64 * 1024 * 1024
"""Of what waits to be written, about: a disk that hangs must not fill the memory."""

TIDY_SECONDS = 1.0

Placed = Mapping[str, Sequence[Publication]]
"""The publications of one round by channel, in order."""


class Store(Protocol):
    """What the thread needs of a store; every method may block."""

    def open(self) -> Any:
        """Open it; the value is handed to whoever started the writer."""

    def begin(self) -> None:
        """Start a transaction."""

    def commit(self) -> Placed:
        """Make the transaction durable; what it placed."""

    def rollback(self) -> None:
        """Undo the transaction, whatever state it is in. Never raises."""

    def tidy(self) -> None:
        """Drop a bounded amount of what has expired. Called about once a second."""

    def failure(self, error: Exception) -> PushError:
        """The answer to those whose job met this error."""

    def renew(self) -> Any | None:
        """If it is damaged, begin anew; then what `open` returns. Called often; never raises."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(slots=True, eq=False)
class Job:
    """Something to do with the store, and who wants to know the result."""

    work: Callable[[Any], Any]
    """Called with the store, on the writer's thread."""
    done: Callable[[Any], None]
    """Called with the result or a `PushError`, on the loop."""
    writes: bool = True
    weight: int = 1
    """How many publications it writes, about."""

    size: int = 0
    """How many bytes it keeps while it waits, about."""


class Writer:
    """Runs jobs on a store of its own, in the order given."""

    def __init__(
        self, store: Store, settle: Callable[[Placed], None], renewed: Callable[[Any], None]
    ) -> None:
        self._store = store
        self._settle = settle
        self._renewed = renewed  # called after a damaged store has begun anew
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._reads: deque[Job] = deque()
        self._waiting = 0
        """Bytes of the jobs that are not done yet; of the loop alone."""
        self._stopping = False
        # A daemon: if the main thread dies, nothing may keep the process alive. What was
        # answered is committed, so nothing is lost by being cut off.
        self._thread = threading.Thread(target=self._run, name="broker-writer", daemon=True)
        self._accepts = False

    async def start(self) -> Any:
        """Open the store and start taking jobs; what `Store.open` returned."""
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Any] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        value = await self._opened
        if isinstance(value, PushError):
            self._thread.join()
            raise value
        self._accepts = True
        return value

    async def close(self) -> None:
        """Do all jobs given so far, then close the store."""
        if not self._accepts:
            return
        self._accepts = False
        self._queue.put(None)
        await self._ended
        self._thread.join()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises `Unavailable` if the writer has ended, or has too much to do."""
        if not self._accepts:
            raise Unavailable("storage_closed", "The log is closed.", retry_after=1)
        if self._waiting and job.size and self._waiting + job.size > WAITING_BYTES:
            raise Unavailable("storage_slow", "The disk does not keep up.", retry_after=1)
        self._waiting += job.size
        self._queue.put(job)

    async def ask(self, work: Callable[[Any], Any], weight: int = 1, size: int = 0) -> Any:
        """Have a writing job done; its result, which may be a `PushError`."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.submit(Job(work, lambda value: _resolve(answer, value), weight=weight, size=size))
        return await answer

    # Everything below runs on the writer's thread, but for _finish, which runs on the loop.

    def _run(self) -> None:
        try:
            opened = self._store.open()
        except Exception as error:  # noqa: BLE001 - the starter gets it, whatever it is
            self._store.close()
            failure = self._store.failure(error)
            self._post(lambda: _resolve(self._opened, failure))
            return
        self._post(lambda: _resolve(self._opened, opened))
        tidied = time.monotonic()
        while not (self._stopping and self._queue.empty() and not self._reads):
            writes = self._take()
            if writes:
                self._commit(writes)
            self._answer_reads()
            try:
                if time.monotonic() - tidied >= TIDY_SECONDS:
                    tidied = time.monotonic()
                    self._store.tidy()
                self._renew()
            except Exception as failure:  # noqa: BLE001 - whatever it is, the thread must live
                log.error("storage.tidy_failed", failure)
        self._store.close()
        self._post(lambda: _resolve(self._ended, None))

    def _take(self) -> list[Job]:
        """The writing jobs of the next round; reading jobs go to their own line."""
        writes: list[Job] = []
        weight = 0
        patience = 0.0 if self._reads or self._stopping else TIDY_SECONDS
        try:
            job = self._queue.get(timeout=patience) if patience else self._queue.get_nowait()
            while True:
                if job is None:
                    self._stopping = True
                elif job.writes:
                    writes.append(job)
                    weight += job.weight
                else:
                    self._reads.append(job)
                if weight >= ROUND_LIMIT:
                    break
                job = self._queue.get_nowait()
        except queue.Empty:
            pass
        return writes

    def _commit(self, jobs: list[Job]) -> None:
        placed: Placed = {}
        try:
            self._store.begin()
            values = [job.work(self._store) for job in jobs]
            placed = self._store.commit()
        except Exception as error:  # noqa: BLE001 - no job may be left without an answer
            self._store.rollback()
            values = [self._store.failure(error)] * len(jobs)
        self._post(lambda: self._finish(placed, jobs, values))

    def _answer_reads(self) -> None:
        jobs = [self._reads.popleft() for _ in range(min(len(self._reads), READS_PER_ROUND))]
        if not jobs:
            return
        values = []
        for job in jobs:
            try:
                values.append(job.work(self._store))
            except Exception as error:  # noqa: BLE001 - each has its own answer
                values.append(self._store.failure(error))
        self._post(lambda: self._finish({}, jobs, values))

    def _renew(self) -> None:
        renewed = self._store.renew()
        if renewed is not None:
            self._post(lambda: self._renewed(renewed))

    def _finish(self, placed: Placed, jobs: list[Job], values: list[Any]) -> None:
        self._waiting -= sum(job.size for job in jobs)
        try:
            self._settle(placed)
        finally:
            for job, value in zip(jobs, values, strict=True):
                job.done(value)

    def _post(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            # The loop was closed without closing the broker: nobody is left to be told.
            log.warn("broker.loop_gone")


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
