"""WebSocket frames (RFC 6455): the handshake, what comes in, what goes out.

The package `websockets` parses frames and close codes; whole messages, their limits, and the
frames that are sent are made here. Of the package only the half without sockets is used, and of
that the parts without state: its protocol object takes 2 KB for each idle connection and
serialises a frame for each of them, where ours share the bytes. No extension is ever agreed on, so
nothing is compressed: a compressor takes up to 300 KB for each connection, and nobody can send a
bomb.

Sans I/O: no socket, no clock. Whoever uses it counts frames and looks at the time. The only
importer of websockets.
"""

import struct
from base64 import b64decode
from codecs import getincrementaldecoder
from collections.abc import Generator, Mapping
from enum import Enum
from typing import NamedTuple

from websockets.exceptions import InvalidHeader, PayloadTooBig, ProtocolError
from websockets.frames import Close, Frame, Opcode
from websockets.headers import parse_connection, parse_upgrade
from websockets.utils import accept_key

from push_server.errors import BadInput, UpgradeRequired

VERSION = "13"
CONTROL_BYTES = 125
REASON_BYTES = CONTROL_BYTES - 2

PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
TOO_BIG = 1009

_utf8_decoder = getincrementaldecoder("utf-8")


# The handshake (section 4.2).


def accept(headers: Mapping[str, str]) -> str:
    """What proves to the client that its handshake was understood: Sec-WebSocket-Accept.

    `headers` are those of the request, by lower-case name. Raises `UpgradeRequired` if this is
    no handshake or one of another version, `BadInput` if it is broken.
    """
    try:
        upgrades = [name.lower() for name in parse_upgrade(headers.get("upgrade", ""))]
        options = [name.lower() for name in parse_connection(headers.get("connection", ""))]
    except InvalidHeader:
        upgrades = options = []
    if upgrades != ["websocket"] or "upgrade" not in options:
        raise UpgradeRequired("upgrade_required", "This route takes WebSocket only.")
    if headers.get("sec-websocket-version") != VERSION:
        raise UpgradeRequired("websocket_version", f"Sec-WebSocket-Version is {VERSION}.")
    key = headers.get("sec-websocket-key", "")
    try:
        size = len(b64decode(key, validate=True))
    except ValueError:
        size = 0
    if size != 16:
        raise BadInput("websocket_key", "Sec-WebSocket-Key is 16 bytes in base64.")
    return accept_key(key)


# What comes in.


