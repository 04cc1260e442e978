"""Bayeux on a real server, message by message.

Clients from outside are in `test_bayeux_clients.py`.
"""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest
from harness import SITE, PushServer
from redis_server import RedisServer, program
from test_workers import pids
from waiting import PATIENCE, PROMPT, retried, wait_for
from wire import Ended, Response, Wire, read_head, read_response, request_bytes
from wire_ws import TEXT, Upgraded, frame, text_frame

pytestmark = pytest.mark.usefixtures("unharmed")
_numbers = count()
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"bayeux{next(_numbers)}"


@pytest.fixture(scope="module")
def scripted() -> Iterator[PushServer]:
    """A server that answers script elements."""
    with PushServer(jsonp=True) as server:
        yield server


class Client:
    """A Bayeux client that does what it is told."""

    def __init__(self, push: PushServer, token: str | None = None, **ext: Any) -> None:
        self.push = push
        self.identity = ""
        self._numbers = count(1)
        if token is not None:
            [reply] = self.post(self.handshake(token, **ext))
            assert reply["successful"] is True, reply
            self.reply = reply
            self.identity = reply["clientId"]

    def message(self, channel: str, **members: Any) -> dict[str, Any]:
        known = {"clientId": self.identity} if self.identity else {}
        return {"channel": channel, "id": str(next(self._numbers)), **known, **members}

    def handshake(self, token: str, *, ack: bool = False, **push: Any) -> dict[str, Any]:
        ext: dict[str, Any] = {"push": {"token": token, **push}}
        if ack:
            ext["ack"] = True
        return self.message(
            "/meta/handshake",
            version="1.0",
            supportedConnectionTypes=["long-polling", "websocket", "callback-polling"],
            ext=ext,
        )

    def subscribe(self, *names: str) -> dict[str, Any]:
        subscription = list(names) if len(names) != 1 else names[0]
        return self.message("/meta/subscribe", subscription=subscription)

    def connect(self, **members: Any) -> dict[str, Any]:
        return self.message("/meta/connect", connectionType="long-polling", **members)

    def post(self, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        """The answers to messages sent together."""
        body = json.dumps(list(messages)).encode()
        response = self.push.request("POST", "/bayeux", body=body, headers=JSON)
        assert response.status == 200, response
        return list(response.json())

    def call(self, message: dict[str, Any]) -> dict[str, Any]:
        """One message that succeeds."""
        [reply] = self.post(message)
        assert reply["successful"] is True, reply
        return reply

    def error(self, message: dict[str, Any]) -> str:
        """One message that does not."""
        [reply] = self.post(message)
        assert reply["successful"] is False, reply
        assert {key: reply.get(key) for key in ("id", "channel")} == {
            key: message.get(key) for key in ("id", "channel")
        }
        return str(reply["error"])

    def fetch(self) -> list[dict[str, Any]]:
        """What waits."""
        *got, reply = self.post(self.connect(advice={"timeout": 0}))
        assert reply["successful"] is True, reply
        return got

    def hold(self) -> "Held":
        """A connect that waits."""
        return Held(self, self.connect())


class Held:
    """Messages on a connection of their own."""

    def __init__(self, client: Client, *messages: dict[str, Any]) -> None:
        self.message = messages[0]
        self.wire: Wire = client.push.wire()
        body = json.dumps(messages).encode()
        self.wire.send(request_bytes("POST", "/bayeux", {**client.push.head(), **JSON}, body))

    def waits(self, seconds: float = 0.3) -> bool:
        try:
            self.wire.fill(time.monotonic() + seconds)
        except TimeoutError:
            return True
        return False

    def answer(self) -> list[dict[str, Any]]:
        response = read_response(self.wire)
        assert response.status == 200
        return list(response.json())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()


def data(elements: Sequence[dict[str, Any]]) -> list[Any]:
    return [each["data"] for each in elements if not each["channel"].startswith("/service/")]


def controls(elements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each["data"] for each in elements if each["channel"] == "/service/push"]


# The handshake.


def test_handshake(push: PushServer, name: str) -> None:
    client = Client(push, push.token(name))
    reply = client.reply
    assert reply["version"] == "1.0"
    assert len(reply["clientId"]) >= 22  # 128 bits and more
    assert reply["advice"] == {"reconnect": "retry", "interval": 0, "timeout": 25000}
    assert reply["ext"]["push"]["user"] == name
    assert reply["ext"]["push"]["channels"] == [f"user:{name}"]
    assert reply["ext"]["push"]["cursor"].startswith("1~")
    assert reply["supportedConnectionTypes"][:4] == [
        "long-polling", "cross-origin-long-polling", "websocket", "eventsource",
    ]
    assert "ack" not in reply["ext"]


@pytest.mark.parametrize("minimum", ["0.9", "1", "1.0"])
def test_a_handshake_of_an_older_protocol(push: PushServer, name: str, minimum: str) -> None:
    client = Client(push)
    handshake = {**client.handshake(push.token(name)), "minimumVersion": minimum}
    assert client.call(handshake)["version"] == "1.0"


def test_a_handshake_by_ticket(push: PushServer, name: str) -> None:
    client = Client(push)
    handshake = client.handshake("")
    ticket = push.ticket(push.token(name))
    handshake["ext"] = {"push": {"ticket": ticket}}
    assert client.call(handshake)["ext"]["push"]["user"] == name
    assert client.error(handshake).startswith("401:token_invalid:")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"ext": {}}, "401:token_missing:"),
        ({"ext": None}, "401:token_missing:"),
        ({"ext": {"push": "x"}}, "401:token_missing:"),
        ({"ext": {"push": {"token": "x"}}}, "401:token_invalid:"),
        ({"ext": {"push": {"ticket": "x"}}}, "401:token_invalid:"),
        ({"supportedConnectionTypes": ["flash"]}, "301::"),
        ({"supportedConnectionTypes": "long-polling"}, "301::"),
        ({"supportedConnectionTypes": None}, "301::"),
        ({"supportedConnectionTypes": [{}]}, "301::"),
        ({"minimumVersion": "1.1"}, "300::"),
        ({"minimumVersion": "10.0"}, "300::"),
        ({"minimumVersion": 1}, "300::"),
    ],
)
def test_a_handshake_that_is_refused(
    push: PushServer, name: str, changes: dict[str, Any], error: str
) -> None:
    client = Client(push)
    [reply] = client.post({**client.handshake(push.token(name)), **changes})
    assert reply["successful"] is False
    assert reply["error"].startswith(error)
    assert reply["advice"] == {"reconnect": "none"}  # else clients ask again, for ever


