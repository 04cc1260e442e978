"""Attacks on the internal listener, and attempts to reach it from the public one."""

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest
from formulas import sign_webhook
from harness import SITE, ApiError, PushServer
from waiting import PROMPT
from wire import Response, parse_responses

pytestmark = pytest.mark.usefixtures("unharmed")

_numbers = count()

METHODS: dict[str, dict[str, Any]] = {
    "publish": {"channel": "signed:1", "data": 1},
    "broadcast": {"channels": ["signed:1"], "data": 1},
    "revoke": {"user": "nobody"},
    "disconnect": {"user": "nobody"},
    "history": {"channel": "signed:1"},
    "channels": {},
    "stats": {},
    "presence": {"channel": "signed:1"},
    "nonsense": {},
}


def command(method: str = "publish", **params: Any) -> bytes:
    return json.dumps({"method": method, "params": params}).encode()


def fresh(prefix: str) -> str:
    """A channel that no other test has."""
    return f"{prefix}:{next(_numbers)}"


def head_of(push: PushServer, channel: str) -> int:
    offset: int = push.api("history", channel=channel)["offset"]
    return offset


@pytest.mark.parametrize("method", METHODS)
def test_19_wrong_signatures(push: PushServer, method: str) -> None:
    # Calls every method as nobody, as somebody else, and nearly right: one library in this
    # trade forgot to verify at all (CVE-2024-50347).
    body = command(method, **METHODS[method])
    good = push.signed_headers(body)
    signature = good["webhook-signature"]
    other = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    wrong: list[Mapping[str, str]] = [
        {},
        {"Content-Type": "application/json"},
        {"Authorization": f"Bearer {push.remember(push.token('1', pub_ch=['*']))}"},
        {key: value for key, value in good.items() if key != "webhook-signature"},
        {key: value for key, value in good.items() if key != "webhook-id"},
        {key: value for key, value in good.items() if key != "webhook-timestamp"},
        push.signed_headers(body, secret=other),
        *(
            {**good, "webhook-signature": text}
            for text in (
                "",
                signature[:-1],
                signature[:-2] + "=",
                signature.upper(),
                signature.replace("v1,", "v2,"),
                signature.replace("v1,", ""),
                signature.replace("v1,", "v1 "),
                "v1," + base64.b64encode(bytes(32)).decode(),
                "v1,",
                "v1a," + signature[3:],
            )
        ),
    ]
    for headers in wrong:
        response = push.api_raw(body, headers)
        assert (response.status, response.error) == (401, "signature_invalid"), headers
    assert head_of(push, "signed:1") == 0


HOSTILE = [
    ("webhook-signature", "no comma at all"),
    ("webhook-signature", "v1,not base64 at all"),
    ("webhook-signature", "v1,\xff\xfe"),
    ("webhook-signature", ",,,,,,"),
    ("webhook-signature", "v1," + "A" * 8_000),
    ("webhook-signature", "v1,A " * 1_000),
    ("webhook-timestamp", "nan"),
    ("webhook-timestamp", "inf"),
    ("webhook-timestamp", "1e99"),
    ("webhook-timestamp", "1800000000.5"),
    ("webhook-timestamp", "-1"),
    ("webhook-timestamp", "9999999999"),
    ("webhook-timestamp", "0000000000"),
    ("webhook-timestamp", "9" * 5_000),
    ("webhook-timestamp", "\xb2" * 10),
    ("webhook-id", ""),
    ("webhook-id", "a.b"),
    ("webhook-id", "a" * 65),
    ("webhook-id", "\xe9"),
    ("webhook-id", "../../x"),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE, ids=lambda text: ascii(text[:30]))
def test_19_hostile_signature_headers(push: PushServer, name: str, value: str) -> None:
    # Headers that made a published verifier raise something else than "not verified".
    body = command(channel="signed:2", data=1)
    response = push.api_raw(body, {**push.signed_headers(body), name: value})
    assert (response.status, response.error) == (401, "signature_invalid")
    assert head_of(push, "signed:2") == 0


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"a":"\xff"}', b"\0", b""])
def test_19_bodies_that_are_no_text(push: PushServer, body: bytes) -> None:
    # The same through the body, signed and not.
    headers = {**push.signed_headers(b"{}")}
    assert push.api_raw(body, headers).status in (400, 401)
    assert push.api_raw(body).status in (400, 401)


