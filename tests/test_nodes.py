"""Several push servers, as processes of their own, on one Redis."""

import signal
import time
from collections.abc import Callable, Iterator

import pytest
from harness import ApiError, PushServer
from redis_server import RedisServer, program
from waiting import PROMPT, retried, wait_for
from wire import Refused

Factory = Callable[..., PushServer]

pytestmark = pytest.mark.skipif(program() is None, reason="no Redis on this machine")


@pytest.fixture
def own() -> Iterator[RedisServer]:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture
def pair(own: RedisServer, push_server_factory: Factory) -> tuple[PushServer, PushServer]:
    """Two nodes of one site: the same keys, the same name."""
    first = push_server_factory(broker=own.url)
    second = push_server_factory(
        broker=own.url, token_keys=first.token_keys, api_keys={"cms": first.api_secret}
    )
    second.api_secret = first.api_secret
    return first, second


def test_published_on_one_received_on_the_other(pair: tuple[PushServer, PushServer]) -> None:
    one, two = pair
    with (
        one.sse(one.token("1"), "room") as alice,
        two.stream(one.token("2"), "room") as bob,
    ):
        for number in range(10):
            pair[number % 2].api("publish", channel="room", data=number)
        for reader in (alice, bob):
            messages = reader.take(10)
            assert [message.value["data"] for message in messages] == list(range(10))
            assert [message.value["offset"] for message in messages] == list(range(1, 11))


def test_a_client_resumes_on_the_other_node(pair: tuple[PushServer, PushServer]) -> None:
    one, two = pair
    with one.sse(one.token("1"), "room") as alice:
        one.api("publish", channel="room", data=1)
        cursor = alice.take(1)[0].cursor
    one.api("publish", channel="room", data=2)
    one.kill()
    two.api("publish", channel="room", data=3)
    with two.sse(two.token("1"), "room", since=cursor) as alice:
        assert [message.value["data"] for message in alice.take(2)] == [2, 3]


def test_a_revocation_reaches_both_nodes(pair: tuple[PushServer, PushServer]) -> None:
    one, two = pair
    token = one.token("7")
    with one.sse(token, "room") as here, two.sse(token, "room") as there:
        one.api("revoke", sid="session-7")
        for reader in (here, there):
            assert reader.until_end(PROMPT)[-1].control == "revoked"
    for node in pair:
        with pytest.raises(Refused) as refused:
            node.sse(token, "room")
        assert refused.value.response.status == 401
    # And one that is started later knows it, too.
    two.restart()
    with pytest.raises(Refused):
        two.sse(token, "room")


def test_redis_away_and_back(pair: tuple[PushServer, PushServer], own: RedisServer) -> None:
    one, two = pair
    with one.stream(one.token("1"), "room") as here, two.sse(two.token("2"), "room") as there:
        one.api("publish", channel="room", data=1, id="m1")
        assert here.take(1)[0].value["id"] == there.take(1)[0].value["id"] == "m1"
        own.freeze()
        started = time.monotonic()
        with pytest.raises(ApiError) as failed:
            one.api("publish", channel="room", data=2, id="m2")
        assert time.monotonic() - started < PROMPT
        assert failed.value.response.status == 503
        assert failed.value.response.error == "broker_unavailable"
        assert failed.value.response.header("Retry-After")
        with pytest.raises(Refused) as refused:
            two.sse(two.token("3"), "room")
        assert refused.value.response.status == 503
        assert here.control("degraded")["degraded"] is True
        assert there.control("degraded")["degraded"] is True
        assert one.get("/live", internal=True).status == 200
        assert one.get("/ready", internal=True).status == 503
        own.thaw()
        answer = retried(lambda: two.api("publish", channel="room", data=2, id="m2"), ApiError)
        assert answer["offset"] == 2
        for reader in (here, there):
            told: list[tuple[str, bool | None]] = []
            while len(told) < 2:
                message = reader.next().value
                if message.get("type") != "ping":
                    told.append((message.get("type", "m2"), message.get("degraded")))
            assert sorted(told) == [("degraded", False), ("m2", None)], "and no reset"
    for node in pair:
        node.server_errors.clear()
        node.wait_ready()


