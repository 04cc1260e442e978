"""The bus: which names we listen to, on a connection that comes back by itself.

Redis Pub/Sub forgets whoever is not there, and a connection can go deaf without closing. So the
bus only wakes and carries: it says since when a name is heard without a gap (`since`), and tells
the broker when one begins to be heard (`confirmed`), when a connection is lost, and when all of
them are heard on a new one (`changed`): then what may have been missed has to be read. A name with
a star at its end is a pattern; Redis may not let us listen to that (`refused`).

Only the event loop runs this. Imported by the Redis broker.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence

from push_server import log
from push_server.brokers.redis_connection import (
    FAILURES,
    PATIENCE,
    RETRY_SECONDS,
    Ear,
    ResponseError,
    Unusable,
    end,
    reason_of,
)
from push_server.brokers.redis_link import unavailable
from push_server.brokers.redis_url import RedisAddress

SILENCE = 5.0
"""Seconds in which the connection must hear something: the broker has its own heartbeat."""
NAMES_PER_COMMAND = 500


class Bus:
    """The names this node listens to."""

    def __init__(
        self,
        address: RedisAddress,
        heard: Callable[[str, bytes, bool], None],
        confirmed: Callable[[str], None],
        refused: Callable[[str, str], None],
        changed: Callable[[bool], None],
    ) -> None:
        """`heard`: the name, the message, and whether it came by a pattern."""
        self._address = address
        self._heard = heard
        self._confirmed = confirmed
        self._refused = refused
        self._changed = changed
        self._up = asyncio.Event()
        self._names: dict[str, int] = {}
        """Name -> the number of the connection since which it is heard; 0: it is not."""
        self._orders: list[tuple[str, str]] = []
        self._ordered = asyncio.Event()
        self._unconfirmed: Counter[str] = Counter()
        """Name -> how many answers to SUBSCRIBE are still to come."""
        self._tried: deque[str] = deque()
        """The patterns asked for on this connection, and not answered yet."""
        self._beginning = 0
        """How many of them until every name is heard that this connection began with."""
        self._connections = 0
        self._task: asyncio.Task[None] | None = None
        self._listening = self._heard_something = False
        self._given_up = asyncio.Event()
        self._complaint = ""

    @property
    def up(self) -> bool:
        """Whether every name we had at the beginning of this connection is heard."""
        return self._up.is_set()

    async def start(self) -> None:
        """Begin to listen. Raises `Unavailable` if nothing is heard in time."""
        self._task = asyncio.create_task(self._run(), name="redis-bus")
        try:
            async with asyncio.timeout(PATIENCE):
                await self._up.wait()
        except TimeoutError:
            raise unavailable("the bus is silent") from None

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            await end(self._task)

    def join(self, name: str) -> None:
        """Listen to a name from now on."""
        if name not in self._names:
            self._names[name] = 0
            self.confirm(name)

    def confirm(self, name: str) -> None:
        """Have it confirmed, again maybe: everything that was sent before is heard by then."""
        if self._listening:
            self._unconfirmed[name] += 1
            if _is_pattern(name):
                self._tried.append(name)
            self._order("SUBSCRIBE", name)

    def leave(self, name: str) -> None:
        """Listen to a name no more."""
        if self._names.pop(name, None) is not None and self._listening:
            self._order("UNSUBSCRIBE", name)

    def _order(self, command: str, name: str) -> None:
        # Without a connection there is nothing to order: the next one begins with all names.
        self._orders.append((command, name))
        self._ordered.set()

    def since(self, name: str) -> int:
        """The number of the connection since which a name is heard without a gap; 0: it is not."""
        return self._names.get(name, 0)

    def reconnect(self, reason: str) -> None:
        """Give this connection up and make another."""
        self._complaint = reason
        self._given_up.set()

    async def _run(self) -> None:
        pause = RETRY_SECONDS[0]
        while True:
            self._connections += 1
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - a node that is deaf must not stay so
                if self.up or not isinstance(error, FAILURES):
                    pause = RETRY_SECONDS[0]
                    log.warn("bus.down", reason=reason_of(error))
            finally:
                self._forget()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, RETRY_SECONDS[1])

    def _forget(self) -> None:
        self._up.clear()
        self._listening = False
        self._orders.clear()
        self._unconfirmed.clear()
        self._tried.clear()
        self._names = dict.fromkeys(self._names, 0)
        self._changed(False)

    async def _listen(self) -> None:
        ear = await Ear.open(self._address)
        try:
            self._listening = True
            self._given_up.clear()
            self._orders = [("SUBSCRIBE", name) for name in self._names]
            self._unconfirmed = Counter(self._names.keys())
            self._tried = deque(filter(_is_pattern, self._names))
            self._beginning = len(self._names)
            self._ordered.set()
            # Not a task group: it waits for tasks that it has cancelled once, and a cancellation
            # can be lost (`asyncio.wait_for` of Python 3.11 loses some). Then it waits for ever.
            tasks = [
                asyncio.create_task(work)
                for work in (self._speak(ear), self._hear(ear), self._wait_until_given_up())
            ]
            try:
                await self._watch(tasks)
            finally:
                await end(*tasks)
        finally:
            await ear.close()

    async def _watch(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Return when one of them has ended, with what it ended with."""
        ended: set[asyncio.Task[None]] = set()
        while not ended:
            ended, _ = await asyncio.wait(
                tasks, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED
            )
            if not ended and not self._heard_something:
                raise Unusable("nothing was heard")
            self._heard_something = False
        for task in ended:
            if task.cancelled():
                raise Unusable("it was broken off")
            task.result()

    async def _wait_until_given_up(self) -> None:
        await self._given_up.wait()
        raise Unusable(self._complaint)

    async def _speak(self, ear: Ear) -> None:
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            orders, self._orders = self._orders, []
            for command, names in _runs(orders):
                await ear.send(command, names)

    async def _hear(self, ear: Ear) -> None:
        while True:
            try:
                kind, raw_pattern, raw_name, message = await ear.hear()
            except ResponseError as error:
                if not self._tried:
                    raise
                self._refuse(self._tried.popleft(), reason_of(error))
                continue
            self._heard_something = True
            name = raw_name.decode("utf-8", "replace")
            if kind == b"message":
                if isinstance(message, bytes):
                    self._heard(name, message, False)
            elif kind == b"pmessage":
                # One that was left, and joined again, is not heard without a gap yet.
                if isinstance(message, bytes) and self.since(raw_pattern.decode()):
                    self._heard(name, message, True)
            elif kind in (b"subscribe", b"psubscribe"):
                self._confirm(name)

    def _refuse(self, pattern: str, reason: str) -> None:
        log.warn("bus.refused", pattern=pattern, reason=reason)
        del self._unconfirmed[pattern]
        self._names.pop(pattern, None)
        self._refused(pattern, reason)
        self._answered()

    def _confirm(self, name: str) -> None:
        if self._tried and self._tried[0] == name:
            self._tried.popleft()
        self._unconfirmed[name] -= 1
        # Left and joined again: the first answer of two says nothing.
        if self._unconfirmed[name] <= 0:
            del self._unconfirmed[name]
            if name in self._names:
                self._names[name] = self._connections
                self._confirmed(name)
        self._answered()

    def _answered(self) -> None:
        """Redis has answered to one name more, be it of those this connection began with."""
        self._beginning -= 1
        if self._beginning == 0:
            self._up.set()
            self._changed(True)


def _runs(orders: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """The orders as few commands, in their order; patterns one by one, as they are refused."""
    runs: list[tuple[str, list[str]]] = []
    for command, name in orders:
        if _is_pattern(name):
            runs.append(("P" + command, [name]))
            continue
        if not runs or runs[-1][0] != command or len(runs[-1][1]) == NAMES_PER_COMMAND:
            runs.append((command, []))
        runs[-1][1].append(name)
    return runs


def _is_pattern(name: str) -> bool:
    return name.endswith("*")
