"""Receivers for a few hundred connections in one process: bytes in, messages out.

Written from `docs/protocol.rst` alone, apart from the server, from `wire.py` and from the
shipped JavaScript. Sans I/O: a parser is fed what a socket gave. What a publication says is
worked out once for each distinct text of it, which is most of what makes this cheap.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from faults.logs import CANARY, Row, digest

_OWNER = re.compile(re.escape(CANARY).encode() + rb"(\w+)-")


class Got(NamedTuple):
    """What a publication says."""

    channel: str
    offset: int
    id: str
    sha: str
    sent: float
    """When its publisher made it, on the run's clock."""
    owner: str | None
    """Whose secret it holds."""


Message = tuple[Got | Row, str]
"""A publication or a control message, and the cursor behind it."""


class Garbled(Exception):
    """Raised if what the server sent is not what the protocol allows."""


@lru_cache(maxsize=4096)
def read_publication(text: bytes) -> Got:
    """A publication from its JSON text."""
    return publication_of(json.loads(text), _OWNER.search(text))


def publication_of(value: Row, owner: "re.Match[bytes] | None") -> Got:
    """A publication from its JSON value."""
    data = value["data"]
    return Got(
        value["channel"],
        value["offset"],
        value["id"],
        digest(data),
        data["t"] if isinstance(data, dict) else 0.0,
        owner[1].decode() if owner else None,
    )


@lru_cache(maxsize=4096)
def short_hash(text: str) -> str:
    """What stands for a channel, and as a tag for an id, in a cursor."""
    return urlsafe_b64encode(sha256(text.encode()).digest())[:6].decode()


def place_in(cursor: str, channel: str) -> list[Any] | None:
    """[epoch, offset, tag] of a channel in a cursor."""
    start = cursor.find(f"~{short_hash(channel)}.")
    if start < 0:
        return None
    end = cursor.find("~", start + 1)
    _, epoch, offset, tag = cursor[start + 1 : end if end > 0 else None].split(".")
    return [int(epoch, 36), int(offset, 36), tag]


class Head(NamedTuple):
    """The head of an answer."""

    status: int
    fields: dict[str, str]


def read_head(data: bytes) -> tuple[Head, bytes] | None:
    """The head, and what follows it; None while it is not complete."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return Head(int(first.split(" ")[1]), fields), rest


class Parser:
    """What the streaming transports have in common: a body without end."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete now."""
        raise NotImplementedError


class Sse(Parser):
    """Server-sent events: fields up to an empty line."""

    def feed(self, data: bytes) -> Iterator[Message]:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            text = cursor = b""
            control = False
            for line in block.split(b"\n"):
                name, _, value = line.partition(b": ")
                if name == b"data":
                    text = value
                elif name == b"id":
                    cursor = value
                elif name == b"event":
                    control = value == b"control"
                elif name != b"retry":
                    raise Garbled(f"{line[:80]!r} is no field of an event")
            if text:
                yield json.loads(text) if control else read_publication(text), cursor.decode()


class Lines(Parser):
    """One JSON value per line, with the cursor in it."""

    def feed(self, data: bytes) -> Iterator[Message]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text, found, end = line.rpartition(b',"cursor":"')
            if found and end.endswith(b'"}') and line.startswith(b'{"channel":'):
                yield read_publication(text + b"}"), end[:-2].decode()
                continue
            value = json.loads(line)
            message = value if "type" in value else publication_of(value, _OWNER.search(line))
            yield message, value["cursor"]


def read_answer(body: bytes) -> tuple[list[Row], list[Got], str]:
    """What a long poll brought: control messages, publications, cursor."""
    value = json.loads(body)
    publications = [
        publication_of(one, _OWNER.search(json.dumps(one).encode()))
        for one in value["publications"]
    ]
    return value["control"], publications, value["cursor"]


PARSERS: dict[str, type[Parser]] = {"sse": Sse, "stream": Lines}
