"""Attacks with tokens and tickets. Each test names its attack and what must come of it."""

import json
import secrets
import signal
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from formulas import b64, sign_token
from harness import SITE, PushServer
from waiting import PATIENCE
from wire import Receiver, Refused, Response

from push_server.tokens import TokenKeys

pytestmark = pytest.mark.usefixtures("unharmed")

SUBSCRIBE = ["/subscribe/sse", "/subscribe/stream", "/subscribe/poll"]
TRANSPORTS = ["sse", "stream", "poll"]
_numbers = count()


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"tokens{next(_numbers)}"


def bearer(push: PushServer, token: str, target: str = "/subscribe/poll?channel=a") -> Response:
    """The answer to an ordinary request with this token."""
    return push.get(target, token=token)


def subscribe(push: PushServer, transport: str, token: str | None, **options: str) -> Receiver:
    receiver: Receiver = getattr(push, transport)(token, "news", **options)
    return receiver


def resident_kib(push: PushServer) -> int:
    assert push.process is not None
    status = Path(f"/proc/{push.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.parametrize(
    ("method", "target"),
    [*(("GET", path) for path in SUBSCRIBE), ("POST", "/ticket"), ("POST", "/publish")],
)
def test_01_no_token(push: PushServer, method: str, target: str) -> None:
    # A stranger asks for a stream, a ticket or a publish without any credentials.
    response = push.request(method, target)
    assert (response.status, response.error) == (401, "token_missing")
    for value in ("", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "bearer", "Bearer a b"):
        response = push.request(method, target, headers={"Authorization": value})
        assert response.status == 401, value
        assert response.error in ("token_missing", "token_invalid")


def test_02_one_bit_flipped_in_each_byte(push: PushServer, user: str) -> None:
    # Flips one bit of each character in turn, hoping that some byte is not covered by the
    # signature, or that different refusals tell how far a forgery got.
    token = push.token(user)
    assert bearer(push, token).status == 200
    answers = set()
    # The last character is left out: two of its bits mean nothing (see the next test).
    for place in range(len(token) - 1):
        forged = token[:place] + chr(ord(token[place]) ^ 1) + token[place + 1 :]
        response = bearer(push, forged)
        assert response.status == 401, forged
        headers = [pair for pair in response.headers if pair[0].lower() != "date"]
        answers.add((response.body, tuple(headers)))
    assert len(answers) == 1


def test_03_another_spelling_of_a_token_is_the_same_token(push: PushServer, user: str) -> None:
    # Spells a stolen token another way, to escape a revocation that was keyed by its text.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = push.token(user, jti=f"jti-{user}")
    last = alphabet.index(token[-1])
    spellings = [token[:-1] + alphabet[last ^ bits] for bits in range(4)]
    spellings += [token + "=" * count for count in (1, 2, 3)]
    assert token in spellings
    for spelling in spellings:
        assert bearer(push, push.remember(spelling)).status == 200, spelling
    push.api("revoke", jti=f"jti-{user}")
    for spelling in spellings:
        assert bearer(push, spelling).status == 401, spelling


def test_04_a_signature_made_for_something_else(push: PushServer, user: str) -> None:
    # Passes off a signature that another use of the same or another key made.
    claims = b'{"v":1,"sub":"42","sid":"s","iat":%d,"exp":%d,"sub_ch":["*"],"pub_ch":[]}' % (
        time.time(),
        time.time() + 300,
    )
    key = push.token_keys[-1]
    assert bearer(push, push.remember(sign_token(claims, key))).status == 200
    for salt in (b"push.ticket.v1", b"itsdangerous", b"itsdangerous.Signer", b""):
        assert bearer(push, sign_token(claims, key, salt)).status == 401, salt
    assert bearer(push, sign_token(claims, push.api_secret)).status == 401
    assert bearer(push, sign_token(claims, "")).status == 401
    assert bearer(push, push.ticket(push.token(user))).status == 401
    # And the other way round: a token is no ticket.
    assert push.get("/subscribe/poll?" + urlencode({"ticket": push.token(user)})).status == 401


def test_05_leeway_is_a_minute_both_ways(push: PushServer, user: str) -> None:
    # Uses a token after its end, or before its beginning. (The exact edges are vectors.)
    now = int(time.time())
    assert bearer(push, push.token(user, exp=now - 62, iat=now - 400)).status == 401
    assert bearer(push, push.token(user, exp=now - 50, iat=now - 400)).status == 200
    assert bearer(push, push.token(user, iat=now + 70)).status == 401
    assert bearer(push, push.token(user, iat=now + 58)).status == 200


