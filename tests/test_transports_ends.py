"""One contract for all transports, the other half: what comes by the clock, and every end.

The first half is `test_transports.py`.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from contract import (
    BAYEUX,
    CARRIERS,
    HELD,
    STREAMS,
    data,
    fresh,
    hold,
    over,
    subscribe,
    subscribers,
    thing,
    told,
)
from harness import PushServer
from waiting import PROMPT, wait_for
from wire import Ended, Message, Receiver, Refused, read_response, request_bytes

pytestmark = pytest.mark.usefixtures("unharmed")

OPEN = (*STREAMS, *BAYEUX)
"""All that stay open until the server has a reason to end them."""


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return fresh("ends")


def last_words(reader: Receiver) -> list[Message]:
    """Everything up to the end, or to where its next request is refused."""
    messages = []
    while True:
        try:
            messages.append(reader.next())
        except (Ended, Refused):
            return messages


def all_last_words(readers: Mapping[str, Receiver]) -> dict[str, list[Message]]:
    """The same of many, each of whom listens at every moment."""
    with ThreadPoolExecutor(len(readers)) as pool:
        return dict(zip(readers, pool.map(last_words, readers.values()), strict=True))


def test_heartbeats_and_the_greatest_age(
    push_server_factory: Callable[..., PushServer],
) -> None:
    push = push_server_factory(heartbeat=0.5, connection_max_age=3)
    with ExitStack() as stack:
        readers = {
            transport: stack.enter_context(subscribe(push, transport, push.token("42")))
            for transport in OPEN
        }
        push.api("publish", channel="user:42", data=1)
        begun = time.monotonic()
        cursors = {transport: reader.take(1)[0].cursor for transport, reader in readers.items()}
        for transport, (*said, last) in all_last_words(readers).items():
            assert (last.control, last.value["reason"]) == ("reconnect", "age"), transport
            if transport in STREAMS:
                assert readers[transport].hello["heartbeat"] == 0.5
                # There is time for six; some came before the publication, or late, on a machine
                # that is busy.
                assert 1 <= len(said) <= 6, transport
            else:  # its connects are its heartbeat
                assert said == []
            assert {(each.control, each.cursor) for each in said} <= {("ping", cursors[transport])}
        assert time.monotonic() - begun > 2


def test_a_stream_ends_with_its_token(push: PushServer, name: str) -> None:
    """It says `expiring` in time to bring a newer token, and then where to resume."""
    channel = f"end:{name}"
    token = push.token(name, ttl=4)
    with ExitStack() as stack:
        readers = {
            transport: stack.enter_context(subscribe(push, transport, token, channel))
            for transport in OPEN
        }
        places = {}
        for transport, (first, *_, last) in all_last_words(readers).items():
            expires = readers[transport].hello["expires"]
            assert first.control == "expiring", transport
            assert abs(first.value["expires"] - expires) <= 1.5
            assert (last.control, last.value["reason"]) == ("reconnect", "expired")
            assert last.value["delay"] >= 0
            places[transport] = last.cursor
        assert abs(time.time() - expires) < 2
    push.api("publish", channel=channel, data=name)
    for transport, since in places.items():
        with subscribe(push, transport, push.token(name), channel, since=since) as reader:
            assert told(reader, channel) == {channel: "recovered"}
            assert data(reader, 1) == [name]


@over(*HELD, "multipart")
def test_revoke_ends_it_at_once(push: PushServer, name: str, transport: str) -> None:
    """And nothing that is published then comes to it, not even in the same breath."""
    channel = f"revoke:{name}"
    token = push.token(name)
    with subscribe(push, transport, token, channel) as reader:
        hold(reader)
        wait_for(lambda: subscribers(push, channel) == 1)
        begun = time.monotonic()
        secret = {"channel": channel, "data": thing(transport, 1)}
        push.api_batch([("revoke", {"user": name}), ("publish", secret)])
        said = last_words(reader)
        assert time.monotonic() - begun < PROMPT
        assert all(message.control for message in said)
        if transport in CARRIERS:
            assert said[-1].control == "revoked"
    with pytest.raises(Refused) as refusal:
        subscribe(push, transport, token, channel)
    assert refusal.value.response.status == 401


def test_the_oldest_makes_room(push_server_factory: Callable[..., PushServer]) -> None:
    push = push_server_factory(connections_per_user=3)
    for transport in (*HELD, "multipart"):
        token = push.token(transport)
        with (
            push.stream(token) as oldest,
            push.stream(token) as second,
            push.stream(token) as third,
            subscribe(push, transport, token) as newest,
        ):
            hold(newest)
            *_, last = oldest.until_end()
            assert (last.control, last.value["reason"]) == ("reconnect", "replaced"), transport
            push.api("publish", channel=f"user:{transport}", data=thing(transport, 1))
            for reader in (second, third, newest):
                assert data(reader, 1) == [thing(transport, 1)]


def test_drain(push_server_factory: Callable[..., PushServer]) -> None:
    """SIGTERM: everybody is told when to come back, everything due is sent, and it exits 0."""
    push = push_server_factory(broker="sqlite", drain_spread=2)
    token = push.token("42")
    with ExitStack() as stack:
        readers = {
            transport: stack.enter_context(subscribe(push, transport, token, "a:1"))
            for transport in HELD
        }
        for reader in readers.values():
            hold(reader)
        wait_for(lambda: subscribers(push, "a:1") == len(readers))
        push.api("publish", channel="b:1", data=1)
        push.signal(signal.SIGTERM)
        delays, places = set(), {}
        for transport, reader in readers.items():
            message = reader.next()
            while message.control != "reconnect":
                assert message.control in ("hello", "recovered"), transport
                message = reader.next()
            assert message.value["reason"] == "drain"
            assert 0 <= message.value["delay"] <= 2_000
            delays.add(message.value["delay"])
            places[transport] = message.cursor
            reader.close()
        assert len(delays) > 1, "all were told to come back at the same moment"
        try:
            assert push.wait() == 0
        except subprocess.TimeoutExpired:
            pytest.fail("the server does not exit")
    push.start()
    for transport, since in places.items():
        with subscribe(push, transport, token, "a:1", since=since) as reader:
            assert told(reader, "a:1") == {"a:1": "recovered"}


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
