"""Every broker against a model: random lives of a log, and each answer checked.

Hypothesis invents the lives: publications, old ids, clients that come back with cursors of any
moment, histories that grow and shrink, time that passes, restarts, disks that fail, logs that are
lost. The model beside it is a list per channel. Clients are told exactly what they missed, or
`reset` where that is the truth, never anything else. A life that ends badly is made as short as
possible and printed as a program.

At the end the test is tested: brokers with a lie in them are caught.
"""

import asyncio
import itertools
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis_server import RedisServer
from test_sqlite import House

from push_server.brokers import redis_upkeep
from push_server.brokers.base import ID_SECONDS, Broker
from push_server.brokers.memory import MemoryBroker
from push_server.brokers.redis import RedisBroker
from push_server.channels import Namespace, Namespaces
from push_server.errors import Conflict, PushError, Unavailable
from push_server.history import EPOCH, FUTURE, TAG, TRIMMED, ChannelLog, History
from push_server.positions import START_TAG, Position, tag_of
from push_server.publications import Publication, Published, PublishRequest

T = TypeVar("T")

JOINED = ("a", "b:1")
CHANNELS = (*JOINED, "c")
"""Two with subscribers, and one that is only published to."""
TTL = 5_000.5
"""Seconds that publications are kept; no rule lets exactly so many pass."""
PATIENCE = 5.0


# The model.


class Kept(NamedTuple):
    """A publication, as its publisher knows it."""

    id: str
    data: bytes
    time: float


class Log:
    """One channel: everything that was ever published to it since it was lost last."""

    def __init__(self) -> None:
        self.entries: list[Kept] = []
        self.spent: dict[str, tuple[int, bytes, float]] = {}
        self.may = 0
        """Up to here publications have been too old or too many at some time."""

    def place(self, request: PublishRequest, now: float) -> tuple[int, bool] | None:
        """Offset and whether it was there; None if the id stands for something else."""
        offset, data, expires = self.spent.get(request.id, (0, b"", 0.0))
        if expires > now:
            return (offset, True) if data == request.data else None
        self.entries.append(Kept(request.id, request.data, now))
        expires = now + max(ID_SECONDS, TTL)
        self.spent[request.id] = len(self.entries), request.data, expires
        return len(self.entries), False

    def floor(self, keep: int, now: float) -> int:
        """Up to here nothing is kept now."""
        old = sum(entry.time <= now - TTL for entry in self.entries)
        floor = max(len(self.entries) - keep, old, 0)
        self.may = max(self.may, floor)
        return floor


class Cursor(NamedTuple):
    """Where a client once stood, in a log that may be lost since."""

    channel: str
    position: Position
    log: Log


# The brokers.


