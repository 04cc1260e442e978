"""Who may come in: Host, Origin, bearer token, ticket.

Every function raises a `PushError` or returns what was proved. Imported by the public doors.
"""

import re
import time
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from push_server.doors.context import Context
from push_server.doors.request import Request
from push_server.errors import BadInput, Denied, Misdirected, Unauthorized
from push_server.settings import Settings
from push_server.tokens import CLAIM_SECONDS, Grant, InvalidToken

_TOKEN_NAMES = frozenset({"token", "access_token", "auth", "authorization", "bearer", "jwt"})
_LIKE_A_TOKEN = re.compile(r"\.?[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{43}=*")


def check_host(request: Request, settings: Settings) -> None:
    """Refuse a Host that is not this server.

    Against DNS rebinding, and against a proxy that sends us another site's requests. Where
    `public_url` does not say who we are, IP addresses, localhost, and names in the domain of
    the site are taken for us.
    """
    host = request.header("host")
    target: str = request.environ.get("REQUEST_URI", "")
    absolute = "://" in target.partition("?")[0]
    if absolute and _host_of(target) != host.lower():
        # Absolute form (RFC 9112, 3.2.2): two names for one request are one too many.
        raise BadInput("host_mismatch", "The request names two hosts.")
    if not _is_us(
        host.lower(), settings.public_url, settings.document_domain, settings.site_origins
    ):
        raise Misdirected(
            "host_unknown",
            "This server is not that host; see `public_url`.",
            event="http.reject",
            reason="host",
            detail=host,
        )


def _host_of(target: str) -> str:
    """Host and port of an absolute target; empty if it has none."""
    try:
        return urlsplit(target).netloc.lower()
    except ValueError:  # half an IPv6 address
        return ""


@lru_cache(maxsize=64)
def _is_us(
    host: str, public_url: str, document_domain: str, site_origins: tuple[str, ...]
) -> bool:
    name = re.sub(r":[0-9]*$", "", host)
    if name == "localhost" or _is_ip(name.strip("[]")):
        return True
    if public_url:
        return name == urlsplit(public_url).hostname
    sites = [urlsplit(origin).hostname or "" for origin in site_origins]
    parents = [site.partition(".")[2] if site.count(".") > 1 else site for site in sites]
    ours = {document_domain, *parents} - {""}
    return not ours or any(name == domain or name.endswith("." + domain) for domain in ours)


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_origin(request: Request, settings: Settings) -> str:
    """The Origin of the request if it may talk to us; an empty string if it names none.

    Exact comparison with the list (scheme, host and port), never by suffix or pattern. The push
    origin itself is good: the hidden iframe is a page of it.
    """
    if "HTTP_ORIGIN" not in request.environ:
        if request.method == "POST" and request.header("sec-fetch-site") == "cross-site":
            # Browsers name the origin of every POST; here something has taken it away.
            raise Denied(
                "origin_denied",
                "A page of another site has to send its Origin.",
                event="origin.reject",
                reason="site",
            )
        return ""
    origin = request.header("origin")
    if origin in settings.site_origins or origin == settings.public_url:
        return origin
    if not settings.public_url and origin and origin.partition("://")[2] == request.header("host"):
        return origin
    raise Denied(
        "origin_denied",
        "This origin is not in `site_origins`.",
        event="origin.reject",
        reason="origin",
        detail=origin,
    )


def check_no_token_in_url(request: Request) -> None:
    """Refuse a token in the URL: URLs stand in logs, histories and Referer headers."""
    for name, value in request.query:
        like = name not in ("ticket", "since") and _LIKE_A_TOKEN.fullmatch(value)
        if name.lower() in _TOKEN_NAMES or like:
            raise BadInput(
                "token_in_url",
                "Send the token in the Authorization header.",
                event="auth.reject",
                reason="url",
            )


def authenticate(request: Request, context: Context, *, tickets: bool = False) -> Grant:
    """The grant of the bearer token or, where those are taken, of the ticket in the URL."""
    if ticket := request.parameter("ticket"):
        if not tickets:
            raise BadInput("token_in_url", "Tickets are for /subscribe; send the token.")
        grant = _spend_ticket(ticket, context)
    else:
        grant = context.tokens.verify(_bearer(request), time.time())
    if context.revocations.covers(grant.user, grant.session, grant.token_id, grant.issued):
        raise InvalidToken("revoked")
    return grant


def _bearer(request: Request) -> str:
    scheme, _, token = request.header("authorization").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized(
            "token_missing",
            "Send Authorization: Bearer and the token.",
            event="auth.reject",
            reason="missing",
        )
    return token.strip()


def _spend_ticket(text: str, context: Context) -> Grant:
    grant, ticket_id = context.tokens.open_ticket(text, time.time())
    first = context.crossing.call(context.broker.claim(f"ticket:{ticket_id}", CLAIM_SECONDS))
    if not first:
        raise InvalidToken("replay")
    return grant

