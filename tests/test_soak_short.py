"""A short soak: a real server, hurt by a seeded plan, judged by the checker.

`make soak MINUTES=30` is the same with everything bigger.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from faults.checker import Verdict, check, check_folder
from faults.logs import Logs, Rows, load
from faults.mutants import MUTANTS, Mutant, NothingToChange
from faults.report import write
from faults.rig import Plan, Rig
from redis_server import program

SEED = 7
SECONDS = {"sqlite": 14.0, "redis": 14.0}

Run = Callable[[str], tuple[Rig, Verdict]]


def plan(folder: Path, seconds: float, broker: str = "sqlite", **more: Any) -> Plan:
    """A run that a test can wait for."""
    return Plan(
        folder=folder,
        seconds=seconds,
        seed=SEED,
        broker=broker,
        nodes=2 if broker == "redis" else 1,
        rate=250,
        sessions=30,
        users=10,
        rooms=6,
        pause=(0.05, 0.6),
        tail=1.0,
        **more,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A rig that has had its run on a broker, and what the checker says of it."""

    @cache
    def run(broker: str) -> tuple[Rig, Verdict]:
        if broker == "redis" and program() is None:
            pytest.skip("no Redis on this machine (Debian package redis-tools)")
        rig = Rig(plan(tmp_path_factory.mktemp("soak"), SECONDS[broker], broker))
        rig.run()
        return rig, check_folder(rig.folder)

    return run


@pytest.fixture(scope="module")
def logs(run: Run) -> Logs:
    """The logs of a run, in memory."""
    rig, _ = run("sqlite")
    return load(rig.folder).in_memory()


@pytest.mark.parametrize("broker", SECONDS)
def test_every_promise_held(run: Run, broker: str) -> None:
    rig, verdict = run(broker)
    assert rig.problems == []
    assert verdict.clean, {name: verdict.examples[name][:3] for name in verdict.broken}


@pytest.mark.parametrize("broker", SECONDS)
def test_enough_happened_to_mean_something(run: Run, broker: str) -> None:
    rig, verdict = run(broker)
    counts = verdict.counts
    # Faults of Redis take longer, and a loaded machine does fewer.
    assert len(rig.done) >= (6 if broker == "sqlite" else 5), rig.done
    assert counts["acked"] > 1_000
    assert counts["deliveries"] > 5_000
    transports = {
        row["transport"] for path in (rig.folder / "received").iterdir()
        for row in Rows(path) if row["row"] == "begin"
    }
    assert transports == {"sse", "stream", "poll"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_lie_in_these_very_logs_is_caught(logs: Logs, mutant: Mutant) -> None:
    lie = logs.in_memory()
    try:
        mutant.change(lie, Random(SEED))
    except NothingToChange:
        pytest.skip("what this mutant lies about did not happen in so short a run")
    assert mutant.rule in check(lie).broken


@pytest.mark.parametrize("broker", SECONDS)
def test_the_report(run: Run, broker: str) -> None:
    rig, verdict = run(broker)
    page = write(rig.folder, verdict).read_text()
    assert "Every promise held." in page
    assert "95 % confidence" in page
    picture: Path = rig.folder / "plot.svg"
    assert picture.read_text().count("<polyline") >= 4


def test_a_network_that_drops_single_events_is_noticed(tmp_path: Path) -> None:
    # The lie comes over the wire this time, so publishers, sessions and logs have to be right.
    rig = Rig(plan(tmp_path, 3.0, only=("reload",), converge=3.0))

    def censor(rig: Rig) -> None:
        rig.proxy.ask("mood", names=rig.doors, mood="censor", value=0.2)

    rig.run(censor)
    assert rig.problems == []
    verdict = check_folder(tmp_path)
    assert "no_gap" in verdict.broken
    assert verdict.broken <= {"no_gap", "liveness"}
