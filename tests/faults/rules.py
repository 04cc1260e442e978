"""The ten rules. Each is a few small functions under one name, in the table `RULES`.

A rule may look at three moments: each row a session received (`seen`), the end of a channel
(`ended`), and the end of the run (`over`). It yields one sentence for each breach.

To add a rule: its functions, one line in `RULES`, one mutant in `faults.mutants` that only it
is meant to catch.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

from faults.evidence import Ack, Known, Place, Session, tag_of
from faults.logs import CANARY, Logs, Row

ERROR_GRACE = 5.0
"""Seconds after a fault in which what it broke may still be logged."""


# 1 durable


def durable(known: Known) -> Iterator[str]:
    """Every acknowledged publication is read back at its place, while it is to be kept."""
    starts = [one.at for one in known.passes]
    for name, message in known.messages.items():
        for ack in message.acks:
            problem = _not_durable(known, starts, name, ack)
            if problem is not None:
                yield f"{name} acknowledged at {(ack.epoch, ack.offset)}: {problem}"


def _not_durable(known: Known, starts: list[float], name: str, ack: Ack) -> str | None:
    covered = False
    for one in known.passes[bisect_left(starts, ack.at) :]:
        if one.epoch != ack.epoch:
            if covered:
                break
            if one.epoch > ack.epoch and known.lost_between(ack.at, one.until):
                known.counts["lost, announced"] += 1
                return None
            return f"the log read at {one.at:.1f} s is another"
        if one.head < ack.offset:
            return f"the log read at {one.at:.1f} s ends at {one.head}"
        covered = covered or one.first <= ack.offset
    if not covered:
        last = known.passes[-1] if known.passes else None
        if last is not None and ack.offset <= last.head - known.keep:
            known.counts["not read in time"] += 1
            return None
        if last is not None and known.lost_between(ack.at, last.until):
            known.counts["lost, announced"] += 1  # what is damaged counts as not kept any more
            return None
        return "never read back"
    found = known.kept.get((ack.epoch, ack.offset))
    if found is None:
        return "the log has a hole there"
    return None if found[0] == name else f"the log has {found[0]} there"


# 2 no gap


def no_gap_hello(row: Row, session: Session, known: Known) -> Iterator[str]:
    """A connection is opened with the cursor of the one before."""
    since = row["since"]
    if since is None:
        if session.last is not None:
            yield "came back without its cursor"
    elif session.place is not None and list(since[:2]) != list(session.place[:2]):
        yield f"came back with {since}, but stood at {session.place}"


def no_gap_recovered(row: Row, session: Session, known: Known) -> Iterator[str]:
    """`recovered` means: from the cursor on."""
    since, opened = session.since, session.opened
    if since is None or opened is None:
        yield "recovered without a cursor"
    elif list(since) != list(opened):
        yield f"recovered from {opened}, but the cursor was {since}"


def no_gap_got(row: Row, session: Session, known: Known) -> Iterator[str]:
    """Offsets count up by one inside an epoch."""
    place = session.place
    if place is None:
        yield f"{row['id']} came before any hello"
    elif row["epoch"] == place[0] and row["offset"] > place[1] + 1:
        yield f"{row['offset']} follows {place[1]}: {row['offset'] - place[1] - 1} are missing"


# 3 order


def order_got(row: Row, session: Session, known: Known) -> Iterator[str]:
    """Offsets rise on a connection, and a place is the same publication for everybody."""
    place = session.place
    if place is not None and row["epoch"] == place[0] and row["offset"] <= place[1]:
        yield f"{row['offset']} after {place[1]} on one connection"
    offset = (row["epoch"], row["offset"])
    found = known.places.setdefault(offset, row["id"])
    if found != row["id"]:
        yield f"{offset} is {row['id']} here and {found} elsewhere"


def order(known: Known) -> Iterator[str]:
    """A place is the same publication for publishers and readers of the history."""
    yield from known.clashes


# 4 unique


def unique(known: Known) -> Iterator[str]:
    """An id has one place, and every retry is told the same."""
    where: dict[str, list[Place]] = defaultdict(list)
    for place, name in known.places.items():
        where[name].append(place)
    for name, places in where.items():
        # A log that was lost took the memory of its ids with it.
        epochs = {epoch for epoch, _ in places}
        if len(places) > len(epochs) or (len(epochs) > 1 and not known.losses):
            yield f"{name} stands at {sorted(places)}"
    for name, message in known.messages.items():
        told = {(ack.epoch, ack.offset) for ack in message.acks}
        if len(told) > 1 and not known.losses:
            yield f"{name} was acknowledged at {sorted(told)}"
        for earlier, later in zip(message.acks, message.acks[1:], strict=False):
            if earlier.epoch == later.epoch and not later.dup:
                yield f"{name} was accepted twice as new"


def unique_got(row: Row, session: Session, known: Known) -> Iterator[str]:
    """What is sent again after a reconnect is little; the client drops it."""
    place = (row["epoch"], row["offset"])
    if session.last is not None and place <= session.last:
        session.again += 1
        known.counts["raw duplicates"] += 1
        if session.again > known.run["bounds"]["duplicates"]:
            yield f"{session.again} duplicates on one connection"


# 5 no phantom


def no_phantom_got(row: Row, session: Session, known: Known) -> Iterator[str]:
    """What arrives is what somebody published, unaltered, and came the way it says."""
    name = row["id"]
    message = known.messages.get(name)
    if message is None:
        yield f"{name} was published by nobody"
        return
    kept = known.kept.get((row["epoch"], row["offset"]))
    if row["sha"] not in message.shas or (kept is not None and kept[1] != row["sha"]):
        yield f"{name} arrived altered"
    if message.refused:
        yield f"{name} was refused and arrived"
    if row["tag"] is not None and row["tag"] != tag_of(name):
        yield f"{name} came with the tag {row['tag']}"
    if row["at"] < message.first_try:
        yield f"{name} arrived before it was published"
    via = "history" if message.sent < session.hello_at else "live"
    if row["via"] != via:
        yield f"{name} says {row['via']} and is {via}"


def no_phantom(known: Known) -> Iterator[str]:
    """The same of the log itself."""
    for place, (name, sha) in known.kept.items():
        message = known.messages.get(name)
        if message is None:
            yield f"{name} at {place} was published by nobody"
        elif sha not in message.shas:
            yield f"{name} at {place} is altered"
        elif message.refused:
            yield f"{name} at {place} was refused"


# 6 isolation


def isolation_got(row: Row, session: Session, known: Known) -> Iterator[str]:
    """A personal channel reaches its owner; a secret is seen by nobody else."""
    if known.owner is not None and known.owner != session.user:
        yield f"{session.user} received {row['id']} of {known.owner}"
    if row.get("canary", session.user) != session.user:
        yield f"{session.user} saw the secret of {row['canary']}"


def isolation_hello(row: Row, session: Session, known: Known) -> Iterator[str]:
    """Nobody is let into another's personal channel."""
    if known.owner is not None and known.owner != session.user:
        yield f"{session.user} was let into the channel of {known.owner}"


