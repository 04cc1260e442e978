"""A subscriber: its place in each channel, from the cursor it brings to the one it leaves with."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from push_server.history import History
from push_server.positions import (
    START_TAG,
    Position,
    channel_key,
    cursor_entry,
    join_cursor,
    parse_cursor,
    tag_of,
)
from push_server.publications import Publication, PublishRequest
from push_server.subscriber import (
    POLL_BYTES,
    SLICE_BYTES,
    Subscriber,
    SubscribeRequest,
    visible_to,
)
from push_server.transports import TRANSPORTS

EPOCH = 7


class Sink:
    """A connection that keeps what it is given."""

    subscriber: Any = None
    idle = True

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def when_idle(self, callback: Any) -> None:
        raise AssertionError

    def finish(self, reason: str) -> None:
        raise AssertionError

    def close(self, reason: str) -> None:
        raise AssertionError

    def release(self) -> bool:
        raise AssertionError


def publication(
    channel: str, offset: int, exclude: str | None = None, data: bytes = b"1"
) -> Publication:
    request = PublishRequest(channel, f"id{offset}", data, exclude=exclude)
    return Publication.place(request, EPOCH, offset, 0.0)


def at(offset: int) -> Position:
    return Position(EPOCH, offset, tag_of(f"id{offset}") if offset else START_TAG)


def make(
    *channels: str,
    transport: str = "stream",
    instance: str | None = None,
    since: Mapping[str, Position] | None = None,
) -> tuple[Subscriber, Sink]:
    sink = Sink()
    request = SubscribeRequest(
        user="42",
        session="s",
        token_id="",
        issued=0,
        expires=0,
        address="",
        channels=channels,
        denied=[],
        since=since,
        instance=instance,
        transport=TRANSPORTS[transport],
        timeout=0,
        headers=(("X-Kept", "1"),),
        keep_alive=False,
    )
    return Subscriber(request, sink, "s1"), sink


def since(**offsets: int) -> Mapping[str, Position]:
    return {channel_key(channel): at(offset) for channel, offset in offsets.items()}


def told(sink: Sink) -> list[dict[str, Any]]:
    body = b"".join(sink.writes).partition(b"\r\n\r\n")[2]
    return [json.loads(line) for line in body.splitlines()]


def places(cursor: str) -> dict[str, int]:
    return {key: position.offset for key, position in parse_cursor(cursor).items()}


def test_without_a_cursor_it_begins_at_the_head() -> None:
    subscriber, _ = make("a", "b")
    histories = {"a": History(at(3)), "b": History(at(0))}
    assert subscriber.resume(None, histories) == ([], {})
    assert subscriber.held is None
    assert subscriber.cursor == join_cursor([cursor_entry("a", at(3)), cursor_entry("b", at(0))])


def test_resume_sorts_the_channels() -> None:
    given = since(a=2, b=1, c=1)
    subscriber, _ = make("a", "b", "c", "d", since=given)
    histories = {
        "a": History(at(3), [publication("a", 3)]),
        "b": History(at(5), reset="trimmed"),
        "c": History(at(9), reset="trimmed"),
        "d": History(at(1)),
    }
    recovered, resets = subscriber.resume(given, histories)
    assert recovered == ["a"]
    assert resets == {"trimmed": ["b", "c"], "unknown": ["d"]}
    assert [each.position.offset for each in subscriber.held or ()] == [3]
    # Until a reset is said it stands where it stood: cut off now, it would hear of it again.
    assert parse_cursor(subscriber.cursor) == given
    subscriber.restart({"b": at(5), "c": at(9)})
    assert channel_key("d") not in places(subscriber.cursor)
    subscriber.restart({"d": at(1)})
    expected = {"a": 2, "b": 5, "c": 9, "d": 1}
    assert places(subscriber.cursor) == {channel_key(c): n for c, n in expected.items()}


def test_before_it_begins_it_stands_where_its_client_says() -> None:
    given = since(a=2, elsewhere=9)
    assert places(make("a", "b", since=given)[0].cursor) == {channel_key("a"): 2}
    assert make("a", "b")[0].cursor == "1"


def test_what_was_held_is_merged_by_place() -> None:
    subscriber, _ = make("a", "b")
    assert isinstance(subscriber.held, list)
    subscriber.held += [publication("a", n) for n in (2, 3, 4)] + [publication("b", 1)]
    histories = {"a": History(at(3), [publication("a", n) for n in (2, 3)]), "b": History(at(0))}
    subscriber.resume(since(a=1), histories)
    assert [(e.channel, e.position.offset) for e in subscriber.held or ()] == [
        ("a", 2), ("a", 3), ("a", 4), ("b", 1),
    ]  # fmt: skip


def test_a_new_epoch_among_what_was_held_is_later() -> None:
    subscriber, _ = make("a")
    request = PublishRequest("a", "first of a new log", b"1")
    newer = Publication.place(request, EPOCH + 1, 1, 0.0)
    assert isinstance(subscriber.held, list)
    subscriber.held.append(newer)
    subscriber.resume(since(a=9), {"a": History(at(9), [])})
    assert list(subscriber.held or ()) == [newer]


@pytest.mark.parametrize(("transport", "room"), [("stream", SLICE_BYTES), ("poll", POLL_BYTES)])
def test_a_replay_comes_in_slices(transport: str, room: int) -> None:
    subscriber, _ = make("a", transport=transport)
    data = b'"%b"' % (b"x" * 10_000)
    missed = [publication("a", n, data=data) for n in range(1, 101)]
    subscriber.resume(since(a=0), {"a": History(at(100), missed)})
    slices = []
    while subscriber.held is not None:
        before = len(subscriber.held)
        subscriber.replay()
        slices.append(before - len(subscriber.held or ()))
        assert room <= len(subscriber.due) < room + 12_000 or subscriber.held is None
        assert places(subscriber.cursor)[channel_key("a")] == sum(slices)
        subscriber.due = b""
    assert sum(slices) == 100 and len(slices) > 2


def test_a_replay_of_several_channels_keeps_each_cursor_true() -> None:
    given = since(a=0, b=0)
    subscriber, sink = make("a", "b", since=given)
    missed = {c: [publication(c, n) for n in (1, 2)] for c in ("a", "b")}
    subscriber.resume(given, {c: History(at(2), m) for c, m in missed.items()})
    subscriber.replay()
    subscriber.flush()
    seen = [(v["channel"], v["offset"], places(v["cursor"])) for v in told(sink)]
    a, b = channel_key("a"), channel_key("b")
    assert seen == [
        ("a", 1, {a: 1, b: 0}),
        ("a", 2, {a: 2, b: 0}),
        ("b", 1, {a: 2, b: 1}),
        ("b", 2, {a: 2, b: 2}),
    ]


def live(*channels: str, **options: Any) -> tuple[Subscriber, Sink]:
    subscriber, sink = make(*channels, **options)
    subscriber.resume(None, {channel: History(at(0)) for channel in channels})
    assert subscriber.held is None
    return subscriber, sink


def offer(subscriber: Subscriber, publications: Sequence[Publication]) -> None:
    last = publications[-1]
    subscriber.offer(last.channel, last.entry, subscriber.transport.encode(publications))


@pytest.mark.parametrize("direct", [False, True])
def test_the_cursor_follows_what_is_offered(direct: bool) -> None:
    subscriber, sink = live("a", "b", "c")
    subscriber.flush()
    expected = {channel_key(c): 0 for c in "abc"}
    for number, channel in enumerate("aabacbbca", 1):
        each = publication(channel, number)
        if direct:
            subscriber.tell(channel, each.entry, subscriber.transport.encode([each]))
        else:
            offer(subscriber, [each])
            subscriber.flush()
        expected[channel_key(channel)] = number
        assert places(told(sink)[-1]["cursor"]) == expected
        assert places(subscriber.cursor) == expected
        assert subscriber.cursor.count("~") == 3


def test_control_messages_go_before_publications_in_one_write() -> None:
    subscriber, sink = live("a")
    offer(subscriber, [publication("a", 1)])
    subscriber.say({"type": "ping"})
    subscriber.flush()
    subscriber.flush()
    assert len(sink.writes) == 1, "nothing is written twice, nor is nothing written"
    assert [value.get("type") for value in told(sink)] == ["ping", None]
    assert b"X-Kept: 1\r\n" in sink.writes[0]


def test_an_answer_is_whole() -> None:
    subscriber, sink = live("a", transport="poll")
    subscriber.say({"type": "hello"})
    offer(subscriber, [publication("a", 1), publication("a", 2)])
    subscriber.answer()
    head, _, body = sink.writes[0].partition(b"\r\n\r\n")
    answer = json.loads(body)
    assert b"X-Kept: 1" in head and b"Content-Length: %d" % len(body) in head
    assert [each["offset"] for each in answer["publications"]] == [1, 2]
    assert answer["control"] == [{"type": "hello"}]
    assert places(answer["cursor"]) == {channel_key("a"): 2}
    assert (subscriber.due, subscriber.controls) == (b"", b"")


def test_what_is_excluded_is_left_out_of_a_replay_and_counts_as_told() -> None:
    subscriber, sink = make("a", instance="me")
    missed = [publication("a", n, exclude="me" if n % 2 else None) for n in range(1, 6)]
    subscriber.resume(since(a=0), {"a": History(at(5), missed)})
    assert isinstance(subscriber.held, deque)
    subscriber.replay()
    subscriber.flush()
    assert [value["offset"] for value in told(sink)] == [2, 4]
    assert places(subscriber.cursor) == {channel_key("a"): 5}


def test_visible_to() -> None:
    plain, mine = publication("a", 1), publication("a", 2, exclude="me")
    assert visible_to(None, [plain, mine]) == [plain, mine]
    assert visible_to("me", [plain, mine]) == [plain]
    assert visible_to("other", [plain, mine]) == [plain, mine]
    shared = [plain]
    assert visible_to("me", shared) is shared, "nothing is copied without need"
