"""Both applications under a foreign WSGI server: every route, its headers, its refusals."""

import asyncio
import io
import json
import re
import socket
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from typing import Any, cast
from urllib.parse import quote
from wsgiref.util import setup_testing_defaults

import pytest
from waiting import wait_for

from push_server import __version__, wsgi
from push_server.channels import ChannelSet
from push_server.connection import IteratorConnection
from push_server.doors import commands
from push_server.doors.commands import Call, broadcast, perform_all
from push_server.doors.context import Context
from push_server.doors.files import script_names
from push_server.doors.subscribe import waits_for_nothing
from push_server.errors import PushError, TooLarge, Unavailable
from push_server.settings import Settings
from push_server.signatures import ApiKey, sign
from push_server.tokens import TokenKeys

with warnings.catch_warnings():
    # WebOb, under WebTest, still imports cgi, which is deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webtest import TestApp

PUSH, SITE, EVIL = "http://push.example.com", "http://www.example.com", "http://evil.example"
KEY = "a token key of 32 characters...."
SECRET = bytes(range(32))
PLAIN = Settings()
SETTINGS = replace(
    PLAIN,
    broker="memory:",
    public_url=PUSH,
    site_origins=(SITE,),
    document_domain="example.com",
    token_keys=(KEY,),
    api_keys={
        "cms": ApiKey("cms", SECRET),
        "chat": ApiKey("chat", b"c" * 32, ChannelSet.of(["chat:*"])),
    },
    blocking_connections=2,
)


class House:
    """The two applications, and how to speak to them."""

    def __init__(self, settings: Settings) -> None:
        self.applications = wsgi.start(settings)
        environ = {"HTTP_HOST": "push.example.com", "REMOTE_ADDR": "192.0.2.1"}
        self.public = TestApp(self.applications.public, extra_environ=environ)
        self.internal = TestApp(self.applications.internal, extra_environ=environ)
        self.context = self.applications._context

    def token(self, user: str = "42", **changes: Any) -> str:
        now = time.time()
        claims = {"v": 1, "sub": user, "sid": "s", "iat": now, "exp": now + 600}
        rights = {"sub_ch": ["*"], "pub_ch": ["chat:*"]}
        return TokenKeys([KEY]).issue({**claims, **rights, **changes})

    def bearer(self, user: str = "42", **changes: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(user, **changes)}"}

    def post(
        self, commands: Any, secret: bytes = SECRET, path: str = "/api", **options: Any
    ) -> Any:
        body = json.dumps(commands).encode()
        seconds = int(time.time())
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(seconds),
            "webhook-signature": sign(secret, "msg_1", seconds, body),
        }
        return self.internal.post(path, body, headers=headers, **options)

    def command(self, method: str, **params: Any) -> Any:
        return self.post({"method": method, "params": params}).json["result"]

    def publish(self, channel: str, data: Any, **more: Any) -> Any:
        return self.command("publish", channel=channel, data=data, id=f"id{time.time()}", **more)

    def open(self, target: str) -> "Response":
        """A request whose answer does not end by itself."""
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query}
        setup_testing_defaults(environ)
        environ["HTTP_HOST"] = "push.example.com"
        environ["HTTP_AUTHORIZATION"] = self.bearer()["Authorization"]
        return Response(self.applications.public, environ)

    def until(self, name: str, number: int) -> None:
        """Wait until one of the numbers of `stats` is this."""
        wait_for(lambda: self.command("stats")[name] == number, lambda: self.command("stats"))

    def taken(self, path: str, body: bytes = b"") -> list[Any]:
        """What a front that lets go of connections is asked to pass one of them to."""
        taken: list[Any] = []

        def hijack(take: Any) -> bool:
            taken.append(take)
            return True

        environ: dict[str, Any] = {
            "HTTP_HOST": "push.example.com",
            "HTTP_AUTHORIZATION": f"Bearer {self.token()}",
            "REQUEST_METHOD": "POST" if body else "GET",
            "PATH_INFO": path,
            "QUERY_STRING": "channel=node:7",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "push_server.hijack": hijack,
        }
        setup_testing_defaults(environ)
        self.applications.public(environ, lambda *_: lambda _: None)
        return taken


