"""The rooms of the Redis broker, and the connection they ask over, when much happens at once."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import pytest
from redis_server import RedisServer, program
from test_brokers import ask, head_of, in_loop, offsets, publish, resume
from test_redis import everysec, nodes, own, tick
from waiting import until

from push_server.brokers import redis_upkeep
from push_server.brokers.redis import RedisBroker
from push_server.brokers.redis_connection import (
    FAILURES,
    PATIENCE,
    Aside,
    Ear,
    ResponseError,
    reason_of,
)
from push_server.brokers.redis_link import BATCH_READS, READ_PATIENCE
from push_server.brokers.redis_url import parse_redis_url
from push_server.errors import PushError, Unavailable
from push_server.history import EPOCH
from push_server.positions import Position, tag_of
from push_server.revocations import Revocation

__all__ = ["everysec", "own"]

pytestmark = pytest.mark.skipif(program() is None, reason="no Redis on this machine")


@pytest.fixture
def no_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found out by the way."""
    monkeypatch.setattr(redis_upkeep, "TICK", 1_000)


# What has been acknowledged is in every answer.


@pytest.mark.usefixtures("no_ticks")
@in_loop
async def test_the_history_has_what_another_node_acknowledged(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        await publish(one.broker, "a", 1)
        await until(lambda: two.offsets() == [1])
        two.broker._bus._heard = lambda *_: None  # deaf: its window stays behind
        await publish(one.broker, "a", 2, 3)
        start = (await head_of(one.broker, "a"))._replace(offset=1, tag=tag_of("id1"))
        found = await two.broker.history("a", 0, 10)
        assert (offsets(found), found.head.offset) == ([1, 2, 3], 3)
        await publish(one.broker, "a", 4)
        found = await two.broker.history("a", start, 2)
        assert (offsets(found), found.head.offset, found.reset) == ([2, 3], 4, None)
        assert two.offsets() == [1, 2, 3, 4], "and the subscribers have it, too"
        assert two.broker.counts["reread"] == 3
        assert two.restarts == []


@pytest.mark.usefixtures("no_ticks")
@in_loop
async def test_the_history_is_of_the_log_there_is_now(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        await publish(one.broker, "a", 1, 2)
        await until(lambda: two.offsets() == [1, 2])
        start = await head_of(two.broker, "a")
        own.cli("FLUSHALL")
        found = await two.broker.history("a", start, 10)
        assert (found.reset, found.head.offset, offsets(found)) == (EPOCH, 0, [])
        assert [what[:2] for what in two.restarts] == [("a", EPOCH)]
        await publish(one.broker, "a", 3)
        assert offsets(await two.broker.history("a", 0, 10)) == [1]


@in_loop
async def test_a_redis_that_is_away_has_no_history(own: RedisServer) -> None:
    async with nodes(own) as (node,):
        await publish(node.broker, "a", 1)
        own.freeze()
        with pytest.raises(Unavailable):
            await node.broker.history("a", 0, 10)
        own.thaw()


# A log that is another, noticed where nothing happens.


@in_loop
async def test_a_flush_is_announced_where_nothing_was_ever_published(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        before = await head_of(one.broker, "a")
        assert before.offset == 0
        own.cli("FLUSHALL")
        await until(lambda: one.restarts and two.restarts)
        for node in (one, two):
            assert [what[:2] for what in node.restarts] == [("a", EPOCH)]
            assert (await resume(node.broker, "a", before)).reset == EPOCH
        assert await head_of(one.broker, "a") == await head_of(two.broker, "a")


@in_loop
async def test_a_flush_is_announced_in_all_rooms_at_once(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from push_server.brokers import redis_rooms

    monkeypatch.setattr(redis_rooms, "ROOMS_AT_ONCE", 20)
    names = ["a", *(f"r{number}" for number in range(300))]
    async with nodes(own) as (node,):
        await node.subscribe(*names[1:])
        await publish(node.broker, "r7", 1)
        await until(lambda: node.broker._rooms._epoch)
        own.cli("FLUSHALL")
        await until(lambda: len(node.restarts) == len(names))
        assert {what[0] for what in node.restarts} == set(names)
        await publish(node.broker, "r7", 2)
        assert node.ids("r7") == ["id1", "id2"]
        assert len(node.restarts) == len(names)


@in_loop
async def test_a_deleted_stream_is_announced_before_anybody_asks(own: RedisServer) -> None:
    async with nodes(own, 2, "p:") as (one, two):
        await publish(one.broker, "a", 1)
        await until(lambda: two.offsets() == [1])
        own.cli("DEL", "p:c:a")
        await until(lambda: one.restarts and two.restarts)


@in_loop
async def test_a_flush_does_not_make_revoked_tokens_good_again(own: RedisServer) -> None:
    now = time.time()
    made = [Revocation("sid", "s", now, now + 100), Revocation("user", "7", now, now + 100)]
    async with nodes(own, 2, "p:") as (one, two):
        for revocation in made:
            await one.broker.revoke(revocation)
        await until(lambda: two.revoked == made and two.broker._rooms._epoch)
        own.cli("FLUSHALL")
        await until(lambda: own.cli("HLEN", "p:revoked") == 3)
        async with nodes(own, 1, "p:") as (three,):
            assert sorted(item.value for item in three.revoked) == ["7", "s"]
        assert one.revoked == two.revoked == made, "nobody is told twice"


@in_loop
async def test_a_restart_that_loses_logouts_loses_none_that_a_node_knows(
    everysec: RedisServer,
) -> None:
    now = time.time()
    async with nodes(everysec, 1, "p:") as (node,):
        await node.broker.revoke(Revocation("sid", "s", now, now + 100))
        everysec.kill()
        everysec.start()
        everysec.cli("DEL", "p:revoked")  # it had not reached the disk
        await until(lambda: everysec.cli("HLEN", "p:revoked") == 2)
        async with nodes(everysec, 1, "p:") as (later,):
            assert [(item.kind, item.value) for item in later.revoked] == [("sid", "s")]


@in_loop
async def test_who_cannot_know_what_was_lost_lets_no_old_token_in(everysec: RedisServer) -> None:
    """Attack: to come back after a logout, and the power loss that took it from the log."""
    now = time.time()
    async with nodes(everysec, 1, "p:") as (node,):
        await node.broker.revoke(Revocation("sid", "kept", now, now + 100))
        assert [item.kind for item in node.revoked] == ["sid"], "nothing was lost before the start"
    everysec.kill()
    everysec.start()
    async with nodes(everysec, 2, "p:") as (one, two):
        for node in (one, two):
            assert {item.kind for item in node.revoked} == {"sid", "all"}
            (everybody,) = [item for item in node.revoked if item.kind == "all"]
            assert everybody.covers("anybody", "any", "", issued=now)
            assert not everybody.covers("anybody", "any", "", issued=time.time() + 1)
    async with nodes(everysec, 1, "p:") as (three,):
        assert [item for item in three.revoked if item.kind == "all"] == [everybody], "once"


@in_loop
async def test_a_revocation_is_learnt_while_the_bus_cannot_come_up(own: RedisServer) -> None:
    now = time.time()
    async with nodes(own, 2, "p:") as (one, two):
        two.broker._bus._forget()  # what it hears from now on it takes for nothing
        two.broker._bus._heard = lambda *_: None
        revocation = Revocation("sid", "s", now, now + 100)
        await one.broker.revoke(revocation)
        await until(lambda: two.revoked == [revocation])


# A bus that always comes back.


@pytest.mark.parametrize("error", [AttributeError("writelines"), IndexError(), RuntimeError("x")])
@in_loop
async def test_a_bus_survives_what_its_library_stumbles_over(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """redis-py may raise AttributeError where one task writes on what another has just closed."""
    send, failing = Ear.send, [error, error]

    async def stumbling(ear: Ear, command: str, names: Sequence[str]) -> None:
        if failing:
            raise failing.pop()
        await send(ear, command, names)

    async with nodes(redis, 2) as (one, two):
        monkeypatch.setattr(Ear, "send", stumbling)
        connections = one.broker._bus._connections
        one.broker.join("b")
        await until(lambda: one.broker._bus._connections >= connections + 2 and not failing)
        assert (await one.broker.read({"b": None}))["b"].head.offset == 0
        await publish(two.broker, "b", 1)
        await until(lambda: one.offsets("b") == [1])


@in_loop
async def test_a_bus_survives_a_cancellation_that_is_lost(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`asyncio.wait_for`, which redis-py sends with, loses some in Python 3.11."""
    send, losing = Ear.send, [True]

    async def careless(ear: Ear, command: str, names: Sequence[str]) -> None:
        if losing:
            losing.clear()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        else:
            await send(ear, command, names)

    async with nodes(own, 2) as (one, two):
        monkeypatch.setattr(Ear, "send", careless)
        one.broker.join("b")
        await until(lambda: not losing)
        own.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: one.broker._bus.since(one.broker._bus_channel + "b"))
        assert (await one.broker.read({"b": None}))["b"].head.offset == 0
        await publish(two.broker, "b", 1)
        await until(lambda: one.offsets("b") == [1])


@in_loop
async def test_a_bus_killed_again_and_again_while_it_subscribes(own: RedisServer) -> None:
    async with nodes(own, 2) as (one, two):
        await one.subscribe(*(f"r{number}" for number in range(2_000)))
        for number in range(40):
            own.cli("CLIENT", "KILL", "TYPE", "pubsub")
            one.broker.join(f"more{number}")
            await asyncio.sleep(0.002 * (number % 20))
        await until(lambda: one.broker._bus.up and two.broker._bus.up)
        await one.broker.read({"more39": None})
        await publish(two.broker, "more39", 1)
        await until(lambda: one.offsets("more39") == [1])


# A crowd.


@in_loop
async def test_a_crowd_of_new_rooms_asks_once(redis: RedisServer) -> None:
    async with nodes(redis) as (node,):
        asked: list[int] = []
        heads = node.broker._log.heads

        async def counted(channels: Sequence[str]) -> tuple[int, list[Position]]:
            asked.append(len(channels))
            return await heads(channels)

        node.broker._log.heads = counted  # type: ignore[method-assign]
        names = [f"user:{number}" for number in range(400)]
        for name in names:
            await publish(node.broker, name, 1)
        found = await asyncio.gather(*(attach(node.broker, name) for name in names))
        assert [head.offset for head in found] == [1] * 400
        assert len([size for size in asked if size]) <= 8, asked
        await publish(node.broker, "user:399", 2)
        assert node.offsets("user:399") == [2]


async def attach(broker: RedisBroker, channel: str) -> Position:
    broker.join(channel)
    return (await broker.read({channel: None}))[channel].head


@in_loop
async def test_a_room_that_could_not_be_made_ready_is_so_later(own: RedisServer) -> None:
    async with nodes(own) as (node,):
        own.cli("ACL", "SETUSER", "default", "-evalsha")
        node.broker.join("b")
        for _ in range(2):
            with pytest.raises(PushError):
                await node.broker.read({"b": None})
        own.cli("ACL", "SETUSER", "default", "+evalsha")
        assert (await node.broker.read({"b": None}))["b"].head.offset == 0
        await publish(node.broker, "b", 1)
        assert node.offsets("b") == [1]


@in_loop
async def test_many_rooms_that_cannot_be_read_leave_no_complaint(
    own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of many exceptions has to be looked at, or asyncio logs an error for those that are
    not."""
    async with nodes(own) as (node,):
        own.cli("ACL", "SETUSER", "default", "-evalsha")
        names = [f"r{number}" for number in range(50)]
        for name in names:
            node.broker.join(name)
        with pytest.raises(PushError):
            await node.broker.read(dict.fromkeys(names))
        given_up = asyncio.create_task(node.broker.read(dict.fromkeys(names)))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        own.cli("ACL", "SETUSER", "default", "+evalsha")
    import gc

    gc.collect()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@in_loop
async def test_who_publishes_goes_before_all_who_read(redis: RedisServer) -> None:
    async with nodes(redis) as (node,):
        link = node.broker._link
        reads = [asyncio.create_task(link.read(("PING",))) for _ in range(2_000)]
        publishing = asyncio.create_task(node.broker.publish([ask("a", 1)]))
        await publishing
        assert sum(read.done() for read in reads) <= 2 * BATCH_READS
        assert await asyncio.gather(*reads) == [[b"PONG"]] * 2_000


@in_loop
async def test_reading_outlives_a_break_that_publishing_does_not(own: RedisServer) -> None:
    async with nodes(own) as (node,):
        own.freeze()
        reading = asyncio.create_task(node.broker.history("a", 0, 10))
        started = time.monotonic()
        (answer,) = await node.broker.publish([ask("a", 1)])
        assert isinstance(answer, Unavailable)
        assert PATIENCE <= time.monotonic() - started < READ_PATIENCE
        await until(lambda: not node.broker._link.up)
        own.thaw()
        assert (await reading).reset is None


@in_loop
async def test_many_who_wait_in_vain_end_one_connection(
    own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with nodes(own) as (node,):
        own.freeze()
        waiting = []
        for number in range(300):  # so that their time is over turn after turn of the loop
            waiting.append(asyncio.create_task(node.broker.publish([ask("a", number)])))
            await asyncio.sleep(0)
        for answers in await asyncio.gather(*waiting):
            assert isinstance(answers[0], Unavailable)
        own.thaw()
        await until(lambda: node.broker._link.up)
        assert (await node.broker.history("a", 0, 1)).reset is None
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@in_loop
async def test_an_answer_that_is_here_counts_though_the_loop_is_late(redis: RedisServer) -> None:
    async with nodes(redis) as (node,):
        link = node.broker._link
        generation = link.generation
        asking = asyncio.create_task(link.ask(("PING",)))
        while link._heard_at is None:  # noqa: ASYNC110 - until it has been sent, and not longer
            await asyncio.sleep(0)
        time.sleep(PATIENCE + 0.2)  # noqa: ASYNC251 - the loop is busy
        assert await asking == [b"PONG"]
        assert link.up and link.generation == generation


# A connection aside.


@in_loop
async def test_a_connection_aside_asks_one_thing_at_a_time(redis: RedisServer) -> None:
    aside = await Aside.open(parse_redis_url(redis.url))
    assert await aside.ask("ECHO", b"one") == b"one"
    with pytest.raises(ResponseError):
        await aside.ask("NOSUCH")
    assert await aside.ask("ECHO", "two") == b"two"
    with pytest.raises(TimeoutError):
        await aside.ask("BLPOP", f"nothing-{time.time()}", "5")
    assert await aside.ask("ECHO", "three") == b"three", "and not the answer to what was given up"
    await aside.close()


@in_loop
async def test_a_connection_aside_to_nobody() -> None:
    with pytest.raises(FAILURES):
        await Aside.open(parse_redis_url("redis://127.0.0.1:1/0"))


# What Redis says is not shown.


def test_a_reason_never_quotes_what_came_over_the_wire() -> None:
    from redis.exceptions import InvalidResponse

    assert "secret" not in reason_of(InvalidResponse("Protocol Error: b'{\"secret\":1}'"))
    assert reason_of(ResponseError("OOM command not allowed\nmore")) == "OOM command not allowed"
    assert reason_of(TimeoutError()) == "TimeoutError"
    assert len(reason_of(OSError("x" * 1000))) == 200


@in_loop
async def test_what_fails_in_the_watch_over_the_connections_does_not_end_it(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tick(monkeypatch, 0.02)
    monkeypatch.setattr(redis_upkeep, "DEGRADED_SECONDS", 0.0)
    async with nodes(own) as (node,):
        told: list[bool] = []

        def degraded(degraded: bool) -> None:
            told.append(degraded)
            raise ArithmeticError("a fault of the hub")

        node.broker.degraded = degraded
        own.cli("CLIENT", "KILL", "TYPE", "pubsub")
        # More may follow: without any patience a slow moment is an outage, too.
        await until(lambda: told[:2] == [True, False])
        sung = node.broker._upkeep._sung
        await until(lambda: node.broker._upkeep._sung > sung)
        assert caplog.text.count("event=broker.tick_failed") == len(told)

        async def fault() -> None:
            raise ArithmeticError("a fault of ours")

        await asyncio.wait([node.broker._spawn(fault())])
        await until(lambda: "event=broker.task_failed" in caplog.text)
