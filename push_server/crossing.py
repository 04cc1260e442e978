"""The crossing between worker threads and the event loop, and the watch each keeps on the other.

WSGI workers may block and know nothing of the loop; the hub and the brokers run on the loop and
must never block. This is the only place where one calls the other.

The threads watch each other, because a process that lives on with one of them dead looks healthy
and serves nobody: the HTTP front calls `check_loop` about once a second, and the house has the
loop look at the pulse of the front. Either ends the process; the supervisor starts a fresh one.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from push_server import log
from push_server.errors import Unavailable

CALL_SECONDS = 10.0
"""A worker waits this long for the loop before it answers 503."""
SILENCE_SECONDS = 30.0
"""A thread is dead if it has not turned for this long."""

LOOK_SECONDS = 5.0
"""What the time between two looks counts for at most. After more than that the whole process stood
still (a container that was frozen), and every thread gets its turn now."""
EXIT_DEAD_THREAD = 70
"""Exit status when a thread that must live has died (EX_SOFTWARE)."""

T = TypeVar("T")


class Pulse:
    """The beat of one thread, which another looks at about once a second."""

    def __init__(self, thread: str) -> None:
        self._thread = thread
        self._silence = 0.0
        """Seconds without a beat, as far as somebody looked."""
        self._looked_at = time.monotonic()

    def beat(self) -> None:
        """The thread turns (the thread itself)."""
        self._silence = 0.0

    def check(self) -> float:
        """End the process if the thread is dead; the seconds without a beat (the other thread)."""
        now = time.monotonic()
        self._silence += min(now - self._looked_at, LOOK_SECONDS)
        self._looked_at = now
        if self._silence > SILENCE_SECONDS:
            log.warn(f"{self._thread}.dead", silent=SILENCE_SECONDS)
            os._exit(EXIT_DEAD_THREAD)
        return self._silence


class Crossing:
    """Calls from any thread into the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._waking = False
        self._pulse = Pulse("loop")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._beat()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result (worker threads).

        Raises `Unavailable` if the loop does not answer in time. The coroutine is then left to
        finish: what it was storing is stored or not, and a retry with the same id tells which.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise Unavailable("stopping", "The server is stopping.", retry_after=1) from None
        try:
            return future.result(CALL_SECONDS)
        except FutureTimeoutError:
            raise Unavailable("timeout", "The server is overloaded.", retry_after=1) from None

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop, soon (any thread)."""
        self._posted.append((function, args))
        if self._waking:
            return  # one wake-up serves many calls
        self._waking = True
        try:
            self._loop.call_soon_threadsafe(self._run_posted)
        except RuntimeError:
            log.info("crossing.closed")

    def _run_posted(self) -> None:
        self._waking = False  # before the queue is emptied: what comes later wakes us again
        while self._posted:
            function, args = self._posted.popleft()
            try:
                function(*args)
            except Exception as failure:  # noqa: BLE001  # one call, not all that wait behind it
                log.error("post.failed", failure)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start a coroutine whose result nobody waits for (loop only)."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    async def finish(self, seconds: float) -> None:
        """Wait for what was spawned, so long at most (loop only)."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            log.error("task.failed", failure)

    def _beat(self) -> None:
        self._pulse.beat()
        self._loop.call_later(1.0, self._beat)

    def check_loop(self) -> None:
        """End the process if the loop is dead (once a second, from one other thread)."""
        self._pulse.check()
