"""The Bayeux transport: publications and control messages as elements of a JSON array.

Each element has a comma behind it; whoever sends an array cuts the last one off. The cursor
stands in ``ext.push``, so that a client can come back with it when its session is gone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from push_server.bayeux.names import CONTROL, to_name
from push_server.publications import Publication, dump_json
from push_server.transports.base import Headers, Transport

_SILENT = frozenset({"hello", "ping"})
"""What the handshake's answer and the protocol's own ``/meta/connect`` say already."""


class Bayeux(Transport):
    """What a mailbox is filled with."""

    name = "bayeux"
    content_type = "application/json"

    def head(self, headers: Headers) -> bytes:
        """Nothing: each request has an answer of its own."""
        return b""

    def encode(self, publications: Sequence[Publication]) -> tuple[bytes, ...]:
        """``{"channel":…,"id":…,"data":…,"ext":{"push":{…,"cursor":…}}},`` each."""
        pieces = [
            _element(publication, b',"cursor":"1~' + publication.entry.encode())
            for publication in publications
        ]
        return (pieces[0], *(b'"}}},' + piece for piece in pieces[1:]), b'"}}},')

    def bare(self, publications: Sequence[Publication]) -> bytes:
        """The same without the cursor."""
        return b"".join(_element(publication, b"") + b"}}}," for publication in publications)

    def control(self, message: Mapping[str, Any], cursor: str) -> bytes:
        """A message on the channel of control messages."""
        if message["type"] in _SILENT:
            return b""
        value = {"channel": CONTROL, "data": {**message, "cursor": cursor}}
        return dump_json(value) + b","

    def relay(self, control: bytes, cursor: str) -> bytes:
        """The same of what is JSON already."""
        return b'{"channel":"%b","data":%b,"cursor":"%b"}},' % (
            CONTROL.encode(),
            control[:-1],
            cursor.encode(),
        )


def _element(publication: Publication, cursor: bytes) -> bytes:
    # Our own JSON: names and ids hold no quotes, and a string holds none that is not escaped, so
    # these are the first places where the words can stand.
    head, _, data = publication.json.partition(b',"data":')
    fields = head[head.index(b',"offset":') + 1 :]
    return b'{"channel":"%b","id":"%b","data":%b,"ext":{"push":{%b%b' % (
        to_name(publication.channel).encode(),
        publication.id.encode(),
        data[:-1],
        fields,
        cursor,
    )


BAYEUX = Bayeux()