@pytest.mark.parametrize(
    "kid", ["unknown", "x" * 10_000, "../../../../etc/passwd", "__class__", "0", ""]
)
def test_06_a_key_id_is_never_looked_up(push: PushServer, user: str, kid: str) -> None:
    # Names a key, a file or an attribute, hoping that the server fetches its key there.
    expected = 401 if len(kid) > 1_000 else 200
    assert bearer(push, push.token(user, kid=kid)).status == expected
    claims = b'{"v":1,"sub":"42","iat":%d,"exp":%d}' % (time.time(), time.time() + 300)
    assert bearer(push, sign_token(claims, "")).status == 401
    assert bearer(push, sign_token(claims, kid)).status == 401


def test_07_too_large(push: PushServer, user: str) -> None:
    # Makes the server hash, decode or unfold as much as possible.
    for size in (4_000, 8_000):
        response = bearer(push, push.token(user, name="n" * size))
        assert (response.status, response.error) == (401, "token_invalid")
    for size in (20_000, 300_000, 1_000_000):
        token = "A" * size + "." + "A" * 43
        answer = push.raw(
            b"GET /subscribe/poll HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n\r\n"
            % (push.host.encode(), token.encode())
        )
        assert answer.closed
        assert answer[:12] in (b"HTTP/1.1 431", b"HTTP/1.0 431", b"HTTP/1.1 413", b""), answer[:80]


def test_07_compressed(push: PushServer, user: str) -> None:
    # A payload that unfolds to gigabytes, unsigned; the signature must be looked at first.
    # One that is signed comes from the site itself (itsdangerous compresses long payloads
    # without being asked), and still unfolds to 16 KiB at most.
    before = resident_kib(push)
    bomb = b64(zlib.compress(b'{"v":1,"a":"' + b"A" * 2_900_000 + b'"}', 9))
    assert len(bomb) < 4_000
    token = f".{bomb}.{'A' * 43}"
    for _ in range(20):
        assert bearer(push, token).status == 401
    assert resident_kib(push) - before < 20_000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in SUBSCRIBE),
        ("GET", "/frame"),
        ("GET", "/push.js"),
        ("POST", "/ticket"),
        ("POST", "/publish"),
    ],
)
@pytest.mark.parametrize("name", ["token", "access_token", "x"])
def test_08_a_token_in_the_url(
    push: PushServer, user: str, method: str, path: str, name: str
) -> None:
    # A site puts the token into a URL, where proxies and browsers keep it for others to read.
    # It must not work even once, or sites would come to depend on it.
    token = push.token(user)
    response = push.request(method, f"{path}?{name}={token}")
    assert (response.status, response.error) == (400, "token_in_url")
    response = push.request(method, f"{path}?{name}={token}", token=token)
    assert (response.status, response.error) == (400, "token_in_url")
    assert token not in push.log


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_09_a_ticket_is_good_once(push: PushServer, user: str, transport: str) -> None:
    # Reads a ticket in a log or a browser history and uses it again.
    ticket = push.ticket(push.token(user))
    with subscribe(push, transport, None, ticket=ticket) as first:
        assert first.hello["user"] == user
        with pytest.raises(Refused) as refusal:
            subscribe(push, transport, None, ticket=ticket)
        assert refusal.value.response.status == 401
        push.api("publish", channel=f"user:{user}", data="still here", id=f"still-{user}")
        if transport != "poll":
            assert first.take(1)[0].value["data"] == "still here"


def test_09_a_ticket_used_many_times_at_once(push: PushServer, user: str) -> None:
    # Races the first use.
    target = "/subscribe/poll?" + urlencode({"ticket": push.ticket(push.token(user))})
    with ThreadPoolExecutor(8) as pool:
        statuses = [answer.status for answer in pool.map(push.get, [target] * 16)]
    assert sorted(statuses) == [200] + [401] * 15


def test_09_a_late_or_altered_ticket(push: PushServer, user: str) -> None:
    # Uses a ticket after its 30 seconds, or changes what it says.
    keys = TokenKeys(push.token_keys)
    now = time.time()
    grant = keys.verify(push.token(user), now)
    late = push.remember(keys.issue_ticket(grant, now - 31))
    assert push.get("/subscribe/poll?" + urlencode({"ticket": late})).status == 401
    ticket = push.ticket(push.token(user))
    for text in (ticket[1:], ticket[:-2], "A" + ticket, ticket.upper(), "", ".", "x" * 9_000, "é"):
        assert push.get("/subscribe/poll?" + urlencode({"ticket": text})).status == 401, text
    assert push.get("/subscribe/poll?" + urlencode({"ticket": ticket})).status == 200