def isolation(logs: Logs) -> Iterator[str]:
    """No secret stands in a log of the server or in an answer to a stranger."""
    forbidden = [CANARY, *logs.run["secrets"]]
    for row in logs.server:
        if row["row"] == "leak":
            yield f"{row['where']} holds {row['what']}"
        elif row["row"] == "log":
            for secret in forbidden:
                if secret in row["line"]:
                    yield f"the server's log holds {secret[:12]}…"


# 7 revocation


def revocation_seen(row: Row, session: Session, known: Known) -> Iterator[str]:
    """Two seconds after a revocation is acknowledged, its tokens are good for nothing."""
    late = row["at"] - session.allowed_until
    if late > 0:
        yield f"{row['row']} {late:.1f} s after the last moment of its token"


# 8 honest reset


def honest_reset_got(row: Row, session: Session, known: Known) -> Iterator[str]:
    """Nobody is moved to another place without being told."""
    place = session.place
    if session.asked:
        yield f"{row['id']} came with neither recovered nor reset after a cursor"
    if place is not None and row["epoch"] != place[0]:
        yield f"{row['id']} is of epoch {row['epoch']} after {place[0]} without a reset"


def honest_reset(row: Row, session: Session, known: Known) -> Iterator[str]:
    """A reset has a cause: a fault that destroys, or a client away beyond the retention."""
    reason, place = row["reason"], row["place"]
    known.counts[f"resets: {reason}"] += 1
    if known.lost_since(session.moved_at, row["at"]):
        return
    since = session.since or session.place
    if (
        reason == "trimmed"
        and since is not None
        and since[0] == place[0]
        and place[1] - since[1] >= known.keep
    ):
        known.counts["resets beyond retention"] += 1
        return
    yield f"reset ({reason}) to {place} from {since} at {row['at']:.1f} s without a cause"


