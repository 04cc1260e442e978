"""Attacks with channel names, and on the right to publish."""

import json
import unicodedata
from collections.abc import Callable
from itertools import count
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from harness import ApiError, PushServer
from wire import Refused, Response

pytestmark = pytest.mark.usefixtures("unharmed")

_numbers = count()

META = [
    "/meta/subscribe/x",
    "/meta//subscribe",
    "/META/subscribe",
    "/meta/handshake",
    "/meta/connect",
    "/service/x",
    "/",
    "//",
    "/a",
]
INTERNAL = ["$sys.canary", "$SYS/x", "$", "$user:1", "/oort/cloud"]
LOOKALIKES = [
    "nоde:7",  # Cyrillic o
    "node：7",  # full-width colon
    unicodedata.normalize("NFC", "node:é"),
    unicodedata.normalize("NFD", "node:é"),
    "node:７",
    "ſ",
    "node:7 ",
    " node:7",
    "node:7\t",
    "node:7\0",
    "\0",
    "node:7\r\n",
    "node:7\u200b",
    "node:7\u2028",
    "\ufeffnode:7",
    "node:7%00",
]
MALFORMED = [
    "",
    "a" * 129,
    "a\nb",
    "a,b",
    "a b",
    'a"b',
    "a\\b",
    "a~b",
    "a+b",
    "a?b",
    "a#b",
    "a&b",
    "a=b",
    "a;b",
    "a|b",
    "a{b}",
    "[a-z]",
    "a^",
    "a`b`",
    "<a>",
    "a'b",
    "a(b)",
    "a@b",
    "a!b",
    "a%b",
    *LOOKALIKES,
]


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"channels{next(_numbers)}"


def ask(push: PushServer, token: str, *channels: str) -> Response:
    """The answer to a poll for these channels; it always comes at once."""
    return push.get("/subscribe/poll?" + urlencode([("channel", c) for c in channels]), token=token)


def publish(push: PushServer, token: str, **body: Any) -> Response:
    headers = {"Content-Type": "application/json"}
    return push.request(
        "POST", "/publish", token=token, headers=headers, body=json.dumps(body).encode()
    )


def api_status(push: PushServer, method: str, **params: Any) -> tuple[int, str]:
    with pytest.raises(ApiError) as refusal:
        push.api(method, **params)
    return refusal.value.response.status, refusal.value.response.error


def refused_everywhere(push: PushServer, user: str, name: str) -> None:
    """The name is 400 wherever a channel name can be given."""
    token = push.token(user, sub_ch=["*"], pub_ch=["*"])
    for channels in ([name], ["node:7", name], [name, "node:7"]):
        response = ask(push, token, *channels)
        assert (response.status, response.error) == (400, "channel_malformed"), channels
    for transport in (push.sse, push.stream):
        with pytest.raises(Refused) as refusal:
            transport(token, name)
        assert refusal.value.response.status == 400
    assert publish(push, token, channel=name, data=1).status == 400
    assert api_status(push, "publish", channel=name, data=1)[0] == 400
    assert api_status(push, "history", channel=name)[0] == 400
    answers = push.api_batch([("publish", {"channel": name, "data": 1})])
    assert "error" in answers[0]
    status, _ = api_status(push, "broadcast", channels=["node:ok", name], data=1)
    assert status == 400


@pytest.mark.parametrize("name", META)
def test_12_bayeux_meta_paths(push: PushServer, user: str, name: str) -> None:
    # A path that one parser takes for a subscribe request and another for a channel name
    # slipped past authorisation for ten years elsewhere (CVE-2020-11020).
    refused_everywhere(push, user, name)


@pytest.mark.parametrize("name", ["*", "**", "node:*", "node:**", "n*", "user:*"])
def test_13_wildcards(push: PushServer, user: str, name: str) -> None:
    # Subscribes to a pattern, to receive all that it matches.
    token = push.token(user, sub_ch=["node:*"], pub_ch=["node:*"])
    with pytest.raises(Refused) as refusal:
        push.stream(token, name)
    assert refusal.value.response.status == 403
    assert publish(push, token, channel=name, data=1).status in (400, 403)
    assert api_status(push, "publish", channel=name, data=1)[0] in (400, 403)


@pytest.mark.parametrize("name", ["/**", "node:?", "node:[0-9]", "node:*x", "*:7", "{a,b}"])
def test_13_globs(push: PushServer, user: str, name: str) -> None:
    # The same with the globs of other systems.
    response = ask(push, push.token(user), name)
    assert response.status in (400, 403)
    assert response.error in ("channel_malformed", "channel_denied")


@pytest.mark.parametrize("name", INTERNAL)
def test_14_internal_channels(push: PushServer, user: str, name: str) -> None:
    # Speaks to channels that carry the server's own messages (CVE-2022-24721).
    refused_everywhere(push, user, name)
    token = push.token(user, sub_ch=["node:*"], sid=f"s{user}")
    assert name not in push.api("channels")["channels"]
    assert not [n for n in push.api("channels", prefix="")["channels"] if n.startswith("$")]
    assert ask(push, token, "node:7").status == 200


