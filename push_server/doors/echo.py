"""``GET /echo``: what the server makes of a request.

For whoever sets the server up: a proxy that hides its visitors, or believes what they say about
themselves, shows only on this side of it. It takes a token, and tells nothing about anybody else.
"""

from push_server import __version__
from push_server.doors.context import Context
from push_server.doors.guard import authenticate
from push_server.doors.request import Answer, Request
from push_server.publications import dump_json
from push_server.transports.base import Headers


class EchoDoor:
    """Tells a visitor with a token how the server sees the request."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, request: Request, headers: Headers) -> Answer:
        """The address that limits and log go by, the user of the token, and our version."""
        grant = authenticate(request, self._context)
        seen = {"address": request.ip, "user": grant.user, "version": __version__}
        return 200, list(headers), [dump_json(seen)]
