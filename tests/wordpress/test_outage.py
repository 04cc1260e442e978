"""While the push server is away: what waits, and what it costs."""

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import PushServer
from ports import free_port
from waiting import PATIENCE, wait_for

from wordpress.site import Visitor, WordPress
from wordpress.story import AJAX, comment, end_pause, logout, the_list


@contextlib.contextmanager
def hanging() -> Iterator[tuple[int, list[socket.socket]]]:
    """Port of a server that accepts, and never answers; and whom it has accepted."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        held: list[socket.socket] = []
        stop = threading.Event()

        def accept() -> None:
            listener.settimeout(0.1)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    held.append(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], held
        finally:
            stop.set()
            thread.join(PATIENCE)
            for peer in held:
                peer.close()


def test_everything_arrives_in_order_and_once(
    site: WordPress, people: dict[str, Visitor], post: int, ids: dict[str, int]
) -> None:
    push = PushServer(broker="sqlite")
    lines = len(site.log)
    with push:
        api = f"http://127.0.0.1:{push.internal_port}"
        site.configure(**site.settings(
            PUSH_API=api, PUSH_TOKEN_KEY=push.token_keys[-1], PUSH_API_KEY=push.api_secret
        ))
        leaving = site.visitor("carol")
        token = push.remember(leaving.state()["token"])
        assert push.get("/subscribe/poll", token=token).status == 200
        push.kill()
        for number in range(8):
            site.probe(f"return push_publish('news', {number});")
        comment(people["bob"], post, "While it is away.")
        logout(leaving)
        # Together, so that several processes want to keep something at once.
        with ThreadPoolExecutor(4) as pool:
            codes = [f"return push_publish('crowd', {number});" for number in range(12)]
            assert all(pool.map(site.probe, codes))
        site.settle()
        assert site.waiting() >= 21
        assert the_list(people["alice"])[0].startswith("Bob commented"), "the list does not wait"
        push.start()
        assert push.get("/subscribe/poll", token=token).status == 200
        end_pause(site)
        site.probe("return push_publish('news', 8);")
        wait_for(lambda: site.waiting() == 0, "nothing waits")
        site.settle()
        kept = push.api("history", channel="news", limit=1000)["publications"]
        assert [entry["data"] for entry in kept] == list(range(9))
        crowd = push.api("history", channel="crowd", limit=1000)["publications"]
        assert sorted(entry["data"] for entry in crowd) == list(range(12))
        mine = push.api("history", channel=f"user:{ids['alice']}", limit=1000)["publications"]
        assert [entry["data"]["text"][:10] for entry in mine] == ["While it i"]
        assert push.get("/subscribe/poll", token=token).status == 401, "the revocation survived"
        # Another token of the same user is not concerned.
        state = site.visitor("carol").state()
        assert push.get("/subscribe/poll", token=push.remember(state["token"])).status == 200
        away, back = site.log[lines:]
        assert away.startswith("The push server is away.")
        assert back == "The push server is back."


def test_what_is_too_old_is_dropped_but_no_revocation(
    site: WordPress, people: dict[str, Visitor]
) -> None:
    port = free_port()
    settings = site.settings(PUSH_API=f"http://127.0.0.1:{port}", PUSH_SPOOL_SECONDS="1")
    site.configure(**settings)
    leaving = site.visitor("carol")
    token = site.push.remember(leaving.state()["token"])
    site.probe("return push_publish('old', 1);")
    logout(leaving)
    site.settle()
    assert site.waiting() >= 2
    site.sql("UPDATE wp_push_server_spool SET made_at = made_at - 3600000000")
    site.configure(**site.settings())
    end_pause(site)
    site.probe("return push_publish('old', 2);")
    wait_for(lambda: site.waiting() == 0, "nothing waits")
    kept = site.push.api("history", channel="old")["publications"]
    assert [entry["data"] for entry in kept] == [2]
    assert site.push.get("/subscribe/poll", token=token).status == 401


def test_cron_sends_what_waits_when_nobody_comes(site: WordPress) -> None:
    site.configure(**site.settings(PUSH_API=f"http://127.0.0.1:{free_port()}"))
    site.probe("return push_publish('cron', 1);")
    site.settle()
    assert site.waiting() == 1
    assert site.probe("return wp_next_scheduled('push_server_drain');") > time.time()
    site.configure(**site.settings())
    end_pause(site)
    site.probe("do_action('push_server_drain');")
    assert site.waiting() == 0
    assert len(site.push.api("history", channel="cron")["publications"]) == 1


def test_a_database_without_named_locks(site: WordPress) -> None:
    """As Galera in its strict mode: what waits is sent all the same."""
    site.configure(**site.settings(PUSH_API=f"http://127.0.0.1:{free_port()}"))
    site.probe("return push_publish('lockless', 1);")
    site.settle()
    site.configure(**site.settings())
    end_pause(site)
    site.probe(
        "add_filter('query', fn ($sql) => str_replace('GET_LOCK(', 'NO_SUCH_LOCK(', $sql));"
        "do_action('push_server_drain');"
    )
    assert site.waiting() == 0
    assert len(site.push.api("history", channel="lockless")["publications"]) == 1


CLIENTS = 6
ROUND = 18
LEAST_ROUNDS, MOST_ROUNDS = 8, 40
"""A busy machine may need many to tell noise from cost."""
LIMIT = 1.2
PAUSE = 5
"""Seconds in which one process tries, and the others do not."""


def p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


def crowd(pool: ThreadPoolExecutor, visitors: Sequence[Visitor], post: int) -> list[float]:
    """One round of pages, six at a time, with what their scripts ask for and a comment."""

    def visit(number: int) -> float:
        visitor = visitors[number % CLIENTS]
        if number == 0:
            comment(visitor, post, "In the crowd.")
        if number % 3 == 1:
            visitor.get(f"{AJAX}?action=push_server_state")
        return visitor.get("/hello-alice/").seconds

    return list(pool.map(visit, range(ROUND)))


@pytest.mark.parametrize("trouble", ["refuses", "hangs"])
def test_pages_are_as_fast_as_without_the_plugin(
    site: WordPress, post: int, trouble: str
) -> None:
    """Side by side: rounds with the plugin and rounds without it, by workers of their own."""
    with contextlib.ExitStack() as stack:
        port = free_port()
        held: list[socket.socket] = []
        if trouble == "hangs":
            port, held = stack.enter_context(hanging())
        site.configure(**site.settings(PUSH_API=f"http://127.0.0.1:{port}"))
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        names = ("bob", "carol")
        with_plugin = [site.visitor(names[n % 2]) for n in range(CLIENTS)]
        without = [site.visitor(names[n % 2], off=True) for n in range(CLIENTS)]
        begin = time.monotonic()
        on: list[float] = []
        off: list[float] = []
        for rounds in range(MOST_ROUNDS):
            on += crowd(pool, with_plugin, post)
            off += crowd(pool, without, post)
            if rounds >= LEAST_ROUNDS and p95(on) <= LIMIT * p95(off):
                break
        assert p95(on) <= LIMIT * p95(off), (p95(on), p95(off))
        # However busy the machine is: hardly a worker has waited for the push server.
        assert len(held) <= (time.monotonic() - begin) / PAUSE + 2
    site.settle()
    assert site.waiting() > 0
    site.configure(**site.settings())
    end_pause(site)
    site.probe("return push_publish('crowd-end', 1);")
    wait_for(lambda: site.waiting() == 0, "nothing waits")
