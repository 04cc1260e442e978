"""The database file of the log: its lock, and what becomes of it when it is damaged.

One connection in write-ahead mode with `synchronous = FULL`: a commit returns when it is on the
disk. The file is locked for as long as it is open, so it belongs to one process at a time; that
also rules out the corruption that SQLite before 3.51.3 risks when two connections write and
checkpoint at once.

What is wrong decides what happens. A file that another process uses, that a newer server or
another program wrote, or that this process may not write: refused, and left as it is. Damage:
the file is renamed, never deleted, and a log with a new epoch begins, so that every client that
comes back is told `reset`. A log that is sound but lost its end (`sqlite_mark`) stays in use,
with a new epoch.

Everything here runs on the writer's thread, apart from the constructor. Imported by the SQLite
store; the only importer of sqlite3.
"""

import contextlib
import glob
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from push_server import log
from push_server.brokers.base import new_epoch
from push_server.brokers.sqlite_mark import Mark
from push_server.brokers.sqlite_schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    TABLES,
    UNREADABLE,
    Damaged,
)
from push_server.errors import BadInput
from push_server.positions import OFFSET_LIMIT
from push_server.revocations import EVERYBODY, SESSION, TOKEN, USER, Revocation
from push_server.tokens import LEEWAY, LIFETIME_LIMIT

Connect = Callable[..., sqlite3.Connection]
Connection = sqlite3.Connection
Error = sqlite3.Error

connect_sqlite: Connect = sqlite3.connect

LIBRARY = sqlite3.sqlite_version
"""The version of SQLite that Python runs on."""

_KINDS = (SESSION, USER, TOKEN, EVERYBODY)

LOCK_SECONDS = 1.0
"""How long to wait for a process that is just letting go of the file."""

CHECK_SECONDS = 2.0
"""How long a start may look for damage; about a gigabyte, if the disk is quick. What is not seen
then is seen when it is read."""

_SURROUNDINGS = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_AUTH,
    }
)
"""Errors for which the file's surroundings are to blame, not what is in it."""

_CONTENT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT})
"""Errors that, with these statements, nothing but damage explains."""


