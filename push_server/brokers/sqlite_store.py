"""The log on disk: one SQLite file, and all the SQL there is.

Everything here runs on the writer's thread (`push_server.brokers.writer`), apart from the
constructor. One connection in write-ahead mode with `synchronous = FULL`: a commit returns when
it is on the disk. The file is locked for as long as it is open, so it belongs to one process at
a time; that also rules out the corruption that SQLite before 3.51.3 risks when two connections
write and checkpoint at once.

What a transaction changes is known only to the transaction until `commit` returns it, so one
that fails leaves nothing to undo in memory.

Imported by the SQLite broker; the only importer of sqlite3.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from push_server import log
from push_server.brokers.base import digest, id_conflict, new_epoch, remember_until
from push_server.brokers.writer import Placed
from push_server.channels import Namespace
from push_server.errors import BadInput, PushError, StorageFull, Unavailable
from push_server.history import ChannelLog
from push_server.positions import START_TAG, Position, tag_of
from push_server.publications import Publication, Published, PublishRequest
from push_server.revocations import Revocation

Connect = Callable[..., sqlite3.Connection]

SCHEMA_VERSION = 1
APPLICATION_ID = 0x70757368
"""Marks the file as ours ("push"), so that no other program's database is ever changed."""

SCHEMA = """
-- One epoch for the whole log.
CREATE TABLE epoch (epoch INTEGER PRIMARY KEY);
-- The head of every channel ever published to; never deleted, or offsets would start again.
-- bytes: of all publications the channel ever had.
CREATE TABLE channels (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    offset INTEGER NOT NULL, tag TEXT NOT NULL, bytes INTEGER NOT NULL);
-- The history, and before it at least one publication more, whose tag proves the oldest
-- position that can still be resumed from. before: the channel's bytes before this one.
CREATE TABLE publications (channel INTEGER NOT NULL, offset INTEGER NOT NULL,
    time REAL NOT NULL, before INTEGER NOT NULL, id TEXT NOT NULL, exclude TEXT,
    json BLOB NOT NULL, PRIMARY KEY (channel, offset)) WITHOUT ROWID;
-- Publication ids in force, numbered in the order in which they can be forgotten.
CREATE TABLE ids (number INTEGER PRIMARY KEY, channel INTEGER NOT NULL, id TEXT NOT NULL,
    offset INTEGER NOT NULL, digest BLOB NOT NULL, expires REAL NOT NULL, UNIQUE (id, channel));
CREATE TABLE revocations (kind TEXT NOT NULL, value TEXT NOT NULL, before REAL NOT NULL,
    expires REAL NOT NULL, PRIMARY KEY (kind, value)) WITHOUT ROWID;
CREATE TABLE claims (key TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
"""

LOCK_SECONDS = 1.0
"""How long to wait for a process that is just letting go of the file."""

TRIM_EVERY = 32
"""A channel's history is trimmed on disk when its offset passes a multiple of this."""

FORGET_LIMIT = 2_000
"""Ids forgotten in one go, about 10 ms."""

SWEEP_LIMIT = 50
"""Channels looked at in one go for publications that only grew too old."""

LOW_WATER = 64 * 1024 * 1024
"""Publishing stops below this much free space (or 5 % of a small disk). A disk that is quite
full cannot be rescued from inside: SQLite needs room even to delete."""


class Opened(NamedTuple):
    """What the store held when it was opened."""

    epoch: int
    heads: dict[str, Position]
    revocations: list[Revocation]
    claims: list[tuple[str, float]]


class _Head:
    """Where a channel stands within a transaction."""

    __slots__ = ("bytes", "keep", "name", "number", "offset", "start", "tag")

    def __init__(self, name: str, row: tuple[int, int, str, int], keep: Namespace) -> None:
        self.name = name
        self.number, self.offset, self.tag, self.bytes = row
        self.start = self.offset
        self.keep = keep


