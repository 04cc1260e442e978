"""From measured values to a report: what must hold, figures, ratios, and bars.

Every figure is a list of values, one per round; what is printed is median (least to most).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import ALONE, COMPARED, FIGURES, KILLED, MANY, POLLED, REVOKED, WAYS, Figure
from bench.machine import CHECKOUT
from bench.plot import Bar, Panel, draw
from bench.promises import (
    FLOOR,
    NODES,
    OURS,
    PEER,
    POLLS,
    WAYS_OUT,
    Promise,
    Values,
    of,
    promises,
    ratios,
)

RESULTS = CHECKOUT / "bench" / "results"


def write(
    values: Values, machine: Mapping[str, str], plan: Mapping[str, Any], folder: Path = RESULTS
) -> Path:
    """Write `latest.json`, `latest.svg` and `latest.md`; return the last."""
    folder.mkdir(exist_ok=True)
    kept = promises(values)
    data = {
        "machine": machine,
        "plan": plan,
        "values": values,
        "promises": [
            {"name": p.name, "values": p.values, "limit": p.limit, "held": p.held} for p in kept
        ],
    }
    (folder / "latest.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    (folder / "latest.svg").write_text(draw(_panels(values, plan), _caption(machine)))
    page = folder / "latest.md"
    page.write_text(_markdown(values, machine, plan, kept))
    return page


def show(figure: Figure, values: Sequence[float], unit: bool = True) -> str:
    """Median (least to most)."""
    text = _spread(values, figure.digits)
    return f"{text} {figure.unit}".strip() if unit and values else text


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    text = _number(median(values), digits)
    if len(values) > 1:
        text += f" ({_number(min(values), digits)} to {_number(max(values), digits)})"
    return text


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")


def _markdown(
    values: Values,
    machine: Mapping[str, str],
    plan: Mapping[str, Any],
    kept: Sequence[Promise],
) -> str:
    lines = [
        "# Benchmark",
        "",
        f"{machine['date']}, commit {machine['commit']}. Written by `make bench`; do not edit.",
        "What is measured and how: [bench/README.rst](../README.rst).",
        "",
        "![The figures as bars](latest.svg)",
        "",
    ]
    if kept:
        lines += [
            "## What must hold",
            "",
            *_table(
                ["", "measured", "limit", "holds"],
                [
                    [
                        promise.name,
                        _spread(promise.values, 2 if promise.limit < 10 else 0),
                        _number(promise.limit, 2 if promise.limit < 10 else 0),
                        "yes" if promise.held else "**no**",
                    ]
                    for promise in kept
                ],
            ),
        ]
    servers = [
        name
        for name in values
        if name not in WAYS_OUT and any(figure.key in values[name] for figure in COMPARED)
    ]
    if servers:
        lines += [
            "## Side by side",
            "",
            f"{plan['subscribers']:,} subscribers of one channel, 200-byte messages,",
            f"{plan['rounds']} rounds; median (least to most).",
            "",
            *_table(["", *servers], _side_by_side(values, servers, COMPARED)),
        ]
    ratios = _ratio_rows(values)
    if ratios:
        lines += [
            "Ratios, median of the rounds (least to most):",
            "",
            *_table(["push_server /", FLOOR, PEER], ratios),
        ]
    ours = values.get(OURS, {})
    for title, prefix in (
        (_durable_title(plan), ("durable", "disk")),
        (_stopped_title(plan), ("stopped",)),
    ):
        rows = [
            [figure.title, show(figure, ours[figure.key])]
            for figure in ALONE
            if figure.key.startswith(prefix) and figure.key in ours
        ]
        if rows:
            lines += [f"## {title}", "", *_table(["", "push_server"], rows)]
    ways_out = [name for name in WAYS_OUT if name in values]
    if ways_out:
        rows = _side_by_side(values, ways_out, COMPARED)
        lines += ["## Transports (memory broker)", "", *_table(["", *ways_out], rows)]
    lines += _polls(values, plan)
    lines += _many_nodes(values, plan)
    lines += ["## Machine", "", *_table(["", ""], [[k, v] for k, v in machine.items() if v])]
    return "\n".join(lines)


def _polls(values: Values, plan: Mapping[str, Any]) -> list[str]:
    servers = [name for name in values if name in {*POLLS, *POLLS.values()}]
    if not servers:
        return []
    rows = [
        [figure.title, *(
            _spread(ratios(values, figure.key, other, ours), 2) for ours, other in POLLS.items()
        )]
        for figure in POLLED
    ]
    return [
        "## Polls",
        "",
        f"{plan['pollers']:,} clients of one channel, 200-byte messages. A cycle is an answer with",
        "one publication in it, and the next poll.",
        "",
        *_table(["", *servers], _side_by_side(values, servers, POLLED)),
        "Ratios, median of the rounds (least to most):",
        "",
        *_table(["", *(f"{ours} / {other}" for ours, other in POLLS.items())], rows),
    ]


def _many_nodes(values: Values, plan: Mapping[str, Any]) -> list[str]:
    both = values.get(NODES, {})
    if not both:
        return []
    ours = values.get(OURS, {})
    rows = [
        [
            f"{figure.title}, {figure.unit}",
            show(figure, ours.get(figure.key, ()), unit=False),
            show(figure, both.get(figure.key, ()), unit=False),
        ]
        for figure in MANY
    ]
    killed = [
        [f"{figure.title}, {figure.unit}".removesuffix(", "), *(
            show(FIGURES[key], both.get(key, ()), unit=False)
            for key in (f"back_{way}_{figure.key}" for way in WAYS)
        )]
        for figure in KILLED
    ]
    revoked = [
        [figure.title, show(figure, both[figure.key])] for figure in REVOKED if figure.key in both
    ]
    return [
        "## Two nodes on one Redis",
        "",
        f"{plan['subscribers']:,} subscribers in all; published on one node, timed on the other.",
        "",
        *_table(["", f"{OURS} (SQLite)", NODES], rows),
        f"A node with half of {plan['returning']:,} clients is killed; they come back",
        "",
        *_table(["", *WAYS.values()], killed),
        f"{plan['revoked']} sessions are revoked on one node, their streams are on the other:",
        "",
        *_table(["", ""], revoked),
    ]


def _durable_title(plan: Mapping[str, Any]) -> str:
    return (
        f"Durable publishes per second (SQLite; {plan['publishers']} publishers, "
        f"batches of {plan['batch']})"
    )


def _stopped_title(plan: Mapping[str, Any]) -> str:
    return f"{plan['stopped']:,} subscribers stop reading beside {plan['others']:,} others"


def _side_by_side(
    values: Values, servers: Sequence[str], figures: Sequence[Figure]
) -> list[list[str]]:
    return [
        [
            f"{figure.title}, {figure.unit}",
            *(show(figure, values[name].get(figure.key, ()), unit=False) for name in servers),
        ]
        for figure in figures
        if any(figure.key in values[name] for name in servers)
    ]


def _ratio_rows(values: Values) -> list[list[str]]:
    rows = []
    for figure in COMPARED:
        to_floor = ratios(values, figure.key, FLOOR)
        to_peer = ratios(values, figure.key, PEER)
        if figure.key == "memory":
            # The relay keeps nothing per subscriber but a descriptor; there is no ratio to it.
            to_floor = ()
        if to_floor or to_peer:
            rows.append([figure.title, _spread(to_floor, 2), _spread(to_peer, 2)])
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" + "---:|" * (len(head) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def _caption(machine: Mapping[str, str]) -> str:
    return f"{machine['date']} · commit {machine['commit']} · {machine['processor']}"


def _panels(values: Values, plan: Mapping[str, Any]) -> list[Panel]:
    crowd = f"{plan['subscribers']:,} subscribers"
    panels = [
        _panel(values, "delivery_cpu", "CPU per delivery", f"µs, {crowd}, 200 bytes"),
        _panel(values, "latency_p50", "Publish to last subscriber", f"ms, median, {crowd}"),
        _panel(values, "burst", "Burst", "deliveries per second, more is better"),
        _panel(values, "memory", "Memory per idle subscriber", "bytes of process memory"),
        _panel(values, "connect_cpu", "CPU per new subscriber", "µs, push_server checks a token"),
    ]
    ours = values.get(OURS, {})
    publishing = [
        _bar(label, ours[key], FIGURES[key].digits, style)
        for label, key, style in (
            ("one at a time", "durable_one", "ours"),
            (f"{plan['publishers']} publishers", "durable_many", "ours"),
            (f"batches of {plan['batch']}", "durable_batch", "ours"),
            ("disk syncs", "disk", "floor"),
        )
        if ours.get(key)
    ]
    panels.append(Panel("Durable publishes", "per second, SQLite, more is better", publishing))
    many = [
        _bar(label, of(values, name, key), 2, style)
        for label, name, key, style in (
            ("one, SQLite", OURS, "nodes_cpu", "ours"),
            ("two, Redis", NODES, "nodes_cpu", "ours"),
            ("Redis itself", NODES, "nodes_redis", "peer"),
        )
        if of(values, name, key)
    ]
    panels.append(Panel("CPU per delivery, one node and two", f"µs, {crowd} in all", many))
    back = [
        _bar(f"{share}, {label}", of(values, NODES, f"back_{way}_{key}"), 1, "ours")
        for way, label in (("other", "other node"), ("restarted", "restarted"))
        for key, share in (("p95", "95 %"), ("all", "all"))
        if of(values, NODES, f"back_{way}_{key}")
    ]
    title = f"seconds, half of {plan['returning']:,} clients"
    panels.append(Panel("Back after a node is killed", title, back))
    polling = f"{plan['pollers']:,} clients"
    panels += [
        _panel(values, "poll_cpu", "CPU per poll cycle", f"µs, {polling}"),
        _panel(values, "poll_cycles", "Poll cycles", f"per second, {polling}, more is better"),
    ]
    return [panel for panel in panels if panel.bars]


def _panel(values: Values, key: str, title: str, subtitle: str) -> Panel:
    styles = {FLOOR: "floor", PEER: "peer", **dict.fromkeys(POLLS.values(), "peer")}
    bars = [
        _bar(name, figures[key], FIGURES[key].digits, styles.get(name, "ours"))
        for name, figures in values.items()
        if figures.get(key) and name not in WAYS_OUT
    ]
    return Panel(title, subtitle, bars)


def _bar(label: str, values: Sequence[float], digits: int, style: str) -> Bar:
    return Bar(
        label, max(0, median(values)), max(0, min(values)), max(0, max(values)),
        _number(median(values), digits), style,
    )
