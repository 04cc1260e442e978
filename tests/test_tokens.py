"""Tokens and tickets: what verifies, what does not, and in which order things are looked at."""

import base64
import hashlib
import json
import zlib
from typing import Any

import pytest
from itsdangerous import Signer, URLSafeSerializer

from push_server import tokens
from push_server.tokens import (
    CLAIM_SECONDS,
    LEEWAY,
    LIFETIME_LIMIT,
    TICKET_SECONDS,
    TOKEN_LIMIT,
    UNFOLDING,
    InvalidToken,
    TokenKeys,
)

NOW = 1_800_000_000
OLD, NEW = "the older key, 32 characters....", "the newer key, 32 characters...."
KEYS = TokenKeys([OLD, NEW])


def claims(**changes: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "sub": "42",
        "sid": "session",
        "iat": NOW,
        "exp": NOW + 600,
        "sub_ch": ["node:*", "news"],
        "pub_ch": ["chat:lobby"],
        **changes,
    }


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in claims().items() if key != name}


def sign(payload: bytes, key: str = NEW, salt: bytes = tokens.TOKEN_SALT) -> str:
    """A token over these bytes as they are."""
    signer = Signer(key, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)
    return signer.sign(payload).decode()


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def reason(token: str, now: float = NOW) -> str:
    """Why this token does not verify; empty if it does."""
    try:
        KEYS.verify(token, now)
    except InvalidToken as error:
        return error.reason
    return ""


def test_round_trip() -> None:
    grant = KEYS.verify(KEYS.issue(claims(jti="t1", name="Alice")), NOW)
    assert (grant.user, grant.session, grant.token_id) == ("42", "session", "t1")
    assert (grant.issued, grant.expires) == (NOW, NOW + 600)
    assert grant.claims["name"] == "Alice"
    assert [grant.may_subscribe(name) for name in ("node:7", "news", "user:42")] == [True] * 3
    assert not grant.may_subscribe("user:43") and not grant.may_subscribe("chat:lobby")
    assert grant.may_publish("chat:lobby")
    assert not grant.may_publish("news") and not grant.may_publish("user:42")


def test_all_refusals_are_the_same_answer() -> None:
    one, other = InvalidToken("badsig"), InvalidToken("exp")
    assert one.status == other.status == 401 and one.code == "token_invalid"
    assert one.body() == other.body() and str(one) == str(other)


def test_optional_claims() -> None:
    bare = {"v": 1, "sub": "42", "iat": NOW, "exp": NOW + 1}
    grant = KEYS.verify(KEYS.issue(bare), NOW)
    assert (grant.session, grant.token_id) == ("", "")
    assert not grant.may_subscribe("news") and grant.may_subscribe("user:42")


def test_the_newest_key_signs_and_all_of_them_verify() -> None:
    assert reason(TokenKeys([OLD]).issue(claims())) == ""
    token = KEYS.issue(claims())
    assert TokenKeys([NEW]).verify(token, NOW).user == "42"
    with pytest.raises(InvalidToken):
        TokenKeys([OLD]).verify(token, NOW)
    assert reason(TokenKeys(["some other key, 32 characters..."]).issue(claims())) == "badsig"


