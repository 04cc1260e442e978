"""The hub: who gets what, when, and what is left behind."""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stage import NAMESPACES, FakeConnection, Stage

from push_server import log
from push_server.errors import Unavailable
from push_server.lifetimes import HELD_LIMIT, WARN_SECONDS
from push_server.positions import channel_key, parse_cursor
from push_server.revocations import Revocation
from push_server.rooms import ANSWER_SECONDS, LARGE_ROOM
from push_server.transports import TRANSPORTS
from push_server.wheel import TICK

MakeStage = Callable[..., Stage]


@pytest.fixture
def make_stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeStage]:
    stages: list[Stage] = []

    def make(**limits: Any) -> Stage:
        stages.append(Stage(monkeypatch, NAMESPACES, **limits))
        return stages[-1]

    yield make
    for stage in stages:
        if not stage.loop.is_closed():
            stage.close()


@pytest.fixture
def stage(make_stage: MakeStage) -> Stage:
    return make_stage()


def poll_answer(connection: FakeConnection) -> Any:
    return json.loads(connection.body)


# Fan-out


def test_a_publication_reaches_its_channel_and_no_other(stage: Stage) -> None:
    alice, bob = stage.attach("alice", "room"), stage.attach("bob", "hall")
    stage.publish("room", b"1")
    stage.publish("hall", b"2")
    stage.publish("nobody", b"3")
    assert (alice.data, bob.data) == ([1], [2])


def test_what_is_published_in_one_turn_leaves_in_one_write(stage: Stage) -> None:
    alice = stage.attach("alice", "a", "b")
    for channel in ("a", "b", "a"):
        stage.place(channel, b"1", b"2")
    stage.turn()
    assert len(alice.writes) == 2, "hello, and one write"
    assert len(alice.data) == 6
    assert [v["offset"] for v in alice.values if v.get("channel") == "a"] == [1, 2, 3, 4]


def test_each_transport_encodes_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("sse", "stream"):
        kind = type(TRANSPORTS[name])
        encode = kind.encode

        def counted(self: Any, publications: Any, encode: Any = encode) -> Any:
            calls.append(self.name)
            return encode(self, publications)

        monkeypatch.setattr(kind, "encode", counted)
    crowd = [
        stage.attach(f"u{n}", "room", transport="sse" if n % 2 else "stream") for n in range(10)
    ]
    stage.publish("room", b"1", b"2")
    assert sorted(calls) == ["sse", "stream"]
    assert all(len(connection.writes) == 2 for connection in crowd)
    stage.publish("room", b"3")
    assert sorted(calls) == ["sse", "sse", "stream", "stream"], "nothing of the turn before"
    assert crowd[0].data == [1, 2, 3]


def test_what_one_page_excludes_is_encoded_once_for_the_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, sizes = type(TRANSPORTS["stream"]).encode, []

    def counted(self: Any, publications: Any) -> Any:
        sizes.append(len(publications))
        return encode(self, publications)

    monkeypatch.setattr(type(TRANSPORTS["stream"]), "encode", counted)
    crowd = [stage.attach(f"u{n}", "room", instance=f"page{n}") for n in range(10)]
    stage.place("room", b"1")
    stage.place("room", b"2", exclude="page7")
    stage.turn()
    assert sorted(sizes) == [1, 2]
    assert [connection.data for connection in crowd] == [[1, 2]] * 7 + [[1]] + [[1, 2]] * 2


def test_a_page_does_not_get_back_what_it_excludes(stage: Stage) -> None:
    author = stage.attach("alice", "room", instance="me")
    other = stage.attach("alice", "room", instance="other")
    plain = stage.attach("bob", "room")
    stage.place("room", b"1")
    stage.place("room", b"2", exclude="me")
    stage.turn()
    stage.publish("room", b"3", exclude="me")
    assert author.data == [1]
    assert other.data == plain.data == [1, 2, 3]
    # The place of what is left out counts as told: a resume does not bring it either.
    stage.publish("room", b"4")
    back = stage.attach("alice", "room", since=author.values[-1]["cursor"], instance="me")
    assert back.words == ["hello", "recovered"] and back.data == []


def test_a_poll_is_not_answered_by_what_it_excludes(stage: Stage) -> None:
    cursor = stage.attach("w", "room").values[0]["cursor"]
    poll = stage.attach("w", "room", transport="poll", since=cursor, instance="me")
    stage.publish("room", b"1", exclude="me")
    assert poll.writes == []
    # Behind a stream in the same room, of the same publication.
    stage.publish("room", b"2", exclude="other")
    answer = poll_answer(poll)
    assert [each["data"] for each in answer["publications"]] == [2]
    back = stage.attach("w", "room", transport="poll", since=answer["cursor"], timeout=0.0)
    assert poll_answer(back)["publications"] == []


