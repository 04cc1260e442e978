"""A newer token on a connection that lives: WebSocket and Bayeux.

Imported by the doors that have such connections. Event loop only.
"""

import time

from push_server.doors.context import Context
from push_server.errors import BadInput, Denied, Unauthorized
from push_server.subscriber import Subscriber
from push_server.tokens import CLAIM_SECONDS, Grant, InvalidToken


def verified(context: Context, token: object) -> Grant:
    """The grant of a token that came in a message. Raises `BadInput`, `Unauthorized`."""
    if token is None:
        raise Unauthorized("token_missing", "Send a token.", event="auth.reject", reason="missing")
    if not isinstance(token, str):
        raise BadInput("params", "token is a string.")
    grant = context.tokens.verify(token, time.time())
    if context.revocations.covers(grant.user, grant.session, grant.token_id, grant.issued):
        raise InvalidToken("revoked")
    return grant


async def opened(context: Context, ticket: object) -> Grant:
    """The grant of a ticket that came in a message. Raises `BadInput`, `InvalidToken`."""
    if not isinstance(ticket, str):
        raise BadInput("params", "ticket is a string.")
    grant, ticket_id = context.tokens.open_ticket(ticket, time.time())
    if not await context.broker.claim(f"ticket:{ticket_id}", CLAIM_SECONDS):
        raise InvalidToken("replay")
    if context.revocations.covers(grant.user, grant.session, grant.token_id, grant.issued):
        raise InvalidToken("revoked")
    return grant


def kept(grant: Grant) -> Grant:
    """What has to be kept of a grant: of the claims only the name, and they are most of it."""
    return grant._replace(claims={"name": grant.name})


def renew(context: Context, subscriber: Subscriber, before: Grant, after: Grant) -> list[str]:
    """Let a subscriber go on under a newer grant; the channels that it loses by that.

    Raises `Denied` if the grant is of somebody else.
    """
    if (after.user, after.session) != (before.user, before.session):
        raise Denied("other_session", "The token is of another user or session.")
    lost = [name for name in subscriber.channels if not after.may_subscribe(name)]
    context.hub.unsubscribe(subscriber, lost)
    context.hub.renew(subscriber, after.token_id, after.issued, after.expires)
    return lost
