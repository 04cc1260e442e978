"""What a channel remembers, and whether a client that was away is complete.

`ChannelLog` is the window of recent publications over a channel's log. Its `since` is the
only place that decides between `recovered` and `reset`, and it recovers only what it can
prove: the client's epoch is this log's epoch, its offset is inside the window (or at its
edge), and the publication at that offset is the one the client saw (the tag). All or
nothing: a client never gets a part of what it missed (the rule of Centrifugo's recovery,
with the tag added).

Pure: `now` is an argument. Imported by the brokers.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from push_server.channels import Namespace
from push_server.positions import Position
from push_server.publications import Publication

TRIMMED = "trimmed"
EPOCH = "epoch"
FUTURE = "future"
TAG = "tag"
UNKNOWN = "unknown"
"""Reasons of a `reset`, as `docs/protocol.rst` lists them."""


@dataclass(frozen=True, slots=True)
class History:
    """What a broker says of one channel."""

    head: Position
    publications: Sequence[Publication] = ()
    reset: str | None = None
    """Why continuity could not be proved; then `publications` is empty."""


class ChannelLog:
    """The head of one channel's log and the window of publications kept behind it."""

    __slots__ = ("bytes", "floor", "head", "whole", "window")

    def __init__(self, head: Position, *, whole: bool = True) -> None:
        self.head = head
        self.floor = head
        """The position just before the oldest publication in the window."""
        self.window: deque[Publication] = deque()
        self.bytes = 0
        self.whole = whole
        """Whether nothing before `floor` is kept anywhere else, such as on a disk."""

    def append(self, publication: Publication, keep: Namespace) -> None:
        """Add the next publication and drop what `keep` no longer holds."""
        self.head = publication.position
        self.window.append(publication)
        self.bytes += len(publication.json)
        self.trim(keep, publication.time)

    def trim(self, keep: Namespace, now: float) -> None:
        """Drop publications over the count, the bytes or the age that `keep` allows."""
        window = self.window
        oldest = now - keep.history_ttl
        while window and (
            len(window) > keep.history_size
            or self.bytes > keep.history_bytes
            or window[0].time <= oldest
        ):
            dropped = window.popleft()
            self.floor = dropped.position
            self.bytes -= len(dropped.json)
            # What is older than a publication that is over a limit is over it too.
            self.whole = True

    def since(self, position: Position | None) -> History:
        """What a client at this position missed, or why that cannot be said.

        `trimmed` is final only if the log is `whole`; otherwise ask where the rest is kept.
        """
        head, floor = self.head, self.floor
        if position is None:
            return History(head)
        if position.epoch != head.epoch:
            return History(head, reset=EPOCH)
        if position.offset > head.offset:
            return History(head, reset=FUTURE)
        if position.offset < floor.offset:
            return History(head, reset=TRIMMED)
        # A deque finds its n-th item in O(n), so each list below is made in one walk.
        seen = position.offset - floor.offset
        missed = list(islice(self.window, max(seen - 1, 0), None))
        known = missed.pop(0).position if seen else floor
        if position.tag != known.tag:
            return History(head, reset=TAG)
        return History(head, missed)

    def page(self, since: int | Position, limit: int) -> History:
        """At most `limit` publications in the window beyond an offset, or missed since a place."""
        if isinstance(since, Position):
            found = self.since(since)
            return History(found.head, found.publications[:limit], found.reset)
        skip = max(since - self.floor.offset, 0)
        return History(self.head, list(islice(self.window, skip, skip + limit)))

    def reaches(self, since: int | Position) -> bool:
        """Whether there is nothing more to be had of what lies beyond."""
        offset = since if isinstance(since, int) else since.offset
        return self.whole or offset >= self.floor.offset