def test_a_large_fan_out_lets_the_answer_go_first(stage: Stage) -> None:
    crowd = [stage.attach(f"u{n}", "room") for n in range(LARGE_ROOM)]
    stage.publish("room", b"1")
    assert crowd[0].data == [], "a few turns of the loop, for the publisher"
    stage.loop.turn(ANSWER_SECONDS)
    assert all(connection.data == [1] for connection in crowd)


def test_the_cursor_beside_a_publication_speaks_of_all_channels(stage: Stage) -> None:
    alice = stage.attach("alice", "a", "b", "c")
    for channel in ("a", "b", "c", "b"):
        stage.publish(channel, b"1")
    cursor = alice.values[-1]["cursor"]
    stage.publish("b", b"2")
    back = stage.attach("alice", "a", "b", "c", since=cursor)
    assert back.words == ["hello", "recovered"]
    assert back.data == [2]


@pytest.mark.parametrize("channels", [["room"], ["room", "hall"]])
@pytest.mark.parametrize("transport", ["stream", "poll"])
def test_a_connection_that_fails_does_not_hurt_the_others(
    stage: Stage, channels: list[str], transport: str
) -> None:
    start = stage.attach("w", *channels).values[0]["cursor"]
    crowd = [stage.attach("w", *channels, transport=transport, since=start) for _ in range(3)]
    crowd[1].breaks = True
    for channel in channels:
        stage.place(channel, b"1")
    stage.turn()
    assert crowd[1].closed() == "failed"
    for survivor in (crowd[0], crowd[2]):
        if transport == "poll":
            assert len(poll_answer(survivor)["publications"]) == len(channels)
        else:
            assert survivor.data == [1] * len(channels)
    assert stage.hub.counts["failed"] == 1


