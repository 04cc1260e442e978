"""What an attack leaves in the log: one line that says what and from where, and no secret."""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from formulas import sign_token
from harness import SITE, PushServer
from waiting import wait_for
from wire import Refused, Response
from wire_ws import PING, TEXT, Upgraded, frame

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[PushServer]:
    """A server of its own, because the log is limited per address and per minute."""
    with PushServer(handshake_timeout=1) as push:
        yield push


def forged(push: PushServer, **claims: Any) -> str:
    now = int(time.time())
    merged = {"v": 1, "sub": "7", "sid": "s", "iat": now, "exp": now + 60, **claims}
    return push.remember(sign_token(json.dumps(merged).encode(), push.token_keys[-1]))


def get(push: PushServer, source: str, target: str = "/subscribe/poll", **more: Any) -> Response:
    return push.get(target, source=source, **more)


def publish(push: PushServer, source: str, token: str, **body: Any) -> Response:
    content = json.dumps(body).encode()
    return push.request("POST", "/publish", token=token, headers=JSON, body=content, source=source)


def api(push: PushServer, source: str, body: bytes, **headers: str) -> Response:
    signed = {**push.signed_headers(body), **headers}
    return push.request("POST", "/api", headers=signed, body=body, source=source, internal=True)


def spend(push: PushServer, source: str) -> Response:
    ticket = push.ticket(push.token("7"))
    assert get(push, "127.0.0.1", f"/subscribe/poll?ticket={ticket}").status == 200
    return get(push, source, f"/subscribe/poll?ticket={ticket}")


def revoked(push: PushServer, source: str) -> Response:
    token = push.token("gone")
    push.api("revoke", user="gone")
    return get(push, source, token=token)


def socket(push: PushServer, source: str, sent: bytes = b"", **headers: str) -> None:
    with contextlib.suppress(Refused):
        with Upgraded(push.address, "/subscribe/ws", {**push.head(), **headers}, source) as ws:
            ws.wire.send(sent)
            ws.closed()


def raw(push: PushServer, source: str, data: bytes) -> None:
    push.raw(data.replace(b"HOST", push.host.encode()), source=source)


PUBLISH = b'{"method":"publish","params":{"channel":"a","data":1}}'
NOW = int(time.time())

ATTACKS: list[tuple[str, Callable[[PushServer, str], object], str]] = [
    ("1 no token", lambda p, s: get(p, s), "auth.reject reason=missing"),
    (
        "2 bad signature",
        lambda p, s: get(p, s, token=p.token("7")[:-9] + "AAAAAAAAA"),
        "auth.reject reason=badsig",
    ),
    (
        "5 expired",
        lambda p, s: get(p, s, token=forged(p, exp=NOW - 90, iat=NOW - 200)),
        "auth.reject reason=exp",
    ),
    ("5 not yet", lambda p, s: get(p, s, token=forged(p, iat=NOW + 900)), "auth.reject reason=nbf"),
    (
        "7 size",
        lambda p, s: get(p, s, token="A" * 5_000 + "." + "A" * 43),
        "auth.reject reason=size",
    ),
    (
        "8 in the URL",
        lambda p, s: get(p, s, f"/subscribe/poll?token={p.token('7')}"),
        "auth.reject reason=url",
    ),
    ("9 ticket replayed", spend, "auth.reject reason=replay"),
    (
        "10 origin",
        lambda p, s: get(p, s, token=p.token("7"), headers={"Origin": "http://evil"}),
        "origin.reject",
    ),
    (
        "18 publish denied",
        lambda p, s: publish(p, s, p.token("7"), channel="a", data=1),
        "channel_denied",
    ),
    (
        "11 channel denied",
        lambda p, s: get(p, s, "/subscribe/poll?channel=user:2", token=p.token("7")),
        "channel_denied",
    ),
    (
        "14 internal channel",
        lambda p, s: get(p, s, "/subscribe/poll?channel=$sys", token=p.token("7")),
        "channel_malformed",
    ),
    (
        "19 no signature",
        lambda p, s: api(p, s, PUBLISH, **{"webhook-signature": ""}),
        "api.reject reason=sig",
    ),
    (
        "21 late",
        lambda p, s: p.request(
            "POST",
            "/api",
            internal=True,
            source=s,
            body=PUBLISH,
            headers=p.signed_headers(PUBLISH, timestamp=str(NOW - 400)),
        ),
        "api.reject reason=time",
    ),
    ("24 JSON", lambda p, s: api(p, s, b"[1"), "json_malformed"),
    ("25 size", lambda p, s: api(p, s, b"[" + b" " * 300_000), "413|size"),
    ("27 browser", lambda p, s: api(p, s, PUBLISH, Origin=SITE), "api.reject reason=browser"),
    (
        "28 framing",
        lambda p, s: raw(p, s, b"GET / HTTP/1.1\r\nHost: HOST\r\nX: a\r\n b\r\n\r\n"),
        "http.reject",
    ),
    (
        "29 host",
        lambda p, s: get(p, s, "/frame", headers={"Host": "evil.example"}),
        "http.reject reason=host",
    ),
    ("30 version", lambda p, s: raw(p, s, b"GET / HTTP/9.9\r\nHost: HOST\r\n\r\n"), "http.reject"),
    ("32 slow", lambda p, s: raw(p, s, b"GET / HTTP/1.1\r\n"), "http.timeout"),
    ("40 foreign socket", lambda p, s: socket(p, s, Origin="null"), "origin.reject reason=origin"),
    ("40 nobody's socket", lambda p, s: socket(p, s), "origin.reject reason=missing"),
    (
        "41 unmasked",
        lambda p, s: socket(p, s, frame(TEXT, b"{}", masked=False), Origin=SITE),
        "ws.reject code=1002",
    ),
    (
        "41 too large",
        lambda p, s: socket(p, s, b"\x81\xff" + b"\xff" * 8, Origin=SITE),
        "ws.reject code=1009",
    ),
    (
        "41 too many",
        lambda p, s: socket(p, s, frame(PING) * 1100, Origin=SITE),
        "ws.reject code=1008",
    ),
    (
        "42 event",
        lambda p, s: publish(p, s, p.token("7", pub_ch=["*"]), channel="a", data=1, id="a\nid: b"),
        "id_malformed",
    ),
    (
        "44 callback",
        lambda p, s: get(p, s, "/subscribe/jsonp?callback=alert(1)", token=p.token("7")),
        "proto.reject reason=callback",
    ),
    (
        "46 frame",
        lambda p, s: get(p, s, "/subscribe/frame?origin=http://evil", token=p.token("7")),
        "origin.reject reason=frame",
    ),
    (
        "49 form",
        lambda p, s: p.request("POST", "/ticket", source=s, headers={"Origin": "http://evil"}),
        "origin.reject reason=origin",
    ),
    (
        "49 without an origin",
        lambda p, s: p.request(
            "POST", "/ticket", source=s, headers={"Sec-Fetch-Site": "cross-site"}
        ),
        "origin.reject reason=site",
    ),
    (
        "51 cursor",
        lambda p, s: get(p, s, "/subscribe/poll?since=x", token=p.token("7")),
        "cursor_malformed",
    ),
    ("54 revoked", revoked, "auth.reject reason=revoked"),
]


