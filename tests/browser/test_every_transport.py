"""Every transport in both browsers, in pages that know nothing but docs/transports.rst.

What a test has seen is what the table in that document says of the browser, or the test fails;
`make docs` writes the table anew.
"""

import struct
import zlib
from base64 import b64encode
from collections.abc import Callable

import pytest
from driver import Browser
from plain import HARD, Plain
from test_bayeux_pages import ROWS as BAYEUX
from waiting import wait_for
from world import World, in_both_browsers

TOOLS = """
const [push, channel, since, token, ticket, origin] = arguments;
const headers = {Authorization: `Bearer ${token}`};
const url = (name, more) =>
  `${push}/subscribe/${name}?` + new URLSearchParams({channel, since, ...more});
const leaving = new AbortController();
const {signal} = leaving;
window.leave = () => leaving.abort();
function take(message) {
  if (signal.aborted) return;
  window.cursor = message.cursor;
  if (message.channel) got.push(message.data);
}
function takeAnswer({cursor, publications}) {
  for (const publication of publications) take({...publication, cursor});
  take({cursor});
}
"""
"""What each of these scripts begins with. It takes what comes until the test says `leave()`."""

SCRIPTS = {
    "WebSocket": """
const socket = new WebSocket(push.replace("http:", "ws:") + "/subscribe/ws");
socket.onopen = () => socket.send(JSON.stringify(
  {id: 1, method: "connect", params: {token, channels: [channel], since}}));
socket.onmessage = ({data}) => take(JSON.parse(data));
signal.onabort = () => socket.close();
""",
    "stream, fetch": """
const answer = await fetch(url("stream"), {headers, signal, cache: "no-store"});
const texts = answer.body.pipeThrough(new TextDecoderStream()).getReader();
let rest = "";
for (;;) {
  const {value} = await texts.read();
  const lines = (rest + value).split("\\n");
  rest = lines.pop();
  lines.forEach((line) => take(JSON.parse(line)));
}
""",
    "stream, XHR": """
const request = new XMLHttpRequest();
let read = 0;
request.open("GET", url("stream"));
request.setRequestHeader("Authorization", headers.Authorization);
request.onprogress = () => {
  const lines = request.responseText.slice(read).split("\\n").slice(0, -1);
  for (const line of lines) {
    read += line.length + 1;
    take(JSON.parse(line));
  }
};
request.send();
signal.onabort = () => request.abort();
""",
    "SSE": """
const source = new EventSource(url("sse", {ticket}));
source.onmessage = ({data, lastEventId}) => take({...JSON.parse(data), cursor: lastEventId});
source.addEventListener("control", source.onmessage);
signal.onabort = () => source.close();
""",
    "forever frame": """
const frame = document.createElement("iframe");
frame.hidden = true;
frame.src = url("frame", {ticket, origin});
document.body.append(frame);
addEventListener("message", (event) => {
  if (event.origin === push && event.source === frame.contentWindow) take(event.data);
});
signal.onabort = () => frame.remove();
""",
    "long poll": """
for (let next = since; ; next = cursor) {
  const answer = await fetch(url("poll", {since: next}), {headers, signal, cache: "no-store"});
  takeAnswer(await answer.json());
}
""",
    "JSONP": """
// A name for these answers alone: one to a request before them may still be on its way.
const came = `came${Math.random().toString(36).slice(2)}`;
window[came] = (answer) => {
  takeAnswer(answer);
  if (!signal.aborted) ask();
};
async function ask() {
  const bought = await fetch(`${push}/ticket`, {method: "POST", headers});
  const {ticket} = await bought.json();
  const script = document.createElement("script");
  script.src = url("jsonp", {callback: came, ticket, since: window.cursor, timeout: 5});
  script.onload = () => script.remove();
  document.head.append(script);
}
window.cursor = since;
await ask();
""",
    "interval poll": """
for (let next = since; ; next = cursor) {
  const answer = await fetch(url("interval", {since: next}), {headers, signal, cache: "no-store"});
  takeAnswer(await answer.json());
  await new Promise((resolve) => { setTimeout(resolve, 100); });
}
""",
}

Shown = Callable[[str, str], None]


