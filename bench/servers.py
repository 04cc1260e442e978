"""The servers that are compared: how each is started, subscribed to and published to.

To add one: a subclass of `Server` here and one line in `SERVERS`. Every server runs on
loopback, in a process of its own, and gets the same requests and the same 200 bytes.
"""

import http.client
import json
import os
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from bench.load import compile_program
from bench.machine import BUILD, CHECKOUT, Failed, Missing, children_of
from push_server.publications import dump_json
from push_server.signatures import decode_secret, sign
from push_server.tokens import TokenKeys

CHANNEL = "bench:all"
FLOOD = "bench:flood"
PAYLOAD_BYTES = 200
START_LIMIT = 20.0
STOP_LIMIT = 30.0

NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NCHAN_PACKAGES = ("nginx", "libnginx-mod-nchan")


def payload(number: int, size: int = PAYLOAD_BYTES) -> bytes:
    """A JSON object of `size` bytes that the load generator knows by its number."""
    head = b'{"n":"@%08d","text":"' % number
    return head + b"x" * (size - len(head) - 2) + b'"}'


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server(ABC):
    """One server process. Use as a context manager; leaving it ends the process."""

    name: str
    more_headers = ""
    """Of a subscriber's request; each line ends in CR LF."""
    pids: Sequence[int]
    """The processes whose CPU time and memory count."""

    def __init__(self, folder: str = "") -> None:
        self.port = free_port()
        self.folder = BUILD / "run" / (folder or type(self).__name__.lower())
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._publisher = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    @classmethod
    @abstractmethod
    def check(cls) -> None:
        """Raise `Missing` if this machine cannot run it."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Write what the server needs, and return how it is started."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it serves now."""

    @abstractmethod
    def publish(self, number: int) -> None:
        """Publish one numbered payload, and return when the server has accepted it."""

    def path(self, user: int) -> str:
        """Where this subscriber subscribes."""
        return "/subscribe"

    def token(self, user: int) -> str:
        """What this subscriber shows. Servers that check nothing get bytes of the same size."""
        return "x" * 300

    def requests(self, count: int, first: int = 0) -> Iterator[bytes]:
        """The requests of so many subscribers, each a user of its own."""
        for user in range(first, first + count):
            yield (
                f"GET {self.path(user)} HTTP/1.1\r\nHost: localhost:{self.port}\r\n"
                f"Accept: text/event-stream\r\nAuthorization: Bearer {self.token(user)}\r\n"
                f"{self.more_headers}\r\n"
            ).encode("ascii")

    def processes(self) -> Sequence[int]:
        """The processes whose CPU time and memory count, once it runs."""
        return [self._process.pid]

    def __enter__(self) -> Self:
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            self.command(), cwd=CHECKOUT, stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + START_LIMIT
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise Failed(f"{self.name} does not start:\n{self.log()}")
            time.sleep(0.02)
        self.pids = self.processes()
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.close()
        self._process.terminate()
        try:
            # Every client is gone by now, so nothing is lost by not waiting for a drain.
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def log(self) -> str:
        """The end of what it wrote."""
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        self._publisher.request("POST", path, body, dict(headers))
        answer = self._publisher.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Failed(f"{self.name} answered {answer.status}: {text[:300]!r}")
        return text

    def _accepts(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0


class Relay(Server):
    """The floor: `relay.c`."""

    name = "C floor"

    @classmethod
    def check(cls) -> None:
        """It needs a C compiler."""
        compile_program("relay")

    def command(self) -> Sequence[str]:
        """The compiled program and its port."""
        return [str(compile_program("relay")), str(self.port)]

    def ready(self) -> bool:
        """Whether it accepts connections."""
        return self._accepts(self.port)

    def publish(self, number: int) -> None:
        """Hand it the payload."""
        self._post("/publish", payload(number), {})


class Nchan(Server):
    """Nchan in Debian's nginx, one worker, with `nginx.conf` and a folder of its own."""

    name = "Nchan"

    @classmethod
    def check(cls) -> None:
        """It needs Debian's packages."""
        if _nginx() is None or not NCHAN_MODULE.exists():
            raise Missing(f"Nchan is missing: apt-get install {' '.join(NCHAN_PACKAGES)}")

    def command(self) -> Sequence[str]:
        """nginx in the foreground, with nothing of the machine's own configuration."""
        text = Path(__file__).with_name("nginx.conf").read_text()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        for key, value in {
            "MODULE": NCHAN_MODULE,
            "PREFIX": self.folder,
            "PORT": self.port,
            "FILES": files,
            "CONNECTIONS": files * 9 // 10,
        }.items():
            text = text.replace(f"@{key}@", str(value))
        config = self.folder / "nginx.conf"
        config.write_text(text)
        prefix, log = str(self.folder), str(self.folder / "log")
        return [_nginx() or "nginx", "-p", prefix, "-c", str(config), "-e", log]

    def ready(self) -> bool:
        """Whether the worker accepts connections."""
        return self._accepts(self.port) and bool(children_of(self._process.pid))

    def processes(self) -> Sequence[int]:
        """The one worker; the master does nothing while it runs."""
        return children_of(self._process.pid)

    def publish(self, number: int) -> None:
        """Post the payload to the publisher location."""
        self._post("/publish", payload(number), {})


class PushServer(Server):
    """This server, from this checkout, with signed tokens and signed publications."""

    name = "push_server"
    broker = "sqlite:push.db"
    """A file of it is in the server's own folder."""

    def __init__(self, folder: str = "") -> None:
        super().__init__(folder)
        self.internal_port = free_port()
        self._publisher = http.client.HTTPConnection("127.0.0.1", self.internal_port, timeout=60)
        self._key = secrets.token_urlsafe(32)
        self._tokens = TokenKeys([self._key])
        self._secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
        self._secret_bytes = decode_secret(self._secret)

    @classmethod
    def check(cls) -> None:
        """It needs nothing but what runs this."""

    def command(self) -> Sequence[str]:
        """`push-server serve` with a configuration that changes no limit but one.

        `drain_spread` is shortened because nobody is left to come back when a round ends.
        """
        config = self.folder / "push-server.toml"
        broker = self.broker.replace("sqlite:", f"sqlite:{self.folder}/")
        config.touch(mode=0o600)
        config.write_text(
            f'listen = "127.0.0.1:{self.port}"\n'
            f'internal_listen = "127.0.0.1:{self.internal_port}"\n'
            f'site_origins = ["http://localhost"]\n'
            f'broker = "{broker}"\n'
            f'token_keys = ["{self._key}"]\n'
            f'api_keys = {{ bench = "{self._secret}" }}\n'
            "drain_spread = 1\n"
        )
        return [sys.executable, "-m", "push_server", "serve", "--config", str(config)]

    def ready(self) -> bool:
        """Whether a publication goes through broker and hub."""
        probe = http.client.HTTPConnection("127.0.0.1", self.internal_port, timeout=5)
        try:
            probe.request("GET", "/ready")
            return probe.getresponse().status == 200
        except OSError:
            return False
        finally:
            probe.close()

    def path(self, user: int) -> str:
        """One shared channel; the personal one comes by itself."""
        return f"/subscribe/sse?channel={CHANNEL}"

    def token(self, user: int) -> str:
        """A token as a CMS would issue it."""
        now = int(time.time())
        return self._tokens.issue({
            "v": 1,
            "sub": f"u{user}",
            "sid": self.session(user),
            "iat": now,
            "exp": now + 3600,
            "sub_ch": ["bench:*", "node:*"],
            "pub_ch": [],
        })

    def session(self, user: int) -> str:
        """The session id in this user's token."""
        return f"{user:032x}"

    def publish(self, number: int) -> None:
        """One signed command."""
        self.call(publish_command(payload(number)))

    def publish_batch(self, numbers: Sequence[int]) -> None:
        """All of them in one signed request."""
        commands = b",".join(publish_command(payload(number)) for number in numbers)
        self.call(b"[" + commands + b"]")

    def call(self, body: bytes) -> bytes:
        """A signed request to the API, and what it answers."""
        return self._post("/api", body, self.signature(body))

    @contextmanager
    def publisher(self) -> Iterator[Callable[[bytes], None]]:
        """A connection of one's own to the API, for publishers that work at the same time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.internal_port, timeout=60)

        def call(body: bytes) -> None:
            connection.request("POST", "/api", body, self.signature(body))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200 or b'"error"' in text:
                raise Failed(f"{self.name} answered {answer.status}: {text[:300]!r}")

        with closing(connection):
            yield call

    def subscribers(self, channel: str) -> int:
        """How many subscribers the server itself counts."""
        answer = self.call(dump_json({"method": "channels", "params": {"prefix": channel}}))
        found = json.loads(answer)["result"]["channels"].get(channel, {})
        return int(found.get("subscribers", 0))

    def signature(self, body: bytes) -> dict[str, str]:
        """The headers that sign this body."""
        message_id, now = secrets.token_hex(16), int(time.time())
        return {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(self._secret_bytes, message_id, now, body),
        }


class PushServerInMemory(PushServer):
    """This server without a disk: what durability costs per delivery."""

    name = "push_server (memory)"
    broker = "memory:"


class OverSSE(PushServerInMemory):
    """This server with one transport, beside itself with others."""

    name = "SSE"
    transport = "sse"

    def path(self, user: int) -> str:
        """The same channel, whatever the way."""
        return f"/subscribe/{self.transport}?channel={CHANNEL}"


class OverStream(OverSSE):
    """JSON lines."""

    name = "stream"
    transport = "stream"


class OverWebSocket(OverSSE):
    """WebSocket; a key of its own for each client would change nothing."""

    name = "WebSocket"
    transport = "ws"
    more_headers = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )


TRANSPORTS: Sequence[type[Server]] = (OverSSE, OverStream, OverWebSocket)
"""What `transports` compares; the first is what the others are held against."""

SERVERS: Sequence[type[Server]] = (Relay, Nchan, PushServer, PushServerInMemory)
"""In the order of the report."""


def _nginx() -> str | None:
    # Debian keeps it where only root's PATH looks.
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def publish_command(data: bytes, channel: str = CHANNEL) -> bytes:
    """The API command that publishes this JSON."""
    head = dump_json({"method": "publish", "params": {"channel": channel, "data": None}})
    return head.replace(b"null", data, 1)
