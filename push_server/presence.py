"""Presence: who is in a channel, by user and not by socket.

A user is present from the first connection until a grace period after the last one: most who
leave only turn a page, and a poll is away between two requests. What this node has goes to the
broker's roster, which knows the other nodes; what changed for good comes back from there, and is
told to the subscribers of the channel where its namespace asks for it.

Changes are gathered until the next turn of the hub's wheel and paced, because a room of a
thousand that a thousand enter at once would otherwise get a million messages.

`now` is an argument. Event loop only. Floor 4; imported by the webhooks and the house.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

from push_server.brokers.roster import JOIN, LEAVE, Member, Roster
from push_server.channels import Namespaces
from push_server.hub import ANONYMOUS

NAMED_PER_TICK = 100
"""Users that one turn of the wheel names to one channel; the others wait for the next."""

K = TypeVar("K")
Announce = Callable[[str, Mapping[str, Any]], None]
"""Tell the live subscribers of a channel (the hub's `announce`)."""


class Roll(Generic[K]):
    """Counts what is here, and forgets it `grace` seconds after the last has gone."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._here: dict[K, int] = {}
        self._parting: dict[K, float] = {}
        """Key -> when it is forgotten, the earliest first: the grace is the same for all."""

    def enter(self, key: K) -> bool:
        """Count one more; whether this is news."""
        count = self._here.get(key)
        if count == 0:
            del self._parting[key]
        self._here[key] = (count or 0) + 1
        return count is None

    def leave(self, key: K, now: float) -> None:
        """Count one less."""
        self._here[key] -= 1
        if not self._here[key]:
            self._parting[key] = now + self._grace

    def tick(self, now: float) -> list[K]:
        """Forget, and return, what has gone for good."""
        over = []
        for key, until in self._parting.items():
            if until > now:
                break
            over.append(key)
        for key in over:
            del self._parting[key], self._here[key]
        return over

    def __getitem__(self, key: K) -> int:
        return self._here[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._here)

    def __len__(self) -> int:
        return len(self._here)


class Presence:
    """The users in the channels of this node whose namespaces ask for it; an observer."""

    def __init__(
        self, namespaces: Namespaces, roster: Roster, announce: Announce, grace: float
    ) -> None:
        self._namespaces = namespaces
        """Those of the start: who came uncounted could not be counted when leaving."""
        self._roster = roster
        self._announce = announce
        self._roll: Roll[tuple[str, str]] = Roll(grace)
        self._names: dict[tuple[str, str], str] = {}
        self._news: dict[str, dict[str, tuple[str, str]]] = {}
        """Channel -> user -> what is to be told of this user, and the name."""

    def covers(self, channel: str) -> bool:
        """Whether somebody keeps count of this channel."""
        return not channel.startswith("$") and self._namespaces.of(channel).presence

    def _counts(self, user: str, channel: str) -> bool:
        # What begins with $ is a part of this server that listens, and nobody's user.
        return not user.startswith("$") and self.covers(channel)

    def enter(self, user: str, name: str, channels: Collection[str], now: float) -> None:
        """A connection of this user joins these channels (the hub's call)."""
        for channel in channels:
            if self._counts(user, channel):
                key = channel, user
                self._roll.enter(key)
                if name:
                    self._names[key] = name
                self._tell_roster(key)

    def leave(self, user: str, channels: Collection[str], now: float) -> None:
        """A connection of this user leaves them (the hub's call)."""
        for channel in channels:
            if self._counts(user, channel):
                self._roll.leave((channel, user), now)
                self._tell_roster((channel, user))

    def tick(self, now: float) -> None:
        """Let go of those whose grace is over; tell what changed (the hub's call)."""
        for channel, user in self._roll.tick(now):
            self._names.pop((channel, user), None)
            self._roster.present(channel, user, None)
        for channel, news in list(self._news.items()):
            self._tell(channel, news)
            if not news:
                del self._news[channel]

    def close(self) -> None:
        """Nothing: the entries of a node that ends lapse, so that those who come back elsewhere
        meanwhile have never left."""

    def _tell_roster(self, key: tuple[str, str]) -> None:
        member = Member(self._roll[key], self._names.get(key, ""))
        self._roster.present(*key, member if key[1] != ANONYMOUS else member._replace(name=""))

    def changed(self, kind: str, channel: str, user: str, name: str) -> None:
        """A user came to a channel or left it, on whatever node (the roster's callback)."""
        if user == ANONYMOUS or not self._namespaces.of(channel).join_leave:
            return
        news = self._news.setdefault(channel, {})
        untold = news.pop(user, None)
        # Who left and came back before anybody was told has not left.
        if untold is None or untold[0] == kind:
            news[user] = kind, name

    def _tell(self, channel: str, news: dict[str, tuple[str, str]]) -> None:
        told: dict[str, list[dict[str, str]]] = {LEAVE: [], JOIN: []}
        for user in list(news)[:NAMED_PER_TICK]:
            kind, name = news.pop(user)
            told[kind].append({"user": user, "name": name} if name else {"user": user})
        for kind, users in told.items():
            if users:
                self._announce(channel, {"type": kind, "channels": [channel], "users": users})
