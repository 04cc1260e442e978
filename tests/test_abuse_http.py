"""Attacks below the application: framing, hosts, versions, methods, and clients that dawdle.

The corpus runs against both listeners, each case whole, byte by byte, and with a second request
behind it. After a framing error nobody can say where that second request begins, so it must
never be answered: somebody else's proxy may believe it belongs to another user.
"""

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import NamedTuple

import pytest
from harness import PushServer
from waiting import PATIENCE, PROMPT, retried, wait_for
from wire import (
    Ended,
    Refused,
    Wire,
    parse_responses,
    read_head,
    read_response,
    request_bytes,
)

pytestmark = pytest.mark.usefixtures("unharmed")

_numbers = count()

BAD = {400}
BAD_CODING = {400, 501}
SECOND = b"GET /second HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"


class Case(NamedTuple):
    """A broken request. HOST and PATH are filled in; every refusal must close."""

    name: str
    data: bytes
    statuses: set[int]


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A POST with these header lines after its Host."""
    return b"\r\n".join([b"POST PATH HTTP/" + version, b"Host: HOST", *lines, b"", body])


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


CORPUS = [
    # Target
    Case("half an address", b"GET http://[::1/a HTTP/1.1\r\nHost: HOST\r\n\r\n", BAD),
    # Length
    Case("lengths differ", post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"), BAD),
    Case("length twice", post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), BAD),
    Case("length list", post(b"Content-Length: 3, 3", body=b"abc"), BAD),
    Case("length +3", post(b"Content-Length: +3", body=b"abc"), BAD),
    Case("length -1", post(b"Content-Length: -1"), BAD),
    Case("length 0x3", post(b"Content-Length: 0x3", body=b"abc"), BAD),
    Case("length 1_0", post(b"Content-Length: 1_0", body=b"abcdefghij"), BAD),
    Case("length Arabic digit", post(b"Content-Length: \xd9\xa3", body=b"abc"), BAD),
    Case("length superscript", post(b"Content-Length: \xb3", body=b"abc"), BAD),
    Case("length 3.0", post(b"Content-Length: 3.0", body=b"abc"), BAD),
    Case("length text", post(b"Content-Length: abc", body=b"abc"), BAD),
    Case("length 20 digits", post(b"Content-Length: 99999999999999999999"), {400, 413}),
    # Transfer-Encoding
    Case("both", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), BAD),
    Case(
        "both, other order",
        post(b"Transfer-Encoding: chunked", b"content-length: 5", body=b"0\r\n\r\n"),
        BAD,
    ),
    Case("coding xchunked", post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), BAD_CODING),
    Case("coding identity", post(b"Transfer-Encoding: identity", body=b"abc"), BAD_CODING),
    Case(
        "coding twice",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
        BAD_CODING,
    ),
    Case(
        "coding, space before colon", post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), BAD
    ),
    Case("coding VT", post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), BAD_CODING),
    Case("coding gzip", post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), BAD_CODING),
    Case("coding not last", post(b"Transfer-Encoding: chunked, x", body=b"0\r\n\r\n"), BAD_CODING),
    Case("coding empty", post(b"Transfer-Encoding:", body=b"abc"), BAD_CODING),
    Case(
        "coding on 1.0",
        post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"1.0"),
        BAD_CODING,
    ),
    # Chunks
    Case("chunk 0x3", chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), BAD),
    Case("chunk 1_0", chunked(b"1_0\r\nabcdefghijklmnop\r\n0\r\n\r\n"), BAD),
    Case("chunk +3", chunked(b"+3\r\nabc\r\n0\r\n\r\n"), BAD),
    Case("chunk -3", chunked(b"-3\r\nabc\r\n0\r\n\r\n"), BAD),
    Case("chunk empty size", chunked(b"\r\nabc\r\n0\r\n\r\n"), {400, 408}),
    Case("chunk extension with LF", chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n"), BAD),
    Case("chunk size ends in LF", chunked(b"3\nabc\n0\n\n\r\n\r\n"), BAD),
    Case("chunk without line end", chunked(b"3\r\nabcX0\r\n\r\n"), BAD),
    Case("chunk longer than said", chunked(b"3\r\nabcdef\r\n0\r\n\r\n"), BAD),
    # Header lines
    Case("line ends in LF", b"GET PATH HTTP/1.1\nHost: HOST\n\n", {400, 408}),
    Case("one line ends in LF", b"GET PATH HTTP/1.1\r\nHost: HOST\nX: y\r\n\r\n", BAD),
    Case("bare CR", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX: a\rY: b\r\n\r\n", BAD),
    Case("NUL in a value", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX: a\0b\r\n\r\n", BAD),
    Case("NUL in a name", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX\0: a\r\n\r\n", BAD),
    Case("folded", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX: a\r\n b\r\n\r\n", BAD),
    Case("folded with tab", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX: a\r\n\tb\r\n\r\n", BAD),
    Case("folded first", b"GET PATH HTTP/1.1\r\n Host: HOST\r\n\r\n", BAD),
    Case("space before colon", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX : a\r\n\r\n", BAD),
    Case("control in a name", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX\x01: a\r\n\r\n", BAD),
    Case("letter in a name", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX\xe9: a\r\n\r\n", BAD),
    Case("empty name", b"GET PATH HTTP/1.1\r\nHost: HOST\r\n: a\r\n\r\n", BAD),
    Case("no colon", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nnonsense\r\n\r\n", BAD),
    Case("underscore", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n", BAD),
    # Host
    Case("no Host", b"GET PATH HTTP/1.1\r\nX: y\r\n\r\n", BAD),
    Case("two Hosts", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", BAD),
    Case("two Hosts differ", b"GET PATH HTTP/1.1\r\nHost: HOST\r\nhost: evil\r\n\r\n", BAD),
    # Request line
    Case("space in path", b"GET /a PATH HTTP/1.1\r\nHost: HOST\r\n\r\n", BAD),
    Case("two spaces", b"GET  PATH HTTP/1.1\r\nHost: HOST\r\n\r\n", BAD),
    Case("tab", b"GET\tPATH\tHTTP/1.1\r\nHost: HOST\r\n\r\n", BAD),
    Case("bare CR in path", b"GET /a\rb HTTP/1.1\r\nHost: HOST\r\n\r\n", BAD),
    Case("NUL in path", b"GET /a\0b HTTP/1.1\r\nHost: HOST\r\n\r\n", BAD),
    Case("raw bytes in path", b"GET /\xff\xfe HTTP/1.1\r\nHost: HOST\r\n\r\n", BAD),
    Case("lower case", b"get PATH HTTP/1.1\r\nHost: HOST\r\n\r\n", {400, 405, 501}),
    Case("version 9.9", b"GET PATH HTTP/9.9\r\nHost: HOST\r\n\r\n", {400, 505}),
    Case("version 2.0", b"GET PATH HTTP/2.0\r\nHost: HOST\r\n\r\n", {400, 505}),
    Case("version 1.10", b"GET PATH HTTP/1.10\r\nHost: HOST\r\n\r\n", {400, 505}),
    Case("version 01.1", b"GET PATH HTTP/01.1\r\nHost: HOST\r\n\r\n", {400, 505}),
    Case("version lower case", b"GET PATH http/1.1\r\nHost: HOST\r\n\r\n", {400, 505}),
    Case("version missing", b"GET PATH\r\nHost: HOST\r\n\r\n", {400, 505}),
    Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", {400, 505}),
    Case("no target", b"GET HTTP/1.1\r\nHost: HOST\r\n\r\n", BAD),
    Case("a colon first", b":\r\nHost: HOST\r\n\r\n", BAD),
    # Size
    Case("long target", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: HOST\r\n\r\n", {414, 431}),
    Case(
        "long header",
        b"GET PATH HTTP/1.1\r\nHost: HOST\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
        {431},
    ),
    Case(
        "long cookie",
        b"GET PATH HTTP/1.1\r\nHost: HOST\r\nCookie: " + b"a=b; " * 40_000 + b"\r\n\r\n",
        {431},
    ),
    Case(
        "many headers",
        b"GET PATH HTTP/1.1\r\nHost: HOST\r\n"
        + b"".join(b"X%d: y\r\n" % number for number in range(10_000))
        + b"\r\n",
        {431},
    ),
    Case(
        "65 headers",
        b"GET PATH HTTP/1.1\r\nHost: HOST\r\n"
        + b"".join(b"X%d: y\r\n" % number for number in range(65))
        + b"\r\n",
        {431},
    ),
]

LISTENERS = pytest.mark.parametrize("internal", [False, True], ids=["public", "internal"])


@pytest.fixture(scope="module")
def impatient() -> Iterator[PushServer]:
    """A server that gives up on a request's head after one second, for every address."""
    with PushServer(handshake_timeout=1) as server:
        yield server


