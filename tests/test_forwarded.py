"""Whom a request is from: each forgery of X-Forwarded-For, and what proxies really send."""

import socket
from pathlib import Path
from typing import Any

import pytest
from harness import PushServer
from wire import Refused

from push_server.addresses import UNIX_PEER, address_group, plain_address
from push_server.doors.forwarded import visitor
from push_server.doors.request import Request
from push_server.errors import BadInput

PROXY = "192.0.2.7"


def request(peer: str, claims: str | None) -> Request:
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": peer}
    if claims is not None:
        environ["HTTP_X_FORWARDED_FOR"] = claims
    return Request(environ)


def seen(claims: str | None, peer: str = PROXY, trusted: str = PROXY) -> str:
    return visitor(request(peer, claims), trusted)


@pytest.mark.parametrize(
    ("claims", "address"),
    [
        ("198.51.100.9", "198.51.100.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("2001:DB8:0::9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
        ("198.51.100.9:4711", "198.51.100.9"),
        ("203.0.113.1, 198.51.100.9", "198.51.100.9"),
        ("203.0.113.1,198.51.100.9 ", "198.51.100.9"),
        # From a proxy that listens on [::] for both.
        ("::ffff:198.51.100.9", "198.51.100.9"),
        ("[::ffff:198.51.100.9]:4711", "198.51.100.9"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_what_the_proxy_saw(claims: str, address: str) -> None:
    assert seen(claims) == address
    assert seen(claims, UNIX_PEER, UNIX_PEER) == address


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [("203.0.113.1", PROXY), ("203.0.113.1", ""), (UNIX_PEER, PROXY), (UNIX_PEER, ""),
     ("192.0.2.7", UNIX_PEER), ("192.0.2.77", PROXY), ("::1", "127.0.0.1")],
)
def test_59_nobody_but_the_proxy_chooses_an_address(peer: str, trusted: str) -> None:
    # Attack: a fresh address for each connection, or another visitor's.
    assert seen("198.51.100.9", peer, trusted) == peer
    assert seen("garbage", peer, trusted) == peer


def test_59_what_the_visitor_claims_stands_in_front_and_does_not_count() -> None:
    # Attack: a proxy that appends is sent a header; all but its own entry is forged.
    assert seen("127.0.0.1, 10.0.0.1, 203.0.113.1") == "203.0.113.1"
    assert seen(f"{UNIX_PEER}, garbage, 203.0.113.1") == "203.0.113.1"
    assert seen("1.1.1.1, " * 2000 + "203.0.113.1") == "203.0.113.1"


@pytest.mark.parametrize(
    "claims",
    ["", " ", "203.0.113.1,", "unknown", "_hidden", UNIX_PEER, "localhost", "203.0.113.256",
     "203.0.113.1:x", "[203.0.113.1", "[]", "[]:80", ":80", "2001:db8::9:4711:1:1:1:1:1",
     "203.0.113.1\t203.0.113.2", "0x7f.1", "127.1", "\u0661.1.1.1", "203.0.113.1\x1b[31m"],
)
def test_59_what_is_no_address_is_refused(claims: str) -> None:
    # Attack: a text nobody else uses is an address with limits of its own; "unix:" has none.
    with pytest.raises(BadInput) as refusal:
        seen(claims)
    assert refusal.value.code == "forwarded_malformed"


def test_a_look_of_the_proxy_itself() -> None:
    assert seen(None) == PROXY


def test_one_spelling_for_each_address() -> None:
    assert plain_address("::FFFF:192.0.2.1") == "192.0.2.1"
    assert address_group(plain_address("::ffff:192.0.2.1")) == "192.0.2.1"
    # A zone may be any text: an address could be spelled in as many ways.
    assert plain_address("fe80::1%a b") == plain_address("fe80::1%c") == "fe80::1"


# Through the server.


class OnPath(PushServer):
    """A push server on a Unix socket; we are its proxy."""

    @property
    def address(self) -> str:
        return str(self.folder / "push.sock")


def on_path(**settings: Any) -> OnPath:
    push = OnPath(**settings)
    push.settings["listen"] = f"unix:{push.address}"
    return push


def test_a_proxy_on_a_unix_socket_names_the_visitors() -> None:
    with on_path(trusted_proxy="unix:", connections_per_ip=2) as push:

        def come(user: int, address: str) -> Any:
            headers = {"X-Forwarded-For": address}
            return push.stream(push.token(f"u{user}"), headers=headers)

        with come(1, "198.51.100.9"), come(2, "203.0.113.1, 198.51.100.9"):
            with pytest.raises(Refused) as refusal:
                come(3, "2.2.2.2, 198.51.100.9")
            assert refusal.value.response.status == 429
            come(4, "198.51.100.10").close()
        since = len(push.log)
        assert push.get("/push.js", headers={"X-Forwarded-For": UNIX_PEER}).status == 400
        assert push.get("/push.js").status == 200
        assert "ip=unix:" in push.log[since:] and "reason=forwarded_malformed" in push.log[since:]
        assert "ip=198.51.100.9" in push.log


def test_a_unix_socket_alone_makes_nobody_trusted() -> None:
    with on_path(connections_per_ip=2) as push:
        with pytest.raises(Refused):
            push.stream("not.a.token", headers={"X-Forwarded-For": "198.51.100.9"})
        assert "ip=unix:" in push.log and "198.51.100.9" not in push.log


def test_many_addresses_and_only_one_of_them_trusted(tmp_path: Path) -> None:
    path = tmp_path / "push.sock"
    push = PushServer(trusted_proxy="unix:")
    push.settings["listen"] = [push.settings["listen"], f"[::1]:{push.port}", f"unix:{path}"]
    with push:
        assert push.log.count("event=listening setting=listen") == 3
        head = (
            b"GET /subscribe/sse HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"X-Forwarded-For: 198.51.100.%d\r\n\r\n"
        )
        targets: list[tuple[socket.AddressFamily, Any]] = [
            (socket.AF_INET, ("127.0.0.1", push.port)),
            (socket.AF_INET6, ("::1", push.port)),
            (socket.AF_UNIX, str(path)),
        ]
        for number, (family, address) in enumerate(targets):
            with socket.socket(family) as client:
                client.settimeout(5)
                client.connect(address)
                client.sendall(head % number)
                assert client.recv(12) == b"HTTP/1.1 401"
        for ip in ("127.0.0.1", "::1", "198.51.100.2"):
            assert f"ip={ip}\n" in push.log
        for forged in ("198.51.100.0", "198.51.100.1"):
            assert forged not in push.log
