"""The browser files: the page of the hidden iframe, and the scripts."""

import json
from hashlib import sha256
from html import escape
from importlib.resources import files

from push_server import __version__
from push_server.doors.context import Context
from push_server.doors.request import Answer, Request
from push_server.transports.base import Headers

BUNDLES = {
    "connection.js": (
        "wire.js",
        "websocket.js",
        "transports.js",
        "session.js",
        "pages.js",
        "channels.js",
        "audience.js",
        "arrivals.js",
        "dialer.js",
        "calls.js",
    ),
}
"""Scripts that are served behind others, in one answer. A worker would fetch one after the other,
and each would cost a page another round trip before it is live."""
SCRIPT_POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'"


class FileDoor:
    """Serves one script. Scripts are the same for everybody and hold no secret."""

    def __init__(self, name: str) -> None:
        folder = files("push_server.browser")
        names = (*BUNDLES.get(name, ()), name)
        self._body = b"".join(folder.joinpath(part).read_bytes() for part in names)
        self._etag = f'"{sha256(self._body).hexdigest()[:20]}"'

    def __call__(self, request: Request, headers: Headers) -> Answer:
        """The script; 304 if the browser has it."""
        fields = [
            *headers,
            # A worker takes its policy from the response of its own script.
            ("Content-Security-Policy", SCRIPT_POLICY),
            ("Cache-Control", "no-cache"),
            ("ETag", self._etag),
            ("Cross-Origin-Resource-Policy", "cross-origin"),
        ]
        if self._etag in request.header("if-none-match"):  # weak, or one of several
            return 304, fields, []
        return 200, [*fields, ("Content-Type", "text/javascript; charset=utf-8")], [self._body]


class FrameDoor:
    """Serves the page of the iframe, which only the configured sites may embed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._page = files("push_server.browser").joinpath("frame.html").read_text("utf-8")

    def __call__(self, request: Request, headers: Headers) -> Answer:
        """The page, filled in with the settings of this moment."""
        settings = self._context.settings
        ancestors = " ".join(settings.site_origins) or "'none'"
        filled = {
            "{{origins}}": json.dumps(settings.site_origins),
            "{{document_domain}}": settings.document_domain,
            "{{version}}": __version__,
        }
        page = self._page
        for placeholder, value in filled.items():
            page = page.replace(placeholder, escape(value))
        policy = (
            f"{SCRIPT_POLICY}; worker-src 'self'; frame-ancestors {ancestors};"
            " base-uri 'none'; form-action 'none'"
        )
        # No X-Frame-Options: it cannot name another origin, and would block the sites.
        fields = [
            *headers,
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", policy),
            ("Cache-Control", "no-store, no-transform"),
            ("Cross-Origin-Resource-Policy", "same-site"),
            ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
        ]
        return 200, fields, [page.encode()]


def script_names() -> list[str]:
    """The scripts there are to serve."""
    return sorted(
        entry.name
        for entry in files("push_server.browser").iterdir()
        if entry.name.endswith(".js") and not entry.name.endswith(".test.js")
    )