class Home:
    """Where a broker lives: how one is made, what can befall it, and what it said."""

    nodes = 1
    lasts = False
    """Whether a restart loses nothing."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.keep = 20
        self.told: list[list[Publication]] = [[] for _ in range(self.nodes)]
        self.restarted: list[set[str]] = [set() for _ in range(self.nodes)]

    def namespaces(self) -> Namespaces:
        return Namespaces({"*": Namespace(history_size=self.keep, history_ttl=TTL)})

    def deliver(self, node: int) -> Callable[[str, Sequence[Publication]], None]:
        return lambda _, publications: self.told[node].extend(publications)

    def make(self, node: int, budget: int) -> Broker:
        return MemoryBroker(
            self.namespaces(), self.deliver(node), lambda _: None, lambda: self.now
        )

    def lose(self) -> None:
        """Lose everything, while nobody runs."""
        self.now += 1  # so that the epoch is another one

    def close(self) -> None:
        """Nobody lives here any more."""


class SQLiteHome(Home):
    lasts = True

    def __init__(self) -> None:
        super().__init__()
        # No power is cut here, so nothing has to wait for a disk.
        memory = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(
            prefix="push-model-", dir=memory if memory.is_dir() else None
        )
        self.house = House(Path(self._folder.name))
        self.house.faults.synced = False

    def make(self, node: int, budget: int) -> Broker:
        broker = self.house.broker(budget)
        broker.namespaces, broker.deliver = self.namespaces(), self.deliver(node)
        broker.clock = lambda: self.now
        self.house.clock.now = self.now
        return broker

    def lose(self) -> None:
        super().lose()
        for side in ("", "-wal", "-shm"):
            Path(f"{self.house.path}{side}").unlink(missing_ok=True)

    def close(self) -> None:
        self._folder.cleanup()


class RedisHome(Home):
    nodes = 2
    lasts = True
    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"model-{secrets.token_hex(6)}:"

    def make(self, node: int, budget: int) -> Broker:
        broker = RedisBroker(
            f"{self.server.url}?prefix={self.prefix}",
            self.namespaces(), self.deliver(node), lambda _: None, lambda: self.now,
            budget=budget,
        )
        broker.restarted = lambda channel, *_: self.restarted[node].add(channel)
        return broker

    def lose(self) -> None:
        super().lose()
        for key in self.server.cli("KEYS", self.prefix + "*"):
            self.server.cli("DEL", key)

    def close(self) -> None:
        for key in self.server.cli("KEYS", self.prefix + "*"):
            self.server.cli("DEL", key)


# Their lives.

places = st.sampled_from(CHANNELS)
ids = st.integers(0, 12)
budgets = st.sampled_from([0, 20_000, 10**7])


class Life(RuleBasedStateMachine):
    """The life of one log."""

    home_of: Callable[[], Home] = Home
    cursors = Bundle("cursors")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = type(self).home_of()
        self.brokers: list[Broker] = []
        self.logs = {channel: Log() for channel in CHANNELS}
        self.numbers = itertools.count(1)
        self.heard = [0] * self.home.nodes

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 2 * PATIENCE))

    @initialize(budget=budgets)
    def begin(self, budget: int) -> None:
        self.run(self._open(budget))

    async def _open(self, budget: int) -> None:
        self.brokers = [self.home.make(node, budget) for node in range(self.home.nodes)]
        for broker in self.brokers:
            await broker.start()
            for channel in JOINED:
                broker.join(channel)
            await broker.read(dict.fromkeys(JOINED))

    async def _close(self) -> None:
        for broker in self.brokers:
            await broker.close()
        self.brokers = []

    def teardown(self) -> None:
        self.run(self._close())
        self.loop.close()
        self.home.close()

    # Publishing.

    @rule(
        node=st.integers(0, 1),
        wishes=st.lists(
            st.tuples(places, st.none() | ids, st.sampled_from([b"1", b"1", b"2"])),
            min_size=1, max_size=12,
        ),
    )
    def publish(self, node: int, wishes: list[tuple[str, int | None, bytes]]) -> None:
        """New ids, and ids used before, with the same data or with other data."""
        requests = [
            PublishRequest(channel, f"new{next(self.numbers)}" if old is None else f"id{old}", data)
            for channel, old, data in wishes
        ]
        self.run(self._publish(self.brokers[node % len(self.brokers)], requests))

    async def _publish(self, broker: Broker, requests: list[PublishRequest]) -> None:
        answers = await broker.publish(requests)
        for request, answer in zip(requests, answers, strict=True):
            self._expect(request, answer)
        await self._expect_told()

    def _expect(self, request: PublishRequest, answer: Published | PushError) -> None:
        expected = self.logs[request.channel].place(request, self.home.now)
        if expected is None:
            assert isinstance(answer, Conflict), answer
        else:
            assert isinstance(answer, Published), answer
            assert (answer.offset, answer.duplicate) == expected
        for log in self.logs.values():
            log.floor(self.home.keep, self.home.now)

    async def _expect_told(self) -> None:
        """What was placed was delivered on every node, once and in order."""
        expected = {
            channel: [entry.id for entry in self.logs[channel].entries] for channel in JOINED
        }
        deadline = time.monotonic() + PATIENCE
        for node, told in enumerate(self.home.told):
            for channel, wanted in expected.items():
                while True:
                    heard = [p for p in told[self.heard[node]:] if p.channel == channel]
                    if len(heard) >= len(wanted) or time.monotonic() > deadline:
                        break
                    await asyncio.sleep(0.001)
                assert [publication.id for publication in heard] == wanted
                assert [p.position.offset for p in heard] == list(range(1, len(wanted) + 1))

    # Reading.

    @rule(target=cursors, channel=places, back=st.integers(0, 30), node=st.integers(0, 1))
    def remember(self, channel: str, back: int, node: int) -> Cursor:
        """A client has come so far, and goes away."""
        broker = self.brokers[node % len(self.brokers)]
        head = self.run(broker.history(channel, 0, 1)).head
        log = self.logs[channel]
        assert head.offset == len(log.entries)
        offset = max(head.offset - back, 0)
        tag = tag_of(log.entries[offset - 1].id) if offset else START_TAG
        return Cursor(channel, Position(head.epoch, offset, tag), log)

    @rule(cursor=cursors, node=st.integers(0, 1))
    def come_back(self, cursor: Cursor, node: int) -> None:
        """It is told what it missed, or that this cannot be said."""
        channel, position, log = cursor
        broker = self.brokers[node % len(self.brokers)]
        for found in (
            self.run(broker.read({channel: position}))[channel],
            self.run(broker.history(channel, position, 1_000)),
        ):
            assert found.head.offset == len(self.logs[channel].entries)
            if log is not self.logs[channel]:
                assert (found.reset in (EPOCH, FUTURE, TAG), found.publications) == (True, ())
                continue
            gone = log.floor(self.home.keep, self.home.now)
            if position.offset < gone:
                assert found.reset == TRIMMED
            elif position.offset >= log.may:
                assert found.reset is None
            if found.reset is None:
                self._expect_entries(found, position.offset, log)
            else:
                assert (found.reset, found.publications) == (TRIMMED, ())

    def _expect_entries(self, found: History, after: int, log: Log) -> None:
        wanted = list(enumerate(log.entries[after:], after + 1))
        assert [p.position.offset for p in found.publications] == [n for n, _ in wanted]
        assert [(p.id, p.json) for p in found.publications] == [
            (e.id, b'{"channel":"%s","offset":%d,"id":"%s","data":%s}' % (
                found.publications[0].channel.encode(), n, e.id.encode(), e.data
            ))
            for n, e in wanted
        ]

    @rule(cursor=cursors, what=st.sampled_from(["tag", "future", "epoch"]), node=st.integers(0, 1))
    def come_back_with_a_lie(self, cursor: Cursor, what: str, node: int) -> None:
        """A cursor of another log is found out, whatever it is that differs."""
        channel, (epoch, offset, tag), log = cursor
        if log is not self.logs[channel] or offset < log.may:
            return
        lie, reason = {
            "tag": (Position(epoch, offset, "xxxxxx"), TAG),
            "future": (Position(epoch, len(log.entries) + 1, tag), FUTURE),
            "epoch": (Position(epoch - 1, offset, tag), EPOCH),
        }[what]
        found = self.run(self.brokers[node % len(self.brokers)].read({channel: lie}))[channel]
        assert (found.reset, found.publications) == (reason, ())

    @rule(
        channel=places, since=st.integers(0, 40), limit=st.integers(1, 30), node=st.integers(0, 1)
    )
    def page(self, channel: str, since: int, limit: int, node: int) -> None:
        """The history from an offset on has all that is kept, and nothing else."""
        found = self.run(
            self.brokers[node % len(self.brokers)].history(channel, since, limit)
        )
        log = self.logs[channel]
        gone = log.floor(self.home.keep, self.home.now)
        assert found.head.offset == len(log.entries)
        if not found.publications:
            assert max(since, gone) >= len(log.entries) or log.may >= len(log.entries)
            return
        first = found.publications[0].position.offset
        assert max(since, gone) < first <= max(since, log.may) + 1
        assert len(found.publications) == min(limit, len(log.entries) - first + 1)
        for number, publication in enumerate(found.publications, first):
            assert (publication.position.offset, publication.id) == (
                number, log.entries[number - 1].id,
            )

    # What happens to it.

    @rule(keep=st.sampled_from([0, 1, 5, 20, 120]))
    def keep(self, keep: int) -> None:
        """The configuration is read again."""
        self.home.keep = keep
        for broker in self.brokers:
            broker.namespaces = self.home.namespaces()
        for log in self.logs.values():
            log.floor(keep, self.home.now)

    @rule(seconds=st.sampled_from([1.0, 700.0, TTL * 2 - 1, ID_SECONDS / 2, ID_SECONDS * 2]))
    def wait(self, seconds: float) -> None:
        """Time passes: publications get too old, and ids are forgotten."""
        self.home.now += seconds
        if isinstance(self.home, SQLiteHome):
            self.home.house.clock.now = self.home.now
        for log in self.logs.values():
            log.floor(self.home.keep, self.home.now)

    @rule(budget=budgets)
    def restart(self, budget: int) -> None:
        """All processes end and are started again."""
        self.run(self._close())
        if not self.home.lasts:
            self._lost()
        self.run(self._open(budget))

    @rule(budget=budgets)
    def lose(self, budget: int) -> None:
        """The log is destroyed."""
        if self.home.nodes > 1:  # before their eyes
            self.home.lose()
            self._lost()
            self.run(self._notice())
            return
        self.run(self._close())
        self.home.lose()
        self._lost()
        self.run(self._open(budget))

    async def _notice(self) -> None:
        for node, broker in enumerate(self.brokers):
            self.home.restarted[node].clear()
            for channel in JOINED:
                await broker.history(channel, 0, 1)
            assert self.home.restarted[node] == set(JOINED), "their subscribers have been told"

    def _lost(self) -> None:
        self.home.now += 1
        self.logs = {channel: Log() for channel in CHANNELS}
        self.heard = [len(told) for told in self.home.told]

    @precondition(lambda self: isinstance(self.home, SQLiteHome))
    @rule(countdown=st.integers(1, 8))
    def fail(self, countdown: int) -> None:
        """The disk fails in the middle of it: all of a commit, or nothing."""
        assert isinstance(self.home, SQLiteHome)
        faults = self.home.house.faults
        faults.code, faults.countdown = sqlite3.SQLITE_IOERR_WRITE, countdown
        number = next(self.numbers)
        requests = [PublishRequest(channel, f"f{number}", b"1") for channel in CHANNELS]
        answers = self.run(self.brokers[0].publish(requests))
        felt, faults.countdown = faults.countdown <= 0, -1
        if felt and all(isinstance(answer, Unavailable) for answer in answers):
            self.run(self._expect_told())
            return
        # The fault met the housekeeping instead, or came too late.
        for request, answer in zip(requests, answers, strict=True):
            self._expect(request, answer)
        self.run(self._expect_told())


def live(home_of: Callable[[], Home], lives: int, steps: int, **more: Any) -> None:
    """Live so many lives."""
    life = type("Life", (Life,), {"home_of": staticmethod(home_of)})
    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=lives,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


def test_the_memory_broker_does_what_the_model_says() -> None:
    live(Home, 60, 50)


def test_the_sqlite_broker_does_what_the_model_says() -> None:
    live(SQLiteHome, 20, 50)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noticed is noticed by asking."""
    monkeypatch.setattr(redis_upkeep, "TICK", 1_000)


