"""A WebSocket server that says everything again: the front, the handshake and the connection of the
product, with an echo where the product has its commands.

    python tests/echo_server.py PORT

for conformance suites from outside. Nothing of it is installed. Imported by the WebSocket tests.
"""

import asyncio
import socket
import sys
import threading
from collections.abc import Iterable
from typing import Any, Self

from push_server.connection import Connection, SocketConnection
from push_server.hijack import Fronts
from push_server.sockets import tune
from push_server.transports import TRANSPORTS, frames
from push_server.transports.frames import Kind, Violation
from push_server.watch import Watch
from push_server.websocket import WebSocketConnection

LIMIT = 16 * 1024 * 1024
"""Bytes of a message. Conformance suites send more than any client of the product may."""


class Owner:
    """The hub of connections that nobody publishes to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.watch = Watch(loop)
        self.queue_bytes = 2 * LIMIT
        self.blocked: set[SocketConnection] = set()

    def part_with(self, connection: Connection, reason: str) -> None:
        """The client has ended it."""
        connection.finish(reason)

    def closed(self, connection: Connection, reason: str) -> None:
        """Nothing is to be forgotten."""


class Echo:
    """Says again what it hears."""

    def __init__(self, owner: Owner, sock: socket.socket, proof: str) -> None:
        self.connection = WebSocketConnection(owner, sock, self)
        self.connection.write(TRANSPORTS["ws"].head((("Sec-WebSocket-Accept", proof),)))
        self.connection.begin(LIMIT)
        self.connection.resume()

    def received(self, kind: Kind, data: bytes) -> None:
        """Each whole message."""
        self.connection.write(frames.message(kind, data))

    def violated(self, violation: Violation) -> None:
        """Nothing is to be counted."""

    def ended(self) -> None:
        """Nothing is to be freed."""


class EchoServer:
    """An echo server in this process; use as a context manager."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._owner = Owner(self._loop)
        self._fronts = Fronts()
        self._threads = [
            threading.Thread(target=self._loop.run_forever, daemon=True),
            threading.Thread(target=self._fronts.run, daemon=True),
        ]

    def application(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Take every connection that asks for it rightly."""
        names = ("upgrade", "connection", "sec-websocket-key", "sec-websocket-version")
        proof = frames.accept(
            {name: environ.get("HTTP_" + name.upper().replace("-", "_"), "") for name in names}
        )

        def take(sock: socket.socket, give_back: Any) -> None:
            self._loop.call_soon_threadsafe(Echo, self._owner, sock, proof)

        assert environ["push_server.hijack"](take)
        return []

    def __enter__(self) -> Self:
        tune(self._socket)
        self._fronts.listen(
            self.application,
            [self._socket],
            threads=4,
            max_body=1024,
            channels=1000,
            head_seconds=10,
            per_address=0,
            unlimited=frozenset(),
            every_second=lambda: None,
        )
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._fronts.stop_accepting()
        self._fronts.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        for thread in self._threads:
            thread.join()
        self._owner.watch.close()
        self._loop.close()


if __name__ == "__main__":
    with EchoServer(int(sys.argv[1])) as echo:
        threading.Event().wait()
