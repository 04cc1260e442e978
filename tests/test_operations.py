"""`docs/operations.rst` and what comes with it: its figures are measured, its names exist.

The alerts are tried by Prometheus' own tool, in a world where all is well and in one where
everything is wrong at once.
"""

import json
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import PushServer
from service_manager import read_unit

from push_server.metrics import COUNTERS, GAUGES
from push_server.server import DESCRIPTOR_SHARE
from push_server.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "packaging/monitoring"
PAGE = (ROOT / "docs/operations.rst").read_text("utf-8")
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
ALERTS = (MONITORING / "alerts.yml").read_text("utf-8")
UNIT = read_unit(ROOT / "packaging/systemd/push-server.service")

METRIC = re.compile(r"\b(?:push|process)_[a-z_]+\b")
# What the page calls its own on FreeBSD.
NOT_METRICS = {"push_server", "push_server_enable"}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool on this machine (Debian: prometheus)"
)


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    """What the dashboard asks, with what Grafana would put in."""
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [
        text.replace("$__rate_interval", "5m").replace("$instance", ".*") for text in asked
    ]


def alert_queries() -> list[str]:
    """The expressions of the alerts, each on one line."""
    found = re.findall(r"^ +expr: (?:>-\n)?((?:.|\n)*?)\n +(?:for|labels):", ALERTS, re.MULTILINE)
    return [" ".join(text.split()) for text in found]


# Names.


@pytest.fixture(scope="module")
def served(push: PushServer) -> set[str]:
    """The names that a running server gives its metrics."""
    text = push.get("/metrics", internal=True).body.decode()
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


@pytest.mark.parametrize("where", ["alerts", "dashboard", "page"])
def test_every_metric_that_is_named_exists(served: set[str], where: str) -> None:
    texts = {"alerts": alert_queries(), "dashboard": queries(), "page": [PAGE]}[where]
    named = {name for text in texts for name in METRIC.findall(text)} - NOT_METRICS
    assert len(named) > 10
    assert named - served == set()


def test_every_metric_of_ours_is_on_the_dashboard_and_the_page(served: set[str]) -> None:
    ours = {name for name in served if name.startswith("push_")}
    shown = {name for text in queries() for name in METRIC.findall(text)}
    assert ours - shown == set()
    assert ours - set(METRIC.findall(PAGE)) == set()


def test_labels_are_those_of_the_metric() -> None:
    labels = {f"push_{name}": label for name, (_, label) in GAUGES.items()}
    labels |= {f"push_{name}_total": label for name, (_, label) in COUNTERS.items()}
    for text in [*alert_queries(), *queries()]:
        for by, name in re.findall(r"sum by \((\w+)\) \((?:\w+\()*(push_\w+)", text):
            assert by in {"instance", labels[name]}, text
        for name, matchers in re.findall(r"(push_\w+)\{(.*?)\}", text):
            used = set(re.findall(r"(\w+)=", matchers))
            assert used <= {"job", "instance", labels[name]}, text


def test_the_dashboard_is_laid_out() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


# The alerts.


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_understands_alerts_and_dashboard(tmp_path: Path) -> None:
    promtool("check", "rules", MONITORING / "alerts.yml")
    rules = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(queries())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", file)


# A sample a minute, for two hours: what it is, or what it begins with and grows by.
WELL = {
    "up": "1x120",
    "process_start_time_seconds": "1000x120",
    "process_open_fds": "500x120",
    "process_max_fds": "1000x120",
    "process_cpu_seconds_total": "0+20x120",
    "push_degraded": "0x120",
    "push_shed_total": "7x120",
    "push_connections": "1000x60 900x60",
    "push_resets_total": "0+1x120",
    "push_recovered_total": "0+100x120",
    "push_failed_total": "1x120",
    "push_cuts_total": "0+2x120",
    "push_fallbacks": "100x120",
    'push_webhooks_total{outcome="failed"}': "3x120",
    'push_bridge_total{outcome="inbox_failed"}': "3x120",
    "push_restarted_total": "2x120",
}
ILL = {
    "up": "0x120",
    "process_start_time_seconds": "0+60x120",
    "process_open_fds": "750x120",
    "process_max_fds": "1000x120",
    "process_cpu_seconds_total": "0+54x120",
    "push_degraded": "1x120",
    "push_shed_total": "0+1x120",
    "push_connections": "1000x60 100x60",
    "push_resets_total": "0+50x120",
    "push_recovered_total": "0+100x120",
    "push_failed_total": "0x60 1x60",
    "push_cuts_total": "0+10x120",
    "push_fallbacks": "250x120",
    'push_webhooks_total{outcome="failed"}': "0+1x120",
    'push_bridge_total{outcome="inbox_failed"}': "0+1x120",
    "push_restarted_total": "0x60 5x60",
}


