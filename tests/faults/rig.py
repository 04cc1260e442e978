"""A run: starts everybody, hurts them by a seeded plan, lets them come to rest, ends them.

Threads: one for each lane of faults, one that looks at the nodes once a second; the caller's
shows the progress. Publishers, subscribers and the network are processes of their own
(`faults.child`), so that nothing here can slow them down.
"""

import json
import platform
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from harness import ApiError
from redis_server import RedisServer
from wire import Ended

from faults.child import Child
from faults.faults import FAULTS, HOUSE, WIRE, Fault
from faults.logs import CANARY, Row, Writer, digest
from faults.nodes import ROOT, Node, build_clock, make_nodes
from faults.redis_faults import PREFIX
from push_server.brokers.windows import BUDGET

MARKER = "the-last-one"
WARM_SHARE = 0.15
"""The part of a run after which the server counts as warm."""
PAGE = 500
SHORT_KEEP = 60
QUOTAS = {"connections_per_user": 64, "connections_per_ip": 10_000, "handshakes_per_ip": 10_000}


@dataclass
class Plan:
    """How big a run is."""

    folder: Path
    seconds: float
    seed: int = 1
    broker: str = "sqlite"
    nodes: int = 1
    rate: float = 900.0
    writers: int = 6
    crowds: int = 1
    sessions: int = 90
    users: int = 30
    rooms: int = 16
    rooms_each: int = 3
    keep: int = 1500
    pause: tuple[float, float] = (0.5, 5.0)
    """Seconds between two faults of one lane."""
    converge: float = 30.0
    """Seconds after the last fault in which everybody has to be up to date."""
    tail: float = 20.0
    appendfsync: str = "always"
    """Of Redis: ``always`` or ``everysec``."""
    only: tuple[str, ...] = ()
    """Kinds of faults; all if empty."""
    settings: dict[str, Any] = field(default_factory=dict)