def fill(push: PushServer, data: bytes, internal: bool) -> bytes:
    host = push.head(internal)["Host"].encode()
    return data.replace(b"HOST", host).replace(b"PATH", b"/api" if internal else b"/publish")


def _bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def split(data: bytes, mode: str) -> list[bytes]:
    if mode == "bytewise":
        # The long cases are long by repetition; their beginnings and ends are what matters.
        first, middle, last = data[:200], data[200:-50], data[max(200, len(data) - 50) :]
        return [*_bytes(first), middle, *_bytes(last)]
    if mode == "pipelined":
        return [data + SECOND]
    if mode == "behind":
        return [data, SECOND]
    return [data]


MODES = ["whole", "bytewise", "pipelined", "behind"]


@LISTENERS
@pytest.mark.parametrize(
    ("case", "mode"),
    [
        pytest.param(case, mode, id=f"{case.name}-{mode}")
        for case in CORPUS
        # The cases that wait for a deadline take their time.
        for mode in (MODES[1:3] if 408 in case.statuses else MODES)
    ],
)
def test_28_framing(impatient: PushServer, case: Case, mode: str, internal: bool) -> None:
    # Ends a request where one parser sees its end and another does not (request smuggling).
    # A case that leaves this parser waiting for more must run into the deadline.
    push = impatient
    pieces = [piece for piece in split(fill(push, case.data, internal), mode) if piece]
    answer = push.raw([fill(push, piece, internal) for piece in pieces], internal=internal)
    assert answer.closed, answer
    responses = parse_responses(answer)
    assert len(responses) == 1, responses
    assert responses[0].status in case.statuses, responses
    assert b"Traceback" not in responses[0].body
    assert b"waitress" not in bytes(answer)