class Response:
    """An answer as a WSGI server sees it."""

    def __init__(self, application: Any, environ: dict[str, Any]) -> None:
        self.status = ""
        self.headers: dict[str, str] = {}

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            self.status, self.headers = status, dict(headers)

        self.body = application(environ, start_response)
        self._pieces: Iterator[bytes] | None = None

    def read(self, until: bytes) -> bytes:
        """The body up to and with these bytes."""
        self._pieces = self._pieces or iter(self.body)
        data = b""
        while until not in data:
            data += next(self._pieces)
        return data

    def close(self) -> None:
        self.body.close()


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    made = House(SETTINGS)
    yield made
    made.applications.close()


@pytest.fixture
def settings(house: House) -> Iterator[Settings]:
    """What is put into the context in a test is taken out again."""
    kept = house.context.settings
    yield kept
    house.context.settings = kept


# Every answer


PUBLIC = ["/frame", "/push.js", "/subscribe/sse", "/ticket", "/publish", "/nothing", "/api", "/"]


@pytest.mark.parametrize("path", PUBLIC)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD", "DELETE"])
def test_headers_of_every_public_answer(house: House, path: str, method: str) -> None:
    answer = house.public.request(path, method=method, expect_errors=True)
    assert answer.headers["Origin-Agent-Cluster"] == "?0"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Set-Cookie" not in answer.headers
    assert "no-" in answer.headers["Cache-Control"]
    if answer.status_int >= 400 and method != "HEAD":
        assert set(answer.json["error"]) == {"code", "message"}


def test_without_document_domain_the_origin_has_a_process_of_its_own(
    house: House, settings: Settings
) -> None:
    house.context.settings = replace(settings, document_domain="")
    for path in PUBLIC:
        answer = house.public.get(path, status="*")
        assert answer.headers["Origin-Agent-Cluster"] == "?1"


@pytest.mark.parametrize("path", PUBLIC)
@pytest.mark.parametrize("origin", [SITE, PUSH])
def test_a_listed_origin_is_echoed(house: House, path: str, origin: str) -> None:
    answer = house.public.get(path, headers={"Origin": origin}, status="*")
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        EVIL,
        "",
        "null",
        "*",
        SITE + ".evil.example",
        SITE + ":8080",
        SITE.upper(),
        SITE + "/",
        SITE.replace("http:", "https:"),
        f"{SITE}, {PUSH}",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_any_other_origin_is_refused(house: House, origin: str, method: str) -> None:
    answer = house.public.request(
        "/publish", method=method, headers={"Origin": origin, **house.bearer()}, status=403
    )
    assert answer.json["error"]["code"] == "origin_denied"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin"


def test_a_preflight(house: House) -> None:
    headers = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    answer = house.public.options("/publish", headers=headers, status=204)
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.body == b""
    house.public.options("/nothing", headers=headers, status=404)


@pytest.mark.parametrize(
    "host", ["push.example.com", "PUSH.example.com:6660", "127.0.0.1", "[::1]:1"]
)
def test_our_names(house: House, host: str) -> None:
    house.public.get("/push.js", extra_environ={"HTTP_HOST": host})


@pytest.mark.parametrize(
    "host", ["evil.example", "push.example.com.evil.example", "", "example.com"]
)
def test_other_names(house: House, host: str) -> None:
    answer = house.public.get("/push.js", extra_environ={"HTTP_HOST": host}, status=421)
    assert answer.json["error"]["code"] == "host_unknown"


@pytest.mark.parametrize("target", ["http://evil.example/push.js", "http://[::1/push.js"])
def test_a_target_with_another_name(house: House, target: str) -> None:
    # Where the front is another WSGI server, it passes on what it was asked for.
    environ = {"HTTP_HOST": "push.example.com", "REQUEST_URI": target}
    answer = house.public.get("/push.js", extra_environ=environ, status=400)
    assert answer.json["error"]["code"] == "host_mismatch"


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/frame", "POST", "GET, HEAD"),
        ("/publish", "GET", "POST"),
        ("/subscribe/sse", "HEAD", "GET"),
        ("/bayeux", "PUT", "GET, POST, OPTIONS"),
    ],
)
def test_methods(house: House, path: str, method: str, allowed: str) -> None:
    answer = house.public.request(path, method=method, status=405)
    assert answer.headers["Allow"] == allowed


