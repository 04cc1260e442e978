"""The transports and who reads them, for the contract that holds on all of them.

To add one: a line in `READERS`, and its name in the groups that say what it carries. Imported by
`test_transports.py` and `test_transports_ends.py`.
"""

import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from harness import SITE, PushServer
from waiting import PATIENCE
from wire import Asked, Poll, Receiver, Refused, Sse, Stream
from wire_bayeux import CallbackPolling, EventSource, LongPolling, WebSocket
from wire_classic import Frame, Interval, Jsonp, Pictures, Pull, picture
from wire_ws import Ws

Reader = Callable[[Asked], Receiver]

READERS: dict[str, Reader] = {
    "sse": Sse,
    "stream": Stream,
    "ws": Ws,
    "frame": Frame,
    "poll": Poll,
    "interval": Interval,
    "jsonp": Jsonp,
    "bayeux-long-polling": LongPolling,
    "bayeux-callback-polling": CallbackPolling,
    "bayeux-websocket": WebSocket,
    "bayeux-eventsource": EventSource,
    "multipart": Pictures,
    "pull": Pull,
}
STREAMS = ("sse", "stream", "ws", "frame")
POLLS = ("poll", "interval", "jsonp")
BAYEUX = tuple(name for name in READERS if name.startswith("bayeux"))
CARRIERS = (*STREAMS, *POLLS, *BAYEUX)
"""All that carry any data, control messages and a cursor."""
PUBLISHERS = ("ws", *BAYEUX)
"""All that carry publications both ways; beside the others there is ``POST /publish``."""
HELD = tuple(name for name in CARRIERS if name != "interval")
"""Of the carriers, those that the server can tell something at any time."""

NEEDED = {"frame": (("origin", SITE),), "jsonp": (("callback", "cb"),)}
"""What some want in their URL besides."""

_numbers = count()


def over(*transports: str) -> pytest.MarkDecorator:
    """Run the test once for each of these transports."""
    return pytest.mark.parametrize("transport", transports)


def fresh(topic: str) -> str:
    """A name that no other test has."""
    return f"{topic}{next(_numbers)}"


def subscribe(
    push: PushServer, transport: str, token: str, *channels: str, **options: Any
) -> Any:
    """A subscriber that has been let in, and told where it stands; else `Refused`."""
    shown: str | None = token
    if transport == "bayeux-callback-polling":
        # URLs are logged, so they take no token.
        response = push.request("POST", "/ticket", token=token)
        if response.status != 200:
            raise Refused(response)
        shown, options = None, {"ticket": push.remember(response.json()["ticket"]), **options}
    if transport == "bayeux-websocket":
        options = {"origin": SITE, **options}
    more = NEEDED.get(transport, ())
    return push.subscribe(READERS[transport], shown, channels, *more, **options)


def thing(transport: str, number: int, size: int = 0) -> Any:
    """What a transport can show: data to be published, other data for each number."""
    if transport == "multipart":
        return picture(number, size)
    return f"thing {number}{'.' * size}" if transport == "pull" or size else number


def things(transport: str, *numbers: int) -> list[Any]:
    return [thing(transport, number) for number in numbers]


def data(reader: Receiver, number: int) -> list[Any]:
    """The data of the next publications."""
    return [message.value["data"] for message in reader.take(number)]


def told(reader: Receiver, *channels: str) -> dict[str, str]:
    """What it is told of these channels: "recovered", or the reason of a reset. Publications that
    come before all of them are named (of those that were) come again."""
    found: dict[str, str] = {}
    early = []
    deadline = time.monotonic() + PATIENCE
    while not found.keys() >= set(channels):
        assert time.monotonic() < deadline, f"told of {found} only"
        message = reader.next()
        if message.control is None:
            early.append(message)
        elif message.control in ("recovered", "reset"):
            word = message.value.get("reason", "recovered")
            named = dict.fromkeys(message.value["channels"], word)
            assert not found.keys() & named.keys(), "named twice"
            found |= named
    reader.waiting.extendleft(reversed(early))
    return {channel: found[channel] for channel in channels}


def hold(reader: Receiver) -> None:
    """Have a request under way, where it takes one to be told something."""
    if isinstance(reader, Poll | LongPolling):
        reader.hold()


def subscribers(push: PushServer, channel: str) -> int:
    found: dict[str, Any] = push.api("channels", prefix=channel)["channels"]
    return int(found.get(channel, {}).get("subscribers", 0))
