"""``POST /presence``: who is in a channel, asked beside a transport that carries no commands.

What the WebSocket's command `presence` says, to whoever has a token for the channel.
"""

from push_server.channels import check_channel
from push_server.doors.commands import presence_limit, who_is_there
from push_server.doors.context import Context
from push_server.doors.guard import authenticate
from push_server.doors.request import Answer, Request, check_fields
from push_server.errors import Denied
from push_server.publications import dump_json
from push_server.settings import Settings
from push_server.transports.base import Headers


def check_told(channel: str, settings: Settings) -> None:
    """Raise `Denied` unless the subscribers of this channel are told of each other anyway."""
    namespace = settings.namespace.of(channel)
    if not (namespace.presence and namespace.join_leave):
        raise Denied("presence_denied", "Who is in this channel is not for its subscribers.")


class PresenceDoor:
    """Says who is there."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(self, request: Request, headers: Headers) -> Answer:
        """The users in a channel, on all nodes."""
        context = self._context
        grant = authenticate(request, context)
        fields = request.json_object(context.settings.max_body)
        check_fields(fields, {"channel"}, {"limit"})
        channel, limit = check_channel(fields["channel"]), presence_limit(fields)
        # A request by itself is nobody's subscriber: who may become one is told what one is told.
        if not grant.may_subscribe(channel):
            raise Denied("channel_denied", "The token does not allow subscribing there.")
        check_told(channel, context.settings)
        found = context.crossing.call(who_is_there(context.broker, channel, limit))
        return 200, list(headers), [dump_json(found)]
