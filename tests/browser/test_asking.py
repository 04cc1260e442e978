"""What a page asks for besides news: to publish, and who is there.

From a tab that follows, on a WebSocket, which carries it, and on transports that do not.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGSTOP

import pytest
from driver import Browser, Tab
from waiting import PATIENCE, wait_for
from world import World, events, expect, info, live, received

Worlds = Callable[..., World]

LONG = 2 * PATIENCE
ROOM = {"room": {"presence": True, "join_leave": True}}
WAYS = {
    "worker, websocket": ("worker", "websocket", "example.test"),
    "lease, websocket": ("lease", "websocket", "example.test"),
    "locks, stream": ("locks", "stream", "example.localhost"),
    "worker, poll": ("worker", "poll", "example.test"),
}

BLOCKS = (Path(__file__).resolve().parents[2] / "docs/browser.rst").read_text("utf-8")
EXAMPLE = next(
    block for block in re.findall(r"\.\. code-block:: javascript\n\n((?:    .*\n|\n)+)", BLOCKS)
    if "push.presence" in block
)

LOSE_ANSWERS = """
window.WebSocket = class extends WebSocket {
  set onmessage(take) {
    super.onmessage = (event) => {
      if (event.data.includes('"duplicate"')) this.close();
      else take(event);
    };
  }
  get onmessage() { return super.onmessage; }
};
"""
"""Ends a connection when a publication is answered, before anybody hears of it."""


def two_tabs(browser: Browser, world: World, where: str, channel: str) -> tuple[Tab, Tab]:
    """Two live tabs of alice on one connection; the second one leads nobody."""
    share, transport, _ = WAYS[where]
    options = {"share": share, "transports": transport, "channels": channel}
    first, second = (world.open(browser, "alice", **options) for _ in range(2))
    for tab in (first, second):
        assert (info(tab)["sharing"], info(tab)["transport"]) == (share, transport)
    assert world.connections() == 1
    return first, second


def commands(world: World, method: str) -> int:
    """How often this was asked on a WebSocket."""
    return int(world.push.api("stats").get(f"commands.{method}", 0))


def who(tab: Tab, channel: str) -> list[str]:
    """Who is there as the page is told; or why it is not told."""
    tab.run(
        "window.said = null; push.presence(arguments[0]).then("
        " ({users}) => { window.said = [Object.keys(users).sort()] },"
        " ({code}) => { window.said = [[code]] })",
        channel,
    )
    found: list[str] = tab.wait("return window.said")[0]
    return found


@pytest.mark.parametrize("where", ["lease, websocket", "worker, poll"])
def test_the_author_is_spared_live_and_when_he_comes_back(
    browser: Browser, make_world: Worlds, where: str
) -> None:
    """`echo: false` spares the page that published, never the other one beside it.

    And each comes once, in order, whatever becomes of the server.
    """
    world = make_world(WAYS[where][2], broker="sqlite")
    other, author = two_tabs(browser, world, where, "chat:1")
    author.run("for (let n = 0; n < 20; n += 1) say(n, 'chat:1', n, {echo: n % 2 === 0})")
    expect(other, list(range(20)))
    expect(author, list(range(0, 20, 2)))
    author.wait("return Object.keys(answers).length === 20")
    assert commands(world, "publish") == (20 if "websocket" in where else 0)

    # The server dies before it reads the next two: they come again, and are recovered for others.
    world.push.signal(SIGSTOP)
    author.run("say('silent', 'chat:1', 'silent', {echo: false}); say('loud', 'chat:1', 'loud')")
    world.push.kill()
    world.push.start()
    expect(other, [*range(20), "silent", "loud"], timeout=LONG)
    expect(author, [*range(0, 20, 2), "loud"], timeout=LONG)
    # Once more from a cursor before all of that: in a page out of the back/forward cache.
    author.goto(world.site.url(world.host, path="/elsewhere"))
    world.push.api("publish", channel="chat:1", data="meanwhile")
    author.back()
    expect(author, [*range(0, 20, 2), "loud", "meanwhile"])
    assert events(author, "reset") == events(other, "reset") == []


def test_a_publication_whose_answer_is_lost_is_published_once(
    browser: Browser, make_world: Worlds
) -> None:
    """The WebSocket ends between the two: the page asks again beside it, with the same id."""
    world = make_world()
    tab = browser.tab()
    tab.before_every_page(LOSE_ANSWERS)
    tab.goto(world.url("alice", share="none", transports="websocket", channels="chat:1"))
    live(tab)
    tab.run("say('one', 'chat:1', 1)")
    answer = tab.wait("return answers.one")
    assert (answer["offset"], answer["duplicate"]) == (1, True)
    assert commands(world, "publish") == 1
    tab.wait("return push.info().state === 'live'")
    world.push.api("publish", channel="chat:1", data=2)
    expect(tab, [1, 2])


def test_a_large_or_hurried_publication_does_not_end_the_connection(
    browser: Browser, make_world: Worlds
) -> None:
    """A server ends a WebSocket that asks for too much; so that is asked for beside it."""
    world = make_world(namespace={"quiet": {"client_publish": False}})
    tab = world.open(browser, "alice", transports="websocket", channels="chat:1")
    connection = info(tab)["connection"]
    begun = time.monotonic()
    tab.run(
        "(async () => {"
        " for (let n = 0; n < 400; n += 1) await push.publish('chat:1', n);"
        " say('long', 'chat:1', 'ž'.repeat(5000)); say('huge', 'chat:1', 'x'.repeat(400000));"
        " say('refused', 'quiet:1', 1);"
        "})()"
    )
    assert tab.run("try { push.publish('no/ channel', 1) } catch (error) { return error.name }")
    assert tab.wait("return answers.refused") == {"code": "channel_denied", "stored": False}
    assert tab.run("return answers.huge.stored") is False
    assert tab.run("return answers.long.offset") == 401
    tab.wait("return got.length === 401")
    assert received(tab)[:400] == list(range(400))
    assert info(tab)["connection"] == connection
    # A hundred at once, and a hundred a second.
    assert 100 < commands(world, "publish") <= 101 + 100 * (time.monotonic() - begun)


@pytest.mark.parametrize("where", ["worker, websocket", "locks, stream"])
def test_who_is_there(browser: Browser, make_world: Worlds, where: str) -> None:
    """Asked by hand, and with the lines that docs/browser.rst gives."""
    world = make_world(WAYS[where][2], namespace=ROOM, presence_grace=1)
    _, alice = two_tabs(browser, world, where, "room:7")
    assert who(alice, "room:7") == ["alice"]
    alice.run(f"{EXAMPLE}\nwindow.there = there;")
    # The example asks on each new connection.
    assert world.push.api("disconnect", user="alice")["closed"] == 1
    alice.wait("return there.has('alice')")
    share, transports, _ = WAYS[where]
    bob = world.open(browser, "bob", share=share, transports=transports, channels="room:7")
    wait_for(lambda: who(alice, "room:7") == ["alice", "bob"], "bob is there")
    assert who(bob, "room:7") == ["alice", "bob"]
    alice.wait("return there.has('bob')")
    bob.close()
    wait_for(lambda: who(alice, "room:7") == ["alice"], "bob has left")
    alice.wait("return !there.has('bob') && there.has('alice')")
    assert bool(commands(world, "presence")) == ("websocket" in where)
    assert who(alice, "chat:1") == ["presence_denied"]
