"""The bell and its list in a real browser: by keyboard, read out, mounted twice, on any page.

The push server is a double here, in the page; test_demo.py has the real one. Every page has the
strictest Content-Security-Policy that the component can live under, and the console has to stay
empty. What a page does is said in its query: ``lang`` and ``dir`` of the document, ``options``
as JSON for the script below.
"""

import json
import threading
from collections.abc import Callable, Iterator
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from driver import Browser, Tab

COMPONENT = Path(__file__).resolve().parents[2] / "cms_module" / "notifications"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:"
OPEN_LIST = '<ul class="pn-list"><li><a href="/page?old">From the site</a></li></ul>'
PAGE = """<!doctype html>
<html lang="{lang}" dir="{dir}">
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>A page</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css"><link rel="stylesheet" href="/notifications.css">
<body data-options="{options}">
<div class="bar"><div id="one"><a href="/page?all">Notifications</a></div>
<p>Text between</p><div id="two"></div></div>
<main><h1>A page</h1><a id="after" href="/page?after">After</a><div id="list">{list}</div></main>
<script src="/notifications.js"></script><script src="/page.js"></script>
"""
STYLE = "body{margin:0;font:16px sans-serif}.bar{display:flex;justify-content:space-between}"
SCRIPT = """
"use strict";
const options = JSON.parse(document.body.dataset.options);
const calls = {load: 0, seen: []};
const listeners = {};
const push = {
  subscribe: (channel, take) => { window.deliver = take; },
  on: (event, listener) => { listeners[event] = listener; },
};
// What comes about by itself after so many milliseconds; nothing does unless a test wants it.
const timers = {2000: null, 8000: null, ...options.timers};
{
  const real = setTimeout;
  window.setTimeout = (work, delay) => {
    const instead = delay in timers ? timers[delay] : delay;
    return instead === null ? 0 : real(work, instead);
  };
}
let state = options.state || {items: [], seen: 0};
let down = options.down || false;
function item(id, more = {}) {
  return {id, title: `Title ${id}`, text: `Text ${id}`, sender: "Bob", at: 1700000000 + id,
          url: `/page?item=${id}`, ...more};
}
function arrive(id, more) {
  deliver({type: "notification", ...item(id, more)});
}
function mount(more) {
  return Notifications.mount({
    channel: "user:1",
    load: async () => {
      calls.load += 1;
      if (down) throw new Error("away");
      return state;
    },
    markSeen: (seen) => { calls.seen.push(seen); },
    words: options.words,
    all: options.all,
    ...(options.push === false ? {} : {push}),
    ...more,
  });
}
for (const place of options.places || ["one"]) {
  const element = document.getElementById(place);
  mount(place === "list" ? {list: element} : {bell: element});
}
"""


class _Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        kind, text = "text/html", ""
        if address.path in ("/notifications.js", "/notifications.css"):
            text = (COMPONENT / address.path[1:]).read_text("utf-8")
            kind = "text/javascript" if address.path.endswith("js") else "text/css"
        elif address.path == "/page.css":
            text, kind = STYLE, "text/css"
        elif address.path == "/page.js":
            text, kind = SCRIPT, "text/javascript"
        elif address.path == "/page":
            text = PAGE.format(
                lang=escape(query.get("lang", "en")),
                dir=escape(query.get("dir", "ltr")),
                options=escape(query.get("options", "{}")),
                list=OPEN_LIST if "rendered" in query else "",
            )
        self.send_response(200 if text else 404)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


Open = Callable[..., Tab]


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://www.example.test:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_page(site: str, browser: Browser) -> Iterator[Open]:
    """Opens a page; the keyword arguments are the options of its script."""
    tabs: list[Tab] = []

    def opener(query: str = "", **options: Any) -> Tab:
        tab = browser.tab()
        tab.console()  # what tabs before it have said
        tab.goto(f"{site}/page?{query}&options={quote(json.dumps(options))}")
        tabs.append(tab)
        return tab

    yield opener
    for tab in tabs:
        assert tab.console() == []


