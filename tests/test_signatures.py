"""Signatures of API requests, with the published library as second signer and verifier."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from push_server.channels import ChannelSet
from push_server.signatures import (
    KEY_BYTES,
    WINDOW,
    ApiKey,
    InvalidSignature,
    decode_secret,
    sign,
    verify,
)

NOW = 1_800_000_000
SECRET = bytes(range(32))
OTHER = bytes(range(100, 132))
TEXT = "whsec_" + base64.b64encode(SECRET).decode()
CMS, PLUGIN = ApiKey("cms", SECRET), ApiKey("plugin", OTHER, ChannelSet.of(["chat:*"]))
BODY = b'{"method":"stats"}'


def check(
    *,
    keys: tuple[ApiKey, ...] = (CMS, PLUGIN),
    message_id: str = "msg_1",
    timestamp: str = str(NOW),
    signatures: str | None = None,
    body: bytes = BODY,
    now: float = NOW,
) -> ApiKey:
    if signatures is None:
        signatures = sign(SECRET, message_id, int(timestamp), body)
    return verify(keys, message_id, timestamp, signatures, body, now)


def reason(**given: Any) -> str:
    with pytest.raises(InvalidSignature) as error:
        check(**given)
    assert (error.value.status, error.value.code) == (401, "signature_invalid")
    return error.value.reason


def test_the_key_that_signed_is_known() -> None:
    assert check() is CMS
    assert check(signatures=sign(OTHER, "msg_1", NOW, BODY)) is PLUGIN
    assert check(keys=(PLUGIN, CMS)) is CMS


def test_one_good_signature_among_several_is_enough() -> None:
    good = sign(SECRET, "msg_1", NOW, BODY)
    other = sign(b"x" * 32, "msg_1", NOW, BODY)
    assert check(signatures=f"v1a,abc {other} {good} v2,x") is CMS
    assert reason(signatures=" ".join([other] * 8 + [good])) == "sig", "a loop has an end"


@pytest.mark.parametrize(
    "change",
    [
        {"body": BODY + b" "},
        {"message_id": "msg_2"},
        {"timestamp": str(NOW + 1)},
        {"keys": (PLUGIN,)},
        {"keys": ()},
    ],
)
def test_what_was_signed_cannot_be_altered(change: dict[str, Any]) -> None:
    assert reason(signatures=sign(SECRET, "msg_1", NOW, BODY), **change) == "sig"


def test_the_window() -> None:
    for skew in (-WINDOW, 0, WINDOW):
        assert check(now=NOW + skew) is CMS
    for late in (-WINDOW - 0.1, WINDOW + 0.1, 1e6):
        assert reason(now=NOW + late) == "time"


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "ä", "\u0661", "x" * 65, "a\n"])
def test_ids_that_are_none(message_id: str) -> None:
    assert reason(message_id=message_id, signatures="v1,x") == "form"


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "nan",
        "1800000000.0",
        "+180000000",
        " 1800000000",
        "180000000",
        "18000000000",
        "１８００００００００",
    ],
)
def test_times_that_are_none(timestamp: str) -> None:
    assert reason(timestamp=timestamp, signatures="v1,x") == "form"


@pytest.mark.parametrize("body", [b"", b" {}", b"null", b'"x"', b"1.{}"])
def test_bodies_that_could_shift_the_dots(body: bytes) -> None:
    assert reason(body=body) == "form"


@pytest.mark.parametrize(
    "signatures",
    ["", "v1", "v1,", "x", "V1,{}", "v1,{}=", "v1,{}\n", "v1, {}", "v2,{}", "v1,ä", "\u2028"],
)
def test_signatures_that_are_none(signatures: str) -> None:
    mac = sign(SECRET, "msg_1", NOW, BODY).removeprefix("v1,")
    assert reason(signatures=signatures.replace("{}", mac)) == "sig"


def test_a_shortened_or_flipped_signature() -> None:
    good = sign(SECRET, "msg_1", NOW, BODY)
    for place in range(3, len(good) - 2):
        flipped = good[:place] + ("A" if good[place] != "A" else "B") + good[place + 1 :]
        assert reason(signatures=flipped) == "sig"
        assert reason(signatures=good[:place]) == "sig"


def test_what_a_key_may_use() -> None:
    assert CMS.may_use("anything")
    assert PLUGIN.may_use("chat:lobby") and not PLUGIN.may_use("news")


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT.removeprefix("whsec_"),
        "WHSEC_" + TEXT,
        TEXT + "=",
        "whsec_" + "A" * 32 + "=",
        TEXT.rstrip("="),
        TEXT + "\n",
        TEXT.replace("A", "-", 1),
        "whsec_" + base64.b64encode(b"x" * (KEY_BYTES - 1)).decode(),
    ],
)
def test_secrets_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"API key|base64"):
        decode_secret(text)


def test_secrets() -> None:
    assert decode_secret(TEXT) == SECRET
    shortest = b"x" * KEY_BYTES
    assert decode_secret("whsec_" + base64.b64encode(shortest).decode()) == shortest


def test_the_published_library_agrees() -> None:
    library = pytest.importorskip("standardwebhooks")
    webhook = library.Webhook(TEXT)
    now = datetime.now(UTC).replace(microsecond=0)
    seconds = int(now.timestamp())
    theirs = webhook.sign("msg_1", now, BODY.decode())
    assert theirs == sign(SECRET, "msg_1", seconds, BODY)
    assert verify([CMS], "msg_1", str(seconds), theirs, BODY, seconds) is CMS
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(seconds),
        "webhook-signature": sign(SECRET, "msg_1", seconds, BODY),
    }
    assert webhook.verify(BODY.decode(), headers) == json.loads(BODY)
    with pytest.raises(library.WebhookVerificationError):
        webhook.verify(BODY.decode() + " ", headers)
