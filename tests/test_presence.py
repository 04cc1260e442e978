"""Presence: users and not sockets, a grace for those who turn a page, on one node and on many."""

import asyncio
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from harness import ApiError, PushServer
from hypothesis import given
from hypothesis import strategies as st
from redis_server import RedisServer
from stage import FakeConnection, Stage
from test_brokers import in_loop
from test_redis import tick
from waiting import until, wait_for

from push_server.brokers import redis_roster
from push_server.brokers.redis import RedisBroker
from push_server.brokers.redis_connection import ResponseError
from push_server.brokers.redis_link import Call
from push_server.brokers.redis_roster import RedisRoster
from push_server.brokers.roster import Member, Roster
from push_server.channels import Namespace, Namespaces
from push_server.errors import Unavailable
from push_server.presence import NAMED_PER_TICK, Presence, Roll
from push_server.tokens import TokenKeys
from push_server.wheel import TICK

GRACE = 3.0
NAMESPACES = Namespaces(
    {
        "room": Namespace(presence=True, join_leave=True),
        "quiet": Namespace(presence=True),
    }
)


# The roll.


def test_the_roll_forgets_after_the_grace() -> None:
    roll: Roll[str] = Roll(GRACE)
    assert roll.enter("a")
    assert not roll.enter("a")
    roll.leave("a", 10)
    assert roll.tick(100) == []
    roll.leave("a", 100)
    assert roll.tick(102.9) == []
    assert list(roll) == ["a"] and roll["a"] == 0
    assert roll.tick(103) == ["a"]
    assert roll.tick(104) == [] and len(roll) == 0


def test_who_returns_within_the_grace_begins_a_new_one() -> None:
    roll: Roll[str] = Roll(GRACE)
    roll.enter("a")
    roll.enter("b")
    roll.leave("a", 0)
    roll.leave("b", 1)
    assert not roll.enter("a")
    roll.leave("a", 2)
    assert roll.tick(3) == []
    assert roll.tick(4) == ["b"]
    assert roll.tick(5) == ["a"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 4))))
def test_the_roll_against_a_model(steps: list[tuple[str, bool, int]]) -> None:
    roll: Roll[str] = Roll(GRACE)
    counts: dict[str, int] = {}
    left: dict[str, float] = {}
    now = 0.0
    for key, comes, seconds in steps:
        now += seconds
        gone = {name for name in counts if not counts[name] and left[name] + GRACE <= now}
        assert set(roll.tick(now)) == gone
        for name in gone:
            del counts[name]
        if comes:
            assert roll.enter(key) == (key not in counts)
            counts[key] = counts.get(key, 0) + 1
        elif counts.get(key):
            roll.leave(key, now)
            counts[key] -= 1
            left[key] = now
        assert {name: roll[name] for name in roll} == counts


# On the hub.


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(monkeypatch, NAMESPACES, max_connections=10_000, queue_bytes=10**9)
    roster = made.broker.roster
    presence = Presence(NAMESPACES, roster, made.hub.announce, GRACE)
    roster.changed = presence.changed
    made.hub.observers.append(presence)
    yield made
    made.close()


def told(connection: FakeConnection) -> list[tuple[str, list[str]]]:
    """Who came and went, as far as this stream was told."""
    return [
        (value["type"], [user["user"] for user in value["users"]])
        for value in connection.values
        if value.get("type") in ("join", "leave")
    ]


def who(stage: Stage, channel: str = "room:1") -> Mapping[str, Member]:
    return stage.run(stage.broker.roster.who(channel))


