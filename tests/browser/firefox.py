"""Firefox, driven through Marionette, the protocol it brings along, with the standard library.

Debian 12 has no geckodriver, which is a translator between WebDriver and Marionette; `COMMANDS` is
all of it that the tests need. Otherwise a Firefox is a `Browser`, and its tabs are the same.

Every name is this machine.

Imported by the browser tests.
"""

import itertools
import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from driver import COMMAND_LIMIT, START_LIMIT, Browser, DriverError, Tab

COMMANDS = {
    ("POST", "/window/new"): "WebDriver:NewWindow",
    ("GET", "/window/handles"): "WebDriver:GetWindowHandles",
    ("POST", "/window"): "WebDriver:SwitchToWindow",
    ("DELETE", "/window"): "WebDriver:CloseWindow",
    ("POST", "/url"): "WebDriver:Navigate",
    ("POST", "/back"): "WebDriver:Back",
    ("POST", "/forward"): "WebDriver:Forward",
    ("POST", "/frame"): "WebDriver:SwitchToFrame",
    ("POST", "/execute/sync"): "WebDriver:ExecuteScript",
    ("POST", "/actions"): "WebDriver:PerformActions",
    ("GET", "/screenshot"): "WebDriver:TakeScreenshot",
}
"""WebDriver command -> what Marionette calls it. The parameters have the same names."""

PREFERENCES = {
    "marionette.port": 0,
    # Names under .test lead here, and whatever Firefox wants from elsewhere does, too.
    "network.dns.native-is-localhost": True,
    "network.proxy.type": 0,
    "app.update.disabledForTesting": True,
    "browser.newtabpage.enabled": False,
    "browser.startup.page": 0,
    "browser.tabs.warnOnClose": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "extensions.update.enabled": False,
    "services.settings.server": "data:,",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "dom.disable_open_during_load": False,
    # Firefox delays a WebSocket to a host where one has failed, by up to a minute.
    "network.websocket.delay-failed-reconnects": False,
}


def missing_firefox() -> str:
    """What has to be installed; empty if nothing."""
    return "" if shutil.which("firefox-esr") else "needs the Debian package firefox-esr"


class Firefox(Browser):
    """A Firefox with a fresh profile."""

    name = "Firefox"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="push-firefox-"))
        self._session = ""
        self._numbers = itertools.count(1)
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});"
            for name, value in PREFERENCES.items()
        ]
        (self._folder / "user.js").write_text("\n".join(lines))
        self._process = subprocess.Popen(
            ["firefox-esr", "--headless", "--marionette", "--no-remote", "--profile", self._folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            port = self._await_port()
            self._socket = socket.create_connection(("127.0.0.1", port), COMMAND_LIMIT)
            self._stream = self._socket.makefile("rb")
            self._read()
            session = self._ask("WebDriver:NewSession", {"acceptInsecureCerts": True})
            self.version = session["capabilities"]["browserVersion"]
            self._home = Tab(self, self.handles()[0])
        except BaseException:
            self.close()
            raise

    def _await_port(self) -> int:
        written = self._folder / "MarionetteActivePort"
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and self._process.poll() is None:
            if written.exists() and (text := written.read_text()):
                return int(text)
            time.sleep(0.05)
        raise DriverError("Firefox did not start")

    def _read(self) -> Any:
        """One message: its length in bytes, a colon, JSON."""
        digits = b""
        while (byte := self._stream.read(1)) != b":":
            if not byte:
                raise DriverError("Firefox is gone")
            digits += byte
        return json.loads(self._stream.read(int(digits)))

    def _ask(self, name: str, parameters: Any) -> Any:
        number = next(self._numbers)
        message = json.dumps([0, number, name, parameters or {}]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        while True:
            _, answered, error, result = self._read()
            if answered == number:
                break
        if error:
            raise DriverError(f"{name}: {error['error']}: {error['message'][:500]}")
        return result

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """One WebDriver command and the value it returns."""
        if (method, path) not in COMMANDS:
            raise DriverError(f"{method} {path}: not in Firefox")
        result = self._ask(COMMANDS[method, path], body)
        return result["value"] if isinstance(result, dict) and "value" in result else result

    def close(self) -> None:
        """End the browser and forget its profile."""
        for name in ("_stream", "_socket"):
            if hasattr(self, name):
                getattr(self, name).close()
        super().close()
