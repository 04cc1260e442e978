"""What a node of the Redis broker does by itself: it watches over its connections, catches up when
one of them has begun anew, and once a second lets its heart beat and looks after everything.

Event loop only. Imported by the Redis broker.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from push_server import log
from push_server.brokers.base import Degraded, Missed
from push_server.brokers.redis_bus import Bus
from push_server.brokers.redis_link import Link
from push_server.brokers.redis_log import RedisLog
from push_server.brokers.redis_revocations import RedisRevocations
from push_server.brokers.redis_rooms import Rooms
from push_server.brokers.redis_roster import RedisRoster
from push_server.errors import PushError

TICK = 1.0
"""Seconds between two heartbeats over the bus, and two looks at where the rooms stand."""
DEAF_TICKS = 2
"""Heartbeats that may be on their way before the bus counts as deaf."""
DEGRADED_SECONDS = 1.5
"""How long Redis may be away before subscribers are told."""


class Upkeep:
    """Looks after one node."""

    def __init__(
        self,
        bus_node: str,
        redis_log: RedisLog,
        rooms: Rooms,
        roster: RedisRoster,
        revocations: RedisRevocations,
        *,
        missed: Missed,
        degraded: Degraded,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.link: Link
        self.bus: Bus
        """Both set by the broker when it starts."""
        self._bus_node = bus_node
        self._log = redis_log
        self._rooms = rooms
        self._roster = roster
        self._revocations = revocations
        self._missed = missed
        self._degraded = degraded
        self._spawn = spawn
        self._started = False
        self._sung = self._heard_song = 0
        self._down_since: float | None = None
        self._told = False

    def start(self) -> None:
        """Everything is known that there was at the start."""
        self._started = True
        self._spawn(self._tick())

    def heard(self) -> None:
        """The bus has brought us our own heartbeat."""
        self._heard_song = self._sung

    def bus_changed(self, up: bool) -> None:
        """The bus is lost, or everything is heard on a new connection."""
        if up:
            self._missed()
            self._catch_up_soon()
        else:
            self._rooms.forget_overheard()

    def link_changed(self, up: bool) -> None:
        """The connection that asks is lost, or there is a new one."""
        if up:
            self._catch_up_soon()

    def _catch_up_soon(self) -> None:
        """After a new beginning of either connection: read what may have been missed."""
        if self._started:
            self._spawn(self._catch_up())

    async def _catch_up(self) -> None:
        with contextlib.suppress(PushError):  # then there will be another beginning
            await self._revocations.load(await self._log.epoch())
            await self._rooms.catch_up_all()

    async def _tick(self) -> None:
        working: dict[str, asyncio.Task[None]] = {}
        while True:
            await asyncio.sleep(TICK)
            try:
                self._judge()
                self._rooms.forsake()
            except Exception as failure:  # noqa: BLE001  # or nobody would notice a deaf bus any more
                log.error("broker.tick_failed", failure)
            # Apart: what is read may take seconds, and whose heart does not beat counts as dead.
            for name, work in (("beat", self._beat), ("work", self._work)):
                if self.link.up and (name not in working or working[name].done()):
                    working[name] = self._spawn(self._once(work))

    async def _once(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except PushError as error:
            log.rejected("broker.tick", "all", reason=str(error))

    async def _beat(self) -> None:
        """The heartbeats: ours over the bus, and that of this node among the others."""
        self._sung += 1
        await self.link.one(("PUBLISH", self._bus_node, str(self._sung)))
        await self._roster.renew()

    async def _work(self) -> None:
        if await self._rooms.check() or not self.bus.up:
            await self._revocations.load(await self._log.epoch())
        await self._revocations.forget()
        await self._log.sweep()

    def _judge(self) -> None:
        """Give up a bus that is deaf; tell the subscribers when Redis is away, and back."""
        now = time.monotonic()
        if self.bus.up and self.link.up and self._sung - self._heard_song >= DEAF_TICKS:
            self._heard_song = self._sung
            self.bus.reconnect("no heartbeat came through")
        if self.link.up and self.bus.up:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        degraded = self._down_since is not None and now - self._down_since >= DEGRADED_SECONDS
        if degraded != self._told:
            self._told = degraded
            self._degraded(degraded)