# 9 liveness


def liveness(known: Known) -> Iterator[str]:
    """Everybody has the last publication soon after the last fault."""
    limit = known.run["healed"] + known.run["bounds"]["converge"]
    for session in known.sessions.values():
        if session.ended:
            continue
        known.counts["sessions at the end"] += 1
        if session.marked is None:
            yield f"{session.name} ({session.user}) never received the last publication"
        elif session.marked > limit:
            late = session.marked - limit
            yield f"{session.name} received the last publication {late:.1f} s late"


# 10 resources


def resources(logs: Logs) -> Iterator[str]:
    """The server is at the end what it was when warm, and logs errors only where it is hurt."""
    bounds, base, healed = logs.run["bounds"], logs.run["base"], logs.run["healed"]
    before: dict[str, list[Row]] = defaultdict(list)
    after: dict[str, list[Row]] = defaultdict(list)
    for row in logs.server:
        if row["row"] == "log" and row["level"] == "ERROR":
            if not any(
                fault["errors"] and fault["t0"] - 1 <= row["at"] <= fault["t1"] + ERROR_GRACE
                for fault in logs.faults
            ):
                yield f"{row['node']} at {row['at']:.1f} s: {row['line']}"
        elif row["row"] == "sample":
            if row["at"] <= base:
                before[row["node"]].append(row)
            elif row["at"] > healed:
                after[row["node"]].append(row)
    for node, rows in after.items():
        for what, factor, slack in (
            ("rss", bounds["rss_factor"], bounds["rss_slack"]),
            ("fds", 1.1, bounds["fds_slack"]),
        ):
            if not before[node]:
                continue
            # Warm is what it was at most: it may just have been started again.
            start = max(row[what] for row in before[node])
            end = median(row[what] for row in rows[-5:])
            if end > start * factor + slack:
                yield f"{node}: {what} was {start:,.0f}, is {end:,.0f}"
        minutes = max(rows[-1]["at"], 60.0) / 60
        if rows[-1]["log_bytes"] > bounds["log_per_minute"] * minutes:
            yield f"{node} wrote {rows[-1]['log_bytes']:,} bytes of log in {minutes:.1f} min"


# The table

Seen = Callable[[Row, Session, Known], Iterator[str]]


class Rule(NamedTuple):
    """One promise, and where it can be seen to be broken."""

    name: str
    says: str
    seen: dict[str, tuple[Seen, ...]]
    """By the kind of the row."""
    ended: Callable[[Known], Iterator[str]] | None = None
    over: Callable[[Logs], Iterator[str]] | None = None


RULES = (
    Rule("durable", "what was acknowledged is in the log, at its place", {}, durable),
    Rule(
        "no_gap",
        "nothing is missing between two publications of a session",
        {"hello": (no_gap_hello,), "recovered": (no_gap_recovered,), "got": (no_gap_got,)},
    ),
    Rule("order", "one order per channel, the same for everybody", {"got": (order_got,)}, order),
    Rule("unique", "an id has one place, whoever asks", {"got": (unique_got,)}, unique),
    Rule(
        "no_phantom",
        "nothing arrives that was not published, or altered",
        {"got": (no_phantom_got,)},
        no_phantom,
    ),
    Rule(
        "isolation",
        "nobody sees what is another's",
        {"got": (isolation_got,), "hello": (isolation_hello,)},
        over=isolation,
    ),
    Rule(
        "revocation",
        "a revoked token receives nothing two seconds later",
        {"got": (revocation_seen,), "hello": (revocation_seen,)},
    ),
    Rule(
        "honest_reset",
        "a loss is announced, and only a loss",
        {"got": (honest_reset_got,), "reset": (honest_reset,)},
    ),
    Rule("liveness", "everybody is up to date after the last fault", {}, liveness),
    Rule("resources", "the server ends as it began", {}, over=resources),
)
