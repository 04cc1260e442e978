"""A RabbitMQ of our own, with its STOMP plugin: everything in one private folder.

    with RabbitMq() as rabbit:
        rabbit.port             # STOMP, on loopback
        rabbit.stop(); rabbit.start()

Erlang leaves a daemon behind, epmd, which tells programs each other's ports. This one gets a
port of its own and is ended by its pid.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from ports import free_port, listens
from waiting import wait_for, wait_until_up

START_LIMIT = 60.0


def program() -> str | None:
    """The script that starts RabbitMQ, which Debian keeps out of a user's way."""
    for folder in Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"):
        return str(folder / "rabbitmq-server")
    return None


class RabbitMq:
    """One broker process."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="push-rabbit-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        config = self.folder / "rabbitmq.conf"
        config.write_text(
            f"listeners.tcp = none\nstomp.listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 1MB\nvm_memory_high_watermark.absolute = 512MB\n"
            "log.file.level = warning\n"
        )
        plugins = self.folder / "enabled_plugins"
        plugins.write_text("[rabbitmq_stomp].\n")
        self._epmd_port = free_port()
        self._environment = {
            **os.environ,
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"push{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # Two schedulers that do not spin: the machine is shared with what is tested.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none"
            " -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def start(self) -> Self:
        """Start, and return when it takes STOMP connections."""
        found = program()
        assert found is not None, "no RabbitMQ on this machine (Debian package rabbitmq-server)"
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen(
                [found],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            wait_until_up(self.process, lambda: listens(self.port), (self.folder / "out").read_text,
                          START_LIMIT)
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        self._gone()

    def stop(self) -> None:
        """End it in order."""
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
            self.process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def freeze(self) -> None:
        """Make it silent without closing anything."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def _gone(self) -> None:
        """Wait for the rest of its processes: the port must be free for the next start."""
        wait_for(lambda: not listens(self.port))

    def _end_epmd(self) -> None:
        for status in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                command = (status.parent / "comm").read_text().strip()
                wanted = f"ERL_EPMD_PORT={self._epmd_port}".encode()
                if command == "epmd" and wanted in status.read_bytes().split(b"\0"):
                    os.kill(int(status.parent.name), signal.SIGTERM)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._end_epmd()
        shutil.rmtree(self.folder, ignore_errors=True)
