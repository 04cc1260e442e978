"""Attacks on what is remembered for a client: readers that stop, cursors, and bad moments."""

import asyncio
import base64
import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from contract import CARRIERS, HELD, STREAMS, over, subscribe
from formulas import sign_webhook
from harness import PushServer
from waiting import PATIENCE, PROMPT, wait_for
from wire import Ended, Message, Receiver, Streaming, read_response, request_bytes
from wire_ws import handshake_headers

from push_server.connection import MIN_DRAIN_RATE, MIN_DRAIN_SECONDS, SocketConnection

pytestmark = pytest.mark.usefixtures("unharmed")

TRANSPORTS = ["sse", "stream", "ws", "poll"]
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_numbers = count()


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"readers{next(_numbers)}"


def resident_mib(push: PushServer) -> float:
    assert push.process is not None
    status = Path(f"/proc/{push.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def drain(reader: Receiver) -> list[Message]:
    """What had already been sent to a reader that was cut, up to the last whole message."""
    messages = []
    try:
        while True:
            message = reader.next()
            if message.control is None:
                messages.append(message)
    except (Ended, ConnectionError):
        return messages


def offsets(messages: list[Message]) -> list[int]:
    return [message.value["offset"] for message in messages]


STOPPED = {"history_size": 10_000, "history_bytes": 200_000_000}


def connections(push: PushServer) -> int:
    value: int = push.api("stats")["connections"]
    return value


@pytest.mark.parametrize("transport", ["sse", "stream", "ws"])
def test_34_a_stopped_reader_is_cut_and_resumes(
    push_server_factory: Callable[..., PushServer], transport: str
) -> None:
    # Connects and never reads, so that the server keeps everything for it. It is cut when its
    # share is used up, others do not notice, and its cursor still leads to all it missed.
    push = push_server_factory(namespace={"big": STOPPED}, queue_bytes=262_144)
    payload = "x" * 100_000
    token = push.token("1")
    with (
        subscribe(push, transport, token, "big:1") as stopped,
        push.stream(push.token("2"), "big:1") as good,
    ):
        before = resident_mib(push)
        slowest = 0.0
        for number in range(200):
            start = time.monotonic()
            push.api("publish", channel="big:1", data=payload)
            assert offsets(good.take(1)) == [number + 1]
            slowest = max(slowest, time.monotonic() - start)
            if connections(push) == 1:
                break
        else:
            pytest.fail("20 MB were published and the stopped reader is still connected")
        # History is kept in memory and shared; what one reader costs is its queue.
        assert resident_mib(push) - before < number * 0.1 + 10
        assert slowest < PROMPT
        push.api("publish", channel="big:1", data="last")
        got = drain(stopped)
        assert offsets(got) == list(range(1, len(got) + 1))
        with subscribe(push, transport, token, "big:1", since=stopped.cursor) as resumed:
            assert "big:1" in resumed.control("recovered")["channels"]
            rest = resumed.take(number + 2 - len(got))
            assert offsets(got + rest) == list(range(1, number + 3))
            assert rest[-1].value["data"] == "last"
    assert "reason=slow" in push.log


def test_34_a_stalled_reader_is_cut_in_time(
    push_server_factory: Callable[..., PushServer],
) -> None:
    # Stops just before its share is used up, to stay for ever.
    push = push_server_factory(
        namespace={"big": STOPPED}, queue_bytes=64 * 1024 * 1024, stall_timeout=1
    )
    with push.stream(push.token("1"), "big:1") as stopped:
        batch = [("publish", {"channel": "big:1", "data": "x" * 100_000})] * 2
        # More than the kernel takes on both sides, less than the queue.
        for _ in range(80):
            push.api_batch(batch)
        wait_for(lambda: connections(push) == 0, "a stalled reader is cut")
        got = drain(stopped)
        with push.stream(push.token("1"), "big:1", since=stopped.cursor) as resumed:
            assert offsets(got + resumed.take(160 - len(got))) == list(range(1, 161))
    assert "reason=stalled" in push.log


def test_34_a_reader_that_stops_during_its_replay(
    push_server_factory: Callable[..., PushServer],
) -> None:
    # Asks for a long history and does not take it: what it is owed is read from the history
    # as it goes, not laid out for it, and it is cut like any other.
    push = push_server_factory(namespace={"big": STOPPED}, queue_bytes=262_144, stall_timeout=1)
    with push.stream(push.token("1"), "big:1") as first:
        since = first.hello["cursor"]
    batch = [("publish", {"channel": "big:1", "data": "x" * 100_000})] * 2
    for _ in range(80):
        push.api_batch(batch)
    before = resident_mib(push)
    with push.stream(push.token("1"), "big:1", since=since) as stopped:
        wait_for(lambda: connections(push) == 0, "a stalled replay is cut")
        assert resident_mib(push) - before < 10
        got = drain(stopped)
        with push.stream(push.token("1"), "big:1", since=stopped.cursor or since) as resumed:
            assert offsets(got + resumed.take(160 - len(got))) == list(range(1, 161))


def test_35_a_reader_that_takes_a_byte_now_and_then(
    push_server_factory: Callable[..., PushServer],
) -> None:
    # Makes just enough progress never to count as stopped, while publications pile up.
    push = push_server_factory(namespace={"big": STOPPED}, stall_timeout=1)
    with push.stream(push.token("1"), "big:1") as slow:
        batch = [("publish", {"channel": "big:1", "data": "x" * 100_000})] * 2
        for _ in range(100):
            push.api_batch(batch)
            slow.wire.socket.recv(1)
            if connections(push) == 0:
                return
    pytest.fail("20 MB were published and a reader of 100 bytes is still connected")


class Watch:
    """Notices nothing."""

    def add(self, *_: object) -> None: ...

    def drop(self, *_: object) -> None: ...


class Hub:
    """As much of a hub as a connection needs."""

    queue_bytes = 1_000_000

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.watch: Any = Watch()
        self.blocked: set[SocketConnection] = set()

    def closed(self, connection: object, reason: str) -> None:
        self.reason = reason


class Trickle(socket.socket):
    """A socket whose peer takes as many bytes as the test says."""

    takes = 0

    def send(self, data: Any, *_: Any) -> int:
        taken = min(self.takes, len(data))
        if not taken:
            raise BlockingIOError
        self.takes -= taken
        return taken


def test_35_the_least_rate_of_a_blocked_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    # The same without new publications: one byte a second never stalls, but it is too slow.
    clock = [1000.0]
    monkeypatch.setattr("push_server.connection.time.monotonic", lambda: clock[0])
    hub = Hub()
    socket_ = Trickle()
    connection = SocketConnection(hub, socket_, None)
    connection.write(b"x" * 900_000)
    assert hub.blocked == {connection}

    def seconds(number: int, rate: int) -> bool:
        for _ in range(number):
            clock[0] += 1
            socket_.takes = rate
            connection._writable()
        return connection.stalled(clock[0], 30)

    assert not seconds(int(MIN_DRAIN_SECONDS), rate=1)
    assert seconds(1, rate=1), "a byte a second is not enough"
    # What counts is the rate over the whole time that it is blocked.
    assert not seconds(60, rate=2 * MIN_DRAIN_RATE + 100)
    assert not seconds(60, rate=MIN_DRAIN_RATE)
    assert seconds(31, rate=0), "thirty seconds without any progress"
    connection.close("test")
    hub.loop.close()


@pytest.mark.parametrize("transport", ["sse", "stream"])
def test_35_a_dragged_replay_does_not_outlive_the_token(
    push_server_factory: Callable[..., PushServer], transport: str
) -> None:
    # Takes its history slowly until its token has expired, hoping that nobody looks at the
    # clock of a stream that is not live yet.
    push = push_server_factory(namespace={"big": STOPPED})
    with push.stream(push.token("1"), "big:1") as first:
        since = first.hello["cursor"]
    batch = [("publish", {"channel": "big:1", "data": "x" * 100_000})] * 2
    for _ in range(80):
        push.api_batch(batch)
    with subscribe(push, transport, push.token("1", ttl=2), "big:1", since=since) as reader:
        assert isinstance(reader, Streaming)
        past = time.monotonic() + 3
        while time.monotonic() < past:
            reader.wire.fill(past + PATIENCE)
            time.sleep(0.1)
        # Now it hurries. Whatever it gets, it must come to an end.
        deadline = time.monotonic() + PATIENCE
        while reader.wire.fill(deadline):
            reader.wire.buffer = reader.wire.buffer[-200:]


# Cursors.


def short(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest)[:6].decode()


def base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = DIGITS[digit] + digits
        if not number:
            return digits


def cursor(*entries: tuple[str, int, int, str]) -> str:
    """A cursor made by hand."""
    parts = [f"{short(c)}.{base36(e)}.{base36(o)}.{tag}" for c, e, o, tag in entries]
    return "~".join(["1", *parts])


MALFORMED = [
    "-1",
    "0",
    "node:7:1",
    "null",
    "1~",
    "1~x",
    "1~~",
    "2~abcdef.1.1.0",
    "1~abcdef.-1.1.0",
    "1~abcdef.1.-1.0",
    "1~abcdef.1.1",
    "1~abcdef.1.1.0.0",
    "1~abcdef.A.1.0",
    "1~abcdef.1.1.x",
    f"1~abcdef.1.{base36(2**53)}.0",
    f"1~abcdef.1.{base36(2**63)}.0",
    f"1~abcdef.1.{base36(2**64)}.0",
    f"1~abcdef.{base36(2**64)}.1.0",
    "1~abcdef.1.99999999999999999999.0",
    "1~abcdef.1.1.0\r\nX: y",
    "1~abcdef.1.1.0\n",
    "1~abcdef.1.1.0\0",
    "1~abcdef.1.1.é",
    "x" * 5_000,
]


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: ascii(text[:30]))
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_51_malformed_cursors(push: PushServer, name: str, transport: str, text: str) -> None:
    # What is no cursor at all. One request of this kind ended a worker of Nchan (#534).
    token = push.token(name)
    headers = handshake_headers() if transport == "ws" else {}
    target = f"/subscribe/{transport}?{urlencode({'since': text})}"
    response = push.get(target, token=token, headers=headers)
    assert (response.status, response.error) == (400, "cursor_malformed")
    if transport == "sse" and not set(text) & set("\r\n\0") and text.isascii():
        response = push.get("/subscribe/sse", token=token, headers={"Last-Event-ID": text})
        assert (response.status, response.error) == (400, "cursor_malformed")


