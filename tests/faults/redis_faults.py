"""What is done to Redis and to the way there. Same rules as in `faults.faults`.

Whether a restart may lose something depends on `appendfsync`: with `always` nothing that was
acknowledged may be missing afterwards, with `everysec` the log begins a new epoch and everybody
is told.
"""

import time
from random import Random
from typing import TYPE_CHECKING

from redis_server import RedisServer

from faults.logs import Row

if TYPE_CHECKING:
    from faults.rig import Rig

PREFIX = "soak:"


def _redis(rig: "Rig") -> RedisServer:
    assert rig.redis is not None
    return rig.redis


def killed(rig: "Rig", chance: Random) -> Row:
    """SIGKILL."""
    away = chance.uniform(0, 3)
    _redis(rig).kill()
    time.sleep(away)
    _redis(rig).start()
    return {"away": away}


def restarted(rig: "Rig", chance: Random) -> Row:
    """SIGTERM, and back."""
    _redis(rig).stop_clean()
    _redis(rig).start()
    return {}


def frozen(rig: "Rig", chance: Random) -> Row:
    """SIGSTOP: connections stay, and nothing is answered."""
    seconds = chance.uniform(0.5, 8)
    _redis(rig).freeze()
    time.sleep(seconds)
    _redis(rig).thaw()
    return {"seconds": seconds}


def bus_killed(rig: "Rig", chance: Random) -> Row:
    """The connections that listen are ended; those that command live on."""
    for _ in range(chance.randint(1, 3)):
        _redis(rig).cli("CLIENT", "KILL", "TYPE", "pubsub")
        time.sleep(chance.uniform(0, 0.5))
    return {}


def commands_killed(rig: "Rig", chance: Random) -> Row:
    """The connections that command are ended; those that listen live on."""
    for _ in range(chance.randint(1, 3)):
        _redis(rig).cli("CLIENT", "KILL", "TYPE", "normal")
        time.sleep(chance.uniform(0, 0.5))
    return {}


def flushed(rig: "Rig", chance: Random) -> Row:
    """FLUSHALL while publishing."""
    _redis(rig).cli("FLUSHALL")
    return {}


def stream_deleted(rig: "Rig", chance: Random) -> Row:
    """Somebody deletes one channel's stream."""
    channel = chance.choice(rig.rooms)
    _redis(rig).cli("DEL", f"{PREFIX}c:{channel}")
    # Nobody can know before somebody asks; those who listen are asked about in turn.
    time.sleep(2)
    return {"channels": [channel]}


def not_kept(rig: "Rig", chance: Random) -> Row:
    """A restart without what was kept."""
    redis = _redis(rig)
    redis.kill()
    for path in (redis.folder / "appendonlydir").iterdir():
        path.unlink()
    redis.start()
    return {}


def tail_cut(rig: "Rig", chance: Random) -> Row:
    """Power loss: the end of the append-only file never reached the disk."""
    redis = _redis(rig)
    redis.kill()
    size = redis.appended.stat().st_size
    lost = chance.randint(1, min(200_000, max(2, size // 2)))
    with redis.appended.open("r+b") as file:
        file.truncate(max(0, size - lost))
    redis.start()
    return {"bytes": lost, "of": size}


def full(rig: "Rig", chance: Random) -> Row:
    """No memory left: writes are refused."""
    redis = _redis(rig)
    redis.cli("CONFIG", "SET", "maxmemory", "1mb")
    time.sleep(chance.uniform(0.5, 3))
    redis.cli("CONFIG", "SET", "maxmemory", "0")
    return {}


def busy(rig: "Rig", chance: Random) -> Row:
    """One long command holds up all others."""
    seconds = chance.uniform(0.5, 3)
    _redis(rig).cli("DEBUG", "SLEEP", f"{seconds:.2f}")
    return {"seconds": seconds}


def _way(rig: "Rig", chance: Random, mood: str, value: float = 0.0) -> Row:
    assert rig.bus is not None
    seconds = chance.uniform(0.5, 6)
    rig.bus.ask("mood", names=["redis"], mood=mood, value=value)
    time.sleep(seconds)
    rig.bus.ask("mood", names=["redis"], mood="pass")
    return {"seconds": seconds, "value": value}


def way_stalls(rig: "Rig", chance: Random) -> Row:
    """Between nodes and Redis nothing passes; then all of it does."""
    return _way(rig, chance, "stall")


def way_lost(rig: "Rig", chance: Random) -> Row:
    """Between nodes and Redis everything is swallowed, and the connections are gone."""
    return _way(rig, chance, "swallow")


def way_cut(rig: "Rig", chance: Random) -> Row:
    """Connections to Redis are cut in the middle of a command or an answer."""
    return _way(rig, chance, "cut", chance.uniform(0.005, 0.1))


def way_slow(rig: "Rig", chance: Random) -> Row:
    """The way to Redis is long."""
    return _way(rig, chance, "delay", chance.uniform(0.005, 0.1))


def synced(rig: "Rig") -> bool:
    """Whether Redis syncs before it answers."""
    return rig.plan.appendfsync == "always"


def not_synced(rig: "Rig") -> bool:
    """Whether Redis may lose its last second."""
    return not synced(rig)