def test_refusals_name_what_is_needed(house: House) -> None:
    assert house.public.get("/echo", status=401).headers["WWW-Authenticate"] == "Bearer"
    old = house.public.get("/subscribe/ws", headers=house.bearer(), status=426)
    assert old.headers["Sec-WebSocket-Version"] == "13"
    assert "WWW-Authenticate" not in house.internal.post("/api", b"{}", status=401).headers


def test_harmless_methods(house: House) -> None:
    assert house.public.head("/push.js").body == b""
    house.public.request("/push.js", method="TRACE", status=405)


@pytest.mark.parametrize(
    "path", ["/", "/subscribe", "/subscribe/", "/subscribe/no", "/subscribe/sse/x", "/api", "/live"]
)
def test_no_such_route(house: House, path: str) -> None:
    answer = house.public.get(path, headers=house.bearer(), status=404)
    assert answer.json["error"]["code"] == "not_found"


def test_a_failure_is_an_answer_and_tells_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(house.context, "tokens", object())
    answer = house.public.post("/ticket", headers=house.bearer(), status=500)
    assert answer.json == {"error": {"code": "internal", "message": "The server failed."}}
    assert "event=door.failed" in caplog.text and "Traceback" in caplog.text


# Files


@pytest.mark.parametrize("name", script_names())
def test_scripts(house: House, name: str) -> None:
    answer = house.public.get(f"/{name}?v=1.0")
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "unsafe" not in policy
    etag = answer.headers["ETag"]
    for given in (etag, f"W/{etag}", f'"other", {etag}'):
        again = house.public.get(f"/{name}", headers={"If-None-Match": given}, status=304)
        assert again.body == b"" and again.headers["ETag"] == etag
    house.public.get(f"/{name}", headers={"If-None-Match": '"other"'}, status=200)


def test_the_frame(house: House) -> None:
    answer = house.public.get("/frame")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";")
    )
    assert policy["frame-ancestors"] == SITE
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert policy["base-uri"] == policy["form-action"] == "'none'"
    assert "X-Frame-Options" not in answer.headers
    page = answer.text
    assert "{{" not in page and not re.search(r"<script(?![^>]* src=)", page)
    (origins,) = re.findall(r'data-origins="([^"]*)"', page)
    assert json.loads(unescape(origins)) == [SITE]


def test_a_frame_for_nobody(house: House, settings: Settings) -> None:
    house.context.settings = replace(settings, site_origins=())
    policy = house.public.get("/frame").headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy


# Subscribing, without a socket to take


def test_a_poll(house: House) -> None:
    first = house.public.get("/subscribe/poll?channel=a", headers=house.bearer())
    assert first.headers["Content-Type"] == "application/json"
    cursor = first.json["cursor"]
    house.publish("a", {"n": 1})
    again = house.public.get(f"/subscribe/poll?channel=a&since={cursor}", headers=house.bearer())
    assert [each["data"] for each in again.json["publications"]] == [{"n": 1}]
    assert "Connection" not in again.headers, "hop-by-hop: the other server's business"
    house.until("connections", 0)


@pytest.mark.parametrize(
    ("transport", "end", "content_type"),
    [("sse", b"\n\n", "text/event-stream"), ("stream", b"\n", "application/x-ndjson")],
)
def test_a_stream(house: House, transport: str, end: bytes, content_type: str) -> None:
    stream = house.open(f"/subscribe/{transport}?channel=a")
    assert stream.status == "200 OK"
    assert stream.headers["Content-Type"].startswith(content_type)
    assert stream.headers["X-Accel-Buffering"] == "no"
    assert b'"hello"' in stream.read(b'"hello"')
    house.publish("a", {"n": 17})
    assert b'{"n":17}' in stream.read(b'{"n":17}')
    house.until("connections", 1)
    stream.close()
    house.until("connections", 0)


def test_blocking_connections_are_capped_and_freed(house: House) -> None:
    held = [house.open("/subscribe/sse") for _ in range(2)]
    full = house.public.get("/subscribe/sse", headers=house.bearer(), status=503)
    assert full.json["error"]["code"] == "full" and int(full.headers["Retry-After"]) > 0
    for stream in held:
        # The other server adds these by itself; two of a kind are none.
        assert not {"Connection", "Date"} & stream.headers.keys()
        stream.close()  # without a look at it: the client left
    house.until("connections", 0)
    for _ in range(5):
        house.open("/subscribe/sse").close()
    house.until("connections", 0)