@over(*CARRIERS)
def test_51_cursors_that_prove_nothing(push: PushServer, name: str, transport: str) -> None:
    # Well-formed cursors that do not fit the log: another epoch, the future, another
    # publication under the same offset, another channel's place. Each is a reset that says
    # why and where to go on, and from there everything arrives.
    channel = f"cursor:{name}"
    token = push.token(name)
    last = push.api_batch(
        [("publish", {"channel": channel, "data": n, "id": f"id{n}"}) for n in range(1, 4)]
    )[-1]["result"]
    epoch = last["epoch"]
    personal = push.api("history", channel=f"user:{name}")["epoch"]
    mine = (f"user:{name}", personal, 0, "0")
    cases = [
        ("future", (channel, epoch, 4, short("id4"))),
        ("epoch", (channel, epoch - 1, 2, short("id2"))),
        ("tag", (channel, epoch, 2, short("id3"))),
        ("unknown", (channel + "x", epoch, 2, short("id2"))),
        ("epoch", (channel, epoch + 1, 2, short("id2"))),
        ("epoch", (channel, 0, 0, "0")),
        ("future", (channel, epoch, 2**53 - 1, short("id2"))),
        ("tag", (channel, epoch, 2, "0")),
        ("tag", (channel, epoch, 0, short("id2"))),
        ("tag", (channel, epoch, 3, short("id2"))),
    ]
    expected = 3
    before = push.api("stats")
    for reason, entry in cases:
        with subscribe(push, transport, token, channel, since=cursor(mine, entry)) as reader:
            reset = reader.control("reset")
            assert (reset["channels"], reset["reason"]) == ([channel], reason), entry
            push.api("publish", channel=channel, data="next")
            expected += 1
            assert offsets(reader.take(1)) == [expected]
        with subscribe(push, transport, token, channel, since=reset["cursor"]) as reader:
            assert offsets(reader.take(1)) == [expected]
    after = push.api("stats")
    for reason, times in Counter(reason for reason, _ in cases).items():
        assert after[f"resets.{reason}"] - before.get(f"resets.{reason}", 0) == times
    assert push.get("/subscribe/poll?timeout=0&since=1", token=token).status == 200


