"""Signed API requests: the Standard Webhooks wire format, with a verifier of our own.

The published libraries leave holes that a verifier for an API must not have: the dots that
join id, timestamp and body can be shifted unless the id has no dot and the time is exactly ten
digits; a float, ``nan`` or a non-UTF-8 body raises something other than "not verified". So:
bytes in, a `Key` out, and every malformed input is the same `Unauthorized`. The format itself
is https://github.com/standard-webhooks/standard-webhooks (2023).

Pure: `now` is an argument.
"""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from push_server.channels import ChannelSet
from push_server.errors import Unauthorized

WINDOW = 300
"""Seconds a signature is good, before and after its timestamp."""
KEY_BYTES = 24
"""The least a secret decodes to: 192 bits."""

_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_TIME = re.compile(rb"[0-9]{10}")
_SIGNATURE = re.compile(rb"v1,([A-Za-z0-9+/]{43}=)")


class InvalidSignature(Unauthorized):
    """Raised if a request is not signed as it must be. All causes look the same outside."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "signature_invalid",
            "The request is not signed with a known API key.",
            event="api.reject",
            reason=reason,
        )

    def headers(self) -> tuple[tuple[str, str], ...]:
        """None: Standard Webhooks is no scheme of the Authorization header."""
        return ()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A secret of the internal API, and the channels it may publish to (`None`: all)."""

    name: str
    secret: bytes
    channels: ChannelSet | None = None

    def may_use(self, channel: str) -> bool:
        """Whether this key may publish to, or read, this channel."""
        return self.channels is None or channel in self.channels


def decode_secret(text: str) -> bytes:
    """The key bytes of a ``whsec_…`` secret. Raises `ValueError` saying what is wrong."""
    if not text.startswith("whsec_"):
        raise ValueError("an API key begins with whsec_")
    try:
        secret = b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise ValueError("what follows whsec_ is not base64") from None
    if b64encode(secret).decode() != text.removeprefix("whsec_"):
        # Python takes padding that other decoders refuse: one spelling for one key.
        raise ValueError("what follows whsec_ is not base64")
    if len(secret) < KEY_BYTES:
        raise ValueError(f"an API key has at least {KEY_BYTES} bytes")
    return secret


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature`` for this request."""
    return "v1," + b64encode(_mac(secret, message_id.encode(), b"%d" % timestamp, body)).decode()


def verify(
    keys: Iterable[ApiKey],
    message_id: str,
    timestamp: str,
    signatures: str,
    body: bytes,
    now: float,
) -> ApiKey:
    """The key that signed this request.

    The three texts are header values. Raises `InvalidSignature`. Every key is tried against
    every signature, in constant time each, so that neither can be told apart by timing.
    """
    given_id = message_id.encode("latin-1", "replace")
    given_time = timestamp.encode("latin-1", "replace")
    if not _ID.fullmatch(given_id) or not _TIME.fullmatch(given_time):
        raise InvalidSignature("form")
    if body[:1] not in (b"{", b"["):
        # With this the first byte after the second dot is fixed, and the dots cannot shift.
        raise InvalidSignature("form")
    if abs(now - int(given_time)) > WINDOW:
        raise InvalidSignature("time")
    given = [
        b64decode(match[1])
        for part in signatures.encode("latin-1", "replace").split(b" ")[:8]
        if (match := _SIGNATURE.fullmatch(part))
    ]
    signer: ApiKey | None = None
    for key in keys:
        expected = _mac(key.secret, given_id, given_time, body)
        for signature in given:
            if hmac.compare_digest(expected, signature):
                signer = key
    if signer is None:
        raise InvalidSignature("sig")
    return signer


def _mac(secret: bytes, message_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, b"%b.%b.%b" % (message_id, timestamp, body), "sha256")
