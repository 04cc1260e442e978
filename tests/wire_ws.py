"""WebSocket as an outside client sees it, on a raw socket.

Written from RFC 6455 and `docs/protocol.rst` alone, without the package that the server parses
frames with. Imported by `harness` and by tests that send frames of their own.
"""

import base64
import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from waiting import PATIENCE
from wire import (
    Address,
    Asked,
    Ended,
    Receiver,
    Response,
    Wire,
    message_in,
    read_accepted,
    request_bytes,
)

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Frame(NamedTuple):
    """One frame from the server."""

    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def code(self) -> int:
        """Of a close frame."""
        assert self.opcode == CLOSE, self
        return int(struct.unpack("!H", self.payload[:2])[0]) if self.payload else 1005


def handshake_headers(**changes: str | None) -> dict[str, str]:
    """The headers of a handshake; a change to None leaves one out (``_`` stands for ``-``)."""
    headers: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    headers.update({name.replace("_", "-"): value for name, value in changes.items()})
    return {name: value for name, value in headers.items() if value is not None}


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0
) -> bytes:
    """A frame as a client sends it, or as it must not."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    size, flag = len(payload), 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, flag | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    if not masked:
        return head + payload
    # The same frame is always the same bytes: it stands in the names of tests.
    mask = zlib.crc32(b"mask" + payload).to_bytes(4, "big")
    stream = (mask * (size // 4 + 1))[:size]
    hidden = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + mask + hidden.to_bytes(size, "big")


def text_frame(value: Any) -> bytes:
    """A JSON value as a text message."""
    return frame(TEXT, json.dumps(value).encode())


def read_frame(wire: Wire, deadline: float) -> Frame:
    """The next frame; asserts that it is one a server may send."""
    first, second = wire.exactly(2, deadline)
    assert not first & 0x70, "a reserved bit is set"
    assert not second & 0x80, "a server does not mask"
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", wire.exactly(2, deadline))
        assert size > 125, "a length in too many bytes"
    elif size == 127:
        (size,) = struct.unpack("!Q", wire.exactly(8, deadline))
        assert size > 65_535, "a length in too many bytes"
    opcode = first & 0x0F
    assert opcode in (CONT, TEXT, BINARY, CLOSE, PING, PONG)
    assert opcode < CLOSE or (size < 126 and first & 0x80)
    return Frame(opcode, wire.exactly(size, deadline), bool(first & 0x80))


class Upgraded:
    """A connection after 101; `Refused` if there was none."""

    def __init__(
        self,
        address: Address,
        target: str,
        headers: Mapping[str, str],
        source: str | None = None,
    ) -> None:
        self.wire = Wire.connect(address, source)
        handshake = {**handshake_headers(), **headers}
        self.wire.send(request_bytes("GET", target, handshake))
        try:
            self.head = read_accepted(self.wire, 101)
            digest = hashlib.sha1(handshake["Sec-WebSocket-Key"].encode() + MAGIC).digest()
            assert self.head.header("Sec-WebSocket-Accept") == base64.b64encode(digest).decode()
            assert (self.head.header("Upgrade") or "").lower() == "websocket"
            assert (self.head.header("Connection") or "").lower() == "upgrade"
            assert self.head.header("Sec-WebSocket-Extensions") is None
        except BaseException:
            self.wire.close()
            raise

    def frame(self, timeout: float = PATIENCE) -> Frame:
        """The next frame."""
        return read_frame(self.wire, time.monotonic() + timeout)

    def value(self, timeout: float = PATIENCE) -> Any:
        """The JSON value in the next frame, which is a whole text message."""
        got = self.frame(timeout)
        assert (got.opcode, got.fin) == (TEXT, True), got
        return json.loads(got.payload.decode("ascii"))

    def send(self, value: Any) -> None:
        """A JSON value as a text message."""
        self.wire.send(text_frame(value))

    def closed(self, timeout: float = PATIENCE) -> Frame:
        """The close frame, passing over what comes before; asserts that nothing follows it."""
        deadline = time.monotonic() + timeout
        while (got := read_frame(self.wire, deadline)).opcode != CLOSE:
            pass
        assert self.wire.rest(max(0.1, deadline - time.monotonic())) == b""
        return got

    def close(self) -> None:
        self.wire.close()

    def __enter__(self) -> "Upgraded":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ws(Receiver):
    """A subscriber that sends commands, too."""

    transport = "ws"

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        target = asked.target(self.transport)
        self.upgraded = Upgraded(asked.address, target, asked.headers, asked.source)
        self.wire = self.upgraded.wire
        self.close_code: int | None = None
        """Of the server's close frame."""
        self.answers: dict[Any, dict[str, Any]] = {}
        self._number = 0
        try:
            self.hello = self.control("hello")
        except BaseException:
            self.close()
            raise

    @property
    def head(self) -> Response:
        return self.upgraded.head

    def read(self, deadline: float) -> None:
        while not self.waiting:
            self._read_one(deadline)

    def _read_one(self, deadline: float) -> None:
        got = read_frame(self.wire, deadline)
        if got.opcode == CLOSE:
            self.close_code = got.code
            raise Ended(f"closed with {got.code}")
        assert (got.opcode, got.fin) == (TEXT, True), got
        value = json.loads(got.payload.decode("ascii"))
        if "result" in value or "error" in value:
            assert set(value) <= {"id", "result", "error"}
            assert value["id"] not in self.answers, "answered twice"
            self.answers[value["id"]] = value
            return
        self.waiting.append(message_in(got.payload))

    def ask(self, method: str, **params: Any) -> int:
        """Send a command; its id."""
        self._number += 1
        self.wire.send(text_frame({"id": self._number, "method": method, "params": params}))
        return self._number

    def answer(self, identity: Any, timeout: float = PATIENCE) -> dict[str, Any]:
        """The answer to a command, whole."""
        deadline = time.monotonic() + timeout
        while identity not in self.answers:
            self._read_one(deadline)
        return self.answers.pop(identity)

    def call(self, method: str, **params: Any) -> Any:
        """A command and its result."""
        answer = self.answer(self.ask(method, **params))
        assert "result" in answer, answer
        return answer["result"]

    def refused(self, method: str, **params: Any) -> tuple[int, str]:
        """A command that is refused: status and code."""
        answer = self.answer(self.ask(method, **params))
        assert set(answer["error"]) == {"code", "message", "status"}, answer
        return answer["error"]["status"], answer["error"]["code"]

    def close(self) -> None:
        self.upgraded.close()
