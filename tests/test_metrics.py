"""The metrics: what there is, and that Prometheus can read it."""

from prometheus_client.parser import text_string_to_metric_families

from push_server.metrics import COUNTERS, GAUGES, Metrics

NUMBERS = {
    "connections": 3,
    "connections.sse": 2,
    "connections.poll": 1,
    "users": 2,
    "channels": 4,
    "blocked": 1,
    "connects": 9,
    "connects.sse": 8,
    "connects.poll": 1,
    "resets.trimmed": 5,
    "cuts.slow": 6,
    "fallbacks.poll.buffered": 7,
    "fallbacks.stream.other": 8,
    "deliveries": 10_000,
    'odd"name\n': 1,
}


def scrape(numbers: dict[str, int]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    content_type, text = Metrics().render(numbers)
    assert content_type.startswith("text/plain; version=")
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_every_metric_has_its_number() -> None:
    samples = scrape(NUMBERS)
    assert samples["push_connections", (("transport", "sse"),)] == 2
    assert samples["push_connects_total", (("transport", "poll"),)] == 1
    assert len([name for name, _ in samples if name == "push_connections"]) == 2
    assert samples["push_users", ()] == 2
    assert samples["push_blocked", ()] == 1
    assert samples["push_resets_total", (("reason", "trimmed"),)] == 5
    assert samples["push_cuts_total", (("reason", "slow"),)] == 6
    assert samples["push_fallbacks", (("reason", "buffered"), ("transport", "poll"))] == 7
    assert samples["push_fallbacks", (("reason", "other"), ("transport", "stream"))] == 8
    assert samples["push_deliveries_total", ()] == 10_000
    assert not any("odd" in name for name, _ in samples)


def test_what_has_not_happened_yet_is_zero() -> None:
    samples = scrape({})
    for name, (_, label) in {**GAUGES, **COUNTERS}.items():
        if not label:
            suffix = "_total" if name in COUNTERS else ""
            assert samples[f"push_{name}{suffix}", ()] == 0


def test_the_process_is_measured() -> None:
    assert ("process_open_fds", ()) in scrape({})
    assert ("process_resident_memory_bytes", ()) in scrape({})


def test_scrapes_do_not_add_up() -> None:
    metrics = Metrics()
    assert metrics.render(NUMBERS)[1].count(b"push_users 2.0") == 1
    assert b"push_users 0.0" in metrics.render({})[1]
