"""From what a client asks for to what the hub is asked: channels it may have, cursor, instance.

The same for a query, for the first message of a WebSocket, and for what it subscribes to later.
Imported by the doors that subscribe.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from push_server.addresses import address_group, without_limit
from push_server.channels import check_channel, personal_channel
from push_server.errors import BadInput, Denied, TooMany
from push_server.positions import Position, parse_cursor
from push_server.publications import check_id
from push_server.settings import Settings
from push_server.subscriber import SubscribeRequest
from push_server.tokens import Grant
from push_server.transports.base import Headers, Transport

CHANNELS_LIMIT = 256
"""Channels that one request may name, whatever the settings say."""

FALLBACKS = frozenset({"blocked", "buffered", "stalled", "cut", "not_found", "unsupported"})
"""What a browser may report to be wrong with the better transport."""
OTHER = "other"
"""What counts for anything else, so that no client makes up a label of a metric."""


def sort_channels(
    asked: Sequence[Any], grant: Grant, limit: int, present: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """The channels that the grant allows, the personal one first, and those it does not.

    `present` are those that count against `limit` already. Raises `BadInput`, `TooMany`, and
    `Denied` if nothing that was asked for is left.
    """
    if len(asked) > CHANNELS_LIMIT:
        raise BadInput("too_many_channels", f"A request names {CHANNELS_LIMIT} at most.")
    personal = personal_channel(grant.user)
    granted = {personal: None}
    denied: dict[str, None] = {}
    for name in asked:
        try:
            known = grant.may_subscribe(check_channel(name))
        except Denied:
            known = False
        (granted if known else denied)[name] = None
    if len({*granted, *present} - {personal}) > limit:
        raise TooMany("too_many_channels", f"`channels_per_connection` allows {limit}.")
    if denied and not granted.keys() & set(asked):
        # The same answer whether or not such a channel exists.
        raise Denied("channel_denied", "The token grants none of these channels.")
    return list(granted), list(denied)


def cursor_of(text: object) -> Mapping[str, Position] | None:
    """The positions in a cursor; None for none. Raises `BadInput`."""
    if not isinstance(text, str | None):
        raise BadInput("cursor_malformed", "A cursor is a string.")
    return parse_cursor(text) if text else None


def make_order(
    settings: Settings,
    grant: Grant,
    ip: str,
    asked: Sequence[Any],
    *,
    transport: Transport,
    since: object,
    instance: object,
    headers: Headers = (),
    timeout: float = 0.0,
    keep_alive: bool = False,
    begun: bool = False,
    fallback: object = "",
) -> SubscribeRequest:
    """What the hub is asked for. Raises what is wrong with it."""
    channels, denied = sort_channels(asked, grant, settings.channels_per_connection)
    return SubscribeRequest(
        user=grant.user,
        session=grant.session,
        token_id=grant.token_id,
        issued=grant.issued,
        expires=grant.expires,
        address="" if ip in unlimited(settings) else address_group(ip),
        channels=channels,
        denied=denied,
        since=cursor_of(since),
        instance=check_id(instance, "instance") if instance else None,
        transport=transport,
        timeout=timeout,
        headers=headers,
        keep_alive=keep_alive,
        name=grant.name,
        begun=begun,
        fallback=_known(fallback),
    )


def _known(fallback: object) -> str:
    if not fallback:
        return ""
    return fallback if isinstance(fallback, str) and fallback in FALLBACKS else OTHER


def unlimited(settings: Settings) -> frozenset[str]:
    """The addresses that limits per address do not hold for."""
    return without_limit(settings.unlimited_addresses, settings.trusted_proxy)
