"""What there is to measure: the figures, in the order of the report.

To add one: a line in one of the tables here. `bench.report` shows them; the other modules fill
them in by their keys.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is measured."""

    key: str
    title: str
    unit: str
    digits: int = 0


COMPARED = (
    Figure("delivery_cpu", "server CPU per delivery", "µs", 2),
    Figure("latency_p50", "publish to last subscriber, median", "ms", 1),
    Figure("latency_p99", "publish to last subscriber, 99 %", "ms", 1),
    Figure("answer_p50", "publish to the publisher's answer, median", "ms", 1),
    Figure("answer_p99", "publish to the publisher's answer, 99 %", "ms", 1),
    Figure("burst", "burst: deliveries per second", "/s"),
    Figure("batch_cpu", "server CPU per delivery, one batch", "µs", 2),
    Figure("batch", "one batch: deliveries per second", "/s"),
    Figure("memory", "memory per idle subscriber", "bytes"),
    Figure("connect_cpu", "server CPU per new subscriber", "µs", 1),
    Figure("connects", "new subscribers per second", "/s"),
)
POLLED = (
    Figure("poll_cpu", "server CPU per cycle", "µs", 1),
    Figure("poll_cycles", "cycles per second", "/s"),
    Figure("poll_p50", "publish to last client answered, median", "ms", 1),
)
ALONE = (
    Figure("durable_one", "one publisher, one at a time", "/s"),
    Figure("durable_many", "several publishers, one at a time each", "/s"),
    Figure("durable_batch", "one publisher, in batches", "/s"),
    Figure("disk", "what the disk can do: 4 KiB fdatasync", "/s"),
    Figure("stopped_before", "others' latency, all read, median", "ms", 1),
    Figure("stopped_during", "others' latency, some stopped, median", "ms", 1),
    Figure("stopped_before_p99", "others' latency, all read, 99 %", "ms", 1),
    Figure("stopped_during_p99", "others' latency, some stopped, 99 %", "ms", 1),
    Figure("stopped_memory", "process memory per stopped subscriber", "bytes"),
    Figure("stopped_sockets", "kernel socket memory per stopped subscriber", "bytes"),
    Figure("stopped_cut", "stopped subscribers cut", ""),
)
MANY = (
    Figure("nodes_cpu", "CPU of the push servers per delivery", "µs", 2),
    Figure("nodes_redis", "CPU of Redis per delivery", "µs", 2),
    Figure("nodes_first", "publish to the first subscriber", "ms", 2),
    Figure("nodes_half", "publish to half of the subscribers", "ms", 2),
    Figure("nodes_last", "publish to the last subscriber", "ms", 2),
)
KILLED = (
    Figure("p50", "until half are back", "s", 2),
    Figure("p95", "until 95 % are back", "s", 2),
    Figure("all", "until all are back", "s", 2),
    Figure("refusals", "attempts that failed meanwhile", ""),
    Figure("retries", "publications sent again, not acknowledged before", ""),
    Figure("away", "clients that were not back", ""),
    Figure("lost", "publications lost", ""),
    Figure("resets", "resets", ""),
    Figure("duplicates", "publications sent twice", ""),
)
WAYS = {"other": "to the other node", "restarted": "to either, it is restarted"}
BACK = tuple(
    Figure(f"back_{way}_{figure.key}", f"{figure.title}, {title}", figure.unit, figure.digits)
    for figure in KILLED
    for way, title in WAYS.items()
)
REVOKED = (
    Figure("revoked_p50", "from a revocation to the end of a stream elsewhere, median", "ms", 1),
    Figure("revoked_p99", "from a revocation to the end of a stream elsewhere, 99 %", "ms", 1),
)
FIGURES = {figure.key: figure for figure in (*COMPARED, *POLLED, *ALONE, *MANY, *BACK, *REVOKED)}
