"""What befalls the log, as the subscribers hear of it: it is another one, or out of reach.

The broker says so through its callbacks. Event loop only. Imported by the hub.
"""

import time
from collections import Counter, deque

from push_server.greeting import Greeting
from push_server.history import UNKNOWN
from push_server.lifetimes import Lifetimes
from push_server.positions import Position
from push_server.rooms import Rooms
from push_server.subscriber import Subscriber

DEGRADED_SECONDS = 300.0
"""Streams end when the log is out of reach this long: no revocation could reach them."""


class Disruptions:
    """The bad news of the log."""

    def __init__(
        self,
        rooms: Rooms,
        greeting: Greeting,
        lifetimes: Lifetimes,
        counts: Counter[str],
    ) -> None:
        self._rooms = rooms
        self._greeting = greeting
        self._lifetimes = lifetimes
        self._counts = counts
        self._degraded_ends = float("inf")

    def restarted(self, channel: str, reason: str, head: Position) -> None:
        """Tell a channel's subscribers that it goes on at another place.

        Those whose history is being read are answered from the new log anyway.
        """
        self._rooms.fan_out()  # what was delivered before it was so
        present = self._rooms.of(channel)
        for subscriber in present:
            if isinstance(subscriber.held, deque):
                # Still being told what is gone: it comes back with the place it has reached.
                subscriber.connection.close("restarted")
        self._rooms.tell(
            [subscriber for subscriber in present if subscriber.held is None],
            lambda subscriber: self._greeting.reset(subscriber, reason, {channel: head}),
        )
        for subscriber in self._rooms.watching(channel):
            self.say_reset(subscriber, reason, [channel])

    def missed(self) -> None:
        """Tell those who watch channels that something may be missing."""
        self._rooms.fan_out()
        for subscriber, globs in self._rooms.watched().items():
            self.say_reset(subscriber, UNKNOWN, [glob.pattern for glob in globs])

    def unheard(self, prefix: str) -> None:
        """End those who watch channels that begin so: nothing would come any more."""
        for subscriber, globs in self._rooms.watched().items():
            if any(glob.prefix.startswith(prefix) for glob in globs):
                self._counts["failed"] += 1
                subscriber.connection.close("failed")

    def say_reset(self, subscriber: Subscriber, reason: str, channels: list[str]) -> None:
        """Tell a subscriber to load anew what it only watches, and has no place in."""
        self._rooms.tell(
            [subscriber], lambda each: self._greeting.say_reset(each, reason, channels)
        )

    def degraded(self, degraded: bool) -> None:
        """Tell every stream that nothing can come just now, or again."""
        self._counts["degraded"] = int(degraded)
        ends = time.monotonic() + DEGRADED_SECONDS if degraded else float("inf")
        self._degraded_ends = min(self._degraded_ends, ends) if degraded else ends
        self._rooms.tell(
            [
                subscriber
                for subscriber in self._lifetimes.everyone()
                if subscriber.live and not subscriber.transport.once and not subscriber.parting
            ],
            lambda subscriber: subscriber.say({"type": "degraded", "degraded": degraded}),
        )

    def too_long(self, now: float) -> bool:
        """Whether the log has been out of reach for so long that all streams have to end; once."""
        if now < self._degraded_ends:
            return False
        self._degraded_ends = float("inf")
        return True