def items(*numbers: int, seen: int = 0) -> dict[str, Any]:
    """What the site says there is."""
    return {"seen": seen, "items": [
        {"id": n, "title": f"Title {n}", "text": f"Text {n}", "sender": "Bob",
         "at": 1700000000 + n, "url": f"/page?item={n}"} for n in numbers
    ]}


def subscribed(tab: Tab) -> None:
    """What push says once the channel is subscribed; the list comes from the site then."""
    tab.run("listeners.subscribed(['user:1', 'node:7'])")
    tab.wait("return document.querySelector(`.pn-bell`).ariaLabel !== `Notifications`")


FOCUS = "return document.activeElement.classList[0] || document.activeElement.id"
COUNTERS = """
return [...document.querySelectorAll(".pn-counter")].map(e => e.hidden ? "" : e.textContent);
"""
TITLES = "return [...document.querySelectorAll('.pn-list strong')].map(e => e.textContent)"
OPEN_PANEL = ".pn-panel:not([hidden])"
TOASTS = "return [...document.querySelectorAll('.pn-toast strong')].map(e => e.textContent)"
FOCUSED_TOAST = "return document.querySelector('.pn-toast:focus-within strong').textContent"
VOICE = "return document.querySelector('.pn-voice').textContent"


def test_by_keyboard_alone(open_page: Open) -> None:
    tab = open_page(state=items(1, 2, 3))
    subscribed(tab)
    tab.press("Tab")
    assert tab.run(FOCUS) == "pn-bell"
    tab.press("Enter")
    assert tab.run(FOCUS) == "pn-panel"
    assert tab.run(COUNTERS) == [""]
    assert tab.run("return calls.seen") == [3]
    here = "return document.activeElement.search"
    for key, expected in [
        ("ArrowDown", 3), ("ArrowDown", 2), ("End", 1), ("ArrowDown", 1), ("ArrowUp", 2),
        ("Home", 3), ("Tab", 2),
    ]:
        tab.press(key)
        assert tab.run(here) == f"?item={expected}", key
    tab.press("Escape")
    assert tab.run(FOCUS) == "pn-bell"
    assert tab.run("return document.querySelector('.pn-panel').hidden")
    # Going on to what lies under it closes it.
    tab.press("Enter", "End", "Tab")
    assert tab.run(FOCUS) == "after"
    assert tab.run("return document.querySelector('.pn-panel').hidden")
    assert tab.run("return calls.seen") == [3]


def test_what_is_focused_stays_while_news_arrive(open_page: Open) -> None:
    tab = open_page(state=items(1, 2), places=["one", "list"])
    subscribed(tab)
    tab.press("Tab", "Enter", "ArrowDown")
    tab.run("window.focused = document.activeElement")
    tab.run("arrive(3); arrive(4)")
    assert tab.run(TITLES) == [f"Title {n}" for n in (4, 3, 2, 1)] * 2
    assert tab.run(COUNTERS) == [""]
    assert tab.run("return calls.seen") == [2, 3, 4]
    assert tab.run(TOASTS) == []
    tab.run("state = {seen: 4, items: [item(4), item(3), item(2), item(1)]}")
    tab.run("listeners.reset(['user:1'], 'lost')")
    tab.wait("return calls.load === 2")
    assert tab.run("return document.activeElement === focused && focused.isConnected")
    # All that came while it was open is marked until it is closed.
    news = "return document.querySelectorAll('.pn-panel .pn-new .pn-fresh:not([hidden])').length"
    assert tab.run(news) == 4
    tab.press("Escape", "Enter")
    assert tab.run(news) == 0


