"""``GET /subscribe/ws``: the handshake, up to where a WebSocket is a `Conversation`.

Whatever can be wrong is found before 101 and refused by an ordinary HTTP answer. Only who has
shown nothing yet is let in on trust, as far as the `Lobby`.

Runs up to the hijack on the I/O thread, or with a ticket in a worker. Imported by the public
application.
"""

from push_server.doors.conversation import Conversation
from push_server.doors.guard import authenticate
from push_server.doors.lobby import Lobby
from push_server.doors.methods import METHODS
from push_server.doors.orders import make_order
from push_server.doors.request import Answer, Request
from push_server.doors.taking import Attach, can_take, take
from push_server.errors import BadInput, Denied, NotServed, UpgradeRequired
from push_server.transports import TRANSPORTS
from push_server.transports.base import Headers
from push_server.transports.frames import accept

_HANDSHAKE = ("upgrade", "connection", "sec-websocket-key", "sec-websocket-version")


def accepted(request: Request) -> Headers:
    """What the answer to a handshake has besides the headers of every answer.

    Raises what is wrong with the handshake, and `NotServed` under another WSGI server.
    """
    if request.environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        raise UpgradeRequired("upgrade_required", "WebSocket begins with HTTP/1.1.")
    proof = accept({name: request.header(name) for name in _HANDSHAKE})
    if not can_take(request):
        raise NotServed(
            "no_websocket", "This WSGI server cannot hand over a connection; use a stream."
        )
    return (("Sec-WebSocket-Accept", proof),)


class WebSocketDoor:
    """Lets WebSockets in."""

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby

    def __call__(self, request: Request, headers: Headers) -> Answer | None:
        """Refuse by raising, or take the connection."""
        shaken = accepted(request)
        if "HTTP_ORIGIN" not in request.environ and not request.header("authorization"):
            # Browsers always send one. A program has to show a token with the handshake.
            raise Denied(
                "origin_missing",
                "Send an Origin, or a bearer token in the header.",
                event="origin.reject",
                reason="missing",
            )
        if not take(request, self._lobby.context, self._beginning(request, headers, shaken)):
            raise BadInput("pipelined", "Send nothing before the handshake is answered.")
        return None

    def _beginning(self, request: Request, headers: Headers, shaken: Headers) -> Attach:
        """What the loop does with the socket."""
        context = self._lobby.context
        if request.parameter("ticket") or request.header("authorization"):
            grant = authenticate(request, context, tickets=True)
            order = make_order(
                context.settings,
                grant,
                request.ip,
                request.parameters("channel"),
                transport=TRANSPORTS["ws"],
                since=request.parameter("since"),
                instance=request.parameter("instance"),
                headers=(*headers, *shaken),
                fallback=request.parameter("fallback"),
            )
            talk = Conversation(self._lobby, METHODS, request.ip)
            return lambda sock, _: talk.enter(sock, grant, order, headers)
        if request.query:
            raise BadInput("query", "Without a token or ticket, put it all into `connect`.")
        talk = Conversation(self._lobby, METHODS, request.ip)
        return lambda sock, _: talk.wait(sock, headers, shaken)