@pytest.mark.parametrize(("since", "instance"), [("?", None), (5, None), (None, "a b")])
def test_a_handshake_with_bad_extras(
    push: PushServer, name: str, since: Any, instance: Any
) -> None:
    client = Client(push)
    handshake = client.handshake(push.token(name), since=since, instance=instance)
    assert client.error(handshake).startswith("400:")


def test_a_full_server_says_when_to_come_again(
    push_server_factory: Callable[..., PushServer],
) -> None:
    push = push_server_factory(connections=1)
    Client(push, push.token("1"))
    client = Client(push)
    [reply] = client.post(client.handshake(push.token("2")))
    assert reply["error"].startswith("503:full:")
    assert reply["advice"]["reconnect"] == "handshake"
    assert reply["advice"]["interval"] >= 1000


# What is delivered.


def test_publish_and_receive(push: PushServer, name: str) -> None:
    client = Client(push, push.token(name, pub_ch=["chat:*"]))
    channel, ours = f"/chat/{name}", f"chat:{name}"
    subscribed, published = client.post(
        client.subscribe(channel), client.message(channel, data={"n": 1})
    )
    assert subscribed["successful"] and subscribed["subscription"] == channel
    assert published["successful"] and "data" not in published
    assert published["ext"]["push"]["offset"] == 1
    push.api("publish", channel=ours, data="from the CMS", id="x")
    one, two = client.fetch()
    assert one["data"] == {"n": 1}
    assert one["ext"]["push"]["user"] == name
    assert two == {
        "channel": channel,
        "id": "x",
        "data": "from the CMS",
        "ext": {"push": {"offset": 2, "id": "x", "cursor": two["ext"]["push"]["cursor"]}},
    }
    client.call(client.message("/meta/unsubscribe", subscription=channel))
    push.api("publish", channel=ours, data="unheard")
    push.api("publish", channel=f"user:{name}", data="personal")
    assert data(client.fetch()) == ["personal"]


def test_a_large_batch(push: PushServer, name: str) -> None:
    """CometD's `batch` sends as many messages at once as somebody puts into it."""
    client = Client(push, push.token(name, pub_ch=["batch:*"]))
    channel = f"/batch/{name}"
    client.post(client.subscribe(channel))
    replies = client.post(*(client.message(channel, data=number) for number in range(150)))
    assert all(reply["successful"] for reply in replies) and len(replies) == 150
    assert data(client.fetch()) == list(range(150))


def test_the_same_log_as_native_clients(push: PushServer, name: str) -> None:
    """One channel, one history, one cursor, one set of rights."""
    channel = f"same:{name}"
    token = push.token(name, sub_ch=["same:*"], pub_ch=["same:*"])
    client = Client(push, token)
    client.call(client.subscribe(f"/same/{name}"))
    with push.sse(token, channel) as native:
        client.call(client.message(f"/same/{name}", data=1))
        message = native.take(1)[0]
        assert message.value["data"] == 1
        [element] = client.fetch()
        assert set(element["ext"]["push"]["cursor"].split("~")) == set(message.cursor.split("~"))
    client.call(client.message(f"/same/{name}", data=2))
    with push.stream(token, channel, since=element["ext"]["push"]["cursor"]) as native:
        assert native.take(1)[0].value["data"] == 2


def test_the_first_connect_is_answered_at_once_and_the_next_is_held(
    push: PushServer, name: str
) -> None:
    client = Client(push, push.token(name))
    begun = time.monotonic()
    [reply] = client.post(client.connect())
    assert reply["successful"] and reply["advice"]["timeout"] == 25000
    assert time.monotonic() - begun < PROMPT
    with client.hold() as held:
        assert held.waits()
        push.api("publish", channel=f"user:{name}", data=1)
        element, reply = held.answer()
        assert element["data"] == 1
        assert reply["id"] == held.message["id"]
        # The connection goes on, as that of every client that polls.
        body = json.dumps([client.connect(advice={"timeout": 0})]).encode()
        held.wire.send(request_bytes("POST", "/bayeux", {**push.head(), **JSON}, body))
        assert len(held.answer()) == 1


