"""``python -m tests.faults``: a soak, its logs, the verdict and the report.

Ends with 0 if every promise held, with 1 if a rule was broken, with 2 if the rig itself failed.
"""

import argparse
import secrets
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from faults import report  # the path is set above
from faults.checker import check_folder, dump
from faults.rig import Plan, Rig

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / ".soak"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--broker", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--appendfsync", choices=("always", "everysec"), default="always")
    parser.add_argument("--seed", type=int, help="the same seed makes the same plan")
    parser.add_argument("--nodes", type=int, help="push servers (redis: 2 unless told)")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="publications per second")
    parser.add_argument("--sessions", type=int, default=Plan.sessions)
    parser.add_argument("--only", action="append", default=[], help="a kind of fault; repeatable")
    parser.add_argument("--record", action="store_true", help="keep the report in docs/soak/")
    parser.add_argument("--folder", type=Path, help="where the logs go; by default .soak/…")
    return parser.parse_args()


class Progress:
    """One line that is written again and again; on a pipe, a line every ten seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._shown = 0.0
        self._terminal = sys.stderr.isatty()

    def __call__(self, rig: Rig) -> None:
        now = time.monotonic()
        if now - self._shown < (1 if self._terminal else 10):
            return
        self._shown = now
        clients = next((row for row in rig.last if row["row"] == "clients"), None)
        if clients is None:
            return
        memory = " ".join(f"{r['rss'] >> 20} MB" for r in rig.last if r["row"] == "sample")
        line = (
            f"{rig.now():5.0f}/{self._seconds:.0f} s  {clients['acked']:,} acked  "
            f"{clients['got']:,} delivered  {sum(rig.done.values())} faults of "
            f"{len(rig.done)} kinds  {clients['resets']} resets  {clients['open']} open  {memory}"
        )
        if self._terminal:
            line = "\r" + line[: shutil.get_terminal_size().columns - 1].ljust(100)
        sys.stderr.write(line if self._terminal else line + "\n")
        sys.stderr.flush()


def main() -> int:
    """Run, judge, tell."""
    options = parse()
    seed = options.seed if options.seed is not None else secrets.randbelow(10**6)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder: Path = options.folder or RUNS / f"{stamp}-{options.broker}-{seed}"
    plan = Plan(
        folder=folder,
        seconds=options.minutes * 60,
        seed=seed,
        broker=options.broker,
        appendfsync=options.appendfsync,
        nodes=options.nodes or (2 if options.broker == "redis" else 1),
        rate=options.rate,
        sessions=options.sessions,
        only=tuple(options.only),
    )
    sys.stderr.write(f"seed {seed}, logs in {folder}\n")
    # Whoever ends the rig ends all it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    rig = Rig(plan)
    rig.run(Progress(plan.seconds))
    sys.stderr.write("\n")
    if rig.problems:
        sys.stderr.write("the rig failed:\n" + "\n".join(rig.problems) + "\n")
    sys.stderr.write("judging\n")
    verdict = check_folder(folder)
    (folder / "verdict.json").write_text(dump(verdict))
    page = report.write(folder, verdict)
    sys.stderr.write(report.summary(verdict) + f"\nreport: {page}\n")
    if options.record:
        report.record(folder, ROOT / "docs" / "soak", options.broker)
    if rig.problems:
        return 2
    return 0 if verdict.clean else 1


if __name__ == "__main__":
    sys.exit(main())
