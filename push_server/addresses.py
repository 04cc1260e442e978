"""Client addresses, as limits count them.

Pure; imported from floor 0 up.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network

UNIX_PEER = "unix:"
"""The address of whoever comes through a Unix socket, spelled as nginx spells it."""


def plain_address(text: str) -> str:
    """An IP address in its one usual spelling. Raises `ValueError` for anything else.

    An IPv4 address that came as IPv6 (``::ffff:192.0.2.1``, from a socket for both) is the IPv4
    address: else all of them would be one /64 network, and share its limits. A zone
    (``fe80::1%eth0``) is cut off: it may be any text.
    """
    address = ip_address(text.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


def without_limit(addresses: Iterable[str], trusted_proxy: str) -> frozenset[str]:
    """The addresses that limits per address do not hold for: many people may stand behind each.

    A proxy brings everybody, and what comes through a Unix socket comes from a proxy, too, if
    perhaps from one that does not say for whom.
    """
    return frozenset((*addresses, trusted_proxy, UNIX_PEER))


@lru_cache(maxsize=1024)
def address_group(ip: str) -> str:
    """What per-address limits count by: an IPv4 address, or the /64 of an IPv6 one."""
    if ":" not in ip:
        return ip
    try:
        return str(ip_network((ip, 64), strict=False))
    except ValueError:
        return ip
