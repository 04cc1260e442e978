"""The rooms: who is subscribed to which channel here, and the way of a publication to them.

`deliver` collects what the broker commits; once per turn of the loop `fan_out` encodes each
channel's new publications once per transport, offers them to the channel's subscribers, and then
writes to each subscriber once, however many publications or channels were due.

Event loop only, hence no locks. Imported by the hub, which it calls back for what is not fan-out.
"""

from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from push_server.channels import PERSONAL
from push_server.publications import Publication
from push_server.subscriber import Subscriber, visible_to
from push_server.transports.base import Pieces, Transport

LARGE_ROOM = 200
ANSWER_SECONDS = 0.001


class Glob(NamedTuple):
    """All channels that begin so: to any depth, or without a further slash."""

    prefix: str
    deep: bool

    @property
    def pattern(self) -> str:
        """What a `reset` calls these channels, as a token would."""
        return self.prefix + "*"

    def __contains__(self, channel: object) -> bool:
        # As with grants: what is personal or internal is not meant unless it is spelled out.
        assert isinstance(channel, str)
        rest = channel[len(self.prefix) :]
        flat = "/" not in rest and (bool(self.prefix) or ":" not in rest)
        return (
            channel.startswith(self.prefix)
            and (self.deep or flat)
            and not channel.startswith("$")
            and (not channel.startswith(PERSONAL) or self.prefix.startswith(PERSONAL))
        )


