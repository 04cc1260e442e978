"""Frames and handshakes: whole, byte by byte, with more behind; and against the package's own."""

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from wire_ws import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

from push_server.errors import PushError
from push_server.transports import frames
from push_server.transports.frames import Event, Inbound, Kind, Violation, accept

LIMIT = 70_000
JUNK = frame(PONG, b"junk") + b"\x81"


def read(data: bytes, step: int, limit: int = LIMIT) -> list[Event]:
    """What a server makes of these bytes, fed so many at a time; what is left must need more."""
    inbound = Inbound(limit)
    events = []
    for at in range(0, len(data), step):
        inbound.feed(data[at : at + step])
        while (event := inbound.next()) is not None:
            events.append(event)
    assert inbound.empty
    return events


def ways(data: bytes) -> Iterable[int]:
    """Whole, in pieces, and byte by byte where that does not take for ever."""
    return [max(1, len(data)), 7, *([1] if len(data) < 5_000 else [])]


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


EMOJI = "žluťoučký \U0001f600 €".encode()

GOOD: dict[str, tuple[bytes, list[Event]]] = {
    "empty text": (frame(TEXT), [Event(Kind.TEXT, b"")]),
    "text": (frame(TEXT, EMOJI), [Event(Kind.TEXT, EMOJI)]),
    **{
        f"binary of {size}": (frame(BINARY, b"\xfe" * size), [Event(Kind.BINARY, b"\xfe" * size)])
        for size in (125, 126, 127, 65_535, 65_536, LIMIT)
    },
    "a text in three pieces, cut inside a character": (
        frame(TEXT, EMOJI[:1], fin=False) + frame(CONT, EMOJI[1:13], fin=False)
        + frame(CONT, EMOJI[13:]),
        [Event(Kind.PART, b""), Event(Kind.PART, b""), Event(Kind.TEXT, EMOJI)],
    ),
    "empty pieces": (
        frame(TEXT, fin=False) + frame(CONT, fin=False) + frame(CONT),
        [Event(Kind.PART, b""), Event(Kind.PART, b""), Event(Kind.TEXT, b"")],
    ),
    "control frames between pieces": (
        frame(BINARY, b"a", fin=False) + frame(PING, b"?") + frame(PONG) + frame(CONT, b"b"),
        [
            Event(Kind.PART, b""),
            Event(Kind.PING, b"?"),
            Event(Kind.PONG, b""),
            Event(Kind.BINARY, b"ab"),
        ],
    ),
    "a ping of 125 bytes": (frame(PING, b"p" * 125), [Event(Kind.PING, b"p" * 125)]),
    "a close without a code": (frame(CLOSE), [Event(Kind.CLOSE, b"")]),
    **{
        f"a close with {code}": (
            frame(CLOSE, close_payload(code, b"why")),
            [Event(Kind.CLOSE, close_payload(code, b"why"))],
        )
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
}

BAD: dict[str, tuple[bytes, int]] = {
    "not masked": (frame(TEXT, b"x", masked=False), 1002),
    **{f"reserved bits {bits}": (frame(TEXT, b"x", reserved=bits), 1002) for bits in range(1, 8)},
    **{f"opcode {code}": (frame(code), 1002) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a piece of nothing": (frame(CONT, b"x"), 1002),
    "a last piece of nothing": (frame(CONT, b"x", fin=False), 1002),
    "a message within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "a ping in pieces": (frame(PING, b"x", fin=False), 1002),
    "a close in pieces": (frame(CLOSE, fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "a close of 126 bytes": (frame(CLOSE, close_payload(1000, b"x" * 124)), 1002),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    **{
        f"a close with {code}": (frame(CLOSE, close_payload(code)), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
    "a close reason that is no text": (frame(CLOSE, close_payload(1000, b"\xff")), 1007),
    "no text": (frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"), 1007),
    "half a character at the end": (frame(TEXT, EMOJI[:1]), 1007),
    "no text in the first piece": (frame(TEXT, b"\xff", fin=False), 1007),
    "no text in the second piece": (frame(TEXT, b"a", fin=False) + frame(CONT, b"\xff"), 1007),
    "too much": (frame(BINARY, b"x" * (LIMIT + 1)), 1009),
    "too much in two pieces": (
        frame(BINARY, b"x" * LIMIT, fin=False) + frame(CONT, b"y"),
        1009,
    ),
    "a length of 2^63": (b"\x82\xff" + b"\x80" + b"\0" * 7 + b"mask", 1009),
    "a length of 2^64 - 1": (b"\x82\xff" + b"\xff" * 8 + b"mask", 1009),
}


@pytest.mark.parametrize("what", GOOD)
def test_what_is_read(what: str) -> None:
    data, events = GOOD[what]
    for step in ways(data):
        assert read(data, step) == events
    # What follows in the same bytes is left for the next turn.
    inbound = Inbound(LIMIT)
    inbound.feed(data + JUNK)
    assert [inbound.next() for _ in events] == events
    assert inbound.next() == Event(Kind.PONG, b"junk")
    assert inbound.next() is None and not inbound.empty


@pytest.mark.parametrize("what", BAD)
def test_what_is_refused(what: str) -> None:
    data, code = BAD[what]
    for step in ways(data):
        with pytest.raises(Violation) as violation:
            read(data, step)
        assert violation.value.code == code
    with pytest.raises(Violation) as violation:
        read(data + JUNK, len(data + JUNK))
    assert violation.value.code == code


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"\xc1\xff", 1002),  # reserved bit
        (b"\x89\xfe", 1002),  # a long ping
        (b"\x09\x80", 1002),  # a ping in pieces
        (b"\x83\x80", 1002),  # an unknown opcode
        (b"\x81\x01", 1002),  # not masked
        (b"\x81\xff\x00\x00\x00\x01\x00\x00\x00\x00", 1009),
    ],
)
def test_a_bad_head_is_refused_before_the_rest_has_come(head: bytes, code: int) -> None:
    inbound = Inbound(LIMIT)
    inbound.feed(head)
    with pytest.raises(Violation) as violation:
        inbound.next()
    assert violation.value.code == code


def test_a_piece_too_much_is_refused_by_its_head() -> None:
    inbound = Inbound(LIMIT)
    inbound.feed(frame(BINARY, b"x" * LIMIT, fin=False))
    assert inbound.next() == Event(Kind.PART, b"")
    inbound.feed(frame(CONT, b"y" * 200)[:4])
    with pytest.raises(Violation) as violation:
        inbound.next()
    assert violation.value.code == 1009


def test_a_control_frame_fits_where_a_message_is_full() -> None:
    data = frame(BINARY, b"x" * 200, fin=False) + frame(PING, b"p" * 125) + frame(CONT)
    kinds = [event.kind for event in read(data, len(data), limit=200)]
    assert kinds == [Kind.PART, Kind.PING, Kind.BINARY]


def test_a_message_goes_on_under_a_new_limit() -> None:
    inbound = Inbound(10)
    inbound.feed(frame(TEXT, b"x" * 10, fin=False))
    assert inbound.next() == Event(Kind.PART, b"")
    inbound.limit = 20
    inbound.feed(frame(CONT, b"y" * 10))
    assert inbound.next() == Event(Kind.TEXT, b"x" * 10 + b"y" * 10)


def outcome(data: bytes, step: int) -> tuple[list[Event], int]:
    """What is read of these bytes, and the code of the violation that ends it (0: none)."""
    inbound, events = Inbound(300), []
    try:
        for at in range(0, len(data), step):
            inbound.feed(data[at : at + step])
            while (event := inbound.next()) is not None:
                events.append(event)
    except Violation as violation:
        return events, violation.code
    return events, 0


frames_of_all_kinds = st.builds(
    lambda opcode, payload, fin, reserved, masked: frame(
        opcode, payload, fin=fin, reserved=reserved, masked=masked
    ),
    st.sampled_from([CONT, TEXT, BINARY, CLOSE, PING, PONG, 3, 11]),
    st.binary(max_size=200),
    st.booleans(),
    st.sampled_from([0] * 30 + [1, 2, 4]),
    st.sampled_from([True] * 30 + [False]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(frames_of_all_kinds, st.binary(max_size=20)), max_size=8))
def test_nothing_but_violations_comes_out_however_it_arrives(parts: list[bytes]) -> None:
    data = b"".join(parts)
    whole = outcome(data, max(1, len(data)))
    assert whole[1] in (0, 1002, 1007, 1009)
    assert outcome(data, 1) == outcome(data, 13) == whole


# What goes out, against the package.


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_messages_are_framed_as_the_package_does(size: int) -> None:
    payload = b"x" * size
    assert frames.text(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert frames.message(Kind.TEXT, payload) == frames.text(payload)
    binary = Frame(Opcode.BINARY, payload).serialize(mask=False)
    assert frames.message(Kind.BINARY, payload) == binary


def test_a_close_reason_is_cut_to_what_fits() -> None:
    data = frames.close(4100, "x" * 500)
    assert data[:2] == b"\x88\x7d"
    assert Close.parse(data[2:]) == Close(4100, "x" * 123)


@pytest.mark.parametrize("payload", [b"", close_payload(1001), close_payload(4999, b"bye")])
def test_a_close_is_answered_with_its_code(payload: bytes) -> None:
    answer = payload[:2]
    assert frames.close_again(payload) == bytes([0x88, len(answer)]) + answer


# The handshake.

HANDSHAKE = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"upgrade": "WebSocket"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "UPGRADE"},
    ],
)
def test_a_handshake_is_accepted(change: dict[str, str]) -> None:
    # The example of RFC 6455, section 1.3.
    assert accept({**HANDSHAKE, **change}) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"upgrade": ""}, 426, "upgrade_required"),
        ({"upgrade": "h2c"}, 426, "upgrade_required"),
        ({"upgrade": "websocket, h2c"}, 426, "upgrade_required"),
        ({"upgrade": ", ,;"}, 426, "upgrade_required"),
        ({"connection": ""}, 426, "upgrade_required"),
        ({"connection": "close"}, 426, "upgrade_required"),
        ({"connection": "@"}, 426, "upgrade_required"),
        ({"sec-websocket-version": ""}, 426, "websocket_version"),
        ({"sec-websocket-version": "8"}, 426, "websocket_version"),
        ({"sec-websocket-version": "13, 8"}, 426, "websocket_version"),
        ({"sec-websocket-key": ""}, 400, "websocket_key"),
        ({"sec-websocket-key": "short"}, 400, "websocket_key"),
        ({"sec-websocket-key": "x" * 24}, 400, "websocket_key"),
        ({"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==é"}, 400, "websocket_key"),
        ({"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==\r\n"}, 400, "websocket_key"),
    ],
)
def test_a_handshake_is_refused(change: dict[str, str], status: int, code: str) -> None:
    with pytest.raises(PushError) as refusal:
        accept({**HANDSHAKE, **change})
    assert (refusal.value.status, refusal.value.code) == (status, code)