def test_a_redis_that_may_evict_is_refused_in_one_line(own: RedisServer) -> None:
    own.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server = PushServer(broker=own.url)
    with pytest.raises(AssertionError, match="maxmemory-policy noeviction") as refused:
        server.__enter__()
    assert "Traceback" not in str(refused.value)
    assert server.wait() == 2


def test_a_log_lost_while_clients_are_connected(
    pair: tuple[PushServer, PushServer], own: RedisServer
) -> None:
    one, two = pair
    with one.sse(one.token("1"), "room") as here, two.stream(two.token("2"), "room") as there:
        one.api("publish", channel="room", data=1)
        for reader in (here, there):
            assert reader.take(1)[0].value["data"] == 1
        own.cli("FLUSHALL")
        two.api("publish", channel="room", data=2)
        for reader in (here, there):  # comes instead of it: whoever loads anew has it
            reset = reader.control("reset")
            if reset["channels"] != ["room"]:  # whoever looks once a second has seen it first
                reset = reader.control("reset")
            assert (reset["channels"], reset["reason"]) == (["room"], "epoch")
        one.api("publish", channel="room", data=3)
        for reader in (here, there):
            assert reader.take(1)[0].value["data"] == 3


def test_what_one_node_acknowledged_the_other_has_in_its_history(
    pair: tuple[PushServer, PushServer], own: RedisServer
) -> None:
    one, two = pair
    with two.sse(two.token("1"), "room"):
        for number in range(1, 41):
            if number % 4 == 0:
                own.cli("CLIENT", "KILL", "TYPE", "pubsub")  # so the other node hears it late
            answer = one.api("publish", channel="room", data=number)
            found = two.api("history", channel="room", since=number - 1)
            assert (found["offset"], answer["offset"]) == (number, number)
            assert [kept["data"] for kept in found["publications"]] == [number]
            cursor = found["cursor"]
            assert two.api("history", channel="room", since=cursor)["publications"] == []


def test_stats_and_channels_speak_of_all_nodes(
    pair: tuple[PushServer, PushServer], own: RedisServer
) -> None:
    one, two = pair
    with one.sse(one.token("1"), "room"), two.sse(two.token("2"), "room", "hall"):
        for node in pair:
            stats = node.api("stats")
            assert (stats["connections"], stats["users"], stats["complete"]) == (2, 2, True)
            assert [each["connections"] for each in stats["nodes"].values()] == [1, 1]
            found = node.api("channels")
            assert {name: each["subscribers"] for name, each in found["channels"].items()} == {
                "room": 2, "hall": 1,
            }
            assert found["channels"]["room"]["nodes"] == dict.fromkeys(stats["nodes"], 1)
            assert len(found["channels"]["hall"]["nodes"]) == 1 and found["complete"]
        # One that is killed is not waited for; one that is stopped is, for a moment.
        two.signal(signal.SIGSTOP)
        started = time.monotonic()
        stats = one.api("stats")
        assert time.monotonic() - started < PROMPT
        assert (stats["connections"], stats["complete"], len(stats["nodes"])) == (1, False, 1)
        two.kill()
        wait_for(lambda: one.api("stats")["complete"], "it is not waited for")
        assert one.api("channels")["complete"]
        # What only the broker sees is counted where everything else is.
        own.cli("PUBLISH", "push:0/all", "nonsense")
        wait_for(lambda: one.api("stats").get("dropped.bus"))
        text = one.get("/metrics", internal=True).body.decode()
        assert 'push_dropped_total{where="bus"} 1.0' in text


def test_disconnect_reaches_all_nodes(pair: tuple[PushServer, PushServer]) -> None:
    one, two = pair
    with (
        one.sse(one.token("7"), "room") as here,
        two.stream(two.token("7"), "room") as there,
        two.sse(two.token("8"), "room") as other,
    ):
        one.api("publish", channel="room", data=1)
        assert one.api("disconnect", user="7") == {"closed": 2, "complete": True}
        for reader in (here, there):
            last = reader.until_end(PROMPT)[-1]
            assert (last.control, last.value["reason"]) == ("reconnect", "asked")
        # No right was taken away.
        with one.sse(one.token("7"), "room", since=last.cursor) as again:
            assert again.control("recovered")["channels"]
        assert two.api("disconnect", user="8", sid="session-7")["closed"] == 0
        assert two.api("disconnect", sid="session-8")["closed"] == 1
        assert other.until_end(PROMPT)[-1].value["reason"] == "asked"
