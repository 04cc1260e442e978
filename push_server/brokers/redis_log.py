"""The log in Redis: how a publication gets its place, and how what is kept is read.

Each step is one script, hence atomic; `docs/redis.rst` lists the keys. A stream has an epoch of its
own once it was lost, and the log has one for all others; both are given in Redis, by the stamp that
each call carries: what a restart of this Redis may have cost (`redis_log.lua`).

Event loop only. Imported by the Redis broker and its rooms.
"""

from collections.abc import Callable, Sequence
from typing import Any

from push_server.brokers.base import digest, new_epoch, remember_until
from push_server.brokers.redis_connection import ResponseError, ServerInfo
from push_server.brokers.redis_link import Call, Link, Script, failure
from push_server.brokers.redis_wire import Found, header_of, parse_found, parse_heads, weight_of
from push_server.channels import Namespace
from push_server.positions import Position, tag_of
from push_server.publications import PublishRequest

_PUBLISH = Script("redis_log", "redis_publish")
_READ = Script("redis_log", "redis_read")
_HEADS = Script("redis_log", "redis_heads")
_SWEEP = Script("redis_sweep")
SCRIPTS = _PUBLISH, _READ, _HEADS, _SWEEP

SWEPT_AT_ONCE = 100

ALL = "all"
HEAD = "head"
"""To be read of a channel: everything that is kept, or only where it stands."""


class RedisLog:
    """The streams, and where each channel stands."""

    def __init__(
        self,
        prefix: str,
        bus_channel: str,
        keep: Callable[[str], Namespace],
        clock: Callable[[], float],
        dropped: Callable[[str, str, int], None],
    ) -> None:
        self.link: Link
        """Set by the broker when it starts."""
        self._keep = keep
        self._clock = clock
        self._dropped = dropped
        """Told where, in which channel, and how much there was that is not ours."""
        self._top = 0
        """The highest epoch we have seen."""
        self._log, self._due = prefix + "log", prefix + "due"
        self._stream, self._spent = prefix + "c:", prefix + "i:"
        self._bus_channel = bus_channel

    def stamp(self, server: ServerInfo) -> tuple[str, ...]:
        """What a script has to know to give an epoch."""
        # Above all that we have seen, even if the clock was set back meanwhile.
        candidate = max(new_epoch(self._clock()), self._top + 1)
        return str(candidate), server.run_id, "1" if server.trusted else "0"

    async def place(self, requests: Sequence[PublishRequest], origin: str, now: float) -> list[Any]:
        """What the publish script says of each request. Raises `Unavailable`."""
        return await self.link.ask(*(self.placing(request, origin, now) for request in requests))

    def placing(self, request: PublishRequest, origin: str, now: float) -> Call:
        """The call that gives a request its place."""
        channel = request.channel
        keep = self._keep(channel)
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
                origin,
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

    def saw(self, epoch: int) -> None:
        """Note an epoch: later ones have to be above it."""
        self._top = max(self._top, epoch)

    async def read(self, wanted: Sequence[tuple[str, str | int, int]]) -> list[Found]:
        """What the streams hold: of each channel `ALL`, `HEAD`, or what lies beyond an offset of
        an epoch. Whatever is not ours in them is dropped."""
        replies = await self.link.read(
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
            self.saw(found[-1].head.epoch)
            if found[-1].broken:
                self._dropped("stream", channel, found[-1].broken)
        return found

    async def heads(self, channels: Sequence[str]) -> tuple[int, list[Position]]:
        """The epoch of the log, and where these channels stand."""
        (reply,) = await self.link.read(
            Call(_HEADS, (self._log,), (self._stream, *channels), stamped=True)
        )
        if isinstance(reply, ResponseError):
            raise failure(reply)
        epoch, heads = parse_heads(reply)
        for head in heads:
            self.saw(head.epoch)
        return epoch, heads

    async def epoch(self) -> int:
        """The epoch of the log; a new one if Redis may have lost something meanwhile."""
        return (await self.heads([]))[0]

    async def sweep(self) -> None:
        """Delete some of what is too old in channels that nobody publishes to."""
        args = (repr(self._clock()), SWEPT_AT_ONCE, self._stream)
        await self.link.one(Call(_SWEEP, (self._log, self._due), args))
