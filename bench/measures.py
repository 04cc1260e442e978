"""What is measured, and how.

A *round* starts all servers afresh, connects the subscribers of each, publishes to them in
three ways, and stops the servers. Only one works at a time; in the fan-out they take turns
every few publications, so that whatever else the machine does hits all of them alike, and
ratios are taken round by round. Other measures stand alone because they need other crowds:
`durable` (no subscribers), `stopped` (many that do not read), and what is in `bench.polls` and
`bench.nodes`.

Each function returns figures by the keys of `figures.FIGURES`.
"""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from bench.load import Load
from bench.machine import (
    BUILD,
    Failed,
    cpu_seconds,
    disk_syncs_per_second,
    kernel_socket_bytes,
    resident_bytes,
)
from bench.servers import CHANNEL, FLOOD, PushServer, Server, payload, publish_command

Figures = dict[str, float]

ROUND_PARTS = ("connect", "memory", "fanout", "burst", "batch")
PARTS = (*ROUND_PARTS, "transports", "polls", "durable", "stopped", "nodes")
"""What `--only` takes."""

LIFETIME = 300
"""Seconds after which a load generator ends itself, whatever happens to us."""
WARM_UP_CLIENTS = 300
WARM_UP_PUBLICATIONS = 5
TURN = 20
"""Publications of one server before the next has its turn."""
REST = 0.02
"""Seconds after which a server that has made its deliveries is done with the rest, too."""
PAUSE = 0.002
"""Seconds between a publication's last delivery and the next publication: long enough that no
two ever meet in one turn of a server's loop."""
FLOOD_BYTES = 2048
FLOODS_AT_ONCE = 4
"""Publications of the flood for each one that is timed."""
SMALL_BUFFER = 4096
"""Receive buffer of subscribers that will stop reading, so that the server feels it soon."""
MICRO = 1e6
MILLI = 1e3


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    rounds: int = 5
    subscribers: int = 5000
    publications: int = 100
    batch: int = 100
    durable_seconds: float = 4.0
    publishers: int = 16
    pollers: int = 1000
    polled: int = 5
    """Publications to them, in each of two ways and in each turn."""
    poll_turns: int = 2
    others: int = 10_000
    stopped: int = 1000
    floods: int = 80
    returning: int = 10_000
    revoked: int = 200

    @property
    def clients(self) -> int:
        """Sockets that one process must be able to hold."""
        return max(self.subscribers, self.others + self.stopped, self.returning) + 500


QUICK = Plan(rounds=2, publications=40, durable_seconds=1.5, floods=60)


def measure_round(
    kinds: Sequence[type[Server]],
    plan: Plan,
    parts: Sequence[str],
    say: Callable[[str, str], None],
) -> dict[str, Figures]:
    """One round of all servers: their figures by name. `say` is told what runs now."""
    figures: dict[str, Figures] = {}
    with ExitStack() as stack:
        crowds = []
        for kind in kinds:
            say("connect", kind.name)
            crowd, figures[kind.name] = _connect(stack, kind, plan)
            crowds.append(crowd)
        if "fanout" in parts:
            say("fan out", "all in turn")
            for crowd, found in zip(crowds, fanout(crowds, plan), strict=True):
                figures[crowd.server.name] |= found
        for crowd in crowds:
            if "burst" in parts:
                say("burst", crowd.server.name)
                figures[crowd.server.name] |= _burst(crowd, plan)
            if "batch" in parts and isinstance(crowd.server, PushServer):
                say("batch", crowd.server.name)
                figures[crowd.server.name] |= _batch(crowd, crowd.server, plan)
    return figures


class Source(Protocol):
    """What a crowd needs to know of its server."""

    @property
    def name(self) -> str:
        """As in the report."""

    @property
    def pids(self) -> Sequence[int]:
        """The processes whose CPU time counts."""

    def publish(self, number: int) -> None:
        """Publish one numbered payload."""


