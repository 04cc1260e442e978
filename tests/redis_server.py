"""A Redis of our own: a private process in a folder of its own, for tests that harm it.

    with RedisServer(appendonly="yes") as redis:
        redis.cli("PING")
        redis.kill()
        redis.start()

Debian's package redis-tools has the program too, under the name of its checker: what it does
depends on the name it is called by. So no service has to be installed to run the tests.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from ports import free_port
from waiting import wait_until_up

START_LIMIT = 10.0


class RedisError(Exception):
    """Raised if Redis answers with an error."""


def program() -> str | None:
    """The Redis server on this machine, if there is one."""
    return shutil.which("redis-server") or shutil.which("redis-check-rdb")


class RedisServer:
    """A Redis process on a free loopback port and on a Unix socket."""

    def __init__(self, **options: str) -> None:
        """Options as in redis.conf; by default nothing is kept on disk."""
        self.folder = Path(tempfile.mkdtemp(prefix="push-redis-"))
        self.port = free_port()
        self.socket_path = self.folder / "redis.sock"
        self.options = {"appendonly": "no", "save": "", **options}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def appended(self) -> Path:
        """The file that the log is appended to."""
        (path,) = (self.folder / "appendonlydir").glob("*.incr.aof")
        return path

    def start(self) -> Self:
        """Start the process, and return when it answers."""
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket_path),
            "dir": str(self.folder),
            "logfile": str(self.folder / "redis.log"),
            "enable-debug-command": "local",
            **self.options,
        }
        found = program()
        assert found is not None, "no Redis on this machine (Debian package redis-tools)"
        self.process = subprocess.Popen(
            ["redis-server", *(w for item in settings.items() for w in (f"--{item[0]}", item[1]))],
            executable=found,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_up(self.process, self._loaded, self._said)
        except BaseException:
            self.kill()
            raise
        return self

    def _said(self) -> str:
        log = self.folder / "redis.log"
        return log.read_text() if log.exists() else ""

    def _loaded(self) -> bool:
        with contextlib.suppress(RedisError):  # still loading
            return bool(self.cli("PING") == b"PONG")
        return False

    def cli(self, *words: str | bytes | int) -> Any:
        """The reply to one command, on a connection of its own and from the protocol alone."""
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        request = b"*%d\r\n" % len(encoded)
        request += b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as replies:
                return _reply(replies)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(START_LIMIT)

    def stop_clean(self) -> None:
        """SIGTERM: what has to be written is written."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(START_LIMIT)

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # It may still be on a processor for a moment.
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _reply(replies: Any) -> Any:
    line = replies.readline()
    if not line:
        raise ConnectionError("Redis hung up")
    kind, text = line[:1], line[1:].strip()
    if kind == b"-":
        raise RedisError(text.decode())
    if kind == b":":
        return int(text)
    if kind == b"$":
        return None if text == b"-1" else replies.read(int(text) + 2)[:-2]
    if kind == b"*":
        return [_reply(replies) for _ in range(int(text))]
    return text