def test_28_random_splits(impatient: PushServer) -> None:
    # Cuts each case in two at many places: no cut may change the answer.
    push = impatient
    for case in CORPUS:
        if 408 in case.statuses:
            continue
        data = fill(push, case.data, internal=False)
        for place in {1, 2, 7, len(data) // 3, len(data) // 2, len(data) - 3, len(data) - 1}:
            answer = push.raw([data[:place], data[place:] + fill(push, SECOND, internal=False)])
            responses = parse_responses(answer)
            assert answer.closed and len(responses) == 1, (case.name, place, answer)
            assert responses[0].status in case.statuses, (case.name, place, answer)


LEGAL = [
    Case("chunk extension", chunked(b"3;a=b\r\nabc\r\n0\r\n\r\n"), {400, 401}),
    Case("chunks and trailer", chunked(b"3\r\nabc\r\n3\r\ndef\r\n0\r\nX: y\r\n\r\n"), {400, 401}),
    Case(
        "GET with a body", b"GET /a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\n\r\nabc", {404}
    ),
    Case("empty body", post(b"Content-Length: 0"), {400, 401}),
    Case("blanks around a value", b"GET /a HTTP/1.1\r\nHost:   HOST  \r\nX:\ty \r\n\r\n", {404}),
    Case("63 headers", b"GET /a HTTP/1.1\r\nHost: HOST\r\n" + b"X: y\r\n" * 62 + b"\r\n", {404}),
    Case(
        "h2c upgrade",
        b"GET /a HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        {404},
    ),
]


@LISTENERS
@pytest.mark.parametrize("mode", ["whole", "bytewise"])
@pytest.mark.parametrize("case", LEGAL, ids=lambda case: case.name)
def test_28_legal_requests_keep_the_connection(
    push: PushServer, case: Case, mode: str, internal: bool
) -> None:
    # The counterpart: what is legal is answered, and what stands behind it too, once.
    pieces = [
        *split(fill(push, case.data, internal), mode),
        fill(push, SECOND, internal),
    ]
    answer = push.raw([piece for piece in pieces if piece], internal=internal)
    assert answer.closed
    responses = parse_responses(answer)
    assert [response.status for response in responses][1:] == [404], responses
    assert responses[0].status in case.statuses


def test_28_expect(push: PushServer) -> None:
    # A client that waits for leave to send its body gets leave, or a refusal, not silence.
    with push.wire(internal=True) as wire:
        headers = {**push.head(internal=True), "Expect": "100-continue", "Content-Length": "2"}
        wire.send(request_bytes("POST", "/api", headers, None))
        wire.send(b"{}")
        assert read_response(wire, "POST").status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "push.site.localhost.evil"])
