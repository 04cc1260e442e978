"""The listener that stays subscribed, against a server that is told how to misbehave."""

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from push_server import listener
from push_server.casts import Address
from push_server.listener import Listener, ListenError, Message, Target

HELLO = {"type": "hello", "cursor": "c0", "heartbeat": 25}
HOLD = b"HOLD"
"""At the end of an answer: leave the connection open and silent."""
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def lines(*messages: Any) -> bytes:
    return HEAD + b"".join(json.dumps(message).encode() + b"\n" for message in messages)


class Script:
    """A server that gives the n-th connection the n-th answer and keeps what it was asked."""

    def __init__(self, listening: socket.socket, answers: list[bytes]) -> None:
        self.asked: list[str] = []
        self._listening = listening
        self._answers = answers
        self._open: list[socket.socket] = []

    def run(self) -> None:
        for answer in self._answers:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += connection.recv(65_536)
            self.asked.append(request.decode())
            connection.sendall(answer.removesuffix(HOLD))
            if not answer.endswith(HOLD):
                connection.close()

    def close(self) -> None:
        # Ends an accept that is under way; closing alone would not.
        self._listening.shutdown(socket.SHUT_RDWR)
        for connection in [self._listening, *self._open]:
            connection.close()


@contextmanager
def script(*answers: bytes, path: str = "") -> Iterator[tuple[Script, Listener, list[float]]]:
    """A scripted server, a listener for it, and the seconds that it waited."""
    if path:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
    else:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
    listening.listen()
    address = Address(path=path) if path else Address("127.0.0.1", listening.getsockname()[1])
    server = Script(listening, list(answers))
    thread = threading.Thread(target=server.run)
    thread.start()
    slept: list[float] = []
    target = Target(address, "push.example.com")
    tokens = iter(range(1000))
    try:
        yield server, Listener(
            target, lambda: f"token{next(tokens)}", ["a:b", "c/d"], sleep=slept.append
        ), slept
    finally:
        server.close()
        thread.join(10)


def take(listening: Listener, count: int) -> list[Message]:
    iterator = iter(listening)
    try:
        return list(islice(iterator, count))
    finally:
        iterator.close()  # type: ignore[attr-defined]  # it is a generator


def test_it_asks_as_the_protocol_says_and_comes_back_with_the_cursor() -> None:
    publication = {"channel": "a:b", "offset": 1, "id": "i", "data": 1, "cursor": "c1"}
    with script(lines(HELLO, publication), lines(HELLO)) as (server, listening, _):
        messages = take(listening, 4)
    assert messages[:2] == [HELLO, publication]
    assert (messages[2]["type"], messages[2]["reason"]) == ("disconnected", "closed")
    assert messages[3] == HELLO
    first, second = (asked.split("\r\n") for asked in server.asked)
    assert first[0] == "GET /subscribe/stream?channel=a%3Ab&channel=c%2Fd HTTP/1.1"
    assert second[0] == "GET /subscribe/stream?channel=a%3Ab&channel=c%2Fd&since=c1 HTTP/1.1"
    # Every connection brings a token of its own: the last one may have expired meanwhile.
    assert "Authorization: Bearer token0" in first
    assert "Authorization: Bearer token1" in second
    assert "Host: push.example.com" in first
    assert sum(line.lower().startswith("host:") for line in first) == 1


def test_it_reads_chunks() -> None:
    line = json.dumps(HELLO).encode() + b"\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    # The line is cut in two, and the end of the stream is an end of the connection.
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (line[:5], line[5:]))
    with script(head + chunks) as (_, listening, _):
        assert take(listening, 1) == [HELLO]


def test_it_connects_to_a_unix_socket(tmp_path: Path) -> None:
    with script(lines(HELLO), path=str(tmp_path / "socket")) as (_, listening, _):
        assert take(listening, 1) == [HELLO]


def test_it_waits_as_long_as_the_server_says() -> None:
    reconnect = {"type": "reconnect", "delay": 1234, "reason": "drain", "cursor": "c9"}
    with script(lines(HELLO, reconnect), lines(HELLO)) as (server, listening, slept):
        take(listening, 4)
    assert slept == [1.234]
    assert "since=c9" in server.asked[1]


def test_a_full_server_is_asked_again_after_the_time_it_named() -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 4\r\nContent-Length: 0\r\n\r\n"
    limit = b'HTTP/1.1 429 No\r\nConnection: close\r\n\r\n{"error":{"code":"c","message":"m"}}'
    with script(busy, limit, lines(HELLO)) as (_, listening, slept):
        messages = take(listening, 3)
    assert [message.get("reason") for message in messages] == ["503 Busy", "429 c: m", None]
    assert 4 <= slept[0] <= 6
    assert slept[1] <= listener.FIRST_PAUSE * 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 421])
def test_a_refusal_for_good_ends_it(status: int) -> None:
    body = b'{"error":{"code":"no","message":"Never."}}'
    answer = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    with script(answer) as (server, listening, slept):
        with pytest.raises(ListenError, match=f"{status} no: Never."):
            take(listening, 1)
        assert len(server.asked) == 1
    assert slept == []


def test_revoked_is_the_end() -> None:
    revoked = {"type": "revoked", "cursor": "c"}
    with script(lines(HELLO, revoked), lines(HELLO)) as (server, listening, _):
        assert take(listening, 99) == [HELLO, revoked]
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "answer", [HEAD + b"{\n", HEAD + b"[]\n", b"garbage\r\n\r\n", HEAD + b"\xff\n", b""]
)
def test_what_is_not_the_protocol_ends_the_connection_only(answer: bytes) -> None:
    with script(answer, lines(HELLO)) as (_, listening, slept):
        messages = take(listening, 2)
    assert messages[0]["type"] == "disconnected"
    assert messages[1] == HELLO
    assert len(slept) == 1


def test_silence_ends_the_connection() -> None:
    hello = {**HELLO, "heartbeat": 0.05}
    began = time.monotonic()
    with script(lines(hello) + HOLD, lines(HELLO)) as (_, listening, _):
        messages = take(listening, 3)
    assert time.monotonic() - began < listener.CONNECT_TIMEOUT / 2
    assert "timed out" in messages[1]["reason"]
    assert messages[2] == HELLO


def test_pauses_grow_to_a_bound_and_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    assert [listener.pause(attempt) for attempt in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert listener.pause(6) == listener.pause(10**6) == listener.LONGEST_PAUSE
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    assert listener.pause(4) == 0


def test_a_hello_makes_the_pauses_short_again() -> None:
    nothing = HEAD
    with script(nothing, nothing, nothing, lines(HELLO), lines(HELLO)) as (_, listening, slept):
        take(listening, 6)
    assert slept[3] <= listener.FIRST_PAUSE


def test_a_url_is_spoken_to_by_its_scheme() -> None:
    connection = Target("https://push.example.com:8443", "push.example.com:8443").connect()
    assert type(connection).__name__ == "HTTPSConnection"
    assert (connection.host, connection.port) == ("push.example.com", 8443)
    connection = Target("http://[::1]:81", "[::1]:81").connect()
    assert type(connection).__name__ == "HTTPConnection"
    assert (connection.host, connection.port) == ("::1", 81)