class Rooms:
    """The subscribers of each channel."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        *,
        answer: Callable[[Subscriber], None],
        fail: Callable[[Subscriber, Exception], None],
        budget: int,
        pump: Callable[[Subscriber], None],
        opened: Callable[[str], None],
        emptied: Callable[[str], None],
    ) -> None:
        self.deliveries = 0
        self._loop = loop
        self._answer = answer
        """Answers a poll that something is due for."""
        self._fail = fail
        """Ends a subscriber that cannot be served."""
        self._budget = budget
        """Bytes due for one subscriber beyond which the rest waits, unencoded, for its turn."""
        self._pump = pump
        """Tells a subscriber what it holds, as fast as its client takes it."""
        self._opened = opened
        self._emptied = emptied
        """Hear of the first and the last subscriber of a channel."""
        self._rooms: dict[str, list[Subscriber]] = {}
        """Channel -> subscribers, in the order they came. Lists, because most rooms hold one
        subscriber (a list of one takes 64 bytes, a set 216), and because a fan-out that goes
        through memory in order is faster; leaving a room of 10,000 takes 12 µs."""
        self._globs: dict[Glob, list[Subscriber]] = {}
        """Who is told, live and without a cursor, what is published to channels like these."""
        self._due: dict[str, list[Publication]] = {}
        self._encoded: dict[tuple[str, Transport], Pieces] = {}

    def join(self, subscriber: Subscriber, channels: Iterable[str]) -> None:
        """Add a subscriber to these channels."""
        for channel in channels:
            room = self._rooms.get(channel)
            if room is None:
                self._rooms[channel] = [subscriber]
                self._opened(channel)
            else:
                room.append(subscriber)

    def leave(self, subscriber: Subscriber, channels: Iterable[str]) -> None:
        """Take a subscriber out of these channels."""
        for channel in channels:
            room = self._rooms[channel]
            room.remove(subscriber)
            if not room:
                del self._rooms[channel]
                self._emptied(channel)

    def watch(self, subscriber: Subscriber, glob: Glob) -> None:
        """Tell a subscriber, too, what comes to channels like these that it is not in."""
        self._globs.setdefault(glob, []).append(subscriber)

    def unwatch(self, subscriber: Subscriber, glob: Glob) -> None:
        """The end of `watch`."""
        self._globs[glob].remove(subscriber)
        if not self._globs[glob]:
            del self._globs[glob]

    def watching(self, channel: str) -> list[Subscriber]:
        """Those who watch channels like this one, and are not in it, each once."""
        return list(
            {
                subscriber: None
                for glob, watching in self._globs.items()
                if channel in glob
                for subscriber in watching
                if channel not in subscriber.channels
            }
        )

    def watched_by(self, subscriber: Subscriber, channels: Iterable[str]) -> set[str]:
        """Those of these channels that a subscriber watches."""
        globs = [glob for glob, watching in self._globs.items() if subscriber in watching]
        return {channel for channel in channels if any(channel in glob for glob in globs)}

    def tell_watcher(self, subscriber: Subscriber, publications: Sequence[Publication]) -> None:
        """Tell it what it would have been told of channels that it has left, if it watches them."""
        watched = self.watched_by(subscriber, {each.channel for each in publications})
        owed = [each for each in publications if each.channel in watched]
        if visible := visible_to(subscriber.instance, owed):
            subscriber.due += subscriber.transport.bare(visible)
            subscriber.flush()

    def watched(self) -> dict[Subscriber, list[Glob]]:
        """Who watches what."""
        found: dict[Subscriber, list[Glob]] = {}
        for glob, watching in self._globs.items():
            for subscriber in watching:
                found.setdefault(subscriber, []).append(glob)
        return found

    def of(self, channel: str) -> tuple[Subscriber, ...]:
        """The subscribers of a channel."""
        return tuple(self._rooms.get(channel, ()))

    def sizes(self) -> Iterable[tuple[str, int]]:
        """Each channel with subscribers, and how many."""
        return [(channel, len(room)) for channel, room in self._rooms.items()]

    # deliver > offer > encode > write.

    def deliver(self, channel: str, publications: Sequence[Publication]) -> None:
        """Take the next publications of a channel (the broker's callback)."""
        room = self._rooms.get(channel, ())
        if not room and not any(channel in glob for glob in self._globs):
            return
        if not self._due:
            # The publisher's answer needs a few more turns of the loop, and a large fan-out takes
            # tens of milliseconds: the answer goes first.
            if len(room) < LARGE_ROOM:
                self._loop.call_soon(self.fan_out)
            else:
                self._loop.call_later(ANSWER_SECONDS, self.fan_out)
        self._due.setdefault(channel, []).extend(publications)

    def fan_out(self) -> None:
        """Send what is due."""
        due, self._due = self._due, {}
        # With one channel due, a stream is written to while it is at hand (in the cache of the
        # CPU, too); otherwise when all that is due has been offered.
        alone = len(due) == 1
        touched: dict[Subscriber, None] = {}
        for channel, publications in due.items():
            room = self.of(channel)
            entry = publications[-1].entry
            excluded = {publication.exclude for publication in publications} - {None}
            transport: Transport | None = None
            pieces: Pieces = ()
            direct = False
            for subscriber in room:
                if subscriber.held is not None:
                    subscriber.held.extend(publications)
                    continue
                if not alone and len(subscriber.due) > self._budget:
                    # A broadcast to many channels that one client has all of.
                    subscriber.held = deque(publications)
                    continue
                try:
                    if excluded and subscriber.instance in excluded:
                        transport = None
                        visible = visible_to(subscriber.instance, publications)
                        pieces = subscriber.transport.encode(visible) if visible else ()
                        direct = False
                    elif subscriber.transport is not transport:
                        pieces = self._encode(channel, subscriber.transport, publications)
                        transport = subscriber.transport
                        direct = alone and not transport.once
                    if direct:
                        subscriber.tell(channel, entry, pieces)
                    else:
                        subscriber.offer(channel, entry, pieces)
                        touched[subscriber] = None
                except Exception as failure:  # noqa: BLE001  # one connection, not all behind it
                    self._fail(subscriber, failure)
            self.deliveries += len(room) * len(publications)
            self._pass_on(channel, publications, touched)
        self._encoded.clear()
        self._send(touched)

    def _send(self, touched: Iterable[Subscriber]) -> None:
        """Write to each what it was offered, in one piece."""
        for subscriber in touched:
            try:
                if subscriber.transport.once:
                    if subscriber.due:
                        self._answer(subscriber)
                elif subscriber.held:
                    self._pump(subscriber)
                else:
                    subscriber.flush()
            except Exception as failure:  # noqa: BLE001
                self._fail(subscriber, failure)

    def _pass_on(
        self, channel: str, publications: Sequence[Publication], touched: dict[Subscriber, None]
    ) -> None:
        """Offer to those who watch channels like this one, once to each."""
        watchers = self.watching(channel)
        for subscriber in watchers:
            try:
                visible = visible_to(subscriber.instance, publications)
                subscriber.due += subscriber.transport.bare(visible)
                touched[subscriber] = None
            except Exception as failure:  # noqa: BLE001
                self._fail(subscriber, failure)
            if len(subscriber.due) > self._budget:
                self._send((subscriber,))  # and the connection's own budget decides
        self.deliveries += len(watchers) * len(publications)

    def announce(self, channel: str, control: bytes) -> None:
        """Send a control message, which is JSON already, to those who are live."""
        live = [subscriber for subscriber in self.of(channel) if subscriber.live]
        self.tell(live, lambda subscriber: subscriber.relay(control))

    def tell(self, subscribers: Iterable[Subscriber], say: Callable[[Subscriber], None]) -> None:
        """Say something to each, and send it; one that fails does not keep it from all behind."""
        for subscriber in subscribers:
            try:
                say(subscriber)
                if subscriber.transport.once:
                    self._answer(subscriber)
                else:
                    subscriber.flush()
            except Exception as failure:  # noqa: BLE001
                self._fail(subscriber, failure)

    def _encode(
        self, channel: str, transport: Transport, publications: Sequence[Publication]
    ) -> Pieces:
        """The publications of this turn as this transport sends them, made once."""
        pieces = self._encoded.get((channel, transport))
        if pieces is None:
            pieces = self._encoded[channel, transport] = transport.encode(publications)
        return pieces