def test_a_connect_with_company_is_answered_at_once(push: PushServer, name: str) -> None:
    client = Client(push, push.token(name))
    client.fetch()
    replies = client.post(client.connect(), client.subscribe(f"/x/{name}"))
    assert sorted(reply["channel"] for reply in replies) == ["/meta/connect", "/meta/subscribe"]


def test_the_first_connect_beside_the_first_messages(push: PushServer, name: str) -> None:
    """CometD sends both at once, on two connections; either may be served first."""
    client = Client(push, push.token(name, pub_ch=["both:*"]))
    batch = [client.subscribe(f"/both/{name}"), client.message(f"/both/{name}", data=1)]
    with Held(client, client.connect()) as first, Held(client, *batch) as second:
        assert [reply["successful"] for reply in second.answer()] == [True, True]
        *got, reply = first.answer()
        assert reply["successful"]
    assert data(got) + data(client.fetch()) == [1]


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("number", ["1a", 7, None])
def test_what_every_answer_has(push: PushServer, number: Any, many: bool) -> None:
    """One message or a list of them: a list of answers that name what they answer."""
    message = {"channel": "/meta/connect", "id": number, "clientId": "nobody"}
    if number is None:
        del message["id"]
    body = json.dumps([message] if many else message).encode()
    response = push.request("POST", "/bayeux/", body=body, headers={**JSON, "Origin": SITE})
    assert response.status == 200
    for header, value in (
        ("Content-Type", "application/json; charset=utf-8"),
        ("Cache-Control", "no-store, no-transform"),
        ("X-Content-Type-Options", "nosniff"),
        ("Access-Control-Allow-Origin", SITE),
        ("Access-Control-Allow-Credentials", "true"),
        ("Set-Cookie", None),
    ):
        assert response.header(header) == value
    [reply] = response.json()
    assert reply.pop("id", None) == number
    assert (reply["channel"], reply["successful"]) == ("/meta/connect", False)


def test_a_second_connect_completes_the_first(push: PushServer, name: str) -> None:
    client = Client(push, push.token(name))
    client.fetch()
    with client.hold() as first:
        assert first.waits(0.1)
        with client.hold() as second:
            [reply] = first.answer()
            assert reply["successful"]
            assert second.waits(0.1)
            push.api("publish", channel=f"user:{name}", data=1)
            assert second.answer()[0]["data"] == 1


def wait_until_noticed(push: PushServer, port: int) -> None:
    """Return when the server has closed its end of the connection from this port of ours."""
    ends = f":{push.port:04X}", f":{port:04X}"

    def is_open() -> bool:
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
        return any((local[-5:], remote[-5:]) == ends for _, local, remote, *_ in rows)

    wait_for(lambda: not is_open(), "the server has noticed")


def test_hanging_up_on_a_connect_loses_nothing(push: PushServer, name: str) -> None:
    client = Client(push, push.token(name))
    client.fetch()
    for _ in range(3):
        with client.hold() as held:
            port = held.wire.socket.getsockname()[1]
            assert held.waits(0.1)
        wait_until_noticed(push, port)
    push.api("publish", channel=f"user:{name}", data=1)
    assert data(client.fetch()) == [1]


def test_disconnect(push: PushServer, name: str) -> None:
    client = Client(push, push.token(name))
    client.fetch()
    with client.hold() as held:
        assert held.waits(0.1)
        client.call(client.message("/meta/disconnect"))
        [reply] = held.answer()
        assert reply["successful"]
    assert client.error(client.connect()).startswith("402::")
    assert push.api("channels", prefix=f"user:{name}")["channels"] == {}


def test_exclude(push: PushServer, name: str) -> None:
    token = push.token(name, pub_ch=["draw:*"])
    mine, other = Client(push, token, instance="me"), Client(push, token)
    for client in (mine, other):
        client.call(client.subscribe(f"/draw/{name}"))
    mine.call(mine.message(f"/draw/{name}", data=1, ext={"push": {"exclude": "me", "id": "one"}}))
    mine.call(mine.message(f"/draw/{name}", data=1, ext={"push": {"exclude": "me", "id": "one"}}))
    push.api("publish", channel=f"draw:{name}", data=2)
    assert data(mine.fetch()) == [2]
    assert data(other.fetch()) == [1, 2]


def test_a_slow_client_is_unknown_then(push_server_factory: Callable[..., PushServer]) -> None:
    push = push_server_factory(queue_bytes=50_000)
    client = Client(push, push.token("1"))
    for _ in range(8):
        push.api("publish", channel="user:1", data="x" * 10_000)
    assert client.error(client.connect()).startswith("402::")
    assert push.api("stats")["cuts.slow"] == 1


# Beyond the session.