class SQLiteStore:
    """The log on disk. Everything here runs on the writer's thread."""

    def __init__(
        self,
        path: str,
        keep: Callable[[str], Namespace],
        clock: Callable[[], float],
        connect: Connect = sqlite3.connect,
    ) -> None:
        # Absolute also because ":memory:" and "" mean something else to SQLite.
        self.path = os.path.abspath(path)
        self._keep = keep
        self._clock = clock
        self._connect = connect
        self._db: sqlite3.Connection | None = None
        self._epoch = 0
        self._now = 0.0
        self._heads: dict[str, _Head] = {}
        self._placed: dict[str, list[Publication]] = {}
        self._swept = 0
        self._space_checked = 0.0
        self._low = False
        self._failing = False
        """Whether the last transaction failed; a disk that stays full is logged once."""

    @property
    def db(self) -> sqlite3.Connection:
        """The connection; there is one between `open` and `close`."""
        assert self._db is not None
        return self._db

    # Opening and closing.

    def open(self) -> Opened:
        """Lock the file, make the tables if it is new, and read what memory must know."""
        self._make_file()
        try:
            self._db = self._connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)
            self._lock()
            return self._load_all()
        except sqlite3.OperationalError as error:
            if _primary_code(error) == sqlite3.SQLITE_BUSY:
                raise self._unusable(
                    "another process uses this file; stop it or name another file"
                ) from error
            raise self._unusable(f"SQLite cannot open it ({error})") from error
        except sqlite3.DatabaseError as error:
            raise self._unusable(
                f"the file is damaged or no database ({error}); move it away to begin a new log"
            ) from error

    def _make_file(self) -> None:
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise self._unusable(f"there is no folder {folder}; make it or name another file")
        try:
            # Readable by nobody else: the log holds private messages.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise self._unusable(f"cannot write the file ({error.strerror})") from error

    def _lock(self) -> None:
        db = self.db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and owner != APPLICATION_ID:
            raise self._unusable("the file is the database of another program")
        if version > SCHEMA_VERSION:
            raise self._unusable("a newer push server wrote the file; run that one")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -16384")
        # 16 MB between checkpoints: each page is folded into the file once for many commits.
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("BEGIN EXCLUSIVE")
        if not tables:
            for statement in SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("INSERT INTO epoch VALUES (?)", (new_epoch(self._clock()),))
        db.execute("COMMIT")

    def _load_all(self) -> Opened:
        db, now = self.db, self._clock()
        (self._epoch,) = db.execute("SELECT epoch FROM epoch").fetchone()
        epoch = self._epoch
        heads = {
            name: Position(epoch, offset, tag)
            for name, offset, tag in db.execute("SELECT name, offset, tag FROM channels")
        }
        revocations = db.execute(
            "SELECT kind, value, before, expires FROM revocations WHERE expires > ?", (now,)
        )
        claims = db.execute(
            "SELECT key, expires FROM claims WHERE expires > ? ORDER BY expires", (now,)
        )
        return Opened(epoch, heads, [Revocation(*row) for row in revocations], claims.fetchall())

    def close(self) -> None:
        """Let go of the file, after folding the write-ahead log into it."""
        if self._db is not None:
            try:
                self._db.close()
            except sqlite3.Error:
                log.error("storage.close_failed")
            self._db = None

    def _unusable(self, reason: str) -> BadInput:
        return BadInput("broker_unusable", f'broker = "sqlite:{self.path}": {reason}.')

    # One transaction.

    def begin(self) -> None:
        """Start a transaction."""
        self._now = self._clock()
        self._check_space()
        self.db.execute("BEGIN IMMEDIATE")

    def place(self, requests: Sequence[PublishRequest]) -> list[Published | PushError]:
        """Give each request its place, if its id has none yet."""
        if self._low:
            return [_FULL] * len(requests)
        return [self._place(request) for request in requests]

    def _place(self, request: PublishRequest) -> Published | PushError:
        head = self._heads.get(request.channel) or self._load_head(request.channel)
        offset = head.offset + 1
        data_digest = digest(request.data)
        expires = remember_until(self._now, head.keep)
        entry = (head.number, request.id, offset, data_digest, expires)
        insert = "INSERT INTO ids VALUES (NULL, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        if not self.db.execute(insert, entry).rowcount:
            seen, seen_digest, seen_expires = self.db.execute(
                "SELECT offset, digest, expires FROM ids WHERE channel = ? AND id = ?", entry[:2]
            ).fetchone()
            if seen_expires > self._now:
                if seen_digest != data_digest:
                    return id_conflict(request)
                return Published(request.channel, self._epoch, seen, request.id, True)
            self.db.execute("DELETE FROM ids WHERE channel = ? AND id = ?", entry[:2])
            self.db.execute(insert, entry)
        publication = Publication.place(request, self._epoch, offset, self._now)
        self.db.execute(
            "INSERT INTO publications VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                head.number,
                offset,
                self._now,
                head.bytes,
                request.id,
                request.exclude,
                publication.json,
            ),
        )
        head.offset = offset
        head.tag = publication.position.tag
        head.bytes += len(publication.json)
        self._placed.setdefault(head.name, []).append(publication)
        return Published(request.channel, self._epoch, offset, request.id, False)

    def _load_head(self, channel: str) -> _Head:
        row = self.db.execute(
            "SELECT number, offset, tag, bytes FROM channels WHERE name = ?", (channel,)
        ).fetchone()
        if row is None:
            number = self.db.execute(
                "INSERT INTO channels VALUES (NULL, ?, 0, ?, 0)", (channel, START_TAG)
            ).lastrowid
            row = (number, 0, START_TAG, 0)
        head = self._heads[channel] = _Head(channel, row, self._keep(channel))
        return head

    def claim(self, key: str, expires: float) -> None:
        """Remember a claim."""
        self.db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", (key, expires))

    def revoke(self, revocation: Revocation) -> None:
        """Remember a revocation; of two for one claim the later `before` holds."""
        self.db.execute(
            "INSERT INTO revocations VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "before = max(before, excluded.before), expires = max(expires, excluded.expires)",
            (revocation.kind, revocation.value, revocation.before, revocation.expires),
        )

    def commit(self) -> Placed:
        """Write the heads, trim, and make it all durable."""
        for head in self._heads.values():
            if head.offset == head.start:
                continue
            self.db.execute(
                "UPDATE channels SET offset = ?, tag = ?, bytes = ? WHERE number = ?",
                (head.offset, head.tag, head.bytes, head.number),
            )
            if head.offset // TRIM_EVERY != head.start // TRIM_EVERY:
                self._trim(head, TRIM_EVERY + head.offset - head.start)
        self.db.execute("COMMIT")
        if self._failing:
            log.info("storage.recovered")
            self._failing = False
        placed = self._placed
        self._forget_round()
        return placed

    def rollback(self) -> None:
        """Undo the transaction, whatever state it is in."""
        self._forget_round()
        try:
            # SQLite has undone some errors by itself.
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
        except sqlite3.Error:
            log.error("storage.rollback_failed")

    def _forget_round(self) -> None:
        self._heads = {}
        self._placed = {}

    def failure(self, error: Exception) -> PushError:
        """The answer to those whose job met this error."""
        if isinstance(error, PushError):
            return error
        if not self._failing:
            log.error("storage.failed", reason=getattr(error, "sqlite_errorname", "internal"))
        self._failing = True
        if _primary_code(error) == sqlite3.SQLITE_FULL:
            return _FULL
        return Unavailable("storage_error", "The log cannot be written or read.", retry_after=1)

    def _check_space(self) -> None:
        if abs(self._now - self._space_checked) < 1:
            return
        self._space_checked = self._now
        disk = os.statvfs(self.path)
        low = disk.f_bavail * disk.f_frsize < min(LOW_WATER, disk.f_blocks * disk.f_frsize // 20)
        if low and not self._low:
            log.warn("storage.low", path=self.path, free=disk.f_bavail * disk.f_frsize)
        self._low = low

    # History.

    def load(self, channel: str) -> ChannelLog:
        """All the history that is to be kept of a channel, newest first until there is more."""
        now, keep = self._clock(), self._keep(channel)
        row = self.db.execute(
            "SELECT number, offset, tag, bytes FROM channels WHERE name = ?", (channel,)
        ).fetchone()
        if row is None:
            return ChannelLog(Position(self._epoch, 0, START_TAG))
        head = _Head(channel, row, keep)
        floor: Position | None = None
        kept: list[Publication] = []
        rows = self.db.execute(
            "SELECT offset, time, before, id, exclude, json FROM publications "
            "WHERE channel = ? ORDER BY offset DESC",
            (head.number,),
        )
        for offset, accepted, before, publication_id, exclude, json in rows:
            if offset != head.offset - len(kept):
                break  # A row is missing: what lies before it proves nothing.
            position = Position(self._epoch, offset, tag_of(publication_id))
            if _is_over(head, keep, now, offset, accepted, before):
                floor = position
                break
            kept.append(Publication(channel, position, publication_id, accepted, exclude, json))
        rows.close()
        window = ChannelLog(floor or self._floor(head, kept))
        for publication in reversed(kept):
            window.append(publication, keep)
        return window

    def _floor(self, head: _Head, kept: list[Publication]) -> Position:
        """Where a history begins that has nothing over a limit before it."""
        if not kept:
            return Position(self._epoch, head.offset, head.tag)
        if kept[-1].position.offset == 1:
            return Position(self._epoch, 0, START_TAG)
        # It was trimmed under narrower limits. The oldest left is the one whose tag we know.
        return kept.pop().position

    def _trim(self, head: _Head, limit: int) -> None:
        """Delete up to `limit` publications that are over, but for the newest of them."""
        anchor = first = None
        rows = self.db.execute(
            "SELECT offset, time, before FROM publications WHERE channel = ? "
            "ORDER BY offset LIMIT ?",
            (head.number, limit + 1),
        )
        for offset, accepted, before in rows:
            if not _is_over(head, head.keep, self._now, offset, accepted, before):
                break
            first, anchor = first or offset, offset
        rows.close()
        if anchor != first:
            self.db.execute(
                "DELETE FROM publications WHERE channel = ? AND offset < ?", (head.number, anchor)
            )

    # Housekeeping.

    def tidy(self) -> None:
        """Forget a bounded number of ids and publications that have expired."""
        self._now = now = self._clock()
        try:
            self.db.execute("BEGIN")
            # Stops at ids still in force. One of a namespace with a long history keeps those
            # after it a little longer, which harms nobody.
            self.db.execute(
                "DELETE FROM ids WHERE expires <= ? AND number <= (SELECT max(number) FROM "
                "(SELECT number FROM ids ORDER BY number LIMIT ?))",
                (now, FORGET_LIMIT),
            )
            self.db.execute("DELETE FROM claims WHERE expires <= ?", (now,))
            self.db.execute("DELETE FROM revocations WHERE expires <= ?", (now,))
            self._sweep()
            self.db.execute("COMMIT")
        except sqlite3.Error:
            log.error("storage.tidy_failed")
            self.rollback()

    def _sweep(self) -> None:
        rows = self.db.execute(
            "SELECT name, number, offset, tag, bytes FROM channels WHERE number > ? "
            "ORDER BY number LIMIT ?",
            (self._swept, SWEEP_LIMIT),
        ).fetchall()
        for name, *row in rows:
            self._trim(_Head(name, row, self._keep(name)), 4 * TRIM_EVERY)
        self._swept = rows[-1][1] if len(rows) == SWEEP_LIMIT else 0


_FULL = StorageFull("storage_full", "The disk that holds the log has no room; nothing was stored.")


def _primary_code(error: Exception) -> int:
    """SQLite's error code without the detail in its upper bits; 0 for another's error."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_over(
    head: _Head, keep: Namespace, now: float, offset: int, accepted: float, before: int
) -> bool:
    """Whether a publication is over a limit: the rule of `ChannelLog.trim`, row by row."""
    return (
        offset <= head.offset - keep.history_size
        or head.bytes - before > keep.history_bytes
        or accepted <= now - keep.history_ttl
    )
