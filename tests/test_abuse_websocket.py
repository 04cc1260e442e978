"""Attacks on and by WebSockets: rows 40 and 41, and limits that only they need.

What they share with every other transport (cursors, slow readers, beginnings) is in
`test_abuse_readers.py`, fed with "ws" as well.
"""

import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from harness import SITE, PushServer
from waiting import PROMPT, retried, wait_for
from wire import Ended, Refused, read_response, request_bytes
from wire_ws import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Upgraded,
    frame,
    handshake_headers,
    text_frame,
)

pytestmark = pytest.mark.usefixtures("unharmed")
_numbers = count()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"wsabuse{next(_numbers)}"


def stranger(
    push: PushServer, source: str | None = None, path: str = "/subscribe/ws"
) -> Upgraded:
    """A WebSocket without a token as yet."""
    return Upgraded(push.address, path, {**push.head(), "Origin": SITE}, source)


def resident(push: PushServer) -> int:
    assert push.process is not None
    status = Path(f"/proc/{push.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def violations(push: PushServer, code: int) -> int:
    return int(push.api("stats").get(f"violations.{code}", 0))


# 40: who may open one.


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        f"{SITE}.evil.example",
        SITE.replace("http:", "https:"),
        SITE.replace(":8080", ""),
        SITE.replace(":8080", ":8081"),
        SITE.replace("www.", "WWW."),
        f"{SITE}/",
        f" {SITE}x",
        f"{SITE}, https://evil.example",
    ],
)
def test_40_a_foreign_origin_is_refused_before_101(
    push: PushServer, name: str, origin: str
) -> None:
    token = push.token(name)
    for target, headers in (
        ("/subscribe/ws", {}),
        (f"/subscribe/ws?ticket={push.ticket(token)}", {}),
        ("/subscribe/ws", {"Authorization": f"Bearer {token}"}),
    ):
        with pytest.raises(Refused) as refusal:
            Upgraded(push.address, target, {**push.head(), "Origin": origin, **headers})
        assert (refusal.value.response.status, refusal.value.response.error) == (
            403, "origin_denied",
        )
        assert refusal.value.response.header("Access-Control-Allow-Origin") is None


def test_40_no_origin_is_a_program_and_has_to_show_a_token(push: PushServer, name: str) -> None:
    token = push.token(name)
    for target in ("/subscribe/ws", f"/subscribe/ws?ticket={push.ticket(token)}"):
        with pytest.raises(Refused) as refusal:
            Upgraded(push.address, target, push.head())
        assert (refusal.value.response.status, refusal.value.response.error) == (
            403, "origin_missing",
        )
    with push.ws(token) as ws:
        assert ws.hello["user"] == name


def test_40_the_push_origin_itself_may(push: PushServer, name: str) -> None:
    token, ours = push.token(name), f"http://{push.host}"
    with push.ws(token, origin=ours) as ws:
        assert ws.hello["user"] == name
    port = f":{push.port}"
    for other in (f"https://{push.host}", f"http://evil.{push.host}", f"http://evil{push.host}",
                  f"{ours}.evil.example", f"{ours}0", ours.removesuffix(port)):
        with pytest.raises(Refused):
            push.ws(token, origin=other)


@pytest.mark.parametrize("query", ["channel=a", "since=1", "channel=a&instance=b", "x=y"])
def test_40_what_is_asked_for_without_a_token_is_not_heard(push: PushServer, query: str) -> None:
    with pytest.raises(Refused) as refusal:
        Upgraded(push.address, f"/subscribe/ws?{query}", {**push.head(), "Origin": SITE})
    assert (refusal.value.response.status, refusal.value.response.error) == (400, "query")


