"""``/bayeux`` over WebSocket: each text message is what a request's body would be.

A socket needs no token of its own: some clients open it before they shake hands over HTTP, and
whoever knows a clientId is that client, on every connection. Who shows none has ten seconds, as
everywhere. A session lives as long as the socket that its connects come by: when that breaks,
nobody knows what of it was read, so the client begins another session, from its cursor if it has
one.

Imported by `bayeux_http`.
"""

import socket
from asyncio import TimerHandle
from collections.abc import Callable, Sequence
from email.utils import formatdate

from push_server import log
from push_server.bayeux.mailbox import Mailbox
from push_server.bayeux.requests import Message, messages_of
from push_server.doors.bayeux import HOLD_SECONDS, WEBSOCKET, Bayeux, Hold
from push_server.doors.lobby import COMMAND_BYTES, CONNECT_BYTES, CONNECT_SECONDS, Lobby
from push_server.doors.request import Answer, Request, parse_json
from push_server.doors.websocket import hijack_of, proof_of
from push_server.errors import BadInput, PushError
from push_server.transports import TRANSPORTS, frames
from push_server.transports.base import Headers
from push_server.transports.frames import Kind, Violation
from push_server.transports.ws import REFUSED
from push_server.websocket import WebSocketConnection

GiveBack = Callable[[socket.socket], None]


class BayeuxSocketDoor:
    """Lets WebSockets in that speak Bayeux."""

    def __init__(self, bayeux: Bayeux) -> None:
        self._bayeux = bayeux
        self._lobby = Lobby(bayeux.context)

    def __call__(self, request: Request, headers: Headers) -> Answer | None:
        """Refuse by raising, or take the connection."""
        proof, hijack = proof_of(request), hijack_of(request)
        headers = (
            *headers,
            ("Date", formatdate(usegmt=True)),
            ("Sec-WebSocket-Accept", proof),
        )
        line = _Line(self._bayeux, self._lobby, request.ip)

        def take(sock: socket.socket, give_back: GiveBack) -> None:  # runs on the I/O thread
            self._bayeux.context.crossing.post(line.begin, sock, headers)

        if not hijack(take):
            raise BadInput("pipelined", "Send nothing before the handshake is answered.")
        return None


class _Line:
    """The listener on one WebSocket (loop, but for making one)."""

    _connection: WebSocketConnection

    def __init__(self, bayeux: Bayeux, lobby: Lobby, ip: str) -> None:
        self._bayeux = bayeux
        self._lobby = lobby
        self._ip = ip
        self._deadline: TimerHandle | None = None
        """When it has to go that has named no session; None once it has."""
        self._mailboxes: set[Mailbox] = set()
        """Those that are fetched from by this way."""

    def begin(self, sock: socket.socket, headers: Headers) -> None:
        """Answer the handshake, and listen."""
        hub = self._bayeux.context.hub
        self._connection = connection = WebSocketConnection(hub, sock, self)
        try:
            self._lobby.enter(self._ip)
        except PushError as error:
            log.rejected(error.event, self._ip, status=error.status, reason=error.reason)
            hub.refuse(headers, connection, error)
            return
        self._deadline = hub.loop.call_later(CONNECT_SECONDS, self._too_late)
        connection.write(TRANSPORTS["ws"].head(headers))
        connection.begin(CONNECT_BYTES)
        connection.resume()

    def _too_late(self) -> None:
        self.violated(Violation(frames.POLICY_VIOLATION, "no session"))
        self._connection.fail(REFUSED + 408, "no session in time")

    def _known(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._lobby.leave(self._ip)

    # What the connection calls.

    def received(self, kind: Kind, data: bytes) -> None:
        """Take messages."""
        if kind is not Kind.TEXT:
            raise Violation(frames.UNSUPPORTED_DATA, "text only")
        if not data.strip():
            return  # CometD's and Faye's sign of life
        try:
            messages = messages_of(parse_json(data))
        except PushError as error:
            raise Violation(frames.INVALID_DATA, error.code) from None
        self._connection.pause()
        self._bayeux.context.crossing.spawn(self._serve(messages))

    def violated(self, violation: Violation) -> None:
        """Note it: nobody else knows the address."""
        self._bayeux.context.hub.counts[f"violations.{violation.code}"] += 1
        log.rejected("ws.reject", self._ip, code=violation.code, reason=violation.reason)

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
            if self._deadline is not None:
                self._known()
                self._connection.begin(
                    self._bayeux.context.settings.max_body + COMMAND_BYTES
                )
            if message.get("channel") == "/meta/connect" and client.mailbox not in self._mailboxes:
                self._mailboxes.add(client.mailbox)
                client.mailbox.stream(
                    self._send, self._finish, lambda: self._connection.idle
                )

    def _send(self, array: bytes) -> None:
        if self._connection.open:
            self._connection.write(frames.text(array))

    def _finish(self, mailbox: Mailbox, reason: str) -> None:
        """A session has ended; a client that said so wants its socket closed, too."""
        self._mailboxes.discard(mailbox)
        if reason == "left" and not self._mailboxes:
            loop = self._bayeux.context.hub.loop
            loop.call_soon(self._bayeux.context.hub.part_with, self._connection, "left")