@over(*STREAMS, "bayeux-websocket", "bayeux-eventsource")
def test_51_cut_before_every_reset_was_read(push: PushServer, name: str, transport: str) -> None:
    # The connection breaks between `hello` and the last `reset`. Whatever cursor the client
    # has by then, it must not stand behind a reset that the client was not told.
    lost, added = f"lost:{name}", f"added:{name}"
    token = push.token(name)
    last = push.api("publish", channel=lost, data="missed", id="one")
    push.api("publish", channel=added, data="not followed then")
    since = cursor((f"user:{name}", last["epoch"], 0, "0"), (lost, last["epoch"] - 1, 0, "0"))
    with subscribe(push, transport, token, lost, added, since=since) as reader:
        told: set[str] = set()
        cursors = [(since, frozenset(told))]
        while len(told) < 2:
            message = reader.next()
            if message.control == "reset":
                told.update(message.value["channels"])
            cursors.append((message.cursor, frozenset(told)))
    for cut, known in cursors:
        with subscribe(push, transport, token, lost, added, since=cut) as reader:
            missing = {lost, added} - known
            while missing:
                message = reader.next()
                assert message.control in ("recovered", "reset"), (message, missing)
                if message.control == "reset":
                    missing -= set(message.value["channels"])


def test_51_a_cursor_older_than_the_history(
    push_server_factory: Callable[..., PushServer],
) -> None:
    # Comes back after more was published than is kept. Never a part of it: all, or a reset.
    push = push_server_factory(namespace={"short": {"history_size": 5}})
    token = push.token("1")
    with push.sse(token, "short:1") as reader:
        seen = [reader.hello["cursor"]]
        for number in range(10):
            push.api("publish", channel="short:1", data=number)
            seen.append(reader.take(1)[0].cursor)
    for place, since in enumerate(seen):
        with push.sse(token, "short:1", since=since) as reader:
            said = {
                m.value["type"]: m.value for m in (reader.next() for _ in range(1 + (place < 5)))
            }
            if place < 5:
                assert said["recovered"]["channels"] == ["user:1"]
                assert said["reset"]["channels"] == ["short:1"]
                assert said["reset"]["reason"] == "trimmed"
                # Nothing follows but what is published now.
                push.api("publish", channel="short:2", data="not for this one")
                push.api("publish", channel="user:1", data=place)
                got = [m for m in reader.take(place + 1) if m.value["channel"] != "user:1"]
                assert got == []
            else:
                assert "short:1" in said["recovered"]["channels"]
                got = [m for m in reader.take(10 - place + 5) if m.value["channel"] == "short:1"]
                assert offsets(got) == list(range(place + 1, 11))


