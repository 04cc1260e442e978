"""Pacing: nobody waits without need, a crowd is spread, and nobody waits too long."""

from itertools import pairwise

from push_server.pacing import AT_ONCE, PER_SECOND, Pace


def test_a_few_do_not_wait() -> None:
    pace = Pace(20.0)
    for second in range(100):
        assert [pace.wait(float(second)) for _ in range(AT_ONCE)] == [0.0] * AT_ONCE


def test_a_crowd_comes_one_after_another() -> None:
    pace = Pace(20.0)
    waits = [pace.wait(1000.0) for _ in range(AT_ONCE + 1000)]
    assert waits[: AT_ONCE + 1] == [0.0] * (AT_ONCE + 1)
    for earlier, later in pairwise(waits[AT_ONCE:]):
        assert abs(later - earlier - 1 / PER_SECOND) < 1e-6
    assert abs(waits[-1] - 999 / PER_SECOND) < 1e-6
    assert 0 < pace.wait(1005.0) < 6, "and those who come later queue behind them"
    assert pace.wait(1100.0) == 0.0


def test_who_would_wait_too_long_comes_at_any_time() -> None:
    pace = Pace(20.0)
    waits = [pace.wait(0.0) for _ in range(10_000)]
    assert max(waits) <= 20.0
    seconds = [sum(second <= wait < second + 1 for wait in waits) for second in range(20)]
    assert max(seconds) < 2 * min(seconds) and sum(seconds) > 9_900
    assert pace.wait(20.6) < 1.0, "a crowd once told is forgotten"


def test_a_spread_of_nothing_paces_nobody() -> None:
    pace = Pace(0.0)
    assert {pace.wait(0.0) for _ in range(1000)} == {0.0}
