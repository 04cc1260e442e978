"""The table of transports.

To add one: a file with a `Transport`, a line here, a reader in `tests/contract.py`, a
section in `docs/protocol.rst`.
"""

from push_server.transports.base import Transport
from push_server.transports.frame import ForeverFrame
from push_server.transports.interval import Interval
from push_server.transports.jsonp import Jsonp
from push_server.transports.multipart import Multipart
from push_server.transports.poll import Poll
from push_server.transports.sse import SSE
from push_server.transports.stream import Stream
from push_server.transports.ws import WebSocket

TRANSPORTS: dict[str, Transport] = {
    transport.name: transport
    for transport in (
        SSE(),
        Stream(),
        WebSocket(),
        ForeverFrame(),
        Multipart(),
        Poll(),
        Interval(),
        Jsonp(),
    )
}