class Crowd:
    """A server with so many subscribers that count, and the numbers not yet published."""

    def __init__(self, server: Source, load: Load, clients: int) -> None:
        self.server = server
        self.load = load
        self.clients = clients
        self.answer_times: list[float] = []
        """Seconds that publishers have waited for their answers."""
        self._next = 0

    def take(self, count: int) -> range:
        """The next numbers."""
        self._next += count
        return range(self._next - count, self._next)

    def publish_one(self) -> float:
        """Seconds from before a publication until its last subscriber has it."""
        [number] = self.take(1)
        begun = time.monotonic_ns()
        self.server.publish(number)
        self.answer_times.append((time.monotonic_ns() - begun) / 1e9)
        return self._seconds_until_all_have(range(number, number + 1), begun)

    def publish_many(self, publish: Callable[[range], None], count: int) -> float:
        """The same for `count` publications, published without waiting for deliveries."""
        numbers = self.take(count)
        begun = time.monotonic_ns()
        publish(numbers)
        return self._seconds_until_all_have(numbers, begun)

    def _seconds_until_all_have(self, numbers: range, begun: int) -> float:
        received = self.load.wait(numbers[0], numbers[-1], self.clients)
        return (received.last - begun) / 1e9


def settle(server: Source, seconds: float = 10.0) -> float:
    """Wait until the server has nothing left to do; return its CPU time then."""
    deadline = time.monotonic() + seconds
    used = cpu_seconds(server.pids)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        before, used = used, cpu_seconds(server.pids)
        if used - before < 0.003:
            break
    return used


def _connect(stack: ExitStack, kind: type[Server], plan: Plan) -> tuple[Crowd, Figures]:
    """Start a server, connect its subscribers, and keep both until `stack` is left."""
    server = stack.enter_context(kind())
    with Load(server.port, server.requests(WARM_UP_CLIENTS), LIFETIME) as guests:
        guests.open(WARM_UP_CLIENTS)
    load = stack.enter_context(Load(server.port, server.requests(plan.subscribers), LIFETIME))
    cpu = settle(server)
    memory = resident_bytes(server.pids)
    opened = load.open(plan.subscribers)
    cpu = settle(server) - cpu
    return Crowd(server, load, plan.subscribers), {
        "connect_cpu": cpu / plan.subscribers * MICRO,
        "connects": plan.subscribers / opened.seconds,
        "memory": (resident_bytes(server.pids) - memory) / plan.subscribers,
    }


