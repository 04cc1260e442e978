"""Client addresses, as limits count them.

Pure; imported by the HTTP front and the subscribe door.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_network

UNIX_PEER = "unix"
"""The address of whoever comes through a Unix socket."""


def without_limit(addresses: Iterable[str], trusted_proxy: str) -> frozenset[str]:
    """The addresses that limits per address do not hold for: many people may stand behind each.

    A proxy brings everybody, and what comes through a Unix socket comes from a proxy, too.
    """
    return frozenset((*addresses, trusted_proxy, UNIX_PEER))


@lru_cache(maxsize=1024)
def address_group(ip: str) -> str:
    """What per-address limits count by: an IPv4 address, or the /64 of an IPv6 one."""
    if ":" not in ip:
        return ip
    try:
        return str(ip_network((ip.partition("%")[0], 64), strict=False))
    except ValueError:
        return ip
