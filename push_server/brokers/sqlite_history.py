"""The history of one channel on disk: where it ends, what of it is kept, and what is not any more.

What memory drops from its windows by `ChannelLog.trim`, the disk drops row by row by the same
limits. A damaged publication is a missing one, and what lies before a missing one proves nothing.

Runs on the writer's thread. Imported by the SQLite store.
"""

from collections.abc import Sequence
from typing import Any

from push_server import log
from push_server.brokers.sqlite_file import Connection
from push_server.brokers.sqlite_schema import Damaged, checksum
from push_server.channels import Namespace
from push_server.history import ChannelLog
from push_server.positions import START_TAG, Position, tag_of
from push_server.publications import Publication


class Head:
    """Where a channel stands, in the file or within a transaction."""

    __slots__ = ("bytes", "keep", "name", "number", "offset", "start", "tag")

    def __init__(self, name: str, row: tuple[int, int, str, int], keep: Namespace) -> None:
        self.name = name
        self.number, self.offset, self.tag, self.bytes = row
        self.start = self.offset
        """Where it stood when the transaction began."""
        self.keep = keep

    @property
    def checksum(self) -> int:
        """The checksum of the channel's row as it is to be written."""
        return checksum(self.number, self.name, self.offset, self.tag, self.bytes)

    def is_over(self, now: float, offset: int, accepted: float, before: int) -> bool:
        """Whether a publication is over a limit: the rule of `ChannelLog.trim`, row by row."""
        keep = self.keep
        return (
            offset <= self.offset - keep.history_size
            or self.bytes - before > keep.history_bytes
            or accepted <= now - keep.history_ttl
        )


def sound_head(name: str, fields: Sequence[Any], check: int) -> tuple[int, int, str, int]:
    """Number, offset, tag and bytes of a channel, as they were written; else `Damaged`."""
    number, offset, tag, size = fields
    if check != checksum(number, name, offset, tag, size):
        raise Damaged(f"the head of channel {number} is not what was written")
    return number, offset, tag, size


def find_head(db: Connection, channel: str, keep: Namespace) -> Head | None:
    """Where a channel stands, if it was ever published to. Raises `Damaged`."""
    row = db.execute(
        "SELECT number, offset, tag, bytes, checksum FROM channels WHERE name = ?", (channel,)
    ).fetchone()
    if row is None:
        return None
    *fields, check = row
    return Head(channel, sound_head(channel, fields, check), keep)


def load_history(db: Connection, head: Head, epoch: int, now: float) -> ChannelLog:
    """All that is to be kept of a channel, read newest first until there is more."""
    floor: Position | None = None
    kept: list[Publication] = []
    rows = db.execute(
        "SELECT offset, time, before, id, exclude, json, checksum FROM publications "
        "WHERE channel = ? ORDER BY offset DESC",
        (head.number,),
    )
    for *fields, json, check in rows:
        offset, accepted, before, publication_id, exclude = fields
        if offset != head.offset - len(kept):
            break
        if not isinstance(json, bytes) or check != checksum(head.number, *fields, data=json):
            log.warn("storage.row_damaged", channel=head.name, offset=offset)
            break
        position = Position(epoch, offset, tag_of(publication_id))
        if head.is_over(now, offset, accepted, before):
            floor = position
            break
        kept.append(Publication(head.name, position, publication_id, accepted, exclude, json))
    rows.close()
    window = ChannelLog(floor or _floor(head, epoch, kept))
    for publication in reversed(kept):
        window.append(publication, head.keep)
    return window


def _floor(head: Head, epoch: int, kept: list[Publication]) -> Position:
    """Where a history begins that has nothing over a limit before it."""
    if not kept:
        return Position(epoch, head.offset, head.tag)
    if kept[-1].position.offset == 1:
        return Position(epoch, 0, START_TAG)
    # It was trimmed under narrower limits. The oldest left is the one whose tag we know.
    return kept.pop().position


def trim_history(db: Connection, head: Head, now: float, limit: int) -> None:
    """Delete up to `limit` publications that are over, but for the newest of them."""
    anchor = first = None
    rows = db.execute(
        "SELECT offset, time, before FROM publications WHERE channel = ? ORDER BY offset LIMIT ?",
        (head.number, limit + 1),
    )
    for offset, accepted, before in rows:
        if not isinstance(accepted, float) or not isinstance(before, int):
            raise Damaged(f"a publication of channel {head.number} is not what was written")
        if not head.is_over(now, offset, accepted, before):
            break
        first, anchor = first or offset, offset
    rows.close()
    if anchor != first:
        db.execute(
            "DELETE FROM publications WHERE channel = ? AND offset < ?", (head.number, anchor)
        )
