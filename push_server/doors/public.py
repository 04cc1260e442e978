"""The application of the browser listener: its routes and the headers of all its answers."""

from push_server.doors.bayeux_http import BayeuxDoor
from push_server.doors.context import Context
from push_server.doors.echo import EchoDoor
from push_server.doors.files import FileDoor, FrameDoor, script_names
from push_server.doors.forwarded import visitor
from push_server.doors.guard import check_host, check_no_token_in_url, check_origin
from push_server.doors.lobby import Lobby
from push_server.doors.presence import PresenceDoor
from push_server.doors.publish import PublishDoor, TicketDoor
from push_server.doors.pull import PullDoor
from push_server.doors.request import Request
from push_server.doors.router import Router, Routes
from push_server.doors.subscribe import SubscribeDoor
from push_server.doors.websocket import WebSocketDoor
from push_server.transports.base import Headers


def public_application(context: Context) -> Router:
    """The WSGI application that browsers talk to."""
    lobby = Lobby(context)
    bayeux = BayeuxDoor(lobby)
    routes: Routes = {
        "/frame": ("GET", FrameDoor(context)),
        **{f"/{name}": ("GET", FileDoor(name)) for name in script_names()},
        "/subscribe/": ("GET", SubscribeDoor(context)),
        "/subscribe/ws": ("GET", WebSocketDoor(lobby)),
        "/publish": ("POST", PublishDoor(context)),
        "/presence": ("POST", PresenceDoor(context)),
        "/bayeux": ("GET POST OPTIONS", bayeux),
        "/bayeux/": ("GET POST OPTIONS", bayeux),
        "/ticket": ("POST", TicketDoor(context)),
        "/pull": ("GET", PullDoor(context)),
        "/echo": ("GET", EchoDoor(context)),
    }

    trusted_proxy = context.settings.trusted_proxy

    def guard(request: Request) -> Headers:
        request.ip = visitor(request, trusted_proxy)
        check_host(request, context.settings)
        check_no_token_in_url(request)
        origin = check_origin(request, context.settings)
        if not origin:
            return ()
        # Only a listed origin is ever echoed, never "*", and no credentials: there are none.
        shared: Headers = (("Access-Control-Allow-Origin", origin),)
        if f"{request.path}/".startswith("/bayeux/"):
            # Bayeux clients ask for it although there are no cookies, and of refusals, too.
            shared += (("Access-Control-Allow-Credentials", "true"),)
        return shared

    def headers() -> Headers:
        # Chromium honours document.domain only where every response of the origin, errors
        # included, asks for it; without it the opposite header gives the origin its own process.
        cluster = "?0" if context.settings.document_domain else "?1"
        return (
            ("Origin-Agent-Cluster", cluster),
            # Also makes Chromium hand over the first bytes of an XHR instead of waiting for
            # 1,024 of them to sniff the type from.
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Vary", "Origin"),
        )

    return Router(routes, guard, headers)
