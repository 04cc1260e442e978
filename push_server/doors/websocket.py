"""``GET /subscribe/ws``: the handshake, up to where a WebSocket is a `Conversation`.

Whatever can be wrong is found before 101 and refused by an ordinary HTTP answer. Only who has
shown nothing yet is let in on trust, as far as the `Lobby`.

Runs in a worker up to the hijack. Imported by the public application.
"""

import socket
from collections.abc import Callable
from email.utils import formatdate

from push_server.doors.context import Context
from push_server.doors.conversation import Conversation
from push_server.doors.guard import authenticate
from push_server.doors.lobby import Lobby
from push_server.doors.methods import METHODS
from push_server.doors.orders import make_order
from push_server.doors.request import Answer, Request
from push_server.errors import BadInput, Denied, NotServed, UpgradeRequired
from push_server.transports import TRANSPORTS
from push_server.transports.base import Headers
from push_server.transports.frames import accept

GiveBack = Callable[[socket.socket], None]
Take = Callable[[socket.socket, GiveBack], None]

_HANDSHAKE = ("upgrade", "connection", "sec-websocket-key", "sec-websocket-version")


def proof_of(request: Request) -> str:
    """What answers the handshake. Raises what is wrong with it."""
    if request.environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        raise UpgradeRequired("upgrade_required", "WebSocket begins with HTTP/1.1.")
    return accept({name: request.header(name) for name in _HANDSHAKE})


def hijack_of(request: Request) -> Callable[[Take], bool]:
    """The way to take the connection. Raises `NotServed` under another WSGI server."""
    hijack: Callable[[Take], bool] | None = request.environ.get("push_server.hijack")
    if hijack is None:
        raise NotServed(
            "no_websocket", "This WSGI server cannot hand over a connection; use a stream."
        )
    return hijack


class WebSocketDoor:
    """Lets WebSockets in."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lobby = Lobby(context)

    def __call__(self, request: Request, headers: Headers) -> Answer | None:
        """Refuse by raising, or take the connection."""
        proof, hijack = proof_of(request), hijack_of(request)
        if "HTTP_ORIGIN" not in request.environ and not request.header("authorization"):
            # Browsers always send one. A program has to show a token with the handshake.
            raise Denied(
                "origin_missing",
                "Send an Origin, or a bearer token in the header.",
                event="origin.reject",
                reason="missing",
            )
        headers = (
            *headers,
            ("Date", formatdate(usegmt=True)),
            ("Sec-WebSocket-Accept", proof),
        )
        begin = self._beginning(request, headers)

        def take(sock: socket.socket, give_back: GiveBack) -> None:  # runs on the I/O thread
            self._context.crossing.post(begin, sock)

        if not hijack(take):
            raise BadInput("pipelined", "Send nothing before the handshake is answered.")
        return None

    def _beginning(
        self, request: Request, headers: Headers
    ) -> Callable[[socket.socket], None]:
        """What the loop does with the socket."""
        if request.parameter("ticket") or request.header("authorization"):
            grant = authenticate(request, self._context, tickets=True)
            order = make_order(
                self._context.settings,
                grant,
                request.ip,
                request.parameters("channel"),
                transport=TRANSPORTS["ws"],
                since=request.parameter("since"),
                instance=request.parameter("instance"),
                headers=headers,
                fallback=request.parameter("fallback"),
            )
            talk = Conversation(self._lobby, METHODS, request.ip)
            return lambda sock: talk.enter(sock, grant, order)
        if request.query:
            raise BadInput("query", "Without a token or ticket, put it all into `connect`.")
        talk = Conversation(self._lobby, METHODS, request.ip)
        return lambda sock: talk.wait(sock, headers)