def test_19_the_dots_cannot_be_shifted(push: PushServer) -> None:
    # The dots that join id, time and body also occur in them: a signature over one triple
    # must not hold for another that makes the same string.
    channel = fresh("shift")
    now = str(int(time.time()))
    body = command(channel=channel, data=1).decode()
    inner = f"{now}.{body}"
    for webhook_id, timestamp, sent, signed_id, signed_body in (
        (f"m.{now}", now, body, "m", f"{now}.{body}"),
        ("m", now, inner, f"m.{now}", body),
        (f"m.{now}", body[:10], body, "m", f"{body[:10]}.{body}"),
    ):
        signature = sign_webhook(push.api_secret, signed_id, now, signed_body.encode())
        response = push.api_raw(
            sent.encode(),
            {
                "Content-Type": "application/json",
                "webhook-id": webhook_id,
                "webhook-timestamp": timestamp,
                "webhook-signature": signature,
            },
        )
        assert response.status in (400, 401)
    assert head_of(push, channel) == 0


def test_20_altered_after_signing(push: PushServer) -> None:
    # Changes what was signed, or sends it elsewhere.
    channel = fresh("altered")
    body = command(channel=channel, data=1)
    headers = push.signed_headers(body)
    for altered in (body.replace(b'"data": 1', b'"data": 2'), body + b" ", body[:-1], b"{}"):
        assert push.api_raw(altered, headers).status == 401
    assert push.api_raw(b" " + body, headers).status in (400, 401)
    for target in ("/api/", "/API", "/api/publish", "/api;x", "/a%70i/x", "/publish", "/"):
        response = push.request("POST", target, headers=headers, body=body, internal=True)
        assert response.status == 404, target
    for target in ("/api?x=1", "/api?method=revoke", "//api"):
        response = push.request("POST", target, headers=headers, body=body, internal=True)
        assert response.status in (400, 401, 404), target
    assert head_of(push, channel) == 0
    upper = {name.upper(): value for name, value in headers.items()}
    assert push.api_raw(body, upper).status == 200
    assert head_of(push, channel) == 1


@pytest.mark.parametrize("skew", [-100_000, -305, 305, 100_000])
def test_21_outside_the_window(push: PushServer, skew: int) -> None:
    # Sends a request that was recorded long ago, or made for later. The answer says what
    # time it is, so that the site can tell that its clock is wrong.
    body = command(channel="late:1", data=1)
    response = push.api_raw(body, push.signed_headers(body, timestamp=str(int(time.time()) + skew)))
    assert (response.status, response.error) == (401, "signature_invalid")
    assert response.header("Date")
    assert head_of(push, "late:1") == 0


@pytest.mark.parametrize("skew", [-295, 295])
def test_21_inside_the_window(push: PushServer, skew: int) -> None:
    # The counterpart.
    body = command(channel=fresh("early"), data=1)
    timestamp = str(int(time.time()) + skew)
    assert push.api_raw(body, push.signed_headers(body, timestamp=timestamp)).status == 200


@pytest.mark.parametrize("params", [{}, {"id": "given"}], ids=["made", "given"])
def test_22_replayed(push: PushServer, params: dict[str, str]) -> None:
    # Records a signed publish and sends it again, byte for byte.
    channel = fresh("replay")
    body = command(channel=channel, data={"n": 1}, **params)
    headers = push.signed_headers(body)
    first = push.api_raw(body, headers).json()["result"]
    assert (first["offset"], first["duplicate"]) == (1, False)
    for _ in range(3):
        again = push.api_raw(body, headers)
        assert again.status == 200
        assert again.json()["result"] == {**first, "duplicate": True}
    # A retry keeps its id and is signed anew.
    later = push.signed_headers(body, headers["webhook-id"], str(int(time.time()) + 1))
    assert push.api_raw(body, later).json()["result"] == {**first, "duplicate": True}
    assert head_of(push, channel) == 1


