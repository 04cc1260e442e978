"""``POST /publish`` and ``POST /ticket``: what a browser may do besides listening."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

from push_server.channels import check_channel
from push_server.doors.context import Context
from push_server.doors.guard import authenticate
from push_server.doors.request import Answer, Request
from push_server.errors import BadInput, Denied, PushError
from push_server.publications import PublishRequest, check_id, dump_json
from push_server.settings import Settings
from push_server.tokens import Grant
from push_server.transports.base import Headers

FIELDS = frozenset({"channel", "data", "id", "exclude"})


def publish_request(
    fields: Mapping[str, Any], grant: Grant, settings: Settings
) -> PublishRequest:
    """What a browser wants published, if its token allows it. Raises `BadInput`, `Denied`."""
    if not FIELDS.issuperset(fields) or "data" not in fields:
        raise BadInput("fields", "A publish has channel and data, and may have id, exclude.")
    channel = check_channel(fields.get("channel"))
    if not settings.namespace.of(channel).client_publish or not grant.may_publish(channel):
        raise Denied("channel_denied", "The token does not allow publishing there.")
    exclude = fields.get("exclude")
    return PublishRequest(
        channel=channel,
        id=check_id(fields["id"]) if "id" in fields else secrets.token_urlsafe(12),
        data=dump_json(fields["data"]),
        user=grant.user,
        exclude=None if exclude is None else check_id(exclude, "exclude"),
    )


class PublishDoor:
    """Publishes for the user of the token."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, request: Request, headers: Headers) -> Answer:
        """The place of the publication."""
        context = self._context
        grant = authenticate(request, context)
        fields = request.json_object(context.settings.max_body)
        wish = publish_request(fields, grant, context.settings)
        (result,) = context.crossing.call(context.broker.publish([wish]))
        if isinstance(result, PushError):
            raise result
        return 200, list(headers), [dump_json(result.as_json())]


class TicketDoor:
    """Sells a ticket for a token."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, request: Request, headers: Headers) -> Answer:
        """A fresh ticket."""
        grant = authenticate(request, self._context)
        ticket = self._context.tokens.issue_ticket(grant, time.time())
        return 200, list(headers), [dump_json({"ticket": ticket})]
