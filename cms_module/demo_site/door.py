"""The door of the site: who comes in, which page that leads to, and what leaves with the answer.

Rules. A page is shown only under the site's own name, and unless it is open to everybody only to
those who are logged in. A form is believed only if it carries the token of this session and does
not come from another site. What the site does behind the door is in `site`.
"""

import hmac
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import push_server
from cms_module.demo_site.memory import Person
from cms_module.demo_site.web import FOLDER, Answer, Markup, Refused, Request, render

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

COOKIE = "linden_session"

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
STATIC = FOLDER / "static"
COMPONENT = FOLDER.parent / "notifications"
"""The bell and its list, which the CMS modules have, too."""
SCRIPT = Path(push_server.__file__).parent / "browser" / "push.js"
"""From the site itself: no page waits for the push server, and one that was loaded while it was
away goes live as soon as it is back."""

FILES = {
    path.name: path
    for path in (*STATIC.iterdir(), *COMPONENT.iterdir(), SCRIPT)
    if path.suffix in TYPES
}
"""What is under /static/, by name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the site has to be told."""

    site_url: str
    push_url: str
    token_key: str
    secret: str
    """Signs what only this site reads: form tokens and session hashes."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, and who makes it."""

    request: Request
    session: str
    person: Person | None
    form_token: str

    @property
    def user(self) -> Person:
        """The person who is logged in, on pages that nobody else gets to."""
        assert self.person is not None
        return self.person


Page = Callable[[Any, Visit], Answer]
"""A method of the site that answers a visit."""


class Door(ABC):
    """A WSGI application that leads each request to one of its pages. Safe to share by threads."""

    ROUTES: ClassVar[Mapping[tuple[str, str], Page]]
    """(method, path) -> page."""
    OPEN: ClassVar[tuple[Page, ...]]
    """The pages for those who are not logged in, too."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._host = urlsplit(settings.site_url).netloc
        self._common = {
            # Without this on every answer of the site, Chromium ignores document.domain.
            "Origin-Agent-Cluster": "?0",
            "Content-Security-Policy": (
                "default-src 'none'; script-src 'self'; style-src 'self';"
                f" img-src 'self'; connect-src 'self'; frame-src {settings.push_url};"
                " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        request = Request(environ)
        try:
            answer = self._answer(request)
        except Refused as refused:
            answer = self._refusal(request, refused)
        body = answer.start(start_response, self._common)
        return [] if request.method == "HEAD" else body

    def _answer(self, request: Request) -> Answer:
        if request.host != self._host:
            # One name only: the bridge to the push host depends on it, and a page that has
            # pointed its own name here (DNS rebinding) gets nothing to read.
            return Answer.redirect(self.settings.site_url + "/")
        if request.path.startswith("/static/"):
            return self._static(request.path.removeprefix("/static/"))
        method = "GET" if request.method == "HEAD" else request.method
        page = self.ROUTES.get((method, request.path))
        if page is None:
            known = any(path == request.path for _, path in self.ROUTES)
            status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
            raise Refused(status, "There is nothing at this address.")
        return self._visit(request, page)

    def _visit(self, request: Request, page: Page) -> Answer:
        given = request.cookie(COOKIE)
        session = given if 20 <= len(given) <= 64 else secrets.token_urlsafe(24)
        visit = Visit(request, session, self.person_of(session), self._form_token(session))
        if visit.person is None and page not in self.OPEN:
            raise Refused(HTTPStatus.FORBIDDEN, "Please log in first.")
        answer = page(self, visit)
        if session != given and not any(name == "Set-Cookie" for name, _ in answer.headers):
            answer.headers.append(session_cookie(session))
        return answer

    def _form_token(self, session: str) -> str:
        message = b"form:" + session.encode("utf-8", "replace")
        return hmac.digest(self.settings.secret.encode(), message, "sha256").hex()

    def form(self, visit: Visit) -> dict[str, str]:
        """The fields of a form that one of our own pages has sent."""
        origin = visit.request.origin
        fields = visit.request.form()
        given = fields.get("form_token", "").encode()
        if origin not in ("", self.settings.site_url) or not hmac.compare_digest(
            given, visit.form_token.encode()
        ):
            raise Refused(
                HTTPStatus.FORBIDDEN, "This form has expired. Please go back and try again."
            )
        return fields

    def _static(self, name: str) -> Answer:
        path = FILES.get(name)
        if path is None:
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
        return Answer(path.read_bytes(), TYPES[path.suffix])

    def _refusal(self, request: Request, refused: Refused) -> Answer:
        if request.wants_json:
            return Answer.json({"error": refused.message}, refused.status)
        content = render("error.html", message=refused.message)
        return Answer.page(self.frame("Sorry", content, None), refused.status)

    @abstractmethod
    def person_of(self, session: str) -> Person | None:
        """Who is logged in with this session."""

    @abstractmethod
    def frame(self, title: str, content: Markup, visit: Visit | None, *scripts: str) -> Markup:
        """A whole page around its content."""


def session_cookie(value: str, max_age: int | None = None) -> tuple[str, str]:
    """The header that makes a browser keep, or forget, its session."""
    ending = "" if max_age is None else f"; Max-Age={max_age}"
    return ("Set-Cookie", f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax{ending}")