def test_51_a_cursor_is_no_right(push: PushServer, name: str) -> None:
    # Brings the cursor of somebody else, which names channels this token does not grant.
    secret = f"secret:{name}"
    with push.sse(push.token(f"other{name}"), secret) as reader:
        since = reader.hello["cursor"]
    push.api("publish", channel=secret, data="private")
    with push.sse(push.token(name, sub_ch=["open:*"]), "open:1", since=since) as reader:
        assert set(reader.hello["channels"]) == {f"user:{name}", "open:1"}
        push.api("publish", channel=f"user:{name}", data="end")
        got = reader.take(1)
        assert got[0].value["data"] == "end"
        assert short(secret) not in got[0].cursor


def test_51_the_log_that_lost_its_tail(push_server_factory: Callable[..., PushServer]) -> None:
    # The server forgets everything and grows a new log: offsets alone would match.
    push = push_server_factory(broker="memory:")
    token = push.token("1")
    with push.sse(token, "log:1") as reader:
        for number in range(5):
            push.api("publish", channel="log:1", data=number, id=f"first{number}")
        since = reader.take(5)[-1].cursor
    push.kill()
    push.start()
    for number in range(8):
        push.api("publish", channel="log:1", data=number, id=f"second{number}")
    with push.sse(token, "log:1", since=since) as reader:
        reset = reader.control("reset")
        assert "log:1" in reset["channels"]
        assert reset["reason"] == "epoch"