def test_a_user_with_many_tabs_comes_once_and_leaves_with_the_last(stage: Stage) -> None:
    watcher = stage.attach("watcher", "room:1")
    stage.pass_time(TICK)
    tabs = [stage.attach("alice", "room:1", name="Alice") for _ in range(3)]
    stage.pass_time(TICK)
    assert who(stage) == {"watcher": Member(1, ""), "alice": Member(3, "Alice")}
    tabs[0].close("gone")
    tabs[1].close("gone")
    stage.pass_time(10)
    assert who(stage)["alice"] == Member(1, "Alice")
    tabs[2].close("gone")
    stage.pass_time(GRACE - TICK)
    assert who(stage)["alice"] == Member(0, "Alice")
    assert told(watcher) == [("join", ["watcher"]), ("join", ["alice"])]
    stage.pass_time(2 * TICK)
    assert "alice" not in who(stage)
    assert told(watcher)[2:] == [("leave", ["alice"])]
    joins = [value for value in watcher.values if value.get("type") == "join"]
    assert joins[1]["channels"] == ["room:1"]
    assert joins[1]["users"] == [{"user": "alice", "name": "Alice"}]
    assert joins[1]["cursor"] == watcher.values[0]["cursor"]


def test_a_turned_page_is_no_news(stage: Stage) -> None:
    watcher = stage.attach("watcher", "room:1")
    stage.pass_time(TICK)
    for _ in range(5):
        page = stage.attach("alice", "room:1")
        stage.pass_time(5)
        page.close("gone")
        stage.pass_time(GRACE - 2 * TICK)
    assert told(watcher) == [("join", ["watcher"]), ("join", ["alice"])]


def test_only_namespaces_that_ask_for_it(stage: Stage) -> None:
    streams = [stage.attach(user, "quiet:1", "other:1", "$room") for user in ("alice", "bob")]
    stage.pass_time(10)
    assert [told(stream) for stream in streams] == [[], []]
    assert set(who(stage, "quiet:1")) == {"alice", "bob"}
    for channel in ("other:1", "user:alice", "$room"):
        assert who(stage, channel) == {}
    assert set(stage.broker.roster._present) == {"quiet:1"}


def test_nobody_is_present_in_the_channels_of_the_house() -> None:
    roster = Roster()
    everywhere = Namespaces({"*": Namespace(presence=True)})
    presence = Presence(everywhere, roster, lambda *_: None, GRACE)
    presence.enter("alice", "", ["$ready", "room:1"], 0)
    presence.leave("alice", ["$ready"], 1)
    assert set(roster._present) == {"room:1"}


def test_what_listens_inside_the_server_is_nobody() -> None:
    roster = Roster()
    everywhere = Namespaces({"*": Namespace(presence=True)})
    presence = Presence(everywhere, roster, lambda *_: None, GRACE)
    presence.enter("$stomp", "", ["room:1"], 0)
    assert not roster._present
    presence.leave("$stomp", ["room:1"], 1)


def test_anonymous_visitors_are_a_number(stage: Stage) -> None:
    watcher = stage.attach("watcher", "room:1")
    visitors = [stage.attach("0", "room:1", name="Mallory") for _ in range(3)]
    stage.pass_time(TICK)
    assert who(stage)["0"] == Member(3, "")
    for visitor in visitors:
        visitor.close("gone")
    stage.pass_time(10)
    assert told(watcher) == [("join", ["watcher"])]
    assert list(who(stage)) == ["watcher"]


def test_nothing_of_it_is_history(stage: Stage) -> None:
    watcher = stage.attach("watcher", "room:1")
    stage.publish("room:1", b"1")
    stage.attach("alice", "room:1")
    stage.pass_time(TICK)
    stage.publish("room:1", b"2")
    assert watcher.data == [1, 2]
    history = stage.run(stage.broker.history("room:1", 0, 10))
    assert [publication.position.offset for publication in history.publications] == [1, 2]
    back = stage.attach("carol", "room:1", since=watcher.values[0]["cursor"])
    assert back.data == [1, 2]
    assert told(back) == []


def test_a_waiting_poll_is_answered(stage: Stage) -> None:
    start = stage.attach("bob", "room:1").values[0]["cursor"]
    stage.pass_time(TICK)
    poll = stage.attach("bob", "room:1", transport="poll", since=start)
    assert poll.writes == []
    stage.attach("alice", "room:1")
    stage.pass_time(TICK)
    answer = json.loads(poll.body)
    assert answer["cursor"] == start
    assert [message["type"] for message in answer["control"]] == ["hello", "recovered", "join"]
    assert answer["control"][2] == {
        "type": "join",
        "channels": ["room:1"],
        "users": [{"user": "alice"}],
    }


