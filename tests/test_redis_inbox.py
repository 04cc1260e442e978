"""The inbox: what other programs append to a Redis stream is published, once, and removed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import PushServer
from redis_server import RedisServer
from waiting import wait_for

from push_server.bridges.redis_inbox import parse_inbox

STREAM = "cms:outbox"


def url(redis: RedisServer) -> str:
    return f"{redis.url}?stream={STREAM}"


def add(redis: RedisServer, data: str | bytes, *more: str | bytes, channel: str = "news:1") -> None:
    redis.cli("XADD", STREAM, "*", "channel", channel, "data", data, *more)


def kept(push: PushServer, channel: str = "news:1") -> list[Any]:
    page = push.api("history", channel=channel, limit=1000)
    return [publication["data"] for publication in page["publications"]]


@pytest.fixture
def push(redis: RedisServer) -> Iterator[PushServer]:
    add(redis, '"before"')  # before anybody reads
    with PushServer(
        broker="sqlite", redis_inbox=url(redis), redis_inbox_channels=["news:*"], max_body=2000
    ) as push:
        yield push


def test_entries_are_published_in_order_and_removed(push: PushServer, redis: RedisServer) -> None:
    for n in range(250):
        add(redis, str(n))
    wait_for(lambda: kept(push) == ["before", *range(250)])
    wait_for(lambda: redis.cli("XLEN", STREAM) == 0)
    wait_for(lambda: push.api("stats")["bridge.inbox_taken"] == 251)
    # As deep as data may be; the publication around it is one level more.
    deepest = "[" * 32 + "1" + "]" * 32
    add(redis, deepest, channel="news:deep")
    wait_for(lambda: push.api("stats")["bridge.inbox_taken"] == 252)
    assert kept(push, "news:deep") == [json.loads(deepest)]


def test_an_id_makes_the_second_time_harmless(push: PushServer, redis: RedisServer) -> None:
    add(redis, "1", "id", "order-1842")
    add(redis, "1", "id", "order-1842")
    add(redis, "2", "id", "with a blank, and Ü")
    wait_for(lambda: redis.cli("XLEN", STREAM) == 0)
    assert kept(push) == ["before", 1, 2]


def test_what_cannot_be_published_is_parked(push: PushServer, redis: RedisServer) -> None:
    bad = [
        (("channel", "news:1", "data", "{"), b"json_malformed"),
        (("channel", "user:42", "data", "1"), b"channel_denied"),
        (("channel", "$ready", "data", "1"), b"channel_malformed"),
        (("data", "1"), b"channel_missing"),
        (("channel", "news:1"), b"fields"),
        (("channel", "news:1", "data", "1", "data", "2"), b"fields"),
        (("channel", "news:1", "data", "1", "exec", "2"), b"fields"),
        (("channel", b"\xff", "data", "1"), b"fields"),
        (("channel", "news:1", "data", '"' + "x" * 3000 + '"'), b"body_too_large"),
    ]
    for fields, _ in bad:
        redis.cli("XADD", STREAM, "*", *fields)
    add(redis, '"after"')
    wait_for(lambda: kept(push)[-1:] == ["after"])
    assert kept(push) == ["before", "after"]
    parked = redis.cli("XRANGE", f"{STREAM}:parked", "-", "+")
    assert [entry[1][1] for entry in parked] == [reason for _, reason in bad]
    assert parked[0][1][2:] == [b"channel", b"news:1", b"data", b"{"]
    wait_for(lambda: push.api("stats")["bridge.inbox_parked"] == len(bad))


def test_what_a_dead_server_had_taken_is_taken_over(push: PushServer, redis: RedisServer) -> None:
    wait_for(lambda: kept(push) == ["before"])
    push.terminate()
    add(redis, "1")
    taken = redis.cli("XREADGROUP", "GROUP", "push-server", "dead", "STREAMS", STREAM, ">")
    assert len(taken) == 1
    push.start()
    add(redis, "2")
    wait_for(lambda: sorted(kept(push), key=str) == [1, 2, "before"])
    wait_for(lambda: redis.cli("XLEN", STREAM) == 0)


def test_nothing_is_lost_or_doubled_when_a_server_is_killed(
    push: PushServer, redis: RedisServer
) -> None:
    for n in range(600):
        add(redis, str(n))
        if n == 300:
            push.kill()
            push.start()
    wait_for(lambda: redis.cli("XLEN", STREAM) == 0)
    found = kept(push)
    assert len(found) == 601
    assert {*found} == {"before", *range(600)}


def test_a_redis_that_was_flushed_or_killed_is_read_again(
    push: PushServer, redis: RedisServer
) -> None:
    wait_for(lambda: kept(push) == ["before"])
    redis.cli("FLUSHALL")
    add(redis, "1")
    wait_for(lambda: kept(push) == ["before", 1])
    redis.kill()
    wait_for(lambda: "bridge.down" in push.log)
    assert push.api("publish", channel="news:1", data=2)["offset"] == 3
    redis.start()
    add(redis, "3")
    wait_for(lambda: kept(push) == ["before", 1, 2, 3])


def test_two_servers_share_the_work(redis: RedisServer) -> None:
    common: dict[str, Any] = {
        "broker": redis.url,
        "redis_inbox": url(redis),
        "redis_inbox_channels": "news:1",
    }
    with PushServer(**common) as one, PushServer(**common):
        for n in range(500):
            add(redis, str(n))
        wait_for(lambda: redis.cli("XLEN", STREAM) == 0)
        assert sorted(kept(one)) == list(range(500))
        wait_for(lambda: one.api("stats")["bridge.inbox_taken"] == 500)  # of both together


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("redis://127.0.0.1:6379/2?stream=a", "a"),
        ("redis://:p%23w@127.0.0.1/2?prefix=x:&stream=a:b", "a:b"),
        ("unix:///run/redis.sock?stream=a&db=3", "a"),
    ],
)
def test_where_the_stream_is(text: str, stream: str) -> None:
    address, found = parse_inbox(text)
    assert found == stream
    assert address.host == "127.0.0.1" or address.path == "/run/redis.sock"


@pytest.mark.parametrize("text", ["redis://h/0?stream=a&stream=b", "redis://h/0?stream=&x=1"])
def test_what_is_no_inbox(text: str) -> None:
    with pytest.raises(ValueError, match="one stream"):
        parse_inbox(text)
