"""The window over a channel's log, and the decision between `recovered` and `reset`."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push_server.channels import Namespace
from push_server.history import EPOCH, FUTURE, TAG, TRIMMED, ChannelLog, History
from push_server.positions import START_TAG, Position, tag_of
from push_server.publications import Publication, PublishRequest

EPOCH_NUMBER = 7
START = Position(EPOCH_NUMBER, 0, START_TAG)
PLENTY = Namespace(history_size=1000, history_ttl=600, history_bytes=10**9)


def publication(offset: int, now: float = 0.0, data: bytes = b"1") -> Publication:
    return Publication.place(PublishRequest("c", f"id{offset}", data), EPOCH_NUMBER, offset, now)


def filled(count: int, keep: Namespace = PLENTY, start: Position = START) -> ChannelLog:
    log = ChannelLog(start)
    for offset in range(start.offset + 1, start.offset + count + 1):
        log.append(publication(offset), keep)
    return log


def at(offset: int) -> Position:
    return Position(EPOCH_NUMBER, offset, tag_of(f"id{offset}") if offset else START_TAG)


def offsets(history: History) -> list[int]:
    return [publication.position.offset for publication in history.publications]


def test_a_new_log() -> None:
    log = ChannelLog(START)
    assert log.since(None) == History(START)
    assert log.since(START) == History(START, [])
    assert log.since(at(1)).reset == FUTURE


@pytest.mark.parametrize("count", [1, 2, 5, 200])
def test_every_position_in_the_window_is_recovered(count: int) -> None:
    log = filled(count)
    for offset in range(count + 1):
        history = log.since(at(offset))
        assert history.reset is None
        assert history.head == at(count)
        assert offsets(history) == list(range(offset + 1, count + 1))


def test_the_head_alone_is_not_a_recovery() -> None:
    assert filled(3).since(None) == History(at(3))


RESETS = [
    ("one epoch earlier", at(4)._replace(epoch=EPOCH_NUMBER - 1), EPOCH),
    ("one epoch later", at(4)._replace(epoch=EPOCH_NUMBER + 1), EPOCH),
    ("epoch counts before offset", Position(1, 99, "zzzzzz"), EPOCH),
    ("one beyond the head", at(7), FUTURE),
    ("far beyond the head", at(2**53 - 1), FUTURE),
    ("one before the floor", at(2), TRIMMED),
    ("the beginning", START, TRIMMED),
    ("another id at the head", at(6)._replace(tag=tag_of("other")), TAG),
    ("another id in the window", at(4)._replace(tag=tag_of("other")), TAG),
    ("another id at the floor", at(3)._replace(tag=tag_of("other")), TAG),
    ("the tag of the beginning elsewhere", at(4)._replace(tag=START_TAG), TAG),
]


@pytest.mark.parametrize(
    ("position", "reason"), [row[1:] for row in RESETS], ids=[row[0] for row in RESETS]
)
def test_what_cannot_be_proved_is_reset(position: Position, reason: str) -> None:
    log = filled(6, replace(PLENTY, history_size=3))
    assert log.floor == at(3)
    assert log.since(position) == History(at(6), (), reason)


def test_a_tag_at_the_beginning_is_another_log() -> None:
    assert filled(2).since(START._replace(tag=tag_of("id1"))).reset == TAG


def test_the_floor_itself_is_recovered() -> None:
    assert offsets(filled(6, replace(PLENTY, history_size=3)).since(at(3))) == [4, 5, 6]


def test_history_of_size_nothing_still_proves_the_head() -> None:
    log = filled(3, replace(PLENTY, history_size=0))
    assert len(log.window) == log.bytes == 0
    assert log.since(at(3)) == History(at(3), [])
    assert log.since(at(2)).reset == TRIMMED
    assert log.since(at(3)._replace(tag=tag_of("other"))).reset == TAG


def test_bytes_at_and_over_the_limit() -> None:
    size = len(publication(1).json)
    exact = filled(3, replace(PLENTY, history_bytes=3 * size))
    assert (len(exact.window), exact.bytes) == (3, 3 * size)
    under = filled(3, replace(PLENTY, history_bytes=3 * size - 1))
    assert (len(under.window), under.bytes) == (2, 2 * size)


def test_a_publication_larger_than_the_limit_is_not_kept() -> None:
    log = filled(2)
    log.append(publication(3, data=b"1" * 500), replace(PLENTY, history_bytes=400))
    assert (len(log.window), log.bytes, log.floor) == (0, 0, at(3))


def test_age_at_the_limit() -> None:
    log = ChannelLog(START)
    for offset in (1, 2, 3):
        log.append(publication(offset, now=offset * 10.0), PLENTY)
    keep = replace(PLENTY, history_ttl=5)
    log.trim(keep, 14.9)
    assert log.floor == START
    log.trim(keep, 15.0)
    assert log.floor == at(1)
    log.trim(keep, 10**9)
    assert (log.floor, log.head) == (at(3), at(3))


def test_age_nothing_keeps_nothing() -> None:
    assert not filled(3, replace(PLENTY, history_ttl=0)).window


def test_a_clock_that_steps_back_drops_nothing() -> None:
    log = ChannelLog(START)
    log.append(publication(1, now=1000.0), PLENTY)
    log.append(publication(2, now=5.0), PLENTY)
    assert offsets(log.since(START)) == [1, 2]


def test_trimming_makes_a_part_whole() -> None:
    log = ChannelLog(at(100), whole=False)
    keep = replace(PLENTY, history_size=2)
    for offset in (101, 102):
        log.append(publication(offset), keep)
        assert not log.whole
    log.append(publication(103), keep)
    # Whatever a disk may hold before it is over the limit as well.
    assert log.whole


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [
        (0, 10, [4, 5, 6]),
        (3, 10, [4, 5, 6]),
        (4, 10, [5, 6]),
        (3, 2, [4, 5]),
        (5, 1, [6]),
        (6, 10, []),
        (99, 10, []),
        (3, 0, []),
    ],
)
def test_reading_page_by_page(after: int, limit: int, expected: list[int]) -> None:
    log = filled(6, replace(PLENTY, history_size=3))
    assert offsets(log.page(after, limit)) == expected


@given(
    count=st.integers(0, 30),
    size=st.integers(0, 12),
    asked=st.integers(0, 35),
    right_tag=st.booleans(),
)
def test_all_or_nothing(count: int, size: int, asked: int, right_tag: bool) -> None:
    log = filled(count, replace(PLENTY, history_size=size))
    position = at(asked) if right_tag else at(asked)._replace(tag=tag_of("other"))
    history = log.since(position)
    complete = right_tag and max(count - size, 0) <= asked <= count
    assert (history.reset is None) == complete
    assert offsets(history) == (list(range(asked + 1, count + 1)) if complete else [])
    assert log.bytes == sum(len(kept.json) for kept in log.window)
