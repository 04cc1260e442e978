"""The process of a push server: its folder, its configuration, its beginning, log and end.

Every secret that passes through is remembered, and the log must not hold one of them. Imported
by `harness`; needs nothing but a command line that knows `serve --config`.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

START_LIMIT = 20.0
STOP_LIMIT = 15.0


def toml(settings: Mapping[str, Any]) -> str:
    """The settings as TOML; tables last. JSON spells strings, numbers and lists alike."""
    plain, tables = [], []
    for key, value in settings.items():
        if key == "namespace":
            for name, table in value.items():
                tables.append(f'[namespace."{name}"]\n{toml(table)}')
        elif isinstance(value, dict):
            tables.append(f"[{key}]\n{_inline_members(value)}")
        else:
            plain.append(f"{key} = {json.dumps(value)}")
    return "\n".join([*plain, *tables, ""])


def _inline_members(table: Mapping[str, Any]) -> str:
    lines = []
    for key, value in table.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{name} = {json.dumps(entry)}" for name, entry in value.items())
            lines.append(f"{json.dumps(key)} = {{{inner}}}")
        else:
            lines.append(f"{json.dumps(key)} = {json.dumps(value)}")
    return "\n".join(lines)


class ServerProcess:
    """A push server process with these settings. It runs in the block of `with`."""

    def __init__(self, settings: Mapping[str, Any], descriptors: int | None = None) -> None:
        self.settings = dict(settings)
        self.descriptors = descriptors
        """How many file descriptors the process may have; `None`: as many as we."""
        self.folder = Path(tempfile.mkdtemp(prefix="push-test-"))
        if self.settings["broker"] == "sqlite":
            self.settings["broker"] = f"sqlite:{self.folder / 'push.db'}"
        self.secrets: set[str] = set()
        self.process: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []
        """What `serve` is given besides the configuration."""
        self._log_file = self.folder / "log"
        self._killed = False

    @property
    def config_file(self) -> Path:
        return self.folder / "push-server.toml"

    def write_config(self, **changes: Any) -> None:
        """Write the configuration, with changes that stay."""
        self.settings.update(changes)
        self.config_file.write_text(toml(self.settings))

    def start(self) -> Self:
        """Start the process and wait until `/ready` answers 200."""
        self.write_config()
        # Nothing of the developer's own configuration may leak into a test.
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PUSH_SERVER_")
        }
        root = str(Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = root
        with self._log_file.open("ab") as log:
            command = [sys.executable, "-m", "push_server", "serve"]
            self.process = subprocess.Popen(
                [*command, "--config", str(self.config_file), *self.options],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self._limit_descriptors if self.descriptors else None,
            )
        self._killed = False
        self.wait_ready()
        return self

    def _limit_descriptors(self) -> None:
        assert self.descriptors is not None
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))

    def wait_ready(self, timeout: float = START_LIMIT) -> None:
        """Return once `/ready` is 200; fail with the server's own words."""
        assert self.process is not None
        deadline = time.monotonic() + timeout
        answer: object = None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended by itself:\n{self.log}")
            if (answer := self.ask_ready()) == 200:
                return
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"not ready after {timeout} s ({answer}):\n{self.log}")

    def ask_ready(self) -> object:
        """The status of `/ready`, or why there is none."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL: nothing is said, nothing is finished."""
        assert self.process is not None
        self._killed = True
        self.process.kill()
        self.process.wait(STOP_LIMIT)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float = STOP_LIMIT) -> int:
        """The exit status, once the process has ended."""
        assert self.process is not None
        return self.process.wait(timeout)

    def terminate(self, timeout: float = STOP_LIMIT) -> int:
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def restart(self) -> Self:
        """Stop the process if it runs, and start it on the same ports and data."""
        if self.alive:
            self.terminate()
        return self.start()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """Everything the process has written."""
        if not self._log_file.exists():
            return ""
        return self._log_file.read_text("utf-8", "backslashreplace")

    def check_log(self, since: int = 0) -> None:
        """No traceback and no secret in the log, from this character on."""
        log = self.log[since:]
        assert "Traceback" not in log, log[-4000:]
        for secret in self.secrets:
            assert secret not in log, f"the log holds the secret {secret[:12]}…"

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self._remove()
            raise

    def __exit__(self, failure: object, *_: object) -> None:
        try:
            status = 0
            if self.alive:
                try:
                    status = self.terminate()
                except subprocess.TimeoutExpired:
                    self.kill()
                    if failure is None:
                        raise AssertionError(
                            f"SIGTERM did not end it:\n{self.log[-4000:]}"
                        ) from None
            if failure is None:
                assert self._killed or status == 0, f"exit status {status}:\n{self.log[-4000:]}"
                self.check_log()
            assert not self.alive
        finally:
            self._remove()

    def _remove(self) -> None:
        if self.alive:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
