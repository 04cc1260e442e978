"""What a broker knows without asking the place where everything is kept.

The head of every channel it has to do with is here, so that a client who missed nothing is told
so at once. Recent publications are here for the channels in use, up to a budget for all of them
together; those used least recently are dropped, and read again when needed.

Only the event loop calls this. Imported by the brokers for SQLite and for Redis.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from push_server.channels import Namespace
from push_server.history import ChannelLog
from push_server.positions import START_TAG, Position
from push_server.publications import Publication

BUDGET = 64 * 1024 * 1024
"""Bytes of memory for the recent publications of all channels."""

WINDOW_COST = 1_000
PUBLICATION_COST = 600
"""What the objects around the bytes of a publication take (Python 3.11, rounded up)."""


def _cost(log: ChannelLog) -> int:
    return WINDOW_COST + PUBLICATION_COST * len(log.window) + log.bytes


class Windows:
    """The heads of all channels and the logs of the channels in use."""

    def __init__(self, epoch: int, heads: dict[str, Position], budget: int = BUDGET) -> None:
        self._origin = Position(epoch, 0, START_TAG)
        self._heads = heads
        self._logs: OrderedDict[str, ChannelLog] = OrderedDict()
        self._budget = budget
        self.cost = 0
        """Bytes that the logs take, about."""

    def log(self, channel: str, keep: Namespace, now: float) -> ChannelLog:
        """What is known here of a channel, trimmed to this moment; at least its head."""
        log = self._logs.get(channel)
        if log is None:
            return self._headed(channel)
        self.cost -= _cost(log)
        log.trim(keep, now)
        self.cost += _cost(log)
        self._logs.move_to_end(channel)
        return log

    def append(self, channel: str, publications: Sequence[Publication], keep: Namespace) -> None:
        """Add the next publications of a channel."""
        log = self._logs.get(channel)
        if log is None:
            log = self._headed(channel)
        else:
            self.cost -= _cost(log)
        for publication in publications:
            log.append(publication, keep)
        self._heads[channel] = log.head
        self._store(channel, log)

    def install(self, channel: str, log: ChannelLog) -> None:
        """Take a log read from where the rest is kept; it says where the channel stands."""
        self._heads[channel] = log.head
        known = self._logs.get(channel)
        if known is not None:
            self.cost -= _cost(known)
        self._store(channel, log)

    def head(self, channel: str) -> Position:
        """Where a channel stands."""
        return self._heads.get(channel, self._origin)

    def channels(self) -> Iterable[str]:
        """The channels whose head is known."""
        return self._heads.keys()

    def forget(self, channel: str) -> None:
        """Know nothing of a channel any more."""
        self._heads.pop(channel, None)
        log = self._logs.pop(channel, None)
        if log is not None:
            self.cost -= _cost(log)

    def _headed(self, channel: str) -> ChannelLog:
        head = self._heads.get(channel, self._origin)
        return ChannelLog(head, whole=head.offset == 0)

    def _store(self, channel: str, log: ChannelLog) -> None:
        self._logs[channel] = log
        self._logs.move_to_end(channel)
        self.cost += _cost(log)
        while self.cost > self._budget:
            _, dropped = self._logs.popitem(last=False)
            self.cost -= _cost(dropped)
