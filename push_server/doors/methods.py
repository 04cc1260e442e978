"""The methods of WebSocket commands.

To add one: a coroutine function here, a line in `METHODS`, words in docs/protocol.rst, a test in
tests/test_websocket.py.

Each answers once, or raises; `connect` is answered by `hello`. Parameters nobody knows are refused.

Event loop only. Imported by the WebSocket door, which hands them to its conversations.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from push_server.channels import check_channel, personal_channel
from push_server.doors import renewal
from push_server.doors.commands import presence_limit, who_is_there
from push_server.doors.conversation import Answer, Conversation, Method, Params
from push_server.doors.orders import cursor_of, sort_channels
from push_server.doors.presence import check_told
from push_server.doors.publish import publish_request
from push_server.doors.request import check_fields
from push_server.errors import BadInput, Denied, PushError


async def connect(talk: Conversation, params: Params, answer: Answer) -> None:
    """``connect``: the token, and what goes into the query of other transports."""
    check_fields(params, set(), {"token", "channels", "since", "instance", "fallback"})
    grant = renewal.verified(talk.context, params.get("token"))
    await talk.begin(grant, _channels(params), params)


async def subscribe(talk: Conversation, params: Params, answer: Answer) -> None:
    """``subscribe``: more channels, without losing the connection."""
    check_fields(params, {"channels"}, {"since"})
    asked = _channels(params)
    subscriber, grant, context = talk.subscriber, talk.grant, talk.context
    granted, denied = sort_channels(
        asked, grant, context.settings.channels_per_connection, subscriber.channels
    )
    since = cursor_of(params.get("since"))
    named = [name for name in granted if name in asked]

    def tell() -> None:
        answer({"channels": named, "denied": denied, "cursor": subscriber.cursor})

    fresh = [name for name in named if name not in subscriber.channels]
    if fresh:
        await context.hub.subscribe(subscriber, grant.name, fresh, since, tell)
    else:
        tell()


async def unsubscribe(talk: Conversation, params: Params, answer: Answer) -> None:
    """``unsubscribe``: fewer channels."""
    check_fields(params, {"channels"}, set())
    asked = {check_channel(name) for name in _channels(params)}
    subscriber = talk.subscriber
    if personal_channel(subscriber.user) in asked:
        raise BadInput("params", "The personal channel cannot be left.")
    left = [name for name in subscriber.channels if name in asked]
    talk.context.hub.unsubscribe(subscriber, left)
    answer({"channels": left, "cursor": subscriber.cursor})


async def publish(talk: Conversation, params: Params, answer: Answer) -> None:
    """``publish``: as ``POST /publish``."""
    wish = publish_request(params, talk.grant, talk.context.settings)
    (result,) = await talk.context.broker.publish([wish])
    if isinstance(result, PushError):
        raise result
    answer(result.as_json())


async def presence(talk: Conversation, params: Params, answer: Answer) -> None:
    """``presence``: who is in a channel that one is in, if its subscribers may know."""
    check_fields(params, {"channel"}, {"limit"})
    channel, limit = check_channel(params["channel"]), presence_limit(params)
    if channel not in talk.subscriber.channels:
        raise Denied("channel_denied", "Only subscribers of a channel may ask who is there.")
    check_told(channel, talk.context.settings)
    answer(await who_is_there(talk.context.broker, channel, limit))


async def renew(talk: Conversation, params: Params, answer: Answer) -> None:
    """``renew``: a newer token of the same user and session, in place of the one there is."""
    check_fields(params, {"token"}, set())
    grant, subscriber = renewal.verified(talk.context, params["token"]), talk.subscriber
    lost = renewal.renew(talk.context, subscriber, talk.grant, grant)
    talk.take(grant)
    answer(
        {
            "expires": int(grant.expires),
            "channels": list(subscriber.channels),
            "denied": lost,
            "cursor": subscriber.cursor,
        }
    )


async def ping(talk: Conversation, params: Params, answer: Answer) -> None:
    """``ping``: a sign of life from the client, answered by ours."""
    check_fields(params, set(), set())
    answer({})


def _channels(params: Params) -> Sequence[Any]:
    channels = params.get("channels", [])
    if not isinstance(channels, list):
        raise BadInput("params", "channels is a list of channel names.")
    return channels


METHODS: Mapping[str, Method] = {
    "connect": connect,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    "publish": publish,
    "presence": presence,
    "renew": renew,
    "ping": ping,
}
