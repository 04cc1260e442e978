"""Polling: what a cycle of publication, answer and next poll costs, here and elsewhere.

Two comparisons. Long polls, in each server's own way: Nchan's, where two headers are the cursor,
and ours. And Bayeux, where both servers get the same requests: Faye's, and ours.

`measure_polls` returns figures by the keys of `figures.FIGURES`.
"""

import shutil
import subprocess
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.load import Polled, Polls
from bench.machine import BUILD, Failed, Missing, cpu_seconds
from bench.measures import (
    LIFETIME,
    MICRO,
    MILLI,
    WARM_UP_PUBLICATIONS,
    Figures,
    Plan,
    quantile,
)
from bench.servers import CHANNEL, Nchan, PushServer, Server, payload
from push_server.publications import dump_json

FAYE = "1.4.3"
"""Of the package on npm."""
NPM_SECONDS = 240
FIRST, SECOND = "\x01", "\x02"
"""What `polls.c` writes there is what it has seen behind a poller's two marks."""
JSON = {"Content-Type": "application/json"}
BAYEUX_CHANNEL = "/" + CHANNEL.replace(":", "/", 1)
BREATH = 0.01
STILL = 0.0005
"""A server that uses less CPU time than this in a breath holds every poll that it has got."""
REST_LIMIT = 10.0


class Poller(Server):
    """A server that clients poll."""

    marks: Sequence[str]
    """What stands in front of that which a client brings back."""

    @abstractmethod
    def polls(self, user: int) -> Sequence[bytes]:
        """The requests of one client; the last one is its poll."""


class NchanPoll(Nchan, Poller):
    """Nchan's long poll."""

    name = "Nchan, long poll"
    marks = ("\r\nLast-Modified: ", "\r\nEtag: ")

    def polls(self, user: int) -> Sequence[bytes]:
        """First without a place, then with that of the last message."""
        place = f"If-Modified-Since: {FIRST}\r\nIf-None-Match: {SECOND}\r\n"
        return [_get(self, "/poll", user), _get(self, "/poll", user, place)]


class PushServerPoll(PushServer, Poller):
    """This server's long poll."""

    name = "push_server, long poll"
    marks = ('"cursor":"',)

    def polls(self, user: int) -> Sequence[bytes]:
        """First without a cursor, then with the last one."""
        path = f"/subscribe/poll?channel={CHANNEL}"
        return [_get(self, path, user), _get(self, f"{path}&since={FIRST}", user)]


def _get(server: Server, path: str, user: int, more: str = "") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\nAccept: application/json\r\n"
        f"Authorization: Bearer {server.token(user)}\r\n{more}\r\n"
    ).encode("ascii")


class Bayeux(Poller):
    """A server that speaks Bayeux: whatever it is, it gets these requests."""

    marks = ('"clientId":"',)

    def polls(self, user: int) -> Sequence[bytes]:
        """As Faye's client: handshake; subscribe with a first connect; then connect."""
        handshake = {
            "channel": "/meta/handshake", "version": "1.0", "id": "1",
            "supportedConnectionTypes": ["long-polling"],
            "ext": {"push": {"token": self.token(user)}},
        }
        connect = {
            "channel": "/meta/connect", "connectionType": "long-polling", "id": "2",
            "clientId": FIRST,
        }
        subscribe = {
            "channel": "/meta/subscribe", "subscription": BAYEUX_CHANNEL, "id": "3",
            "clientId": FIRST,
        }
        return [
            self._post_messages(handshake),
            self._post_messages({**connect, "advice": {"timeout": 0}}, subscribe),
            self._post_messages(connect),
        ]

    def _post_messages(self, *messages: object) -> bytes:
        head = (
            f"POST /bayeux HTTP/1.1\r\nHost: localhost:{self.port}\r\n"
            "Content-Type: application/json\r\nContent-Length:     \r\n\r\n"
        )
        return head.encode("ascii") + dump_json(messages).replace(b"\\u0001", FIRST.encode())


class PushServerBayeux(Bayeux, PushServer):
    """This server with Bayeux clients."""

    name = "push_server, Bayeux"


