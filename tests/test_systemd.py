"""What the server and systemd say to each other: sockets, readiness, watchdog, journal."""

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from managed import SERVE, UNITS, Service
from ports import free_port
from redis_server import RedisServer
from service_manager import ServiceManager

from push_server import systemd

ROOT = Path(__file__).resolve().parent.parent
@pytest.fixture
def service() -> Iterator[Service]:
    push = Service()
    yield push
    push.remove()


# The words themselves.


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield heard


def test_what_is_told_arrives(manager: socket.socket) -> None:
    systemd.notify("READY=1", "STATUS=fine")
    assert manager.recv(100) == b"READY=1\nSTATUS=fine"


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"push-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.notify("READY=1")
        assert heard.recv(100) == b"READY=1"


def test_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    assert caplog.text == ""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    systemd.notify("READY=1")
    assert "event=systemd.deaf" in caplog.text


@pytest.mark.parametrize(
    ("pid", "microseconds", "seconds"),
    [("ours", "30000000", 30.0), ("1", "30000000", None), (None, "500000", 0.5), (None, "", None)],
)
def test_the_watchdog_is_ours_or_another_process_s(
    monkeypatch: pytest.MonkeyPatch, pid: str | None, microseconds: str, seconds: float | None
) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)
    if microseconds:
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    assert systemd.watchdog_seconds() == seconds


def test_sockets_for_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "listen:listen"}
    assert systemd.inherited_sockets(environ) == {}
    assert environ == {}
    assert systemd.inherited_sockets({}) == {}


def test_lines_for_the_journal_have_their_priority() -> None:
    formatter = systemd.JournalFormatter()
    try:
        raise ValueError("why")
    except ValueError:
        failed = logging.LogRecord("x", logging.ERROR, "f", 1, "event=a", (), sys.exc_info())
    lines = formatter.format(failed).splitlines()
    assert lines[0] == "<3>event=a" and lines[-1] == "<3>ValueError: why"
    assert all(line.startswith("<3>") for line in lines)
    plain = logging.LogRecord("x", logging.INFO, "f", 1, "event=%s", ("b",), None)
    assert formatter.format(plain) == "<6>event=b"


def test_the_journal_is_known_by_its_stream(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert systemd.journal_reads(stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert not systemd.journal_reads(stream)
    assert not systemd.journal_reads(stream)  # closed


# A server that was started like this.


def test_it_serves_the_sockets_it_was_given_and_says_when(service: Service) -> None:
    with service.managed() as manager:
        with socket.create_connection(("127.0.0.1", service.port), 5):
            pass  # accepted by nobody yet, and not refused
        manager.start()
        assert service.get("/ready", internal=True).status == 200
        manager.wait_for("WATCHDOG=1", 5)
        manager.restart()
        assert manager.told.count("READY=1") == 2
        assert manager.told.count("STOPPING=1") == 1
        assert manager.stop() == 0
        assert manager.told[-1] == "STOPPING=1"


CONFINED = ["/usr/bin/python3", str(Path(__file__).parent / "confined.py")]
UNIT = UNITS / "push-server.service"


@pytest.fixture
def confined() -> list[str]:
    """What goes before a command that runs under the filter of the unit."""
    for command in (["/usr/bin/python3", "-c", "import seccomp"], ["systemd-analyze", "--version"]):
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=30)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs the Debian packages systemd and python3-seccomp")
    return [*CONFINED, str(UNIT)]


def test_the_filter_of_the_unit_leaves_what_the_server_needs(
    service: Service, confined: list[str]
) -> None:
    service.settings["broker"] = f"sqlite:{service.folder / 'push.db'}"
    with service.managed() as manager:
        manager.program = [*confined, *manager.program]
        manager.start()
        with service.stream(service.token("42"), "room") as stream:
            service.api("publish", channel="room", data=1)
            assert stream.take(1)[0].value["data"] == 1
        manager.reload()
        assert manager.stop() == 0
    service.check_log()


@pytest.mark.parametrize("call", ["os.nice(1)", "os.chroot('/')", "mmap.mmap(-1, 99, prot=7)"])
def test_the_filter_bites(confined: list[str], call: str) -> None:
    done = subprocess.run(
        [*confined, "/usr/bin/python3", "-c", f"import mmap, os; {call}"],
        capture_output=True, text=True, check=False, timeout=30,
    )
    assert done.returncode == 1
    assert "PermissionError: [Errno 1]" in done.stderr


def test_workers_share_them(redis: RedisServer) -> None:
    push = Service(broker=f"{redis.url}?prefix=systemd:")
    try:
        with push.managed("--workers", "2") as manager:
            manager.start()
            assert push.get("/ready", internal=True).status == 200
            manager.wait_for("WATCHDOG=1", 10)
            assert manager.stop() == 0
            assert "STOPPING=1" in manager.told
    finally:
        push.remove()


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        ({"listen": ["127.0.0.2:{free}"]}, "listen: systemd listens on 127.0.0.2:"),
        ({"internal_listen": ["127.0.0.1:{free}"]}, "internal_listen: systemd listens on 127.0"),
    ],
)
def test_it_does_not_start_on_a_socket_that_the_settings_do_not_have(
    service: Service, addresses: dict[str, list[str]], said: str
) -> None:
    given = {
        name: [text.format(free=free_port()) for text in texts]
        for name, texts in addresses.items()
    }
    with service.managed(**given) as manager:
        with pytest.raises(AssertionError, match="the service ended: 2"):
            manager.start()
    (line,) = service.log.splitlines()
    assert line.startswith(f"push-server: {said}")
    assert "systemctl edit push-server.socket" in line


