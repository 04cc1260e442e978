"""The log on disk: what is written to and read from one SQLite file.

Everything here runs on the writer's thread (`push_server.brokers.writer`), apart from the
constructor. What stands in the file: `sqlite_schema`; how it is opened, and what becomes of a
damaged one: `sqlite_file`; what is kept of a channel: `sqlite_history`.

What a transaction changes is known only to the transaction until `commit` returns it, so one
that fails leaves nothing to undo in memory.

Every row that an answer is made from is checked against its checksum. A damaged publication is
told to whoever has not seen it as a `reset`. Other damage, as soon as it is met, makes an end of
the whole log.

Imported by the SQLite broker.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from push_server import log
from push_server.brokers.base import digest, id_conflict, remember_until
from push_server.brokers.sqlite_file import (
    Connect,
    Connection,
    DatabaseFile,
    Error,
    connect_sqlite,
    is_damage,
    is_full,
)
from push_server.brokers.sqlite_history import (
    Head,
    find_head,
    load_history,
    sound_head,
    trim_history,
)
from push_server.brokers.sqlite_schema import UNREADABLE, Damaged, checksum
from push_server.brokers.sqlite_space import Space
from push_server.brokers.writer import Placed
from push_server.channels import Namespace
from push_server.errors import PushError, StorageFull, Unavailable
from push_server.history import ChannelLog
from push_server.positions import START_TAG, Position
from push_server.publications import Publication, Published, PublishRequest
from push_server.revocations import Revocation

TRIM_EVERY = 32
"""A channel's history is trimmed on disk when its offset passes a multiple of this."""

FORGET_LIMIT = 2_000
"""Ids forgotten in one go, about 10 ms."""

SWEEP_LIMIT = 50
"""Channels looked at in one go for publications that only grew too old."""

RENEW_SECONDS = 10.0
"""Between attempts to replace a damaged file: each may leave one behind."""


class Opened(NamedTuple):
    """What the store held when it was opened."""

    epoch: int
    heads: dict[str, Position]
    revocations: list[Revocation]
    claims: list[tuple[str, float]]


