"""The contract of a broker, run against every broker.

A broker is opened by `World.open`; one line there is all that a new broker adds. Time is
injected. What only makes sense on a disk is in `test_sqlite.py`.
"""

import asyncio
import functools
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from push_server.brokers import BROKERS, make_broker
from push_server.brokers.base import ID_SECONDS, Broker
from push_server.brokers.memory import MemoryBroker
from push_server.brokers.redis import RedisBroker
from push_server.brokers.sqlite import SQLiteBroker
from push_server.channels import Namespace, Namespaces
from push_server.errors import BadInput, PushError
from push_server.history import EPOCH, FUTURE, TAG, TRIMMED, History
from push_server.positions import START_TAG, Position, tag_of
from push_server.publications import Publication, Published, PublishRequest
from push_server.revocations import Revocation

DEADLINE = 20


class World:
    """What surrounds a broker: a clock, a disk, and ears for what it announces."""

    def __init__(self, kind: str, folder: Path, redis: str = "") -> None:
        self.kind = kind
        self.redis = redis
        self.folder = folder
        self.now = 1_800_000_000.0
        self.delivered: list[Publication] = []
        self.groups: list[tuple[str, list[int]]] = []
        self.revoked: list[Revocation] = []

    @property
    def durable(self) -> bool:
        return self.kind != "memory"

    def deliver(self, channel: str, publications: Sequence[Publication]) -> None:
        assert all(publication.channel == channel for publication in publications)
        self.delivered.extend(publications)
        self.groups.append((channel, [item.position.offset for item in publications]))

    @asynccontextmanager
    async def open(self, **keep: Namespace) -> AsyncIterator[Broker]:
        namespaces = Namespaces(keep)
        broker: Broker
        if self.kind == "memory":
            broker = MemoryBroker(namespaces, self.deliver, self.revoked.append, lambda: self.now)
        elif self.kind == "redis":
            broker = RedisBroker(
                f"{self.redis}?prefix={self._redis_prefix()}",
                namespaces, self.deliver, self.revoked.append, lambda: self.now,
            )
        else:
            path = str(self.folder / "push.db")
            broker = SQLiteBroker(
                path, namespaces, self.deliver, self.revoked.append, lambda: self.now
            )
        await broker.start()
        # Two channels have subscribers here, as the hub would say; the others are only published.
        for channel in ("a", "b"):
            broker.join(channel)
        await broker.read({"a": None, "b": None})
        try:
            yield broker
        finally:
            await broker.close()

    def _redis_prefix(self) -> str:
        """The log is as durable as this file: its name is the prefix of all keys."""
        name = self.folder / "prefix"
        if not name.exists():
            name.write_text(f"test-{secrets.token_hex(6)}:")
        return name.read_text()


def make_world(request: pytest.FixtureRequest, folder: Path) -> World:
    if request.param == "redis":
        return World("redis", folder, request.getfixturevalue("redis").url)
    return World(request.param, folder)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return make_world(request, tmp_path)


@pytest.fixture(params=["sqlite", "redis"])
def durable_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return make_world(request, tmp_path)


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test that awaits, with a deadline."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def limited() -> None:
            async with asyncio.timeout(DEADLINE):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


def ask(channel: str, number: int, data: bytes | None = None) -> PublishRequest:
    return PublishRequest(channel, f"id{number}", b"%d" % number if data is None else data)


async def publish(broker: Broker, channel: str, *numbers: int) -> list[int]:
    """Publish `id<number>` for each; the offsets they got."""
    answers = await broker.publish([ask(channel, number) for number in numbers])
    return [published(answer).offset for answer in answers]


def published(answer: Published | PushError) -> Published:
    assert isinstance(answer, Published), answer
    return answer


def offsets(history: History) -> list[int]:
    return [item.position.offset for item in history.publications]


async def head_of(broker: Broker, channel: str) -> Position:
    return (await broker.read({channel: None}))[channel].head


