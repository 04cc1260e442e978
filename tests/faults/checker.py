"""Judges the logs of a run by the ten rules of `faults.rules`.

Pure and offline: it reads the four logs (`faults.logs`) and nothing else, one channel at a
time and row by row, so that ten million deliveries need the memory of one channel's
publications. It shares no code with the server; what a tag is, it takes from
`docs/protocol.rst`.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from faults.evidence import Known, Session, tag_of
from faults.logs import ChannelLogs, Logs, Row, load
from faults.rules import RULES, Seen

SHOWN = 20
"""Breaches of one rule that are kept in words; all are counted."""


@dataclass(slots=True)
class Verdict:
    """What the checker found."""

    breaches: dict[str, int] = field(default_factory=lambda: dict.fromkeys(
        (rule.name for rule in RULES), 0
    ))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        """Whether every promise held."""
        return not any(self.breaches.values())

    @property
    def broken(self) -> set[str]:
        """The rules that were broken."""
        return {name for name, count in self.breaches.items() if count}

    def note(self, rule: str, sentence: str) -> None:
        """Count a breach, and keep the first ones in words."""
        self.breaches[rule] += 1
        if len(self.examples[rule]) < SHOWN:
            self.examples[rule].append(sentence)

    def add(self, other: "Verdict") -> None:
        """Take in the verdict on another channel."""
        for rule, count in other.breaches.items():
            self.breaches[rule] += count
            self.examples[rule] += other.examples.get(rule, [])
            del self.examples[rule][SHOWN:]
        self.counts.update(other.counts)


def check_channel(logs: ChannelLogs, run: Row, faults: Sequence[Row]) -> Verdict:
    """Go through the rows of one channel, in the order in which each session received them."""
    verdict = Verdict()
    known = Known(logs, run, faults)
    seen: dict[str, list[tuple[str, Seen]]] = defaultdict(list)
    for rule in RULES:
        for kind, functions in rule.seen.items():
            seen[kind] += [(rule.name, function) for function in functions]
    for row in logs.received:
        session = _session_of(row, known)
        if row["row"] == "hello":
            session.since, session.opened = row["since"], row["place"]
            session.allowed_until = known.allowed_until(session.user, row)
        for name, function in seen.get(row["row"], ()):
            for sentence in function(row, session, known):
                verdict.note(name, f"{known.name} {session.name}: {sentence}")
        _follow(row, session, known)
    for rule in RULES:
        for sentence in rule.ended(known) if rule.ended else ():
            verdict.note(rule.name, f"{known.name}: {sentence}")
    verdict.counts.update(known.counts)
    verdict.counts["sessions"] += len(known.sessions)
    verdict.counts["published"] += len(known.messages)
    return verdict


def _session_of(row: Row, known: Known) -> Session:
    session = known.sessions.get(row["session"])
    if session is None:
        session = known.sessions[row["session"]] = Session(row["session"], row["user"])
        session.moved_at = row["at"]
    return session


def _follow(row: Row, session: Session, known: Known) -> None:
    """Go where the row takes the session."""
    kind = row["row"]
    if kind == "got":
        known.counts["deliveries"] += 1
        place = (row["epoch"], row["offset"])
        session.place = [*place, row["tag"]]
        session.last = max(session.last or place, place)
        if row["id"] == known.run["marker"] and session.marked is None:
            session.marked = row["at"]
    elif kind == "hello":
        known.counts["connections"] += 1
        session.asked = row["since"] is not None
        session.hello_at, session.again = row["at"], 0
        if not session.asked:
            _begin_at(row, session, known)
    elif kind == "recovered":
        session.place, session.since = session.opened, None
        session.asked = False
    elif kind == "reset":
        session.asked, session.since = False, None
        session.last = (row["place"][0], row["place"][1])
        _begin_at(row, session, known)
    elif kind == "end":
        session.ended = True


def _begin_at(row: Row, session: Session, known: Known) -> None:
    """Take the server's word for where the channel stands."""
    session.place, session.moved_at = row["place"], row["at"]
    # Whoever begins behind the last publication has nothing to wait for.
    if row["place"][2] == tag_of(known.run["marker"]) and session.marked is None:
        session.marked = row["at"]


def check(logs: Logs) -> Verdict:
    """The verdict on a whole run."""
    verdict = Verdict()
    for channel in logs.channels.values():
        verdict.add(check_channel(channel, logs.run, logs.faults))
    _check_run(logs, verdict)
    return verdict


def check_folder(folder: Path, processes: int = 2) -> Verdict:
    """The verdict on the logs in a folder, several channels at a time."""
    logs = load(folder)
    verdict = Verdict()
    judge = partial(check_channel, run=logs.run, faults=logs.faults)
    with ProcessPoolExecutor(processes) as pool:
        for one in pool.map(judge, logs.channels.values()):
            verdict.add(one)
    _check_run(logs, verdict)
    return verdict


def _check_run(logs: Logs, verdict: Verdict) -> None:
    for rule in RULES:
        for sentence in rule.over(logs) if rule.over else ():
            verdict.note(rule.name, sentence)
    kinds = Counter(fault["kind"] for fault in logs.faults)
    verdict.counts["faults"] = sum(kinds.values())
    verdict.counts["kinds of faults"] = len(kinds)


def rule_of_three(trials: int) -> float:
    """With 95 % confidence the rate is below this if none of so many trials failed."""
    return 3 / trials if trials else 1.0


def statistics(verdict: Verdict) -> str:
    """What the figures prove, and what they do not."""
    acked, faults = verdict.counts["acked"], verdict.counts["faults"]
    return (
        f"0 of {acked:,} means fewer than {rule_of_three(acked):.1e} of all with 95 % confidence;"
        f" 0 of {faults:,} faults means less than {rule_of_three(faults):.2%} of faults. Both for"
        " these kinds of faults on this machine only."
    )


def dump(verdict: Verdict) -> str:
    """The verdict as JSON."""
    return json.dumps(
        {
            "clean": verdict.clean,
            "breaches": verdict.breaches,
            "examples": verdict.examples,
            "counts": dict(sorted(verdict.counts.items())),
        },
        indent=1,
    )
