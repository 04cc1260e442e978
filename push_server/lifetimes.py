"""How long each subscriber lives, and what it hears meanwhile: pings, a warning, an end.

A stream ends with its token, unless it is renewed, or when it is old; a poll when its time is up;
one whose last word is on its way when nobody takes it. Each is filed in the wheel for whichever
comes first, so one timer serves all.

Event loop only. Imported by the hub.
"""

import random
import time
from collections.abc import Callable

from push_server.subscriber import Subscriber, SubscribeRequest
from push_server.wheel import Wheel

WARN_SECONDS = 60.0
"""How long before its end a stream says `expiring`, if it lives that long."""
HELD_LIMIT = 10_000
"""Publications that may wait behind a replay, checked once per heartbeat; they are shared, so
this bounds references, not payloads."""


class Lifetimes:
    """The subscribers of this node, by the moment at which they have to be looked at."""

    def __init__(
        self,
        heartbeat: float,
        max_age: float,
        *,
        answer: Callable[[Subscriber], None],
        end: Callable[[Subscriber, str, int], None],
        fail: Callable[[Subscriber, Exception], None],
    ) -> None:
        self._heartbeat = heartbeat
        self._max_age = max_age
        self._answer = answer
        self._end = end
        self._fail = fail
        self._wheel = Wheel(time.monotonic())

    def everyone(self) -> list[Subscriber]:
        """All subscribers, those among them whose last word is on its way."""
        return self._wheel.everyone()

    def begin(self, subscriber: Subscriber, request: SubscribeRequest) -> None:
        """A subscriber's life begins."""
        now = time.monotonic()
        if subscriber.transport.once:
            subscriber.ends = now + min(_seconds_left(request.expires), request.timeout)
            self._file(subscriber, subscriber.ends)
            return
        subscriber.retires = now + self._max_age * random.uniform(0.8, 1.0)
        _set_end(subscriber, request.expires, now)
        self._file(subscriber, now + self._heartbeat * random.uniform(0.5, 1.0))

    def renew(self, subscriber: Subscriber, expires: float) -> None:
        """It has a newer token."""
        now = time.monotonic()
        _set_end(subscriber, expires, now)
        self._wheel.drop(subscriber)
        self._file(subscriber, now + self._heartbeat)

    def part(self, subscriber: Subscriber, seconds: float) -> None:
        """Nothing more will be said to it; it has so long to begin taking what was."""
        self._wheel.drop(subscriber)
        subscriber.ends = subscriber.warns = time.monotonic() + seconds
        self._file(subscriber, subscriber.ends)

    def over(self, subscriber: Subscriber) -> None:
        """It is gone."""
        self._wheel.drop(subscriber)

    def tick(self, now: float) -> None:
        """Look at those whose moment has come."""
        for subscriber in self._wheel.turn(now):
            try:
                self._visit(subscriber, now)
            except Exception as failure:  # noqa: BLE001  # one connection, not all behind it
                self._fail(subscriber, failure)

    def _file(self, subscriber: Subscriber, next_ping: float) -> None:
        self._wheel.file(subscriber, min(next_ping, subscriber.warns, subscriber.ends))

    def _visit(self, subscriber: Subscriber, now: float) -> None:
        if isinstance(subscriber.held, list):
            self._file(subscriber, now)  # the broker is still reading for it
            return
        if subscriber.parting:
            if subscriber.connection.idle:
                subscriber.connection.close("stalled")
            else:  # As long as its client takes anything: the hub cuts who takes too little.
                self.part(subscriber, self._heartbeat)
            return
        if subscriber.held is not None and len(subscriber.held) > HELD_LIMIT:
            subscriber.connection.close("slow")
            return
        if now >= subscriber.ends:
            if subscriber.transport.once:
                self._answer(subscriber)
            else:
                self._end(subscriber, subscriber.reason, random.randint(0, 1000))
            return
        if now >= subscriber.warns:
            subscriber.warns = float("inf")
            expires = int(time.time() + subscriber.ends - now)
            subscriber.say({"type": "expiring", "expires": expires})
        elif subscriber.held is None:
            subscriber.say({"type": "ping"})
        # In a replay the bytes that flow are sign of life enough.
        subscriber.flush()
        if subscriber.connection.subscriber is subscriber:
            self._file(subscriber, now + self._heartbeat)


def _set_end(subscriber: Subscriber, expires: float, now: float) -> None:
    left = _seconds_left(expires)
    expired = now + left <= subscriber.retires
    subscriber.reason = "expired" if expired else "age"
    subscriber.ends = min(now + left, subscriber.retires)
    subscriber.warns = float("inf")
    if expired:
        subscriber.warns = now + max(left - WARN_SECONDS, left * 0.8)


def _seconds_left(expires: float) -> float:
    """Until a token ends. The clock of the CMS may be behind: what was accepted within the leeway
    gets it here, too."""
    left = expires - time.time()
    return left if left > 0 else left + 60
