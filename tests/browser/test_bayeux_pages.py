"""CometD and Faye as they come from npm, in browsers, on each of their transports."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bayeux_modules import bayeux_modules
from driver import Browser, Tab
from proxy import BufferingProxy
from waiting import wait_for
from world import World, in_both_browsers

_numbers = count()
TEXT = "žluťoučký € \u2028 </script>"

# Each page has `join(proof)`, which subscribes, publishes, and puts what comes into `got`.

FAYE = """
const [source, url, channel, transport, others] = arguments;
const script = document.createElement("script");
script.textContent = source;
document.head.append(script);
if (!window.Faye) (0, eval)(source); // the policy of the push host lets no script in
window.got = [];
window.join = (proof) => {
  window.subscribed = false;
  const bus = new Faye.Client(url, { timeout: 10, retry: 1 });
  for (const name of others) bus.disable(name);
  bus.addExtension({
    outgoing(message, next) {
      if (message.channel === "/meta/handshake") message.ext = { push: proof };
      next(message);
    },
    incoming(message, next) {
      if (message.ext?.push?.cursor) window.cursor = message.ext.push.cursor;
      next(message);
    },
  });
  const topic = bus.subscribe(channel, (data) => got.push(data));
  topic.then(() => { window.subscribed = true; });
  window.using = () => bus._dispatcher.connectionType;
  window.say = (data) => bus.publish(channel, data);
  window.leave = () => { topic.cancel(); bus.disconnect(); };
};
"""

COMETD = """
const [source, url, channel, transport] = arguments;
window.got = [];
import(source).then(({ CometD }) => {
  window.join = (proof) => {
    window.subscribed = false;
    const bus = new CometD();
    for (const name of bus.getTransportTypes())
      if (name !== transport) bus.unregisterTransport(name);
    bus.configure({ url, logLevel: "warn" });
    bus.handshake({ ext: { push: proof } }, ({ successful }) => {
      if (!successful) return;
      const topic = bus.subscribe(channel, ({ data, ext }) => {
        window.cursor = ext.push.cursor;
        got.push(data);
      }, (reply) => { window.subscribed = reply.successful; });
      window.leave = () => { bus.unsubscribe(topic); bus.disconnect(); };
    });
    window.using = () => bus.getTransport().type;
    window.say = (data) => bus.publish(channel, data);
  };
});
"""

ROWS = {
    "websocket": "Bayeux, WebSocket",
    "eventsource": "Bayeux, EventSource",
    "long-polling": "Bayeux, long poll",
    "cross-origin-long-polling": "Bayeux, long poll",
    "callback-polling": "Bayeux, JSONP",
}
"""What the document calls the transports of Faye, among them those of CometD."""


class Member:
    """Somebody with a channel of his own, in a page where a client of Bayeux is loaded."""

    def __init__(self, world: World, tab: Tab, ticket: bool) -> None:
        self.tab = tab
        self._push = world.push
        self._ticket = ticket
        self.user = f"member{next(_numbers)}"
        self.channel = f"bayeux:{self.user}"
        self.path = f"/bayeux/{self.user}"
        self.url = f"{world.site.push_url}/bayeux"

    def join(self, **more: str) -> None:
        """Shake hands and subscribe. What goes into a URL must not hold a token."""
        token = self._push.token(self.user, sub_ch=["bayeux:*"], pub_ch=["bayeux:*"])
        proof = {"ticket": self._push.ticket(token)} if self._ticket else {"token": token}
        self.tab.run("join(arguments[0])", proof | more)
        self.tab.wait("return window.subscribed")

    def publish(self, data: Any) -> None:
        """As the site does."""
        self._push.api("publish", channel=self.channel, data=data)

    def expect(self, *datas: Any) -> None:
        """The page has received exactly this."""
        self.tab.wait("return got.length >= arguments[0]", len(datas))
        assert self.tab.run("return got") == list(datas)

    def live_and_resumed(self, transport: str) -> None:
        """The scenario of both clients."""
        self.join()
        # Faye's first requests may go another way.
        self.tab.wait("return using() === arguments[0]", transport)
        self.tab.run("say({n: 1})")
        self.expect({"n": 1})
        self.publish({"text": TEXT})
        self.expect({"n": 1}, {"text": TEXT})
        cursor = self.tab.run("leave(); return cursor")
        self.publish("missed")
        self.join(since=cursor)
        self.expect({"n": 1}, {"text": TEXT}, "missed")
        self.publish("live")
        self.expect({"n": 1}, {"text": TEXT}, "missed", "live")
        self.tab.run("leave()")
        wait_for(
            lambda: not self._push.api("channels", prefix=self.channel)["channels"], "it has left"
        )


@pytest.fixture(scope="module")
def packages() -> Path:
    return bayeux_modules() / "node_modules"


@in_both_browsers
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
def test_faye(
    browser: Browser,
    world: World,
    packages: Path,
    shown: Callable[[str, str], None],
    transport: str,
    abroad: bool,
) -> None:
    """`abroad`: in a page of the site, where it shakes hands by a script element; else in one
    of the push host itself."""
    here = world.url("", path="/page.js") if abroad else f"{world.site.push_url}/push.js"
    member = Member(world, browser.open(here), ticket=abroad)
    source = (packages / "faye/client/faye-browser.js").read_text("utf-8")
    first = "callback-polling" if abroad else "long-polling"
    others = [name for name in ROWS if name not in (transport, first)]
    member.tab.run(FAYE, source, member.url, member.path, transport, others)
    member.live_and_resumed(transport)
    shown(ROWS[transport], "live, resumed")


@in_both_browsers
@pytest.mark.parametrize("transport", ["websocket", "long-polling", "callback-polling"])
def test_cometd(
    browser: Browser,
    make_world: Callable[..., World],
    packages: Path,
    shown: Callable[[str, str], None],
    transport: str,
) -> None:
    """In a page of the site, so that the browser asks before it posts to another origin."""
    with BufferingProxy("/none") as proxy:
        polls = transport == "long-polling"
        world = make_world(front=proxy.before) if polls else make_world()
        world.site.folders["cometd"] = packages / "cometd"
        tab = browser.open(world.url("", path="/page.js"))
        member = Member(world, tab, ticket=transport == "callback-polling")
        source = world.site.url(world.host, path="/cometd/cometd.js")
        tab.run(COMETD, source, member.url, member.path, transport)
        tab.wait("return Boolean(window.join)")
        member.live_and_resumed(transport)
        assert (proxy.methods["OPTIONS"] > 0) == polls, proxy.methods
    shown(ROWS[transport], "live, resumed")
