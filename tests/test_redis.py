"""What only makes sense with Redis: several nodes on one log, and everything that can befall it.

Two brokers in one process stand for two nodes. Each test takes a prefix of its own on the shared
Redis, or a Redis of its own if it harms it.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis_server import RedisServer, program
from test_brokers import ask, head_of, in_loop, offsets, publish, published, resume
from waiting import until, wait_for

from push_server.brokers import redis_connection, redis_rooms, redis_roster, redis_upkeep
from push_server.brokers.redis import RedisBroker
from push_server.brokers.redis_connection import Ear
from push_server.channels import Namespace, Namespaces
from push_server.errors import BadInput, PushError, StorageFull, Unavailable
from push_server.history import EPOCH, FUTURE, TAG, TRIMMED
from push_server.positions import Position, tag_of
from push_server.publications import Publication, PublishRequest, dump_json
from push_server.revocations import Revocation

pytestmark = pytest.mark.skipif(program() is None, reason="no Redis on this machine")


class Node:
    """A broker, and the hub it believes to have."""

    def __init__(self, url: str, keep: dict[str, Namespace] | None = None) -> None:
        self.delivered: list[Publication] = []
        self.restarts: list[tuple[str, str, Position]] = []
        self.revoked: list[Revocation] = []
        self.degraded: list[bool] = []
        self.broker = RedisBroker(
            url, Namespaces(keep or {}), self._deliver, self.revoked.append
        )
        self.broker.restarted = lambda *what: self.restarts.append(what)
        self.broker.degraded = self.degraded.append

    def _deliver(self, channel: str, publications: Sequence[Publication]) -> None:
        assert all(publication.channel == channel for publication in publications)
        self.delivered.extend(publications)

    async def subscribe(self, *channels: str) -> None:
        """What the hub does for the first subscriber."""
        for channel in channels:
            self.broker.join(channel)
        await self.broker.read(dict.fromkeys(channels))

    def offsets(self, channel: str = "a") -> list[int]:
        return [item.position.offset for item in self.delivered if item.channel == channel]

    def ids(self, channel: str = "a") -> list[str]:
        return [item.id for item in self.delivered if item.channel == channel]


@asynccontextmanager
async def nodes(
    server: RedisServer, count_: int = 1, prefix: str = "", /, **keep: Namespace
) -> AsyncIterator[list[Node]]:
    """Nodes on one log, subscribed to channel a."""
    prefix = prefix or f"t-{secrets.token_hex(6)}:"
    made = [Node(f"{server.url}?prefix={prefix}", keep) for _ in range(count_)]
    started: list[Node] = []
    try:
        for node in made:
            await node.broker.start()
            started.append(node)
            await node.subscribe("a")
        yield made
    finally:
        for node in started:
            await node.broker.close()


@pytest.fixture
def own() -> Iterator[RedisServer]:
    """A Redis that keeps nothing, to be harmed."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def always() -> Iterator[RedisServer]:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture
def everysec() -> Iterator[RedisServer]:
    with RedisServer(appendonly="yes", appendfsync="everysec") as server:
        yield server


