"""Prometheus metrics, made from the hub's numbers when they are asked for.

Nothing is counted twice and nothing costs anything on the way of a publication: the hub keeps
plain integers, and a scrape turns them into the text format. Labels never hold a user, a
channel or an address. The only importer of prometheus_client.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric

# Name -> text, and the labels: the number NAME.A.B is the sample {label="A", label="B"}.
GAUGES = {
    "connections": ("Open client connections.", "transport"),
    "users": ("Users with an open connection.", ""),
    "channels": ("Channels with subscribers.", ""),
    "degraded": ("Whether the log is out of reach.", ""),
    "blocked": ("Connections whose client does not keep up right now.", ""),
    "fallbacks": (
        "Open connections on a lesser transport, by what ailed the better one.",
        "transport reason",
    ),
}
COUNTERS = {
    "connects": ("Connections made.", "transport"),
    "deliveries": ("Publications delivered to subscribers.", ""),
    "recovered": ("Channels resumed without loss.", ""),
    "resets": ("Channels whose continuity could not be proved.", "reason"),
    "commands": ("Commands that came over WebSockets.", "method"),
    "violations": ("WebSockets ended because the client broke the rules.", "code"),
    "cuts": ("Connections cut because the client did not keep up.", "reason"),
    "failed": ("Connections closed because this server failed to serve them.", ""),
    "revoked": ("Connections closed by a revocation.", ""),
    "replaced": ("Connections that made room for a newer one of the same user.", ""),
    "shed": ("Connections refused because the server was full.", ""),
    "webhooks": ("Events for the CMS sent, replaced by a snapshot; requests failed.", "outcome"),
    "bridge": ("Messages that the bridges took, sent, parked or lost; failures.", "outcome"),
    "dropped": ("Entries of the log or the bus that were not ours, or damaged.", "where"),
    "reread": ("Publications read from the log because the bus did not bring them.", ""),
    "restarted": ("Channels whose log was lost while they had subscribers here.", ""),
}


class Metrics:
    """The registry of this process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._numbers: Mapping[str, int] = {}
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def render(self, numbers: Mapping[str, int]) -> tuple[str, bytes]:
        """Content type and text of ``GET /metrics``."""
        self._numbers = numbers
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """The metric families (called by the registry)."""
        for name, (text, labels) in GAUGES.items():
            gauge = GaugeMetricFamily(f"push_{name}", text, labels=labels.split())
            self._fill(gauge, name, len(labels.split()))
            yield gauge
        for name, (text, labels) in COUNTERS.items():
            counter = CounterMetricFamily(f"push_{name}", text, labels=labels.split())
            self._fill(counter, name, len(labels.split()))
            yield counter

    def _fill(
        self, family: GaugeMetricFamily | CounterMetricFamily, name: str, labels: int
    ) -> None:
        if not labels:
            family.add_metric([], self._numbers.get(name, 0))
            return
        for key, value in self._numbers.items():
            if key.startswith(name + "."):
                family.add_metric(key.split(".", labels)[1:], value)
