"""What the kernel knows about a process and about this machine.

Everything is read from `/proc` and from CPU clocks; nothing is estimated here. Used by the
other modules of the benchmark.
"""

import os
import platform
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

BUILD = CHECKOUT / "bench" / "build"
"""Compiled programs, logs and databases of a run. Beside the sources and not in the
temporary directory, which is often memory and would make durable publishing look free."""

DESCRIPTORS = 65_536


class Missing(Exception):
    """Raised if the machine lacks something; the text names what to install or change."""


class Failed(Exception):
    """Raised if a server or the load generator did not do its part, so nothing was measured."""


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time these processes have used so far, user and kernel, all threads.

    Each process has a clock of its own (`clock_getcpuclockid(3)`; Linux builds its number
    from the process id as below). It counts nanoseconds; `/proc/PID/stat` shows the same sum
    cut to hundredths of a second.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory of these processes now, counted by walking their page tables."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = re.search(r"^Rss:\s+(\d+) kB", text, re.MULTILINE)
        if found is None:
            raise Missing(f"no Rss in /proc/{pid}/smaps_rollup")
        total += int(found[1]) * 1024
    return total


def kernel_socket_bytes() -> int:
    """What the kernel holds in TCP buffers, of all processes of the machine."""
    found = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return int(found[1]) * resource.getpagesize() if found else 0


def children_of(pid: int) -> Sequence[int]:
    """The processes that the main thread of a process has started and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def raise_descriptor_limit(wanted: int) -> None:
    """Allow this process and those it starts many open sockets.

    Raises `Missing` if fewer than `wanted` are allowed.
    """
    for hard in (DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            break
        except (ValueError, PermissionError):
            continue
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed < wanted:
        raise Missing(f"{wanted} open files are needed and {allowed} allowed: raise ulimit -n")


def disk_syncs_per_second(directory: Path, seconds: float = 1.0) -> float:
    """How often per second this disk makes 4 KiB durable: the floor of durable publishing."""
    path = directory / "sync.probe"
    count = 0
    with path.open("wb", buffering=0) as file:
        begun = time.monotonic()
        while (taken := time.monotonic() - begun) < seconds:
            file.write(b"\0" * 4096)
            os.fdatasync(file.fileno())
            count += 1
    path.unlink()
    return count / taken


def describe() -> dict[str, str]:
    """The machine, the versions and the commit: what a figure means nothing without."""
    return {
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "waitress": version("waitress"),
        "C compiler": _first_line(["gcc", "--version"]),
        "nginx": _first_line(["nginx", "-v"]).removeprefix("nginx version: "),
        "Redis": _version_of_redis(),
        "Nchan": _first_line(
            ["dpkg-query", "--show", "--showformat=${Version}", "libnginx-mod-nchan"]
        ),
        "Node": _first_line(["node", "--version"]),
    }


def load_average() -> float:
    """How many processes have wanted a CPU in the last minute; near 0 on a quiet machine."""
    return os.getloadavg()[0]


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _commit() -> str:
    commit = _first_line(["git", "-C", str(CHECKOUT), "rev-parse", "--short=12", "HEAD"])
    files = ("push_server", *(f"bench/*.{kind}" for kind in ("c", "h", "py", "js", "conf")))
    sources = [str(CHECKOUT / name) for name in files]
    changed = _first_line(["git", "-C", str(CHECKOUT), "status", "--porcelain", "--", *sources])
    return f"{commit} with local changes" if changed else commit


def _version_of_redis() -> str:
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb") or "redis-server"
    return _first_line([found, "--version"]).partition(" sha=")[0]


def _first_line(command: Sequence[str]) -> str:
    """The first line a command prints, on either stream; empty if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return (done.stdout + done.stderr).partition("\n")[0].strip()
