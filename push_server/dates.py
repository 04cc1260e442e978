"""``Date``, which the HTTP front adds to what it answers, for the answers that we write ourselves.

It is added where an answer is written, not where it was asked for: one that is held would carry the
time of its request, and browsers set their clock by it.

Imported by the hub's floor and by the doors.
"""

import time
from email.utils import formatdate
from functools import lru_cache


@lru_cache(maxsize=1)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)


def date_header() -> tuple[str, str]:
    """``Date``. Made once a second: to spell it takes longer than to encode a publication."""
    return "Date", _date_of(int(time.time()))
