"""The bytes of every transport, against `tests/vectors/transports.json` and against parsers."""

import json
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from wire import Wire
from wire_ws import TEXT, read_frame

from push_server.publications import Publication, PublishRequest, dump_json
from push_server.transports import TRANSPORTS
from push_server.transports.base import Transport, response, response_head

VECTORS = json.loads((Path(__file__).parent / "vectors" / "transports.json").read_text("utf-8"))
HEADERS = tuple((name, value) for name, value in VECTORS["headers"])
REST: bytes = VECTORS["rest"].encode()
CURSOR: str = VECTORS["cursor"]
HARD: list[Any] = [
    "\n\ndata: x\nid: y\n\n",
    "\r\n",
    "\x00\ufeff\u2028\u2029",
    "</script><!-- ]]>",
    "\U0001f600 ä",
    {"deep": [[[]]], "empty": {}},
    "",
    None,
    0.5,
]


def place(given: dict[str, Any]) -> Publication:
    request = PublishRequest(
        given["channel"],
        given["id"],
        given["data"].encode(),
        given.get("user"),
        given.get("exclude"),
    )
    return Publication.place(request, given["epoch"], given["offset"], 0.0)


PUBLICATIONS = [place(given) for given in VECTORS["publications"]]
every_transport = pytest.mark.parametrize("name", list(TRANSPORTS))


def vector(name: str, what: str) -> bytes:
    return str(VECTORS["transports"][name][what]).encode("latin-1")


def test_every_transport_has_a_vector_and_its_own_name() -> None:
    assert set(VECTORS["transports"]) == set(TRANSPORTS)
    assert all(name == transport.name for name, transport in TRANSPORTS.items())


@every_transport
def test_the_bytes(name: str) -> None:
    transport = TRANSPORTS[name]
    assert transport.head(HEADERS) == vector(name, "head")
    assert transport.join(REST, transport.encode(PUBLICATIONS)) == vector(name, "encoded")
    assert transport.join(REST, transport.encode(PUBLICATIONS[:1])) == vector(name, "one")
    assert transport.control(VECTORS["control"], CURSOR) == vector(name, "control")


@pytest.mark.parametrize(
    ("what", "keep_alive"), [("answer_keep_alive", True), ("answer_close", False)]
)
def test_the_bytes_of_an_answer(what: str, keep_alive: bool) -> None:
    poll = TRANSPORTS["poll"]
    (publications,) = poll.encode(PUBLICATIONS)
    controls = poll.control(VECTORS["control"], "")
    answer = poll.answer(publications, controls, CURSOR, HEADERS, keep_alive)
    assert answer == vector("poll", what)


def test_the_bytes_of_an_empty_answer() -> None:
    answer = TRANSPORTS["poll"].answer(b"", b"", CURSOR, (), True)
    assert answer == vector("poll", "answer_empty")


@every_transport
def test_encoding_in_parts_is_encoding_at_once(name: str) -> None:
    transport = TRANSPORTS[name]
    parts = b"".join(transport.join(REST, transport.encode([each])) for each in PUBLICATIONS)
    assert parts == transport.join(REST, transport.encode(PUBLICATIONS))


def decode(name: str, data: bytes) -> list[Any]:
    """What a client reads: by a reader that knows nothing of ours."""
    if name == "ws":
        ours, theirs = socket.socketpair()
        theirs.close()
        values = []
        with Wire(ours, data) as wire:
            while wire.buffer:
                frame = read_frame(wire, time.monotonic() + 1)
                assert (frame.opcode, frame.fin) == (TEXT, True)
                values.append(json.loads(frame.payload.decode("ascii")))
        return values
    text = data.decode("ascii")
    if name == "stream":
        assert "\r" not in text
        return [json.loads(line) for line in text.splitlines()]
    if name == "sse":
        events = []
        for block in text.split("\n\n")[:-1]:
            fields = [line.split(": ", 1) for line in block.splitlines()]
            assert [field for field, _ in fields] == ["data", "id"]
            events.append({**json.loads(fields[0][1]), "cursor": fields[1][1]})
        return events
    values = json.loads(f"[{text[:-1]}]")
    return list(values)


@every_transport
@pytest.mark.parametrize("data", HARD)
def test_no_payload_breaks_the_framing(name: str, data: Any) -> None:
    publications = [
        Publication.place(PublishRequest("c", f"i{number}", dump_json(data)), 7, number, 0.0)
        for number in (1, 2, 3)
    ]
    transport = TRANSPORTS[name]
    read = decode(name, transport.join(REST, transport.encode(publications)))
    assert [value["data"] for value in read] == [data] * 3
    assert [value["offset"] for value in read] == [1, 2, 3]
    if name != "poll":
        expected = [f"1~{each.entry}{REST.decode()}" for each in publications]
        assert [value["cursor"] for value in read] == expected


@every_transport
def test_nothing_to_tell_is_no_bytes(name: str) -> None:
    assert TRANSPORTS[name].join(REST, ()) == b""


@pytest.mark.parametrize("rest", [0, 1, 18, 19, 20, 125, 126, 65_000, 66_000])
def test_a_websocket_frame_has_the_length_of_what_is_put_into_it(rest: int) -> None:
    transport = TRANSPORTS["ws"]
    pieces = transport.encode(PUBLICATIONS)
    for size in (rest, rest + 1, rest):
        got = decode("ws", transport.join(b"~" * size, pieces))
        assert [len(value["cursor"]) for value in got] == [
            len(f"1~{each.entry}") + size for each in PUBLICATIONS
        ]


def test_a_control_message_does_not_change_what_it_is_given() -> None:
    message = {"type": "ping"}
    for transport in TRANSPORTS.values():
        transport.control(message, CURSOR)
    assert message == {"type": "ping"}


def test_heads() -> None:
    assert response_head(200, ()) == b"HTTP/1.1 200 OK\r\n\r\n"
    assert response_head(503, (("Retry-After", "3"),)) == (
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\n\r\n"
    )
    answer = response(401, HEADERS, b"{}")
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nContent-Length: 2\r\n" in answer and b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n{}")
    assert b"Connection" not in response(401, (), b"{}", keep_alive=True)


def test_what_answers_once_says_so() -> None:
    class Half(Transport):
        name = "half"
        content_type = "text/plain"

        def encode(self, publications: Sequence[Publication]) -> tuple[bytes, ...]:
            return ()

        def control(self, message: Mapping[str, Any], cursor: str) -> bytes:
            return b""

        def relay(self, control: bytes, cursor: str) -> bytes:
            return b""

    with pytest.raises(NotImplementedError):
        Half().answer(b"", b"", "", (), False)
