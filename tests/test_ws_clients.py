"""WebSocket as others understand it: conformance, and clients that we did not write.

The fuzzing client of Autobahn|Testsuite, fetched by `tools/autobahn`, runs against an echo server
that exists only here (`echo_server.py`). A table goes through the same categories with its frames
whole, in pieces and octet by octet.
"""

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from echo_server import EchoServer
from harness import SITE, PushServer
from waiting import PATIENCE
from websockets.sync.client import connect
from websockets.typing import Origin
from wire_ws import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame, Upgraded, frame

ROOT = Path(__file__).resolve().parent.parent
AUTOBAHN = ROOT / "tools" / "autobahn"
WSTEST = ROOT / ".autobahn" / "wstest"
LEFT_OUT = [
    "9.1.4", "9.1.5", "9.1.6", "9.2.5", "9.2.6",  # up to 16 MiB each: only time
    "9.3.*", "9.4.*",  # up to 65,536 fragments at once, and FRAMES_AT_ONCE are 1,000
    "12.*", "13.*",  # compression
]
DEVIATIONS = {
    "6.4.3": "text that is not UTF-8 is refused at the end of its frame, not in the middle",
    "6.4.4": "the same",
}
"""Cases that may be other than OK, and why."""


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


def upgraded(echo: EchoServer) -> Upgraded:
    return Upgraded(("127.0.0.1", echo.port), "/", {"Host": "localhost"})


def pieces(data: bytes, size: int, opcode: int = TEXT) -> bytes:
    """A message in frames of this size."""
    parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    return b"".join(
        frame(CONT if at else opcode, part, fin=at == len(parts) - 1)
        for at, part in enumerate(parts)
    )


def closing(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, struct.pack("!H", code) + reason)


KOSME = "κόσμε".encode()
BYE = frame(CLOSE, struct.pack("!H", 1000))