def test_52_overlapping_polls(push: PushServer, name: str) -> None:
    # Two polls of one session at once, as a page does that lost patience (CometD #511): both
    # get everything, neither takes anything from the other.
    channel = f"overlap:{name}"
    token = push.token(name)
    with push.poll(token, channel) as first:
        since = first.position
        readers = [push.poll(token, channel, since=since) for _ in range(4)]
        answers: list[dict[str, Any] | None] = [None] * len(readers)

        def ask(place: int) -> None:
            answers[place] = readers[place].answer(hold=25)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(readers))]
        for thread in threads:
            thread.start()

        def waiting() -> int:
            found: dict[str, Any] = push.api("channels", prefix=channel)["channels"]
            return int(found.get(channel, {}).get("subscribers", 0))

        wait_for(lambda: waiting() == 4, "all polls wait")
        push.api("publish", channel=channel, data=1)
        for thread in threads:
            thread.join(PATIENCE)
        for answer in answers:
            assert answer is not None
            assert [p["data"] for p in answer["publications"]] == [1]
        # The old cursor still leads to it.
        push.api("publish", channel=channel, data=2)
        again = push.poll(token, channel, since=since)
        assert [p["data"] for p in again.answer(hold=0)["publications"]] == [1, 2]
        for reader in (*readers, again):
            reader.close()


@over(*HELD)
def test_52_two_at_once_with_one_cursor(push: PushServer, name: str, transport: str) -> None:
    # The same on every transport: two of one session and one place, each of which is told all.
    channel = f"twice:{name}"
    token = push.token(name)
    with push.stream(token, channel) as first:
        since = first.cursor
    with (
        subscribe(push, transport, token, channel, since=since) as one,
        subscribe(push, transport, token, channel, since=since) as two,
    ):
        for number in range(3):
            push.api("publish", channel=channel, data=number)
            for reader in (one, two):
                assert offsets(reader.take(1)) == [number + 1]


class Publisher(threading.Thread):
    """Publishes without a pause on one kept connection until told to stop."""

    def __init__(self, push: PushServer, channel: str, most: int) -> None:
        super().__init__()
        self.push, self.channel, self.most = push, channel, most
        self.stop = threading.Event()
        self.published = 0
        self.failure: object = None

    def run(self) -> None:
        push = self.push
        sizes = [1, 1, 1, 7, 1, 2]
        with push.wire(internal=True) as wire:
            for turn in count():
                size = min(sizes[turn % len(sizes)], self.most - self.published)
                if self.stop.is_set() or size <= 0:
                    return
                command = {"method": "publish", "params": {"channel": self.channel, "data": 1}}
                body = json.dumps([command] * size).encode()
                headers = {**push.head(internal=True), **push.signed_headers(body)}
                wire.send(request_bytes("POST", "/api", headers, body))
                response = read_response(wire, "POST")
                if response.status != 200:
                    self.failure = response
                    return
                self.published += size


