"""What a transport is: bytes in front of, around and between publications.

A transport never touches a socket, a clock or a thread. It is stateless, so that one instance
serves all connections and what it encodes is shared by all of them.

The trick that keeps fan-out cheap: the cursor on each publication differs between connections
only in the part that speaks of their *other* channels. So a transport encodes publications once,
as pieces, and each connection joins the pieces with its own remainder of the cursor
(`rest.join(pieces)`, one pass in C). A transport that puts no cursor beside publications returns
one piece, and the join is free.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from push_server.publications import Publication, dump_json

Headers = tuple[tuple[str, str], ...]
Pieces = Any
"""What `Transport.encode` makes and `Transport.join` takes: for most, a tuple of bytes."""


def response_head(status: int, headers: Headers) -> bytes:
    """The head of an HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def response(
    status: int,
    headers: Headers,
    body: bytes,
    *,
    content_type: str = "application/json",
    keep_alive: bool = False,
) -> bytes:
    """A whole HTTP/1.1 answer."""
    framing = (
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store, no-transform"),
    )
    connection = () if keep_alive else (("Connection", "close"),)
    return response_head(status, (*framing, *connection, *headers)) + body


class Transport(ABC):
    """One delivery technique. The instance in `TRANSPORTS` is shared by all connections."""

    name: ClassVar[str]
    once: ClassVar[bool] = False
    """Whether the first thing sent is the whole answer (long poll)."""
    waits: ClassVar[bool] = True
    """Whether such an answer may be held until there is something to say."""
    latest: ClassVar[bool] = False
    """Whether who comes without a cursor is told the last publication of each channel."""
    setting: ClassVar[str] = ""
    """The setting that has to be on for it; empty: none."""
    content_type: ClassVar[str]

    def chosen(self, parameter: Callable[[str], str], origins: Sequence[str]) -> "Transport":
        """This transport as a request asks for it. Raises `BadInput` or `Denied`.

        `parameter` gives the value of a parameter of the URL, `origins` are those of the sites.
        """
        return self

    def policy(self, origins: Sequence[str]) -> Headers:
        """The headers that an answer needs besides those of every answer."""
        return ()

    def head(self, headers: Headers) -> bytes:
        """What is sent before anything else; `headers` are those of the door (CORS)."""
        # close-delimited: a chunk around each write would cost a copy per connection.
        # X-Accel-Buffering switches nginx's response buffering off.
        return response_head(
            200,
            (
                ("Content-Type", self.content_type),
                ("Cache-Control", "no-store, no-transform"),
                ("X-Accel-Buffering", "no"),
                ("Connection", "close"),
                *headers,
            ),
        )

    @abstractmethod
    def encode(self, publications: Sequence[Publication]) -> Pieces:
        """The publications as pieces, to be joined by the rest of a connection's cursor."""

    # Not a method of ours: it runs once per delivery, and bytes.join is one pass in C.
    join: ClassVar["staticmethod[[bytes, Pieces], bytes]"] = staticmethod(bytes.join)
    """The pieces with this rest of a cursor between them; nothing for no pieces, ``()``."""

    def bare(self, publications: Sequence[Publication]) -> bytes:
        """The publications without a cursor, for who watches channels that it is not in."""
        raise NotImplementedError

    def control(self, message: Mapping[str, Any], cursor: str) -> bytes:
        """A control message."""
        return self.relay(dump_json(message), cursor)

    @abstractmethod
    def relay(self, control: bytes, cursor: str) -> bytes:
        """A control message that is JSON already; it has no cursor of its own."""

    def answer(
        self, publications: bytes, controls: bytes, cursor: str, headers: Headers, keep_alive: bool
    ) -> bytes:
        """For a transport that answers once: the whole answer. What is due is as encoded."""
        raise NotImplementedError


