"""The connection under a WebSocket, with its clock in the hands of the test."""

import contextlib
import json
import socket
import time
import tracemalloc
from asyncio import AbstractEventLoop
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from stage import Loop, Stage
from wire_ws import BINARY, CLOSE, CONT, PING, TEXT, frame

from push_server.channels import Namespaces
from push_server.connection import SocketConnection
from push_server.doors.conversation import Conversation
from push_server.doors.lobby import Lobby
from push_server.doors.methods import METHODS
from push_server.settings import Settings
from push_server.tokens import TokenKeys
from push_server.transports.frames import Kind, Violation
from push_server.watch import Watch
from push_server.websocket import GOODBYE_SECONDS, MESSAGE_SECONDS, WebSocketConnection


class Host:
    """As much of a hub as it needs, and what it told."""

    queue_bytes = 100_000

    def __init__(self) -> None:
        self._loop = Loop()
        self.loop: AbstractEventLoop = self._loop
        self.watch = Watch(self.loop)
        self.blocked: set[SocketConnection] = set()
        self.ends: list[str] = []

    def part_with(self, connection: Any, reason: str) -> None:
        connection.finish(reason)

    def closed(self, connection: Any, reason: str) -> None:
        self.ends.append(reason)

    def turn(self, seconds: float = 0) -> None:
        self._loop.turn(seconds)


class Line:
    """A connection, its listener, and the client at the other end."""

    def __init__(self) -> None:
        self.host = Host()
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.settimeout(2)
        self.got: list[bytes] = []
        self.violations: list[int] = []
        self.endings = 0
        self.pauses = False
        self.connection = WebSocketConnection(self.host, ours, self)
        self.connection.begin(1000)
        self.connection.resume()

    def received(self, kind: Kind, data: bytes) -> None:
        self.got.append(data)
        if kind is Kind.BINARY:
            raise Violation(1003, "text only")
        if self.pauses:
            self.connection.pause()

    def violated(self, violation: Violation) -> None:
        self.violations.append(violation.code)

    def ended(self) -> None:
        self.endings += 1

    def send(self, data: bytes, seconds: float = 0) -> None:
        """Send this, and let so much time pass."""
        self.client.sendall(data)
        self.host.turn(seconds)

    def close(self) -> None:
        self.connection.close("test")
        self.client.close()
        self.host.watch.close()
        self.host.loop.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def test_each_message_has_its_own_time(line: Line) -> None:
    one, two = frame(TEXT, b"one"), frame(TEXT, b"two")
    line.send(one[:3], 0.6 * MESSAGE_SECONDS)
    line.send(one[3:] + two[:3], 0.6 * MESSAGE_SECONDS)  # the time of the second begins here
    line.send(two[3:], 2 * MESSAGE_SECONDS)
    assert line.got == [b"one", b"two"]
    assert not line.violations and line.connection.open


def test_a_message_that_takes_too_long(line: Line) -> None:
    line.send(frame(TEXT, b"x", fin=False), 0.6 * MESSAGE_SECONDS)
    line.send(frame(PING) + frame(CONT, b"y", fin=False), 0.6 * MESSAGE_SECONDS)
    assert line.violations == [1008]


def test_nothing_is_read_while_it_is_paused(line: Line) -> None:
    line.pauses = True
    third = frame(TEXT, b"3")
    line.send(frame(TEXT, b"1") + frame(TEXT, b"2") + third[:4], 2 * MESSAGE_SECONDS)
    assert line.got == [b"1"]
    line.send(b"", 2 * MESSAGE_SECONDS)
    # What waits for us is not the client's delay.
    line.send(third[4:], 2 * MESSAGE_SECONDS)
    assert not line.violations
    for number in (2, 3):
        line.connection.resume()
        line.host.turn()
        assert len(line.got) == number


def test_a_new_limit_holds_for_what_has_begun(line: Line) -> None:
    data = frame(TEXT, b"x" * 2000)
    line.pauses = True
    line.send(frame(TEXT, b"connect") + data[:500])
    line.connection.begin(3000)
    line.connection.resume()
    line.send(data[500:])
    assert [len(each) for each in line.got] == [7, 2000]


def test_what_is_received_after_the_end_is_passed_over(line: Line) -> None:
    line.send(frame(BINARY, b"x") + frame(TEXT, b"behind"))
    line.send(frame(TEXT, b"more"))
    assert (line.got, line.violations) == ([b"x"], [1003])
    assert not line.connection.open
    assert line.client.recv(100) == b"\x88\x0b\x03\xebtext only"
    assert line.client.recv(100) == b""
    line.client.close()
    line.host.turn()
    assert line.host.ends == ["gone"] and line.endings == 1


def test_a_client_that_never_closes_is_cut(line: Line) -> None:
    line.send(frame(CLOSE, b"\x03\xe8"))
    assert line.host.ends == []
    line.host.turn(GOODBYE_SECONDS + 1)
    assert line.host.ends == ["done"] and line.endings == 1