def test_what_a_screen_reader_is_told(open_page: Open) -> None:
    tab = open_page(state=items(1, 2, seen=1))
    subscribed(tab)
    tab.press("Tab", "Enter")
    nodes = tab.cdp("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes if not node["ignored"]
    }
    assert {("button", "Notifications, none new"), ("dialog", "Notifications")} <= named
    assert {("heading", "Notifications"), ("list", ""), ("status", "")} <= named
    assert sum(node["role"]["value"] == "listitem" for node in nodes) == 2
    button = next(n for n in nodes if n.get("name", {}).get("value") == "Notifications, none new")
    states = {each["name"]: each["value"].get("value") for each in button["properties"]}
    assert (states["expanded"], states["hasPopup"]) == (True, "dialog")

    tab.press("Escape")
    tab.run("arrive(3)")
    tab.wait(f"return (() => {{ {VOICE} }})() === 'New notification: Title 3. Text 3'")
    assert tab.run("arrive(4); arrive(5); arrive(5);" + VOICE) == ""
    tab.wait(f"return (() => {{ {VOICE} }})() === '2 new notifications'")
    label = "return document.querySelector('.pn-bell').getAttribute('aria-label')"
    assert tab.run(label) == "Notifications, 3 new"


def test_mounted_twice_they_agree(open_page: Open) -> None:
    tab = open_page(state=items(1, 2), places=["one", "two", "list"])
    subscribed(tab)
    assert tab.run(COUNTERS) == ["2", "2"]
    assert tab.run("return document.title") == "(2) A page"
    tab.run("arrive(3)")
    assert tab.run(TOASTS) == ["Title 3"]
    assert tab.run("return calls.load") == 1
    ids = tab.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    for name in ("aria-controls", "aria-labelledby"):
        assert tab.run(
            "return [...document.querySelectorAll(`[${arguments[0]}]`)].every(e => document"
            ".getElementById(e.getAttribute(arguments[0])).closest('.pn') === e.closest('.pn'))",
            name,
        )
    tab.run("document.querySelector('#two .pn-bell').click()")
    assert tab.run(COUNTERS) == ["", ""]
    assert tab.run("return document.title") == "A page"
    assert tab.run("return calls.seen") == [3]
    assert tab.run(TOASTS) == []


def test_without_push_and_without_the_site(open_page: Open) -> None:
    tab = open_page("rendered=yes", push=False, down=True, places=["one", "list"])
    tab.wait("return calls.load === 1")
    assert tab.run("return document.querySelector('#list a').textContent") == "From the site"
    assert tab.run("return document.querySelector('.pn-bell').ariaLabel") == "Notifications"
    tab.run("down = false; state = {items: [item(1), item(2)], seen: 1}; mount({}).reload()")
    tab.wait("return document.querySelectorAll('#list li').length === 2")
    assert tab.run(TITLES) == ["Title 2", "Title 1"] * 2
    assert tab.run("return document.querySelectorAll('.pn-list').length") == 2
    # An answer of another kind, to somebody whose session has ended, say, takes nothing away.
    tab.run("state = {error: 'sign in'}; mount({}).reload().then(() => { window.asked = true })")
    tab.wait("return window.asked")
    assert tab.run("mount({});" + TITLES) == ["Title 2", "Title 1"] * 2
    empty = open_page("rendered=yes", push=False, places=["list"])
    empty.wait("return document.querySelector('#list').textContent.startsWith('Nothing yet')")


def test_news_come_above_the_list_that_the_site_rendered(open_page: Open) -> None:
    tab = open_page("rendered=yes", places=["list"])
    tab.run("arrive(7)")
    shown = "return [...document.querySelectorAll('#list li')].map(e => e.textContent)"
    first, second = tab.run(shown)
    assert "Title 7" in first
    assert second == "From the site"


def test_the_site_is_asked_once(open_page: Open) -> None:
    tab = open_page(state=items(1))
    assert tab.run("return calls.load") == 0
    subscribed(tab)
    tab.run("listeners.subscribed(['node:7'])")
    late = open_page(state=items(1), timers={2000: 2000})
    late.wait("return calls.load === 1")
    assert late.run(COUNTERS) == ["1"]
    assert tab.run("return calls.load") == 1
    # Wanted three times while it is being asked: asked once more, not three times.
    tab.run("for (const n of [1, 2, 3]) listeners.reset(['user:1'], 'lost')")
    tab.wait("return calls.load === 3")
    tab.run("state = {items: [item(2)], seen: 0}; listeners.reset(['user:1'], 'lost'); arrive(3)")
    tab.wait("return calls.load === 4")
    assert tab.run(TITLES) == ["Title 3", "Title 2"]


