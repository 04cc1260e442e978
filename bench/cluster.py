"""Two nodes of this server on a Redis of their own.

Redis keeps its log in the benchmark's folder, beside the databases of SQLite, and writes it to
the disk every second (`appendfsync everysec`).
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from bench.machine import BUILD, Failed, Missing
from bench.servers import START_LIMIT, STOP_LIMIT, PushServer, free_port


class Redis:
    """A Redis process. Use as a context manager; leaving it ends the process."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = BUILD / "run" / "redis"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    @staticmethod
    def program() -> str:
        """Where it is; raises `Missing`, naming the package.

        Debian's redis-tools has it too, as redis-check-rdb: what that does depends on the name
        it is called by.
        """
        found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        if found is None:
            raise Missing("Redis is missing: apt-get install redis-server (or redis-tools)")
        return found

    @property
    def url(self) -> str:
        """As in `broker = "…"`."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Whose CPU time is Redis's."""
        return self._process.pid

    def __enter__(self) -> Self:
        options = {
            "port": self.port, "bind": "127.0.0.1", "dir": self.folder,
            "logfile": self.folder / "log", "appendonly": "yes", "appendfsync": "everysec",
            "save": "", "maxmemory-policy": "noeviction",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        self._process = subprocess.Popen(
            ["redis-server", *words], executable=self.program(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise Failed("Redis does not start: see " + str(self.folder / "log"))
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(STOP_LIMIT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False


class Node(PushServer):
    """One of several servers of a site: the others have the same Redis and the same keys."""

    def __init__(self, number: int, redis: Redis, first: "Node | None" = None) -> None:
        super().__init__(f"node{number}")
        self.name = f"node {number}"
        self.broker = redis.url
        if first is not None:
            self._key, self._tokens = first._key, first._tokens
            self._secret, self._secret_bytes = first._secret, first._secret_bytes

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(STOP_LIMIT)
        self._log.close()

    def start_again(self) -> None:
        """On the same ports; returns when it serves."""
        self.__enter__()


class Pair:
    """Two nodes on one Redis. Use as a context manager; leaving it ends all three."""

    name = "2 nodes, Redis"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.redis = stack.enter_context(Redis())
            self.one = stack.enter_context(Node(1, self.redis))
            self.two = stack.enter_context(Node(2, self.redis, first=self.one))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def pids(self) -> Sequence[int]:
        """The two nodes."""
        return [*self.one.pids, *self.two.pids]

    @property
    def ports(self) -> Sequence[int]:
        """Where their clients connect."""
        return [self.one.port, self.two.port]

    def publish(self, number: int) -> None:
        """Publish on the first node."""
        self.one.publish(number)
