"""What the Redis broker keeps: it must not grow with outages, with those who left, or with time."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from redis_server import RedisServer, program
from test_brokers import in_loop, publish
from test_redis import nodes, own
from waiting import until

from push_server.brokers import redis_link, redis_rooms
from push_server.errors import Unavailable
from push_server.revocations import Revocation

__all__ = ["own"]

pytestmark = pytest.mark.skipif(program() is None, reason="no Redis on this machine")


@in_loop
async def test_what_nobody_waits_for_any_more_is_not_kept(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "PATIENCE", 0.05)
    async with nodes(own) as (node,):
        own.kill()
        await until(lambda: not node.broker._link.up)
        for _ in range(5):
            with pytest.raises(Unavailable):
                await node.broker._link.ask(("GET", b"x" * 100_000))
        assert len(node.broker._link._jobs) == 0


@in_loop
async def test_a_channel_that_was_left_leaves_nothing_behind(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_rooms, "LINGER", 0.0)
    async with nodes(redis) as (node,):
        bus, rooms = node.broker._bus, node.broker._rooms
        await node.subscribe("b", "c")
        for channel in ("b", "c"):
            node.broker.leave(channel)
        rooms.forsake()
        await node.subscribe("d")  # answered after the others, on the same connection
        assert not bus._unconfirmed
        assert [channel for channel in "abcd" if channel in rooms] == ["a", "d"]


@in_loop
async def test_all_rooms_catch_up_though_one_is_left_meanwhile(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_rooms, "ROOMS_AT_ONCE", 1)
    async with nodes(redis, 2) as (one, two):
        await two.subscribe("b", "c")
        rooms = two.broker._rooms
        two.broker._bus._heard = lambda *_: None  # deaf: what comes has to be read
        await publish(one.broker, "c", 1)
        heads = two.broker._log.heads

        async def left_meanwhile(channels: Sequence[str]) -> Any:
            if list(channels) == ["a"]:
                two.broker.leave("b")
                monkeypatch.setattr(redis_rooms, "LINGER", 0.0)
                rooms.forsake()
            return await heads(channels)

        monkeypatch.setattr(two.broker._log, "heads", left_meanwhile)
        await rooms.catch_up_all()
        assert two.offsets("c") == [1]


@in_loop
async def test_a_revocation_that_is_over_is_forgotten_here_and_in_redis(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        now = time.time()
        key = one.broker._revocations._key
        await one.broker.revoke(Revocation("sid", "short", now, now + 0.3))
        await one.broker.revoke(Revocation("sid", "long", now, now + 300))
        await until(lambda: len(two.revoked) == 2)
        await until(lambda: redis.cli("HGET", key, '["sid","short"]') is None)
        assert redis.cli("HGET", key, '["sid","long"]')
        known = [node.broker._revocations._known for node in (one, two)]
        await until(lambda: [list(each) for each in known] == [[("sid", "long")]] * 2)