def test_sse_has_it_as_a_control_event(stage: Stage) -> None:
    watcher = stage.attach("watcher", "room:1", transport="sse")
    stage.pass_time(TICK)
    event = watcher.body.split(b"\n\n")[-2]
    assert event.startswith(b'event: control\ndata: {"type":"join","channels":["room:1"],')
    assert b"\nid: 1~" in event


def test_who_is_still_being_told_its_history_is_not_told_more(stage: Stage) -> None:
    start = stage.attach("watcher", "room:1").values[0]["cursor"]
    stage.publish("room:1", b"1")
    slow = FakeConnection(stage.hub)
    slow.blocked = True
    stage.attach("slow", "room:1", connection=slow, since=start)
    stage.attach("alice", "room:1")
    stage.pass_time(TICK)
    slow.unblock()
    assert told(slow) == []
    assert slow.data == [1]


def test_a_crowd_is_told_bit_by_bit(stage: Stage) -> None:
    watcher = stage.attach("watcher", "room:1")
    crowd = [stage.attach(f"u{number}", "room:1") for number in range(3 * NAMED_PER_TICK)]
    before = len(watcher.writes)
    stage.pass_time(TICK)
    assert len(watcher.writes) == before + 1
    stage.pass_time(10 * TICK)
    lists = [users for _, users in told(watcher)]
    assert all(len(users) <= NAMED_PER_TICK for users in lists)
    expected = ["watcher", *(f"u{number}" for number in range(3 * NAMED_PER_TICK))]
    assert list(itertools.chain(*lists)) == expected
    for connection in crowd:
        connection.close("gone")
    stage.pass_time(GRACE + 10 * TICK)
    left = [user for kind, users in told(watcher) if kind == "leave" for user in users]
    assert sorted(left) == sorted(expected[1:])


def test_who_left_and_came_back_before_it_was_told_has_not_left() -> None:
    said: list[Mapping[str, Any]] = []
    presence = Presence(NAMESPACES, Roster(), lambda _, message: said.append(message), GRACE)
    for kinds in (["leave", "join"], ["join", "leave"], ["join", "leave", "join"], ["join"] * 2):
        said.clear()
        for kind in kinds:
            presence.changed(kind, "room:1", "alice", "")
        presence.tick(0)
        expected = [] if len(kinds) == 2 and kinds[0] != kinds[1] else [kinds[-1]]
        assert [message["type"] for message in said] == expected


def test_a_connection_that_fails_does_not_keep_others_from_hearing(stage: Stage) -> None:
    streams = [stage.attach(f"w{number}", "room:1") for number in range(3)]
    stage.pass_time(TICK)
    streams[1].breaks = True
    stage.attach("alice", "room:1")
    stage.pass_time(TICK)
    assert streams[1].closed() == "failed"
    assert told(streams[0])[-1] == told(streams[2])[-1] == ("join", ["alice"])


def test_whoever_is_sent_to_another_server_has_not_left(stage: Stage) -> None:
    stage.attach("alice", "room:1")
    stage.hub.drain(0)
    stage.pass_time(60)
    assert who(stage) == {"alice": Member(1, "")}


# From outside.


@pytest.fixture(scope="module")
def limited() -> Iterator[PushServer]:
    secret = "whsec_" + "QUJD" * 11
    with PushServer(
        namespace={"room": {"presence": True, "join_leave": True}, "quiet": {"presence": True}},
        presence_grace=0.3,
    ) as push:
        push.settings["api_keys"]["room"] = {"secret": secret, "channels": ["room:*"]}
        push.restart()
        yield push


