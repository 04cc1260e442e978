"""The broker that keeps its log in Redis: for many push servers on one log.

The streams are the truth. A script gives each publication its place in one atomic step
(`redis_publish.lua`) and sends it over the bus; what comes over the bus is believed only if it
follows, by epoch, offset and the tag before it, what was delivered last. Whenever that is not so,
and after every new beginning of a connection, the stream is read from there on. What cannot be
proved complete is announced as `restarted`.

A *room* is a channel that has subscribers here. Its window of recent publications is in memory,
so that clients coming back cost Redis nothing; only a verdict against a client is asked there
again, because another node may have told it more than the bus has told us.

Nodes need clocks that agree to a second or so: each judges ages by its own.

Only the event loop runs this. Imported by `push_server.brokers`.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from push_server import log
from push_server.brokers.base import (
    Broker,
    Deliver,
    Revoked,
    digest,
    id_conflict,
    new_epoch,
    remember_until,
)
from push_server.brokers.redis_bus import Bus
from push_server.brokers.redis_link import (
    Call,
    Link,
    ResponseError,
    Script,
    ServerInfo,
    Unusable,
    failure,
)
from push_server.brokers.redis_roster import MARK, SCRIPTS, RedisRoster
from push_server.brokers.redis_url import parse_redis_url, shown
from push_server.brokers.redis_wire import (
    ENTRY_LIMIT,
    Entry,
    Found,
    header_of,
    origin_of,
    parse_entry,
    parse_found,
    parse_head,
    parse_revocation,
    revocation_field,
    weight_of,
)
from push_server.brokers.windows import BUDGET, Windows
from push_server.channels import Namespaces
from push_server.errors import BadInput, PushError, TooLarge, Unavailable
from push_server.history import EPOCH, FUTURE, TAG, TRIMMED, ChannelLog, History
from push_server.positions import Position, tag_of
from push_server.publications import Publication, Published, PublishRequest
from push_server.revocations import Revocation

TICK = 1.0
"""Seconds between two heartbeats over the bus, and two looks at where the rooms stand."""
DEAF_TICKS = 2
"""Heartbeats that may be on their way before the bus counts as deaf."""
DEGRADED_SECONDS = 1.5
"""How long Redis may be away before subscribers are told."""
LINGER = 10.0
"""Seconds a room is kept after its last subscriber: most of them only turn a page."""
GRACE = 0.05
"""Seconds that a publication may overtake the one before it: answers and bus are two ways."""
PENDING_LIMIT = 1_000
CHECKED_PER_TICK = 500
SWEPT_PER_TICK = 100
ROOMS_AT_ONCE = 200

_PUBLISH = Script("redis_log", "redis_publish")
_READ = Script("redis_log", "redis_read")
_CLAIM = Script("redis_claim")
_REVOKE = Script("redis_revoke")
_SWEEP = Script("redis_sweep")

Parts = Sequence[tuple[str, Sequence[Entry]]]


class _Room:
    """A channel with subscribers here, between the bus and the hub."""

    __slots__ = ("deserted", "gap", "loading", "pending", "ready")

    def __init__(self) -> None:
        self.ready = False
        """Whether its window is known; from then on every publication is delivered."""
        self.loading: asyncio.Future[None] | None = None
        self.pending: dict[tuple[int, int], Entry] = {}
        """What came before its time, by epoch and offset."""
        self.gap = False
        """Whether somebody is about to read what is missing."""
        self.deserted: float | None = None


class RedisBroker(Broker):
    """A broker shared by all push servers that name the same Redis and prefix."""

    def __init__(
        self,
        url: str,
        namespaces: Namespaces,
        deliver: Deliver,
        revoked: Revoked,
        clock: Callable[[], float] = time.time,
        *,
        budget: int = BUDGET,
    ) -> None:
        super().__init__(namespaces, deliver, revoked, clock)
        try:
            address = parse_redis_url(url)
        except ValueError as error:
            raise BadInput("broker_unusable", f'broker = "{shown(url)}": {error}.') from None
        self.address = address
        self.counts: Counter[str] = Counter()
        """What was dropped, re-read and begun anew, for `stats`."""
        self._budget = budget
        self._top = 0
        prefix = address.prefix
        self._log, self._due, self._revoked_key = prefix + "log", prefix + "due", prefix + "revoked"
        self._stream, self._spent, self._claims = prefix + "c:", prefix + "i:", prefix + "t:"
        # Bus names know nothing of databases, so ours say which one they speak of.
        self._bus_all = f"{prefix}{address.db}/all"
        self._bus_channel = f"{prefix}{address.db}/c:"
        self.roster: RedisRoster = RedisRoster(
            prefix,
            self._bus_channel,
            clock,
            announced=lambda channel: self.namespaces.of(channel).join_leave,
            dropped=self._drop,
        )
        self._node = self.roster.node
        self._bus_node = f"{prefix}{address.db}/node:{self._node}"
        self._rooms: dict[str, _Room] = {}
        self._windows = Windows(0, {}, budget)
        self._known: dict[tuple[str, str], Revocation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sung = self._heard_song = 0
        self._checked = 0
        self._down_since: float | None = None
        self._told = False

    # Beginning and end.

    async def start(self) -> None:
        """Connect, make sure that this Redis can be used, and announce the revocations."""
        scripts = [_PUBLISH, _READ, _CLAIM, _REVOKE, _SWEEP, *SCRIPTS]
        self._link = Link(self.address, scripts, self._stamp, self._link_changed)
        self.roster.link = self._link
        self._bus = Bus(self.address, self._hear, self._catch_up_soon)
        self._bus.join(self._bus_all)
        self._bus.join(self._bus_node)
        try:
            await self._link.start()
        except Unusable as error:
            raise BadInput(
                "broker_unusable", f'broker = "{self.address.shown}": {error}.'
            ) from error
        try:
            self._bus.start()
            await self._bus.wait(self._bus_all)
            await self._load_revocations()
        except BaseException:
            await self.close()
            raise
        self._spawn(self._tick())

    async def close(self) -> None:
        """Let what was asked be answered, then hang up."""
        await self.roster.close()
        await self._link.close()
        await self._bus.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stamp(self, server: ServerInfo) -> tuple[str, ...]:
        # An epoch above all that we have seen, even if the clock was set back meanwhile.
        candidate = max(new_epoch(self.clock()), self._top + 1)
        return str(candidate), server.run_id, "1" if server.trusted else "0"

    # Rooms.

    def join(self, channel: str) -> None:
        """Listen to a channel, which has subscribers here now."""
        room = self._rooms.get(channel)
        if room is None:
            self._rooms[channel] = _Room()
            self._bus.join(self._bus_channel + channel)
        else:
            room.deserted = None

    def leave(self, channel: str) -> None:
        """Stop listening to a channel, if nobody comes back to it soon."""
        self._rooms[channel].deserted = time.monotonic()

    def _forsake(self) -> None:
        now = time.monotonic()
        for channel, room in list(self._rooms.items()):
            if room.deserted is not None and now - room.deserted >= LINGER:
                del self._rooms[channel]
                self._windows.forget(channel)
                self._bus.leave(self._bus_channel + channel)

    # Publishing.

    async def publish(self, requests: Sequence[PublishRequest]) -> Sequence[Published | PushError]:
        """Place each request in one round trip, deliver what is new, then answer."""
        now = self.clock()
        sent = [request for request in requests if len(request.data) <= ENTRY_LIMIT // 2]
        try:
            replies = await self._link.ask(*(self._placing(request, now) for request in sent))
        except Unavailable as error:
            replies = [error] * len(sent)
        placed: dict[str, list[Entry]] = {}
        answers = iter(
            [
                self._answer(request, reply, now, placed)
                for request, reply in zip(sent, replies, strict=True)
            ]
        )
        for channel, entries in placed.items():
            self._arrive(channel, entries)
        return [
            next(answers) if len(request.data) <= ENTRY_LIMIT // 2 else _too_large()
            for request in requests
        ]

    def _placing(self, request: PublishRequest, now: float) -> Call:
        channel = request.channel
        keep = self.namespaces.of(channel)
        expires = remember_until(now, keep)
        keys = (
            self._log,
            self._stream + channel,
            # A blank can be in neither part, so no two pairs make the same key.
            f"{self._spent}{channel} {request.id}",
            self._due,
        )
        return Call(
            _PUBLISH,
            keys,
            (
                channel,
                self._bus_channel + channel,
                self._origin,
                repr(now),
                repr(expires),
                int((expires - now) * 1000) + 1,
                digest(request.data).hex(),
                tag_of(request.id),
                header_of(request, now),
                request.data,
                weight_of(request),
                keep.history_size,
                repr(keep.history_ttl),
                keep.history_bytes,
            ),
            stamped=True,
        )

    @property
    def _origin(self) -> str:
        # What a connection sent before it was cut may be carried out later, and unheard of here.
        return f"{self._node}.{self._link.generation}"

    def _answer(
        self, request: PublishRequest, reply: Any, now: float, placed: dict[str, list[Entry]]
    ) -> Published | PushError:
        if isinstance(reply, PushError):
            return reply
        if isinstance(reply, ResponseError):
            return failure(reply)
        if reply[0] == b"conflict":
            return id_conflict(request)
        channel = request.channel
        epoch, offset = int(reply[1]), int(reply[2])
        self._top = max(self._top, epoch)
        if reply[0] == b"seen":
            self._suspect(channel, Position(epoch, offset, tag_of(request.id)))
            return Published(channel, epoch, offset, request.id, True)
        publication = Publication.place(request, epoch, offset, now)
        placed.setdefault(channel, []).append(Entry(publication, reply[3].decode()))
        return Published(channel, epoch, offset, request.id, False)

    # From Redis to the hub.

    def _hear(self, name: str, message: bytes) -> None:
        """Take what comes over the bus."""
        if name.startswith(self._bus_channel):
            channel = name[len(self._bus_channel) :]
            # Our own we know from the answers.
            if channel not in self._rooms:
                return
            if message.startswith(MARK):
                self.roster.hear(channel, message)
            elif origin_of(message) != self._origin.encode():
                entry = parse_entry(channel, message)
                if entry is None:
                    self._drop("bus", channel)
                else:
                    self._arrive(channel, [entry])
        elif name == self._bus_node:
            self._heard_song = self._sung
        elif name == self._bus_all:
            origin, _, field = message.partition(b" ")
            if origin != self._node.encode():
                times, _, field = field.partition(b"\n")
                self._learn(parse_revocation(field, times))

    def _drop(self, where: str, channel: str, number: int = 1) -> None:
        self.counts["dropped." + where] += number
        log.rejected(where + ".reject", "all", channel=channel)

    def _arrive(self, channel: str, entries: Sequence[Entry]) -> None:
        """Deliver what follows, keep back what does not yet."""
        room = self._rooms.get(channel)
        if room is None:
            self._hand_over(channel, [entry.publication for entry in entries])
            return
        for entry in entries:
            epoch, offset, _ = entry.publication.position
            room.pending[epoch, offset] = entry
        self._advance(channel, room)

    def _advance(self, channel: str, room: _Room) -> None:
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
            self._windows.append(channel, run, self.namespaces.of(channel))
            self._hand_over(channel, run)
        for place in [place for place in pending if place <= (head.epoch, head.offset)]:
            del pending[place]
        if pending:
            if len(pending) > PENDING_LIMIT:
                pending.clear()
            self._mend_soon(channel, room)

    def _mend_soon(self, channel: str, room: _Room) -> None:
        if not room.gap:
            room.gap = True
            self._spawn(self._mend(channel, room))

    async def _mend(self, channel: str, room: _Room) -> None:
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

    def _suspect(self, channel: str, position: Position) -> None:
        """Read a room if this position is news to it."""
        room = self._rooms.get(channel)
        if room is not None and room.ready:
            head = self._windows.head(channel)
            if position[:2] > head[:2]:
                self._mend_soon(channel, room)

    def _merge(self, channel: str, room: _Room, start: Position, found: Found) -> None:
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

    def _restart(self, channel: str, room: _Room, reason: str, head: Position) -> None:
        """Go on from a place that does not follow the last one, and say so."""
        self.counts["restarted"] += 1
        log.warn("broker.restarted", channel=channel, reason=reason)
        self._windows.install(channel, _headed(head))
        self.restarted(channel, reason, head)
        self._advance(channel, room)

    # Reading.

    async def _fetch(self, channel: str, after: str | int, epoch: int = 0) -> Found:
        return (await self._fetch_all([(channel, after, epoch)]))[0]

    async def _fetch_all(self, wanted: Sequence[tuple[str, str | int, int]]) -> list[Found]:
        """What the streams hold; whatever is not ours in them is dropped."""
        replies = await self._link.ask(
            *(
                Call(
                    _READ,
                    (self._log, self._stream + channel),
                    (channel, after, epoch),
                    stamped=True,
                )
                for channel, after, epoch in wanted
            )
        )
        found: list[Found] = []
        for (channel, _, _), reply in zip(wanted, replies, strict=True):
            if isinstance(reply, ResponseError):
                raise failure(reply)
            found.append(parse_found(channel, reply))
            self._top = max(self._top, found[-1].head.epoch)
            if found[-1].broken:
                self._drop("stream", channel, found[-1].broken)
        return found

    async def _make_ready(self, channels: Iterable[str]) -> None:
        """Learn where these rooms stand, after the bus is sure to be heard."""
        waiting = []
        for channel in channels:
            room = self._rooms[channel]
            if room.ready:
                continue
            if room.loading is None:
                room.loading = asyncio.ensure_future(self._load_head(channel, room))
            waiting.append(room.loading)
        if waiting:
            await asyncio.wait(waiting)
            # Each is asked, or asyncio complains of those behind the first that failed.
            failures = [failed for loading in waiting if (failed := loading.exception())]
            if failures:
                raise failures[0]

    async def _load_head(self, channel: str, room: _Room) -> None:
        try:
            name = self._bus_channel + channel
            connection = None
            # Not until it was heard all the while: else something may lie between.
            while connection is None or connection != self._bus.since(name):
                connection = await self._bus.wait(name)
                found = await self._fetch(channel, "head")
            self._windows.install(channel, _headed(found.head))
            room.ready = True
            self._advance(channel, room)
            if room.gap:
                room.gap = False
                self._mend_soon(channel, room)
        finally:
            room.loading = None

    async def _catch_up(self, channels: Iterable[str]) -> None:
        """Read what these rooms may have missed, and deliver it."""
        starts = {
            channel: self._windows.head(channel)
            for channel in channels
            if channel in self._rooms and self._rooms[channel].ready
        }
        found = await self._fetch_all(
            [(channel, start.offset, start.epoch) for channel, start in starts.items()]
        )
        self.counts["reread"] += len(found)
        for (channel, start), one in zip(starts.items(), found, strict=True):
            room = self._rooms.get(channel)
            if room is not None and room.ready:
                self._merge(channel, room, start, one)

    async def _load_all(self, channel: str) -> ChannelLog:
        """Everything that is kept of a room; it becomes its window, if there is memory for it."""
        room, start = self._rooms[channel], self._windows.head(channel)
        found = await self._fetch(channel, "all")
        window = found.log()
        if self._rooms.get(channel) is not room:
            return window
        verdict = window.since(start)
        if verdict.reset is None:
            missed = len(verdict.publications)
            self._arrive(channel, found.entries[len(found.entries) - missed :])
        elif self._windows.head(channel) == start:
            self._restart(channel, room, verdict.reset, found.head)
        self._put_under(channel, window)
        return window

    def _put_under(self, channel: str, window: ChannelLog) -> None:
        """Make what was read the older part of what is known."""
        keep, now = self.namespaces.of(channel), self.clock()
        known = self._windows.log(channel, keep, now)
        newer = window.head.offset
        if known.head.epoch != window.head.epoch or known.floor.offset > newer:
            return
        for publication in known.after(newer, len(known.window)).publications:
            window.append(publication, keep)
        window.trim(keep, now)
        self._windows.install(channel, window)

    async def read(self, since: Mapping[str, Position | None]) -> Mapping[str, History]:
        """Answer from the windows where that suffices, and then without waiting; else load."""
        if not self._link.up:
            await self._link.wait()
        rooms = [channel for channel in since if channel in self._rooms]
        elsewhere = [channel for channel in since if channel not in self._rooms]
        windows: dict[str, ChannelLog] = {}
        if elsewhere:
            found = await self._fetch_all(
                [(name, "head" if since[name] is None else "all", 0) for name in elsewhere]
            )
            windows = {name: one.log() for name, one in zip(elsewhere, found, strict=True)}
        if not all(self._rooms[channel].ready for channel in rooms):
            await self._make_ready(rooms)
        doubtful = [
            channel
            for channel in rooms
            if self._window(channel).since(since[channel]).reset in (EPOCH, FUTURE, TAG)
        ]
        if doubtful:
            await self._catch_up(doubtful)
        for channel in rooms:
            window = self._window(channel)
            if window.since(since[channel]).reset == TRIMMED and not window.whole:
                windows[channel] = await self._load_all(channel)
        # From here on nothing waits, so all verdicts are of one moment.
        return {
            channel: self._latest(channel, windows.get(channel)).since(position)
            for channel, position in since.items()
        }

    def _latest(self, channel: str, loaded: ChannelLog | None) -> ChannelLog:
        """A room's window; or what was loaded, if memory has no room for it all."""
        if channel in self._rooms:
            window = self._window(channel)
            # Does what was loaded still lead to where the room stands?
            if loaded is None or window.whole or window.since(loaded.head).reset is not None:
                return window
        assert loaded is not None
        loaded.trim(self.namespaces.of(channel), self.clock())
        return loaded

    def _window(self, channel: str) -> ChannelLog:
        return self._windows.log(channel, self.namespaces.of(channel), self.clock())

    async def history(self, channel: str, after: int, limit: int) -> History:
        """Answer from the window if it reaches back that far, else read."""
        room = self._rooms.get(channel)
        if room is not None and room.ready and self._link.up:
            window = self._window(channel)
            if window.whole or after >= window.floor.offset:
                return window.after(after, limit)
        window = (await self._fetch(channel, "all")).log()
        window.trim(self.namespaces.of(channel), self.clock())
        return window.after(after, limit)

    # Claims and revocations.

    async def claim(self, key: str, ttl: float) -> bool:
        """Claim in Redis, where every node looks."""
        now = self.clock()
        args = (repr(now), repr(now + ttl), int(ttl * 1000) + 1)
        return bool(await self._link.one(Call(_CLAIM, (self._claims + key,), args)))

    async def revoke(self, revocation: Revocation) -> None:
        """Announce it here, then store it and tell the other nodes."""
        self._learn(revocation)
        field = revocation_field(revocation)
        times = f"{revocation.before!r} {revocation.expires!r}".encode()
        message = b"%s %s\n%s" % (self._node.encode(), times, field)
        await self._link.one(
            Call(
                _REVOKE,
                (self._revoked_key,),
                (
                    field,
                    repr(revocation.before),
                    repr(revocation.expires),
                    self._bus_all,
                    message,
                ),
            )
        )

    def _learn(self, revocation: Revocation | None) -> None:
        """Announce a revocation that is news."""
        if revocation is None:
            self._drop("bus", "")
            return
        key = (revocation.kind, revocation.value)
        known = self._known.get(key)
        if known is None or (known.before, known.expires) < (revocation.before, revocation.expires):
            self._known[key] = revocation
            self.revoked(revocation)

    async def _load_revocations(self) -> None:
        """Announce what is in force, and have what is over forgotten."""
        flat = await self._link.one(("HGETALL", self._revoked_key))
        now = self.clock()
        over: list[bytes] = []
        for field, times in zip(flat[::2], flat[1::2], strict=True):
            revocation = parse_revocation(field, times)
            if revocation is None or revocation.expires <= now:
                over.append(field)
            else:
                self._learn(revocation)
        if over:
            await self._link.one(("HDEL", self._revoked_key, *over))
        for key in [key for key, known in self._known.items() if known.expires <= now]:
            del self._known[key]

    # Watching over the connections.

    def _link_changed(self, up: bool) -> None:
        if up:
            self._catch_up_soon()

    def _catch_up_soon(self) -> None:
        """After a new beginning of either connection: read what may have been missed."""
        self._spawn(self._catch_up_all())

    async def _catch_up_all(self) -> None:
        with contextlib.suppress(PushError):  # then there will be another beginning
            await self._load_revocations()
            names = iter(list(self._rooms))
            while some := list(islice(names, ROOMS_AT_ONCE)):
                await self._catch_up(some)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._judge()
            self._forsake()
            if not self._link.up:
                continue
            for work in (self._look_around, self.roster.renew):
                try:
                    await work()
                except PushError as error:
                    log.rejected("broker.tick", "all", reason=str(error))

    async def _look_around(self) -> None:
        self._sung += 1
        await self._link.one(("PUBLISH", self._bus_node, str(self._sung)))
        await self._check_heads()
        sweep = (repr(self.clock()), SWEPT_PER_TICK, self._stream)
        await self._link.one(Call(_SWEEP, (self._log, self._due), sweep))

    def _judge(self) -> None:
        """Give up a bus that is deaf; tell the subscribers when Redis is away, and back."""
        if self._bus.up and self._link.up and self._sung - self._heard_song >= DEAF_TICKS:
            self._heard_song = self._sung
            self._bus.reconnect("no heartbeat came through")
        now = time.monotonic()
        if self._link.up and self._bus.up:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        degraded = self._down_since is not None and now - self._down_since >= DEGRADED_SECONDS
        if degraded != self._told:
            self._told = degraded
            self.degraded(degraded)

    async def _check_heads(self) -> None:
        """Compare where some of the rooms stand with the log: the last net under the bus."""
        names = [channel for channel, room in self._rooms.items() if room.ready]
        if self._checked >= len(names):
            self._checked = 0
        names = names[self._checked : self._checked + CHECKED_PER_TICK]
        self._checked += CHECKED_PER_TICK
        if not names:
            return
        heads = await self._link.one(("HMGET", self._log, *names))
        for channel, text in zip(names, heads, strict=True):
            room = self._rooms.get(channel)
            if room is None or not room.ready:
                continue
            head, here = parse_head(text), self._windows.head(channel)
            if head != here and (head is not None or here.offset):
                self._mend_soon(channel, room)


def _headed(head: Position) -> ChannelLog:
    """A window that knows only where the channel stands."""
    return ChannelLog(head, whole=head.offset == 0)


def _too_large() -> TooLarge:
    return TooLarge("data_too_large", f"data is at most {ENTRY_LIMIT // 2} bytes.")
