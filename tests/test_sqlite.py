"""The SQLite broker beyond the contract: the file, the disk and everything that fails there."""

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_brokers import (
    DEADLINE,
    ask,
    head_of,
    in_loop,
    now_or_never,
    offsets,
    publish,
    published,
    resume,
)
from waiting import wait_for

from push_server.brokers.base import ID_SECONDS
from push_server.brokers.sqlite import SQLiteBroker
from push_server.brokers.sqlite_store import (
    FORGET_LIMIT,
    SWEEP_LIMIT,
    TRIM_EVERY,
    SQLiteStore,
)
from push_server.brokers.windows import PUBLICATION_COST, WINDOW_COST
from push_server.brokers.writer import Job
from push_server.channels import Namespace, Namespaces
from push_server.errors import BadInput, PushError, StorageFull, Unavailable
from push_server.history import FUTURE, TAG
from push_server.positions import START_TAG, Position, tag_of
from push_server.publications import Publication, Published
from push_server.revocations import Revocation


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Faults:
    """What goes wrong on the connections that `connect` makes."""

    def __init__(self) -> None:
        self.statement = ""
        """Statements that begin with this fail …"""
        self.countdown = -1
        """… or the one that is so many statements away …"""
        self.code = sqlite3.SQLITE_IOERR_FSYNC
        """… with this error."""
        self.synced = True
        """Whether to wait for the disk."""
        self.statements = 0
        self.loads = 0
        self.connection: sqlite3.Connection | None = None

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                faults.statements += 1
                faults.loads += "ORDER BY offset DESC" in sql
                faults.countdown -= 1
                if faults.countdown == 0 or (faults.statement and sql.startswith(faults.statement)):
                    error = sqlite3.OperationalError("made to fail")
                    error.sqlite_errorcode = faults.code
                    error.sqlite_errorname = "SQLITE_TEST"
                    raise error
                if not faults.synced:
                    sql = sql.replace("synchronous = FULL", "synchronous = OFF")
                return super().execute(sql, *arguments)

        self.connection = sqlite3.connect(path, factory=Connection, **options)
        return self.connection


