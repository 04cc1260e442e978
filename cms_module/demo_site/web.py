"""Requests, answers and templates: the little of a web framework that this site needs.

Rules. Whatever goes into a page is escaped unless it is `Markup`, which only templates make.
Every answer, errors included, leaves through `Answer.start`, which adds the headers that the
bridge and the security of the site rely on.
"""

import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

FOLDER = Path(__file__).parent
FORM_LIMIT = 16_384
FIELDS = 20


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


@lru_cache(maxsize=64)
def _template(name: str) -> Template:
    return Template((FOLDER / "templates" / name).read_text("utf-8"))


def render(template: str, /, **values: object) -> Markup:
    """The template with these values; text is escaped, `Markup` goes in as it is."""
    escaped = {
        key: value if isinstance(value, Markup) else html.escape(str(value))
        for key, value in values.items()
    }
    return Markup(_template(template).substitute(escaped))


def join(parts: Iterable[Markup]) -> Markup:
    """These pieces of HTML, one after the other."""
    return Markup("".join(parts))


class Refused(Exception):
    """Raised to answer with an error page."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class Request:
    """What of a WSGI environment this site looks at."""

    def __init__(self, environ: "WSGIEnvironment") -> None:
        self._environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO") or "/"
        self.host: str = environ.get("HTTP_HOST", "")
        self.origin: str = environ.get("HTTP_ORIGIN", "")
        self.wants_json = "application/json" in environ.get("HTTP_ACCEPT", "")

    def query(self, name: str) -> str:
        """One parameter of the address, or nothing."""
        fields = parse_qs(str(self._environ.get("QUERY_STRING", "")))
        return fields.get(name, [""])[0]

    def cookie(self, name: str) -> str:
        """The value of a cookie, or nothing."""
        try:
            jar: SimpleCookie = SimpleCookie(self._environ.get("HTTP_COOKIE", ""))
        except CookieError:
            return ""
        return str(jar[name].value) if name in jar else ""

    def form(self) -> dict[str, str]:
        """The fields of a posted form."""
        try:
            length = int(self._environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "This form cannot be read.") from None
        if length > FORM_LIMIT:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "This form is too long.")
        try:
            body = self._environ["wsgi.input"].read(length).decode("utf-8")
            fields = parse_qs(body, keep_blank_values=True, max_num_fields=FIELDS)
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "This form cannot be read.") from None
        return {name: values[0] for name, values in fields.items()}


@dataclass(slots=True)
class Answer:
    """One answer of the site."""

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def page(cls, markup: Markup, status: HTTPStatus = HTTPStatus.OK) -> "Answer":
        return cls(markup.encode(), status=status)

    @classmethod
    def json(cls, value: Any, status: HTTPStatus = HTTPStatus.OK) -> "Answer":
        return cls(json.dumps(value).encode(), "application/json", status)

    @classmethod
    def redirect(cls, url: str) -> "Answer":
        return cls(b"", "text/plain", HTTPStatus.SEE_OTHER, [("Location", url)])

    def start(self, start_response: "StartResponse", common: Mapping[str, str]) -> list[bytes]:
        """Send it, with the headers that every answer has."""
        own = {
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            **common,
        }
        status = f"{self.status.value} {self.status.phrase}"
        start_response(status, [*own.items(), *self.headers])
        return [self.body]