def test_09_a_ticket_carries_the_rights_of_its_token_and_no_more(
    push: PushServer, user: str
) -> None:
    # Buys a ticket and asks for what its token does not grant; uses it where a header could go.
    ticket = push.ticket(push.token(user, sub_ch=["mine"]))
    with push.sse(None, "mine", "other", ticket=ticket) as stream:
        assert set(stream.hello["channels"]) == {f"user:{user}", "mine"}
        assert stream.hello["denied"] == ["other"]
    ticket = push.ticket(push.token(user, pub_ch=["*"]))
    body = b'{"channel":"news","data":1}'
    headers = {"Content-Type": "application/json"}
    for path in ("/publish", "/ticket"):
        target = f"{path}?{urlencode({'ticket': ticket})}"
        response = push.request("POST", target, headers=headers, body=body)
        assert response.status in (400, 401), path


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        SITE.replace("http", "https"),
        SITE.replace("8080", "8081"),
        SITE + ".evil.example",
        SITE + "/",
        "http://evil.www.site.localhost:8080",
        "http://site.localhost:8080",
        "http://www.site.localhost",
        SITE + "@evil.example",
        f"{SITE}, https://evil.example",
        f"https://evil.example {SITE}",
    ],
)
def test_10_a_stolen_token_used_from_another_origin(
    push: PushServer, user: str, origin: str
) -> None:
    # A page of another site got hold of a token, and the victim's browser names the page.
    token = push.token(user, pub_ch=["*"])
    for method, path in (
        *(("GET", path) for path in SUBSCRIBE),
        ("POST", "/ticket"),
        ("POST", "/publish"),
    ):
        response = push.request(method, path, token=token, headers={"Origin": origin})
        assert (response.status, response.error) == (403, "origin_denied"), path
        assert response.header("Access-Control-Allow-Origin") is None


def test_10_listed_origins_are_let_in(push: PushServer, user: str) -> None:
    # The counterpart of the attack: it is the origin that was refused.
    for origin in (SITE, f"http://{push.host}"):
        with push.sse(push.token(user), "news", origin=origin) as stream:
            assert stream.hello["user"] == user


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_11_channels_of_others(push: PushServer, user: str, transport: str) -> None:
    # Asks for the personal channel of another user beside channels it may have; an answer
    # that differs for channels that do not exist would tell which ones do.
    push.api("publish", channel=f"user:2{user}", data="private")
    token = push.token(user, sub_ch=["node:*", "chat:lobby"])
    asked = ["node:7", f"user:2{user}", f"user:3{user}", "chat:lobby", "chat:lobby2", "nodes"]
    receiver: Receiver = getattr(push, transport)(token, *asked)
    with receiver:
        assert set(receiver.hello["channels"]) == {f"user:{user}", "node:7", "chat:lobby"}
        assert set(receiver.hello["denied"]) == set(asked) - {"node:7", "chat:lobby"}
    refusals = []
    for channel in (f"user:2{user}", f"user:3{user}"):
        with pytest.raises(Refused) as refusal:
            getattr(push, transport)(token, channel)
        refusals.append(refusal.value.response)
    assert [r.status for r in refusals] == [403, 403]
    assert refusals[0].body.replace(b"user:2", b"user:3") == refusals[1].body


def test_11_wide_patterns_do_not_open_personal_channels(push: PushServer, user: str) -> None:
    # A site grants "*", meaning all public channels; that must not be everybody's mail.
    other = f"user:other-{user}"
    for pattern in ("*", "u*", "user*"):
        with push.stream(push.token(user, sub_ch=[pattern]), other, "user-news") as stream:
            assert stream.hello["denied"] == [other]
    with push.stream(push.token(user, sub_ch=["user:other-*"]), other) as stream:
        assert stream.hello.get("denied", []) == []


def test_claims_that_no_site_would_sign_do_no_harm(push: PushServer, user: str) -> None:
    # A broken site signs nonsense; it may be refused, it must not break anything.
    for claims in (
        {"sid": "\ud800"},
        {"name": "\ud800\r\nevent=forged"},
        {"jti": "\x00"},
        {"sub": "\ud800"},
        {"sid": "s" * 2_000},
        {"exp": 1e300},
        {"iat": -1},
        {"sub_ch": ["a" * 129]},
        {"sub_ch": [["a"]]},
        {"sub_ch": {"a": 1}},
    ):
        now = int(time.time())
        merged = {"v": 1, "sub": user, "sid": "s", "iat": now, "exp": now + 60, **claims}
        token = push.remember(sign_token(json.dumps(merged).encode(), push.token_keys[-1]))
        for target in ("/subscribe/poll?channel=a", "/subscribe/sse?channel=%2a"):
            assert bearer(push, token, target).status in (200, 401, 403), claims
        assert push.request("POST", "/ticket", token=token).status in (200, 401)
    assert "event=forged" not in push.log.replace("\\", "\n")


