"""The table of transports.

To add one: a file with a `Transport`, a line here, a row in `tests/test_transports.py`, a
section in `docs/protocol.rst`.
"""

from push_server.transports.base import Transport
from push_server.transports.poll import Poll
from push_server.transports.sse import SSE
from push_server.transports.stream import Stream
from push_server.transports.ws import WebSocket

TRANSPORTS: dict[str, Transport] = {
    transport.name: transport for transport in (SSE(), Stream(), WebSocket(), Poll())
}
