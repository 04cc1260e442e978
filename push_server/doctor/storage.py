"""The log: is the Redis or the SQLite file one that keeps what it was given?"""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from push_server.brokers import redis_url
from push_server.doctor.findings import CONFIG, SHELL, Finding, doubtful, good, skipped, wrong
from push_server.doctor.probe import PATIENCE
from push_server.doctor.visit import Visit

SAFE_SQLITE = (3, 51, 3)
"""The first without the bug that can damage a log in write-ahead mode when two connections
write and checkpoint at once. The server opens its file alone, so that it is not met."""
LEAST_SHARE = 0.05
LEAST_BYTES = 256 * 1024 * 1024
SLOW_SECONDS = 0.05
REDIS_CONF = "redis.conf"
OLDEST = (7, 0)
FULL = 0.8


def broker(visit: Visit) -> Iterator[Finding]:
    """Whether what is published is kept."""
    if visit.settings is None:
        yield skipped("can be seen where push-server.toml is")
        return
    scheme, _, rest = visit.settings.broker.partition(":")
    if scheme == "sqlite":
        yield from _sqlite(visit, Path(rest))
    elif scheme == "memory":
        yield doubtful("memory: forgets everything when the server restarts",
                       "a log that outlives a restart", CONFIG,
                       'broker = "sqlite:/var/lib/push-server/push.db"')
    else:
        yield from _redis(visit.settings.broker)


def _sqlite(visit: Visit, file: Path) -> Iterator[Finding]:
    from push_server.brokers.sqlite_file import LIBRARY

    if not file.is_absolute() and not file.exists():
        yield skipped(f"{file} is in the folder where the server is started; look from there")
        return
    try:
        disk = os.statvfs(file.parent)
    except OSError as error:
        yield wrong(f"{file.parent}: {error.strerror}", "the folder of the log",
                    SHELL, f"install -d -o push-server -g push-server {file.parent.absolute()}")
        return
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    seen = f"{_size(free)} of {_size(size)} are free where {file} is"
    if free < max(LEAST_BYTES, LEAST_SHARE * size):
        kind = wrong if free < LEAST_BYTES else doubtful
        yield kind(seen, f"{LEAST_SHARE:.0%}: a full disk ends publishing",
                   SHELL, f"du -xh --max-depth=2 {file.parent.absolute()}")
    else:
        yield good(seen)
    holders = _holders(visit, file)
    if tuple(map(int, LIBRARY.split("."))) >= SAFE_SQLITE:
        yield good(f"SQLite {LIBRARY}")
    elif len(holders) < 2:
        yield good(f"SQLite {LIBRARY}; before {'.'.join(map(str, SAFE_SQLITE))} two programs that"
                   " write one file can damage it, but the server has it alone")
    else:
        yield doubtful(f"SQLite {LIBRARY}, and {' and '.join(holders)} have {file} open",
                       "the push server alone, or SQLite " + ".".join(map(str, SAFE_SQLITE)),
                       SHELL, f"fuser -v {file.absolute()}")


def _holders(visit: Visit, file: Path) -> list[str]:
    """The processes that have the file open, as far as we may look."""
    found = []
    for process in visit.proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may have ended meanwhile, or be another user's
            if any(_leads_to(entry.path, file) for entry in os.scandir(process / "fd")):
                name = (process / "comm").read_text().strip()
                found.append(f"{name} (pid {process.name})")
    return found


def _leads_to(link: str, file: Path) -> bool:
    with contextlib.suppress(OSError):  # it was closed meanwhile
        return os.readlink(link) == str(file.absolute())
    return False


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _redis(url: str) -> Iterator[Finding]:
    from push_server.brokers.redis_connection import FAILURES, reason_of

    address = redis_url.parse_redis_url(url)
    try:
        info, seconds = asyncio.run(_interview(address))
    except FAILURES as error:
        yield wrong(f"{address.shown}: {reason_of(error)}", "an answer from Redis",
                    CONFIG, 'broker = "redis://127.0.0.1:6379/0"')
        return
    yield from _judged(info)
    seen = f"{address.shown} answers in {1000 * seconds:.1f} ms"
    if seconds > SLOW_SECONDS:
        yield doubtful(seen, f"less than {1000 * SLOW_SECONDS:.0f} ms: every publication waits for"
                       " it", SHELL, "redis-cli --latency")
    else:
        yield good(seen)


async def _interview(address: redis_url.RedisAddress) -> tuple[Mapping[str, str], float]:
    """What Redis says of itself, and the seconds that one question takes, the best of three."""
    from push_server.brokers.redis_connection import Aside, ResponseError

    async with asyncio.timeout(PATIENCE):
        redis = await Aside.open(address)
        try:
            text = (await redis.ask("INFO")).decode("utf-8", "replace")
            info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            with contextlib.suppress(ResponseError):  # an account that may not ask for it
                for name in ("appendonly", "appendfsync"):
                    _, value = await redis.ask("CONFIG", "GET", name)
                    info[name] = value.decode()
            took = []
            for _ in range(3):
                began = time.monotonic()
                await redis.ask("PING")
                took.append(time.monotonic() - began)
        finally:
            await redis.close()
    return info, min(took)


def _judged(info: Mapping[str, str]) -> Iterator[Finding]:
    version = info.get("redis_version", "0")
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        yield wrong(f"Redis {version}", "7.0 or newer", SHELL, "apt install redis-server")
    if info.get("role") != "master":
        yield wrong("this Redis is a replica", "its primary", CONFIG,
                    f'broker = "redis://{info.get("master_host")}:{info.get("master_port")}/0"')
    if (policy := info.get("maxmemory_policy")) != "noeviction":
        yield wrong(f"maxmemory-policy {policy}: Redis may throw publications away",
                    "maxmemory-policy noeviction", REDIS_CONF, "maxmemory-policy noeviction")
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if most and used > FULL * most:
        yield doubtful(f"{used / most:.0%} of maxmemory are used", f"less than {FULL:.0%}",
                       REDIS_CONF, f"maxmemory {2 * most}")
    kept = info.get("appendonly")
    if kept == "no":
        yield doubtful("Redis keeps nothing on disk: its restart makes every page reload",
                       "appendonly yes", REDIS_CONF, "appendonly yes")
    elif kept == "yes" and info.get("aof_last_write_status", "ok") != "ok":
        yield wrong("Redis cannot write its append-only file", "aof_last_write_status:ok",
                    SHELL, "df -h; journalctl -u redis-server -n 20")
    else:
        yield good(f"Redis {version}, appendfsync {info.get('appendfsync', 'unknown')}")