@in_both_browsers
@pytest.mark.parametrize("transport", SCRIPTS)
def test_live_and_resumed(
    browser: Browser, world: World, transport: str, shown: Shown
) -> None:
    page = Plain(browser, world, transport.replace(" ", "-").replace(",", ""))
    script = f"{TOOLS} (async () => {{ {SCRIPTS[transport]} }})().catch(() => {{}});"

    def come(since: str) -> None:
        ticket = page.ticket()
        page.tab.run(script, page.url, page.channel, since, page.token, ticket, page.origin)

    come("")
    # An interval poll is a subscriber for no moment.
    page.tab.wait("return window.cursor")
    for number, data in enumerate(HARD, start=1):
        page.publish(data)
        page.expect(*HARD[:number])
    cursor = page.tab.run("leave(); return cursor")
    page.publish("missed", "and this")
    come(cursor)
    page.expect(*HARD, "missed", "and this")
    page.publish("live")
    page.expect(*HARD, "missed", "and this", "live")
    page.tab.run("leave()")
    shown(transport, "live, resumed")


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
WIDE = "return image.naturalWidth === arguments[0]"


@in_both_browsers
def test_live_picture(browser: Browser, make_world: Callable[..., World], shown: Shown) -> None:
    page = Plain(browser, make_world(heartbeat=0.2), "picture")
    tab = page.tab
    page.publish(picture(3))  # before anybody looks
    tab.run(IMAGE, pictures(page))
    tab.wait(WIDE, 3)
    for width in (5, 4, 9):
        page.publish(picture(width), "no picture")
        tab.wait(WIDE, width)
    draw = """
    const canvas = document.createElement("canvas");
    canvas.width = arguments[1];
    canvas.height = 2;
    return canvas.toDataURL(`image/${arguments[0]}`);
    """
    for width, kind in ((20, "jpeg"), (30, "webp"), (40, "png")):
        page.publish(tab.run(draw, kind, width))
        tab.wait(WIDE, width)
    # Heartbeats leave the picture alone, and so does the end.
    page.push.api("disconnect", user=page.user)
    wait_for(
        lambda: not page.push.api("channels", prefix=page.channel)["channels"], "it has ended"
    )
    assert tab.run(WIDE, 40)
    page.publish(picture(8))
    tab.run(IMAGE, pictures(page))
    tab.wait(WIDE, 8)
    shown("multipart, image", "live, latest")


@in_both_browsers
def test_live_picture_in_a_frame(browser: Browser, world: World, shown: Shown) -> None:
    """A document of its own, which each picture replaces."""
    page = Plain(browser, world, "framed-picture")

    def come(width: int) -> None:
        page.tab.run(
            "document.querySelector('iframe')?.remove();"
            "const frame = document.createElement('iframe');"
            "frame.src = arguments[0];"
            "document.body.append(frame)",
            pictures(page),
        )
        sees(width)

    def sees(width: int) -> None:
        page.tab.wait_in_frame(
            f"return document.images.length === 1 && document.images[0].naturalWidth === {width}"
        )

    page.publish(picture(3))
    come(3)
    for width in (5, 4):
        page.publish(picture(width))
        sees(width)
    page.tab.run("document.querySelector('iframe').remove()")
    page.publish(picture(8))
    come(8)
    shown("multipart, frame", "live, latest")


def pictures(page: Plain) -> str:
    """The address of the live picture in the page's channel, good for one look."""
    return f"{page.url}/subscribe/multipart?channel={page.channel}&ticket={page.ticket()}"


@in_both_browsers
def test_client_pull_without_a_script(browser: Browser, world: World, shown: Shown) -> None:
    page = Plain(browser, world, "pull")
    page.publish("old", HARD[1])
    tab = browser.open(f"{page.url}/pull?channel={page.channel}&every=1&ticket={page.ticket()}")
    # Whole pages only: every second there is another one.
    shows = (
        "const items = [...document.querySelectorAll('li')].map((item) => item.textContent);"
        "return document.readyState === 'complete' && items.length === arguments[0] &&"
        " [...items, window.hacked === undefined]"
    )
    assert tab.wait(shows, 2) == [HARD[1], "old", True]
    page.publish({"text": "new"})
    assert tab.wait(shows, 3) == ["new", HARD[1], "old", True]
    shown("client pull", "live, latest")


def test_the_document_has_these_transports_and_no_others(
    documented: dict[tuple[str, str], str],
) -> None:
    """A row that no test stands for would be a claim."""
    others = ("multipart, image", "multipart, frame", "client pull")
    assert {transport for transport, _ in documented} == {*SCRIPTS, *others, *BAYEUX.values()}