def test_22_replayed_batch_and_broadcast(push: PushServer) -> None:
    # The same with several publications in one request: each must have an id of its own.
    one, two = fresh("replay"), fresh("replay")
    same = {"method": "publish", "params": {"channel": one, "data": 1}}
    wide = {"method": "broadcast", "params": {"channels": [one, two], "data": 2}}
    body = json.dumps([same, same, wide, wide]).encode()
    headers = push.signed_headers(body)
    first = push.api_raw(body, headers).json()
    assert (head_of(push, one), head_of(push, two)) == (4, 2)
    again = push.api_raw(body, headers).json()
    assert (head_of(push, one), head_of(push, two)) == (4, 2)

    def offsets(answers: Any) -> list[list[int]]:
        return [
            [r["offset"] for r in answer["result"].get("results", [answer["result"]])]
            for answer in answers
        ]

    assert offsets(first) == offsets(again)


def test_22_a_replayed_revoke_ends_no_later_session(push: PushServer) -> None:
    # Records the logout of a user and sends it again after the next login, for as long as
    # the signature is good: "now" must mean the moment that was signed.
    user = f"revoked{next(_numbers)}"
    now = int(time.time())
    body = command("revoke", user=user)
    recorded = push.signed_headers(body, timestamp=str(now - 200))
    before, after = push.token(user, iat=now - 250), push.token(user, iat=now - 100)
    assert push.api_raw(body, recorded).status == 200
    assert push.get("/subscribe/poll", token=before).status == 401
    assert push.get("/subscribe/poll", token=after).status == 200


def test_23_the_same_id_with_other_data(push: PushServer) -> None:
    # Replaces a publication by reusing its id.
    channel = fresh("conflict")
    first = push.api("publish", channel=channel, data={"a": 1}, id="one")
    for data in ({"a": 2}, {"a": "1"}, {"b": 1}, None, [{"a": 1}]):
        with pytest.raises(ApiError) as refusal:
            push.api("publish", channel=channel, data=data, id="one")
        assert (refusal.value.response.status, refusal.value.response.error) == (409, "id_conflict")
    answers = push.api_batch(
        [
            ("publish", {"channel": channel, "data": {"a": 3}, "id": "one"}),
            ("publish", {"channel": channel, "data": {"a": 3}, "id": "two"}),
        ]
    )
    assert answers[0]["error"]["code"] == "id_conflict"
    assert answers[0]["error"]["status"] == 409
    assert answers[1]["result"]["offset"] == 2
    kept = push.api("history", channel=channel, since=0)["publications"]
    assert [p["data"] for p in kept] == [{"a": 1}, {"a": 3}]
    again = push.api("publish", channel=channel, data={"a": 1}, id="one")
    assert again == {**first, "duplicate": True}
    # Another channel has ids of its own.
    assert push.api("publish", channel=fresh("conflict"), data={"a": 2}, id="one")["offset"] == 1