# Each: what is sent, what comes back before the close frame, the code in that.
CASES: dict[str, tuple[bytes, list[Frame], int]] = {
    **{
        f"1 {'text' if kind == TEXT else 'binary'} of {size}": (
            frame(kind, b"*" * size) + BYE, [Frame(kind, b"*" * size)], 1000,
        )
        for kind in (TEXT, BINARY)
        for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536, 200_000)
    },
    "2 empty ping": (frame(PING) + BYE, [Frame(PONG, b"")], 1000),
    "2 ping of 125": (frame(PING, b"\xfe" * 125) + BYE, [Frame(PONG, b"\xfe" * 125)], 1000),
    "2 ten pings": (
        b"".join(frame(PING, b"%d" % n) for n in range(10)) + BYE,
        [Frame(PONG, b"%d" % n) for n in range(10)],
        1000,
    ),
    "2 pong that nobody asked for": (
        frame(PONG, b"x") + frame(PING, b"y") + BYE, [Frame(PONG, b"y")], 1000,
    ),
    "2 ping of 126": (frame(PING, b"x" * 126), [], 1002),
    **{
        f"3 reserved bits {bits} after a message": (
            frame(TEXT, b"first") + frame(TEXT, b"second", reserved=bits) + frame(PING),
            [Frame(TEXT, b"first")],
            1002,
        )
        for bits in range(1, 8)
    },
    **{
        f"4 opcode {code} after a message": (
            frame(TEXT, b"first") + frame(code, b"x") + frame(PING), [Frame(TEXT, b"first")], 1002,
        )
        for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "5 ping in two": (frame(PING, b"a", fin=False) + frame(CONT, b"b"), [], 1002),
    "5 pong in two": (frame(PONG, b"a", fin=False) + frame(CONT, b"b"), [], 1002),
    "5 text in two": (pieces(b"ab", 1) + BYE, [Frame(TEXT, b"ab")], 1000),
    "5 ping between pieces": (
        frame(TEXT, b"a", fin=False) + frame(PING, b"?") + frame(CONT, b"b") + BYE,
        [Frame(PONG, b"?"), Frame(TEXT, b"ab")],
        1000,
    ),
    "5 a piece of nothing": (frame(CONT, b"x"), [], 1002),
    "5 text within text": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), [], 1002),
    "5 a piece after the last": (
        pieces(b"ab", 1) + frame(CONT, b"c"), [Frame(TEXT, b"ab")], 1002,
    ),
    "6 text in octets": (pieces(KOSME, 1) + BYE, [Frame(TEXT, KOSME)], 1000),
    "6 empty pieces": (
        frame(TEXT, fin=False) + frame(CONT, b"m", fin=False) + frame(CONT) + BYE,
        [Frame(TEXT, b"m")],
        1000,
    ),
    **{
        f"6 not UTF-8: {data!r}": (frame(TEXT, data), [], 1007)
        for data in (
            KOSME + b"\xed\xa0\x80edited",  # a surrogate
            b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf",  # overlong
            b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff",  # beyond Unicode
            b"\x80", b"\xbf", b"\xc0 ", b"\xce", b"\xe1\xbd",  # alone, or cut
        )
    },
    **{
        f"6 UTF-8: {text!r}": (frame(TEXT, text.encode()) + BYE, [Frame(TEXT, text.encode())], 1000)
        for text in ("\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd",
                     "\ufffe", "\uffff", "\U00010000", "\U0010ffff", "\U0001f600 ä")
    },
    "6 bad in a later piece": (
        frame(TEXT, KOSME, fin=False) + frame(CONT, b"\xff", fin=False), [], 1007,
    ),
    "6 binary may be anything": (frame(BINARY, b"\xff") + BYE, [Frame(BINARY, b"\xff")], 1000),
    "7 message and close": (frame(TEXT, b"x") + BYE, [Frame(TEXT, b"x")], 1000),
    "7 message after close": (BYE + frame(TEXT, b"x"), [], 1000),
    "7 two closes": (BYE + BYE, [], 1000),
    "7 close within a message": (frame(TEXT, b"x", fin=False) + BYE, [], 1000),
    "7 empty close": (frame(CLOSE), [], 1005),
    "7 close of one byte": (frame(CLOSE, b"\x03"), [], 1002),
    "7 long reason": (frame(CLOSE, struct.pack("!H", 1000) + b"x" * 123), [], 1000),
    "7 too long reason": (frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124), [], 1002),
    "7 bad reason": (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), [], 1007),
    **{
        f"7 close with {code}": (frame(CLOSE, struct.pack("!H", code)), [], code)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"7 close with {code}, which nobody sends": (
            frame(CLOSE, struct.pack("!H", code)), [], 1002,
        )
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
    "9 a megabyte": (
        frame(BINARY, bytes(1 << 20)) + BYE, [Frame(BINARY, bytes(1 << 20))], 1000,
    ),
    "9 a megabyte in pieces of 4 KiB": (
        pieces(b"*" * (1 << 20), 4096) + BYE, [Frame(TEXT, b"*" * (1 << 20))], 1000,
    ),
    "10 auto-fragmented": (pieces(b"*" * 65_536, 1300) + BYE, [Frame(TEXT, b"*" * 65_536)], 1000),
}


@pytest.mark.parametrize("chop", [0, 1, 997], ids=["whole", "octets", "chopped"])
@pytest.mark.parametrize("case", CASES)
def test_conformance(echo: EchoServer, case: str, chop: int) -> None:
    data, expected, code = CASES[case]
    if chop and len(data) > 2_000 * chop:
        chop = len(data) // 100
    with upgraded(echo) as client:
        for at in range(0, len(data), chop or len(data)):
            client.wire.send(data[at : at + (chop or len(data))])
        for want in expected:
            assert client.frame() == want
        assert client.closed().code == code


def test_a_client_that_just_goes(echo: EchoServer) -> None:
    with upgraded(echo) as client:
        client.wire.send(frame(TEXT, b"hello")[:4])
    with upgraded(echo) as client:
        client.wire.send(frame(TEXT, b"hello"))
        assert client.frame() == Frame(TEXT, b"hello")


@pytest.fixture
def wstest() -> Path:
    """The program of the suite; skips where it cannot be had."""
    if not WSTEST.exists() or WSTEST.stat().st_mtime < AUTOBAHN.stat().st_mtime:
        done = subprocess.run(
            [AUTOBAHN], capture_output=True, text=True, timeout=400, check=False
        )
        if done.returncode:
            missing = f"needs Autobahn|Testsuite: {(done.stderr or done.stdout).strip()[-300:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(missing)
            pytest.skip(missing)
    return WSTEST


