"""The hub: the life of each subscriber of this node, from the greeting to the last word.

What is published goes its way through `rooms`, who is in which of them is the business of
`membership`, what it is told first that of `greeting`, how long it lives that of `lifetimes`, what
it hears of a log that fails that of `disruptions`, how it is let go that of `partings`, and what
there is to know of all of them that of `census`.

Event loop only, hence no locks. Floor 4: calls down to the broker, up through nothing.
"""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from push_server import log
from push_server.admission import Admission
from push_server.brokers.base import Broker
from push_server.brokers.survey import CHANNELS, DISCONNECT, STATS
from push_server.census import Census
from push_server.connection import Connection, SocketConnection
from push_server.dates import date_header
from push_server.disruptions import Disruptions
from push_server.errors import PushError, Unavailable
from push_server.greeting import Greeting
from push_server.history import UNKNOWN, History
from push_server.lifetimes import Lifetimes
from push_server.membership import Membership, Observer
from push_server.pacing import Pace
from push_server.partings import Partings
from push_server.positions import Position, channel_key
from push_server.publications import Publication, dump_json
from push_server.revocations import Revocation, Revocations
from push_server.rooms import Glob, Rooms
from push_server.subscriber import Subscriber, SubscribeRequest
from push_server.tokens import InvalidToken
from push_server.transports.base import Headers, response
from push_server.watch import Watch
from push_server.wheel import TICK

ANONYMOUS = "0"
"""All visitors who have not logged in: many people, so no limit per user."""

REPLACED_MILLISECONDS = 30_000
"""Who made room comes back after this, or twice as long: at once, it would replace another, which
would come back and replace the next, as fast as the network goes."""