def tick(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have brokers look after everything that often, and take no bus for deaf that is only slow."""
    monkeypatch.setattr(redis_upkeep, "TICK", seconds)
    monkeypatch.setattr(redis_upkeep, "DEAF_TICKS", 1_000)


async def publish_when_back(broker: RedisBroker, channel: str, number: int) -> int:
    """The offset, once Redis answers again; what a CMS does that has a spool."""
    return published(await publish_request_when_back(broker, ask(channel, number))).offset


async def publish_request_when_back(broker: RedisBroker, request: PublishRequest) -> Any:
    async def answer() -> Any:
        (answer,) = await broker.publish([request])
        return None if isinstance(answer, Unavailable) else answer

    return await until(answer)


# Several nodes.


@in_loop
async def test_what_one_node_publishes_all_deliver(redis: RedisServer) -> None:
    async with nodes(redis, 3) as (one, two, three):
        for number in range(1, 31):
            assert await publish([one, two, three][number % 3].broker, "a", number) == [number]
        wanted = list(range(1, 31))
        await until(lambda: one.offsets() == two.offsets() == three.offsets() == wanted)
        jsons = [[item.json for item in node.delivered] for node in (one, two, three)]
        assert jsons[0] == jsons[1] == jsons[2]
        assert one.restarts == two.restarts == three.restarts == []


@in_loop
async def test_many_publishers_on_many_nodes_make_one_order(redis: RedisServer) -> None:
    async with nodes(redis, 2) as pair:

        async def publisher(node: Node, name: int) -> None:
            for batch in range(25):
                requests = [PublishRequest("a", f"{name}.{batch}.{n}", b"1") for n in range(4)]
                for answer in await node.broker.publish(requests):
                    published(answer)

        await asyncio.gather(*(publisher(pair[n % 2], n) for n in range(8)))
        await until(lambda: all(len(node.delivered) == 800 for node in pair))
        assert pair[0].ids() == pair[1].ids()
        assert pair[0].offsets() == list(range(1, 801))


@in_loop
async def test_a_publication_keeps_all_it_has_on_its_way(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        await one.broker.publish(
            [PublishRequest("a", "x", b'{"\\u00e9":[1.5,null]}', user="4\u20ac2", exclude="tab")]
        )
        await until(lambda: two.delivered)
        mine, theirs = one.delivered[0], two.delivered[0]
        assert (mine.json, mine.exclude, mine.time, mine.position) == (
            theirs.json, theirs.exclude, theirs.time, theirs.position,
        )
        kept = (await two.broker.history("a", 0, 1)).publications[0]
        assert (kept.json, kept.time) == (mine.json, mine.time)


@in_loop
async def test_only_channels_with_subscribers_are_listened_to(redis: RedisServer) -> None:
    prefix = f"t-{secrets.token_hex(6)}:"
    async with nodes(redis, 2, prefix) as (one, two):
        await one.subscribe("b")
        names = [name.decode() for name in redis.cli("PUBSUB", "CHANNELS", f"{prefix}*")]
        channels = sorted(name for name in names if "/c:" in name)
        assert channels == [f"{prefix}0/c:a", f"{prefix}0/c:b"]
        await publish(two.broker, "b", 1)
        await until(lambda: one.offsets("b") == [1])
        assert two.offsets("b") == [], "nobody is there"


@in_loop
async def test_a_room_is_kept_a_while_and_then_left(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_rooms, "LINGER", 0.2)
    tick(monkeypatch, 0.05)
    prefix = f"t-{secrets.token_hex(6)}:"
    async with nodes(redis, 2, prefix) as (one, two):
        one.broker.leave("a")
        await publish(two.broker, "a", 1)
        await until(lambda: one.offsets() == [1])
        await until(lambda: "a" not in one.broker._rooms)
        await until(
            lambda: redis.cli("PUBSUB", "NUMSUB", f"{prefix}0/c:a")[1] == 1
        )
        await publish(two.broker, "a", 2)
        await one.subscribe("a")
        await publish(two.broker, "a", 3)
        await until(lambda: one.offsets() == [1, 3])
        assert one.broker._rooms._windows.cost < 5_000
        # Left and joined in one breath: it is still heard.
        for _ in range(20):
            one.broker.leave("a")
            one.broker.join("a")
        await publish(two.broker, "a", 4)
        await until(lambda: one.offsets() == [1, 3, 4])


@in_loop
async def test_nothing_falls_between_joining_and_reading(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        for round_ in range(30):
            channel = f"c{round_}"
            publishing = asyncio.create_task(publish(two.broker, channel, *range(1, 6)))
            one.broker.join(channel)
            history = (await one.broker.read({channel: None}))[channel]
            more = asyncio.create_task(publish(two.broker, channel, 6, 7))
            await publishing
            await more
            wanted = list(range(history.head.offset + 1, 8))
            await until(lambda c=channel, w=wanted: one.offsets(c) == w)  # type: ignore[misc]


@in_loop
async def test_a_client_resumes_on_another_node(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        await publish(one.broker, "a", *range(1, 11))
        place = (await head_of(one.broker, "a"))._replace(offset=4, tag=tag_of("id4"))
        history = await resume(two.broker, "a", place)
        assert (history.reset, offsets(history)) == (None, [5, 6, 7, 8, 9, 10])


@in_loop
async def test_a_client_that_knows_more_than_this_node_is_not_reset(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        await publish(one.broker, "a", 1)
        await until(lambda: two.offsets() == [1])
        # The bus says nothing more to the second node for a moment.
        two.broker._bus._heard = lambda *_: None
        await publish(one.broker, "a", 2, 3)
        history = await resume(two.broker, "a", await head_of(one.broker, "a"))
        assert (history.reset, history.head.offset, offsets(history)) == (None, 3, [])
        assert two.offsets() == [1, 2, 3], "and now the node knows as much"
        assert two.restarts == []


@in_loop
async def test_ids_and_claims_hold_on_all_nodes(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        first = published((await one.broker.publish([ask("a", 1)]))[0])
        again = published((await two.broker.publish([ask("a", 1)]))[0])
        assert again == first.__class__("a", first.epoch, 1, "id1", duplicate=True)
        (conflict,) = await two.broker.publish([ask("a", 1, b'"x"')])
        assert isinstance(conflict, PushError) and conflict.code == "id_conflict"
        got = await asyncio.gather(*(n.broker.claim("t", 30) for n in (one, two) for _ in "12345"))
        assert sorted(got) == [False] * 9 + [True]


@pytest.mark.usefixtures("no_ticks")
@in_loop
async def test_a_revocation_reaches_all_nodes_and_those_that_come_later(
    redis: RedisServer,
) -> None:
    prefix = f"t-{secrets.token_hex(6)}:"
    now = time.time()
    async with nodes(redis, 2, prefix) as (one, two):
        revocation = Revocation("sid", 's\n"1', now, now + 100)
        await one.broker.revoke(revocation)
        await until(lambda: two.revoked)
        assert one.revoked == two.revoked == [revocation]
        await one.broker.revoke(Revocation("user", "7", now - 10, now - 5))
    async with nodes(redis, 1, prefix) as (three,):
        assert three.revoked == [revocation]
        assert redis.cli("HLEN", f"{prefix}revoked") == 2, "what is over is forgotten"


@in_loop
async def test_a_revocation_made_while_the_bus_was_down_is_learnt(
    redis: RedisServer,
) -> None:
    async with nodes(redis, 2) as (one, two):
        two.broker._bus._heard = lambda *_: None
        now = time.time()
        await one.broker.revoke(Revocation("jti", "x", now, now + 100))
        two.broker._bus.reconnect("a test")
        await until(lambda: two.revoked)


# Connections that fail.


@in_loop
async def test_a_killed_subscription_comes_back_and_misses_nothing(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        for number in range(1, 61):
            await publish(one.broker, "a", number)
            if number % 15 == 10:
                await until(lambda: one.broker._bus.up and two.broker._bus.up)
                assert own.cli("CLIENT", "KILL", "TYPE", "pubsub") == 2
        await until(lambda: two.offsets() == list(range(1, 61)))
        assert one.offsets() == list(range(1, 61))
        assert two.restarts == one.restarts == []
        await until(lambda: one.broker._bus.up and two.broker._bus.up)
        assert not two.degraded


@in_loop
async def test_a_killed_command_connection_comes_back(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        sent = 0
        for number in range(1, 61):
            if number % 15 == 0:
                sent += own.cli("CLIENT", "KILL", "TYPE", "normal")
            await publish_when_back(one.broker, "a", number)
        assert sent >= 4
        await until(lambda: one.ids() == two.ids() == [f"id{n}" for n in range(1, 61)])
        assert one.restarts == two.restarts == []


@in_loop
async def test_the_heart_beats_while_reading_takes_long(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick(monkeypatch, 0.02)
    monkeypatch.setattr(redis_roster, "RENEW_SECONDS", 0.0)
    async with nodes(redis) as (node,):
        broker, hangs = node.broker, asyncio.Event()
        upkeep, roster = broker._upkeep, broker.roster

        async def check() -> bool:
            hangs.set()
            await asyncio.Event().wait()
            return False

        monkeypatch.setattr(broker._rooms, "check", check)
        await hangs.wait()
        sung, renewed = upkeep._heard_song, roster._renew_at
        await until(lambda: upkeep._heard_song > sung + 2 and roster._renew_at > renewed)


@in_loop
async def test_a_deaf_bus_is_noticed(own: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_upkeep, "TICK", 0.2)
    async with nodes(own, 2) as (one, two):
        # The connection lives, Redis believes to be heard, and nothing comes through.
        bus = two.broker._bus
        heard, connections = bus._heard, bus._connections
        bus._heard = lambda *_: None
        await publish(one.broker, "a", 1)
        await until(lambda: bus._connections > connections)
        bus._heard = heard
        await until(lambda: two.offsets() == [1])


@pytest.mark.usefixtures("no_ticks")
@in_loop
async def test_a_lost_message_of_the_bus_is_read_when_the_next_one_comes(
    redis: RedisServer,
) -> None:
    async with nodes(redis, 2) as (one, two):
        bus = two.broker._bus
        heard = bus._heard
        bus._heard = lambda *_: None
        await publish(one.broker, "a", 1, 2)
        bus._heard = heard
        await publish(one.broker, "a", 3)
        await until(lambda: two.offsets() == [1, 2, 3])


@in_loop
async def test_a_lost_message_is_read_even_if_no_other_comes(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        heard = two.broker._bus._heard

        def heard_but(name: str, message: bytes, by_pattern: bool) -> None:
            if "/c:" not in name:
                heard(name, message, by_pattern)

        two.broker._bus._heard = heard_but
        await publish(one.broker, "a", 1)
        await until(lambda: two.offsets() == [1])


@pytest.fixture
def no_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the last net, so that the one before it is seen to hold."""
    monkeypatch.setattr(redis_upkeep, "TICK", 1_000)


@pytest.mark.usefixtures("no_ticks")
@in_loop
async def test_a_new_command_connection_reads_what_was_missed(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        two.broker._bus._heard = lambda *_: None
        await publish(one.broker, "a", 1)
        own.cli("CLIENT", "KILL", "TYPE", "normal")
        with contextlib.suppress(Unavailable):  # whether it is noticed in time is a race
            await two.broker.claim("anything", 1)
        await until(lambda: two.offsets() == [1])


@pytest.mark.usefixtures("no_ticks")
@in_loop
async def test_what_an_earlier_connection_of_ours_sent_is_heard(redis: RedisServer) -> None:
    """It was answered 503, and carried out all the same when Redis went on."""
    async with nodes(redis, 2) as (one, two):
        call = one.broker._log.placing(ask("a", 1), one.broker._origin, time.time())
        args = list(call.args)
        args[2] = f"{one.broker._node}.{one.broker._link.generation - 1}"
        await two.broker._link.one(call._replace(args=args))
        await until(lambda: one.offsets() == two.offsets() == [1])


@pytest.mark.usefixtures("no_ticks")
@in_loop
async def test_an_id_that_has_its_place_tells_that_something_was_missed(
    redis: RedisServer,
) -> None:
    async with nodes(redis, 2) as (one, two):
        two.broker._bus._heard = lambda *_: None
        await publish(one.broker, "a", 1)
        await publish(two.broker, "a", 1)
        await until(lambda: two.offsets() == [1])


@pytest.mark.usefixtures("no_ticks")
@in_loop
async def test_history_is_not_read_before_the_bus_is_heard(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, placed = Ear.send, asyncio.Event()

    async def late(ear: Ear, command: str, names: Sequence[str]) -> None:
        await placed.wait()
        await send(ear, command, names)

    async with nodes(redis, 2) as (one, two):
        monkeypatch.setattr(Ear, "send", late)
        one.broker.join("b")
        reading = asyncio.create_task(one.broker.read({"b": None}))
        await asyncio.sleep(0.05)  # in which it could have been read
        await publish(two.broker, "b", 1)
        placed.set()
        head = (await reading)["b"].head
        assert (head.offset, one.offsets("b")) == (1, [])


@in_loop
async def test_a_frozen_redis_mixes_no_replies(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        await publish(one.broker, "a", 0)
        own.freeze()
        started = time.monotonic()
        requests = [PublishRequest("a", f"m{n}", b'"mark-%d"' % n) for n in range(100)]
        calls = [asyncio.create_task(one.broker.publish([request])) for request in requests]
        await asyncio.sleep(0.05)
        for call in calls[::3]:
            call.cancel()  # clients hang up while their command is on its way
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - started < 2 * redis_connection.PATIENCE, "not one by one"
        for call, answer in zip(calls, answers, strict=True):
            if not call.cancelled():
                assert isinstance(answer, list) and isinstance(answer[0], Unavailable)
        started = time.monotonic()
        (late,) = await one.broker.publish([PublishRequest("a", "late", b"0")])
        assert isinstance(late, Unavailable)
        assert time.monotonic() - started < redis_connection.PATIENCE / 2, "known to be away"
        with pytest.raises(Unavailable):
            await two.broker.read({"a": None, "other": None})
        await until(lambda: one.degraded == two.degraded == [True])
        own.thaw()
        # Retried with the same ids: each marker gets one place, and its own.
        for number, request in enumerate(requests):
            await publish_request_when_back(one.broker, request)
            place = published((await one.broker.publish([request]))[0])
            assert place.id == f"m{number}" and place.duplicate
        await until(lambda: len(two.delivered) == len(one.delivered) == 101)
        for node in (one, two):
            assert sorted(node.ids()) == sorted(["id0", *(f"m{n}" for n in range(100))])
            for item in node.delivered[1:]:
                assert json.loads(item.json)["data"] == f"mark-{item.id[1:]}"
            assert node.offsets() == list(range(1, 102))
            assert node.restarts == []
        await until(lambda: one.degraded == two.degraded == [True, False])


@in_loop
async def test_concurrent_callers_who_give_up_leave_nothing_behind(redis: RedisServer) -> None:
    """CVE-2023-28858: a cancelled caller's reply went to the next one."""
    async with nodes(redis) as (node,):

        async def history(number: int) -> None:
            channel = f"own{number}"
            for _ in range(20):
                found = await node.broker.history(channel, 0, 10)
                assert [item.channel for item in found.publications] == [channel]

        for number in range(20):
            await publish(node.broker, f"own{number}", 1)
        readers = [asyncio.create_task(history(number)) for number in range(20)]
        victims = []
        for turn in range(200):
            victims.append(asyncio.create_task(node.broker.history(f"own{turn % 20}", 0, 10)))
            await asyncio.sleep(0)
            victims[turn // 2].cancel()
        await asyncio.gather(*readers)
        await asyncio.gather(*victims, return_exceptions=True)


# Redis that restarts, and what it has lost.


@in_loop
async def test_a_kill_loses_nothing_with_appendfsync_always(always: RedisServer) -> None:
    async with nodes(always, 2) as (one, two):
        acknowledged: list[str] = []
        for number in range(1, 121):
            if number % 40 == 0:
                always.kill()
                restarting = asyncio.create_task(asyncio.to_thread(always.start))
            await publish_when_back(one.broker, "a", number)
            acknowledged.append(f"id{number}")
            if number % 40 == 0:
                await restarting
        await until(lambda: one.ids() == two.ids() == acknowledged)
        assert one.restarts == two.restarts == []
        assert one.offsets() == list(range(1, 121))


@in_loop
async def test_a_kill_with_everysec_is_announced(everysec: RedisServer) -> None:
    async with nodes(everysec, 2, "p:") as (one, two):
        await publish(one.broker, "a", 1, 2, 3)
        before = await head_of(one.broker, "a")
        everysec.kill()
        everysec.start()
        assert await publish_when_back(two.broker, "a", 4) == 1
        assert everysec.cli("XLEN", "p:c:a") == 1, "what nobody can read any more is gone"
        await until(lambda: one.restarts and two.restarts)
        for node in (one, two):
            ((channel, reason, head),) = node.restarts
            assert (channel, reason) == ("a", EPOCH)
            assert head.epoch > before.epoch
            assert (await resume(node.broker, "a", before)).reset == EPOCH
        await publish(one.broker, "a", 5)
        await until(lambda: one.ids()[-1] == two.ids()[-1] == "id5")


@in_loop
async def test_a_restart_without_persistence_is_announced_once(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        await publish(one.broker, "a", 1)
        before = await head_of(one.broker, "a")
        own.kill()
        own.start()
        # Nobody publishes: those who wait must hear of it all the same.
        await until(lambda: one.restarts and two.restarts)
        assert [what[:2] for what in one.restarts + two.restarts] == [("a", EPOCH)] * 2
        assert one.restarts == two.restarts
        assert (await resume(one.broker, "a", before)).reset == EPOCH
        assert await publish(two.broker, "a", 2) == [1]
        await until(lambda: one.offsets() == [1, 1])


@in_loop
async def test_a_flush_is_announced(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        await publish(one.broker, "a", 1, 2)
        before = await head_of(one.broker, "a")
        own.cli("FLUSHALL")
        assert await publish(one.broker, "a", 3) == [1]
        await until(lambda: one.restarts and two.restarts)
        assert {what[:2] for what in one.restarts + two.restarts} == {("a", EPOCH)}
        for node in (one, two):
            assert (await resume(node.broker, "a", before)).reset == EPOCH
        await publish(two.broker, "a", 4)
        await until(lambda: one.ids()[-1] == two.ids()[-1] == "id4")
        head = await head_of(one.broker, "a")
        assert (head.offset, head.epoch > before.epoch) == (2, True)


@in_loop
async def test_a_flush_that_nobody_publishes_after_is_announced(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        await publish(one.broker, "a", 1)
        own.cli("FLUSHALL")
        await until(lambda: one.restarts and two.restarts)


@in_loop
async def test_one_deleted_stream_is_announced_and_the_others_go_on(own: RedisServer) -> None:
    async with nodes(own, 2, "p:") as (one, two):
        await one.subscribe("b")
        await publish(one.broker, "a", 1, 2)
        await publish(one.broker, "b", 1)
        a, b = await head_of(one.broker, "a"), await head_of(one.broker, "b")
        assert own.cli("DEL", "p:c:a") == 1
        # A client that had nothing yet must not believe that there was nothing.
        assert (await resume(two.broker, "other", a)).reset == FUTURE
        assert await publish(two.broker, "a", 3) == [1]
        await until(lambda: one.restarts and two.restarts)
        assert (await resume(one.broker, "a", a)).reset == EPOCH
        assert (await resume(one.broker, "a", a._replace(offset=0, tag="0"))).reset == EPOCH
        assert (await resume(one.broker, "b", b)).reset is None
        assert {what[0] for what in one.restarts} == {"a"}
        # An id of the lost log has no place any more.
        again = published((await one.broker.publish([ask("a", 1)]))[0])
        assert (again.offset, again.duplicate) == (2, False)


@in_loop
async def test_a_reader_alone_notices_that_a_stream_is_gone(own: RedisServer) -> None:
    async with nodes(own, 1, "p:") as (node,):
        await publish(node.broker, "quiet", 1)
        start = (await head_of(node.broker, "quiet"))._replace(offset=0, tag="0")
        assert offsets(await resume(node.broker, "quiet", start)) == [1]
        own.cli("DEL", "p:c:quiet")
        assert (await resume(node.broker, "quiet", start)).reset == EPOCH


@in_loop
async def test_a_log_that_lost_its_tail_and_grew_again(always: RedisServer) -> None:
    """Epoch and offset alone would skip what the client has not seen: only the tag differs."""
    async with nodes(always, 2) as (one, two):
        await publish(one.broker, "a", *range(1, 91))
        size = always.appended.stat().st_size
        await publish(one.broker, "a", *range(91, 101))
        client = await head_of(one.broker, "a")
        assert client.offset == 100
        await until(lambda: len(two.delivered) == 100)
        always.kill()
        with always.appended.open("r+b") as log:
            log.truncate(size)
        always.start()
        grown = [await publish_when_back(one.broker, "a", number) for number in range(201, 231)]
        assert grown[-1] == 120
        head = client._replace(offset=120, tag=tag_of("id230"))
        await until(lambda: all(n.broker._rooms._windows.head("a") == head for n in (one, two)))
        for node in (one, two):
            assert (await resume(node.broker, "a", client)).reset == TAG
            # Those who were there all the time are told as well, and once.
            ((channel, reason, _),) = node.restarts
            assert channel == "a" and reason in (FUTURE, TAG)
        await publish(one.broker, "a", 300)
        await until(lambda: one.ids()[-1] == two.ids()[-1] == "id300")


@in_loop
async def test_a_replaced_redis_is_another_log(redis: RedisServer) -> None:
    prefix = f"t-{secrets.token_hex(6)}:"
    async with nodes(redis, 1, prefix) as (node,):
        await publish(node.broker, "a", 1)
        before = await head_of(node.broker, "a")
    redis.cli("HSET", f"{prefix}log", "/run", "f" * 40)
    async with nodes(redis, 1, prefix) as (node,):
        assert (await resume(node.broker, "a", before)).reset is None, "nothing was lost: always"
    with RedisServer(appendonly="yes", appendfsync="everysec") as other:
        async with nodes(other, 1, prefix) as (node,):
            await publish(node.broker, "a", 1)
            before = await head_of(node.broker, "a")
        other.cli("HSET", f"{prefix}log", "/run", "f" * 40)
        async with nodes(other, 1, prefix) as (node,):
            assert (await resume(node.broker, "a", before)).reset == EPOCH


@in_loop
async def test_epochs_grow_even_if_the_clock_goes_back(own: RedisServer) -> None:
    async with nodes(own) as (node,):
        await publish(node.broker, "a", 1)
        before = (await head_of(node.broker, "a")).epoch
        node.broker.clock = lambda: 1_000_000.0
        own.cli("FLUSHALL")
        await publish(node.broker, "a", 2)
        await until(lambda: node.restarts)
        assert (await head_of(node.broker, "a")).epoch > before


# A replica that takes over.


@contextlib.contextmanager
def replica_of(primary: RedisServer) -> Iterator[RedisServer]:
    """A second Redis that copies the first, and has all of it by now."""
    with RedisServer(appendonly="yes", appendfsync="always") as replica:
        replica.cli("REPLICAOF", "127.0.0.1", primary.port)
        wait_for(lambda: b"master_link_status:up" in replica.cli("INFO", "replication"))
        yield replica


def copied(primary: RedisServer, replica: RedisServer) -> bool:
    def offset(server: RedisServer) -> bytes:
        text: bytes = server.cli("INFO", "replication")
        return text.partition(b"master_repl_offset:")[2].split()[0]

    return offset(primary) == offset(replica)


def take_over(primary: RedisServer, replica: RedisServer) -> None:
    """The primary dies; the replica takes its place and its address."""
    primary.kill()
    replica.cli("REPLICAOF", "NO", "ONE")
    replica.cli("CONFIG", "SET", "port", primary.port)
    replica.port = primary.port


@in_loop
async def test_what_a_failover_loses_is_announced_and_nothing_else_is_lost(
    always: RedisServer,
) -> None:
    with replica_of(always) as replica:
        async with nodes(always, 2) as (one, two):
            await one.subscribe("b")
            await two.subscribe("b")
            await publish(one.broker, "a", *range(1, 11))
            await publish(one.broker, "b", 1)
            now = time.time()
            await one.broker.revoke(Revocation("sid", "known", now, now + 100))
            await until(lambda: copied(always, replica))
            # From here on the replica hears nothing, and its primary acknowledges all the same.
            replica.cli("REPLICAOF", "127.0.0.1", 1)
            await publish(one.broker, "a", 11, 12)
            await one.broker.revoke(Revocation("sid", "lost", now, now + 100))
            clients = {
                "all": await head_of(one.broker, "a"),
                "some": (await head_of(one.broker, "a"))._replace(offset=5, tag=tag_of("id5")),
            }
            assert clients["all"].offset == 12
            await until(lambda: two.offsets() == list(range(1, 13)))
            take_over(always, replica)
            offset = await publish_when_back(two.broker, "a", 13)
            assert offset == 1, "the log begins anew: who was at 5 cannot know of 11 and 12"
            await until(lambda: all(len(node.restarts) == 2 for node in (one, two)))
            for node in (one, two):
                assert {what[:2] for what in node.restarts} == {("a", EPOCH), ("b", EPOCH)}
                for client in clients.values():
                    assert (await resume(node.broker, "a", client)).reset == EPOCH
            # Once told, nobody misses anything, nobody is told again, no logout is lost.
            await publish(one.broker, "a", 14)
            await publish(two.broker, "b", 2)
            place = (await head_of(one.broker, "a"))._replace(offset=1, tag=tag_of("id13"))
            for node in (one, two):
                await until(lambda n=node: n.ids()[-1] == "id14")  # type: ignore[misc]
                await until(lambda n=node: n.ids("b")[-1] == "id2")  # type: ignore[misc]
                assert offsets(await resume(node.broker, "a", place)) == [2]
                assert len(node.restarts) == 2
            async with nodes(replica, 1, prefix_of(one)) as (later,):
                values = {item.value for item in later.revoked}
                assert values >= {"known", "lost"}


@in_loop
async def test_a_primary_that_is_demoted_is_left(always: RedisServer, own: RedisServer) -> None:
    """A switch between the two may lead the next connection to the new primary."""
    async with nodes(always) as (node,):
        await publish(node.broker, "a", 1)
        always.cli("REPLICAOF", "127.0.0.1", own.port)
        (answer,) = await node.broker.publish([ask("a", 2)])
        assert isinstance(answer, PushError) and answer.status == 503
        await until(lambda: node.degraded == [True])
        await until(lambda: b"master_link_status:up" in always.cli("INFO", "replication"))
        always.cli("REPLICAOF", "NO", "ONE")
        await publish_when_back(node.broker, "a", 2)
        # It was made a copy of an empty one meanwhile.
        await until(lambda: node.restarts)
        await publish(node.broker, "a", 3)
        assert node.ids()[-1] == "id3"
        await until(lambda: node.degraded == [True, False])


def prefix_of(node: Node) -> str:
    return node.broker.address.prefix


# What does not come from us.


FOREIGN = [
    b"",
    b"x",
    b"\x80\x04\x95pickle.",
    b'{"type":"publish"}',
    b"- 1-1 0",
    b"- 1-1 0\n{}\n1",
    b"- 1-1 0\n{\"id\":\"x\",\"time\":1}\n1\n2",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1}\n",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1}\n{broken",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1}\n1\r",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1}\n\"\xc3\xa9\"",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":\"now\"}\n1",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1e999}\n1",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":true}\n1",
    b"- {epoch}-2 {tag}\n{\"id\":\"a b\",\"time\":1}\n1",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1,\"user\":7}\n1",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1,\"exclude\":\"\\n\"}\n1",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1,\"more\":1}\n1",
    b"- {epoch}-2 {tag}\n[\"id\"]\n1",
    b"- {epoch}--2 {tag}\n{\"id\":\"x\",\"time\":1}\n1",
    b"- 99999999999999999999-2 {tag}\n{\"id\":\"x\",\"time\":1}\n1",
    b"- {epoch}-2 {tag} more\n{\"id\":\"x\",\"time\":1}\n1",
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1}\n" + b"[" * 100_000,
    b"- {epoch}-2 {tag}\n{\"id\":\"x\",\"time\":1}\n\"" + b"x" * 17_000_000 + b'"',
]


@in_loop
async def test_what_is_foreign_on_the_bus_is_dropped_and_counted(redis: RedisServer) -> None:
    prefix = f"t-{secrets.token_hex(6)}:"
    async with nodes(redis, 2, prefix) as (one, two):
        await publish(one.broker, "a", 1)
        await until(lambda: two.offsets() == [1])
        head = await head_of(one.broker, "a")
        for number, form in enumerate(FOREIGN, 1):
            message = form.replace(b"{epoch}", b"%d" % head.epoch)
            message = message.replace(b"{tag}", head.tag.encode())
            redis.cli("PUBLISH", f"{prefix}0/c:a", message)
            await until(lambda n=number: two.broker.counts["dropped.bus"] == n)  # type: ignore[misc]
        revocations = b"", b"x", b"x 1 2\n[]", b'x 1 2\n["root","x"]', b'x nan 1\n["sid","x"]'
        for message in revocations:
            redis.cli("PUBLISH", f"{prefix}0/all", message)
        await publish(one.broker, "a", 2)
        await until(lambda: two.offsets() == [1, 2])
        assert two.broker.counts["dropped.bus"] == len(FOREIGN) + 5
        assert two.revoked == [] and two.restarts == []


@in_loop
async def test_a_forged_publication_is_found_out(redis: RedisServer) -> None:
    """Who can write to Redis can lie once; the log then proves it, and says so."""
    prefix = f"t-{secrets.token_hex(6)}:"
    async with nodes(redis, 2, prefix) as (one, two):
        await publish(one.broker, "a", 1)
        head = await head_of(one.broker, "a")
        forged = b'- %d-2 %s\n{"id":"forged","time":1}\n1' % (head.epoch, head.tag.encode())
        redis.cli("PUBLISH", f"{prefix}0/c:a", forged)
        await until(lambda: two.ids()[-1:] == ["forged"])
        await until(lambda: two.restarts)
        await publish(one.broker, "a", 2)
        await until(lambda: one.ids()[-1] == two.ids()[-1] == "id2")


@in_loop
async def test_foreign_entries_in_a_stream_stop_nobody(own: RedisServer) -> None:
    async with nodes(own, 2, "p:") as (one, two):
        await publish(one.broker, "a", 1, 2)
        start = (await head_of(one.broker, "a"))._replace(offset=0, tag="0")
        own.cli("XADD", "p:c:a", f"{start.epoch}-3", "p", tag_of("id2"), "d", "1")
        assert offsets(await one.broker.history("a", 0, 10)) == [1, 2], "beyond the head"
        # The place is taken: the log goes on in a new epoch.
        assert await publish(one.broker, "a", 3) == [1]
        await until(lambda: one.restarts and two.restarts)
        assert (await resume(two.broker, "a", start)).reset == EPOCH
        own.cli("XADD", "p:c:a", "9007199254740000-1", "evil", "__import__('os')")
        assert await publish(two.broker, "a", 4) == [1]
        own.cli("DEL", "p:c:a")
        own.cli("SET", "p:c:a", "a string")
        assert await publish(two.broker, "a", 5) == [1]
        head = (await one.broker._log.heads(["a"]))[1][0]
        await until(lambda: all(n.broker._rooms._windows.head("a") == head for n in (one, two)))
        await publish(two.broker, "a", 6)
        await until(lambda: one.ids()[-1] == two.ids()[-1] == "id6")


@in_loop
async def test_entries_changed_by_hand_prove_nothing(own: RedisServer) -> None:
    async with nodes(own, 1, "p:") as (node,):
        await publish(node.broker, "b", *range(1, 7))
        head = await head_of(node.broker, "b")
        own.cli("XDEL", "p:c:b", f"{head.epoch}-3")
        place = head._replace(offset=1, tag=tag_of("id1"))
        assert (await resume(node.broker, "b", place)).reset == TRIMMED
        place = head._replace(offset=3, tag=tag_of("id3"))
        assert offsets(await resume(node.broker, "b", place)) == [4, 5, 6]
        assert (await resume(node.broker, "b", place._replace(tag="xxxxxx"))).reset == TAG


HAND_MADE = [
    (),
    ("evil", "__import__('os')"),
    ("p", "{tag}", "n", "1", "w", "0", "h", "", "d", ""),
    ("p", "{tag}", "n", "1", "w", "0", "h", "\x80\x04pickle.", "d", "1"),
    ("p", "{tag}", "n", "1", "w", "0", "h", '{"id":"x","time":1}', "d", "[" * 100_000),
    ("p", "{tag}", "n", "1", "w", "0", "h", '{"id":"x","time":1}', "d", "1\n2"),
    ("p", "{tag}", "n", "1", "w", "0", "h", '{"id":"x","time":1}', "d", '"' + "x" * 17_000_000),
    ("p", "{tag}", "n", "1", "w", "0", "h", '{"id":"x","time":1,"user":7}', "d", "1"),
    ("p", "{tag}", "n", "x" * 99, "w", "-", "h", '{"id":"x"}', "d", "1"),
    ("d", "1", "h", '{"id":"x","time":1}', "w", "0", "n", "1", "p", "{tag}"),
]


@pytest.mark.parametrize("fields", HAND_MADE, ids=range(len(HAND_MADE)))
@in_loop
async def test_an_entry_made_by_hand_in_its_right_place_is_no_publication(
    redis: RedisServer, fields: tuple[str, ...]
) -> None:
    """The stream is copied, with another entry in the place of the second."""
    prefix = f"t-{secrets.token_hex(6)}:"
    stream, copy = f"{prefix}c:b", f"{prefix}copy"
    async with nodes(redis, 1, prefix) as (node,):
        await publish(node.broker, "b", 1, 2, 3)
        head = await head_of(node.broker, "b")
        start = head._replace(offset=0, tag="0")
        first, _, third = redis.cli("XRANGE", stream, "-", "+")
        forged = [field.replace("{tag}", tag_of("id1")).encode() for field in fields]
        redis.cli("COPY", stream, copy)
        redis.cli("XTRIM", copy, "MAXLEN", 0)
        redis.cli("XSETID", copy, "0-1")
        for place, content in ((first[0], first[1]), (b"%d-2" % head.epoch, forged), third):
            if content:
                redis.cli("XADD", copy, place, *content)
        redis.cli("RENAME", copy, stream)
        assert redis.cli("XLEN", stream) == (3 if fields else 2)
        assert (await resume(node.broker, "b", start)).reset == TRIMMED
        seen = await node.broker.history("b", 0, 10)
        assert offsets(seen) == [3] and node.broker.counts["dropped.stream"] == 2 * bool(fields)
        place_two = head._replace(offset=2, tag=tag_of("id2"))
        assert offsets(await resume(node.broker, "b", place_two)) == [3]
        assert await publish(node.broker, "b", 4) == [4]


@in_loop
async def test_a_damaged_head_is_a_lost_log(own: RedisServer) -> None:
    async with nodes(own, 1, "p:") as (node,):
        await publish(node.broker, "b", 1, 2)
        before = await head_of(node.broker, "b")
        own.cli("HSET", "p:log", "b", "1 2 3")
        assert await publish(node.broker, "b", 3) == [1]
        assert (await head_of(node.broker, "b")).epoch > before.epoch


@in_loop
async def test_scripts_that_were_flushed_are_loaded_again(own: RedisServer) -> None:
    async with nodes(own) as (node,):
        await publish(node.broker, "a", 1)
        own.cli("SCRIPT", "FLUSH")
        assert await publish_when_back(node.broker, "a", 2) == 2
        assert node.offsets() == [1, 2]


# Limits.


@in_loop
async def test_a_full_redis_answers_that_it_is_full(own: RedisServer) -> None:
    async with nodes(own) as (node,):
        await publish(node.broker, "a", 1)
        used = int(dict(
            line.split(":") for line in own.cli("INFO", "memory").decode().split() if ":" in line
        )["used_memory"])
        own.cli("CONFIG", "SET", "maxmemory", used // 2)
        (answer,) = await node.broker.publish([ask("a", 2)])
        assert isinstance(answer, StorageFull) and answer.status == 507
        assert (await head_of(node.broker, "a")).offset == 1
        own.cli("CONFIG", "SET", "maxmemory", 0)
        assert await publish(node.broker, "a", 2) == [2]


@in_loop
async def test_a_stream_is_trimmed_in_redis_too(redis: RedisServer) -> None:
    prefix = f"t-{secrets.token_hex(6)}:"
    keep = {
        "count": Namespace(history_size=10),
        "age": Namespace(history_ttl=60),
        "size": Namespace(history_bytes=1000),
        "none": Namespace(history_size=0),
    }
    async with nodes(redis, 1, prefix, **keep) as (node,):
        now = time.time()
        node.broker.clock = lambda: now
        for number in range(1, 201):
            now += 2
            for name in keep:
                await publish(node.broker, name, number)
        lengths = {name: redis.cli("XLEN", f"{prefix}c:{name}") for name in keep}
        assert lengths["count"] == 10
        assert 30 <= lengths["age"] <= 30 + 16
        assert 18 <= lengths["size"] <= 18 + 24
        assert lengths["none"] == 0
        assert len(offsets(await node.broker.history("age", 0, 1000))) == 30
        # Nobody publishes any more: what is too old goes, where the channels stand remains.
        heads = {name: await head_of(node.broker, name) for name in keep}
        now += 1000
        await until(lambda: redis.cli("ZCARD", f"{prefix}due") == 0)
        assert redis.cli("EXISTS", *(f"{prefix}c:{name}" for name in keep)) == 0
        for name, head in heads.items():
            assert await head_of(node.broker, name) == head
            assert (await resume(node.broker, name, head)).reset is None
            assert await publish(node.broker, name, 300) == [201]
        assert node.restarts == []


@in_loop
async def test_a_window_that_memory_has_no_room_for_is_read_each_time(redis: RedisServer) -> None:
    async with nodes(redis) as (node,):
        node.broker._rooms._windows._budget = 1
        await publish(node.broker, "a", *range(1, 21))
        place = (await head_of(node.broker, "a"))._replace(offset=5, tag=tag_of("id5"))
        for _ in range(2):
            history = await resume(node.broker, "a", place)
            assert (history.reset, offsets(history)) == (None, list(range(6, 21)))


@in_loop
async def test_a_publication_too_large_for_the_bus_is_refused(redis: RedisServer) -> None:
    async with nodes(redis) as (node,):
        huge = ask("a", 1, b'"' + b"x" * (9 * 1024 * 1024) + b'"')
        answers = await node.broker.publish([huge, ask("a", 2)])
        assert isinstance(answers[0], PushError) and answers[0].status == 413
        assert published(answers[1]).offset == 1


# Starting.


async def refusal(url: str, kind: type[PushError] = BadInput) -> str:
    """What it says; `Unavailable` is worth another try, and systemd gives it."""
    node = Node(url)
    with pytest.raises(kind) as refused:
        await node.broker.start()
    await node.broker.close()
    assert refused.value.code == "broker_unusable"
    return refused.value.message


@in_loop
async def test_a_redis_that_may_evict_is_refused(own: RedisServer) -> None:
    own.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    message = await refusal(own.url)
    assert f'broker = "{own.url}"' in message
    assert "maxmemory-policy noeviction" in message


@in_loop
async def test_a_redis_that_cannot_be_reached_is_named_in_one_line() -> None:
    message = await refusal("redis://push:geheim@127.0.0.1:1/3", Unavailable)
    assert message.startswith('broker = "redis://push@127.0.0.1:1/3": Redis cannot be reached (')
    assert "geheim" not in message and "\n" not in message


@in_loop
async def test_a_wrong_password_is_named_and_not_shown(own: RedisServer) -> None:
    own.cli("ACL", "SETUSER", "push", "on", ">right", "~*", "&*", "+@all")
    message = await refusal(f"redis://push:falsch@127.0.0.1:{own.port}/0")
    assert "user or the password" in message and "falsch" not in message


@in_loop
async def test_an_old_redis_and_a_replica_are_refused(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer() as primary:
        own.cli("REPLICAOF", "127.0.0.1", primary.port)
        assert "name its primary" in await refusal(own.url, Unavailable)
        own.cli("REPLICAOF", "NO", "ONE")
    monkeypatch.setattr(redis_connection, "OLDEST", (99, 0))
    assert "too old" in await refusal(own.url)


@in_loop
async def test_a_policy_changed_while_running_is_not_overlooked(own: RedisServer) -> None:
    async with nodes(own) as (node,):
        own.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        own.cli("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: node.degraded == [True])
        (answer,) = await node.broker.publish([ask("a", 1)])
        assert isinstance(answer, Unavailable)
        own.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await publish_when_back(node.broker, "a", 1)
        await until(lambda: node.degraded == [True, False])


@in_loop
async def test_a_unix_socket_a_database_and_an_account_with_the_least_rights(
    own: RedisServer,
) -> None:
    own.cli("ACL", "SETUSER", "push", "on", ">a b", *ACL.split())
    url = f"unix://push:a%20b@{own.socket_path}?db=3&prefix=site:"
    first, second = Node(url), Node(url)
    for node in (first, second):
        await node.broker.start()
        await node.subscribe("a")
    try:
        await publish(first.broker, "a", 1)
        await until(lambda: second.offsets() == [1])
        assert await first.broker.claim("x", 5)
        now = time.time()
        await first.broker.revoke(Revocation("sid", "s", now, now + 9))
        await until(lambda: second.revoked)
        assert offsets(await first.broker.history("a", 0, 10)) == [1]
        await until(lambda: first.broker._upkeep._sung >= 1 and not first.degraded)
        own.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await publish(first.broker, "a", 2)
        await until(lambda: second.offsets() == [1, 2])
    finally:
        await first.broker.close()
        await second.broker.close()


# As docs/redis.rst has it.
ACL = (
    "resetkeys ~site:* resetchannels &site:* nocommands +info +config|get +client|setname"
    " +select +ping +script|load +evalsha +publish +subscribe +unsubscribe"
    " +hget +hmget +hset +hdel +hgetall +exists +get +set +del +xadd +xrange +xtrim +xdel"
    " +zadd +zrem +zrangebyscore"
)


def test_the_account_in_the_documentation_is_the_one_that_is_tested() -> None:
    from pathlib import Path

    text = Path(__file__).parent.parent.joinpath("docs", "redis.rst").read_text("utf-8")
    assert " ".join(text.split()).find(ACL) > 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://", "names no host"),
        ("redis://h/x", "database is a number"),
        ("redis://h/0?db=1", "only prefix"),
        ("redis://h/0?prefix=", "the prefix is"),
        ("redis://h/0?prefix=a%20b", "the prefix is"),
        ("redis://h/0?prefix=a&prefix=b", "each once"),
        ("redis://h:99999/0", "the port"),
        ("redis://u:p#w@h/0", ""),
        ("unix://host/path", "unix:///path"),
        ("unix:", "unix:///path"),
        ("rediss://h?ssl=no", "only ca, prefix"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, said: str) -> None:
    with pytest.raises(BadInput, match='broker = "') as refused:
        RedisBroker(url, Namespaces(), lambda *_: None, lambda _: None)
    assert said in refused.value.message


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:s3cret@h/x",
        "redis://:ab/s3cret@h/0",
        "redis://:s3cret/ab@h/0",
        "redis://u:s3cret/ab@h/0",
        "redis://u:a@s3cret/b@h/0",
        "redis://:ab?s3cret@h/0",
        "redis://:s3cret#ab@h/0",
        "unix://:ab/s3cret@/run/redis.sock?x=1",
    ],
)
def test_the_secret_of_a_url_is_not_quoted(url: str) -> None:
    with pytest.raises(BadInput) as refused:
        RedisBroker(url, Namespaces(), lambda *_: None, lambda _: None)
    assert "s3cret" not in str(refused.value)


def test_the_secret_of_a_url_is_not_shown() -> None:
    broker = RedisBroker("redis://u:s3cret@h/1", Namespaces(), lambda *_: None, lambda _: None)
    assert "s3cret" not in repr(broker.address)


def test_json_from_the_log_is_what_was_published() -> None:
    values: list[Any] = [1, 1.5, -0.0, 1e22, "\u2028\r\n\x00", [None, True], {"a": {"b": []}}]
    for value in values:
        assert json.loads(dump_json(value)) == value