def test_a_socket_of_no_setting(service: Service, tmp_path: Path) -> None:
    for unit in UNITS.glob("push-server*"):
        text = unit.read_text().replace("FileDescriptorName=listen", "FileDescriptorName=http")
        (tmp_path / unit.name).write_text(text)
    service.write_config()
    program = [*SERVE, "--config", str(service.config_file)]
    listen = {"http": [f"127.0.0.1:{free_port()}"], "internal_listen": []}
    with ServiceManager(
        tmp_path, program=program, listen=listen, log=service.log_file,
        environment={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as manager:
        with pytest.raises(AssertionError, match="the service ended: 2"):
            manager.start()
    assert 'FileDescriptorName: "http" is no listener' in service.log


def test_what_it_is_not_given_it_opens(service: Service) -> None:
    with service.managed(internal_listen=[]) as manager:
        manager.start()
        assert service.get("/ready", internal=True).status == 200


def test_a_path_stays_for_the_next_one(service: Service) -> None:
    path = service.folder / "http.sock"
    service.settings["listen"] = f"unix:{path}"
    with service.managed(listen=[str(path)]) as manager:
        manager.start()
        manager.restart()
        made = path.stat().st_ino
        assert manager.stop() == 0
        assert path.stat().st_ino == made
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.connect(str(path))  # waits; it is systemd's


def test_a_log_that_the_journal_reads(service: Service) -> None:
    """A pipe of ours is the journal, as systemd tells it: by device and inode."""
    service.write_config()
    reading, writing = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, reading)
        found = os.fstat(writing)
        process = subprocess.Popen(
            [*SERVE, "--config", str(service.config_file)],
            env={**os.environ, "PYTHONPATH": str(ROOT),
                 "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            stderr=writing, stdin=subprocess.DEVNULL, cwd=service.folder,
        )
        os.close(writing)
        try:
            lines = b""
            deadline = time.monotonic() + 20
            while b"internal_listen" not in lines:
                assert time.monotonic() < deadline
                lines += os.read(reading, 65_536)
        finally:
            process.terminate()
            process.wait(20)
    assert re.match(rb"<6>event=\S+", lines)


def test_the_watchdog_hears_nothing_while_one_of_the_threads_hangs(service: Service) -> None:
    with service.managed() as manager:
        code = (
            "from push_server import cli, server; server.FRONT_SILENCE = -1.0;"
            f" cli.main(['serve', '--config', {str(service.config_file)!r}])"
        )
        manager.program = [sys.executable, "-c", code]
        manager.start()
        with pytest.raises(AssertionError, match="never said WATCHDOG=1"):
            manager.wait_for("WATCHDOG=1", 2.5)
