"""Many processes on one port: they share the load and the signals, and outlive each other."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from harness import PushServer
from ports import free_port
from redis_server import RedisServer, program
from waiting import PATIENCE, wait_for
from wire import Ended, Stream

from push_server.brokers import BROKERS, is_shared
from push_server.cli import main
from push_server.server import EXIT_AWAY, EXIT_SETTINGS

WORKERS = 3
KEY = "k" * 32

needs_redis = pytest.mark.skipif(program() is None, reason="no Redis on this machine")

Make = Callable[..., PushServer]


@pytest.fixture
def make(redis: RedisServer) -> Iterator[Make]:
    """Makes servers of three workers each."""
    with ExitStack() as servers:

        def build(**settings: Any) -> PushServer:
            prefix = f"workers-{time.monotonic_ns()}:"
            push = PushServer(broker=f"{redis.url}?prefix={prefix}", **settings)
            push.options = ["--workers", str(WORKERS)]
            servers.enter_context(push)
            wait_for(lambda: push.log.count("setting=internal_listen") >= WORKERS)
            return push

        yield build


def pids(push: PushServer) -> list[int]:
    """The workers that are alive, as the kernel has them."""
    assert push.process is not None
    path = Path(f"/proc/{push.process.pid}/task/{push.process.pid}/children")
    return [int(word) for word in path.read_text().split()]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# As processes.


@needs_redis
def test_they_share_the_port_and_the_log(make: Make) -> None:
    push = make(connections_per_user=1000)
    before = {pid: descriptors(pid) for pid in pids(push)}
    assert len(before) == WORKERS
    with ExitStack() as stack:
        streams: list[Stream] = []

        def shares() -> list[int]:
            return [descriptors(pid) - count for pid, count in before.items()]

        def all_have_a_share() -> bool:
            streams.append(stack.enter_context(push.stream(push.token("42"), "room")))
            return min(shares()) >= 3

        wait_for(all_have_a_share, shares)
        for number in range(20):
            push.api("publish", channel="room", data=number)
        for stream in streams:
            messages = stream.take(20)
            assert [message.value["data"] for message in messages] == list(range(20))
    assert re.search(r"^[-0-9]+ [:,0-9]+ \d+ INFO event=listening", push.log, re.M)


@needs_redis
def test_a_user_on_two_workers_is_one(make: Make) -> None:
    push = make(namespace={"room": {"presence": True, "join_leave": True}}, presence_grace=0.3)
    with push.stream(push.token("watcher"), "room:1") as watcher, ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(push.stream(push.token("42", name="Ann"), "room:1"))
        users = {"watcher": {"connections": 1}, "42": {"connections": 12, "name": "Ann"}}
        for _ in range(6):
            wait_for(lambda: push.api("presence", channel="room:1")["users"] == users)
        stack.close()
        told = [watcher.next()]
        while told[-1].control != "leave":
            told.append(watcher.next())
        joined = [user for m in told if m.control == "join" for user in m.value["users"]]
        # Whether the watcher was live already when its own join was told, nobody can say.
        assert [user for user in joined if user["user"] == "42"] == [{"user": "42", "name": "Ann"}]
        assert told[-1].value["users"] == [{"user": "42", "name": "Ann"}]


@needs_redis
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(make: Make) -> None:
    push = make()
    with push.stream(push.token("42"), "room") as stream:
        victims = pids(push)
        cursor = stream.cursor
        push.api("publish", channel="room", data=1)
        for victim in victims[:2]:
            os.kill(victim, signal.SIGKILL)
        # One is left, and the port never refuses.
        assert push.request("GET", "/push.js").status == 200
        push.api("publish", channel="room", data=2)
    wait_for(lambda: len(pids(push)) == WORKERS and not {*victims[:2]} & {*pids(push)})
    with push.stream(push.token("42"), "room", since=cursor) as stream:
        assert [message.value["data"] for message in stream.take(2)] == [1, 2]
    assert push.log.count("event=worker.ended") == 2
    assert push.log.count("status=-9") == 2


@needs_redis
def test_sigterm_drains_all_of_them(make: Make) -> None:
    push = make()
    workers_ = pids(push)
    with ExitStack() as stack:
        streams: list[Stream] = [
            stack.enter_context(push.stream(push.token(str(user)), "room")) for user in range(12)
        ]
        push.signal(signal.SIGTERM)
        for stream in streams:
            last = stream.until_end()[-1]
            assert last.control == "reconnect" and last.value["reason"] == "drain"
    assert push.wait() == 0
    assert all(map(gone, workers_))
    assert push.log.count("event=stopped") == WORKERS
    assert "worker.ended" not in push.log


@needs_redis
def test_sighup_reaches_all_and_those_to_come(make: Make) -> None:
    push = make()
    new = "n" * 32
    push.write_config(token_keys=[new])
    push.remember(new)
    push.signal(signal.SIGHUP)
    wait_for(lambda: push.log.count("event=reload.done") == WORKERS)
    os.kill(pids(push)[0], signal.SIGKILL)
    wait_for(lambda: push.log.count("setting=internal_listen") == WORKERS + 1)
    for _ in range(20):
        with push.stream(push.sign_claims(_claims(), key=new), "room"):
            pass
    push.write_config(heartbeat="never")
    push.signal(signal.SIGHUP)
    wait_for(lambda: push.log.count("event=reload.refused") == WORKERS)
    push.write_config(heartbeat=25)


def _claims() -> dict[str, Any]:
    now = int(time.time())
    return {"v": 1, "sub": "42", "iat": now, "exp": now + 60, "sub_ch": ["*"]}


@needs_redis
def test_workers_end_with_their_parent(make: Make) -> None:
    push = make()
    workers_ = pids(push)
    with push.stream(push.token("42"), "room") as stream:
        push.kill()
        last = stream.until_end()[-1]
        assert last.control == "reconnect" and last.value["reason"] == "drain"
    wait_for(lambda: all(map(gone, workers_)))
    with pytest.raises((OSError, Ended)):
        push.get("/push.js")


@needs_redis
def test_one_unix_socket_for_all(make: Make, tmp_path: Path) -> None:
    push = make(internal_listen=f"unix:{tmp_path / 'api.sock'}")
    for number in range(1, 10):
        assert push.api("publish", channel="room", data=1)["offset"] == number
    assert (tmp_path / "api.sock").stat().st_mode & 0o777 == 0o660


@needs_redis
def test_every_worker_serves_every_address(make: Make) -> None:
    ports = [free_port(), free_port()]
    make(listen=[f"127.0.0.1:{ports[0]}", f"[::1]:{ports[1]}"])
    for host, port in (("127.0.0.1", ports[0]), ("::1", ports[1])):
        for _ in range(2 * WORKERS):
            with socket.create_connection((host, port), 5) as client:
                client.sendall(b"GET /push.js HTTP/1.0\r\nHost: localhost\r\n\r\n")
                assert client.recv(12) == b"HTTP/1.0 200"


# What is refused.


def serve(tmp_path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, which has to come by itself."""
    path = tmp_path / "push-server.toml"
    values = {
        "listen": "127.0.0.1:0",
        "internal_listen": "127.0.0.1:0",
        "broker": f"redis://127.0.0.1:{free_port()}/0",
        **settings,
    }
    lines = [f'{name} = "{value}"' for name, value in values.items()]
    path.write_text("\n".join([*lines, f'token_keys = ["{KEY}"]', ""]))
    return subprocess.run(
        [sys.executable, "-m", "push_server", "serve", "--config", str(path), "--workers", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize("broker", ["sqlite:push.db", "memory:"])
def test_a_log_for_one_process_is_refused(broker: str, tmp_path: Path) -> None:
    ended = serve(tmp_path, broker=broker)
    assert ended.returncode == EXIT_SETTINGS
    assert ended.stderr.startswith(f'push-server: broker: "{broker}" is for one process')
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "push.db").exists()


def test_a_redis_that_is_not_there(tmp_path: Path) -> None:
    ended = serve(tmp_path)
    assert ended.returncode == EXIT_AWAY
    assert "Redis cannot be reached" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = serve(tmp_path, internal_listen=f"127.0.0.1:{taken.getsockname()[1]}")
    assert ended.returncode == EXIT_SETTINGS
    assert "push-server: internal_listen: cannot listen on" in ended.stderr


def test_which_brokers_are_shared() -> None:
    shared = {scheme for scheme in BROKERS if is_shared(f"{scheme}:")}
    assert shared == {"redis", "rediss", "unix"}


def test_the_number_of_workers_is_checked() -> None:
    for number in ("0", "-1", "257", "many"):
        assert CliRunner().invoke(main, ["serve", "--workers", number]).exit_code == 2


# The parent alone: what its workers do is played.

PLAY = """
import os, sys, time
from push_server import workers
from push_server.casts import Address
from push_server.settings import Settings
started = time.monotonic()
{setting}

def serve(settings, config_path, inherited):
    os.write(1, b"start %.3f\\n" % (time.monotonic() - started))  # in one piece
    {act}

anywhere = Address("127.0.0.1", 0)
settings = Settings(listen=(anywhere,), internal_listen=anywhere, token_keys=("k" * 32,))
sys.exit(workers.Workers(settings, None, 2, serve).run())
"""


@contextmanager
def played(act: str, setting: str = "") -> Iterator[subprocess.Popen[str]]:
    script = PLAY.format(act=act, setting=setting)
    root = str(Path(__file__).resolve().parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_worker_that_cannot_start_is_not_started_all_the_time() -> None:
    with played("return 1") as process:
        assert process.stdout is not None
        times = [float(process.stdout.readline().split()[1]) for _ in range(8)]
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    # Two of them, each after 0.1, 0.2 and 0.4 seconds.
    assert times[2] >= 0.1 and times[4] >= 0.3 and times[6] >= 0.7, times


def test_a_steady_server_outlives_a_worker_that_is_refused() -> None:
    act = "time.sleep(0.6); return 2"
    with played(act, "workers.STEADY_SECONDS = 0.3") as process:
        assert process.stdout is not None
        for _ in range(6):
            assert process.stdout.readline().startswith("start")
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_the_first_that_is_refused_ends_it() -> None:
    with played("return 2") as process:
        assert process.wait(PATIENCE) == EXIT_SETTINGS


def test_a_worker_that_fails_is_no_second_parent() -> None:
    with played("raise ArithmeticError('a fault of the test')") as process:
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert "ArithmeticError: a fault of the test" in err
    assert "event=worker.failed" in err and "status=70" in err


def test_a_reload_waits_for_a_worker_that_is_starting() -> None:
    act = (
        "import signal; os.read(go, 1);"
        "signal.signal(signal.SIGHUP, lambda *_: os.write(1, b'again\\n'));"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP}); time.sleep(60)"
    )
    setting = "go = os.open('/dev/stdin', os.O_RDONLY)"
    with played(act, setting) as process:
        assert process.stdout is not None and process.stdin is not None
        for _ in range(2):
            assert process.stdout.readline().startswith("start")
        process.send_signal(signal.SIGHUP)
        signalled = Path(f"/proc/{process.pid}/status")
        pending = re.compile(r"^ShdPnd:\t0+$", re.M)
        wait_for(lambda: pending.search(signalled.read_text()))
        process.stdin.write("xx")
        process.stdin.flush()
        for _ in range(2):
            assert process.stdout.readline() == "again\n"
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert "worker.ended" not in err


def test_the_others_serve_on_while_there_is_no_process_for_another() -> None:
    setting = """
forks, true = [], os.fork

def fork():
    forks.append(1)
    if len(forks) in (3, 4):
        raise BlockingIOError(11, "no process")
    return true()

os.fork = fork
"""
    with played("time.sleep(0.2 * len(forks)); return 1", setting) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline().startswith("start")
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert err.count('event=worker.refused reason="no process"') == 2


def test_a_worker_that_does_not_end_is_killed() -> None:
    act = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " os.write(1, b'deaf\\n'); time.sleep(60)"
    )
    with played(act, "workers.STOP_SECONDS = 0.5") as process:
        assert process.stdout is not None
        deaf = 0
        while deaf < 2:
            deaf += process.stdout.readline() == "deaf\n"
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "event=worker.killed workers=2" in err
