"""Many nodes: what two on one Redis cost beside one on SQLite, and what happens if one dies.

Each function returns figures by the keys of `figures.FIGURES`.
"""

import http.client
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from bench.cluster import Node, Pair
from bench.load import Load, Returned, Returning
from bench.machine import Failed, cpu_seconds
from bench.measures import (
    LIFETIME,
    MICRO,
    MILLI,
    WARM_UP_CLIENTS,
    Crowd,
    Figures,
    Plan,
    Source,
    fanout,
    quantile,
)
from bench.servers import CHANNEL, PushServer, payload
from push_server.publications import dump_json

BEAT = 0.25
"""Seconds between two publications while clients come back."""
CALM = 2.0
"""Seconds that everything runs undisturbed before a node is killed."""
PATIENCE = 90.0
"""Seconds that clients may take to come back: more than is promised, to see by how much."""


class FarCrowd(Crowd):
    """Subscribers on one or more nodes; those of the last node are timed."""

    def __init__(self, server: Source, loads: Sequence[Load], clients: int) -> None:
        super().__init__(server, loads[-1], clients)
        self.receipts: list[tuple[float, float, float]] = []
        """Seconds from a publication to the first, half and the last of them."""
        self._loads = loads

    def _seconds_until_all_have(self, numbers: range, begun: int) -> float:
        each = self.clients // len(self._loads)
        found = [load.wait(numbers[0], numbers[-1], each) for load in self._loads]
        far = found[-1]
        first, half, last = ((at - begun) / 1e9 for at in (far.first, far.half, far.last))
        self.receipts.append((first, half, last))
        return (max(received.last for received in found) - begun) / 1e9

    def figures(self) -> Figures:
        """The medians of the receipts."""
        keys = ("nodes_first", "nodes_half", "nodes_last")
        return {
            key: quantile(seconds, 0.5) * MILLI
            for key, seconds in zip(keys, zip(*self.receipts, strict=True), strict=True)
        }