def resume_over_and_over(
    push: PushServer, transport: str, channel: str, until: float, failures: list[str]
) -> int:
    """Attach, read a little, leave, come back with the cursor; the number of attachments."""
    token = push.token(f"seam-{transport}")
    last: int | None = None
    since: str | None = None
    attached = 0
    try:
        while time.monotonic() < until:
            with subscribe(push, transport, token, channel, since=since) as reader:
                attached += 1
                for message in (reader.next() for _ in range(3 + attached % 12)):
                    if message.control == "reset":
                        failures.append(f"{transport}: {message.value} after {since}")
                        return attached
                    if message.control is None:
                        offset = message.value["offset"]
                        if last is not None and offset != last + 1:
                            failures.append(f"{transport}: {offset} came after {last}")
                            return attached
                        last = offset
                        # The other messages of this answer are read again, or the cursor
                        # of a poll would lead past them.
                    since = reader.cursor
                if transport == "poll":
                    for message in reader.waiting:
                        if message.control is None:
                            if message.value["offset"] != (last or 0) + 1:
                                failures.append(f"poll: {message.value} came after {last}")
                            last = message.value["offset"]
                            since = message.cursor
    except Exception as error:  # noqa: BLE001  reported by the test, in its own thread
        failures.append(f"{transport}: {type(error).__name__} {error}")
    return attached


@pytest.mark.parametrize("broker", ["memory:", "sqlite"])
def test_53_publishing_while_clients_attach(
    push_server_factory: Callable[..., PushServer], broker: str
) -> None:
    # Publishes into the moment between reading the history and going live (CometD #521):
    # every client sees every offset once, in order, however often it comes back.
    push = push_server_factory(
        broker=broker,
        queue_bytes=64 * 1024 * 1024,
        namespace={"seam": {"history_size": 1_000_000, "history_ttl": 3600}},
    )
    publisher = Publisher(push, "seam:1", most=100_000)
    failures: list[str] = []
    until = time.monotonic() + 2.5
    attached: dict[str, int] = {}

    def work(transport: str) -> None:
        attached[transport] = resume_over_and_over(push, transport, "seam:1", until, failures)

    workers = [threading.Thread(target=work, args=(t,)) for t in TRANSPORTS]
    with push.stream(push.token("steady"), "seam:1") as steady:
        publisher.start()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
        publisher.stop.set()
        publisher.join(PATIENCE)
        assert publisher.failure is None
        assert failures == []
        assert min(attached.values()) > 5, attached
        assert offsets(steady.take(publisher.published)) == list(range(1, publisher.published + 1))


@pytest.mark.parametrize("broker", ["memory:", "sqlite"])
def test_53_a_beginning_without_a_cursor(
    push_server_factory: Callable[..., PushServer], broker: str
) -> None:
    # The same for those who come for the first time: what follows `hello` follows its cursor.
    push = push_server_factory(broker=broker)
    publisher = Publisher(push, "seam:1", most=100_000)
    publisher.start()
    token = push.token("1")
    try:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            with push.stream(token, "seam:1") as reader:
                entry = reader.hello["cursor"].partition(short("seam:1") + ".")[2]
                start = int(entry.split(".")[1], 36)
                got = offsets(reader.take(3))
                assert got == [start + 1, start + 2, start + 3]
    finally:
        publisher.stop.set()
        publisher.join(PATIENCE)


def test_53_every_acknowledged_publication_is_in_the_cursor(push: PushServer, name: str) -> None:
    # Subscribes right after an acknowledgement: the cursor must not lie before it, or the page
    # would show again what it has just loaded.
    channel = f"ack:{name}"
    token = push.token(name)
    for number in range(1, 30):
        push.api("publish", channel=channel, data=number)
        with push.stream(token, channel) as reader:
            entry = reader.hello["cursor"].partition(short(channel) + ".")[2]
            assert int(entry.split(".")[1], 36) == number


def test_the_signature_helper_is_the_published_one() -> None:
    # The vector of the documents, against the harness itself.
    body = b'{"method":"publish","params":{"channel":"news","data":{"n":1}}}'
    secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    expected = "v1,Oi2BRhAxOjYuEMIQkbnu2SwK8ggew+WITNYE+fdkjKg="
    assert sign_webhook(secret, "msg_1", "1800000000", body) == expected
