"""What happens to a page when something ends: a server, a token, a session, a network path."""

import signal
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from driver import Browser
from proxy import BufferingProxy, CuttingProxy
from waiting import PATIENCE, wait_for
from world import World, events, expect, in_both_browsers, info, received

LONG = 2 * PATIENCE
"""Where the page has to get through a delay that grows with every attempt."""
AGING = {"age": 20, "ttl": 10}
"""Tokens whose successors are asked for after one to six seconds, well before they end."""


@in_both_browsers
@pytest.mark.parametrize(
    ("share", "transport", "rounds"),
    [("worker", "websocket", 2), ("lease", "stream", 1), ("none", "poll", 1)],
)
def test_killed_and_started_again_the_page_catches_up(
    browser: Browser, make_world: Callable[..., World], share: str, transport: str, rounds: int
) -> None:
    world = make_world(broker="sqlite")
    tab = world.open(browser, "alice", channels="node:1", share=share, transports=transport)
    assert (info(tab)["sharing"], info(tab)["transport"]) == (share, transport)
    for round_number in range(rounds):
        for number in range(5):
            world.notify("alice", [round_number, number])
        world.push.kill()
        tab.wait("return push.info().state !== 'live'")
        world.push.start()
        # Published before the page is back, and while it comes.
        for number in range(5, 10):
            world.notify("alice", [round_number, number])
        tab.wait("return push.info().state === 'live'", timeout=LONG)
    expected = [[round_number, number] for round_number in range(rounds) for number in range(10)]
    expect(tab, expected, timeout=LONG)
    world.notify("alice", "after")
    expect(tab, [*expected, "after"])
    assert events(tab, "reset") == []
    assert len(events(tab, "recovered")) == rounds
    # Between two polls there is none.
    wait_for(lambda: world.connections() == 1, "it has one connection")


