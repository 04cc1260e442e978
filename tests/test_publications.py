"""Publications: the bytes on the wire, and the ids that may stand in them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push_server.errors import BadInput
from push_server.positions import Position, tag_of
from push_server.publications import (
    Publication,
    Published,
    PublishRequest,
    check_id,
    dump_json,
)

DUMPED: list[tuple[Any, bytes]] = [
    (None, b"null"),
    ({"a": [1, True, "x"]}, b'{"a":[1,true,"x"]}'),
    ("é", b'"\\u00e9"'),
    ("\u2028", b'"\\u2028"'),
    ("\r\n\0", b'"\\r\\n\\u0000"'),
    ("\U0001f600", b'"\\ud83d\\ude00"'),
    ("</script>", b'"</script>"'),
]


@pytest.mark.parametrize(("value", "wire"), DUMPED)
def test_json_is_ascii_in_one_line(value: Any, wire: bytes) -> None:
    assert dump_json(value) == wire


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dump_json(value)


PLACED = [
    (
        PublishRequest("node:7", "c7f0", b'{"any":"JSON"}'),
        b'{"channel":"node:7","offset":17,"id":"c7f0","data":{"any":"JSON"}}',
    ),
    (
        PublishRequest("chat:a/b", "x.1:2-3_4", b"null", user="42"),
        b'{"channel":"chat:a/b","offset":17,"id":"x.1:2-3_4","user":"42","data":null}',
    ),
    (
        PublishRequest("c", "x", b"[1]", user="\u00e9\n", exclude="tab-1"),
        b'{"channel":"c","offset":17,"id":"x","user":"\\u00e9\\n","exclude":"tab-1","data":[1]}',
    ),
]


@pytest.mark.parametrize(("request_", "wire"), PLACED)
def test_a_publication_is_exact(request_: PublishRequest, wire: bytes) -> None:
    publication = Publication.place(request_, epoch=5, offset=17, now=12.5)
    assert publication.json == wire
    assert publication.position == Position(5, 17, tag_of(request_.id))
    assert publication.time == 12.5
    assert publication.exclude == request_.exclude


def test_the_entry_is_the_cursor_of_one_who_has_it() -> None:
    publication = Publication.place(PublishRequest("node:7", "c7f0", b"1"), 35, 36, 0.0)
    assert publication.entry == "eOi0c_.z.10.Cz_d5n"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.none() | st.text(max_size=9))
def test_whatever_is_published_arrives(data: Any, user: str | None) -> None:
    request = PublishRequest("c", "x", dump_json(data), user=user)
    wire = Publication.place(request, 1, 2, 0.0).json
    assert wire.isascii()
    assert not set(wire) & {0, 10, 13}
    received = json.loads(wire)
    assert received["data"] == data
    assert received.get("user") == user


@pytest.mark.parametrize("value", ["a", "0", "msg_2x.17", "a:b-c", "A" * 64])
def test_an_id(value: str) -> None:
    assert check_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "A" * 65,
        "a b",
        "a\n",
        "a\r",
        "\0",
        "a/b",
        "a~b",
        "\u00e9",
        "\u0661",
        None,
        1,
        b"a",
        ["a"],
    ],
)
def test_what_is_no_id(value: object) -> None:
    with pytest.raises(BadInput) as refused:
        check_id(value, "exclude")
    assert refused.value.code == "exclude_malformed"
    assert refused.value.message.startswith("exclude is 1 to 64")


def test_an_acknowledgement_as_json() -> None:
    assert Published("c", 1, 2, "x", False).as_json() == {
        "channel": "c",
        "epoch": 1,
        "offset": 2,
        "id": "x",
        "duplicate": False,
    }
