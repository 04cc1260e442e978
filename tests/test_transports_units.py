"""The bytes of every transport, against `tests/vectors/transports.json` and against parsers."""

import json
import re
import socket
import time
import tracemalloc
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from wire import Wire
from wire_classic import PageParser
from wire_ws import TEXT, read_frame

from push_server.errors import BadInput, Denied
from push_server.publications import Publication, PublishRequest, dump_json
from push_server.transports import TRANSPORTS
from push_server.transports.base import Transport, response, response_head
from push_server.transports.multipart import BOUNDARY
from push_server.transports.ws import Frames

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
for_json = pytest.mark.parametrize("name", [name for name in TRANSPORTS if name != "multipart"])
POLLING = ("poll", "interval", "jsonp")


def vector(name: str, what: str) -> bytes:
    return str(VECTORS["transports"][name][what]).encode("latin-1")


def test_every_transport_has_a_vector_and_its_own_name() -> None:
    assert set(VECTORS["transports"]) == set(TRANSPORTS)
    assert all(name == transport.name for name, transport in TRANSPORTS.items())


@every_transport
@pytest.mark.parametrize("page", ["transports.rst", "protocol.rst"])
def test_every_transport_is_described(name: str, page: str) -> None:
    docs = Path(__file__).parent.parent / "docs"
    assert f"/subscribe/{name}``" in (docs / page).read_text("utf-8")


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
@pytest.mark.parametrize("name", ["poll", "interval", "jsonp"])
def test_the_bytes_of_an_answer(name: str, what: str, keep_alive: bool) -> None:
    transport = TRANSPORTS[name].chosen({"callback": "cb"}.__getitem__, ())
    (publications,) = transport.encode(PUBLICATIONS)
    controls = transport.control(VECTORS["control"], "")
    answer = transport.answer(publications, controls, CURSOR, HEADERS, keep_alive)
    assert answer == vector("poll" if name == "interval" else name, what)


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
    if name == "frame":
        parser = PageParser()
        parser.feed(text)
        assert set(parser.elements) == {"p", "hr"}
        return [json.loads(text) for text in parser.texts]
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


@for_json
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
    if name not in POLLING:
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


@pytest.mark.parametrize("name", ["ws", "stream", "sse", "frame"])
def test_a_fan_out_shares_what_was_encoded(name: str) -> None:
    """Whoever it goes to: what is not shared is one join at a time, and nothing of it stays."""
    transport = TRANSPORTS[name]
    request = PublishRequest("c", "id", dump_json("x" * 100_000))
    publication = Publication.place(request, 7, 1, 0.0)
    crowd = [b"~%0*d" % (20 + n % 2, n) for n in range(500)]
    tracemalloc.start()
    try:
        pieces = transport.encode([publication])
        sizes = {len(transport.join(rest, pieces)) for rest in crowd}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(sizes) == 2
    # The publication in one encoding, or in one for each length, and the join of the moment.
    assert peak < 5 * 100_000
    if isinstance(pieces, Frames):
        assert pieces.sized(21) is pieces.sized(21)


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


# Pictures.

PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NEXT = b"--" + BOUNDARY + b"\r\nContent-Type: image/png\r\n\r\n"


def pushed(data: Any, **more: Any) -> bytes:
    """What a publication of this is on the way to an image."""
    request = PublishRequest("camera:1", "id", dump_json(data), **more)
    transport = TRANSPORTS["multipart"]
    return transport.join(REST, transport.encode([Publication.place(request, 7, 1, 0.0)]))


