"""The benchmark's judges, of clients that come back and of those that poll: they have to notice
what they are there for."""

import dataclasses
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from waiting import PATIENCE, wait_for

from bench.figures import POLLED
from bench.load import Polled, Polls, Returned, Returning
from bench.machine import BUILD, Failed
from bench.measures import QUICK
from bench.polls import Crowd, PushServerBayeux, PushServerPoll, measure_polls

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 3000\n\n"
HELLO = b'event: control\ndata: {"type":"hello","channels":["bench:all"]}\nid: 1~a.0\n\n'
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n"
RESET = b'event: control\ndata: {"type":"reset","channels":["bench:all"]}\nid: 1~a.9\n\n'


def told(*offsets: int) -> bytes:
    return b"".join(
        b'data: {"channel":"bench:all","offset":%d,"id":"x","data":{}}\nid: 1~a.%d\n\n' % (n, n)
        for n in offsets
    )


class Script(threading.Thread):
    """A server that gives its first connection the first answer and so on, and then hangs up."""

    def __init__(self, answers: Sequence[bytes], piece: int) -> None:
        super().__init__()
        self.requests: list[bytes] = []
        self._answers = answers
        self._piece = piece
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.over = threading.Event()

    def run(self) -> None:
        with self._listener:
            for number, answer in enumerate(self._answers):
                self._listener.settimeout(PATIENCE)
                stream, _ = self._listener.accept()
                with stream:
                    self.requests.append(stream.recv(8192))
                    for start in range(0, len(answer), self._piece):
                        stream.sendall(answer[start : start + self._piece])
                    if number == len(self._answers) - 1:
                        self.over.wait(PATIENCE)


@contextmanager
def client(*answers: bytes, piece: int = 65_536) -> Iterator[tuple[Returning, Script]]:
    """One client of such a server, connected."""
    BUILD.mkdir(parents=True, exist_ok=True)
    server = Script(answers, piece)
    server.start()
    request = b"GET /subscribe/sse HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        with Returning([server.port], [request], 30) as clients:
            clients.open(1)
            yield clients, server
    finally:
        server.over.set()
        server.join()


def summary(found: Returned) -> dict[str, int]:
    names = ("away", "lost", "duplicates", "resets", "cuts", "refusals", "timeouts")
    return {name: number for name in names if (number := getattr(found, name))}


@pytest.mark.parametrize("piece", [1, 7, 65_536])
def test_one_that_comes_back_and_has_everything(piece: int) -> None:
    first, second = HEAD + HELLO + told(1, 2), HEAD + HELLO + told(3)
    with client(first, second, piece=piece) as (clients, server):
        found = clients.wait(3, PATIENCE)
        assert summary(found) == {"cuts": 1}
        assert len(found.back) == 1
        assert b"Last-Event-ID" not in server.requests[0]
        assert server.requests[1].endswith(b"localhost\r\nLast-Event-ID: 1~a.2\r\n\r\n")


def test_an_event_cut_in_the_middle_does_not_count() -> None:
    with client(HEAD + HELLO + told(1, 2)[:-1], HEAD + HELLO + told(2)) as (clients, server):
        assert summary(clients.wait(2, PATIENCE)) == {"cuts": 1}
        assert b"Last-Event-ID: 1~a.1\r\n" in server.requests[1]


@pytest.mark.parametrize(
    ("second", "offset", "noticed"),
    [
        (told(4), 4, {"lost": 1}),
        (told(2, 3), 3, {"duplicates": 1}),
        (RESET + told(3), 3, {"resets": 1}),
    ],
)
def test_what_is_wrong_is_counted(second: bytes, offset: int, noticed: dict[str, int]) -> None:
    with client(HEAD + HELLO + told(1, 2), HEAD + HELLO + second) as (clients, _):
        assert summary(clients.wait(offset, PATIENCE)) == {"cuts": 1} | noticed


def test_the_first_publication_may_not_be_missing() -> None:
    with client(HEAD + HELLO + told(2)) as (clients, _):
        assert summary(clients.wait(2, PATIENCE)) == {"lost": 1}


def test_one_that_is_turned_away_waits_as_told() -> None:
    with client(HEAD + HELLO + told(1), BUSY, HEAD + HELLO + told(2)) as (clients, _):
        wait_for(lambda: clients.wait(2, 0.05).refusals, "it is turned away")
        begun = time.monotonic()
        assert summary(clients.wait(2, PATIENCE)) == {"cuts": 1, "refusals": 1}
        assert time.monotonic() - begun > 0.8


def test_one_that_does_not_come_back_is_away() -> None:
    with client(HEAD + HELLO + told(1)) as (clients, server):
        server.over.set()
        server.join()
        wait_for(lambda: clients.wait(2, 0.05).refusals, "it has tried")
        found = clients.wait(2, 0)
        assert (found.away, found.cuts, list(found.back)) == (1, 1, [])


def test_a_refusal_at_the_beginning_is_a_failure() -> None:
    at_once = BUSY.replace(b"Retry-After: 1\r\n", b"")
    with pytest.raises(Failed), client(at_once, HEAD + HELLO):
        pass


# Those that poll.


