"""A subscriber: one authorised receiver, its channels, and where it stands in each.

Its life: it joins its channels while still *holding* (what is delivered is kept back), the
broker says what it missed, the two are merged by offset, told in slices as fast as the client
takes them, and when nothing is left it is *live*. From then on every publication goes straight
through `offer` to the connection.

The cursor is kept as one entry per channel, that of the channel offered last apart from the rest
of them. The rest changes only when another channel is offered, so a fan-out costs one `join` per
subscriber.

Event loop only. Imported by the hub and its parts, and by the doors for what they ask of it.
"""

from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from push_server.connection import Connection
from push_server.dates import date_header
from push_server.history import UNKNOWN, History
from push_server.positions import Position, channel_key, cursor_entry, join_cursor
from push_server.publications import Publication
from push_server.transports.base import Headers, Pieces, Transport

SLICE_BYTES = 64 * 1024
"""How much of a replay is encoded ahead of a client that has not taken it yet."""
POLL_BYTES = 256 * 1024
"""How much of a replay one poll answer carries."""


class SubscribeRequest(NamedTuple):
    """A verified request to receive: what the subscribe door hands to the hub."""

    user: str
    session: str
    token_id: str
    issued: float
    expires: float
    address: str
    """What limits per address count by; empty where they do not apply."""
    channels: Sequence[str]
    denied: Sequence[str]
    since: Mapping[str, Position] | None
    instance: str | None
    transport: Transport
    timeout: float
    headers: Headers
    keep_alive: bool
    name: str = ""
    """The display name, for presence."""
    begun: bool = False
    """Whether the answer's head was sent before: then no refusal can be an HTTP answer."""
    fallback: str = ""
    """Why this transport and no better one; empty where the client gave no reason."""


