"""One connection for all tabs, on each of the ways to share it.

On a plain http site a browser without SharedWorker has the lease; Web Locks exist in secure
contexts only, of which names under ``.localhost`` are one. `share` switches the other ways off.
"""

from collections.abc import Callable

import pytest
from driver import Browser, Tab
from waiting import wait_for
from world import World, events, expect, in_both_browsers, info, live, received

WAYS = {"worker": "example.test", "locks": "example.localhost", "lease": "example.test"}
LEADERS = {way: domain for way, domain in WAYS.items() if way != "worker"}

Worlds = Callable[..., World]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LEADERS)
def leader_way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_tabs(browser: Browser, world: World, way: str, number: int, **options: str) -> list[Tab]:
    """So many tabs of one user, all live and all on this way."""
    tabs = [world.open(browser, "alice", share=way, **options) for _ in range(number)]
    assert {info(tab)["sharing"] for tab in tabs} == {way}
    return tabs


@in_both_browsers
def test_eight_tabs_one_connection(browser: Browser, make_world: Worlds, way: str) -> None:
    """A browser grants six connections to a host on HTTP/1.1: the seventh tab would not load."""
    world = make_world(WAYS[way])
    before = world.connects()
    tabs = open_tabs(browser, world, way, 8, channels="node:1")
    assert world.connections() == 1
    world.push.api("publish", channel="node:1", data="all")
    for tab in tabs:
        expect(tab, ["all"])
    assert len({info(tab)["connection"] for tab in tabs}) == 1
    assert len({info(tab)["instance"] for tab in tabs}) == 8
    # All of them took up their channels at once or found them there.
    assert world.connects() - before <= 2
    for tab in tabs[:-1]:
        tab.close()
    wait_for(lambda: world.connections() == 1, "the last tab has the connection")
    world.push.api("publish", channel="node:1", data="last")
    expect(tabs[-1], ["all", "last"])
    tabs[-1].close()
    wait_for(lambda: world.connections() == 0, "the last tab closes the connection")


@in_both_browsers
def test_no_gap_and_no_duplicate_when_the_leader_goes(
    browser: Browser, make_world: Worlds, leader_way: str
) -> None:
    """By closing its tab, or by following a link: something is always published."""
    world = make_world(LEADERS[leader_way])
    first, second, third = open_tabs(browser, world, leader_way, 3, channels="node:1")
    sent: list[int] = []

    def publish(count: int = 5) -> None:
        for _ in range(count):
            sent.append(len(sent))
            world.push.api("publish", channel="node:1", data=sent[-1])

    publish()
    elsewhere = world.url("alice", share=leader_way)
    first.run("setTimeout(() => { location.href = arguments[0] }, 0)", elsewhere)
    publish(20)
    for tab in (second, third):
        expect(tab, sent)
    first.wait("return document.readyState === 'complete' && !options.channels.includes('node:1')")
    live(first)
    second.close()
    publish(20)
    expect(third, sent)
    assert events(third, "reset") == []
    wait_for(lambda: world.connections() == 1, "one of them leads")


def test_a_leader_that_was_left_comes_back(
    browser: Browser, make_world: Worlds, leader_way: str
) -> None:
    """From the back/forward cache, where it had no part in any connection."""
    world = make_world(LEADERS[leader_way])
    leader, other = open_tabs(browser, world, leader_way, 2, channels="node:1")
    instance = info(leader)["instance"]
    leader.goto(world.site.url(world.host, path="/elsewhere"))
    world.push.api("publish", channel="node:1", data=1)
    expect(other, [1])
    leader.back()
    expect(leader, [1])
    assert info(leader)["instance"] == instance, "the page was loaded anew, not restored"
    other.close()
    world.push.api("publish", channel="node:1", data=2)
    expect(leader, [1, 2])
    assert events(leader, "reset") == []
    wait_for(lambda: world.connections() == 1, "it leads again")


PATIENT = """
const real = setTimeout;
window.setTimeout = (work, delay) => real(work, delay === 60 ? 2000 : delay);
"""
"""Has an heir wait for the others as long as they need on a machine that is busy."""


