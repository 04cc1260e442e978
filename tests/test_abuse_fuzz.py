"""Whatever is thrown at a real server, on every way that takes more than a line of text.

Nobody says what has to come back: only that it is never the server's fault, that the connection
comes to an end, that somebody else is served meanwhile, and that nothing of it stays.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from contract import NEEDED, data, fresh
from harness import SITE, PushServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import PATIENCE, wait_for
from wire import Response, read_head, request_bytes
from wire_ws import BINARY, CLOSE, CONT, PING, PONG, TEXT, Upgraded, frame

from push_server.doors.methods import METHODS

# Many small examples on one server, which is looked at when all are through.
hostile = settings(
    max_examples=40, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

RST = b"\1\0\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def server() -> Iterator[PushServer]:
    with PushServer(connections_per_user=200, handshakes_per_ip=1000) as push:
        yield push


def resident(push: PushServer) -> int:
    assert push.process is not None
    status = Path(f"/proc/{push.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def stats(push: PushServer) -> dict[str, int]:
    numbers: dict[str, int] = push.api("stats")
    return numbers


@pytest.fixture
def afterwards(server: PushServer) -> Iterator[None]:
    """What must hold when everything was thrown."""
    user = fresh("fuzz")
    with server.sse(server.token(user)) as witness:
        before, memory = stats(server), resident(server)
        yield
        server.api("publish", channel=f"user:{user}", data="still here")
        assert data(witness, 1) == ["still here"]
        wait_for(
            lambda: stats(server)["connections"] == before["connections"], lambda: stats(server)
        )
        assert stats(server).get("failed", 0) == 0
        assert resident(server) - memory < 6_000_000
    server.check_healthy()


# JSON that means something now and then.

CHANNELS = st.sampled_from(["a:1", "chat:x", "user:1", "$x", "", "a b", "x" * 200, "/a/b", "/**"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), CHANNELS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["channel", "channels", "data", "id", "since", "limit", "exclude", "ext"]),
        inner, max_size=4,
    ), max_leaves=6,
)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "channels": st.lists(CHANNELS, max_size=4) | VALUES,
        "channel": CHANNELS | VALUES,
        "data": VALUES,
        "id": VALUES,
        "token": st.just("TOKEN") | VALUES,
        "since": st.sampled_from(["1", "1~abcdef.1.1.0", "x"]) | VALUES,
        "instance": VALUES,
        "fallback": VALUES,
        "limit": VALUES,
        "exclude": VALUES,
    },
)
COMMANDS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers() | VALUES,
        "method": st.sampled_from([*METHODS]) | VALUES,
        "params": PARAMS | VALUES,
        "more": VALUES,
    },
)


def text_of(value: Any, token: str) -> bytes:
    text = json.dumps(value).replace('"TOKEN"', json.dumps(token))
    return text.replace("Infinity", "1e999").encode()  # a number that no answer can carry


# What is sent, one after the other: frames of commands, frames of anything, bytes.
FRAMES = st.builds(
    frame,
    st.sampled_from([CONT, TEXT, TEXT, BINARY, CLOSE, PING, PONG, 3]),
    st.binary(max_size=200),
    fin=st.sampled_from([True, True, True, False]),
    masked=st.sampled_from([True] * 8 + [False]),
    reserved=st.sampled_from([0] * 12 + [1, 2, 4]),
)
SENT = st.lists(st.one_of(COMMANDS, COMMANDS, VALUES, FRAMES, st.binary(max_size=40)), max_size=8)


@pytest.mark.usefixtures("afterwards")
@pytest.mark.parametrize("path", ["/subscribe/ws", "/bayeux"])
def test_websockets(server: PushServer, path: str) -> None:
    before = stats(server)
    token = server.token("fuzzed", pub_ch=["chat:*"])

    @hostile
    @given(sent=SENT, known=st.booleans(), end=st.sampled_from(["wait", "close", "reset"]))
    def throw(sent: list[Any], known: bool, end: str) -> None:
        shown = {"Authorization": f"Bearer {token}"} if known else {"Origin": SITE}
        with Upgraded(server.address, path, {**server.head(), **shown}) as client:
            for each in sent:
                raw = each if isinstance(each, bytes) else frame(TEXT, text_of(each, token))
                client.wire.send(raw)
            if end == "reset":
                client.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
            elif end == "wait":
                with contextlib.suppress(OSError):
                    client.wire.socket.shutdown(socket.SHUT_WR)
                client.wire.rest()

    throw()
    after = stats(server)
    assert sum(n for name, n in after.items() if name.startswith("violations.")) > sum(
        n for name, n in before.items() if name.startswith("violations.")
    )


MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.sampled_from(
            ["/meta/handshake", "/meta/connect", "/meta/subscribe", "/meta/unsubscribe",
             "/meta/disconnect", "/meta/x", "/service/push", "/chat/x", "/a/**", "/$x"]
        ) | VALUES,
        "clientId": st.just("CLIENT") | VALUES,
        "id": VALUES,
        "subscription": st.sampled_from(["/a/1", "/**", "/chat/*", "/service/push"]) | VALUES,
        "supportedConnectionTypes": st.just(["long-polling", "websocket"]) | VALUES,
        "connectionType": st.sampled_from(["long-polling", "eventsource"]) | VALUES,
        "advice": st.just({"timeout": 0}) | VALUES,
        "data": VALUES,
        "ext": st.fixed_dictionaries({}, optional={"push": PARAMS | VALUES, "ack": VALUES}),
    },
)


@pytest.mark.usefixtures("afterwards")
def test_bayeux_messages(server: PushServer) -> None:
    token = server.token("fuzzed", pub_ch=["chat:*"])
    json_type = {"Content-Type": "application/json"}

    def post(body: bytes) -> Response:
        return server.request("POST", "/bayeux", headers=json_type, body=body)

    handshake = {
        "channel": "/meta/handshake", "version": "1.0",
        "supportedConnectionTypes": ["long-polling"], "ext": {"push": {"token": token}},
    }
    client = post(json.dumps([handshake]).encode()).json()[0]["clientId"]

    @hostile
    @given(st.lists(MESSAGES | VALUES, max_size=4))
    def throw(messages: list[Any]) -> None:
        # One connect alone could be held for 25 seconds.
        sent = json.dumps([*messages, {"channel": "/nowhere"}]).replace("CLIENT", client)
        response = post(sent.replace('"TOKEN"', json.dumps(token)).encode())
        assert response.status in (200, 400), response
        if response.status == 200:
            assert all("channel" in each or "error" in each for each in response.json())

    throw()
    post(json.dumps([{"channel": "/meta/disconnect", "clientId": client}]).encode())


@pytest.mark.usefixtures("afterwards")
@pytest.mark.parametrize("transport", ["sse", "frame", "multipart", "poll", "jsonp", "pull"])
def test_queries(server: PushServer, transport: str) -> None:
    token = server.token("fuzzed")
    path = "/pull" if transport == "pull" else f"/subscribe/{transport}"
    names = st.sampled_from(
        ["channel", "since", "instance", "timeout", "ticket", "fallback", "callback", "origin",
         "every", "x"]
    )
    texts = st.one_of(
        st.text(max_size=20),
        CHANNELS,
        st.sampled_from(["1", "0", "-1", "1e999", "nan", SITE, "cb", "1~abcdef.1.1.0"]),
    )

    @hostile
    @given(st.lists(st.tuples(names, texts), max_size=5), st.binary(max_size=8))
    def throw(pairs: list[tuple[str, str]], junk: bytes) -> None:
        query = urlencode([*NEEDED.get(transport, ()), *pairs, ("timeout", "0")]) + quote(junk)
        with contextlib.ExitStack() as stack:
            wire = stack.enter_context(server.wire())
            headers = {**server.head(), "Authorization": f"Bearer {token}", "Connection": "close"}
            wire.send(request_bytes("GET", f"{path}?{query}", headers))
            assert read_head(wire, time.monotonic() + PATIENCE).status < 500

    throw()


@pytest.mark.usefixtures("afterwards")
@pytest.mark.parametrize("path", ["/publish", "/presence", "/ticket"])
def test_bodies(server: PushServer, path: str) -> None:
    token = server.token("fuzzed", pub_ch=["chat:*"])

    @hostile
    @given(PARAMS | VALUES | st.binary(max_size=40))
    def throw(body: Any) -> None:
        sent = body if isinstance(body, bytes) else text_of(body, token)
        headers = {"Content-Type": "application/json"}
        response = server.request("POST", path, token=token, headers=headers, body=sent)
        assert response.status < 500, response

    throw()
