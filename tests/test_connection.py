"""Connections: what they send, queue, cut and give back; on socket pairs, with a clock by hand."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from push_server import connection as module
from push_server.connection import (
    MIN_DRAIN_RATE,
    MIN_DRAIN_SECONDS,
    IteratorConnection,
    SocketConnection,
)
from push_server.watch import Watch

BUDGET = 10_000


class Clock:
    """Stands in for the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Owner:
    """What a connection needs of the hub, and what it told it."""

    queue_bytes = BUDGET

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.faults: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.watch = Watch(self.loop)
        self.blocked: set[SocketConnection] = set()
        self.ends: list[str] = []

    def closed(self, connection: Any, reason: str) -> None:
        self.ends.append(reason)

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.loop.run_until_complete(asyncio.sleep(0))


class Line:
    """A connection, and the client at the other end of the socket pair."""

    def __init__(self, *, poll: bool = False) -> None:
        self.owner = Owner()
        self.client, self.sock = socket.socketpair()
        for end in (self.client, self.sock):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.given_back: list[socket.socket] = []
        self.connection = SocketConnection(
            self.owner, self.sock, self.given_back.append if poll else None
        )

    def fill(self) -> None:
        """Write until the kernel takes no more; then at most 1,000 bytes wait."""
        while self.connection.idle:
            self.connection.write(b"x" * 1000)

    def read(self, size: int = 1_000_000) -> bytes:
        """What has arrived, letting the connection send the rest as long as it comes."""
        data = b""
        while len(data) < size:
            try:
                piece = self.client.recv(min(65_536, size - len(data)))
            except BlockingIOError:
                self.owner.turn()
                try:
                    piece = self.client.recv(min(65_536, size - len(data)))
                except BlockingIOError:
                    return data
            if not piece:
                return data
            data += piece
        return data

    def close(self) -> None:
        self.connection.close("test")
        self.owner.turn()
        assert self.owner.faults == []
        self.owner.watch.close()
        self.owner.loop.close()
        self.client.close()
        self.sock.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


@pytest.fixture
def poll_line() -> Iterator[Line]:
    made = Line(poll=True)
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(module, "time", fake)
    return fake


def test_what_fits_is_sent_at_once(line: Line) -> None:
    line.connection.write(b"one")
    line.connection.write(b"two")
    assert line.client.recv(100) == b"onetwo"
    assert line.connection.idle and not line.owner.blocked


def test_what_does_not_fit_follows_in_order(line: Line) -> None:
    line.fill()
    for number in range(90):
        line.connection.write(b"%100d" % number)
    assert line.owner.blocked == {line.connection}
    numbers = line.read().lstrip(b"x")
    assert [int(number) for number in numbers.split()] == list(range(90))
    assert line.connection.idle and not line.owner.blocked


def test_one_write_may_be_larger_than_the_budget_if_nothing_waits(line: Line) -> None:
    # Else a publication larger than the budget could never be told to anybody.
    line.connection.write(b"x" * (50 * BUDGET))
    assert line.owner.ends == []
    assert len(line.read()) == 50 * BUDGET


def test_the_budget_is_exact(line: Line) -> None:
    line.fill()
    room = BUDGET - len(line.connection._queue or b"")
    line.connection.write(b"y" * room)
    assert line.owner.ends == []
    line.connection.write(b"z")
    assert line.owner.ends == ["slow"]
    assert line.sock.fileno() < 0 and not line.owner.blocked


def test_a_hang_up_is_noticed(line: Line) -> None:
    line.client.close()
    line.owner.turn()
    assert line.owner.ends == ["gone"]


def test_a_reset_is_noticed_when_writing(line: Line) -> None:
    line.client.close()
    line.connection.write(b"x")
    assert line.owner.ends == ["gone"]
    line.connection.write(b"y")
    line.connection.finish("done")
    line.connection.close("again")
    assert line.owner.ends == ["gone"], "it ends once"


def test_a_hang_up_while_blocked_is_noticed(line: Line) -> None:
    line.fill()
    line.client.close()
    line.owner.turn()
    assert line.owner.ends == ["gone"]
    assert not line.owner.blocked


def test_a_stream_that_talks_is_cut(line: Line) -> None:
    line.client.send(b"GET / HTTP/1.1\r\n")
    line.owner.turn()
    assert line.owner.ends == ["talked"]


def test_what_a_poll_says_early_is_its_next_request(poll_line: Line) -> None:
    line = poll_line
    line.client.send(b"next")
    line.owner.turn()
    assert line.owner.ends == []
    line.connection.write(b"answer")
    assert line.connection.release()
    assert line.given_back == [], "first all others of this turn are served"
    line.owner.turn()
    assert line.given_back == [line.sock] and line.owner.ends == ["released"]
    assert line.sock.recv(100) == b"next", "not a byte was taken out"


def test_a_released_socket_is_watched_no_longer(poll_line: Line) -> None:
    line = poll_line
    assert line.connection.release()
    line.client.close()
    line.owner.turn()
    assert line.owner.ends == ["released"]
    assert line.sock.fileno() >= 0
    line.sock.close()


def test_what_cannot_be_given_back(line: Line, poll_line: Line) -> None:
    assert not line.connection.release(), "a stream"
    poll_line.fill()
    assert not poll_line.connection.release(), "bytes wait"
    poll_line.connection.close("x")
    assert not poll_line.connection.release(), "it is closed"
    assert poll_line.given_back == []


