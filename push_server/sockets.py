"""Listening sockets, by the name of the setting that says where: made here and nowhere else.

Whoever has sockets that listen already (a worker has its parent's, a service may have systemd's)
passes them on as they are; `open_sockets` makes those that are missing. What serves on them does
not ask where they are from.

Imported by the HTTP front, the server and its workers.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from itertools import chain

from push_server.casts import Address, SettingsError
from push_server.settings import Settings

Sockets = Mapping[str, Sequence[socket.socket]]
"""The setting -> its sockets."""

BACKLOG = 4096
SEND_BUFFER = 65_536
"""Bytes the kernel may hold for one connection (Linux doubles it)."""
UNACKNOWLEDGED_SECONDS = 20
UNIX_MODE = 0o660
"""Of a Unix socket: owner and group may connect."""


def open_sockets(settings: Settings, given: Sockets | None = None) -> Sockets:
    """Sockets for every address of every listener; for those that are `given` none is opened.

    Raises `SettingsError` naming the setting whose address cannot be had, or that has not the
    address of a socket given for it: nobody would serve who connects there. Then none is open.
    """
    addresses = {"listen": settings.listen, "internal_listen": (settings.internal_listen,)}
    given = {name: list(sockets) for name, sockets in (given or {}).items()}
    found: dict[str, list[socket.socket]] = {}
    with contextlib.ExitStack() as opened:
        for each in chain.from_iterable(given.values()):
            tune(opened.enter_context(each), settings.stall_timeout)
        for name, wanted in addresses.items():
            at = {_place(address_of(each)): each for each in given.pop(name, ())}
            found[name] = [
                at.pop(place)
                if (place := _place(address)) in at
                else opened.enter_context(open_socket(name, address, settings.stall_timeout))
                for address in wanted
            ]
            for unwanted in at.values():
                raise SettingsError(name, _disagree(address_of(unwanted), wanted))
        for unknown in given:
            raise SettingsError(
                "FileDescriptorName", f'"{unknown}" is no listener; say one of {list(addresses)}'
            )
        opened.pop_all()
    return found


def _place(address: Address) -> object:
    """What two spellings of one address have in common."""
    return address.path or (ip_address(address.host), address.port)


def _disagree(there: Address, wanted: Sequence[Address]) -> str:
    return (
        f"systemd listens on {there}, the setting says {', '.join(map(str, wanted))}: make them"
        " agree (systemctl edit push-server.socket, or push-server-internal.socket)"
    )


def open_socket(name: str, address: Address, stall_timeout: float = 0.0) -> socket.socket:
    """A socket that listens at this address. Raises `SettingsError` naming the setting."""
    family = socket.AF_UNIX if address.path else socket.AF_INET
    opened = socket.socket(socket.AF_INET6 if ":" in address.host else family)
    try:
        if address.path:
            _bind_path(opened, address.path)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if opened.family == socket.AF_INET6:
                # [::] is then IPv6 alone, on every system and whatever its kernel settings are.
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind((address.host, address.port))
        tune(opened, stall_timeout)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        why = f"{error.strerror or error}{_remedy(error, address)}"
        raise SettingsError(name, f"cannot listen on {address}: {why}") from None
    return opened


def _remedy(error: OSError, address: Address) -> str:
    """What to do about it, where that is known."""
    if address.path:
        return ""
    return {
        errno.EADDRINUSE: f"; stop the program that has it, see: ss -ltnp sport = :{address.port}",
        errno.EADDRNOTAVAIL: "; write an address of this host, see: ip address",
        errno.EACCES: "; only root may use ports below 1024: use 6660 and a port redirect",
    }.get(error.errno or 0, "")


def _bind_path(opened: socket.socket, path: str) -> None:
    if answers(path):
        raise OSError(errno.EADDRINUSE, "another server listens there")
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    opened.bind(path)
    os.chmod(path, UNIX_MODE)


def tune(listening: socket.socket, stall_timeout: float = 0.0) -> None:
    """Set what every connection that comes in through this socket inherits."""
    # Without it the kernel takes up to 4 MB for a reader that has stopped, long before our own
    # budget sees anything of it.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if listening.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        # A client that vanished without a word is noticed this long after a ping; else the kernel
        # sends the ping again for a quarter of an hour. One that takes nothing is as silent to the
        # kernel: the hub, which says so, comes first.
        seconds = max(UNACKNOWLEDGED_SECONDS, stall_timeout + 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def answers(path: str) -> bool:
    """Whether a server listens on this path already."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def address_of(listening: socket.socket) -> Address:
    """Where a socket listens."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return Address(path=name)
    return Address(name[0], name[1])
