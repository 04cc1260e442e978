"""What we write into Redis and over its bus, as bytes, and how it is read back.

A publication has one form in both places, three lines:

    <from> <epoch>-<offset> <tag of the publication before it>
    {"id":…,"time":…}                  also "user" and "exclude"
    <data>

The second and third line are ASCII JSON. What is read was written by somebody who can write to
this Redis, which is not the same as by us: whatever is not exactly of this form gives `None`,
and is dropped and counted by the caller. Nothing is ever executed or unpickled; the worst that
bytes can become here is JSON.

Pure. Imported by the Redis broker.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from push_server.errors import BadInput
from push_server.history import EPOCH, FUTURE, TAG, TRIMMED, ChannelLog
from push_server.positions import OFFSET_LIMIT, START_TAG, Position
from push_server.publications import (
    Publication,
    PublishRequest,
    check_id,
    dump_json,
)
from push_server.revocations import EVERYBODY, SESSION, TOKEN, USER, Revocation

ENTRY_LIMIT = 16 * 1024 * 1024
"""Bytes of a publication. Redis cuts a subscriber that has 32 MB waiting."""

_TAG_LIMIT = 16


class Entry(NamedTuple):
    """A publication, and the tag of the one before it: what proves that none is between."""

    publication: Publication
    before: str

    @property
    def start(self) -> Position:
        """Where the channel stood before it."""
        epoch, offset, _ = self.publication.position
        return Position(epoch, offset - 1, self.before)

    def follows(self, head: Position) -> bool:
        """Whether this is the next publication of a channel that stands at `head`."""
        epoch, offset, _ = self.publication.position
        return (epoch, offset, self.before) == (head.epoch, head.offset + 1, head.tag)


def header_of(request: PublishRequest, now: float) -> bytes:
    """The second line of a publication."""
    header: dict[str, Any] = {"id": request.id, "time": now}
    if request.user is not None:
        header["user"] = request.user
    if request.exclude is not None:
        header["exclude"] = request.exclude
    return dump_json(header)


def weight_of(request: PublishRequest) -> int:
    """At most the bytes of the publication's JSON: what it takes with the shortest offset."""
    return len(request.channel) + len(request.id) + len(request.data) + 41


def origin_of(message: bytes) -> bytes:
    """Who sent a publication over the bus: the first word."""
    return message[:64].partition(b" ")[0]


def parse_entry(channel: str, message: bytes) -> Entry | None:
    """The publication in these bytes, if they are one."""
    if len(message) > ENTRY_LIMIT:
        return None
    lines = message.split(b"\n")
    if len(lines) != 3:
        return None
    try:
        place, header, data = (line.decode("ascii") for line in lines)
        _, stream_id, before = place.split(" ")
        epoch, offset = map(int, stream_id.split("-"))
        value = json.loads(header)
        json.loads(data)
        request = PublishRequest(
            channel,
            check_id(value.pop("id")),
            lines[2],
            _optional(value.pop("user", None)),
            None if (exclude := value.pop("exclude", None)) is None else check_id(exclude),
        )
        now = value.pop("time")
    except (BadInput, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if (
        value
        or type(now) not in (int, float)
        or not math.isfinite(now)
        or not data.isprintable()
        or not 0 < epoch < OFFSET_LIMIT
        or not 0 < offset < OFFSET_LIMIT
        or not 0 < len(before) <= _TAG_LIMIT
    ):
        return None
    return Entry(Publication.place(request, epoch, offset, now), before)


def _optional(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value


class Found(NamedTuple):
    """What the read script says of a channel."""

    head: Position
    entries: Sequence[Entry]
    """Those that lead up to the head without a gap."""
    broken: int
    """Entries that were not ours."""

    def proves(self, position: Position) -> bool:
        """Whether nothing is missing between this position and the first entry."""
        if self.entries:
            return self.entries[0].follows(position)
        return self.head == position

    def reason(self, position: Position) -> str:
        """Why it is not `proves`, as the reason of a `reset`."""
        if self.head.epoch != position.epoch:
            return EPOCH
        if self.head.offset < position.offset:
            return FUTURE
        # What follows the position was put behind another publication than the one there.
        first = self.entries[0].publication.position.offset if self.entries else None
        return TAG if first in (None, position.offset + 1) else TRIMMED

    def log(self) -> ChannelLog:
        """The window of the channel, not trimmed yet. Call only if everything was read."""
        floor = self.head
        if self.entries:
            floor = self.entries[0].start
        log = ChannelLog(floor)
        for entry in self.entries:
            log.window.append(entry.publication)
            log.bytes += len(entry.publication.json)
        log.head = self.head
        return log


def parse_found(channel: str, reply: Sequence[bytes]) -> Found:
    """The reply of the read script. Raises `ValueError` if its head is damaged."""
    epoch, offset, tag = reply[:3]
    head = Position(int(epoch), int(offset), tag.decode("ascii"))
    entries: list[Entry] = []
    broken = 0
    expected = head
    # From the newest back: what lies before a gap proves nothing.
    for message in reversed(reply[3:]):
        entry = parse_entry(channel, message)
        if entry is None:
            broken += 1
            break
        if entry.publication.position != expected:
            break
        entries.append(entry)
        expected = entry.start
    entries.reverse()
    if entries and entries[0].publication.position.offset == 1 and expected.tag != START_TAG:
        entries.pop(0)
    return Found(head, entries, broken)


def parse_heads(reply: bytes) -> tuple[int, list[Position]]:
    """The reply of the heads script: the epoch of the log, and where the channels stand."""
    words = iter(reply.decode("ascii").split(" "))
    epoch = int(next(words))
    heads = [
        Position(int(own), int(offset), tag)
        for own, offset, tag in zip(words, words, words, strict=True)
    ]
    return epoch, heads


def revocation_field(revocation: Revocation) -> bytes:
    """What a revocation means, as the key it is kept under."""
    return dump_json([revocation.kind, revocation.value])


def parse_revocation(field: bytes, times: bytes) -> Revocation | None:
    """A revocation as it is kept: what it means, and ``<before> <expires>``."""
    try:
        kind, value = json.loads(field)
        before, expires = map(float, times.split(b" "))
    except (ValueError, TypeError, RecursionError):
        return None
    if kind not in (SESSION, USER, TOKEN, EVERYBODY) or not isinstance(value, str):
        return None
    if not (math.isfinite(before) and math.isfinite(expires)):
        return None
    return Revocation(kind, value, before, expires)