def ask(push: PushServer, token: str, **params: object) -> tuple[int, object]:
    """What `POST /presence` says: the users there, or why not."""
    answer = push.request(
        "POST",
        "/presence",
        token=token,
        headers={"Content-Type": "application/json"},
        body=json.dumps(params).encode(),
    )
    said = answer.json()
    return answer.status, said.get("error", {}).get("code") or said["users"]


def test_asked_on_the_side_of_a_stream(limited: PushServer) -> None:
    """Without a WebSocket: as much as a subscriber may know, and to nobody else."""
    push = limited
    ann, stranger = push.token("42", name="Ann"), push.token("8", sub_ch=["other:*"])
    with push.stream(ann, "room:side"):
        there = {"42": {"connections": 1, "name": "Ann"}}
        assert ask(push, ann, channel="room:side") == (200, there)
        assert ask(push, ann, channel="room:side", limit=0) == (200, {})
        assert ask(push, stranger, channel="room:side") == (403, "channel_denied")
        assert ask(push, ann, channel="quiet:1") == (403, "presence_denied")
        assert ask(push, ann, channel="room:side", limit=-1) == (400, "params")
        assert ask(push, ann, channel="room:side", since=1) == (400, "params")
        assert ask(push, ann) == (400, "params")
        assert ask(push, "nonsense", channel="room:side") == (401, "token_invalid")


def test_names_that_nothing_else_can_encode_are_repaired() -> None:
    keys = TokenKeys(["k" * 24])
    claims = {"v": 1, "sub": "42", "iat": 1000, "exp": 2000}
    for given_name, name in (
        ("Bö\ud800", "Bö?"),
        ("x" * 200, "x" * 128),
        ("", ""),
        (5, ""),
        (None, ""),
        (["Ann"], ""),
    ):
        assert keys.verify(keys.issue({**claims, "name": given_name}), 1000).name == name
    assert keys.verify(keys.issue(claims), 1000).name == ""


def test_the_command(limited: PushServer) -> None:
    push = limited
    empty = {"channel": "room:c", "count": 0, "anonymous": 0, "users": {}}
    assert push.api("presence", channel="room:c") == empty
    tokens = [push.token("42", name="Ann"), push.token("42"), push.token("7", name=5)]
    tokens += [push.token("0"), push.token("0")]
    streams = [push.stream(token, "room:c", "quiet:c") for token in tokens]
    try:
        for channel in ("room:c", "quiet:c"):
            assert push.api("presence", channel=channel) == {
                "channel": channel,
                "count": 2,
                "anonymous": 2,
                "users": {"42": {"connections": 2, "name": "Ann"}, "7": {"connections": 1}},
            }
        some = push.api("presence", channel="room:c", limit=1)
        assert (some["count"], list(some["users"])) == (2, ["42"])
        assert push.api("presence", channel="room:c", limit=0)["users"] == {}
    finally:
        for stream in streams:
            stream.close()
    wait_for(lambda: push.api("presence", channel="room:c") == empty)


BAD_PARAMS: list[tuple[dict[str, Any], str]] = [
    ({}, "params"),
    ({"channel": "other:1"}, "presence_off"),
    ({"channel": "user:42"}, "presence_off"),
    ({"channel": "room:1", "extra": 1}, "params"),
    ({"channel": "room:1", "limit": -1}, "params"),
    ({"channel": "room:1", "limit": 10_001}, "params"),
    ({"channel": "room:1", "limit": True}, "params"),
    ({"channel": "room:1", "limit": "1"}, "params"),
    ({"channel": "$ready"}, "channel_malformed"),
    ({"channel": ["room:1"]}, "channel_malformed"),
]


@pytest.mark.parametrize(("params", "code"), BAD_PARAMS)
def test_bad_parameters(limited: PushServer, params: dict[str, Any], code: str) -> None:
    with pytest.raises(ApiError) as refused:
        limited.api("presence", **params)
    assert refused.value.response.status == 400
    assert refused.value.response.error == code


