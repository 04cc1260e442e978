"""The canary: one publication sent the way of all others, and seen to arrive.

A process that answers is not yet a server that delivers: peers were seen to acknowledge
publications, with green health checks, long after the last subscriber had stopped receiving. So
`/ready` subscribes through the hub, publishes through the broker, and waits for its own bytes.
"""

import asyncio
import secrets
from collections.abc import Callable

from push_server.doors.context import Context
from push_server.errors import PushError, Unavailable
from push_server.publications import PublishRequest
from push_server.subscriber import SubscribeRequest
from push_server.transports import TRANSPORTS

CANARY_CHANNEL = "$ready"
CANARY_SECONDS = 2.0
_SOON = float(2**40)


class _CanaryConnection:
    """A connection that looks at what it is given instead of sending it."""

    idle = True

    def __init__(self, context: Context, awaited: bytes) -> None:
        self.subscriber = None
        self.arrived = asyncio.Event()
        self._context = context
        self._awaited = awaited

    def write(self, data: bytes) -> None:
        if self._awaited in data:
            self.arrived.set()

    def when_idle(self, callback: Callable[[], None]) -> None:
        self._context.hub.loop.call_soon(callback)

    def finish(self, reason: str) -> None:
        self.close("done")

    def release(self) -> bool:
        return False

    def close(self, reason: str) -> None:
        self._context.hub.closed(self, reason)


async def sing(context: Context) -> None:
    """Send the canary (event loop). Raises `Unavailable` if it does not come back in time."""
    song = secrets.token_urlsafe(12)
    connection = _CanaryConnection(context, song.encode())
    request = SubscribeRequest(
        user=CANARY_CHANNEL,
        session="",
        token_id="",
        issued=_SOON,
        expires=_SOON,
        address="",
        channels=[CANARY_CHANNEL],
        denied=[],
        since=None,
        instance=None,
        transport=TRANSPORTS["stream"],
        timeout=0,
        headers=(),
        keep_alive=False,
    )
    try:
        async with asyncio.timeout(CANARY_SECONDS):
            await context.hub.attach(request, connection)
            (answer,) = await context.broker.publish([PublishRequest(CANARY_CHANNEL, song, b"{}")])
            if isinstance(answer, PushError):
                raise answer
            await connection.arrived.wait()
    except TimeoutError:
        raise Unavailable("not_ready", "A test publication did not arrive in time.") from None
    finally:
        connection.close("done")
