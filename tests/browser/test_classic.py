"""The transports from before there were better ones, and the plain ones, without our scripts.

Each is used as a site would that knows nothing but docs/transports.rst.
"""

import re
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import Browser, Tab
from world import World, eventually

HARD = [
    "plain", "</script><script>window.hacked = 1</script>", "<img src=x onerror='hacked = 1'>",
    "<!-- ]]> &lt;", "two\r\nlines\u2028\u2029", "é \U0001f33b", {"deep": [None, {"<": ">"}]},
    "x" * 70_000,
]


class Plain:
    """A page of the site that does not use `push.js`, and what it has received."""

    def __init__(self, browser: Browser, world: World, user: str) -> None:
        self.world, self.user = world, user
        self.channel = f"classic:{user}"
        self.push = world.push
        self.url = world.site.push_url
        self.token = self.push.token(user, sub_ch=["classic:*"])
        self.tab: Tab = browser.open(world.url("", path="/page.js"))
        self.tab.run("window.got = []; window.hacked = 0")

    def ticket(self) -> str:
        return self.push.ticket(self.token)

    def publish(self, *datas: Any) -> None:
        for data in datas:
            self.push.api("publish", channel=self.channel, data=data)

    def subscribed(self) -> None:
        """Return once the channel has a subscriber."""
        eventually(
            lambda: self.push.api("channels", prefix=self.channel)["channels"], "it is subscribed"
        )

    def expect(self, *datas: Any) -> None:
        """The page has received exactly this."""
        self.tab.wait("return got.length >= arguments[0]", len(datas))
        assert self.tab.run("return got") == list(datas), self.tab.account()
        assert self.tab.run("return window.hacked") == 0

    def document_of_frame(self) -> dict[str, Any]:
        """The document in the page's only iframe, as the browser's inspector sees it."""
        found: list[dict[str, Any]] = []

        def walk(node: dict[str, Any]) -> None:
            if "contentDocument" in node:
                found.append(node["contentDocument"])
            for child in node.get("children", ()):
                walk(child)

        walk(self.tab.cdp("DOM.getDocument", depth=-1, pierce=True)["root"])
        (document,) = found
        return document


FRAME = """
const [url, origin] = arguments;
addEventListener("message", (event) => {
  if (event.origin !== origin || event.source !== frame.contentWindow) return;
  if (event.data.channel) got.push(event.data.data);
});
const frame = document.createElement("iframe");
frame.hidden = true;
frame.src = url;
document.body.append(frame);
"""


def test_forever_frame(browser: Browser, world: World) -> None:
    page = Plain(browser, world, "forever")
    site = world.site.origin(world.host)
    url = f"{page.url}/subscribe/frame?channel={page.channel}&origin={site}&ticket={page.ticket()}"
    page.tab.run(FRAME, url, page.url)
    page.subscribed()
    page.publish(*HARD)
    page.expect(*HARD)
    page.publish(*range(300))
    page.expect(*HARD, *range(300))
    # What was handed on is gone from the frame, however long it lives.
    (html,) = [node for node in page.document_of_frame()["children"] if node["nodeName"] == "HTML"]
    (body,) = [node for node in html["children"] if node["nodeName"] == "BODY"]
    assert body["children"][0]["nodeName"] == "SCRIPT"
    assert len(body["children"]) <= 2, body


def test_the_forever_frame_of_the_document(browser: Browser, world: World) -> None:
    text = (Path(__file__).parents[2] / "docs/transports.rst").read_text("utf-8")
    tickets, frame = re.findall(r"::\n\n((?: {4}.*\n|\n)*? {4}(?:}|addEvent.*)\n)\n(?! )", text)[:2]
    script = tickets + frame + "window.show = (data) => got.push(data); listen();"
    for theirs, ours in {
        "/push/token": "/token?user=document",
        "https://push.example.com/ticket": f"{world.site.push_url}/ticket",
        "https://push.example.com": world.site.push_url,
        "node:7": "classic:document",
    }.items():
        assert theirs in script
        script = script.replace(theirs, ours)
    page = Plain(browser, world, "document")
    page.tab.run(script)
    page.subscribed()
    page.publish("one")
    page.expect("one")
    page.push.api("disconnect", user="document")
    page.publish("two", "three")
    page.expect("one", "two", "three")


def test_45_a_foreign_page_gets_nothing_from_a_forever_frame(
    browser: Browser, world: World
) -> None:
    page = Plain(browser, world, "framed")
    tab = browser.open(world.site.url("www.evil.test", path="/page.js"))
    tab.run("window.heard = []; addEventListener('message', (event) => heard.push(event.data))")
    site = world.site.origin(world.host)
    url = f"{page.url}/subscribe/frame?channel={page.channel}&origin={site}&ticket={page.ticket()}"
    tab.run(FRAME, url, page.url)
    eventually(
        lambda: any("frame-ancestors" in line for line in tab.console()), "the browser refuses"
    )
    page.publish("secret")
    assert tab.run("return heard") == []