DATA = b'{"method":"publish","params":{"channel":"json:1","data":%b}}'
MALFORMED = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"1",
    b"{}",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    DATA % (b"[" * 100_000),
    DATA % (b"[" * 100_000 + b"]" * 100_000),
    DATA % (b"[" * 31 + b"]" * 31),  # 33 deep
    DATA % b"NaN",
    DATA % b"-Infinity",
    DATA % b"1e999",
    DATA % (b"9" * 10_000),
    DATA % b'{"a":1,"a":2}',
    DATA % b'"\xff"',
    DATA % b'"\xed\xa0\x80"',
    DATA % b'"\\ud800"',
    DATA % b'{"\\udfff":1}',
    DATA % b'"a\nb"',
    DATA % b"'a'",
    DATA % b"01",
    DATA % b"[1,]",
    DATA % b"undefined",
    DATA % b"",
    (DATA % b"1") + b"x",
    (DATA % b"1") + (DATA % b"1"),
    b'{"method":"publish","params":{"channel":"json:1"}}',
    b'{"method":"publish","params":{"data":1}}',
    b'{"method":"publish","method":"stats","params":{"channel":"json:1","data":1}}',
    b'{"method":"publish"}',
    b'{"method":"publish","params":[]}',
    b'{"method":"publish","params":null}',
    b'{"method":"publish","params":"x"}',
    b'{"method":["publish"],"params":{}}',
    b'{"method":{"a":1},"params":{}}',
    b'{"method":null,"params":{}}',
    b'{"method":"__class__","params":{}}',
    b'{"method":"nonsense","params":{}}',
    b'{"params":{"channel":"json:1","data":1}}',
    DATA.replace(b'"data":%b', b'"data":1,"id":1'),
    DATA.replace(b'"data":%b', b'"data":1,"id":""'),
    DATA.replace(b'"data":%b', b'"data":1,"id":"a\\nid: 9"'),
    DATA.replace(b'"data":%b', b'"data":1,"id":"a\\u0000"'),
    DATA.replace(b'"data":%b', b'"data":1,"id":"' + b"i" * 65 + b'"'),
    DATA.replace(b'"data":%b', b'"data":1,"exclude":7'),
    DATA.replace(b'"data":%b', b'"data":1,"exclude":"a b"'),
    (DATA % b"1").decode().encode("utf-16"),
    b"\xef\xbb\xbf" + DATA % b"1",
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: ascii(body[:70])[2:])
def test_24_malformed_json(push: PushServer, body: bytes) -> None:
    # A signed body that is no command, deep enough to end a recursive parser, or read
    # differently by the next one.
    response = push.api_raw(body)
    assert response.status == 400, response
    assert response.error
    assert head_of(push, "json:1") == 0


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("broadcast", {"data": 1}),
        ("broadcast", {"channels": "json:1", "data": 1}),
        ("broadcast", {"channels": {"json:1": 1}, "data": 1}),
        ("broadcast", {"channels": [["json:1"]], "data": 1}),
        ("broadcast", {"channels": ["json:1"]}),
        ("disconnect", {}),
        ("disconnect", {"user": ""}),
        ("disconnect", {"user": "42\n"}),
        ("disconnect", {"sid": None}),
        ("disconnect", {"jti": "a"}),
        ("revoke", {}),
        ("revoke", {"user": 42}),
        ("revoke", {"user": ""}),
        ("revoke", {"sid": None}),
        ("revoke", {"jti": ["a"]}),
        ("revoke", {"user": "42", "before": "now"}),
        ("revoke", {"user": "42", "before": True}),
        ("revoke", {"user": "42", "before": 10**400}),
        ("revoke", {"before": 1}),
        ("history", {}),
        ("history", {"channel": "json:1", "since": "nonsense"}),
        ("history", {"channel": "json:1", "since": -1}),
        ("history", {"channel": "json:1", "since": 1.5}),
        ("history", {"channel": "json:1", "since": 2**63}),
        ("history", {"channel": "json:1", "since": -(2**63)}),
        ("history", {"channel": "json:1", "since": 10**400}),
        ("history", {"channel": "json:1", "since": [1]}),
        ("history", {"channel": "json:1", "since": True}),
        ("history", {"channel": "json:1", "limit": -1}),
        ("history", {"channel": "json:1", "limit": "1"}),
        ("history", {"channel": "json:1", "limit": 1e3}),
        ("history", {"channel": "json:1", "limit": 1_001}),
        ("channels", {"prefix": 1}),
        ("channels", {"prefix": None}),
    ],
    ids=repr,
)
def test_24_malformed_parameters(push: PushServer, method: str, params: dict[str, Any]) -> None:
    # A command with a parameter of another type or out of its range.
    response = push.api_raw(json.dumps({"method": method, "params": params}).encode())
    assert response.status == 400, response
    assert response.error


def test_24_a_bad_command_does_not_spoil_a_list(push: PushServer) -> None:
    # One broken command among good ones must not take them with it, nor change the order.
    channel = fresh("list")
    good = {"method": "publish", "params": {"channel": channel, "data": 1}}
    commands: list[Any] = [good, None, 1, "x", [], {}, {"method": "nonsense"}, good, [good]]
    response = push.api_raw(json.dumps(commands).encode())
    assert response.status == 200
    answers = response.json()
    assert ["error" in answer for answer in answers] == [0, 1, 1, 1, 1, 1, 1, 0, 1]
    assert head_of(push, channel) == 2


