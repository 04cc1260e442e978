"""`python -m bench`: measure, write `bench/results/`, and fail if a promise is broken.

Exit status 0: all promises held. 1: one did not; it is named. 2: nothing could be measured,
for the reason named.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence

from bench import report
from bench.cluster import Pair, Redis
from bench.figures import FIGURES
from bench.load import compile_program
from bench.machine import (
    BUILD,
    Failed,
    Missing,
    describe,
    load_average,
    raise_descriptor_limit,
)
from bench.measures import (
    PARTS,
    QUICK,
    ROUND_PARTS,
    Figures,
    Plan,
    measure_durable,
    measure_round,
    measure_stopped,
)
from bench.nodes import measure_killed, measure_nodes
from bench.polls import FAYE, POLLERS, measure_polls
from bench.promises import promises
from bench.servers import SERVERS, TRANSPORTS, PushServer


class Run:
    """One run: what has been measured so far, and what to say meanwhile."""

    def __init__(self, plan: Plan, parts: Sequence[str], chosen: Sequence[str]) -> None:
        """Servers are `chosen` by name; none: all of them."""
        self.plan = plan
        self.parts = parts
        self.servers = [kind for kind in SERVERS if not chosen or kind.name in chosen]
        self.pollers = [kind for kind in POLLERS if not chosen or kind.name in chosen]
        self.values: dict[str, dict[str, list[float]]] = {
            server.name: {} for server in self.servers
        }
        self.title = ""
        self.begun = time.monotonic()

    def measure(self) -> None:
        """All parts, the servers taking turns."""
        in_rounds = [part for part in self.parts if part in ROUND_PARTS]
        for number in range(self.plan.rounds if in_rounds else 0):
            self.title = f"round {number + 1} of {self.plan.rounds}"
            for name, figures in measure_round(
                self.servers, self.plan, in_rounds, self.say
            ).items():
                self.keep(name, figures)
        if "transports" in self.parts and PushServer in self.servers:
            self.measure_transports()
        if "polls" in self.parts:
            self.measure_polls()
        for part, measure in (("durable", measure_durable), ("stopped", measure_stopped)):
            if part in self.parts and PushServer in self.servers:
                self.title = part
                self.say("measure", PushServer.name)
                self.keep(PushServer.name, measure(self.plan))
        if "nodes" in self.parts and PushServer in self.servers:
            self.measure_many()

    def measure_transports(self) -> None:
        """This server beside itself, each with another transport."""
        self.values |= {kind.name: {} for kind in TRANSPORTS}
        for number in range(self.plan.rounds):
            self.title = f"transports, round {number + 1} of {self.plan.rounds}"
            for name, figures in measure_round(
                TRANSPORTS, self.plan, ("fanout",), self.say
            ).items():
                self.keep(name, figures)

    def measure_polls(self) -> None:
        """Long polls and Bayeux, here and elsewhere."""
        self.values |= {kind.name: {} for kind in self.pollers}
        for number in range(self.plan.rounds):
            self.title = f"polls, round {number + 1} of {self.plan.rounds}"
            for name, figures in measure_polls(self.pollers, self.plan, self.say).items():
                self.keep(name, figures)

    def measure_many(self) -> None:
        """Two nodes beside one, and the death of one of two."""
        self.values[Pair.name] = {}
        for number in range(self.plan.rounds):
            self.title = f"nodes, round {number + 1} of {self.plan.rounds}"
            for name, figures in measure_nodes(self.plan, self.say).items():
                self.keep(name, figures)
        for restart in (False, True):
            self.title = "a node is killed"
            self.say("come back", "either" if restart else "the other")
            self.keep(Pair.name, measure_killed(self.plan, restart))

    def keep(self, name: str, figures: Figures) -> None:
        """Add one value to each figure, and show them."""
        print(f"  {name}", file=sys.stderr)
        for key, value in figures.items():
            self.values[name].setdefault(key, []).append(value)
            figure = FIGURES[key]
            print(f"    {figure.title:44} {report.show(figure, [value])}", file=sys.stderr)

    def say(self, what: str, server: str) -> None:
        """Tell whoever waits what runs now."""
        seconds = time.monotonic() - self.begun
        print(f"{seconds:5.0f} s  {self.title}: {what}, {server}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    names = [server.name for server in (*SERVERS, *POLLERS)]
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare this server with Nchan, Faye and a bare C relay.",
    )
    parser.add_argument("--quick", action="store_true", help="three minutes instead of ten")
    parser.add_argument("--rounds", type=int, help="how often each server is measured")
    parser.add_argument(
        "--only", action="append", choices=PARTS, metavar="PART",
        help=f"measure this and no more: {', '.join(PARTS)}; may be repeated",
    )
    parser.add_argument(
        "--server", action="append", choices=names, metavar="NAME",
        help=f"measure this server and no other: {'; '.join(names)}; may be repeated",
    )
    return parser.parse_args()


def main() -> int:
    """Measure and report; return the exit status."""
    options = arguments()
    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = dataclasses.replace(plan, rounds=options.rounds)
    run = Run(plan, options.only or PARTS, options.server or ())
    try:
        BUILD.mkdir(parents=True, exist_ok=True)
        raise_descriptor_limit(plan.clients)
        compile_program("load")
        if "nodes" in run.parts:
            Redis.program()
            compile_program("returning")
        for server in (*run.servers, *(run.pollers if "polls" in run.parts else ())):
            server.check()
        machine = describe() | {"Faye": FAYE}
        before = load_average()
        run.measure()
        machine["load average, before and at the end"] = f"{before:.2f}, {load_average():.2f}"
    except (Missing, Failed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    # A part of a run is shown and not kept: the report compares what was measured together.
    complete = not (options.quick or options.only or options.server)
    folder = report.RESULTS if complete else BUILD
    page = report.write(run.values, machine, dataclasses.asdict(plan), folder)
    broken = [promise for promise in promises(run.values) if not promise.held]
    for promise in broken:
        print(f"BROKEN: {promise.name} is {promise.value:.4g}, must be at most "
              f"{promise.limit:.4g}")
    print(f"{'FAILED' if broken else 'held'}: see {page}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
