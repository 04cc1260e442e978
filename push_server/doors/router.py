"""From a path to a door, and from an error to an answer, for both listeners.

Each listener has a route table of its own: the internal routes are not in the public one, so no
spelling of a path can reach them there. Doors raise; only here an error becomes an answer.
"""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from wsgiref.types import StartResponse

from push_server import log
from push_server.doors.request import Answer, Environ, Request
from push_server.errors import MethodNotAllowed, NotFound, PushError
from push_server.publications import dump_json
from push_server.transports.base import Headers

Door = Callable[[Request, Headers], Answer | None]
Routes = Mapping[str, tuple[str, Door]]
"""Path -> methods and door. A path ending in "/" takes everything below it."""


class Router:
    """A WSGI application made of doors."""

    def __init__(
        self, routes: Routes, guard: Callable[[Request], Headers], headers: Callable[[], Headers]
    ) -> None:
        self._routes = routes
        self._guard = guard
        """Raises, or returns the headers that depend on the request (CORS)."""
        self.headers = headers
        """The headers of every answer."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (worker thread)."""
        request = Request(environ)
        headers = self.headers()
        try:
            headers += self._guard(request)
            answer = self._dispatch(request, headers)
        except PushError as error:
            log.refused(error, request.ip)
            answer = self._refusal(error, headers)
        except Exception as failure:  # noqa: BLE001  # one request, not the server
            log.error("door.failed", failure, path=request.path)
            answer = self._refusal(PushError("internal", "The server failed."), headers)
        if answer is None:
            return []
        status, fields, body = answer
        names = {name.lower() for name, _ in fields}
        if "cache-control" not in names:
            fields.append(("Cache-Control", "no-store"))
        if status not in (204, 304):  # these have no content to speak of
            if "content-type" not in names:
                fields.append(("Content-Type", "application/json"))
            if isinstance(body, list):
                fields.append(("Content-Length", str(sum(map(len, body)))))
        start_response(f"{status} {HTTPStatus(status).phrase}", fields)
        return [] if request.method == "HEAD" else body

    def _dispatch(self, request: Request, headers: Headers) -> Answer | None:
        path = request.path
        route = self._routes.get(path) or self._routes.get(path.rpartition("/")[0] + "/")
        if route is None:
            raise NotFound("not_found", "There is no such route.")
        methods, door = route
        if request.method == "OPTIONS" and "OPTIONS" not in methods:
            return 204, [*headers, *_PREFLIGHT], []
        allowed = methods.split()
        if methods == "GET" and not path.startswith("/sub"):
            allowed.append("HEAD")
        if request.method not in allowed:
            raise MethodNotAllowed(allowed)
        return door(request, headers)

    @staticmethod
    def _refusal(error: PushError, headers: Headers) -> Answer:
        return error.status, [*headers, *error.headers()], [dump_json(error.body())]


_PREFLIGHT: Headers = (
    ("Access-Control-Allow-Methods", "GET, POST"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID"),
    ("Access-Control-Max-Age", "600"),
)