def test_the_library_itself_is_a_second_signer_and_verifier() -> None:
    library = URLSafeSerializer(
        [OLD, NEW],
        salt="push.connect.v1",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
    token = library.dumps(claims())
    assert KEYS.verify(str(token), NOW).user == "42"
    assert library.loads(KEYS.issue(claims())) == claims()


def test_another_salt_or_derivation_is_another_token() -> None:
    payload = b64(json.dumps(claims()).encode())
    assert reason(sign(payload)) == ""
    assert reason(sign(payload, salt=tokens.TICKET_SALT)) == "badsig"
    assert reason(sign(payload, salt=b"itsdangerous")) == "badsig"
    default = Signer(NEW, salt=tokens.TOKEN_SALT).sign(payload).decode()
    assert reason(default) == "badsig"


@pytest.mark.parametrize(
    ("iat", "exp", "now", "expected"),
    [
        (NOW, NOW + 600, NOW + 600 + LEEWAY, ""),
        (NOW, NOW + 600, NOW + 600 + LEEWAY + 0.1, "exp"),
        (NOW + LEEWAY, NOW + 600, NOW, ""),
        (NOW + LEEWAY + 0.1, NOW + 600, NOW, "nbf"),
        # No token lives longer than revocations are remembered.
        (NOW, 2**52, NOW + LIFETIME_LIMIT + LEEWAY, ""),
        (NOW, 2**52, NOW + LIFETIME_LIMIT + LEEWAY + 1, "exp"),
    ],
)
def test_the_edges_of_time(iat: float, exp: float, now: float, expected: str) -> None:
    assert reason(KEYS.issue(claims(iat=iat, exp=exp)), now) == expected


WRONG = [
    ("version", without("v")),
    ("version", claims(v=2)),
    ("version", claims(v="1")),
    ("version", claims(v=True)),
    ("iat", without("iat")),
    ("iat", claims(iat=True)),
    ("iat", claims(iat=str(NOW))),
    ("iat", claims(iat=-1)),
    ("iat", claims(iat=2**53)),
    ("exp", without("exp")),
    ("exp", claims(exp=None)),
    ("sub", without("sub")),
    ("sub", claims(sub="")),
    ("sub", claims(sub=42)),
    ("sub", claims(sub="a b")),
    ("sub", claims(sub="*")),
    ("sub", claims(sub="x" * 128)),
    ("sid", claims(sid=7)),
    ("jti", claims(jti=["x"])),
    ("sub_ch", claims(sub_ch="*")),
    ("sub_ch", claims(sub_ch={"*": 1})),
    ("sub_ch", claims(sub_ch=[7])),
    ("sub_ch", claims(sub_ch=["a*b"])),
    ("sub_ch", claims(sub_ch=["$ready"])),
    ("pub_ch", claims(pub_ch=[[]])),
    ("pub_ch", claims(pub_ch=["good", "\n"])),
]


@pytest.mark.parametrize(
    ("expected", "given"), WRONG, ids=[f"{r}-{i}" for i, (r, _) in enumerate(WRONG)]
)
def test_claims_that_are_wrong(expected: str, given: dict[str, Any]) -> None:
    assert reason(KEYS.issue(given)) == expected


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b'"x"',
        b"null",
        b"{",
        b"",
        b"\xff\xfe",
        b'{"v":1,"sub":"42","iat":NaN,"exp":Infinity}',
        b"[" * 1000,
    ],
)
def test_payloads_that_are_no_claims(payload: bytes) -> None:
    assert reason(sign(b64(payload) or b"AA")) in ("payload", "iat")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a",
        "a.",
        ".a",
        "a.b.c.d",
        "a b.c",
        "ä.b",
        "a.b\n",
        "a.b\x00",
        " a.b",
        "a/b.c",
        "a+b.c",
    ],
)
def test_texts_that_are_no_tokens(text: str) -> None:
    assert reason(text) in ("form", "badsig")


def test_every_bit_counts() -> None:
    token = KEYS.issue(claims())
    for place in range(len(token) - 1):
        flipped = token[:place] + chr(ord(token[place]) ^ 1) + token[place + 1 :]
        assert reason(flipped) in ("form", "badsig"), place


def test_padding_and_the_spare_bits_of_the_last_character_are_spellings_of_one_token() -> None:
    token = KEYS.issue(claims(jti="t1"))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place = alphabet.index(token[-1])
    spellings = [token[:-1] + alphabet[place & ~3 | bits] for bits in range(4)] + [token + "=="]
    grants = [KEYS.verify(spelling, NOW) for spelling in spellings]
    assert {grant.token_id for grant in grants} == {"t1"}
    assert grants[1:] == grants[:-1], "nothing in a grant tells the spellings apart"


# Size, and compression


def test_size_is_looked_at_before_any_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens._Signer, "unsign", lambda *_: pytest.fail("cryptography"))
    assert reason("a" * (TOKEN_LIMIT - 1) + ".b") == "size"
    assert reason("a" * 1_000_000 + ".b") == "size"
    assert reason("no token") == "form"


def test_the_largest_token() -> None:
    token = KEYS.issue(claims(pad=""))
    room = (TOKEN_LIMIT - len(token)) * 3 // 4
    largest = KEYS.issue(claims(pad="x" * (room - 1)))
    assert TOKEN_LIMIT - 4 <= len(largest) <= TOKEN_LIMIT
    assert reason(largest) == ""
    assert reason(KEYS.issue(claims(pad="x" * (room + 2)))) == "size"