def test_a_refusal_of_the_hub_frees_its_place(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise PushError("broken", "It does not work.")

    monkeypatch.setattr(house.context.broker, "read", refuse)
    for _ in range(5):
        house.public.get("/subscribe/poll", headers=house.bearer(), status=500)


def test_a_fault_of_the_hub_frees_its_place(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fault(*_: object) -> None:
        raise ArithmeticError("a fault of the test")

    monkeypatch.setattr(house.context.broker, "read", fault)
    for _ in range(5):
        house.public.get("/subscribe/poll", headers=house.bearer(), status=503)
    monkeypatch.undo()
    house.until("connections", 0)


def test_a_revoked_stream_ends(house: House) -> None:
    stream = house.open("/subscribe/stream?channel=a")
    assert house.command("revoke", user="42")["closed"] == 1
    assert b'"revoked"' in b"".join(stream.body)
    stream.close()
    house.public.get("/subscribe/poll", headers=house.bearer(iat=time.time() - 5), status=401)
    house.context.revocations._in_force.clear()


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("channel=a&since=x", 400, "cursor_malformed"),
        ("channel=%24ready", 400, "channel_malformed"),
        ("channel=*", 403, "channel_denied"),
        ("timeout=61", 400, "timeout_malformed"),
        ("timeout=nan", 400, "timeout_malformed"),
        ("timeout=1&timeout=2", 400, "query_malformed"),
        ("instance=%0a", 400, "instance_malformed"),
        ("channel=%ff", 400, "query_malformed"),
        ("channel", 400, "channel_malformed"),
        ("&".join(f"channel=c{n}" for n in range(65)), 429, "too_many_channels"),
        ("&".join(f"channel=c{n}" for n in range(257)), 400, "too_many_channels"),
        ("token=x", 400, "token_in_url"),
    ],
)
def test_refusals(house: House, query: str, status: int, code: str) -> None:
    answer = house.public.get(f"/subscribe/poll?{query}", headers=house.bearer(), status=status)
    assert answer.json["error"]["code"] == code


def test_a_query_as_programs_glue_it_together(house: House) -> None:
    answer = house.public.get("/subscribe/poll?&channel=a&&channel=b&", headers=house.bearer())
    assert answer.json["control"][0]["channels"] == ["user:42", "a", "b"]


def test_denied_channels_are_named_and_harm_nobody(house: House) -> None:
    headers = house.bearer(sub_ch=["good"])
    answer = house.public.get("/subscribe/poll?channel=good&channel=bad", headers=headers)
    (hello,) = answer.json["control"]
    assert hello["channels"] == ["user:42", "good"] and hello["denied"] == ["bad"]
    house.public.get("/subscribe/poll?channel=bad", headers=headers, status=403)


# Tickets and publishing


def test_a_ticket_is_for_one_subscription(house: House) -> None:
    bought = house.public.post("/ticket", headers=house.bearer()).json["ticket"]
    target = f"/subscribe/poll?ticket={quote(bought)}"
    assert house.public.get(target).json["cursor"]
    assert house.public.get(target, status=401).json["error"]["code"] == "token_invalid"
    for path in ("/ticket", "/publish"):
        other = house.public.post("/ticket", headers=house.bearer()).json["ticket"]
        house.public.post(f"{path}?ticket={quote(other)}", status=400)


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/subscribe/sse", "channel=node:7&since=1~abcdef.1.1.0", True),
        ("/subscribe/poll", "channel=node%3A7&timeout=25", True),
        ("/subscribe/ws", "", True),
        ("/bayeux", "jsonp=f", True),
        ("/bayeux/connect", "", True),
        ("/bayeux-not", "", False),
        ("/live", "", True),
        ("/ready", "", False),
        ("/metrics", "", False),
        ("/subscribe/sse", "ticket=x", False),
        ("/subscribe/sse", "channel=node:7&ticket=x", False),
        # Attack: with another spelling of the same name one client makes all others wait.
        ("/subscribe/sse", "t%69cket=x", False),
        ("/subscribe/ws", "channel=node:7&%74%69%63%6b%65%74=x", False),
        ("/subscribe/multipart", "channel=node:7", False),
        ("/subscribe/none", "", False),
        ("/publish", "", False),
    ],
)
def test_what_has_to_wait_is_not_served_on_the_io_thread(
    path: str, query: str, expected: bool
) -> None:
    assert waits_for_nothing(path, query) is expected


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/subscribe/sse", b""),
        ("/subscribe/stream", b""),
        ("/subscribe/poll", b""),
        ("/bayeux", b'[{"channel":"/meta/disconnect","clientId":"x"}]'),
    ],
)
def test_what_waits_for_nothing_does_not_wait(
    house: House, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes
) -> None:
    def wait(*_: object) -> None:
        raise AssertionError("the I/O thread would stand still")

    monkeypatch.setattr(house.context.crossing, "call", wait)
    assert waits_for_nothing(path, "channel=node:7")
    assert len(house.taken(path, body)) == 1