@pytest.mark.parametrize(
    ("number", "attack", "expected"),
    [(n, attack, line) for n, (_, attack, line) in enumerate(ATTACKS)],
    ids=[name for name, _, _ in ATTACKS],
)
def test_an_attack_leaves_one_line(
    server: PushServer, number: int, attack: Callable[[PushServer, str], object], expected: str
) -> None:
    source = f"127.0.1.{number + 1}"
    before = len(server.log)
    attack(server, source)

    def found() -> list[str]:
        new = server.log[before:].splitlines()
        return [line for line in new if line.endswith(f"ip={source}")]

    lines = wait_for(found, lambda: server.log[before:])
    assert len(lines) == 1, lines
    for word in expected.split():
        assert re.search(word, lines[0]), lines
    server.check_log()


def test_the_lines_of_one_address_are_limited(server: PushServer) -> None:
    # Fills the disk with log lines. After ten a minute they are counted, not written.
    before = server.log.count("\n")
    for _ in range(60):
        assert get(server, "127.0.2.1").status == 401
    assert get(server, "127.0.2.2").status == 401
    lines = server.log.splitlines()[before:]
    assert len([line for line in lines if line.endswith("ip=127.0.2.1")]) == 10
    assert len([line for line in lines if line.endswith("ip=127.0.2.2")]) == 1


def test_an_ordinary_day_leaves_nothing(server: PushServer) -> None:
    # A log that is full of what is normal hides what is not.
    before = server.log
    token = server.token("7", pub_ch=["*"])
    with server.stream(token, "a") as stream:
        server.api("publish", channel="a", data=1)
        assert publish(server, "127.0.0.1", token, channel="a", data=2).status == 200
        stream.take(2)
    server.poll(token).close()
    server.get("/frame")
    server.get("/push.js")
    with pytest.raises(Refused):
        server.stream(token, "", source="127.0.2.3")
    server.log.index("127.0.2.3")
    assert [
        line for line in server.log[len(before) :].splitlines() if "127.0.2.3" not in line
    ] == []


