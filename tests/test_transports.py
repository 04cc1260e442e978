"""One contract for all transports, on a real server, read by clients of its own.

A new transport is one more row in `TRANSPORTS` and a client for it in `wire.py`.
"""

import signal
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from harness import SITE, PushServer
from wire import (
    Ended,
    Message,
    Poll,
    Receiver,
    Refused,
    Sse,
    Streaming,
    Wire,
    read_head,
    read_response,
    request_bytes,
)
from wire_ws import handshake_headers

pytestmark = pytest.mark.usefixtures("unharmed")

STREAMING = ["sse", "stream", "ws", "frame"]
POLLING = ["poll", "interval", "jsonp"]
TRANSPORTS = [*STREAMING, *POLLING]
_numbers = count()

every_transport = pytest.mark.parametrize("transport", TRANSPORTS)
every_stream = pytest.mark.parametrize("transport", STREAMING)
every_held = pytest.mark.parametrize("transport", [*STREAMING, "poll", "jsonp"])

NEEDED = {"frame": f"origin={SITE}&", "jsonp": "callback=cb&"}
"""What some want in their URL besides."""


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"transports{next(_numbers)}"


def subscribe(push: PushServer, transport: str, *args: Any, **options: Any) -> Receiver:
    receiver: Receiver = getattr(push, transport)(*args, **options)
    return receiver


def publications(messages: list[Message]) -> list[dict[str, Any]]:
    return [message.value for message in messages]


