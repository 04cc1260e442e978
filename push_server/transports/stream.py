"""One JSON value per line, for `fetch()` and XHR streaming, and for programs.

A browser reads it with the bearer token in a header, which EventSource cannot send.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from push_server.publications import Publication, dump_json
from push_server.transports.base import Transport


class Stream(Transport):
    """Newline-delimited JSON."""

    name = "stream"
    content_type = "application/x-ndjson; charset=utf-8"

    def encode(self, publications: Sequence[Publication]) -> tuple[bytes, ...]:
        """The publication's object with ``"cursor"`` as its last member."""
        pieces = [
            b'%b,"cursor":"1~%b' % (publication.json[:-1], publication.entry.encode())
            for publication in publications
        ]
        return (pieces[0], *(b'"}\n' + piece for piece in pieces[1:]), b'"}\n')

    def control(self, message: Mapping[str, Any], cursor: str) -> bytes:
        """The message's object with ``"cursor"``."""
        return dump_json({**message, "cursor": cursor}) + b"\n"

    def relay(self, control: bytes, cursor: str) -> bytes:
        """The same of what is JSON already."""
        return b'%b,"cursor":"%b"}\n' % (control[:-1], cursor.encode())
