"""The crossing between threads and the loop."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from push_server import crossing as module
from push_server.crossing import EXIT_DEAD_THREAD, SILENCE_SECONDS, Crossing
from push_server.errors import Denied, Unavailable


class LoopThread:
    """An event loop that runs in a thread, and a crossing into it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.crossing = Crossing(self.loop)
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def close(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
        self.loop.close()


@pytest.fixture
def running() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.close()


async def value(of: Any) -> Any:
    if isinstance(of, BaseException):
        raise of
    return of


def test_a_call_brings_the_result_or_the_error(running: LoopThread) -> None:
    assert running.crossing.call(value(7)) == 7
    with pytest.raises(Denied):
        running.crossing.call(value(Denied("x", "y")))
    with pytest.raises(ZeroDivisionError):
        running.crossing.call(value(ZeroDivisionError()))


def test_a_call_that_takes_too_long_is_left_to_finish(
    running: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.01)
    go, done = asyncio.Event(), threading.Event()

    async def slow() -> None:
        await go.wait()
        done.set()

    with pytest.raises(Unavailable) as error:
        running.crossing.call(slow())
    assert error.value.retry_after
    assert not done.is_set()
    running.loop.call_soon_threadsafe(go.set)
    assert done.wait(10), "what it was storing is stored"


def test_what_was_begun_is_finished_if_it_can_be(running: LoopThread) -> None:
    crossing = running.crossing
    done: list[int] = []

    async def begin(turns: int) -> None:
        async def slow() -> None:
            for _ in range(turns):
                await asyncio.sleep(0.01)
            done.append(turns)

        crossing.spawn(slow())

    crossing.call(crossing.finish(10))
    crossing.call(begin(5))
    crossing.call(crossing.finish(10))
    assert done == [5]
    crossing.call(begin(10_000))
    crossing.call(crossing.finish(0.01))
    (stuck,) = crossing._tasks
    running.loop.call_soon_threadsafe(stuck.cancel)
    crossing.call(crossing.finish(10))
    assert not crossing._tasks


def test_calls_when_the_loop_is_gone() -> None:
    gone = LoopThread()
    gone.close()
    with pytest.raises(Unavailable):
        gone.crossing.call(value(7))
    gone.crossing.post(lambda: None)


def test_posts_run_in_order_on_the_loop(running: LoopThread) -> None:
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def note(number: int) -> None:
        seen.append((number, threading.get_ident()))

    for number in range(100):
        running.crossing.post(note, number)
    running.crossing.post(done.set)
    assert done.wait(10)
    assert seen == [(number, running.thread.ident) for number in range(100)]


def test_no_post_is_lost_between_threads(running: LoopThread) -> None:
    counts: list[int] = []
    post: Callable[..., Any] = running.crossing.post
    threads = [
        threading.Thread(target=lambda: [post(counts.append, 1) for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    done = threading.Event()
    running.crossing.post(done.set)
    assert done.wait(10)
    assert len(counts) == 8000


def test_a_post_that_fails_does_not_hurt_those_behind_it(
    running: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    def fault() -> None:
        raise ArithmeticError("a fault of the test")

    running.crossing.post(fault)
    running.crossing.post(done.set)
    assert done.wait(10)
    assert "event=post.failed" in caplog.text


def test_a_task_that_fails_is_logged_and_forgotten(
    running: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    crossing = running.crossing

    async def spawn_and_wait() -> None:
        crossing.spawn(value(ArithmeticError("a fault of the test")))
        crossing.spawn(asyncio.sleep(0))
        cancelled: Callable[..., Any] = asyncio.Event().wait
        crossing.spawn(cancelled())
        for _ in range(3):
            await asyncio.sleep(0)
        (left,) = crossing._tasks
        left.cancel()
        for _ in range(3):
            await asyncio.sleep(0)

    crossing.call(spawn_and_wait())
    assert crossing._tasks == set()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == ["event=task.failed"]
    assert errors[0].exc_info is not None


class Looks:
    """A crossing whose loop does not turn, and looks at it on a clock by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.ends: list[int] = []
        monkeypatch.setattr("push_server.crossing.os._exit", self.ends.append)
        self.loop = asyncio.new_event_loop()
        self.crossing = Crossing(self.loop)
        self.crossing._pulse._looked_at = self.now

    def look(self, monkeypatch: pytest.MonkeyPatch, after: float, times: int = 1) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("push_server.crossing.time.monotonic", lambda: self.now)
            for _ in range(times):
                self.now += after
                self.crossing.check_loop()


def test_a_silent_loop_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    looks.look(monkeypatch, 1, times=int(SILENCE_SECONDS))
    assert looks.ends == []
    looks.look(monkeypatch, 1)
    assert looks.ends == [EXIT_DEAD_THREAD] == [70]
    looks.loop.close()


def test_a_process_that_was_frozen_gives_its_loop_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch)
    looks.look(monkeypatch, 3600)
    looks.look(monkeypatch, 1, times=20)
    assert looks.ends == []
    looks.loop.close()


def test_a_loop_that_turns_beats() -> None:
    loop = asyncio.new_event_loop()
    crossing = Crossing(loop)
    (timer,) = loop._scheduled  # type: ignore[attr-defined]
    assert 0.5 < timer.when() - loop.time() <= 1
    crossing._pulse._silence = 20.0
    timer._run()
    assert crossing._pulse._silence == 0
    loop.close()
