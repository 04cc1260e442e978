"""Surveys: every node answers, in time, and nobody who is dead is waited for."""

import asyncio
import time
from collections.abc import Mapping

import pytest
from redis_server import RedisServer, program
from test_brokers import in_loop
from test_redis import Node, nodes, own
from waiting import until

from push_server.brokers import redis_survey
from push_server.brokers.redis_connection import PATIENCE
from push_server.brokers.survey import CHANNELS, STATS, Survey

__all__ = ["own"]

pytestmark = pytest.mark.skipif(program() is None, reason="no Redis on this machine")


def answering(node: Node, numbers: Mapping[str, int]) -> None:
    node.broker.asked = lambda what, argument: {
        f"{what}.{argument}": 1, "number": len(numbers), **numbers
    }


@in_loop
async def test_all_nodes_answer(redis: RedisServer) -> None:
    async with nodes(redis, 3) as (one, two, three):
        for size, node in enumerate((one, two, three), 1):
            answering(node, {"size": size})
        survey = await two.broker.survey(CHANNELS, 'a "b')
        assert survey.complete
        assert set(survey.nodes) == {node.broker.roster.node for node in (one, two, three)}
        assert survey.nodes[three.broker.roster.node]["size"] == 3
        assert survey.total() == {'channels.a "b': 3, "number": 3, "size": 6}


@in_loop
async def test_many_surveys_at_once_do_not_mix(redis: RedisServer) -> None:
    async with nodes(redis, 2) as pair:
        for node in pair:
            answering(node, {})
        found = await asyncio.gather(
            *(pair[number % 2].broker.survey(STATS, str(number)) for number in range(50))
        )
        for number, survey in enumerate(found):
            assert survey.complete and survey.total() == {f"stats.{number}": 2, "number": 0}


@in_loop
async def test_a_dead_node_is_not_waited_for(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_survey, "SURVEY_SECONDS", 10.0)
    async with nodes(redis, 2) as (one, two):
        answering(one, {})
        await two.broker._bus.close()  # its lease goes on for half a minute
        await until(lambda: redis.cli("PUBSUB", "NUMSUB", two.broker._bus_node)[1] == 0)
        started = time.monotonic()
        survey = await one.broker.survey(STATS)
        assert time.monotonic() - started < redis_survey.SURVEY_SECONDS / 2
        assert survey.complete and list(survey.nodes) == [one.broker.roster.node]


@in_loop
async def test_a_node_that_is_silent_is_left_out(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_survey, "SURVEY_SECONDS", 0.3)
    async with nodes(redis, 3) as (one, two, three):
        for node in (one, two, three):
            answering(node, {})
        two.broker._bus._heard = lambda *_: None
        survey = await one.broker.survey(STATS)
        assert not survey.complete
        assert set(survey.nodes) == {one.broker.roster.node, three.broker.roster.node}
        assert one.broker._survey._open == {}


@in_loop
async def test_without_redis_a_node_speaks_for_itself(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_survey, "SURVEY_SECONDS", 0.2)
    async with nodes(own, 2) as (one, _):
        answering(one, {"size": 1})
        expected = Survey({one.broker.roster.node: one.broker.asked(STATS, "")}, complete=False)
        own.freeze()
        started = time.monotonic()
        assert await one.broker.survey(STATS) == expected
        assert time.monotonic() - started < PATIENCE, "it does not wait for Redis"
        await until(lambda: not one.broker._link.up)
        assert await one.broker.survey(STATS) == expected
        own.thaw()


@in_loop
async def test_what_is_foreign_is_dropped_and_counted(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two):
        for node in (one, two):
            answering(node, {})
        questions = (
            b"x ? ", b"x ? 1", b'x ? [1,"stats"]', b'x ? ["1","stats",""]', b"x ? [1,2,3]",
            b'../x ? [1,"stats",""]', b'\xff ? [1,"stats",""]', b"x ? " + b"[" * 100_000,
        )
        for number, message in enumerate(questions, 1):
            redis.cli("PUBLISH", two.broker._bus_all, message)
            await until(lambda n=number: two.broker.counts["dropped.bus"] == n)  # type: ignore[misc]
        before = two.broker.counts["dropped.bus"]
        answers = (
            b"", b"x", b"x 1", b"x y {}", b"x 1 []", b'x 1 {"a":"b"}', b'x 1 {"a":-1}',
            b'x 1 {"a":true}', b'x 1 {"a":1.5}', b'../ 1 {"a":1}', b"x 1 " + b"[" * 100_000,
        )
        for number, message in enumerate(answers, before + 1):
            redis.cli("PUBLISH", two.broker._bus_node, message)
            await until(lambda n=number: two.broker.counts["dropped.bus"] == n)  # type: ignore[misc]
        redis.cli("PUBLISH", two.broker._bus_node, b'late 77 {"a":1}')
        survey = await two.broker.survey(STATS)
        assert survey.complete and len(survey.nodes) == 2


@in_loop
async def test_an_answer_too_large_for_the_bus_is_not_given(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_survey, "ENTRY_LIMIT", 1_000)
    async with nodes(redis, 2) as (one, two):
        answering(two, {f"channel{number}": 1 for number in range(200)})
        survey = await one.broker.survey(CHANNELS)
        assert not survey.complete and list(survey.nodes) == [one.broker.roster.node]