def test_seen_elsewhere_is_seen_here(open_page: Open) -> None:
    tab = open_page(state=items(1))
    subscribed(tab)
    tab.run("arrive(2)")
    assert (tab.run(COUNTERS), tab.run(TOASTS)) == (["2"], ["Title 2"])
    tab.run("deliver({type: 'seen', seen: 2})")
    assert (tab.run(COUNTERS), tab.run(TOASTS)) == ([""], [])
    tab.run("deliver({type: 'seen', seen: 1}); deliver({type: 'seen', seen: 'x'}); deliver(null);"
            "deliver({type: 'other'}); arrive('9'); arrive(NaN); arrive(2)")
    assert tab.run(TITLES) == ["Title 2", "Title 1"]


def test_notes_leave_unless_somebody_is_at_them(open_page: Open) -> None:
    tab = open_page(timers={8000: 400}, state=items())
    subscribed(tab)
    tab.run("arrive(1); arrive(2); document.querySelector('.pn-close').focus()")
    tab.wait("return document.querySelectorAll('.pn-toast').length === 1")
    # From now on all of them stay.
    tab.run("timers[8000] = null; for (const n of [3, 4, 5, 6]) arrive(n)")
    assert tab.run(TOASTS) == ["Title 1", "Title 5", "Title 6"]
    # Dismissed by key, the focus goes to the next one, and from the last one to the bell.
    tab.press("Escape")
    assert tab.run(FOCUSED_TOAST) == "Title 5"
    tab.run("document.querySelector('.pn-toast:not(:focus-within)').remove()")
    tab.press("Enter")
    assert tab.run(FOCUS) == "pn-bell"
    assert tab.run(TOASTS) == []


def test_text_is_text_and_links_stay_inside(open_page: Open, site: str) -> None:
    tab = open_page(state=items())
    subscribed(tab)
    evil = "<img src=x onerror=alert(1)>"
    for number, url in enumerate(
        ["javascript:alert(1)", "https://evil.test/", "//evil.test/", "", None, "data:,x",
         "http://[", "/a?b=c#d", f"{site}/e#f"], 1,
    ):
        more = {"title": evil, "text": evil, "sender": evil, "url": url}
        tab.run("arrive(...arguments)", number, more)
    assert tab.run("return document.querySelectorAll('img').length") == 0
    assert set(tab.run(TITLES)) == {evil}
    links = "document.querySelectorAll('.pn-item[href]')"
    assert tab.run(f"return [...{links}].map(e => e.href)") == [f"{site}/e#f", f"{site}/a?b=c#d"]
    assert tab.run("return document.querySelectorAll('div.pn-item:not([href])').length") == 7


def test_a_page_that_stays_open_for_days(open_page: Open) -> None:
    """It forgets what it shows no longer, and leaves the page its own title."""
    tab = open_page(state=items())
    subscribed(tab)
    tab.run("document.title = '(500) days'; arrive(1, {at: 'today'}); arrive(2)")
    assert tab.run("return document.title") == "(2) (500) days"
    assert tab.run("return document.querySelectorAll('.pn-item').length") == 2
    tab.run("for (let id = 3; id < 60; id += 1) arrive(id)")
    before = nodes(tab)
    tab.run("for (let id = 60; id < 360; id += 1) arrive(id)")
    assert nodes(tab) - before < 300
    tab.run("deliver({type: 'seen', seen: 1000})")
    assert tab.run("return document.title") == "(500) days"


def nodes(tab: Tab) -> int:
    """How many the page still has in memory."""
    tab.cdp("HeapProfiler.collectGarbage")
    return int(tab.cdp("Memory.getDOMCounters")["nodes"])


