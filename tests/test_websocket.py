"""What a WebSocket can do beyond receiving: begin by a message, and send commands.

That it receives like every other transport is in `test_transports.py`; what it must withstand, in
`test_abuse_websocket.py`.
"""

import json
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from harness import SITE, PushServer
from redis_server import RedisServer, program
from waiting import wait_for
from wire import Ended, Refused
from wire_ws import CLOSE, TEXT, Upgraded, Ws, frame, handshake_headers

from push_server.doors.lobby import Lobby
from push_server.doors.request import Request
from push_server.doors.websocket import WebSocketDoor
from push_server.errors import NotServed

pytestmark = pytest.mark.usefixtures("unharmed")
_numbers = count()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"websocket{next(_numbers)}"


def stranger(push: PushServer) -> Upgraded:
    """A WebSocket without a token as yet."""
    return Upgraded(push.address, "/subscribe/ws", {**push.head(), "Origin": SITE})


def connect(push: PushServer, token: str | None, identity: Any = 1, **params: Any) -> Upgraded:
    """One that has sent `connect`."""
    upgraded = stranger(push)
    upgraded.send({"id": identity, "method": "connect", "params": {"token": token, **params}})
    return upgraded


def data(ws: Ws, number: int) -> list[Any]:
    return [message.value["data"] for message in ws.take(number)]


# The beginning.


def test_a_browser_begins_by_a_message(push: PushServer, name: str) -> None:
    channel = f"first:{name}"
    with connect(push, push.token(name), channels=[channel, "x:1"], instance="me") as ws:
        hello = ws.value()
        assert hello["type"] == "hello"
        assert hello["user"] == name
        assert hello["channels"] == [f"user:{name}", channel, "x:1"]
        cursor = hello["cursor"]
        push.api("publish", channel=channel, data=1, exclude="me")
        push.api("publish", channel=channel, data=2)
        got = ws.value()
        assert (got["channel"], got["data"]) == (channel, 2)
    with connect(push, push.token(name), channels=[channel], since=cursor) as ws:
        assert ws.value()["type"] == "hello"
        assert ws.value()["type"] == "recovered"
        assert [ws.value()["data"] for _ in range(2)] == [1, 2]


def test_a_ticket_in_the_handshake(push: PushServer, name: str) -> None:
    ticket = push.ticket(push.token(name))
    with push.ws(None, ticket=ticket, origin=SITE) as ws:
        assert ws.hello["user"] == name
    with pytest.raises(Refused) as refusal:
        push.ws(None, ticket=ticket, origin=SITE)
    assert refusal.value.response.status == 401


def test_what_the_handshake_refuses_is_an_ordinary_answer(push: PushServer, name: str) -> None:
    token = push.token(name, sub_ch=["a"])
    for shown, channels, since, status, code in (
        (token, ["a b"], None, 400, "channel_malformed"),
        (token, [], "nonsense", 400, "cursor_malformed"),
        (token, ["b"], None, 403, "channel_denied"),
        ("wrong", [], None, 401, "token_invalid"),
    ):
        with pytest.raises(Refused) as refusal:
            push.ws(shown, *channels, since=since)
        response = refusal.value.response
        assert (response.status, response.error) == (status, code)
        assert response.header("Content-Type") == "application/json"


def test_a_plain_request_is_told_to_upgrade(push: PushServer, name: str) -> None:
    for token in (None, push.token(name)):
        response = push.get("/subscribe/ws", token=token)
        assert (response.status, response.error) == (426, "upgrade_required")
        assert response.header("Upgrade") == "websocket"


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"token": "wrong"}, 401, "token_invalid"),
        ({"token": 5}, 400, "params"),
        ({"channels": ["a"]}, 401, "token_missing"),
        ({"channels": "a"}, 400, "params"),
        ({"channels": [7]}, 400, "channel_malformed"),
        ({"channels": ["b"]}, 403, "channel_denied"),
        ({"channels": ["a"] * 257}, 400, "too_many_channels"),
        ({"since": 5}, 400, "cursor_malformed"),
        ({"since": "2~"}, 400, "cursor_malformed"),
        ({"instance": "a b"}, 400, "instance_malformed"),
        ({"instance": ["a"]}, 400, "instance_malformed"),
        ({"user": "other"}, 400, "params"),
    ],
)
def test_a_connect_that_is_refused(
    push: PushServer, name: str, params: dict[str, Any], status: int, code: str
) -> None:
    given = {"token": push.token(name, sub_ch=["a"]), **params}
    if params == {"channels": ["a"]}:
        del given["token"]
    with stranger(push) as ws:
        ws.send({"id": "k", "method": "connect", "params": given})
        answer = ws.value()
        assert (answer["id"], answer["error"]["status"]) == ("k", status)
        assert answer["error"]["code"] == code
        assert ws.closed().code == 4000 + status


