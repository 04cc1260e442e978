"""Server-sent events (WHATWG HTML, section 9.2).

LF only, no BOM, one `data` line (payloads are ASCII JSON and hold no line end), the cursor as
`id`, so that a browser's EventSource brings it back by itself as Last-Event-ID. Control messages
have an event name of their own, so that `onmessage` sees publications only.
"""

from collections.abc import Sequence

from push_server.publications import Publication
from push_server.transports.base import Headers, Transport


class SSE(Transport):
    """The transport of EventSource."""

    name = "sse"
    content_type = "text/event-stream; charset=utf-8"

    def head(self, headers: Headers) -> bytes:
        """The answer's head, and the reconnection time native clients shall use.

        That stands in the first event: of a block without data some readers, httpx-sse and
        fetch-event-source among them, make an event without any.
        """
        return super().head(headers) + b"retry: 3000\n"

    def encode(self, publications: Sequence[Publication]) -> tuple[bytes, ...]:
        """``data: … id: 1~entry`` REST, for each publication."""
        pieces = [
            b"data: %b\nid: 1~%b" % (publication.json, publication.entry.encode())
            for publication in publications
        ]
        return (pieces[0], *(b"\n\n" + piece for piece in pieces[1:]), b"\n\n")

    def relay(self, control: bytes, cursor: str) -> bytes:
        """An event named ``control``."""
        return b"event: control\ndata: %b\nid: %b\n\n" % (control, cursor.encode())
