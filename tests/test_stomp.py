"""The STOMP bridge against a real RabbitMQ: in, out, and through every kind of interruption."""

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count as count_up
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import stomp
from harness import PushServer
from rabbitmq import RabbitMq, program
from redis_server import RedisServer
from stage import Stage
from waiting import wait_for

from push_server.bridge_settings import StompAddress
from push_server.bridges.build import make_bridges
from push_server.bridges.stomp import Lost
from push_server.bridges.stomp_out import StompOutlet
from push_server.channels import Namespaces
from push_server.config_load import load_settings
from push_server.crossing import Crossing
from push_server.settings import SettingsError

TEXT = {"content-type": "text/plain"}


class Peer(stomp.ConnectionListener):  # type: ignore[misc]  # stomp has no types
    """Another program at the same broker."""

    def __init__(self, port: int) -> None:
        self.frames: list[Any] = []
        self.sent = self.received = 0
        self.connection = stomp.Connection12(
            [("127.0.0.1", port)], vhost="/", auto_decode=False, reconnect_attempts_max=20
        )
        self.connection.set_listener("peer", self)
        self.connection.connect("guest", "guest", wait=True)

    def on_message(self, frame: Any) -> None:
        self.frames.append(frame)

    def on_receipt(self, _frame: Any) -> None:
        self.received += 1

    def send(self, destination: str, data: Any, **headers: str) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.sent += 1
        headers |= {"persistent": "true", "receipt": str(self.sent)}
        self.connection.send(destination, body, headers=headers)

    def settle(self) -> None:
        """Return when the broker has stored what was sent."""
        wait_for(lambda: self.received == self.sent)

    def consume(self, destination: str) -> list[Any]:
        self.connection.subscribe(destination, id=destination, ack="auto")
        return self.frames

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.connection.disconnect()


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMq]:
    if program() is None:
        pytest.skip("no RabbitMQ on this machine (Debian package rabbitmq-server)")
    with RabbitMq() as rabbit:
        yield rabbit


@pytest.fixture
def peer(rabbit: RabbitMq) -> Iterator[Peer]:
    peer = Peer(rabbit.port)
    yield peer
    peer.close()


def url(rabbit: RabbitMq) -> str:
    return f"stomp://guest:guest@127.0.0.1:{rabbit.port}/%2F"


def kept(push: PushServer, channel: str) -> list[Any]:
    """The data of what the channel holds."""
    page = push.api("history", channel=channel, limit=1000)
    return [publication["data"] for publication in page["publications"]]


def count(push: PushServer, name: str) -> int:
    return int(push.api("stats").get(f"bridge.{name}", 0))


def test_what_stands_in_a_queue_is_published(rabbit: RabbitMq, peer: Peer) -> None:
    queues = {"/queue/one": "news:front", "/queue/many": ["chat:*", "node:7"]}
    peer.send("/queue/one", {"n": 0}, id="m-0")  # nobody is there yet
    with PushServer(stomp_url=url(rabbit), stomp_consume=queues) as push:
        for n in range(1, 300):
            peer.send("/queue/one", {"n": n}, id=f"m-{n}")
        peer.send("/queue/many", "h\u00e9\u2028", channel="chat:x")
        peer.send("/queue/many", b"plain \xc3\xa9", channel="node:7", **TEXT)
        wait_for(lambda: len(kept(push, "news:front")) == 300)
        assert [data["n"] for data in kept(push, "news:front")] == list(range(300))
        wait_for(lambda: kept(push, "chat:x") == ["h\u00e9\u2028"])
        wait_for(lambda: kept(push, "node:7") == ["plain \u00e9"])
        wait_for(lambda: count(push, "stomp_taken") == 302)


def test_what_cannot_be_published_is_parked_and_holds_nobody_up(
    rabbit: RabbitMq, peer: Peer
) -> None:
    queues = {"/queue/poison": ["chat:*"]}
    parked = peer.consume("/queue/poison-parked")
    with PushServer(
        stomp_url=url(rabbit),
        stomp_consume=queues,
        stomp_parked="/queue/poison-parked",
        max_body=2000,
    ) as push:
        bad = [
            (b"{", {"channel": "chat:1"}, "json_malformed"),
            (b"1", {}, "channel_missing"),
            (b"2", {"channel": "user:42"}, "channel_denied"),
            (b"3", {"channel": "chat:*"}, "channel_denied"),
            (b"4", {"channel": "chat:\u00e9\n"}, "channel_malformed"),
            (b"\xff\x00", {"channel": "chat:1", **TEXT}, "text_malformed"),
            (b'"' + b"x" * 3000 + b'"', {"channel": "chat:1"}, "body_too_large"),
            (b"5", {"channel": "chat:1", "id": "same"}, ""),
            (b"6", {"channel": "chat:1", "id": "same"}, "id_conflict"),
            (b"7", {"channel": "chat:1"}, ""),
        ]
        for body, headers, _ in bad:
            peer.send("/queue/poison", body, **headers)
        reasons = [reason for _, _, reason in bad if reason]
        wait_for(lambda: len(parked) == len(reasons))
        assert sorted(frame.headers["push-reason"] for frame in parked) == sorted(reasons)
        assert {frame.body for frame in parked} == {body for body, _, reason in bad if reason}
        assert kept(push, "chat:1") == [5, 7]
        wait_for(lambda: count(push, "stomp_parked") == len(reasons))
        assert push.log.count("bridge.parked") == len(set(reasons))