def test_who_hangs_up_at_once_is_not_kept(house: House) -> None:
    """The watch may look between the coming of a connection and that of its subscriber."""
    hub = house.context.hub
    came, there = hub.counts["connects"], hub.stats()["connections"]
    (take,) = house.taken("/subscribe/sse")
    client, ours = socket.socketpair()
    ours.setblocking(False)
    client.close()

    async def come_and_go() -> None:
        take(ours, lambda _: None)
        hub.loop.call_soon(hub.watch._ready)

    house.context.crossing.call(come_and_go())
    wait_for(lambda: hub.counts["connects"] > came)
    wait_for(lambda: hub.stats()["connections"] == there, hub.stats)


def test_a_bayeux_channel_is_recovered_when_the_log_answers_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, str] = {}

    def ask(channel: str, **members: Any) -> list[Any]:
        message = {"channel": channel, **known, **members}
        return list(house.public.post_json("/bayeux", [message]).json)

    def shake_hands(**push: str) -> None:
        known.clear()
        ext = {"push": {"token": house.token(), **push}}
        (reply,) = ask(
            "/meta/handshake",
            version="1.0",
            supportedConnectionTypes=["long-polling"],
            ext=ext,
        )
        known["clientId"] = reply["clientId"]

    def fail(*_: object) -> None:
        raise Unavailable("broker_unavailable", "a fault of the test", retry_after=1)

    shake_hands()
    ask("/meta/subscribe", subscription="/chat/late")
    house.publish("chat:late", 1)
    element, _ = ask("/meta/connect", connectionType="long-polling")
    house.publish("chat:late", 2)
    ask("/meta/disconnect")
    shake_hands(since=element["ext"]["push"]["cursor"])
    with monkeypatch.context() as patch:
        patch.setattr(house.context.broker, "read", fail)
        (reply,) = ask("/meta/subscribe", subscription="/chat/late")
        assert reply["error"].startswith("503:")
    ask("/meta/subscribe", subscription="/chat/late")
    got = ask("/meta/connect", connectionType="long-polling")
    assert [each["data"] for each in got if each["channel"] == "/chat/late"] == [2]
    ask("/meta/disconnect")


