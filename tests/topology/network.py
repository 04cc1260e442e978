"""Hosts that are network namespaces, each on a cable to one switch. They need root.

Nothing outside of them is touched, except a folder for each in /etc/netns, which is where `ip`
looks for the hosts file of a namespace; it goes with the host.

Imported by the tests of whole hosts.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

TOOLS = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NETNS = Path("/run/netns")
HOSTS_FILES = Path("/etc/netns")
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> str:
    """What keeps us from making hosts; empty if nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return "" if shutil.which("ip", path=TOOLS) else "needs the Debian package iproute2"


class Host:
    """One host."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *words: str | Path) -> list[str]:
        """The command that runs this one there, with the host's own /etc/hosts."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run a command there, to its end."""
        return subprocess.run(
            self.command(*words), env={**os.environ, "PATH": TOOLS}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=60,
        )

    def must(self, *words: str | Path) -> str:
        """Run a command there that has to succeed; what it says."""
        done = self.run(*words)
        assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr}"
        return done.stdout

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the network of the host: its sockets, and the processes it starts."""
        with (
            open("/proc/thread-self/ns/net", "rb") as home,
            open(NETNS / self.name, "rb") as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())


def _enter(descriptor: int) -> None:
    # Of the calling thread alone; a socket stays where it was made.
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Lan:
    """Hosts by role, with these addresses, on one switch."""

    def __init__(self, addresses: Mapping[str, Sequence[str]], names: Mapping[str, str]) -> None:
        """`names` is the hosts file: host name -> address."""
        self._addresses = addresses
        self._names = names
        self._switch = Host(f"push-test-{os.getpid()}-switch")
        self.hosts = {role: Host(f"push-test-{os.getpid()}-{role}") for role in addresses}

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        for host in (self._switch, *self.hosts.values()):
            done = subprocess.run(["ip", "netns", "add", host.name], env={"PATH": TOOLS},
                                  capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        self._switch.must("ip", "link", "add", "name", "lan", "type", "bridge")
        self._switch.must("ip", "link", "set", "lan", "up")
        lines = "".join(f"{address} {name}\n" for name, address in self._names.items())
        for role, host in self.hosts.items():
            folder = HOSTS_FILES / host.name
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{lines}")
            self._switch.must("ip", "link", "add", role, "type", "veth", "peer", "name", "wire",
                              "netns", host.name)
            self.plug(role)
            host.must("ip", "link", "set", "lo", "up")
            host.must("ip", "link", "set", "wire", "up")
            for address in self._addresses[role]:
                # Without "nodad" an IPv6 address may not be used for a second.
                extra = ("nodad",) if ":" in address else ()
                host.must("ip", "address", "add", address, "dev", "wire", *extra)

    def plug(self, role: str) -> None:
        """Put the host's cable in."""
        self._switch.must("ip", "link", "set", role, "master", "lan", "up")

    def unplug(self, role: str) -> None:
        """Pull the host's cable out: the host sees that there is no carrier."""
        self._switch.must("ip", "link", "set", role, "down")

    def silence(self, role: str) -> None:
        """Lose all that the host sends and would receive, and let nobody see why."""
        self._switch.must("ip", "link", "set", role, "nomaster")

    def __exit__(self, *_: object) -> None:
        for host in (self._switch, *self.hosts.values()):
            subprocess.run(["ip", "netns", "delete", host.name], env={"PATH": TOOLS},
                           capture_output=True, check=False)
            shutil.rmtree(HOSTS_FILES / host.name, ignore_errors=True)