async def resume(broker: Broker, channel: str, position: Position) -> History:
    return (await broker.read({channel: position}))[channel]


def now_or_never(reading: Awaitable[Mapping[str, History]]) -> Mapping[str, History]:
    """The result of something that must not wait for anything."""
    try:
        reading.__await__().send(None)
    except StopIteration as finished:
        result: Mapping[str, History] = finished.value
        return result
    raise AssertionError("it waited")


# The table.


def test_every_broker_is_in_the_contract() -> None:
    assert set(BROKERS) == {"memory", "sqlite", "redis", "rediss", "unix"}


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory:", MemoryBroker),
        ("sqlite:push.db", SQLiteBroker),
        ("sqlite:/a/b.db", SQLiteBroker),
        ("redis://127.0.0.1:6379/0", RedisBroker),
        ("rediss://redis.example.org", RedisBroker),
        ("unix:///run/redis/redis.sock?db=1&prefix=site:", RedisBroker),
    ],
)
def test_the_setting_chooses_the_broker(url: str, kind: type) -> None:
    assert type(make_broker(url, Namespaces(), lambda *_: None, lambda _: None)) is kind


@pytest.mark.parametrize(
    "url", ["", "memory", "memory:x", "sqlite", "sqlite:", "sqlite::memory:", "mysql:x", "SQLITE:x"]
)
def test_a_broker_that_is_none_names_the_setting(url: str) -> None:
    with pytest.raises(BadInput, match='broker = "') as refused:
        make_broker(url, Namespaces(), lambda *_: None, lambda _: None)
    assert refused.value.code == "broker_unusable"


# Order and places.


@in_loop
async def test_offsets_count_from_one_without_gaps(world: World) -> None:
    async with world.open() as broker:
        assert await publish(broker, "a", 1, 2) == [1, 2]
        assert await publish(broker, "b", 1) == [1]
        assert await publish(broker, "a", 3) == [3]
        assert (await head_of(broker, "a")).offset == 3
        assert (await broker.publish([])) == []


@in_loop
async def test_an_acknowledgement_names_the_place(world: World) -> None:
    async with world.open() as broker:
        (answer,) = await broker.publish([ask("a", 1)])
        head = await head_of(broker, "a")
        assert answer == Published("a", head.epoch, 1, "id1", duplicate=False)
        assert head.tag == tag_of("id1")
        assert head.epoch == 1_800_000_000_000_000 < 2**53


@in_loop
async def test_a_channel_nobody_published_to_stands_at_the_beginning(world: World) -> None:
    async with world.open() as broker:
        await publish(broker, "a", 1)
        epoch = (await head_of(broker, "a")).epoch
        assert await head_of(broker, "b") == Position(epoch, 0, START_TAG)
        history = await resume(broker, "b", Position(epoch, 0, START_TAG))
        assert (history.reset, offsets(history)) == (None, [])


@in_loop
async def test_one_call_is_delivered_grouped_by_channel(world: World) -> None:
    async with world.open() as broker:
        await broker.publish([ask("a", 1), ask("b", 1), ask("a", 2), ask("b", 2), ask("a", 3)])
        assert sorted(world.groups) == [("a", [1, 2, 3]), ("b", [1, 2])]


@in_loop
async def test_delivery_comes_before_the_answer(world: World) -> None:
    async with world.open() as broker:
        for number in range(1, 4):
            await publish(broker, "a", number)
            assert len(world.delivered) == number


@in_loop
async def test_delivered_is_what_history_holds(world: World) -> None:
    async with world.open() as broker:
        await broker.publish(
            [PublishRequest("a", "x", b'{"\\u00e9":1}', user="42", exclude="tab"), ask("a", 1)]
        )
        kept = (await broker.history("a", 0, 10)).publications
        assert [item.json for item in kept] == [item.json for item in world.delivered]
        assert [item.exclude for item in kept] == ["tab", None]
        assert kept[0].json == (
            b'{"channel":"a","offset":1,"id":"x","user":"42","exclude":"tab","data":{"\\u00e9":1}}'
        )