class Rig:
    """Everybody in a run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.folder = plan.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.origin = time.monotonic()
        self.rooms = [f"room:{number}" for number in range(plan.rooms)] + ["short:0", "short:1"]
        self.users = [f"u{number}" for number in range(plan.users)]
        self.channels = [*self.rooms, *(f"user:{user}" for user in self.users)]
        self.done: Counter[str] = Counter()
        self.left_out: list[str] = []
        self.healed = 0.0
        self.last: list[Row] = []
        """What the last look at the nodes and clients showed."""
        self.problems: list[str] = []
        """What kept the rig itself from doing its work."""
        self._faults_file = (self.folder / "faults.jsonl").open("a")
        self._server_file = (self.folder / "server.jsonl").open("a")
        self._write_lock = threading.Lock()
        self._stopping = threading.Event()
        self._read_from: dict[str, list[int]] = {name: [0, 0] for name in self.channels}
        self._read_lock = threading.Lock()
        self._reader = Writer(self.folder / "read", "")
        self.redis: RedisServer | None = None
        self.bus: Child | None = None
        """The network between the nodes and Redis."""
        self._closers: list[Callable[[], None]] = []

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.origin

    # Beginning and end.

    def start(self) -> None:
        """Start the nodes, the network, the subscribers and the publishers, in this order."""
        plan = self.plan
        keep = {"history_size": plan.keep, "history_ttl": 7200, "history_bytes": 256 << 20}
        self.nodes = make_nodes(
            plan.nodes,
            self.folder,
            build_clock(self.folder),
            self._start_broker(),
            heartbeat=2,
            stall_timeout=5,
            connection_max_age=45,
            drain_spread=1,
            namespace={"*": keep, "short": {**keep, "history_size": SHORT_KEEP}},
            **{**QUOTAS, **plan.settings},
        )
        for node in self.nodes:
            self._closers.append(node.close)
            node.start()
        doors = {}
        for node in self.nodes:
            doors[f"public {node.name}"] = ("127.0.0.1", node.port)
            doors[f"api {node.name}"] = ("127.0.0.1", node.internal_port)
        self.doors = list(doors)
        self.proxy = self._child("proxy", doors=doors)
        ports = self.proxy.ask("ports")
        addresses = [
            ("127.0.0.1", port, node.host)
            for node in self.nodes
            for port in (node.port, ports[f"public {node.name}"])
        ]
        self.crowds = [
            self._child(
                "subscriber",
                number=number,
                addresses=addresses,
                sessions=plan.sessions // plan.crowds,
                users=self.users,
                rooms=self.rooms,
                rooms_each=plan.rooms_each,
                token_key=self.nodes[0].token_keys[-1],
                silence=7,
                marker=MARKER,
            )
            for number in range(plan.crowds)
        ]
        self.publishers = self._child(
            "publisher",
            addresses=[
                ("127.0.0.1", port)
                for node in self.nodes
                for port in (node.internal_port, ports[f"api {node.name}"])
            ],
            secret=self.nodes[0].api_secret,
            channels=self.channels,
            writers=plan.writers,
            rate=plan.rate,
            personal_share=plan.rooms / plan.users / 4,
        )

    def _start_broker(self) -> str:
        """Start what keeps the log, if it is not a file; what the nodes call it."""
        if self.plan.broker == "sqlite":
            return "sqlite:"
        options = {"appendonly": "yes", "appendfsync": self.plan.appendfsync}
        self.redis = RedisServer(**options, **{"maxmemory-policy": "noeviction"})
        self._closers.append(lambda: self.redis.__exit__() if self.redis else None)
        self.redis.start()
        # The nodes reach it through a network that can be hurt.
        self.bus = self._child(
            "proxy", number=1, doors={"redis": ("127.0.0.1", self.redis.port)}
        )
        return f"redis://127.0.0.1:{self.bus.ask('ports')['redis']}/0?prefix={PREFIX}"

    def _child(self, module: str, **config: Any) -> Child:
        number = config.get("number", 0)
        common = {"origin": self.origin, "folder": str(self.folder), "seed": self.plan.seed}
        child = Child(
            module, {**common, **config}, self.folder / f"{module}-{number}.err"
        )
        self._closers.append(child.close)
        return child

    def close(self) -> None:
        """End everybody, the last one started first."""
        self._stopping.set()
        for close in reversed(self._closers):
            try:
                close()
            except Exception as error:  # noqa: BLE001 - the others have to be ended all the same
                self.problems.append(f"end: {error!r}")
        self._reader.close()
        self._faults_file.close()
        self._server_file.close()

    # What faults use.

    def crowd(self, do: str, **params: Any) -> int:
        """Have all crowds do something, at the same time; the sum of what they answer."""
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda c=c: answers.append(c.ask(do, **params) or 0))
            for c in self.crowds
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(answers)

    def revoke(self, by: str, picked: Row) -> None:
        """Revoke, until it is acknowledged, and log it."""
        value = picked[by]
        for crowd in self.crowds:
            crowd.ask("revoked", sid=picked["sid"])
        begun, signed = self.now(), time.time()
        params: Row = {by: value}
        if by == "user":
            params["before"] = int(signed)
        self._until_done(lambda node: node.api("revoke", **params))
        note = {"by": by, "value": value, "before": int(signed)}
        self._note("revoke", begun, note)

    def _until_done(self, call: Callable[[Node], Any]) -> Any:
        chance, deadline = Random(0), time.monotonic() + 60
        while True:
            try:
                return call(chance.choice(self.nodes))
            except (OSError, Ended, ApiError, AssertionError, IndexError, ValueError) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"no answer for a minute: {error!r}") from error
                time.sleep(0.1)

    def _note(self, kind: str, begun: float, params: Row, fault: Fault | None = None) -> None:
        row = {
            "kind": kind, "t0": round(begun, 4), "t1": round(self.now(), 4),
            "node": params.pop("node", None),
            "loses": fault.loses if fault else False,
            "channels": params.pop("channels", None),
            "holds": fault.holds if fault else False,
            "errors": fault.errors if fault else False,
            "params": params,
        }
        with self._write_lock:
            self._faults_file.write(json.dumps(row) + "\n")
            self._faults_file.flush()
            self.done[kind] += 1

    # The plan of faults.

    def faults_of(self, lane: str) -> list[Fault]:
        """The kinds that this broker and this machine allow."""
        found = []
        for fault in FAULTS:
            if fault.lane != lane or self.plan.broker not in fault.brokers:
                continue
            if self.plan.only and fault.kind not in self.plan.only:
                continue
            if fault.needs is not None and not fault.needs(self):
                self.left_out.append(fault.kind)
                continue
            found.append(fault)
        return found

    def _lane(self, name: str, until: float) -> None:
        chance = Random(f"{self.plan.seed} {name}")
        kinds = self.faults_of(name)
        # Every kind once before any comes twice: a short run sees as many as it can.
        deck: list[Fault] = []
        while kinds and not self._stopping.is_set():
            time.sleep(chance.uniform(*self.plan.pause))
            if not deck:
                deck = chance.sample(kinds, len(kinds))
                deck += chance.choices(kinds, [kind.weight for kind in kinds], k=len(kinds) // 2)
                deck.reverse()
            if self.now() > until:
                return
            fault = deck.pop()
            begun = self.now()
            try:
                params = fault.do(self, chance)
                # Nobody else ends a node, so one that is not there now is missing.
                for node in self.nodes if name == HOUSE else ():
                    node.wait_ready(30)
            except Exception as error:  # noqa: BLE001 - a fault that fails spoils the run
                self.problems.append(f"{fault.kind} at {begun:.1f} s: {error!r}"[:2000])
                self._stopping.set()
                return
            self._note(fault.kind, begun, params, fault)
            if name == HOUSE:
                self.read_all()

    # The last subscriber.

    def read_all(self, whole: bool = False) -> None:
        """Read what every channel keeps, from where it stood two readings ago."""
        with self._read_lock:
            for channel in self.channels:
                earlier, latest = self._read_from[channel]
                begun = self.now()
                rows = self._read(channel, 0 if whole else earlier)
                while whole and not rows:
                    time.sleep(0.2)
                    begun = self.now()
                    rows = self._read(channel, 0)
                if not rows:
                    continue
                head = rows[0]
                head.update({"at": round(begun, 4), "until": round(self.now(), 4)})
                if head["head"] < latest:
                    latest = 0
                self._read_from[channel] = [latest, head["head"]]
                for row in rows:
                    self._reader.write(channel, row)
            self._reader.flush()

    def _read(self, channel: str, after: int) -> list[Row]:
        """One pass over a channel; empty if no node answered, or the log changed meanwhile."""
        head: Row = {}
        rows: list[Row] = []
        while not head or len(rows) <= head["head"] - head["first"]:
            page = self._page(channel, rows[-1]["offset"] if rows else after)
            if page is None:
                return []
            kept = page["publications"]
            if not head:
                if after > page["offset"]:
                    return self._read(channel, 0)
                first = kept[0]["offset"] if kept else page["offset"] + 1
                head = {
                    "row": "pass", "epoch": page["epoch"], "first": first, "head": page["offset"],
                }
            expected = head["first"] + len(rows)
            if page["epoch"] != head["epoch"] or (kept and kept[0]["offset"] != expected):
                return []
            if not kept:
                break
            rows += [
                {
                    "row": "kept", "epoch": page["epoch"], "offset": one["offset"],
                    "id": one["id"], "sha": digest(one["data"]),
                }
                for one in kept
                if one["offset"] <= head["head"]
            ]
        return [head, *rows]

    def _page(self, channel: str, after: int) -> Row | None:
        for node in self.nodes:
            try:
                page: Row = node.api("history", channel=channel, since=after, limit=PAGE)
                return page
            except (OSError, Ended, ApiError, AssertionError, IndexError, ValueError):
                continue
        return None

    # What is looked at.

    def _watch(self) -> None:
        while not self._stopping.wait(1.0):
            rows = []
            for node in self.nodes:
                if (sample := node.sample(self.now())) is not None:
                    rows.append(sample)
                rows += node.new_log(self.now())
            figures = [crowd.figures for crowd in self.crowds]
            rows.append(
                {
                    "row": "clients", "at": round(self.now(), 3),
                    "got": sum(one.get("got", 0) for one in figures),
                    "resets": sum(one.get("resets", 0) for one in figures),
                    "open": sum(one.get("open", 0) for one in figures),
                    "lag50": max((one.get("lag50") or 0 for one in figures), default=0),
                    "lag99": max((one.get("lag99") or 0 for one in figures), default=0),
                    "acked": self.publishers.figures.get("acked", 0),
                }
            )
            if any(one.get("counts", {}).get("leaks") for one in figures):
                rows.append(
                    {"row": "leak", "at": self.now(), "where": "a refusal", "what": CANARY}
                )
            with self._write_lock:
                self._server_file.writelines(json.dumps(row) + "\n" for row in rows)
                self._server_file.flush()
            self.last = rows
            self._look_after_children()

    def _look_after_children(self) -> None:
        children = [self.proxy, self.publishers, *self.crowds, *([self.bus] if self.bus else [])]
        for child in children:
            if child.process.poll() is not None and not self._stopping.is_set():
                self.problems.append(f"the {child.module} ended by itself")
                self._stopping.set()

    # The run.

    def run(self, show: Callable[["Rig"], None] = lambda rig: None) -> None:
        """Everything from the first connection to the last publication."""
        try:
            self.start()
            self._write_run(0.0)
            threading.Thread(target=self._watch, daemon=True).start()
            until = self.now() + self.plan.seconds
            base = self.now() + max(5.0, self.plan.seconds * WARM_SHARE)
            lanes = [
                threading.Thread(target=self._lane, args=(name, until), daemon=True)
                for name in (HOUSE, WIRE)
            ]
            while self.now() < base - self.plan.seconds * WARM_SHARE / 2:
                time.sleep(0.2)
                show(self)
            for lane in lanes:
                lane.start()
            while any(lane.is_alive() for lane in lanes):
                time.sleep(0.5)
                show(self)
            self.healed = self.now()
            if not self.problems:
                self._come_to_rest(show)
            self._write_run(base)
        finally:
            self.close()

    def _come_to_rest(self, show: Callable[["Rig"], None]) -> None:
        """No faults: the last publications, and time for everybody to get them."""
        self.publishers.ask("stop")
        self.publishers.ask("marker", id=MARKER)
        while self.now() < self.healed + self.plan.converge:
            pairs = [crowd.ask("marked") for crowd in self.crowds]
            if all(have == all_ for have, all_ in pairs):
                break
            time.sleep(0.3)
            show(self)
        else:
            missing = [crowd.ask("missing") for crowd in self.crowds]
            (self.folder / "missing.json").write_text(json.dumps(missing, indent=1))
        self.converged = self.now() - self.healed
        self.read_all(whole=True)
        quiet = self.now() + self.plan.tail
        while self.now() < quiet:
            time.sleep(0.5)
            show(self)
        (self.folder / "clients.json").write_text(
            json.dumps([json.loads(crowd.ask("dump")) for crowd in self.crowds], indent=1)
        )

    def _write_run(self, base: float) -> None:
        plan = self.plan
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )
        run = {
            "seed": plan.seed,
            "broker": plan.broker if plan.broker == "sqlite" else f"redis {plan.appendfsync}",
            "git": commit.stdout.strip(),
            "machine": f"{platform.machine()} {platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "seconds": round(self.now(), 1),
            "converged": round(getattr(self, "converged", -1.0), 2),
            "nodes": plan.nodes,
            "sessions": plan.sessions,
            "left_out": sorted(set(self.left_out)),
            "problems": self.problems,
            "channels": {
                name: {"keep": SHORT_KEEP if name.startswith("short:") else plan.keep}
                for name in self.channels
            },
            "marker": MARKER,
            "healed": round(self.healed, 3),
            "base": round(base, 3),
            "bounds": {
                "converge": plan.converge,
                "revoke": 2.0,
                "duplicates": 100,
                "rss_factor": 1.1,
                # What is kept in memory for history fills up all through a run, to its bound.
                "rss_slack": BUDGET,
                # With several nodes, all clients may end up at one.
                "fds_slack": 32 + (plan.sessions if plan.nodes > 1 else 0),
                "log_per_minute": 10 << 20,
            },
            "secrets": [secret for node in self.nodes for secret in node.secrets],
        }
        (self.folder / "run.json").write_text(json.dumps(run, indent=1))
