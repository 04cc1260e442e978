"""What pages of one and of several users get, with one tab, eight tabs, and the back button."""

from collections.abc import Callable

import pytest
from driver import Browser
from waiting import PATIENCE, wait_for
from world import World, events, expect, in_both_browsers, info, live, received

NO_WORKER = "delete window.SharedWorker"


@in_both_browsers
def test_a_notification_reaches_its_user_and_nobody_else(
    browser: Browser, other_browser: Browser, world: World
) -> None:
    """Two people at two computers, and a third who shares the first one's browser."""
    alice = world.open(browser, "alice")
    bob = world.open(other_browser, "bob")
    carol = world.open(browser, "carol")
    world.notify("alice", {"text": "for alice"})
    world.notify("bob", {"text": "for bob"})
    world.notify("carol", {"text": "for carol"})
    expect(alice, [{"text": "for alice"}])
    expect(bob, [{"text": "for bob"}])
    expect(carol, [{"text": "for carol"}])
    assert len({info(tab)["connection"] for tab in (alice, bob, carol)}) == 3


def test_channels_come_and_go_while_the_page_lives(browser: Browser, world: World) -> None:
    tab = world.open(browser, "changing", channels="node:11")
    tab.run(
        "window.stop = push.subscribe('node:12', (data) => got.push(['node:12', data]));"
        "options.channels.push('node:12')"
    )
    live(tab)
    world.push.api("publish", channel="node:12", data=1)
    expect(tab, [1])
    tab.run("window.stop()")
    world.push.api("publish", channel="node:12", data=2)
    world.push.api("publish", channel="node:11", data=3)
    expect(tab, [1, 3])
    assert events(tab, "reset") == []


def test_a_channel_that_is_not_granted_is_named_and_harms_no_other(
    browser: Browser, world: World
) -> None:
    world.site.grants["limited"] = ["node:1"]
    tab = browser.open(world.url("limited", channels="node:1,node:2,user:alice"))
    tab.wait("return events.some(([kind, names]) => kind === 'subscribed')")
    tab.wait("return events.some(([kind, code]) => code === 'channel_denied')")
    assert any("node:2, user:alice" in entry[2] for entry in events(tab, "error"))
    world.push.api("publish", channel="user:alice", data="private")
    world.push.api("publish", channel="node:2", data="private")
    world.push.api("publish", channel="node:1", data="granted")
    world.notify("limited", "mine")
    expect(tab, ["granted", "mine"])


def test_only_denied_channels_leave_the_personal_one(browser: Browser, world: World) -> None:
    """The server refuses such a request as a whole; the user's own channel is granted though."""
    world.site.grants["denied"] = []
    tab = browser.open(world.url("denied", channels="node:1,node:2"))
    tab.wait("return events.some(([kind, code]) => code === 'channel_denied')")
    world.notify("denied", "mine")
    expect(tab, ["mine"])