def test_a_cursor_outlives_the_session(push: PushServer, name: str) -> None:
    channel, ours = f"/log/{name}", f"log:{name}"
    token = push.token(name)
    client = Client(push, token)
    client.call(client.subscribe(channel))
    push.api("publish", channel=ours, data=1)
    cursor = client.fetch()[-1]["ext"]["push"]["cursor"]
    client.call(client.message("/meta/disconnect"))
    for number in (2, 3):
        push.api("publish", channel=ours, data=number)
    again = Client(push, token, since=cursor)
    again.call(again.subscribe(channel, f"/new/{name}"))
    push.api("publish", channel=ours, data=4)
    got = again.fetch()
    assert data(got) == [2, 3, 4]
    said = {control["type"]: control for control in controls(got)}
    assert said["reset"]["channels"] == [f"new:{name}"]
    assert said["reset"]["reason"] == "unknown"
    # A client that was cut before it fetched any of this is told again.
    third = Client(push, token, since=again.reply["ext"]["push"]["cursor"])
    third.call(third.subscribe(channel))
    assert data(third.fetch()) == [2, 3, 4]
    # Once: who leaves a channel and comes back begins with its present.
    again.call(again.message("/meta/unsubscribe", subscription=channel))
    again.call(again.subscribe(channel))
    assert again.fetch() == []


def test_a_quiet_channel_is_recovered(push: PushServer, name: str) -> None:
    """The answer to a connect says where the client stands, when nothing is on its way."""
    client = Client(push, push.token(name))
    client.call(client.subscribe(f"/quiet/{name}"))
    [reply] = client.post(client.connect())
    again = Client(push, push.token(name), since=reply["ext"]["push"]["cursor"])
    again.call(again.subscribe(f"/quiet/{name}"))
    said = [(each["type"], each["channels"]) for each in controls(again.fetch())]
    assert said == [("recovered", [f"user:{name}"]), ("recovered", [f"quiet:{name}"])]


def test_after_a_restart_a_client_shakes_hands_again(
    push_server_factory: Callable[..., PushServer],
) -> None:
    push = push_server_factory(broker="sqlite")
    token = push.token("1")
    client = Client(push, token)
    client.call(client.subscribe("/log/1"))
    push.api("publish", channel="log:1", data=1)
    cursor = client.fetch()[-1]["ext"]["push"]["cursor"]
    push.api("publish", channel="log:1", data=2)
    push.kill()
    push.start()
    [reply] = client.post(client.connect())
    assert reply["error"] == "402::session_unknown"
    assert reply["advice"] == {"reconnect": "handshake", "interval": 0}
    again = Client(push, token, since=cursor)
    again.call(again.subscribe("/log/1"))
    assert data(again.fetch()) == [2]


def test_acknowledged_delivery(push: PushServer, name: str) -> None:
    client = Client(push, push.token(name), ack=True)
    assert client.reply["ext"]["ack"] is True

    def connect(confirms: int) -> tuple[list[Any], int]:
        *got, reply = client.post(client.connect(advice={"timeout": 0}, ext={"ack": confirms}))
        return data(got), reply["ext"]["ack"]

    assert connect(0) == ([], 1)
    push.api("publish", channel=f"user:{name}", data=1)
    assert connect(1) == ([1], 2)
    push.api("publish", channel=f"user:{name}", data=2)
    assert connect(1) == ([1, 2], 3)
    assert connect(3) == ([], 4)


# The end of rights.


def test_revoke(push: PushServer, name: str) -> None:
    token = push.token(name)
    client = Client(push, token)
    client.fetch()
    with client.hold() as held:
        assert held.waits(0.1)
        begun = time.monotonic()
        push.api("revoke", user=name)
        *said, reply = held.answer()
        assert time.monotonic() - begun < PROMPT
        assert reply["error"] == "403::revoked"
        assert reply["advice"] == {"reconnect": "none"}
        assert [each["data"]["type"] for each in said] == ["revoked"]
    assert client.error(client.handshake(token)).startswith("401:")


def test_a_session_ends_with_its_token_unless_renewed(push: PushServer, name: str) -> None:
    renewed = Client(push, push.token(name, ttl=3))
    token = push.token(name, sub_ch=["a"])
    renewed.post(renewed.connect(advice={"timeout": 0}, ext={"push": {"token": token}}))
    ending = Client(push, push.token(name, ttl=3))
    ending.fetch()
    other = push.token(f"other-{name}")
    message = renewed.connect(advice={"timeout": 0}, ext={"push": {"token": other}})
    assert renewed.error(message).startswith("403:other_session:")
    with ending.hold() as held:
        *said, reply = held.answer()
        if reply["successful"]:  # that was `expiring`
            assert [control["type"] for control in controls(said)] == ["expiring"]
            with ending.hold() as last:
                *said, reply = last.answer()
        assert reply["error"].startswith("402::")
        assert [(c["type"], c["reason"]) for c in controls(said)] == [("reconnect", "expired")]
    time.sleep(0.5)
    push.api("publish", channel=f"user:{name}", data=1)
    assert data(renewed.fetch()) == [1]


# Wildcards.