def test_autobahn(echo: EchoServer, wstest: Path, tmp_path: Path) -> None:
    spec = {
        "outdir": "reports",
        "options": {"failByDrop": False},
        "servers": [{"agent": "echo", "url": f"ws://127.0.0.1:{echo.port}/",
                     "options": {"version": 18}}],
        "cases": ["*"],
        "exclude-cases": LEFT_OUT,
        "exclude-agent-cases": {},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    subprocess.run(
        [wstest, "-m", "fuzzingclient", "-s", "spec.json"],
        cwd=tmp_path, timeout=400, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    cases = json.loads((tmp_path / "reports" / "index.json").read_text())["echo"]
    assert len(cases) == 278
    good = ("OK", "INFORMATIONAL")
    bad = {
        name: (case["behavior"], case["behaviorClose"])
        for name, case in cases.items()
        if case["behavior"] not in good or case["behaviorClose"] not in good
    }
    assert bad == dict.fromkeys(DEVIATIONS, ("NON-STRICT", "OK"))


# Clients from outside, on the real server.


def scenario(push: PushServer, user: str) -> tuple[dict[str, Any], str]:
    """What `connect` says, and the channel."""
    channel = f"clients:{user}"
    token = push.token(user, sub_ch=["clients:*"], pub_ch=["clients:*"])
    params = {"token": token, "channels": [channel]}
    return {"id": 1, "method": "connect", "params": params}, channel


def test_websockets_client(push: PushServer) -> None:
    hello, channel = scenario(push, "pywebsockets")
    url = f"ws://127.0.0.1:{push.port}/subscribe/ws"
    with connect(url, origin=Origin(SITE)) as client:
        client.send(json.dumps(hello))
        assert json.loads(client.recv(PATIENCE))["type"] == "hello"
        assert client.ping().wait(PATIENCE)
        for text in ("žluťoučký €\u2028", "x" * 100_000):
            params = {"channel": channel, "data": text}
            client.send(json.dumps({"id": 2, "method": "publish", "params": params}))
            got = [json.loads(client.recv(PATIENCE)) for _ in range(2)]
            assert {"result"} <= {key for value in got for key in value}
            assert text in [value.get("data") for value in got]
    assert client.protocol.close_code == 1000


def test_websocket_client(push: PushServer) -> None:
    hello, channel = scenario(push, "wsclient")
    client = websocket.create_connection(
        f"ws://127.0.0.1:{push.port}/subscribe/ws", origin=SITE, host=push.host, timeout=PATIENCE
    )
    try:
        client.send(json.dumps(hello))
        assert json.loads(client.recv())["type"] == "hello"
        push.api("publish", channel=channel, data={"n": 1})
        assert json.loads(client.recv())["data"] == {"n": 1}
        client.ping("?")
        assert client.recv_data(control_frame=True) == (PONG, b"?")
    finally:
        client.close(timeout=int(PATIENCE))
    assert not client.connected


NODE = """
const [url, token, channel] = process.argv.slice(1);
const headers = { authorization: `Bearer ${token}` };
const socket = new WebSocket(`${url}?channel=${channel}`, { headers });
const failed = setTimeout(() => process.exit(3), 10000);
socket.onmessage = ({ data }) => {
  const value = JSON.parse(data);
  if (value.type === "hello") {
    const params = { channel, data: "žluťoučký €" };
    socket.send(JSON.stringify({ id: 2, method: "publish", params }));
  } else if (value.channel === channel) {
    console.log(value.data, socket.extensions, socket.protocol);
    socket.close(1000, "done");
  }
};
socket.onclose = ({ code, wasClean }) => {
  clearTimeout(failed);
  console.log(code, wasClean);
};
"""


def test_node(push: PushServer) -> None:
    """Node's own client. It sends no Origin, but can send the token in a header."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node (Debian package nodejs)")
    help_text = subprocess.run([node, "--help"], capture_output=True, text=True, check=True).stdout
    flags = ["--experimental-websocket"] if "--experimental-websocket" in help_text else []
    probe = subprocess.run(
        [node, *flags, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"], check=False
    )
    if probe.returncode:
        pytest.skip("needs a Node with WebSocket (20.10 or newer)")
    hello, channel = scenario(push, "node")
    url = f"ws://127.0.0.1:{push.port}/subscribe/ws"
    done = subprocess.run(
        [node, *flags, "-e", NODE, url, hello["params"]["token"], channel],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.stdout.split() == ["žluťoučký", "€", "1000", "true"], done
