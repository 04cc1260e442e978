"""Waiting for what comes about by itself: a condition and a generous deadline, never a pause.

Whoever waits here goes on as soon as it is so; only a failure takes the whole time. Imported by
the tests and by what they start.
"""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable
from inspect import isawaitable
from typing import Any, TypeVar

PATIENCE = 20.0
"""Seconds after which something is taken for missing; long, because test machines are slow."""

PROMPT = 5.0
"""Seconds in which that is done which is done at once, on a machine that stalls for a moment, too;
what waits for one of our timers takes longer."""

PAUSE = 0.01

Result = TypeVar("Result")


def wait_for(
    condition: Callable[[], Any], otherwise: object = "", seconds: float = PATIENCE
) -> Any:
    """The first true value of the condition; fails after so many seconds.

    `otherwise` are the words of the failure, or what makes them when they are needed.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        _check(deadline, otherwise, seconds)
        time.sleep(PAUSE)
    return found


async def until(
    condition: Callable[[], Any], otherwise: object = "", seconds: float = PATIENCE
) -> Any:
    """The same while the loop runs; the condition may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if isawaitable(found):
            found = await found
        if found:
            return found
        _check(deadline, otherwise, seconds)
        await asyncio.sleep(PAUSE)


def retried(
    action: Callable[[], Result], *errors: type[Exception], seconds: float = PATIENCE
) -> Result:
    """What the action returns, tried again for as long as it raises one of these errors."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except errors as error:
            _check(deadline, repr(error), seconds)
        time.sleep(PAUSE)


def wait_until_up(
    process: "subprocess.Popen[Any]",
    is_up: Callable[[], bool],
    said: Callable[[], str] = str,
    seconds: float = PATIENCE,
) -> None:
    """Return when a program that was just started is up; fail with what it said."""

    def check() -> bool:
        assert process.poll() is None, f"it ended by itself: {said()}"
        with contextlib.suppress(OSError):
            return is_up()
        return False

    wait_for(check, said, seconds)


def _check(deadline: float, otherwise: object, seconds: float) -> None:
    if time.monotonic() > deadline:
        words = otherwise() if callable(otherwise) else otherwise
        raise AssertionError(f"still not so after {seconds:g} s: {words}")