class SQLiteStore:
    """The log on disk. Everything here runs on the writer's thread."""

    def __init__(
        self,
        path: str,
        keep: Callable[[str], Namespace],
        clock: Callable[[], float],
        connect: Connect = connect_sqlite,
    ) -> None:
        self._file = DatabaseFile(path, clock, connect)
        self.path = self._file.path
        self._keep = keep
        self._clock = clock
        self._epoch = 0
        self._total = 0
        """Publications the log ever had."""
        self._now = 0.0
        self._heads: dict[str, Head] = {}
        self._placed: dict[str, list[Publication]] = {}
        self._swept = 0
        self._space = Space(self.path)
        self._failing = False
        """Whether the last transaction failed; a disk that stays full is logged once."""
        self._damage: Exception | None = None
        """What was found to be damaged since the file was opened."""
        self._renew_after = 0.0

    @property
    def db(self) -> Connection:
        """The connection; there is one between `open` and `close`."""
        return self._file.db

    # Opening and closing.

    def open(self) -> Opened:
        """Lock the file and read what memory must know; a damaged one is replaced by a new one.

        Raises `BadInput` for a file that cannot be used and is not to be replaced.
        """
        error: Exception | None = None
        for _ in range(2):
            try:
                if self._damage is not None:
                    self._file.set_aside(self._damage)
                    self._damage = None
                self._file.open()
                return self._load_all()
            except (Error, OSError, *UNREADABLE) as failure:
                refusal = self._file.refusal(failure)
                if refusal is not None:
                    raise refusal from failure
                error = self._damage = failure
        assert error is not None
        raise self._file.unusable_anew(error) from error

    def renew(self) -> Opened | None:
        """Replace the file if it was found damaged; if that fails, try again after a while."""
        if (self._damage is None and self._file.is_open) or time.monotonic() < self._renew_after:
            return None
        try:
            return self.open()
        except PushError as error:
            log.error("storage.renew_failed", reason=error.message)
            if self._damage is None:  # the old file is out of the way already
                self._file.close()
            self._renew_after = time.monotonic() + RENEW_SECONDS
            return None

    def _load_all(self) -> Opened:
        rows = self.db.execute("SELECT name, number, offset, tag, bytes, checksum FROM channels")
        ends: dict[str, tuple[int, str]] = {}
        for name, *fields, check in rows:
            _, offset, tag, _ = sound_head(name, fields, check)
            ends[name] = offset, tag
        self._total = sum(offset for offset, _ in ends.values())
        epoch = self._epoch = self._file.epoch(self._total)
        heads = {name: Position(epoch, offset, tag) for name, (offset, tag) in ends.items()}
        now = self._clock()
        return Opened(epoch, heads, self._file.revocations(now), self._file.claims(now))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    # One transaction.

    def begin(self) -> None:
        """Start a transaction."""
        if self._damage is not None:
            raise self._damage  # It could not be replaced yet.
        self._now = self._clock()
        self._space.measure(self.db)
        self.db.execute("BEGIN IMMEDIATE")

    def place(self, requests: Sequence[PublishRequest]) -> list[Published | PushError]:
        """Give each request its place, if its id has none yet."""
        if not self._space.take(requests):
            return [_FULL] * len(requests)
        return [self._place(request) for request in requests]

    def _place(self, request: PublishRequest) -> Published | PushError:
        head = self._heads.get(request.channel) or self._load_head(request.channel)
        offset = head.offset + 1
        data_digest = digest(request.data)
        expires = remember_until(self._now, head.keep)
        fields = (head.number, request.id, offset, data_digest, expires)
        entry = (*fields, checksum(*fields))
        insert = "INSERT INTO ids VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        if not self.db.execute(insert, entry).rowcount:
            seen, seen_digest, seen_expires = self._seen(head.number, request.id)
            if seen_expires > self._now:
                if seen_digest != data_digest:
                    return id_conflict(request)
                return Published(request.channel, self._epoch, seen, request.id, True)
            self.db.execute("DELETE FROM ids WHERE channel = ? AND id = ?", entry[:2])
            self.db.execute(insert, entry)
        publication = Publication.place(request, self._epoch, offset, self._now)
        row = (head.number, offset, self._now, head.bytes, request.id, request.exclude)
        self.db.execute(
            "INSERT INTO publications VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, publication.json, checksum(*row, data=publication.json)),
        )
        head.offset = offset
        head.tag = publication.position.tag
        head.bytes += len(publication.json)
        self._placed.setdefault(head.name, []).append(publication)
        return Published(request.channel, self._epoch, offset, request.id, False)

    def _seen(self, number: int, publication_id: str) -> tuple[int, bytes, float]:
        """The offset and digest of an id that is in force, and until when it is."""
        row = self.db.execute(
            "SELECT offset, digest, expires, checksum FROM ids WHERE channel = ? AND id = ?",
            (number, publication_id),
        ).fetchone()
        if row is None or row[3] != checksum(number, publication_id, *row[:3]):
            raise Damaged("an id is not what was written")
        seen: tuple[int, bytes, float] = row[:3]
        return seen

    def _load_head(self, channel: str) -> Head:
        keep = self._keep(channel)
        head = find_head(self.db, channel, keep)
        if head is None:
            number = self.db.execute(
                "INSERT INTO channels VALUES (NULL, ?, 0, ?, 0, 0)", (channel, START_TAG)
            ).lastrowid
            assert number is not None
            head = Head(channel, (number, 0, START_TAG, 0), keep)
        self._heads[channel] = head
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
                "UPDATE channels SET offset = ?, tag = ?, bytes = ?, checksum = ? "
                "WHERE number = ?",
                (head.offset, head.tag, head.bytes, head.checksum, head.number),
            )
            if head.offset // TRIM_EVERY != head.start // TRIM_EVERY:
                trim_history(
                    self.db, head, self._now, TRIM_EVERY + head.offset - head.start
                )
        self.db.execute("COMMIT")
        self._total += sum(map(len, self._placed.values()))
        self._file.mark.write(self._epoch, self._total)
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
            if self._file.is_open and self.db.in_transaction:
                self.db.execute("ROLLBACK")
        except Error:
            log.error("storage.rollback_failed")

    def _forget_round(self) -> None:
        self._heads = {}
        self._placed = {}

    def failure(self, error: Exception) -> PushError:
        """The answer to those whose job met this error."""
        if isinstance(error, PushError):
            return error
        if is_damage(error):
            self._damage = error
        elif not self._failing:
            log.error("storage.failed", reason=getattr(error, "sqlite_errorname", "internal"))
        self._failing = True
        if is_full(error):
            return _FULL
        return Unavailable("storage_error", "The log cannot be written or read.", retry_after=1)

    # History.

    def load(self, channel: str) -> ChannelLog:
        """All the history that is to be kept of a channel."""
        head = find_head(self.db, channel, self._keep(channel))
        if head is None:
            return ChannelLog(Position(self._epoch, 0, START_TAG))
        return load_history(self.db, head, self._epoch, self._clock())

    # Housekeeping.

    def tidy(self) -> None:
        """Forget a bounded number of ids and publications that have expired."""
        if self._damage is not None or not self._file.is_open:
            return
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
        except (Error, *UNREADABLE) as error:
            if is_damage(error):
                self._damage = error
            else:
                log.error("storage.tidy_failed")
            self.rollback()

    def _sweep(self) -> None:
        rows = self.db.execute(
            "SELECT name, number, offset, tag, bytes, checksum FROM channels WHERE number > ? "
            "ORDER BY number LIMIT ?",
            (self._swept, SWEEP_LIMIT),
        ).fetchall()
        for name, *fields, check in rows:
            row = sound_head(name, fields, check)
            trim_history(self.db, Head(name, row, self._keep(name)), self._now, 4 * TRIM_EVERY)
        self._swept = rows[-1][1] if len(rows) == SWEEP_LIMIT else 0


_FULL = StorageFull("storage_full", "The disk that holds the log has no room; nothing was stored.")
