"""Membership: which subscriber is in which channels, from its first channel to its last.

A subscriber comes with channels and leaves all of them at its end. Where its transport can carry
requests, it also enters channels and leaves some while it lives. The rooms and the observers hear
of every change, and in the same order.

Event loop only, hence no locks. Imported by the hub.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from push_server.positions import Position
from push_server.publications import Publication
from push_server.rooms import Rooms
from push_server.subscriber import Subscriber


class Observer(Protocol):
    """Who keeps count of the users and channels of this node.

    Nothing of it may raise or wait, and only `tick` may announce: the other two are called in the
    middle of a fan-out.
    """

    def enter(self, user: str, name: str, channels: Collection[str], now: float) -> None:
        """A connection of this user joins these channels; the personal one at its beginning."""

    def leave(self, user: str, channels: Collection[str], now: float) -> None:
        """It has left them; the personal one at its end."""

    def tick(self, now: float) -> None:
        """Another turn of the wheel, on the monotonic clock."""

    def close(self) -> None:
        """The hub ends."""


class Membership:
    """The subscribers in their channels."""

    def __init__(self, rooms: Rooms) -> None:
        self.observers: list[Observer] = []
        self._rooms = rooms

    def join(
        self, subscriber: Subscriber, name: str, channels: Collection[str], now: float
    ) -> None:
        """Put a subscriber, by its display name, into channels that it is subscribed to."""
        self._rooms.join(subscriber, channels)
        for observer in self.observers:
            observer.enter(subscriber.user, name, channels, now)

    def leave(
        self,
        subscriber: Subscriber,
        channels: Collection[str],
        now: float,
        *,
        moving: bool = False,
    ) -> None:
        """Take it out; who is `moving` to another server has not left for the observers."""
        self._rooms.leave(subscriber, channels)
        if not moving:
            for observer in self.observers:
                observer.leave(subscriber.user, channels, now)

    def add(
        self,
        subscriber: Subscriber,
        name: str,
        channels: Collection[str],
        since: Mapping[str, Position] | None,
        now: float,
    ) -> None:
        """Put a subscriber that has begun into more channels.

        Everything delivered to it from here on is held, until it resumes.
        """
        subscriber.widen(channels, since)
        self.join(subscriber, name, channels, now)

    def remove(
        self, subscriber: Subscriber, channels: Collection[str], now: float
    ) -> list[Publication]:
        """Take a subscriber out of some of its channels for good; what it was not told of them."""
        self.leave(subscriber, channels, now)
        return subscriber.narrow(channels)
