"""From measured values to a report: figures, ratios, and what must hold.

Every figure is a list of values, one per round; what is printed is median (least to most).
Ratios are taken inside each round and then their median, so that a machine that slows down
between two rounds does not move them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import ALONE, COMPARED, FIGURES, KILLED, MANY, REVOKED, WAYS, Figure
from bench.machine import CHECKOUT
from bench.plot import Bar, Panel, draw

RESULTS = CHECKOUT / "bench" / "results"

FLOOR, PEER, OURS, OURS_IN_MEMORY = "C floor", "Nchan", "push_server", "push_server (memory)"
NODES = "2 nodes, Redis"
SSE, STREAM, WEBSOCKET = "SSE", "stream", "WebSocket"
WAYS_OUT = (SSE, STREAM, WEBSOCKET)
"""This server, each time with another transport."""

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""Server name, key of a figure, one value per round."""


QUEUE_LIMIT = 1.2 * 262_144
"""The server's default `queue_bytes`, which bounds what a stopped subscriber may cost, and a
fifth for the room that buffers keep to grow into."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure with a limit."""

    name: str
    values: Sequence[float]
    """One per round."""
    limit: float

    @property
    def value(self) -> float:
        """What is held against the limit."""
        return median(self.values)

    @property
    def held(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit


def promises(values: Values) -> list[Promise]:
    """What must hold, as far as it was measured."""
    ours = values.get(OURS, {})
    found: list[tuple[str, Sequence[float], float]] = [
        ("CPU per delivery / Nchan's", _ratios(values, "delivery_cpu", PEER), 1.0),
        ("CPU per delivery / the C floor's", _ratios(values, "delivery_cpu", FLOOR), 1.3),
        ("CPU per delivery, one batch / single", _inner(ours, "batch_cpu", "delivery_cpu"), 0.25),
        ("bytes of process memory per idle subscriber", ours.get("memory", ()), 2048.0),
        ("µs of CPU per new subscriber", ours.get("connect_cpu", ()), 250.0),
        (
            "others' latency with stopped readers / before",
            _inner(ours, "stopped_during", "stopped_before"),
            2.0,
        ),
        ("bytes of memory per stopped subscriber", ours.get("stopped_memory", ()), QUEUE_LIMIT),
        ("CPU per delivery, stream / SSE", _over_sse(values, STREAM), 1.15),
        ("CPU per delivery, WebSocket / SSE", _over_sse(values, WEBSOCKET), 1.15),
        ("bytes of process memory per idle WebSocket", _of(values, WEBSOCKET, "memory"), 3072.0),
        ("CPU per delivery, two nodes / one", _across(values, "nodes_cpu"), 1.2),
        ("publish to first receipt, on another node / one", _across(values, "nodes_first"), 3.0),
        ("publish to half of the receipts, the same", _across(values, "nodes_half"), 3.0),
        ("publish to last receipt, the same", _across(values, "nodes_last"), 3.0),
        ("s until 95 % are back after a node was killed", _worst(values, "p95"), 30.0),
        ("s until all are back", _worst(values, "all"), 60.0),
        ("clients not back, publications lost, resets", _broken_promises(values), 0.0),
        ("ms until a revocation works elsewhere, 99 %", _of(values, NODES, "revoked_p99"), 1000.0),
    ]
    return [Promise(name, measured, limit) for name, measured, limit in found if measured]


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


def _ratios(values: Values, key: str, other: str) -> Sequence[float]:
    """Our figure over another server's, round by round; empty if one was not measured."""
    return _quotients(values.get(OURS, {}).get(key, ()), values.get(other, {}).get(key, ()))


def _of(values: Values, name: str, key: str) -> Sequence[float]:
    return values.get(name, {}).get(key, ())


def _over_sse(values: Values, name: str) -> Sequence[float]:
    """CPU per delivery on this transport over that on SSE, round by round."""
    return _quotients(_of(values, name, "delivery_cpu"), _of(values, SSE, "delivery_cpu"))


def _across(values: Values, key: str) -> Sequence[float]:
    """Two nodes' figure over one's, round by round."""
    return _quotients(_of(values, NODES, key), _of(values, OURS, key))


def _worst(values: Values, key: str) -> Sequence[float]:
    """The larger figure of both ways to come back."""
    found = [value for way in WAYS for value in _of(values, NODES, f"back_{way}_{key}")]
    return [max(found)] if found else ()


def _broken_promises(values: Values) -> Sequence[float]:
    found = [
        value
        for way in WAYS
        for key in ("away", "lost", "resets")
        for value in _of(values, NODES, f"back_{way}_{key}")
    ]
    return [sum(found)] if found else ()


def _inner(figures: Mapping[str, Sequence[float]], over: str, under: str) -> Sequence[float]:
    return _quotients(figures.get(over, ()), figures.get(under, ()))


def _quotients(over: Sequence[float], under: Sequence[float]) -> Sequence[float]:
    if not over or not under or not all(under):
        return ()
    return [a / b for a, b in zip(over, under, strict=True)]


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
            *_table(["", *servers], _side_by_side(values, servers)),
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
        rows = _side_by_side(values, ways_out)
        lines += ["## Transports (memory broker)", "", *_table(["", *ways_out], rows)]
    lines += _many_nodes(values, plan)
    lines += ["## Machine", "", *_table(["", ""], [[k, v] for k, v in machine.items() if v])]
    return "\n".join(lines)


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


def _side_by_side(values: Values, servers: Sequence[str]) -> list[list[str]]:
    return [
        [
            f"{figure.title}, {figure.unit}",
            *(show(figure, values[name].get(figure.key, ()), unit=False) for name in servers),
        ]
        for figure in COMPARED
        if any(figure.key in values[name] for name in servers)
    ]


def _ratio_rows(values: Values) -> list[list[str]]:
    rows = []
    for figure in COMPARED:
        to_floor = _ratios(values, figure.key, FLOOR)
        to_peer = _ratios(values, figure.key, PEER)
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
        _bar(label, _of(values, name, key), 2, style)
        for label, name, key, style in (
            ("one, SQLite", OURS, "nodes_cpu", "ours"),
            ("two, Redis", NODES, "nodes_cpu", "ours"),
            ("Redis itself", NODES, "nodes_redis", "peer"),
        )
        if _of(values, name, key)
    ]
    panels.append(Panel("CPU per delivery, one node and two", f"µs, {crowd} in all", many))
    back = [
        _bar(f"{share}, {label}", _of(values, NODES, f"back_{way}_{key}"), 1, "ours")
        for way, label in (("other", "other node"), ("restarted", "restarted"))
        for key, share in (("p95", "95 %"), ("all", "all"))
        if _of(values, NODES, f"back_{way}_{key}")
    ]
    title = f"seconds, half of {plan['returning']:,} clients"
    panels.append(Panel("Back after a node is killed", title, back))
    return [panel for panel in panels if panel.bars]


def _panel(values: Values, key: str, title: str, subtitle: str) -> Panel:
    styles = {FLOOR: "floor", PEER: "peer", OURS: "ours", OURS_IN_MEMORY: "ours"}
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