def test_40_a_token_in_the_url_is_refused(push: PushServer, name: str) -> None:
    for parameter in ("token", "access_token", "x"):
        with pytest.raises(Refused) as refusal:
            Upgraded(
                push.address,
                f"/subscribe/ws?{parameter}={push.token(name)}",
                {**push.head(), "Origin": SITE},
            )
        assert refusal.value.response.error == "token_in_url"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Upgrade": None}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Connection": None}, 426),
        ({"Connection": "keep-alive"}, 426),
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Version": None}, 426),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, 400),
    ],
)
def test_40_a_broken_handshake(
    push: PushServer, name: str, changes: dict[str, str | None], status: int
) -> None:
    headers = {**handshake_headers(**changes), "Origin": SITE}
    response = push.get("/subscribe/ws", token=push.token(name), headers=headers)
    assert response.status == status
    if response.status == 426:
        assert response.header("Upgrade") == "websocket"


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "TRACE"])
def test_40_other_methods(push: PushServer, method: str) -> None:
    headers = {**handshake_headers(), "Origin": SITE}
    assert push.request(method, "/subscribe/ws", headers=headers).status == 405


def test_40_http_1_0(push: PushServer) -> None:
    fields = "".join(f"{key}: {value}\r\n" for key, value in handshake_headers().items())
    first = f"GET /subscribe/ws HTTP/1.0\r\nHost: {push.host}\r\nOrigin: {SITE}\r\n"
    answer = push.raw(f"{first}{fields}\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 426 ")


def test_40_bytes_behind_the_handshake(push: PushServer, name: str) -> None:
    """A client has to wait for 101: until then nobody knows whose bytes they are."""
    with push.wire() as wire:
        request = request_bytes(
            "GET",
            "/subscribe/ws",
            {**push.head(), **handshake_headers(), "Authorization": f"Bearer {push.token(name)}"},
        )
        wire.send(request + text_frame({"id": 1, "method": "ping"}))
        response = read_response(wire)
        assert response.status == 400
        assert response.error == "pipelined"


def test_40_compression_is_never_agreed_on(push: PushServer, name: str) -> None:
    offers = "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame"
    headers = {"Sec-WebSocket-Extensions": offers, "Sec-WebSocket-Protocol": "chat, graphql-ws"}
    with push.ws(push.token(name), headers=headers) as ws:
        assert ws.head.header("Sec-WebSocket-Extensions") is None
        assert ws.head.header("Sec-WebSocket-Protocol") is None
        # RSV1 marks a compressed frame, a bomb perhaps: nothing of it is looked at.
        ws.wire.send(frame(TEXT, b"\0" * 1000, reserved=4))
        assert ws.upgraded.closed(3).code == 1002


# 41: what it may send. The rules of frames are in test_frames.py; here is what becomes of the
# connection.


BROKEN = [
    ("unmasked", frame(TEXT, b"{}", masked=False), 1002),
    ("reserved bits", frame(TEXT, b"{}", reserved=1), 1002),
    ("unknown opcode", frame(3), 1002),
    ("a piece of nothing", frame(CONT, b"{}"), 1002),
    ("a ping in pieces", frame(PING, fin=False), 1002),
    ("a long ping", frame(PING, b"x" * 126), 1002),
    ("a length of 2^64 - 1", b"\x81\xff" + b"\xff" * 8, 1009),
    ("a length of 1 GiB", b"\x81\xff\0\0\0\0\x40\0\0\0mask", 1009),
    ("close code 0", frame(CLOSE, b"\0\0"), 1002),
    ("close code 1005", frame(CLOSE, b"\x03\xed"), 1002),
    ("text that is none", frame(TEXT, b"\xff"), 1007),
    ("binary", frame(BINARY, b"{}"), 1003),
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("data", "code"), [each[1:] for each in BROKEN], ids=lambda each: None)
def test_41_broken_frames_end_it_at_once(
    push: PushServer, name: str, data: bytes, code: int, known: bool
) -> None:
    before = violations(push, code)
    channel = f"broken:{name}"
    upgraded = push.ws(push.token(name), channel).upgraded if known else stranger(push)
    with upgraded:
        upgraded.wire.send(data + frame(PING, b"behind"))
        assert upgraded.closed(PROMPT).code == code
        assert violations(push, code) == before + 1
    wait_for(lambda: not push.api("channels", prefix=channel)["channels"], "it is forgotten")


