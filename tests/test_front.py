"""The HTTP front without a network: the parser by itself, channels driven step by step, and a
front whose I/O thread is this one."""

import contextlib
import errno
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from waitress import wasyncore
from waitress.adjustments import Adjustments

from push_server import log
from push_server.addresses import without_limit
from push_server.casts import Address
from push_server.front import channel as channel_module
from push_server.front.channel import BODY_FACTOR, Channel
from push_server.front.handover import Handover
from push_server.front.listeners import HEADER_BYTES, Front, Fronts
from push_server.front.requests import CHUNK_LINE_BYTES, StrictParser, Task
from push_server.heads import HEADER_COUNT, TARGET_BYTES
from push_server.server import set_up_log
from push_server.sockets import address_of, open_socket

GET = b"GET /x HTTP/1.1\r\nHost: push.example\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: push.example\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = (
    b"POST /x HTTP/1.1\r\nHost: push.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n"
)

# The parser


def new_parser() -> Any:
    return StrictParser(Adjustments(max_request_header_size=HEADER_BYTES))


def test_a_client_that_leaves_before_its_head_is_understood_is_no_error() -> None:
    # waitress logs the path of a request whose client has gone, also of one it could not parse.
    assert feed([b"\x16\x03\x01 nonsense\r\n\r\n"]).path == ""
    assert new_parser().path == ""


def feed(pieces: list[bytes]) -> Any:
    """A parser that was given these pieces, as far as it took them."""
    parser = new_parser()
    for piece in pieces:
        while piece and not parser.completed:
            piece = piece[parser.received(piece) :]
    return parser


def ways(data: bytes) -> dict[str, list[bytes]]:
    return {
        "whole": [data],
        "byte by byte": [data[i : i + 1] for i in range(len(data))],
        "with junk behind it": [data + b"GET /other HTTP/9.9\r\n\x00"],
    }


@pytest.mark.parametrize("way", list(ways(b"")))
@pytest.mark.parametrize("data", [GET, POST, CHUNKED], ids=["get", "post", "chunked"])
def test_a_good_request_is_the_same_however_it_arrives(data: bytes, way: str) -> None:
    parser = feed(ways(data)[way])
    assert parser.completed and parser.error is None
    assert parser.path == "/x"
    assert parser.get_body_stream().read() == (b"" if data is GET else b"abc")
    parser.close()


@pytest.mark.parametrize("data", [GET, POST, CHUNKED], ids=["get", "post", "chunked"])
def test_what_stands_behind_a_request_is_left_alone(data: bytes) -> None:
    parser = new_parser()
    taken = 0
    while not parser.completed:
        taken += parser.received((data + GET)[taken:])
    assert taken == len(data)
    parser.close()


