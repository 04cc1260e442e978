"""The roster of all nodes, in Redis.

Each node writes down which users it has, and renews one lease for all of them. When a node dies,
its lease ends, and another node takes its entries out. Whether a user came, or left for good, is
decided in the script that writes it down (`redis_present.lua`), hence once for all nodes, and told
over the bus name of the channel.

Here is what this node has (`_mine`) and what Redis has not been told of it (`_untold`). What is
sent is the state, not the change, so it can be sent again after any failure, or all of it to a
Redis that has forgotten everything.

Event loop only. Imported by the Redis broker.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from push_server.brokers.redis_connection import ResponseError
from push_server.brokers.redis_link import Call, Link, Script, failure
from push_server.brokers.roster import JOIN, LEAVE, Member, Roster
from push_server.channels import check_channel, personal_channel
from push_server.errors import PushError

LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0
CALM_SECONDS = 10.0
"""After an outage all leases are over: each node has so long to renew its own before any other
takes its entries out."""
TOLD_AT_ONCE = 200
SWEPT_AT_ONCE = 200

MARK = b"! "
"""What stands before a message of ours on the bus name of a channel."""

SCRIPTS = PRESENT, ABSENT = Script("redis_present"), Script("redis_absent")

Key = tuple[str, str]
"""Channel and user."""


class RedisRoster(Roster):
    """Who is present on all nodes that share a Redis and a prefix."""

    def __init__(
        self,
        prefix: str,
        bus_prefix: str,
        clock: Callable[[], float],
        *,
        announced: Callable[[str], bool],
        dropped: Callable[[str, str], object],
    ) -> None:
        super().__init__()
        self.link: Link
        """Set by the broker when it starts."""
        self._nodes, self._has, self._who = prefix + "nodes", prefix + "n:", prefix + "p:"
        self._bus_prefix = bus_prefix
        self._clock = clock
        self._announced = announced
        """Whether anybody wants to hear who comes to this channel and who leaves it."""
        self._dropped = dropped
        """Told where, and in which channel, something was that is not ours."""
        self._mine: dict[Key, Member] = {}
        self._untold: dict[Key, None] = {}
        self._telling: asyncio.Task[None] | None = None
        self._renew_at = self._calm_at = 0.0
        self._generation = 0

    def present(self, channel: str, user: str, member: Member | None) -> None:
        """Note it, and tell Redis soon; what changed comes back over the bus."""
        if member is None:
            self._mine.pop((channel, user), None)
        else:
            self._mine[channel, user] = member
        self._untold[channel, user] = None
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._untold and self.link.up and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        while self._untold and self.link.up:
            some = list(islice(self._untold, TOLD_AT_ONCE))
            for key in some:
                del self._untold[key]
            try:
                replies: Sequence[Any] = await self.link.ask(*map(self._telling_call, some))
            except PushError as error:
                replies = [error] * len(some)
            if 1 in replies:
                # Our lease was over: what was told before is not known (any more).
                self._untold.update(dict.fromkeys(self._mine))
            failed = [
                key
                for key, reply in zip(some, replies, strict=True)
                if isinstance(reply, PushError | ResponseError)
            ]
            if failed:
                self._untold.update(dict.fromkeys(failed))
                return  # once more with the next renewal

    def _telling_call(self, key: Key) -> Call:
        channel, user = key
        member = self._mine.get(key)
        value = "" if member is None else f"{member.connections} {member.name}"
        bus_name = self._bus_prefix + channel if self._announced(channel) else ""
        return Call(
            PRESENT,
            (self._who + channel, self._has + self.node, self._nodes),
            (user, self.node, value, channel, bus_name, self._lease()),
        )

    def _lease(self) -> str:
        return repr(self._clock() + LEASE_SECONDS)

    async def renew(self) -> None:
        """Once a second: renew the lease, and take out the entries of nodes whose lease is over."""
        now = time.monotonic()
        if self.link.generation != self._generation:
            self._generation = self.link.generation
            self._calm_at = now + CALM_SECONDS
        elif now < self._renew_at:
            return
        over, new = await self.link.ask(
            ("ZRANGEBYSCORE", self._nodes, "-inf", repr(self._clock())),
            ("ZADD", self._nodes, self._lease(), self.node),
        )
        for reply in (over, new):
            if isinstance(reply, ResponseError):
                raise failure(reply)
        self._renew_at = now + RENEW_SECONDS
        ours = self.node.encode()
        if new or ours in over:
            # Another node may have taken out some of our entries, or all.
            self._untold.update(dict.fromkeys(self._mine))
        self._tell_soon()
        if now >= self._calm_at:
            for node in over:
                if node != ours:
                    await self._sweep(node)

    async def _sweep(self, node: bytes) -> None:
        """Take out the entries of a node that is gone."""
        result = 0
        while result == 0:
            result = await self.link.one(
                Call(
                    ABSENT,
                    (self._has.encode() + node, self._nodes),
                    (node, repr(self._clock()), SWEPT_AT_ONCE, self._who, self._bus_prefix),
                )
            )
        if result == 1:
            self.gone(node.decode("utf-8", "replace"))

    def hear(self, channel: str, message: bytes) -> None:
        """Take a message that begins with `MARK`."""
        try:
            kind, user, name = message.removeprefix(MARK).decode().split(" ", 2)
            check_channel(personal_channel(user))
        except (ValueError, PushError):
            self._dropped("bus", channel)
            return
        if kind in (JOIN, LEAVE):
            self.changed(kind, channel, user, name)
        else:
            self._dropped("bus", channel)

    async def who(self, channel: str) -> Mapping[str, Member]:
        """What the nodes that are alive have written down."""
        names, flat = await self.link.ask(
            ("ZRANGEBYSCORE", self._nodes, f"({self._clock()!r}", "+inf"),
            ("HGETALL", self._who + channel),
        )
        for reply in (names, flat):
            if isinstance(reply, ResponseError):
                raise failure(reply)
        alive = {*names, self.node.encode()}
        found: dict[str, Member] = {}
        for field, value in zip(flat[::2], flat[1::2], strict=True):
            user, _, node = field.partition(b" ")
            count, _, name = value.partition(b" ")
            if node not in alive:
                continue
            if not user or not count.isdigit() or len(count) > 9:
                self._dropped("roster", channel)
                continue
            key = user.decode("utf-8", "replace")
            before = found.get(key, Member(0, ""))
            found[key] = Member(
                before.connections + int(count), before.name or name.decode("utf-8", "replace")
            )
        return found

    async def close(self) -> None:
        """Stop telling. The entries lapse: who comes back on another node has never left."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
