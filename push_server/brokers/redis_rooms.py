"""The rooms of the Redis broker: channels that have subscribers here, between bus and hub.

What comes, over the bus or as the answer to a publisher, is believed only if it follows what was
delivered last, by epoch, offset and the tag before it. Whenever that is not so, and after every
new beginning of a connection, the stream is read from there on. What cannot be proved complete is
announced as `restarted`.

The window of recent publications of each room is in memory, so that clients coming back cost Redis
nothing; only a verdict against a client is asked there again, because another node may have told
it more than the bus has told us. How a room begins is the business of `redis_beginnings`.

Where the whole namespace is listened to (`redis_watches`), what comes by the pattern makes a room
of a channel that nobody has joined: it begins right before the first publication that is heard,
keeps no window, and is forgotten when the channel is quiet.

Event loop only. Imported by the Redis broker.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from push_server import log
from push_server.brokers.base import Restarted
from push_server.brokers.redis_beginnings import ROOMS_AT_ONCE, Beginnings, Room, Spawn
from push_server.brokers.redis_bus import Bus
from push_server.brokers.redis_log import ALL, HEAD, RedisLog
from push_server.brokers.redis_watches import Watches
from push_server.brokers.redis_wire import Entry, Found
from push_server.brokers.windows import Windows
from push_server.channels import Namespace
from push_server.errors import PushError
from push_server.history import EPOCH, FUTURE, TAG, TRIMMED, ChannelLog, History
from push_server.positions import Position
from push_server.publications import Publication

LINGER = 10.0
"""Seconds a room is kept after its last subscriber: most of them only turn a page."""
GRACE = 0.05
"""Seconds that a publication may overtake the one before it: answers and bus are two ways."""
PENDING_LIMIT = 1_000

Deliver = Callable[[str, Sequence[Publication]], None]


class Rooms:
    """All rooms of this node."""

    def __init__(
        self,
        redis_log: RedisLog,
        bus_channel: str,
        watches: Watches,
        windows: Windows,
        keep: Callable[[str], Namespace],
        clock: Callable[[], float],
        *,
        deliver: Deliver,
        restarted: Restarted,
        spawn: Spawn,
        counts: Counter[str],
    ) -> None:
        self.bus: Bus
        """Set by the broker when it starts."""
        self._log = redis_log
        self._bus_channel = bus_channel
        self._watches = watches
        self._windows = windows
        self._keep = keep
        self._clock = clock
        self._deliver = deliver
        self._restarted = restarted
        self._spawn = spawn
        self._counts = counts
        self._rooms: dict[str, Room] = {}
        self._beginnings = Beginnings(
            self._rooms,
            redis_log,
            watches,
            since=self._since,
            confirm=lambda channel: self.bus.confirm(bus_channel + channel),
            begin=self._begin,
            spawn=spawn,
        )
        self._epoch = 0
        """Of the log, when it was looked at last."""
        self._checked = 0

    def __contains__(self, channel: str) -> bool:
        return channel in self._rooms

    def _since(self, channel: str) -> int:
        """The connection of the bus since which a channel is heard without a gap; 0: it is not."""
        return self.bus.since(self._bus_channel + channel)

    # Coming and going.

    def join(self, channel: str) -> None:
        """Listen to a channel, which has subscribers here now."""
        room = self._rooms.setdefault(channel, Room())
        room.deserted = None
        room.overheard = False
        self.bus.join(self._bus_channel + channel)

    def leave(self, channel: str) -> None:
        """Stop listening to a channel, if nobody comes back to it soon."""
        self._rooms[channel].deserted = time.monotonic()

    def forsake(self) -> None:
        """Once a second: forget the rooms that nobody has come back to."""
        now = time.monotonic()
        for channel, room in list(self._rooms.items()):
            if room.deserted is None:
                continue
            heard = channel in self._watches
            if now - room.deserted >= LINGER or (room.overheard and not heard):
                self._forget(channel)

    def forget_overheard(self) -> None:
        """The bus is broken: what is heard of these channels next does not follow."""
        for channel in [name for name, room in self._rooms.items() if room.overheard]:
            self._forget(channel)

    def _forget(self, channel: str) -> None:
        del self._rooms[channel]
        self._windows.forget(channel)
        self.bus.leave(self._bus_channel + channel)

    # From Redis to the hub.

    def arrive(self, channel: str, entries: Sequence[Entry]) -> None:
        """Deliver what follows, keep back what does not yet."""
        room = self._rooms.get(channel)
        if room is None:
            return  # nobody is here, or the bus will bring it
        if room.deserted is not None and channel in self._watches:
            room.deserted = time.monotonic()
        for entry in entries:
            epoch, offset, _ = entry.publication.position
            room.pending[epoch, offset] = entry
        self._advance(channel, room)

    def wants(self, channel: str, *, ours: bool, by_pattern: bool) -> bool:
        """Whether what the bus brings of a channel is news; `ours`: we have published it."""
        room = self._rooms.get(channel)
        if room is None or not room.ready:
            return room is not None or by_pattern
        # Our own we know from the answers, and what has come by the name of the channel.
        return not ours and not (by_pattern and self._since(channel))

    def overhear(self, channel: str, entry: Entry) -> None:
        """Take what came by a pattern: the first that comes so is where a room begins."""
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = Room()
            room.deserted = time.monotonic()
            room.overheard = True
        if not room.ready:
            self._begin(channel, room, entry.start)
        self.arrive(channel, [entry])

    def _advance(self, channel: str, room: Room) -> None:
        """Deliver as far as it is proved that nothing is missing."""
        pending = room.pending
        if not room.ready:
            if len(pending) > PENDING_LIMIT:
                pending.clear()  # they are read again after the loading
                room.gap = True
            return
        head = self._windows.head(channel)
        run: list[Publication] = []
        while entry := pending.get((head.epoch, head.offset + 1)):
            if not entry.follows(head):
                break
            run.append(entry.publication)
            head = entry.publication.position
        if run:
            if room.overheard:
                self._windows.install(channel, _headed(head))
            else:
                self._windows.append(channel, run, self._keep(channel))
            self._deliver(channel, run)
        for place in [place for place in pending if place <= (head.epoch, head.offset)]:
            del pending[place]
        if pending:
            if len(pending) > PENDING_LIMIT:
                pending.clear()
            self._mend_soon(channel, room)

    def _mend_soon(self, channel: str, room: Room) -> None:
        if not room.gap:
            room.gap = True
            self._spawn(self._mend(channel, room))

    async def _mend(self, channel: str, room: Room) -> None:
        """Read what is missing, unless it came by itself."""
        before = self._windows.head(channel)
        if all(epoch == before.epoch for epoch, _ in room.pending):
            await asyncio.sleep(GRACE)
        room.gap = False
        if self._rooms.get(channel) is not room or (
            not room.pending and self._windows.head(channel) != before
        ):
            return
        with contextlib.suppress(PushError):  # then all rooms are read when Redis is back
            await self._catch_up([channel])

    def suspect(self, channel: str, epoch: int, offset: int) -> None:
        """Read a room if this place is news to it."""
        room = self._rooms.get(channel)
        if room is not None and room.ready:
            head = self._windows.head(channel)
            if (epoch, offset) > (head.epoch, head.offset):
                self._mend_soon(channel, room)

    def _merge(self, channel: str, room: Room, start: Position, found: Found) -> None:
        """Go on from `start`, where the room stood when the stream was read, to what was found."""
        if found.proves(start):
            for entry in found.entries:
                epoch, offset, _ = entry.publication.position
                room.pending[epoch, offset] = entry
            self._advance(channel, room)
        elif self._windows.head(channel) == start:
            self._restart(channel, room, found.reason(start), found.head)
        else:
            self._mend_soon(channel, room)  # it went on meanwhile: the question was another

    def _restart(self, channel: str, room: Room, reason: str, head: Position) -> None:
        """Go on from a place that does not follow the last one, and say so."""
        self._counts["restarted"] += 1
        log.warn("broker.restarted", channel=channel, reason=reason)
        self._windows.install(channel, _headed(head))
        self._restarted(channel, reason, head)
        self._advance(channel, room)

    # Becoming ready.

    def confirmed(self, channel: str) -> None:
        """The bus begins to hear a channel, or has heard all that was sent of it."""
        self._beginnings.confirmed(channel)

    def _begin(self, channel: str, room: Room, head: Position) -> None:
        """Deliver everything from here on."""
        self._windows.install(channel, _headed(head))
        room.ready = True
        room.loaded(None)
        self._advance(channel, room)
        if room.gap:
            room.gap = False
            self._mend_soon(channel, room)

    # Reading.

    async def _catch_up(self, channels: Iterable[str]) -> Mapping[str, Found]:
        """Read what these rooms have missed up to now, and deliver it."""
        starts = {
            channel: self._windows.head(channel)
            for channel in channels
            if channel in self._rooms and self._rooms[channel].ready
        }
        found = await self._log.read(
            [(channel, start.offset, start.epoch) for channel, start in starts.items()]
        )
        for (channel, start), one in zip(starts.items(), found, strict=True):
            self._counts["reread"] += len(one.entries)
            room = self._rooms.get(channel)
            if room is not None and room.ready:
                self._merge(channel, room, start, one)
        return dict(zip(starts, found, strict=True))

    async def catch_up_all(self) -> None:
        """After a new beginning of a connection: find out which rooms have missed something."""
        self._epoch = 0
        names = iter(list(self._rooms))
        while some := list(islice(names, ROOMS_AT_ONCE)):
            await self._compare(some)

    async def check(self) -> bool:
        """Once a second, some rooms in turn: the last net under the bus.

        If the log is another one, all of them at once; whether it is.
        """
        names = list(self._rooms)
        if self._checked >= len(names):
            self._checked = 0
        some = names[self._checked : self._checked + ROOMS_AT_ONCE]
        self._checked += ROOMS_AT_ONCE
        before, self._epoch = self._epoch, await self._compare(some)
        if before in (0, self._epoch):
            return False
        await self.catch_up_all()
        return True

    async def _compare(self, channels: Iterable[str]) -> int:
        """Read those of these rooms that do not stand where the log does; the log's epoch."""
        starts = {
            channel: self._windows.head(channel)
            for channel in channels
            if (room := self._rooms.get(channel)) is not None and room.ready
        }
        epoch, heads = await self._log.heads(list(starts))
        behind: list[str] = []
        for (channel, start), head in zip(starts.items(), heads, strict=True):
            room = self._rooms.get(channel)
            if room is None or head == start or self._windows.head(channel) != start:
                continue
            if head.epoch != start.epoch:
                self._restart(channel, room, EPOCH, head)
            else:
                behind.append(channel)
        if behind:
            await asyncio.sleep(GRACE)
            behind = [name for name in behind if self._windows.head(name) == starts[name]]
            await self._catch_up(behind)
        return epoch

    async def _load_all(self, channel: str) -> ChannelLog:
        """Everything that is kept of a room; it becomes its window, if there is memory for it."""
        room, start = self._rooms.get(channel), self._windows.head(channel)
        (found,) = await self._log.read([(channel, ALL, 0)])
        window = found.log()
        if room is None or self._rooms.get(channel) is not room:
            return window
        verdict = window.since(start)
        if verdict.reset is None:
            missed = len(verdict.publications)
            self.arrive(channel, found.entries[len(found.entries) - missed :])
        elif self._windows.head(channel) == start:
            self._restart(channel, room, verdict.reset, found.head)
        self._put_under(channel, window)
        return window

    def _put_under(self, channel: str, window: ChannelLog) -> None:
        """Make what was read the older part of what is known."""
        keep, now = self._keep(channel), self._clock()
        known = self._windows.log(channel, keep, now)
        newer = window.head.offset
        if known.head.epoch != window.head.epoch or known.floor.offset > newer:
            return
        for publication in known.page(newer, len(known.window)).publications:
            window.append(publication, keep)
        window.trim(keep, now)
        self._windows.install(channel, window)

    async def read(self, since: Mapping[str, Position | None]) -> Mapping[str, History]:
        """Answer from the windows where that suffices, and then without waiting; else load."""
        rooms = [channel for channel in since if channel in self._rooms]
        elsewhere = [channel for channel in since if channel not in self._rooms]
        windows: dict[str, ChannelLog] = {}
        if elsewhere:
            found = await self._log.read(
                [(name, HEAD if since[name] is None else ALL, 0) for name in elsewhere]
            )
            windows = {name: one.log() for name, one in zip(elsewhere, found, strict=True)}
        await self._beginnings.wait(rooms)
        doubtful = [
            channel
            for channel in rooms
            if self._verdict(channel, since) in (EPOCH, FUTURE, TAG)
        ]
        if doubtful:
            await self._catch_up(doubtful)
        for channel in rooms:
            if self._verdict(channel, since) == TRIMMED and not self._window(channel).whole:
                windows[channel] = await self._load_all(channel)
        # From here on nothing waits, so all verdicts are of one moment.
        return {
            channel: self._latest(channel, windows.get(channel)).since(position)
            for channel, position in since.items()
        }

    def _verdict(self, channel: str, since: Mapping[str, Position | None]) -> str | None:
        position = since[channel]
        return None if position is None else self._window(channel).since(position).reset

    def _latest(self, channel: str, loaded: ChannelLog | None) -> ChannelLog:
        """A room's window; or what was loaded, if memory has no room for it all."""
        window = self._window(channel)
        if loaded is None:
            return window
        # Does what was loaded still lead to where the room stands?
        leads = not window.whole and window.since(loaded.head).reset is None
        return window if channel in self._rooms and not leads else self._trimmed(channel, loaded)

    def _window(self, channel: str) -> ChannelLog:
        return self._windows.log(channel, self._keep(channel), self._clock())

    def _trimmed(self, channel: str, window: ChannelLog) -> ChannelLog:
        window.trim(self._keep(channel), self._clock())
        return window

    async def history(self, channel: str, since: int | Position, limit: int) -> History:
        """Answer from the window if that reaches back that far, and has all there is by now."""
        room = self._rooms.get(channel)
        if room is not None and room.ready:
            found = (await self._catch_up([channel]))[channel]
            window = self._window(channel)
            if window.reaches(since) and window.head[:2] >= found.head[:2]:
                return window.page(since, limit)
        (found,) = await self._log.read([(channel, ALL, 0)])
        return self._trimmed(channel, found.log()).page(since, limit)


def _headed(head: Position) -> ChannelLog:
    """A window that knows only where the channel stands."""
    return ChannelLog(head, whole=head.offset == 0)
