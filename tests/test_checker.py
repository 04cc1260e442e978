"""The checker: it passes what is good, and names the rule that a lie breaks."""

import json
from pathlib import Path
from random import Random

import pytest
from faults.checker import check, check_folder, rule_of_three, statistics
from faults.logs import Logs, dump_rows, file_part
from faults.mutants import MUTANTS, Mutant
from faults.rules import RULES
from faults.sample import good_logs

SEEDS = range(3)


@pytest.fixture(scope="module")
def good() -> Logs:
    """Logs in which everything went well."""
    return good_logs()


def test_good_logs_pass(good: Logs) -> None:
    verdict = check(good)
    assert verdict.clean, verdict.examples
    # It is not good because nothing happened.
    assert verdict.counts["deliveries"] > 10_000
    assert verdict.counts["lost, announced"] > 0
    assert verdict.counts["resets: epoch"] > 5
    assert verdict.counts["sessions at the end"] > 5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_lie_is_caught_by_the_rule_meant_for_it(good: Logs, mutant: Mutant, seed: int) -> None:
    logs = good.in_memory()
    mutant.change(logs, Random(seed))
    verdict = check(logs)
    assert verdict.breaches[mutant.rule], (mutant, verdict.breaches)
    assert verdict.examples[mutant.rule]


def test_there_are_fourteen_lies_and_ten_rules() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == 14
    assert len({rule.name for rule in RULES}) == 10


def write(logs: Logs, folder: Path) -> None:
    """The logs as the rig leaves them."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(logs.run))
    dump_rows(folder / "faults.jsonl", logs.faults)
    dump_rows(folder / "server.jsonl", logs.server)
    for name, channel in logs.channels.items():
        part = file_part(name)
        dump_rows(folder / "published" / f"0-{part}.jsonl", channel.published)
        dump_rows(folder / "received" / f"0-{part}.jsonl", channel.received)
        dump_rows(folder / "read" / f"{part}.jsonl", channel.read)


def test_a_folder_is_judged_like_what_is_in_memory(good: Logs, tmp_path: Path) -> None:
    write(good, tmp_path)
    assert check_folder(tmp_path).counts == check(good).counts
    lie = good.in_memory()
    MUTANTS[0].change(lie, Random(1))
    write(lie, tmp_path / "lie")
    assert check_folder(tmp_path / "lie").broken == {"no_gap"}


# Rules that no mutant is for.


def test_an_id_that_was_stored_twice(good: Logs) -> None:
    logs = good.in_memory()
    logs.faults = [fault for fault in logs.faults if not fault["loses"]]
    channel = logs.channels["user:alice"]
    rows = [row for row in channel.published if row["row"] == "ack" and row["dup"]]
    rows[0]["offset"] += 1
    assert "unique" in check(logs).broken


def test_a_session_that_never_came_back(good: Logs) -> None:
    logs = good.in_memory()
    channel = logs.channels["room:1"]
    channel.received = [
        row for row in channel.received if not (row["session"] == "s3" and row["at"] > 80)
    ]
    assert check(logs).broken == {"liveness"}


def test_a_session_that_came_back_late(good: Logs) -> None:
    logs = good.in_memory()
    for row in logs.channels["room:1"].received:
        if row["row"] == "got" and row["session"] == "s3" and row["id"] == "marker":
            row["at"] += 60
    assert check(logs).broken == {"liveness"}


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"row": "leak", "at": 9.0, "where": "a 403 answer", "what": "canary-bob"}, "isolation"),
        (
            {"row": "log", "at": 9.0, "node": "a", "level": "INFO", "line": "key whsec_secret"},
            "isolation",
        ),
        (
            {"row": "log", "at": 9.0, "node": "a", "level": "ERROR", "line": "event=x"},
            "resources",
        ),
    ],
)
def test_what_may_not_stand_in_the_servers_log(
    good: Logs, row: dict[str, object], rule: str
) -> None:
    logs = good.in_memory()
    logs.server = [*logs.server, row]
    assert check(logs).broken == {rule}


@pytest.mark.parametrize("what", ["rss", "fds", "log_bytes"])
def test_a_server_that_grew(good: Logs, what: str) -> None:
    logs = good.in_memory()
    for row in logs.server:
        if row["at"] > 90:
            row[what] = row[what] * 3 + (200 << 20)
    assert check(logs).broken == {"resources"}


def test_a_reset_without_a_cause(good: Logs) -> None:
    logs = good.in_memory()
    logs.faults = [fault for fault in logs.faults if not fault["loses"]]
    assert {"honest_reset", "durable", "unique"} >= check(logs).broken >= {"honest_reset"}


def test_a_client_away_beyond_the_retention_is_reset_with_reason(good: Logs) -> None:
    logs = good.in_memory()
    channel = logs.channels["room:1"]
    channel.keep = 20
    recovered = next(
        index
        for index, row in enumerate(channel.received)
        if row["row"] == "recovered" and row["session"] == "s2" and row["at"] == 36.0
    )
    rows = list(channel.received)
    missed = [
        row for row in rows
        if row["row"] == "got" and row["session"] == "s2" and row["at"] == 36.003
    ]
    assert len(missed) > 20
    place = [missed[-1][key] for key in ("epoch", "offset", "tag")]
    rows[recovered] = {**rows[recovered], "row": "reset", "reason": "trimmed", "place": place}
    channel.received = [row for row in rows if row not in missed]
    assert check(logs).clean
    channel.keep = 1000
    assert check(logs).broken == {"honest_reset"}


def test_a_cursor_that_moved_before_the_reset_was_said(good: Logs) -> None:
    # hello says the new place, the connection is cut before the reset, and the client comes
    # back with the new place: it has skipped what lies between without being told.
    logs = good.in_memory()
    channel = logs.channels["room:1"]
    rows = list(channel.received)
    reset = next(row for row in rows if row["row"] == "reset" and row["session"] == "s1")
    hello = next(
        row for row in rows
        if row["row"] == "hello" and row["session"] == "s1" and row["at"] == reset["at"]
    )
    index = rows.index(reset)
    rows[index] = {**hello, "since": reset["place"], "place": reset["place"]}
    rows.insert(index + 1, {"row": "recovered", "session": "s1", "at": reset["at"]})
    channel.received = rows
    assert "no_gap" in check(logs).broken


def test_honest_statistics(good: Logs) -> None:
    assert rule_of_three(1_000_000) == pytest.approx(3e-6)
    assert "95 % confidence" in statistics(check(good))
