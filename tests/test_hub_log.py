"""What the hub does when the broker says that a log is lost, out of reach, or back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from stage import NAMESPACES, FakeConnection, Stage

from push_server.disruptions import DEGRADED_SECONDS
from push_server.history import EPOCH
from push_server.pacing import AT_ONCE, PER_SECOND
from push_server.positions import Position, channel_key, parse_cursor


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(monkeypatch, NAMESPACES)
    yield stage
    stage.close()


def lose(stage: Stage, channel: str = "room", offset: int = 3) -> Position:
    """The channel's log is another one, and stands here."""
    stage.broker.epoch += 1
    stage.broker._logs.clear()
    stage.broker._keeping.clear()
    head = Position(stage.broker.epoch, offset, "AAAAAA")
    stage.hub.restarted(channel, EPOCH, head)
    return head


def test_a_stream_is_told_which_channel_begins_anew(stage: Stage) -> None:
    alice, bob = stage.attach("alice", "room", "hall"), stage.attach("bob", "hall")
    stage.publish("hall", b"1")
    stage.publish("room", b"2")
    told = len(bob.writes)
    head = lose(stage)
    reset = alice.values[-1]
    assert (reset["type"], reset["channels"], reset["reason"]) == ("reset", ["room"], EPOCH)
    assert parse_cursor(reset["cursor"])[channel_key("room")] == head
    assert parse_cursor(reset["cursor"])[channel_key("hall")].offset == 1
    assert len(bob.writes) == told
    assert stage.hub.counts[f"resets.{EPOCH}"] == 1


@pytest.mark.parametrize("last", ["room", "hall"])
def test_what_comes_next_speaks_of_the_new_place(stage: Stage, last: str) -> None:
    alice = stage.attach("alice", "room", "hall")
    stage.publish("room", b"1")
    stage.publish(last, b"2")
    head = lose(stage)
    for channel in ("hall", "room"):
        stage.publish(channel, b"3")
        cursor = parse_cursor(alice.values[-1]["cursor"])
        expected = head.epoch if channel == "hall" else stage.broker.epoch
        assert cursor[channel_key("room")].epoch == expected
    assert cursor[channel_key("room")].offset == 1


def test_what_was_delivered_before_is_told_before(stage: Stage) -> None:
    alice = stage.attach("alice", "room")
    stage.place("room", b"1")
    lose(stage)
    assert [value.get("type", "data") for value in alice.values] == ["hello", "data", "reset"]


def test_a_waiting_poll_is_answered(stage: Stage) -> None:
    since = stage.attach("alice", "room").values[0]["cursor"]
    poll = stage.attach("bob", "room", transport="poll", since=since, channels=["room"])
    head = lose(stage)
    answer = json.loads(poll.body)
    assert [control["type"] for control in answer["control"]][-1] == "reset"
    assert parse_cursor(answer["cursor"])[channel_key("room")] == head


def test_one_that_is_still_told_the_old_log_has_to_come_back(stage: Stage) -> None:
    since = stage.attach("alice", "big:room").values[0]["cursor"]
    for _ in range(20):
        stage.publish("big:room", b'"%s"' % (b"x" * 20_000))
    slow = FakeConnection(stage.hub)
    slow.blocked = True
    stage.attach("bob", "big:room", connection=slow, since=since, channels=["big:room"])
    told = len(slow.writes)
    lose(stage, "big:room")
    assert slow.closed() == "restarted"
    assert len(slow.writes) == told


def test_one_whose_history_is_being_read_is_left_to_its_answer(stage: Stage) -> None:
    stage.broker.gate.clear()
    alice = stage.attach("alice", "room")
    lose(stage)
    assert not alice.writes and not alice.closed()
    stage.broker.gate.set()
    stage.turn()
    assert alice.words == ["hello"]