def test_29_a_foreign_host(push: PushServer, host: str) -> None:
    # Reaches the server under a name of the attacker's (DNS rebinding, cache poisoning).
    response = push.get("/frame", headers={"Host": host})
    assert response.status == 421
    assert response.error


@pytest.mark.parametrize(
    "host", ["", "a b", "a/b", "user@HOST", "HOST:", "HOST:x", "[", "HOST,HOST"]
)
def test_29_a_malformed_host(push: PushServer, host: str) -> None:
    # Puts what is no host name where a program may build a URL from it.
    response = push.get("/frame", headers={"Host": host.replace("HOST", push.host)})
    assert response.status in (400, 421), response


def test_29_an_absolute_target_that_contradicts_the_host(push: PushServer) -> None:
    # Says one host to the proxy and another to the server.
    answer = push.raw(
        fill(
            push,
            b"GET http://evil.example/frame HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
            False,
        )
    )
    assert parse_responses(answer)[0].status in (400, 404, 421)


OTHER_PROTOCOLS = [
    b"GET /\r\n",
    b"GET /\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\0" * 1_000,
    b"\r\n" * 1_000,
    b"\x80\x80\x80\x80",
    b"*1\r\n$4\r\nPING\r\n",
    b"",
]


@LISTENERS
def test_30_other_protocols(impatient: PushServer, internal: bool) -> None:
    # Speaks HTTP/0.9, TLS, SSH, Redis or nothing at all, all at the same time.
    start = time.monotonic()
    with ThreadPoolExecutor(len(OTHER_PROTOCOLS)) as pool:
        answers = pool.map(lambda data: impatient.raw(data, internal=internal), OTHER_PROTOCOLS)
        for data, answer in zip(OTHER_PROTOCOLS, answers, strict=True):
            assert answer.closed, data
            if answer:
                (response,) = parse_responses(answer)
                assert response.status in (400, 408, 505), data
    assert time.monotonic() - start < PATIENCE


@pytest.mark.parametrize("transport", ["sse", "stream", "poll"])
def test_31_bytes_behind_a_request_that_is_handed_over(push: PushServer, transport: str) -> None:
    # Sends the next request in the same segment: its bytes are in the HTTP parser's hands when
    # the socket leaves for the hub. Refused, or answered in order; not lost, not answered twice.
    token = push.token(f"http{next(_numbers)}")
    headers = {**push.head(), "Authorization": f"Bearer {token}"}
    first = request_bytes("GET", f"/subscribe/{transport}?channel=x&timeout=1", headers)
    answer = push.raw(first + fill(push, SECOND, internal=False), timeout=PROMPT)
    responses = parse_responses(answer) if answer.closed else []
    assert [r.status for r in responses] in ([400], [200, 404]), answer


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_31_half_a_request_behind_one_that_is_handed_over(push: PushServer, cut: int) -> None:
    # The same with the second request cut in two.
    token = push.token(f"http{next(_numbers)}")
    headers = {**push.head(), "Authorization": f"Bearer {token}"}
    first = request_bytes("GET", "/subscribe/poll?channel=x", headers)
    second = fill(push, SECOND, internal=False)
    answer = push.raw([first + second[:cut], second[cut:]])
    assert answer.closed
    assert [r.status for r in parse_responses(answer)] in ([400], [200, 404]), answer