POLL = "GET /subscribe/poll HTTP/1.1"
BEARER = "Authorization: Bearer TOKEN"
TOKEN_PLACES: list[tuple[str, ...]] = [
    (POLL, "Host: HOST", BEARER + "\nX: y"),
    (POLL, "Host: HOST", BEARER + "\r"),
    (POLL, "Host: HOST", BEARER + "\0"),
    (POLL, "Host: HOST", "Authorization: Bearer", " TOKEN"),
    (POLL, "Host: HOST", "Authorization : Bearer TOKEN"),
    (POLL, "Host: HOST", "Authorization Bearer TOKEN"),
    (POLL, "Host: HOST", "TOKEN"),
    (POLL, "Host: HOST", "TOKEN: x"),
    (POLL, "Host: HOST", "TOKEN : x"),
    (POLL, "Host: HOST", "Content-Length: TOKEN"),
    (POLL, "Host: HOST", "Transfer-Encoding: TOKEN"),
    (POLL, "Host: HOST", "Expect: TOKEN"),
    (POLL, "Host: TOKEN"),
    (POLL, "Host: HOST" + BEARER),
    (POLL, "Host: HOST", "Origin: TOKEN"),
    (POLL, "Host: HOST", "Origin: http://TOKEN"),
    (POLL, "Host: HOST", "Authorization: Basic TOKEN"),
    (POLL, "Host: HOST", "Authorization: TOKEN"),
    (POLL, "Host: HOST", BEARER, "User-Agent: TOKEN", "Referer: TOKEN", "Cookie: TOKEN"),
    ("GET /subscribe/poll?token=TOKEN HTTP/1.1", "Host: HOST"),
    ("GET /subscribe/poll?ticket=TOKEN HTTP/1.1", "Host: HOST"),
    ("GET /subscribe/poll?TOKEN HTTP/1.1", "Host: HOST"),
    ("GET /subscribe/poll?since=TOKEN HTTP/1.1", "Host: HOST"),
    ("GET /subscribe/poll?fallback=TOKEN HTTP/1.1", "Host: HOST", BEARER),
    ("GET /subscribe/poll?channel=TOKEN HTTP/1.1", "Host: HOST", BEARER),
    ("GET /subscribe/TOKEN HTTP/1.1", "Host: HOST"),
    ("GET /TOKEN HTTP/1.1", "Host: HOST"),
    ("GET //TOKEN HTTP/1.1", "Host: HOST"),
    ("GET TOKEN HTTP/1.1", "Host: HOST"),
    ("GET http://TOKEN/ HTTP/1.1", "Host: HOST"),
    ("TOKEN / HTTP/1.1", "Host: HOST"),
    ("GET / TOKEN", "Host: HOST"),
    ("POST /publish HTTP/1.1", "Host: HOST", BEARER, "Content-Type: TOKEN", "Content-Length: 0"),
    ("POST /publish HTTP/1.1", "Host: HOST", "Transfer-Encoding: chunked", "", "TOKEN"),
    ("POST /api HTTP/1.1", "Host: HOST", "webhook-id: TOKEN", "Content-Length: 0"),
]


@pytest.mark.parametrize("internal", [False, True], ids=["public", "internal"])
@pytest.mark.parametrize("number", range(len(TOKEN_PLACES)))
def test_no_token_is_logged_wherever_it_stands(
    server: PushServer, number: int, internal: bool
) -> None:
    # A program with a small mistake sends its token where it does not belong: with a line end
    # that was not trimmed, as a name, in the path. Error texts like to quote such lines.
    lines = TOKEN_PLACES[number]
    token = issue(server, f"{number}.{internal}")
    request = "\r\n".join([*lines[:2], "Connection: close", *lines[2:], "", ""])
    host = server.head(internal)["Host"]
    before = len(server.log)
    # Each from an address of its own, or the line may not be written at all.
    answer = server.raw(
        request.replace("HOST", host).replace("TOKEN", token).encode(),
        internal=internal,
        source=f"127.0.{3 + internal}.{number + 1}",
    )
    assert answer.closed
    for secret in (token, *token.split(".")):
        assert secret not in server.log[before:]
        assert secret.encode() not in bytes(answer)


def issue(push: PushServer, name: str) -> str:
    """A token that is told apart from all others, and good."""
    now = int(time.time())
    claims = {"v": 1, "sub": "7", "sid": name, "iat": now, "exp": now + 60}
    return sign_token(json.dumps(claims).encode(), push.token_keys[-1])


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature", "Host"])
@pytest.mark.parametrize("ending", ["", "\n", "\r", " \x01"], ids=ascii)
def test_no_api_key_is_logged(server: PushServer, name: str, ending: str) -> None:
    # Pastes the secret itself into a header of the call.
    fields = {**server.head(internal=True), **server.signed_headers(PUBLISH)}
    fields[name] = server.api_secret + ending
    lines = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    before = len(server.log)
    server.raw(
        f"POST /api HTTP/1.1\r\n{lines}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
        internal=True,
        source=f"127.0.5.{len(server.log) % 250 + 1}",
    )
    log = server.log[before:]
    assert log
    assert server.api_secret.removeprefix("whsec_") not in log
