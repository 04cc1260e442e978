"""The broker that keeps its log in Redis: for many push servers on one log.

The streams are the truth (`redis_log`): a script gives each publication its place in one atomic
step and sends it over the bus (`redis_bus`), which only wakes and carries. What is delivered to the
hub, and when it has to be read again, is the business of the rooms (`redis_rooms`).

Here these are put together: publishing, what comes over the bus, claims and revocations. What goes
on by itself is the business of `redis_upkeep`.

Nodes need clocks that agree to a second or so: each judges ages by its own.

Only the event loop runs this. Imported by `push_server.brokers`.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from push_server import log
from push_server.brokers.base import Broker, Deliver, Revoked, id_conflict
from push_server.brokers.redis_bus import Bus
from push_server.brokers.redis_connection import Away, ResponseError, Unusable
from push_server.brokers.redis_link import Call, Link, Script, failure
from push_server.brokers.redis_log import SCRIPTS as LOG_SCRIPTS
from push_server.brokers.redis_log import RedisLog
from push_server.brokers.redis_revocations import SCRIPTS as REVOCATION_SCRIPTS
from push_server.brokers.redis_revocations import RedisRevocations
from push_server.brokers.redis_rooms import Rooms
from push_server.brokers.redis_roster import MARK, RedisRoster
from push_server.brokers.redis_roster import SCRIPTS as ROSTER_SCRIPTS
from push_server.brokers.redis_survey import QUESTION, RedisSurvey
from push_server.brokers.redis_upkeep import Upkeep
from push_server.brokers.redis_url import parse_redis_url, shown
from push_server.brokers.redis_watches import Watches
from push_server.brokers.redis_wire import ENTRY_LIMIT, Entry, origin_of, parse_entry
from push_server.brokers.survey import Survey
from push_server.brokers.windows import BUDGET, Windows
from push_server.channels import Namespaces
from push_server.errors import BadInput, PushError, TooLarge, Unavailable
from push_server.history import History
from push_server.positions import Position
from push_server.publications import Publication, Published, PublishRequest
from push_server.revocations import Revocation

_CLAIM = Script("redis_claim")


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
        prefix = address.prefix
        self._claims = prefix + "t:"
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
        self._survey = RedisSurvey(
            self._node,
            self._bus_all,
            bus_node=lambda node: f"{prefix}{address.db}/node:{node}",
            asked=lambda what, argument: self.asked(what, argument),
            spawn=self._spawn,
        )
        self._log = RedisLog(
            prefix,
            self._bus_channel,
            keep=lambda channel: self.namespaces.of(channel),
            clock=lambda: self.clock(),
            dropped=self._drop,
        )
        self._watches = Watches(self._bus_channel, lambda prefix: self.unheard(prefix))
        self._rooms = Rooms(
            self._log,
            self._bus_channel,
            self._watches,
            Windows(0, {}, budget),
            keep=lambda channel: self.namespaces.of(channel),
            clock=lambda: self.clock(),
            deliver=self._hand_over,
            restarted=lambda channel, reason, head: self.restarted(channel, reason, head),
            spawn=self._spawn,
            counts=self.counts,
        )
        self._revocations = RedisRevocations(
            prefix + "revoked",
            self._bus_all,
            self._node,
            clock=lambda: self.clock(),
            revoked=lambda revocation: self.revoked(revocation),
            dropped=self._drop,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._upkeep = Upkeep(
            self._bus_node,
            self._log,
            self._rooms,
            self.roster,
            self._revocations,
            missed=self._missed,
            degraded=lambda degraded: self.degraded(degraded),
            spawn=self._spawn,
        )

    # Beginning and end.

    async def start(self) -> None:
        """Connect, make sure that this Redis can be used, and announce the revocations."""
        scripts = [_CLAIM, *LOG_SCRIPTS, *REVOCATION_SCRIPTS, *ROSTER_SCRIPTS]
        self._link = Link(self.address, scripts, self._log.stamp, self._upkeep.link_changed)
        self._bus = Bus(
            self.address,
            self._hear,
            self._confirmed,
            self._watches.refused,
            self._upkeep.bus_changed,
        )
        for user in (self._log, self.roster, self._survey, self._revocations, self._upkeep):
            user.link = self._link
        self._rooms.bus = self._watches.bus = self._upkeep.bus = self._bus
        self._bus.join(self._bus_all)
        self._bus.join(self._bus_node)
        try:
            await self._link.start()
        except Unusable as error:
            kind = Unavailable if isinstance(error, Away) else BadInput
            raise kind("broker_unusable", f'broker = "{self.address.shown}": {error}.') from error
        try:
            await self._bus.start()
            await self._revocations.load(await self._log.epoch(), starting=True)
        except BaseException:
            await self.close()
            raise
        self._upkeep.start()

    async def close(self) -> None:
        """Let what was asked be answered, then hang up."""
        await self.roster.close()
        await self._link.close()
        await self._bus.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            log.error("broker.task_failed", failure)

    def join(self, channel: str) -> None:
        """Listen to a channel, which has subscribers here now."""
        self._rooms.join(channel)

    def leave(self, channel: str) -> None:
        """Stop listening to a channel, if nobody comes back to it soon."""
        self._rooms.leave(channel)

    async def watch(self, prefix: str) -> None:
        """Listen to the namespace of these channels."""
        await self._watches.begin(prefix)

    def unwatch(self, prefix: str) -> None:
        """Stop listening to it, if nobody else asks for it."""
        self._watches.end(prefix)

    # Publishing and reading.

    async def publish(self, requests: Sequence[PublishRequest]) -> Sequence[Published | PushError]:
        """Place each request in one round trip, deliver what is new, then answer."""
        now = self.clock()
        sent = [request for request in requests if len(request.data) <= ENTRY_LIMIT // 2]
        try:
            replies = await self._log.place(sent, self._origin, now)
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
            self._rooms.arrive(channel, entries)
        return [
            next(answers) if len(request.data) <= ENTRY_LIMIT // 2 else _too_large()
            for request in requests
        ]

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
        self._log.saw(epoch)
        if reply[0] == b"seen":
            self._rooms.suspect(channel, epoch, offset)
            return Published(channel, epoch, offset, request.id, True)
        publication = Publication.place(request, epoch, offset, now)
        placed.setdefault(channel, []).append(Entry(publication, reply[3].decode()))
        return Published(channel, epoch, offset, request.id, False)

    async def read(self, since: Mapping[str, Position | None]) -> Mapping[str, History]:
        """Answer from the windows where that suffices, and then without waiting; else load."""
        if not self._link.up:
            await self._link.wait()
        return await self._rooms.read(since)

    async def history(self, channel: str, since: int | Position, limit: int) -> History:
        """Ask Redis what there is by now; what is here already is not read again."""
        return await self._rooms.history(channel, since, limit)

    async def survey(self, what: str, argument: str = "") -> Survey:
        """Ask all nodes over the bus."""
        if self._link.up and self._bus.up:
            return await self._survey.ask(what, argument)
        return (await super().survey(what, argument))._replace(complete=False)

    # What comes over the bus.

    def _hear(self, name: str, message: bytes, by_pattern: bool) -> None:
        if name.startswith(self._bus_channel):
            self._hear_channel(name[len(self._bus_channel) :], message, by_pattern)
        elif name == self._bus_node:
            if message.isdigit():
                self._upkeep.heard()
            elif not self._survey.hear_answer(message):
                self._drop("bus", "")
        elif name == self._bus_all:
            self._hear_all(message)

    def _hear_channel(self, channel: str, message: bytes, by_pattern: bool) -> None:
        if message.startswith(MARK):
            if channel in self._rooms and not by_pattern:
                self.roster.hear(channel, message)
            return
        ours = origin_of(message) == self._origin.encode()
        if not self._rooms.wants(channel, ours=ours, by_pattern=by_pattern):
            return
        entry = parse_entry(channel, message)
        if entry is None:
            self._drop("bus", channel)
        elif by_pattern:
            self._rooms.overhear(channel, entry)
        else:
            self._rooms.arrive(channel, [entry])

    def _hear_all(self, message: bytes) -> None:
        origin, _, text = message.partition(b" ")
        if origin == self._node.encode():
            return
        if text.startswith(QUESTION):
            if not self._survey.hear_question(origin, text.removeprefix(QUESTION)):
                self._drop("bus", "")
        else:
            self._revocations.hear(text)

    def _confirmed(self, name: str) -> None:
        self._watches.confirmed(name)
        if name.startswith(self._bus_channel):
            self._rooms.confirmed(name[len(self._bus_channel) :])

    def _missed(self) -> None:
        if self._watches:
            self.missed()

    def _drop(self, where: str, channel: str, number: int = 1) -> None:
        self.counts["dropped." + where] += number
        log.rejected(where + ".reject", "all", channel=channel)

    # Claims and revocations.

    async def claim(self, key: str, ttl: float) -> bool:
        """Claim in Redis, where every node looks."""
        now = self.clock()
        args = (repr(now), repr(now + ttl), int(ttl * 1000) + 1)
        return bool(await self._link.one(Call(_CLAIM, (self._claims + key,), args)))

    async def revoke(self, revocation: Revocation) -> None:
        """Announce it here, then store it and tell the other nodes."""
        self._revocations.learn(revocation)
        await self._revocations.store(revocation)


def _too_large() -> TooLarge:
    return TooLarge("data_too_large", f"data is at most {ENTRY_LIMIT // 2} bytes.")
