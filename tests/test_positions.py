"""Positions and cursors: exact bytes, round trips, and everything that is no cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push_server.errors import BadInput
from push_server.positions import (
    CURSOR_LIMIT,
    OFFSET_LIMIT,
    START_TAG,
    Position,
    channel_key,
    cursor_entry,
    join_cursor,
    parse_cursor,
    tag_of,
)

HIGHEST = OFFSET_LIMIT - 1

ENTRIES = [
    # The hashes are those of `printf %s NAME | sha256sum`, in base64url, cut after six.
    ("node:7", Position(1, 0, START_TAG), "eOi0c_.1.0.0"),
    ("node:7", Position(35, 36, tag_of("c7f0")), "eOi0c_.z.10.Cz_d5n"),
    ("user:42", Position(1_800_000_000, 1, tag_of("a")), "6j_UO-.tro8w0.1.ypeBEs"),
    ("a", Position(HIGHEST, HIGHEST, tag_of("a")), "ypeBEs.2gosa7pa2gv.2gosa7pa2gv.ypeBEs"),
]


@pytest.mark.parametrize(("channel", "position", "entry"), ENTRIES)
def test_entry_is_exact_and_comes_back(channel: str, position: Position, entry: str) -> None:
    assert cursor_entry(channel, position) == entry
    assert parse_cursor("1~" + entry) == {channel_key(channel): position}


def test_a_cursor_without_channels() -> None:
    assert join_cursor([]) == "1"
    assert parse_cursor("1") == {}


names = st.from_regex(r"[A-Za-z0-9._:-][A-Za-z0-9._:/-]{0,127}", fullmatch=True)
numbers = st.integers(0, HIGHEST)


@given(st.dictionaries(names, st.tuples(numbers, numbers, st.none() | names), max_size=60))
def test_every_cursor_round_trips(places: dict[str, tuple[int, int, str | None]]) -> None:
    positions = {
        channel: Position(epoch, offset, START_TAG if seen is None else tag_of(seen))
        for channel, (epoch, offset, seen) in places.items()
    }
    text = join_cursor(cursor_entry(channel, at) for channel, at in positions.items())
    assert parse_cursor(text) == {channel_key(channel): at for channel, at in positions.items()}
    # Fits a URL, a header and an SSE line, and needs no CORS preflight.
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")


def test_the_largest_cursor_fits_the_limit() -> None:
    entries = [
        cursor_entry(f"channel:{n}", Position(HIGHEST, HIGHEST, tag_of("x"))) for n in range(256)
    ]
    text = join_cursor(entries)
    assert len(text) <= CURSOR_LIMIT
    assert len(parse_cursor(text)) == 256


MALFORMED = {
    "empty": "",
    "other version": "2~abcdef.1.1.0",
    "no version": "~abcdef.1.1.0",
    "text": "hello",
    "number": "17",
    "negative number": "-1",
    "json": '{"a":1}',
    "trailing separator": "1~",
    "double separator": "1~~abcdef.1.1.0",
    "trailing newline": "1~abcdef.1.1.0\n",
    "leading blank": " 1~abcdef.1.1.0",
    "carriage return": "1~abcdef.1.1.0\r\nx: y",
    "nul": "1~abcdef.1.1.0\0",
    "negative epoch": "1~abcdef.-1.1.0",
    "negative offset": "1~abcdef.1.-1.0",
    "plus": "1~abcdef.+1.1.0",
    "underscore in a number": "1~abcdef.1_0.1.0",
    "upper case number": "1~abcdef.Z.1.0",
    "arabic digit": "1~abcdef.1.\u0661.0",
    "full-width digit": "1~abcdef.\uff11.1.0",
    "superscript digit": "1~abcdef.1.\u00b2.0",
    "cyrillic key": "1~\u0430bcdef.1.1.0",
    "lone surrogate": "1~abcdef.1.1.\ud800",
    "short key": "1~abcde.1.1.0",
    "long key": "1~abcdefg.1.1.0",
    "standard base64 key": "1~abc+/f.1.1.0",
    "short tag": "1~abcdef.1.1.abcde",
    "long tag": "1~abcdef.1.1.abcdefg",
    "empty tag": "1~abcdef.1.1.",
    "three fields": "1~abcdef.1.1",
    "five fields": "1~abcdef.1.1.0.0",
    "epoch 2^53": "1~abcdef.2gosa7pa2gw.1.0",
    "offset 2^53": "1~abcdef.1.2gosa7pa2gw.0",
    "offset 2^63": "1~abcdef.1.1y2p0ij32e8e8.0",
    "offset 2^64": "1~abcdef.1.3w5e11264sgsg.0",
    "offset of a thousand digits": "1~abcdef.1." + "z" * 1000 + ".0",
    "over the limit": "1" + "~abcdef.1.1.0" * (CURSOR_LIMIT // 13 + 1),
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_cursor_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_cursor(text)
    assert refused.value.code == "cursor_malformed"
    assert refused.value.status == 400


def test_the_limits_are_exact() -> None:
    assert parse_cursor("1~abcdef.2gosa7pa2gv.2gosa7pa2gv.0") == {
        "abcdef": Position(HIGHEST, HIGHEST, "0")
    }
    entry = "~abcdef.1.1.0"
    longest = "1" + entry * ((CURSOR_LIMIT - 1) // len(entry))
    parse_cursor(longest)
    with pytest.raises(BadInput):
        parse_cursor(longest + entry)


@given(st.text(max_size=80) | st.from_regex(r"1(~[a-z0-9._-]{0,20})*", fullmatch=True))
def test_any_text_is_a_cursor_or_bad_input(text: str) -> None:
    try:
        positions = parse_cursor(text)
    except BadInput:
        return
    assert all(0 <= at.epoch < OFFSET_LIMIT > at.offset >= 0 for at in positions.values())


def test_a_key_that_stands_for_two_channels_proves_nothing() -> None:
    # Both at the same offset with the same id, as after a broadcast: the tag cannot tell
    # them apart, so a client that saw less of one of them would be skipped ahead.
    cursor = "1~abcdef.1.3.ypeBEs~ghijkl.1.1.ypeBEs~abcdef.1.5.ypeBEs"
    assert parse_cursor(cursor) == {"ghijkl": Position(1, 1, "ypeBEs")}