def test_a_server_that_drains_is_no_bayeux_server(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program knows that is told 503: the server is away. Advice it may misunderstand."""
    monkeypatch.setattr(house.context.hub, "_draining", True)
    refusal = house.public.post_json("/bayeux", [{"channel": "/meta/handshake"}], status=503)
    assert refusal.text.startswith("draining: ")
    assert refusal.headers["Retry-After"] == "1"


def test_echo_tells_who_has_a_token_what_the_server_sees(house: House) -> None:
    claim = {"X-Forwarded-For": "203.0.113.9", **house.bearer("7")}
    seen = house.public.get("/echo", headers=claim).json
    assert seen == {"address": "192.0.2.1", "user": "7", "version": __version__}
    house.public.get("/echo", status=401)
    ticket = house.public.post("/ticket", headers=house.bearer()).json["ticket"]
    house.public.get(f"/echo?ticket={quote(ticket)}", status=400)


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer ", "Basic x", "Bearer x.y"])
def test_no_token(house: House, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    answer = house.public.post("/ticket", headers=headers, status=401)
    assert answer.json["error"]["code"] in ("token_missing", "token_invalid")


def test_publishing_from_a_browser(house: House) -> None:
    cursor = house.public.get("/subscribe/poll?channel=chat:lobby", headers=house.bearer()).json[
        "cursor"
    ]
    wish = {"channel": "chat:lobby", "data": {"text": "hi"}, "id": "mine", "exclude": "page"}
    answer = house.public.post_json("/publish", wish, headers=house.bearer())
    assert answer.json["id"] == "mine" and not answer.json["duplicate"]
    assert house.public.post_json("/publish", wish, headers=house.bearer()).json["duplicate"]
    house.public.post_json("/publish", {**wish, "data": 2}, headers=house.bearer(), status=409)
    target = f"/subscribe/poll?channel=chat:lobby&since={cursor}"
    (told,) = house.public.get(target, headers=house.bearer()).json["publications"]
    assert told["user"] == "42" and told["data"] == {"text": "hi"}


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ({"channel": "news", "data": 1}, 403),
        ({"channel": "chat:x"}, 400),
        ({"channel": "chat:x", "data": 1, "user": "43"}, 400),
        ({"channel": "chat:x", "data": 1, "id": ""}, 400),
        ({"channel": "chat:x", "data": "x" * 300_000}, 413),
        ([], 400),
    ],
)
def test_publishes_that_are_refused(house: House, wish: Any, status: int) -> None:
    house.public.post_json("/publish", wish, headers=house.bearer(), status=status)


def test_a_form_is_no_json(house: House) -> None:
    house.public.post("/publish", b'{"channel":"chat:x","data":1}', house.bearer(), status=415)


# The internal listener


def test_the_channels_of_a_broadcast_share_its_data() -> None:
    # Encoded for each of them, 200 kB for 1,000 channels took five seconds and 200 MB.
    params = {"channels": ["a", "b", "c"], "data": {"text": "x"}}
    call = Call(cast(Context, None), ApiKey("cms", b""), params, "msg.0", 0)
    one, *others = broadcast(call).requests
    assert one.data == b'{"text":"x"}'
    assert all(other.data is one.data for other in others)


def test_every_command(house: House) -> None:
    placed = house.publish("n", {"a": 1})
    assert placed["channel"] == "n" and placed["offset"] == 1
    results = house.command("broadcast", channels=["n", "m"], data=2, id="b1")["results"]
    assert [result["offset"] for result in results] == [2, 1]
    history = house.command("history", channel="n", limit=1, since=1)
    assert [each["data"] for each in history["publications"]] == [2]
    assert house.command("history", channel="n", since=history["cursor"])["publications"] == []
    place = house.command("history", channel="n", limit=0)
    assert (place["offset"], place["cursor"], place["publications"]) == (2, history["cursor"], [])
    assert house.command("channels") == {"channels": {}, "complete": True}
    stats = house.command("stats")
    assert stats["connections"] == 0 and stats["complete"]
    assert [numbers["connections"] for numbers in stats["nodes"].values()] == [0]
    assert house.command("revoke", jti="t1") == {"closed": 0}
    assert house.command("disconnect", user="7") == {"closed": 0, "complete": True}


def test_a_list_is_answered_in_order(house: House) -> None:
    answer = house.post(
        [
            {"method": "publish", "params": {"channel": "l", "data": 1}},
            {"method": "publish", "params": {"channel": "$x", "data": 1}},
            {"method": "nothing"},
            {"method": "publish", "params": {"channel": "l", "data": 2}},
            7,
            {"method": "stats"},
        ]
    ).json
    assert [next(iter(each)) for each in answer] == [
        "result", "error", "error", "result", "error", "result",
    ]  # fmt: skip
    assert [answer[0]["result"]["offset"], answer[3]["result"]["offset"]] == [1, 2]
    assert answer[0]["result"]["id"] != answer[3]["result"]["id"]
    again = house.post([{"method": "publish", "params": {"channel": "l", "data": 1}}]).json
    assert again[0]["result"]["duplicate"], "the id is made of the webhook-id"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ({"method": "publish", "params": {"channel": "n"}}, 400),
        ({"method": "publish", "params": {"channel": "n", "data": 1, "x": 1}}, 400),
        ({"method": "publish", "params": []}, 400),
        ({"method": ["publish"]}, 400),
        ({"method": "stats", "other": 1}, 400),
        ({"method": "history", "params": {"channel": "n", "limit": -1}}, 400),
        ({"method": "history", "params": {"channel": "n", "since": "1"}}, 400),
        ({"method": "revoke", "params": {}}, 400),
        ({"method": "revoke", "params": {"user": "x", "before": True}}, 400),
        ({"method": "revoke", "params": {"sid": 7}}, 400),
        ({"method": "channels", "params": {"prefix": 7}}, 400),
        ({"method": "broadcast", "params": {"channels": [], "data": 1}}, 400),
        ([], 400),
        ([{}] * 1001, 400),
    ],
)
def test_commands_that_are_refused(house: House, command: Any, status: int) -> None:
    house.post(command, status=status)


def test_a_key_for_some_channels(house: House) -> None:
    def ask(method: str, **params: Any) -> int:
        command = {"method": method, "params": params}
        return int(house.post(command, b"c" * 32, status="*").status_int)

    assert ask("publish", channel="chat:x", data=1) == 200
    assert ask("publish", channel="news", data=1) == 403
    assert ask("broadcast", channels=["chat:x", "news"], data=1) == 403
    assert ask("history", channel="news") == 403
    assert ask("revoke", user="42") == 403


def test_unsigned(house: House) -> None:
    answer = house.internal.post("/api", b'{"method":"stats"}', status=401)
    assert answer.json["error"]["code"] == "signature_invalid"
    house.post({"method": "stats"}, b"x" * 32, status=401)
    house.post({"method": "stats"}, path="/api?a=b", status=401)


@pytest.mark.parametrize("name", ["Origin", "Cookie", "Sec-Fetch-Site", "Sec-Fetch-Dest"])
@pytest.mark.parametrize("path", ["/api", "/live", "/ready", "/metrics", "/nothing"])
def test_browsers_are_refused_before_anything_else(house: House, name: str, path: str) -> None:
    answer = house.internal.get(path, headers={name: "x"}, status=403)
    assert answer.json["error"]["code"] == "browser"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_health(house: House) -> None:
    assert house.internal.get("/live").json == {"live": True}
    assert house.internal.get("/ready").json == {"ready": True}
    metrics = house.internal.get("/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    assert "push_connects_total" in metrics.text
    assert house.command("stats")["connections"] == 0, "the canary has left"
    for path in ("/", "/frame", "/subscribe/sse", "/api/"):
        house.internal.get(path, status=404)
    house.internal.get("/api", status=405)
    house.internal.request("/api", method="OPTIONS", status=403)


def test_a_list_reads_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    # A thousand times the history of a channel is 16 GB.
    monkeypatch.setattr(commands, "ANSWERS_BYTES", 1000)

    async def read() -> bytes:
        return b"x" * 600

    answers = asyncio.run(perform_all(cast(Context, None), [read] * 4))
    assert answers[:2] == [b"x" * 600] * 2
    assert all(isinstance(answer, TooLarge) for answer in answers[2:])


def test_not_ready(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("push_server.doors.canary.CANARY_SECONDS", 0.01)
    monkeypatch.setattr(house.context.broker, "deliver", lambda *_: None)
    answer = house.internal.get("/ready", status=503)
    assert answer.json["error"]["code"] == "not_ready"
    monkeypatch.undo()
    house.internal.get("/ready", status=200)
    assert house.command("stats")["connections"] == 0


# The house


def test_a_start_that_fails_leaves_no_thread_behind() -> None:
    import threading

    before = threading.active_count()
    with pytest.raises(PushError):
        wsgi.start(replace(SETTINGS, broker="sqlite:/nowhere/at/all/push.db"))
    assert threading.active_count() == before


def test_close_ends_streams() -> None:
    house = House(SETTINGS)
    stream = house.open("/subscribe/stream")
    house.applications.close()
    assert b'"drain"' in b"".join(stream.body)
    # Its server closes what it was given, even now.
    stream.close()


def test_an_iterator_connection_is_what_the_hub_expects(house: House) -> None:
    connection = IteratorConnection(house.context.hub)
    assert connection.subscriber is None and connection.idle


def test_other_names_of_the_module_are_unknown() -> None:
    with pytest.raises(AttributeError):
        _ = wsgi.nothing
