"""Positions, and the cursor that carries them.

A position says where in a channel's log a client is: epoch, offset, and a tag made of the id
of the publication at that offset. The tag is there because epoch and offset alone lose data
silently: a log whose tail was cut off (restored from an older copy, or an append-only file
that lost its last second) and then grew again has the same epoch and the same offsets as the
log the client knew, with other publications under them.

A cursor is the positions of all channels of one connection in one string of
``[A-Za-z0-9._~-]``: it fits a URL, an HTTP header and an SSE ``id`` without escaping, and
avoids the bytes that would make a cross-origin ``Last-Event-ID`` need a CORS preflight.

Pure; imported by everybody.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from push_server.errors import BadInput

CURSOR_LIMIT = 16_384
"""Characters. 256 entries of the longest possible kind fit."""

OFFSET_LIMIT = 2**53
"""Epochs and offsets are JSON numbers, exact in JavaScript only below this."""

START_TAG = "0"
"""The tag at offset 0, where there is no publication to make one from."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_CURSOR = re.compile(
    r"1(?:~[A-Za-z0-9_-]{6}\.[0-9a-z]{1,11}\.[0-9a-z]{1,11}\.(?:0|[A-Za-z0-9_-]{6}))*"
)


class Position(NamedTuple):
    """A place in one channel's log."""

    epoch: int
    offset: int
    tag: str


def _short_hash(text: str) -> str:
    return urlsafe_b64encode(sha256(text.encode()).digest())[:6].decode()


@lru_cache(maxsize=1024)
def channel_key(channel: str) -> str:
    """The 6 characters that stand for a channel inside a cursor.

    36 bits: two of one connection's 256 channels collide once in two million connections.
    Then `parse_cursor` knows neither, and both are `reset`; nothing is ever skipped.
    """
    return _short_hash(channel)


def tag_of(publication_id: str) -> str:
    """The tag of the position that a publication with this id occupies."""
    return _short_hash(publication_id)


@lru_cache(maxsize=1024)
def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits


def cursor_entry(channel: str, position: Position) -> str:
    """One channel's part of a cursor."""
    epoch, offset, tag = position
    return f"{channel_key(channel)}.{_base36(epoch)}.{_base36(offset)}.{tag}"


def join_cursor(entries: Iterable[str]) -> str:
    """The cursor made of these entries."""
    return "~".join(["1", *entries])


def parse_cursor(text: str) -> Mapping[str, Position]:
    """The positions in a cursor, by channel key.

    Raises `BadInput` if the text is not a cursor. A cursor that is well formed but not ours
    passes: what it claims is checked against the log, by `push_server.history`.
    """
    if len(text) > CURSOR_LIMIT or not _CURSOR.fullmatch(text):
        raise BadInput("cursor_malformed", "The cursor is not one this server gave out.")
    positions: dict[str, Position] = {}
    ambiguous: set[str] = set()
    for entry in text.split("~")[1:]:
        key, epoch, offset, tag = entry.split(".")
        position = Position(int(epoch, 36), int(offset, 36), tag)
        if position.epoch >= OFFSET_LIMIT or position.offset >= OFFSET_LIMIT:
            raise BadInput("cursor_malformed", "The cursor names a position beyond 2^53.")
        if key in positions:
            ambiguous.add(key)
        positions[key] = position
    # A key that stands for two channels proves nothing of either: broadcast gives both the
    # same id, so the tag need not tell them apart.
    for key in ambiguous:
        del positions[key]
    return positions
