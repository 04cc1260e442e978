"""Connections that are sent to another process, unread."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from waitress import wasyncore

from push_server.front.handover import Handover, Inbox


@pytest.fixture
def handover() -> Iterator[Handover]:
    made = Handover.make()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection: the client's and ours."""
    client, ours = socket.socketpair()
    ours.setblocking(False)
    with client, ours:
        yield client, ours


Pair = tuple[socket.socket, socket.socket]


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        (b"POST /bayeux HTTP/1.1\r\n", True),
        (b"POST /bayeux/connect HTTP/1.1\r\n", True),
        (b"GET /bayeux?message=", True),
        (b"OPTIONS /bayeux ", True),
        (b"POST /bayeuxx HTTP/1.1\r\n", False),
        (b"GET /x/bayeux HTTP/1.1\r\n", False),
        (b"PUT /bayeux HTTP/1.1\r\n", False),
        (b"POST /bay", False),
        (b"\x16\x03\x01", False),
        (b"", False),
    ],
)
def test_what_is_handed_over(handover: Handover, pair: Pair, line: bytes, taken: bool) -> None:
    client, ours = pair
    client.sendall(line)
    assert handover.takes(ours, ("192.0.2.1", 5), served=False) is taken
    assert not handover._replace(mine=True).takes(ours, ("192.0.2.1", 5), served=False)
    got: list[tuple[bytes, object]] = []

    def admit(sock: socket.socket, addr: object, *, served: bool) -> None:
        assert not served
        with sock:
            got.append((sock.recv(100), addr))

    inbox = Inbox(handover.inbox, {}, 1, admit)
    if taken:
        wasyncore.loop(timeout=1, use_poll=True, map=inbox._map, count=1)
        assert got == []  # there was no room: itself is in the map
        inbox._room = 2
        wasyncore.loop(timeout=1, use_poll=True, map=inbox._map, count=1)
        assert got == [(line, ("192.0.2.1", 5))]
    elif line:
        assert ours.recv(100) == line


def test_what_cannot_be_handed_over_is_refused_here(handover: Handover, pair: Pair) -> None:
    client, ours = pair
    client.sendall(b"POST /bayeux HTTP/1.1\r\n")
    sent = 0
    while handover.takes(ours, ("192.0.2.1", 5), served=False):
        sent += 1
        assert sent < 10_000
    assert sent >= 10
    client.close()  # nobody waits in vain: what is not taken is cut off with the pair
    inbox = Inbox(handover.inbox, {}, 2, lambda sock, addr, *, served: sock.close())
    inbox.handle_read()
    assert handover.takes(ours, ("192.0.2.1", 5), served=False)


def test_one_that_cannot_be_served_keeps_nobody(handover: Handover, pair: Pair) -> None:
    client, ours = pair
    client.sendall(b"POST /bayeux HTTP/1.1\r\n")
    for port in (5, 6):
        assert handover.takes(ours, ("192.0.2.1", port), served=True)
    got: list[Any] = []

    def admit(sock: socket.socket, addr: Any, *, served: bool) -> None:
        with sock:
            got.append((addr, served))
            assert addr[1] != 5

    inbox = Inbox(handover.inbox, {}, 2, admit)
    for _ in range(2):
        wasyncore.loop(timeout=1, use_poll=True, map=inbox._map, count=1)
    assert got == [(("192.0.2.1", 5), True), (("192.0.2.1", 6), True)]
