"""Wildcards over Redis: every publication of a namespace once and in order, or a gap is told."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis_server import RedisServer, program
from test_brokers import in_loop, publish
from test_redis import Node, nodes, tick
from waiting import until

from push_server.brokers import redis_rooms, redis_watches
from push_server.brokers.redis_connection import Ear
from push_server.errors import Denied, TooMany
from push_server.history import EPOCH

pytestmark = pytest.mark.skipif(program() is None, reason="no Redis on this machine")


@pytest.fixture(scope="module")
def own() -> Iterator[RedisServer]:
    """A Redis that nobody else listens to."""
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def watching(server: RedisServer, *prefixes: str) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes, of which the first watches these."""
    async with nodes(server, 2) as (one, two):
        for prefix in prefixes:
            await one.broker.watch(prefix)
        yield one, two


def patterns(server: RedisServer) -> int:
    return int(server.cli("PUBSUB", "NUMPAT"))


@in_loop
async def test_all_channels_of_a_namespace_are_heard(own: RedisServer) -> None:
    assert patterns(own) == 0, "where nobody asks, nobody pays"
    async with watching(own, "c:", "c:x/") as (one, two):
        assert patterns(own) == 1
        for number in range(1, 4):  # of its own, too
            await publish(two.broker, "c:x/y", number)
            await publish(one.broker, "c:x/y", number + 10)
            await publish(two.broker, "d:1", number)
        await until(lambda: one.offsets("c:x/y") == [1, 2, 3, 4, 5, 6])
        assert one.offsets("d:1") == two.offsets("c:x/y") == []
        one.broker.unwatch("c:")
        assert patterns(own) == 1
        one.broker.unwatch("c:x/")
        await until(lambda: patterns(own) == 0)
        await publish(two.broker, "c:x/y", 7)
        await one.broker.watch("")
        await publish(two.broker, "d:1", 4)
        await publish(two.broker, "c:z", 1)
        await until(lambda: one.offsets("c:z") == [1])
        assert (one.offsets("d:1"), one.offsets("c:x/y")[-1]) == ([4], 6)


