"""Logs of a run in which everything went well, made up for tests of the checker.

They tell of a hundred seconds: a kill in which replies were lost, a damaged log that begins
anew, a revocation, a publication refused, retries, clients that come and go on three
transports, and a quiet end. No server runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from faults.evidence import tag_of
from faults.logs import ChannelLogs, Logs, Row, digest, owner_of

EPOCHS = (1_700_000_000_000_000, 1_700_000_050_000_000)
KILL = (20.0, 21.0)
DAMAGE = (50.0, 51.0)
REVOKED = 70.0
HEALED = 90.0
END = 98.0
MARKER = "marker"
BOUNDS = {
    "converge": 30.0, "revoke": 2.0, "duplicates": 100, "rss_factor": 1.1,
    "rss_slack": 32 << 20, "fds_slack": 32, "log_per_minute": 10 << 20,
}


class _Stored(NamedTuple):
    at: float
    tried: float
    epoch: int
    offset: int
    id: str

    @property
    def place(self) -> list[Any]:
        return [self.epoch, self.offset, tag_of(self.id)]


@dataclass
class _Channel:
    """A channel while its story is being told."""

    name: str
    published: list[Row] = field(default_factory=list)
    stored: list[_Stored] = field(default_factory=list)

    def store(self, at: float, tried: float, name: str) -> _Stored:
        epoch = EPOCHS[at >= DAMAGE[1]]
        offset = sum(one.epoch == epoch for one in self.stored[-1:])
        offset = self.stored[-1].offset + 1 if offset else 1
        self.stored.append(_Stored(at, tried, epoch, offset, name))
        return self.stored[-1]

    def note(self, kind: str, name: str, at: float, **more: Any) -> None:
        self.published.append({"row": kind, "id": name, **more, "at": round(at, 6)})

    def ack(self, one: _Stored, at: float, dup: bool) -> None:
        self.note("ack", one.id, at, epoch=one.epoch, offset=one.offset, dup=dup)

    def head(self, at: float) -> list[Any]:
        """Where the log ends at this time."""
        epoch = EPOCHS[at >= DAMAGE[1]]
        for one in reversed(self.stored):
            if one.at <= at and one.epoch == epoch:
                return one.place
        return [epoch, 0, "0"]


def _publish(channel: _Channel, times: Sequence[float]) -> None:
    for number, at in enumerate(times):
        name = f"{channel.name}.{number}"
        channel.note("try", name, at, sha=digest(name), sent=at)
        outage = next(((a, b) for a, b in (KILL, DAMAGE) if a - 0.01 <= at < b), None)
        if outage is None:
            one = channel.store(at + 0.002, at, name)
            channel.ack(one, at + 0.004, False)
            if number % 50 == 0:
                channel.note("try", name, at + 0.005, sha=digest(name), sent=at)
                channel.ack(one, at + 0.006, True)
            continue
        channel.note("unknown", name, at + 0.1, why="cut")
        # What reached the log just before the kill is there; the rest was never stored.
        before = outage is KILL and at < KILL[0]
        kept = channel.store(at + 0.002, at, name) if before else None
        again = outage[1] + 0.1 + number * 1e-5
        channel.note("try", name, again, sha=digest(name), sent=at)
        channel.ack(kept or channel.store(again + 0.002, at, name), again + 0.004, kept is not None)
    channel.note("try", "refused", 30.0, sha=digest("refused"), sent=30.0)
    channel.note("nack", "refused", 30.01, status=409, code="id_conflict")
    channel.note("try", MARKER, HEALED + 1, sha=digest(MARKER), sent=HEALED + 1)
    channel.ack(channel.store(HEALED + 1.01, HEALED + 1, MARKER), HEALED + 1.02, False)


def _receive(
    channel: _Channel,
    session: str,
    user: str,
    transport: str,
    online: Sequence[tuple[float, float]],
) -> Iterator[Row]:
    yield {"row": "begin", "session": session, "user": user, "transport": transport, "at": 0.0}
    since: list[Any] | None = None
    for conn, (begin, end) in enumerate(online):
        head = channel.head(begin)
        lost = since is not None and since[0] != head[0]
        start = head if since is None or lost else since
        yield {
            "row": "hello", "session": session, "conn": conn, "at": begin, "since": since,
            "place": start, "sid": f"sid-{session}", "jti": f"jti-{session}", "iat": 1000.0,
        }
        if lost:
            yield {
                "row": "reset", "session": session, "at": begin, "reason": "epoch", "place": start,
            }
        elif since is not None:
            yield {"row": "recovered", "session": session, "at": begin}
        since = start
        for one in channel.stored:
            if one.epoch != start[0] or one.offset <= start[1] or one.at >= end:
                continue
            row = {
                "row": "got", "session": session, "conn": conn, "epoch": one.epoch,
                "offset": one.offset, "tag": tag_of(one.id), "id": one.id, "sha": digest(one.id),
                "at": round(max(begin, one.at) + 0.003, 6),
                "via": "history" if one.tried < begin else "live",
            }
            if owner_of(channel.name):
                row["canary"] = user
            yield row
            since = one.place
        why = "revoked" if end == REVOKED else "cut"
        yield {"row": "gone", "session": session, "at": end, "why": why}
    if online[-1][1] < END:
        yield {"row": "end", "session": session, "at": online[-1][1], "why": "revoked"}


def _read(channel: _Channel) -> Iterator[Row]:
    for at in (KILL[1] + 2, DAMAGE[0] - 1, DAMAGE[1] + 2, END):
        epoch, offset, _ = channel.head(at)
        kept = [one for one in channel.stored if one.epoch == epoch and one.offset <= offset]
        yield {
            "row": "pass", "at": at, "until": at + 0.1, "epoch": epoch, "first": 1, "head": offset,
        }
        for one in kept:
            yield {
                "row": "kept", "epoch": epoch, "offset": one.offset, "id": one.id,
                "sha": digest(one.id),
            }


ALWAYS = ((1.0, KILL[0]), (KILL[1] + 0.5, DAMAGE[0]), (DAMAGE[1] + 0.5, END))
WITH_A_BREAK = ((1.0, KILL[0]), (KILL[1] + 0.6, 35.0), (36.0, DAMAGE[0]), (DAMAGE[1] + 0.6, END))
UNTIL_REVOKED = (*ALWAYS[:2], (DAMAGE[1] + 0.5, REVOKED))

SESSIONS = (
    ("s1", "alice", "sse", ALWAYS),
    ("s2", "alice", "poll", WITH_A_BREAK),
    ("s3", "bob", "stream", ALWAYS),
    ("s4", "bob", "poll", ALWAYS),
    ("s5", "carol", "stream", UNTIL_REVOKED),
)


def _fault(kind: str, t0: float, t1: float, **more: Any) -> Row:
    return {
        "kind": kind, "t0": t0, "t1": t1, "node": "a", "params": {}, "loses": False,
        "channels": None, "holds": False, "errors": False, **more,
    }


def good_logs() -> Logs:
    """Everything went well."""
    channels = {}
    for name, step in (("room:1", 0.03), ("user:alice", 0.5), ("user:bob", 0.7)):
        channel = _Channel(name)
        _publish(channel, [2.0 + step * number for number in range(int(87 / step))])
        owner = owner_of(name)
        received = [
            row
            for session in SESSIONS
            if owner in (None, session[1])
            for row in _receive(channel, *session)
        ]
        read = list(_read(channel))
        channels[name] = ChannelLogs(name, 10_000, channel.published, received, read)
    samples = [
        {
            "row": "sample", "at": float(at), "node": "a", "pid": 1, "rss": 60 << 20, "fds": 40,
            "threads": 26, "cpu": 0.1, "log_bytes": 1000, "answer": 0.001,
        }
        for at in range(1, 98)
    ]
    run = {
        "seed": 1, "broker": "none", "marker": MARKER, "healed": HEALED, "base": 15.0,
        "bounds": BOUNDS, "secrets": ["whsec_secret"],
        "channels": {name: {"keep": 10_000} for name in channels},
    }
    faults = [
        _fault("kill", *KILL),
        _fault("damage", *DAMAGE, loses=True),
        _fault(
            "revoke", REVOKED - 0.01, REVOKED,
            params={"by": "sid", "value": "sid-s5", "before": 2000.0},
        ),
    ]
    return Logs(run, faults, samples, channels)
