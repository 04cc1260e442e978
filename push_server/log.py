"""The log: one line per event, ``event=… key=value …``, on the standard logging module.

Rules. A line never contains a token, a ticket, a key or a payload: callers pass names and
numbers only. Values that came from outside are quoted as JSON and cut, so that CR, LF or an
ANSI escape in a request cannot forge a second line. Events that a client can cause are limited
to ten lines a minute for each (event, address), then counted and summed up in one line, and to a
thousand in all, so that an attack cannot fill the disk.

Imported by everybody; safe in every thread.
"""

import json
import logging
import re
import sys
import threading
import time

from push_server.addresses import address_group
from push_server.errors import PushError

LINES_PER_MINUTE = 10
LINES_IN_ALL = 1000
"""A minute, of whatever clients cause, however many addresses they have."""
FIELD_LIMIT = 512
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+,-]{1,128}")

_logger = logging.getLogger("push_server")
_lock = threading.Lock()
_Windows = dict[tuple[str, str], list[float]]
"""(event, address) -> [start of the minute, lines in it]."""
_windows: _Windows = {}
_in_all: _Windows = {}


# A net below the rule that callers pass no secrets: a token or ticket, an API key, a signature.
_SECRET = re.compile(
    r"\.?[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{43}|whsec_[A-Za-z0-9+/=]+|v1,[A-Za-z0-9+/]{43}="
)


def _field(value: object) -> str:
    # Cut first: the search takes the square of the length.
    text = _SECRET.sub("[secret]", str(value)[:FIELD_LIMIT])
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _line(event: str, fields: dict[str, object]) -> str:
    parts = (f"{key}={_field(value)}" for key, value in fields.items())
    return " ".join([f"event={event}", *parts])


def info(event: str, **fields: object) -> None:
    """Log something the operator did or the server went through."""
    _logger.info(_line(event, fields))


def warn(event: str, **fields: object) -> None:
    """Log something the operator should look at."""
    _logger.warning(_line(event, fields))


def error(event: str, failure: BaseException | None = None, **fields: object) -> None:
    """Log a failure of this server, with where it happened (by default: what is handled now)."""
    _logger.error(_line(event, fields), exc_info=failure or sys.exception())


def refused(error: PushError, ip: str) -> None:
    """Log what a client was refused, as `rejected` does."""
    detail = {"detail": error.detail} if error.detail else {}
    rejected(error.event, ip, status=error.status, reason=error.reason, **detail)


def rejected(event: str, ip: str, **fields: object) -> None:
    """Log what a client was refused; at most ten lines a minute for one address."""
    now = time.monotonic()
    with _lock:
        if len(_windows) > 10_000:
            # An attacker with many addresses must not grow this table either.
            _windows.clear()
        suppressed = _count(_windows, (event, address_group(ip)), LINES_PER_MINUTE, now)
        if suppressed is None:
            return
        suppressed_in_all = _count(_in_all, ("", ""), LINES_IN_ALL, now)
        if suppressed_in_all is None:
            return
    if suppressed:
        fields["suppressed"] = suppressed
    if suppressed_in_all:
        fields["suppressed_in_all"] = suppressed_in_all
    _logger.info(_line(event, {**fields, "ip": ip}))


def _count(windows: _Windows, key: tuple[str, str], limit: int, now: float) -> int | None:
    """How many lines the last minute was over the limit; None if this one is."""
    window = windows.get(key)
    suppressed = 0
    if window is None or now - window[0] >= 60:
        if window is not None:
            suppressed = max(int(window[1]) - limit, 0)
        window = windows[key] = [now, 0]
    window[1] += 1
    return suppressed if window[1] <= limit else None
