"""The demo as a visitor meets it: started by its own launcher, seen in two real browsers."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from driver import Browser, Tab
from ports import free_port

from cms_module.demo_site import run

LIVE = "return document.getElementById('live').dataset.state === 'live'"
UNREAD = "return document.querySelector('.pn-counter').textContent"
COLLECT = """
window.got = [];
site.push.subscribe("draw:board", (data, publication) => got.push(publication));
"""
WITHOUT_A_TOKEN = """
(({ fetch }) => {
  const free = new Promise((done) => { window.letIn = done; });
  window.fetch = async (path, how) => {
    if (String(path).endsWith("/push/token")) await free;
    return fetch(path, how);
  };
})(window);
"""
"""Keeps a page from going live until it calls `letIn()`."""
INK = """
const canvas = document.getElementById("board");
const context = canvas.getContext("2d");
const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
return data.filter((value, index) => index % 4 === 3 && value > 0).length;
"""


class Demo:
    """The two servers of the demo."""

    def __init__(self, folder: Path) -> None:
        self.places = run.Places(folder, free_port(), free_port(), free_port())
        self.children = run.start(self.places)
        self.push = self.children[0]

    def restart_push(self) -> None:
        """Start the push server again, as it was."""
        self.push = run.serve(self.places)
        self.children[0] = self.push

    def open(self, browser: Browser, path: str) -> Tab:
        """A tab with this page, connected."""
        tab = browser.open(self.places.site_url + path)
        tab.wait(LIVE)
        return tab

    def come_in(self, browser: Browser, person: str) -> Tab:
        """Log in as this person."""
        tab = browser.open(self.places.site_url + "/")
        tab.run("document.querySelector(`button[value=${arguments[0]}]`).click()", person)
        tab.wait(f"return document.getElementById('live') && (() => {{ {LIVE} }})()")
        return tab


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    started = Demo(tmp_path)
    yield started
    run.stop(started.children)


def drag(tab: Tab, path: list[tuple[float, float]]) -> None:
    """Draw on the sheet with the mouse, along points given as parts of its width and height."""
    tab.run("document.getElementById('board').scrollIntoView({block: 'center'})")
    box = tab.run(
        "const b = document.getElementById('board').getBoundingClientRect();"
        "return [b.left, b.top, b.width, b.height]"
    )
    for step, (x, y) in enumerate([*path, path[-1]]):
        kind = "Pressed" if step == 0 else "Released" if step == len(path) else "Moved"
        tab.cdp(
            "Input.dispatchMouseEvent",
            type=f"mouse{kind}",
            x=box[0] + x * box[2],
            y=box[1] + y * box[3],
            button="left",
            buttons=0 if kind == "Released" else 1,
            clickCount=1,
        )


def test_bell_counts_what_bob_sends(demo: Demo, browser: Browser, other_browser: Browser) -> None:
    alice = demo.come_in(browser, "alice")
    elsewhere = demo.open(browser, "/chat")
    bob = demo.come_in(other_browser, "bob")
    for tab in (alice, bob):
        tab.wait("return document.querySelector('.pn-counter').textContent === '1'")
    assert alice.run("return site.push.info().bridge") == "document.domain"

    # What is said there is taken back after a while.
    bob.run(
        "const result = document.getElementById('send-result'); window.said = [];"
        "new MutationObserver(() => said.push(result.textContent))"
        ".observe(result, {childList: true});"
        "document.querySelector('input[name=title]').value = arguments[0];"
        "document.querySelector('#send button').click()",
        "<img src=x onerror=alert(1)>",
    )
    for tab in (alice, elsewhere):
        tab.wait("return document.querySelector('.pn-counter').textContent === '2'")
        toast = tab.wait("return document.querySelector('.pn-toast strong').textContent")
        assert toast == "<img src=x onerror=alert(1)>"
        assert tab.run("return document.title").startswith("(2) ")
    assert bob.run(UNREAD) == "1"
    bob.wait("return said[0] === 'Sent.'")

    # Opened in one tab, seen in all of them.
    elsewhere.run("document.querySelector('.pn-bell').click()")
    for tab in (alice, elsewhere):
        tab.wait("return document.querySelector('.pn-counter').hidden")
    assert elsewhere.run("return document.activeElement.className") == "pn-panel"
    elsewhere.run(
        "document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))"
    )
    assert elsewhere.run("return document.activeElement.className") == "pn-bell"
    assert elsewhere.run("return document.querySelector('.pn-panel').hidden")


def test_stroke_reaches_bob_and_is_not_echoed(
    demo: Demo, browser: Browser, other_browser: Browser
) -> None:
    demo.come_in(browser, "alice")
    demo.come_in(other_browser, "bob")
    alice, bob = demo.open(browser, "/whiteboard"), demo.open(other_browser, "/whiteboard")
    for tab in (alice, bob):
        tab.wait("return document.getElementById('board').dataset.ready")
        tab.run(COLLECT)
        assert tab.run(INK) == 0
    drag(alice, [(0.1 + n / 50, 0.2 + n / 60) for n in range(30)])
    bob.wait("return got.length > 0 && got.at(-1).data.points.slice(-2)[0] >= 2000")
    assert bob.run(INK) > 100
    assert alice.run(INK) > 100

    newcomer = demo.open(other_browser, "/whiteboard")
    newcomer.wait("return document.getElementById('board').dataset.ready")
    newcomer.wait(INK)

    # The wipe comes after the stroke in the same channel: had an echo come, it came before.
    alice.run("document.querySelector('#clear button').click()")
    for tab in (alice, bob, newcomer):
        tab.wait(f"return (() => {{ {INK} }})() === 0")
    assert alice.run("return got.map((publication) => Object.keys(publication.data))") == [
        ["clear", "name"]
    ]
    pieces = bob.run("return got.slice(0, -1).map((publication) => publication.data.points)")
    for before, after in pairwise(pieces):
        assert before[-2:] == after[:2]


def test_chat_slides_and_signals(demo: Demo, browser: Browser, other_browser: Browser) -> None:
    for tab in (demo.come_in(browser, "alice"), demo.come_in(other_browser, "bob")):
        tab.console()

    alice, bob = demo.open(browser, "/chat"), demo.open(other_browser, "/chat")
    text = "<b>Rain & sun</b> ☀"
    alice.run(
        "document.getElementById('text').value = arguments[0];"
        "document.querySelector('#say button').click()",
        text,
    )
    last = "return [...document.querySelectorAll('.message')].at(-1).querySelector('.said')"
    for tab in (alice, bob):
        tab.wait(f"{last}.textContent === arguments[0]", text)
        assert tab.run("return document.querySelectorAll('.message').length") == 4
    # Turned, or with its keyboard shown, a phone still shows the latest.
    alice.cdp(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=420,
        deviceScaleFactor=1,
        mobile=True,
    )
    alice.wait(
        "const talk = document.getElementById('talk').getBoundingClientRect();"
        "const list = document.getElementById('messages').getBoundingClientRect();"
        "return list.height > talk.height && list.bottom < talk.bottom"
    )

    presenter = demo.open(browser, "/slides?present=1")
    audience = demo.open(other_browser, "/slides")
    for tab in (presenter, audience):
        tab.wait("return push.info().state === 'live'")
    presenter.run("document.getElementById('next').click()")
    page = "return document.getElementById('page').textContent === '2 of 6'"
    audience.wait(page)
    latecomer = demo.open(other_browser, "/slides")
    assert latecomer.run(page)

    # Somebody turns the page when this one has been made and is not live yet.
    late = other_browser.tab()
    late.before_every_page(WITHOUT_A_TOKEN)
    late.goto(demo.places.site_url + "/slides")
    assert late.run(page)
    presenter.run("document.getElementById('next').click()")
    turned = page.replace("2 of 6", "3 of 6")
    audience.wait(turned)
    late.run("letIn()")
    late.wait(turned)

    status = demo.open(browser, "/status")
    status.run("document.querySelector('#echo button').click()")
    status.wait("return document.getElementById('trip-result').textContent.includes('all the way')")
    assert status.run("return document.querySelector('[data-fact=state]').textContent") == "live"
    for tab in (alice, bob, presenter, audience, status):
        assert tab.console() == []


def test_logging_out_closes_every_tab_of_the_session(demo: Demo, browser: Browser) -> None:
    alice = demo.come_in(browser, "alice")
    elsewhere = demo.open(browser, "/chat")
    alice.run("document.querySelector('.menu button').click()")
    for tab in (alice, elsewhere):
        tab.wait("return document.querySelector('.doors') !== null")


def test_site_works_while_push_is_away_and_catches_up(demo: Demo, browser: Browser) -> None:
    """Even in a page that was opened meanwhile; the site published it all to nobody."""
    before = demo.come_in(browser, "alice")
    counted = f"return (() => {{ {UNREAD} }})() === arguments[0]"
    before.wait(counted, "1")
    demo.push.stop()
    meanwhile = browser.open(demo.places.site_url + "/chat")
    meanwhile.run(
        "document.getElementById('text').value = 'Hello?';"
        "document.querySelector('#say button').click()"
    )
    meanwhile.wait("return document.querySelectorAll('.message').length === 4")
    for path in ("/slides", "/status", "/whiteboard"):
        meanwhile.goto(demo.places.site_url + path)
        assert meanwhile.run("return document.querySelector('h1').textContent")
    meanwhile.run("document.querySelector('#clear button').click()")
    meanwhile.wait(
        "return document.getElementById('board-status').textContent.includes('not be wiped')"
    )
    meanwhile.run("return site.post('/notifications/send', {to: 'everybody', title: 'Cake'})")
    demo.restart_push()
    for tab in (before, meanwhile):
        tab.wait(LIVE)
        tab.wait(counted, "2")
