"""``GET /pull``: client pull, a page that a browser loads again and again by itself.

The last resort, without any JavaScript: an ordinary page with what was published last, and a
``Refresh`` header, which browsers have understood since 1995. The URL in that header has the next
ticket in it, so that the page goes on for as long as the token would have been good.

Nothing is kept between two loads, and nothing waits: the page is made of the history.
"""

import json
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

from push_server.brokers.base import Broker
from push_server.doors.context import Context
from push_server.doors.guard import authenticate
from push_server.doors.orders import sort_channels
from push_server.doors.request import Answer, Request
from push_server.errors import BadInput
from push_server.publications import Publication, check_id
from push_server.subscriber import visible_to
from push_server.tokens import TICKET_SECONDS
from push_server.transports.base import Headers

SHOWN = 20
SECONDS = 10
MOST_SECONDS = int(TICKET_SECONDS) - 10
"""The next ticket is good for 30 seconds, and the next request may take some of them."""

POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors "

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<ol>
{items}</ol>
"""


class PullDoor:
    """Shows the last publications of some channels."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, request: Request, headers: Headers) -> Answer:
        """The page, and when and how to ask for the next one."""
        context = self._context
        every = _seconds(request.parameter("every", str(SECONDS)))
        asked = request.parameters("channel")
        instance = request.parameter("instance")
        page_instance = check_id(instance, "instance") if instance else None
        grant = authenticate(request, context, tickets=True)
        channels, _ = sort_channels(asked, grant, context.settings.channels_per_connection)
        latest = context.crossing.call(_latest(context.broker, channels))
        shown = visible_to(page_instance, latest)[:SHOWN]
        query = urlencode(
            [
                *(("channel", channel) for channel in asked),
                *([("instance", instance)] if instance else ()),
                ("every", every),
                ("ticket", context.tokens.issue_ticket(grant, time.time())),
            ]
        )
        ancestors = " ".join(("'self'", *context.settings.site_origins))
        fields = [
            *headers,
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", POLICY + ancestors),
            ("Refresh", f"{every}; url=/pull?{query}"),
        ]
        items = "".join(f"<li>{escape(_text(each))}</li>\n" for each in shown)
        page = _PAGE.format(title=escape(", ".join(channels)), items=items)
        return 200, fields, [page.encode()]


async def _latest(broker: Broker, channels: Sequence[str]) -> list[Publication]:
    """The last publications of each of these channels, the newest first."""
    found: list[Publication] = []
    for channel in channels:
        head = (await broker.history(channel, 0, 1)).head
        since = max(head.offset - SHOWN, 0)
        found += (await broker.history(channel, since, SHOWN)).publications
    return sorted(found, key=lambda each: (each.time, each.position.offset), reverse=True)


def _text(publication: Publication) -> str:
    """What a publication is to a reader: its text, or its data as it is."""
    data: Any = json.loads(publication.json)["data"]
    if isinstance(data, Mapping) and isinstance(data.get("text"), str):
        return str(data["text"])
    return data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)


def _seconds(text: str) -> int:
    # A fraction counts as 0, and then browsers load the page a hundred times a second.
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:9]) <= MOST_SECONDS:
        raise BadInput("every_malformed", f"every is 1 to {MOST_SECONDS} whole seconds.")
    return int(text)