def padded(size: int) -> bytes:
    """A publish whose body has exactly this size."""
    empty = command(channel="size:1", data="")
    return empty.replace(b'""', b'"' + b"x" * (size - len(empty)) + b'"')


def test_25_at_the_limit(push: PushServer) -> None:
    # One byte is the difference.
    limit = 256 * 1024
    before = head_of(push, "size:1")
    assert push.api_raw(padded(limit - 1)).status == 200
    assert push.api_raw(padded(limit)).status == 200
    # The front counts the bytes after this one, the application this one.
    for size in (limit + 1, limit + 2):
        response = push.api_raw(padded(size))
        assert (response.status, response.error) == (413, "body_too_large")
    assert head_of(push, "size:1") == before + 2


def test_25_announced_too_large(push: PushServer) -> None:
    # Announces two gigabytes and sends none, or begins to.
    for internal, path in ((True, b"/api"), (False, b"/publish")):
        host = push.head(internal)["Host"].encode()
        for length in (b"2147483648", b"262145000", b"99999999999999999999"):
            start = time.monotonic()
            answer = push.raw(
                b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Length: %b\r\n\r\n"
                % (path, host, length),
                internal=internal,
            )
            assert answer.closed
            assert parse_responses(answer)[0].status in (400, 413), answer
            assert time.monotonic() - start < PROMPT


def test_25_endless_chunks(push: PushServer) -> None:
    # Announces nothing and never stops.
    with push.wire(internal=True) as wire:
        host = push.head(internal=True)["Host"].encode()
        wire.send(b"POST /api HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % host)
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        sent = 0
        while not wire.ended and sent < 200:
            wire.send(chunk)
            sent += 1
        assert wire.ended, "13 MB of one body were taken in"


PUBLIC_404 = [
    "/api",
    "/internal",
    "//internal",
    "//api",
    "/api/",
    "/push/../api",
    "/push/../internal",
    "/%2e%2e/api",
    "/push/%2e%2e/api",
    "/frame/../api",
    "/frame/../../api",
    "/%61pi",
    "/api%00",
    "/api%3f",
    "/frame%2f..%2fapi",
    "/./api",
    "/live",
    "/ready",
    "/metrics",
    "/subscribe",
    "/subscribe/",
    "/subscribe/nonsense",
    "/subscribe/sse/x",
    "/subscribe/../api",
    "/frame.js/../../settings.py",
    "/..%2f..%2fetc/passwd",
    "/nonsense",
]


@pytest.mark.parametrize("target", PUBLIC_404)
def test_26_the_internal_api_is_not_on_the_public_port(push: PushServer, target: str) -> None:
    # Looks for the internal routes where browsers connect, by every spelling of a path.
    body = command(channel="outside:1", data=1)
    headers = push.signed_headers(body)
    unknown = push.request("POST", "/no-such-path", headers=headers, body=body)
    assert unknown.status == 404
    response = push.request("POST", target, headers=headers, body=body)
    if target.startswith("//"):
        assert response.status in (400, 404)
    elif target.startswith("/subscribe/"):
        assert response.status in (404, 405)
    else:
        assert (response.status, response.body) == (404, unknown.body)
    assert push.get(target).status in (400, 404)
    spoofed = {**headers, "Host": push.head(internal=True)["Host"]}
    response = push.request("POST", target, headers=spoofed, body=body)
    assert response.status in (400, 404, 405, 421)
    assert head_of(push, "outside:1") == 0


@pytest.mark.parametrize("form", ["http://{internal}/api", "http://{host}/api", "http://[::1]/api"])
def test_26_by_absolute_target(push: PushServer, form: str) -> None:
    # Names the internal listener in the request line, as one would to a proxy.
    target = form.format(internal=push.head(internal=True)["Host"], host=push.host)
    body = command(channel="outside:1", data=1)
    response = push.request("POST", target, headers=push.signed_headers(body), body=body)
    assert response.status in (400, 404, 421)
    assert head_of(push, "outside:1") == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Origin", SITE),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Site", "none"),
        ("sec-fetch-dest", "empty"),
        ("Sec-Fetch-User", "?1"),
        ("Cookie", "a=b"),
        ("Cookie", ""),
    ],
)
def test_27_a_browser_at_the_internal_port(push: PushServer, name: str, value: str) -> None:
    # A page in a browser on the server's own network, or one that rebound its host name to
    # 127.0.0.1, speaks to the internal port.
    channel = fresh("browser")
    body = command(channel=channel, data=1)
    for headers in (push.signed_headers(body), {}):
        response = push.api_raw(body, {**headers, name: value})
        assert response.status == 403, headers
    assert head_of(push, channel) == 0
    assert push.get("/metrics", internal=True, headers={name: value}).status == 403