def test_wildcards(push: PushServer, name: str) -> None:
    """Live and without a cursor, where the grant holds the whole pattern."""
    client = Client(push, push.token(name, sub_ch=[f"{name}:*"], pub_ch=[f"{name}:*"]))
    client.call(client.subscribe(f"/{name}/*"))
    client.call(client.subscribe(f"/{name}/deep/**", f"/{name}/a"))
    client.call(client.message(f"/{name}/a", data="a"))  # subscribed itself, too: once
    push.api("publish", channel=f"{name}:b", data="b")
    push.api("publish", channel=f"{name}:deep/x/y", data="deep")
    push.api("publish", channel=f"{name}:other/x", data="not this")
    got = client.fetch()
    assert sorted(data(got)) == ["a", "b", "deep"]
    assert ["cursor" in each["ext"]["push"] for each in sorted(got, key=str)].count(True) == 1
    client.call(client.message("/meta/unsubscribe", subscription=f"/{name}/*"))
    push.api("publish", channel=f"{name}:b", data="c")
    assert client.fetch() == []
    # With a cursor from before nobody can tell what was missed.
    again = Client(push, push.token(name, sub_ch=[f"{name}:*"]), since="1")
    again.call(again.subscribe(f"/{name}/*"))
    assert [c["channels"] for c in controls(again.fetch()) if c["type"] == "reset"][-1] == [
        f"{name}:*"
    ]


def test_renewing_takes_wildcards_away(push: PushServer, name: str) -> None:
    client = Client(push, push.token(name, sub_ch=[f"{name}:*", f"{name}x:*"]))
    client.call(client.subscribe(f"/{name}/*", f"/{name}x/*"))
    token = push.token(name, sub_ch=[f"{name}:*"])
    client.post(client.connect(advice={"timeout": 0}, ext={"push": {"token": token}}))
    push.api("publish", channel=f"{name}x:1", data="no more")
    push.api("publish", channel=f"{name}:1", data="still")
    assert data(client.fetch()) == ["still"]


@pytest.mark.parametrize("wild", ["/*", "/**", "/user/*", "/user/**", "/other/*", "/node/7/*"])
def test_wildcards_beyond_the_grant(push: PushServer, name: str, wild: str) -> None:
    client = Client(push, push.token(name, sub_ch=["node:7", "node:7/x*", "mine:*"]))
    assert client.error(client.subscribe(wild)).startswith("403:channel_denied:")


def test_a_wildcard_over_everything_leaves_out_what_is_personal(
    push: PushServer, name: str
) -> None:
    client = Client(push, push.token(name, sub_ch=["*"]))
    client.call(client.subscribe("/**"))
    push.api("publish", channel=f"user:other-{name}", data="private")
    push.api("publish", channel=f"any:{name}", data="public")
    assert "private" not in data(client.fetch())
    assert client.error(client.subscribe("/user/*")).startswith("403:")
    for number in range(15):
        client.call(client.subscribe(f"/w{number}/*"))
    assert client.error(client.subscribe("/w15/*")).startswith("429:")


@pytest.mark.skipif(program() is None, reason="no Redis here (Debian package redis-tools)")
def test_wildcards_with_redis(push_server_factory: Callable[..., PushServer]) -> None:
    """What all servers publish, and a word of the gap when Redis was away."""
    got: list[dict[str, Any]] = []

    def resets() -> list[list[str]]:
        got.extend(client.fetch())
        return [each["channels"] for each in controls(got) if each["type"] == "reset"]

    with RedisServer() as redis:
        here, there = (push_server_factory(broker=redis.url) for _ in range(2))
        client = Client(here, here.token("1", sub_ch=["chat:*"], pub_ch=["chat:*"]))
        client.call(client.subscribe("/chat/*", "/chat/a"))
        client.call(client.message("/chat/b", data="b"))
        for name in ("chat:a", "chat:c", "chat:c/deeper", "other:d"):
            there.api("publish", channel=name, data=name)
        wait_for(lambda: resets() or len(data(got)) >= 3, lambda: got)
        assert sorted(data(got)) == ["b", "chat:a", "chat:c"]
        redis.kill()
        redis.start()
        wait_for(lambda: ["chat:*"] in resets(), lambda: got)
        there.api("publish", channel="chat:c", data="after")
        wait_for(lambda: resets() and "after" in data(got), lambda: got)
        assert data(got).count("after") == 1
        for server in (here, there):
            server.server_errors.clear()  # 503 while Redis was away


# Bad input.


@pytest.mark.parametrize(
    ("channel", "error"),
    [
        ("/meta/subscribe/x", "403:"),
        ("/meta/foo", "403:"),
        ("/meta/", "403:"),
        ("/service/push", "403:"),
        ("bad", "405:"),
        ("/a/*", "405:"),
        ("/a//b", "405:"),
        ("/a b", "405:"),
        ("/$x", "405:"),
        ("/no/rights", "403:channel_denied:"),
        ("/yes/mute", "400:fields:"),  # there is no data
        (None, "405:"),
        (7, "405:"),
        ("", "405:"),
    ],
)
def test_publishing_where_nobody_may(
    push: PushServer, name: str, channel: Any, error: str
) -> None:
    client = Client(push, push.token(name, pub_ch=["yes:*"]))
    said = {} if "fields" in error else {"data": 1}
    assert client.error(client.message(channel, **said)).startswith(error)


def test_where_the_namespace_forbids_it(push_server_factory: Callable[..., PushServer]) -> None:
    """The limits are those of native clients."""
    push = push_server_factory(namespace={"mute": {"client_publish": False}}, max_body=4096)
    client = Client(push, push.token("1", pub_ch=["mute:*", "chat:*"]))
    assert client.error(client.message("/mute/1", data=1)).startswith("403:channel_denied:")
    body = json.dumps([client.message("/chat/1", data="x" * 5000)]).encode()
    assert push.request("POST", "/bayeux", body=body, headers=JSON).status == 413


