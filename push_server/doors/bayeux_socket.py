"""``/bayeux`` over WebSocket: each text message is what a request's body would be.

A socket needs no token of its own: some clients open it before they shake hands over HTTP, and
whoever knows a clientId is that client, on every connection. Who fetches for none has ten seconds,
as everywhere. A session lives as long as the socket that its connects come by: when that breaks,
nobody knows what of it was read, so the client begins another session, from its cursor if it has
one.

Imported by `bayeux_http`.
"""

import socket
from collections.abc import Sequence

from push_server.bayeux.mailbox import Mailbox
from push_server.bayeux.requests import Message, messages_of
from push_server.doors.bayeux import HOLD_SECONDS, WEBSOCKET, Bayeux, Hold
from push_server.doors.lobby import COMMAND_BYTES, Lobby, Stay
from push_server.doors.request import Answer, Request, parse_json
from push_server.doors.taking import take
from push_server.doors.websocket import accepted
from push_server.errors import BadInput, PushError
from push_server.transports import frames
from push_server.transports.base import Headers
from push_server.transports.frames import Kind, Violation
from push_server.websocket import WebSocketConnection


class BayeuxSocketDoor:
    """Lets WebSockets in that speak Bayeux."""

    def __init__(self, bayeux: Bayeux, lobby: Lobby) -> None:
        self._bayeux = bayeux
        self._lobby = lobby

    def __call__(self, request: Request, headers: Headers) -> Answer | None:
        """Refuse by raising, or take the connection."""
        shaken = accepted(request)
        line = _Line(self._bayeux, self._lobby, request.ip)
        context = self._bayeux.context
        if not take(request, context, lambda sock, _: line.begin(sock, headers, shaken)):
            raise BadInput("pipelined", "Send nothing before the handshake is answered.")
        return None


class _Line:
    """The listener on one WebSocket (loop, but for making one)."""

    _connection: WebSocketConnection

    def __init__(self, bayeux: Bayeux, lobby: Lobby, ip: str) -> None:
        self._bayeux = bayeux
        self._lobby = lobby
        self._ip = ip
        self._stay: Stay | None = None
        """While no session is fetched from by this way."""
        self._mailboxes: set[Mailbox] = set()
        """Those that are fetched from by this way."""

    def begin(self, sock: socket.socket, headers: Headers, shaken: Headers) -> None:
        """Answer the handshake, and listen."""
        hub = self._bayeux.context.hub
        self._connection = connection = WebSocketConnection(hub, sock, self)
        self._stay = self._lobby.receive(connection, self, self._ip, headers, shaken)
        if self._stay is not None:
            connection.resume()

    def _known(self) -> None:
        if self._stay is not None:
            self._stay.end()
            self._stay = None

    # What the connection calls.

    def received(self, kind: Kind, data: bytes) -> None:
        """Take messages."""
        if kind is not Kind.TEXT:
            raise Violation(frames.UNSUPPORTED_DATA, "text only")
        if data.strip() in (b"", b"[]"):
            return  # a sign of life: CometD's and Faye's, and that of Faye before 1.3
        try:
            messages = messages_of(parse_json(data))
        except PushError as error:
            raise Violation(frames.INVALID_DATA, error.code) from None
        self._connection.pause()
        self._bayeux.context.crossing.spawn(self._serve(messages))

    def violated(self, violation: Violation) -> None:
        """Note it: nobody else knows the address."""
        self._lobby.note(violation, self._ip)

    def ended(self) -> None:
        """The connection is over, and with it the sessions that are fetched from by it."""
        self._known()
        for mailbox in tuple(self._mailboxes):
            mailbox.break_off(self._send)
        self._mailboxes.clear()

    async def _serve(self, messages: Sequence[Message]) -> None:
        connection = self._connection
        try:
            answer = await self._bayeux.answer(messages, WEBSOCKET, self._ip)
            if not connection.open:
                return
            self._bind(messages)
            if isinstance(answer, Hold):
                answer.client.mailbox.connect(answer.reply, self._send, HOLD_SECONDS)
            else:
                self._send(answer)
        except BaseException:
            connection.fail(1011, "failed")
            raise
        connection.resume()

    def _bind(self, messages: Sequence[Message]) -> None:
        for message in messages:
            client = self._bayeux.client(message.get("clientId"))
            if client is None:
                continue
            if self._stay is not None:
                self._connection.begin(
                    self._bayeux.context.settings.max_body + COMMAND_BYTES
                )
            if message.get("channel") == "/meta/connect" and client.mailbox not in self._mailboxes:
                self._known()
                self._mailboxes.add(client.mailbox)
                client.mailbox.stream(
                    self._send, self._finish, lambda: self._connection.idle
                )

    def _send(self, array: bytes) -> None:
        if self._connection.open:
            self._connection.write(frames.text(array))

    def _finish(self, mailbox: Mailbox, reason: str) -> None:
        """A session has ended, or is fetched from by another way."""
        self._mailboxes.discard(mailbox)
        if self._mailboxes or not self._connection.open:
            return
        if reason in ("left", "replaced", "drain"):  # nobody wants the socket any more
            hub = self._bayeux.context.hub
            hub.loop.call_soon(hub.part_with, self._connection, reason)
        else:  # a stranger again: sockets that nobody counts would gather
            self._stay = self._lobby.keep(self._connection, self, self._ip)