@pytest.mark.parametrize(("data", "code"), [BROKEN[0][1:], BROKEN[6][1:], BROKEN[10][1:]])
def test_41_broken_frames_byte_by_byte(
    push: PushServer, name: str, data: bytes, code: int
) -> None:
    with push.ws(push.token(name)) as ws:
        for byte in data:
            ws.wire.send(bytes([byte]))
        assert ws.upgraded.closed().code == code


def test_41_a_message_has_a_size(push: PushServer, name: str) -> None:
    """`max_body` and some for the words around it; nothing is kept of what is larger."""
    with push.ws(push.token(name, pub_ch=["*"])) as ws:
        text = "x" * (256 * 1024 - 100)
        assert ws.call("publish", channel=f"big:{name}", data=text)["offset"] == 1
        assert ws.refused("publish", channel=f"big:{name}", data="y" * 300, id="x" * 100)[0] == 400
        ws.wire.send(frame(TEXT, b"x" * (300 * 1024)))
        assert ws.upgraded.closed().code == 1009
    with stranger(push) as ws_stranger:
        ws_stranger.wire.send(frame(TEXT, b"x" * (33 * 1024)))
        assert ws_stranger.closed().code == 1009


def test_41_fragments_without_end(push: PushServer, name: str) -> None:
    memory = resident(push)
    for last in (frame(CONT, b"", fin=False), frame(CONT, b"x", fin=False)):
        with push.ws(push.token(name)) as ws:
            ws.wire.send(frame(TEXT, b"{", fin=False))
            ws.wire.send(last * 20_000)
            assert ws.upgraded.closed(PROMPT).code == 1008
    assert resident(push) - memory < 1024 * 1024


def test_41_a_flood_of_pings(push: PushServer, name: str) -> None:
    with push.ws(push.token(name)) as ws, push.ws(push.token(f"other-{name}")) as other:
        ws.wire.send(frame(PING, b"p" * 125) * 20_000)
        assert ws.upgraded.closed(PROMPT).code == 1008
        assert other.call("ping") == {}


def test_41_a_flood_of_pings_that_reads_nothing(push: PushServer, name: str) -> None:
    """The pongs fill no more than the budget of any client: it is cut."""
    with push.ws(push.token(name)) as ws:
        for _ in range(400):
            try:
                ws.wire.socket.sendall(frame(PING, b"p" * 125) * 100)
            except OSError:
                break
            time.sleep(0.001)
        last = None
        with contextlib.suppress(Ended):
            while last != CLOSE:
                last = ws.upgraded.frame().opcode


def test_41_a_busy_client_is_let_be(push: PushServer, name: str) -> None:
    """A thousand frames at once is much for a page, and allowed; pings are answered."""
    with push.ws(push.token(name)) as ws:
        ws.wire.send(frame(PING, b"?") + b"".join(frame(PONG, b"!") for _ in range(800)))
        assert ws.upgraded.frame().opcode == PONG
        asked = [ws.ask("ping") for _ in range(150)]
        for identity in asked:
            assert ws.answer(identity)["result"] == {}


def test_41_those_that_take_their_time(push: PushServer, name: str) -> None:
    """Ten seconds for a frame, for a message in pieces, and for a first message with a token; five
    to close after we have. All at once, because each takes its time."""
    with (
        push.ws(push.token(name)) as drips,
        push.ws(push.token(f"{name}.2")) as pieces,
        stranger(push) as silent,
        push.ws(push.token(f"{name}.3")) as deaf,
    ):
        begun = time.monotonic()
        data = frame(TEXT, b"x" * 1000)
        pieces.wire.send(frame(TEXT, b"{", fin=False))
        deaf.wire.send(frame(BINARY, b"x"))
        assert deaf.upgraded.frame().code == 1003
        cut_after = 0.0
        for at in range(19):
            drips.wire.send(data[at : at + 1])
            pieces.wire.send(frame(CONT, b"x", fin=False) + frame(PING))
            silent.wire.send(frame(PING))  # a sign of life is no token
            try:
                deaf.wire.socket.sendall(frame(PING))
            except OSError:
                cut_after = cut_after or time.monotonic() - begun
            time.sleep(0.5)
        for upgraded, code in ((drips.upgraded, 1008), (pieces.upgraded, 1008), (silent, 4408)):
            assert upgraded.closed(PROMPT).code == code
        assert time.monotonic() - begun > 9
        assert cut_after > 4