class Violation(Exception):
    """Raised if the client breaks the rules: the connection ends with this close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Kind(Enum):
    """What a frame turned out to be."""

    TEXT = 1
    BINARY = 2
    """A whole message, however many frames it took."""
    PART = 3
    """A frame of a message that goes on."""
    PING = 4
    PONG = 5
    CLOSE = 6


class Event(NamedTuple):
    """One frame: its kind, and the message or the payload."""

    kind: Kind
    data: bytes


class Inbound:
    """The bytes of one client, between frames and in the middle of them."""

    __slots__ = ("_buffer", "_decoder", "_frame", "_kind", "_message", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes of a message."""
        self._buffer = bytearray()
        self._frame: Generator[None, None, Frame] | None = None
        self._kind: Kind | None = None
        """Of the message whose frames are coming in; None between messages."""
        self._message = bytearray()
        self._decoder = _utf8_decoder()

    @property
    def empty(self) -> bool:
        """Whether nothing is kept that a later byte could need."""
        return self._kind is None and self._frame is None and not self._buffer

    def drop(self) -> None:
        """Forget everything: the parser of a frame half read knows us, and is known by us."""
        self._frame = None

    def feed(self, data: bytes) -> None:
        """Take bytes; `next` says what they are."""
        self._buffer += data

    def next(self) -> Event | None:
        """The next frame; None if more bytes are needed. Raises `Violation`, and then is over."""
        frame = self._next_frame()
        if frame is None:
            return None
        data = bytes(frame.data)
        if frame.opcode is Opcode.PING:
            return Event(Kind.PING, data)
        if frame.opcode is Opcode.PONG:
            return Event(Kind.PONG, data)
        if frame.opcode is Opcode.CLOSE:
            return Event(Kind.CLOSE, _checked_close(data))
        return self._assemble(frame, data)

    def _next_frame(self) -> Frame | None:
        if self._frame is None:
            if len(self._buffer) < 2:
                return None
            _check_head(self._buffer[0], self._buffer[1])
            limit = self.limit - len(self._message)
            self._frame = Frame.parse(self._read, mask=True, max_size=max(limit, CONTROL_BYTES))
        try:
            next(self._frame)
        except StopIteration as done:
            self._frame = None
            frame: Frame = done.value
            return frame
        except PayloadTooBig:
            raise Violation(TOO_BIG, f"a message has at most {self.limit} bytes") from None
        except ProtocolError as error:
            raise Violation(PROTOCOL_ERROR, str(error)) from None
        return None

    def _read(self, count: int) -> Generator[None, None, bytes]:
        """The next `count` bytes, for the parser of the package."""
        while len(self._buffer) < count:
            yield
        data = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return data

    def _assemble(self, frame: Frame, data: bytes) -> Event:
        if (frame.opcode is Opcode.CONT) != (self._kind is not None):
            raise Violation(PROTOCOL_ERROR, "a frame out of place in a fragmented message")
        kind = self._kind or (Kind.TEXT if frame.opcode is Opcode.TEXT else Kind.BINARY)
        if len(self._message) + len(data) > self.limit:
            raise Violation(TOO_BIG, f"a message has at most {self.limit} bytes")
        if kind is Kind.TEXT:
            try:
                self._decoder.decode(data, frame.fin)
            except UnicodeDecodeError:
                raise Violation(INVALID_DATA, "text that is not UTF-8") from None
        if not frame.fin:
            self._kind = kind
            self._message += data
            return Event(Kind.PART, b"")
        if self._kind is not None:
            data = bytes(self._message + data)
            self._kind = None
            self._message.clear()
        return Event(kind, data)


def _check_head(first: int, second: int) -> None:
    """Refuse by its first two bytes a frame whose other bytes are not worth waiting for."""
    if first & 0x70:
        raise Violation(PROTOCOL_ERROR, "a reserved bit is set")
    if first & 0x08 and (not first & 0x80 or second & 0x7F > CONTROL_BYTES):
        raise Violation(PROTOCOL_ERROR, "a control frame is short and whole")


def _checked_close(data: bytes) -> bytes:
    try:
        Close.parse(data)
    except ProtocolError as error:
        raise Violation(PROTOCOL_ERROR, str(error)) from None
    except UnicodeDecodeError:
        raise Violation(INVALID_DATA, "a close reason that is not UTF-8") from None
    return data


# What goes out. Frames of a server are not masked, so all clients can get the same bytes.


def head(size: int, first: int = 0x80 | Opcode.TEXT) -> bytes:
    """The head of an unmasked frame of `size` bytes, by default of a whole text message."""
    if size < 126:
        return struct.pack("!BB", first, size)
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


def text(payload: bytes) -> bytes:
    """A text message; `payload` is UTF-8."""
    return head(len(payload)) + payload


def message(kind: Kind, payload: bytes) -> bytes:
    """A text or a binary message."""
    opcode = Opcode.TEXT if kind is Kind.TEXT else Opcode.BINARY
    return head(len(payload), 0x80 | opcode) + payload


def pong(payload: bytes) -> bytes:
    """The answer to a ping."""
    return Frame(Opcode.PONG, payload).serialize(mask=False)


def close(code: int, reason: str = "") -> bytes:
    """A close frame; `reason` is ASCII and cut to what fits."""
    return Frame(Opcode.CLOSE, Close(code, reason[:REASON_BYTES]).serialize()).serialize(mask=False)


def close_again(payload: bytes) -> bytes:
    """The answer to a close frame: its code (section 5.5.1)."""
    return Frame(Opcode.CLOSE, payload[:2]).serialize(mask=False)
