"""A push server, a site, and what the browser tests say about them.

Imported by the browser tests.
"""

from collections.abc import Callable
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from driver import Browser, Tab
from harness import PushServer
from waiting import PATIENCE
from website import Site

in_both_browsers = pytest.mark.parametrize("browser", ["Chromium", "Firefox"], indirect=True)
"""For tests of what the two do differently: frames and `document.domain`, locks and broadcasts,
what is kept for the back button, how a connection ends."""


class World:
    """A site at ``www.<domain>`` and its push server at ``push.<domain>``.

    `document_domain` and all other keyword arguments are settings of the server. `front` is the
    port that browsers use, if something stands before the server.
    """

    def __init__(
        self, domain: str = "example.test", front: Callable[[int], int] | None = None, **more: Any
    ) -> None:
        settings = {"document_domain": domain, **more}
        self.host = f"www.{domain}"
        self.push = PushServer(**settings)
        port = front(self.push.port) if front else self.push.port
        url = f"http://push.{domain}:{port}"
        self.site = Site(self.push.token, url)
        self.push.settings.update(public_url=url, site_origins=[self.site.origin(self.host)])
        self.push.host = urlsplit(url).netloc

    def url(self, user: str, **options: Any) -> str:
        """The address of a page of this user."""
        return self.site.url(self.host, user, **options)

    def open(self, browser: Browser, user: str, **options: Any) -> Tab:
        """A new tab with a page of this user that is live."""
        tab = browser.open(self.url(user, **options))
        live(tab)
        return tab

    def notify(self, user: str, data: Any) -> None:
        """What the CMS does when this user has a notification."""
        self.push.api("publish", channel=f"user:{user}", data=data)

    def connections(self) -> int:
        """How many long-lived connections the push server holds."""
        return int(self.push.api("stats")["connections"])

    def connects(self) -> int:
        """How many there have been, the server's own probes not counted."""
        return int(self.push.api("stats").get("connects", 0))

    def __enter__(self) -> Self:
        self.site.__enter__()
        self.push.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self.push.__exit__(*failure)
        self.site.__exit__()


def live(tab: Tab) -> dict[str, Any]:
    """`push.info()` of a page, once it is live and all its channels are subscribed."""
    tab.wait(
        "return push.info().state === 'live' && options.channels.every("
        "name => events.some(([kind, names]) => kind === 'subscribed' && names.includes(name)))"
    )
    return info(tab)


def info(tab: Tab) -> dict[str, Any]:
    """`push.info()` of a page."""
    found: dict[str, Any] = tab.run("return push.info()")
    return found


def received(tab: Tab, channel: str = "") -> list[Any]:
    """The data of what a page was given, in order."""
    script = "return got.filter(([name]) => !arguments[0] || name === arguments[0]).map(g => g[1])"
    found: list[Any] = tab.run(script, channel)
    return found


def expect(tab: Tab, data: list[Any], channel: str = "", timeout: float = PATIENCE) -> None:
    """A page is given exactly this: not less, and nothing twice."""
    tab.wait("return got.length >= arguments[0]", len(data), timeout=timeout)
    assert received(tab, channel) == data, tab.account()


def events(tab: Tab, name: str) -> list[Any]:
    """What a page was told under this name, in order."""
    found: list[Any] = tab.run("return events.filter(e => e[0] === arguments[0])", name)
    return found
