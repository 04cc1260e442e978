"""``/bayeux`` over HTTP: long polling, callback polling, and the stream of an EventSource.

A request is read by the front and answered by the loop, at once or when there is something to say:
its connection leaves the front, as that of a long poll does, and comes back with the answer.

Runs on the I/O thread up to the hijack. Imported by the public application.
"""

import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from push_server import log
from push_server.bayeux.mailbox import Mailbox, Send
from push_server.bayeux.requests import check_callback, client_ids, json_of, messages_of, script
from push_server.connection import Connection, SocketConnection
from push_server.dates import date_header
from push_server.doors.bayeux import CALLBACK, HOLD_SECONDS, POLLING, Bayeux, Hold
from push_server.doors.bayeux_socket import BayeuxSocketDoor
from push_server.doors.lobby import CONNECT_BYTES, Lobby
from push_server.doors.request import Answer, Request, parse_json
from push_server.doors.taking import GiveBack, can_take, take
from push_server.errors import BadInput, Denied, NotFound, PushError, TooLarge, Unavailable
from push_server.hub import Hub
from push_server.transports.base import Headers, response_head

_PREFLIGHT: Headers = (
    ("Access-Control-Allow-Methods", "GET, POST"),
    (
        "Access-Control-Allow-Headers",
        "Accept, Authorization, Content-Type, Pragma, X-Requested-With",
    ),
    ("Access-Control-Max-Age", "600"),
)


class BayeuxDoor:
    """Serves ``/bayeux`` and everything below it."""

    def __init__(self, lobby: Lobby) -> None:
        self._context = context = lobby.context
        self._bayeux = Bayeux(context)
        self._socket_door = BayeuxSocketDoor(self._bayeux, lobby)

    def __call__(self, request: Request, headers: Headers) -> Answer | None:
        """Answer, or take the connection."""
        try:
            return self._answer(request, headers)
        except PushError as error:
            log.refused(error, request.ip)
            # No JSON: Faye in Node takes that for its answer, whatever the status, and waits on.
            fields = (*headers, *error.headers(), ("Content-Type", "text/plain; charset=utf-8"))
            return error.status, list(fields), [f"{error.code}: {error.message}".encode()]

    def _answer(self, request: Request, headers: Headers) -> Answer | None:
        if not self._context.serves_bayeux:  # and the connection could not be handed over
            raise Unavailable("elsewhere", "Another process has the sessions.", retry_after=1)
        if request.method == "OPTIONS":
            return 204, [*headers, *_PREFLIGHT], []
        # No answer of Bayeux: aiocometd takes the milliseconds of an advice to wait for seconds.
        self._context.hub.check_stays()
        if "websocket" in request.header("upgrade").lower():  # another offer is passed over
            return self._socket_door(request, headers)
        if request.method == "POST":
            body = request.body(self._context.settings.max_body)
            if len(body) > CONNECT_BYTES and not any(map(self._bayeux.client, client_ids(body))):
                # To read it would take up to 50 ms of the I/O thread, for anybody.
                raise TooLarge("body_too_large", "Before there is a session, 32 KiB at most.")
            return self._serve(request, headers, json_of(body), "")
        if "text/event-stream" in request.header("accept"):
            return self._stream(request, headers)
        if not self._context.settings.jsonp:
            raise Denied("jsonp_off", "This server has no `jsonp = true`.")
        callback = check_callback(request.parameter("jsonp"))
        text = request.parameter("message").encode()
        if len(text) > self._context.settings.max_body:
            raise TooLarge("body_too_large", "The message is too large.")
        return self._serve(request, headers, text, callback)

    def _serve(
        self, request: Request, headers: Headers, text: bytes, callback: str
    ) -> Answer | None:
        messages = messages_of(parse_json(text))
        way = CALLBACK if callback else POLLING
        context, ip = self._context, request.ip
        shape = _Shape(headers, callback)
        keep_alive = (
            request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
            and "close" not in request.header("connection").lower()
        )

        def serve(sock: socket.socket, give_back: GiveBack) -> None:  # runs on the loop
            exchange = _Exchange(context.hub, shape, sock, give_back if keep_alive else None)
            context.crossing.spawn(exchange.serve(self._bayeux.answer(messages, way, ip)))

        if can_take(request):
            if not take(request, context, serve):
                raise BadInput("pipelined", "Send nothing behind a request that may be held.")
            return None
        # Another WSGI server: nothing can be held.
        answer = context.crossing.call(self._bayeux.answer(messages, way, ip, holds=False))
        assert isinstance(answer, bytes)
        return 200, list(shape.headers), [shape.body(answer)]

    def _stream(self, request: Request, headers: Headers) -> Answer | None:
        identity = request.path.rpartition("/")[2]
        client = self._bayeux.client(identity)
        if client is None or not can_take(request):
            raise NotFound("session_unknown", "There is no such session.")
        hub, mailbox = self._context.hub, client.mailbox
        if not take(request, self._context, lambda sock, _: _Stream(hub, mailbox, headers, sock)):
            raise BadInput("pipelined", "Send nothing behind a long-lived request.")
        return None