def test_in_other_languages(open_page: Open) -> None:
    words = {
        "by": "od: {sender}",
        "count": {"zero": "Nic", "one": "1 nowe", "few": "{count} nowe", "many": "{count} nowych"},
    }
    tab = open_page("lang=pl", words=words, state=items(1))
    subscribed(tab)
    label = "return document.querySelector('.pn-bell').ariaLabel"
    assert tab.run(label) == "1 nowe"
    tab.run("arrive(2)")
    assert tab.run(label) == "2 nowe"
    tab.run("for (const n of [3, 4, 5]) arrive(n)")
    assert tab.run(label) == "5 nowych"
    small = tab.run("return document.querySelector('.pn-item small').textContent")
    assert small.startswith("od: Bob · ")
    assert small.endswith(" temu")
    # A tag as PHP's locales have it, and one that is none at all.
    for tag, ending in (("en_US", " ago"), ("x", " ago"), ("de-AT", "")):
        tab = open_page(f"lang={tag}", push=False, state=items(1))
        when = tab.wait("return document.querySelector('.pn-item time')?.textContent")
        assert when.endswith(ending)


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
@pytest.mark.parametrize("width", [900, 360])
def test_the_list_is_inside_the_window(open_page: Open, direction: str, width: int) -> None:
    tab = open_page(f"dir={direction}", state=items(1, 2), places=["one", "two"])
    subscribed(tab)
    tab.cdp("Emulation.setDeviceMetricsOverride", width=width, height=700, deviceScaleFactor=1,
            mobile=False)
    for place in ("one", "two"):
        tab.run("document.querySelector(`#${arguments[0]} .pn-bell`).click()", place)
        box = tab.run(f"return document.querySelector('{OPEN_PANEL}').getBoundingClientRect()")
        assert box["left"] >= 0
        assert box["right"] <= width
        assert box["width"] > 300
        # A press elsewhere closes it.
        tab.run("document.querySelector('h1').dispatchEvent(new PointerEvent('pointerdown',"
                " {bubbles: true}))")
    assert tab.run("return document.documentElement.scrollWidth") <= width
    assert tab.run("return document.querySelectorAll('.pn-panel[hidden]').length") == 2


def test_everything_to_press_is_large_enough(open_page: Open) -> None:
    tab = open_page(state=items(1), places=["one", "list"], all="/page?all")
    subscribed(tab)
    tab.run("arrive(2)")
    tab.run("document.querySelector('.pn-bell').click(); arrive(3)")
    tab.run("document.querySelector('.pn-bell').click(); arrive(4)")
    sizes = tab.run(
        "return [...document.querySelectorAll('.pn button, .pn a')].map(e =>"
        " e.getBoundingClientRect()).filter(b => b.width).map(b => Math.min(b.width, b.height))"
    )
    assert len(sizes) >= 6
    assert round(min(sizes)) >= 44


def test_forced_colours_reduced_motion_and_dark(open_page: Open) -> None:
    tab = open_page(state=items(1))
    subscribed(tab)
    tab.run("arrive(2)")
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    assert tab.run(style, ".pn-toast", "animationName") == "pn-arrive"
    white = tab.run(style, ".pn-toast", "backgroundColor")

    def emulate(**features: str) -> None:
        tab.cdp("Emulation.setEmulatedMedia",
                features=[{"name": n.replace("_", "-"), "value": v} for n, v in features.items()])

    emulate(prefers_reduced_motion="reduce", prefers_color_scheme="dark")
    assert tab.run(style, ".pn-toast", "animationName") == "none"
    assert tab.run(style, ".pn-toast", "backgroundColor") == white
    tab.run("document.documentElement.style.colorScheme = 'light dark'")
    assert tab.run(style, ".pn-toast", "backgroundColor") != white
    emulate(forced_colors="active")
    clear = "rgba(0, 0, 0, 0)"
    for part in (".pn-bell", ".pn-counter", ".pn-toast"):
        assert tab.run(style, part, "borderTopColor") != clear
