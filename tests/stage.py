"""A hub on a stage: its loop is turned by hand, its clock stands still, its wires are lists.

    stage.attach("alice", "room")       a subscriber on a wire that records what is written
    stage.publish("room", b"1")         through a real memory broker, up to the writes
    stage.pass_time(25)                 the wheel turns; nobody sleeps

Imported by the tests of the engine.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from push_server.brokers.memory import MemoryBroker
from push_server.channels import Namespace, Namespaces
from push_server.errors import PushError
from push_server.history import History
from push_server.hub import Hub
from push_server.positions import Position, parse_cursor
from push_server.publications import Published, PublishRequest
from push_server.revocations import Revocations
from push_server.subscriber import SubscribeRequest
from push_server.transports import TRANSPORTS
from push_server.wheel import TICK

T = TypeVar("T")


class Loop(asyncio.SelectorEventLoop):
    """An event loop that the test turns by hand, and whose time it moves on."""

    _ahead = 0.0

    def time(self) -> float:
        return super().time() + self._ahead

    def turn(self, seconds: float = 0) -> None:
        """Do all that is due now, and then what is due when so many seconds have passed."""
        self._do_what_is_due()
        self._ahead += seconds
        self._do_what_is_due()

    def _do_what_is_due(self) -> None:
        for _ in range(5):
            self.run_until_complete(asyncio.sleep(0))


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_700_000_000.0 + self.now


class FakeConnection:
    """A connection that takes everything at once, or too little for more while it is `blocked`."""

    def __init__(self, hub: Hub, *, keeps_alive: bool = False) -> None:
        self.subscriber: Any = None
        self.writes: list[bytes] = []
        self.blocked = False
        self.breaks = False
        """Whether writing fails in a way that nobody has foreseen."""
        self._closed = ""
        self._released = False
        self._stuck_at = 0.0
        self._hub = hub
        self._keeps_alive = keeps_alive
        self._finishing = False
        self._callback: Callable[[], None] | None = None

    @property
    def idle(self) -> bool:
        return not self.blocked

    def write(self, data: bytes) -> None:
        if self.breaks:
            raise ArithmeticError("a fault of the test")
        if not self._closed:
            self.writes.append(data)

    def when_idle(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def stick(self) -> None:
        """From now on the client takes nothing at all."""
        self.blocked = True
        blocked: set[Any] = self._hub.blocked
        blocked.add(self)

    def stalled(self, now: float, stall_timeout: float) -> bool:
        self._stuck_at = self._stuck_at or now
        return now - self._stuck_at > stall_timeout

    def unblock(self) -> None:
        """The client takes what was written."""
        self.blocked = False
        self._hub.blocked.discard(self)
        callback, self._callback = self._callback, None
        if self._finishing:
            self.close("done")
        elif callback is not None:
            callback()

    def finish(self, reason: str) -> None:
        self._finishing = True
        if not self.blocked:
            self.close("done")

    def close(self, reason: str) -> None:
        if not self._closed:
            self._closed = reason
            self._hub.blocked.discard(self)
            self._hub.closed(self, reason)

    def release(self) -> bool:
        if not self._keeps_alive or self.blocked or self._closed:
            return False
        self._released = True
        self._hub.closed(self, "released")
        return True

    # What a test looks at.

    def closed(self) -> str:
        """Why it was closed; empty while it is open."""
        return self._closed

    def released(self) -> bool:
        """Whether it went back to the HTTP front."""
        return self._released

    @property
    def body(self) -> bytes:
        """All that was written, without the head of the answer."""
        return b"".join(self.writes).partition(b"\r\n\r\n")[2]

    @property
    def values(self) -> list[dict[str, Any]]:
        """Of a stream: the publications and control messages."""
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def data(self) -> list[Any]:
        """Of a stream: the data of the publications."""
        return [value["data"] for value in self.values if "channel" in value]

    @property
    def words(self) -> list[str]:
        """Of a stream: the types of the control messages."""
        return [value["type"] for value in self.values if "type" in value]


class StagedBroker(MemoryBroker):
    """A memory broker whose reads can be made to wait, or to fail."""

    failure: Exception | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, since: Mapping[str, Position | None]) -> Mapping[str, History]:
        if self.failure is not None:
            raise self.failure
        histories = await super().read(since)
        await self.gate.wait()
        return histories


class Stage:
    """A hub, a broker and an event loop, all in the hands of the test."""

    def __init__(self, patch: pytest.MonkeyPatch, namespaces: Namespaces, **limits: Any) -> None:
        self.clock = Clock()
        for module in ("disruptions", "hub", "greeting", "lifetimes"):
            patch.setattr(f"push_server.{module}.time", self.clock)
        self.loop = Loop()
        self._ids = itertools.count()
        self.revocations = Revocations()
        self.tasks: list[asyncio.Task[None]] = []

        async def build() -> None:
            self.hub = Hub(
                revocations=self.revocations,
                **{
                    "heartbeat": 25.0,
                    "max_age": 3600.0,
                    "queue_bytes": 262_144,
                    "stall_timeout": 30.0,
                    "reset_spread": 20.0,
                    "max_connections": 1000,
                    "max_per_user": 16,
                    "max_per_address": 200,
                    **limits,
                },
            )
            self.broker = self.hub.broker = StagedBroker(
                namespaces, self.hub.deliver, self.hub.revoke, self.clock.time
            )

        self.run(build())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self.loop.run_until_complete(coroutine)

    def turn(self) -> None:
        """Let the loop do all that is due now."""
        for _ in range(5):
            self.run(asyncio.sleep(0))

    def request(
        self, user: str, *channels: str, transport: str = "stream", **changes: Any
    ) -> SubscribeRequest:
        request = SubscribeRequest(
            user=user,
            session=f"session-{user}",
            token_id="",
            issued=self.clock.time(),
            expires=self.clock.time() + 86_400,
            address="",
            channels=[f"user:{user}", *channels],
            denied=[],
            since=None,
            instance=None,
            transport=TRANSPORTS[transport],
            timeout=25.0,
            headers=(),
            keep_alive=False,
        )
        return request._replace(**changes)

    def attach(
        self,
        user: str,
        *channels: str,
        connection: FakeConnection | None = None,
        since: str | None = None,
        **changes: Any,
    ) -> FakeConnection:
        """A subscriber that has begun, unless the broker's gate is closed."""
        if since is not None:
            changes["since"] = parse_cursor(since)
        connection = connection or FakeConnection(self.hub)
        request = self.request(user, *channels, **changes)
        self.tasks.append(self.loop.create_task(self.hub.attach(request, connection)))
        self.turn()
        return connection

    def publish(
        self, channel: str, *datas: bytes, exclude: str | None = None
    ) -> Sequence[Published | PushError]:
        """Publish in one call of the broker; return when all has been written."""
        answers = self.place(channel, *datas, exclude=exclude)
        self.turn()
        return answers

    def place(
        self, channel: str, *datas: bytes, exclude: str | None = None
    ) -> Sequence[Published | PushError]:
        """Publish, and stop before the hub's turn."""
        requests = [
            PublishRequest(channel, f"id{next(self._ids)}", data, exclude=exclude) for data in datas
        ]
        # By hand, because running the loop would run the hub, too.
        coroutine = self.broker.publish(requests)
        try:
            coroutine.send(None)
        except StopIteration as end:
            answers: Sequence[Published | PushError] = end.value
            return answers
        raise AssertionError("the memory broker never waits")

    def pass_time(self, seconds: float) -> None:
        """Let the clock run and the wheel turn with it."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(self.clock.now + TICK, end)
            self.hub._ticker.cancel()
            self.hub._tick()

    def check_empty(self) -> None:
        """Nobody is left, in no corner of the hub."""
        hub = self.hub
        self.pass_time(2 * TICK)
        assert hub._admission.size == 0
        assert hub._rooms._rooms == {}
        assert not hub._admission._addresses
        assert not hub._rooms._due and not hub._rooms._encoded
        assert hub._lifetimes._wheel.everyone() == []
        assert not hub.blocked and not len(hub._partings)
        assert not [slot for slot, found in hub._lifetimes._wheel._slots.items() if found]

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.turn()
        self.hub.close()
        self.loop.close()


NAMESPACES = Namespaces({"big": Namespace(history_size=100_000)})
