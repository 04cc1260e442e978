"""The lobby: WebSockets that have not said yet who they are.

A browser can send neither a header nor, without another request, a ticket with the handshake. So
whoever comes is let in here, and may bring a token within ten seconds; there may be few of them,
in all and from one address.

Event loop only, but for making one. One for all doors that take WebSockets, which import it.
"""

import socket
from collections import Counter

from push_server import log
from push_server.addresses import address_group
from push_server.dates import date_header
from push_server.doors.context import Context
from push_server.doors.orders import unlimited
from push_server.errors import PushError, TooMany, Unavailable
from push_server.transports import TRANSPORTS, frames
from push_server.transports.base import Headers
from push_server.transports.frames import Kind, Violation
from push_server.transports.ws import REFUSED
from push_server.websocket import Listener, WebSocketConnection

CONNECT_SECONDS = 10.0
"""From the answer to the handshake to a first message with a token."""
CONNECT_BYTES = 32 * 1024
"""Of a message until then: a token, a cursor, and as many channels as there may be."""
COMMAND_BYTES = 8 * 1024
"""What a later message may have beyond `max_body`: the words around a publication's data."""
STRANGERS_SHARE = 10
"""One in so many connections may be without a token as yet."""


class Lobby:
    """The strangers, by address."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._strangers: Counter[str] = Counter()

    def receive(
        self,
        connection: WebSocketConnection,
        listener: Listener,
        ip: str,
        headers: Headers,
        shaken: Headers,
    ) -> "Stay | None":
        """Answer a handshake; None if it had to be refused, or the client is gone.

        `headers` are those of every answer, `shaken` those of this one besides.
        """
        group = address_group(ip)
        try:
            self._check(group, ip)
        except PushError as error:
            log.refused(error, ip)
            self.context.hub.refuse(headers, connection, error)
            return None
        connection.write(TRANSPORTS["ws"].head((*headers, *shaken, date_header())))
        if not connection.open:
            return None  # gone already, and it will not be said again
        connection.begin(CONNECT_BYTES)
        return self.keep(connection, listener, ip)

    def keep(self, connection: WebSocketConnection, listener: Listener, ip: str) -> "Stay":
        """Count a stranger, new or once more, until its stay ends."""
        group = address_group(ip)
        self._strangers[group] += 1
        return Stay(self, group, connection, listener)

    def _check(self, group: str, ip: str) -> None:
        settings = self.context.settings
        if self._strangers.total() >= max(self.context.hub.capacity // STRANGERS_SHARE, 1):
            raise Unavailable("full", "Too many have not shown a token yet.", retry_after=5)
        if self._strangers[group] >= settings.handshakes_per_ip and ip not in unlimited(settings):
            raise TooMany(
                "too_many_handshakes",
                "This address has as many connections without a token as `handshakes_per_ip`.",
                retry_after=5,
                event="ws.reject",
            )

    def leave(self, group: str) -> None:
        """Count one less."""
        self._strangers[group] -= 1
        if not self._strangers[group]:
            del self._strangers[group]

    def note(self, violation: Violation, ip: str) -> None:
        """Count and log what a client did wrong; its connection does not know the address."""
        self.context.hub.counts[f"violations.{violation.code}"] += 1
        log.rejected("ws.reject", ip, code=violation.code, reason=violation.reason)


class Stay:
    """A stranger in the lobby."""

    def __init__(
        self, lobby: Lobby, group: str, connection: WebSocketConnection, listener: Listener
    ) -> None:
        self._lobby = lobby
        self._group = group
        loop = lobby.context.hub.loop
        self._deadline = loop.call_later(CONNECT_SECONDS, self._too_late, connection, listener)

    @staticmethod
    def _too_late(connection: WebSocketConnection, listener: Listener) -> None:
        listener.violated(Violation(frames.POLICY_VIOLATION, "no connect"))
        connection.fail(REFUSED + 408, "no connect in time")

    def end(self) -> None:
        """It is known now, or gone; to be called once."""
        self._deadline.cancel()
        self._lobby.leave(self._group)


class Guest:
    """The listener on a WebSocket, who may begin as a stranger."""

    __slots__ = ("_connection", "_ip", "_lobby", "_stay")
    _connection: WebSocketConnection

    def __init__(self, lobby: Lobby, ip: str) -> None:
        self._lobby = lobby
        self._ip = ip
        self._stay: Stay | None = None
        """While it is a stranger."""

    @property
    def context(self) -> Context:
        """The server."""
        return self._lobby.context

    def wait(self, sock: socket.socket, headers: Headers, shaken: Headers) -> None:
        """Answer the handshake, and wait for the first words."""
        self._connection = connection = WebSocketConnection(self.context.hub, sock, self)
        self._stay = self._lobby.receive(connection, self, self._ip, headers, shaken)
        if self._stay is not None:
            connection.resume()

    def _known(self) -> None:
        """It is a stranger no more, or gone."""
        if self._stay is not None:
            self._stay.end()
            self._stay = None

    def _send(self, text: bytes) -> None:
        """Send a message, while messages can be sent."""
        if self._connection.open:
            self._connection.write(frames.text(text))

    # What the connection calls.

    def received(self, kind: Kind, data: bytes) -> None:
        """Take a message, which has to be text."""
        if kind is not Kind.TEXT:
            raise Violation(frames.UNSUPPORTED_DATA, "text only")
        self._heard(data)

    def _heard(self, text: bytes) -> None:
        raise NotImplementedError

    def violated(self, violation: Violation) -> None:
        """Note it: nobody else knows the address."""
        self._lobby.note(violation, self._ip)

    def ended(self) -> None:
        """The connection is over."""
        self._known()