def test_nothing_is_lost_or_doubled_by_a_crash_of_ours(rabbit: RabbitMq, peer: Peer) -> None:
    with PushServer(
        broker="sqlite", stomp_url=url(rabbit), stomp_consume={"/queue/crash": "news:1"}
    ) as push:
        total = 2000
        for n in range(total):
            peer.send("/queue/crash", n, id=f"c-{n}")
            if n % 700 == 350:
                wait_for(lambda: count(push, "stomp_taken") > 0)
                push.kill()
                push.start()
        wait_for(lambda: total - 1 in kept(push, "news:1"))
        found = kept(push, "news:1")
        assert found == list(range(total))[-len(found) :]
        (page,) = [push.api("history", channel="news:1", limit=1)]
        assert page["offset"] == total  # each exactly once


def test_what_cannot_be_stored_now_waits_at_the_broker(
    rabbit: RabbitMq, peer: Peer, redis: RedisServer
) -> None:
    with PushServer(
        broker=redis.url, stomp_url=url(rabbit), stomp_consume={"/queue/wait": "news:3"}
    ) as push:
        peer.send("/queue/wait", 1, id="w-1")
        wait_for(lambda: kept(push, "news:3") == [1])
        redis.freeze()
        peer.send("/queue/wait", 2, id="w-2")
        wait_for(lambda: "bridge.waiting" in push.log)
        redis.thaw()
        wait_for(lambda: kept(push, "news:3") == [1, 2])


def test_a_topic_is_kept_while_we_are_away(rabbit: RabbitMq, peer: Peer) -> None:
    with PushServer(
        broker="sqlite", stomp_url=url(rabbit), stomp_consume={"/topic/away": "news:4"}
    ) as push:

        def arrived() -> bool:
            peer.send("/topic/away", 1, id="t-1")  # lost until there is a subscription
            return kept(push, "news:4") == [1]

        wait_for(arrived)
        push.terminate()
        peer.send("/topic/away", 2)
        # Its place in the table is not what it is known by.
        push.settings["stomp_consume"] = {"/topic/new": "news:5", **push.settings["stomp_consume"]}
        push.start()
        wait_for(lambda: kept(push, "news:4") == [1, 2])


def test_each_system_has_a_topic_to_itself(rabbit: RabbitMq, peer: Peer) -> None:
    """As a site and its staging site, at one broker."""
    settings: dict[str, Any] = {"stomp_url": url(rabbit), "stomp_consume": {"/topic/all": "news:6"}}
    with PushServer(**settings) as one, PushServer(**settings) as other:
        numbers = count_up()

        def both_arrived() -> bool:
            peer.send("/topic/all", next(numbers))  # lost until there are both subscriptions
            return bool(kept(one, "news:6") and kept(other, "news:6"))

        wait_for(both_arrived)
        for _ in range(4):
            peer.send("/topic/all", "each")
        everything = ["each"] * 4
        wait_for(lambda: kept(one, "news:6")[-4:] == kept(other, "news:6")[-4:] == everything)


def test_publications_go_out_and_do_not_come_back(
    rabbit: RabbitMq, peer: Peer, tmp_path: Path
) -> None:
    got = peer.consume("/queue/out")
    with PushServer(
        stomp_url=url(rabbit),
        stomp_produce={"chat:lobby": "/queue/out", "chat:loop": "/queue/loop"},
        stomp_consume={"/queue/loop": "chat:loop"},
        stomp_state=str(tmp_path / "state"),
    ) as push:
        wait_for(lambda: (tmp_path / "state").exists())
        for n in range(300):
            push.api("publish", channel="chat:lobby", data={"n": n})
        wait_for(lambda: len(got) >= 300)
        assert [json.loads(frame.body)["n"] for frame in got] == list(range(300))
        assert got[0].headers["channel"] == "chat:lobby"
        assert got[299].headers["offset"] == "300"
        push.api("publish", channel="chat:loop", data="round", id="loop-1")
        wait_for(lambda: count(push, "stomp_looped") == 1)
        assert kept(push, "chat:loop") == ["round"]