def test_connect_comes_first_and_once(push: PushServer, name: str) -> None:
    with stranger(push) as ws:
        ws.send({"id": 1, "method": "ping"})
        assert ws.value()["error"]["code"] == "command"
        assert ws.closed().code == 4400
    with push.ws(push.token(name)) as again:
        assert again.refused("connect", token=push.token(name)) == (400, "command")
        assert again.call("ping") == {}


def test_a_revoked_token_does_not_connect(push: PushServer, name: str) -> None:
    token = push.token(name)
    push.api("revoke", user=name)
    with connect(push, token) as ws:
        assert ws.value()["error"]["code"] == "token_invalid"
        assert ws.closed().code == 4401


def test_why_a_browser_fell_back_is_counted(push: PushServer, name: str) -> None:
    with connect(push, push.token(name), fallback="stalled") as ws:
        assert ws.value()["type"] == "hello"
        assert push.api("stats")["fallbacks.ws.stalled"] == 1


# Commands.


def test_subscribe_and_unsubscribe(push: PushServer, name: str) -> None:
    one, two = f"one:{name}", f"two:{name}"
    push.api("publish", channel=two, data="before")
    with push.ws(push.token(name, sub_ch=["one:*", "two:*"]), one) as ws:
        got = ws.call("subscribe", channels=[two, "three:1"])
        assert got == {"channels": [two], "denied": ["three:1"], "cursor": got["cursor"]}
        assert got["cursor"].count("~") == 3
        push.api("broadcast", channels=[one, two], data="both")
        assert data(ws, 2) == ["both", "both"]
        got = ws.call("unsubscribe", channels=[one, "never:1"])
        assert got["channels"] == [one]
        assert got["cursor"].count("~") == 2
        push.api("broadcast", channels=[one, two], data="one left")
        [message] = ws.take(1)
        assert message.value["channel"] == two
        push.api("publish", channel=f"user:{name}", data="end")
        assert data(ws, 1) == ["end"]
        cursor = ws.cursor
    with push.ws(push.token(name), two, since=cursor) as ws:
        assert sorted(ws.control("recovered")["channels"]) == [two, f"user:{name}"]


def test_subscribing_again_changes_nothing(push: PushServer, name: str) -> None:
    channel = f"again:{name}"
    with push.ws(push.token(name), channel) as ws:
        for _ in range(3):
            got = ws.call("subscribe", channels=[channel, f"user:{name}"])
            assert got["channels"] == [f"user:{name}", channel]
        push.api("publish", channel=channel, data=1)
        push.api("publish", channel=channel, data=2)
        assert data(ws, 2) == [1, 2]
        assert push.api("channels", prefix=channel)["channels"][channel]["subscribers"] == 1


def test_subscribing_from_a_cursor(push: PushServer, name: str) -> None:
    """The new channels are recovered or reset; what they missed comes in order."""
    known, unknown = f"known:{name}", f"unknown:{name}"
    token = push.token(name)
    with push.ws(token, known) as ws:
        since = ws.cursor
    push.api_batch(("publish", {"channel": known, "data": n}) for n in range(300))
    with push.ws(token) as ws:
        got = ws.call("subscribe", channels=[known, unknown], since=since)
        # A client that is cut off here comes back with this, and is told again.
        assert got["cursor"].count("~") == 2
        push.api("publish", channel=known, data=300)
        assert ws.control("recovered")["channels"] == [known]
        reset = ws.control("reset")
        assert (reset["channels"], reset["reason"]) == ([unknown], "unknown")
        assert data(ws, 301) == list(range(301))
        assert ws.cursor.count("~") == 3
        cursor = ws.cursor
    with push.ws(token, known, unknown, since=cursor) as ws:
        assert len(ws.control("recovered")["channels"]) == 3


