"""What a run showed: figures and a verdict as Markdown, and a plot over time as SVG."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from bench.plot import STYLE
from faults.checker import Verdict, statistics
from faults.logs import Row, Rows
from faults.rules import RULES

WIDTH, LEFT, RIGHT = 980, 64, 20
PANEL, GAP, HEAD = 120, 42, 30
OWN_STYLE = """
.line { fill: none; stroke-width: 1.5; } .a { stroke: #2b6cb0; } .b { stroke: #e6a23c; }
.fault { fill: #98a2b3; opacity: 0.35; } .loss { fill: #c0392b; opacity: 0.5; }
.tick { font-size: 11px; fill: #667085; }
"""


class Series(NamedTuple):
    """One line of a panel."""

    style: str
    points: Sequence[tuple[float, float]]


def summary(verdict: Verdict) -> str:
    """The verdict in a few lines."""
    counts = verdict.counts
    lines = [
        (f"{counts['acked']:,} acknowledged, {counts['deliveries']:,} deliveries,"
        f" {counts['faults']} faults of {counts['kinds of faults']} kinds:"
        f" {'every promise held' if verdict.clean else 'BROKEN'}")
    ]
    for name, count in verdict.breaches.items():
        if count:
            lines.append(f"  {name}: {count} times, such as: {verdict.examples[name][0]}")
    return "\n".join(lines)


def write(folder: Path, verdict: Verdict) -> Path:
    """Write the report and the plot into the folder of the run."""
    run = json.loads((folder / "run.json").read_text())
    faults = list(Rows(folder / "faults.jsonl"))
    server = list(Rows(folder / "server.jsonl"))
    (folder / "plot.svg").write_text(plot(faults, server))
    page = folder / "report.md"
    page.write_text("\n".join(_page(run, faults, server, verdict)) + "\n")
    return page


def record(run: Path, folder: Path, name: str) -> None:
    """Keep the report and the plot of a run under a name of their own."""
    folder.mkdir(exist_ok=True)
    page = (run / "report.md").read_text()
    (folder / f"{name}.md").write_text(page.replace("(plot.svg)", f"({name}.svg)"))
    (folder / f"{name}.svg").write_text((run / "plot.svg").read_text())


def _page(run: Row, faults: list[Row], server: list[Row], verdict: Verdict) -> list[str]:
    counts = verdict.counts
    resets = {key: n for key, n in sorted(counts.items()) if key.startswith("resets: ")}
    lines = [
        (f"# Soak: {run['broker']}, {run['seconds'] / 60:.1f} minutes,"
        f" seed {run['seed']}"),
        "",
        (f"Commit {run['git']}, Python {run['python']}, {run['machine']},"
        f" {run['nodes']} node(s), {run['sessions']} sessions."),
        "",
        f"**{'Every promise held.' if verdict.clean else 'A promise was broken.'}**",
        "",
        "| rule | what it says | breaches |",
        "|---|---|---|",
        *(f"| {rule.name} | {rule.says} | {verdict.breaches[rule.name]} |" for rule in RULES),
        "",
        "| figure | value |",
        "|---|---|",
        f"| acknowledged publications | {counts['acked']:,} |",
        f"| deliveries | {counts['deliveries']:,} |",
        f"| faults, kinds | {counts['faults']}, {counts['kinds of faults']} |",
        f"| lost in silence | {verdict.breaches['durable'] + verdict.breaches['no_gap']} |",
        f"| lost and announced | {counts['lost, announced']:,} |",
        *(f"| {key} | {count:,} |" for key, count in resets.items()),
        f"| raw duplicates | {counts['raw duplicates']:,} |",
        f"| connections (times channels) | {counts['connections']:,} |",
        f"| seconds from the last fault until everybody was up to date | {run['converged']} |",
        *_resources(run, server),
        "",
        statistics(verdict) if verdict.clean else "",
        "",
        "![Over time](plot.svg)",
        "",
        "## Faults",
        "",
        "| kind | times | seconds, longest |",
        "|---|---|---|",
    ]
    times = Counter(fault["kind"] for fault in faults)
    longest: dict[str, float] = {}
    for fault in faults:
        longest[fault["kind"]] = max(
            longest.get(fault["kind"], 0.0), fault["t1"] - fault["t0"]
        )
    lines += [f"| {kind} | {n} | {longest[kind]:.1f} |" for kind, n in sorted(times.items())]
    if run["left_out"]:
        kinds = ", ".join(run["left_out"])
        lines += ["", f"Left out, because this machine or this set-up does not allow it: {kinds}."]
    for name, examples in verdict.examples.items():
        if examples:
            lines += ["", f"## Breaches of {name}", "", *(f"- {text}" for text in examples)]
    if run["problems"]:
        lines += ["", "## The rig itself failed", "", *(f"- {text}" for text in run["problems"])]
    return lines


def _resources(run: Row, server: list[Row]) -> list[str]:
    lines = []
    for node in sorted({row["node"] for row in server if row["row"] == "sample"}):
        rows = [row for row in server if row["row"] == "sample" and row["node"] == node]
        warm = [row for row in rows if row["at"] <= run["base"]][-1:] or rows[:1]
        lines.append(
            f"| node {node}: memory warm, most, at the end | {warm[0]['rss'] >> 20},"
            f" {max(row['rss'] for row in rows) >> 20}, {rows[-1]['rss'] >> 20} MB |"
        )
        lines.append(
            f"| node {node}: descriptors warm, at the end |"
            f" {warm[0]['fds']}, {rows[-1]['fds']} |"
        )
    return lines


# The plot


def plot(faults: Sequence[Row], server: Sequence[Row]) -> str:
    """Faults, lag, resets and memory, one above the other on one axis of time."""
    clients = [row for row in server if row["row"] == "clients"]
    samples = [row for row in server if row["row"] == "sample"]
    end = max([row["at"] for row in server if "at" in row] + [1.0])
    nodes = sorted({row["node"] for row in samples})
    panels = [
        ("deliveries per second", _rates(clients, "got")),
        ("resets per second", _rates(clients, "resets")),
        (
            "lag of live publications, ms: median and 99th percentile",
            [
                Series("a", [(row["at"], row["lag50"] * 1000) for row in clients]),
                *[Series("b", [(row["at"], row["lag99"] * 1000) for row in clients])],
            ],
        ),
        (
            "memory of the server, MB",
            [
                Series(
                    "ab"[number % 2],
                    [(row["at"], row["rss"] / 2**20) for row in samples if row["node"] == node],
                )
                for number, node in enumerate(nodes)
            ],
        ),
    ]
    height = HEAD + len(panels) * (PANEL + GAP) + 30
    body = [_faults(faults, end, height)]
    for number, (title, series) in enumerate(panels):
        body += _panel(title, series, HEAD + number * (PANEL + GAP), end)
    bottom = height - 26
    body += [
        f'<text class="tick" x="{_x(at, end):.0f}" y="{bottom}">{at / 60:.1f} min</text>'
        for at in (end * part / 6 for part in range(6))
    ]
    return "\n".join(
        [
            (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}" role="img">'),
            "<title>A soak over time; grey: faults, red: faults that destroy the log</title>",
            f"<style>{STYLE}{OWN_STYLE}</style>",
            *body,
            "</svg>",
            "",
        ]
    )


def _x(at: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at / end


def _faults(faults: Sequence[Row], end: float, height: int) -> str:
    marks = []
    for fault in faults:
        left, right = _x(fault["t0"], end), _x(fault["t1"], end)
        style = "loss" if fault["loses"] else "fault"
        marks.append(
            f'<rect class="{style}" x="{left:.1f}" y="{HEAD}" width="{max(1.0, right - left):.1f}"'
            f' height="{height - HEAD - 44}"><title>{escape(fault["kind"])}</title></rect>'
        )
    return "\n".join(marks)


def _rates(rows: Sequence[Row], key: str) -> list[Series]:
    points = [
        (late["at"], max(0.0, (late[key] - early[key]) / max(0.1, late["at"] - early["at"])))
        for early, late in itertools.pairwise(rows)
    ]
    return [Series("a", points)]


def _panel(title: str, series: Sequence[Series], top: int, end: float) -> list[str]:
    values = [value for one in series for _, value in one.points]
    most = max([*values, 0.0]) or 1.0
    low = top + PANEL
    body = [
        f'<text class="subtitle" x="{LEFT}" y="{top - 6}">{escape(title)}</text>',
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{low}" y2="{low}"/>',
        f'<text class="tick" x="8" y="{top + 10}">{most:,.0f}</text>',
        f'<text class="tick" x="8" y="{low}">0</text>',
    ]
    for one in series:
        points = " ".join(
            f"{_x(at, end):.1f},{low - PANEL * value / most:.1f}" for at, value in one.points
        )
        body.append(f'<polyline class="line {one.style}" points="{points}"/>')
    return body
