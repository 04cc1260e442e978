"""Fourteen lies. Each changes good logs as a server with that defect would have left them.

A mutant works on made-up logs (`faults.sample`) and on those of a real run alike, as long as
what it needs happened there. The checker has to name the rule that is meant to catch it; that
others break too is no fault.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from faults.logs import ChannelLogs, Logs, Row, owner_of


class NothingToChange(Exception):
    """Raised if the logs hold nothing that this mutant could lie about."""


T = TypeVar("T")
Change = Callable[[Logs, Random], None]


class Mutant(NamedTuple):
    """A lie and the rule that has to notice it."""

    name: str
    rule: str
    change: Change


def _received(logs: ChannelLogs) -> list[Row]:
    assert isinstance(logs.received, list)
    return logs.received


def _neighbours(logs: Logs) -> Iterator[tuple[ChannelLogs, int, int]]:
    """Places of two publications in a row, on one connection of one session."""
    for channel in logs.channels.values():
        latest: dict[str, int] = {}
        for index, row in enumerate(_received(channel)):
            before = latest.get(row["session"])
            if row["row"] == "got" and before is not None:
                yield channel, before, index
            if row["row"] == "got":
                latest[row["session"]] = index
            else:
                latest.pop(row["session"], None)


def _some(found: Sequence[T], chance: Random) -> T:
    if not found:
        raise NothingToChange
    return chance.choice(found)


def _drop(logs: Logs, chance: Random) -> None:
    pairs = list(_neighbours(logs))
    for _ in range(max(1, len(pairs) // 10_000)):
        channel, first, _second = _some(pairs, chance)
        _received(channel)[first] = {**_received(channel)[first], "row": "lost"}


def _swap(logs: Logs, chance: Random) -> None:
    channel, first, second = _some(list(_neighbours(logs)), chance)
    rows = _received(channel)
    one, other = rows[first], rows[second]
    rows[first], rows[second] = {**other, "at": one["at"]}, {**one, "at": other["at"]}


def _duplicate(logs: Logs, chance: Random) -> None:
    channel, _first, second = _some(list(_neighbours(logs)), chance)
    _received(channel).insert(second + 1, dict(_received(channel)[second]))


def _acks(logs: Logs) -> list[tuple[ChannelLogs, Row]]:
    """First acknowledgements with another right before them, at which no cursor stands."""
    found = []
    for channel in logs.channels.values():
        if owner_of(channel.name):
            continue
        acked = {
            (row["epoch"], row["offset"]): row
            for row in channel.published
            if row["row"] == "ack" and not row["dup"]
        }
        stood = {
            tuple(place[:2])
            for row in channel.received
            for place in (row.get("place"), row.get("since"))
            if place
        }
        # What was kept only for a while may never have been read, and is not promised then.
        read = {
            (row["epoch"], row["offset"]) for row in channel.read if row["row"] == "kept"
        }
        found += [
            (channel, row)
            for place, row in acked.items()
            if place not in stood and place in read and (place[0], place[1] - 1) in acked
            and (place[0], place[1] + 1) in read
        ]
    return found


def _reuse_offset(logs: Logs, chance: Random) -> None:
    _channel, ack = _some(_acks(logs), chance)
    ack["offset"] -= 1


def _shift(channel: ChannelLogs, gone: Row) -> None:
    """Everything behind a publication moves up into its place."""
    epoch, offset = gone["epoch"], gone["offset"]
    for rows in (channel.published, channel.received, channel.read):
        for row in rows:
            if row.get("epoch") == epoch:
                for key in ("offset", "head", "first"):
                    if row.get(key, 0) > offset:
                        row[key] -= 1
            for key in ("place", "since"):
                place = row.get(key)
                if place and place[0] == epoch and place[1] > offset:
                    row[key] = [epoch, place[1] - 1, place[2]]


def _without(rows: object, name: str, kinds: Sequence[str]) -> list[Row]:
    assert isinstance(rows, list)
    return [row for row in rows if not (row["row"] in kinds and row.get("id") == name)]


def _ack_before_commit(logs: Logs, chance: Random) -> None:
    channel, ack = _some(_acks(logs), chance)
    channel.read = _without(channel.read, ack["id"], ("kept",))
    channel.received = _without(channel.received, ack["id"], ("got",))
    _shift(channel, ack)


def _ack_rolled_back(logs: Logs, chance: Random) -> None:
    channel, ack = _some(_acks(logs), chance)
    channel.read = _without(channel.read, ack["id"], ("kept",))
    _shift(channel, ack)


def _skip_tail(logs: Logs, chance: Random) -> None:
    found = []
    for channel, first, second in _neighbours(logs):
        rows = _received(channel)
        if rows[first]["via"] == "history" and rows[second]["via"] == "live":
            found.append((channel, first))
    channel, last = _some(found, chance)
    _received(channel)[last]["row"] = "lost"


def _wrong_user(logs: Logs, chance: Random) -> None:
    private = [c for c in logs.channels.values() if owner_of(c.name) and _received(c)]
    channel = _some(private, chance)
    user = _some(
        sorted(
            owner
            for other in private
            if (owner := owner_of(other.name)) and owner != owner_of(channel.name)
        ),
        chance,
    )
    stray = [{**row, "session": "stray"} for row in _received(channel) if row["row"] == "got"][:1]
    if not stray:
        raise NothingToChange
    begin = {"row": "begin", "session": "stray", "user": user, "transport": "sse", "at": 0.0}
    end = {"row": "end", "session": "stray", "at": stray[0]["at"], "why": "over"}
    _received(channel).extend([begin, *stray, end])


def _ignore_revoke(logs: Logs, chance: Random) -> None:
    found = []
    for channel in logs.channels.values():
        by_session: dict[str, list[Row]] = defaultdict(list)
        for row in _received(channel):
            by_session[row["session"]].append(row)
        for rows in by_session.values():
            if rows[-1]["row"] == "end" and rows[-1]["why"] == "revoked":
                got = [row for row in rows if row["row"] == "got"]
                if got:
                    found.append((channel, got[-1]))
    channel, last = _some(found, chance)
    # So late that no network that stalled can excuse it.
    at = max(row["at"] for row in _received(channel)) + 10 * logs.run["bounds"]["revoke"]
    _received(channel).append({**last, "offset": last["offset"] + 1, "at": at})


def _keep_epoch(logs: Logs, chance: Random) -> None:
    found = []
    for channel in logs.channels.values():
        epochs = sorted({row["epoch"] for row in channel.published if row["row"] == "ack"})
        resets = [row for row in _received(channel) if row["row"] == "reset"]
        if len(epochs) > 1 and any(row["reason"] == "epoch" for row in resets):
            found.append((channel, epochs))
    channel, (old, new, *_) = _some(found, chance)
    for rows in (channel.published, channel.received, channel.read):
        for row in rows:
            if row.get("epoch") == new:
                row["epoch"] = old
            for key in ("place", "since"):
                if row.get(key) and row[key][0] == new:
                    row[key] = [old, *row[key][1:]]
            if row["row"] == "reset" and row["reason"] == "epoch":
                row["row"] = "recovered"


def _forge_via(logs: Logs, chance: Random) -> None:
    found = [
        row
        for channel in logs.channels.values()
        for row in _received(channel)
        if row["row"] == "got" and row["via"] == "live"
    ]
    _some(found, chance)["via"] = "history"


def _truncate(logs: Logs, chance: Random) -> None:
    channel, first, _second = _some(list(_neighbours(logs)), chance)
    _received(channel)[first]["sha"] = "0" * 16


def _overlapping_polls(logs: Logs, chance: Random) -> None:
    polls = {
        row["session"]
        for channel in logs.channels.values()
        for row in _received(channel)
        if row["row"] == "begin" and row["transport"] == "poll"
    }
    found = [
        (channel, first, second)
        for channel, first, second in _neighbours(logs)
        if (row := _received(channel)[first])["session"] in polls and row["offset"] > 1
    ]
    channel, first, second = _some(found, chance)
    rows = _received(channel)
    lost, at = rows[first], rows[second]["at"]
    hello = next(
        row for row in reversed(rows[:first])
        if row["row"] == "hello" and row["session"] == lost["session"]
    )
    before = next(
        (
            row for row in reversed(rows[:first])
            if row["row"] == "got" and row["session"] == lost["session"]
        ),
        None,
    )
    place = hello["place"] if before is None else [before[k] for k in ("epoch", "offset", "tag")]
    # The answer to the first poll went nowhere, and the second was answered behind it.
    rows[first] = {**hello, "at": at, "since": place, "place": place}
    rows.insert(first + 1, {"row": "recovered", "session": lost["session"], "at": at})


def _silent_reset(logs: Logs, chance: Random) -> None:
    found = [
        (channel, row)
        for channel in logs.channels.values()
        for row in _received(channel)
        if row["row"] == "reset"
        and any(
            got["row"] == "got" and got["session"] == row["session"] and got["at"] > row["at"]
            for got in _received(channel)
        )
    ]
    channel, reset = _some(found, chance)
    _received(channel).remove(reset)


MUTANTS = (
    Mutant("drop 1 of 10,000", "no_gap", _drop),
    Mutant("swap two", "order", _swap),
    Mutant("duplicate in live", "order", _duplicate),
    Mutant("reuse an offset", "order", _reuse_offset),
    Mutant("acknowledge before the commit", "durable", _ack_before_commit),
    Mutant("acknowledge, then roll back", "durable", _ack_rolled_back),
    Mutant("skip the tail of the history", "no_gap", _skip_tail),
    Mutant("deliver to the wrong user", "isolation", _wrong_user),
    Mutant("ignore a revocation", "revocation", _ignore_revoke),
    Mutant("keep the epoch after a loss", "order", _keep_epoch),
    Mutant("forge live or history", "no_phantom", _forge_via),
    Mutant("truncate a payload", "no_phantom", _truncate),
    Mutant("lose between overlapping polls", "no_gap", _overlapping_polls),
    Mutant("reset in silence", "honest_reset", _silent_reset),
)
