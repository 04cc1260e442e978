"""What a subscriber is told of where it stands: hello, recovered, reset, and what it has missed.

Event loop only. Imported by the hub.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from push_server.history import History
from push_server.pacing import Pace
from push_server.positions import Position
from push_server.subscriber import Subscriber, SubscribeRequest


class Greeting:
    """The words between a subscriber's coming and its being live."""

    def __init__(
        self,
        heartbeat: float,
        pace: Pace,
        counts: Counter[str],
        answer: Callable[[Subscriber], None],
    ) -> None:
        self._heartbeat = heartbeat
        self._pace = pace
        self._counts = counts
        self._answer = answer

    def greet(
        self,
        subscriber: Subscriber,
        request: SubscribeRequest,
        recovered: list[str],
        resets: Mapping[str, list[str]],
        histories: Mapping[str, History],
    ) -> None:
        """Say hello and all that follows from it; answer a poll that need not wait."""
        hello: dict[str, Any] = {
            "type": "hello",
            "connection": subscriber.id,
            "user": subscriber.user,
            "channels": request.channels,
            "cursor": subscriber.cursor,
            "heartbeat": self._heartbeat,
            "expires": int(request.expires),
        }
        if request.denied:
            hello["denied"] = request.denied
        subscriber.say(hello)
        self.say_where(subscriber, recovered, resets, histories)
        if subscriber.transport.once:
            while subscriber.held is not None and not subscriber.due:
                subscriber.replay()
            if subscriber.due or resets or request.since is None or not request.timeout:
                self._answer(subscriber)
            return
        self.pump(subscriber)

    def say_where(
        self,
        subscriber: Subscriber,
        recovered: list[str],
        resets: Mapping[str, list[str]],
        histories: Mapping[str, History],
    ) -> None:
        """Say of each channel whether something is missing there."""
        if recovered:
            self._counts["recovered"] += len(recovered)
            subscriber.say({"type": "recovered", "channels": recovered})
        for reason, channels in resets.items():
            self.reset(subscriber, reason, {name: histories[name].head for name in channels})

    def reset(
        self, subscriber: Subscriber, reason: str, heads: Mapping[str, Position]
    ) -> None:
        """Tell a subscriber to load these channels anew, and from where delivery goes on."""
        subscriber.restart(heads)
        self.say_reset(subscriber, reason, list(heads))

    def say_reset(self, subscriber: Subscriber, reason: str, channels: list[str]) -> None:
        """Tell it to load these anew, also where no cursor says how far it is."""
        self._counts[f"resets.{reason}"] += len(channels)
        message: dict[str, Any] = {
            "type": "reset",
            "channels": channels,
            "reason": reason,
            "cursor": subscriber.cursor,
        }
        now = time.monotonic()
        if subscriber.reloads_at < now:
            subscriber.reloads_at = now + self._pace.wait(now)
        if delay := int((subscriber.reloads_at - now) * 1000):
            message["delay"] = delay
        subscriber.say(message)

    def pump(self, subscriber: Subscriber) -> None:
        """Replay slice by slice, as fast as the client takes them, until it is live."""
        connection = subscriber.connection
        subscriber.flush()
        while subscriber.held and connection.subscriber is subscriber:
            if not connection.idle:
                connection.when_idle(lambda: self.pump(subscriber))
                return
            subscriber.replay()
            subscriber.flush()