def test_a_key_limited_to_channels(limited: PushServer) -> None:
    push = limited
    push.remember(secret := push.settings["api_keys"]["room"]["secret"])

    def ask(channel: str) -> Any:
        body = json.dumps({"method": "presence", "params": {"channel": channel}}).encode()
        return push.api_raw(body, push.signed_headers(body, secret=secret))

    assert ask("room:1").status == 200
    assert ask("quiet:1").status == 403
    assert ask("quiet:1").error == "channel_denied"


# On many nodes.


class Node:
    """A broker with a presence, and what its subscribers would be told."""

    def __init__(self, url: str, grace: float = 0.2) -> None:
        self.said: list[tuple[str, str]] = []
        self.gone: list[str] = []
        self.ahead = 0.0
        """Seconds by which its clock is ahead of ours."""
        self.broker = RedisBroker(url, NAMESPACES, lambda *_: None, lambda _: None)
        self.roster = self.broker.roster
        self.presence = Presence(NAMESPACES, self.roster, self._announce, grace)
        self.roster.changed = self.presence.changed
        self.roster.gone = self.gone.append
        self.task: asyncio.Task[None] | None = None

    def _announce(self, channel: str, message: Mapping[str, Any]) -> None:
        self.said += [(message["type"], user["user"]) for user in message["users"]]

    async def start(self) -> None:
        await self.broker.start()
        self.broker.join("room:1")
        await self.broker.read({"room:1": None})
        self.task = asyncio.create_task(self._turn())

    async def _turn(self) -> None:
        while True:
            self.presence.tick(self._now())
            await asyncio.sleep(0.02)

    def _now(self) -> float:
        return time.monotonic() + self.ahead

    def enter(self, user: str, name: str = "", channel: str = "room:1") -> None:
        self.presence.enter(user, name, [channel], self._now())

    def leave(self, user: str) -> None:
        self.presence.leave(user, ["room:1"], self._now())

    async def who(self) -> Mapping[str, Member]:
        return await self.roster.who("room:1")

    async def die(self) -> None:
        """End as a killed process does: nothing is taken back."""
        assert self.task is not None
        self.task.cancel()
        await self.broker.close()