@pytest.mark.usefixtures("quiet")
def test_the_redis_broker_does_what_the_model_says(redis: RedisServer) -> None:
    live(type("OwnHome", (RedisHome,), {"server": redis}), 15, 40)


# Would it notice?


def _forgets_ids(patch: pytest.MonkeyPatch) -> None:
    place = MemoryBroker._place

    def placing(broker: MemoryBroker, *args: Any) -> Published | PushError:
        broker._spent.clear()
        return place(broker, *args)

    patch.setattr(MemoryBroker, "_place", placing)


def _skips_one(patch: pytest.MonkeyPatch) -> None:
    since = ChannelLog.since

    def skipping(log: ChannelLog, position: Position | None) -> History:
        found = since(log, position)
        return History(found.head, found.publications[1:], found.reset)

    patch.setattr(ChannelLog, "since", skipping)


def _believes_any_tag(patch: pytest.MonkeyPatch) -> None:
    since = ChannelLog.since

    def believing(log: ChannelLog, position: Position | None) -> History:
        found = since(log, position)
        return History(found.head) if found.reset == TAG else found

    patch.setattr(ChannelLog, "since", believing)


def _keeps_its_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("push_server.brokers.memory.new_epoch", lambda _: 1)


def _keeps_too_few(patch: pytest.MonkeyPatch) -> None:
    trim = ChannelLog.trim

    def trimming(log: ChannelLog, keep: Namespace, now: float) -> None:
        trim(log, Namespace(history_size=keep.history_size // 2, history_ttl=TTL), now)

    patch.setattr(ChannelLog, "trim", trimming)


def _delivers_twice(patch: pytest.MonkeyPatch) -> None:
    hand_over = MemoryBroker._hand_over

    def twice(broker: MemoryBroker, channel: str, publications: Sequence[Publication]) -> None:
        hand_over(broker, channel, publications)
        hand_over(broker, channel, publications[-1:])

    patch.setattr(MemoryBroker, "_hand_over", twice)


LIES = (
    _forgets_ids, _skips_one, _believes_any_tag, _keeps_its_epoch, _keeps_too_few,
    _delivers_twice,
)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie.__name__).strip("_"))
def test_a_broker_that_lies_is_caught(
    lie: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lie(monkeypatch)
    with pytest.raises((AssertionError, ExceptionGroup)):
        # Found is enough; the shortest such life is not looked for.
        live(Home, 100, 50, phases=[Phase.generate], database=None, derandomize=True)
