"""Three hosts, a real browser, and everything that can be taken away from between them.

The host of the site has two addresses. On .71 nginx and PHP-FPM serve a site in plain PHP, with
TLS and without. On .81 are two push servers, which share the Redis of the third host: one is
reached through a redirect of port 80, the other through nginx with TLS. A visitor's Chromium, on
the second host, has a page of each. Meanwhile somebody publishes on the site, a number at a time.

Whatever happens on the way, both pages show every number, once, in order.
"""

import http.client
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import pytest
from driver import ARGUMENTS, Browser, Tab
from harness import PushServer
from redis_server import RedisServer
from redis_server import program as redis_program
from topology.network import TOOLS, Host, Lan
from topology.network import missing as missing_network
from topology.sitehost import Authority, fpm_program, start_nginx, start_php
from waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
REDIRECT = ROOT / "iptables/push-redirect"

CMS, CMS6 = "198.51.100.71", "2001:db8::71"
PUSH, PUSH6 = "198.51.100.81", "2001:db8::81"
REDIS = "10.77.0.3"
ADDRESSES = {
    "site": [f"{CMS}/24", f"{PUSH}/24", f"{CMS6}/64", f"{PUSH6}/64", "10.77.0.1/24"],
    "visitor": ["198.51.100.11/24", "2001:db8::11/64"],
    "redis": [f"{REDIS}/24"],
}
# What is plain comes over IPv4, what has TLS over IPv6.
NAMES = {
    "www.example.net": CMS, "push.example.net": PUSH,
    "www.example.com": CMS6, "push.example.com": PUSH6,
}
HEARTBEAT = 2
OUTAGE = 40.0
BACK = 60.0
"""Seconds in which pages are back after an outage; a long one makes them ask less often."""


class Editor(threading.Thread):
    """Somebody who is logged in and publishes one number after the other."""

    def __init__(self, host: Host) -> None:
        super().__init__(daemon=True)
        self._host = host
        self._stopping = threading.Event()
        self.number = 0
        """The last one that the site has taken."""
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with self._host.inside():
                cookie = self._post({"do": "log in", "user": "editor"})
                while not self._stopping.wait(0.2):
                    self._post({"do": "save", "text": str(self.number + 1)}, cookie)
                    self.number += 1
        except BaseException as failure:  # noqa: BLE001  # told to the test
            self.failure = failure

    def _post(self, form: dict[str, str], cookie: str = "") -> str:
        connection = http.client.HTTPConnection(CMS, timeout=15)
        headers = {
            "Host": "www.example.net",
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": cookie,
        }
        try:
            connection.request("POST", "/index.php", urlencode(form), headers)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        assert answer.status == 303, answer.status
        return (answer.getheader("Set-Cookie") or "").partition(";")[0]

    def stop(self) -> int:
        """The last number, once no more are published."""
        self._stopping.set()
        self.join(20)
        assert not self.is_alive()
        if self.failure is not None:
            raise self.failure
        return self.number

    def more(self, count: int = 3) -> None:
        """Return when so many more have been published."""
        target = self.number + count
        wait_for(lambda: self.failure or self.number >= target, "somebody publishes")
        assert self.failure is None, self.failure


class VisitorsBrowser(Browser):
    """A Chromium on the visitor's host that trusts our authority."""

    def __init__(self, host: Host, home: Path) -> None:
        self._host = host
        command = host.command("env", f"HOME={home}", "chromedriver")
        super().__init__(command, ARGUMENTS, insecure=False)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        with self._host.inside():
            return super().send(method, path, body)


class Node(PushServer):
    """A push server on the site's host."""

    def __init__(self, host: Host, number: int, scheme: str, domain: str, **settings: Any) -> None:
        self._host = host
        super().__init__(
            public_url=f"{scheme}://push.{domain}",
            site_origins=[f"{scheme}://www.{domain}"],
            document_domain=domain,
            internal_listen=f"127.0.0.1:{6666 + number}",
            broker=f"redis://{REDIS}:6379/0",
            heartbeat=HEARTBEAT,
            drain_spread=1,
            **settings,
        )
        self.internal_port = 6666 + number

    def start(self) -> Self:
        with self._host.inside():
            return super().start()

    def environment(self, folder: Path) -> dict[str, str]:
        """What PHP has to know."""
        return {
            "PUSH_URL": self.settings["public_url"],
            "PUSH_API": f"http://127.0.0.1:{self.internal_port}",
            "PUSH_TOKEN_KEY": self.token_keys[-1],
            "PUSH_API_KEY": self.api_secret,
            "PUSH_SPOOL": str(folder / f"spool-{self.internal_port}"),
        }


