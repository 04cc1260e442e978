"""Attacks by number: more connections than anybody needs, from one user or one address."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from harness import PushServer
from waiting import PATIENCE, PROMPT, wait_for
from wire import Ended, Receiver, Refused, Stream, Wire, read_response, request_bytes

from push_server.positions import parse_cursor

Factory = Callable[..., PushServer]


def ping(push: PushServer, stream: Stream, channel: str) -> None:
    """The stream is alive: a publication reaches it."""
    push.api("publish", channel=channel, data="ping")
    assert stream.take(1)[0].value["data"] == "ping"


def test_36_one_user_has_so_many_connections(push_server_factory: Factory) -> None:
    # Opens ever more streams with one token. The oldest makes room, so that a page that was
    # forgotten cannot lock its user out, and no other user notices.
    push = push_server_factory(connections_per_user=16)
    token = push.token("greedy")
    with ExitStack() as streams, push.stream(push.token("other")) as other:
        mine = [streams.enter_context(push.stream(token)) for _ in range(50)]
        assert push.api("stats")["connections"] == 17
        for stream in mine[:34]:
            *_, last = stream.until_end()
            assert (last.control, last.value["reason"]) == ("reconnect", "replaced")
        push.api("publish", channel="user:greedy", data=1)
        for stream in mine[34:]:
            assert stream.take(1)[0].value["data"] == 1
        ping(push, other, "user:other")


def test_36_anonymous_visitors_are_many(push_server_factory: Factory) -> None:
    # Visitors who are not logged in all have the user id "0": a limit per user that counted
    # them together would let the next visitor throw out the first.
    push = push_server_factory(connections_per_user=3)
    with ExitStack() as streams:
        visitors = [streams.enter_context(push.stream(push.token("0"), "news")) for _ in range(8)]
        push.api("publish", channel="news", data=1)
        for stream in visitors:
            assert stream.take(1)[0].value["data"] == 1


def test_36_one_address_has_so_many_connections(push_server_factory: Factory) -> None:
    # The same with many users from one address. Others, and local programs, come in.
    push = push_server_factory(connections_per_ip=5)
    with ExitStack() as streams:
        for number in range(5):
            token = push.token(f"u{number}")
            streams.enter_context(push.stream(token, source="127.0.0.9"))
        for transport in (push.stream, push.sse, push.poll):
            with pytest.raises(Refused) as refusal:
                transport(push.token("u9"), source="127.0.0.9")
            assert refusal.value.response.status == 429
            assert 1 <= int(refusal.value.response.header("Retry-After") or 0) <= 30
        streams.enter_context(push.stream(push.token("u10"), source="127.0.0.10"))
        for number in range(8):
            streams.enter_context(push.stream(push.token(f"l{number}")))
    wait_for(lambda: not push.api("stats")["connections"], "those who are gone are not counted")
    push.stream(push.token("u9"), source="127.0.0.9").close()


def test_36_a_poll_that_comes_back_is_not_counted_twice(push_server_factory: Factory) -> None:
    # A counter that is raised at each poll and not lowered would shut its user out in time.
    push = push_server_factory(connections_per_ip=3, connections_per_user=3)
    with push.poll(push.token("1"), source="127.0.0.9") as reader:
        for _ in range(20):
            reader.answer(hold=0)
    for _ in range(10):
        push.poll(push.token("1"), source="127.0.0.9").close()


def test_37_the_server_is_full(push_server_factory: Factory) -> None:
    # More come than the server can hold: the next is told when to try again, at random, and
    # those who are in stay.
    push = push_server_factory(connections=10)
    with ExitStack() as streams:
        inside = [streams.enter_context(push.stream(push.token(f"u{n}"))) for n in range(10)]
        waits = set()
        for number in range(10):
            with pytest.raises(Refused) as refusal:
                push.stream(push.token(f"late{number}"))
            assert refusal.value.response.status == 503
            waits.add(int(refusal.value.response.header("Retry-After") or 0))
        assert len(waits) > 1
        assert all(1 <= seconds <= 30 for seconds in waits)
        for number, stream in enumerate(inside):
            ping(push, stream, f"user:u{number}")
        inside[0].close()
        wait_for(lambda: push.api("stats")["connections"] < 10, "one has left")
        streams.enter_context(push.stream(push.token("next")))


@pytest.mark.parametrize("path", ["/no-such-path", "/push.js"])
def test_37_idle_connections_of_one_address(push_server_factory: Factory, path: str) -> None:
    # Completes one cheap request on each of very many connections and keeps them: they have
    # shaken hands, they hold no stream, and no limit for either kind would count them.
    push = push_server_factory(descriptors=1_000)
    request = request_bytes("GET", path, push.head())
    held: list[Wire] = []
    try:
        for number in range(600):
            try:
                wire = push.wire(source=f"127.0.0.{2 + number % 2}")
                held.append(wire)
                wire.send(request)
                read_response(wire, timeout=0.5)
            except (OSError, Ended, ValueError):
                break  # it is already being refused: that is what is wanted
        start = time.monotonic()
        with push.stream(push.token("good"), source="127.0.0.200") as good:
            ping(push, good, "user:good")
        assert time.monotonic() - start < PROMPT
    finally:
        for wire in held:
            wire.close()


def test_37_more_connections_than_descriptors(push_server_factory: Factory) -> None:
    # Takes every descriptor the process has, with as many streams as it lets in and more. It must
    # neither spin nor die, must go on serving those inside, and recover when the others leave.
    push = push_server_factory(descriptors=300, handshake_timeout=60, handshakes_per_ip=1_000)
    with push.stream(push.token("inside")) as inside, ExitStack() as streams:
        many = (push.stream(push.token(f"u{number}")) for number in range(300))
        with pytest.raises(Refused):
            all(map(streams.enter_context, many))
        held: list[Wire] = []
        try:
            held.extend(push.wire(source=f"127.0.0.{2 + number % 50}") for number in range(500))
            before = cpu_seconds(push)
            time.sleep(1)
            assert cpu_seconds(push) - before < 0.5
            ping(push, inside, "user:inside")
        finally:
            for wire in held:
                wire.close()
        streams.close()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                push.stream(push.token("after")).close()
                break
            except (OSError, Ended, ValueError, Refused):
                assert time.monotonic() < deadline, "nobody comes in any more"
                time.sleep(0.1)
        ping(push, inside, "user:inside")
    assert push.log.count("\n") < 200
    push.check_healthy()


def cpu_seconds(push: PushServer) -> float:
    assert push.process is not None
    with open(f"/proc/{push.process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_59_a_forged_address(push_server_factory: Factory) -> None:
    # Names another address in a header, to escape a limit or to have somebody else blocked.
    push = push_server_factory(connections_per_ip=2)
    with ExitStack() as streams:
        for number in range(2):
            forged = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.0.0.{number}"}
            stream = push.stream(push.token(f"u{number}"), source="127.0.0.9", headers=forged)
            streams.enter_context(stream)
        for forged in (
            {"X-Forwarded-For": "10.0.0.99"},
            {"X-Forwarded-For": "127.0.0.1"},
            {"X-Real-IP": "127.0.0.1"},
            {"Forwarded": "for=127.0.0.1"},
            {"X-Forwarded-For": ", ".join(f"10.1.{n // 256}.{n % 256}" for n in range(1_000))},
        ):
            with pytest.raises(Refused) as refusal:
                push.stream(push.token("u9"), source="127.0.0.9", headers=forged)
            assert refusal.value.response.status == 429, forged
    push.get("/subscribe/sse", source="127.0.0.9", headers={"X-Forwarded-For": "10.0.0.77"})
    assert "10.0.0." not in push.log
    assert "ip=127.0.0.9" in push.log


def test_59_a_trusted_proxy_names_the_address(push_server_factory: Factory) -> None:
    # The counterpart: behind a proxy the limits hold for what the proxy saw, and only the last
    # address counts, because the client wrote the others.
    push = push_server_factory(trusted_proxy="127.0.0.8", connections_per_ip=2)
    with ExitStack() as streams:

        def come(forwarded: str) -> None:
            stream = push.stream(
                push.token(f"u{time.monotonic_ns()}"),
                source="127.0.0.8",
                headers={"X-Forwarded-For": forwarded},
            )
            streams.enter_context(stream)

        come("10.0.0.1")
        come("1.1.1.1, 10.0.0.1")
        with pytest.raises(Refused):
            come("2.2.2.2, 10.0.0.1")
        for number in range(2, 12):
            come(f"10.0.0.{number}")


def test_leaving_while_a_stream_begins(push_server_factory: Factory) -> None:
    # Is told to leave (replaced by the next connection of the same user) before it was told
    # where it stands. It must not be given a cursor that cannot be brought back.
    push = push_server_factory(broker="sqlite", connections_per_user=1)
    token = push.token("1")
    cursors: list[str] = []
    failures: list[object] = []

    def come(worker: int) -> None:
        for number in range(25):
            transports = (push.stream, push.sse, push.poll)
            try:
                reader: Receiver = transports[number % 3](token, f"new:{worker}.{number}")
            except (Ended, Refused, AssertionError, ValueError) as error:
                # Closed, or answered, before `hello`; what is wrong is half an answer.
                if not isinstance(error, Ended):
                    failures.append(error)
                continue
            with reader:
                cursors.append(reader.cursor)
                if number % 3 < 2:
                    try:
                        cursors.append(reader.next(0.05).cursor)
                    except (TimeoutError, Ended):
                        pass

    workers = [threading.Thread(target=come, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert failures == []
    assert len(cursors) > 20
    for cursor in cursors:
        assert parse_cursor(cursor)
