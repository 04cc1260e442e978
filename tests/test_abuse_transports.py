"""Attacks on the old transports: markup in what is published, callbacks that are no names."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import quote, urlencode

import pytest
from harness import SITE, PushServer
from waiting import PATIENCE
from wire import Refused, read_head, request_bytes
from wire_ws import Upgraded

pytestmark = pytest.mark.usefixtures("unharmed")

Factory = Callable[..., PushServer]

MARKUP = [
    "</p><hr><script>alert(1)</script>",
    "<!--", "-->", "]]>", "</body></html>", "<plaintext>", "&lt;script&gt;&#60;&quot;",
    "\u2028\u2029\ufeff", "'\"`", "<p>{}</p><hr>", "<svg/onload=alert(1)>",
]


def test_43_markup_in_a_forever_frame_is_text(push: PushServer) -> None:
    # Attack: what one user publishes is script in the frames of all others.
    with push.frame(push.token("frame"), "markup:1") as reader:
        for data in MARKUP:
            push.api("publish", channel="markup:1", data={"<key>&": data})
        assert [each.value["data"]["<key>&"] for each in reader.take(len(MARKUP))] == MARKUP
        elements = reader.parser.elements
    assert set(elements) == {"html", "head", "meta", "title", "body", "script", "p", "hr"}
    assert elements["script"] == 1


def test_43_the_policy_of_a_forever_frame(push: PushServer) -> None:
    with push.frame(push.token("frame")) as reader:
        policy = reader.head.header("Content-Security-Policy") or ""
        assert "unsafe" not in policy and "nonce" not in policy
        assert f"frame-ancestors 'self' {SITE}" in policy
        assert reader.head.header("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize(
    "origin", ["*", "null", "https://evil.test", f"{SITE}.evil.test", f"{SITE}/"]
)
def test_46_a_forever_frame_for_a_foreign_page(push: PushServer, origin: str) -> None:
    # Attack: a ticket of the victim's, and a frame that posts everything to the attacker's page.
    ticket = push.ticket(push.token("victim"))
    answer = push.get(f"/subscribe/frame?ticket={ticket}&origin={quote(origin)}")
    assert (answer.status, answer.error) == (403, "origin_denied")
    with push.frame(None, ticket=ticket):
        pass  # It was refused before the ticket was spent.


@pytest.mark.parametrize(
    "callback",
    ["alert(1)", "a;alert(1)//", "", "1", "x" * 65, "x" * 2000, "CWSMIKI0hCD0Up0IZUnnnnnnnn(",
     "\u00e4", "a\r\nSet-Cookie: a=b", "<script>", "a b"],
)
def test_44_a_hostile_callback(push: PushServer, callback: str) -> None:
    # Attack: script of the attacker's choice, or a file for a plug-in, from our origin.
    answer = push.get(f"/subscribe/jsonp?callback={quote(callback)}", token=push.token("jsonp"))
    assert (answer.status, answer.error) == (400, "callback_malformed")
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Set-Cookie") is None


def test_44_a_script_is_nothing_else(push: PushServer) -> None:
    answer = push.get("/subscribe/jsonp?callback=cb", token=push.token("jsonp"))
    assert answer.body.startswith(b"/**/cb({")
    assert answer.header("Content-Type") == "text/javascript; charset=utf-8"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Content-Disposition") == "attachment; filename=f.txt"
    assert answer.header("Cache-Control") == "no-store, no-transform"


def test_44_there_is_no_jsonp_unless_asked_for(push_server_factory: Factory) -> None:
    push = push_server_factory(jsonp=False)
    token = push.token("jsonp")
    with pytest.raises(Refused) as refusal:
        push.jsonp(token)
    assert (refusal.value.response.status, refusal.value.response.error) == (404, "transport_off")
    # Nor without a ticket: no cookie and no address lets anybody in.
    assert push.get("/subscribe/poll", token=token).status == 200


@pytest.mark.parametrize("transport", ["frame", "multipart", "jsonp"])
def test_09_a_ticket_opens_one(push: PushServer, transport: str) -> None:
    needed = {"frame": f"&origin={SITE}", "jsonp": "&callback=cb"}.get(transport, "")
    target = f"/subscribe/{transport}?ticket={push.ticket(push.token('once'))}{needed}"
    with push.wire() as wire:
        wire.send(request_bytes("GET", target, push.head()))
        assert read_head(wire, time.monotonic() + PATIENCE).status == 200
        assert push.get(target).status == 401


HOSTILE: list[object] = [
    "x" * 2000, "buffered.x", 'a"} 1\npush_up{b="', "poll", "other", "\u202e", 5, True, [], ["x"],
    {"a": 1}, None,
]


def test_the_reason_of_a_fallback_is_one_of_ours(push: PushServer) -> None:
    # Attack: a series of its own for each report, until Prometheus is full; or a forged line.
    token = push.token("fallback")
    with ExitStack() as open_:
        for value in HOSTILE:
            if isinstance(value, str):
                receiver = open_.enter_context(push.wire())
                query = urlencode({"fallback": value})
                headers = {**push.head(), "Authorization": f"Bearer {token}"}
                receiver.send(request_bytes("GET", f"/subscribe/stream?{query}", headers))
                assert read_head(receiver, time.monotonic() + PATIENCE).status == 200
            headers = {**push.head(), "Origin": SITE}
            ws = open_.enter_context(Upgraded(push.address, "/subscribe/ws", headers))
            params = {"token": token, "fallback": value}
            ws.send({"id": 1, "method": "connect", "params": params})
            assert ws.value()["type"] == "hello"
        found = {name for name in push.api("stats") if name.startswith("fallbacks.")}
        assert found == {"fallbacks.stream.other", "fallbacks.ws.other"}
        metrics = push.get("/metrics", internal=True).body.decode()
        assert 'push_fallbacks{reason="other",transport="ws"}' in metrics
        assert "push_up" not in metrics and "xxx" not in metrics