@pytest.mark.parametrize("cut", [20, 60, 200])
def test_31_part_of_a_post_behind_one_that_is_handed_over(push: PushServer, cut: int) -> None:
    # The same with a body, of which a part comes along and the rest later. Whoever gets it must
    # have all of it, or refuse the first.
    token = push.token(f"http{next(_numbers)}", pub_ch=["pipe:*"])
    channel = f"pipe:{next(_numbers)}"
    headers = {**push.head(), "Authorization": f"Bearer {token}"}
    first = request_bytes("GET", "/subscribe/poll?channel=x", headers)
    body = b'{"channel":"%b","data":"%b"}' % (channel.encode(), b"x" * 300)
    json_headers = {**headers, "Content-Type": "application/json", "Connection": "close"}
    second = request_bytes("POST", "/publish", json_headers, body)
    place = len(second) - len(body) + cut
    answer = push.raw([first + second[:place], second[place:]])
    assert answer.closed
    statuses = [response.status for response in parse_responses(answer)]
    assert statuses in ([400], [200, 200]), answer
    assert push.api("history", channel=channel)["offset"] == len(statuses) - 1


def test_31_handed_over_and_back_by_many_at_once(push: PushServer) -> None:
    # Sockets that change hands between three threads thousands of times: every answer must be
    # the one to this client's last request, and each request is answered once.
    failures: list[object] = []
    until = time.monotonic() + 4
    turns = [0] * 8

    def work(worker: int) -> None:
        token = push.token(f"hands{worker}")
        headers = {**push.head(), "Authorization": f"Bearer {token}"}
        try:
            while time.monotonic() < until:
                with push.wire() as wire:
                    # Some leave in the middle of it.
                    for turn in range(worker * 7 % 50 + 10):
                        turns[worker] += 1
                        name = f"hand:{worker}.{turns[worker]}"
                        target = f"/subscribe/poll?channel={name}"
                        wire.send(request_bytes("GET", target, headers))
                        if turn % 3 == 0:
                            # Sent before the answer: it waits for whoever has the socket then.
                            wire.send(request_bytes("GET", f"/no/{name}", headers))
                        answer = read_response(wire)
                        if turn % 3 == 0 and answer.status == 400:
                            break
                        (hello,) = answer.json()["control"]
                        if set(hello["channels"]) != {f"user:hands{worker}", name}:
                            failures.append((name, hello))
                        if turn % 3 == 0 and read_response(wire).status != 404:
                            failures.append((name, "no second answer"))
                        if wire.buffer:
                            failures.append((name, wire.buffer))
        except Exception as error:  # noqa: BLE001  reported by the test, in its own thread
            failures.append((worker, turns[worker], repr(error)))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(turns))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert failures == []
    assert min(turns) > 20, turns