@pytest.mark.parametrize(
    ("subscription", "error"),
    [
        ("/meta/connect", "403:"),
        ("/$x/y", "405:"),
        ("x", "405:"),
        ("/a b", "405:"),
        (None, "405:"),
        ([], "405:"),
        ({}, "405:"),
        (["/ok/1", 5], "405:"),
        ("/denied/1", "403:channel_denied:"),
        (["/ok/1", "/denied/1"], "403:channel_denied:"),
        ("/user/other", "403:channel_denied:"),
        ([f"/ok/{n}" for n in range(65)], "429:too_many_channels:"),
    ],
)
def test_subscribing_where_nobody_may(
    push: PushServer, name: str, subscription: Any, error: str
) -> None:
    client = Client(push, push.token(name, sub_ch=["ok:*"]))
    message = client.message("/meta/subscribe", subscription=subscription)
    [reply] = client.post(message)
    assert reply["successful"] is False
    assert reply["error"].startswith(error)
    assert reply.get("subscription") == subscription
    assert push.api("channels", prefix="ok:")["channels"] == {}


@pytest.mark.parametrize("identity", ["nope", None, 5, "", ["x"], "../x"])
def test_an_unknown_client(push: PushServer, identity: Any) -> None:
    client = Client(push)
    for channel in ("/meta/connect", "/meta/subscribe", "/meta/disconnect", "/chat/a"):
        [reply] = client.post({**client.message(channel, data=1), "clientId": identity})
        assert reply["error"] == "402::session_unknown"
        assert ("advice" in reply) == (channel == "/meta/connect")


@pytest.mark.parametrize(
    "body",
    [b"", b"junk", b"[]", b"{}", b"[1]", b"5", b'[{"channel":"/a"},null]', b"message=junk",
     b"message=%FF", b"\xff", b"[" * 40 + b"]" * 40, b"[" + b"{}," * 1_000 + b"{}]",
     b'[{"channel":"/meta/handshake","id":1e999}]'],
)
def test_what_is_no_request(push: PushServer, body: bytes) -> None:
    for content_type in ("application/json", "text/plain;charset=UTF-8"):
        response = push.request(
            "POST", "/bayeux", body=body, headers={"Content-Type": content_type}
        )
        if body == b"{}":  # a message, if a poor one
            assert response.json()[0]["error"].startswith("405:")
        else:
            assert response.status == 400
            # Some clients (Faye in Node) take any JSON for an answer of Bayeux.
            assert re.fullmatch(rb"[a-z_]+: [^{]+", response.body)


def test_a_form_as_plain_text(push: PushServer, name: str) -> None:
    """Faye spells it so across origins. It opens nothing: what counts is the token in it."""
    client = Client(push)
    text = json.dumps([client.handshake(push.token(name))])
    for path in ("/bayeux", "/bayeux/", "/bayeux/handshake"):
        response = push.request(
            "POST", path, body=b"message=" + quote(text).encode(),
            headers={"Content-Type": "text/plain;charset=UTF-8", "Origin": SITE},
        )
        assert response.json()[0]["successful"] is True
        assert response.header("Access-Control-Allow-Origin") == SITE
        assert response.header("Access-Control-Allow-Credentials") == "true"


@pytest.mark.parametrize("form", [False, True])
def test_a_stranger_sends_little(push: PushServer, name: str, form: bool) -> None:
    client = Client(push, push.token(name, pub_ch=["chat:*"]))
    message = client.message(f"/chat/{name}", data="x" * 40_000)

    def post(sent: Any) -> Response:
        text = json.dumps([sent], separators=(",", ": "))
        body = b"message=" + quote(text).encode() if form else text.encode()
        return push.request("POST", "/bayeux", body=body, headers={"Content-Type": "text/plain"})

    assert post(message).json()[0]["successful"] is True
    assert post({**message, "clientId": "nobody"}).status == 413
    assert post(Client(push).handshake("x" * 40_000)).status == 413
    assert post({**message, "clientId": "nobody", "data": "x" * 30_000}).status == 200


def test_49_a_foreign_page(push: PushServer, name: str) -> None:
    body = json.dumps([Client(push).handshake(push.token(name))]).encode()
    for origin in ("https://evil.example", "null"):
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        response = push.request("POST", "/bayeux", body=body, headers=headers)
        assert response.status == 403
        assert response.header("Access-Control-Allow-Origin") is None
        assert response.header("Access-Control-Allow-Credentials") is None
        preflight = push.request("OPTIONS", "/bayeux", headers={"Origin": origin})
        assert preflight.status == 403
    ours = push.request("OPTIONS", "/bayeux/connect", headers={"Origin": SITE})
    assert ours.status == 204
    assert "Pragma" in (ours.header("Access-Control-Allow-Headers") or "")
    assert ours.header("Access-Control-Allow-Credentials") == "true"
    # A refusal, too: without it the page sees a broken network, and tries again.
    refused = push.request("POST", "/bayeux", body=b"?", headers={"Origin": SITE, **JSON})
    assert refused.status == 400
    assert refused.header("Access-Control-Allow-Credentials") == "true"