class _Shape:
    """How an array becomes an answer: as JSON, or as a call in a script."""

    def __init__(self, headers: Headers, callback: str) -> None:
        self._callback = callback
        kind = "text/javascript" if callback else "application/json"
        self.headers: Headers = (
            *headers,
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Cache-Control", "no-store, no-transform"),
        )
        if callback:
            # Not a page, whatever somebody makes a browser open.
            self.headers += (("Content-Disposition", "attachment; filename=f.txt"),)

    def body(self, array: bytes) -> bytes:
        return script(self._callback, array) if self._callback else array

    def whole(self, array: bytes, *, keep_alive: bool) -> bytes:
        body = self.body(array)
        fields = (
            *self.headers,
            date_header(),
            ("Content-Length", str(len(body))),
        )
        if not keep_alive:
            fields += (("Connection", "close"),)
        return response_head(200, fields) + body


class _Way:
    """What a connection beside a mailbox needs from the hub, and how it hears of its end."""

    def __init__(self, hub: Hub) -> None:
        self.loop = hub.loop
        self.watch = hub.watch
        self.queue_bytes = hub.queue_bytes
        self.blocked = hub.blocked
        self.lost: Callable[[], None] = lambda: None
        self.over = False

    def closed(self, connection: Connection, reason: str) -> None:
        """The connection's callback."""
        self.over = True
        lost, self.lost = self.lost, lambda: None
        lost()


class _Exchange:
    """A request that is to be answered, on the connection it came by (loop)."""

    def __init__(
        self, hub: Hub, shape: _Shape, sock: socket.socket, give_back: GiveBack | None
    ) -> None:
        self._shape = shape
        self._keep_alive = give_back is not None
        self._way = _Way(hub)
        self._connection = SocketConnection(self._way, sock, give_back)

    async def serve(self, answering: Coroutine[Any, Any, bytes | Hold]) -> None:
        """Answer, or be held."""
        try:
            answer = await answering
        except BaseException:
            self._connection.close("failed")
            raise
        if isinstance(answer, bytes):
            self._send(answer)
            return
        if self._way.over:
            return  # the client has hung up meanwhile: what comes waits for its next connect
        send: Send = self._send
        mailbox = answer.client.mailbox
        self._way.lost = partial(mailbox.lose, send)
        mailbox.connect(answer.reply, send, HOLD_SECONDS)

    def _send(self, array: bytes) -> None:
        self._connection.write(self._shape.whole(array, keep_alive=self._keep_alive))
        self._let_go()

    def _let_go(self) -> None:
        """Give the connection back, now or when the client has taken the answer."""
        connection = self._connection
        if self._keep_alive and not connection.idle:
            connection.when_idle(self._let_go)
        elif not (self._keep_alive and connection.release()):
            connection.finish("done")


class _Stream:
    """Faye's EventSource: what comes to a mailbox leaves as an event (loop).

    When it breaks, nobody knows what of it was read. So the session ends with it, and the client
    begins another, from its cursor if it has one.
    """

    def __init__(self, hub: Hub, mailbox: Mailbox, headers: Headers, sock: socket.socket) -> None:
        way = _Way(hub)
        self._connection = SocketConnection(way, sock, None)
        fields = (
            ("Content-Type", "text/event-stream; charset=utf-8"),
            ("Cache-Control", "no-store, no-transform"),
            ("X-Accel-Buffering", "no"),
            ("Connection", "close"),
            date_header(),
        )
        head: bytes = response_head(200, (*fields, *headers))
        self._connection.write(head + b"retry: 5000\n\n")
        if mailbox.ended or way.over:  # of a client that is gone nothing was taken yet
            self._connection.finish("done")
            return
        way.lost = partial(mailbox.break_off, self._send)
        mailbox.stream(self._send, self._finish, lambda: self._connection.idle)

    def _send(self, array: bytes) -> None:
        self._connection.write(b"data: %b\n\n" % array)

    def _finish(self, mailbox: Mailbox, reason: str) -> None:
        self._connection.finish(reason)


