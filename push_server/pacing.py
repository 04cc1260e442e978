"""Pacing: when each of a crowd may load anew from the CMS.

A page that is told `reset` asks the CMS for its state. Where a log is lost, thousands are told in
the same moment, and would all ask in the same second. So each is told how long to wait: the first
not at all, the others as many a second as a CMS can bear, and whoever would have to wait longer
than the spread, at some time within it.

`now` is an argument. Event loop only. Imported by the hub.
"""

import random

AT_ONCE = 50
"""So many do not wait: no CMS is harmed by them."""
PER_SECOND = 100


class Pace:
    """The queue of those who load anew; it holds nobody, only the time at which it is empty."""

    def __init__(self, spread: float) -> None:
        self._spread = spread
        self._empty_at = 0.0

    def wait(self, now: float) -> float:
        """The seconds that the next one waits."""
        waits = max(self._empty_at - now - AT_ONCE / PER_SECOND, 0.0)
        if waits > self._spread:
            return random.uniform(0, self._spread)
        self._empty_at = max(self._empty_at, now) + 1 / PER_SECOND
        return waits