def test_an_answer_larger_than_the_kernel_takes(push: PushServer, name: str) -> None:
    """Its connection is kept nevertheless, for the next request."""
    client = Client(push, push.token(name, sub_ch=[f"{name}:a"]))
    client.fetch()
    client.call(client.subscribe(f"/{name}/a"))
    text = "x" * 250_000
    push.api("publish", channel=f"{name}:a", data=text)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", push.port))
        wire = Wire(sock)
        for waiting in ([text], []):
            body = json.dumps([client.connect(advice={"timeout": 0})]).encode()
            wire.send(request_bytes("POST", "/bayeux", {**push.head(), **JSON}, body))
            assert data(read_response(wire).json()[:-1]) == waiting


def test_a_chunked_request(push: PushServer, name: str) -> None:
    """As CometD's client for Node sends it."""
    body = json.dumps([Client(push).handshake(push.token(name))]).encode()
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = f"POST /bayeux/handshake HTTP/1.1\r\nHost: {push.host}\r\n".encode()
    with push.wire() as wire:
        wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)
        assert read_response(wire).json()[0]["successful"] is True


def test_an_upgrade_that_is_none_of_ours_is_passed_over(push: PushServer, name: str) -> None:
    """As clients of HTTP/2 offer it (RFC 7540, section 3.2); RFC 9110, section 7.8, lets us."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMA"}
    body = json.dumps([Client(push).handshake(push.token(name))]).encode()
    response = push.request("POST", "/bayeux", body=body, headers={**JSON, **offer})
    assert response.status == 200 and response.json()[0]["successful"]


def test_methods(push: PushServer) -> None:
    for method in ("PUT", "DELETE", "HEAD"):
        assert push.request(method, "/bayeux").status == 405


# Script elements.


def ask(push: PushServer, messages: Any, callback: str = "cb") -> Response:
    return push.get(f"/bayeux?message={quote(json.dumps(messages))}&jsonp={callback}")


def called(response: Response, callback: str = "cb") -> list[dict[str, Any]]:
    assert response.status == 200
    assert response.header("Content-Type") == "text/javascript; charset=utf-8"
    assert response.header("X-Content-Type-Options") == "nosniff"
    assert response.header("Content-Disposition") == "attachment; filename=f.txt"
    head = b"/**/" + callback.encode() + b"("
    assert response.body.startswith(head) and response.body.endswith(b");")
    return list(json.loads(response.body[len(head) : -2]))


def test_script_elements_are_switched(push_server_factory: Callable[..., PushServer]) -> None:
    push = push_server_factory(jsonp=False)
    client = Client(push, push.token())
    assert "callback-polling" not in client.reply["supportedConnectionTypes"]
    response = ask(push, [client.connect()])
    assert response.status == 403 and response.body.startswith(b"jsonp_off: ")


def test_script_elements(scripted: PushServer) -> None:
    push = scripted
    client = Client(push)
    handshake = client.handshake("")
    handshake["ext"] = {"push": {"ticket": push.ticket(push.token("1"))}}
    [reply] = called(ask(push, [handshake], "__jsonp1__"), "__jsonp1__")
    assert "callback-polling" in reply["supportedConnectionTypes"]
    client.identity = reply["clientId"]
    assert len(called(ask(push, client.connect()))) == 1
    with push.wire() as wire:
        target = f"/bayeux/connect?jsonp=cb&message={quote(json.dumps([client.connect()]))}"
        wire.send(request_bytes("GET", target, push.head()))
        with pytest.raises(TimeoutError):
            wire.fill(time.monotonic() + 0.3)
        push.api("publish", channel="user:1", data="</script>\u2028")
        response = read_response(wire)
        assert b"<" not in response.body
        assert data(called(response)[:-1]) == ["</script>\u2028"]


def test_a_token_does_not_travel_in_a_url(scripted: PushServer) -> None:
    """URLs are logged. A ticket is worth nothing by then."""
    client = Client(scripted)
    [reply] = called(ask(scripted, [client.handshake(scripted.token("1"))]))
    assert reply["error"].startswith("400:token_in_url:")


@pytest.mark.parametrize("callback", ["alert(1)", "a" * 65, "", "a;b", "%3Cscript%3E"])
def test_44_hostile_callbacks(scripted: PushServer, callback: str) -> None:
    response = ask(scripted, [{}], callback)
    assert response.status == 400 and response.body.startswith(b"callback_malformed: ")


# Streams.


def test_an_event_source(push: PushServer, name: str) -> None:
    client = Client(push, push.token(name))
    push.api("publish", channel=f"user:{name}", data=0)
    headers = {**push.head(), "Accept": "text/event-stream"}
    with push.wire() as wire:
        wire.send(request_bytes("GET", f"/bayeux/{client.identity}", headers))
        deadline = time.monotonic() + PATIENCE
        head = read_head(wire, deadline)
        assert head.header("Content-Type") == "text/event-stream; charset=utf-8"
        assert head.header("Date")
        assert [wire.line(deadline) for _ in range(2)] == [b"retry: 5000", b""]
        for number in (0, 1):
            if number:
                push.api("publish", channel=f"user:{name}", data=number)
            line = wire.line(deadline)
            assert data(json.loads(line.removeprefix(b"data: "))) == [number]
            assert wire.line(deadline) == b""
        [reply] = client.post(
            client.message("/meta/connect", connectionType="eventsource")
        )
        assert reply["advice"] == {"reconnect": "retry", "interval": 10000, "timeout": 0}
    wait_for(lambda: is_over(client), "it ends with its stream")
    assert push.get("/bayeux/nobody", headers={"Accept": "text/event-stream"}).status == 404


def is_over(client: Client) -> bool:
    """Whether the session of this client has ended."""
    return not client.post(client.connect())[0]["successful"]


def websocket(push: PushServer) -> Upgraded:
    offered = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    return Upgraded(push.address, "/bayeux", {**push.head(), "Origin": SITE, **offered})


def test_a_websocket(push: PushServer, name: str) -> None:
    channel = f"/ws/{name}"
    client = Client(push)
    with websocket(push) as ws:
        ws.send([client.handshake(push.token(name, pub_ch=["ws:*"]))])
        [reply] = ws.value()
        client.identity = reply["clientId"]
        connect = {"connectionType": "websocket"}
        ws.send([client.message("/meta/connect", **connect), client.subscribe(channel)])
        replies = ws.value()
        assert sorted(each["channel"] for each in replies) == ["/meta/connect", "/meta/subscribe"]
        ws.send([held := client.message("/meta/connect", **connect)])
        for number in range(3):
            ws.send([client.message(channel, data=number)])
            got = [*ws.value(), *ws.value()]
            assert [each["data"] for each in got if "data" in each] == [number]
            assert [each["successful"] for each in got if "successful" in each] == [True]
        for sign_of_life in (b" ", b"[]"):
            ws.wire.send(frame(TEXT, sign_of_life))
        ws.send([client.message("/meta/disconnect")])
        replies = [*ws.value(), *ws.value()]
        assert {reply["channel"] for reply in replies} == {"/meta/connect", "/meta/disconnect"}
        assert held["id"] in [reply["id"] for reply in replies]
        assert ws.closed().code == 1000


def test_a_session_goes_over_to_a_websocket(push: PushServer, name: str) -> None:
    """As Faye's and aiocometd do: the handshake over HTTP, everything else here."""
    with websocket(push) as ws:
        client = Client(push, push.token(name))
        push.api("publish", channel=f"user:{name}", data=1)
        ws.send([client.message("/meta/connect", connectionType="websocket")])
        element, reply = ws.value()
        assert (element["data"], reply["successful"]) == (1, True)
        push.api("publish", channel=f"user:{name}", data=2)
        assert data(ws.value()) == [2]
    wait_for(lambda: is_over(client), "it ends with its connection")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"junk"), 1007),
        (frame(TEXT, b"[1]"), 1007),
        (frame(2, b"[]"), 1003),
        (text_frame([{}] * 1_001), 1007),
        (frame(TEXT, b"x" * 40_000), 1009),
    ],
)
def test_what_is_no_message_on_a_websocket(push: PushServer, sent: bytes, code: int) -> None:
    with websocket(push) as ws:
        ws.wire.send(sent)
        assert ws.closed().code == code