def until(condition: Callable[[], object], what: str, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def subscribers(push: PushServer, channel: str) -> int:
    found: dict[str, Any] = push.api("channels", prefix=channel)["channels"]
    return int(found.get(channel, {}).get("subscribers", 0))


# What is delivered.


DATA: list[Any] = [
    None,
    True,
    0,
    -1.5,
    1e300,
    2**53,
    "",
    "plain",
    "two\nlines\r\nand\rmore\n",
    "data: forged\n\nevent: control",
    "\0\x01\x0b\x0c\x1f\x7f\x85",
    "\u2028\u2029\ufeff",
    "é \U0001f33b </script><!-- ]]>",
    "x" * 70_000,
    [],
    {},
    [[[[[]]]]],
    {"a": {"b": [1, "2", None]}},
    {"type": "revoked", "channel": "x", "cursor": "1"},
    " leading and trailing blanks ",
]


@every_transport
def test_publications_arrive_whole_and_in_order(
    push: PushServer, name: str, transport: str
) -> None:
    channel = f"data:{name}"
    with subscribe(push, transport, push.token(name), channel) as reader:
        acknowledged = [
            push.api("publish", channel=channel, data=data, id=f"id:{number}")
            for number, data in enumerate(DATA)
        ]
        got = publications(reader.take(len(DATA)))
    assert got == [
        {"channel": channel, "offset": n + 1, "id": f"id:{n}", "data": data}
        for n, data in enumerate(DATA)
    ]
    assert [a["offset"] for a in acknowledged] == [p["offset"] for p in got]


@every_transport
def test_a_publication_from_a_browser_names_its_author(
    push: PushServer, name: str, transport: str
) -> None:
    channel = f"chat:{name}"
    with subscribe(push, transport, push.token(name), channel) as reader:
        response = push.request(
            "POST",
            "/publish",
            token=push.token(f"author-{name}", pub_ch=["chat:*"]),
            headers={"Content-Type": "application/json"},
            body=b'{"channel":"%b","data":{"text":"hi"},"id":"mine"}' % channel.encode(),
        )
        answer = response.json()
        assert answer == {
            "channel": channel,
            "epoch": answer["epoch"],
            "offset": 1,
            "id": "mine",
            "duplicate": False,
        }
        assert publications(reader.take(1)) == [
            {
                "channel": channel,
                "offset": 1,
                "id": "mine",
                "user": f"author-{name}",
                "data": {"text": "hi"},
            }
        ]


@every_transport
def test_several_channels_on_one_connection(push: PushServer, name: str, transport: str) -> None:
    channels = [f"many:{name}.{n}" for n in range(5)]
    with subscribe(push, transport, push.token(name), *channels) as reader:
        for turn in range(4):
            push.api("broadcast", channels=channels, data=turn)
        got = publications(reader.take(20))
        for channel in channels:
            mine = [p for p in got if p["channel"] == channel]
            assert [(p["offset"], p["data"]) for p in mine] == [(n + 1, n) for n in range(4)]


@every_transport
def test_a_batch_keeps_its_order(push: PushServer, name: str, transport: str) -> None:
    channel = f"batch:{name}"
    with subscribe(push, transport, push.token(name), channel) as reader:
        push.api_batch(("publish", {"channel": channel, "data": n}) for n in range(300))
        assert [p["data"] for p in publications(reader.take(300))] == list(range(300))


@every_transport
def test_a_duplicate_is_not_delivered_again(push: PushServer, name: str, transport: str) -> None:
    channel = f"dup:{name}"
    with subscribe(push, transport, push.token(name), channel) as reader:
        for _ in range(3):
            push.api("publish", channel=channel, data=1, id="once")
        push.api("publish", channel=channel, data=2)
        assert [p["data"] for p in publications(reader.take(2))] == [1, 2]


@every_transport
def test_other_channels_do_not_arrive(push: PushServer, name: str, transport: str) -> None:
    with subscribe(push, transport, push.token(name), f"mine:{name}") as reader:
        push.api("publish", channel=f"other:{name}", data="not for this one")
        push.api("publish", channel=f"user:other-{name}", data="nor this")
        push.api("publish", channel=f"mine:{name}", data="end")
        assert [p["data"] for p in publications(reader.take(1))] == ["end"]


# The beginning.


@every_transport
def test_hello(push: PushServer, name: str, transport: str) -> None:
    token = push.token(name, sub_ch=["node:*"], ttl=300)
    with subscribe(push, transport, token, "node:7", "secret:1") as reader:
        hello = reader.hello
        assert set(hello) == {
            "type",
            "connection",
            "user",
            "channels",
            "denied",
            "cursor",
            "heartbeat",
            "expires",
        }
        assert hello["type"] == "hello"
        assert hello["user"] == name
        assert sorted(hello["channels"]) == ["node:7", f"user:{name}"]
        assert hello["denied"] == ["secret:1"]
        assert hello["cursor"] == reader.cursor
        assert hello["cursor"].startswith("1~") and hello["cursor"].count("~") == 2
        assert hello["heartbeat"] == 25
        assert abs(hello["expires"] - (time.time() + 300)) < 30
    with subscribe(push, transport, token, "node:7") as again:
        assert again.hello["connection"] != hello["connection"]


@every_transport
def test_the_personal_channel_is_always_subscribed(
    push: PushServer, name: str, transport: str
) -> None:
    token = push.token(name, sub_ch=[])
    with subscribe(push, transport, token) as reader:
        assert reader.hello["channels"] == [f"user:{name}"]
        push.api("publish", channel=f"user:{name}", data="for you")
        assert publications(reader.take(1))[0]["data"] == "for you"


@every_transport
def test_without_a_cursor_the_present_begins(push: PushServer, name: str, transport: str) -> None:
    channel = f"now:{name}"
    push.api("publish", channel=channel, data="past")
    with subscribe(push, transport, push.token(name), channel) as reader:
        push.api("publish", channel=channel, data="present")
        assert publications(reader.take(1))[0]["data"] == "present"


@pytest.mark.parametrize("transport", ["sse", "stream", "frame"])
def test_the_head_of_a_stream(push: PushServer, name: str, transport: str) -> None:
    reader = subscribe(push, transport, push.token(name))
    assert isinstance(reader, Streaming)
    with reader:
        assert reader.head.header("Cache-Control") == "no-store, no-transform"
        assert reader.head.header("X-Accel-Buffering") == "no"
        assert reader.head.header("X-Content-Type-Options") == "nosniff"
        assert reader.head.header("Server") is None
        assert reader.head.header("Set-Cookie") is None
        if isinstance(reader, Sse):
            assert reader.retry == 3000


def test_http_1_0_gets_a_stream_it_can_read(push: PushServer, name: str) -> None:
    token = push.token(name)
    with push.wire() as wire:
        wire.send(
            b"GET /subscribe/stream HTTP/1.0\r\nHost: %b\r\nAuthorization: Bearer %b\r\n\r\n"
            % (push.host.encode(), token.encode())
        )
        head = read_head(wire, time.monotonic() + 5)
        assert head.status == 200
        assert head.header("Transfer-Encoding") is None
        assert b'"hello"' in wire.line(time.monotonic() + 5)


@every_transport
def test_refusals_are_ordinary_answers(push: PushServer, name: str, transport: str) -> None:
    token = push.token(name, sub_ch=["a"])
    for query, status in (
        ("channel=a%20b", 400),
        ("since=nonsense", 400),
        ("instance=a%20b", 400),
        ("channel=b&channel=c", 403),
    ):
        headers = handshake_headers() if transport == "ws" else None
        target = f"/subscribe/{transport}?{NEEDED.get(transport, '')}{query}"
        response = push.get(target, token=token, headers=headers)
        assert response.status == status, query
        assert response.header("Content-Type") == "application/json"
        assert response.error


@pytest.mark.parametrize("hold", ["-1", "61", "1e3", "nan", "x", "1.5x", "99999999999999999999"])
def test_poll_refuses_a_strange_timeout(push: PushServer, name: str, hold: str) -> None:
    response = push.get(f"/subscribe/poll?timeout={hold}", token=push.token(name))
    assert response.status == 400


# The cursor.


@pytest.mark.parametrize("broker", ["memory:", "sqlite"])
def test_resuming_from_every_cursor_on_every_transport(
    push_server_factory: Callable[..., PushServer], broker: str
) -> None:
    """Twenty publications over three channels; from each cursor exactly the rest follows."""
    push = push_server_factory(broker=broker)
    token = push.token("42")
    channels = ["a:1", "b:1", "user:42"]
    for transport in STREAMING:
        with subscribe(push, transport, token, "a:1", "b:1") as reader:
            cursors = [reader.hello["cursor"]]
            for number in range(20):
                push.api("publish", channel=channels[number * 7 % 3], data=number)
                message = reader.take(1)[0]
                assert message.value["data"] == number
                cursors.append(message.cursor)
        assert len(set(cursors)) == 21
        # Every place once; of the others, which are made in the same way, a few.
        for place in range(0, 21, 1 if transport == "sse" else 5):
            since = cursors[place]
            expected = set(range(place, 20))
            for other in TRANSPORTS:
                with subscribe(push, other, token, "a:1", "b:1", since=since) as resumed:
                    said = resumed.control("recovered")
                    assert sorted(said["channels"]) == channels
                    got = publications(resumed.take(20 - place))
                    assert {p["data"] for p in got} == expected, (other, place)
                    for channel in channels:
                        offsets = [p["offset"] for p in got if p["channel"] == channel]
                        assert offsets == sorted(offsets)
                    # It ends where the first one ended, whatever way it came.
                    assert set(resumed.cursor.split("~")) == set(cursors[-1].split("~"))


@every_transport
def test_the_cursor_stands_behind_what_was_read(
    push: PushServer, name: str, transport: str
) -> None:
    """A client that is cut after any message resumes with the next one."""
    channel = f"cut:{name}"
    token = push.token(name)
    with subscribe(push, transport, token, channel) as reader:
        since = reader.cursor
    push.api_batch(("publish", {"channel": channel, "data": n}) for n in range(10))
    seen: list[int] = []
    while len(seen) < 10:
        with subscribe(push, transport, token, channel, since=since) as reader:
            reader.control("recovered")
            # A poll has one cursor for all of its answer.
            got = reader.take(10 if transport in POLLING else 1)
            seen += [message.value["data"] for message in got]
            since = reader.cursor
    assert seen == list(range(10))


@every_transport
def test_a_restart_with_a_log_on_disk_loses_nothing(
    push_server_factory: Callable[..., PushServer], transport: str
) -> None:
    push = push_server_factory(broker="sqlite")
    token = push.token("42")
    with subscribe(push, transport, token, "log:1") as reader:
        push.api("publish", channel="log:1", data="before")
        since = reader.take(1)[0].cursor
        push.api("publish", channel="log:1", data="unseen")
        push.kill()
    push.start()
    push.api("publish", channel="log:1", data="after")
    with subscribe(push, transport, token, "log:1", since=since) as reader:
        assert "log:1" in reader.control("recovered")["channels"]
        assert [p["data"] for p in publications(reader.take(2))] == ["unseen", "after"]


@every_transport
def test_every_channel_is_recovered_or_reset(push: PushServer, name: str, transport: str) -> None:
    known, added = f"known:{name}", f"added:{name}"
    token = push.token(name)
    with subscribe(push, transport, token, known) as reader:
        since = reader.cursor
    push.api("publish", channel=known, data="missed")
    push.api("publish", channel=added, data="not followed then")
    with subscribe(push, transport, token, known, added, since=since) as reader:
        first, second = reader.next(), reader.next()
        if first.control == "hello":
            first, second = second, reader.next()
        said = {first.control: first.value, second.control: second.value}
        assert sorted(said["recovered"]["channels"]) == sorted([known, f"user:{name}"])
        assert said["reset"]["channels"] == [added]
        assert said["reset"]["reason"] == "unknown"
        assert publications(reader.take(1))[0]["data"] == "missed"
        push.api("publish", channel=added, data="followed now")
        assert publications(reader.take(1))[0]["data"] == "followed now"


def test_last_event_id_wins_over_since(push: PushServer, name: str) -> None:
    channel = f"last:{name}"
    token = push.token(name)
    with push.sse(token, channel) as reader:
        old = reader.hello["cursor"]
        push.api("publish", channel=channel, data=1)
        new = reader.take(1)[0].cursor
    push.api("publish", channel=channel, data=2)
    with push.sse(token, channel, since=old, last_event_id=new) as reader:
        reader.control("recovered")
        assert publications(reader.take(1))[0]["data"] == 2
    with push.sse(token, channel, last_event_id=old) as reader:
        assert [p["data"] for p in publications(reader.take(2))] == [1, 2]


@every_transport
def test_a_long_replay(push: PushServer, name: str, transport: str) -> None:
    """More than a slice, more than one poll answer; live publications wait their turn."""
    channel = f"long:{name}"
    token = push.token(name)
    with subscribe(push, transport, token, channel) as reader:
        since = reader.cursor
    for turn in range(10):
        push.api_batch(
            ("publish", {"channel": channel, "data": f"{turn * 60 + n}:{'x' * 3_000}"})
            for n in range(60)
        )
    with subscribe(push, transport, token, channel, since=since) as reader:
        push.api("publish", channel=channel, data="600:live")
        got = publications(reader.take(601))
        assert [int(p["data"].partition(":")[0]) for p in got] == list(range(601))


# One instance of a page does not get back what it sent.


@every_transport
def test_exclude_live_and_in_recovery(push: PushServer, name: str, transport: str) -> None:
    channel = f"draw:{name}"
    token = push.token(name)
    with (
        subscribe(push, transport, token, channel, instance="me") as mine,
        subscribe(push, transport, token, channel, instance="you") as yours,
        subscribe(push, transport, token, channel) as anybody,
    ):
        start = mine.cursor
        for number in range(6):
            push.api(
                "publish", channel=channel, data=number, **({"exclude": "me"} if number % 2 else {})
            )
        assert [p["data"] for p in publications(yours.take(6))] == list(range(6))
        assert [p["data"] for p in publications(anybody.take(6))] == list(range(6))
        assert [p["data"] for p in publications(mine.take(3))] == [0, 2, 4]
    with subscribe(push, transport, token, channel, instance="me", since=start) as again:
        again.control("recovered")
        assert [p["data"] for p in publications(again.take(3))] == [0, 2, 4]
        push.api("publish", channel=channel, data=6, exclude="me")
        push.api("publish", channel=channel, data=7)
        assert [p["data"] for p in publications(again.take(1))] == [7]
        last = again.cursor
    # What was left out is behind the cursor: it is not missing.
    with subscribe(push, transport, token, channel, instance="me", since=last) as again:
        assert channel in again.control("recovered")["channels"]
        push.api("publish", channel=channel, data=8)
        assert [p["data"] for p in publications(again.take(1))] == [8]


def test_exclude_from_two_channels_at_once_answers_a_poll_once(push: PushServer, name: str) -> None:
    """All that is due is left out, in two channels of one turn: one answer, or none."""
    one, two = f"one:{name}", f"two:{name}"
    with push.poll(push.token(name), one, two, instance="me") as reader:
        for turn in range(5):
            target = reader.target(timeout="5")
            reader.wire.send(request_bytes("GET", target, reader.headers))
            until(lambda: subscribers(push, one) == 1, "the poll waits")
            push.api("broadcast", channels=[one, two], data=turn, exclude="me")
            push.api("broadcast", channels=[one, two], data=f"visible {turn}")
            response = read_response(reader.wire)
            assert response.status == 200
            reader.position = response.json()["cursor"]
            got = response.json()["publications"]
            while len(got) < 2:
                got += reader.answer(hold=5)["publications"]
            assert [p["data"] for p in got] == [f"visible {turn}"] * 2
            assert reader.wire.buffer == b""
        assert reader.connections == 1


# Pictures.


def picture(number: int) -> str:
    content = b"GIF89a" + bytes([number])
    return f"data:image/gif;base64,{b64encode(content).decode()}"


def looks(push: PushServer, name: str) -> Wire:
    """A connection on which pictures of the channel arrive."""
    wire = push.wire()
    headers = {**push.head(), "Authorization": f"Bearer {push.token(name)}"}
    wire.send(request_bytes("GET", f"/subscribe/multipart?channel=camera:{name}", headers))
    assert read_head(wire, time.monotonic() + 5).status == 200
    assert wire.line(time.monotonic() + 5) == b"--next-picture-of-the-push-server"
    until(lambda: subscribers(push, f"camera:{name}"), "somebody looks")
    return wire


def seen(wire: Wire) -> int:
    """The number of the next picture."""
    while not (line := wire.line(time.monotonic() + 5)).startswith(b"GIF89a"):
        assert line in (b"", b"Content-Type: image/png", b"--next-picture-of-the-push-server") or (
            line.startswith(b"X-Padding: ")
        )
    return line[6]


@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_the_last_picture_is_there_at_once(push: PushServer, name: str, before: int) -> None:
    for number in range(1, before + 1):
        push.api("publish", channel=f"camera:{name}", data=picture(100 + number))
    with looks(push, name) as wire:
        if before:
            assert seen(wire) == 100 + before
        for number in range(20, 24):
            push.api("publish", channel=f"camera:{name}", data=f"not picture {number}")
            push.api("publish", channel=f"camera:{name}", data=picture(number))
            assert seen(wire) == number


@pytest.mark.parametrize(("size", "first"), [(0, 20), (1, 20), (2, 102)])
def test_the_last_picture_is_proved_by_the_one_before(
    push_server_factory: Callable[..., PushServer], name: str, size: int, first: int
) -> None:
    push = push_server_factory(namespace={"camera": {"history_size": size}})
    for number in (100, 101, 102):
        push.api("publish", channel=f"camera:{name}", data=picture(number))
    with looks(push, name) as wire:
        push.api("publish", channel=f"camera:{name}", data=picture(20))
        assert seen(wire) == first


# Poll.


def test_poll_answers_with_all_that_is_due(push: PushServer, name: str) -> None:
    channel = f"due:{name}"
    with push.poll(push.token(name), channel) as reader:
        push.api_batch(("publish", {"channel": channel, "data": n}) for n in range(50))
        answer = reader.answer(hold=5)
        assert [p["data"] for p in answer["publications"]] == list(range(50))
        push.api("publish", channel=channel, data="next")
        assert [p["data"] for p in reader.answer(hold=5)["publications"]] == ["next"]


def test_poll_answers_at_once_without_a_cursor(push: PushServer, name: str) -> None:
    start = time.monotonic()
    with push.poll(push.token(name)) as reader:
        assert reader.position
    assert time.monotonic() - start < 2


def test_poll_holds_until_something_is_published(push: PushServer, name: str) -> None:
    channel = f"hold:{name}"
    with push.poll(push.token(name), channel) as reader:
        answers: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: answers.append(reader.answer(hold=20, timeout=20)))
        thread.start()
        until(lambda: subscribers(push, channel) == 1, "the poll waits")
        assert answers == []
        start = time.monotonic()
        push.api("publish", channel=channel, data=1)
        thread.join(5)
        assert time.monotonic() - start < 2
        assert [p["data"] for p in answers[0]["publications"]] == [1]