def test_an_heir_asks_once_for_all(browser: Browser, make_world: Worlds, leader_way: str) -> None:
    """All pages have the same cursor, so none of them has to be brought up to date by itself."""
    world = make_world(LEADERS[leader_way])
    tabs = [browser.tab() for _ in range(4)]
    for number, tab in enumerate(tabs):
        tab.before_every_page(PATIENT)
        tab.goto(world.url("alice", share=leader_way, channels=f"node:{number}"))
        live(tab)
    world.push.api("publish", channel="node:3", data=1)
    world.notify("alice", "all")
    for tab in tabs:
        tab.wait("return got.some(([, data]) => data === 'all')")
    before = world.connects()
    tabs[0].close()
    wait_for(lambda: world.connects() > before, "another one leads")
    for tab in tabs[1:]:
        tab.wait("return push.info().state === 'live'")
    world.push.api("broadcast", channels=["node:1", "node:2", "node:3"], data=2)
    expect(tabs[1], ["all", 2])
    expect(tabs[2], ["all", 2])
    expect(tabs[3], [1, "all", 2])
    assert world.connects() - before == 1
    assert [events(tab, "reset") for tab in tabs[1:]] == [[], [], []]


DEAF = """
window.deaf = false;
window.addEventListener("message", ({data}) => { if (typeof data === "boolean") deaf = data; });
window.BroadcastChannel = class extends BroadcastChannel {
  set onmessage(take) { super.onmessage = (event) => deaf || take(event); }
  get onmessage() { return super.onmessage; }
  postMessage(message) { if (!deaf) super.postMessage(message); }
};
"""
"""Lets a page cut its frame off from the others and back, by `frames[0].postMessage(…)`."""


def test_a_leader_that_is_frozen_hands_over(
    browser: Browser, make_world: Worlds, leader_way: str
) -> None:
    world = make_world(LEADERS[leader_way])
    sleeper, awake = open_tabs(browser, world, leader_way, 2, channels="node:1")
    sleeper.cdp("Page.setWebLifecycleState", state="frozen")
    world.push.api("publish", channel="node:1", data=1)
    expect(awake, [1])
    wait_for(lambda: world.connections() == 1, "a frozen page has no connection")
    sleeper.cdp("Page.setWebLifecycleState", state="active")
    world.push.api("publish", channel="node:1", data=2)
    for tab in (sleeper, awake):
        expect(tab, [1, 2])
        assert events(tab, "reset") == []
    assert world.connections() == 1


def test_a_leader_that_does_not_answer_is_replaced(
    browser: Browser, make_world: Worlds, leader_way: str
) -> None:
    """It keeps its connection for a while; when it hears again, it finds that another one leads."""
    world = make_world(LEADERS[leader_way])
    deaf = browser.tab()
    deaf.before_every_page(DEAF)
    deaf.goto(world.url("alice", share=leader_way, channels="node:1"))
    live(deaf)
    hearing = world.open(browser, "alice", share=leader_way, channels="node:1")
    assert world.connections() == 1
    deaf.run("frames[0].postMessage(true, '*')")
    world.push.api("publish", channel="node:1", data=1)
    expect(hearing, [1])
    deaf.run("frames[0].postMessage(false, '*')")
    world.push.api("publish", channel="node:1", data=2)
    for tab in (deaf, hearing):
        expect(tab, [1, 2])
        assert events(tab, "reset") == []
    wait_for(lambda: world.connections() == 1, "only the new one leads")


def test_channels_of_all_tabs_and_to_each_its_own(
    browser: Browser, make_world: Worlds, way: str
) -> None:
    world = make_world(WAYS[way])
    one = world.open(browser, "alice", share=way, channels="node:1,both:1")
    connection = info(one)["connection"]
    two = world.open(browser, "alice", share=way, channels="node:2,both:1")
    for channel in ("node:1", "node:2", "both:1"):
        world.push.api("publish", channel=channel, data=channel)
    expect(one, ["node:1", "both:1"])
    expect(two, ["node:2", "both:1"])
    two.run("push.unsubscribe('node:2'); push.subscribe('node:3', (data) => got.push(['', data]))")
    two.wait("return events.some(([kind, names]) => names.includes('node:3'))")
    world.push.api("broadcast", channels=["node:2", "node:3"], data="later")
    expect(two, ["node:2", "both:1", "later"])
    assert received(one) == ["node:1", "both:1"]
    assert events(one, "reset") == events(two, "reset") == []
    # All that on the WebSocket that the first page opened.
    assert {info(tab)["connection"] for tab in (one, two)} == {connection}


