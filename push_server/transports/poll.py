"""Long poll: the request is held until there is something to say, then answered whole.

The server keeps nothing between two polls: the cursor goes out with an answer and comes back
with the next request. It works through everything that buffers answers.
"""

from collections.abc import Sequence

from push_server.publications import Publication
from push_server.transports.base import Headers, Transport, response


class Poll(Transport):
    """One JSON object per request."""

    name = "poll"
    once = True
    content_type = "application/json"

    def head(self, headers: Headers) -> bytes:
        """Nothing: the answer has its own head, with its length."""
        return b""

    def encode(self, publications: Sequence[Publication]) -> tuple[bytes, ...]:
        """List elements, each with a comma behind it."""
        return (b"".join(publication.json + b"," for publication in publications),)

    def relay(self, control: bytes, cursor: str) -> bytes:
        """A list element with a comma behind it."""
        return control + b","

    def answer(
        self, publications: bytes, controls: bytes, cursor: str, headers: Headers, keep_alive: bool
    ) -> bytes:
        """``{"cursor":…,"publications":[…],"control":[…]}``."""
        body = self.body(publications, controls, cursor)
        return response(200, headers, body, keep_alive=keep_alive)

    @staticmethod
    def body(publications: bytes, controls: bytes, cursor: str) -> bytes:
        """The object that an answer is."""
        return b'{"cursor":"%b","publications":[%b],"control":[%b]}' % (
            cursor.encode(),
            publications[:-1],
            controls[:-1],
        )