class Hub:
    """The subscribers of this node."""

    def __init__(
        self,
        *,
        revocations: Revocations,
        heartbeat: float,
        max_age: float,
        queue_bytes: int,
        stall_timeout: float,
        reset_spread: float,
        max_connections: int,
        max_per_user: int,
        max_per_address: int,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.watch = Watch(self.loop)
        self.queue_bytes = queue_bytes
        self.blocked: set[SocketConnection] = set()
        self.broker: Broker
        """Set by the house before the first subscriber: broker and hub know each other."""
        self.counts: Counter[str] = Counter()
        """What happened since the start, for `stats` and `/metrics`."""
        self._revocations = revocations
        self._stall_timeout = stall_timeout
        self._max_per_user = max_per_user
        self.capacity = max_connections
        self._partings = Partings(
            leave=self._leave,
            wait=lambda subscriber: self._lifetimes.part(subscriber, stall_timeout),
            fail=self._fail,
        )
        answer = self._partings.answer
        self._greeting = Greeting(heartbeat, Pace(reset_spread), self.counts, answer)
        self._admission = Admission(connections=max_connections, per_address=max_per_address)
        self._rooms = Rooms(
            self.loop,
            answer=answer,
            fail=self._fail,
            budget=queue_bytes,
            pump=self._greeting.pump,
            opened=lambda channel: self.broker.join(channel),
            emptied=lambda channel: self.broker.leave(channel),
        )
        self._membership = Membership(self._rooms)
        self._lifetimes = Lifetimes(
            heartbeat, max_age, answer=answer, end=self._partings.reconnect, fail=self._fail
        )
        self.census = Census(self._rooms, self._lifetimes, self._partings)
        self._disruptions = Disruptions(
            self._rooms, self._greeting, self._lifetimes, self.counts
        )
        self._draining = False
        self.empty = asyncio.Event()
        """Set when the last subscriber has gone after `drain`."""
        self._id_prefix = secrets.token_urlsafe(6)
        self._ticker = self.loop.call_later(TICK, self._tick)

    @property
    def observers(self) -> list[Observer]:
        """Who keeps count; given by the house before the first subscriber too."""
        return self._membership.observers

    def deliver(self, channel: str, publications: Sequence[Publication]) -> None:
        """Take the next publications of a channel (the broker's callback)."""
        self._rooms.deliver(channel, publications)

    def announce(self, channel: str, message: Mapping[str, Any]) -> None:
        """Tell the live subscribers of a channel what no history keeps."""
        self._rooms.announce(channel, dump_json(message))

    def _fail(self, subscriber: Subscriber, failure: Exception) -> None:
        """Close a connection that cannot be served; the client comes back with its cursor."""
        self.counts["failed"] += 1
        log.error("conn.failed", failure, connection=subscriber.id)
        subscriber.connection.close("failed")

    # What the broker says of the log.

    def restarted(self, channel: str, reason: str, head: Position) -> None:
        """A channel goes on at another place (the broker's callback)."""
        self._disruptions.restarted(channel, reason, head)

    def missed(self) -> None:
        """Something may be missing of what is only watched (the broker's callback)."""
        self._disruptions.missed()

    def unheard(self, prefix: str) -> None:
        """End those who watch what can be heard no more (the broker's callback)."""
        self._disruptions.unheard(prefix)

    def degraded(self, degraded: bool) -> None:
        """Nothing can come just now, or again (the broker's callback)."""
        self._disruptions.degraded(degraded)

    # Attach and detach.

    async def attach(self, request: SubscribeRequest, connection: Connection) -> None:
        """Make a subscriber of a verified request; every refusal is an HTTP answer."""
        try:
            await self.receive(request, connection)
        except PushError as error:
            self.refuse(request.headers, connection, error)
        except BaseException:
            self.counts["failed"] += 1
            connection.close("failed")
            raise

    async def receive(self, request: SubscribeRequest, connection: Connection) -> None:
        """`attach` for who answers refusals otherwise. Raises `PushError`."""
        self._admit(request)
        self.counts["connects"] += 1
        subscriber = self._join(request, connection)
        since = request.since
        histories = await self._read(request.channels, since)
        if subscriber.present:
            recovered, resets = subscriber.resume(since, histories)
            self._greeting.greet(subscriber, request, recovered, resets, histories)

    async def _read(
        self, channels: Collection[str], since: Mapping[str, Position] | None
    ) -> Mapping[str, History]:
        """Where these channels stand, and what is missing since then."""
        histories = await self.broker.read(
            {
                channel: None if since is None else since.get(channel_key(channel))
                for channel in channels
            }
        )
        # What was delivered in this turn may be in the history already: it has to be among what is
        # held, where the merge drops it, before who asks is live.
        self._rooms.fan_out()
        return histories

    def check_stays(self) -> None:
        """Raise `Unavailable` once everybody is being sent away (any thread)."""
        if self._draining:
            raise Unavailable("draining", "This server is shutting down.", retry_after=1)

    def _admit(self, request: SubscribeRequest) -> None:
        self.check_stays()
        if self._revocations.covers(
            request.user, request.session, request.token_id, request.issued
        ):
            raise InvalidToken("revoked")
        try:
            self._admission.enter(request.address)
        except PushError:
            self.counts["shed"] += 1
            raise
        same_user = [] if request.user == ANONYMOUS else self.census.of_user(request.user)
        if len(same_user) >= self._max_per_user:
            self.counts["replaced"] += 1
            log.rejected("quota.user", "all", limit="connections_per_user")
            delay = random.randint(REPLACED_MILLISECONDS, 2 * REPLACED_MILLISECONDS)
            self._partings.reconnect(same_user[0], "replaced", delay)

    def refuse(self, headers: Headers, connection: Connection, error: PushError) -> None:
        """Answer a request that does not become a stream, and close."""
        headers = (*headers, *error.headers(), date_header())
        connection.write(response(error.status, headers, dump_json(error.body())))
        connection.finish("refused")

    def _join(self, request: SubscribeRequest, connection: Connection) -> Subscriber:
        subscriber_id = f"{self._id_prefix}{self.counts['connects']}"
        subscriber = Subscriber(request, connection, subscriber_id)
        connection.subscriber = subscriber
        self.counts[f"connects.{request.transport.name}"] += 1
        self._membership.join(subscriber, request.name, request.channels, time.monotonic())
        self._lifetimes.begin(subscriber, request)
        return subscriber

    def part_with(self, connection: Connection, reason: str) -> None:
        """Finish a connection that its client has ended (the connection's callback)."""
        subscriber: Subscriber | None = connection.subscriber
        if subscriber is None:
            connection.finish(reason)
        else:
            self._partings.ended(subscriber, reason)

    def closed(self, connection: Connection, reason: str) -> None:
        """Forget a subscriber whose connection is over (the connection's callback)."""
        subscriber: Subscriber | None = connection.subscriber
        if subscriber is None:
            return
        connection.subscriber = None
        self._admission.leave(subscriber.address)
        if self._draining and not self._admission.size:
            self.empty.set()
        if reason in ("slow", "stalled"):
            self.counts[f"cuts.{reason}"] += 1
            who = {"user": subscriber.user, "connection": subscriber.id}
            log.rejected("conn.cut", subscriber.address or "all", reason=reason, **who)
        self._partings.over(subscriber)
        self._lifetimes.over(subscriber)

    def _leave(self, subscriber: Subscriber) -> None:
        """Take a subscriber out of its channels."""
        # Whoever is sent on to another server has not left.
        self._membership.leave(
            subscriber, subscriber.channels, time.monotonic(), moving=self._draining
        )

    # Changes while it lives, where the transport carries them.

    async def subscribe(
        self,
        subscriber: Subscriber,
        name: str,
        channels: Collection[str],
        since: Mapping[str, Position] | None,
        answer: Callable[[], None],
    ) -> None:
        """Let a subscriber into more channels, by its display name, from `since` if it is given.

        `answer` is called when it is in, and before it is told anything of them. Not to be called
        again for the same subscriber before it has returned. Raises what `Broker.read` raises; then
        the subscriber is where it was before.
        """
        watched = self._rooms.watched_by(subscriber, channels) if since is None else ()
        self._membership.add(subscriber, name, channels, since, time.monotonic())
        try:
            histories = await self._read(channels, since)
        except BaseException:
            if subscriber.present:
                self.unsubscribe(subscriber, channels)
                self._greeting.pump(subscriber)
            raise
        if subscriber.present:
            recovered, resets = subscriber.resume(since, histories, watched)
            answer()
            self._greeting.say_where(subscriber, recovered, resets, histories)
            self._greeting.pump(subscriber)

    def unsubscribe(self, subscriber: Subscriber, channels: Collection[str]) -> None:
        """Take a subscriber out of some of its channels."""
        untold = self._membership.remove(subscriber, channels, time.monotonic())
        self._rooms.tell_watcher(subscriber, untold)

    async def watch_glob(self, subscriber: Subscriber, glob: Glob, *, again: bool) -> None:
        """Tell a subscriber, too, what comes to channels like these: live, without a cursor.

        `again`: its client was here before, and is told that something may be missing. Does
        nothing if the subscriber has ended meanwhile. Raises `PushError` if the broker cannot.
        """
        await self.broker.watch(glob.prefix)
        if not subscriber.present:
            self.broker.unwatch(glob.prefix)
            return
        self._rooms.watch(subscriber, glob)
        if again:
            self._disruptions.say_reset(subscriber, UNKNOWN, [glob.pattern])
            if subscriber.connection.subscriber is None:  # that was too much for it
                self.unwatch_glob(subscriber, glob)

    def unwatch_glob(self, subscriber: Subscriber, glob: Glob) -> None:
        """The end of that; to be called before the subscriber ends."""
        self._rooms.unwatch(subscriber, glob)
        self.broker.unwatch(glob.prefix)

    def renew(
        self, subscriber: Subscriber, token_id: str, issued: float, expires: float
    ) -> None:
        """Let a subscriber go on with a newer token of the same user and session."""
        subscriber.token_id = token_id
        subscriber.issued = issued
        self._lifetimes.renew(subscriber, expires)

    # Ends.

    def revoke(self, revocation: Revocation) -> None:
        """Close every stream whose token is meant (the broker's callback)."""
        self._revocations.forget(time.time())
        self._revocations.add(revocation)
        meant = self.census.meant_by(revocation)
        for subscriber in meant:
            self._partings.dismiss(subscriber, "revoked", {"type": "revoked"})
            # What is still queued for it must not go out any more: it has lost the right.
            subscriber.connection.close("revoked")
        self.counts["revoked"] += len(meant)

    def drain(self, spread: float) -> None:
        """Tell every subscriber to come back within `spread` seconds, and let it go.

        `empty` is set when the last one has gone.
        """
        self._draining = True
        if not self._admission.size:
            self.empty.set()
        for subscriber in self._lifetimes.everyone():
            self._partings.reconnect(subscriber, "drain", int(random.uniform(0, spread) * 1000))

    def close(self) -> None:
        """Stop the clock and cut whoever is left."""
        self._ticker.cancel()
        for subscriber in self._lifetimes.everyone():
            subscriber.connection.close("drain")
        for connection in tuple(self.blocked):  # refused, and slow to take it
            connection.close("drain")
        for observer in self.observers:
            observer.close()
        self.watch.close()

    # The clock.

    def _tick(self) -> None:
        now = time.monotonic()
        self._ticker = self.loop.call_later(TICK, self._tick)
        self._lifetimes.tick(now)
        for connection in [c for c in self.blocked if c.stalled(now, self._stall_timeout)]:
            connection.close("stalled")
        if self._disruptions.too_long(now):
            for subscriber in self._lifetimes.everyone():
                self._partings.reconnect(subscriber, "degraded", random.randint(0, 20_000))
        for observer in self.observers:
            observer.tick(now)

    # What the doors ask.

    def asked(self, what: str, argument: str) -> Mapping[str, int]:
        """This node's answer in a survey (the broker's callback)."""
        if what == CHANNELS:
            return self.census.channels(argument)
        if what == DISCONNECT:
            user, _, session = argument.partition("\n")
            return {"closed": self.disconnect(user, session)}
        return self.stats() if what == STATS else {}

    def disconnect(self, user: str, session: str) -> int:
        """Send the connections of a user or a session away, to come back at once; how many."""
        meant = self.census.of_session(user, session) if user or session else []
        for subscriber in meant:
            self._partings.reconnect(subscriber, "asked", random.randint(0, 1000))
        return len(meant)

    def stats(self) -> dict[str, int]:
        """Numbers for `stats` and `/metrics`."""
        return {
            "connections": self._admission.size,
            "blocked": len(self.blocked),
            "deliveries": self._rooms.deliveries,
            **self.census.numbers(),
            **self.counts,
            **self.broker.counts,
        }