@in_both_browsers
def test_another_user_ends_the_one_before_at_once(
    browser: Browser, make_world: Worlds, way: str
) -> None:
    """A tab of somebody who has logged out meanwhile does not wait until its token ends."""
    world = make_world(WAYS[way])
    old = [world.open(browser, "alice", share=way) for _ in range(7)]
    world.site.becomes["alice"] = "bob"
    bob = world.open(browser, "bob", share=way)
    for tab in old:
        tab.wait("return push.info().state === 'revoked'")
        assert events(tab, "revoked")[0][1] == "user_changed"
    wait_for(lambda: world.connections() == 1, "only the new user is connected")
    world.notify("alice", "private")
    world.notify("bob", "mine")
    expect(bob, ["mine"])


def test_another_user_s_page_alone_ends_nothing(browser: Browser, world: World) -> None:
    """The old pages ask their own site, and it still knows them."""
    alice = world.open(browser, "staying")
    asked = len(world.site.asked["staying"])
    world.open(browser, "passing")
    wait_for(lambda: len(world.site.asked["staying"]) > asked, "the page makes sure")
    world.notify("staying", 1)
    expect(alice, [1])


def test_publications_survive_a_change_of_leaders(
    browser: Browser, make_world: Worlds, leader_way: str
) -> None:
    """Sent again with the same id: none is lost, none comes twice, and all keep their order."""
    world = make_world(LEADERS[leader_way])
    leader, writer, reader = open_tabs(browser, world, leader_way, 3, channels="chat:1")
    writer.run("for (let n = 0; n < 60; n += 1) say(n, 'chat:1', n)")
    leader.close()
    expect(reader, list(range(60)))
    expect(writer, list(range(60)))
    writer.wait("return Object.keys(answers).length === 60")
    assert not writer.run("return Object.values(answers).some(({code}) => code)")


def test_thirty_tabs_do_not_freeze_the_site(
    browser: Browser, make_world: Worlds, way: str
) -> None:
    """Opened at once, so that all of them stand for election; on a stream, which is one of the six
    connections that a browser grants to a host, as a WebSocket is not."""
    world = make_world(WAYS[way])
    first = browser.tab()
    first.goto(world.site.url(world.host, path="/elsewhere"))
    first.run(
        "window.tabs = Array.from({length: 30}, () => window.open(arguments[0]))",
        world.url("alice", share=way, transports="stream"),
    )
    first.wait("return tabs.every(({push}) => push && push.info().state === 'live')", timeout=60)
    ways = first.run("return [...new Set(tabs.map(({push}) => push.info().sharing))]")
    assert ways == [way]
    wait_for(lambda: world.connections() == 1, "they have one connection")
    world.notify("alice", 1)
    first.wait("return tabs.every(({got}) => got.length === 1)")
    # The push host still answers the browser: no connection is stuck in a queue.
    first.run("tabs[29].say('one', 'chat:thirty', 1)")
    assert first.wait("return tabs[29].answers.one")["offset"] == 1


def test_switched_off_every_page_has_its_own(browser: Browser, make_world: Worlds) -> None:
    world = make_world()
    tabs = [world.open(browser, "alice", share="none") for _ in range(3)]
    assert {info(tab)["sharing"] for tab in tabs} == {"none"}
    assert world.connections() == 3
    world.notify("alice", 1)
    for tab in tabs:
        expect(tab, [1])


def test_what_is_not_there_is_done_without(browser: Browser, make_world: Worlds) -> None:
    """There are no Web Locks on plain http."""
    world = make_world()
    assert info(world.open(browser, "alice", share="locks"))["sharing"] == "none"
    assert info(world.open(browser, "alice", share="?"))["sharing"] == "none"