class Drip:
    """Many sockets that each send a byte now and then."""

    def __init__(self, push: PushServer, sources: list[str], each: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.opened: dict[socket.socket, float] = {}
        self.lived: list[float] = []
        for source in sources:
            for _ in range(each):
                self.open(push, source)

    def open(self, push: PushServer, source: str) -> None:
        address = push.address
        assert isinstance(address, tuple)
        sock = socket.create_connection(address, 5, (source, 0))
        sock.setblocking(False)
        self.opened[sock] = time.monotonic()
        self.selector.register(sock, selectors.EVENT_READ)
        sock.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")

    def turn(self) -> None:
        """Send a byte on each, and notice which have been closed."""
        for key, _ in self.selector.select(0):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                data = sock.recv(4_096)
            except OSError:
                data = b""
            if not data:
                self.lived.append(time.monotonic() - self.opened.pop(sock))
                self.selector.unregister(sock)
                sock.close()
        for sock in self.opened:
            try:
                sock.send(b"a")
            except OSError:
                pass

    def close(self) -> None:
        for sock in self.opened:
            sock.close()
        self.selector.close()


def test_32_slow_headers(push_server_factory: Callable[..., PushServer]) -> None:
    # Slowloris: hundreds of clients that never finish their request, from many addresses.
    # Each is cut at an absolute deadline, and a good client does not notice.
    push = push_server_factory(handshake_timeout=2)
    drip = Drip(push, [f"127.0.0.{number}" for number in range(2, 27)], each=15)
    assert len(drip.opened) == 375
    worst = 0.0
    deadline = time.monotonic() + PATIENCE
    try:
        while drip.opened and time.monotonic() < deadline:
            drip.turn()
            start = time.monotonic()
            with push.sse(push.token("1"), source="127.0.0.200") as good:
                assert good.hello["user"] == "1"
            worst = max(worst, time.monotonic() - start)
            time.sleep(0.1)
        assert not drip.opened, f"{len(drip.opened)} of 375 are still open"
        assert max(drip.lived) < 2 + PROMPT
        assert worst < PROMPT, f"a good client waited {worst:.2f} s"
    finally:
        drip.close()


def test_32_one_address(push_server_factory: Callable[..., PushServer]) -> None:
    # The same from one address, which may have 20 unfinished requests and no more.
    push = push_server_factory(handshake_timeout=30)
    drip = Drip(push, ["127.0.0.2"], each=100)
    deadline = time.monotonic() + PATIENCE
    try:
        while len(drip.opened) > 20 and time.monotonic() < deadline:
            drip.turn()
            time.sleep(0.05)
        assert len(drip.opened) == 20
        with push.sse(push.token("1"), source="127.0.0.3") as good:
            assert good.hello["user"] == "1"
        # Whoever goes makes room again.
        drip.close()
        retried(
            lambda: push.sse(push.token("1"), source="127.0.0.2").close(), Ended, OSError, Refused
        )
    finally:
        drip.close()


@pytest.mark.parametrize("internal", [True, False], ids=["internal", "public"])
def test_33_slow_body(impatient: PushServer, internal: bool) -> None:
    # Sends the head of a publish at once and its body a byte at a time. The limit is half as
    # long again as that for the head; nothing is stored, and the retry succeeds.
    channel = f"slow:{next(_numbers)}"
    body = b'{"method":"publish","params":{"channel":"%b","data":1}}' % channel.encode()
    headers = impatient.signed_headers(body)
    path = "/api" if internal else "/publish"
    request = request_bytes("POST", path, {**impatient.head(internal), **headers}, body)
    start = time.monotonic()
    with impatient.wire(internal) as wire:
        wire.send(request[: -len(body)])
        for byte in body:
            wire.send(bytes([byte]))
            if wire.ended:
                break
            try:
                wire.fill(time.monotonic() + 0.2)
            except TimeoutError:
                continue
            break
        response = read_response(wire, "POST")
    assert response.status == 408
    assert time.monotonic() - start > 1
    assert impatient.api("history", channel=channel)["offset"] == 0
    if internal:
        answer = impatient.api_raw(body, headers).json()["result"]
        assert (answer["offset"], answer["duplicate"]) == (1, False)


def test_33_a_slow_body_of_many(impatient: PushServer) -> None:
    # Hundreds of them at once: the workers must not be waiting for bodies.
    wires = []
    try:
        for _ in range(100):
            wire = impatient.wire(internal=True)
            wires.append(wire)
            headers = {**impatient.head(internal=True), "Content-Length": "1000"}
            wire.send(request_bytes("POST", "/api", headers, None) + b"{")
        start = time.monotonic()
        impatient.api("publish", channel="slow:many", data=1)
        assert time.monotonic() - start < PROMPT
        deadline = time.monotonic() + PATIENCE
        for wire in wires:
            while wire.fill(deadline):
                pass
            assert b" 408 " in wire.buffer.partition(b"\r\n")[0]
    finally:
        for wire in wires:
            wire.close()


@pytest.mark.parametrize("path", ["/subscribe/sse", "/subscribe/stream", "/subscribe/poll"])
def test_63_methods(push: PushServer, path: str) -> None:
    # Opens a stream, or reaches behind a check, by another method.
    token = push.token(f"http{next(_numbers)}")
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "PUBLISH", "CONNECT"):
        response = push.request(method, path, token=token)
        assert response.status in (405, 501), method
        assert b"Bearer" not in response.body
    assert push.request("OPTIONS", path, token=token).status in (204, 405)
    # HEAD asks for a head: it must end, and open nothing.
    response = push.request("HEAD", path, token=token)
    assert response.status in (200, 405)
    with push.wire() as wire:
        headers = {**push.head(), "Authorization": f"Bearer {token}"}
        wire.send(request_bytes("HEAD", path, headers))
        deadline = time.monotonic() + PATIENCE
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            if not wire.fill(deadline):
                break
            data, wire.buffer = data + wire.buffer, b""
        _, _, rest = data.partition(b"\r\n\r\n")
        assert rest == b"", "HEAD has a body"