def fanout(crowds: Sequence[Crowd], plan: Plan) -> list[Figures]:
    """One publication at a time, `TURN` of them in each turn of a server."""
    cpu = [0.0] * len(crowds)
    latencies: list[list[float]] = [[] for _ in crowds]
    for _ in range(plan.publications // TURN):
        for place, crowd in enumerate(crowds):
            # Not counted: they bring code and sockets back into the caches of the CPU.
            crowd.publish_one()
            crowd.publish_one()
            time.sleep(REST)
            used = cpu_seconds(crowd.server.pids)
            for _ in range(TURN):
                latencies[place].append(crowd.publish_one())
                time.sleep(PAUSE)
            time.sleep(REST)
            cpu[place] += cpu_seconds(crowd.server.pids) - used
    return [
        {
            "delivery_cpu": used / (len(seconds) * crowd.clients) * MICRO,
            "latency_p50": quantile(seconds, 0.5) * MILLI,
            "latency_p99": quantile(seconds, 0.99) * MILLI,
            "answer_p50": quantile(crowd.answer_times, 0.5) * MILLI,
            "answer_p99": quantile(crowd.answer_times, 0.99) * MILLI,
        }
        for crowd, used, seconds in zip(crowds, cpu, latencies, strict=True)
    ]


def _burst(crowd: Crowd, plan: Plan) -> Figures:
    def publish(numbers: range) -> None:
        for number in numbers:
            crowd.server.publish(number)

    crowd.publish_one()
    seconds = crowd.publish_many(publish, plan.publications)
    return {"burst": plan.publications * crowd.clients / seconds}


def _batch(crowd: Crowd, server: PushServer, plan: Plan) -> Figures:
    crowd.publish_one()
    cpu = settle(server)
    seconds = crowd.publish_many(server.publish_batch, plan.batch)
    cpu = settle(server) - cpu
    deliveries = plan.batch * crowd.clients
    return {"batch_cpu": cpu / deliveries * MICRO, "batch": deliveries / seconds}


def measure_durable(plan: Plan) -> Figures:
    """Publishes per second, each answered only when it is on the disk."""
    figures = {"disk": disk_syncs_per_second(BUILD)}
    with PushServer() as server:
        figures["durable_one"] = _publishes_per_second(server, plan, 1, 1)
        figures["durable_many"] = _publishes_per_second(server, plan, plan.publishers, 1)
        figures["durable_batch"] = _publishes_per_second(server, plan, 1, plan.batch)
    return figures


def _publishes_per_second(server: PushServer, plan: Plan, publishers: int, batch: int) -> float:
    """What so many publishers get through, each waiting for its answer before it goes on."""
    command = publish_command(payload(0), "bench:durable")
    body = command if batch == 1 else b"[" + b",".join([command] * batch) + b"]"
    done = [0] * publishers
    begun = time.monotonic()

    def publish(place: int) -> None:
        with server.publisher() as call:
            while time.monotonic() < begun + plan.durable_seconds:
                call(body)
                done[place] += batch

    threads = [threading.Thread(target=publish, args=(place,)) for place in range(publishers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - begun)


class StoppingPushServer(PushServer):
    """The newest subscribers also want the channel that floods them."""

    others = 0

    def path(self, user: int) -> str:
        """The flood channel too, for those that will stop reading."""
        flood = f"&channel={FLOOD}" if user >= self.others else ""
        return f"/subscribe/sse?channel={CHANNEL}{flood}"


def measure_stopped(plan: Plan) -> Figures:
    """What subscribers that stop reading do to the others, and to memory.

    The traffic is the same before and after they stop: what is compared is only whether
    they read it.
    """
    with StoppingPushServer() as server:
        server.others = plan.others
        requests = server.requests(plan.others + plan.stopped)
        with Load(server.port, requests, LIFETIME) as load:
            load.open(plan.others)
            load.open(plan.stopped, receive_buffer=SMALL_BUFFER)
            settle(server)
            crowd = Crowd(server, load, plan.others)
            for _ in range(WARM_UP_PUBLICATIONS):
                crowd.publish_one()
            before, _, _ = _flooded(crowd, server, plan.floods // 2)
            memory, sockets = resident_bytes(server.pids), kernel_socket_bytes()
            load.pause(plan.stopped)
            during, most, most_sockets = _flooded(crowd, server, plan.floods)
            return {
                "stopped_before": quantile(before, 0.5) * MILLI,
                "stopped_during": quantile(during, 0.5) * MILLI,
                "stopped_before_p99": quantile(before, 0.99) * MILLI,
                "stopped_during_p99": quantile(during, 0.99) * MILLI,
                "stopped_memory": max(0, most - memory) / plan.stopped,
                "stopped_sockets": max(0, most_sockets - sockets) / plan.stopped,
                "stopped_cut": plan.stopped - server.subscribers(FLOOD),
            }


def _flooded(crowd: Crowd, server: PushServer, count: int) -> tuple[list[float], int, int]:
    """Latencies of the others while the flood runs, and the most memory seen."""
    latencies = []
    most = most_sockets = 0
    for _ in range(count):
        for _ in range(FLOODS_AT_ONCE):
            server.call(publish_command(payload(0, FLOOD_BYTES), FLOOD))
        latencies.append(crowd.publish_one())
        most = max(most, resident_bytes(server.pids))
        most_sockets = max(most_sockets, kernel_socket_bytes())
    return latencies, most, most_sockets


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    if not values:
        raise Failed("nothing was measured")
    if share == 0.5:
        return statistics.median(values)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]
