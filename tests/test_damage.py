"""Damage to the files of a log: it is served as it was written, or clients are told `reset`.

What was published is kept here, so that after each injury every client that could come back, from
each place it could have reached, is asked about: it must be given all that it missed, byte for
byte, or a reason to load its state anew. And the server always starts and takes publications.
"""

import asyncio
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest
from harness import PushServer
from test_brokers import ask, head_of, in_loop, published
from test_sqlite import House, posts, refusal
from waiting import PATIENCE, until, wait_for

from push_server.brokers import sqlite_file, sqlite_store, writer
from push_server.brokers.sqlite import SQLiteBroker
from push_server.channels import Namespace
from push_server.errors import BadInput, Unavailable
from push_server.history import EPOCH
from push_server.positions import START_TAG, Position
from push_server.publications import Publication, Published, PublishRequest
from push_server.revocations import Revocation

KEEP = {"short": Namespace(history_size=10), "*": Namespace()}
CHANNELS = ("a", "b", "short", "user:17")
LOGOUT = Revocation("sid", "s" * 20, 1_800_000_000.0, 1_800_003_600.0)
SEED = 20_261_120
EACH = 40
"""Publications in each channel."""
WHOLE = 3 * (EACH + 1) + 11
"""Clients who can go on if nothing is damaged: from anywhere, but where little is kept."""
NEWER = range(60, 64)
"""The bytes of a database's header that say which version of the server wrote it."""