@in_loop
async def test_once_and_in_order_whoever_comes_and_goes(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers, names and patterns bring the same publications on three ways."""
    monkeypatch.setattr(redis_rooms, "LINGER", 0.3)
    tick(monkeypatch, 0.02)
    channels = [f"c:{number}" for number in range(4)]
    async with watching(own, "c:") as (one, two):

        async def publisher(node: Node, name: int) -> None:
            for number in range(60):
                await publish(node.broker, channels[number % 4], name + number)
                await asyncio.sleep(0.01 if number % 20 else 0.5)

        async def guest(channel: str) -> None:
            while True:
                one.broker.join(channel)
                await one.broker.read({channel: None})
                one.broker.leave(channel)
                await asyncio.sleep(0.003)

        guests = [asyncio.create_task(guest(channel)) for channel in channels[:2]]
        await asyncio.gather(publisher(one, 0), publisher(two, 100), publisher(two, 200))
        await until(lambda: all(len(one.offsets(channel)) >= 45 for channel in channels))
        for channel in channels:
            assert one.offsets(channel) == list(range(1, 46))
        for task in guests:
            task.cancel()
        assert one.restarts == []


@in_loop
async def test_a_channel_that_is_joined_begins_where_the_bus_stands(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log knows of publications that the bus has yet to bring, and whoever watches is owed."""
    gate = asyncio.Event()
    gate.set()
    hear = Ear.hear

    async def late(ear: Ear) -> Any:
        heard = await hear(ear)
        await gate.wait()
        return heard

    monkeypatch.setattr(Ear, "hear", late)
    async with watching(own, "c:") as (one, two):
        heads = one.broker._log.heads

        async def ahead(names: Any) -> Any:
            if "c:x" in names and gate.is_set() and not one.offsets("c:x"):
                gate.clear()
                await publish(two.broker, "c:x", 1, 2)
                asyncio.get_running_loop().call_later(0.1, gate.set)
            return await heads(names)

        monkeypatch.setattr(one.broker._log, "heads", ahead)
        await one.subscribe("c:x")
        await until(lambda: one.offsets("c:x") == [1, 2])
        # Nor is one forgotten whose last publication we know from the answer alone.
        await publish(two.broker, "c:y", 1)
        await until(lambda: one.offsets("c:y") == [1])
        one.broker._rooms._rooms["c:y"].deserted = 0.0
        gate.clear()
        await publish(one.broker, "c:y", 2)
        one.broker._rooms.forsake()
        gate.set()
        await publish(two.broker, "c:y", 3)
        await until(lambda: len(one.offsets("c:y")) > 2)
        assert one.offsets("c:y") == [1, 2, 3]


@in_loop
async def test_a_quiet_channel_is_forgotten_and_what_it_keeps_is_not(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_rooms, "LINGER", 0.2)
    tick(monkeypatch, 0.05)
    async with watching(own, "c:") as (one, two):
        await publish(two.broker, "c:x", 1, 2)
        await until(lambda: one.offsets("c:x") == [1, 2])
        start = one.delivered[0].position
        one.broker.join("c:x")  # it has seen two go by, and yet can say what they were
        found = (await one.broker.read({"c:x": start}))["c:x"]
        assert [item.position.offset for item in found.publications] == [2]
        one.broker.leave("c:x")
        await until(lambda: "c:x" not in one.broker._rooms)
        await publish(two.broker, "c:x", 3)
        await until(lambda: one.offsets("c:x") == [1, 2, 3])
        one.broker.unwatch("c:")
        await until(lambda: "c:x" not in one.broker._rooms)


@in_loop
async def test_a_gap_in_the_bus_is_told(own: RedisServer) -> None:
    async with watching(own, "c:") as (one, two):
        missed: list[str] = []
        one.broker.missed = lambda: missed.append("one")
        two.broker.missed = lambda: missed.append("two")
        await publish(two.broker, "c:gap", 1)
        await until(lambda: one.offsets("c:gap") == [1])
        own.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await publish(two.broker, "c:gap", 2)
        await until(lambda: missed == ["one"])
        await publish(two.broker, "c:gap", 3)
        await publish(two.broker, "c:new", 1)
        await until(lambda: one.offsets("c:new") == [1])
        await until(lambda: one.offsets("c:gap") in ([1, 2, 3], [1, 3]))
        # A stream that is another one is told by its name.
        own.cli("DEL", *own.cli("KEYS", "*c:c:gap"))
        await publish(two.broker, "c:gap", 4)
        await until(lambda: one.restarts)
        assert one.restarts[0][:2] == ("c:gap", EPOCH)
        assert missed == ["one"]


@in_loop
async def test_what_redis_refuses(own: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = f"t-{secrets.token_hex(6)}:"
    rule = ["ACL", "SETUSER", "small", "on", ">pw", "~*", f"&{prefix}*", "+@all"]
    own.cli(*rule)
    node = Node(own.url.replace("//", "//small:pw@") + f"?prefix={prefix}")
    await node.broker.start()
    try:
        await node.subscribe("a")
        with pytest.raises(Denied, match=rf"PSUBSCRIBE {prefix}0/c:c:\*"):
            await node.broker.watch("c:")
        await publish(node.broker, "a", 1)
        own.cli(*rule, f"&{prefix}0/c:c:*")
        await node.broker.watch("c:")
        monkeypatch.setattr(redis_watches, "NAMESPACES_LIMIT", 1)
        await node.broker.watch("c:x/")
        with pytest.raises(TooMany):
            await node.broker.watch("d:")
        own.cli("PUBLISH", f"{prefix}0/c:c:x", "junk")
        own.cli("PUBLISH", f"{prefix}0/c:c:x", "! junk")
        await publish(node.broker, "c:y", 1)
        await until(lambda: node.offsets("c:y") == [1])
        assert node.offsets() == [1]
        assert node.broker._bus._connections == 1, "and nothing was ever broken off"
    finally:
        await node.broker.close()
        own.cli("ACL", "DELUSER", "small")


@in_loop
async def test_what_redis_refuses_later_leaves_the_bus_up() -> None:
    with RedisServer() as server:
        async with watching(server, "c:") as (one, _):
            unheard: list[str] = []
            one.broker.unheard = unheard.append
            # It cuts whoever listens to what it has just forbidden.
            server.cli("ACL", "SETUSER", "default", "resetchannels", "&t-*")
            bus = one.broker._bus
            await until(lambda: bus._connections > 1 and bus.up)
            assert (patterns(server), unheard) == (0, ["c:"])