class Faye(Bayeux):
    """Faye's own server, on Node, with everything in memory."""

    name = "Faye, Bayeux"

    @classmethod
    def check(cls) -> None:
        """It needs Node, and its package, which npm fetches once."""
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise Missing("Node is missing: apt-get install nodejs npm")
        if cls._package().exists():
            return
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix"]
        try:
            subprocess.run(
                [*command, str(cls._package()), f"faye@{FAYE}"], check=True, timeout=NPM_SECONDS
            )
        except subprocess.SubprocessError as error:
            shutil.rmtree(cls._package(), ignore_errors=True)
            raise Missing(f"npm cannot fetch faye {FAYE}: {error}") from None

    @staticmethod
    def _package() -> Path:
        return BUILD / f"faye-{FAYE}"

    def command(self) -> Sequence[str]:
        """`faye.js`."""
        script = Path(__file__).with_name("faye.js")
        return ["node", str(script), str(self._package()), str(self.port)]

    def ready(self) -> bool:
        """Whether it accepts connections."""
        return self._accepts(self.port)

    def publish(self, number: int) -> None:
        """A Bayeux message; Faye asks nobody who he is."""
        message = dump_json([{"channel": BAYEUX_CHANNEL, "data": None}])
        body = message.replace(b"null", payload(number), 1)
        if b'"successful":true' not in self._post("/bayeux", body, JSON):
            raise Failed(f"{self.name} refuses a publication")


POLLERS: Sequence[type[Poller]] = (NchanPoll, PushServerPoll, Faye, PushServerBayeux)
"""In the order of the report."""


class Crowd:
    """A server with clients that poll, and what they have cost so far."""

    def __init__(self, server: Poller, polls: Polls, clients: int) -> None:
        self._server = server
        self._polls = polls
        self._clients = clients
        self._published = 0
        self._polled = Polled(0, 0, 0)
        self._latencies: list[float] = []
        self._cpu = 0.0
        self._seconds = 0.0

    def warm_up(self) -> None:
        """A few publications that are not counted: Node compiles what has run often enough."""
        for _ in range(WARM_UP_PUBLICATIONS):
            self._publish()

    def take_turn(self, publications: int) -> None:
        """So many publications, each when every poll is held; then as many without a pause."""
        self._publish()  # not counted: it brings code and sockets back into the caches
        self._rest()
        before = self._polled
        used = cpu_seconds(self._server.pids)
        for _ in range(publications):
            self._latencies.append(self._publish())
            self._rest()
        self._cpu += cpu_seconds(self._server.pids) - used
        begun = time.monotonic()
        for _ in range(publications):
            self._publish()
        self._seconds += time.monotonic() - begun
        self._rest()
        # Between two turns a poll's time may be over, but not here.
        cycles = 2 * publications * self._clients
        if self._polled.answers - before.answers != cycles or self._polled.empty > before.empty:
            raise Failed(f"{self._server.name}: {before}, and {cycles} cycles later {self._polled}")

    def _publish(self) -> float:
        """Seconds from before a publication until its last client has it; all have asked again."""
        self._published += 1
        begun = time.monotonic_ns()
        self._server.publish(self._published)
        self._polled = self._polls.wait(self._published)
        return (self._polled.last - begun) / 1e9

    def _rest(self) -> None:
        """Wait until the server has nothing to do but to hold polls."""
        used = cpu_seconds(self._server.pids)
        deadline = time.monotonic() + REST_LIMIT
        while time.monotonic() < deadline:
            time.sleep(BREATH)
            before, used = used, cpu_seconds(self._server.pids)
            if used - before < STILL:
                return

    def figures(self) -> Figures:
        """What it all came to."""
        cycles = len(self._latencies) * self._clients
        return {
            "poll_cpu": self._cpu / cycles * MICRO,
            "poll_cycles": cycles / self._seconds,
            "poll_p50": quantile(self._latencies, 0.5) * MILLI,
        }


def measure_polls(
    kinds: Sequence[type[Poller]], plan: Plan, say: Callable[[str, str], None]
) -> dict[str, Figures]:
    """One round of these servers, taking turns: figures by name."""
    with ExitStack() as stack:
        crowds = {}
        for kind in kinds:
            say("connect", kind.name)
            server = stack.enter_context(kind())
            # Whoever comes to Nchan without a place gets this one, and a place.
            server.publish(0)
            asks = map(server.polls, range(plan.pollers))
            polls = stack.enter_context(Polls(server.port, asks, kind.marks, LIFETIME))
            polls.open(plan.pollers)
            crowds[kind.name] = Crowd(server, polls, plan.pollers)
            crowds[kind.name].warm_up()
        for _ in range(plan.poll_turns):
            for name, crowd in crowds.items():
                say("poll", name)
                crowd.take_turn(plan.polled)
        return {name: crowd.figures() for name, crowd in crowds.items()}