def test_27_fetch_in_node_is_no_browser(push: PushServer) -> None:
    """It says this of itself. A browser that says it names the site and the destination, too."""
    channel = fresh("node")
    body = command(channel=channel, data=1)
    fetch = {"Sec-Fetch-Mode": "cors", "Accept-Language": "*", "User-Agent": "node"}
    assert push.api_raw(body, {**push.signed_headers(body), **fetch}).status == 200
    assert head_of(push, channel) == 1


def test_methods_of_the_internal_listener(push: PushServer) -> None:
    # Reads where it should write, and the other way round.
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        response = push.request(method, "/api", internal=True)
        assert response.status in (403, 405, 501), method
    for path in ("/live", "/ready", "/metrics"):
        assert push.get(path, internal=True).status == 200
        assert push.request("POST", path, internal=True).status == 405
        assert push.request("HEAD", path, internal=True).status in (200, 405)


def test_a_key_limited_to_channels(push_server_factory: Callable[..., PushServer]) -> None:
    # A plugin with a key for its chat rooms writes to everybody's personal channel, reads
    # what is not its own, or logs people out.
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    push = push_server_factory()
    push.remember(secret)
    push.write_config(
        api_keys={
            "cms": push.api_secret,
            "plugin": {"secret": secret, "channels": ["chat:*"]},
        }
    )
    push.restart()

    def call(method: str, **params: Any) -> Response:
        body = command(method, **params)
        return push.api_raw(body, push.signed_headers(body, secret=secret))

    assert call("publish", channel="chat:1", data=1).status == 200
    assert call("history", channel="chat:1").status == 200
    for method, params in (
        ("publish", {"channel": "user:1", "data": 1}),
        ("publish", {"channel": "chats", "data": 1}),
        ("history", {"channel": "user:1"}),
        ("revoke", {"user": "1"}),
        ("revoke", {"sid": "1"}),
    ):
        assert call(method, **params).status == 403, (method, params)
    body = command("broadcast", channels=["chat:1", "user:1"], data=1)
    response = push.api_raw(body, push.signed_headers(body, secret=secret))
    if response.status == 200:
        assert "error" in response.json()["result"]["results"][1]
    else:
        assert response.status == 403
    assert head_of(push, "user:1") == 0
    # Names tell, too: of a draft, of a private conversation.
    with push.stream(push.token("1"), "chat:1", "draft:7"):
        assert set(push.api("channels")["channels"]) == {"chat:1", "draft:7"}
        assert set(call("channels").json()["result"]["channels"]) == {"chat:1"}


def test_both_keys_hold_while_they_rotate(push_server_factory: Callable[..., PushServer]) -> None:
    # The counterpart of test 19: several keys, and several signatures, are legal.
    new = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    push = push_server_factory()
    push.remember(new)
    push.write_config(api_keys={"old": push.api_secret, "new": new})
    push.restart()
    body = command(channel="rotate:1", data=1)
    for secret in (push.api_secret, new):
        assert push.api_raw(body, push.signed_headers(body, secret=secret)).status == 200
    headers = push.signed_headers(body)
    stranger = push.signed_headers(body, headers["webhook-id"], secret="whsec_" + "A" * 40)
    headers["webhook-signature"] = f"{stranger['webhook-signature']} {headers['webhook-signature']}"
    assert push.api_raw(body, headers).status == 200
