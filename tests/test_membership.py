"""A subscriber that comes into more channels, and leaves some, while everything goes on."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from stage import NAMESPACES, FakeConnection, Stage

from push_server.errors import Unavailable
from push_server.history import EPOCH
from push_server.positions import Position, channel_key, parse_cursor


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(monkeypatch, NAMESPACES)
    yield stage
    stage.close()


class Enter:
    """A call of `Hub.subscribe`, under way or done."""

    def __init__(
        self, stage: Stage, connection: FakeConnection, *channels: str, since: str | None = None
    ) -> None:
        self.answers: list[int] = []
        """How much had been written when each answer was due."""
        self._stage = stage
        positions = None if since is None else parse_cursor(since)
        coroutine = stage.hub.subscribe(
            connection.subscriber,
            "",
            channels,
            positions,
            lambda: self.answers.append(len(connection.values)),
        )
        self.task = stage.loop.create_task(coroutine)
        stage.tasks.append(self.task)
        stage.turn()

    def finish(self) -> None:
        """Let the broker answer."""
        self._stage.broker.gate.set()
        self._stage.turn()
        assert self.task.done()


def enter(stage: Stage, connection: FakeConnection, *channels: str, **options: Any) -> Enter:
    """Begin, and stop where the broker is asked."""
    stage.broker.gate.clear()
    return Enter(stage, connection, *channels, **options)


def cursor_of(connection: FakeConnection) -> dict[str, Position]:
    return dict(parse_cursor(connection.subscriber.cursor))


def offsets(values: Sequence[dict[str, Any]], channel: str) -> list[int]:
    return [value["offset"] for value in values if value.get("channel") == channel]


def test_what_is_delivered_meanwhile_is_told_once_and_in_order(stage: Stage) -> None:
    alice = stage.attach("alice", "room")
    stage.publish("hall", b"1")
    stage.publish("room", b"1")
    entering = enter(stage, alice, "hall")
    stage.publish("room", b"2")
    stage.publish("hall", b"2")
    stage.publish("room", b"3")
    assert alice.data == [1]  # held, in the channel that was there before, too
    assert stage.hub._rooms.of("hall") == (alice.subscriber,)
    before = len(alice.values)
    entering.finish()
    assert entering.answers == [before]
    assert offsets(alice.values, "room") == [1, 2, 3]
    # The head was read after the second publication, which is therefore the past.
    assert offsets(alice.values, "hall") in ([], [2])
    stage.publish("hall", b"3")
    stage.publish("room", b"4")
    assert offsets(alice.values, "room") == [1, 2, 3, 4]
    assert offsets(alice.values, "hall")[-1] == 3
    places = cursor_of(alice)
    assert (places[channel_key("room")].offset, places[channel_key("hall")].offset) == (4, 3)


def test_from_a_cursor_nothing_is_missing_and_nothing_comes_twice(stage: Stage) -> None:
    since = stage.attach("bob", "hall").values[0]["cursor"]
    for number in range(3):
        stage.publish("hall", b"%d" % number)
    alice = stage.attach("alice", "room")
    entering = enter(stage, alice, "hall", "other", since=since)
    stage.publish("hall", b"3")
    stage.publish("room", b"0")
    entering.finish()
    stage.publish("hall", b"4")
    assert offsets(alice.values, "hall") == [1, 2, 3, 4, 5]
    assert offsets(alice.values, "room") == [1]
    said = {value["type"]: value for value in alice.values if "type" in value}
    assert said["recovered"]["channels"] == ["hall"]
    assert (said["reset"]["channels"], said["reset"]["reason"]) == (["other"], "unknown")


def test_while_it_enters_its_cursor_speaks_of_what_it_knows(stage: Stage) -> None:
    """Neither an empty place nor one that hides what is still to come."""
    alice = stage.attach("alice", "room")
    since = stage.attach("bob", "hall").values[0]["cursor"]
    stage.publish("hall", b"1")
    entering = enter(stage, alice, "hall", "other", since=since)
    assert cursor_of(alice)[channel_key("hall")].offset == 0
    assert channel_key("other") not in cursor_of(alice)
    stage.hub.announce("room", {"type": "join", "channels": ["room"], "users": []})
    assert alice.words[-1] == "join"  # it is as live as before
    assert "~~" not in alice.values[-1]["cursor"] and alice.values[-1]["cursor"][-1] != "~"
    entering.finish()
    assert cursor_of(alice)[channel_key("hall")].offset == 1


def test_entering_in_the_middle_of_a_replay(stage: Stage) -> None:
    since = stage.attach("bob", "big:room").values[0]["cursor"]
    for _ in range(20):
        stage.publish("big:room", b'"%s"' % (b"x" * 20_000))
    slow = FakeConnection(stage.hub)
    slow.blocked = True
    alice = stage.attach(
        "alice", "big:room", connection=slow, since=since, channels=["big:room"]
    )
    entering = enter(stage, alice, "hall", "other")
    slow.unblock()
    assert slow.subscriber.held is not None  # it must not go live before it is in
    stage.publish("hall", b"1")
    entering.finish()
    stage.publish("hall", b"2")
    assert offsets(alice.values, "big:room") == list(range(1, 21))
    assert offsets(alice.values, "hall") in ([1, 2], [2])
    for value in alice.values:
        if "cursor" in value:
            assert "~~" not in value["cursor"] and value["cursor"][-1] != "~"
    assert slow.subscriber.held is None


@pytest.mark.parametrize("failure", [Unavailable("away", "x"), KeyError("odd")])
def test_when_the_broker_is_away_nothing_has_changed(stage: Stage, failure: Exception) -> None:
    alice = stage.attach("alice", "room")
    stage.broker.failure = failure
    entering = Enter(stage, alice, "hall")
    assert entering.task.exception() is failure
    stage.broker.failure = None
    assert entering.answers == []
    assert stage.hub._rooms.of("hall") == ()
    assert list(alice.subscriber.channels) == ["user:alice", "room"]
    stage.publish("hall", b"1")
    stage.publish("room", b"2")
    assert alice.data == [2]


def test_who_leaves_while_entering_has_left_everything(stage: Stage) -> None:
    alice = stage.attach("alice", "room")
    entering = enter(stage, alice, "hall")
    alice.close("gone")
    entering.finish()
    assert entering.answers == []
    stage.check_empty()


def test_who_is_sent_away_while_entering_is_told(stage: Stage) -> None:
    alice = stage.attach("alice", "room")
    entering = enter(stage, alice, "hall")
    stage.publish("room", b"1")
    stage.hub.drain(0)
    entering.finish()
    assert alice.words[-1] == "reconnect"
    # It comes back with a cursor that does not hide what was held.
    assert parse_cursor(alice.values[-1]["cursor"])[channel_key("room")].offset == 0


def test_a_log_lost_while_entering_sends_it_back_to_its_cursor(stage: Stage) -> None:
    alice = stage.attach("alice", "room")
    entering = enter(stage, alice, "hall")
    stage.hub.restarted("room", EPOCH, Position(9, 1, "AAAAAA"))
    assert alice.closed() == "restarted"
    entering.finish()
    stage.check_empty()


def test_leaving(stage: Stage) -> None:
    alice, bob = stage.attach("alice", "room", "hall"), stage.attach("bob", "hall")
    stage.publish("hall", b"1")
    stage.place("hall", b"2")
    stage.hub.unsubscribe(alice.subscriber, ["hall"])
    stage.turn()
    stage.publish("hall", b"3")
    stage.publish("room", b"4")
    assert (alice.data, bob.data) == ([1, 4], [1, 2, 3])
    assert channel_key("hall") not in parse_cursor(alice.values[-1]["cursor"])
    alice.close("gone")
    bob.close("gone")
    stage.check_empty()


def test_leaving_in_the_middle_of_a_replay(stage: Stage) -> None:
    since = stage.attach("bob", "big:room", "hall").values[0]["cursor"]
    for _ in range(20):
        stage.publish("big:room", b'"%s"' % (b"x" * 20_000))
    stage.publish("hall", b"1")
    slow = FakeConnection(stage.hub)
    slow.blocked = True
    alice = stage.attach(
        "alice", connection=slow, since=since, channels=["big:room", "hall"]
    )
    told = len(alice.data)
    stage.hub.unsubscribe(alice.subscriber, ["big:room"])
    slow.unblock()
    assert alice.data[told:] == [1]
    stage.publish("hall", b"2")
    assert alice.data[-1] == 2


def test_a_newer_token_moves_the_end(stage: Stage) -> None:
    now = stage.clock.time()
    alice = stage.attach("alice", "room", expires=now + 100, token_id="old")
    stage.pass_time(50)
    stage.hub.renew(alice.subscriber, "new", now + 50, now + 200)
    stage.pass_time(125)
    assert not alice.closed() and alice.words.count("expiring") == 1
    assert (alice.subscriber.token_id, alice.subscriber.issued) == ("new", now + 50)
    stage.pass_time(35)
    assert alice.values[-1]["reason"] == "expired"
