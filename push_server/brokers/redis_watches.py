"""Wildcards over Redis: the namespaces that this node listens to as a whole.

A node hears of the channels that have subscribers there. Whoever asks for ``chat:*`` wants those,
too, that nobody has joined here, so the bus listens to a pattern then: one for each namespace,
however many ask for it, and none where nobody asks. By namespace, because Redis compares the name
of every publication with every pattern, and its accounts are allowed patterns only by name.

A break in the bus cannot be mended for channels that were never heard of; the broker says so
(`Broker.missed`).

Event loop only. Imported by the Redis broker and its rooms.
"""

import asyncio
from collections import Counter

from push_server.brokers.base import Unheard
from push_server.brokers.redis_bus import Bus
from push_server.brokers.redis_link import READ_PATIENCE, unavailable
from push_server.errors import Denied, PushError, TooMany

NAMESPACES_LIMIT = 100
"""Patterns of one node. Redis compares each in some 50 ns, with every publication of the site."""


class Watches:
    """Which namespaces are asked for, and whether they are heard."""

    def __init__(self, bus_channel: str, unheard: Unheard) -> None:
        self.bus: Bus
        """Set by the broker when it starts."""
        self._bus_channel = bus_channel
        self._unheard = unheard
        self._asked: Counter[str] = Counter()
        """Namespace and colon, or nothing for all -> how many ask."""
        self._waiting: dict[str, asyncio.Future[PushError | None]] = {}
        """Pattern -> what is waited for until it is heard, or cannot be."""

    def __bool__(self) -> bool:
        return bool(self._asked)

    def __contains__(self, channel: str) -> bool:
        """Whether anybody asks for all channels like this one."""
        return _namespace(channel) in self._asked or "" in self._asked

    async def begin(self, prefix: str) -> None:
        """Listen to all channels that begin so, and some others; return when they are heard.

        Raises `PushError` if they cannot be; then it counts as ended.
        """
        namespace = _namespace(prefix)
        if namespace not in self._asked and len(self._asked) == NAMESPACES_LIMIT:
            raise TooMany("too_many_channels", "This server has too many wildcards.")
        self._asked[namespace] += 1
        try:
            await self._heard(self._pattern(namespace))
        except BaseException:
            self.end(prefix)
            raise

    def end(self, prefix: str) -> None:
        """One less asks for them. Called once after each `begin`."""
        namespace = _namespace(prefix)
        self._asked[namespace] -= 1
        if not self._asked[namespace]:
            del self._asked[namespace]
            self._waiting.pop(self._pattern(namespace), None)
            self.bus.leave(self._pattern(namespace))

    async def _heard(self, pattern: str) -> None:
        self.bus.join(pattern)
        if self.bus.since(pattern):
            return
        waiting = self._waiting.setdefault(pattern, asyncio.get_running_loop().create_future())
        await asyncio.wait([waiting], timeout=READ_PATIENCE)
        if not waiting.done():
            raise unavailable("the bus is silent")
        if (failure := waiting.result()) is not None:
            raise failure

    def confirmed(self, name: str) -> None:
        """The bus hears this."""
        self._settle(name, None)

    def refused(self, pattern: str, reason: str) -> None:
        """Redis does not let us hear this, or not any more."""
        message = f"Redis refuses PSUBSCRIBE {pattern} ({reason})."
        self._settle(pattern, Denied("wildcards", message))
        self._unheard(pattern.removeprefix(self._bus_channel).removesuffix("*"))

    def _settle(self, name: str, failure: PushError | None) -> None:
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            waiting.set_result(failure)

    def _pattern(self, namespace: str) -> str:
        # Neither our prefix nor a namespace can have in it what means something to Redis.
        return f"{self._bus_channel}{namespace}*"


def _namespace(name: str) -> str:
    """What comes first in a channel or a prefix, with its colon; nothing if there is none."""
    return name[: name.find(":") + 1]