def test_subscribing_while_everything_flows(push: PushServer, name: str) -> None:
    """Nothing is lost, doubled or out of order in the channels that were there before."""
    steady = f"steady:{name}"
    others = [f"other:{name}.{n}" for n in range(20)]
    with push.ws(push.token(name), steady) as ws:
        asked = []
        for turn, channel in enumerate(others):
            push.api_batch(("publish", {"channel": steady, "data": turn * 5 + n}) for n in range(5))
            asked.append(ws.ask("subscribe", channels=[channel]))
            push.api("publish", channel=channel, data="early or late")
        for identity in asked:
            assert "result" in ws.answer(identity)
        push.api("broadcast", channels=others, data="all")
        got = [message.value for message in ws.take(100 + 20)]
        while sum(value["data"] == "all" for value in got) < 20:
            got.append(ws.take(1)[0].value)
        assert [v["data"] for v in got if v["channel"] == steady] == list(range(100))
        for channel in others:
            offsets = [v["offset"] for v in got if v["channel"] == channel]
            assert offsets in ([1, 2], [2])


def test_what_subscribing_refuses(push: PushServer, name: str) -> None:
    with push.ws(push.token(name, sub_ch=["a", "b*"]), "a") as ws:
        for params, status, code in (
            ({}, 400, "params"),
            ({"channels": "a"}, 400, "params"),
            ({"channels": ["x y"]}, 400, "channel_malformed"),
            ({"channels": ["$x"]}, 400, "channel_malformed"),
            ({"channels": ["c"]}, 403, "channel_denied"),
            ({"channels": ["user:other"]}, 403, "channel_denied"),
            ({"channels": ["b"], "since": "?"}, 400, "cursor_malformed"),
            ({"channels": [f"b{n}" for n in range(64)]}, 429, "too_many_channels"),
        ):
            assert ws.refused("subscribe", **params) == (status, code)
        assert ws.refused("unsubscribe", channels=[f"user:{name}"]) == (400, "params")
        assert ws.refused("unsubscribe", channels=["x y"]) == (400, "channel_malformed")
        assert len(ws.call("subscribe", channels=[f"b{n}" for n in range(63)])["channels"]) == 63
        assert ws.refused("subscribe", channels=["b63"]) == (429, "too_many_channels")
        ws.call("unsubscribe", channels=["a"])
        assert ws.call("subscribe", channels=["b63"])["channels"] == ["b63"]


def test_publish(push: PushServer, name: str) -> None:
    channel = f"chat:{name}"
    token = push.token(name, sub_ch=["chat:*"], pub_ch=["chat:*"])
    with push.ws(token, channel, instance="me") as mine, push.sse(token, channel) as other:
        got = mine.call("publish", channel=channel, data={"n": 1}, id="one", exclude="me")
        assert got == {
            "channel": channel, "epoch": got["epoch"], "offset": 1, "id": "one", "duplicate": False,
        }
        assert mine.call("publish", channel=channel, data={"n": 1}, id="one")["duplicate"] is True
        assert mine.refused("publish", channel=channel, data=2, id="one") == (409, "id_conflict")
        assert mine.refused("publish", channel=channel) == (400, "fields")
        assert mine.refused("publish", channel="no:1", data=1) == (403, "channel_denied")
        assert mine.refused("publish", channel="$x", data=1) == (400, "channel_malformed")
        mine.call("publish", channel=channel, data="mine, too")
        assert [m.value["data"] for m in other.take(2)] == [{"n": 1}, "mine, too"]
        [message] = mine.take(1)
        assert (message.value["data"], message.value["user"]) == ("mine, too", name)


