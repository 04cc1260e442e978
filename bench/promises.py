"""What must hold: figures, or ratios of figures, each with its limit.

A ratio is taken inside each round, and then the median of them, so that a machine that slows down
between two rounds does not move it. Imported by the report, which shows the same ratios.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.figures import WAYS

FLOOR, PEER, OURS = "C floor", "Nchan", "push_server"
NODES = "2 nodes, Redis"
SSE, STREAM, WEBSOCKET = "SSE", "stream", "WebSocket"
WAYS_OUT = (SSE, STREAM, WEBSOCKET)
"""This server, each time with another transport."""
POLLS = {"push_server, long poll": "Nchan, long poll", "push_server, Bayeux": "Faye, Bayeux"}
"""This server with clients that poll, and what it is compared with."""

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
        ("CPU per delivery / Nchan's", ratios(values, "delivery_cpu", PEER), 1.0),
        ("CPU per delivery / the C floor's", ratios(values, "delivery_cpu", FLOOR), 1.3),
        ("CPU per delivery, one batch / single", _inner(ours, "batch_cpu", "delivery_cpu"), 0.25),
        ("bytes of process memory per idle subscriber", ours.get("memory", ()), 2048.0),
        ("µs of CPU per new subscriber", ours.get("connect_cpu", ()), 250.0),
        (
            "others' latency with stopped readers / before",
            _inner(ours, "stopped_during", "stopped_before"),
            2.0,
        ),
        ("bytes of memory per stopped subscriber", ours.get("stopped_memory", ()), QUEUE_LIMIT),
        ("CPU per delivery, stream / SSE", ratios(values, "delivery_cpu", SSE, STREAM), 1.15),
        ("CPU per delivery, WebSocket / SSE", ratios(values, "delivery_cpu", SSE, WEBSOCKET), 1.15),
        ("bytes of process memory per idle WebSocket", of(values, WEBSOCKET, "memory"), 3072.0),
        ("CPU per delivery, two nodes / one", _across(values, "nodes_cpu"), 1.2),
        ("publish to first receipt, on another node / one", _across(values, "nodes_first"), 3.0),
        ("publish to half of the receipts, the same", _across(values, "nodes_half"), 3.0),
        ("publish to last receipt, the same", _across(values, "nodes_last"), 3.0),
        ("s until 95 % are back after a node was killed", _worst(values, "p95"), 30.0),
        ("s until all are back", _worst(values, "all"), 60.0),
        ("clients not back, publications lost, resets", _broken_promises(values), 0.0),
        ("ms until a revocation works elsewhere, 99 %", of(values, NODES, "revoked_p99"), 1000.0),
    ]
    return [Promise(name, measured, limit) for name, measured, limit in found if measured]


def of(values: Values, name: str, key: str) -> Sequence[float]:
    """A figure of a server; empty if it was not measured."""
    return values.get(name, {}).get(key, ())


def ratios(values: Values, key: str, other: str, ours: str = OURS) -> Sequence[float]:
    """Our figure over another's, round by round; empty if one was not measured."""
    return _quotients(of(values, ours, key), of(values, other, key))


def _across(values: Values, key: str) -> Sequence[float]:
    """Two nodes' figure over one's."""
    return ratios(values, key, OURS, NODES)


def _inner(figures: Mapping[str, Sequence[float]], over: str, under: str) -> Sequence[float]:
    return _quotients(figures.get(over, ()), figures.get(under, ()))


def _quotients(over: Sequence[float], under: Sequence[float]) -> Sequence[float]:
    if not over or not under or not all(under):
        return ()
    return [a / b for a, b in zip(over, under, strict=True)]


def _worst(values: Values, key: str) -> Sequence[float]:
    """The larger figure of both ways to come back."""
    found = [value for way in WAYS for value in of(values, NODES, f"back_{way}_{key}")]
    return [max(found)] if found else ()


def _broken_promises(values: Values) -> Sequence[float]:
    found = [
        value
        for way in WAYS
        for key in ("away", "lost", "resets")
        for value in of(values, NODES, f"back_{way}_{key}")
    ]
    return [sum(found)] if found else ()
