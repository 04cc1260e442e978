"""From another program's message to a publish request.

Rules. A bridge publishes only to the channels its setting names: whoever can write to a queue
gets no more rights than that. A message that can never be published is `BadInput` or another
error below 500; the bridge parks it and goes on. Everything else is tried again with the same id,
so nothing is stored twice.

Imported by the bridges.
"""

import hashlib
import random
import re
import time

from push_server import log
from push_server.doors.request import parse_json
from push_server.errors import BadInput, PushError, TooLarge
from push_server.publications import ID_LIMIT, PublishRequest, dump_json

RETRY_SECONDS = (0.2, 30.0)
"""The first and the longest pause after a failure."""
COMPLAIN_SECONDS = 60.0
"""At most one line in the log per reason and this time, however many messages are concerned."""

_PLAIN_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{ID_LIMIT}}}")


def make_request(
    channel: str, message_id: str, body: bytes, max_body: int, *, text: bool = False
) -> PublishRequest:
    """The publish request for a message, whose body is JSON or, with `text`, plain UTF-8.

    Raises `PushError` for what can never be published.
    """
    if len(body) > max_body:
        raise TooLarge("body_too_large", f"The body is larger than max_body = {max_body}.")
    if text:
        try:
            data: object = body.decode("utf-8")
        except UnicodeDecodeError:
            raise BadInput("text_malformed", "The body is not UTF-8.") from None
    else:
        data = parse_json(body)
    return PublishRequest(channel=channel, id=make_id(message_id), data=dump_json(data))


def make_id(given: str) -> str:
    """A publication id for whatever the other system calls its message, always the same one."""
    if _PLAIN_ID.fullmatch(given):
        return given
    digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
    return f"h-{digest[:40]}"


def is_final(error: PushError) -> bool:
    """Whether trying again would get the same answer."""
    return error.status < 500 and error.status != 429


def pause(attempt: int) -> float:
    """Seconds to wait after so many failures in a row, of which there is no end."""
    first, longest = RETRY_SECONDS
    # Bounded before it is raised: a float has no room for the power of a long outage.
    return min(first * 2.0 ** min(attempt, 10), longest) * random.uniform(0.5, 1.0)


class Complaints:
    """What a bridge has to say of its troubles."""

    def __init__(self, bridge: str) -> None:
        self._bridge = bridge
        self._said: dict[str, float] = {}

    def say(self, event: str, reason: str, **details: str) -> None:
        """One line in the log for each reason and minute."""
        now = time.monotonic()
        if now - self._said.get(reason, -COMPLAIN_SECONDS) >= COMPLAIN_SECONDS:
            self._said[reason] = now
            log.warn(event, bridge=self._bridge, reason=reason, **details)

    def forget(self) -> None:
        """All is well again: say the next one at once."""
        self._said.clear()