@in_loop
async def test_many_publishers_make_one_order(world: World) -> None:
    async with world.open() as broker:
        chance = random.Random(11)
        channels = ("c0", "c1", "c2")
        for channel in channels:
            broker.join(channel)
        await broker.read(dict.fromkeys(channels))

        async def publisher(name: int) -> None:
            for batch in range(20):
                channel = chance.choice(channels)
                count = chance.randrange(1, 5)
                await broker.publish(
                    [PublishRequest(channel, f"{name}.{batch}.{n}", b"1") for n in range(count)]
                )

        await asyncio.gather(*(publisher(name) for name in range(8)))
        for channel in channels:
            heard = [item for item in world.delivered if item.channel == channel]
            assert [item.position.offset for item in heard] == list(range(1, len(heard) + 1))
            # A batch stays in one piece and in its order.
            parts = [tuple(map(int, item.id.split("."))) for item in heard]
            for before, after in pairwise(parts):
                assert after[2] == (before[2] + 1 if after[:2] == before[:2] else 0)
            history = await broker.history(channel, 0, 10_000)
            assert [item.json for item in history.publications] == [item.json for item in heard]


@in_loop
async def test_a_fault_in_delivery_is_not_the_publishers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(channel: str, publications: Sequence[Publication]) -> None:
        raise RuntimeError("a bug upstairs")

    async with world.open() as broker:
        broker.deliver = broken
        assert await publish(broker, "a", 1) == [1]
        broker.deliver = world.deliver
        assert await publish(broker, "a", 2) == [2]
    assert "event=deliver.failed channel=a" in caplog.text


# Ids.


@in_loop
async def test_an_id_is_published_once(world: World) -> None:
    async with world.open() as broker:
        first = published((await broker.publish([ask("a", 1)]))[0])
        await publish(broker, "a", 2)
        again = published((await broker.publish([ask("a", 1)]))[0])
        assert again == Published("a", first.epoch, 1, "id1", duplicate=True)
        assert len(world.delivered) == 2


@in_loop
async def test_an_id_twice_in_one_call(world: World) -> None:
    async with world.open() as broker:
        answers = await broker.publish([ask("a", 1), ask("a", 2), ask("a", 1), ask("a", 1, b"7")])
        assert [published(answer).offset for answer in answers[:3]] == [1, 2, 1]
        assert [published(answer).duplicate for answer in answers[:3]] == [False, False, True]
        assert isinstance(answers[3], PushError)
        assert world.groups == [("a", [1, 2])]


@in_loop
async def test_an_id_twice_at_the_same_time(world: World) -> None:
    async with world.open() as broker:
        answers = await asyncio.gather(*(broker.publish([ask("a", 1)]) for _ in range(10)))
        places = [published(answer) for (answer,) in answers]
        assert {place.offset for place in places} == {1}
        assert [place.duplicate for place in places].count(False) == 1
        assert len(world.delivered) == 1


@in_loop
async def test_an_id_for_other_data_is_a_conflict_and_stores_nothing(world: World) -> None:
    async with world.open() as broker:
        await publish(broker, "a", 1)
        answers = await broker.publish([ask("a", 1, b'"other"'), ask("a", 2)])
        assert isinstance(answers[0], PushError)
        assert (answers[0].status, answers[0].code) == (409, "id_conflict")
        assert published(answers[1]).offset == 2
        kept = (await broker.history("a", 0, 10)).publications
        assert kept[0].json == b'{"channel":"a","offset":1,"id":"id1","data":1}'


@in_loop
async def test_an_id_belongs_to_its_channel(world: World) -> None:
    async with world.open() as broker:
        # Joined with a separator, these two would be one key.
        one, two = PublishRequest("a:b", "c", b"1"), PublishRequest("a", "b:c", b"1")
        answers = await broker.publish([one, two])
        assert [published(answer).duplicate for answer in answers] == [False, False]


