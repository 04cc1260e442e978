"""Listening sockets: where they are opened, what is taken over, and what is refused."""

import socket
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from push_server.casts import Address
from push_server.settings import Settings, SettingsError
from push_server.sockets import Sockets, address_of, open_socket, open_sockets

ANYWHERE = Address("127.0.0.1", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_is_had_once(host: str) -> None:
    with open_socket("listen", Address(host, 0)) as first:
        address = address_of(first)
        assert address.host == host and address.port
        with pytest.raises(SettingsError, match=r"^listen: cannot listen on .*: Address already"):
            open_socket("listen", address)
        with socket.create_connection((host, address.port), 5):
            pass


def test_all_addresses_of_both_kinds_on_one_port() -> None:
    with open_socket("listen", Address("::", 0)) as six:
        port = address_of(six).port
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port), 5),
        ):
            pass
        with (
            open_socket("listen", Address("0.0.0.0", port)),
            socket.create_connection(("127.0.0.1", port), 5),
        ):
            pass


def test_the_path_of_a_dead_server_is_taken_over(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "s"))
    with open_socket("listen", address) as first:
        assert address_of(first) == address
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660
        with pytest.raises(SettingsError, match="another server listens there"):
            open_socket("listen", address)
    with open_socket("listen", address):  # its socket is still there, and nobody behind it
        pass
    (tmp_path / "s").unlink()
    (tmp_path / "s").write_text("not a socket")
    with pytest.raises(SettingsError, match="listen: cannot listen"):
        open_socket("listen", address)
    assert (tmp_path / "s").read_text() == "not a socket"


def close(sockets: Iterable[Iterable[socket.socket]]) -> None:
    for some in sockets:
        for each in some:
            each.close()


def test_every_address_of_the_settings(tmp_path: Path) -> None:
    listen = (ANYWHERE, Address("::1", 0), Address(path=str(tmp_path / "s")))
    sockets = open_sockets(replace(Settings(), listen=listen, internal_listen=ANYWHERE))
    try:
        found = [address_of(each) for each in sockets["listen"]]
        assert [(each.host, each.path) for each in found] == [(a.host, a.path) for a in listen]
        assert [address_of(each).host for each in sockets["internal_listen"]] == ["127.0.0.1"]
    finally:
        close(sockets.values())


def test_what_is_given_is_not_opened() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    untuned = taken.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    given: Sockets = {"listen": [taken]}
    settings = replace(Settings(), listen=(address_of(taken),), internal_listen=ANYWHERE)
    sockets = open_sockets(settings, given)
    try:
        assert sockets["listen"] == [taken]
        assert given == {"listen": [taken]}
        (ours,) = sockets["internal_listen"]
        buffers = {each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in (taken, ours)}
        assert len(buffers) == 1 and untuned not in buffers
    finally:
        close(sockets.values())


@pytest.mark.parametrize(("stall_timeout", "seconds"), [(0.5, 20), (19, 20), (30, 31), (60, 61)])
def test_the_kernel_cuts_no_slow_reader_before_the_hub_does(
    stall_timeout: float, seconds: int
) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    settings = replace(
        Settings(), listen=(address_of(taken), ANYWHERE), internal_listen=ANYWHERE,
        stall_timeout=stall_timeout,
    )  # fmt: skip
    sockets = open_sockets(settings, {"listen": [taken]})
    try:
        for each in chain.from_iterable(sockets.values()):
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == seconds * 1000
    finally:
        close(sockets.values())


def test_one_that_cannot_be_had_leaves_none_open() -> None:
    with open_socket("listen", ANYWHERE) as taken:
        free = open_socket("listen", Address("127.0.0.2", 0))
        address = address_of(free)
        free.close()
        listen = (address, address_of(taken))
        with pytest.raises(SettingsError, match=r"^listen: cannot listen on 127\.0\.0\.1:"):
            open_sockets(replace(Settings(), listen=listen, internal_listen=ANYWHERE))
        open_socket("listen", address).close()