class Subscriber:
    """One receiver on one connection."""

    __slots__ = (
        "_cursors",
        "_entry",
        "_join",
        "_latest",
        "_rest",
        "address",
        "answer_headers",
        "connection",
        "controls",
        "due",
        "ends",
        "fallback",
        "held",
        "id",
        "instance",
        "issued",
        "keep_alive",
        "parting",
        "reason",
        "reloads_at",
        "retires",
        "session",
        "slot",
        "token_id",
        "transport",
        "user",
        "warns",
        "widening",
    )

    def __init__(self, request: SubscribeRequest, connection: Connection, subscriber_id: str):
        self.id = subscriber_id
        self.user = request.user
        self.session = request.session
        self.token_id = request.token_id
        self.issued = request.issued
        self.address = request.address
        self.instance = request.instance
        self.transport = request.transport
        self.fallback = request.fallback
        self.connection = connection
        self.answer_headers = request.headers if request.transport.once else ()
        self.keep_alive = request.keep_alive
        self.parting = False
        """Whether it was told its last: then it is in no channel any more."""
        self.held: list[Publication] | deque[Publication] | None = []
        """What is to be told before this subscriber is live; None when it is. A list while it
        only fills, then a queue."""
        self.due = b""
        """Publications encoded in this turn of the loop, not yet written."""
        dated = (*request.headers, date_header())
        self.controls = b"" if request.begun else request.transport.head(dated)
        """Control messages of this turn, at first the answer's head; they go before `due`."""
        self.slot = 0
        self.ends = self.warns = self.retires = float("inf")
        self.reloads_at = 0.0
        """When the client, told of a reset, loads anew: of several resets in a row, once."""
        self.reason = ""
        self.widening = False
        """Whether it is on its way into more channels: then it cannot go live yet."""
        self._cursors: dict[str, str] = {}
        self._join = request.transport.join
        self._latest: str | None = None
        self._entry = ""
        self._rest = b""
        self._enter(request.channels, request.since)

    def _enter(
        self, channels: Iterable[str], since: Mapping[str, Position] | None
    ) -> None:
        """Add channels; until it is told anything else, a client stands where it says it does."""
        for channel in channels:
            position = since.get(channel_key(channel)) if since else None
            self._cursors[channel] = "" if position is None else cursor_entry(channel, position)

    @property
    def channels(self) -> Collection[str]:
        """The channels it is subscribed to."""
        return self._cursors.keys()

    @property
    def live(self) -> bool:
        """Whether it has been told what it missed; who is on its way into more channels was."""
        return self.held is None or self.widening

    @property
    def present(self) -> bool:
        """Whether it is in its channels still."""
        return self.connection.subscriber is self and not self.parting

    @property
    def cursor(self) -> str:
        """Where it stands, as far as it has been told."""
        if self._latest is not None:
            self._cursors[self._latest] = self._entry
        return join_cursor(entry for entry in self._cursors.values() if entry)

    @property
    def unwritten(self) -> bool:
        """Whether it was told something that its connection does not have yet."""
        return bool(self.due or self.controls)

    # The three steps of a beginning.

    def resume(
        self,
        since: Mapping[str, Position] | None,
        histories: Mapping[str, History],
        watched: Container[str] = (),
    ) -> tuple[list[str], dict[str, list[str]]]:
        """Take its starting place in every channel and line up what it missed.

        In those it has `watched` before, nothing that was held is old.

        Returns the channels that are recovered, and those that are not by reason. The cursor
        keeps the old entries of the latter until `restart`: a client that is cut off between
        the greeting and the `reset` must not come back with a cursor that hides its loss.
        """
        self._settle()
        recovered: list[str] = []
        resets: dict[str, list[str]] = {}
        missed: deque[Publication] = deque()
        reached: dict[str, Position] = {}
        for channel in self._cursors:
            if channel not in histories:
                continue  # It was in this one before.
            history = histories[channel]
            start = None if since is None else since.get(channel_key(channel))
            if start is not None and history.reset is None:
                recovered.append(channel)
                missed.extend(history.publications)
            elif since is not None:
                resets.setdefault(history.reset or UNKNOWN, []).append(channel)
            else:
                self._cursors[channel] = cursor_entry(channel, history.head)
            if channel not in watched:
                reached[channel] = history.head
        # Merge: of what was delivered while the history was read, keep what lies beyond it.
        missed.extend(
            publication
            for publication in self.held or ()
            if publication.channel not in reached
            or publication.position > reached[publication.channel]
        )
        self.widening = False
        self.held = missed or None
        return recovered, resets

    # More channels, and fewer.

    def widen(self, channels: Iterable[str], since: Mapping[str, Position] | None) -> None:
        """Add channels, and hold what is delivered until `resume` knows what was missed."""
        self.widening = True
        if self.held is None:
            self.held = deque()
        self._settle()
        self._enter(channels, since)

    def narrow(self, channels: Collection[str]) -> list[Publication]:
        """Take channels away; what waits of them is told no more, and returned."""
        self._settle()
        for channel in channels:
            del self._cursors[channel]
        self.widening = False
        held = self.held or ()
        if self.held is not None:
            self.held = deque(each for each in held if each.channel not in channels) or None
        return [each for each in held if each.channel in channels]

    def _settle(self) -> None:
        """Have no latest channel: whoever comes next speaks of all the others anew."""
        if self._latest is not None:
            self._cursors[self._latest] = self._entry
            self._latest = None

    def restart(self, heads: Mapping[str, Position]) -> None:
        """Stand at the head of these channels; what was before is given up, and said to be."""
        self._settle()
        for channel, head in heads.items():
            self._cursors[channel] = cursor_entry(channel, head)

    def replay(self) -> None:
        """Encode the next slice of what is held; go live when nothing is left of it."""
        held = self.held
        assert isinstance(held, deque)
        room = POLL_BYTES if self.transport.once else SLICE_BYTES
        slice_: list[Publication] = []
        while held and room > 0:
            room -= len(held[0].json)
            slice_.append(held.popleft())
        for channel, run in groupby(slice_, key=_channel):
            publications = list(run)
            visible = visible_to(self.instance, publications)
            pieces = self.transport.encode(visible) if visible else ()
            self.offer(channel, publications[-1].entry, pieces)
        if not held and not self.widening:
            self.held = None

    def offer(self, channel: str, entry: str, pieces: Pieces) -> None:
        """Take publications of one channel that end at `entry`; the hub calls `flush` later."""
        if channel != self._latest:
            self._turn_to(channel)
        self._entry = entry
        self.due += self._join(self._rest, pieces)

    def tell(self, channel: str, entry: str, pieces: Pieces) -> None:
        """`offer` and `flush` in one, where nothing else is due: the way of most publications."""
        if channel != self._latest:
            self._turn_to(channel)
        self._entry = entry
        self.connection.write(self._join(self._rest, pieces))

    def _turn_to(self, channel: str) -> None:
        """Make `channel` the latest: its entry is kept apart, `_rest` speaks of the others."""
        cursors = self._cursors
        if self._latest is not None:
            cursors[self._latest] = self._entry
        self._latest = channel
        others = [entry for name, entry in cursors.items() if entry and name != channel]
        self._rest = "".join("~" + entry for entry in others).encode()

    def say(self, message: Mapping[str, Any]) -> None:
        """Take a control message; the hub calls `flush` later."""
        self.controls += self.transport.control(message, self.cursor)

    def relay(self, control: bytes) -> None:
        """Take a control message that is JSON already, made once for many."""
        self.controls += self.transport.relay(control, self.cursor)

    def flush(self) -> None:
        """Write what this turn of the loop brought, in one send."""
        data = self.controls + self.due if self.controls else self.due
        self.due = self.controls = b""
        if data:
            self.connection.write(data)

    def answer(self) -> None:
        """For a transport that answers once: write the whole answer."""
        headers = (*self.answer_headers, date_header())
        data = self.transport.answer(
            self.due, self.controls, self.cursor, headers, self.keep_alive
        )
        self.due = self.controls = b""
        self.connection.write(data)


def _channel(publication: Publication) -> str:
    return publication.channel


def visible_to(
    instance: str | None, publications: Sequence[Publication]
) -> Sequence[Publication]:
    """The publications that do not exclude this page instance."""
    if instance is None or all(publication.exclude is None for publication in publications):
        return publications
    return [publication for publication in publications if publication.exclude != instance]
