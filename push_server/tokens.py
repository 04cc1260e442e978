"""Tokens, tickets, and the grant that a verified one becomes.

The format is fixed in `docs/protocol.rst`, so that ten lines of any language can issue a token:
itsdangerous `URLSafeSerializer`, salt ``push.connect.v1``, SHA-256, HMAC key derivation.

Rules. Size and alphabet are checked before any cryptography, the signature before anything is
decompressed or parsed (CVE-2026-32301 read claims first). Every failure is the same
`Unauthorized`: its `reason` is for the log only, so that an attacker learns nothing from the
answer. Nothing is ever keyed by the text of a token, because one signature has several
spellings; what is revoked or counted is `jti`, `sid` and `user`.

Times are checked here and not by itsdangerous, whose `max_age` refuses a token issued by a
clock one second ahead.

Pure: `now` is an argument. The only importer of itsdangerous.
"""

import hmac
import json
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from itsdangerous import BadSignature, Signer
from itsdangerous.encoding import base64_decode, base64_encode
from itsdangerous.exc import BadData
from itsdangerous.signer import SigningAlgorithm

from push_server.channels import ChannelSet, check_channel, is_pattern_or_name, personal_channel
from push_server.errors import PushError, Unauthorized

TOKEN_SALT = b"push.connect.v1"
TICKET_SALT = b"push.ticket.v1"
TOKEN_LIMIT = 4096
UNFOLDING = 4
"""Times its own limit that a compressed token may unfold to."""
LEEWAY = 60.0
"""Seconds by which the clocks of the CMS and of this host may differ."""
LIFETIME_LIMIT = 7 * 86_400.0
"""Seconds after `iat` at which any token ends, so that revocations can be forgotten after that."""
TICKET_SECONDS = 30.0
CLAIM_SECONDS = 2 * TICKET_SECONDS
"""How long the broker remembers the use of a ticket."""
NAME_LIMIT = 128
"""Characters of a display name that are passed on."""