class House:
    """A folder with a log in it, and what the broker on it said."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "push.db"
        self.clock = Clock()
        self.faults = Faults()
        self.delivered: list[Publication] = []

    def deliver(self, channel: str, publications: Sequence[Publication]) -> None:
        self.delivered.extend(publications)

    def broker(self, budget: int = 2**26, **keep: Namespace) -> SQLiteBroker:
        return SQLiteBroker(
            str(self.path),
            Namespaces(keep),
            self.deliver,
            lambda _: None,
            self.clock,
            budget=budget,
            store=partial(SQLiteStore, connect=self.faults.connect),
        )

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[SQLiteBroker]:
        broker = self.broker(**options)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.close()

    @contextmanager
    def store(self, **keep: Namespace) -> Iterator[SQLiteStore]:
        """The store alone, on this thread."""
        store = SQLiteStore(str(self.path), Namespaces(keep).of, self.clock)
        store.open()
        try:
            yield store
        finally:
            store.close()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def put(store: SQLiteStore, channel: str, *numbers: int, data: bytes | None = None) -> None:
    store.begin()
    for answer in store.place([ask(channel, number, data) for number in numbers]):
        published(answer)
    store.commit()


def count(store: SQLiteStore, table: str) -> int:
    (rows,) = store.db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(rows)


# The file.


def refusal(path: str) -> str:
    """The message that a broker on this path refuses to start with."""
    broker = SQLiteBroker(path, Namespaces(), lambda *_: None, lambda _: None)

    async def start() -> None:
        with pytest.raises(BadInput) as refused:
            await broker.start()
        assert refused.value.code == "broker_unusable"
        assert refused.value.message.startswith(f'broker = "sqlite:{path}": ')
        messages.append(refused.value.message)
        await broker.close()

    messages: list[str] = []
    asyncio.run(start())
    return messages[0]


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "there is no folder" in refusal(str(tmp_path / "no" / "push.db"))


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert "cannot write the file (Is a directory)" in refusal(str(tmp_path))


def test_the_database_of_another_program(tmp_path: Path) -> None:
    file = tmp_path / "push.db"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE accounts (name)")
    other.close()
    before = file.read_bytes()
    assert "another program" in refusal(str(file))
    assert file.read_bytes() == before


def test_the_log_of_a_newer_push_server(house: House) -> None:
    with house.store() as store:
        store.db.execute("PRAGMA user_version = 2")
    assert "a newer push server" in refusal(str(house.path))


def test_a_log_that_another_process_uses(house: House) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(house.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdout:
        try:
            assert holder.stdout.readline() == b"open\n"
            assert "another process uses this file" in refusal(str(house.path))
            assert not list(house.path.parent.glob("*.damaged*"))
        finally:
            holder.stdin.close()
            assert holder.wait(10) == 0
    # Free again, and nothing of the attempt remains.
    with house.store() as store:
        assert count(store, "publications") == 0


HOLDER = """
import sys, time
from push_server.brokers.sqlite_store import SQLiteStore
from push_server.channels import Namespaces
store = SQLiteStore(sys.argv[1], Namespaces().of, time.time)
store.open()
print("open", flush=True)
sys.stdin.read()
store.close()
"""


@in_loop
async def test_two_brokers_in_one_process(house: House) -> None:
    async with house.open():
        with pytest.raises(BadInput, match="another process uses this file"):
            await house.broker().start()


def test_a_commit_waits_for_the_disk(house: House) -> None:
    # No kill of a process can show the difference, only the loss of power.
    with house.store() as store:
        assert store.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store.db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_nobody_else_may_read_the_log(house: House) -> None:
    with house.store() as store:
        put(store, "a", 1)
        for file in house.path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_names_that_mean_something_to_sqlite_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore(":memory:", Namespaces().of, time.time)
    store.open()
    store.close()
    assert (tmp_path / ":memory:").exists()


@in_loop
async def test_a_copy_put_back_is_another_log(house: House) -> None:
    # With its mark, which would tell otherwise: see test_damage.
    mark = house.path.with_name("push.db-mark")
    copy, mark_copy = house.path.with_suffix(".copy"), house.path.with_suffix(".mark")
    async with house.open() as broker:
        await publish(broker, "a", 1, 2, 3)
    shutil.copy(house.path, copy)
    shutil.copy(mark, mark_copy)
    async with house.open() as broker:
        await publish(broker, "a", 4, 5)
        client = await head_of(broker, "a")
    shutil.copy(copy, house.path)
    shutil.copy(mark_copy, mark)
    async with house.open() as broker:
        assert (await resume(broker, "a", client)).reset == FUTURE
        await publish(broker, "a", 14, 15, 16)
        head = await head_of(broker, "a")
        assert (head.epoch, head.offset) == (client.epoch, 6)
        # Same epoch, an offset inside the history: only the tag tells.
        assert (await resume(broker, "a", client)).reset == TAG
        common = client._replace(offset=3, tag=tag_of("id3"))
        assert offsets(await resume(broker, "a", common)) == [4, 5, 6]


# Failures.


async def survives_failure(house: House, broker: SQLiteBroker, error: type[PushError]) -> None:
    """One publish fails; nothing of it remains, and the next succeeds."""
    before = await head_of(broker, "a")
    told = len(house.delivered)
    answers = await broker.publish([ask("a", 50), ask("b", 50)])
    assert [type(answer) for answer in answers] == [error, error]
    assert await head_of(broker, "a") == before
    assert len(house.delivered) == told


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "UPDATE", "COMMIT", "SELECT number"])
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_FULL, StorageFull),
        (sqlite3.SQLITE_IOERR_FSYNC, Unavailable),
        (sqlite3.SQLITE_IOERR_WRITE, Unavailable),
    ],
)
@in_loop
async def test_a_transaction_that_fails(
    house: House, statement: str, code: int, error: type[PushError]
) -> None:
    async with house.open() as broker:
        await publish(broker, "a", 1)
        house.faults.statement, house.faults.code = statement, code
        for _ in range(3):
            await survives_failure(house, broker, error)
        house.faults.statement = ""
        # The very same ids: nothing of the failed attempts may count as a duplicate.
        answers = await broker.publish([ask("a", 50), ask("b", 50)])
        assert [published(answer).offset for answer in answers] == [2, 1]
        assert not any(published(answer).duplicate for answer in answers)
    async with house.open() as broker:
        assert offsets(await broker.history("a", 0, 10)) == [1, 2]


@in_loop
async def test_every_statement_may_fail(house: House) -> None:
    """Fail the 1st, 2nd, … statement of a round, until a round passes untouched."""
    async with house.open(a=Namespace(history_size=4)) as broker:
        expected, number = 0, 0
        for nth in range(1, 2000):
            house.faults.countdown = nth
            batch = range(number, number + TRIM_EVERY)
            number += TRIM_EVERY
            answers = await broker.publish([ask("a", n) for n in batch])
            passed = house.faults.countdown > 0
            house.faults.countdown = -1
            good = [answer for answer in answers if isinstance(answer, Published)]
            assert len(good) in (0, len(answers))
            expected += len(good)
            assert (await head_of(broker, "a")).offset == expected == len(house.delivered)
            if passed:
                break
            # Every fault was felt, save where trimming and tidying of other rounds took it.
        assert passed
        assert nth > 2 * TRIM_EVERY
    async with house.open() as broker:
        assert (await head_of(broker, "a")).offset == expected


@in_loop
async def test_all_who_share_a_failed_commit_are_told(house: House) -> None:
    async with house.open() as broker:
        house.faults.statement = "COMMIT"
        answers = await asyncio.gather(*(broker.publish([ask("a", n)]) for n in range(20)))
        assert all(isinstance(answer, Unavailable) for (answer,) in answers)
        assert all(answer.retry_after for (answer,) in answers if isinstance(answer, PushError))
        house.faults.statement = ""
        assert await publish(broker, "a", 1) == [1]
        assert len(house.delivered) == 1


@in_loop
async def test_a_full_disk(house: House) -> None:
    async with house.open() as broker:
        await publish(broker, "a", 1)
        head = await head_of(broker, "a")
        (pages,) = await broker._writer.ask(lambda s: s.db.execute("PRAGMA page_count").fetchone())
        await broker._writer.ask(lambda s: s.db.execute(f"PRAGMA max_page_count = {pages}").close())
        big = b'"%s"' % (b"x" * 50_000)
        (answer,) = await broker.publish([ask("a", 2, big)])
        assert isinstance(answer, StorageFull)
        assert (answer.status, answer.code) == (507, "storage_full")
        # Reading goes on, and what is acknowledged is there.
        assert offsets(await resume(broker, "a", head._replace(offset=0, tag="0"))) == [1]
        await broker._writer.ask(lambda s: s.db.execute("PRAGMA max_page_count = 100000").close())
        answers = await broker.publish([ask("a", 2, big)])
        assert published(answers[0]) == Published("a", head.epoch, 2, "id2", duplicate=False)


@in_loop
async def test_publishing_stops_before_the_disk_is_full(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"free": 4 * 2**20}
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda _: SimpleNamespace(f_bavail=space["free"], f_frsize=1, f_blocks=100 * 2**20),
    )
    async with house.open() as broker:
        answers = await broker.publish([ask("a", 1)])
        assert isinstance(answers[0], StorageFull)
        # A logout and a ticket are small and must work.
        await broker.revoke(Revocation("sid", "s", 0.0, 2e9))
        assert await broker.claim("ticket", 30)
        space["free"] = 6 * 2**20
        assert await publish(broker, "a", 1) == [1]
        # One broadcast does not take what is kept free either.
        large = b'"%b"' % (b"x" * 250_000)
        answers = await broker.publish([ask(f"b{n}", 1, large) for n in range(20)])
        assert all(isinstance(answer, StorageFull) for answer in answers)
        assert await publish(broker, "a", 2) == [2]
        # Nor does what waits in the write-ahead log to be copied into the file.
        space["free"] = 30 * 2**20
        for answer in await broker.publish([ask(f"b{n}", 2, large) for n in range(20)]):
            published(answer)
        space["free"] = 8 * 2**20
        (answer,) = await broker.publish([ask("a", 3)])
        assert isinstance(answer, StorageFull)


@in_loop
async def test_a_failed_claim_is_a_claim(house: House) -> None:
    async with house.open() as broker:
        house.faults.statement = "COMMIT"
        assert await broker.claim("ticket", 30)
        assert not await broker.claim("ticket", 30)


@in_loop
async def test_a_revocation_that_cannot_be_stored_is_announced(house: House) -> None:
    heard: list[Revocation] = []
    async with house.open() as broker:
        broker.revoked = heard.append
        house.faults.statement = "COMMIT"
        with pytest.raises(Unavailable):
            await broker.revoke(Revocation("sid", "s", 0.0, 2e9))
        assert len(heard) == 1


@in_loop
async def test_reading_that_fails(house: House) -> None:
    async with house.open() as broker:
        await publish(broker, "a", 1, 2)
        start = (await head_of(broker, "a"))._replace(offset=0, tag=START_TAG)
    async with house.open() as broker:
        house.faults.statement = "SELECT number"
        with pytest.raises(Unavailable):
            await broker.read({"a": start})
        with pytest.raises(Unavailable):
            await broker.history("a", 0, 1)
        house.faults.statement = ""
        assert offsets(await resume(broker, "a", start)) == [1, 2]


@in_loop
async def test_a_bug_in_a_job_does_not_stop_the_writer(house: House) -> None:
    async with house.open() as broker:
        assert isinstance(await broker._writer.ask(lambda _: 1 / 0), Unavailable)
        assert await publish(broker, "a", 1) == [1]


# Closing.


@in_loop
async def test_closing_finishes_what_was_accepted(house: House) -> None:
    broker = house.broker()
    await broker.start()
    start = Position((await head_of(broker, "a")).epoch, 0, START_TAG)
    tasks = [asyncio.create_task(broker.publish([ask("a", n)])) for n in range(1, 51)]
    await asyncio.sleep(0)
    await broker.close()
    answers = await asyncio.gather(*tasks)
    assert [published(answer).offset for (answer,) in answers] == list(range(1, 51))
    async with house.open() as again:
        assert len(offsets(await resume(again, "a", start))) == 50
    await broker.close()


@in_loop
async def test_a_closed_broker_is_unavailable(house: House) -> None:
    async with house.open() as broker:
        pass
    (answer,) = await broker.publish([ask("a", 1)])
    assert isinstance(answer, Unavailable)


@in_loop
async def test_a_disk_that_hangs_does_not_fill_the_memory(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house.open() as broker:
        hang, store = threading.Event(), broker._writer._store
        begin = store.begin
        monkeypatch.setattr(store, "begin", lambda: hang.wait(DEADLINE) and begin())
        large = b'"%b"' % (b"x" * 1_000_000)
        waiting = [
            asyncio.create_task(broker.publish([ask("a", number, large)])) for number in range(60)
        ]
        await asyncio.sleep(0)
        (answer, *others) = await broker.publish([ask("a", number, large) for number in range(10)])
        assert isinstance(answer, Unavailable) and answer.retry_after and len(others) == 9
        revoking = asyncio.create_task(broker.revoke(Revocation("sid", "s", 1.0, 2.0)))
        hang.set()
        answers = await asyncio.gather(*waiting)
        assert [published(each).offset for (each,) in answers] == list(range(1, 61))
        await revoking
        assert await publish(broker, "a", 61) == [61]


@in_loop
async def test_a_fault_of_the_housekeeping_is_not_the_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = threading.Semaphore(0)

    def tidy(_: SQLiteStore) -> None:
        faults.release()
        raise ArithmeticError("a fault of the test")

    monkeypatch.setattr(SQLiteStore, "tidy", tidy)
    monkeypatch.setattr("push_server.brokers.writer.TIDY_SECONDS", 0.01)
    async with house.open() as broker:
        for _ in range(2):
            assert await asyncio.to_thread(faults.acquire, timeout=DEADLINE)
        assert await publish(broker, "a", 1) == [1]


@in_loop
async def test_a_publisher_who_left_changes_nothing_for_others(house: House) -> None:
    async with house.open() as broker:
        gone = asyncio.create_task(broker.publish([ask("a", 1)]))
        stays = asyncio.create_task(broker.publish([ask("a", 2)]))
        await asyncio.sleep(0)
        gone.cancel()
        (answer,) = await stays
        assert published(answer).offset == 2
        assert len(house.delivered) == 2


# Windows: what is served from memory, and what is read again.


async def cold(house: House, *channels: str) -> dict[str, Position]:
    """Put three publications into each channel and restart; where each began."""
    async with house.open() as broker:
        for channel in channels:
            await publish(broker, channel, 1, 2, 3)
        epoch = (await head_of(broker, channels[0])).epoch
    return dict.fromkeys(channels, Position(epoch, 0, START_TAG))


@in_loop
async def test_after_a_restart_those_who_missed_nothing_need_no_disk(house: House) -> None:
    start = (await cold(house, "a"))["a"]
    async with house.open() as broker:
        at_head = start._replace(offset=3, tag=tag_of("id3"))
        assert now_or_never(broker.read({"a": at_head}))["a"].reset is None
        assert now_or_never(broker.read({"a": at_head._replace(tag="aaaaaa")}))["a"].reset == TAG
        assert now_or_never(broker.read({"a": None}))["a"].head == at_head
        assert house.faults.loads == 0


@in_loop
async def test_a_window_is_read_once_for_all_who_wait(house: House) -> None:
    start = await cold(house, "a", "b")
    async with house.open() as broker:
        answers = await asyncio.gather(*(broker.read(start) for _ in range(50)))
        for answer in answers:
            assert offsets(answer["a"]) == offsets(answer["b"]) == [1, 2, 3]
        assert house.faults.loads == 2
        assert offsets(now_or_never(broker.read(start))["a"]) == [1, 2, 3]


@in_loop
async def test_one_who_gives_up_waiting_does_not_stop_the_others(house: House) -> None:
    start = await cold(house, "a")
    async with house.open() as broker:
        gone = asyncio.create_task(broker.read(start))
        stays = asyncio.create_task(broker.read(start))
        await asyncio.sleep(0)
        gone.cancel()
        assert offsets((await stays)["a"]) == [1, 2, 3]
        assert gone.cancelled()


@in_loop
async def test_new_publications_join_a_channel_that_is_not_in_memory(house: House) -> None:
    start = (await cold(house, "a"))["a"]
    async with house.open() as broker:
        assert await publish(broker, "a", 4, 5) == [4, 5]
        recent = start._replace(offset=3, tag=tag_of("id3"))
        assert offsets(now_or_never(broker.read({"a": recent}))["a"]) == [4, 5]
        assert offsets(await broker.history("a", 1, 3)) == [2, 3, 4]
        assert offsets(await resume(broker, "a", start)) == [1, 2, 3, 4, 5]
        assert house.faults.loads == 1


def posts(broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch) -> Sequence[object]:
    """What the writer hands to the loop from now on."""
    posted: list[object] = []
    post = broker._writer._post

    def counted(call: Callable[[], None]) -> None:
        post(call)
        posted.append(call)

    monkeypatch.setattr(broker._writer, "_post", counted)
    return posted


@in_loop
async def test_a_publication_right_after_a_window_was_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = (await cold(house, "a"))["a"]
    async with house.open() as broker:
        posted = posts(broker, monkeypatch)
        # The loop stands still until the writer has handed it both results: first the window
        # without the fourth publication, then the fourth publication.
        reading = asyncio.create_task(broker.read({"a": start}))
        await asyncio.sleep(0)
        wait_for(lambda: len(posted) == 1)  # and the loop does not run
        fourth = [ask("a", 4)]
        broker._writer.submit(Job(lambda store: store.place(fourth), lambda _: None))
        wait_for(lambda: len(posted) == 2)
        await reading
        assert offsets(now_or_never(broker.read({"a": start}))["a"]) == [1, 2, 3, 4]


@in_loop
async def test_memory_for_windows_is_bounded(house: House) -> None:
    one = WINDOW_COST + 3 * (PUBLICATION_COST + 100)
    async with house.open(budget=5 * one) as broker:
        channels = [f"c:{n}" for n in range(50)]
        for channel in channels:
            await publish(broker, channel, 1, 2, 3)
        assert 0 < broker._windows.cost <= 5 * one
        epoch = (await head_of(broker, "c:0")).epoch
        start = Position(epoch, 0, START_TAG)
        now_or_never(broker.read({"c:49": start}))
        # All are still complete, from the disk if need be, and their heads never left.
        answers = await broker.read(dict.fromkeys(channels, start))
        assert all(offsets(answer) == [1, 2, 3] for answer in answers.values())
        assert broker._windows.cost <= 5 * one
        assert await publish(broker, "c:0", 4) == [4]
        assert offsets(await resume(broker, "c:0", start)) == [1, 2, 3, 4]


@in_loop
async def test_a_log_larger_than_the_budget_is_still_read(house: House) -> None:
    async with house.open(budget=10) as broker:
        await publish(broker, "a", 1, 2, 3)
        start = (await head_of(broker, "a"))._replace(offset=0, tag=START_TAG)
        assert offsets(await resume(broker, "a", start)) == [1, 2, 3]
        assert broker._windows.cost == 0


@in_loop
async def test_reading_while_publishing_and_forgetting(house: House) -> None:
    """Everybody who resumes at any time, from anywhere, sees one unbroken log."""
    async with house.open(budget=5000) as broker:
        await publish(broker, "a", 0)
        epoch = (await head_of(broker, "a")).epoch
        done = False

        async def reader(step: int) -> int:
            rounds = 0
            while not done:
                head = (await head_of(broker, "a")).offset
                back = max(head - step, 0)
                place = Position(epoch, back, tag_of(f"id{back - 1}") if back else START_TAG)
                held_from = len(house.delivered)
                history = await resume(broker, "a", place)
                assert history.reset is None
                got = offsets(history)
                held = [p.position.offset for p in house.delivered[held_from:] if p.channel == "a"]
                got += [n for n in held if n > history.head.offset]
                assert got == list(range(back + 1, got[-1] + 1 if got else back + 1))
                rounds += 1
                await asyncio.sleep(0)
            return rounds

        readers = [asyncio.create_task(reader(step)) for step in (0, 1, 3, 10, 40)]
        for n in range(1, 150):
            await asyncio.gather(publish(broker, "a", n), publish(broker, f"b{n % 5}", n))
        done = True
        assert min(await asyncio.gather(*readers)) > 20


# The store: trimming and forgetting are bounded, and get there.


def test_history_on_disk_is_bounded_by_count(house: House) -> None:
    with house.store(a=Namespace(history_size=10)) as store:
        for n in range(300):
            put(store, "a", n)
            assert count(store, "publications") <= 10 + 1 + TRIM_EVERY
        put(store, "a", *range(300, 1000))
        assert count(store, "publications") <= 10 + 1 + TRIM_EVERY
        put(store, "a", *range(1000, 1000 + TRIM_EVERY))
        log = store.load("a")
        assert (log.floor.offset, len(log.window)) == (1000 + TRIM_EVERY - 10, 10)


def test_history_on_disk_is_bounded_by_bytes(house: House) -> None:
    with house.store(a=Namespace(history_bytes=10_000)) as store:
        for n in range(300):
            put(store, "a", n, data=b'"%s"' % (b"x" * 1000))
        (size,) = store.db.execute("SELECT sum(length(json)) FROM publications").fetchone()
        assert size <= 10_000 + (1 + TRIM_EVERY) * 1100
        assert 8 <= len(store.load("a").window) <= 9


def test_idle_channels_are_swept_by_age(house: House) -> None:
    channels = [f"c{n}" for n in range(SWEEP_LIMIT + 10)]
    with house.store() as store:
        for channel in channels:
            put(store, channel, 1, 2, 3)
        house.clock.now += 599
        for _ in range(3):
            store.tidy()
        assert count(store, "publications") == 3 * len(channels)
        house.clock.now += 1
        for _ in range(3):
            store.tidy()
        # One of each stays, for its tag.
        assert count(store, "publications") == len(channels)
        assert store.load("c0").floor.tag == tag_of("id3")
        put(store, "c0", 4)
        assert [item.id for item in store.load("c0").window] == ["id4"]


def test_ids_are_forgotten_in_small_steps(house: House) -> None:
    with house.store() as store:
        put(store, "a", *range(FORGET_LIMIT + 100))
        house.clock.now += 10
        put(store, "a", -1)
        house.clock.now += ID_SECONDS - 10
        store.tidy()
        assert count(store, "ids") == 101
        store.tidy()
        assert count(store, "ids") == 1
        house.clock.now += 10
        store.tidy()
        assert count(store, "ids") == 0


def test_claims_and_revocations_are_forgotten(house: House) -> None:
    now = house.clock.now
    with house.store() as store:
        store.begin()
        store.claim("one", now + 30)
        store.claim("two", now + 60)
        store.revoke(Revocation("sid", "one", now, now + 30))
        store.revoke(Revocation("sid", "two", now, now + 60))
        store.commit()
        house.clock.now += 30
        store.tidy()
        assert (count(store, "claims"), count(store, "revocations")) == (1, 1)


def test_tidying_that_fails_is_tried_again(house: House) -> None:
    faults = house.faults
    store = SQLiteStore(str(house.path), Namespaces().of, house.clock, faults.connect)
    store.open()
    put(store, "a", 1)
    house.clock.now += ID_SECONDS
    faults.statement = "COMMIT"
    store.tidy()
    faults.statement = ""
    assert count(store, "ids") == 1
    store.tidy()
    assert count(store, "ids") == 0
    store.close()


def test_an_id_that_was_used_again_is_forgotten_a_day_after_that(house: House) -> None:
    with house.store() as store:
        put(store, "a", 1)
        house.clock.now += ID_SECONDS
        put(store, "a", 1)
        assert store.load("a").head.offset == 2
        house.clock.now += ID_SECONDS - 1
        store.tidy()
        assert count(store, "ids") == 1


def test_a_history_made_larger_or_smaller(house: House) -> None:
    with house.store(a=Namespace(history_size=100)) as store:
        put(store, "a", *range(60))
    with house.store(a=Namespace(history_size=3)) as store:
        log = store.load("a")
        assert (log.floor, len(log.window)) == (log.floor._replace(offset=57), 3)
        put(store, "a", 60, 61, 62, 63, 64)
    with house.store(a=Namespace(history_size=100)) as store:
        log = store.load("a")
        # What was trimmed is gone, and the floor says so.
        floor = log.floor.offset
        assert 30 < floor <= 62
        assert log.floor.tag == tag_of(f"id{floor - 1}")
        assert [item.position.offset for item in log.window] == list(range(floor + 1, 66))


@pytest.mark.parametrize(("lost", "floor"), [(5, 6), (8, 8), (1, 2), (2, 3)])
def test_a_row_that_is_missing_is_never_skipped(house: House, lost: int, floor: int) -> None:
    with house.store() as store:
        put(store, "a", *range(1, 9))
        store.db.execute("DELETE FROM publications WHERE offset = ?", (lost,))
        log = store.load("a")
        assert (log.floor.offset, log.floor.tag) == (floor, tag_of(f"id{floor}"))
        assert [item.position.offset for item in log.window] == list(range(floor + 1, 9))


def measured(work: Callable[[], Any]) -> tuple[Any, int]:
    """The result of some work, and the bytes it left behind."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = work()
        return result, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_an_idle_channel_takes_less_than_a_kilobyte(house: House) -> None:
    channels = 5000
    with house.store() as store:
        store.begin()
        for n in range(channels):
            store.place([ask(f"user:{n}", n)])
        store.commit()
    store = SQLiteStore(str(house.path), Namespaces().of, house.clock)
    opened, size = measured(store.open)
    store.close()
    assert len(opened.heads) == channels
    assert size / channels < 600
