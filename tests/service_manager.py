"""As much of systemd as the units of the push server need, for tests where none runs.

    with ServiceManager(UNITS, program=[...], listen={"listen": [...], ...}) as manager:
        manager.start()             # returns once the service has said READY=1
        manager.restart()           # the sockets stay open meanwhile

It reads the units that are shipped: what is started, as whom and where, which sockets are opened
and what they are called, how long the watchdog waits. It cannot show what a sandbox forbids.

Imported by the tests of packaging and operations; they also run it as a program inside a root
of its own, where it stands in for systemctl: see `main`. Needs only the standard library.
"""

import fcntl
import os
import resource
import shlex
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

START_SECONDS = 20.0
# What the new process does to itself before it becomes the service. It alone knows its number.
BECOME = 'cd "$0" && export LISTEN_PID=$$ WATCHDOG_PID=$$ && exec "$@"'

Unit = dict[str, list[str]]


def read_unit(path: Path) -> Unit:
    """The values of each key of a unit, in order; an empty one takes away those before it."""
    unit: Unit = {}
    for line in path.read_text("utf-8").splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or key.startswith("#"):
            continue
        if value:
            unit.setdefault(key, []).append(value)
        else:
            unit[key] = []
    return unit


class ServiceManager:
    """One service with its sockets."""

    def __init__(
        self,
        folder: Path,
        service: str = "push-server",
        *,
        program: Sequence[str] = (),
        listen: Mapping[str, Sequence[str]] | None = None,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.unit = read_unit(folder / f"{service}.service")
        self.told: list[str] = []
        """Everything the service has said, in order."""
        self.pid = 0
        self.program = list(program) or shlex.split(self.unit["ExecStart"][0])
        self._own = bool(program)
        """Whether it runs as we do, because the test says what runs."""
        self._environment = dict(os.environ if environment is None else environment)
        self._log = log
        self._open = ExitStack()
        self._names: list[str] = []
        self._sockets: list[socket.socket] = []
        for name in self.unit["Sockets"][0].split():
            self._listen(read_unit(folder / name), listen or {})
        self._folder = self._open.enter_context(tempfile.TemporaryDirectory())
        self._notify = self._open.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._notify.bind(f"{self._folder}/notify")
        os.chmod(self._folder, 0o755)
        os.chmod(f"{self._folder}/notify", 0o777)

    def _listen(self, unit: Unit, listen: Mapping[str, Sequence[str]]) -> None:
        (name,) = unit["FileDescriptorName"]
        for address in listen.get(name, unit["ListenStream"]):
            opened = self._open.enter_context(_listening(address, int(unit["Backlog"][0])))
            self._sockets.append(opened)
            self._names.append(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            self.stop()
        self._open.close()

    def start(self) -> None:
        """Start the service; it is ready when this returns."""
        command = ["/bin/sh", "-c", BECOME, self._directory(), *self._as_user(), *self.program]
        environment = {
            **self._environment,
            "LISTEN_FDS": str(len(self._sockets)),
            "LISTEN_FDNAMES": ":".join(self._names),
            "NOTIFY_SOCKET": f"{self._folder}/notify",
            "WATCHDOG_USEC": str(int(self.unit["WatchdogSec"][0]) * 1_000_000),
        }
        with ExitStack() as copies:
            # Out of the way first: the numbers from 3 on may be taken by one another.
            high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 100) for each in self._sockets]
            for number in high:
                copies.callback(os.close, number)
            actions: list[tuple[Any, ...]] = [
                (os.POSIX_SPAWN_DUP2, number, 3 + index) for index, number in enumerate(high)
            ]
            if self._log is not None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                actions += [(os.POSIX_SPAWN_OPEN, 2, str(self._log), flags, 0o644)]
            self.pid = os.posix_spawn("/bin/sh", command, environment, file_actions=actions)
        self.wait_for("READY=1")

    def _directory(self) -> str:
        return "." if self._own else self.unit["WorkingDirectory"][0]

    def _as_user(self) -> list[str]:
        if self._own:
            return []
        user, mask = self.unit["User"][0], self.unit["UMask"][0]
        # systemd may raise the limit; we, perhaps, only up to our own.
        limit = min(int(self.unit["LimitNOFILE"][0]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        become.append("--no-new-privs")
        return ["sh", "-c", f'umask {mask}; ulimit -n {limit}; exec "$@"', "sh", *become]

    def wait_for(self, state: str, seconds: float = START_SECONDS) -> None:
        """Return when the service says this from now on."""
        deadline = time.monotonic() + seconds
        while True:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.pid = 0
                raise AssertionError(f"the service ended: {os.waitstatus_to_exitcode(status)}")
            self._notify.settimeout(0.1)
            try:
                said = self._notify.recv(4096).decode().splitlines()
            except TimeoutError:
                assert time.monotonic() < deadline, f"never said {state}: {self.told}"
                continue
            self.told += said
            if state in said:
                return

    def stop(self) -> int:
        """Stop the service; its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + int(self.unit["TimeoutStopSec"][0])
        while True:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.pid = 0
                self._hear()
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.01)

    def _hear(self) -> None:
        """What was said and not waited for."""
        self._notify.setblocking(False)
        try:
            while True:
                self.told += self._notify.recv(4096).decode().splitlines()
        except BlockingIOError:
            pass

    def restart(self) -> None:
        """Stop, and start again on the same sockets."""
        assert self.stop() == 0
        self.start()

    def reload(self) -> None:
        """Have the service read its configuration again."""
        os.kill(self.pid, signal.SIGHUP)


def _listening(address: str, backlog: int) -> socket.socket:
    if address.startswith("/"):
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(address)
        os.chmod(address, 0o666)
    else:
        host, _, port = address.rpartition(":")
        version = ip_address(host.strip("[]")).version
        opened = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host.strip("[]"), int(port)))
    opened.listen(backlog)
    return opened


# In place of systemctl, in a root where the package is installed:
#   service_manager.py start|restart|reload|stop push-server


def main(verb: str, service: str) -> int:
    """Do as systemctl would with this service; the manager goes on in the background."""
    units, number = Path("/lib/systemd/system"), Path("/run/service-manager.pid")
    if verb != "start":
        signals = {"restart": signal.SIGUSR1, "reload": signal.SIGHUP, "stop": signal.SIGTERM}
        os.kill(int(number.read_text()), signals[verb])
        return 0
    ready, done = os.pipe()
    if os.fork():
        os.close(done)
        return 0 if os.read(ready, 1) else 1
    os.setsid()
    wanted = {signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    log = Path("/var/log/push-server.log")
    with ServiceManager(units, service, log=log) as manager:
        manager.start()
        number.write_text(str(os.getpid()))
        os.write(done, b".")
        os.close(done)
        while (taken := signal.sigwait(wanted)) != signal.SIGTERM:
            manager.restart() if taken == signal.SIGUSR1 else manager.reload()
    number.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