class Place:
    """All of it, running."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.lan = stack.enter_context(Lan(ADDRESSES, NAMES))
        self.site, self.visitor = self.lan.hosts["site"], self.lan.hosts["visitor"]
        redis = RedisServer(port="6379", bind="*", **{"protected-mode": "no"})
        redis.port = 6379
        with self.lan.hosts["redis"].inside():
            stack.enter_context(redis)
        push_socket = folder / "push.sock"
        plain = Node(self.site, 1, "http", "example.net",
                     listen=[f"{PUSH}:6660", f"[{PUSH6}]:6660"])
        secure = Node(self.site, 2, "https", "example.com", listen=f"unix:{push_socket}",
                      trusted_proxy="unix:", token_keys=plain.token_keys,
                      api_keys={"cms": plain.api_secret})
        secure.api_secret = plain.api_secret
        self.nodes = [stack.enter_context(node) for node in (plain, secure)]
        authority = Authority(folder)
        authority.certify("www.example.com", "push.example.com")
        authority.trusted_by(folder / "home")
        php = start_php(self.site, folder, {"plain": plain.environment(folder),
                                            "secure": secure.environment(folder)})
        stack.callback(php.stop)
        self.nginx = start_nginx(self.site, folder, push_socket)
        stack.callback(self.nginx.stop)
        self.redirect("up", PUSH, PUSH6, "--apply")
        self.browser = stack.enter_context(VisitorsBrowser(self.visitor, folder / "home"))
        self.tabs = [self.log_in(f"{scheme}://www.{domain}/index.php")
                     for scheme, domain in (("http", "example.net"), ("https", "example.com"))]
        self.editor = Editor(self.site)
        self.editor.start()
        stack.callback(self.editor.stop)

    def log_in(self, url: str) -> Tab:
        """A tab that shows what a visitor sees who has logged in."""
        tab = self.browser.open(url)
        tab.run("document.querySelector('button[value=\"log in\"]').click()")
        tab.wait("return document.querySelector('button[value=\"log out\"]')")
        tab.wait("return push.info().state === 'live'")
        # Gone, should the page be loaded again: then it would have lost what it showed.
        tab.run("window.untouched = true")
        return tab

    def redirect(self, *arguments: str) -> str:
        """What push-redirect says."""
        return self.site.must(sys.executable, REDIRECT, *arguments)

    def refused(self, address: str, port: int = 80) -> bool:
        """Whether the visitor's host cannot connect there."""
        with self.visitor.inside():
            try:
                socket.create_connection((address, port), 5).close()
            except ConnectionRefusedError:
                return True
        return False

    def shown(self, tab: Tab) -> list[int]:
        """The numbers on a page."""
        items = "[...document.querySelectorAll('#news li')]"
        texts: list[str] = tab.run(f"return {items}.map((item) => item.textContent)")
        assert all(text.startswith("editor: ") for text in texts), texts
        return [int(text.removeprefix("editor: ")) for text in texts]

    def all_is_shown(self, *tabs: Tab, seconds: float = BACK) -> None:
        """These pages show every number up to the last one of now, once, in order."""
        last = self.editor.number
        for tab in tabs or self.tabs:
            self._is_shown(tab, last, seconds)

    def _is_shown(self, tab: Tab, last: int, seconds: float) -> None:
        wait_for(lambda: len(self.shown(tab)) >= last, tab.account, seconds)
        found = self.shown(tab)
        assert found == list(range(1, len(found) + 1)), tab.account()
        assert tab.run("return window.untouched === true"), tab.account()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    programs = ("nginx", "openssl", "certutil", "nft", "chromium", "chromedriver")
    absent = [name for name in programs if shutil.which(name, path=TOOLS) is None]
    absent += ["php-fpm"] * (fpm_program() is None) + ["redis"] * (redis_program() is None)
    if reason := missing_network() or (absent and f"not on this machine: {', '.join(absent)}"):
        pytest.skip(reason)
    with ExitStack() as stack:
        yield Place(tmp_path_factory.mktemp("site"), stack)


def test_what_is_published_is_seen_on_both_ways(place: Place) -> None:
    place.editor.more()
    place.all_is_shown()


def test_the_redirect_goes_down_and_up(place: Place) -> None:
    _, secure = place.tabs
    place.redirect("down", "--apply")
    assert place.refused(PUSH) and place.refused(PUSH6)
    place.editor.more()
    place.all_is_shown(secure)
    place.redirect("up", PUSH, PUSH6, "--apply")
    assert not place.refused(PUSH) and not place.refused(PUSH6)
    place.redirect("status", PUSH, PUSH6)
    place.all_is_shown()


def test_nginx_reloads(place: Place) -> None:
    before = place.nginx.children()
    place.nginx.reload()
    wait_for(lambda: place.nginx.children() - before, "nginx has a new worker")
    place.editor.more()
    place.all_is_shown()


def test_the_push_servers_restart_while_nobody_can_reach_them(place: Place) -> None:
    place.redirect("down", "--apply")
    for node in place.nodes:
        node.terminate()
    # The site never waits for the push server.
    place.editor.more()
    for node in place.nodes:
        node.start()
    place.editor.more()
    place.redirect("up", PUSH, PUSH6, "--apply")
    place.all_is_shown()


def test_the_link_drops_for_a_while(place: Place) -> None:
    ends = time.monotonic() + OUTAGE
    # First nobody is told, as when a cable is cut far away; the pages notice that it is quiet.
    place.lan.silence("visitor")
    for tab in place.tabs:
        tab.wait("return push.info().state !== 'live'")
    # Then the visitor's own cable is out, which the browser sees.
    place.lan.unplug("visitor")
    time.sleep(max(0.0, ends - time.monotonic()))
    place.lan.plug("visitor")
    place.all_is_shown()


def test_nothing_was_lost_in_the_end(place: Place) -> None:
    last = place.editor.stop()
    place.all_is_shown()
    assert [place.shown(tab) for tab in place.tabs] == [list(range(1, last + 1))] * 2
