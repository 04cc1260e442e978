"""Proxies as they stand in front of some offices: one hands on a response when it has all of it,
the other gives no connection more than a moment.

Imported by the browser tests.
"""

import contextlib
import re
import socket
import threading
from collections import Counter
from typing import Self

LIMIT = 60.0
"""No connection through the proxy lives longer; tests are over by then."""


class BufferingProxy:
    """One request per connection; responses whose path begins with `held` are held back whole."""

    def __init__(self, held: str) -> None:
        self._held_path = held.encode()
        self.methods: Counter[str] = Counter()
        """How often there was a request with this method."""
        self.held = 0
        """How many responses were held back."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._upstream = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def before(self, port: int) -> int:
        """Stand before this port; the port on which the proxy listens."""
        self._upstream = port
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(LIMIT)
            request = _read_request(client)
            if not request:
                return
            self.methods[request.split(b" ", 1)[0].decode()] += 1
            with socket.create_connection(("127.0.0.1", self._upstream), LIMIT) as server:
                self._hand_on(request, client, server)

    def _hand_on(self, request: bytes, client: socket.socket, server: socket.socket) -> None:
        server.sendall(
            re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", request, count=1).replace(
                b"\r\n", b"\r\nConnection: close\r\n", 1
            )
        )
        self._pass_on(server, client, request.split(b" ", 2)[1].startswith(self._held_path))

    def _pass_on(self, server: socket.socket, client: socket.socket, hold: bool) -> None:
        kept = b""
        self.held += hold
        # The client may give up meanwhile; a proxy that did not notice would keep the stream.
        threading.Thread(target=_close_with, args=(client, server), daemon=True).start()
        while data := server.recv(65536):
            if hold:
                kept += data
            else:
                client.sendall(data)
        client.sendall(kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake the thread that waits in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class CuttingProxy(BufferingProxy):
    """Knows WebSockets, and ends every one below `cut` half a second after its first message."""

    def __init__(self, cut: str) -> None:
        super().__init__("/none")
        self._cut = cut.encode()

    def _hand_on(self, request: bytes, client: socket.socket, server: socket.socket) -> None:
        if not request.split(b" ", 2)[1].startswith(self._cut):
            super()._hand_on(request, client, server)
            return
        server.sendall(request)
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        for _ in ("the head", "the first message"):
            client.sendall(server.recv(65536))
        threading.Timer(0.5, _end, (client, server)).start()
        _pump(server, client)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _read_request(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def _close_with(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.recv(1)
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
