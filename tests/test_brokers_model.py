"""The SQLite broker against a model: random work, faults and restarts, and every answer checked.

The model is a list of ids per channel. Clients keep cursors from any moment of the past and
come back with them; each is told exactly what it missed, or `reset` where the history kept
does not reach back that far, never anything else. The seed of a failure is in its test id.
"""

import random
import sqlite3
from pathlib import Path

import pytest
from test_brokers import in_loop, offsets, resume
from test_sqlite import House

from push_server.brokers.base import ID_SECONDS
from push_server.brokers.sqlite import SQLiteBroker
from push_server.channels import Namespace, Namespaces
from push_server.errors import Conflict, Unavailable
from push_server.history import TRIMMED
from push_server.positions import START_TAG, Position, tag_of
from push_server.publications import Published, PublishRequest

STEPS = 250
CHANNELS = ("a", "b", "c:1")


class Model:
    """What the log must hold, and the work that is done to it."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self.house = house
        self.chance = chance
        self.keep = 20
        self.ids: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
        self.spent: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.floors = dict.fromkeys(CHANNELS, 0)
        """Nothing below was ever promised again: the narrowest history there was."""
        self.made = 0

    def namespaces(self) -> Namespaces:
        return Namespaces({"*": Namespace(history_size=self.keep, history_ttl=1e12)})

    def request(self) -> PublishRequest:
        """Mostly a new id, sometimes one used before, with the same data or with other data."""
        channel = self.chance.choice(CHANNELS)
        if self.ids[channel] and self.chance.random() < 0.2:
            name = self.chance.choice(self.ids[channel])
        else:
            self.made += 1
            name = f"id{self.made}"
        return PublishRequest(channel, name, self.chance.choice([b"1", b"1", b"1", b"2"]))

    async def publish(self, broker: SQLiteBroker) -> None:
        requests = [self.request() for _ in range(self.chance.randrange(1, 12))]
        told = len(self.house.delivered)
        answers = await broker.publish(requests)
        expected = []
        for request, answer in zip(requests, answers, strict=True):
            log = self.ids[request.channel]
            spent = self.spent.get((request.channel, request.id))
            if spent is not None:
                if spent[1] != request.data:
                    assert isinstance(answer, Conflict)
                else:
                    assert isinstance(answer, Published)
                    assert (answer.offset, answer.duplicate) == (spent[0], True)
                continue
            log.append(request.id)
            self.spent[request.channel, request.id] = (len(log), request.data)
            assert isinstance(answer, Published)
            assert (answer.offset, answer.duplicate) == (len(log), False)
            expected.append((request.channel, len(log), request.id))
        heard = [(p.channel, p.position.offset, p.id) for p in self.house.delivered[told:]]
        assert sorted(heard) == sorted(expected)

    async def fail(self, broker: SQLiteBroker) -> None:
        faults = self.house.faults
        faults.countdown = self.chance.randrange(1, 8)
        faults.code = sqlite3.SQLITE_IOERR_WRITE
        before = {channel: list(log) for channel, log in self.ids.items()}
        told = len(self.house.delivered)
        answers = await broker.publish([PublishRequest(c, f"lost{c}", b"1") for c in CHANNELS])
        felt = faults.countdown <= 0
        faults.countdown = -1
        if felt and all(isinstance(answer, Unavailable) for answer in answers):
            assert len(self.house.delivered) == told
            assert self.ids == before
            return
        # The fault met the housekeeping instead, or came too late.
        for channel, answer in zip(CHANNELS, answers, strict=True):
            assert isinstance(answer, Published)
            if not answer.duplicate:
                self.ids[channel].append(f"lost{channel}")
                self.spent[channel, f"lost{channel}"] = (len(self.ids[channel]), b"1")
            assert self.ids[channel][answer.offset - 1] == f"lost{channel}"

    async def come_back(self, broker: SQLiteBroker) -> None:
        channel = self.chance.choice(CHANNELS)
        log = self.ids[channel]
        offset = self.chance.randrange(len(log) + 1)
        if self.chance.random() < 0.5:
            offset = max(len(log) - self.chance.randrange(25), 0)
        tag = tag_of(log[offset - 1]) if offset else START_TAG
        epoch = (await broker.read({channel: None}))[channel].head.epoch
        history = await resume(broker, channel, Position(epoch, offset, tag))
        assert history.head.offset == len(log)
        if offset < len(log) - self.keep:
            assert history.reset == TRIMMED
        elif offset >= self.floors[channel]:
            assert history.reset is None
        if history.reset is None:
            assert offsets(history) == list(range(offset + 1, len(log) + 1))
            assert [item.id for item in history.publications] == log[offset:]
        else:
            assert (history.reset, history.publications) == (TRIMMED, ())

    def change_history(self, broker: SQLiteBroker) -> None:
        # What a narrower history has dropped does not come back when it is widened.
        self.note_floors()
        self.keep = self.chance.choice([0, 1, 5, 20, 100])
        broker.namespaces = self.namespaces()
        self.note_floors()

    def note_floors(self) -> None:
        for channel, log in self.ids.items():
            self.floors[channel] = max(self.floors[channel], len(log) - self.keep)


@pytest.mark.parametrize("seed", range(12))
@in_loop
async def test_the_broker_does_what_the_model_says(tmp_path: Path, seed: int) -> None:
    house = House(tmp_path)
    chance = random.Random(seed)
    model = Model(house, chance)
    steps = 0
    while steps < STEPS:
        # Each turn of this loop is the life of one process, with little memory or with much.
        async with house.open(budget=chance.choice([0, 20_000, 10**7])) as broker:
            broker.namespaces = model.namespaces()
            for _ in range(chance.randrange(1, 80)):
                steps += 1
                act = chance.random()
                if act < 0.45:
                    await model.publish(broker)
                elif act < 0.85:
                    await model.come_back(broker)
                elif act < 0.93:
                    await model.fail(broker)
                elif act < 0.97:
                    model.change_history(broker)
                else:
                    # Ids are remembered as long as the history, and here that is for ever.
                    house.clock.now += chance.choice([1.0, 3600.0, 2 * ID_SECONDS])
    assert sum(map(len, model.ids.values())) > 100