def test_nothing_is_lost_when_either_side_dies(rabbit: RabbitMq, tmp_path: Path) -> None:
    peer = Peer(rabbit.port)
    with PushServer(
        broker="sqlite",
        stomp_url=url(rabbit),
        stomp_consume={"/queue/dies": "news:2"},
        stomp_produce={"chat:out": "/queue/steady"},
        stomp_state=str(tmp_path / "state"),
    ) as push:
        wait_for(lambda: (tmp_path / "state").exists())
        for n in range(100):
            peer.send("/queue/dies", n, id=f"d-{n}")
            push.api("publish", channel="chat:out", data=n)
            if n == 30:
                push.kill()
                push.start()
            if n == 50:
                peer.send("/queue/dies", b"{")
            if n == 60:
                peer.settle()
                wait_for(lambda: count(push, "stomp_parked") == 1)
                rabbit.kill()
                wait_for(lambda: "bridge.down" in push.log)
                rabbit.start()
                peer = Peer(rabbit.port)
        wait_for(lambda: 99 in kept(push, "news:2"))
        assert kept(push, "news:2") == list(range(100))
        got = peer.consume("/queue/steady")
        wait_for(lambda: got and json.loads(got[-1].body) == 99)
        # Some may be there twice, with the same id; none is missing, and none overtakes.
        offsets = {frame.headers["id"]: int(frame.headers["offset"]) for frame in got}
        assert sorted(offsets.values()) == list(range(1, 101))
        assert list(offsets.values()) == sorted(offsets.values())
        peer.consume("/queue/push-server.parked")
        wait_for(lambda: got[-1].headers.get("push-reason") == "json_malformed")
        assert "guest" not in push.log
    peer.close()


def test_a_login_that_is_refused_harms_nobody(rabbit: RabbitMq) -> None:
    wrong = url(rabbit).replace("guest:guest", "guest:wr0ng-secret")
    with PushServer(stomp_url=wrong, stomp_consume={"/queue/x": "news:5"}) as push:
        wait_for(lambda: count(push, "stomp_failed") >= 2)
        assert push.api("publish", channel="news:5", data=1)["offset"] == 1
        assert push.log.count("bridge.down") == 1
        assert "wr0ng-secret" not in push.log


def test_a_silent_broker_is_noticed(rabbit: RabbitMq, monkeypatch: pytest.MonkeyPatch) -> None:
    from push_server.bridge_settings import stomp_url
    from push_server.bridges import stomp as bridge

    monkeypatch.setattr(bridge, "HEARTBEAT_MS", 400)
    address = stomp_url("stomp_url", url(rabbit))
    assert address is not None
    conversation = bridge.Conversation(address)
    rabbit.freeze()
    try:
        with pytest.raises(bridge.Lost):
            wait_for(lambda: conversation.take(1), 10)
    finally:
        rabbit.thaw()
        conversation.close()


def test_without_the_package_the_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stomp", None)
    for module in ("stomp", "stomp_in", "stomp_out"):
        monkeypatch.delitem(sys.modules, f"push_server.bridges.{module}", raising=False)
    settings = load_settings(
        None,
        {
            "PUSH_SERVER_STOMP_URL": "stomp://127.0.0.1",
            "PUSH_SERVER_STOMP_CONSUME": '{"/queue/x" = "news:5"}',
        },
        serving=False,
    )
    with pytest.raises(SettingsError, match=r"push-server\[stomp"):
        make_bridges(SimpleNamespace(settings=settings))  # type: ignore[arg-type]


def test_the_place_to_come_back_to_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.write_text("1~abcdef.1.1.0", "ascii")
    outlet = StompOutlet(
        StompAddress("stomp://h", "h", 1, "/"), {}, state, "us",
        SimpleNamespace(), SimpleNamespace(), Counter(),  # type: ignore[arg-type]
    )  # fmt: skip
    synced: list[tuple[str, str]] = []

    def fsync(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((Path(name).read_text("ascii"), state.read_text("ascii")))

    monkeypatch.setattr(os, "fsync", fsync)
    outlet._keep("1~abcdef.1.2.0")
    assert synced == [("1~abcdef.1.2.0", "1~abcdef.1.1.0")]
    assert state.read_text("ascii") == "1~abcdef.1.2.0"


def test_a_broker_that_goes_at_once_leaves_no_subscriber(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        """A conversation that has ended before anything could be sent."""

        def check(self) -> None:
            raise Lost("disconnected")

    stage = Stage(monkeypatch, Namespaces())
    outlet = StompOutlet(
        StompAddress("stomp://h", "h", 1, "/"), {"news:1": "/topic/news"}, tmp_path / "state",
        "us", stage.hub, Crossing(stage.loop), Counter(),
    )  # fmt: skip
    with pytest.raises(Lost):
        outlet._talk(Gone())  # type: ignore[arg-type]
    stage.turn()  # only now: the loop had something else to do
    assert stage.hub.stats()["connections"] == 0
    assert stage.hub.stats()["channels"] == 0
    assert outlet._lock is not None
    outlet._lock.close()
    stage.close()