def test_commands_are_answered_in_order_whatever_comes_at_once(push: PushServer, name: str) -> None:
    channel = f"fast:{name}"
    with push.ws(push.token(name, pub_ch=["fast:*"]), channel) as ws:
        asked = [ws.ask("publish", channel=channel, data=n) for n in range(200)]
        offsets = [ws.answer(identity)["result"]["offset"] for identity in asked]
        assert offsets == list(range(1, 201))
        assert data(ws, 200) == list(range(200))


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "5",
        '{"id":1}',
        '{"id":1,"method":"nosuch"}',
        '{"id":1,"method":["ping"]}',
        '{"id":1,"method":"ping","params":[]}',
        '{"id":1,"method":"ping","params":{"x":1}}',
        '{"id":1,"method":"ping","more":1}',
        '{"method":"ping"}',
        '{"id":null,"method":"ping"}',
        '{"id":true,"method":"ping"}',
        '{"id":1.5,"method":"ping"}',
        '{"id":"","method":"ping"}',
        '{"id":9007199254740993,"method":"ping"}',
        '{"id":1,"id":2,"method":"ping"}',
        '{"id":1,"method":"ping","params":' + "[" * 40 + "]" * 40 + "}",
        '{"id":"\\ud800","method":"ping"}',
    ],
)
def test_what_is_no_command_is_refused_and_the_connection_lives(
    push: PushServer, name: str, text: str
) -> None:
    with push.ws(push.token(name)) as ws:
        ws.wire.send(frame(TEXT, text.encode()))
        answer = ws.upgraded.value()
        assert answer["error"]["status"] == 400
        assert answer["id"] in (None, 1)
        assert ws.call("ping") == {}


# Presence.


def test_presence(push_server_factory: Callable[..., PushServer]) -> None:
    push = push_server_factory(
        namespace={
            "room": {"presence": True, "join_leave": True},
            "count": {"presence": True},
        }
    )
    with push.ws(push.token("ann", name="Ann"), "room:1", "count:1") as ann:
        assert ann.call("presence", channel="room:1") == {
            "channel": "room:1",
            "count": 1,
            "anonymous": 0,
            "users": {"ann": {"connections": 1, "name": "Ann"}},
        }
        with push.ws(push.token("bob")) as bob:
            assert bob.refused("presence", channel="room:1") == (403, "channel_denied")
            bob.call("subscribe", channels=["room:1"])
            joined: list[str] = []  # ann herself, too, at once or before
            while "bob" not in joined:
                joined += [user["user"] for user in ann.control("join")["users"]]
            assert bob.call("presence", channel="room:1", limit=1)["count"] == 2
            bob.call("unsubscribe", channels=["room:1"])
            assert ann.control("leave")["users"] == [{"user": "bob"}]
            assert push.api("presence", channel="room:1")["count"] == 1
            assert bob.call("ping") == {}
        assert ann.refused("presence", channel="count:1") == (403, "presence_denied")
        assert ann.refused("presence", channel="room:1", limit=-1) == (400, "params")


# A newer token.


def test_renew_lets_it_live(push: PushServer, name: str) -> None:
    first = int(time.time()) + 3
    with push.ws(push.token(name, exp=first), "node:1") as ws:
        expires = first + 300
        token = push.token(name, exp=expires)
        got = ws.call("renew", token=token)
        assert got == {
            "expires": expires,
            "channels": [f"user:{name}", "node:1"],
            "denied": [],
            "cursor": got["cursor"],
        }
        time.sleep(max(0, first + 1 - time.time()))
        push.api("publish", channel="node:1", data=name)
        assert name in data(ws, 1)


def test_without_renewing_it_ends(push: PushServer, name: str) -> None:
    with push.ws(push.token(name, ttl=2)) as ws:
        *_, last = ws.until_end()
        assert (last.control, last.value["reason"]) == ("reconnect", "expired")
        assert ws.close_code == 4001


def test_renewing_takes_rights_away(push: PushServer, name: str) -> None:
    one, two = f"one:{name}", f"two:{name}"
    token = push.token(name, sub_ch=["one:*", "two:*"], pub_ch=["one:*"])
    with push.ws(token, one, two) as ws:
        got = ws.call("renew", token=push.token(name, sub_ch=["two:*"]))
        assert got["denied"] == [one]
        assert got["channels"] == [f"user:{name}", two]
        assert ws.refused("publish", channel=one, data=1) == (403, "channel_denied")
        push.api("broadcast", channels=[one, two], data="x")
        [message] = ws.take(1)
        assert message.value["channel"] == two
        assert ws.refused("subscribe", channels=[one]) == (403, "channel_denied")


def test_renewing_takes_a_token_of_the_same_session_only(push: PushServer, name: str) -> None:
    with push.ws(push.token(name, ttl=2)) as ws:
        other_user = push.token(f"other-{name}")
        other_session = push.token(name, sid="another")
        expired = push.token(name, ttl=-100)
        for token, refusal in (
            (other_user, (403, "other_session")),
            (other_session, (403, "other_session")),
            (expired, (401, "token_invalid")),
            ("x", (401, "token_invalid")),
            (7, (400, "params")),
        ):
            assert ws.refused("renew", token=token) == refusal
        *_, last = ws.until_end()
        assert last.value["reason"] == "expired"


