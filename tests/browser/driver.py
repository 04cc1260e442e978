"""Chromium, driven through Debian's chromedriver with nothing but the standard library.

    with Browser() as browser:
        tab = browser.open("http://www.example.test:8080/")
        tab.wait("return document.title === 'Hello'")

Every name under ``.test`` and ``.localhost`` is this machine; no other name resolves. One
browser serves a whole test run; a test opens tabs of its own and closes them. Waiting is for a
condition, with a deadline, never for a time.

Imported by the browser tests.
"""

import base64
import contextlib
import http.client
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from waiting import PATIENCE, wait_for

START_LIMIT = 60.0
COMMAND_LIMIT = 60.0

KEYS = {
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "End": "\ue010",
    "Home": "\ue011",
    "ArrowUp": "\ue013",
    "ArrowDown": "\ue015",
}
"""The characters that stand for keys in WebDriver."""

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=900,700",
)
LOCAL_NAMES = (
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND"
)


def missing() -> str:
    """What has to be installed before any of this works; empty if nothing."""
    names = {"chromium": "chromium", "chromedriver": "chromium-driver"}
    absent = [package for program, package in names.items() if shutil.which(program) is None]
    return f"needs the Debian packages {' '.join(absent)}" if absent else ""


class DriverError(Exception):
    """Raised if the browser could not do what it was told."""


class Browser:
    """A Chromium with a fresh profile."""

    name = "Chromium"
    version: str

    def __init__(
        self,
        command: Sequence[str] = ("chromedriver",),
        arguments: Sequence[str] = (*ARGUMENTS, LOCAL_NAMES),
        *,
        insecure: bool = True,
    ) -> None:
        """`command` starts chromedriver; `insecure` is to believe every certificate."""
        self._arguments = arguments
        self._insecure = insecure
        self._folder = Path(tempfile.mkdtemp(prefix="push-browser-"))
        self._process = subprocess.Popen(
            [*command, "--port=0", f"--log-path={self._folder / 'log'}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._session = ""
        try:
            self._port = self._read_port()
            self._session = self._start_session()
            # Commands need a tab to go to, even the one that opens another.
            self._home = Tab(self, self.handles()[0])
        except BaseException:
            self.close()
            raise

    def _read_port(self) -> int:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found[1])
        raise DriverError("chromedriver did not start")

    def _start_session(self) -> str:
        capabilities = {
            "browserName": "chrome",
            "acceptInsecureCerts": self._insecure,
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {
                "binary": shutil.which("chromium"),
                "args": [*self._arguments, f"--user-data-dir={self._folder / 'profile'}"],
                # chromedriver adds this one by itself; with it no page would ever be cached.
                "excludeSwitches": ["disable-back-forward-cache"],
            },
        }
        answer = self.send("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.version = answer["capabilities"]["browserVersion"]
        return f"/session/{answer['sessionId']}"

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """One WebDriver command and the value it returns."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=COMMAND_LIMIT)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            value = json.loads(response.read())["value"]
        finally:
            connection.close()
        if response.status != 200:
            raise DriverError(f"{method} {path}: {value['error']}: {value['message'][:500]}")
        return value

    def command(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """One command of this session."""
        return self.send(method, self._session + path, {} if body is None else body)

    def tab(self) -> "Tab":
        """A new, empty tab."""
        return Tab(self, self._home.command("/window/new", {"type": "tab"})["handle"])

    def open(self, url: str) -> "Tab":
        """A new tab with this page in it."""
        tab = self.tab()
        tab.goto(url)
        return tab

    def handles(self) -> list[str]:
        """The tabs there are."""
        found: list[str] = self.send("GET", self._session + "/window/handles")
        return found

    def close_tabs(self) -> None:
        """Close all tabs that were opened since the start."""
        for handle in self.handles():
            if handle != self._home.handle:
                with contextlib.suppress(DriverError):  # a page may be closing it, too
                    Tab(self, handle).close()

    def close(self) -> None:
        """End the browser and forget its profile."""
        if self._session:
            with contextlib.suppress(OSError, DriverError, http.client.HTTPException):
                self.send("DELETE", self._session)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Tab:
    """One tab. Every method first makes it the one that commands go to."""

    def __init__(self, browser: Browser, handle: str) -> None:
        self._browser = browser
        self.handle = handle

    def command(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """One command for this tab."""
        self._browser.command("/window", {"handle": self.handle})
        return self._browser.command(path, body, method)

    def goto(self, url: str) -> None:
        """Load a page and wait for its `load` event."""
        self.command("/url", {"url": url})

    def back(self) -> None:
        """What the back button does."""
        self.command("/back")

    def forward(self) -> None:
        """What the forward button does."""
        self.command("/forward")

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that this function body returns in the page."""
        return self.command("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, *arguments: Any, timeout: float = PATIENCE) -> Any:
        """The first true value that this function body returns; fails after `timeout` seconds.

        An error counts as not yet: a page that was just gone to by a click is perhaps only being
        loaded, and one that loads itself anew is gone for a moment.
        """
        return self._wait(lambda: self.run(script, *arguments), script, timeout)

    def wait_in_frame(self, script: str) -> Any:
        """The same in the page's first frame."""
        return self._wait(lambda: self._run_in_frame(script), script, PATIENCE)

    def _wait(self, run: Callable[[], Any], script: str, timeout: float) -> Any:
        trouble = ""

        def met() -> Any:
            nonlocal trouble
            try:
                found, trouble = run(), ""
            except DriverError as error:
                found, trouble = None, f"{error}\n"
            return found

        return wait_for(met, lambda: f"{script}\n{trouble}{self.account()}", timeout)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other: characters, or names from `KEYS`."""
        strokes = [
            {"type": kind, "value": KEYS.get(key, key)}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        self.command("/actions", {"actions": [{"type": "key", "id": "keys", "actions": strokes}]})

    def _run_in_frame(self, script: str) -> Any:
        self.command("/frame", {"id": 0})
        try:
            return self._browser.command("/execute/sync", {"script": script, "args": []})
        finally:
            self._browser.command("/frame", {"id": None})

    def cdp(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.command("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def before_every_page(self, script: str) -> None:
        """Run this in every document of the tab, frames too, before their own scripts."""
        self.cdp("Page.enable")
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=script)

    def screenshot(self, path: Path) -> None:
        """What the tab looks like, as a PNG file."""
        path.write_bytes(base64.b64decode(self.command("/screenshot", method="GET")))

    def console(self) -> list[str]:
        """What was written to the console since the last call."""
        return [entry["message"] for entry in self.command("/se/log", {"type": "browser"})]

    def account(self) -> str:
        """What a person would want to know when a test failed here."""
        try:
            state = self.run(
                "let info; try { info = push.info(); } catch (error) { info = String(error); }"
                "return {url: location.href, ready: document.readyState, info,"
                " got: window.got, events: window.events}"
            )
        except DriverError as error:
            return str(error)
        said = [json.dumps(state, indent=1)]
        with contextlib.suppress(DriverError):  # Firefox does not tell
            said += self.console()
        return "\n".join(said)

    def close(self) -> None:
        """Close the tab."""
        self.command("/window", method="DELETE")