@pytest.mark.skipif(program() is None, reason="no Redis here (Debian package redis-tools)")
def test_with_workers(redis: RedisServer) -> None:
    """One of them has the sessions; what comes to another for them is handed over, unread."""
    push = PushServer(broker=f"{redis.url}?prefix=bayeux-workers:", connections_per_user=40)
    push.options = ["--workers", "3"]
    with push, ExitStack() as stack:
        wait_for(lambda: push.log.count("setting=internal_listen") == 3)
        token = push.token("1", pub_ch=["chat:*"])
        clients = [Client(push, token) for _ in range(9)]
        for client in clients:
            client.call(client.subscribe("/chat/a"))
            client.fetch()
        held = [stack.enter_context(client.hold()) for client in clients]
        for number, client in enumerate(clients):
            client.call(client.message("/chat/a", data=number))
        for client, each in zip(clients, held, strict=True):
            got = data(each.answer()[:-1])
            while len(got) < 9:
                got += data(client.fetch())
            assert got == list(range(9))
        wire = stack.enter_context(push.wire())  # one that was with another worker before
        wire.send(request_bytes("GET", "/push.js", push.head()))
        assert read_response(wire).status == 200
        body = json.dumps([clients[0].message("/chat/a", data="x" * 200_000)]).encode()
        wire.send(request_bytes("POST", "/bayeux/", {**push.head(), **JSON}, body))
        assert read_response(wire).json()[0]["successful"]
        for client in clients[:6]:
            with websocket(push) as ws:
                ws.send([client.message("/meta/connect", connectionType="websocket")])
                assert "402" not in ws.value()[-1].get("error", "")
        # The end of that worker is the end of the sessions, and of nothing else.
        for worker in pids(push):
            os.kill(worker, signal.SIGKILL)
            fresh = retried(lambda: Client(push, token), OSError, Ended)
            retried(fresh.fetch, OSError, Ended)
        assert clients[8].error(clients[8].connect()) == "402::session_unknown"
        assert push.server_errors == []
