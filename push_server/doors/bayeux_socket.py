"""``/bayeux`` over WebSocket: each text message is what a request's body would be.

A socket needs no token of its own: some clients open it before they shake hands over HTTP, and
whoever knows a clientId is that client, on every connection. Who fetches for none has ten seconds,
as everywhere. A session lives as long as the socket that its connects come by: when that breaks,
nobody knows what of it was read, so the client begins another session, from its cursor if it has
one.

Imported by `bayeux_http`.
"""

from collections.abc import Sequence

from push_server.bayeux.mailbox import Mailbox
from push_server.bayeux.requests import Message, messages_of
from push_server.doors.bayeux import HOLD_SECONDS, WEBSOCKET, Bayeux, Hold
from push_server.doors.lobby import COMMAND_BYTES, Guest, Lobby
from push_server.doors.request import Answer, Request, parse_json
from push_server.doors.taking import take
from push_server.doors.websocket import accepted
from push_server.errors import BadInput, PushError
from push_server.transports import frames
from push_server.transports.base import Headers
from push_server.transports.frames import Violation


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
        if not take(request, context, lambda sock, _: line.wait(sock, headers, shaken)):
            raise BadInput("pipelined", "Send nothing before the handshake is answered.")
        return None


class _Line(Guest):
    """The listener on one WebSocket: a stranger while no session is fetched from by this way."""

    __slots__ = ("_bayeux", "_mailboxes")

    def __init__(self, bayeux: Bayeux, lobby: Lobby, ip: str) -> None:
        super().__init__(lobby, ip)
        self._bayeux = bayeux
        self._mailboxes: set[Mailbox] = set()
        """Those that are fetched from by this way."""

    def _heard(self, text: bytes) -> None:
        """Take messages."""
        if text.strip() in (b"", b"[]"):
            return  # a sign of life: CometD's and Faye's, and that of Faye before 1.3
        try:
            messages = messages_of(parse_json(text))
        except PushError as error:
            raise Violation(frames.INVALID_DATA, error.code) from None
        self._connection.pause()
        self.context.crossing.spawn(self._serve(messages))

    def ended(self) -> None:
        """The connection is over, and with it the sessions that are fetched from by it."""
        super().ended()
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
                self._connection.begin(self.context.settings.max_body + COMMAND_BYTES)
            if message.get("channel") == "/meta/connect" and client.mailbox not in self._mailboxes:
                self._known()
                self._mailboxes.add(client.mailbox)
                client.mailbox.stream(
                    self._send, self._finish, lambda: self._connection.idle
                )

    def _finish(self, mailbox: Mailbox, reason: str) -> None:
        """A session has ended, or is fetched from by another way."""
        self._mailboxes.discard(mailbox)
        if self._mailboxes or not self._connection.open:
            return
        if reason in ("left", "replaced", "drain"):  # nobody wants the socket any more
            hub = self.context.hub
            hub.loop.call_soon(hub.part_with, self._connection, reason)
        else:  # a stranger again: sockets that nobody counts would gather
            self._stay = self._lobby.keep(self._connection, self, self._ip)
