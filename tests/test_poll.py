"""Polls, long and at intervals: what they do beyond the contract of all transports."""

import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from contract import fresh, subscribers
from harness import PushServer
from waiting import PROMPT, wait_for
from wire import read_response, request_bytes

pytestmark = pytest.mark.usefixtures("unharmed")


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return fresh("poll")


@pytest.mark.parametrize("hold", ["-1", "61", "1e3", "nan", "x", "1.5x", "99999999999999999999"])
def test_poll_refuses_a_strange_timeout(push: PushServer, name: str, hold: str) -> None:
    response = push.get(f"/subscribe/poll?timeout={hold}", token=push.token(name))
    assert response.status == 400


def test_exclude_from_two_channels_at_once_answers_a_poll_once(push: PushServer, name: str) -> None:
    """All that is due is left out, in two channels of one turn: one answer, or none."""
    one, two = f"one:{name}", f"two:{name}"
    with push.poll(push.token(name), one, two, instance="me") as reader:
        for turn in range(5):
            target = reader.target(timeout="5")
            reader.wire.send(request_bytes("GET", target, reader.headers))
            wait_for(lambda: subscribers(push, one) == 1, "the poll waits")
            push.api("broadcast", channels=[one, two], data=turn, exclude="me")
            push.api("broadcast", channels=[one, two], data=f"visible {turn}")
            response = read_response(reader.wire)
            assert response.status == 200
            reader.position = response.json()["cursor"]
            got = response.json()["publications"]
            while len(got) < 2:
                got += reader.answer(hold=5)["publications"]
            assert [p["data"] for p in got] == [f"visible {turn}"] * 2
            assert reader.wire.buffer == b""
        assert reader.connections == 1


def test_poll_answers_with_all_that_is_due(push: PushServer, name: str) -> None:
    channel = f"due:{name}"
    with push.poll(push.token(name), channel) as reader:
        push.api_batch(("publish", {"channel": channel, "data": n}) for n in range(50))
        answer = reader.answer(hold=5)
        assert [p["data"] for p in answer["publications"]] == list(range(50))
        push.api("publish", channel=channel, data="next")
        assert [p["data"] for p in reader.answer(hold=5)["publications"]] == ["next"]


def test_an_answer_has_the_time_of_its_end(push: PushServer, name: str) -> None:
    """RFC 9110, 6.6.1; not the time of a request that was held."""
    token = push.token(name)
    since = push.get("/subscribe/poll", token=token).json()["cursor"]
    asked = time.time()
    for way in (f"poll?since={since}&timeout=1.2", f"interval?since={since}", "poll"):
        response = push.get(f"/subscribe/{way}", token=token)
        assert response.status == 200
        assert parsedate_to_datetime(response.header("Date") or "").timestamp() > asked
    push.api("revoke", user=name)
    refused = push.get("/subscribe/poll", token=token)
    assert refused.status == 401
    assert refused.header("Date")


def test_poll_answers_at_once_without_a_cursor(push: PushServer, name: str) -> None:
    start = time.monotonic()
    with push.poll(push.token(name)) as reader:
        assert reader.position
    assert time.monotonic() - start < PROMPT


def test_poll_holds_until_something_is_published(push: PushServer, name: str) -> None:
    channel = f"hold:{name}"
    with push.poll(push.token(name), channel) as reader:
        answers: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: answers.append(reader.answer(hold=20, timeout=20)))
        thread.start()
        wait_for(lambda: subscribers(push, channel) == 1, "the poll waits")
        assert answers == []
        push.api("publish", channel=channel, data=1)
        thread.join(PROMPT)
        assert [p["data"] for p in answers[0]["publications"]] == [1]


def test_poll_answers_when_its_time_is_over(push: PushServer, name: str) -> None:
    with push.poll(push.token(name)) as reader:
        before = reader.position
        start = time.monotonic()
        answer = reader.answer(hold=1)
        assert 0.7 < time.monotonic() - start < 1 + PROMPT
        assert answer["publications"] == []
        assert answer["cursor"] == before
        assert reader.answer(hold=0)["publications"] == []
        assert reader.connections == 1


def test_an_interval_poll_is_never_held(push: PushServer, name: str) -> None:
    with push.interval(push.token(name)) as reader:
        before = reader.position
        start = time.monotonic()
        for _ in range(3):
            answer = reader.answer(hold=20)
            assert (answer["publications"], answer["cursor"]) == ([], before)
        assert time.monotonic() - start < 3 * PROMPT
        assert reader.connections == 1


def test_poll_keeps_its_connection(push: PushServer, name: str) -> None:
    """One socket, many times to the hub and back."""
    channel = f"keep:{name}"
    with push.poll(push.token(name), channel) as reader:
        for number in range(30):
            push.api("publish", channel=channel, data=number)
            answer = reader.answer(hold=5)
            assert [p["data"] for p in answer["publications"]] == [number]
        # An ordinary request fits in between.
        reader.wire.send(request_bytes("GET", "/no-such-path", reader.headers))
        assert read_response(reader.wire).status == 404
        assert reader.answer(hold=0)["publications"] == []
        assert reader.connections == 1


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_request_sent_during_a_poll_is_answered_once_and_after_it(
    push: PushServer, name: str, pieces: int
) -> None:
    """The bytes wait in the kernel while the hub has the socket; none is lost or doubled."""
    channel = f"pipe:{name}"
    with push.poll(push.token(name), channel) as reader:
        wire = reader.wire
        for turn in range(5):
            wire.send(request_bytes("GET", reader.target(timeout="10"), reader.headers))
            wait_for(lambda: subscribers(push, channel) == 1, "the poll waits")
            behind = request_bytes("GET", "/no-such-path", reader.headers)
            size = -(-len(behind) // pieces)
            parts = [behind[i : i + size] for i in range(0, len(behind), size)]
            for part in parts[: len(parts) // 2 + 1]:
                wire.send(part)
            push.api("publish", channel=channel, data=turn)
            for part in parts[len(parts) // 2 + 1 :]:
                wire.send(part)
            answer = read_response(wire)
            assert [p["data"] for p in answer.json()["publications"]] == [turn]
            reader.position = answer.json()["cursor"]
            assert read_response(wire).status == 404
            assert wire.buffer == b""


def test_a_poll_whose_client_leaves_is_forgotten(push: PushServer, name: str) -> None:
    channel = f"left:{name}"
    reader = push.poll(push.token(name), channel)
    reader.wire.send(request_bytes("GET", reader.target(timeout="60"), reader.headers))
    wait_for(lambda: subscribers(push, channel) == 1, "the poll waits")
    reader.close()
    wait_for(lambda: subscribers(push, channel) == 0, "the poll is forgotten")


def test_a_poll_is_not_held_past_its_token(push: PushServer, name: str) -> None:
    """A poll must not deliver to whom no token lets it."""
    token = push.token(name, iat=int(time.time()) - 100, exp=int(time.time()) - 57)
    with push.poll(token, "late:1") as reader:
        start = time.monotonic()
        reader.answer(hold=20, timeout=20)
        assert time.monotonic() - start < 3 + PROMPT