def primary_code(error: Exception) -> int:
    """SQLite's error code without the detail in its upper bits; 0 for another's error."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_full(error: Exception) -> bool:
    """Whether the disk has no room."""
    return primary_code(error) == sqlite3.SQLITE_FULL


def is_damage(error: Exception) -> bool:
    """Whether an error met while the log was in use says that the file is damaged."""
    return isinstance(error, UNREADABLE) or primary_code(error) in _CONTENT


def _is_damage_at_start(error: Exception) -> bool:
    """The same of a file just opened, where a table that is not there is damage, too."""
    # Without any detail: the header asks for a newer SQLite, though the system let us write.
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY:
        return True
    return primary_code(error) not in _SURROUNDINGS


class DatabaseFile:
    """The file, open or closed."""

    def __init__(self, path: str, clock: Callable[[], float], connect: Connect) -> None:
        # Absolute also because ":memory:" and "" mean something else to SQLite.
        self.path = os.path.abspath(path)
        self._clock = clock
        self._connect = connect
        self._db: sqlite3.Connection | None = None
        self._mark: Mark | None = None
        self._saved: tuple[list[Revocation], list[tuple[str, float]]] = ([], [])
        """Revocations and claims out of a damaged file, to go into the one that replaces it."""
        self._lost = False
        """Whether there may have been more of them."""

    @property
    def db(self) -> sqlite3.Connection:
        """The connection; there is one between `open` and `close`."""
        assert self._db is not None
        return self._db

    @property
    def mark(self) -> Mark:
        """How far the log got; it is there when the connection is."""
        assert self._mark is not None
        return self._mark

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._db is not None

    def open(self) -> None:
        """Lock the file, and make the tables if it is new.

        Raises `BadInput` for a file that must not be touched, else what SQLite raises.
        """
        self._make_file()
        self._db = self._connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)
        # What is no UTF-8 fails its checksum, like other damage.
        self._db.text_factory = _text
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        new = self._is_new()
        self._lock()
        self._open_mark()
        if new:
            self._create()
        else:
            self._check()
        self.db.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file, after folding the write-ahead log into it."""
        if self._db is not None:
            try:
                self._db.close()
            except sqlite3.Error:
                log.error("storage.close_failed")
            self._db = None
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def refusal(self, error: Exception) -> BadInput | None:
        """The answer if this error from opening the file is not about damage."""
        if isinstance(error, BadInput):
            return error
        if primary_code(error) == sqlite3.SQLITE_BUSY:
            return self._unusable("another process uses this file; stop it or name another file")
        if isinstance(error, OSError):
            return self._unusable(f"cannot write the file ({error.strerror})")
        if not _is_damage_at_start(error):
            return self._unusable(f"SQLite cannot open it ({error})")
        return None

    def unusable_anew(self, error: Exception) -> BadInput:
        """The answer if even the file that replaces a damaged one is damaged."""
        return self._unusable(f"a new file in its place cannot be read back ({error})")

    def _unusable(self, reason: str) -> BadInput:
        return BadInput("broker_unusable", f'broker = "sqlite:{self.path}": {reason}.')

    # Opening.

    def _make_file(self) -> None:
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise self._unusable(f"there is no folder {folder}; make it or name another file")
        # Readable by nobody else: the log holds private messages.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _is_new(self) -> bool:
        """Whether there is nothing in the file. Raises if it is not a log of ours."""
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        (owner,) = self.db.execute("PRAGMA application_id").fetchone()
        (pages,) = self.db.execute("PRAGMA page_count").fetchone()
        tables = dict(self.db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        if owner != APPLICATION_ID and tables and not tables.keys() >= TABLES.keys():
            raise self._unusable("the file is the database of another program")
        # Before what follows: to refuse a damaged file does less harm than to put away a good one.
        if tables and version > SCHEMA_VERSION:
            raise self._unusable("a newer push server wrote the file; run that one")
        if not tables and pages <= 1:
            return True
        if (owner, version) != (APPLICATION_ID, SCHEMA_VERSION):
            raise Damaged("its header is not the one we write")
        if tables != TABLES:
            raise Damaged("its tables are not the ones we make")
        return False

    def _lock(self) -> None:
        db = self.db
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -16384")
        # 16 MB between checkpoints: each page is folded into the file once for many commits.
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("BEGIN EXCLUSIVE")

    def _open_mark(self) -> None:
        # Only now that the file is locked: the mark belongs to whoever has the lock.
        self._mark = Mark(self.path + "-mark")
        self._mark.open()

    def _create(self) -> None:
        db = self.db
        for statement in TABLES.values():
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        lost = self._lost or self.mark.epoch != 0  # there is a mark, and no log
        epoch = max(new_epoch(self._clock()), self.mark.epoch + 1)
        db.execute("INSERT INTO epoch VALUES (?)", (epoch,))
        self.mark.begin(epoch, 0)
        if lost:
            self._distrust()
        revocations, claims = self._saved
        db.executemany(
            "INSERT OR IGNORE INTO revocations VALUES (?, ?, ?, ?)",
            [(item.kind, item.value, item.before, item.expires) for item in revocations],
        )
        db.executemany("INSERT OR IGNORE INTO claims VALUES (?, ?)", claims)

    def _check(self) -> None:
        """Look for damage in the structure, for a bounded time. Raises `Damaged`."""
        with self._interrupted_after(CHECK_SECONDS):
            for pragma in ("integrity_check(channels)", "quick_check(1)"):
                (found,) = self.db.execute(f"PRAGMA {pragma}").fetchone()
                if found != "ok":
                    raise Damaged(found.splitlines()[-1])

    @contextmanager
    def _interrupted_after(self, seconds: float) -> Iterator[None]:
        # Not a progress handler: SQLite before 3.41 calls none while it walks a tree.
        until = time.monotonic() + seconds
        timer = threading.Timer(seconds, self.db.interrupt)
        timer.start()
        try:
            yield
        except (sqlite3.Error, Damaged):
            # A tree that was not walked to its end looks damaged.
            if time.monotonic() < until:
                raise
            log.info("storage.check_cut_short", path=self.path, seconds=seconds)
        finally:
            timer.cancel()
            timer.join()

    # What memory must know at start.

    def epoch(self, total: int) -> int:
        """The epoch of a log with so many publications; a new one if some must have been lost."""
        rows = self.db.execute("SELECT epoch FROM epoch").fetchall()
        if len(rows) != 1 or not 0 < rows[0][0] < OFFSET_LIMIT:
            raise Damaged("it does not have one epoch")
        epoch, mark = int(rows[0][0]), self.mark
        if mark.epoch != epoch or mark.total > total:
            log.warn(
                "storage.behind",
                path=self.path,
                reason="it is older than its mark" if mark.epoch else "it has no mark",
                publications=total,
                were=mark.total if mark.epoch == epoch else "unknown",
                consequence="a new epoch begins; clients are told reset and need new tokens",
            )
            epoch = max(new_epoch(self._clock()), mark.epoch + 1, epoch + 1)
            self.db.execute("UPDATE epoch SET epoch = ?", (epoch,))
            self._distrust()
        mark.begin(epoch, total)
        return epoch

    def _distrust(self) -> None:
        """Let no token in that was issued before now.

        Attack: who was logged out comes back after the log, and the revocation in it, was lost.
        All others are refused once, ask the CMS for a new token, and are let in.
        """
        now = self._clock()
        self.db.execute(
            "INSERT OR REPLACE INTO revocations VALUES (?, '*', ?, ?)",
            (EVERYBODY, now, now + LIFETIME_LIMIT + LEEWAY),
        )

    def revocations(self, now: float) -> list[Revocation]:
        """The revocations in force, as far as they can be read."""
        rows = self.db.execute(
            "SELECT kind, value, before, expires FROM revocations WHERE expires > ?", (now,)
        )
        return [
            Revocation(kind, value, before, expires)
            for kind, value, before, expires in rows
            if kind in _KINDS and isinstance(value, str) and _times(before, expires)
        ]

    def claims(self, now: float) -> list[tuple[str, float]]:
        """The claims in force, as far as they can be read, the first to expire first."""
        rows = self.db.execute(
            "SELECT key, expires FROM claims WHERE expires > ? ORDER BY expires", (now,)
        )
        return [(key, expires) for key, expires in rows if isinstance(key, str) and _times(expires)]

    # Damage.

    def set_aside(self, error: Exception) -> None:
        """Rename a damaged file, and close it. Raises `OSError` if it cannot be renamed."""
        saved = self._save()
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        target = f"{self.path}.damaged-{name}"
        number = 1
        while os.path.lexists(target):
            number += 1
            target = f"{self.path}.damaged-{name}-{number}"
        # Before closing, or SQLite would delete the write-ahead log, whose name follows from that
        # of its database. The database goes last: cut short, this is done again.
        for side in ("-shm", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path + side, target + side)
        os.rename(self.path, target)
        self.close()
        others = glob.glob(glob.escape(self.path) + ".damaged-*")
        log.warn(
            "storage.damaged",
            reason=error,
            path=self.path,
            moved_to=target,
            moved_so_far=sum(not other.endswith(("-shm", "-wal")) for other in others),
            revocations="lost" if saved is None else f"{len(saved[0])} read",
            consequence="a new log begins; clients are told reset and need new tokens",
        )
        self._saved = saved or ([], [])
        self._lost = True

    def _save(self) -> tuple[list[Revocation], list[tuple[str, float]]] | None:
        """What can be read of the revocations and claims in a damaged file; None if nothing."""
        try:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            now = self._clock()
            return self.revocations(now), self.claims(now)
        except (sqlite3.Error, AssertionError, UnicodeDecodeError):
            return None


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _times(*values: object) -> bool:
    return all(isinstance(value, float) for value in values)