@in_loop
async def test_an_id_is_remembered_for_a_day(world: World) -> None:
    async with world.open() as broker:
        await publish(broker, "a", 1, 2)
        world.now += ID_SECONDS - 0.001
        assert await publish(broker, "a", 1) == [1]
        world.now += 0.001
        assert await publish(broker, "a", 1) == [3]
        # And again, from its new place.
        world.now += ID_SECONDS - 0.001
        assert await publish(broker, "a", 1) == [3]
        assert await publish(broker, "a", 2) == [4]


@in_loop
async def test_an_id_is_remembered_as_long_as_the_history(world: World) -> None:
    async with world.open(a=Namespace(history_ttl=3 * ID_SECONDS)) as broker:
        await publish(broker, "a", 1)
        world.now += 3 * ID_SECONDS - 1
        assert await publish(broker, "a", 1) == [1]


# History and recovery.


@in_loop
async def test_a_client_gets_what_it_missed(world: World) -> None:
    async with world.open() as broker:
        positions = [await head_of(broker, "a")]
        for number in range(1, 6):
            await publish(broker, "a", number)
            positions.append(await head_of(broker, "a"))
        for offset, position in enumerate(positions):
            history = await resume(broker, "a", position)
            assert (history.reset, offsets(history)) == (None, list(range(offset + 1, 6)))


@in_loop
async def test_channels_are_answered_each_for_itself(world: World) -> None:
    async with world.open() as broker:
        await publish(broker, "a", 1, 2)
        await publish(broker, "b", 1)
        a, b = await head_of(broker, "a"), await head_of(broker, "b")
        answers = await broker.read(
            {"a": a._replace(offset=1, tag=tag_of("id1")), "b": b._replace(offset=5), "c": None}
        )
        assert offsets(answers["a"]) == [2]
        assert answers["b"] == History(b, (), FUTURE)
        assert answers["c"].head.offset == 0
        assert await broker.read({}) == {}


@in_loop
async def test_why_a_client_must_reset(world: World) -> None:
    async with world.open(a=Namespace(history_size=2)) as broker:
        await publish(broker, "a", 1, 2, 3, 4)
        head = await head_of(broker, "a")
        wanted = {
            head._replace(epoch=head.epoch - 1): EPOCH,
            head._replace(epoch=head.epoch + 1): EPOCH,
            head._replace(offset=5): FUTURE,
            head._replace(offset=2**53 - 1): FUTURE,
            head._replace(tag=tag_of("other")): TAG,
            Position(head.epoch, 3, tag_of("id4")): TAG,
            Position(head.epoch, 2, tag_of("id2")): None,
            Position(head.epoch, 2, tag_of("id1")): TAG,
            Position(head.epoch, 1, tag_of("id1")): TRIMMED,
            Position(head.epoch, 0, START_TAG): TRIMMED,
        }
        for position, reason in wanted.items():
            history = await resume(broker, "a", position)
            assert history.reset == reason
            assert history.head == head


@pytest.mark.parametrize("size", [0, 1, 3])
@in_loop
async def test_history_by_count(world: World, size: int) -> None:
    async with world.open(a=Namespace(history_size=size)) as broker:
        await publish(broker, "a", *range(1, 101))
        head = await head_of(broker, "a")
        assert offsets(await broker.history("a", 0, 1000)) == list(range(101 - size, 101))
        edge = Position(head.epoch, 100 - size, tag_of(f"id{100 - size}"))
        assert offsets(await resume(broker, "a", edge)) == list(range(101 - size, 101))
        beyond = Position(head.epoch, 99 - size, tag_of(f"id{99 - size}"))
        assert (await resume(broker, "a", beyond)).reset == TRIMMED


