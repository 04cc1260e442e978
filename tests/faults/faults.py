"""What is done to the server, the broker, the network and the clients.

To add a fault: a function here that does it and undoes it, and one line in `FAULTS`. A function
takes the rig and a seeded source of chance, returns what is to be noted, and leaves nothing
broken behind: it returns when the cause is gone, and the rig then waits until the nodes are
ready. Faults of one lane never overlap; those of the two lanes do, at random.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from resource import RLIMIT_NOFILE, prlimit
from secrets import token_urlsafe
from typing import TYPE_CHECKING, NamedTuple

from faults import redis_faults
from faults.logs import Row

if TYPE_CHECKING:
    from faults.nodes import Node
    from faults.rig import Rig

Do = Callable[["Rig", Random], Row]

HOUSE, WIRE = "house", "wire"
"""The two lanes: what is done to a process or its disk, and what to those who talk to it."""


class Fault(NamedTuple):
    """A kind of fault."""

    kind: str
    lane: str
    do: Do
    brokers: tuple[str, ...] = ("sqlite", "redis")
    loses: bool = False
    """It may destroy what was acknowledged; then every client has to be told."""
    holds: bool = False
    """Bytes may arrive late by as much as it lasts."""
    errors: bool = False
    """The server may log errors."""
    needs: Callable[["Rig"], bool] | None = None
    weight: float = 1.0


def _node(rig: "Rig", chance: Random) -> "Node":
    node: Node = chance.choice(rig.nodes)
    return node


# To the process


def kill(rig: "Rig", chance: Random) -> Row:
    """SIGKILL while publishing."""
    node = _node(rig, chance)
    node.kill()
    away = chance.uniform(0, 1.5)
    time.sleep(away)
    node.start()
    return {"node": node.name, "away": away}


def kill_while_recovering(rig: "Rig", chance: Random) -> Row:
    """SIGKILL, and again while everybody is coming back."""
    node = _node(rig, chance)
    node.kill()
    for _ in range(2):
        node.spawn()
        time.sleep(chance.uniform(0.1, 1.2))
        node.kill()
    node.start()
    return {"node": node.name}


def roll(rig: "Rig", chance: Random) -> Row:
    """SIGTERM: an orderly restart."""
    node = _node(rig, chance)
    status = node.terminate(timeout=30)
    node.start()
    return {"node": node.name, "status": status}


def terminate_twice(rig: "Rig", chance: Random) -> Row:
    """A second SIGTERM while the first is being obeyed."""
    node = _node(rig, chance)
    node.signal(signal.SIGTERM)
    time.sleep(chance.uniform(0.01, 0.3))
    node.signal(signal.SIGTERM)
    status = node.wait(30)
    node.start()
    return {"node": node.name, "status": status}


def freeze(rig: "Rig", chance: Random) -> Row:
    """SIGSTOP for seconds."""
    node, seconds = _node(rig, chance), chance.uniform(0.5, 5)
    node.signal(signal.SIGSTOP)
    time.sleep(seconds)
    node.signal(signal.SIGCONT)
    return {"node": node.name, "seconds": seconds}


def starve(rig: "Rig", chance: Random) -> Row:
    """A tenth of the CPU: SIGSTOP in bursts."""
    node = _node(rig, chance)
    for _ in range(40):
        node.signal(signal.SIGSTOP)
        time.sleep(0.09)
        node.signal(signal.SIGCONT)
        time.sleep(0.01)
    return {"node": node.name}


def reload_good(rig: "Rig", chance: Random) -> Row:
    """SIGHUP with the configuration it has."""
    node = _node(rig, chance)
    for _ in range(chance.randint(1, 5)):
        node.signal(signal.SIGHUP)
        time.sleep(0.05)
    return {"node": node.name}


def reload_bad(rig: "Rig", chance: Random) -> Row:
    """SIGHUP with a configuration that cannot be used: the old one stays in force."""
    node = _node(rig, chance)
    bad = chance.choice(("listen = [", 'no_such_setting = 1\n', "token_keys = []\n", "\x00"))
    node.config_file.write_text(bad)
    node.signal(signal.SIGHUP)
    time.sleep(0.3)
    node.write_config()
    node.signal(signal.SIGHUP)
    return {"node": node.name, "config": bad}


def rotate_keys(rig: "Rig", chance: Random) -> Row:
    """A new token key beside the old, then without it."""
    key = token_urlsafe(32)
    old = rig.nodes[0].token_keys[-1]
    for keys in ([old, key], [key]):
        for node in rig.nodes:
            node.secrets.add(key)
            node.token_keys = keys
            node.write_config(token_keys=keys)
            node.signal(signal.SIGHUP)
        time.sleep(0.3)
        rig.crowd("key", key=key)
        time.sleep(0.5)
    return {}


def descriptors(rig: "Rig", chance: Random) -> Row:
    """No file descriptors left: those who are connected stay."""
    node = _node(rig, chance)
    soft, hard = prlimit(node.pid, RLIMIT_NOFILE)
    open_now = len(os.listdir(f"/proc/{node.pid}/fd"))
    prlimit(node.pid, RLIMIT_NOFILE, (open_now + 3, hard))
    try:
        cut = rig.crowd("cut", count=20)
        time.sleep(chance.uniform(1, 3))
    finally:
        prlimit(node.pid, RLIMIT_NOFILE, (soft, hard))
    return {"node": node.name, "open": open_now, "cut": cut}


def clock_jump(rig: "Rig", chance: Random) -> Row:
    """The wall clock jumps and comes back."""
    node = _node(rig, chance)
    jump = chance.choice((-3600, -200, -30, 30, 200))
    node.set_clock(jump)
    try:
        time.sleep(chance.uniform(1, 4))
    finally:
        node.set_clock(0)
    return {"node": node.name, "seconds": jump}


# To the disk


@contextmanager
def _strace(node: "Node", inject: str) -> Iterator[None]:
    """The node's system calls answered otherwise, while this lasts."""
    call = inject.partition(":")[0]
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(node.pid), "-e", f"trace={call}"]
    process = subprocess.Popen(
        [*words, "-e", f"inject={inject}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(0.3)
        yield
    finally:
        process.terminate()
        process.wait(10)


def sync_error(rig: "Rig", chance: Random) -> Row:
    """The disk refuses to sync."""
    node = _node(rig, chance)
    with _strace(node, "fdatasync:error=EIO"):
        time.sleep(chance.uniform(0.5, 2))
    return {"node": node.name}


def slow_disk(rig: "Rig", chance: Random) -> Row:
    """Each sync takes long."""
    node, micros = _node(rig, chance), chance.randint(100_000, 1_000_000)
    with _strace(node, f"fdatasync:delay_enter={micros}"):
        time.sleep(chance.uniform(1, 4))
    return {"node": node.name, "microseconds": micros}


def disk_full(rig: "Rig", chance: Random) -> Row:
    """There is no room on the disk."""
    node = _node(rig, chance)
    with _strace(node, "pwrite64:error=ENOSPC"):
        time.sleep(chance.uniform(0.5, 2))
    return {"node": node.name}


def _end_of_log_gone(node: "Node") -> None:
    # What was committed last stands beside the file until it is folded into it.
    for side in ("-wal", "-shm"):
        Path(f"{node.database}{side}").unlink(missing_ok=True)


def wal_gone(rig: "Rig", chance: Random) -> Row:
    """The write-ahead log is deleted while the server is down: a good log without its end."""
    node = rig.nodes[0]
    node.kill()
    _end_of_log_gone(node)
    node.start()
    return {"node": node.name}


def bits_flipped(rig: "Rig", chance: Random) -> Row:
    """The disk gives back something else than what was written, here and there."""
    node, flips = rig.nodes[0], chance.choice((1, 20, 400))
    node.kill()
    with node.database.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        for _ in range(flips):
            place = chance.randrange(size)
            file.seek(place)
            byte = file.read(1)[0] ^ 1 << chance.randrange(8)
            file.seek(place)
            file.write(bytes([byte]))
    node.start()
    return {"node": node.name, "flips": flips, "of": size}


def damage(rig: "Rig", chance: Random) -> Row:
    """The log is destroyed while the server is down; what is left says so."""
    node = rig.nodes[0]
    node.kill()
    how = chance.choice(("header", "half", "gone"))
    _end_of_log_gone(node)
    if how == "gone":
        node.database.unlink()
    elif how == "half":
        os.truncate(node.database, node.database.stat().st_size // 8192 * 4096)
    elif how == "header":
        with node.database.open("r+b") as file:
            file.write(chance.randbytes(4096))
    node.start()
    return {"node": node.name, "how": how}


# To the network and the clients


def cut_clients(rig: "Rig", chance: Random) -> Row:
    """Clients vanish with RST."""
    return {"cut": rig.crowd("cut", count=chance.randint(1, 40))}


def kill_sockets(rig: "Rig", chance: Random) -> Row:
    """The kernel of the server ends connections."""
    node = _node(rig, chance)
    # Some versions complain of sockets they have ended all the same.
    subprocess.run(
        ["ss", "-K", "state", "established", "sport", "=", f":{node.port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=10, check=False,
    )
    return {"node": node.name}


def half_open(rig: "Rig", chance: Random) -> Row:
    """Clients walk away without closing."""
    seconds = chance.uniform(2, 6)
    return {"left": rig.crowd("half_open", count=10, seconds=seconds), "seconds": seconds}


def slow_readers(rig: "Rig", chance: Random) -> Row:
    """Some read nothing for a while; the others must not notice."""
    seconds = chance.uniform(2, 8)
    return {"slow": rig.crowd("slow", count=10, seconds=seconds), "seconds": seconds}


def stopped_clients(rig: "Rig", chance: Random) -> Row:
    """A machine full of clients is asleep."""
    seconds = chance.uniform(1, 4)
    process = rig.crowds[0].process
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)
    return {"seconds": seconds}


def reconnect_storm(rig: "Rig", chance: Random) -> Row:
    """Everybody is cut, and back at once."""
    return {"cut": rig.crowd("cut", count=100_000)}


def expire(rig: "Rig", chance: Random) -> Row:
    """Tokens run out while in use."""
    count = rig.crowd("expire", count=10)
    time.sleep(4)
    return {"sessions": count}


def _revoke(rig: "Rig", chance: Random, by: str) -> Row:
    picked = chance.choice(rig.crowds).ask("pick")
    rig.revoke(by, picked)
    return {"by": by}


def revoke_session(rig: "Rig", chance: Random) -> Row:
    """One session is logged out."""
    return _revoke(rig, chance, "sid")


def revoke_user(rig: "Rig", chance: Random) -> Row:
    """All sessions of a user are logged out."""
    return _revoke(rig, chance, "user")


def revoke_token(rig: "Rig", chance: Random) -> Row:
    """A single token is revoked."""
    return _revoke(rig, chance, "jti")


def _mood(rig: "Rig", chance: Random, mood: str, value: float = 0.0, doors: str = "") -> Row:
    names = [name for name in rig.doors if doors in name]
    seconds = chance.uniform(1, 5)
    rig.proxy.ask("mood", names=names, mood=mood, value=value)
    time.sleep(seconds)
    rig.proxy.ask("mood", names=names, mood="pass")
    return {"seconds": seconds, "value": value}


def net_delay(rig: "Rig", chance: Random) -> Row:
    """Each piece of data is late, by another time."""
    return _mood(rig, chance, "delay", chance.uniform(0.01, 0.4))


def net_stall(rig: "Rig", chance: Random) -> Row:
    """Nothing passes; then all of it does."""
    return _mood(rig, chance, "stall")


def net_cut(rig: "Rig", chance: Random) -> Row:
    """Connections are cut in the middle of what they carry."""
    return _mood(rig, chance, "cut", chance.uniform(0.02, 0.3))


def net_garbage(rig: "Rig", chance: Random) -> Row:
    """What clients and publishers send arrives mangled."""
    return _mood(rig, chance, "garbage")


def net_swallow(rig: "Rig", chance: Random) -> Row:
    """A NAT forgets its connections: nobody is told."""
    return _mood(rig, chance, "swallow")


def eat_replies(rig: "Rig", chance: Random) -> Row:
    """Publications arrive, and their answers do not."""
    return _mood(rig, chance, "eat", chance.uniform(0.1, 0.6), "api")


def duplicates(rig: "Rig", chance: Random) -> Row:
    """A CMS publishes again what it had published."""
    return {"again": rig.publishers.ask("duplicates", count=chance.randint(10, 60))}


def disorder(rig: "Rig", chance: Random) -> Row:
    """Eight publishers to one channel, in no order."""
    return {"channel": rig.publishers.ask("disorder", count=60)}


def huge(rig: "Rig", chance: Random) -> Row:
    """As large a publication as a request may be."""
    return {"channel": rig.publishers.ask("huge", size=chance.randint(100_000, 255_000))}


def storm(rig: "Rig", chance: Random) -> Row:
    """Many publishers at once."""
    return {"published": rig.publishers.ask("storm", count=400, at_once=40)}


RUBBISH = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /subscribe/sse HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x.y\r\n\r\n",
    b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0",
    b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n",
    b"GET /subscribe/poll?since=1~~ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"A" * 70_000,
)


def rubbish(rig: "Rig", chance: Random) -> Row:
    """Both listeners are fed with nonsense."""
    node = _node(rig, chance)
    sent = 0
    for _ in range(40):
        data = chance.choice((*RUBBISH, chance.randbytes(300)))
        port = chance.choice((node.port, node.internal_port))
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as wire:
                wire.sendall(data)
                sent += 1
                if chance.random() < 0.5:
                    wire.settimeout(0.05)
                    wire.recv(1000)
        except OSError:
            pass
    return {"node": node.name, "sent": sent}


# What this machine can do


def _has(program: str) -> Callable[["Rig"], bool]:
    return lambda _rig: shutil.which(program) is not None


def _strace_works(_rig: "Rig") -> bool:
    return shutil.which("strace") is not None and os.geteuid() == 0


def _has_clock(rig: "Rig") -> bool:
    return all(node.clock_can_be_set for node in rig.nodes)


SQLITE, REDIS = ("sqlite",), ("redis",)

FAULTS: tuple[Fault, ...] = (
    Fault("kill", HOUSE, kill, weight=2),
    Fault("kill while recovering", HOUSE, kill_while_recovering),
    Fault("rolling restart", HOUSE, roll),
    Fault("terminate twice", HOUSE, terminate_twice),
    Fault("freeze", HOUSE, freeze, holds=True),
    Fault("starve", HOUSE, starve, holds=True),
    Fault("reload", HOUSE, reload_good, weight=0.5),
    Fault("bad configuration", HOUSE, reload_bad, weight=0.5),
    Fault("rotate keys", HOUSE, rotate_keys, weight=0.5),
    Fault("no descriptors", HOUSE, descriptors, errors=True),
    Fault("clock jump", HOUSE, clock_jump, needs=_has_clock),
    Fault("sync error", HOUSE, sync_error, SQLITE, errors=True, needs=_strace_works),
    Fault("slow disk", HOUSE, slow_disk, SQLITE, holds=True, needs=_strace_works),
    Fault("disk full", HOUSE, disk_full, SQLITE, errors=True, needs=_strace_works),
    Fault("log destroyed", HOUSE, damage, SQLITE, loses=True, errors=True, weight=0.5),
    Fault("end of log gone", HOUSE, wal_gone, SQLITE, loses=True, errors=True, weight=0.5),
    Fault("bits flipped", HOUSE, bits_flipped, SQLITE, loses=True, errors=True, weight=0.5),
    # A restart that loses nothing, and one of which nobody can say so.
    Fault("Redis killed", HOUSE, redis_faults.killed, REDIS, needs=redis_faults.synced),
    Fault("Redis restarted", HOUSE, redis_faults.restarted, REDIS, needs=redis_faults.synced),
    Fault(
        "Redis killed, not synced", HOUSE, redis_faults.killed, REDIS, loses=True,
        needs=redis_faults.not_synced,
    ),
    Fault(
        "Redis lost its tail", HOUSE, redis_faults.tail_cut, REDIS, loses=True,
        needs=redis_faults.not_synced,
    ),
    Fault("Redis begins empty", HOUSE, redis_faults.not_kept, REDIS, loses=True, weight=0.5),
    Fault("Redis flushed", HOUSE, redis_faults.flushed, REDIS, loses=True, weight=0.5),
    Fault("stream deleted", HOUSE, redis_faults.stream_deleted, REDIS, loses=True, weight=0.5),
    Fault("Redis frozen", HOUSE, redis_faults.frozen, REDIS, holds=True),
    Fault("Redis full", HOUSE, redis_faults.full, REDIS, errors=True),
    Fault("Redis busy", HOUSE, redis_faults.busy, REDIS, holds=True),
    Fault("bus killed", HOUSE, redis_faults.bus_killed, REDIS),
    Fault("commands killed", HOUSE, redis_faults.commands_killed, REDIS),
    Fault("way to Redis stalls", HOUSE, redis_faults.way_stalls, REDIS, holds=True),
    Fault("way to Redis lost", HOUSE, redis_faults.way_lost, REDIS, holds=True),
    Fault("way to Redis cut", HOUSE, redis_faults.way_cut, REDIS),
    Fault("way to Redis slow", HOUSE, redis_faults.way_slow, REDIS, holds=True),
    Fault("clients cut", WIRE, cut_clients),
    Fault("sockets killed", WIRE, kill_sockets, needs=_has("ss")),
    Fault("half-open clients", WIRE, half_open),
    Fault("slow readers", WIRE, slow_readers, holds=True),
    Fault("clients asleep", WIRE, stopped_clients, holds=True),
    Fault("reconnect storm", WIRE, reconnect_storm),
    Fault("tokens expire", WIRE, expire),
    Fault("revoke a session", WIRE, revoke_session),
    Fault("revoke a user", WIRE, revoke_user),
    Fault("revoke a token", WIRE, revoke_token),
    Fault("network late", WIRE, net_delay, holds=True),
    Fault("network stalls", WIRE, net_stall, holds=True),
    Fault("network cuts", WIRE, net_cut),
    Fault("network garbles", WIRE, net_garbage),
    Fault("network forgets", WIRE, net_swallow, holds=True),
    Fault("answers lost", WIRE, eat_replies),
    Fault("published again", WIRE, duplicates),
    Fault("publishers out of order", WIRE, disorder),
    Fault("huge publication", WIRE, huge),
    Fault("publisher storm", WIRE, storm, weight=0.7),
    Fault("rubbish", WIRE, rubbish),
)
