"""From another program's message to a publish request.

Rules. A bridge publishes only to the channels its setting names: whoever can write to a queue
gets no more rights than that. A message that can never be published is `BadInput` or another
error below 500; the bridge parks it and goes on. Everything else is tried again with the same id,
so nothing is stored twice.

Imported by the bridges.
"""

import hashlib
import re

from push_server.doors.publish import dump_data
from push_server.doors.request import parse_json
from push_server.errors import BadInput, PushError, TooLarge
from push_server.publications import ID_LIMIT, PublishRequest

RETRY_SECONDS = (0.2, 30.0)
"""The first and the longest pause after a failure."""

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
    return PublishRequest(channel=channel, id=make_id(message_id), data=dump_data(data))


def make_id(given: str) -> str:
    """A publication id for whatever the other system calls its message, always the same one."""
    if _PLAIN_ID.fullmatch(given):
        return given
    digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
    return f"h-{digest[:40]}"


def is_final(error: PushError) -> bool:
    """Whether trying again would get the same answer."""
    return error.status < 500 and error.status != 429
