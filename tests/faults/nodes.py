"""The push servers of a run: started again and again on the same ports, data and keys.

A node is a `harness.PushServer` whose files stay in the folder of the run, whose wall clock can
be set, and whose memory, descriptors and log are looked at once a second.
"""

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from harness import PushServer
from ports import free_port

from faults.logs import CANARY, Row

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN_START = "eyJ2Ijox"
"""How every token begins: base64 of ``{"v":1``."""
LEVELS = (" WARNING ", " ERROR ", " CRITICAL ")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def build_clock(folder: Path) -> Path | None:
    """The library that moves a clock; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True
    )
    return library


class Node(PushServer):
    """One push server."""

    def __init__(self, name: str, folder: Path, clock: Path | None, **settings: Any) -> None:
        super().__init__(**settings)
        shutil.rmtree(self.folder)
        self.name = name
        self.folder = folder / f"node-{name}"
        self.folder.mkdir()
        if self.settings["broker"].startswith("sqlite:"):
            self.settings["broker"] = f"sqlite:{self.database}"
        self._log_file = folder / f"node-{name}.log"
        self._clock = clock
        self._offset = self.folder / "offset"
        self.set_clock(0)
        self._read = 0
        self._rest = b""

    @property
    def database(self) -> Path:
        return self.folder / "push.db"

    def set_clock(self, seconds: float) -> None:
        """Move the node's wall clock."""
        if not self._offset.exists():
            self._offset.write_bytes(bytes(8))
        # In place: the process has this very file mapped.
        with self._offset.open("r+b") as file:
            file.write(struct.pack("=q", int(seconds * 1e9)))

    @property
    def clock_can_be_set(self) -> bool:
        return self._clock is not None

    def spawn(self) -> None:
        """Start the process and do not wait."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PUSH_SERVER_")
        }
        environment["PYTHONPATH"] = str(ROOT)
        if self._clock is not None:
            environment["LD_PRELOAD"] = str(self._clock)
            environment["CLOCK_OFFSET"] = str(self._offset)
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "push_server", "serve", "--config", str(self.config_file)],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._killed = False

    def start(self) -> Self:
        """Start the process and wait until it is ready."""
        self.write_config()
        self.spawn()
        self.wait_ready()
        return self

    def close(self) -> None:
        """End it, without a word if it does not listen."""
        if self.alive:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def sample(self, at: float) -> Row | None:
        """What the kernel and the node say of it now; None while there is no process."""
        try:
            proc = Path(f"/proc/{self.pid}")
            rss = int((proc / "statm").read_text().split()[1]) * PAGE
            fds = len(os.listdir(proc / "fd"))
            stat = (proc / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            return None
        if rss == 0:
            return None
        return {
            "row": "sample", "at": round(at, 3), "node": self.name, "pid": self.pid, "rss": rss,
            "fds": fds, "threads": int(stat[17]), "cpu": (int(stat[11]) + int(stat[12])) / TICKS,
            "log_bytes": self._log_file.stat().st_size, "answer": self._answer_time(),
        }

    def _answer_time(self) -> float | None:
        begun = time.monotonic()
        try:
            response = self.get("/live", internal=True, timeout=1.0)
        except (OSError, AssertionError, Exception):  # noqa: BLE001 - whatever it is: no answer
            return None
        return round(time.monotonic() - begun, 5) if response.status == 200 else None

    def new_log(self, at: float) -> Iterator[Row]:
        """Warnings, errors and leaked secrets that the log got since the last call."""
        with self._log_file.open("rb") as log:
            log.seek(self._read)
            data = log.read()
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        forbidden = [CANARY, TOKEN_START, *self.secrets]
        for raw in lines:
            line = raw.decode("utf-8", "backslashreplace")
            for secret in forbidden:
                if secret in line:
                    what = secret if len(secret) < 10 else secret[:6] + "…"
                    yield {"row": "leak", "at": at, "where": f"log of {self.name}", "what": what}
            level = next((level for level in LEVELS if level in line), None)
            if level is None and line.startswith("Traceback"):
                level = " ERROR "
            if level is not None:
                yield {
                    "row": "log", "at": round(at, 3), "node": self.name, "level": level.strip(),
                    "line": line[:500],
                }


def make_nodes(
    count: int, folder: Path, clock: Path | None, broker: str, **settings: Any
) -> list[Node]:
    """Nodes that share keys and broker."""
    first = Node("a", folder, clock, broker=broker, **settings)
    nodes = [first]
    for number in range(1, count):
        node = Node(
            "abcdef"[number], folder, clock, broker=broker,
            token_keys=list(first.token_keys), api_keys={"cms": first.api_secret}, **settings,
        )
        node.api_secret = first.api_secret
        node.secrets = {*node.token_keys, node.api_secret}
        nodes.append(node)
    return nodes


__all__ = ["Node", "build_clock", "free_port", "make_nodes"]
