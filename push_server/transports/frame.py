"""Forever frame: a page that never ends, in a hidden iframe.

    <iframe hidden src="https://push.example.com/subscribe/frame?ticket=…&origin=https://…">

Each message is an element with the JSON in it as text, and a line behind it that says that it is
whole. The one script of the page takes them out as they come and hands each to the page around the
frame with `postMessage`. In the old forever frame each message was a script; here nothing that
is published is anything but text, for the policy of the page lets that one script run, by its hash,
and no other: neither a nonce that a subscriber could read, nor a mistake in the escaping, would
let a publication run as one.

No padding: with a charset in the type, no browser of today waits for more than the first bytes.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256

from push_server.errors import BadInput, Denied
from push_server.transports.base import Headers, Transport
from push_server.transports.stream import Stream

SCRIPT = b"""\
"use strict";
(() => {
  // The server has refused all origins but those of its sites.
  const to = new URLSearchParams(location.search).get("origin");
  const script = document.currentScript;
  function take() {
    for (let end; (end = document.querySelector("hr")); end.remove()) {
      parent.postMessage(JSON.parse(end.previousSibling.textContent), to);
      while (script.nextSibling !== end) script.nextSibling.remove();
    }
  }
  new MutationObserver(take).observe(document.body, { childList: true });
})();
"""
_HASH = b64encode(sha256(SCRIPT).digest()).decode()
_PAGE = (
    b'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Push</title></head>'
    b"<body hidden><script>%b</script>\n" % SCRIPT
)


class ForeverFrame(Stream):
    """An HTML page; the objects of the stream are elements of it."""

    name = "frame"
    content_type = "text/html; charset=utf-8"
    before = b"<p>"
    behind = b"</p><hr>\n"

    def chosen(self, parameter: Callable[[str], str], origins: Sequence[str]) -> Transport:
        """Itself, if ``origin=``, the page that is to get the messages, is one of our sites'."""
        origin = parameter("origin")
        if not origin:
            raise BadInput("origin_missing", "origin= says which page is to get the messages.")
        if origin not in origins:
            raise Denied("origin_denied", "This origin is not in `site_origins`.",
                         event="origin.reject", reason="frame", detail=origin)
        return self

    def policy(self, origins: Sequence[str]) -> Headers:
        """Who may embed the page, and what may run in it."""
        rules = (
            "default-src 'none'",
            f"script-src 'sha256-{_HASH}'",
            "base-uri 'none'",
            "form-action 'none'",
            f"frame-ancestors 'self' {' '.join(origins)}",
        )
        return (("Content-Security-Policy", "; ".join(rules)),)

    def head(self, headers: Headers) -> bytes:
        """The answer's head, and the page up to its script."""
        return super().head(headers) + _PAGE

    @staticmethod
    def text(json: bytes) -> bytes:
        """JSON without the characters that mean something in HTML: they stand in strings only."""
        json = json.replace(b"&", b"\\u0026")
        return json.replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
