"""One contract for all transports, on a real server, read by clients of its own.

What each is told, from where, and by whom it is published; what comes by the clock and at the end
is in `test_transports_ends.py`. A new transport is one more row in `contract.READERS`.
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from contract import (
    BAYEUX,
    CARRIERS,
    HELD,
    NEEDED,
    POLLS,
    PUBLISHERS,
    READERS,
    STREAMS,
    data,
    fresh,
    hold,
    over,
    subscribe,
    subscribers,
    thing,
    things,
    told,
)
from harness import PushServer
from waiting import wait_for
from wire import (
    Message,
    Receiver,
    Refused,
    Sse,
    Streaming,
    parse_responses,
    read_head,
    request_bytes,
)
from wire_bayeux import name_of
from wire_ws import TEXT, frame, handshake_headers

from push_server.transports import TRANSPORTS

pytestmark = pytest.mark.usefixtures("unharmed")

every_transport = over(*READERS)
every_carrier = over(*CARRIERS)


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return fresh("transports")


def publications(messages: list[Message]) -> list[dict[str, Any]]:
    return [message.value for message in messages]


def test_every_transport_is_held_to_it() -> None:
    assert set(TRANSPORTS) <= set(READERS)


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


@every_carrier
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
def test_several_channels_on_one_connection(push: PushServer, name: str, transport: str) -> None:
    channels = [f"many:{name}.{n}" for n in range(3)]
    with subscribe(push, transport, push.token(name), *channels) as reader:
        sent = things(transport, *range(12))
        for turn, each in enumerate(sent):
            push.api("publish", channel=channels[turn % 3], data=each)
        got = data(reader, 12)
        for first in range(3):  # each channel has its own order
            assert [each for each in got if each in sent[first::3]] == sent[first::3]


@over(*(name for name in READERS if name != "pull"))
def test_a_batch_keeps_its_order(push: PushServer, name: str, transport: str) -> None:
    channel = f"batch:{name}"
    with subscribe(push, transport, push.token(name), channel) as reader:
        expected = things(transport, *range(300))
        push.api_batch(("publish", {"channel": channel, "data": each}) for each in expected)
        assert data(reader, 300) == expected


@every_transport
def test_a_duplicate_is_not_delivered_again(push: PushServer, name: str, transport: str) -> None:
    channel = f"dup:{name}"
    first, second = things(transport, 1, 2)
    with subscribe(push, transport, push.token(name), channel) as reader:
        for _ in range(3):
            push.api("publish", channel=channel, data=first, id="once")
        push.api("publish", channel=channel, data=second)
        assert data(reader, 2) == [first, second]


@every_transport
def test_other_channels_do_not_arrive(push: PushServer, name: str, transport: str) -> None:
    with subscribe(push, transport, push.token(name), f"mine:{name}") as reader:
        push.api("publish", channel=f"other:{name}", data=thing(transport, 1))
        push.api("publish", channel=f"user:other-{name}", data=thing(transport, 2))
        push.api("publish", channel=f"mine:{name}", data=thing(transport, 3))
        assert data(reader, 1) == [thing(transport, 3)]


# The beginning.


@every_carrier
def test_hello(push: PushServer, name: str, transport: str) -> None:
    token = push.token(name, sub_ch=["node:*"], ttl=300)
    asked = ["node:7"] if transport in BAYEUX else ["node:7", "secret:1"]
    with subscribe(push, transport, token, *asked) as reader:
        hello = dict(reader.hello)
        assert sorted(hello.pop("channels")) == ["node:7", f"user:{name}"]
        assert abs(hello.pop("expires") - (time.time() + 300)) < 30
        cursor = hello.pop("cursor")
        assert cursor == reader.cursor
        assert cursor.startswith("1~")
        if transport in BAYEUX:  # which has a way of its own to say the rest
            assert hello == {"user": name}
            return
        assert cursor.count("~") == 2
        connection = hello.pop("connection")
        assert hello == {"type": "hello", "user": name, "denied": ["secret:1"], "heartbeat": 25}
    with subscribe(push, transport, token, "node:7") as again:
        assert again.hello["connection"] != connection


@every_transport
def test_the_personal_channel_is_always_subscribed(
    push: PushServer, name: str, transport: str
) -> None:
    with subscribe(push, transport, push.token(name, sub_ch=[])) as reader:
        push.api("publish", channel=f"user:{name}", data=thing(transport, 1))
        assert data(reader, 1) == [thing(transport, 1)]


@every_carrier
def test_without_a_cursor_the_present_begins(push: PushServer, name: str, transport: str) -> None:
    channel = f"now:{name}"
    push.api("publish", channel=channel, data="past")
    with subscribe(push, transport, push.token(name), channel) as reader:
        push.api("publish", channel=channel, data="present")
        assert data(reader, 1) == ["present"]


@over("sse", "stream", "frame")
def test_the_head_of_a_stream(push: PushServer, name: str, transport: str) -> None:
    reader = subscribe(push, transport, push.token(name))
    assert isinstance(reader, Streaming)
    with reader:
        assert reader.head.header("Cache-Control") == "no-store, no-transform"
        assert reader.head.header("X-Accel-Buffering") == "no"
        assert reader.head.header("X-Content-Type-Options") == "nosniff"
        assert reader.head.header("Date")
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


REFUSED: list[tuple[dict[str, Any], int]] = [
    ({"channels": ["a b"]}, 400),
    ({"since": "nonsense"}, 400),
    ({"instance": "a b"}, 400),
    ({"channels": ["b", "c"]}, 403),
    ({"token": "wrong"}, 401),
]


@every_transport
def test_refusals_are_ordinary_answers(push: PushServer, name: str, transport: str) -> None:
    for changes, status in REFUSED:
        if transport == "pull" and "since" in changes:
            continue  # It shows the end of the history, always.
        given = {"channels": [], "token": push.token(name, sub_ch=["a"]), **changes}
        with (
            pytest.raises(Refused) as refusal,
            subscribe(push, transport, given.pop("token"), *given.pop("channels"), **given) as one,
        ):
            one.next()  # a poll with a cursor has not asked yet
        response = refusal.value.response
        assert response.header("Content-Type") == "application/json"
        if transport in BAYEUX and changes.get("channels") == ["a b"]:
            assert response.status == 405  # its own number for names that are none
        else:
            assert response.status == status, changes
            assert response.error


# What is asked for arrives in one piece, octet by octet, or with something behind it.


def asking(push: PushServer, transport: str, token: str, channel: str) -> bytes:
    """A request that is told what is published to the channel."""
    bearer = {**push.head(), "Authorization": f"Bearer {token}"}
    if transport not in BAYEUX:
        more = "".join(f"&{key}={value}" for key, value in NEEDED.get(transport, ()))
        path = "/pull" if transport == "pull" else f"/subscribe/{transport}"
        upgrade = handshake_headers() if transport == "ws" else {}
        return request_bytes("GET", f"{path}?channel={channel}{more}", {**bearer, **upgrade})
    # A session that is known already, and a request that fetches what it is told.
    with subscribe(push, "bayeux-long-polling", token, channel) as session:
        reader = READERS[transport]
        if transport == "bayeux-websocket":
            return request_bytes("GET", "/bayeux", {**push.head(), **handshake_headers()})
        if transport == "bayeux-eventsource":
            headers = {**push.head(), "Accept": "text/event-stream"}
            return request_bytes("GET", f"/bayeux/{session.identity}", headers)
        return bytes(reader.request(session, [session.connect()]))  # type: ignore[attr-defined]


@every_transport
def test_a_request_may_come_in_octets(push: PushServer, name: str, transport: str) -> None:
    channel = f"octets:{name}"
    request = asking(push, transport, push.token(name), channel)
    push.api("publish", channel=channel, data=thing(transport, 1))
    switched = transport in ("ws", "bayeux-websocket")
    with push.wire() as wire:
        for at in range(len(request)):
            wire.send(request[at : at + 1])
        assert read_head(wire, time.monotonic() + 5).status == (101 if switched else 200)


@every_transport
def test_what_stands_behind_a_request(push: PushServer, name: str, transport: str) -> None:
    """It is the next request, in its turn, or it ends everything; it never gets into this one."""
    channel = f"behind:{name}"
    request = asking(push, transport, push.token(name), channel)
    nonsense = b"\x81\x85mask{}" if transport in ("ws", "bayeux-websocket") else b"NONSENSE\r\n\r\n"
    answer = push.raw(request + nonsense, timeout=5)
    assert answer.closed
    statuses = [response.status for response in parse_responses(answer)]
    assert statuses in ([400], [200, 400]), answer
    assert subscribers(push, channel) == 0 or transport in BAYEUX


@over("ws", "bayeux-websocket")
@pytest.mark.parametrize("octets", [True, False])
def test_what_a_socket_is_told_may_come_in_octets(
    push: PushServer, name: str, transport: str, octets: bool
) -> None:
    """The same of commands, of which several may come at once."""
    channel = f"commands:{name}"
    with subscribe(push, transport, push.token(name, pub_ch=["*"]), channel) as reader:
        command: list[Any] = [
            {"id": n, "method": "publish", "params": {"channel": channel, "data": n}}
            if transport == "ws"
            else [reader.message(name_of(channel), data=n)]
            for n in range(3)
        ]
        sent = b"".join(frame(TEXT, json.dumps(each).encode()) for each in command)
        for at in range(0, len(sent), 1 if octets else len(sent)):
            reader.wire.send(sent[at : at + (1 if octets else len(sent))])
        got: list[Any] = []
        while len(got) < 3:
            # The answers to what was not asked by the reader are not for it.
            value = reader.upgraded.value()
            for each in value if isinstance(value, list) else [value]:
                got += [each["data"]] if "data" in each else []
        assert got == [0, 1, 2]


# The cursor.


def place_of(push: PushServer, token: str, *channels: str) -> str:
    """The cursor of somebody who has heard everything until now."""
    with push.stream(token, *channels) as reader:
        return reader.cursor


@pytest.mark.parametrize(("broker", "step"), [("memory:", 1), ("sqlite", 5)])
def test_resuming_from_every_cursor_on_every_transport(
    push_server_factory: Callable[..., PushServer], broker: str, step: int
) -> None:
    """Twenty publications over three channels; from each cursor exactly the rest follows."""
    push = push_server_factory(broker=broker)
    token = push.token("42")
    channels = ["a:1", "b:1", "user:42"]
    start = place_of(push, token, "a:1", "b:1")
    readers: dict[str, Receiver] = {}
    cursors: dict[str, list[str]] = {}
    with ExitStack() as stack:
        for transport in (*STREAMS, "bayeux-long-polling", "bayeux-eventsource"):
            first = subscribe(push, transport, token, "a:1", "b:1", since=start)
            stack.callback(first.close)
            told(first, *channels)
            cursors[transport] = [start]
            readers[transport] = first
        for number in range(20):
            push.api("publish", channel=channels[number * 7 % 3], data=number)
            for transport, first in readers.items():
                [message] = first.take(1)
                assert message.value["data"] == number
                cursors[transport].append(message.cursor)
    head = set(cursors["sse"][-1].split("~"))
    for transport, places in cursors.items():
        assert len(set(places)) == 21
        # Every place of one; of the others, which are made in the same way, a few.
        for place in range(0, 21, step if transport == "sse" else 10):
            for other in CARRIERS:
                with subscribe(push, other, token, "a:1", "b:1", since=places[place]) as resumed:
                    assert told(resumed, *channels) == dict.fromkeys(channels, "recovered")
                    got = publications(resumed.take(20 - place))
                    assert {p["data"] for p in got} == set(range(place, 20)), (other, place)
                    for channel in channels:
                        offsets = [p["offset"] for p in got if p["channel"] == channel]
                        assert offsets == sorted(offsets)
                    # It ends where the first one ended, whatever way it came.
                    assert set(resumed.cursor.split("~")) == head


def test_pictures_resume_from_the_cursor_of_others(push: PushServer, name: str) -> None:
    channel = f"camera:{name}"
    token = push.token(name)
    expected = things("multipart", *range(5))
    with push.stream(token, channel) as reader:
        cursors = [reader.cursor]
        for each in expected:
            push.api("publish", channel=channel, data=each)
            cursors.append(reader.take(1)[0].cursor)
    for place, since in enumerate(cursors[:-1]):
        with subscribe(push, "multipart", token, channel, since=since) as pictures:
            assert data(pictures, 5 - place) == expected[place:]


@every_carrier
def test_the_cursor_stands_behind_what_was_read(
    push: PushServer, name: str, transport: str
) -> None:
    """A client that is cut after any message resumes with the next one."""
    channel = f"cut:{name}"
    token = push.token(name)
    since = place_of(push, token, channel)
    push.api_batch(("publish", {"channel": channel, "data": n}) for n in range(10))
    seen: list[int] = []
    for _ in range(1 if transport in POLLS else 10):
        with subscribe(push, transport, token, channel, since=since) as reader:
            told(reader, channel)
            # A poll has one cursor for all of its answer.
            seen += data(reader, 10 if transport in POLLS else 1)
            since = reader.cursor
    assert seen == list(range(10))


def test_a_restart_with_a_log_on_disk_loses_nothing(
    push_server_factory: Callable[..., PushServer],
) -> None:
    push = push_server_factory(broker="sqlite")
    token = push.token("0")
    places = {}
    for transport in CARRIERS:
        with subscribe(push, transport, token, "log:1") as reader:
            push.api("publish", channel="log:1", data=f"before {transport}")
            places[transport] = reader.take(1)[0].cursor
    push.kill()
    push.start()
    push.api("publish", channel="log:1", data="after")
    expected = [f"before {transport}" for transport in CARRIERS] + ["after"]
    for number, (transport, since) in enumerate(places.items(), 1):
        with subscribe(push, transport, token, "log:1", since=since) as reader:
            assert told(reader, "log:1") == {"log:1": "recovered"}
            assert data(reader, len(expected) - number) == expected[number:]


@every_carrier
def test_every_channel_is_recovered_or_reset(push: PushServer, name: str, transport: str) -> None:
    known, added, own = f"known:{name}", f"added:{name}", f"user:{name}"
    token = push.token(name)
    since = place_of(push, token, known)
    push.api("publish", channel=known, data="missed")
    push.api("publish", channel=added, data="not followed then")
    with subscribe(push, transport, token, known, added, since=since) as reader:
        assert told(reader, known, added, own) == {
            known: "recovered", own: "recovered", added: "unknown",
        }
        assert data(reader, 1) == ["missed"]
        push.api("publish", channel=added, data="followed now")
        assert data(reader, 1) == ["followed now"]


def test_last_event_id_wins_over_since(push: PushServer, name: str) -> None:
    channel = f"last:{name}"
    token = push.token(name)
    with push.sse(token, channel) as reader:
        old = reader.hello["cursor"]
        push.api("publish", channel=channel, data=1)
        new = reader.take(1)[0].cursor
    push.api("publish", channel=channel, data=2)
    with push.sse(token, channel, since=old, last_event_id=new) as reader:
        assert data(reader, 1) == [2]
    # As an EventSource written in JavaScript says it, event-source-polyfill.
    with push.subscribe(Sse, token, [channel], ("lastEventId", new), since=old) as reader:
        assert data(reader, 1) == [2]
    with push.sse(token, channel, last_event_id=old) as reader:
        assert data(reader, 2) == [1, 2]


@over(*CARRIERS, "multipart")
def test_a_long_replay(push: PushServer, name: str, transport: str) -> None:
    """More than a slice, more than one poll answer; live publications wait their turn."""
    channel = f"long:{name}"
    token = push.token(name)
    since = place_of(push, token, channel)
    sent = [thing(transport, number, 3_000) for number in range(601)]
    for turn in range(0, 600, 50):
        push.api_batch(
            ("publish", {"channel": channel, "data": each}) for each in sent[turn : turn + 50]
        )
    with subscribe(push, transport, token, channel, since=since) as reader:
        push.api("publish", channel=channel, data=sent[600])
        assert data(reader, 601) == sent


# One instance of a page does not get back what it sent.


@every_transport
def test_exclude_live_and_in_recovery(push: PushServer, name: str, transport: str) -> None:
    channel = f"draw:{name}"
    token = push.token(name)
    sent = things(transport, *range(9))

    def publish(number: int, *, left_out: bool) -> None:
        more = {"exclude": "me"} if left_out else {}
        push.api("publish", channel=channel, data=sent[number], **more)

    start = place_of(push, token, channel)
    with (
        subscribe(push, transport, token, channel, instance="me") as mine,
        subscribe(push, transport, token, channel, instance="you") as yours,
        subscribe(push, transport, token, channel) as anybody,
    ):
        for number in range(6):
            publish(number, left_out=number % 2 == 1)
        assert data(yours, 6) == data(anybody, 6) == sent[:6]
        assert data(mine, 3) == [sent[0], sent[2], sent[4]]
    if transport == "pull":
        return
    with subscribe(push, transport, token, channel, instance="me", since=start) as again:
        assert data(again, 3) == [sent[0], sent[2], sent[4]]
        publish(6, left_out=True)
        publish(7, left_out=False)
        assert data(again, 1) == [sent[7]]
        last = again.cursor
    if transport == "multipart":
        return
    # What was left out is behind the cursor: it is not missing.
    with subscribe(push, transport, token, channel, instance="me", since=last) as again:
        assert told(again, channel) == {channel: "recovered"}
        publish(8, left_out=False)
        assert data(again, 1) == [sent[8]]


# What a client says itself.


def publish_from(
    push: PushServer, reader: Any, transport: str, token: str, channel: str, **fields: Any
) -> Any:
    """Publish as a client on this transport does: by its connection, or beside it."""
    if transport == "ws":
        return reader.call("publish", channel=channel, **fields)
    if transport in PUBLISHERS:
        return reader.publish(channel, **fields)
    body = json.dumps({"channel": channel, **fields}).encode()
    headers = {"Content-Type": "application/json"}
    response = push.request("POST", "/publish", token=token, headers=headers, body=body)
    assert response.status == 200, response
    return response.json()


@every_transport
def test_a_client_publishes_and_does_not_hear_itself(
    push: PushServer, name: str, transport: str
) -> None:
    channel = f"chat:{name}"
    token = push.token(name, pub_ch=["chat:*"])
    first, second = things(transport, 1, 2)
    with (
        push.stream(token, channel) as witness,
        subscribe(push, transport, token, channel, instance="me") as reader,
    ):
        got = publish_from(
            push, reader, transport, token, channel, data=first, id="mine", exclude="me"
        )
        assert got == {
            "channel": channel, "epoch": got["epoch"], "offset": 1, "id": "mine",
            "duplicate": False,
        }
        publish_from(push, reader, transport, token, channel, data=second)
        heard = publications(witness.take(2))
        assert heard[0] == {
            "channel": channel, "offset": 1, "id": "mine", "user": name, "exclude": "me",
            "data": first,
        }
        [message] = reader.take(1)
        assert message.value["data"] == second
        if transport in CARRIERS:
            assert (message.value["offset"], message.value["user"]) == (2, name)


def test_who_comes_and_goes(push_server_factory: Callable[..., PushServer]) -> None:
    """Told to all that can be told something at any time."""
    push = push_server_factory(
        namespace={"room": {"presence": True, "join_leave": True}}, presence_grace=0.3
    )
    ann, ben = {"user": "ann", "name": "Ann"}, {"user": "ben", "name": "Bö"}
    token = push.token("ann", name="Ann")

    def hears(reader: Receiver, kind: str, member: dict[str, str]) -> bool:
        message = reader.next()
        assert message.control in ("join", "leave", "hello", "recovered"), message
        return message.control == kind and member in message.value["users"]

    with ExitStack() as stack:
        # Her own coming is told first, so that it cannot be what the others wait for.
        first = stack.enter_context(push.stream(token, "room:1"))
        wait_for(lambda: hears(first, "join", ann))
        readers = {
            transport: stack.enter_context(subscribe(push, transport, token, "room:1"))
            for transport in HELD
        }
        for kind in ("join", "leave"):
            for reader in readers.values():
                hold(reader)
            wait_for(lambda: subscribers(push, "room:1") >= len(readers) + 1)
            if kind == "join":
                other = push.stream(push.token("ben", name="Bö"), "room:1")
            else:
                other.close()
            for transport, reader in readers.items():
                wait_for(partial(hears, reader, kind, ben), transport)
