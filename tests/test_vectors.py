"""Known answers that Python, PHP and any other implementation must agree on.

The files in `tests/vectors` were made from the formulas in `docs/protocol.rst`; here the
server's own code is held against them, and PHP in a process of its own.
"""

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from formulas import issue_token, sign_token, sign_webhook
from itsdangerous import URLSafeSerializer

from push_server.channels import ChannelSet, check_channel, is_pattern_or_name
from push_server.errors import BadInput, Denied, Unauthorized
from push_server.positions import (
    Position,
    channel_key,
    cursor_entry,
    join_cursor,
    parse_cursor,
    tag_of,
)
from push_server.signatures import ApiKey, decode_secret, sign, verify
from push_server.tokens import InvalidToken, TokenKeys

VECTORS = Path(__file__).parent / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def named(cases: list[dict[str, Any]]) -> list[Any]:
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names)
    return [pytest.param(case, id=case["name"]) for case in cases]


TOKENS = load("tokens")
SIGNATURES = load("signatures")
CURSORS = load("cursors")
CHANNELS = load("channels")


def library(keys: list[str]) -> URLSafeSerializer:
    """itsdangerous as its documentation would have a Python CMS use it."""
    return URLSafeSerializer(
        keys,
        salt="push.connect.v1",
        signer_kwargs={"key_derivation": "hmac", "digest_method": sha256},
    )


@pytest.mark.parametrize("case", named(TOKENS["signing"]))
def test_a_token_is_made_as_the_formula_says(case: dict[str, Any]) -> None:
    assert sign_token(case["json"].encode(), case["key"]) == case["token"]
    claims = json.loads(case["json"])
    assert library([case["key"]]).loads(case["token"]) == claims
    grant = TokenKeys([case["key"]]).verify(case["token"], claims["iat"])
    assert grant.claims == claims


def test_the_server_issues_what_others_verify() -> None:
    claims = json.loads(TOKENS["signing"][1]["json"])
    key = TOKENS["signing"][1]["key"]
    issued = TokenKeys(["an-older-key-that-must-not-sign", key]).issue(claims)
    assert issued == issue_token(claims, key) == TOKENS["signing"][1]["token"]


@pytest.mark.parametrize("case", named(TOKENS["verifying"]))
def test_a_token_is_accepted_or_refused(case: dict[str, Any]) -> None:
    keys = TokenKeys(case["keys"])
    if case["user"] is None:
        with pytest.raises(Unauthorized) as refusal:
            keys.verify(case["token"], case["now"])
        # One body for all causes: a refusal teaches an attacker nothing.
        assert refusal.value.body() == InvalidToken("any").body()
    else:
        assert keys.verify(case["token"], case["now"]).user == case["user"]
        assert library(case["keys"]).loads(case["token"])["sub"] == case["user"]


def test_every_case_says_rightly_whether_the_signature_holds() -> None:
    """Else a case about a claim could be refused for its signature, and prove nothing."""
    for case in TOKENS["verifying"]:
        value, _, signature = case["token"].rstrip("=").rpartition(".")
        signer = library(case["keys"]).make_signer()
        holds = all(byte.isascii() for byte in case["token"]) and signer.verify_signature(
            value, signature
        )
        assert holds or not case["signature"], case["name"]


@pytest.mark.parametrize("case", named(SIGNATURES["cases"]))
def test_a_signature_is_accepted_or_refused(case: dict[str, Any]) -> None:
    keys = [
        ApiKey(f"key{number}", decode_secret(secret), ChannelSet.of([f"c:{number}"]))
        for number, secret in enumerate(case["secrets"])
    ]
    body = case["body"].encode() if "body" in case else bytes.fromhex(case["body_hex"])
    given = (case["id"], case["timestamp"], case["signature"], body, case["now"])
    if case["valid"]:
        signer = verify(keys, *given)
        ours = [sign_webhook(s, case["id"], case["timestamp"], body) for s in case["secrets"]]
        signed_by = [i for i, text in enumerate(ours) if text in case["signature"].split(" ")]
        assert [signer.name] == [f"key{number}" for number in signed_by]
        assert sign(signer.secret, case["id"], int(case["timestamp"]), body) in ours
    else:
        with pytest.raises(Unauthorized) as refusal:
            verify(keys, *given)
        assert refusal.value.code == "signature_invalid"


def test_channel_names_and_patterns() -> None:
    for name in CHANNELS["names"]:
        assert check_channel(name) == name
        assert is_pattern_or_name(name)
    for name in CHANNELS["malformed"]:
        with pytest.raises(BadInput):
            check_channel(name)
    for name in CHANNELS["wildcards"]:
        with pytest.raises(Denied):
            check_channel(name)
    assert [text for text in CHANNELS["patterns"] if not is_pattern_or_name(text)] == []
    assert [text for text in CHANNELS["not_patterns"] if is_pattern_or_name(text)] == []


@pytest.mark.parametrize("case", CURSORS["entries"], ids=lambda case: case["entry"])
def test_a_cursor_entry_is_encoded_as_the_protocol_says(case: dict[str, Any]) -> None:
    tag = "0" if case["id"] is None else tag_of(case["id"])
    position = Position(case["epoch"], case["offset"], tag)
    assert cursor_entry(case["channel"], position) == case["entry"]
    read = parse_cursor(join_cursor([case["entry"]]))
    assert read == {channel_key(case["channel"]): position}


@pytest.mark.parametrize("case", CURSORS["cursors"], ids=lambda case: str(len(case["entries"])))
def test_a_cursor_joins_entries(case: dict[str, Any]) -> None:
    assert join_cursor(case["entries"]) == case["cursor"]
    assert len(parse_cursor(case["cursor"])) == len(case["entries"])


@pytest.mark.parametrize("text", [*CURSORS["malformed"], "9" * 20_000, "1" + "~a.1.1.0" * 3_000])
def test_a_malformed_cursor_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput) as refusal:
        parse_cursor(text)
    assert refusal.value.code == "cursor_malformed"


@pytest.mark.skipif(shutil.which("php") is None, reason="PHP is not installed (php-cli)")
def test_php_agrees_and_its_tokens_verify() -> None:
    run = subprocess.run(
        ["php", str(VECTORS / "check.php")], capture_output=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    answer = json.loads(run.stdout)
    assert answer["checked"] > 20
    assert len(answer["issued"]) == 4
    for token in answer["issued"]:
        grant = TokenKeys(["klíč-z-klíčenky-správce-webu-01"]).verify(token, 1_800_000_000)
        assert grant.claims["name"] == "Žofie Nguyễn 🌻 </script>"
        assert grant.may_subscribe("node:7") and grant.may_subscribe("a/b")