def test_poll_answers_when_its_time_is_over(push: PushServer, name: str) -> None:
    with push.poll(push.token(name)) as reader:
        before = reader.position
        start = time.monotonic()
        answer = reader.answer(hold=1)
        assert 0.7 < time.monotonic() - start < 3
        assert answer["publications"] == []
        assert answer["cursor"] == before
        assert reader.answer(hold=0)["publications"] == []
        assert reader.connections == 1


def test_an_interval_poll_is_never_held(push: PushServer, name: str) -> None:
    with push.interval(push.token(name)) as reader:
        before = reader.position
        start = time.monotonic()
        for _ in range(3):
            answer = reader.answer(hold=20)
            assert (answer["publications"], answer["cursor"]) == ([], before)
        assert time.monotonic() - start < 5
        assert reader.connections == 1


def test_poll_keeps_its_connection(push: PushServer, name: str) -> None:
    """One socket, many times to the hub and back."""
    channel = f"keep:{name}"
    with push.poll(push.token(name), channel) as reader:
        for number in range(30):
            push.api("publish", channel=channel, data=number)
            answer = reader.answer(hold=5)
            assert [p["data"] for p in answer["publications"]] == [number]
        # An ordinary request fits in between.
        reader.wire.send(request_bytes("GET", "/no-such-path", reader.headers))
        assert read_response(reader.wire).status == 404
        assert reader.answer(hold=0)["publications"] == []
        assert reader.connections == 1


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_request_sent_during_a_poll_is_answered_once_and_after_it(
    push: PushServer, name: str, pieces: int
) -> None:
    """The bytes wait in the kernel while the hub has the socket; none is lost or doubled."""
    channel = f"pipe:{name}"
    with push.poll(push.token(name), channel) as reader:
        wire = reader.wire
        for turn in range(5):
            wire.send(request_bytes("GET", reader.target(timeout="10"), reader.headers))
            until(lambda: subscribers(push, channel) == 1, "the poll waits")
            behind = request_bytes("GET", "/no-such-path", reader.headers)
            size = -(-len(behind) // pieces)
            parts = [behind[i : i + size] for i in range(0, len(behind), size)]
            for part in parts[: len(parts) // 2 + 1]:
                wire.send(part)
            push.api("publish", channel=channel, data=turn)
            for part in parts[len(parts) // 2 + 1 :]:
                wire.send(part)
            answer = read_response(wire)
            assert [p["data"] for p in answer.json()["publications"]] == [turn]
            reader.position = answer.json()["cursor"]
            assert read_response(wire).status == 404
            assert wire.buffer == b""


def test_a_poll_whose_client_leaves_is_forgotten(push: PushServer, name: str) -> None:
    channel = f"left:{name}"
    reader = push.poll(push.token(name), channel)
    reader.wire.send(request_bytes("GET", reader.target(timeout="60"), reader.headers))
    until(lambda: subscribers(push, channel) == 1, "the poll waits")
    reader.close()
    until(lambda: subscribers(push, channel) == 0, "the poll is forgotten")


# Time.


@every_stream
def test_heartbeat(push_server_factory: Callable[..., PushServer], transport: str) -> None:
    push = push_server_factory(heartbeat=1)
    with subscribe(push, transport, push.token("42")) as reader:
        assert reader.hello["heartbeat"] == 1
        push.api("publish", channel="user:42", data=1)
        cursor = reader.take(1)[0].cursor
        arrivals = []
        for _ in range(3):
            message = reader.next(5)
            assert message.control == "ping"
            assert message.cursor == cursor
            arrivals.append(time.monotonic())
        assert 0.5 < arrivals[2] - arrivals[0] < 5


@every_stream
def test_a_stream_ends_with_its_token(push: PushServer, name: str, transport: str) -> None:
    """It says `expiring` in time to bring a newer token, and then where to resume."""
    with subscribe(push, transport, push.token(name, ttl=4), "end:1") as reader:
        expires = reader.hello["expires"]
        expiring = reader.control("expiring")
        assert abs(expiring["expires"] - expires) <= 1.5
        assert time.time() < expires
        *_, last = reader.until_end()
        assert last.control == "reconnect"
        assert last.value["reason"] == "expired"
        assert last.value["delay"] >= 0
        assert abs(time.time() - expires) < 2
    push.api("publish", channel="end:1", data=name)
    with subscribe(push, transport, push.token(name), "end:1", since=last.cursor) as reader:
        reader.control("recovered")
        assert publications(reader.take(1))[0]["data"] == name


def test_a_poll_is_not_held_past_its_token(push: PushServer, name: str) -> None:
    """A poll must not deliver to whom no token lets it."""
    token = push.token(name, iat=int(time.time()) - 100, exp=int(time.time()) - 57)
    with push.poll(token, "late:1") as reader:
        start = time.monotonic()
        reader.answer(hold=20, timeout=20)
        assert time.monotonic() - start < 8


@every_stream
def test_max_age(push_server_factory: Callable[..., PushServer], transport: str) -> None:
    push = push_server_factory(connection_max_age=1)
    with subscribe(push, transport, push.token("42")) as reader:
        *_, last = reader.until_end(10)
        assert (last.control, last.value["reason"]) == ("reconnect", "age")


@every_held
def test_revoke_ends_it_within_a_second(push: PushServer, name: str, transport: str) -> None:
    channel = f"revoke:{name}"
    token = push.token(name)
    with subscribe(push, transport, token, channel) as reader:
        said: list[str | None] = []
        ended = threading.Event()

        def listen() -> None:
            try:
                while not ended.is_set():
                    said.append(reader.next(20).control)
            except (Ended, Refused, TimeoutError):
                ended.set()

        thread = threading.Thread(target=listen)
        thread.start()
        until(lambda: subscribers(push, channel) == 1, "it is subscribed")
        start = time.monotonic()
        push.api("revoke", user=name)
        thread.join(5)
        assert time.monotonic() - start < 1.5
        assert ended.is_set()
        assert "revoked" in said
    with pytest.raises(Refused) as refusal:
        subscribe(push, transport, token, channel)
    assert refusal.value.response.status == 401


@every_held
def test_nothing_is_delivered_after_a_revoke(push: PushServer, name: str, transport: str) -> None:
    channel = f"after:{name}"
    with subscribe(push, transport, push.token(name), channel) as reader:
        if isinstance(reader, Poll):
            reader.wire.send(request_bytes("GET", reader.target(timeout="20"), reader.headers))
            until(lambda: subscribers(push, channel) == 1, "the poll waits")
        push.api_batch(
            [("revoke", {"user": name}), ("publish", {"channel": channel, "data": "secret"})]
        )
        if isinstance(reader, Poll):
            answer = reader.value(read_response(reader.wire))
            assert answer["publications"] == []
            assert [c["type"] for c in answer["control"]][-1] == "revoked"
        else:
            said = reader.until_end()
            assert [message.control for message in said][-1] == "revoked"
            assert all(message.control for message in said)


@every_transport
def test_the_oldest_makes_room(
    push_server_factory: Callable[..., PushServer], transport: str
) -> None:
    push = push_server_factory(connections_per_user=3)
    token = push.token("42")
    with push.stream(token) as oldest:
        others = [push.stream(token) for _ in range(2)]
        with subscribe(push, transport, token, "a:1") as newest:
            *_, last = oldest.until_end()
            assert (last.control, last.value["reason"]) == ("reconnect", "replaced")
            push.api("publish", channel="user:42", data=1)
            for reader in (*others, newest):
                assert publications(reader.take(1))[0]["data"] == 1
        for reader in others:
            reader.close()


# The end.


@pytest.mark.parametrize("broker", ["memory:", "sqlite"])
def test_drain(push_server_factory: Callable[..., PushServer], broker: str) -> None:
    """SIGTERM: everybody is told when to come back, everything due is sent, and it exits 0."""
    push = push_server_factory(broker=broker, drain_spread=2)
    token = push.token("42")
    readers = [subscribe(push, transport, token, "a:1") for transport in STREAMING]
    polled = push.poll(token, "a:1")
    polled.wire.send(request_bytes("GET", polled.target(timeout="30"), polled.headers))
    until(lambda: subscribers(push, "a:1") == len(readers) + 1, "the poll waits")
    push.api("publish", channel="b:1", data=1)
    push.signal(signal.SIGTERM)
    delays = []
    for reader in readers:
        *_, last = reader.until_end()
        assert (last.control, last.value["reason"]) == ("reconnect", "drain")
        delays.append(last.value["delay"])
    answer = read_response(polled.wire).json()
    assert answer["control"][-1]["type"] == "reconnect"
    assert answer["control"][-1]["reason"] == "drain"
    assert answer["cursor"]
    delays.append(answer["control"][-1]["delay"])
    assert all(0 <= delay <= 2_000 for delay in delays)
    assert len(set(delays)) > 1, "all were told to come back at the same moment"
    try:
        assert push.wait() == 0
    except subprocess.TimeoutExpired:
        pytest.fail("the server does not exit")
    for reader in (*readers, polled):
        reader.close()
    if broker == "sqlite":
        push.start()
        with push.stream(token, "a:1", since=answer["cursor"]) as reader:
            assert "a:1" in reader.control("recovered")["channels"]


def test_readiness_ends_when_draining_begins(
    push_server_factory: Callable[..., PushServer],
) -> None:
    push = push_server_factory()
    with push.wire(internal=True) as wire:
        wire.send(request_bytes("GET", "/live", push.head(internal=True)))
        assert read_response(wire).status == 200
        push.signal(signal.SIGTERM)
        assert push.wait() == 0
    with pytest.raises(OSError, match="refused"):
        push.wire()