@in_loop
async def test_history_by_age(world: World) -> None:
    async with world.open(a=Namespace(history_ttl=60)) as broker:
        for number in (1, 2, 3):
            await publish(broker, "a", number)
            world.now += 10
        world.now += 29.5
        assert offsets(await broker.history("a", 0, 10)) == [1, 2, 3]
        world.now += 0.5
        assert offsets(await broker.history("a", 0, 10)) == [2, 3]
        head = await head_of(broker, "a")
        assert (await resume(broker, "a", head._replace(offset=0, tag="0"))).reset == TRIMMED
        assert offsets(await resume(broker, "a", head._replace(offset=1, tag=tag_of("id1")))) == [
            2,
            3,
        ]
        world.now += 1000
        assert offsets(await broker.history("a", 0, 10)) == []
        assert await head_of(broker, "a") == head
        assert (await resume(broker, "a", head)).reset is None
        assert await publish(broker, "a", 4) == [4]


@in_loop
async def test_history_by_bytes(world: World) -> None:
    async with world.open(a=Namespace(history_bytes=1000)) as broker:
        for number in range(1, 21):
            await broker.publish([ask("a", number, b'"%s"' % (b"x" * 200))])
        size = len(world.delivered[-1].json)
        kept = 1000 // size
        assert offsets(await broker.history("a", 0, 100)) == list(range(21 - kept, 21))


@in_loop
async def test_memory_keeps_nothing_of_channels_that_are_quiet_for_long(tmp_path: Path) -> None:
    world = World("memory", tmp_path)
    namespaces = {"brief": Namespace(history_ttl=10), "long": Namespace(history_ttl=10_000)}
    async with world.open(**namespaces) as broker:
        assert isinstance(broker, MemoryBroker)
        for number in range(100):
            await broker.publish([ask(f"brief:{number}", 1), ask(f"long:{number}", 1)])
        world.now += 11
        await publish(broker, "a", *range(150))
        for number in range(150, 201):
            await publish(broker, "a", number)
        keeping = {channel for channel, log in broker._logs.items() if log.window}
        assert keeping == {"a", *(f"long:{number}" for number in range(100))}
        assert await publish(broker, "brief:7", 2) == [2]


@in_loop
async def test_namespaces_can_change_while_running(world: World) -> None:
    async with world.open(a=Namespace(history_size=100)) as broker:
        await publish(broker, "a", *range(1, 51))
        broker.namespaces = Namespaces({"a": Namespace(history_size=5)})
        assert offsets(await broker.history("a", 0, 100)) == [46, 47, 48, 49, 50]
        await publish(broker, "a", 51)
        assert offsets(await broker.history("a", 0, 100)) == [47, 48, 49, 50, 51]


@in_loop
async def test_history_page_by_page(world: World) -> None:
    async with world.open() as broker:
        await publish(broker, "a", *range(1, 8))
        after, seen = 0, []
        while page := offsets(await broker.history("a", after, 3)):
            assert len(page) <= 3
            seen += page
            after = page[-1]
        assert seen == [1, 2, 3, 4, 5, 6, 7]
        assert (await broker.history("never:seen", 0, 10)).head.offset == 0


@in_loop
async def test_recent_history_is_read_without_waiting(world: World) -> None:
    async with world.open() as broker:
        await publish(broker, "a", 1, 2, 3)
        head = await head_of(broker, "a")
        answers = now_or_never(broker.read({"a": head._replace(offset=1, tag=tag_of("id1"))}))
        assert offsets(answers["a"]) == [2, 3]


@in_loop
async def test_nothing_is_missed_between_reading_and_going_live(world: World) -> None:
    async with world.open() as broker:
        await publish(broker, "a", *range(1, 101))
        start = (await head_of(broker, "a"))._replace(offset=50, tag=tag_of("id50"))
    # A new broker on the same log has to go to the disk; one in memory has begun anew.
    async with world.open() as broker:
        if not world.durable:
            await publish(broker, "a", *range(1, 101))
            start = start._replace(epoch=(await head_of(broker, "a")).epoch)
        number = 100
        for _ in range(30):
            tasks = []
            held_from = len(world.delivered)
            reading = asyncio.create_task(broker.read({"a": start}))
            for _ in range(3):
                number += 1
                tasks.append(asyncio.create_task(publish(broker, "a", number)))
            history = (await reading)["a"]
            await asyncio.gather(*tasks)
            assert history.reset is None
            replayed = offsets(history)
            held = [item.position.offset for item in world.delivered[held_from:]]
            merged = replayed + [offset for offset in held if offset > replayed[-1]]
            assert merged == list(range(51, number + 1))
            assert replayed[-1] == history.head.offset