def measure_nodes(plan: Plan, say: Callable[[str, str], None]) -> dict[str, Figures]:
    """One round of one node on SQLite and two on Redis, taking turns: figures by name."""
    with ExitStack() as stack:
        say("connect", PushServer.name)
        one = stack.enter_context(PushServer())
        alone = FarCrowd(one, [_connect(stack, one, plan.subscribers)], plan.subscribers)
        say("connect", Pair.name)
        pair = stack.enter_context(Pair())
        loads = [_connect(stack, node, plan.subscribers // 2) for node in (pair.one, pair.two)]
        both = FarCrowd(pair, loads, plan.subscribers)
        say("fan out", "both in turn")
        redis = cpu_seconds([pair.redis.pid])
        found = fanout([alone, both], plan)
        redis = cpu_seconds([pair.redis.pid]) - redis
        costs = [{"nodes_cpu": figures["delivery_cpu"]} for figures in found]
        deliveries = len(both.receipts) * plan.subscribers
        return {
            PushServer.name: costs[0] | alone.figures(),
            Pair.name: costs[1] | both.figures() | {"nodes_redis": redis / deliveries * MICRO},
        }


def _connect(stack: ExitStack, server: PushServer, count: int) -> Load:
    with Load(server.port, server.requests(WARM_UP_CLIENTS), LIFETIME) as guests:
        guests.open(WARM_UP_CLIENTS)
    load = stack.enter_context(Load(server.port, server.requests(count), LIFETIME))
    load.open(count)
    return load


class Publisher:
    """Publishes numbers on the nodes by turns, in a thread.

    What is not acknowledged is sent again, with the same id and to the other node, so that number
    n is at offset n whatever happens. Use as a context manager; leaving it ends the thread.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.published = 0
        """The last number that was acknowledged."""
        self.retries = 0
        self.failure: Exception | None = None
        self._nodes = nodes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Publish no more; the last number. Raises `Failed` if no node took one in time."""
        self._over.set()
        self._thread.join()
        if self.failure is not None:
            raise Failed(f"the publisher ended: {self.failure!r}")
        return self.published

    def _run(self) -> None:
        try:
            while not self._over.wait(BEAT):
                self._publish(self.published + 1)
                self.published += 1
        except Exception as failure:  # noqa: BLE001  # told by `stop`
            self.failure = failure

    def _publish(self, number: int) -> None:
        params = {"channel": CHANNEL, "id": f"n{number}", "data": None}
        body = dump_json({"method": "publish", "params": params})
        body = body.replace(b"null", payload(number), 1)
        deadline = time.monotonic() + PATIENCE
        for attempt in itertools.count():
            try:
                with self._nodes[(number + attempt) % 2].publisher() as call:
                    call(body)
                return
            except (OSError, http.client.HTTPException, Failed):
                if time.monotonic() > deadline:
                    raise
            self.retries += 1
            time.sleep(BEAT / 5)


def measure_killed(plan: Plan, restart: bool) -> Figures:
    """Kill one of two nodes, with publishing going on, and see its clients come back.

    If it is started again, they come back to either node, at random; else to the other one.
    """
    with Pair() as pair, ExitStack() as stack:
        requests = pair.one.requests(plan.returning)
        clients = stack.enter_context(Returning(pair.ports, requests, LIFETIME))
        clients.open(plan.returning)
        publisher = stack.enter_context(Publisher([pair.one, pair.two]))
        time.sleep(CALM)
        _expect(clients.wait(publisher.published, PATIENCE), cuts=0)
        figures = {} if restart else measure_revoked(pair, plan)
        if not restart:
            clients.come_back_to([pair.two.port])
        killed = time.monotonic_ns()
        pair.one.kill()
        if restart:
            pair.one.start_again()
        clients.wait(publisher.published + 1, PATIENCE)
        last = publisher.stop()
        found = clients.wait(last, 10)
        _expect(found, cuts=plan.returning // 2)
    seconds = [(at - killed) / 1e9 for at in found.back]
    how = "restarted" if restart else "other"
    return figures | {
        f"back_{how}_p50": quantile(seconds, 0.5),
        f"back_{how}_p95": quantile(seconds, 0.95),
        f"back_{how}_all": max(seconds) if not found.away else PATIENCE,
        f"back_{how}_refusals": found.refusals + found.timeouts,
        f"back_{how}_retries": publisher.retries,
        f"back_{how}_away": found.away,
        f"back_{how}_lost": found.lost,
        f"back_{how}_resets": found.resets,
        f"back_{how}_duplicates": found.duplicates,
    }


def _expect(found: Returned, cuts: int) -> None:
    """Raise `Failed` if others than the clients of the killed node were cut."""
    if found.cuts != cuts:
        raise Failed(f"{found.cuts} streams were cut, not {cuts}")


def measure_revoked(pair: Pair, plan: Plan) -> Figures:
    """Revoke sessions on the first node whose streams are on the second, one after another."""
    first_user = plan.returning
    with ExitStack() as stack:
        watched = selectors.DefaultSelector()
        stack.callback(watched.close)
        for user, request in enumerate(pair.two.requests(plan.revoked, first_user), first_user):
            stream = stack.enter_context(
                socket.create_connection(("127.0.0.1", pair.two.port), 10)
            )
            stream.sendall(request)
            if not stream.recv(4096).startswith(b"HTTP/1.1 200"):
                raise Failed("a stream to be revoked was refused")
            stream.setblocking(False)
            watched.register(stream, selectors.EVENT_READ, user)
        begun: dict[int, float] = {}
        ended: dict[int, float] = {}
        said = 0
        deadline = time.monotonic() + PATIENCE
        while len(ended) < plan.revoked and time.monotonic() < deadline:
            if len(begun) < plan.revoked:
                user = first_user + len(begun)
                begun[user] = time.monotonic()
                params = {"sid": pair.one.session(user)}
                pair.one.call(dump_json({"method": "revoke", "params": params}))
            for key, _ in watched.select(0 if len(begun) < plan.revoked else 1):
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(65_536)
                said += b'"type":"revoked"' in data
                if not data:
                    ended[key.data] = time.monotonic()
                    watched.unregister(key.fileobj)
    if said < plan.revoked:
        raise Failed(f"{said} of {plan.revoked} streams were told that they are revoked")
    seconds = [ended.get(user, at + PATIENCE) - at for user, at in begun.items()]
    return {
        "revoked_p50": quantile(seconds, 0.5) * MILLI,
        "revoked_p99": quantile(seconds, 0.99) * MILLI,
    }