def test_links_back_and_forward_leave_one_connection(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """Pages in the back/forward cache hold no stream, and catch up when they are shown again."""
    world = make_world()
    tab = world.open(browser, "alice", channels="node:1")
    instance = info(tab)["instance"]
    for number in range(2, 8):
        tab.goto(world.url("alice", channels=f"node:{number}"))
        live(tab)
    wait_for(lambda: world.connections() == 1, "only the last page has one")
    # Another tab keeps the shared connection going, so that its cursor runs ahead.
    other = world.open(browser, "alice", channels="node:1")
    world.push.api("publish", channel="node:1", data="missed")
    world.notify("alice", "missed too")
    expect(other, ["missed", "missed too"])
    for _ in range(6):
        tab.back()
    tab.wait("return options.channels.includes('node:1')")
    assert info(tab)["instance"] == instance, "the page was loaded anew, not restored"
    tab.wait("return got.length >= 2")
    world.push.api("publish", channel="node:1", data="live")
    tab.wait("return got.length >= 3")
    assert received(tab, "node:1") == ["missed", "live"]
    assert received(tab, "user:alice") == ["missed too"]
    assert events(tab, "reset") == []
    wait_for(lambda: world.connections() == 1, "both share one")
    for _ in range(6):
        tab.forward()
    tab.wait("return options.channels.includes('node:7')")
    live(tab)
    wait_for(lambda: world.connections() == 1, "both share one")


@in_both_browsers
def test_the_only_page_comes_back_and_catches_up(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """Nobody else kept the connection: the page's own cursor is all there is."""
    world = make_world()
    tab = world.open(browser, "alice")
    instance = info(tab)["instance"]
    world.notify("alice", 1)
    expect(tab, [1])
    tab.goto(world.site.url(world.host, path="/elsewhere"))
    # Firefox puts the worker of a cached page to sleep, sometimes before the worker has heard
    # that the page is gone. Then the connection sleeps with it, and nothing else is different.
    closes = browser.name == "Chromium"
    if closes:
        wait_for(lambda: world.connections() == 0, "a cached page keeps no connection")
    world.notify("alice", 2)
    tab.back()
    expect(tab, [1, 2])
    assert info(tab)["instance"] == instance, "the page was loaded anew, not restored"
    assert events(tab, "recovered") or not closes
    assert events(tab, "reset") == []


def test_without_a_shared_worker_the_frame_does_the_work(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    world = make_world()
    tab = browser.tab()
    tab.before_every_page(NO_WORKER)
    tab.goto(world.url("alice"))
    assert live(tab)["sharing"] == "lease"
    world.notify("alice", 1)
    expect(tab, [1])
    # Such a page may keep nothing open when it is left, not for a moment.
    instance = info(tab)["instance"]
    tab.goto(world.site.url(world.host, path="/elsewhere"))
    wait_for(lambda: world.connections() == 0, "the frame closes its stream in pagehide")
    world.notify("alice", 2)
    tab.back()
    expect(tab, [1, 2])
    assert info(tab)["instance"] == instance, "the page was loaded anew, not restored"
    assert world.connections() == 1


@pytest.mark.parametrize(
    ("forbidden", "sharing"),
    [("SharedWorker", "lease"), ("BroadcastChannel", "none"), ("locks setItem", "none")],
    ids=str,
)
def test_where_storage_is_blocked_it_is_done_without(
    browser: Browser, world: World, forbidden: str, sharing: str
) -> None:
    """Browsers throw from the constructors, reject what is asked for, or find no room."""
    tab = browser.tab()
    tab.before_every_page(f"""
        const forbidden = "SharedWorker {forbidden}".split(" ");
        const refuse = function () {{ throw new DOMException("no", "SecurityError"); }};
        for (const name of forbidden) {{
          if (name === "setItem") Storage.prototype.setItem = refuse;
          else if (name in window) window[name] = refuse;
          else Object.defineProperty(navigator, name, {{value: {{request: async () => refuse()}}}});
        }}
    """)
    tab.goto(world.url("blocked"))
    assert live(tab)["sharing"] == sharing
    world.notify("blocked", 1)
    expect(tab, [1])


def test_the_status_element_says_it_in_words(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    world = make_world()
    tab = world.open(browser, "alice")
    shown = "return document.querySelector('push-status').textContent"
    tab.wait(f"{shown} === 'Live'")
    assert tab.run("return document.querySelector('push-status').getAttribute('role')") == "status"
    tab.run("document.body.append(push.statusElement())")
    assert tab.run("return document.querySelectorAll('push-status')[1].textContent") == "Live"
    world.push.kill()
    tab.wait(f"{shown} === 'Reconnecting…'")
    world.push.start()
    tab.wait(f"{shown} === 'Live'", timeout=2 * PATIENCE)
    tab.run("push.close()")
    tab.wait(f"{shown} === 'Off'")
    wait_for(lambda: world.connections() == 0, "close() closes")
    # What was not told which connection to show goes on with the next one.
    tab.run("push = Push.connect({server: options.push, token: options.token})")
    tab.wait(f"{shown} === 'Live'")
    assert tab.run("return document.querySelectorAll('push-status')[1].textContent") == "Off"
