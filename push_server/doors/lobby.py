"""The lobby: WebSockets that have shown no token yet.

A browser can send neither a header nor, without another request, a ticket with the handshake. So
whoever comes is let in here, and may bring a token within ten seconds; there may be few of them,
in all and from one address.

Event loop only. Imported by the doors that take WebSockets.
"""

from collections import Counter

from push_server.addresses import address_group
from push_server.doors.context import Context
from push_server.doors.orders import unlimited
from push_server.errors import TooMany, Unavailable

CONNECT_SECONDS = 10.0
"""From the answer to the handshake to a first message with a token."""
CONNECT_BYTES = 32 * 1024
"""Of a message until then: a token, a cursor, and as many channels as there may be."""
COMMAND_BYTES = 8 * 1024
"""What a later message may have beyond `max_body`: the words around a publication's data."""
STRANGERS_SHARE = 10
"""One in so many connections may be without a token as yet."""


class Lobby:
    """The count of those who have shown no token yet."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._strangers: Counter[str] = Counter()

    def enter(self, ip: str) -> None:
        """Count one more. Raises `Unavailable`, `TooMany`."""
        group = address_group(ip)
        limit = self.context.settings.handshakes_per_ip
        if self._strangers.total() >= max(self.context.hub.capacity // STRANGERS_SHARE, 1):
            raise Unavailable("full", "Too many have not shown a token yet.", retry_after=5)
        if self._strangers[group] >= limit and ip not in unlimited(self.context.settings):
            raise TooMany(
                "too_many_handshakes",
                "This address has as many connections without a token as `handshakes_per_ip`.",
                retry_after=5,
                event="ws.reject",
            )
        self._strangers[group] += 1

    def leave(self, ip: str) -> None:
        """Count one less."""
        group = address_group(ip)
        self._strangers[group] -= 1
        if not self._strangers[group]:
            del self._strangers[group]