class Log:
    """The files of a log with history in it, and every publication that was acknowledged."""

    def __init__(self, folder: Path, *, killed: bool) -> None:
        self.folder = folder / ("killed" if killed else "stopped")
        self.house = House(folder)
        asyncio.run(self._write(killed))

    async def _write(self, killed: bool) -> None:
        async with self.house.open(**KEEP) as broker:
            await broker.revoke(LOGOUT)
            await broker.claim("ticket", 3600)
            for number in range(EACH):
                requests = [self.request(channel, number) for channel in CHANNELS]
                for answer in await broker.publish(requests):
                    published(answer)
            if killed:
                shutil.copytree(self.house.path.parent, self.folder)
        if not killed:
            shutil.copytree(self.house.path.parent, self.folder)

    @staticmethod
    def request(channel: str, number: int) -> PublishRequest:
        """What was published, of very different sizes."""
        size = (10, 100, 1000, 6000)[(number * 7 + len(channel)) % 4]
        return ask(channel, number, b'"%s"' % Random(number).randbytes(size // 2).hex().encode())

    @property
    def told(self) -> list[Publication]:
        """What was acknowledged, in order."""
        return self.house.delivered

    def copy(self, folder: Path) -> "House":
        """A copy of the files to be hurt."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        house = House(folder)
        house.faults.synced = False
        return house


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of starts, and nobody pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """The log of a server that was stopped: all is in the database."""
    return Log(tmp_path_factory.mktemp("log"), killed=False)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """The log of a server that was killed: nearly all is in the write-ahead log."""
    return Log(tmp_path_factory.mktemp("log"), killed=True)


Result = TypeVar("Result")


async def patiently(call: Callable[[], Awaitable[Result]]) -> Result:
    """The result, once the log that was found damaged has been replaced."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await call()
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)


async def publish_patiently(
    broker: SQLiteBroker, number: int, *channels: str
) -> Sequence[Published]:
    async def publish() -> Sequence[Published]:
        answers = await broker.publish([ask(channel, number) for channel in channels])
        for answer in answers:
            if isinstance(answer, Unavailable):
                raise answer
        return [published(answer) for answer in answers]

    return await patiently(publish)


async def judge(broker: SQLiteBroker, told: Sequence[Publication]) -> tuple[int, set[str]]:
    """Ask for every client; how many were given what they missed, and the other answers."""
    complete, resets = 0, set()
    for channel in CHANNELS:
        log = [item for item in told if item.channel == channel]
        places = [log[0].position._replace(offset=0, tag=START_TAG), *(p.position for p in log)]
        for reached, place in enumerate(places):
            since = {channel: place}
            history = (await patiently(partial(broker.read, since)))[channel]
            if history.reset is not None:
                resets.add(history.reset)
                continue
            complete += 1
            missed = [(item.id, item.position.offset, item.json) for item in history.publications]
            assert missed == [(p.id, p.position.offset, p.json) for p in log[reached:]]
    return complete, resets


async def hurt(house: House, told: list[Publication]) -> tuple[int, set[str]]:
    """Start on damaged files, ask, publish to every channel, and ask again."""
    epoch = told[0].position.epoch
    async with house.open(**KEEP) as broker:
        verdict = await judge(broker, told)
        for answer in await publish_patiently(broker, 1000, *CHANNELS):
            assert answer.epoch > epoch or answer.offset == EACH + 1
        went_on = [item for item in house.delivered if item.position.epoch == epoch]
        again, _ = await judge(broker, told + went_on)
        assert again <= verdict[0] + len(went_on)
        genuine = {item.json for item in told + house.delivered}
        for channel in CHANNELS:
            shown = await patiently(partial(broker.history, channel, 0, 1000))
            assert {item.json for item in shown.publications} <= genuine
    return verdict


def set_aside(house: House) -> list[Path]:
    """The databases that were put away."""
    files = house.path.parent.glob("*.damaged-*")
    return sorted(file for file in files if not file.name.endswith("-wal"))


def flip(file: Path, position: int, bit: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(position)
        (byte,) = opened.read(1)
        opened.seek(position)
        opened.write(bytes([byte ^ 1 << bit]))


# What nobody touched.


@pytest.mark.parametrize("kind", ["stopped", "killed"])
def test_without_damage(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    log: Log = request.getfixturevalue(kind)
    house = log.copy(tmp_path / "copy")
    complete, resets = asyncio.run(hurt(house, log.told))
    assert (complete, resets) == (WHOLE, {"trimmed"})
    assert set_aside(house) == []


# A bit that changed.


def test_a_bit_of_the_database(stopped: Log, tmp_path: Path) -> None:
    chance = Random(SEED)
    size = (stopped.folder / "push.db").stat().st_size
    outcomes = []
    for _ in range(120):
        house = stopped.copy(tmp_path / "copy")
        flip(house.path, chance.randrange(100, size), chance.randrange(8))
        complete, resets = asyncio.run(hurt(house, stopped.told))
        assert (EPOCH in resets) == (set_aside(house) != [])
        outcomes.append(complete)
    assert 0 in outcomes
    assert max(outcomes) == WHOLE  # it was in a part of a page that is not used


def test_a_bit_of_the_first_page(stopped: Log, tmp_path: Path) -> None:
    chance = Random(SEED)
    refused = []
    header = {*chance.sample(range(100), 30), *NEWER}
    for position in [*sorted(header), *chance.sample(range(100, 4096), 10)]:
        house = stopped.copy(tmp_path / "copy")
        flip(house.path, position, chance.randrange(8))
        before = house.path.read_bytes()
        try:
            asyncio.run(hurt(house, stopped.told))
        except BadInput as error:
            # Which version wrote it cannot be told from a bit that makes it a newer one.
            refused.append(error.message)
            assert position in NEWER
            assert house.path.read_bytes() == before
    assert refused
    assert all("a newer push server" in message for message in refused)


def test_a_bit_of_the_write_ahead_log(killed: Log, tmp_path: Path) -> None:
    chance = Random(SEED)
    size = (killed.folder / "push.db-wal").stat().st_size
    lost = 0
    for _ in range(40):
        house = killed.copy(tmp_path / "copy")
        flip(house.path.with_name("push.db-wal"), chance.randrange(size), chance.randrange(8))
        complete, resets = asyncio.run(hurt(house, killed.told))
        # SQLite takes what stands before the damage; then nobody may be told to go on.
        assert (complete == 0) == (EPOCH in resets)
        lost += EPOCH in resets
    assert lost > 30


def test_a_bit_of_the_mark(stopped: Log, tmp_path: Path) -> None:
    for position in range(0, 48, 5):
        house = stopped.copy(tmp_path / "copy")
        flip(house.path.with_name("push.db-mark"), position, position % 8)
        assert asyncio.run(hurt(house, stopped.told)) == (0, {EPOCH})
        assert set_aside(house) == []


# Files that are cut off, gone, or something else.


@pytest.mark.parametrize("name", ["push.db", "push.db-wal", "push.db-mark"])
def test_a_file_cut_off(name: str, stopped: Log, killed: Log, tmp_path: Path) -> None:
    chance = Random(SEED)
    log = killed if name == "push.db-wal" else stopped
    size = (log.folder / name).stat().st_size
    lengths = {0, 1, 99, 100, 4096, 8192, size - 1, chance.randrange(size), chance.randrange(size)}
    for length in sorted(length for length in lengths if length < size):
        house = log.copy(tmp_path / "copy")
        os.truncate(house.path.with_name(name), length)
        complete, resets = asyncio.run(hurt(house, log.told))
        if name == "push.db" and length > size - 4096:
            # SQLite reads zeros for the rest of the last page, which may be part of a row.
            assert complete < WHOLE
        else:
            assert (complete, resets) == (0, {EPOCH})


@pytest.mark.parametrize("name", ["push.db", "push.db-wal", "push.db-mark"])
def test_a_file_that_is_gone(name: str, killed: Log, tmp_path: Path) -> None:
    house = killed.copy(tmp_path / "copy")
    house.path.with_name(name).unlink()
    assert asyncio.run(hurt(house, killed.told)) == (0, {EPOCH})


def test_the_memory_file_does_not_matter(killed: Log, tmp_path: Path) -> None:
    for write in (None, b"", b"garbage" * 5000):
        house = killed.copy(tmp_path / "copy")
        if write is not None:
            house.path.with_name("push.db-shm").write_bytes(write)
        assert asyncio.run(hurt(house, killed.told))[0] == WHOLE


@pytest.mark.parametrize(
    "content",
    [b"<html>" * 1000, b"\0" * 8192, b"\xff" * 100],
    ids=["text", "zeros", "short"],
)
def test_a_file_that_is_no_database(
    content: bytes, stopped: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = stopped.copy(tmp_path / "copy")
    house.path.write_bytes(content)
    assert asyncio.run(hurt(house, stopped.told)) == (0, {EPOCH})
    (moved,) = set_aside(house)
    assert moved.read_bytes() == content
    (line,) = [record.message for record in caplog.records if "storage.damaged" in record.message]
    assert f"moved_to={moved}" in line
    assert 'reason="file is not a database"' in line
    assert "revocations=lost" in line


def test_an_older_copy_put_back(stopped: Log, tmp_path: Path) -> None:
    house = stopped.copy(tmp_path / "copy")

    async def go_on() -> Position:
        async with house.open() as broker:
            for number in range(2000, 2005):
                await publish_patiently(broker, number, "a")
            return await head_of(broker, "a")

    async def come_back(client: Position) -> None:
        async with house.open() as broker:
            # It has not seen what is missing, and would never hear of it.
            assert (await broker.read({"a": client}))["a"].reset == EPOCH
            # The rest is still there, and ids are still known.
            known = stopped.request("a", EACH - 1)
            assert published((await broker.publish([known]))[0]).duplicate
            assert (await head_of(broker, "a")).offset == EACH

    asyncio.run(go_on())
    shutil.copy(stopped.folder / "push.db", house.path)
    client = next(p.position for p in stopped.told if p.position.offset == 30)
    asyncio.run(come_back(client))


def test_an_epoch_never_comes_again(stopped: Log, tmp_path: Path) -> None:
    epochs = [stopped.told[0].position.epoch]
    house = stopped.copy(tmp_path / "copy")
    house.clock.now -= 86_400  # the clock of the machine was set back

    async def epoch() -> int:
        async with house.open() as broker:
            return (await head_of(broker, "a")).epoch

    for _ in range(3):
        house.path.write_bytes(b"garbage")
        epochs.append(asyncio.run(epoch()))
    house.path.with_name("push.db-mark").unlink()
    epochs.append(asyncio.run(epoch()))
    assert epochs == sorted(set(epochs))
    # Nothing was written over, although all of it happened in one second.
    assert len(set_aside(house)) == 3


def test_revocations_outlive_the_log(stopped: Log, tmp_path: Path) -> None:
    house = stopped.copy(tmp_path / "copy")
    with house.store() as store:
        store.db.execute("UPDATE channels SET offset = 7 WHERE name = 'a'")
        store.db.execute("INSERT INTO revocations VALUES ('sid', x'00', 1, 2e9)")
        store.db.execute("INSERT INTO claims VALUES ('old', 'never')")
    heard: list[Revocation] = []

    async def start() -> bool:
        broker = house.broker()
        broker.revoked = heard.append
        await broker.start()
        claimed = await broker.claim("ticket", 30)
        await broker.close()
        return claimed

    for _ in range(2):
        assert not asyncio.run(start())
        assert LOGOUT in heard
        assert {found.kind for found in heard} == {"sid", "all"}  # there may have been more
        assert len(set_aside(house)) == 1
        heard.clear()


def test_a_check_that_takes_too_long(
    stopped: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(sqlite_file, "CHECK_SECONDS", 0.0)
    house = stopped.copy(tmp_path / "copy")
    house.faults.statement, house.faults.code = "PRAGMA quick", sqlite3.SQLITE_INTERRUPT
    complete, _ = asyncio.run(hurt(house, stopped.told))
    assert complete == WHOLE
    assert "event=storage.check_cut_short" in caplog.text


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA user_version = 0",
        "PRAGMA application_id = 5",
        "UPDATE sqlite_master SET sql = replace(sql, 'digest BLOB', 'digesr BLOB')",
        "UPDATE epoch SET epoch = -1",
        "DELETE FROM epoch",
    ],
)
def test_what_we_never_write(statement: str, stopped: Log, tmp_path: Path) -> None:
    house = stopped.copy(tmp_path / "copy")
    with house.store() as store:
        store.db.execute("PRAGMA writable_schema = ON")
        store.db.execute(statement)
    assert asyncio.run(hurt(house, stopped.told)) == (0, {EPOCH})
    assert len(set_aside(house)) == 1


# What is refused stays as it is.


def test_the_database_of_another_program_stays(tmp_path: Path) -> None:
    file = tmp_path / "push.db"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE epoch (name)")
    other.close()
    assert "another program" in refusal(str(file))
    assert [entry.name for entry in tmp_path.iterdir()] == ["push.db"]


def refusal_to_nobody(path: Path) -> str:
    """The message that a process without privileges is refused with."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if not os.geteuid():
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, refusal(str(path)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        message = answer.read()
    os.waitpid(child, 0)
    return message


@pytest.mark.parametrize("what", ["folder", "file", "folder without a file"])
def test_no_permission(what: str, stopped: Log, tmp_path: Path) -> None:
    house = stopped.copy(tmp_path / "copy")
    folder = house.path.parent
    if what == "folder without a file":
        house.path.unlink()
    for file in folder.iterdir():
        file.chmod(0o666)
    before = sorted(file.name for file in folder.iterdir())
    folder.chmod(0o777 if what == "file" else 0o555)
    if what == "file":
        house.path.chmod(0o444)
    for parent in tmp_path, *tmp_path.parents:
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(parent.stat().st_mode | 0o111)
    reason = "cannot write the file (" if what != "folder" else "SQLite cannot open it ("
    assert reason in refusal_to_nobody(house.path)
    folder.chmod(0o755)
    assert sorted(file.name for file in folder.iterdir()) == before


# Damage that is found while the log is in use.


async def broken(house: House, broker: SQLiteBroker, statement: str) -> None:
    """Let SQLite find damage in a round, and wait until there is another log."""
    epoch = (await head_of(broker, "a")).epoch
    house.faults.statement, house.faults.code = statement, sqlite3.SQLITE_CORRUPT
    (answer,) = await broker.publish([ask("a", 3000)])
    assert isinstance(answer, Unavailable)
    assert answer.status == 503
    house.faults.statement = ""

    async def replaced() -> bool:
        return (await head_of(broker, "a")).epoch != epoch

    await until(replaced)


@pytest.mark.parametrize("statement", ["BEGIN IMM", "INSERT INTO pub", "UPDATE", "COMMIT"])
@in_loop
async def test_damage_met_by_a_publication(statement: str, stopped: Log, tmp_path: Path) -> None:
    house = stopped.copy(tmp_path / "copy")
    told: list[tuple[str, str, Position]] = []
    async with house.open(**KEEP) as broker:
        broker.restarted = lambda *event: told.append(event)
        await broken(house, broker, statement)
        assert (await judge(broker, stopped.told)) == (0, {EPOCH})
        assert sorted(channel for channel, _, _ in told) == sorted(CHANNELS)
        head = await head_of(broker, "a")
        assert {(reason, position) for _, reason, position in told} == {(EPOCH, head)}
        assert head.offset == 0
        (answer,) = await publish_patiently(broker, 3000, "a")
        assert answer.offset == 1
        client = await head_of(broker, "a")
    assert len(set_aside(house)) == 1
    # The new log is as durable as the old one was, logouts included.
    with house.store() as store:
        assert store.load("a").head == client
        assert LOGOUT in store._file.revocations(house.clock.now)


@pytest.mark.parametrize("change", ["digest = x'00'", "offset = 7", "expires = 'never'"])
@in_loop
async def test_damage_met_by_a_retry(change: str, stopped: Log, tmp_path: Path) -> None:
    """Neither a conflict nor a wrong place may be answered for what was stored."""
    house = stopped.copy(tmp_path / "copy")
    with house.store() as store:
        store.db.execute(f"UPDATE ids SET {change}")
    async with house.open(**KEEP) as broker:
        retry = stopped.request("a", EACH - 1)
        (answer,) = await broker.publish([retry])
        assert isinstance(answer, Unavailable)
        (stored,) = await publish_patiently(broker, 3000, "a")
        assert stored.epoch > stopped.told[0].position.epoch
        assert len(set_aside(house)) == 1


@in_loop
async def test_what_is_put_away_is_whole(killed: Log, tmp_path: Path) -> None:
    house = killed.copy(tmp_path / "copy")
    async with house.open(**KEEP) as broker:
        await broken(house, broker, "COMMIT")
    (moved,) = set_aside(house)
    assert moved.with_name(f"{moved.name}-wal").stat().st_size > 0
    with sqlite3.connect(moved) as old:
        assert old.execute("SELECT sum(offset) FROM channels").fetchone() == (4 * EACH,)
    old.close()


@in_loop
async def test_damage_met_while_tidying(stopped: Log, tmp_path: Path) -> None:
    house = stopped.copy(tmp_path / "copy")
    async with house.open(**KEEP) as broker:
        epoch = (await head_of(broker, "a")).epoch
        house.faults.statement, house.faults.code = "DELETE FROM claims", sqlite3.SQLITE_CORRUPT
        await broker._writer.ask(lambda store: store.rollback() or store.tidy() or store.begin())
        house.faults.statement = ""
        await publish_patiently(broker, 3000, "b")
        assert (await head_of(broker, "a")).epoch > epoch


@in_loop
async def test_a_client_that_is_being_read_for(
    stopped: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict on the old log must not be given out after its end has been told."""
    house = stopped.copy(tmp_path / "copy")
    async with house.open(**KEEP) as broker:
        posted = posts(broker, monkeypatch)
        told: list[str] = []
        broker.restarted = lambda channel, *_: told.append(channel)
        house.faults.statement, house.faults.code = "INSERT INTO pub", sqlite3.SQLITE_CORRUPT
        start = stopped.told[0].position._replace(offset=0, tag=START_TAG)
        reading = asyncio.create_task(broker.read({"a": start}))
        publishing = asyncio.create_task(broker.publish([ask("a", 3000)]))
        await asyncio.sleep(0)
        # The loop stands still until it has been handed the window, the failure and the end.
        wait_for(lambda: len(posted) == 3)  # and the loop does not run
        history = (await reading)["a"]
        assert "a" in told
        assert history.reset == EPOCH
        await publishing


@in_loop
async def test_a_damaged_file_that_cannot_be_renamed(
    stopped: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = stopped.copy(tmp_path / "copy")
    monkeypatch.setattr(sqlite_store, "RENEW_SECONDS", 0.0)
    rename, tries = os.rename, []

    def refuse(*names: str) -> None:
        tries.append(names)
        if len(tries) < 4:
            raise PermissionError(13, "made to fail")
        rename(*names)

    monkeypatch.setattr(os, "rename", refuse)
    async with house.open(**KEEP) as broker:
        epoch = (await head_of(broker, "a")).epoch
        house.faults.statement, house.faults.code = "COMMIT", sqlite3.SQLITE_CORRUPT
        (answer,) = await broker.publish([ask("a", 3000)])
        house.faults.statement = ""
        # Until then nothing is written to a file that is known to be damaged.
        assert isinstance(answer, Unavailable)
        (later,) = await publish_patiently(broker, 3000, "a")
        assert later.epoch > epoch
        assert len(tries) >= 4


@in_loop
async def test_no_room_for_a_new_log(
    stopped: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread outlives that, its housekeeping too, and tries again."""
    house = stopped.copy(tmp_path / "copy")
    monkeypatch.setattr(sqlite_store, "RENEW_SECONDS", 0.0)
    monkeypatch.setattr(writer, "TIDY_SECONDS", 0.001)
    make, tries = sqlite_file.DatabaseFile._make_file, []

    def fail(file: sqlite_file.DatabaseFile) -> None:
        tries.append(file)
        if len(tries) < 10:
            raise OSError(28, "made to fail")
        make(file)

    async with house.open(**KEEP) as broker:
        monkeypatch.setattr(sqlite_file.DatabaseFile, "_make_file", fail)
        house.faults.statement, house.faults.code = "COMMIT", sqlite3.SQLITE_CORRUPT
        await broker.publish([ask("a", 3000)])
        house.faults.statement = ""
        await until(lambda: len(tries) >= 10)
        (answer,) = await publish_patiently(broker, 3001, "a")
        assert answer.epoch > stopped.told[0].position.epoch
    assert len(set_aside(house)) == 1


@in_loop
async def test_a_damaged_publication_is_a_missing_one(
    stopped: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = stopped.copy(tmp_path / "copy")
    with house.store() as store:
        store.db.execute(
            "UPDATE publications SET json = replace(json, '0', '1') WHERE offset = 20 "
            "AND channel = (SELECT number FROM channels WHERE name = 'a')"
        )
    async with house.open(**KEEP) as broker:
        complete, resets = await judge(broker, stopped.told)
    # Those who have reached the one after it, whose tag is known, miss nothing.
    assert (complete, resets) == (WHOLE - 21, {"trimmed"})
    assert "event=storage.row_damaged channel=a offset=20" in caplog.text


# A whole server.


def destroy(folder: Path) -> None:
    (folder / "push.db").write_bytes(b"garbage" * 1000)
    (folder / "push.db-wal").unlink()  # or SQLite would mend the one with the other


def test_a_server_whose_log_was_destroyed() -> None:
    with PushServer(broker="sqlite") as push:
        token = push.token("1", sub_ch=["a"])
        with push.sse(token, "a") as alice:
            push.api("publish", channel="a", data=1)
            cursor = alice.take(1)[0].cursor
        push.kill()
        destroy(push.folder)
        push.start()
        assert push.log.count("event=storage.damaged") == 1
        token = push.token("1", sub_ch=["a"], iat=int(time.time()) + 1)
        with push.sse(token, "a", since=cursor) as alice:
            reset = alice.control("reset")
            assert (reset["channels"], reset["reason"]) == (["user:1", "a"], "epoch")
            push.api("publish", channel="a", data=2)
            assert alice.take(1)[0].value["data"] == 2


@pytest.mark.parametrize("what", ["destroyed", "deleted", "cut off"])
def test_who_was_logged_out_does_not_come_back_when_the_log_is_lost(what: str) -> None:
    with PushServer(broker="sqlite") as push:
        old = push.token("1", sub_ch=["a"])
        push.api("publish", channel="a", data=1)
        push.kill()
        push.start()  # what is in the file so far has been folded into it
        push.api("publish", channel="a", data=2)
        push.api("revoke", user="1")
        push.kill()
        if what == "destroyed":
            destroy(push.folder)
        elif what == "deleted":
            (push.folder / "push.db").unlink()
        (push.folder / "push.db-wal").unlink(missing_ok=True)
        push.start()
        for _ in range(2):
            head = {"Authorization": f"Bearer {old}"}
            assert push.get("/subscribe/poll?channel=a", headers=head).status == 401
            fresh = push.token("1", sub_ch=["a"], iat=int(time.time()) + 1)
            with push.sse(fresh, "a"):
                pass
            push.restart()  # it is remembered
