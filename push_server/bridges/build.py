"""Which bridges there are, from the settings.

Imported by the house.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from push_server.doors.context import Context
from push_server.errors import PushError
from push_server.publications import Published, PublishRequest
from push_server.settings import SettingsError

ORIGIN = "push-server"
"""What our messages are marked with where `public_url` says nothing."""


class Bridge(Protocol):
    """What the house does with a bridge (loop)."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> Awaitable[None]:
        """End; what is under way is finished or left where it came from."""


class Threaded:
    """A bridge with a thread of its own."""

    def __init__(self, start: Callable[[], None], stop: Callable[[], None]) -> None:
        self.start = start
        self._stop = stop

    async def stop(self) -> None:
        """End it, without waiting on the loop: its thread may need the loop to end."""
        await asyncio.to_thread(self._stop)


def make_bridges(context: Context) -> list[Bridge]:
    """The bridges that are configured, not started. Raises `SettingsError`."""
    return [*_stomp(context), *_inbox(context)]


def _stomp(context: Context) -> list[Bridge]:
    settings = context.settings
    address = settings.stomp_url
    if address is None:
        return []
    try:
        from push_server.bridges.stomp_in import StompBridge
        from push_server.bridges.stomp_out import StompOutlet
    except ModuleNotFoundError:
        raise SettingsError(
            "stomp_url", "needs the package stomp.py: pip install 'push-server[stomp]'"
        ) from None
    origin = settings.public_url or ORIGIN

    def publish(requests: Sequence[PublishRequest]) -> Sequence[Published | PushError]:
        return context.crossing.call(context.broker.publish(requests))

    bridges: list[Bridge] = []
    if settings.stomp_consume:
        consumer = StompBridge(
            address,
            settings.stomp_consume,
            settings.stomp_parked,
            origin,
            publish,
            settings.max_body,
            context.hub.counts,
        )
        bridges.append(Threaded(consumer.start, consumer.stop))
    if settings.stomp_produce:
        outlet = StompOutlet(
            address,
            settings.stomp_produce,
            Path(settings.stomp_state),
            origin,
            context.hub,
            context.crossing,
            context.hub.counts,
        )
        bridges.append(Threaded(outlet.start, outlet.stop))
    return bridges


def _inbox(context: Context) -> list[Bridge]:
    settings = context.settings
    if not settings.redis_inbox:
        return []
    from push_server.bridges.redis_inbox import RedisInbox, parse_inbox

    try:
        address, stream = parse_inbox(settings.redis_inbox)
    except ValueError as error:
        raise SettingsError("redis_inbox", f"{error}") from None
    return [
        RedisInbox(
            address,
            stream,
            settings.redis_inbox_channels,
            context.broker.roster.node,
            context.broker.publish,
            settings.max_body,
            context.hub.counts,
        )
    ]
