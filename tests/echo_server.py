"""A WebSocket server that says everything again: the front, the handshake and the connection of the
product, with an echo where the product has its commands.

For conformance suites; nothing of it is installed. Imported by the WebSocket tests.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from push_server.connection import Connection, SocketConnection
from push_server.front.listeners import Fronts
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


def serve() -> None:
    """Print the port and serve until the process is ended."""
    listening = socket.create_server(("127.0.0.1", 0))
    tune(listening)
    loop = asyncio.new_event_loop()
    owner, fronts = Owner(loop), Fronts()
    names = ("upgrade", "connection", "sec-websocket-key", "sec-websocket-version")

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        proof = frames.accept(
            {name: environ.get("HTTP_" + name.upper().replace("-", "_"), "") for name in names}
        )

        def take(sock: socket.socket, give_back: Any) -> None:
            loop.call_soon_threadsafe(Echo, owner, sock, proof)

        assert environ["push_server.hijack"](take)
        return []

    fronts.listen(
        application,
        [listening],
        threads=4,
        max_body=1024,
        channels=1000,
        head_seconds=10,
        per_address=0,
        unlimited=frozenset(),
    )
    threading.Thread(target=fronts.run, daemon=True).start()
    print(listening.getsockname()[1], flush=True)  # noqa: T201
    loop.run_forever()


class EchoServer:
    """The server in a process of its own; use as a context manager."""

    port: int

    def __enter__(self) -> Self:
        root = Path(__file__).resolve().parent.parent
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdout is not None
        self._process.terminate()
        self._process.wait(10)
        self._process.stdout.close()


if __name__ == "__main__":
    serve()