def test_a_revocation_means_the_newest_token(push: PushServer, name: str) -> None:
    now = int(time.time())
    with push.ws(push.token(name, iat=now - 50)) as ws:
        ws.call("renew", token=push.token(name, iat=now + 10))
        push.api("revoke", user=name, before=now - 5)
        assert ws.call("ping") == {}
        assert ws.refused("renew", token=push.token(name, iat=now - 50)) == (401, "token_invalid")
        push.api("revoke", user=name, before=now + 20)
        *_, last = ws.until_end()
        assert last.control == "revoked"
        assert ws.close_code == 4100


# The end, and what it is called.


def test_the_client_closes(push: PushServer, name: str) -> None:
    channel = f"bye:{name}"
    for payload, code in ((b"", 1005), (b"\x03\xe8", 1000), (b"\x0f\xa1reload", 4001)):
        with push.ws(push.token(name), channel) as ws:
            ws.wire.send(frame(CLOSE, payload))
            assert ws.upgraded.closed(3).code == code
    wait_for(lambda: channel not in push.api("channels", prefix=channel)["channels"])


def test_close_codes(push_server_factory: Callable[..., PushServer]) -> None:
    push = push_server_factory(connections_per_user=1, connection_max_age=1.5, drain_spread=0)
    with push.ws(push.token("ann")) as first, push.ws(push.token("ann")) as second:
        *_, last = first.until_end()
        assert (last.value["reason"], first.close_code) == ("replaced", 4002)
        *_, last = second.until_end()
        assert (last.value["reason"], second.close_code) == ("age", 4000)
    with push.ws(push.token("bob")) as third, stranger(push) as waiting:
        push.signal(signal.SIGTERM)
        *_, last = third.until_end()
        assert (last.value["reason"], third.close_code) == ("drain", 1012)
        third.close()
        assert push.wait() == 0
        with pytest.raises(Ended):
            waiting.value()


@pytest.mark.skipif(program() is None, reason="no Redis here (Debian package redis-tools)")
def test_three_workers_and_a_redis(
    redis: RedisServer, push_server_factory: Callable[..., PushServer]
) -> None:
    """Each socket is in a process of its own; log, cursor and rights are one."""
    push = PushServer(broker=f"{redis.url}?prefix=websocket:", connections_per_user=100)
    push.options = ["--workers", "3"]
    with push, ExitStack() as stack:
        token = push.token(sub_ch=["room:*"], pub_ch=["room:*"])
        sockets: list[Ws] = [stack.enter_context(push.ws(token, "room:1")) for _ in range(12)]
        for number, ws in enumerate(sockets):
            assert ws.call("publish", channel="room:1", data=number)["offset"] == number + 1
        for ws in sockets:
            assert data(ws, 12) == list(range(12))
        since = sockets[0].cursor
        for ws in sockets:
            ws.call("subscribe", channels=["room:2"])
        push.api("broadcast", channels=["room:1", "room:2"], data="both")
        for ws in sockets:
            assert data(ws, 2) == ["both", "both"]
        with push.ws(token) as late:
            late.call("subscribe", channels=["room:1"], since=since)
            assert late.control("recovered")["channels"] == ["room:1"]
            assert data(late, 1) == ["both"]
        push.api("revoke", user="42")
        for ws in sockets:
            *_, last = ws.until_end()
            assert (last.control, ws.close_code) == ("revoked", 4100)


def test_other_servers_cannot_and_say_so(push: PushServer) -> None:
    """Under another WSGI server there is no socket to take; every other transport is there."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/subscribe/ws",
        "SERVER_PROTOCOL": "HTTP/1.1",
        **{f"HTTP_{k.upper().replace('-', '_')}": v for k, v in handshake_headers().items()},
    }
    with pytest.raises(NotServed) as refusal:
        WebSocketDoor(Lobby(None))(Request(environ), ())  # type: ignore[arg-type]
    assert refusal.value.status == 501
    assert json.loads(json.dumps(refusal.value.body()))["error"]["code"] == "no_websocket"
