"""Runs the checks: each when those that it needs have found nothing wrong, all side by side.

Threads, because every check waits for somebody else. They are daemons: a resolver that hangs must
not keep the doctor from going home. Imported by the command line.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from push_server.doctor import probe
from push_server.doctor.findings import Check, Finding, Status, skipped, wrong
from push_server.doctor.streams import LONGEST_POLL
from push_server.doctor.visit import Visit

SECONDS = 9.0
"""For the whole visit, without `--idle`."""


class Result(NamedTuple):
    """A check and all that it found."""

    check: Check
    findings: Sequence[Finding]

    @property
    def status(self) -> Status:
        """The worst of the findings."""
        order = list(Status)
        return max((finding.status for finding in self.findings), key=order.index)


@dataclass(eq=False)
class _Run:
    """A check on its way."""

    check: Check
    result: Result | None = None
    fault: str = ""
    """The check that failed: this one, or the one because of which it did not begin."""


class Examination:
    """One visit."""

    def __init__(self, visit: Visit, checks: Sequence[Check]) -> None:
        self._visit = visit
        self._runs = {check.name: _Run(check) for check in checks}
        self._change = threading.Condition()

    def run(self) -> list[Result]:
        """The results, in the order of the checks."""
        seconds = SECONDS + (LONGEST_POLL + 2 * probe.PATIENCE if self._visit.idle else 0)
        deadline = time.monotonic() + seconds
        for run in self._runs.values():
            threading.Thread(target=self._follow, args=(run,), daemon=True).start()
        with self._change:
            self._change.wait_for(self._is_done, deadline - time.monotonic())
            return [run.result or self._late(run) for run in self._runs.values()]

    def _is_done(self) -> bool:
        return all(run.result is not None for run in self._runs.values())

    def _late(self, run: _Run) -> Result:
        before = run.check.needs + run.check.after
        waits = next((name for name in before if self._runs[name].result is None), "")
        late = skipped(f"waited for {waits}") if waits else wrong("took too long", "an answer")
        return Result(run.check, [late])

    def _follow(self, run: _Run) -> None:
        """Wait for what the check needs, then do it (a thread of its own)."""
        check = run.check
        before = [self._runs[name] for name in check.needs + check.after]
        with self._change:
            self._change.wait_for(lambda: all(other.result for other in before))
        fault = next((name for other in before[:len(check.needs)] if (name := other.fault)), "")
        result = Result(check, [skipped(f"first {fault}")] if fault else self._look(check))
        if result.status is Status.ERROR:
            fault = check.name
        with self._change:
            run.fault, run.result = fault, result
            self._change.notify_all()

    def _look(self, check: Check) -> Sequence[Finding]:
        findings: list[Finding] = []
        try:
            findings.extend(check.examine(self._visit))
        except (EOFError, *probe.FAILURES) as error:
            # The way was there a moment ago: say so, and let the sysadmin ask again.
            findings.append(wrong(f"broke off: {probe.reason(error)}", "an answer"))
        except Exception as error:  # noqa: BLE001  # the other checks have something to say, too
            findings.append(wrong(f"the doctor failed here: {error!r}", "a report of this fault"))
        return findings or [skipped("nothing to look at")]
