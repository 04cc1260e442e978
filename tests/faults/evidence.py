"""What the checker knows while it goes through the logs of one channel.

Imported by the rules and the checker. It holds facts; what they mean is the rules' business.
"""

from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from faults.logs import ChannelLogs, Row, owner_of

ON_THE_WAY = 1.0
"""Seconds that bytes may be under way, and wait for a client, without any fault."""

Place = tuple[int, int]
"""(epoch, offset)."""


@lru_cache(maxsize=100_000)
def tag_of(publication_id: str) -> str:
    """The tag of the position that a publication with this id occupies."""
    return urlsafe_b64encode(sha256(publication_id.encode()).digest())[:6].decode()


class Ack(NamedTuple):
    """An acknowledgement."""

    epoch: int
    offset: int
    dup: bool
    at: float


@dataclass(slots=True)
class Message:
    """What its publisher knows of a publication."""

    shas: set[str]
    """More than one where an id was used again for something else: after a loss, which took the
    memory of ids with it, the second may be the one that is stored."""
    sent: float
    first_try: float
    tries: int = 0
    nacks: int = 0
    acks: list[Ack] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether every single try was answered with 4xx."""
        return self.nacks == self.tries and not self.acks


class Pass(NamedTuple):
    """One reading of the history."""

    at: float
    until: float
    epoch: int
    first: int
    head: int


@dataclass(slots=True)
class Session:
    """What a session has been told of the channel so far."""

    name: str
    user: str
    since: Sequence[Any] | None = None
    """What the connection was opened with, until it is told `recovered` or `reset`."""
    asked: bool = False
    """Whether that answer is still to come."""
    opened: Sequence[Any] | None = None
    """Where the server says that the connection begins."""
    place: Sequence[Any] | None = None
    """Where the next publication must follow: [epoch, offset, tag]. A connection that was
    opened with a cursor moves it only when it says `recovered` or `reset`: if it is cut before,
    its client has been told nothing."""
    last: Place | None = None
    """The furthest it has come."""
    moved_at: float = 0.0
    """When it was last told where to begin. Each loss moves it once; a node may notice the loss
    of a quiet channel late, having lost nothing that anybody waits for."""
    hello_at: float = 0.0
    allowed_until: float = float("inf")
    """When the connection's token has been revoked, and everybody must have heard of it."""
    again: int = 0
    """Publications of this connection that it had before."""
    marked: float | None = None
    ended: bool = False


class Known:
    """All that is known of one channel, and of the run around it."""

    def __init__(self, logs: ChannelLogs, run: Row, faults: Sequence[Row]) -> None:
        self.name = logs.name
        self.keep = logs.keep
        self.run = run
        self.owner = owner_of(logs.name)
        self.losses = [
            fault
            for fault in faults
            if fault["loses"] and (fault["channels"] is None or logs.name in fault["channels"])
        ]
        self.holds = sorted(
            (fault for fault in faults if fault["holds"]), key=lambda fault: float(fault["t0"])
        )
        self.revocations = [fault for fault in faults if fault["kind"] == "revoke"]
        self.messages: dict[str, Message] = {}
        self.sessions: dict[str, Session] = {}
        self.places: dict[Place, str] = {}
        self.kept: dict[Place, tuple[str, str]] = {}
        self.passes: list[Pass] = []
        self.clashes: list[str] = []
        self.counts: Counter[str] = Counter()
        self._take_published(logs)
        self._take_read(logs)

    def _take_published(self, logs: ChannelLogs) -> None:
        # What is published again may be so by another writer, whose log is another file.
        for row in sorted(logs.published, key=lambda row: float(row["at"])):
            kind, name, at = row["row"], row["id"], row["at"]
            if kind == "try":
                message = self.messages.get(name)
                if message is None:
                    message = self.messages[name] = Message(set(), row["sent"], at)
                message.shas.add(row["sha"])
                message.tries += 1
                continue
            message = self.messages[name]
            if kind == "ack":
                ack = Ack(row["epoch"], row["offset"], row["dup"], at)
                if not message.acks:
                    self.counts["acked"] += 1
                message.acks.append(ack)
                self.occupy((ack.epoch, ack.offset), name, "acknowledged")
            elif kind == "nack":
                message.nacks += 1

    def _take_read(self, logs: ChannelLogs) -> None:
        for row in logs.read:
            if row["row"] == "pass":
                self.passes.append(
                    Pass(row["at"], row["until"], row["epoch"], row["first"], row["head"])
                )
                continue
            place = (row["epoch"], row["offset"])
            self.kept[place] = (row["id"], row["sha"])
            self.occupy(place, row["id"], "read")
        self.passes.sort()

    def occupy(self, place: Place, name: str, how: str) -> None:
        """Note who is at a place; a second one is a clash."""
        found = self.places.setdefault(place, name)
        if found != name:
            self.clashes.append(f"{place} is {found} and, {how}, {name}")

    def allowed_until(self, user: str, token: Row) -> float:
        """When a token must have stopped being good because it has been revoked."""
        moments = [
            fault["t1"] for fault in self.revocations if _covers(fault["params"], user, token)
        ]
        if not moments:
            return float("inf")
        bound: float = self.run["bounds"]["revoke"]
        until = min(moments) + bound
        # What was under way in a network that stalls arrives when it does so no more, and a
        # node that cannot reach the log hears of it when it can again.
        for hold in self.holds:
            if hold["t0"] <= until and hold["t1"] + bound > until:
                until = hold["t1"] + bound
        return float(until)

    def lost_since(self, begin: float, end: float) -> bool:
        """Whether a fault that destroys may have come after what a session was told at `begin`.

        What is received late was sent early: a fault that held bytes up moves the beginning back.
        """
        for hold in reversed(self.holds):
            if hold["t0"] <= begin and hold["t1"] + ON_THE_WAY >= begin:
                begin = hold["t0"]
        return self.lost_between(begin - ON_THE_WAY, end)

    def lost_between(self, begin: float, end: float) -> bool:
        """Whether a fault that may destroy this channel touched this time."""
        return any(fault["t0"] <= end and fault["t1"] >= begin for fault in self.losses)


def _covers(params: Row, user: str, token: Row) -> bool:
    if params["by"] == "user":
        return bool(params["value"] == user and token["iat"] <= params["before"])
    return bool(params["value"] == token[params["by"]])
