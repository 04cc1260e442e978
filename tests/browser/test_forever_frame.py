"""The forever frame in a page: what stays of it, how it ends, and who cannot have it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from driver import Browser
from plain import Plain
from waiting import wait_for
from world import World, in_both_browsers

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


def address(page: Plain) -> str:
    """Of a frame with the page's channel."""
    asked = f"channel={page.channel}&origin={page.origin}&ticket={page.ticket()}"
    return f"{page.url}/subscribe/frame?{asked}"


def test_what_was_handed_on_is_gone_from_the_frame(browser: Browser, world: World) -> None:
    """However long it lives."""
    page = Plain(browser, world, "forever")
    page.tab.run(FRAME, address(page), page.url)
    page.subscribed()
    page.publish(*range(300))
    page.expect(*range(300))
    inspected = page.tab.cdp("DOM.getDocument", depth=-1, pierce=True)["root"]
    (frame,) = [node for node in nodes(inspected) if "contentDocument" in node]
    (body,) = [node for node in nodes(frame["contentDocument"]) if node["nodeName"] == "BODY"]
    assert body["children"][0]["nodeName"] == "SCRIPT"
    assert len(body["children"]) <= 2, body


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The node and all under it, as the browser's inspector tells them."""
    yield node
    for child in node.get("children", ()):
        yield from nodes(child)


@in_both_browsers
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
    tab.run(FRAME, address(page), page.url)
    wait_for(
        lambda: any("frame-ancestors" in line for line in tab.console()), "the browser refuses"
    )
    page.publish("secret")
    assert tab.run("return heard") == []


@in_both_browsers
def test_it_says_when_it_ends(browser: Browser, make_world: Callable[..., World]) -> None:
    """`load` is fired when the page is complete, which is when the server has ended it."""
    world = make_world(broker="sqlite")
    page = Plain(browser, world, "ends")
    page.tab.run(FRAME + "frame.onload = () => { window.ended = true; };", address(page), page.url)
    page.subscribed()
    page.push.terminate()
    page.tab.wait("return window.ended")