_TOKEN = re.compile(r"\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class InvalidToken(Unauthorized):
    """Raised if a token does not verify. All causes look the same to the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "token_invalid",
            "The token is not valid; ask the site for a new one.",
            event="auth.reject",
            reason=reason,
        )


class Grant(NamedTuple):
    """What a verified token or ticket allows."""

    user: str
    session: str
    token_id: str
    issued: float
    expires: float
    subscribe: ChannelSet
    publish: ChannelSet
    claims: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The display name, cut to what is shown; empty if the CMS gave none."""
        name = self.claims.get("name")
        if not isinstance(name, str):
            return ""
        # JSON can spell lone surrogates, which nothing else can encode.
        return name[:NAME_LIMIT].encode("utf-8", "replace").decode()

    def may_subscribe(self, channel: str) -> bool:
        """Whether this user may receive this channel."""
        return channel == personal_channel(self.user) or channel in self.subscribe

    def may_publish(self, channel: str) -> bool:
        """Whether this user may publish to this channel."""
        return channel in self.publish


class _HMAC(SigningAlgorithm):
    """HMAC-SHA256 in one call; `hmac.new` takes five times as long for a token."""

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return hmac.digest(key, value, "sha256")


class _Signer(Signer):
    """Derives the key of each secret once, and not for every token."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._derived: dict[Any, bytes] = {}
        super().__init__(*args, **kwargs)

    def derive_key(self, secret_key: str | bytes | None = None) -> bytes:
        derived = self._derived.get(secret_key)
        if derived is None:
            derived = self._derived[secret_key] = super().derive_key(secret_key)
        return derived


class TokenKeys:
    """The list of keys, oldest first: the newest signs, all of them verify.

    To rotate: append the new key here, then switch the CMS to it, then, one token lifetime
    later, drop the old one.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._tokens = self._signer(keys, TOKEN_SALT)
        self._tickets = self._signer(keys, TICKET_SALT)

    @staticmethod
    def _signer(keys: Sequence[str], salt: bytes) -> Signer:
        # The library's defaults are SHA-1 and "django-concat"; both are passed explicitly.
        return _Signer(
            list(keys), salt=salt, key_derivation="hmac", digest_method=sha256, algorithm=_HMAC()
        )

    def issue(self, claims: Mapping[str, Any]) -> str:
        """A token with these claims, as a CMS would issue it (never compressed)."""
        return _sign(self._tokens, claims)

    def verify(self, token: str, now: float) -> Grant:
        """The grant of this token.

        Raises `InvalidToken` for whatever is wrong with it.
        """
        return _grant(_open(self._tokens, token), now)

    def issue_ticket(self, grant: Grant, now: float) -> str:
        """A ticket that carries this grant for one request within 30 seconds."""
        ticket = {"id": secrets.token_urlsafe(12), "until": now + TICKET_SECONDS}
        # Compressed if that is shorter, so that it fits whatever a compressed token could say.
        return _sign(self._tickets, {**grant.claims, "ticket": ticket}, compress=True)

    def open_ticket(self, text: str, now: float) -> tuple[Grant, str]:
        """The grant in this ticket, and the id under which its only use is to be claimed.

        Raises `InvalidToken`. The caller must claim the id at the broker before it acts.
        """
        claims = _open(self._tickets, text, limit=2 * TOKEN_LIMIT)
        ticket = claims["ticket"]
        # A clock that was set back would have it outlive the claim, and be good again.
        if not now <= ticket["until"] <= now + CLAIM_SECONDS:
            raise InvalidToken("ticket_expired")
        return _grant(claims, now), str(ticket["id"])


def _sign(signer: Signer, claims: Mapping[str, Any], *, compress: bool = False) -> str:
    payload = json.dumps(claims, separators=(",", ":")).encode()
    text = base64_encode(payload)
    if compress:
        text = min(text, b"." + base64_encode(zlib.compress(payload)), key=len)
    return signer.sign(text).decode("ascii")


def _open(signer: Signer, text: str, limit: int = TOKEN_LIMIT) -> dict[str, Any]:
    if len(text) > limit:
        raise InvalidToken("size")
    # Padding is a spelling of the same token; everything else off the alphabet is refused,
    # because base64 decoders skip it and would accept endless spellings.
    text = text.rstrip("=")
    if not _TOKEN.fullmatch(text):
        raise InvalidToken("form")
    try:
        payload = signer.unsign(text)
    except BadSignature:
        raise InvalidToken("badsig") from None
    try:
        if payload.startswith(b"."):
            claims = json.loads(_inflate(payload[1:], UNFOLDING * limit))
        else:
            claims = json.loads(base64_decode(payload))
    except (BadData, ValueError, RecursionError, zlib.error):
        raise InvalidToken("payload") from None
    if not isinstance(claims, dict):
        raise InvalidToken("payload")
    return claims


def _inflate(payload: bytes, limit: int) -> bytes:
    """The JSON of a compressed payload, as itsdangerous makes it when that is shorter."""
    inflater = zlib.decompressobj()
    data = inflater.decompress(base64_decode(payload), limit)
    if not inflater.eof:
        raise InvalidToken("size")
    return data


def _grant(claims: dict[str, Any], now: float) -> Grant:
    if claims.get("v") != 1 or isinstance(claims.get("v"), bool):
        raise InvalidToken("version")
    issued = _number(claims, "iat")
    expires = min(_number(claims, "exp"), issued + LIFETIME_LIMIT)
    if now > expires + LEEWAY:
        raise InvalidToken("exp")
    if now < issued - LEEWAY:
        raise InvalidToken("nbf")
    user = claims.get("sub")
    try:
        check_channel(personal_channel(user) if isinstance(user, str) and user else None)
    except PushError:
        raise InvalidToken("sub") from None
    assert isinstance(user, str)
    return Grant(
        user=user,
        session=_text(claims, "sid"),
        token_id=_text(claims, "jti"),
        issued=issued,
        expires=expires,
        subscribe=_channels(claims, "sub_ch"),
        publish=_channels(claims, "pub_ch"),
        claims=claims,
    )


def _number(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53:
        return value
    raise InvalidToken(name)


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if isinstance(value, str):
        return value
    raise InvalidToken(name)


def _channels(claims: dict[str, Any], name: str) -> ChannelSet:
    listed = claims.get(name, [])
    if isinstance(listed, list) and all(isinstance(entry, str) for entry in listed):
        return _channel_set(tuple(listed), name)
    raise InvalidToken(name)


@lru_cache(maxsize=1024)
def _channel_set(listed: tuple[str, ...], name: str) -> ChannelSet:
    """Cached: most users of a site have the same rights."""
    if all(map(is_pattern_or_name, listed)):
        return ChannelSet.of(listed)
    raise InvalidToken(name)