def head(*lines: bytes, first: bytes = b"GET /x HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *lines, b"", b""])


HOST = b"Host: push.example"
BAD = {
    "no Host": (400, head()),
    "two Hosts": (400, head(HOST, HOST)),
    "two lengths": (400, head(HOST, b"Content-Length: 3", b"content-length: 3")),
    "both framings": (400, head(HOST, b"Content-Length: 3", b"Transfer-Encoding: chunked")),
    "chunked in 1.0": (400, head(HOST, b"Transfer-Encoding: chunked", first=b"GET / HTTP/1.0")),
    "no coding": (400, head(HOST, b"Transfer-Encoding:")),
    "another coding": (400, head(HOST, b"Transfer-Encoding: xchunked")),
    "two codings": (400, head(HOST, b"Transfer-Encoding: gzip, chunked")),
    "folded header": (400, head(HOST, b"X-A: 1", b" 2")),
    "many blanks": (400, head(HOST, b"X-A:" + b" \t" * 32 + b" 1")),
    "folded by a tab": (400, head(HOST, b"X-A: 1", b"\t2")),
    "NUL": (400, head(HOST, b"X-A: \x00")),
    "underscore": (400, head(HOST, b"X_Forwarded_For: 192.0.2.1")),
    "lower-case method": (400, head(HOST, first=b"get /x HTTP/1.1")),
    "two spaces": (400, head(HOST, first=b"GET  /x HTTP/1.1")),
    "no version": (400, head(HOST, first=b"GET /x")),
    "two slashes": (400, head(HOST, first=b"GET //api HTTP/1.1")),
    "version 2.0": (505, head(HOST, first=b"GET /x HTTP/2.0")),
    "version 9.9": (505, head(HOST, first=b"GET /x HTTP/9.9")),
    "long target": (414, head(HOST, first=b"GET /%b HTTP/1.1" % (b"a" * TARGET_BYTES))),
    "many headers": (431, head(HOST, *[b"X-%d: 1" % n for n in range(HEADER_COUNT + 1)])),
    "long head": (431, head(HOST, b"X-A: " + b"a" * HEADER_BYTES)),
}


@pytest.mark.parametrize("way", list(ways(b"")))
@pytest.mark.parametrize(("status", "data"), BAD.values(), ids=BAD)
def test_a_bad_request_is_refused_however_it_arrives(status: int, data: bytes, way: str) -> None:
    parser = feed(ways(data)[way])
    assert parser.completed
    assert parser.error.code == status


@pytest.mark.parametrize("kind", ["extension", "trailer"])
def test_a_chunk_line_has_an_end(kind: str) -> None:
    begun = CHUNKED.partition(b"3\r\n")[0] + (b"3;" if kind == "extension" else b"0\r\nX: ")
    parser = feed([begun, *[b"a" * 100] * 100])
    assert parser.completed and parser.error.code == 400
    left = b"\r\nabc\r\n0\r\n\r\n" if kind == "extension" else b"\r\n\r\n"
    whole = feed([begun, b"a" * (CHUNK_LINE_BYTES - 10), left])
    assert whole.completed and whole.error is None
    whole.close()


def test_the_limits_are_exact() -> None:
    most = head(HOST, *[b"X-%d: 1" % n for n in range(HEADER_COUNT - 1)])
    assert feed([most]).error is None
    line = b"GET / HTTP/1.1"
    blanks = head(HOST, b"X-A: b:" + b" " * 99 + b"1", b"X-B:" + b" " * 64 + b"1")
    assert feed([blanks]).error is None
    longest = b"GET /%b HTTP/1.1" % (b"a" * (TARGET_BYTES - len(line)))
    assert feed([head(HOST, first=longest)]).error is None


# A channel, step by step


class Clock:
    """Stands in for the module `time`."""

    now = 5000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class FakeServer:
    """What a channel needs of its server; tasks wait in a list."""

    server_name = "push.example"
    effective_port = 80
    headers = staticmethod(tuple)

    def __init__(self, application: Callable[[Any, Any], Any]) -> None:
        self.application = application
        self.adj = Adjustments(channel_request_lookahead=0, ident=None)
        self.active_channels: dict[int, Any] = {}
        self.map: dict[int, Any] = {}
        self.tasks: list[Any] = []
        self.leaving: list[Any] = []
        self.readmitted: list[socket.socket] = []
        self.on_pull: Callable[[], None] = lambda: None
        self.trigger = self

    def add_task(self, channel: Any) -> None:
        self.tasks.append(channel)

    def let_go(self, channel: Any) -> None:
        self.leaving.append(channel)

    def count(self, channel: Any) -> None:
        pass

    def pull_trigger(self, thunk: Callable[[], None] | None = None) -> None:
        if thunk is not None:
            thunk()
        self.on_pull()

    def take_back(self, sock: socket.socket, addr: Any) -> None:
        self.readmitted.append(sock)


class Scene:
    """One channel, its client, and an application that takes what asks for `/take`."""

    def __init__(self) -> None:
        self.client, server_end = socket.socketpair()
        self.taken: list[tuple[socket.socket, Callable[[socket.socket], None]]] = []
        self.during: Callable[[], None] = lambda: None
        self.server = FakeServer(self.application)
        adj = self.server.adj
        self.channel = Channel(self.server, server_end, ("192.0.2.1", 9), adj, self.server.map)

    def application(self, environ: Any, start_response: Any) -> list[bytes]:
        self.during()
        if environ["PATH_INFO"] == "/take":
            if environ["push_server.hijack"](lambda sock, back: self.taken.append((sock, back))):
                return []
            start_response("400 Bad Request", [("Content-Length", "2")])
            return [b"no"]
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    def answer(self) -> bytes:
        self.client.settimeout(5)
        return self.client.recv(4096)

    def close(self) -> None:
        self.client.close()
        if self.channel.socket is not None:
            self.channel.socket.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


TAKE = GET.replace(b"/x", b"/take")


def test_a_taken_connection_leaves_waitress_open_and_silent(scene: Scene) -> None:
    channel, server = scene.channel, scene.server
    channel.received(TAKE)
    channel.service()
    assert server.leaving == [channel]
    assert not channel.readable() and not channel.writable()
    channel.leave()
    ((sock, _),) = scene.taken
    assert server.map == {} and server.active_channels == {}
    sock.send(b"from the hub")
    assert scene.answer() == b"from the hub"
    assert not channel.overdue(time.monotonic() + 10_000, 10)


def test_the_way_back(scene: Scene) -> None:
    scene.channel.received(TAKE)
    scene.channel.service()
    scene.channel.leave()
    ((sock, give_back),) = scene.taken
    give_back(sock)
    assert scene.server.readmitted == [sock]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_content_keeps_the_connection(scene: Scene, status: str) -> None:
    def bare(_: Any, start_response: Any) -> list[bytes]:
        start_response(status, [])
        return []

    scene.server.application = bare
    last = GET.replace(b"Host:", b"Connection: close\r\nHost:")
    for request, kept in ((GET, True), (last, False)):
        scene.channel.received(request)
        scene.channel.service()
        answer = scene.answer()
        assert answer.startswith(f"HTTP/1.1 {status}\r\n".encode())
        assert (b"Connection: close" not in answer) is kept
        assert scene.channel.close_when_flushed is not kept


@pytest.mark.parametrize(
    "behind",
    [GET, GET[:10], POST[:-2], CHUNKED[:-8], b"x"],
    ids=["whole", "half a head", "half a body", "half a chunk", "a byte"],
)
def test_bytes_behind_a_request_to_be_taken_are_never_lost(scene: Scene, behind: bytes) -> None:
    scene.channel.received(TAKE + behind)
    scene.channel.service()
    assert scene.taken == [] and scene.server.leaving == []
    assert scene.answer().startswith(b"HTTP/1.1 400 ")
    assert scene.channel.close_when_flushed


def test_blank_lines_behind_a_request_are_nothing(scene: Scene) -> None:
    scene.channel.received(TAKE + b"\r\n")
    scene.channel.service()
    assert scene.server.leaving == [scene.channel]


def test_a_client_that_is_gone_before_the_worker_is_done_is_not_passed_on(scene: Scene) -> None:
    scene.during = scene.channel.handle_close
    scene.channel.received(TAKE)
    scene.channel.service()
    for channel in scene.server.leaving:
        channel.leave()
    assert scene.taken == []


@pytest.fixture
def as_served(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What a server logs, with the levels that it sets."""
    logger = logging.getLogger("waitress")
    level = logger.level
    caplog.set_level(logging.INFO)
    set_up_log()
    yield caplog
    logger.setLevel(level)


def test_58_a_client_that_is_gone_forges_no_line(
    scene: Scene, as_served: pytest.LogCaptureFixture
) -> None:
    # waitress names the path, which is decoded by then.
    scene.during = scene.channel.handle_close
    scene.channel.received(GET.replace(b"/x", b"/x%0d%0aevent=forged"))
    scene.channel.service()
    assert [each.getMessage() for each in as_served.records] == []


def test_only_the_worker_that_took_a_connection_lets_go_of_it(scene: Scene) -> None:
    # The first worker has answered and is about to return from `service`; the I/O thread reads
    # the next request, and another worker takes the connection for it.
    channel, server = scene.channel, scene.server

    def overtake() -> None:
        server.on_pull = lambda: None
        channel.received(TAKE)
        channel.service()

    server.on_pull = overtake
    channel.received(GET)
    channel.service()
    assert scene.answer().endswith(b"ok")
    assert server.leaving == [channel]


def test_a_keep_alive_connection_serves_and_can_be_taken(scene: Scene) -> None:
    for _ in range(3):
        scene.channel.received(GET)
        scene.channel.service()
        assert scene.answer().endswith(b"ok")
    scene.channel.received(TAKE)
    scene.channel.service()
    assert scene.server.leaving == [scene.channel]


def test_the_environment_leaves_no_cycle(scene: Scene) -> None:
    import gc

    gc.collect()
    gc.disable()
    try:
        scene.channel.received(GET)
        scene.channel.service()
        scene.answer()
        found = [each for each in gc.get_objects() if isinstance(each, Task)]
    finally:
        gc.enable()
    assert found == []


# Deadlines


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(channel_module, "time", fake)
    return fake


def test_the_head_is_due_in_time_however_it_trickles(clock: Clock) -> None:
    scene = Scene()
    for byte in GET[:-2]:
        assert not scene.channel.overdue(clock.now, 10)
        clock.now += 10 / (len(GET) - 2)
        scene.channel.received(bytes([byte]))
    assert scene.channel.overdue(clock.now + 0.1, 10)
    scene.close()


def test_blank_lines_gain_no_time(clock: Clock) -> None:
    scene = Scene()
    for _ in range(11):
        scene.channel.received(b"\r\n\r\n")
        clock.now += 1
    assert scene.channel.overdue(clock.now, 10)
    scene.close()


def test_silence_is_overdue_before_the_first_request_only(clock: Clock) -> None:
    scene = Scene()
    assert scene.channel.overdue(clock.now + 11, 10)
    scene.channel.received(GET)
    assert not scene.channel.overdue(clock.now + 11, 10), "it is our turn"
    scene.channel.service()
    assert not scene.channel.overdue(clock.now + 1000, 10), "keep-alive"
    clock.now += 1000
    scene.channel.received(GET[:5])
    assert not scene.channel.overdue(clock.now + 9, 10)
    assert scene.channel.overdue(clock.now + 11, 10)
    scene.close()


def test_a_body_has_longer(clock: Clock) -> None:
    scene = Scene()
    scene.channel.received(POST[:-1])
    assert not scene.channel.overdue(clock.now + 11, 10)
    assert scene.channel.overdue(clock.now + 10 * BODY_FACTOR + 1, 10)
    scene.channel.give_up()
    assert scene.answer().startswith(b"HTTP/1.1 408 ")
    assert scene.channel.will_close
    scene.channel.request.close()
    scene.close()


def test_who_asked_nothing_is_told_nothing(clock: Clock) -> None:
    scene = Scene()
    scene.channel.give_up()
    scene.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        scene.client.recv(1)
    scene.close()


# A front whose I/O thread is this one


class Stand:
    """A listening front; `turn` is one turn of its I/O loop."""

    def __init__(
        self, application: Any, sockets: Sequence[socket.socket] = (), **changes: Any
    ) -> None:
        self.fronts = Fronts()
        options: dict[str, Any] = {
            "threads": 2,
            "max_body": 1000,
            "channels": 100,
            "head_seconds": 10.0,
            "per_address": 0,
            "unlimited": frozenset(),
        }
        listening = sockets or [open_socket("listen", Address("127.0.0.1", 0))]
        self.port = address_of(listening[0]).port
        self.fronts.listen(application, listening, **{**options, **changes})
        self.fronts._dispatchers[0].use_this_thread()
        self.front: Front = self.fronts._fronts[0]
        self.clients: list[socket.socket] = []

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.fronts.turn(0.05)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            self.turn()

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), 5, (source, 0))
        self.clients.append(client)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.fronts.stop()
        for each in list(self.fronts._map.values()):
            each.close()


def well(_: Any, start: Any) -> list[bytes]:
    """An application that answers."""
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.fixture
def make_stand() -> Iterator[Callable[..., Stand]]:
    stands: list[Stand] = []

    def make(application: Any = None, **changes: Any) -> Stand:
        stands.append(Stand(application or (lambda environ, start: []), **changes))
        return stands[-1]

    yield make
    for stand in stands:
        stand.close()


def test_one_turn_accepts_all_that_wait(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand()
    for _ in range(10):
        stand.connect()
    stand.turn()
    assert len(stand.front.active_channels) == 10


def test_an_address_that_opens_and_asks_nothing_is_limited(
    make_stand: Callable[..., Stand],
) -> None:
    stand = make_stand(per_address=3, unlimited=frozenset({"127.0.0.9"}))
    for _ in range(5):
        stand.connect("127.0.0.2")
    for _ in range(5):
        stand.connect("127.0.0.9")
    stand.connect("127.0.0.3")
    stand.until(lambda: len(stand.front.active_channels) == 3 + 5 + 1)
    stand.turn(2)
    assert stand.front._incomplete == {"127.0.0.2": 3, "127.0.0.3": 1}
    for client in stand.clients:
        client.close()
    stand.until(lambda: not stand.front.active_channels)
    assert not stand.front._incomplete


def test_a_connection_counts_until_its_request_is_complete(
    make_stand: Callable[..., Stand],
) -> None:
    stand = make_stand(well, per_address=3)
    channels = stand.front.active_channels
    for _ in range(10):
        client = stand.connect("127.0.0.2")
        client.sendall(GET)
        stand.until(
            lambda: (
                len(channels) == len(stand.clients)
                and all(channel.served for channel in channels.values())
            )
        )
        assert not stand.front._incomplete
        assert client.recv(1000).endswith(b"ok")
    assert len(stand.front.active_channels) == 10


def test_a_connection_that_is_handed_over_counts_until_its_request_is_complete(
    make_stand: Callable[..., Stand],
) -> None:
    handover = Handover.make()
    sends = make_stand(well, handover=handover)
    takes = make_stand(well, handover=handover._replace(mine=True), per_address=2)
    served = sends.connect("127.0.0.2")
    served.sendall(GET)
    sends.until(lambda: any(channel.served for channel in sends.front.active_channels.values()))
    for _ in range(4):
        sends.connect("127.0.0.2")
    sends.until(lambda: len(sends.front.active_channels) == 5)
    for client in sends.clients:
        client.sendall(b"POST /bayeux HTTP/1.1\r\n")
    sends.until(lambda: not sends.front.active_channels)
    takes.turn(10)
    assert takes.front._incomplete == {"127.0.0.2": 2}
    assert len(takes.front.active_channels) == 3
    handover.close()


def test_a_connection_that_comes_back_is_no_handshake(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand(per_address=1)
    stand.connect("127.0.0.2")
    stand.until(lambda: stand.front._incomplete == {"127.0.0.2": 1})
    client, ours = socket.socketpair()
    stand.front.readmit(ours, ("127.0.0.2", 9))
    stand.turn(3)
    assert stand.front._incomplete == {"127.0.0.2": 1}
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    client.close()
    stand.until(lambda: len(stand.front.active_channels) == 1)


def test_a_connection_that_closed_meanwhile_does_not_come_back(
    make_stand: Callable[..., Stand],
) -> None:
    stand = make_stand()
    client, ours = socket.socketpair()
    client.close()
    ours.close()
    stand.front.readmit(ours, ("127.0.0.2", 9))
    assert not stand.front.active_channels


def test_a_reset_in_the_turn_of_the_request_reaches_nobody(
    make_stand: Callable[..., Stand],
) -> None:
    # poll reports the request and the reset together: waitress starts a worker and then closes.
    entered, closed = threading.Event(), threading.Event()
    taken: list[socket.socket] = []

    def application(environ: Any, _: Any) -> list[bytes]:
        entered.set()
        assert closed.wait(10)
        environ["push_server.hijack"](lambda sock, back: taken.append(sock))
        return []

    stand = make_stand(application)
    client = stand.connect()
    stand.until(lambda: bool(stand.front.active_channels))
    (channel,) = stand.front.active_channels.values()
    add_task = stand.front.add_task

    def start_and_see(channel: Channel) -> None:
        add_task(channel)
        assert entered.wait(10)

    stand.front.add_task = start_and_see  # type: ignore[method-assign]
    client.sendall(GET)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    stand.until(lambda: channel.socket is None)
    closed.set()
    stand.until(lambda: channel.served)
    stand.turn(3)
    assert taken == []


# Requests that wait for nothing


def test_what_waits_for_nothing_needs_no_worker(make_stand: Callable[..., Stand]) -> None:
    served_by: list[tuple[str, int]] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        served_by.append((environ["PATH_INFO"], threading.get_ident()))
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    stand = make_stand(application, at_once=lambda path, query: (path, query) == ("/now", "a=1"))
    client = stand.connect()
    now = GET.replace(b"/x", b"/now?a=1")
    # In one piece: waitress passes the second on when the first has been served, by a worker too.
    client.sendall(now + now + GET + now)
    stand.until(lambda: len(served_by) == 4)
    assert [path for path, _ in served_by] == ["/now", "/now", "/x", "/now"]
    here = [thread == threading.get_ident() for _, thread in served_by]
    assert here[:3] == [True, True, False]
    client.settimeout(5)
    answers = b""
    while answers.count(b"\r\n\r\nok") < 4:
        stand.turn()
        answers += client.recv(1000)


def test_the_io_thread_does_not_wake_itself(
    make_stand: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It alone empties the pipe, which many small requests in one turn would fill."""
    stand = make_stand(well, at_once=lambda path, query: True)
    client = stand.connect()
    stand.until(lambda: bool(stand.front.active_channels))
    woken: list[int] = []
    monkeypatch.setattr(stand.front.trigger, "_physical_pull", lambda: woken.append(1))
    client.sendall(GET * 50)
    client.settimeout(5)
    answers, turns = b"", 0
    began = time.monotonic()
    while answers.count(b"\r\n\r\nok") < 50:
        stand.fronts.turn(5.0)
        assert time.monotonic() - began < 5, "it does not wait while something is due"
        turns += 1
        answers += client.recv(65_536)
    assert woken == []
    assert turns >= 50, "one request of a connection in each turn"


def test_a_reset_behind_what_waits_for_nothing(make_stand: Callable[..., Stand]) -> None:
    taken: list[socket.socket] = []

    def application(environ: Any, _: Any) -> list[bytes]:
        environ["push_server.hijack"](lambda sock, back: taken.append(sock))
        return []

    stand = make_stand(application, at_once=lambda path, query: True)
    client = stand.connect()
    stand.until(lambda: bool(stand.front.active_channels))
    client.sendall(GET)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    stand.until(lambda: not stand.front.active_channels)
    stand.turn(2)
    assert taken == [], "waitress had closed this socket"


def test_what_fails_on_the_io_thread_ends_one_connection(
    make_stand: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = make_stand(at_once=lambda path, query: True)
    client = stand.connect()
    stand.until(lambda: bool(stand.front.active_channels))
    monkeypatch.setattr(Channel, "service", lambda channel: 1 / 0)
    client.sendall(GET)
    stand.until(lambda: not stand.front.active_channels)
    assert client.recv(1) == b""


@pytest.mark.parametrize("at_once", [False, True], ids=["workers", "at once"])
def test_many_leave_in_one_turn_and_come_back(
    make_stand: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    taken: list[tuple[socket.socket, Any]] = []

    def application(environ: Any, _: Any) -> list[bytes]:
        environ["push_server.hijack"](lambda *given: taken.append(given))
        return []

    stand = make_stand(application, at_once=lambda path, query: at_once)
    for _ in range(20):
        stand.connect().sendall(GET)
    stand.until(lambda: len(taken) == 20)
    assert not stand.front.active_channels
    pull, pulls = stand.front.trigger.pull_trigger, []

    def counted(call: Any) -> None:
        pulls.append(call)
        pull(call)

    def fault() -> None:
        raise ArithmeticError("a fault of the test")

    monkeypatch.setattr(stand.front.trigger, "pull_trigger", counted)
    for sock, give_back in taken:
        sock.send(b"an answer of the hub")
        give_back(sock)
    assert len(pulls) == 1, "one wake-up serves many"
    stand.front._posted.appendleft(fault)  # keeps nobody
    stand.until(lambda: len(stand.front.active_channels) == 20)
    for client in stand.clients:
        assert client.recv(100) == b"an answer of the hub"
        client.sendall(GET)
    stand.until(lambda: len(taken) == 40)
    for sock, _ in taken[20:]:
        sock.close()


def test_answers_that_nobody_takes_hold_no_worker(make_stand: Callable[..., Stand]) -> None:
    # waitress serves all requests that came in one piece, and keeps a worker for them from 16 MB
    # of answers on: a client for each worker would end the service.
    answers = 40
    served = 0

    def large(_: Any, start: Any) -> list[bytes]:
        nonlocal served
        served += 1
        start("200 OK", [("Content-Length", "1000000")])
        return [b"x" * 1_000_000]

    stand = make_stand(large)
    greedy = [stand.connect() for _ in range(2)]  # as many as there are workers
    for client in greedy:
        client.sendall(GET * answers)
    stand.until(lambda: served == 2)
    stand.connect().sendall(GET)
    stand.until(lambda: served == 3)
    stand.turn(3)
    assert served == 3
    stand.until(lambda: all(channel.idle for channel in stand.front.active_channels.values()))
    # Who reads gets every answer.
    reading, taken = greedy[0], 0
    reading.setblocking(False)

    def read() -> bool:
        nonlocal taken
        with contextlib.suppress(BlockingIOError):
            taken += len(reading.recv(1 << 20))
        return taken > answers * 1_000_000

    stand.until(read)
    assert served == 2 + answers


def test_the_crowded_house_closes_the_longest_idle(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand(channels=10)
    pairs = [socket.socketpair() for _ in range(9)]
    for number, (client, ours) in enumerate(pairs):
        stand.clients.append(client)
        stand.front.readmit(ours, ("192.0.2.1", number))
        list(stand.front.active_channels.values())[-1].owes_since = float(number)
    excess = len(stand.fronts._map) - 8
    assert excess > 0
    stand.front.maintenance(time.monotonic())
    closing = [channel.will_close for channel in stand.front.active_channels.values()]
    assert closing == [True] * excess + [False] * (9 - excess)


@pytest.mark.parametrize("step", [-86_400.0, 0.0, 86_400.0])
def test_the_overdue_are_given_up_and_the_house_is_told_whatever_the_wall_says(
    make_stand: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    beats: list[int] = []
    stand = make_stand(well)
    stand.fronts._every_second = lambda: beats.append(1)
    idle, slow = stand.connect(), stand.connect()
    idle.sendall(GET)
    idle.setblocking(False)
    stand.until(lambda: answered(idle) and bool(beats))
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + step)
    stand.front.head_seconds = 0.0
    beats.clear()
    slow.sendall(GET[:10])
    stand.until(lambda: bool(beats) and len(stand.front.active_channels) == 1)
    assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
    stand.turn(3)
    assert len(stand.front.active_channels) == 1, "who idles rightfully does so by the other clock"


def test_a_house_that_is_full_again_and_again_is_not_logged_as_often(
    make_stand: Callable[..., Stand],
    as_served: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log, "_windows", {})
    stand = make_stand(channels=5)
    for _ in range(log.LINES_PER_MINUTE + 2):
        clients = [stand.connect() for _ in range(5)]
        stand.until(lambda: stand.front.in_connection_overflow)
        for client in clients:
            client.close()
        stand.until(lambda: not stand.front.in_connection_overflow)
    lines = [each.getMessage() for each in as_served.records]
    assert lines == ["event=http.full limit=5 ip=all"] * log.LINES_PER_MINUTE


def test_where_no_descriptor_is_left_nobody_is_accepted_for_a_while(
    make_stand: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = make_stand(well)
    idle = stand.connect()
    idle.sendall(GET)
    idle.setblocking(False)
    stand.until(lambda: answered(idle))
    tries: list[int] = []

    def accept(_: Any) -> Any:
        tries.append(1)
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(wasyncore.dispatcher, "accept", accept)
        stand.fronts._next_look = time.monotonic() + 60
        next_one = stand.connect()
        stand.turn(5)
        assert len(tries) == 1
    stand.fronts._next_look = 0.0
    next_one.sendall(GET)
    next_one.setblocking(False)
    stand.until(lambda: answered(next_one))
    assert idle.recv(1000).endswith(b"ok") and idle.recv(1) == b"", "who idles makes room"


def test_stop_accepting_and_stop(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand()
    client = stand.connect()
    stand.until(lambda: bool(stand.front.active_channels))
    stand.fronts.stop_accepting()
    stand.turn(3)
    with pytest.raises(ConnectionRefusedError):
        stand.connect()
    assert len(stand.front.active_channels) == 1
    stand.fronts.stop()
    stand.fronts.run()  # returns at once
    client.close()


def answered(client: socket.socket) -> bool:
    """Whether the answer is there; head and body may come one after the other."""
    try:
        return client.recv(1000, socket.MSG_PEEK | socket.MSG_DONTWAIT).endswith(b"ok")
    except BlockingIOError:
        return False


def test_those_on_a_unix_socket_are_not_one_address(
    make_stand: Callable[..., Stand], tmp_path: Any
) -> None:
    # A proxy brings everybody through it.
    path = str(tmp_path / "push.sock")
    seen: list[str] = []

    def application(environ: Any, start: Any) -> list[bytes]:
        seen.append(environ["REMOTE_ADDR"])
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    unlimited = without_limit(["127.0.0.1"], "192.0.2.7")
    listening = open_socket("listen", Address(path=path))
    stand = make_stand(application, sockets=[listening], per_address=1, unlimited=unlimited)
    for _ in range(3):
        client = socket.socket(socket.AF_UNIX)
        stand.clients.append(client)
        client.connect(path)
    stand.until(lambda: len(stand.front.active_channels) == 3)
    stand.turn(2)
    for client in stand.clients:
        client.sendall(GET)
    stand.until(lambda: len(seen) == 3)
    stand.until(lambda: all(map(answered, stand.clients)))
    assert set(seen) <= unlimited


def test_many_sockets_share_their_workers(make_stand: Callable[..., Stand]) -> None:
    together = threading.Barrier(3)
    names: set[str] = set()

    def application(_: Any, start: Any) -> list[bytes]:
        together.wait(10)  # passed only by three at a time
        names.add(threading.current_thread().name)
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    sockets = [open_socket("listen", Address(host, 0)) for host in ("127.0.0.1", "::1")]
    stand = make_stand(application, sockets=sockets, threads=3)
    for number in range(6):
        stand.clients.append(socket.create_connection(sockets[number % 2].getsockname()[:2], 5))
        stand.clients[-1].sendall(GET)
    channels = [front.active_channels for front in stand.fronts._fronts]
    stand.until(
        lambda: [[each.served for each in some.values()] for some in channels] == [[True] * 3] * 2
    )
    assert len(names) == 3


def test_an_ipv4_client_of_a_socket_for_both_has_its_ipv4_address(
    make_stand: Callable[..., Stand],
) -> None:
    # As ::ffff:127.0.0.2 all of IPv4 would be one /64 network: the limits of one for everybody.
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        stand = make_stand(sockets=[both], per_address=1)
        stand.connect("127.0.0.2")
        stand.connect("127.0.0.3")
        stand.until(lambda: len(stand.front.active_channels) == 2)
        assert stand.front._incomplete == {"127.0.0.2": 1, "127.0.0.3": 1}


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="not on this system")
def test_what_a_client_does_not_acknowledge_ends_its_connection(
    make_stand: Callable[..., Stand],
) -> None:
    # A client behind a dead link is gone without a word; connections inherit this.
    stand = make_stand()
    stand.connect()
    stand.until(lambda: bool(stand.front.active_channels))
    (channel,) = stand.front.active_channels.values()
    accepted = channel.socket
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
