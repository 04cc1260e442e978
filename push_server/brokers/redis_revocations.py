"""The revocations in Redis: every node knows those in force, and none is lost with the log.

A revocation is stored in one hash and told over the bus. A node reads the hash when it starts and
after each new beginning of a connection. What it knows and the hash does not (Redis was flushed, or
has lost its last second) it writes back, so a log that is lost takes no logout with it as long as
one node lives. The hash says which log it is complete for; a node that starts, and finds it to be
of another one, cannot know what is missing, and lets no token in that was issued before.

Event loop only. Imported by the Redis broker.
"""

from collections.abc import Callable, Sequence
from itertools import islice, takewhile

from push_server.brokers.base import Revoked
from push_server.brokers.redis_link import Call, Link, Script
from push_server.brokers.redis_wire import parse_revocation, revocation_field
from push_server.revocations import EVERYBODY, Revocation
from push_server.tokens import LEEWAY, LIFETIME_LIMIT

SCRIPTS = _REVOKE, _FORGET = Script("redis_revoke"), Script("redis_forget")

FORGOTTEN_AT_ONCE = 200

_OF_LOG = b"/log"
"""The field that holds the epoch of the log."""


class RedisRevocations:
    """What all nodes know of revocations."""

    def __init__(
        self,
        key: str,
        bus_all: str,
        node: str,
        clock: Callable[[], float],
        revoked: Revoked,
        dropped: Callable[[str, str], object],
    ) -> None:
        self.link: Link
        """Set by the broker when it starts."""
        self._key = key
        self._bus_all = bus_all
        self._node = node.encode()
        self._clock = clock
        self._revoked = revoked
        self._dropped = dropped
        self._known: dict[tuple[str, str], Revocation] = {}
        """In the order in which they were learnt, which is about that in which they end."""

    def learn(self, revocation: Revocation | None) -> None:
        """Announce a revocation that is news."""
        if revocation is None:
            self._dropped("bus", "")
            return
        key = (revocation.kind, revocation.value)
        known = self._known.get(key)
        if known is None or (known.before, known.expires) < (revocation.before, revocation.expires):
            self._known.pop(key, None)
            self._known[key] = revocation
            self._revoked(revocation)

    def hear(self, text: bytes) -> None:
        """Take what another node says."""
        times, _, field = text.partition(b"\n")
        self.learn(parse_revocation(field, times))

    async def store(self, revocation: Revocation) -> None:
        """Have Redis remember it and tell the other nodes."""
        field = revocation_field(revocation)
        before, expires = repr(revocation.before), repr(revocation.expires)
        message = b"%s %s %s\n%s" % (self._node, before.encode(), expires.encode(), field)
        args = (field, before, expires, self._bus_all, message)
        await self.link.one(Call(_REVOKE, (self._key,), args))

    async def load(self, epoch: int, *, starting: bool = False) -> None:
        """Announce what is in force, write back what was lost, have forgotten what is over.

        `epoch` is that of the log now.
        """
        flat = await self.link.one(("HGETALL", self._key))
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        of_log = fields.pop(_OF_LOG, b"")
        now = self._clock()
        over: list[bytes] = []
        kept: set[tuple[str, str]] = set()
        for field, times in fields.items():
            revocation = parse_revocation(field, times)
            if revocation is None or revocation.expires <= now:
                over.append(field)
            else:
                kept.add((revocation.kind, revocation.value))
                self.learn(revocation)
        await self._have_forgotten(over, now)
        for key in [key for key, known in self._known.items() if known.expires <= now]:
            del self._known[key]
        complete = b"%d" % epoch
        if starting and of_log not in (b"", complete):
            self.learn(Revocation(EVERYBODY, "*", now, now + LIFETIME_LIMIT + LEEWAY))
        for revocation in [known for key, known in self._known.items() if key not in kept]:
            await self.store(revocation)
        if of_log != complete:
            await self.link.one(("HSET", self._key, _OF_LOG, complete))

    async def forget(self) -> None:
        """Once a second: drop some of those that are over, here and in Redis."""
        now = self._clock()
        first = islice(self._known.values(), FORGOTTEN_AT_ONCE)
        over = [*takewhile(lambda known: known.expires <= now, first)]
        for known in over:
            del self._known[known.kind, known.value]
        await self._have_forgotten([revocation_field(known) for known in over], now)

    async def _have_forgotten(self, fields: Sequence[bytes], now: float) -> None:
        # By a script, which looks once more: another node may have prolonged one just now.
        if fields:
            await self.link.one(Call(_FORGET, (self._key,), (repr(now), *fields)))