# Strangers.


def test_strangers_of_one_address(push_server_factory: Callable[..., PushServer]) -> None:
    push = push_server_factory(handshakes_per_ip=3, unlimited_addresses=[])
    with ExitStack() as many:
        for _ in range(3):
            many.enter_context(stranger(push, "127.0.0.7"))
        with pytest.raises(Refused) as refusal:
            stranger(push, "127.0.0.7")
        assert refusal.value.response.status == 429
        assert refusal.value.response.error == "too_many_handshakes"
        assert refusal.value.response.header("Retry-After")
        assert refusal.value.response.header("Sec-WebSocket-Accept") is None
        # All doors that take WebSockets have one lobby.
        with pytest.raises(Refused):
            stranger(push, "127.0.0.7", "/bayeux")
        many.enter_context(stranger(push, "127.0.0.8"))
        # Who shows a token makes room.
        first = stranger(push, "127.0.0.9")
        many.enter_context(first)
        first.send({"id": 1, "method": "connect", "params": {"token": push.token()}})
        assert first.value()["type"] == "hello"
        for _ in range(3):
            many.enter_context(stranger(push, "127.0.0.9"))
    # And who leaves does.
    retried(lambda: stranger(push, "127.0.0.7").close(), Refused)


def test_strangers_in_all(push_server_factory: Callable[..., PushServer]) -> None:
    push = push_server_factory(connections=30)
    with ExitStack() as many:
        for _ in range(3):
            many.enter_context(stranger(push))
        with pytest.raises(Refused) as refusal:
            stranger(push)
        assert (refusal.value.response.status, refusal.value.response.error) == (503, "full")
        with push.ws(push.token()) as ws:  # with a token in the handshake, there is room
            assert ws.call("ping") == {}


# What it costs.


@pytest.fixture
def descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_an_idle_connection_keeps_little(
    push_server_factory: Callable[..., PushServer],
) -> None:
    """At most 3 KB each beyond an empty server, also of those that have sent commands."""
    push = push_server_factory()
    token = push.token("0")  # the limit per user does not hold for visitors
    with ExitStack() as warm:
        for _ in range(150):
            warm.enter_context(push.ws(token, "idle:1"))
    before = resident(push)
    with ExitStack() as many:
        for _ in range(1500):
            ws = many.enter_context(push.ws(token, "idle:1"))
            ws.call("ping")
        each = (resident(push) - before) / 1500
        assert each < 3 * 1024, each


def test_what_is_sent_halfway_is_freed(push: PushServer) -> None:
    """200 KB of an unfinished message in each of 30 connections, again and again."""
    half = frame(TEXT, os.urandom(120_000).hex().encode())[:200_000]
    token = push.token("0")
    sizes = []
    for _ in range(5):
        with ExitStack() as many:
            for _ in range(30):
                ws = many.enter_context(push.ws(token))
                ws.wire.send(frame(PING) + half)
                assert ws.upgraded.frame().opcode == PONG
        with push.ws(token) as ws:
            assert ws.call("ping") == {}
        sizes.append(resident(push))
    assert sizes[-1] - sizes[1] < 2_000_000, sizes


def test_a_client_that_vanishes_at_every_point(push: PushServer, name: str) -> None:
    token = push.token(name)
    data = text_frame({"id": 1, "method": "subscribe", "params": {"channels": ["a:1"]}})
    for cut in range(0, len(data) + 1, 7):
        with push.ws(token) as ws:
            ws.wire.send(data[:cut])
            if cut % 2:
                ws.wire.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                )  # an RST
    with push.ws(token) as ws:
        assert ws.call("ping") == {}