def test_15_names_that_collide_when_joined(push: PushServer, user: str) -> None:
    # Two different pairs that make the same key if names are glued together to make one
    # (CVE-2026-39972): each subscriber must get its own channel and no other.
    names = ["a_b:c", "a:b_c", "a:b:c", "a.b:c", "a:b.c", "a/b:c", "a:b/c", "a-b", "a--b", "A_B:C"]
    for name in names:
        with push.stream(push.token(user), name) as stream:
            push.api_batch([("publish", {"channel": n, "data": n}) for n in names])
            # The personal channel is told last: had anything else been due, it was before.
            push.api("publish", channel=f"user:{user}", data="end")
            assert [m.value["data"] for m in stream.take(2)] == [name, "end"]


@pytest.mark.parametrize("name", MALFORMED, ids=ascii)
def test_16_names_that_are_none(push: PushServer, user: str, name: str) -> None:
    # Look-alikes, other spellings, other alphabets, control characters: whatever a person
    # takes for another name must not be a name.
    refused_everywhere(push, user, name)


@pytest.mark.parametrize(
    "raw", ["%ff", "node:7%80", "%c0%ae", "%ed%a0%80", "%00", "a%0d%0aSet-Cookie:x"]
)
def test_16_bytes_that_are_no_text(push: PushServer, user: str, raw: str) -> None:
    # Bytes that are no UTF-8, or overlong, in a URL.
    response = push.get(f"/subscribe/poll?channel={raw}", token=push.token(user))
    assert response.status == 400
    assert response.error in ("channel_malformed", "query_malformed")
    assert response.header("Set-Cookie") is None


@pytest.mark.parametrize("name", [1, 1.5, None, True, [], ["node:7"], {"a": 1}, {}], ids=repr)
def test_16_names_of_another_type(push: PushServer, user: str, name: object) -> None:
    # JSON that is no string where a name belongs.
    token = push.token(user, pub_ch=["*"])
    assert publish(push, token, channel=name, data=1).status == 400
    assert api_status(push, "publish", channel=name, data=1)[0] == 400
    assert api_status(push, "history", channel=name)[0] == 400
    for channels in (name if not isinstance(name, list) else [name], [name], ["node:ok", name]):
        response = push.api_raw(
            json.dumps(
                {"method": "broadcast", "params": {"channels": channels, "data": 1}}
            ).encode()
        )
        assert response.status == 400 or "error" in response.json()["result"]["results"][-1]


def test_16_case_matters(push: PushServer, user: str) -> None:
    # Case folding would make one channel of two that a site keeps apart.
    with push.stream(push.token(user, sub_ch=["Node:7"]), "Node:7", "node:7", "NODE:7") as stream:
        assert set(stream.hello["denied"]) == {"node:7", "NODE:7"}


