"""A page of the site that does not use `push.js`, and data that is hard to hand on.

Imported by the browser tests.
"""

from typing import Any

from driver import Browser, Tab
from waiting import wait_for
from world import World

HARD = [
    "plain", "</script><script>window.hacked = 1</script>", "<img src=x onerror='hacked = 1'>",
    "<!-- ]]> &lt;", "two\r\nlines\u2028\u2029", "é \U0001f33b", {"deep": [None, {"<": ">"}]},
    "x" * 70_000,
]


class Plain:
    """The page of one user, who has a channel of his own, and what it has received, in `got`."""

    def __init__(self, browser: Browser, world: World, user: str) -> None:
        self.world, self.user = world, user
        self.channel = f"classic:{user}"
        self.push = world.push
        self.url = world.site.push_url
        self.origin = world.site.origin(world.host)
        self.token = self.push.token(user, sub_ch=["classic:*"])
        self.tab: Tab = browser.open(world.url("", path="/page.js"))
        self.tab.run("window.got = []; window.hacked = 0")

    def ticket(self) -> str:
        """Good for one request within 30 seconds."""
        return self.push.ticket(self.token)

    def publish(self, *datas: Any) -> None:
        """Publish each of these in the channel."""
        for data in datas:
            self.push.api("publish", channel=self.channel, data=data)

    def subscribed(self) -> None:
        """Return once the channel has a subscriber."""
        wait_for(
            lambda: self.push.api("channels", prefix=self.channel)["channels"], "it is subscribed"
        )

    def expect(self, *datas: Any) -> None:
        """The page has received exactly this."""
        self.tab.wait("return got.length >= arguments[0]", len(datas))
        assert self.tab.run("return got") == list(datas), self.tab.account()
        assert self.tab.run("return window.hacked") == 0