@pytest.mark.parametrize("path", ["/frame", "/push.js", "/frame.js"])
def test_63_methods_on_files(push: PushServer, path: str) -> None:
    # The same on what is only to be read.
    for method in ("POST", "PUT", "DELETE", "TRACE"):
        assert push.request(method, path).status == 405, method
    assert push.request("HEAD", path).status == 200


@pytest.mark.parametrize("transport", ["sse", "stream", "poll"])
def test_64_headers_that_ask_for_something_else(push: PushServer, transport: str) -> None:
    # Asks for a part, for a cached copy (one request of that kind crashed Nchan), or for
    # compression that would let an attacker measure secrets.
    headers = {
        "Range": "bytes=0-10",
        "If-None-Match": "-1",
        "If-Modified-Since": "Thu, 01 Jan 2037 00:00:00 GMT",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "TE": "trailers",
    }
    token = push.token(f"http{next(_numbers)}")
    with push.wire() as wire:
        fields = {**push.head(), **headers, "Authorization": f"Bearer {token}"}
        wire.send(request_bytes("GET", f"/subscribe/{transport}", fields))
        head = read_head(wire, time.monotonic() + PATIENCE)
    assert head.status == 200
    for name in ("Content-Encoding", "Content-Range", "ETag", "Last-Modified", "Accept-Ranges"):
        assert head.header(name) is None, name
    caching = head.header("Cache-Control") or ""
    assert "no-store" in caching and "no-transform" in caching


def test_a_client_that_hangs_up_at_every_point(push: PushServer) -> None:
    # Sends a part of a request and goes away, by FIN or by RST, at every byte of it.
    token = push.token(f"http{next(_numbers)}")
    headers = {**push.head(), "Authorization": f"Bearer {token}"}
    request = request_bytes("GET", "/subscribe/sse?channel=x", headers)
    for place in range(0, len(request) + 1, 3):
        wire: Wire = push.wire()
        wire.send(request[:place])
        if place % 2:
            wire.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
            )
        wire.close()
    user = push.token(f"http{next(_numbers)}")
    with push.sse(user) as stream:
        assert stream.hello


def test_hung_up_connections_are_forgotten(push: PushServer) -> None:
    # Opens streams and leaves, over and over: nothing may be kept for those who are gone.
    token = push.token(f"http{next(_numbers)}", sub_ch=["gone:*"])
    for number in range(40):
        push.stream(token, f"gone:{number}").close()
    wait_for(lambda: not push.api("channels", prefix="gone:")["channels"], "they are forgotten")
