"""The application of the internal listener: the API for the CMS, and the house's health.

It has no route in common with the public listener. A request that looks like a browser's is
refused before anything else: a page on the open web can make a browser talk to loopback (DNS
rebinding), but it cannot keep the browser from marking the request.
"""

import time
from hashlib import sha256

from push_server import log
from push_server.doors.canary import sing
from push_server.doors.commands import perform_all, prepare
from push_server.doors.context import Context
from push_server.doors.request import Answer, Request, parse_json
from push_server.doors.router import Router, Routes
from push_server.errors import BadInput, Denied, NotFound, PushError
from push_server.metrics import Metrics
from push_server.publications import ID_LIMIT, dump_json
from push_server.signatures import ApiKey, InvalidSignature, verify
from push_server.transports.base import Headers

BATCH_LIMIT = 1000
_BROWSER = ("HTTP_ORIGIN", "HTTP_COOKIE", "HTTP_SEC_FETCH_")
"""What the headers of a browser begin with. They may be empty, and more of them may come."""
_NODE = "HTTP_SEC_FETCH_MODE"
"""What `fetch` in Node sends of these; a browser sends the others with it."""


class ApiDoor:
    """``POST /api``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, request: Request, headers: Headers) -> Answer:
        """Perform the command, or the list of commands, in the body."""
        context = self._context
        body = request.body(context.settings.max_body)
        if body[:1] not in (b"{", b"["):
            raise BadInput("json_malformed", "The body is a command or a list of commands.")
        key = self._signer(request, body)
        commands = parse_json(body)
        many = isinstance(commands, list)
        if not many:
            commands = [commands]
        if not 0 < len(commands) <= BATCH_LIMIT:
            raise BadInput("command", f"A list has 1 to {BATCH_LIMIT} commands.")
        call_id = request.header("webhook-id")
        signed_at = int(request.header("webhook-timestamp"))
        prepared = [
            prepare(context, key, command, _auto_id(call_id, index), signed_at)
            for index, command in enumerate(commands)
        ]
        results = context.crossing.call(perform_all(context, prepared))
        if not many:
            if isinstance(results[0], PushError):
                raise results[0]
            return 200, list(headers), [b'{"result":', results[0], b"}"]
        for failed in {result.code for result in results if isinstance(result, PushError)}:
            log.rejected("api.reject", request.ip, key=key.name, reason=failed)
        answers = (
            dump_json(result.entry())
            if isinstance(result, PushError)
            else b'{"result":%b}' % result
            for result in results
        )
        return 200, list(headers), [b"[", b",".join(answers), b"]"]

    def _signer(self, request: Request, body: bytes) -> ApiKey:
        if request.environ.get("QUERY_STRING"):
            raise InvalidSignature("query")  # the signature does not cover it
        return verify(
            self._context.settings.api_keys.values(),
            request.header("webhook-id"),
            request.header("webhook-timestamp"),
            request.header("webhook-signature"),
            body,
            time.time(),
        )


def _auto_id(call_id: str, index: int) -> str:
    """The id of a publication that was given none: the same in every retry of the call."""
    auto_id = f"{call_id}.{index}"
    return auto_id if len(auto_id) <= ID_LIMIT else sha256(auto_id.encode()).hexdigest()


class HealthDoor:
    """``GET /live``, ``GET /ready`` and ``GET /metrics``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._metrics = Metrics()

    def __call__(self, request: Request, headers: Headers) -> Answer:
        """One of the three."""
        if request.path == "/live":
            return 200, list(headers), [dump_json({"live": True})]
        if request.path == "/ready":
            self._context.crossing.call(sing(self._context))
            return 200, list(headers), [dump_json({"ready": True})]
        if request.path == "/metrics":
            numbers = self._context.crossing.call(self._stats())
            content_type, text = self._metrics.render(numbers)
            return 200, [*headers, ("Content-Type", content_type)], [text]
        raise NotFound("not_found", "There is no such route.")

    async def _stats(self) -> dict[str, int]:
        return self._context.hub.stats()


def _of_a_browser(name: str) -> bool:
    return name.startswith(_BROWSER) and name != _NODE


def internal_application(context: Context) -> Router:
    """The WSGI application that the CMS and the monitoring talk to."""
    health = HealthDoor(context)
    routes: Routes = {
        "/api": ("POST", ApiDoor(context)),
        "/live": ("GET", health),
        "/ready": ("GET", health),
        "/metrics": ("GET", health),
    }

    def guard(request: Request) -> Headers:
        if request.method == "OPTIONS" or any(map(_of_a_browser, request.environ)):
            raise Denied("browser", "This listener is not for browsers.", event="api.reject")
        return ()

    def headers() -> Headers:
        return (("X-Content-Type-Options", "nosniff"),)

    return Router(routes, guard, headers)
