"""Bayeux clients that we did not write, each on each of its transports.

CometD and Faye for Node come from npm, into `.bayeux` beside the checkout's other tools;
tests/browser/test_bayeux_pages.py has their browser builds. aiocometd comes from PyPI.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiocometd_noloop import Client, ConnectionType
from aiocometd_noloop.extensions import Extension
from bayeux_modules import HERE, bayeux_modules
from harness import PushServer
from waiting import PATIENCE, wait_for

TEXT = "žluťoučký € \u2028 </script>"
_numbers = count()


@pytest.fixture(scope="module")
def modules() -> Path:
    """Where the packages are."""
    return bayeux_modules()


@pytest.fixture(scope="module")
def site() -> Iterator[PushServer]:
    """The server of most tests."""
    with PushServer() as server:
        yield server


@pytest.mark.parametrize(
    ("client", "transport", "ack"),
    [
        ("cometd", "long-polling", False),
        ("cometd", "websocket", False),
        ("cometd", "long-polling", True),
        ("cometd", "websocket", True),
        ("faye", "long-polling", False),
        ("faye", "websocket", False),
    ],
)
def test_in_node(
    site: PushServer, modules: Path, client: str, transport: str, ack: bool
) -> None:
    number = next(_numbers)
    channel = f"chat:{number}"
    token = site.token(f"user{number}", sub_ch=["chat:*"], pub_ch=["chat:*"])
    process = subprocess.Popen(
        ["node", str(HERE / "scenario.mjs"), client, transport,
         f"http://127.0.0.1:{site.port}/bayeux", token, f"/chat/{number}", str(modules)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **({"ACK": "1"} if ack else {})},
    )
    said: list[dict[str, Any]] = []
    with process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            said.append(json.loads(line))
            if said[-1].get("data") == {"text": TEXT}:
                site.api("publish", channel=channel, data={"third": True})
        errors = process.stderr.read()
    assert process.returncode == 0, (said, errors)
    assert {"handshake": True}.items() <= said[0].items(), said
    assert {"subscribed": True} in said and {"published": True} in said
    assert [each["data"] for each in said if "data" in each] == [
        {"n": 1}, {"text": TEXT}, {"third": True},
    ]
    assert said[-1]["done"] is True
    assert said[-1].get("transport") in (transport, None), said[-1]
    # It has said goodbye, so nothing of it stays.
    wait_for(lambda: not site.api("channels", prefix=channel)["channels"], "nothing is left")


class ShowToken(Extension):  # type: ignore[misc]
    """Puts a token into the handshake."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def outgoing(self, payload: list[dict[str, Any]], headers: dict[str, str]) -> None:
        for message in payload:
            if message["channel"] == "/meta/handshake":
                message["ext"] = {"push": {"token": self._token}}

    async def incoming(
        self, payload: list[dict[str, Any]], headers: dict[str, str] | None = None
    ) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("kind", [ConnectionType.LONG_POLLING, ConnectionType.WEBSOCKET])
@pytest.mark.filterwarnings("ignore")
def test_aiocometd(site: PushServer, kind: ConnectionType, capfd: Any) -> None:
    number = next(_numbers)
    token = site.token(f"user{number}", sub_ch=["chat:*"], pub_ch=["chat:*"])

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)  # it cancels loudly at its end
        begun = loop.time()
        url = f"http://127.0.0.1:{site.port}/bayeux"
        async with Client(url, connection_types=kind, extensions=[ShowToken(token)]) as client:
            assert loop.time() - begun < PATIENCE, "its first connect is not held"
            assert client.connection_type is kind
            await client.subscribe(f"/chat/{number}")
            await client.publish(f"/chat/{number}", {"text": TEXT})
            site.api("publish", channel=f"chat:{number}", data=[1])
            async with asyncio.timeout(PATIENCE):
                return [(await client.receive())["data"] for _ in range(2)]

    assert asyncio.run(scenario()) == [{"text": TEXT}, [1]]


def test_after_a_restart(
    push_server_factory: Callable[..., PushServer], modules: Path
) -> None:
    """A server that forgot everything: Faye shakes hands and subscribes again by itself."""
    push = push_server_factory(broker="sqlite")
    token = push.token("1", sub_ch=["chat:*"], pub_ch=["chat:*"])
    process = subprocess.Popen(
        ["node", str(HERE / "scenario.mjs"), "faye", "long-polling",
         f"http://127.0.0.1:{push.port}/bayeux", token, "/chat/1", str(modules)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    with process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(json.loads(line))
            if said[-1].get("data") == {"text": TEXT}:
                push.restart()
            if said[-1].get("handshake") and len(said) > 1:
                # It has subscribed when the channel has a subscriber.
                while not push.api("channels", prefix="chat:1")["channels"]:
                    assert process.poll() is None
                push.api("publish", channel="chat:1", data={"third": True})
    assert process.returncode == 0, said
    assert [each["data"] for each in said if "data" in each][-1] == {"third": True}


@pytest.mark.parametrize("kind", [ConnectionType.LONG_POLLING, ConnectionType.WEBSOCKET])
@pytest.mark.filterwarnings("ignore")
def test_aiocometd_after_a_restart(
    push_server_factory: Callable[..., PushServer], kind: ConnectionType
) -> None:
    """Asked to shake hands with a server that goes, it would forget what it is subscribed to."""
    push = push_server_factory(broker="sqlite", drain_spread=0)

    async def scenario() -> object:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        url = f"http://127.0.0.1:{push.port}/bayeux"
        extensions = [ShowToken(push.token("1", sub_ch=["chat:*"]))]
        async with Client(url, connection_types=kind, extensions=extensions) as client:
            await client.subscribe("/chat/1")
            await asyncio.to_thread(push.restart)
            await asyncio.to_thread(wait_for, lambda: push.api("channels")["channels"])
            push.api("publish", channel="chat:1", data="after")
            async with asyncio.timeout(5):
                async for message in client:
                    if message["channel"] == "/chat/1":
                        return message["data"]
        return None

    assert asyncio.run(scenario()) == "after"