def test_a_publication_that_cannot_be_encoded_closes_that_transport_only(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [stage.attach("s1", "room"), stage.attach("s2", "room")]
    events = [stage.attach("e1", "room", transport="sse"), stage.attach("s3", "hall")]

    def poison(*_: Any) -> Any:
        raise ArithmeticError("a fault of the test")

    with monkeypatch.context() as patch:
        patch.setattr(type(TRANSPORTS["sse"]), "encode", poison)
        stage.place("room", b"1")
        stage.place("hall", b"2")
        stage.turn()
    assert events[0].closed() == "failed"
    assert [stream.data for stream in streams] == [[1], [1]]
    assert events[1].data == [2], "another channel of the same turn"


def test_a_broadcast_to_all_channels_of_a_client_goes_as_it_is_taken(
    make_stage: MakeStage,
) -> None:
    # All at once it would be megabytes for each, made by copying them again and again.
    stage = make_stage(queue_bytes=100_000)
    channels = [f"big:{n}" for n in range(20)]
    alice = stage.attach("alice", *channels)
    cursor = alice.values[0]["cursor"]
    poll = stage.attach("alice", *channels, transport="poll", since=cursor)
    alice.blocked = True
    for channel in channels:
        stage.place(channel, *big(1))
    stage.turn()
    assert 100_000 < len(alice.body) < 150_000 and 100_000 < len(poll.body) < 150_000
    stage.publish("big:19", b"1")
    alice.unblock()
    assert len(alice.data) == 21 and alice.data[-1] == 1
    stage.publish("big:0", b"2")
    assert alice.data[-1] == 2, "live"
    # What the poll was not told comes with the next one.
    told = 0
    while answer := poll_answer(poll):
        told += len(answer["publications"])
        if told == 22:
            break
        poll = stage.attach("alice", *channels, transport="poll", since=answer["cursor"])


# Attach: hold, merge, replay


def test_what_is_published_while_the_history_is_read_comes_once_and_in_order(
    stage: Stage,
) -> None:
    first = stage.attach("alice", "room")
    stage.publish("room", b"1")
    cursor = first.values[-1]["cursor"]
    stage.publish("room", b"2")
    stage.broker.gate.clear()
    back = stage.attach("alice", "room", since=cursor)
    stage.publish("room", b"3", b"4")
    stage.publish("room", b"5")
    assert back.writes == [], "nothing before hello"
    stage.broker.gate.set()
    stage.turn()
    assert back.words == ["hello", "recovered"]
    assert back.data == [2, 3, 4, 5]
    stage.publish("room", b"6")
    assert back.data == [2, 3, 4, 5, 6]


def test_what_is_delivered_in_the_turn_of_the_read_is_not_told_twice(stage: Stage) -> None:
    # The history has it already, and the fan-out has not happened yet.
    cursor = stage.attach("alice", "room").values[0]["cursor"]
    request = stage.request("alice", "room", since=parse_cursor(cursor))
    connection = FakeConnection(stage.hub)

    async def together() -> None:
        stage.place("room", b"1")
        await stage.hub.attach(request, connection)

    stage.run(together())
    stage.turn()
    assert connection.data == [1]


def test_every_channel_is_recovered_or_reset(stage: Stage) -> None:
    cursor = stage.attach("alice", "a").values[0]["cursor"]
    back = stage.attach("alice", "a", "new", since=cursor)
    assert back.words == ["hello", "recovered", "reset"]
    hello, recovered, reset = back.values
    assert recovered["channels"] == ["user:alice", "a"]
    assert (reset["channels"], reset["reason"]) == (["new"], "unknown")
    # Cut off between the two, the client comes back with the cursor it had, and is told again.
    assert hello["cursor"] == recovered["cursor"] == cursor
    assert set(parse_cursor(reset["cursor"])) == {
        channel_key(channel) for channel in ("user:alice", "a", "new")
    }
    assert stage.hub.counts["resets.unknown"] == 1


def test_a_reset_that_was_not_heard_is_said_again(stage: Stage) -> None:
    cursor = stage.attach("alice", "a").values[0]["cursor"]
    other_epoch = {
        key: position._replace(epoch=1) for key, position in parse_cursor(cursor).items()
    }
    request = stage.request("alice", "a", since=other_epoch)
    first = FakeConnection(stage.hub)
    stage.run(stage.hub.attach(request, first))
    hello = first.values[0]
    again = stage.attach("alice", "a", since=hello["cursor"])
    assert again.words == ["hello", "reset"]
    assert again.values[1]["reason"] == "epoch"


def big(count: int) -> list[bytes]:
    return [b'"%b"' % (b"x" * 30_000)] * count


def test_a_replay_waits_for_the_client(stage: Stage) -> None:
    cursor = stage.attach("alice", "big:a").values[0]["cursor"]
    stage.publish("big:a", *big(10))
    back = FakeConnection(stage.hub)
    back.blocked = True
    stage.attach("alice", "big:a", since=cursor, connection=back)
    assert back.data == [], "hello has not been taken yet"
    stage.publish("big:a", b"1")
    back.unblock()
    assert len(back.data) == 11 and back.data[-1] == 1
    stage.publish("big:a", b"2")
    assert back.data[-2:] == [1, 2], "live"


def test_nothing_is_encoded_for_a_client_that_left_during_its_replay(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = stage.attach("alice", "big:a").values[0]["cursor"]
    stage.publish("big:a", *big(50))
    back = FakeConnection(stage.hub)
    monkeypatch.setattr(back, "write", lambda data: back.close("gone"))
    encoded: list[int] = []
    encode = TRANSPORTS["stream"].encode

    def counted(_: object, publications: Any) -> Any:
        encoded.append(len(publications))
        return encode(publications)

    monkeypatch.setattr(type(TRANSPORTS["stream"]), "encode", counted)
    stage.attach("alice", "big:a", since=cursor, connection=back)
    assert encoded == []


def test_a_reader_too_far_behind_its_replay_is_cut(stage: Stage) -> None:
    cursor = stage.attach("alice", "big:a").values[0]["cursor"]
    stage.publish("big:a", *big(3))
    back = FakeConnection(stage.hub)
    back.blocked = True
    stage.attach("alice", "big:a", since=cursor, connection=back)
    stage.publish("big:a", *[b"1"] * HELD_LIMIT)
    stage.pass_time(30)
    assert back.closed() == "slow"


@pytest.mark.parametrize("failure", [Unavailable("away", "x", retry_after=3), KeyError("odd")])
def test_a_read_that_fails_leaves_nobody_behind(stage: Stage, failure: Exception) -> None:
    stage.broker.failure = failure
    alice = stage.attach("alice", "room", address="192.0.2.1")
    (task,) = stage.tasks
    assert alice.closed()
    if isinstance(failure, Unavailable):
        assert task.exception() is None
        assert alice.writes[0].startswith(b"HTTP/1.1 503 ") and b"Retry-After: 3" in alice.writes[0]
    else:
        assert task.exception() is failure
        assert stage.hub.counts["failed"] == 1
    stage.check_empty()


@pytest.mark.parametrize("transport", ["stream", "sse", "poll"])
@pytest.mark.parametrize("cause", ["drain", "revoke", "replaced", "gone"])
def test_one_that_has_to_go_before_it_began_says_nothing(
    make_stage: MakeStage, transport: str, cause: str
) -> None:
    # It knows no cursor yet, and must not hand out one that stands nowhere.
    stage = make_stage(max_per_user=1)
    stage.broker.gate.clear()
    alice = stage.attach("alice", "room", transport=transport)
    assert not alice.closed()
    if cause == "drain":
        stage.hub.drain(1)
    elif cause == "revoke":
        stage.run(stage.broker.revoke(Revocation("sid", "session-alice", 2**53, 2**53)))
    elif cause == "replaced":
        stage.attach("alice").close("gone")
    else:
        alice.close("gone")
    stage.broker.gate.set()
    stage.turn()
    assert alice.closed() and alice.writes == []
    stage.check_empty()


def test_one_whose_client_ended_before_it_began_is_told_nothing_more(stage: Stage) -> None:
    stage.broker.gate.clear()
    alice = stage.attach("alice", "room")
    alice.blocked = True  # what came before, an answered handshake, is on its way still
    stage.hub.part_with(alice, "left")
    stage.broker.gate.set()
    stage.turn()
    assert alice.writes == [] and not alice.closed()
    alice.unblock()
    assert alice.closed() == "done"
    stage.check_empty()


# Polls


def test_a_poll_without_a_cursor_is_answered_at_once(stage: Stage) -> None:
    poll = stage.attach("alice", "room", transport="poll")
    answer = poll_answer(poll)
    assert answer["publications"] == []
    assert [message["type"] for message in answer["control"]] == ["hello"]
    assert poll.closed() == "done"
    stage.check_empty()


def test_a_poll_is_answered_by_what_is_published_and_given_back(stage: Stage) -> None:
    cursor = stage.attach("w", "a", "b").values[0]["cursor"]
    connection = FakeConnection(stage.hub, keeps_alive=True)
    stage.attach(
        "w", "a", "b", transport="poll", since=cursor, keep_alive=True, connection=connection
    )
    assert connection.writes == []
    stage.place("a", b"1")
    stage.place("b", b"2")
    stage.turn()
    (answer,) = connection.writes
    assert b"Connection: close" not in answer
    assert [p["data"] for p in poll_answer(connection)["publications"]] == [1, 2]
    assert connection.released() and not connection.closed()
    stage.publish("a", b"3")
    assert len(connection.writes) == 1, "it is somebody else's now"


def test_a_poll_answer_that_does_not_leave_at_once_is_followed_by_the_next_request(
    stage: Stage,
) -> None:
    cursor = stage.attach("w", "a").values[0]["cursor"]
    connection = FakeConnection(stage.hub, keeps_alive=True)
    stage.attach("w", "a", transport="poll", since=cursor, keep_alive=True, connection=connection)
    connection.blocked = True
    stage.publish("a", b"1")
    stage.publish("a", b"2")
    assert len(connection.writes) == 1 and not connection.released()
    stage.pass_time(29)
    connection.unblock()
    assert connection.released() and not connection.closed()
    assert len(connection.writes) == 1
    stage.hub.drain(0)
    stage.check_empty()


def test_a_poll_answer_that_nobody_takes_is_dropped_in_the_end(stage: Stage) -> None:
    cursor = stage.attach("w", "a").values[0]["cursor"]
    connection = FakeConnection(stage.hub, keeps_alive=True)
    stage.attach("w", "a", transport="poll", since=cursor, keep_alive=True, connection=connection)
    connection.stick()
    stage.publish("a", b"1")
    stage.pass_time(31)
    assert connection.closed() == "stalled"


def test_a_poll_answer_may_take_its_time_while_any_of_it_is_taken(stage: Stage) -> None:
    cursor = stage.attach("w", "a").values[0]["cursor"]
    connection = FakeConnection(stage.hub, keeps_alive=True)
    stage.attach("w", "a", transport="poll", since=cursor, keep_alive=True, connection=connection)
    connection.blocked = True
    stage.publish("a", b"1")
    stage.pass_time(120)
    connection.unblock()
    assert connection.released() and not connection.closed()
    stage.hub.drain(0)
    stage.check_empty()


def test_who_has_taken_the_last_word_and_does_not_close_is_closed(stage: Stage) -> None:
    alice = stage.attach("alice", "room")
    alice.blocked = True
    stage.hub.drain(0)
    alice.blocked = False  # and it waits for the client to close, as a WebSocket does
    stage.pass_time(31)
    assert alice.closed() == "stalled"
    stage.check_empty()


def test_a_poll_is_not_held_past_its_token(stage: Stage) -> None:
    cursor = stage.attach("w", "a").values[0]["cursor"]
    poll = stage.attach("w", "a", transport="poll", since=cursor, expires=stage.clock.time() + 5)
    stage.pass_time(4.5)
    assert poll.writes == []
    stage.pass_time(1)
    assert poll.closed() == "done"


def test_a_poll_ends_at_its_timeout(stage: Stage) -> None:
    cursor = stage.attach("w", "a").values[0]["cursor"]
    poll = stage.attach("w", "a", transport="poll", since=cursor, timeout=10.0)
    stage.pass_time(9.5)
    assert poll.writes == []
    stage.pass_time(1)
    assert poll_answer(poll)["publications"] == []
    assert b"Connection: close" in poll.writes[0] and poll.closed() == "done"


@pytest.mark.parametrize("timeout", [0.0, 25.0])
def test_a_poll_whose_history_comes_late_is_still_answered(stage: Stage, timeout: float) -> None:
    cursor = stage.attach("w", "a").values[0]["cursor"]
    stage.broker.gate.clear()
    poll = stage.attach("w", "a", transport="poll", since=cursor, timeout=timeout)
    stage.pass_time(timeout + 5)
    assert poll.writes == []
    stage.broker.gate.set()
    stage.turn()
    stage.pass_time(3 * TICK)
    assert poll.closed() == "done" and poll_answer(poll)["publications"] == []


def test_a_poll_excluded_from_all_of_a_long_replay_waits_for_the_rest(stage: Stage) -> None:
    cursor = stage.attach("w", "big:a").values[0]["cursor"]
    stage.publish("big:a", *big(20), exclude="me")
    poll = stage.attach("w", "big:a", transport="poll", since=cursor, instance="me")
    assert poll.writes == []
    stage.publish("big:a", b"1")
    assert [p["data"] for p in poll_answer(poll)["publications"]] == [1]


def test_a_poll_takes_a_long_replay_in_parts(stage: Stage) -> None:
    cursor = stage.attach("w", "big:a").values[0]["cursor"]
    stage.publish("big:a", *big(20))
    offsets: list[int] = []
    for _ in range(3):
        poll = stage.attach("w", "big:a", transport="poll", since=cursor, timeout=0.0)
        answer = poll_answer(poll)
        cursor = answer["cursor"]
        offsets += [publication["offset"] for publication in answer["publications"]]
        assert len(poll.body) < 300_000
    assert offsets == list(range(1, 21))


# Limits


def test_a_full_server_says_when_to_come_back(make_stage: MakeStage) -> None:
    stage = make_stage(max_connections=2)
    stage.attach("a"), stage.attach("b")
    late = stage.attach("c", headers=(("X-Kept", "1"),))
    assert late.writes[0].startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: " in late.writes[0] and b"X-Kept: 1" in late.writes[0]
    assert late.closed() and stage.hub.counts["shed"] == 1


def test_the_oldest_connection_of_a_user_makes_room(make_stage: MakeStage) -> None:
    stage = make_stage(max_per_user=2)
    alice = [stage.attach("alice") for _ in range(3)]
    friend = stage.attach("bob", "user:alice")
    assert alice[0].words == ["hello", "reconnect"] and alice[0].closed() == "done"
    assert alice[0].values[-1]["reason"] == "replaced"
    # At once, it would replace the next one, which would come back, and so on for ever.
    assert 30_000 <= alice[0].values[-1]["delay"] <= 60_000
    assert not alice[1].closed() and not alice[2].closed() and not friend.closed()
    assert stage.hub.counts["replaced"] == 1


def test_slow_readers_do_not_get_a_user_over_the_limit(make_stage: MakeStage) -> None:
    stage = make_stage(max_per_user=2)
    alice = []
    for _ in range(5):
        alice.append(stage.attach("alice"))
        alice[-1].blocked = True
    assert [connection.words[-1] for connection in alice] == ["reconnect"] * 3 + ["hello"] * 2
    assert len(stage.hub.census.of_user("alice")) == 2


def test_anonymous_visitors_are_many_people(make_stage: MakeStage) -> None:
    stage = make_stage(max_per_user=2)
    crowd = [stage.attach("0") for _ in range(5)]
    assert not any(connection.closed() for connection in crowd)


def test_connections_of_one_address(make_stage: MakeStage) -> None:
    stage = make_stage(max_per_address=2)
    held = [stage.attach(f"u{n}", address="192.0.2.1") for n in range(3)]
    assert held[2].writes[0].startswith(b"HTTP/1.1 429 ")
    assert not stage.attach("v", address="192.0.2.2").closed()
    for _ in range(3):
        assert not stage.attach("w", address="").closed(), "no limit without an address"
    held[0].close("gone")
    assert not stage.attach("x", address="192.0.2.1").closed()


# Ends


def test_cuts_are_logged_as_what_clients_cause(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_windows", {})
    caplog.set_level(logging.INFO)
    crowd = [stage.attach(f"u{n}", address="192.0.2.1") for n in range(log.LINES_PER_MINUTE + 5)]
    first = crowd[0].subscriber.id
    for connection in crowd:
        connection.close("slow")
    lines = [each.getMessage() for each in caplog.records]
    assert lines[0] == f"event=conn.cut reason=slow user=u0 connection={first} ip=192.0.2.1"
    assert len(lines) == log.LINES_PER_MINUTE
    assert stage.hub.counts["cuts.slow"] == len(crowd)


def test_a_revoked_session_is_closed_at_once(stage: Stage) -> None:
    alice, bob = stage.attach("alice", "room"), stage.attach("bob", "room")
    stage.run(stage.broker.revoke(Revocation("sid", "session-alice", 2**53, 2**53)))
    assert alice.words[-1] == "revoked" and alice.closed()
    assert not bob.closed() and stage.hub.counts["revoked"] == 1
    again = stage.attach("alice")
    assert again.writes[0].startswith(b"HTTP/1.1 401 ")


def test_the_revocation_of_a_user_asks_nobody_else(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tabs = [stage.attach("alice"), stage.attach("alice")]
    stage.attach("bob", "user:alice")  # is let into it by his token, but is not her
    with monkeypatch.context() as patch:
        patch.delattr("push_server.wheel.Wheel.everyone")
        stage.hub.revoke(Revocation("user", "alice", 2**53, 2**53))
    assert all(tab.closed() and tab.words[-1] == "revoked" for tab in tabs)
    assert stage.hub.counts["revoked"] == 2


@pytest.mark.parametrize("cause", ["revoke", "drain", "disconnect"])
def test_one_that_cannot_be_told_to_go_keeps_nobody(stage: Stage, cause: str) -> None:
    tabs = [stage.attach("alice", "room") for _ in range(3)]
    tabs[0].breaks = True
    if cause == "revoke":
        stage.hub.revoke(Revocation("sid", "session-alice", 2**53, 2**53))
    elif cause == "drain":
        stage.hub.drain(1)
    else:
        stage.hub.disconnect("alice", "")
    assert all(tab.closed() for tab in tabs)
    assert tabs[0].closed() == "failed" and stage.hub.counts["failed"] == 1
    stage.check_empty()


def test_a_revoked_reader_that_blocks_is_cut_with_all_that_waits(stage: Stage) -> None:
    alice = stage.attach("alice", "room")
    alice.blocked = True
    stage.run(stage.broker.revoke(Revocation("user", "alice", 2**53, 2**53)))
    assert alice.closed() == "revoked"
    stage.check_empty()


@pytest.mark.parametrize("cause", ["drain", "expired"])
def test_nothing_is_delivered_behind_a_last_word(stage: Stage, cause: str) -> None:
    alice = stage.attach("alice", "room", expires=stage.clock.time() + 100)
    alice.blocked = True
    if cause == "drain":
        stage.hub.drain(1)
    else:
        stage.pass_time(101)
    assert alice.words[-1] == "reconnect" and not alice.closed()
    stage.publish("room", b"1")
    assert alice.data == []
    # A revocation still finds it.
    stage.run(stage.broker.revoke(Revocation("user", "alice", 2**53, 2**53)))
    assert alice.closed() == "revoked"
    assert alice.words.count("reconnect") == 1
    stage.check_empty()


def test_a_last_word_that_is_not_taken_is_dropped_in_the_end(stage: Stage) -> None:
    alice, bob = stage.attach("alice", "room"), stage.attach("bob", "room")
    alice.stick()
    bob.stick()
    stage.hub.drain(1)
    stage.hub.drain(1)
    assert alice.words == ["hello", "reconnect"]
    stage.pass_time(29)
    assert not alice.closed() and not stage.hub.empty.is_set()
    bob.unblock()
    assert bob.closed() == "done"
    stage.pass_time(2)
    assert alice.closed() == "stalled" and stage.hub.empty.is_set()
    stage.check_empty()


def test_drain_spreads_the_return(stage: Stage) -> None:
    random.seed(7)
    crowd = [stage.attach(f"u{n}", "room") for n in range(50)]
    cursor = crowd[0].values[0]["cursor"]
    poll = stage.attach("u0", "room", transport="poll", since=cursor, keep_alive=True)
    stage.hub.drain(20)
    delays = [connection.values[-1]["delay"] for connection in crowd]
    assert max(delays) <= 20_000 and max(delays) - min(delays) > 15_000
    assert all(connection.closed() for connection in crowd)
    assert poll_answer(poll)["control"][-1]["reason"] == "drain"
    assert b"Connection: close" in poll.writes[0]
    assert stage.hub.empty.is_set()
    late = stage.attach("late")
    assert late.writes[0].startswith(b"HTTP/1.1 503 ")
    stage.check_empty()


def test_an_empty_hub_drains_at_once(stage: Stage) -> None:
    stage.hub.drain(20)
    assert stage.hub.empty.is_set()


def test_close_cuts_whoever_is_left(make_stage: MakeStage) -> None:
    stage = make_stage()
    alice = stage.attach("alice")
    alice.blocked = True
    stage.close()
    assert alice.closed() == "drain"


# The wheel


def test_pings_come_once_per_heartbeat(stage: Stage) -> None:
    crowd = [stage.attach(f"u{n}") for n in range(50)]
    stage.pass_time(12)
    assert not any("ping" in connection.words for connection in crowd)
    stage.pass_time(14)
    assert all(connection.words == ["hello", "ping"] for connection in crowd)
    stage.pass_time(250)
    for connection in crowd:
        assert 10 <= connection.words.count("ping") <= 11


def test_the_first_pings_are_spread(stage: Stage) -> None:
    random.seed(7)
    for n in range(200):
        stage.attach(f"u{n}")
    assert len({subscriber.slot for subscriber in stage.hub._lifetimes._wheel.everyone()}) > 20


def test_a_stream_ends_with_its_token_and_says_so_before(stage: Stage) -> None:
    start = stage.clock.now
    expires = stage.clock.time() + 300
    alice = stage.attach("alice", expires=expires)
    assert alice.values[0]["expires"] == int(expires)
    while "expiring" not in alice.words:
        stage.pass_time(TICK)
    assert stage.clock.now - start == pytest.approx(300 - WARN_SECONDS, abs=1)
    assert alice.values[-1]["expires"] == pytest.approx(expires, abs=1)
    while not alice.closed():
        stage.pass_time(TICK)
    assert stage.clock.now - start == pytest.approx(300, abs=1)
    assert alice.values[-1]["reason"] == "expired"
    assert alice.words.count("expiring") == 1


def test_a_token_from_a_clock_that_is_behind_gets_the_leeway(stage: Stage) -> None:
    alice = stage.attach("alice", expires=stage.clock.time() - 1)
    stage.pass_time(50)
    assert not alice.closed()


@pytest.mark.parametrize("late", [1.0, 59.9, 60.1, 75.0])
def test_a_token_accepted_late_within_the_leeway_ends(stage: Stage, late: float) -> None:
    # Verified just inside the leeway; by the time of the hub it may be just outside.
    alice = stage.attach("alice", expires=stage.clock.time() - late)
    assert alice.words == ["hello"]
    stage.pass_time(61)
    assert alice.values[-1]["reason"] == "expired" and alice.closed()
    stage.check_empty()


def test_a_stream_ends_at_its_age(make_stage: MakeStage) -> None:
    stage = make_stage(max_age=1000.0)
    random.seed(7)
    crowd = [stage.attach(f"u{n}") for n in range(20)]
    stage.pass_time(799)
    assert not any(connection.closed() for connection in crowd)
    stage.pass_time(100)
    assert 0 < sum(bool(connection.closed()) for connection in crowd) < 20
    stage.pass_time(102)
    assert {connection.values[-1]["reason"] for connection in crowd} == {"age"}
    assert all("expiring" not in connection.words for connection in crowd)
    stage.check_empty()


def test_an_endless_replay_does_not_outlive_the_token(stage: Stage) -> None:
    cursor = stage.attach("w", "big:a").values[0]["cursor"]
    stage.publish("big:a", *big(50))
    back = FakeConnection(stage.hub)
    back.blocked = True
    stage.attach("w", "big:a", since=cursor, connection=back, expires=stage.clock.time() + 200)
    stage.pass_time(190)
    assert "ping" not in back.words and "expiring" in back.words
    stage.pass_time(11)
    assert back.words[-1] == "reconnect"
    back.stick()
    stage.pass_time(31)
    assert back.closed()


def test_after_a_long_replay_pings_come_again(stage: Stage) -> None:
    cursor = stage.attach("w", "big:a").values[0]["cursor"]
    stage.publish("big:a", *big(5))
    back = FakeConnection(stage.hub)
    back.blocked = True
    stage.attach("w", "big:a", since=cursor, connection=back, expires=stage.clock.time() + 300)
    stage.pass_time(250)
    back.unblock()
    assert len(back.data) == 5
    stage.pass_time(26)
    assert "ping" in back.words
    stage.pass_time(30)
    assert back.values[-1]["reason"] == "expired"


def test_a_loop_that_stood_still_forgets_nobody(stage: Stage) -> None:
    crowd = [stage.attach(f"u{n}", expires=stage.clock.time() + 100) for n in range(20)]
    stage.clock.now += 50
    stage.hub._ticker.cancel()
    stage.hub._tick()
    assert all("ping" in connection.words for connection in crowd)
    stage.clock.now += 500
    stage.hub._ticker.cancel()
    stage.hub._tick()
    stage.pass_time(1)
    assert all(connection.closed() for connection in crowd)
    stage.check_empty()


def test_a_visit_that_fails_does_not_stop_the_wheel(stage: Stage) -> None:
    crowd = [stage.attach(f"u{n}") for n in range(20)]
    for subscriber in stage.hub._lifetimes._wheel.everyone():
        stage.hub._lifetimes._wheel.drop(subscriber)
        stage.hub._lifetimes._file(subscriber, stage.clock.now + 5)
    crowd[3].breaks = True
    stage.pass_time(6)
    assert crowd[3].closed() == "failed"
    others = [connection for connection in crowd if connection is not crowd[3]]
    assert all(connection.words == ["hello", "ping"] for connection in others)
    assert len(stage.hub._lifetimes._wheel.everyone()) == 19


# What is left behind, and what is told of it


def test_a_thousand_lives_leave_nothing_behind(make_stage: MakeStage) -> None:
    stage = make_stage(max_per_user=3, max_per_address=40, max_connections=60)
    chance = random.Random(11)
    alive: list[FakeConnection] = []
    cursor = stage.attach("seed", "a", "b").values[0]["cursor"]
    for number in range(1000):
        connection = FakeConnection(stage.hub, keeps_alive=chance.random() < 0.5)
        alive.append(connection)
        stage.attach(
            f"u{chance.randrange(30)}",
            *chance.sample(["a", "b", "c"], chance.randrange(4)),
            connection=connection,
            transport=chance.choice(["sse", "stream", "poll"]),
            since=chance.choice([None, cursor]),
            address=chance.choice(["", "192.0.2.1", "192.0.2.2"]),
            keep_alive=chance.random() < 0.5,
            expires=stage.clock.time() + chance.randrange(1, 500),
        )
        event = chance.random()
        if event < 0.2:
            chance.choice(alive).close("gone")
        elif event < 0.3:
            chance.choice(alive).blocked = True
        elif event < 0.4:
            chance.choice(alive).unblock()
        elif event < 0.7:
            stage.publish(chance.choice("abc"), b"%d" % number)
        elif event < 0.8:
            stage.pass_time(chance.randrange(20))
        elif event < 0.83:
            user = f"u{chance.randrange(30)}"
            stage.hub.revoke(Revocation("user", user, stage.clock.time() - 1, 2**53))
        hub = stage.hub
        assert hub._admission.size == len(hub._lifetimes._wheel.everyone()) <= 60
        assert sum(hub._admission._addresses.values()) <= hub._admission.size
    for connection in alive:
        connection.close("gone")
    for subscriber in stage.hub._lifetimes._wheel.everyone():
        subscriber.connection.close("gone")
    stage.check_empty()
    assert set(stage.hub.stats()) >= {"connects", "replaced", "revoked", "deliveries", "recovered"}


def test_stats_and_channels(stage: Stage) -> None:
    stage.attach("alice", "room", "hall"), stage.attach("bob", "room", transport="sse")
    stage.attach("$x", "$ready")
    stats = stage.hub.stats()
    assert (stats["connections"], stats["users"], stats["blocked"]) == (3, 3, 0)
    assert (stats["connections.sse"], stats["connections.stream"]) == (1, 2)
    assert stats["connections.poll"] == 0 and stats["connects.stream"] == 2
    assert stage.hub.census.channels("") == {"room": 2, "hall": 1}
    assert stage.hub.census.channels("user:a") == {"user:alice": 1}


def test_which_share_is_on_which_transport_and_why(stage: Stage) -> None:
    cursor = stage.attach("ann").values[0]["cursor"]
    polls = [
        stage.attach("ann", transport="poll", since=cursor, fallback="stalled") for _ in range(2)
    ]
    stage.attach("bob", fallback="blocked")
    stats = stage.hub.stats()
    assert (stats["fallbacks.poll.stalled"], stats["connections.poll"]) == (2, 2)
    assert (stats["fallbacks.stream.blocked"], stats["connections.stream"]) == (1, 2)
    for poll in polls:
        poll.close("gone")
    assert "fallbacks.poll.stalled" not in stage.hub.stats()


def test_ids_are_unique(stage: Stage) -> None:
    ids = {stage.attach(f"u{n}").values[0]["connection"] for n in range(20)}
    assert len(ids) == 20


def test_the_ticker_is_one_timer(stage: Stage) -> None:
    stage.pass_time(5)
    timers = [timer for timer in stage.loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    assert len(timers) == 1
    assert not asyncio.all_tasks(stage.loop)
