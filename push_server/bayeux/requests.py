"""The messages in a request, however it spells them, and the answer in the same spelling.

Clients send a JSON array or one object, as a body of whatever type, as a form field ``message``
(Faye calls that text/plain), or as a query parameter where only a script element can ask.

Pure. Imported by the Bayeux doors.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from push_server.errors import BadInput

MESSAGES_LIMIT = 1_000
"""Messages in one request, as in one of the internal API."""

Message = Mapping[str, Any]

_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]{0,63}")
_CLIENT_ID = re.compile(rb'clientId(?:[\s":+]|%[0-9A-Fa-f]{2}){1,12}([A-Za-z0-9_-]{1,64})')


def client_ids(body: bytes) -> list[str]:
    """What a body seems to name as clientIds, in JSON or in a form, before it is read."""
    return [found.decode() for found in _CLIENT_ID.findall(body)]


def json_of(body: bytes) -> bytes:
    """The JSON in a body: as it is, or in the form field ``message``. Raises `BadInput`."""
    if not body.lstrip().startswith(b"message="):
        return body
    try:
        fields = parse_qsl(body.decode("ascii"), strict_parsing=True, errors="strict")
    except ValueError:
        raise BadInput("form_malformed", "The form cannot be read.") from None
    found = [value for name, value in fields if name == "message"]
    if len(found) != 1:
        raise BadInput("form_malformed", "A form has one field message.")
    return found[0].encode()


def messages_of(value: Any) -> list[Message]:
    """The messages in what was parsed. Raises `BadInput`: then the client is none."""
    messages = value if isinstance(value, list) else [value]
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise BadInput("messages", "A request has one message, or a list of them.")
    if len(messages) > MESSAGES_LIMIT:
        raise BadInput("messages", f"A request has {MESSAGES_LIMIT} messages at most.")
    return messages


def check_callback(name: str) -> str:
    """The name of a function to call. Raises `BadInput` for anything else.

    Whatever stands there comes first in a script, so that it must not be able to say anything.
    """
    if not _CALLBACK.fullmatch(name):
        raise BadInput("callback_malformed", "jsonp is the name of a function.")
    return name


def script(callback: str, array: bytes) -> bytes:
    """A call with this array; `array` is ASCII, in which no script can end.

    The comment keeps it from being a file of another kind (Flash once took the first bytes).
    """
    return b"/**/%b(%b);" % (callback.encode(), array.replace(b"<", b"\\u003c"))