def test_last_words_leave_before_a_revoked_client_is_cut(line: Line) -> None:
    line.connection.write(b"last")
    line.connection.finish("revoked")
    line.connection.close("revoked")
    assert line.host.ends == []
    assert line.client.recv(100).startswith(b"last\x88")
    line.host.turn(GOODBYE_SECONDS + 1)
    assert line.host.ends == ["done"]


def test_what_a_revoked_client_has_not_taken_is_dropped(line: Line) -> None:
    line.host.queue_bytes = 10_000_000
    line.connection.write(b"x" * 5_000_000)
    line.connection.finish("revoked")
    assert not line.connection.idle
    line.connection.close("revoked")
    assert line.host.ends == ["revoked"]


ATTACKS: dict[str, tuple[bytes, int]] = {
    "unmasked": (frame(TEXT, b"x" * 200_000, masked=False), 1002),
    "a bomb": (frame(TEXT, b"\0" * 200_000, reserved=4), 1002),
    "a length of 2^63": (b"\x81\xff\x80" + bytes(7) + b"mask" + b"x" * 200_000, 1009),
    "close code 0": (frame(CLOSE, b"\0\0") + b"x" * 200_000, 1002),
    "a million pieces": (frame(TEXT, b"{", fin=False) + frame(CONT, fin=False) * 1_000_000, 1008),
    "a flood of pings": (frame(PING, b"p" * 125) * 20_000, 1008),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_41_an_attack_takes_no_memory(line: Line, attack: str) -> None:
    """Not even for a moment: at most 64 KiB, whatever is thrown, and how fast."""
    data, code = ATTACKS[attack]
    line.client.setblocking(False)
    rest = memoryview(data)
    tracemalloc.start()
    try:
        while rest and "done" not in line.host.ends:
            with contextlib.suppress(OSError):
                rest = rest[line.client.send(rest) :]
            line.host.turn()
            with contextlib.suppress(OSError):
                line.client.recv(4096)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert line.violations == [code]
    assert peak < 64 * 1024, peak


def test_who_does_not_read_has_its_last_ping_answered(line: Line) -> None:
    line.host.queue_bytes = 10_000_000
    line.connection.write(b"x" * 3_000_000)
    line.send(b"".join(frame(PING, b"%d" % number) for number in range(100)))
    got = b""
    while len(got) < 3_000_000 + 4:
        line.host.turn()
        got += line.client.recv(1_000_000)
    assert got.endswith(b"x\x8a\x0299")
    line.send(frame(PING, b"again"))
    assert line.client.recv(100) == b"\x8a\x05again"


def test_no_pong_follows_a_close_frame(line: Line) -> None:
    line.host.queue_bytes = 10_000_000
    line.connection.write(b"x" * 3_000_000)
    line.send(frame(PING))
    line.connection.finish("drain")
    got = b""
    while data := line.client.recv(1_000_000):
        got += data
        line.host.turn()
    assert got.endswith(b"x\x88\x07\x03\xf4drain")


def test_before_it_began_it_ends_without_a_frame() -> None:
    line = Line()
    line.connection._begun = False
    line.connection.write(b"HTTP/1.1 503")
    line.connection.finish("refused")
    assert b"\x88" not in line.client.recv(100)
    assert line.host.ends == ["done"]
    line.close()


def test_a_queue_leaves_before_the_close_frame(line: Line) -> None:
    line.host.queue_bytes = 10_000_000
    line.connection.write(b"x" * 3_000_000)
    line.connection.finish("drain")
    got = b""
    while not got.endswith(b"\x88\x07\x03\xf4drain"):
        line.host.turn()
        got += line.client.recv(1_000_000)
    assert len(got) == 3_000_000 + 9
    assert line.client.recv(10) == b""


def test_a_stranger_that_is_gone_before_the_answer_is_counted_nowhere(line: Line) -> None:
    hub = SimpleNamespace(capacity=100, loop=line.host.loop)
    context: Any = SimpleNamespace(hub=hub, settings=Settings())
    lobby = Lobby(context)
    line.client.close()
    assert lobby.receive(line.connection, line, "192.0.2.1", (), ()) is None
    assert line.endings == 1
    assert not lobby._strangers


def test_who_ends_while_it_begins_is_no_subscriber(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, Namespaces())

    def spawn(work: Any) -> None:
        stage.tasks.append(stage.loop.create_task(work))

    keys = TokenKeys(["a token key of 32 characters...."])
    context: Any = SimpleNamespace(
        hub=stage.hub,
        settings=Settings(),
        tokens=keys,
        revocations=stage.revocations,
        crossing=SimpleNamespace(spawn=spawn),
    )
    now = time.time()
    token = keys.issue({"v": 1, "sub": "1", "sid": "s", "iat": now, "exp": now + 600})
    ours, client = socket.socketpair()
    ours.setblocking(False)
    talk = Conversation(Lobby(context), METHODS, "192.0.2.1")
    talk.wait(ours, (), ())
    command = {"id": 1, "method": "connect", "params": {"token": token}}
    talk.received(Kind.TEXT, json.dumps(command).encode())
    talk._connection.close("stalled")
    stage.turn()
    stage.check_empty()
    client.close()
    stage.close()