def test_17_too_many_channels(push: PushServer, user: str) -> None:
    # Makes the server keep a list entry for each of ever more channels.
    token = push.token(user)
    allowed = [f"c:{number}" for number in range(63)]
    assert ask(push, token, *allowed).status == 200
    response = ask(push, token, *allowed, "c:63", "c:64")
    assert response.status == 429
    assert ask(push, token, *(f"c:{number}" for number in range(300))).status in (400, 413, 429)
    # Past what fits the request line of any browser.
    names = "&".join(f"channel=c:{number}" for number in range(10_001))
    answer = push.raw(
        f"GET /subscribe/sse?{names} HTTP/1.1\r\nHost: {push.host}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    assert answer.closed
    assert answer[9:12] in (b"414", b"431", b"400", b"413"), answer[:80]


def test_17_too_many_commands_and_receivers(push: PushServer) -> None:
    # One signed request that means a million.
    commands = [("publish", {"channel": "c:1", "data": 1})] * 1_001
    with pytest.raises(ApiError) as refusal:
        push.api_batch(commands)
    assert refusal.value.response.status in (400, 413)
    assert push.api("history", channel="c:1")["offset"] == 0
    status, _ = api_status(push, "broadcast", channels=["c:1"] * 10_001, data=1)
    assert status in (400, 413)
    assert push.api("history", channel="c:1")["offset"] == 0
    assert api_status(push, "broadcast", channels=[], data=1)[0] == 400


def test_17_a_channel_asked_for_twice_is_one(push: PushServer, user: str) -> None:
    # Repeats a name, to get everything twice or to confuse the accounting.
    with push.stream(push.token(user), "twice", "twice", f"user:{user}") as stream:
        assert sorted(stream.hello["channels"]) == ["twice", f"user:{user}"]
        push.api("publish", channel="twice", data=1)
        push.api("publish", channel=f"user:{user}", data=2)
        assert [message.value["data"] for message in stream.take(2)] == [1, 2]
    assert ask(push, push.token(user), *["twice"] * 100).status in (200, 429)


def test_18_publishing_without_the_right(push: PushServer, user: str) -> None:
    # A reader of a channel publishes to it, and to channels of which it knows the name.
    channel = f"read-only:{user}"
    before = push.api("publish", channel=channel, data="first")["offset"]
    token = push.token(user, sub_ch=["*"], pub_ch=["chat:*"])
    for name in (channel, f"user:{user}", "user:1", "chats:1", "chat", "Chat:1"):
        response = publish(push, token, channel=name, data="forged")
        assert (response.status, response.error) == (403, "channel_denied"), name
    assert push.api("history", channel=channel)["offset"] == before
    assert publish(push, token, channel=f"chat:{user}", data="ok").status == 200


def test_18_a_publisher_cannot_pass_for_somebody_else(push: PushServer, user: str) -> None:
    # Claims another author, or a place in the log, in the body of its publish.
    channel = f"chat:{user}"
    token = push.token(user, pub_ch=["chat:*"])
    with push.stream(push.token(user), channel) as stream:
        response = publish(push, token, channel=channel, data=1, user="admin", offset=99, epoch=1)
        if response.status == 200:
            got = stream.take(1)[0].value
            assert (got["user"], got["offset"]) == (user, 1)
        else:
            assert response.status == 400
        push.api("publish", channel=channel, data=2)
        assert "user" not in stream.take(1)[0].value


def test_18_a_namespace_that_takes_nothing_from_browsers(
    push_server_factory: Callable[..., PushServer], user: str
) -> None:
    # The token grants more than the owner of the site wants for this namespace.
    push = push_server_factory(namespace={"news": {"client_publish": False}})
    token = push.token(user, pub_ch=["*", "news:1"])
    response = publish(push, token, channel="news:1", data=1)
    assert (response.status, response.error) == (403, "channel_denied")
    assert publish(push, token, channel="chat:1", data=1).status == 200
    assert push.api("publish", channel="news:1", data=1)["offset"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"channel":"chat:x"}',
        b"[" * 100_000,
        b'{"channel":"chat:x","data":' + b"[" * 100_000,
        b'{"channel":"chat:x","data":NaN}',
        b'{"channel":"chat:x","data":Infinity}',
        b'{"channel":"chat:x","data":1e999}',
        b'{"channel":"chat:x","data":' + b"9" * 10_000 + b"}",
        b'{"channel":"chat:x","data":1,"data":2}',
        b'{"channel":"chat:x","channel":"chat:y","data":2}',
        b'{"channel":"chat:x","data":"\xff"}',
        b'{"channel":"chat:x","data":"\\ud800"}',
        b'{"channel":"chat:x","data":1} {}',
        b'\xef\xbb\xbf{"channel":"chat:x","data":1}',
        '{"channel":"chat:x","data":1}'.encode("utf-16"),
        b'{"channel":"chat:x","data":1,"id":"a\\nb"}',
        b'{"channel":"chat:x","data":1,"id":""}',
        b'{"channel":"chat:x","data":1,"id":1}',
        b'{"channel":"chat:x","data":1,"exclude":"a\\r\\nb"}',
        b'{"channel":"chat:x","data":1,"exclude":{}}',
        b'{"channel":"chat:x","data":1,"id":"' + b"i" * 65 + b'"}',
    ],
    ids=lambda body: ascii(body[:40]),
)
def test_24_malformed_publishes_from_a_browser(push: PushServer, user: str, body: bytes) -> None:
    # JSON that crashed others (CVE-2022-21667: any POST with an empty body), or that two
    # parsers read differently.
    before = push.api("history", channel="chat:x")["offset"]
    response = push.request(
        "POST",
        "/publish",
        token=push.token(user, pub_ch=["*"]),
        headers={"Content-Type": "application/json"},
        body=body,
    )
    assert response.status == 400, response
    assert response.error
    assert push.api("history", channel="chat:x")["offset"] == before


def test_49_a_form_cannot_publish(push: PushServer, user: str) -> None:
    # A hostile page submits a form: no preflight, but also no JSON content type.
    body = b'{"channel":"chat:x","data":1}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        headers = {"Content-Type": kind} if kind else {}
        response = push.request(
            "POST", "/publish", token=push.token(user, pub_ch=["*"]), headers=headers, body=body
        )
        assert response.status in (400, 415), kind


def test_58_a_name_in_the_log_cannot_forge_a_line(
    push_server_factory: Callable[..., PushServer],
) -> None:
    # Puts line ends and terminal escapes into everything that might be logged.
    push = push_server_factory()
    before = push.log.count("\n")
    evil = "x\r\nevent=forged ip=1.2.3.4 \x1b[2J"
    requests = [
        push.get(f"/subscribe/poll?channel={quote(evil)}", token=push.token("1")),
        push.get(f"/{quote(evil)}"),
        push.get("/subscribe/poll", token=push.token("1"), headers={"User-Agent": "A" * 8_000}),
        push.get(f"/subscribe/poll?instance={quote(evil)}", token=push.token("1")),
        push.get("/subscribe/poll", token=push.token("1", name=evil, sid=evil)),
        push.get("/subscribe/poll", headers={"Origin": "http://x event=forged"}),
    ]
    log = push.log
    assert "\nevent=forged" not in log and "\x1b" not in log and "\r" not in log
    assert log.count("\n") - before <= len(requests), log
    assert max(map(len, log.splitlines())) < 1_500
