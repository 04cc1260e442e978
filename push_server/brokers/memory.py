"""The broker that keeps everything in memory: for tests, trials, and sites that can lose it.

Every start is a new epoch, so each client that comes back after a restart is told `reset`.
Nothing here waits: each method runs from start to end in one turn of the loop.

Imported by `push_server.brokers`.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from push_server.brokers.base import (
    Broker,
    Deliver,
    Revoked,
    digest,
    id_conflict,
    new_epoch,
    remember_until,
)
from push_server.channels import Namespaces
from push_server.errors import PushError
from push_server.history import ChannelLog, History
from push_server.positions import START_TAG, Position
from push_server.publications import Publication, Published, PublishRequest
from push_server.revocations import Revocation


class _Spent(NamedTuple):
    """What is remembered of a publication id."""

    offset: int
    digest: bytes
    expires: float


class Claims:
    """Keys that can be claimed once until they expire."""

    def __init__(self) -> None:
        self._expires: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, ttl: float, now: float) -> bool:
        """Whether nobody has claimed the key; if so, it is claimed now."""
        claims = self._expires
        while claims and next(iter(claims.values())) <= now:
            claims.popitem(last=False)
        if claims.get(key, now) > now:
            return False
        self.put(key, now + ttl)
        return True

    def put(self, key: str, expires: float) -> None:
        """Enter a claim that was made earlier."""
        self._expires[key] = expires
        self._expires.move_to_end(key)


class MemoryBroker(Broker):
    """A broker without a disk: a `ChannelLog` for each channel ever published to."""

    def __init__(
        self,
        namespaces: Namespaces,
        deliver: Deliver,
        revoked: Revoked,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(namespaces, deliver, revoked, clock)
        self.epoch = new_epoch(clock())
        self._logs: dict[str, ChannelLog] = {}
        self._keeping: OrderedDict[str, None] = OrderedDict()
        """The channels that keep publications; the first was looked at longest ago."""
        self._spent: OrderedDict[tuple[str, str], _Spent] = OrderedDict()
        self._claims = Claims()

    async def start(self) -> None:
        """There is nothing to open and nobody to announce."""

    async def close(self) -> None:
        """There is nothing to finish: publishing never leaves anything half done."""

    async def publish(self, requests: Sequence[PublishRequest]) -> Sequence[Published | PushError]:
        """Place each request, then deliver what is new, channel by channel."""
        now = self.clock()
        self._forget(now)
        self._sweep(now, len(requests))
        placed: dict[str, list[Publication]] = {}
        answers = [self._place(request, now, placed) for request in requests]
        for channel, publications in placed.items():
            self._hand_over(channel, publications)
        return answers

    def _place(
        self, request: PublishRequest, now: float, placed: dict[str, list[Publication]]
    ) -> Published | PushError:
        channel, data_digest = request.channel, digest(request.data)
        spent = self._spent.get((channel, request.id))
        if spent is not None and spent.expires > now:
            if spent.digest != data_digest:
                return id_conflict(request)
            return Published(channel, self.epoch, spent.offset, request.id, True)
        keep = self.namespaces.of(channel)
        log = self._logs.get(channel)
        if log is None:
            log = self._logs[channel] = ChannelLog(self._origin())
        publication = Publication.place(request, self.epoch, log.head.offset + 1, now)
        log.append(publication, keep)
        self._keeping[channel] = None
        placed.setdefault(channel, []).append(publication)
        offset = publication.position.offset
        self._spent[channel, request.id] = _Spent(offset, data_digest, remember_until(now, keep))
        self._spent.move_to_end((channel, request.id))
        return Published(channel, self.epoch, offset, request.id, False)

    def _forget(self, now: float) -> None:
        # Stops at the first id still in force. One of a namespace with a long history keeps
        # the ids after it a little longer, which harms nobody.
        while self._spent and next(iter(self._spent.values())).expires <= now:
            self._spent.popitem(last=False)

    def _sweep(self, now: float, new: int) -> None:
        """Drop what is too old in channels that are quiet, as many as are published to.

        The head of a channel stays: its offsets must not begin again.
        """
        for _ in range(min(new, len(self._keeping))):
            channel, _ = self._keeping.popitem(last=False)
            log = self._logs[channel]
            log.trim(self.namespaces.of(channel), now)
            if log.window:
                self._keeping[channel] = None

    def _origin(self) -> Position:
        return Position(self.epoch, 0, START_TAG)

    def _log(self, channel: str) -> ChannelLog:
        log = self._logs.get(channel)
        if log is None:
            return ChannelLog(self._origin())
        log.trim(self.namespaces.of(channel), self.clock())
        return log

    async def read(self, since: Mapping[str, Position | None]) -> Mapping[str, History]:
        """Answer from the logs."""
        return {channel: self._log(channel).since(position) for channel, position in since.items()}

    async def history(self, channel: str, since: int | Position, limit: int) -> History:
        """Answer from the log."""
        return self._log(channel).page(since, limit)

    async def claim(self, key: str, ttl: float) -> bool:
        """Claim in memory: a restart forgets the claims, and changes nothing else."""
        return self._claims.take(key, ttl, self.clock())

    async def revoke(self, revocation: Revocation) -> None:
        """Announce it; there is nothing that could remember it."""
        self.revoked(revocation)