# Claims and revocations.


@in_loop
async def test_a_key_is_claimed_once(world: World) -> None:
    async with world.open() as broker:
        assert await broker.claim("ticket", 30)
        assert not await broker.claim("ticket", 30)
        assert await broker.claim("other", 30)
        world.now += 29.9
        assert not await broker.claim("ticket", 30)
        world.now += 0.1
        assert await broker.claim("ticket", 30)


@in_loop
async def test_of_many_who_claim_at_once_one_gets_it(world: World) -> None:
    async with world.open() as broker:
        got = await asyncio.gather(*(broker.claim("ticket", 30) for _ in range(20)))
        assert sorted(got) == [False] * 19 + [True]


@in_loop
async def test_a_revocation_is_announced(world: World) -> None:
    async with world.open() as broker:
        revocation = Revocation("sid", "s1", before=world.now, expires=world.now + 3600)
        await broker.revoke(revocation)
        assert world.revoked == [revocation]


# A log that outlives the process.


@in_loop
async def test_a_restart_of_a_log_that_is_lost_is_another_epoch(world: World) -> None:
    async with world.open() as broker:
        await publish(broker, "a", 1)
        before = await head_of(broker, "a")
    for file in world.folder.iterdir():
        file.unlink()
    world.now += 0.001
    async with world.open() as broker:
        await publish(broker, "a", 1, 2)
        assert (await head_of(broker, "a")).epoch > before.epoch
        assert (await resume(broker, "a", before)).reset == EPOCH


@in_loop
async def test_a_restart_changes_nothing(durable_world: World) -> None:
    world, keep = durable_world, Namespace(history_size=3)
    async with world.open(a=keep) as broker:
        await publish(broker, "a", 1, 2, 3, 4, 5)
        await publish(broker, "b", 1)
        before = await broker.read({"a": None, "b": None, "c": None})
        live = [item.json for item in world.delivered if item.channel == "a"]
    async with world.open(a=keep) as broker:
        assert await broker.read({"a": None, "b": None, "c": None}) == before
        head = before["a"].head
        history = await resume(broker, "a", head._replace(offset=2, tag=tag_of("id2")))
        assert [item.json for item in history.publications] == live[2:]
        # The tag of the floor is still known, although its publication is out of the history.
        assert (await resume(broker, "a", head._replace(offset=2, tag="aaaaaa"))).reset == TAG
        assert (await resume(broker, "a", Position(head.epoch, 1, "aaaaaa"))).reset == TRIMMED
        assert published((await broker.publish([ask("a", 4)]))[0]).duplicate
        assert await publish(broker, "a", 6) == [6]
        assert await publish(broker, "c", 1) == [1]


@in_loop
async def test_a_claim_outlives_a_restart(durable_world: World) -> None:
    world = durable_world
    async with world.open() as broker:
        assert await broker.claim("ticket", 30)
    async with world.open() as broker:
        assert not await broker.claim("ticket", 30)
        world.now += 30
        assert await broker.claim("ticket", 30)


@in_loop
async def test_revocations_in_force_are_announced_at_start(durable_world: World) -> None:
    world = durable_world
    now = world.now
    async with world.open() as broker:
        await broker.revoke(Revocation("sid", "s1", now, now + 100))
        await broker.revoke(Revocation("user", "42", now + 5, now + 900))
        await broker.revoke(Revocation("user", "42", now, now + 1000))
    world.revoked.clear()
    world.now += 100
    async with world.open():
        # One per claim, the later moment of each; those that are over are not mentioned.
        assert world.revoked == [Revocation("user", "42", now + 5, now + 1000)]