def png(width: int) -> bytes:
    """A picture of this width."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack("!I", len(data)) + checked + struct.pack("!I", zlib.crc32(checked))

    head = struct.pack("!IIBBBBB", width, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(width + 1))) + chunk(b"IEND", b"")
    )


def picture(width: int) -> str:
    return f"data:image/png;base64,{b64encode(png(width)).decode()}"


IMAGE = """
window.image = new Image();
image.src = arguments[0];
document.body.append(image);
"""


def test_live_picture(browser: Browser, make_world: Callable[..., World]) -> None:
    page = Plain(browser, make_world(heartbeat=0.2), "picture")
    tab = page.tab
    page.publish(picture(3))  # before anybody looks
    tab.run(IMAGE, f"{page.url}/subscribe/multipart?channel={page.channel}&ticket={page.ticket()}")
    wide = "return image.naturalWidth === arguments[0]"
    tab.wait(wide, 3)
    for width in (5, 4, 9):
        page.publish(picture(width), "no picture")
        tab.wait(wide, width)
    draw = """
    const canvas = document.createElement("canvas");
    canvas.width = arguments[1];
    canvas.height = 2;
    return canvas.toDataURL(`image/${arguments[0]}`);
    """
    for width, kind in ((20, "jpeg"), (30, "webp"), (40, "png")):
        page.publish(tab.run(draw, kind, width))
        tab.wait(wide, width)
    # Heartbeats leave the picture alone, and so does the end.
    page.push.api("revoke", user=page.user)
    eventually(
        lambda: not page.push.api("channels", prefix=page.channel)["channels"], "it has ended"
    )
    assert tab.run(wide, 40)


JSONP = """
const [push, channel, token] = arguments;
window.cb = ({cursor, publications}) => {
  got.push(...publications.map((publication) => publication.data));
  load(cursor);
};
async function load(since) {
  const bought = await fetch(`${push}/ticket`,
    {method: "POST", headers: {Authorization: `Bearer ${token}`}});
  const {ticket} = await bought.json();
  const script = document.createElement("script");
  script.src = `${push}/subscribe/jsonp?` +
    new URLSearchParams({callback: "cb", channel, since, ticket, timeout: 5});
  script.onload = () => script.remove();
  document.head.append(script);
}
load("");
"""


def test_jsonp(browser: Browser, world: World) -> None:
    page = Plain(browser, world, "jsonp")
    page.tab.run(JSONP, page.url, page.channel, page.token)
    page.subscribed()
    page.publish(*HARD)
    page.expect(*HARD)


XHR = """
const [push, channel, token] = arguments;
const request = new XMLHttpRequest();
let read = 0;
request.open("GET", `${push}/subscribe/stream?channel=${channel}`);
request.setRequestHeader("Authorization", `Bearer ${token}`);
request.onprogress = () => {
  const lines = request.responseText.slice(read).split("\\n").slice(0, -1);
  for (const line of lines) {
    read += line.length + 1;
    const message = JSON.parse(line);
    if (message.channel) got.push(message.data);
  }
};
request.send();
"""


def test_xhr_streaming(browser: Browser, world: World) -> None:
    page = Plain(browser, world, "xhr")
    page.tab.run(XHR, page.url, page.channel, page.token)
    page.subscribed()
    for number, data in enumerate(HARD, start=1):
        page.publish(data)
        page.expect(*HARD[:number])


EVENTS = """
const [push, channel, ticket] = arguments;
const source = new EventSource(`${push}/subscribe/sse?channel=${channel}&ticket=${ticket}`);
source.onmessage = (event) => got.push(JSON.parse(event.data).data);
"""


def test_event_source(browser: Browser, world: World) -> None:
    page = Plain(browser, world, "events")
    page.tab.run(EVENTS, page.url, page.channel, page.ticket())
    page.subscribed()
    page.publish(*HARD)
    page.expect(*HARD)


INTERVAL = """
const [push, channel, token] = arguments;
async function look(since) {
  const query = new URLSearchParams({channel, since});
  const answer = await fetch(`${push}/subscribe/interval?${query}`,
    {headers: {Authorization: `Bearer ${token}`}, cache: "no-store"});
  const {cursor, publications} = await answer.json();
  got.push(...publications.map((publication) => publication.data));
  window.began = true;
  setTimeout(look, 300, cursor);
}
look("");
"""


def test_interval_poll(browser: Browser, world: World) -> None:
    page = Plain(browser, world, "interval")
    page.tab.run(INTERVAL, page.url, page.channel, page.token)
    page.tab.wait("return window.began")
    page.publish(*HARD)
    page.expect(*HARD)


def test_client_pull_without_a_script(browser: Browser, world: World) -> None:
    page = Plain(browser, world, "pull")
    page.publish("old", HARD[1])
    tab = browser.open(f"{page.url}/pull?channel={page.channel}&every=1&ticket={page.ticket()}")
    items = "[...document.querySelectorAll('li')].map((item) => item.textContent)"
    assert tab.run(f"return {items}") == [HARD[1], "old"]
    page.publish({"text": "new"})
    tab.wait(f"return {items}.length === 3")
    assert tab.run(f"return {items}[0]") == "new"
    assert tab.run("return window.hacked === undefined")


@pytest.mark.parametrize("cut", ["restart", "expiry"])
def test_a_forever_frame_says_when_it_ends(
    browser: Browser, make_world: Callable[..., World], cut: str
) -> None:
    # `load` is fired when the page is complete, which is when the server has ended it.
    world = make_world(broker="sqlite")
    page = Plain(browser, world, "ends")
    if cut == "expiry":
        page.token = page.push.token("ends", sub_ch=["classic:*"], ttl=-57)
    site = world.site.origin(world.host)
    url = f"{page.url}/subscribe/frame?channel={page.channel}&origin={site}&ticket={page.ticket()}"
    page.tab.run(FRAME + "frame.onload = () => { window.ended = true; };", url, page.url)
    page.subscribed()
    if cut == "restart":
        page.push.terminate()
        page.push.start()
    page.tab.wait("return window.ended")