@asynccontextmanager
async def nodes(server: RedisServer, count: int, **options: float) -> AsyncIterator[list[Node]]:
    url = f"{server.url}?prefix=presence-{time.monotonic_ns()}:"
    made = [Node(url, **options) for _ in range(count)]
    try:
        for node in made:
            await node.start()
        yield made
    finally:
        for node in made:
            await node.die()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    tick(monkeypatch, 0.05)
    monkeypatch.setattr(redis_roster, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(redis_roster, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(redis_roster, "CALM_SECONDS", 2.0)


@in_loop
async def test_one_user_on_two_nodes_is_one(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        one.enter("42", "Ann")
        await until(lambda: two.said == one.said == [("join", "42")])
        two.enter("42", "Ann")
        two.enter("42", "Ann")
        two.enter("7", "two\nlines of Bö")
        two.enter("0")
        await until(lambda: two.said[1:] == one.said[1:] == [("join", "7")])
        expected = {
            "42": Member(3, "Ann"),
            "7": Member(1, "two\nlines of Bö"),
            "0": Member(1, ""),
        }
        for node in (one, two):
            assert await node.who() == expected
        one.leave("42")
        await asyncio.sleep(0.4)
        assert one.said[2:] == []
        two.leave("42")
        two.leave("42")
        await until(lambda: two.said[2:] == one.said[2:] == [("leave", "42")])
        assert set(await one.who()) == {"7", "0"}


@in_loop
async def test_nobody_is_told_who_did_not_ask(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        heard: list[str] = []
        two.broker.join("quiet:1")
        await two.broker.read({"quiet:1": None})
        two.roster.changed = lambda kind, channel, user, name: heard.append(channel)
        one.enter("42", channel="quiet:1")
        one.enter("42", channel="room:1")
        await until(lambda: heard)
        assert heard == ["room:1"]
        assert await two.roster.who("quiet:1") == {"42": Member(1, "")}


@in_loop
async def test_to_another_node_within_the_grace(redis: RedisServer) -> None:
    grace = 60.0
    async with nodes(redis, 2, grace=grace) as pair:
        pair[0].enter("42")
        await until(lambda: pair[1].said)
        for step in range(6):
            here, there = pair[step % 2], pair[1 - step % 2]
            here.leave("42")
            await asyncio.sleep(0.05)
            there.enter("42")
        left = pair[1]
        left.ahead = grace + 1
        await until(lambda: ("room:1", "42") not in left.presence._roll)
        left.enter("7")
        await until(lambda: len(pair[0].said) > 1 and len(pair[1].said) > 1)
        assert pair[0].said == pair[1].said == [("join", "42"), ("join", "7")]


@pytest.mark.usefixtures("hasty")
@in_loop
async def test_a_dead_node_is_taken_out(redis: RedisServer) -> None:
    async with nodes(redis, 3) as (one, two, dead):
        one.enter("both")
        for user in ("both", *(f"u{number}" for number in range(500))):
            dead.enter(user)
        await until(lambda: len(one.said) == 501)
        before = time.monotonic()
        await dead.die()
        # What somebody has tampered with is no hindrance.
        prefix, killed = one.broker.address.prefix, dead.roster.node
        redis.cli("HDEL", f"{prefix}p:room:1", f"u0 {killed}")
        redis.cli("ZADD", f"{prefix}n:{killed}", 0, "nonsense")
        await asyncio.sleep(0.3)
        assert len(await one.who()) == 500
        await until(lambda: len(one.said) == len(two.said) == 1000)
        assert time.monotonic() - before > 1, "its lease was not over yet"
        assert set(await two.who()) == {"both"}
        assert ("leave", "both") not in one.said
        assert one.gone + two.gone == [dead.roster.node]
        keys = redis.cli("KEYS", one.broker.address.prefix + "[np]:*")
        assert len(keys) == 2, "what was left behind is gone"


@pytest.mark.usefixtures("hasty")
@in_loop
async def test_a_node_that_was_only_asleep_comes_back(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, sleeper):
        sleeper.enter("42")
        await until(lambda: one.said == [("join", "42")])
        # It does nothing for longer than its lease.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sleeper.roster, "renew", lambda: asyncio.sleep(0))
            await until(lambda: one.said[1:] == [("leave", "42")])
            await until(lambda: one.gone == [sleeper.roster.node])
        await until(lambda: one.said[2:] == [("join", "42")])
        assert await one.who() == {"42": Member(1, "")}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["renews", "tells"])
@in_loop
async def test_a_node_comes_back_while_it_is_taken_out(redis: RedisServer, how: str) -> None:
    async with nodes(redis, 2) as (one, sleeper):
        users = {f"u{number}": Member(1, "") for number in range(5)}
        for user in users:
            sleeper.enter(user)
        await until(lambda: len(one.said) == 5)
        one.roster._calm_at = math.inf  # the sweeping is done by hand
        roster = one.roster
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sleeper.roster, "renew", lambda: asyncio.sleep(0))
            await sleeper.roster.link.one(("PING",))  # the last renewal is through
            redis.cli("ZADD", roster._nodes, 1, sleeper.roster.node)  # as if it slept for long
            await until(lambda: _same(one.who(), {}))
            keys = (roster._has + sleeper.roster.node, roster._nodes)
            args = (sleeper.roster.node, repr(time.time()), 2, roster._who, roster._bus_prefix)
            assert await roster.link.one(Call(redis_roster.ABSENT, keys, args)) == 0
            if how == "tells":
                sleeper.enter("new")
                users["new"] = Member(1, "")
                await until(lambda: _same(one.who(), users))
        await until(lambda: _same(one.who(), users))
        assert await roster.link.one(Call(redis_roster.ABSENT, keys, args)) == -1


@pytest.mark.usefixtures("hasty")
@in_loop
async def test_a_redis_that_forgets_or_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer() as own:
        async with nodes(own, 2) as (one, two):
            one.enter("42", "Ann")
            two.enter("7")
            two.enter("stays")
            await until(lambda: len(one.said) == len(two.said) == 3)
            own.cli("FLUSHALL")
            stays = {"stays": Member(1, "")}
            both = {"42": Member(1, "Ann"), "7": Member(1, ""), **stays}
            await until(lambda: _same(one.who(), both))
            # For longer than a lease; meanwhile somebody comes and somebody goes.
            with pytest.MonkeyPatch.context() as patch:
                # One of them is slow to come back: it is given the time.
                patch.setattr(two.roster, "renew", lambda: asyncio.sleep(0))
                own.freeze()
                one.enter("new")
                two.leave("7")
                await asyncio.sleep(2.5)
                one.said.clear()
                generation = one.roster._generation
                own.thaw()
                await until(lambda: one.roster._generation != generation)
                await asyncio.sleep(0.3)
            both = {"42": Member(1, "Ann"), "new": Member(1, ""), **stays}
            await until(lambda: _same(one.who(), both))
            await until(lambda: ("join", "new") in two.said and ("leave", "7") in one.said)
            assert ("leave", "stays") not in one.said
            assert one.gone == two.gone == []


async def _same(found: Any, expected: Any) -> bool:
    try:
        return bool(await found == expected)
    except Exception:  # noqa: BLE001  # Redis may still be away
        return False


class BrokenLink:
    """Answers nothing, or an error, until it is repaired."""

    up = True
    generation = 1
    failing: Any = Unavailable("broker_unavailable", "A fault of the test.")

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    async def ask(self, *commands: Any) -> list[Any]:
        if isinstance(self.failing, Unavailable):
            raise self.failing
        if self.failing is not None:
            return [self.failing] * len(commands)
        calls = [command for command in commands if isinstance(command, Call)]
        self.told += [(str(call.args[0]), str(call.args[2])) for call in calls]
        return [0] * len(calls) or [[], 0]


@pytest.mark.parametrize("failing", [BrokenLink.failing, ResponseError("OOM")])
@in_loop
async def test_what_could_not_be_told_is_told_later(failing: Exception) -> None:
    roster = RedisRoster(
        "p:", "b:", time.time, announced=lambda _: True, dropped=lambda *_: None
    )
    roster.link = link = BrokenLink()  # type: ignore[assignment]
    link.failing = failing
    roster.present("room:1", "42", Member(1, "Ann"))
    roster.present("room:1", "7", Member(1, ""))
    await asyncio.sleep(0.01)
    roster.present("room:1", "7", None)
    await asyncio.sleep(0.01)
    assert link.told == []
    link.failing = None
    await roster.renew()
    await until(lambda: sorted(link.told) == [("42", "1 Ann"), ("7", "")])
    await roster.close()


GARBAGE = [
    b"! ",
    b"! join",
    b"! join 42",
    b"! dance 42 Ann",
    b"! join 4\xff2 Ann",
    b"! join a\nb c",
]


@in_loop
async def test_foreign_entries_are_dropped(redis: RedisServer) -> None:
    async with nodes(redis, 1) as (node,):
        prefix = node.broker.address.prefix
        node.enter("42")
        await until(lambda: node.said == [("join", "42")])
        for message in GARBAGE:
            redis.cli("PUBLISH", f"{prefix}0/c:room:1", message)
        redis.cli("PUBLISH", f"{prefix}0/c:room:1", b"! join 43 ")
        await until(lambda: node.said == [("join", "42"), ("join", "43")])
        assert node.broker.counts["dropped.bus"] == len(GARBAGE)
        here = node.roster.node
        for field, value in (
            (f"44 {here}", "x"),
            (f"45 {here}", "-1 Ann"),
            (f"46 {here}", "9" * 30),
            (f" {here}", "1 Ann"),
            ("47 unknown", "1 Ann"),
            ("48", "1 Ann"),
        ):
            redis.cli("HSET", f"{prefix}p:room:1", field, value)
        assert await node.who() == {"42": Member(1, "")}
        assert node.broker.counts["dropped.roster"] == 4