def compressed(given: Any, key: str = NEW) -> str:
    return sign(b"." + b64(zlib.compress(json.dumps(given).encode(), 9)), key)


def test_a_compressed_token_is_opened() -> None:
    channels = [f"node:{number}" for number in range(600)]
    token = compressed(claims(sub_ch=channels))
    assert len(token) < TOKEN_LIMIT
    assert KEYS.verify(token, NOW).may_subscribe("node:599")


def test_nothing_is_inflated_before_the_signature_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib, "decompressobj", lambda: pytest.fail("inflated"))
    assert reason(compressed(claims(), key="some other key")) == "badsig"


@pytest.mark.parametrize("size", [UNFOLDING * TOKEN_LIMIT, 2_000_000])
def test_a_bomb_is_not_unfolded(size: int) -> None:
    assert reason(compressed(claims(pad="x" * size))) == "size"


@pytest.mark.parametrize("payload", [b".", b".AAAA", b"." + b64(zlib.compress(b"{}")[:-1])])
def test_broken_compression(payload: bytes) -> None:
    assert reason(sign(payload)) in ("form", "payload", "size")


# Tickets


def test_a_ticket_carries_the_grant() -> None:
    grant = KEYS.verify(KEYS.issue(claims(jti="t1")), NOW)
    ticket = KEYS.issue_ticket(grant, NOW)
    opened, ticket_id = KEYS.open_ticket(ticket, NOW + TICKET_SECONDS)
    assert opened._replace(claims={}) == grant._replace(claims={})
    other = KEYS.open_ticket(KEYS.issue_ticket(grant, NOW), NOW)[1]
    assert ticket_id and ticket_id != other


def test_a_ticket_ends() -> None:
    ticket = KEYS.issue_ticket(KEYS.verify(KEYS.issue(claims()), NOW), NOW)
    with pytest.raises(InvalidToken) as error:
        KEYS.open_ticket(ticket, NOW + TICKET_SECONDS + 0.1)
    assert error.value.reason == "ticket_expired"


def test_a_ticket_is_not_good_again_when_the_clock_is_set_back() -> None:
    ticket = KEYS.issue_ticket(KEYS.verify(KEYS.issue(claims()), NOW), NOW)
    behind = NOW + TICKET_SECONDS - CLAIM_SECONDS
    assert KEYS.open_ticket(ticket, behind)[0].user == "42"
    with pytest.raises(InvalidToken) as error:
        KEYS.open_ticket(ticket, behind - 0.1)
    assert error.value.reason == "ticket_expired"


def test_a_ticket_does_not_outlive_its_token() -> None:
    grant = KEYS.verify(KEYS.issue(claims()), NOW + 600)
    late = NOW + 600 + LEEWAY - 1
    ticket = KEYS.issue_ticket(grant, late)
    assert KEYS.open_ticket(ticket, late)[0].user == "42"
    with pytest.raises(InvalidToken):
        KEYS.open_ticket(ticket, late + 2)


def test_tickets_and_tokens_do_not_stand_for_each_other() -> None:
    token = KEYS.issue(claims())
    ticket = KEYS.issue_ticket(KEYS.verify(token, NOW), NOW)
    assert reason(ticket) == "badsig"
    with pytest.raises(InvalidToken):
        KEYS.open_ticket(token, NOW)


def test_the_ticket_of_the_largest_token_opens() -> None:
    room = (TOKEN_LIMIT - len(KEYS.issue(claims(pad="")))) * 3 // 4
    grant = KEYS.verify(KEYS.issue(claims(pad="x" * (room - 1))), NOW)
    assert KEYS.open_ticket(KEYS.issue_ticket(grant, NOW), NOW)[0].user == "42"


def test_the_ticket_of_a_compressed_token_opens() -> None:
    channels = [f"node:{number}" for number in range(600)]
    grant = KEYS.verify(compressed(claims(sub_ch=channels)), NOW)
    ticket = KEYS.issue_ticket(grant, NOW)
    assert KEYS.open_ticket(ticket, NOW)[0].may_subscribe("node:599")
