"""A publication: a message that has its final place in a channel.

`data` and `json` are bytes of ASCII JSON, made once when the broker accepts the message and
shared by every connection that gets it. ASCII, because then no payload can contain a line
end, a NUL or a U+2028 that some transport or parser would take for its own framing (five
advisories against SSE encoders were of this kind).

Pure; imported from floor 2 up.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from push_server.errors import BadInput
from push_server.positions import Position, cursor_entry, tag_of

ID_LIMIT = 64
_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{ID_LIMIT}}}")


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def dump_json(value: Any) -> bytes:
    """JSON as it goes on the wire: ASCII, no blanks. Raises `ValueError` for NaN and infinity."""
    return _encode(value).encode("ascii")


def check_id(value: object, what: str = "id") -> str:
    """The id, if it is one; `BadInput` otherwise.

    No CR, LF or NUL can pass, so an id can never forge a line of an event stream.
    """
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise BadInput(f"{what}_malformed", f"{what} is 1 to 64 of A-Z a-z 0-9 . _ : -")


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """What a publisher asks for: everything but the place in the log."""

    channel: str
    id: str
    data: bytes
    user: str | None = None
    exclude: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The acknowledgement of one publish request."""

    channel: str
    epoch: int
    offset: int
    id: str
    duplicate: bool

    def as_json(self) -> dict[str, Any]:
        """The ``result`` of the API's ``publish``."""
        return {
            "channel": self.channel,
            "epoch": self.epoch,
            "offset": self.offset,
            "id": self.id,
            "duplicate": self.duplicate,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Publication:
    """A message in its place. Made by `Publication.place`, or read back by a broker."""

    channel: str
    position: Position
    id: str
    time: float
    """When it was accepted, unix seconds; history is kept by this age."""
    exclude: str | None
    json: bytes
    """The object on the wire, without a cursor: ``{"channel":…,"offset":…,"id":…,"data":…}``."""

    @classmethod
    def place(cls, request: PublishRequest, epoch: int, offset: int, now: float) -> "Publication":
        """The publication that this request becomes at this place."""
        head: dict[str, Any] = {"channel": request.channel, "offset": offset, "id": request.id}
        if request.user is not None:
            head["user"] = request.user
        if request.exclude is not None:
            head["exclude"] = request.exclude
        return cls(
            channel=request.channel,
            position=Position(epoch, offset, tag_of(request.id)),
            id=request.id,
            time=now,
            exclude=request.exclude,
            json=dump_json(head)[:-1] + b',"data":' + request.data + b"}",
        )

    @property
    def entry(self) -> str:
        """The cursor entry of a client that has received this."""
        return cursor_entry(self.channel, self.position)
