"""The token that lets a page of this site listen: what a CMS has to be able to issue.

Written from `docs/protocol.rst` with a hash function and nothing else, as it would be in PHP.
"""

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

SALT = b"push.connect.v1"


def issue_token(claims: Mapping[str, Any], key: str) -> str:
    """A token with these claims, good at the push server that has the same key."""
    payload = _base64(json.dumps(claims, separators=(",", ":")).encode())
    derived = hmac.digest(key.encode(), SALT, "sha256")
    return payload + "." + _base64(hmac.digest(derived, payload.encode(), "sha256"))


def hash_session(session: str, key: str) -> str:
    """What the push server knows of a session: enough to name it, nothing to use it with."""
    return _base64(hmac.digest(key.encode(), b"push.sid.v1:" + session.encode(), "sha256"))[:22]


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
