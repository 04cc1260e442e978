"""One JSON value per line, for `fetch()` and XHR streaming, and for programs.

A browser reads it with the bearer token in a header, which EventSource cannot send.

Other transports send the same objects, each with its cursor as a member, in a dress of their own:
they are the subclasses.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from push_server.publications import Publication, dump_json
from push_server.transports.base import Pieces, Transport


class Stream(Transport):
    """Newline-delimited JSON."""

    name = "stream"
    content_type = "application/x-ndjson; charset=utf-8"
    before: ClassVar[bytes] = b""
    behind: ClassVar[bytes] = b"\n"
    """What stands before and behind each object."""

    @staticmethod
    def text(json: bytes) -> bytes:
        """JSON, or a part of it, as it may stand there."""
        return json

    def encode(self, publications: Sequence[Publication]) -> Pieces:
        """The publication's object with ``"cursor"`` as its last member."""
        starts = [self.before + start for start in map(self.start, publications)]
        end = b'"}' + self.behind
        return (starts[0], *(end + start for start in starts[1:]), end)

    def start(self, publication: Publication) -> bytes:
        """The publication's object up to where the rest of a connection's cursor goes."""
        json, entry = publication.json[:-1], publication.entry.encode()
        return b'%b,"cursor":"1~%b' % (self.text(json), entry)

    def whole(self, json: bytes) -> bytes:
        """An object on its way."""
        return self.before + self.text(json) + self.behind

    def control(self, message: Mapping[str, Any], cursor: str) -> bytes:
        """The message's object with ``"cursor"``, which some have already."""
        return self.whole(dump_json({**message, "cursor": cursor}))

    def relay(self, control: bytes, cursor: str) -> bytes:
        """The same of what is JSON already."""
        return self.whole(b'%b,"cursor":"%b"}' % (control[:-1], cursor.encode()))
