"""WebSocket: one JSON object per text message, the same objects as lines of the stream.

This is the way out. What clients send, `push_server.websocket` takes in and
`push_server.doors.conversation` answers.

A frame begins with its length, and a publication carries the cursor of its connection, whose
length differs from one connection to the next by a few digits. So a publication is framed once
for each length that occurs, and not for each connection.
"""

from collections.abc import Mapping, Sequence

from push_server.publications import Publication
from push_server.transports import frames
from push_server.transports.base import Headers
from push_server.transports.stream import Stream

CLOSE_CODES: Mapping[str, int] = {
    "left": 1000,
    "drain": 1012,
    "degraded": 1013,
    "failed": 1011,
    "age": 4000,
    "expired": 4001,
    "replaced": 4002,
    "asked": 4003,
    "revoked": 4100,
}
"""Why a connection ends -> close code. 1012 and 1013 are in the registry of IANA; 4000 to 4999
are for private use (RFC 6455, section 7.4.2): here 40xx come back with the cursor, 4100 never,
and 4400 to 4599 are refusals."""

REFUSED = 4000
"""What is added to an HTTP status to make a close code of it."""


class Frames:
    """Publications as frames, by the size of what each connection puts into them."""

    __slots__ = ("_sized", "_starts")

    def __init__(self, starts: Sequence[bytes]) -> None:
        self._starts = starts
        """Each publication's object, up to where the rest of a cursor goes."""
        self._sized: dict[int, tuple[bytes, ...]] = {}

    def sized(self, size: int) -> tuple[bytes, ...]:
        """The pieces between which a rest of `size` bytes goes."""
        pieces = self._sized.get(size)
        if pieces is None:
            starts = [frames.head(len(start) + size + 2) + start for start in self._starts]
            ends = [b'"}' + start for start in starts[1:]]
            pieces = self._sized[size] = (starts[0], *ends, b'"}')
        return pieces


class WebSocket(Stream):
    """The way out of a WebSocket; the objects of the stream are messages."""

    name = "ws"

    def head(self, headers: Headers) -> bytes:
        """The handshake's answer; the door puts Sec-WebSocket-Accept among the headers."""
        lines = [f"{name}: {value}\r\n" for name, value in headers]
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"{''.join(lines)}\r\n"
        ).encode("latin-1")

    def encode(self, publications: Sequence[Publication]) -> Frames:
        """The publication's object with ``"cursor"`` as its last member."""
        return Frames([self.start(publication) for publication in publications])

    @staticmethod
    def join(rest: bytes, pieces: Frames | tuple[()]) -> bytes:
        """The frames with this rest of a cursor in each."""
        return rest.join(pieces.sized(len(rest))) if pieces else b""

    def whole(self, json: bytes) -> bytes:
        """A text message."""
        return frames.text(json)
