"""The load generators' handles: `load.c`, `polls.c` and `returning.c`, driven by lines of text."""

import itertools
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.machine import BUILD, Failed, Missing


@dataclass(frozen=True, slots=True)
class Opened:
    """How a number of subscribers came in."""

    seconds: float
    slowest: float


@dataclass(frozen=True, slots=True)
class Received:
    """When a run of numbered publications arrived, in `time.monotonic_ns()`."""

    count: int
    first: int
    half: int
    """When half of the clients had the last of them."""
    last: int


@dataclass(frozen=True, slots=True)
class Returned:
    """What happened to clients that keep their cursors; numbers are of publications."""

    away: int
    """Clients that do not have all that was published."""
    lost: int
    duplicates: int
    resets: int
    cuts: int
    """Streams that ended."""
    refusals: int
    timeouts: int
    """Attempts to come back that failed, or brought nothing in time."""
    back: Sequence[int]
    """When each client that was cut had a publication again, in `time.monotonic_ns()`."""


@dataclass(frozen=True, slots=True)
class Polled:
    """What happened to clients that poll."""

    last: int
    """When the last of them had the publication, in `time.monotonic_ns()`."""
    answers: int
    """To polls, so far."""
    empty: int
    """Of these, those with no publication in them."""


def compile_program(name: str) -> Path:
    """Compile `bench/NAME.c` unless that is done already. Raises `Missing` without gcc."""
    source = Path(__file__).with_name(f"{name}.c")
    program = BUILD / name
    changed = max(path.stat().st_mtime for path in (source, source.with_name("clients.h")))
    if not program.exists() or program.stat().st_mtime < changed:
        try:
            subprocess.run(
                ["gcc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], check=True
            )
        except FileNotFoundError:
            raise Missing("gcc is missing: apt-get install gcc libc6-dev") from None
    return program


class Program:
    """One process of many clients. Use as a context manager; leaving it ends the clients."""

    def __init__(
        self, name: str, requests: Iterable[bytes], lifetime: int, port: int, *more: object
    ) -> None:
        """`more` are arguments behind the port; the process ends after `lifetime` seconds."""
        self._heads = BUILD / f"requests.{port}"
        self._heads.write_bytes(b"".join(request + b"\0" for request in requests))
        arguments = (self._heads, lifetime, port, *more)
        self._process = subprocess.Popen(
            [str(compile_program(name)), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._heads.unlink()

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed("the load generator ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Load(Program):
    """Clients that stamp what they receive."""

    def __init__(self, port: int, requests: Iterable[bytes], lifetime: int) -> None:
        """`requests` holds one request per client."""
        super().__init__("load", requests, lifetime, port)

    def open(self, count: int, receive_buffer: int = 0, window: int = 64) -> Opened:
        """Connect `count` more clients and wait until each has the head of its answer.

        With a `receive_buffer` their sockets hold no more than that, and what they receive is
        not counted. Raises `Failed` if any is refused.
        """
        answer = self._ask(f"open {count} {window} 120 {receive_buffer}")
        if answer["failed"] or answer["unanswered"]:
            raise Failed(
                f"{answer['failed']} subscribers refused ({answer['failure']!r}), "
                f"{answer['unanswered']} never answered"
            )
        return Opened(answer["seconds"], answer["slowest"])

    def wait(self, first: int, last: int, clients: int, seconds: float = 60) -> Received:
        """Wait until `clients` clients have each received the numbers `first` to `last`.

        Raises `Failed` if they have not after so many seconds, or if a number came twice.
        """
        answer = self._ask(f"await {first} {last} {clients} {seconds}")
        expected = clients * (last - first + 1)
        if not answer["complete"] or answer["received"] != expected:
            raise Failed(f"{answer['received']} deliveries, not {expected}, in {seconds} s")
        return Received(answer["received"], answer["first"], answer["half"], answer["last"])

    def pause(self, count: int) -> None:
        """The clients that came last stop reading and keep their connections open."""
        self._ask(f"pause {count}")


class Polls(Program):
    """Clients that ask again as soon as they are answered, and check what they get."""

    def __init__(
        self, port: int, sessions: Iterable[Sequence[bytes]], marks: Sequence[str], lifetime: int
    ) -> None:
        """Each client has a session: requests, of which the last one is asked again and again.

        The bytes 1 and 2 in them stand for what followed these two marks in the answers so far.
        """
        sessions = list(sessions)
        requests = itertools.chain.from_iterable(sessions)
        super().__init__("polls", requests, lifetime, port, len(sessions[0]), *marks)

    def open(self, count: int, window: int = 64) -> float:
        """Connect so many clients and wait until all poll; the seconds it took. Raises `Failed`."""
        answer = self._ask(f"open {count} {window} 60")
        if answer["polling"] != count or answer["failure"]:
            raise Failed(f"{answer['polling']} of {count} clients poll: {answer['failure']!r}")
        return float(answer["seconds"])

    def wait(self, number: int, seconds: float = 60) -> Polled:
        """Wait until each client has had this publication and has asked again.

        Raises `Failed` if that takes longer, or if any client was left out or told twice.
        """
        answer = self._ask(f"await {number} {seconds}")
        if answer["failure"] or any(answer[key] for key in ("away", "lost", "repeated")):
            raise Failed(f"publication {number} did not reach every client once: {answer}")
        return Polled(answer["last"], answer["answers"], answer["empty"])


class Returning(Program):
    """Clients that come back with their cursors when they are cut, and check what they get."""

    def __init__(self, ports: Sequence[int], requests: Iterable[bytes], lifetime: int) -> None:
        """`requests` holds one request per client."""
        super().__init__("returning", requests, lifetime, *ports)

    def open(self, count: int, window: int = 64) -> None:
        """Connect so many clients, to the ports in turn. Raises `Failed` if any is refused."""
        answer = self._ask(f"open {count} {window} 120")
        if answer["open"] != count or answer["refusals"]:
            raise Failed(f"{answer['open']} of {count} connected, {answer['refusals']} refusals")

    def come_back_to(self, ports: Sequence[int]) -> None:
        """From now on clients that are cut come back to one of these, at random."""
        self._ask(f"return {' '.join(map(str, ports))}")

    def wait(self, offset: int, seconds: float) -> Returned:
        """Wait until all have this offset, or for so many seconds; what happened so far."""
        return Returned(**self._ask(f"await {offset} {seconds}"))