def ends(receiver: Receiver) -> tuple[list[str | None], float]:
    """What was said up to the end, and how long that took."""
    start = time.monotonic()
    said = [message.control for message in receiver.until_end(PATIENCE)]
    return said, time.monotonic() - start


@pytest.mark.parametrize("transport", ["sse", "stream"])
def test_54_logout_ends_streams_and_the_token(push: PushServer, user: str, transport: str) -> None:
    # Keeps a stream open past the logout, or comes back with the token of the old session.
    token = push.token(user, pub_ch=["*"], sid=f"old-{user}")
    unused = push.ticket(token)
    with subscribe(push, transport, token) as stream:
        assert push.api("revoke", sid=f"old-{user}")["closed"] == 1
        said, seconds = ends(stream)
        assert said[-1] == "revoked"
        assert seconds < 2
    for path in SUBSCRIBE:
        response = push.get(path, token=token)
        assert (response.status, response.error) == (401, "token_invalid"), path
    assert push.request("POST", "/ticket", token=token).status == 401
    body = b'{"channel":"news","data":1}'
    headers = {"Content-Type": "application/json"}
    assert push.request("POST", "/publish", token=token, body=body, headers=headers).status == 401
    assert push.get("/subscribe/poll?" + urlencode({"ticket": unused})).status == 401
    # The same user in a new session is not meant.
    with subscribe(push, transport, push.token(user, sid=f"new-{user}")) as stream:
        assert stream.hello["user"] == user


def test_54_revoke_by_token_id_user_and_time(push: PushServer, user: str) -> None:
    # One stolen token, one lost laptop, one changed role: each ends exactly what it must.
    now = int(time.time())
    tokens = {
        "old": push.token(user, iat=now - 100, jti=f"a-{user}", sid=f"a-{user}"),
        "new": push.token(user, iat=now - 10, jti=f"b-{user}", sid=f"b-{user}"),
    }

    def statuses() -> dict[str, int]:
        return {name: bearer(push, token).status for name, token in tokens.items()}

    push.api("revoke", user=user, before=now - 50)
    assert statuses() == {"old": 401, "new": 200}
    push.api("revoke", jti=f"b-{user}")
    assert statuses() == {"old": 401, "new": 401}
    tokens["third"] = push.token(user, iat=now - 5, sid=f"c-{user}")
    assert statuses()["third"] == 200
    push.api("revoke", user=user)
    assert statuses()["third"] == 401


@pytest.mark.parametrize("claim", ["sid", "jti"])
def test_54_a_fast_clock_at_the_site_does_not_outlive_a_logout(
    push: PushServer, user: str, claim: str
) -> None:
    # The clock of the CMS is ahead, inside the leeway: its tokens were issued "after" the
    # logout as this server counts.
    value = f"{claim}-{user}"
    claims: dict[str, Any] = {claim: value, "iat": int(time.time()) + 45}
    token = push.token(user, **claims)
    with push.stream(token) as stream:
        push.api("revoke", **{claim: value})
        assert ends(stream)[0][-1] == "revoked"
    assert bearer(push, token).status == 401


def test_54_revocation_survives_a_restart(
    push_server_factory: Callable[..., PushServer], user: str
) -> None:
    # Crashes the server after the logout, to come back while it has forgotten.
    push = push_server_factory(broker="sqlite")
    token = push.token(user)
    assert bearer(push, token).status == 200
    push.api("revoke", user=user)
    push.kill()
    push.start()
    assert bearer(push, token).status == 401


def test_57_key_rotation(push_server_factory: Callable[..., PushServer], user: str) -> None:
    # Keeps using a key that was withdrawn because it leaked.
    push = push_server_factory()
    old, new = push.token_keys[0], secrets.token_urlsafe(32)
    old_token, new_token = push.token(user), push.token(user, key=push.remember(new))

    def answers_become(keys: list[str], expected: tuple[int, int]) -> None:
        push.write_config(token_keys=keys)
        push.signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while True:
            answers = (bearer(push, old_token).status, bearer(push, new_token).status)
            if answers == expected:
                return
            assert time.monotonic() < deadline, f"{answers} with {len(keys)} keys"
            time.sleep(0.02)

    answers_become([old], (200, 401))
    with push.stream(old_token) as stream:
        answers_become([old, new], (200, 200))
        answers_become([new], (401, 200))
        # What is open stays open: it has its own end.
        push.api("publish", channel=f"user:{user}", data=1)
        assert stream.take(1)[0].value["data"] == 1
