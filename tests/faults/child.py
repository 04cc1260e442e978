"""Processes of the rig: how they are started, told what to do, and asked.

A child reads one JSON object per line: first its configuration, then commands
``{"do":…,"number":…}``. It answers ``{"number":…,"reply":…}`` and, once a second, tells its
figures as ``{"figures":…}``. When its input ends, it ends: no child outlives the rig.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from faults.logs import Row

TESTS = Path(__file__).resolve().parent.parent
ANSWER_LIMIT = 90.0


class Child:
    """A process of the rig, seen from the rig."""

    def __init__(self, module: str, config: Row, errors: Path) -> None:
        self.module = module
        self.figures: Row = {}
        self._number = 0
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._errors = errors
        with errors.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"faults.{module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
            )
        self._send(config)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _send(self, row: Row) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(row).encode() + b"\n")
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            row = json.loads(line)
            if "figures" in row:
                self.figures = row["figures"]
            else:
                self._waiting.pop(row["number"]).set_result(row["reply"])
        for waiting in self._waiting.values():
            waiting.set_exception(AssertionError(f"{self._errors} says why a process ended"))

    def ask(self, do: str, **params: Any) -> Any:
        """Have something done, and wait for the answer."""
        future: Future[Any] = Future()
        with self._lock:
            self._number += 1
            self._waiting[self._number] = future
            self._send({"do": do, "number": self._number, **params})
        return future.result(ANSWER_LIMIT)

    def close(self) -> None:
        """Let it end by itself, or kill it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        self.process.stdout.close()


class Actor:
    """What a child does. Subclasses have a coroutine `do_NAME` for each command."""

    def __init__(self, config: Row) -> None:
        self.config = config
        self._origin: float = config["origin"]
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._origin

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run something beside the commands."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A rig that is broken must not look like a server that is well.
            sys.stderr.write(f"{task.exception()!r}\n")
            task.print_stack()
            os._exit(1)

    async def start(self) -> None:
        """Begin."""

    def figures(self) -> Row:
        """What is told once a second."""
        return {}

    def close(self) -> None:
        """Write down what is still in memory."""


async def _tell(actor: Actor) -> None:
    while True:
        await asyncio.sleep(1)
        _say({"figures": actor.figures()})


def _say(row: Row) -> None:
    os.write(1, json.dumps(row).encode() + b"\n")


async def _answer(actor: Actor, command: Row) -> None:
    number, do = command.pop("number"), command.pop("do")
    reply = await getattr(actor, f"do_{do}")(**command)
    _say({"number": number, "reply": reply})


async def _serve(kind: type[Actor]) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    actor = kind(json.loads(await commands.readline()))
    await actor.start()
    actor.spawn(_tell(actor))
    try:
        while line := await commands.readline():
            actor.spawn(_answer(actor, json.loads(line)))
    finally:
        actor.close()


def main(kind: type[Actor]) -> None:
    """Run as a child until the rig closes our input."""
    asyncio.run(_serve(kind))
