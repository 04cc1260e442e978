"""Tokens and signatures from the formulas in `docs/protocol.rst`, not with the server's code.

Imported by `harness` and by tests that sign for themselves.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from itsdangerous import Signer

SALT = b"push.connect.v1"


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign_token(payload: bytes, key: str, salt: bytes = SALT) -> str:
    """A token over these bytes, from the formula alone."""
    value = b64(payload)
    derived = hmac.digest(key.encode(), salt, "sha256")
    return f"{value}.{b64(hmac.digest(derived, value.encode(), 'sha256'))}"


def issue_token(claims: Mapping[str, Any], key: str) -> str:
    """A token over these claims, made by itsdangerous and checked against the formula."""
    payload = json.dumps(claims, separators=(",", ":"), ensure_ascii=False).encode()
    signer = Signer(key, salt=SALT, key_derivation="hmac", digest_method=hashlib.sha256)
    token = signer.sign(b64(payload)).decode()
    assert token == sign_token(payload, key)
    return token


def sign_webhook(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    """The `webhook-signature` of a body, from the formula alone."""
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
