"""A small site for the browser tests: pages with `push.js` in them, and a token route.

What a page does is said in its query, so that one site serves all tests:

``user``      whose page it is; without it nobody is signed in and there is no token
``session``   the `sid` of the token (default: one per user)
``ttl``       how many seconds its tokens still hold
``age``       how many seconds ago they were issued
``channels``  what it subscribes to, separated by commas, besides the user's own channel
``domain``    the `documentDomain` option; ``server`` leaves it out
``share``     the `share` option
``transports`` those it may use, separated by commas
``cluster``   an ``Origin-Agent-Cluster`` header for the page
``push``      the address of the push server
``own``       include a copy of push.js that the site has

Every page collects what happens to it in ``got``, ``events`` and ``answers``.

Imported by the browser tests; uses nothing of the server's code.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Self
from urllib.parse import parse_qs, urlencode
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

BROWSER_FILES = Path(__file__).resolve().parents[2] / "push_server" / "browser"

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{user}</title>
<link rel="icon" href="data:,">
<body data-options="{options}">
<h1>{user}</h1>
<p><push-status></push-status></p>
<script src="{script}"></script>
<script src="/page.js"></script>
</body>
</html>
"""

SCRIPT = """
"use strict";
var options = JSON.parse(document.body.dataset.options);
var got = [];
var events = [];
var answers = {};
var push = Push.connect({server: options.push, token: options.token,
                         documentDomain: options.domain, share: options.share,
                         transports: options.transports});
for (const name of ["status", "subscribed", "reset", "recovered", "revoked", "error"]) {
  push.on(name, (detail, more) => events.push(
    name === "status" ? [name, detail.state, detail.transport]
      : name === "error" ? [name, detail.code, detail.message] : [name, detail, more || ""]));
}
for (const channel of options.channels) {
  push.subscribe(channel, (data, publication) => got.push([channel, data, publication.offset]));
}
function say(key, channel, data, how) {
  push.publish(channel, data, how).then(
    (result) => { answers[key] = result; },
    (error) => { answers[key] = {code: error.code, stored: error.stored}; });
}
"""

FORGER = """<!doctype html>
<meta charset="utf-8">
<title>forger</title>
<script>
// A page that hostile hands put beside the push frame: it sends the frame all that our own page
// would send, from a window that is not the frame's parent.
window.addEventListener("message", ({data}) => {
  const {port1, port2} = new MessageChannel();
  window.heard = [];
  port1.onmessage = (event) => window.heard.push(event.data);
  window.parent.frames[data.index].postMessage({push: "connect"}, "*", [port2]);
  port1.postMessage({type: "start", key: "k", instance: "i", token: data.token,
                     channels: ["user:alice"], documentDomain: ""});
  setTimeout(() => window.parent.postMessage({forged: window.heard.length}, "*"), 1500);
});
</script>
"""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


class Site:
    """The site, in a thread of the test."""

    def __init__(self, issue: Callable[..., str], push_url: str) -> None:
        self._issue = issue
        self.push_url = push_url
        self.signed_out: set[str] = set()
        """Users whose session has ended: the token route says 401 to them."""
        self.grants: dict[str, list[str]] = {}
        """What users may subscribe to, where that is not everything."""
        self.becomes: dict[str, str] = {}
        """Whose token a user's pages get from now on: somebody else has signed in."""
        self.folders: dict[str, Path] = {}
        """Folders with further scripts, by the name that their paths begin with."""
        self.down = False
        """The token route answers 503, as a site in trouble does."""
        self.asked: defaultdict[str, list[float]] = defaultdict(list)
        """When each user's pages asked for a token."""
        self._server = make_server("127.0.0.1", 0, self._answer, _Server, _Quiet)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.daemon = True

    def url(self, host: str, user: str = "", path: str = "/page", **options: Any) -> str:
        """The address of a page."""
        query = {"user": user, **options} if user else options
        return f"http://{host}:{self.port}{path}?{urlencode(query)}"

    def origin(self, host: str) -> str:
        """What a push server has to list for this host."""
        return f"http://{host}:{self.port}"

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        path = environ["PATH_INFO"]
        if path == "/page.js":
            return _send(start, SCRIPT, "text/javascript")
        if path == "/token":
            return self._token(start, query)
        if path == "/forger":
            return _send(start, FORGER, "text/html")
        if path == "/page":
            return self._page(start, query)
        if path == "/frame":
            return _send(start, _frame(query["origins"]), "text/html")
        if path in ("/wire.js", "/memory.js", "/frame.js", "/push.js"):
            return _send(start, (BROWSER_FILES / path[1:]).read_text(), "text/javascript")
        folder, _, name = path[1:].partition("/")
        if folder in self.folders:
            return _send(start, (self.folders[folder] / name).read_text("utf-8"), "text/javascript")
        return _send(start, "not here", "text/plain", "404 Not Found")

    def _page(self, start: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
        user = query.get("user", "")
        push = query.get("push", self.push_url)
        channels = [name for name in query.get("channels", "").split(",") if name]
        options = {
            "push": push,
            "domain": None if query.get("domain") == "server" else query.get("domain", ""),
            "share": query.get("share", "auto"),
            "transports": query["transports"].split(",") if "transports" in query else None,
            "channels": [f"user:{user}", *channels],
            "token": "/token?" + urlencode({k: query[k] for k in TOKEN_QUERY if k in query}),
        }
        cluster = query.get("cluster")
        headers = [("Origin-Agent-Cluster", cluster)] if cluster else []
        text = PAGE.format(
            user=escape(user),
            script="/push.js" if "own" in query else f"{escape(push)}/push.js",
            options=escape(json.dumps(options)),
        )
        return _send(start, text, "text/html", headers=headers)

    def _token(self, start: StartResponse, query: dict[str, str]) -> Iterable[bytes]:
        user = query.get("user", "")
        user = self.becomes.get(user, user)
        self.asked[user].append(time.monotonic())
        if self.down:
            return _send(start, "down for maintenance", "text/plain", "503 Service Unavailable")
        if not user or user in self.signed_out:
            return _send(start, "sign in first", "text/plain", "401 Unauthorized")
        token = self._issue(
            user,
            sub_ch=self.grants.get(user, ["*"]),
            pub_ch=["*"],
            ttl=float(query.get("ttl", "300")),
            iat=int(time.time() - float(query.get("age", "0"))),
            sid=query.get("session", f"session-{user}"),
        )
        return _send(start, token, "text/plain")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()


def _frame(origins: str) -> str:
    """The push frame with other origins, and without the header that would keep it from loading."""
    text = (BROWSER_FILES / "frame.html").read_text()
    for name, value in (("origins", origins), ("document_domain", ""), ("version", "test")):
        text = text.replace("{{" + name + "}}", escape(value))
    return text


TOKEN_QUERY = ("user", "ttl", "age", "session")


def _send(
    start: StartResponse,
    text: str,
    kind: str,
    status: str = "200 OK",
    headers: list[tuple[str, str]] | None = None,
) -> list[bytes]:
    body = text.encode()
    fields = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))]
    start(status, [*fields, *(headers or [])])
    return [body]
