"""A room of the Redis broker, and how it begins: it has to be known where its channel stands.

That is asked only after the bus is sure to be heard, or something could fall between; and for all
rooms in one call that the bus has confirmed meanwhile, because clients come in crowds.

Event loop only. Imported by the rooms.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from push_server.brokers.redis_link import READ_PATIENCE, unavailable
from push_server.brokers.redis_log import RedisLog
from push_server.brokers.redis_watches import Watches
from push_server.brokers.redis_wire import Entry
from push_server.errors import PushError
from push_server.positions import Position

ROOMS_AT_ONCE = 500

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Room:
    """A channel with subscribers here."""

    __slots__ = ("deserted", "found", "gap", "loading", "overheard", "pending", "ready")

    def __init__(self) -> None:
        self.ready = False
        """Whether its window is known; from then on every publication is delivered."""
        self.loading: asyncio.Future[PushError | None] | None = None
        """What somebody waits for until it is ready, or cannot be made so."""
        self.pending: dict[tuple[int, int], Entry] = {}
        """What came before its time, by epoch and offset."""
        self.gap = False
        """Whether somebody is about to read what is missing."""
        self.found: tuple[int, Position] | None = None
        """Where it stands, if nothing comes any more that was sent before it was asked; and the
        connection that this has to come by."""
        self.deserted: float | None = None
        """Since when nobody has joined it, or it was heard of last."""
        self.overheard = False
        """Whether nobody ever has."""

    def loaded(self, failure: PushError | None) -> None:
        """Wake those who wait for it."""
        if self.loading is not None and not self.loading.done():
            self.loading.set_result(failure)
        self.loading = None


class Beginnings:
    """Learns where rooms stand that begin to be heard."""

    def __init__(
        self,
        rooms: Mapping[str, Room],
        redis_log: RedisLog,
        watches: Watches,
        *,
        since: Callable[[str], int],
        confirm: Callable[[str], None],
        begin: Callable[[str, Room, Position], None],
        spawn: Spawn,
    ) -> None:
        self._rooms = rooms
        self._log = redis_log
        self._watches = watches
        self._since = since
        """The connection of the bus since which a channel is heard without a gap; 0: it is not."""
        self._confirm = confirm
        """Has the bus confirm it once more."""
        self._begin = begin
        self._spawn = spawn
        self._unread: dict[str, None] = {}
        """Rooms that are heard, and of which nobody has asked yet where they stand."""
        self._asking = False

    def confirmed(self, channel: str) -> None:
        """The bus begins to hear a channel, or has heard all that was sent of it."""
        room = self._unready(channel)
        if room is None:
            return
        connection, head = room.found or (0, None)
        if head is not None and connection == self._since(channel):
            self._begin(channel, room, head)
        else:
            self._ask_soon(channel)

    async def wait(self, channels: Iterable[str]) -> None:
        """Return when these rooms are ready. Raises `PushError` if that takes too long."""
        waiting = []
        for channel in channels:
            room = self._unready(channel)
            if room is None:
                continue
            if room.loading is None:
                room.loading = asyncio.get_running_loop().create_future()
                if self._since(channel):
                    self._ask_soon(channel)  # it failed before
            waiting.append(room.loading)
        if not waiting:
            return
        await asyncio.wait(waiting, timeout=READ_PATIENCE)
        for loading in waiting:
            if not loading.done():
                raise unavailable("the bus is silent")
            if (failure := loading.result()) is not None:
                raise failure

    def _unready(self, channel: str) -> Room | None:
        room = self._rooms.get(channel)
        return None if room is None or room.ready else room

    def _ask_soon(self, channel: str) -> None:
        self._unread[channel] = None
        if not self._asking:
            self._asking = True
            self._spawn(self._ask_all())

    async def _ask_all(self) -> None:
        try:
            while self._unread:
                await self._ask(
                    {
                        channel: since
                        for channel in _taken(self._unread, ROOMS_AT_ONCE)
                        if (since := self._since(channel)) and self._unready(channel)
                    }
                )
        finally:
            self._asking = False

    async def _ask(self, since: Mapping[str, int]) -> None:
        failure: PushError | None = None
        heads: Sequence[Position | None] = [None] * len(since)
        try:
            if since:
                _, heads = await self._log.heads(list(since))
        except PushError as error:
            failure = error
        for (channel, connection), head in zip(since.items(), heads, strict=True):
            room = self._unready(channel)
            if room is None:
                continue
            if head is None:
                room.loaded(failure)
            elif connection == self._since(channel):
                if channel in self._watches:
                    # Whoever watches is owed what was sent up to here, and the bus may be behind.
                    room.found = connection, head
                    self._confirm(channel)
                else:
                    self._begin(channel, room, head)
            # Else something may lie between. It is confirmed again, and then asked again.


def _taken(names: dict[str, None], most: int) -> list[str]:
    """Take the first of these names."""
    taken = list(islice(names, most))
    for name in taken:
        del names[name]
    return taken
