"""The log: one line per event, whatever a client puts into it, and not more than a few a minute."""

import logging

import pytest

from push_server import log


class Clock:
    """Stands in for the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    fake = Clock()
    monkeypatch.setattr(log, "time", fake)
    monkeypatch.setattr(log, "_windows", {})
    monkeypatch.setattr(log, "_in_all", {})
    caplog.set_level(logging.INFO, "push_server")
    return fake


def test_levels_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    log.info("a.b", number=7, name="x", path="/run/push server")
    log.warn("c")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", 'event=a.b number=7 name=x path="/run/push server"'),
        ("WARNING", "event=c"),
    ]


def test_a_failure_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ArithmeticError("a fault of the test")
    except ArithmeticError as failure:
        log.error("handled")
        kept = failure
    log.error("given", kept, where="here")
    log.error("none")
    assert "ArithmeticError" in caplog.text
    assert [bool(record.exc_info and record.exc_info[0]) for record in caplog.records] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "value",
    [
        "\r\nevent=forged",
        "\x1b[2J",
        "\x00",
        "a b",
        'a"b',
        "\u2028x",
        "ä",
        "",
        "x" * 1_000_000,
        "\n" * 1_000_000,
    ],
)
def test_no_value_forges_a_line(caplog: pytest.LogCaptureFixture, value: str) -> None:
    log.rejected("x", "192.0.2.1", host=value)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.isascii() and line.isprintable()
    assert line.startswith("event=x host=") and line.endswith(" ip=192.0.2.1")
    assert "event=forged" not in line.split(" ")
    assert len(line) < 8 * log.FIELD_LIMIT


def test_no_secret_passes(caplog: pytest.LogCaptureFixture) -> None:
    secrets = ["e30x" * 20 + "." + "A" * 43, "whsec_" + "A" * 43 + "=", "v1," + "A" * 43 + "="]
    for secret in secrets:
        log.info("x", host=f"before {secret} after")
        assert secret not in caplog.records[-1].getMessage()
        assert "before [secret] after" in caplog.records[-1].getMessage()


def test_ten_lines_a_minute_for_each_event_and_address(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    def lines() -> int:
        count = len(caplog.records)
        caplog.clear()
        return count

    for _ in range(100):
        log.rejected("x", "192.0.2.1")
    assert lines() == log.LINES_PER_MINUTE
    log.rejected("x", "192.0.2.2")
    log.rejected("y", "192.0.2.1")
    assert lines() == 2
    clock.now += 59
    log.rejected("x", "192.0.2.1")
    assert lines() == 0
    clock.now += 1
    log.rejected("x", "192.0.2.1")
    assert caplog.records[-1].getMessage() == "event=x suppressed=91 ip=192.0.2.1"
    clock.now += 60
    log.rejected("x", "192.0.2.1")
    assert "suppressed" not in caplog.records[-1].getMessage()


def test_the_addresses_of_one_network_are_one(caplog: pytest.LogCaptureFixture) -> None:
    # Whoever has IPv6 has 2^64 addresses.
    for number in range(100):
        log.rejected("x", f"2001:db8::{number:x}")
    log.rejected("x", "2001:db8:0:1::1")
    assert len(caplog.records) == log.LINES_PER_MINUTE + 1


def test_many_addresses_do_not_fill_the_disk(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    for number in range(25_000):
        log.rejected("x", f"192.0.{number // 250}.{number % 250}")
    assert len(caplog.records) == log.LINES_IN_ALL
    clock.now += 60
    log.rejected("y", "192.0.2.1")
    assert caplog.records[-1].getMessage() == "event=y suppressed_in_all=24000 ip=192.0.2.1"


def test_many_addresses_do_not_fill_the_memory() -> None:
    for number in range(25_000):
        log.rejected("x", f"192.0.2.{number}")
    assert len(log._windows) <= 10_001