@needs_promtool
@pytest.mark.parametrize("world", ["well", "ill"])
def test_all_alerts_fire_where_all_is_wrong_and_none_where_all_is_well(
    tmp_path: Path, world: str
) -> None:
    names = re.findall(r"- alert: (\w+)", ALERTS)
    fired = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]
    series = []
    for name, values in (WELL if world == "well" else ILL).items():
        bare, _, label = name.partition("{")
        labels = ['job="push-server"', 'instance="a"', *filter(None, [label.rstrip("}")])]
        series.append({"series": f"{bare}{{{','.join(labels)}}}", "values": values})
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": "72m",
            "exp_samples": fired if world == "ill" else [],
        }],
    }
    file = tmp_path / "test.yml"
    rules = str(MONITORING / "alerts.yml")
    file.write_text(json.dumps({"rule_files": [rules], "tests": [test]}))
    promtool("test", "rules", file)


# The figures.

OURS, POLL, BAYEUX = "push_server", "push_server, long poll", "push_server, Bayeux"
MEASURED = (
    # The row, the number in it; whose and what it is in the results, units of that in ours.
    ("an open connection", r"([\d.]+) KB of memory as a WebSocket", "WebSocket", "memory", 1000),
    ("an open connection", r"WebSocket, ([\d.]+) KB", OURS, "memory", 1000),
    ("a new connection", r"([\d,]+) µs", OURS, "connect_cpu", 1),
    ("a publication, for each visitor", r"([\d.]+) µs", OURS, "delivery_cpu", 1),
    ("the same, when many are due", r"([\d.]+) µs", OURS, "batch_cpu", 1),
    ("the same by long poll", r"([\d,]+) µs of a core;", POLL, "poll_cpu", 1),
    ("the same by long poll", r"([\d,]+) µs with Bayeux", BAYEUX, "poll_cpu", 1),
    ("a visitor who stops reading", r"([\d,]+) KB of memory", OURS, "stopped_memory", 1000),
    ("a visitor who stops reading", r"([\d,]+) KB of kernel", OURS, "stopped_sockets", 1000),
    ("SQLite, one publisher", r"([\d,]+) publications", OURS, "durable_one", 1),
    ("SQLite, 16 publishers", r"([\d,]+) publications", OURS, "durable_many", 1),
    ("SQLite, in batches", r"([\d,]+) publications", OURS, "durable_batch", 1),
)


def stated(row: str, number: str) -> float:
    (line,) = [text for text in PAGE.splitlines() if text.startswith(row)]
    found = re.search(number, line)
    assert found is not None, line
    return float(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Sequence[float]]]:
    results = json.loads((ROOT / "bench/results/latest.json").read_text("utf-8"))
    found: dict[str, dict[str, Sequence[float]]] = results["values"]
    return found


@pytest.mark.parametrize(("row", "number", "server", "name", "unit"), MEASURED)
def test_figures_are_the_measured_ones(
    measured: dict[str, dict[str, Sequence[float]]],
    row: str,
    number: str,
    server: str,
    name: str,
    unit: float,
) -> None:
    """Rounded, and as near as two runs of the benchmark are to each other."""
    found = statistics.median(measured[server][name])
    assert stated(row, number) * unit == pytest.approx(found, rel=0.3)


def test_what_follows_from_the_figures() -> None:
    connection = stated("an open connection", r"([\d.]+) KB")
    delivery = stated("a publication, for each", r"([\d.]+) µs")
    connect = stated("a new connection", r"([\d,]+) µs")
    assert stated("10,000 visitors who wait", r"  ([\d.]+) MB") == round(connection * 10)
    one_second = stated("one publication a second for all", r"([\d.]+) %")
    assert one_second == round(delivery * 10_000 / 10_000)
    back = stated("10,000 visitors who come back", r"  ([\d.]+) seconds")
    assert back == pytest.approx(connect * 10_000 / 1_000_000)
    assert stated("10,000 publications a second", r"([\d.]+) %") == one_second
    cycle = stated("the same by long poll", r"([\d,]+) µs")
    polling = stated("the same for 1,000 visitors who long-poll", r"([\d.]+) %")
    assert polling == round(cycle * 1000 / 10_000)


def test_what_the_page_says_of_settings_and_units() -> None:
    limit = int(UNIT["LimitNOFILE"][0])
    assert f"allows {limit:,}, so {int(limit * DESCRIPTOR_SHARE):,} connections" in PAGE
    assert f"after {UNIT['WatchdogSec'][0]} seconds (``WatchdogSec``)" in PAGE
    spread = SETTINGS["drain_spread"].default
    assert re.search(rf"own within {spread} seconds\s+\(``drain_spread``\)", PAGE)
    assert f"``{UNIT['ExecStart'][0].split()[-1]}``" in PAGE