def test_one_connection_that_fails_does_not_hurt_the_others(stage: Stage) -> None:
    crowd = [stage.attach(f"u{n}", "room") for n in range(3)]
    crowd[1].breaks = True
    lose(stage)
    stage.hub.degraded(True)
    assert [connection.closed() for connection in crowd] == ["", "failed", ""]
    assert crowd[2].words == ["hello", "reset", "degraded"]


def test_streams_are_told_when_the_log_is_out_of_reach_and_back(stage: Stage) -> None:
    stream, events = stage.attach("alice", "room"), stage.attach("bob", "room", transport="sse")
    poll = stage.attach("carol", "room", transport="poll", since=stream.values[0]["cursor"])
    told = len(poll.writes)
    stage.hub.degraded(True)
    assert [value.get("degraded") for value in stream.values] == [None, True]
    assert b'{"type":"degraded","degraded":true}' in events.body
    assert stage.hub.stats()["degraded"] == 1
    stage.hub.degraded(False)
    assert [value.get("degraded") for value in stream.values] == [None, True, False]
    assert len(poll.writes) == told, "a poll has nothing to gain from it"


def test_a_stream_does_not_outlive_the_log_by_more_than_five_minutes(stage: Stage) -> None:
    # A logout that cannot reach this node must not leave the stream open for ever.
    stage.hub.degraded(True)
    early = stage.attach("alice", "room")
    stage.pass_time(200)
    stage.hub.degraded(True)  # said again; it is still the same outage
    stage.pass_time(DEGRADED_SECONDS - 201)
    assert not early.closed()
    stage.pass_time(2)
    assert early.values[-1]["reason"] == "degraded"
    assert early.closed()
    stage.hub.degraded(False)
    late = stage.attach("bob", "room")
    stage.pass_time(DEGRADED_SECONDS + 1)
    assert not late.closed()


def test_the_broker_hears_of_the_first_and_the_last_subscriber(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(stage.broker, "join", lambda name: heard.append("+" + name))
    monkeypatch.setattr(stage.broker, "leave", lambda name: heard.append("-" + name))
    first, second = stage.attach("a", "room"), stage.attach("b", "room")
    first.close("gone")
    assert heard == ["+user:a", "+room", "+user:b", "-user:a"]
    second.close("gone")
    assert heard[4:] == ["-user:b", "-room"]


# A crowd that loses its log does not fall upon the CMS.


def delay_of(value: dict[str, Any]) -> int:
    assert value["type"] == "reset"
    return int(value.get("delay", 0))


def test_a_few_are_told_to_load_anew_at_once(stage: Stage) -> None:
    crowd = [stage.attach(f"u{number}", "room") for number in range(AT_ONCE)]
    lose(stage)
    assert all("delay" not in each.values[-1] for each in crowd)


def test_a_crowd_is_told_to_load_anew_one_after_another(stage: Stage) -> None:
    crowd = [stage.attach(f"u{number}", "room", "hall") for number in range(350)]
    lose(stage, "room")
    delays = [delay_of(each.values[-1]) for each in crowd]
    assert delays == sorted(delays) and delays[AT_ONCE] == 0
    assert abs(delays[-1] - 1000 * (350 - AT_ONCE) // PER_SECOND) <= 20
    # Who loses a second channel loads once, for both; delivery goes on at once.
    stage.clock.now += 1
    lose(stage, "hall")
    again = [delay_of(each.values[-1]) for each in crowd[-10:]]
    assert again == [delay - 1000 for delay in delays[-10:]]
    stage.publish("room", b"1")
    stage.hub._rooms.fan_out()
    assert all(each.data == [1] for each in crowd)


def test_those_who_come_back_with_a_lost_cursor_are_paced_too(stage: Stage) -> None:
    since = stage.attach("alice", "room").values[0]["cursor"]
    lose(stage)
    told = [stage.attach(f"u{n}", "room", since=since).values for n in range(AT_ONCE + 20)]
    delays = [delay_of(value) for values in told for value in values if value["type"] == "reset"]
    assert len(delays) >= AT_ONCE + 20 and delays[0] == 0 and 150 < max(delays) < 800
