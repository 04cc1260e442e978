"""The house: starting, reloading, ending, and ending because something inside has died."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from formulas import issue_token
from harness import PushServer
from waiting import PATIENCE, wait_for
from wire import Wire, read_response, request_bytes

from push_server.crossing import EXIT_DEAD_THREAD
from push_server.server import EXIT_SETTINGS

ROOT = Path(__file__).resolve().parent.parent
START = """
import sys, threading, time
from dataclasses import replace
from push_server import crossing, server
from push_server.front import listeners
from push_server.settings import Address, Settings
settings = replace(
    Settings(), broker="memory:", token_keys=("k" * 32,),
    listen=(Address("127.0.0.1", 0),), internal_listen=Address("127.0.0.1", 0),
)
{change}
sys.exit(server.run(settings))
"""

Factory = Callable[..., PushServer]


def serve(change: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """A server with something changed inside, until it ends."""
    return subprocess.run(
        [sys.executable, "-c", START.format(change=change)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_drains_and_ends(push_server_factory: Factory, number: signal.Signals) -> None:
    push = push_server_factory()
    with push.stream(push.token("42")) as stream:
        push.signal(number)
        push.signal(number)  # an impatient operator changes nothing
        messages = stream.until_end()
    assert push.wait() == 0
    assert messages[-1].value["type"] == "reconnect" and messages[-1].value["reason"] == "drain"
    events = [word for line in push.log.splitlines() for word in line.split() if "event=" in word]
    assert events[-2:] == ["event=draining", "event=stopped"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", push.port), 1)


def test_what_the_loop_is_to_answer_is_answered_before_it_ends(tmp_path: Path) -> None:
    begun, address = tmp_path / "begun", tmp_path / "public"
    change = f"""
import asyncio, pathlib
from push_server.brokers.memory import MemoryBroker
place = MemoryBroker.publish
async def publish(self, requests):
    pathlib.Path({str(begun)!r}).touch()
    await asyncio.sleep(0.5)
    return await place(self, requests)
MemoryBroker.publish = publish
settings = replace(settings, listen=(Address(path={str(address)!r}),))
"""
    now = int(time.time())
    claims = {"v": 1, "sub": "1", "sid": "s", "iat": now, "exp": now + 60, "sub_ch": []}
    token = issue_token({**claims, "pub_ch": ["a"]}, "k" * 32)
    command = [sys.executable, "-c", START.format(change=change)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(address.is_socket)
            with Wire.connect(str(address)) as wire:

                def send(**message: Any) -> None:
                    head = {"Host": "localhost", "Content-Type": "application/json"}
                    body = json.dumps([message]).encode()
                    wire.send(request_bytes("POST", "/bayeux", head, body))

                send(
                    channel="/meta/handshake",
                    version="1.0",
                    supportedConnectionTypes=["long-polling"],
                    ext={"push": {"token": token}},
                )
                (shaken,) = read_response(wire).json()
                send(channel="/a", clientId=shaken["clientId"], data=1)
                wait_for(begun.exists)
                process.terminate()
                (published,) = read_response(wire).json()
            assert published["successful"]
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
        assert process.stderr is not None
        assert "ERROR" not in process.stderr.read()


def test_a_reload_takes_what_it_can_and_nothing_that_is_wrong(push_server_factory: Factory) -> None:
    push = push_server_factory()
    old = push.token("42")
    new_key = "another key of 32 characters...."

    def reload(expected: str) -> None:
        seen = push.log.count(expected)
        push.signal(signal.SIGHUP)
        wait_for(lambda: push.log.count(expected) > seen)

    push.config_file.write_text("listen = 7\n")
    reload("event=reload.refused")
    push.config_file.write_text("this is no TOML")
    reload("event=reload.refused")
    push.config_file.unlink()
    reload("event=reload.refused")
    assert push.request("POST", "/ticket", token=old).status == 200, "everything is as it was"

    push.write_config(
        token_keys=[new_key],
        namespace={"quiet": {"client_publish": False}, "short": {"history_size": 1}},
    )
    reload("event=reload.done")
    assert push.request("POST", "/ticket", token=old).status == 401
    token = push.token("42", pub_ch=["*"], key=new_key)
    assert push.request("POST", "/ticket", token=token).status == 200
    for channel, status in (("quiet:a", 403), ("loud:a", 200)):
        body = json.dumps({"channel": channel, "data": 1}).encode()
        headers = {"Content-Type": "application/json"}
        answer = push.request("POST", "/publish", token=token, headers=headers, body=body)
        assert answer.status == status
    for number in range(3):
        push.api("publish", channel="short:a", data=number)
    kept: Any = push.api("history", channel="short:a")
    assert [each["data"] for each in kept["publications"]] == [2]


@pytest.mark.parametrize("name", ["listen", "internal_listen"])
def test_a_port_that_is_taken(name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        address = f"Address('127.0.0.1', {port})"
        value = f"(Address('127.0.0.1', 0), {address})" if name == "listen" else address
        ended = serve(f"settings = replace(settings, {name}={value})")
    assert ended.returncode == EXIT_SETTINGS
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("push-server: ") and f"127.0.0.1:{port}" in last and name in last
    assert "Traceback" not in ended.stderr


def test_more_connections_than_descriptors() -> None:
    # Past the last descriptor waitress would try to accept for ever, as fast as it can.
    ended = serve("settings = replace(settings, connections=9_999_999)")
    assert ended.returncode == EXIT_SETTINGS
    (line,) = ended.stderr.splitlines()
    assert line.startswith("push-server: connections: 9999999 need 12499998 file descriptors")


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 200)
    ended = serve(f"settings = replace(settings, internal_listen=Address(path={str(path)!r}))")
    assert ended.returncode == EXIT_SETTINGS
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("push-server: ") and "None" not in last


def test_a_broker_that_cannot_start() -> None:
    ended = serve("settings = replace(settings, broker='sqlite:/nowhere/at/all/push.db')")
    assert ended.returncode == EXIT_SETTINGS
    assert ended.stderr.splitlines()[-1].startswith("push-server: ")
    assert "Traceback" not in ended.stderr


def test_a_front_that_dies_takes_the_process_with_it() -> None:
    ended = serve(
        """
def fault(self):
    time.sleep(0.2)
    raise ArithmeticError("a fault of the test")
listeners.Fronts.run = fault
"""
    )
    assert ended.returncode == EXIT_DEAD_THREAD
    assert "event=front.failed" in ended.stderr and "event=front.dead" in ended.stderr


def test_a_loop_that_stands_still_takes_the_process_with_it() -> None:
    ended = serve(
        """
crossing.SILENCE_SECONDS = 1.5
start = crossing.Crossing._beat
def beat(self):
    start(self)
    self._loop.call_later(0.3, time.sleep, 60)
crossing.Crossing._beat = beat
"""
    )
    assert ended.returncode == EXIT_DEAD_THREAD
    assert "event=loop.dead" in ended.stderr


def test_a_front_that_stands_still_takes_the_process_with_it() -> None:
    ended = serve(
        """
crossing.SILENCE_SECONDS = 1.5
turn = listeners.Fronts.turn
def stand_still(self, seconds):
    turn(self, seconds)
    time.sleep(60)
listeners.Fronts.turn = stand_still
"""
    )
    assert ended.returncode == EXIT_DEAD_THREAD
    assert "event=front.dead silent=1.5" in ended.stderr