def answer(text: str, head: str = "HTTP/1.1 200 OK") -> bytes:
    return f"{head}\r\nEtag: 7\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()


def polled(cursor: str, *numbers: int) -> bytes:
    data = ",".join(f'{{"n":"@{number:08d}"}}' for number in numbers)
    return answer(f'{{"cursor":"{cursor}","publications":[{data}]}}')


FIRST_POLL = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length:     \r\n\r\nfirst"
NEXT_POLL = FIRST_POLL.replace(b"first", b"since=\x01 tag=\x02")


class KeptOpen(Script):
    """A server that gives one connection these answers, each when it was asked, then waits."""

    def run(self) -> None:
        self._listener.settimeout(PATIENCE)
        with self._listener, self._listener.accept()[0] as stream:
            for each in self._answers:
                self.requests.append(stream.recv(8192))
                for start in range(0, len(each), self._piece):
                    stream.sendall(each[start : start + self._piece])
                if not each:
                    return
            try:
                while request := stream.recv(8192):
                    self.requests.append(request)
            except ConnectionError:
                pass


@contextmanager
def poller(*answers: bytes, piece: int = 65_536) -> Iterator[tuple[Polls, KeptOpen]]:
    """One client of such a server, which polls."""
    BUILD.mkdir(parents=True, exist_ok=True)
    server = KeptOpen(answers, piece)
    server.start()
    try:
        with Polls(
            server.port, [[FIRST_POLL, NEXT_POLL]], ['"cursor":"', "\r\nEtag: "], 30
        ) as polls:
            polls.open(1)
            yield polls, server
    finally:
        server.join()


@pytest.mark.parametrize("piece", [1, 7, 65_536])
def test_a_poll_brings_back_what_it_was_told(piece: int) -> None:
    with poller(polled("a"), polled("bcd", 1), polled("", 2), piece=piece) as (polls, server):
        assert polls.wait(2, PATIENCE).answers == 2
    bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
    assert bodies == [b"first", b"since=a tag=7", b"since=bcd tag=7", b"since= tag=7"]
    for request, body in zip(server.requests, bodies, strict=True):
        assert b"Content-Length:%5d\r\n" % len(body) in request


def test_what_was_there_before_does_not_count() -> None:
    with poller(polled("a", 0), polled("b", 1)) as (polls, _):
        assert polls.wait(1, PATIENCE).answers == 1


@pytest.mark.parametrize(
    ("answers", "noticed"),
    [
        ([polled("b", 2)], "'lost': 1"),
        ([polled("b", 1), polled("c", 1, 2)], "'repeated': 1"),
        ([polled("b", 1), b""], "closed"),
        ([answer("", "HTTP/1.1 503 Service Unavailable")], "503 Service Unavailable"),
        ([b"HTTP/1.1 200 OK\r\n\r\n"], "200 OK"),
        ([polled("b", 1) + polled("c", 2)], "more than the answer"),
        ([answer("x" * 5000)], "too long"),
    ],
)
def test_polls_that_go_wrong_are_a_failure(answers: Sequence[bytes], noticed: str) -> None:
    with poller(polled("a"), *answers) as (polls, _), pytest.raises(Failed, match=noticed):
        polls.wait(2, PATIENCE)


def test_answers_without_a_publication_are_counted() -> None:
    with poller(polled("a"), polled("b", 1), polled("c"), polled("d", 2)) as (polls, _):
        found = polls.wait(2, PATIENCE)
    assert (found.answers, found.empty) == (3, 1)


class Said(Polls):
    """Clients that say they had so many answers, and so many of them empty."""

    def __init__(self, *counts: tuple[int, int]) -> None:
        self._counts = iter(counts)

    def wait(self, number: int, seconds: float = 60) -> Polled:
        return Polled(0, *next(self._counts))


class Silent(PushServerPoll):
    """A server that does nothing."""

    pids = (os.getpid(),)

    def publish(self, number: int) -> None:
        pass


@pytest.mark.parametrize("last", [(13, 1), (11, 1), (12, 2), (12, 1)])
def test_a_turn_is_made_of_cycles_and_nothing_else(last: tuple[int, int]) -> None:
    # The first answers are to polls whose time was over before the turn.
    crowd = Crowd(Silent(), Said((6, 1), (9, 1), last), 3)
    if last == (12, 1):
        crowd.take_turn(1)
    else:
        with pytest.raises(Failed, match="push_server, long poll"):
            crowd.take_turn(1)


def test_a_poll_that_is_not_answered_is_a_failure() -> None:
    with poller(polled("a")) as (polls, _), pytest.raises(Failed, match="'away': 1"):
        polls.wait(1, 0.1)


def test_a_session_that_does_not_begin_is_a_failure() -> None:
    with pytest.raises(Failed, match="403"), poller(answer("", "HTTP/1.1 403 Forbidden")):
        pass


def test_our_own_polls_are_measured() -> None:
    plan = dataclasses.replace(QUICK, pollers=20, polled=2, poll_turns=1)
    found = measure_polls([PushServerPoll, PushServerBayeux], plan, lambda *_: None)
    for figures in found.values():
        assert figures.keys() == {figure.key for figure in POLLED}
        assert all(value > 0 for value in figures.values())
