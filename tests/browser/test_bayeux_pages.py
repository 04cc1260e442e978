"""Faye's browser build in a browser, on each of its transports."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bayeux_modules import bayeux_modules
from driver import Browser
from world import World

_numbers = count()
TEXT = "žluťoučký € \u2028 </script>"

PAGE = """
const [source, url, proof, channel, transport, others] = arguments;
(0, eval)(source);
window.said = [];
window.got = [];
const bus = window.bus = new Faye.Client(url, { timeout: 10, retry: 1 });
for (const name of others) bus.disable(name);
bus.addExtension({
  outgoing(message, next) {
    if (message.channel === "/meta/handshake") message.ext = { push: proof };
    if (message.channel === "/meta/connect") said.push(message.connectionType);
    next(message);
  },
});
bus.subscribe(channel, (data) => got.push(data)).then(() => {
  window.subscribed = true;
  bus.publish(channel, { n: 1 }).then(() => { window.published = true; });
});
"""

TRANSPORTS = ["websocket", "eventsource", "long-polling", "cross-origin-long-polling",
              "callback-polling"]


@pytest.fixture(scope="module")
def faye() -> str:
    path: Path = bayeux_modules() / "node_modules" / "faye" / "client" / "faye-browser.js"
    return path.read_text("utf-8")


@pytest.mark.parametrize(
    ("transport", "abroad"),
    [
        ("long-polling", False),
        ("eventsource", False),
        ("websocket", True),
        ("cross-origin-long-polling", True),
        ("callback-polling", True),
    ],
)
def test_faye(browser: Browser, world: World, faye: str, transport: str, abroad: bool) -> None:
    """`abroad`: in a page of the site; else in one of the push host itself."""
    push, user = world.push, f"faye{next(_numbers)}"
    channel = f"faye:{user}"
    token = push.token(user, sub_ch=["faye:*"], pub_ch=["faye:*"])
    # Abroad its handshake is a script element, whose URL must not hold a token.
    proof: dict[str, Any] = {"ticket": push.ticket(token)} if abroad else {"token": token}
    first = "callback-polling" if abroad else "long-polling"
    others = [name for name in TRANSPORTS if name not in (transport, first)]
    page = world.url("", path="/page.js") if abroad else f"{world.site.push_url}/push.js"
    tab = browser.open(page)
    url = f"{world.site.push_url}/bayeux"
    tab.run(PAGE, faye, url, proof, f"/{channel.replace(':', '/')}", transport, others)
    tab.wait("return window.published && got.length === 1")
    push.api("publish", channel=channel, data={"text": TEXT})
    tab.wait("return got.length === 2")
    assert tab.run("return got") == [{"n": 1}, {"text": TEXT}]
    assert tab.run("return said.at(-1)") == transport
    tab.run("bus.disconnect()")