def test_when_idle_calls_once(line: Line) -> None:
    calls: list[int] = []
    line.fill()
    line.connection.when_idle(lambda: calls.append(1))
    line.owner.turn()
    assert calls == []
    line.read()
    assert calls == [1]
    line.fill()
    line.read()
    assert calls == [1]


def test_finish_waits_for_what_is_queued(line: Line) -> None:
    line.fill()
    line.connection.write(b"last words")
    line.connection.finish("done")
    assert line.owner.ends == []
    assert line.read().endswith(b"last words")
    assert line.owner.ends == ["done"]
    assert line.client.recv(1) == b""


def test_finish_of_an_idle_one_is_at_once(line: Line) -> None:
    line.connection.finish("done")
    assert line.owner.ends == ["done"]


def test_stalled(line: Line, clock: Clock) -> None:
    line.fill()
    assert not line.connection.stalled(clock.now + 30, 30)
    assert line.connection.stalled(clock.now + 30.1, 30)
    line.connection.write(b"x" * (BUDGET - 1000))
    clock.now += 29
    while len(line.connection._queue or b"") > BUDGET - 1000:
        line.client.recv(1000)
        line.owner.turn(1)
    assert line.owner.blocked == {line.connection}
    assert not line.connection.stalled(clock.now + 29, 30), "it took something"


def test_the_least_rate(line: Line, clock: Clock) -> None:
    line.fill()
    connection = line.connection
    connection._drained = 0
    for seconds in range(1, int(MIN_DRAIN_SECONDS) * 3):
        clock.now += 1
        connection._progress_at = clock.now
        connection._drained += MIN_DRAIN_RATE - 1
        assert connection.stalled(clock.now, 30) == (seconds > MIN_DRAIN_SECONDS)
    connection._drained += 10 * MIN_DRAIN_RATE
    assert not connection.stalled(clock.now, 30)


def test_a_number_used_again_is_somebody_elses(line: Line) -> None:
    # The kernel gives the lowest free descriptor: the next socket gets the number of the last.
    line.fill()
    number = line.sock.fileno()
    line.connection.close("gone")
    client, again = socket.socketpair()
    ends = {client.fileno(): client, again.fileno(): again}
    assert number in ends
    reused = ends[number]
    other = again if reused is client else client
    reused.setblocking(False)
    newcomer = SocketConnection(line.owner, reused, None)
    other.send(b"x")
    line.owner.turn()
    assert line.owner.ends == ["gone", "talked"]
    newcomer.close("test")
    other.close()


# The watch


def test_a_callback_that_fails_does_not_hurt_the_others() -> None:
    owner = Owner()
    pairs = [socket.socketpair() for _ in range(3)]
    calls: list[int] = []

    def fault() -> None:
        calls.append(-1)
        raise ArithmeticError("a fault of the test")

    owner.watch.add(pairs[0][0].fileno(), fault)
    for number, (ours, _) in enumerate(pairs[1:]):
        owner.watch.add(ours.fileno(), lambda number=number: calls.append(number))  # type: ignore[misc]
    for _, theirs in pairs:
        theirs.send(b"x")
    owner.turn(4)
    assert {0, 1} <= set(calls)
    assert calls.count(-1) == 1, "it would be ready for ever"
    owner.watch.close()
    owner.loop.close()
    for pair in pairs:
        for end in pair:
            end.close()


def test_forgetting_what_is_not_known() -> None:
    owner = Owner()
    owner.watch.drop(0)
    owner.watch.close()
    owner.loop.close()


# The connection of another WSGI server


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.watch.close()
    made.loop.close()


def test_an_iterator_yields_what_is_written_and_ends(owner: Owner) -> None:
    connection = IteratorConnection(owner)
    connection.write(b"one")
    pieces = iter(connection)
    assert next(pieces) == b"one" and connection.idle
    connection.write(b"two")
    connection.finish("done")
    connection.write(b"three")
    assert list(pieces) == [b"two"]
    assert owner.ends == ["done"]
    connection.close("again")
    assert owner.ends == ["done"]
    assert not connection.release()


def test_nothing_written_is_not_the_end_of_an_iterator(owner: Owner) -> None:
    connection = IteratorConnection(owner)
    for data in (b"", b"one", b"", b"two"):
        connection.write(data)
    connection.finish("done")
    assert list(connection) == [b"one", b"two"]


def test_an_iterator_waits_for_the_loop(owner: Owner) -> None:
    connection = IteratorConnection(owner)
    taken: list[bytes] = []
    thread = threading.Thread(target=lambda: taken.extend(connection))
    thread.start()
    connection.write(b"one")
    connection.close("done")
    thread.join(10)
    assert taken == [b"one"]


def test_an_iterator_has_a_budget(owner: Owner) -> None:
    connection = IteratorConnection(owner)
    connection.write(b"x" * (2 * BUDGET))
    assert owner.ends == [], "nothing waited"
    connection.write(b"y")
    assert owner.ends == ["slow"]


def test_waiting_for_an_iterator_does_not_spin(owner: Owner) -> None:
    connection = IteratorConnection(owner)
    connection.write(b"x")
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if not connection.idle:
            connection.when_idle(look)

    connection.when_idle(look)
    owner.turn(50)
    assert len(looks) <= 1
