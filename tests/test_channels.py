"""Channel names, what a token grants, and what a namespace decides."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push_server.channels import (
    ChannelSet,
    Namespace,
    Namespaces,
    check_channel,
    is_pattern_or_name,
    personal_channel,
)
from push_server.errors import BadInput, Denied

GOOD = ["a", "user:42", "node:7", "a/b", "a.b_c-d:e/f", ":x", ".", "-", "A" * 128, "x" + "/" * 127]

E_ACUTE_COMPOSED = unicodedata.normalize("NFC", "caf\u00e9")
E_ACUTE_DECOMPOSED = unicodedata.normalize("NFD", "caf\u00e9")

BAD = {
    "empty": "",
    "129 characters": "a" * 129,
    "internal": "$sys.x",
    "internal wildcard": "$sys.*",
    "bayeux meta": "/meta/x",
    "bayeux meta subscribe": "/meta/subscribe/x",
    "bayeux meta, double slash": "/meta//subscribe",
    "bayeux meta, upper case": "/META/subscribe",
    "bayeux internal wildcard": "/oort/*",
    "slash": "/",
    "trailing blank": "a ",
    "leading blank": " a",
    "trailing newline": "a\n",
    "newline inside": "a\nb",
    "carriage return": "a\r",
    "nul": "a\0",
    "nul inside": "a\0b",
    "tab": "a\tb",
    "percent": "a%2f",
    "question mark": "a?b",
    "brackets": "a[bc]",
    "comma": "a,b",
    "tilde": "a~b",
    "NFC": E_ACUTE_COMPOSED,
    "NFD": E_ACUTE_DECOMPOSED,
    "cyrillic a": "\u0430",
    "full-width a": "\uff41",
    "full-width colon": "user\uff1a42",
    "arabic digit": "node:\u0667",
    "kelvin sign": "\u212a",
    "zero width space": "a\u200bb",
    "byte order mark": "\ufeffa",
    "right to left override": "a\u202eb",
    "lone surrogate": "a\ud800",
    "129 characters of wildcard": "a" * 128 + "*",
    "none": None,
    "number": 7,
    "bytes": b"a",
    "list": ["a"],
}

WILDCARDS = ["*", "**", "a*", "a**", "node:*", "node:**", "a*b", "*a", "/*", "/**", "a/**"]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_is_returned_as_it_is(name: str) -> None:
    assert check_channel(name) == name


@pytest.mark.parametrize("name", BAD.values(), ids=BAD.keys())
def test_a_bad_name_is_bad_input(name: object) -> None:
    with pytest.raises(BadInput) as refused:
        check_channel(name)
    assert (refused.value.status, refused.value.code) == (400, "channel_malformed")


@pytest.mark.parametrize("name", WILDCARDS)
def test_a_wildcard_is_denied(name: str) -> None:
    with pytest.raises(Denied) as refused:
        check_channel(name)
    assert (refused.value.status, refused.value.code) == (403, "channel_denied")


def test_case_and_trailing_dot_make_another_name() -> None:
    assert len({check_channel(name) for name in ("node:7", "Node:7", "node:7.", "node:07")}) == 4


@given(st.text(max_size=140))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        assert check_channel(text) == text
    except (BadInput, Denied):
        return
    assert text.isascii()
    assert 1 <= len(text) <= 128
    assert not set(text) & set("$*\r\n\0 ")


@pytest.mark.parametrize("text", [*GOOD, "*", "a*", "user:*", "a" * 127 + "*"])
def test_what_a_token_may_list(text: str) -> None:
    assert is_pattern_or_name(text)


@pytest.mark.parametrize(
    "text",
    ["", "**", "a**", "*a", "a*b", "/*", "/meta/*", "$*", "$sys", "a" * 128 + "*", "a*\n", 7],
)
def test_what_a_token_may_not_list(text: object) -> None:
    assert not is_pattern_or_name(text)


@pytest.mark.parametrize(
    ("listed", "granted", "denied"),
    [
        ([], [], ["a", "user:1"]),
        (["a"], ["a"], ["ab", "A", "b"]),
        (["a*"], ["a", "ab", "a:b"], ["b", "A"]),
        (["*"], ["a", "node:7", "user", "users:1"], ["user:1", "user:"]),
        (["us*"], ["us", "users:1", "user"], ["user:1"]),
        (["user*"], ["user", "users:1"], ["user:1"]),
        (["user:*"], ["user:1", "user:"], ["user", "users:1"]),
        (["user:1*"], ["user:1", "user:10"], ["user:2"]),
        (["user:1"], ["user:1"], ["user:10", "user:2"]),
        (["node:*", "chat:a"], ["node:7", "chat:a"], ["node", "chat:b", "user:1"]),
    ],
)
def test_what_a_list_grants(listed: list[str], granted: list[str], denied: list[str]) -> None:
    channels = ChannelSet.of(listed)
    assert [name for name in granted if name not in channels] == []
    assert [name for name in denied if name in channels] == []


@given(
    st.lists(st.text("usernod:*", min_size=1, max_size=6).filter(is_pattern_or_name), max_size=4),
    st.text("0123456789", min_size=1, max_size=3),
)
def test_no_pattern_opens_personal_channels_without_spelling_them_out(
    listed: list[str], user: str
) -> None:
    spelled_out = [entry for entry in listed if entry.startswith("user:")]
    if personal_channel(user) in ChannelSet.of(listed):
        assert spelled_out


def test_the_namespace_is_what_stands_before_the_first_colon() -> None:
    chat, rest = Namespace(history_size=1), Namespace(history_size=2)
    namespaces = Namespaces({"chat": chat, "*": rest})
    assert namespaces.of("chat:a:b") is chat
    assert namespaces.of("chat") is chat
    assert namespaces.of("chats:a") is rest
    assert namespaces.of(":chat") is rest


def test_a_namespace_nobody_named_keeps_ten_minutes_or_a_thousand() -> None:
    keep = Namespaces().of("any:thing")
    assert (keep.history_size, keep.history_ttl) == (1000, 600)
    assert keep.client_publish