def picture(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


@pytest.mark.parametrize(
    ("content", "kind"),
    [(PNG, "png"), (b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF87a", "gif"), (b"GIF89a\0\r\n", "gif"),
     (b"RIFF\n\r\n\nWEBPVP8 ", "webp"), (PNG, "gif")],
)
def test_a_picture_is_a_part_and_the_next_one_begins(content: bytes, kind: str) -> None:
    assert pushed(picture(content, kind)) == content + b"\r\n" + NEXT
    assert pushed(picture(content, kind), user="42", exclude="me").startswith(content)


def test_parts_follow_each_other() -> None:
    transport = TRANSPORTS["multipart"]
    answer = transport.head(()) + transport.control({"type": "ping"}, "")
    answer += pushed(picture(PNG)) + pushed("no picture") + pushed(picture(b"GIF89a"))
    head, body = answer.split(b"\r\n\r\n", 1)
    kind = dict(line.split(b": ") for line in head.split(b"\r\n")[1:])[b"Content-Type"]
    message = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + body)
    _, *parts = message.walk()
    contents = [part.get_payload(decode=True) for part in parts]
    assert contents == [PNG, b"GIF89a", b""]
    assert all(part.get_content_type() == "image/png" for part in parts)


@pytest.mark.parametrize(
    "data",
    [
        "text", 1, None, [picture(PNG)], {"data": picture(PNG)}, "data:image/png;base64,",
        picture(PNG, "svg+xml"), picture(b"<svg onload=alert(1)>", "png"), picture(PNG) + " ",
        "data:text/html;base64," + b64encode(b"<script>").decode(), "x" + picture(PNG),
        "data:image/png;base64,iVBORw0KGgo", picture(PNG).replace("i", "\\", 1),
    ],
)
def test_what_is_no_picture_is_passed_over(data: Any) -> None:
    assert pushed(data) == b""


def test_a_picture_that_would_begin_another_part_is_passed_over() -> None:
    # Attack: a part of the attacker's own, which is a page for whoever opens the address by itself.
    forged = PNG + b"\r\n--" + BOUNDARY + b"\r\nContent-Type: text/html\r\n\r\n<script>"
    assert pushed(picture(forged)) == b""


def test_a_picture_says_nothing_else() -> None:
    transport = TRANSPORTS["multipart"]
    for kind in ("hello", "ping", "reset", "reconnect", "revoked", "degraded", "expiring"):
        assert transport.control({"type": kind}, CURSOR) == b""
    assert transport.relay(b"{}", CURSOR) == b""


# What a request chooses.


@pytest.mark.parametrize(
    "callback",
    ["cb", "_cometd_jsonp_0", "$", "__jsonp1__", "a.b.c", "jQuery3_1.f", "x" * 64],
)
def test_a_callback(callback: str) -> None:
    transport = TRANSPORTS["jsonp"].chosen({"callback": callback}.__getitem__, ())
    answer = transport.answer(b"", b"", CURSOR, (), True)
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"/**/%b({" % callback.encode())
    assert answer.endswith(b"});")


@pytest.mark.parametrize(
    "callback",
    ["", "alert(1)", "a;b", "a b", "1a", ".a", "a-b", "a/**/b", "x" * 65, "x" * 2000, "\u00e4",
     "a\n", "a\0", "\u017f", "CWS\x07\x0eX\x00", "a[0]", "a`b`", "</script>"],
)
def test_44_a_hostile_callback_is_refused(callback: str) -> None:
    # Attack: script of the attacker's choice from our origin, or bytes that are run as Flash.
    with pytest.raises(BadInput):
        TRANSPORTS["jsonp"].chosen({"callback": callback}.__getitem__, ())


def test_a_forever_frame_speaks_to_sites_only() -> None:
    frame, sites = TRANSPORTS["frame"], ("https://www.example.com", "https://shop.example.com")
    for origin in sites:
        assert frame.chosen({"origin": origin}.__getitem__, sites) is frame
    # Attack: whatever the user gets is posted to a page of the attacker's.
    for origin in ("*", "/", "null", "https://www.example.com.evil.test", "https://evil.test",
                   "http://www.example.com", "https://www.example.com/"):
        with pytest.raises(Denied):
            frame.chosen({"origin": origin}.__getitem__, sites)
    with pytest.raises(BadInput):
        frame.chosen({"origin": ""}.__getitem__, sites)


def test_the_page_of_a_forever_frame_runs_its_own_script_only() -> None:
    ((name, policy),) = TRANSPORTS["frame"].policy(("https://www.example.com",))
    assert name == "Content-Security-Policy"
    page = TRANSPORTS["frame"].head(()).partition(b"\r\n\r\n")[2]
    (script,) = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    digest = b64encode(sha256(script).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["frame-ancestors"] == "'self' https://www.example.com"