def test_a_page_is_told_when_the_history_is_gone(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """The memory broker forgets: never a silent gap, and a reset only for what was there."""
    world = make_world(broker="memory:")
    tab = world.open(browser, "alice", channels="node:1")
    world.notify("alice", "before")
    world.push.api("publish", channel="node:1", data="before")
    expect(tab, ["before", "before"])
    world.push.kill()
    world.push.start()
    tab.wait("return events.some(([name]) => name === 'reset')", timeout=LONG)
    assert sorted(name for _, names, _ in events(tab, "reset") for name in names) == [
        "node:1",
        "user:alice",
    ]
    world.notify("alice", "after")
    expect(tab, ["before", "before", "after"])


def test_a_server_that_drains_is_left_and_found_again(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    world = make_world(broker="sqlite", drain_spread=1)
    tab = world.open(browser, "alice")
    world.notify("alice", 1)
    expect(tab, [1])
    world.push.restart()
    world.notify("alice", 2)
    expect(tab, [1, 2], timeout=LONG)
    assert events(tab, "reset") == []


def test_a_server_that_hangs_is_noticed_by_its_heartbeat(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """The connection stays open and nothing arrives: no event of the browser will ever say so."""
    world = make_world(heartbeat=1)
    tab = world.open(browser, "alice")
    world.push.signal(signal.SIGSTOP)
    try:
        tab.wait("return push.info().state === 'retrying'")
    finally:
        world.push.signal(signal.SIGCONT)
    tab.wait("return push.info().state === 'live'", timeout=LONG)
    world.notify("alice", "hello again")
    expect(tab, ["hello again"])
    # The server was to blame, not the transport.
    assert (info(tab)["transport"], info(tab)["transportReason"]) == ("websocket", "")


def test_a_server_that_is_away_when_the_page_loads(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """With a copy of push.js on the site, as the CMS modules have it, it needs no second load."""
    world = make_world()
    world.push.kill()
    tab = browser.open(world.url("alice", own="yes"))
    tab.wait("return push.info().state === 'retrying'")
    assert events(tab, "error")[0][1] == "frame_silent"
    world.push.start()
    tab.wait("return push.info().state === 'live'", timeout=LONG)
    world.notify("alice", "at last")
    expect(tab, ["at last"])


@pytest.mark.parametrize(("share", "transport"), [("worker", "websocket"), ("lease", "stream")])
def test_a_token_is_renewed_before_it_ends(
    browser: Browser, make_world: Callable[..., World], share: str, transport: str
) -> None:
    world = make_world()
    tab = world.open(browser, "alice", **AGING, share=share, transports=transport)
    connection = info(tab)["connection"]
    asked = world.site.asked["alice"]
    goal, deadline = len(asked) + 2, time.monotonic() + LONG
    sent = 0
    while len(asked) < goal:
        assert time.monotonic() < deadline
        world.notify("alice", sent)
        sent += 1
        time.sleep(0.1)
    assert min(later - earlier for earlier, later in pairwise(asked)) > 0.5, "not before it has to"
    expect(tab, list(range(sent)))
    tab.wait("return push.info().state === 'live'")
    assert events(tab, "error") == events(tab, "reset") == []
    assert [state for _, state, _ in events(tab, "status")][-1] == "live"
    # A WebSocket is shown the new token, a stream is made anew.
    assert (info(tab)["connection"] == connection) == (transport == "websocket")


def test_a_site_in_trouble_does_not_end_a_session(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """While the token route is down the page waits; afterwards nothing is missing."""
    world = make_world()
    tab = world.open(browser, "alice", age=15, ttl=5)
    world.site.down = True
    tab.wait("return events.some(([name]) => name === 'error')")
    assert info(tab)["state"] == "live", "the token it has still holds"
    world.notify("alice", 1)
    expect(tab, [1])
    wait_for(lambda: world.connections() == 0, "the stream ends with its token", LONG * 2)
    tab.wait("return push.info().state === 'waiting'", timeout=LONG)
    world.notify("alice", 2)
    world.site.down = False
    expect(tab, [1, 2], timeout=LONG)
    assert info(tab)["state"] == "live"
    assert events(tab, "reset") == []


def test_logout_closes_the_stream_and_tells_the_page(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    world = make_world()
    alice = [world.open(browser, "alice", session="first") for _ in range(2)]
    bob = world.open(browser, "bob")
    asked = len(world.site.asked["alice"])
    assert world.push.api("revoke", sid="first")["closed"] == 1
    for tab in alice:
        tab.wait("return push.info().state === 'revoked'")
        assert events(tab, "revoked") == [["revoked", "revoked", ""]]
    wait_for(lambda: world.connections() == 1, "only the other user is connected")
    world.notify("alice", "secret")
    world.notify("bob", "for bob")
    expect(bob, ["for bob"])
    assert [received(tab) for tab in alice] == [[], []]
    assert len(world.site.asked["alice"]) == asked, "nobody asks for a token after a logout"
    # The next session of the same user is another matter.
    again = world.open(browser, "alice", session="second")
    world.notify("alice", "welcome back")
    expect(again, ["welcome back"])
    assert [received(tab) for tab in alice] == [[], []]


def test_a_visitor_without_a_token_costs_nothing(browser: Browser, world: World) -> None:
    world.site.signed_out.add("nobody")
    tab = browser.open(world.url("nobody"))
    tab.wait("return push.info().state === 'signed_out'")
    assert tab.run("return document.querySelector('iframe')") is None
    refused = tab.run("return push.publish('chat:1', 1).catch((error) => { window.why = error })")
    assert refused is None
    assert tab.wait("return window.why && why.code") == "signed_out"


def test_a_session_that_ended_at_the_site_ends_here(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """Nobody told the push server, but the site gives no further token."""
    world = make_world()
    tab = world.open(browser, "alice", **AGING)
    world.site.signed_out.add("alice")
    tab.wait("return push.info().state === 'signed_out'")
    wait_for(lambda: world.connections() == 0, "the stream is closed")
    world.notify("alice", "secret")
    assert received(tab) == []


def test_a_page_never_continues_as_somebody_else(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """Another tab has signed in as bob: alice's page must get nothing of his."""
    world = make_world()
    tab = world.open(browser, "alice", **AGING)
    world.site.becomes["alice"] = "bob"
    tab.wait("return push.info().state === 'revoked'")
    assert info(tab)["lastError"]["code"] == "user_changed"
    wait_for(lambda: world.connections() == 0, "the stream is closed")
    world.notify("bob", "secret")
    assert received(tab) == []


def test_behind_a_buffering_proxy_it_polls_and_says_why(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """It knows nothing of WebSockets either, and is in the way of both."""
    with BufferingProxy("/subscribe/stream") as proxy:
        world = make_world(front=proxy.before)
        tab = world.open(browser, "alice", channels="node:1")
        found = info(tab)
        assert (found["transport"], found["transportReason"]) == ("poll", "buffered")
        for number in range(20):
            world.notify("alice", number)
        expect(tab, list(range(20)))
        assert events(tab, "reset") == []
        wait_for(
            lambda: world.push.api("stats").get("fallbacks.poll.buffered") == 1, "the server knows"
        )
        # It is remembered: the next visit does not spend seconds on finding out.
        tab.close()
        wait_for(lambda: world.connections() == 0, "the last page ends the connection")
        streams = proxy.held
        tab = world.open(browser, "alice", channels="node:1")
        assert proxy.held == streams
        assert info(tab)["transportReason"] == "buffered"
        # Held polls, not a poll every moment.
        before = world.connects()
        time.sleep(2)
        assert world.connects() - before <= 2


def test_where_a_websocket_is_blocked_a_stream_is_used(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    with BufferingProxy("/none") as proxy:
        world = make_world(front=proxy.before)
        tab = world.open(browser, "alice")
        assert (info(tab)["transport"], info(tab)["transportReason"]) == ("stream", "blocked")
        world.notify("alice", 1)
        expect(tab, [1])
        assert world.push.api("stats")["fallbacks.stream.blocked"] == 1
        assert [code for _, code, _ in events(tab, "error")] == []


def test_where_websockets_are_cut_a_stream_is_used(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """Each begins well and ends half a second later; nothing is missed meanwhile."""
    with CuttingProxy("/subscribe/ws") as proxy:
        world = make_world(front=proxy.before)
        tab = world.open(browser, "alice", share="lease")
        sent = 0
        while info(tab)["transport"] != "stream":
            world.notify("alice", sent)
            sent += 1
            tab.wait("return got.length >= arguments[0]", sent)
        assert info(tab)["transportReason"] == "cut"
        world.notify("alice", sent)
        expect(tab, list(range(sent + 1)))
        assert events(tab, "reset") == []
        assert world.push.api("stats")["fallbacks.stream.cut"] == 1
