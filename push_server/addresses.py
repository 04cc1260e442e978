"""Client addresses, as limits count them.

Pure; imported by the HTTP front and the subscribe door.
"""

from functools import lru_cache
from ipaddress import ip_network


@lru_cache(maxsize=1024)
def address_group(ip: str) -> str:
    """What per-address limits count by: an IPv4 address, or the /64 of an IPv6 one."""
    if ":" not in ip:
        return ip
    try:
        return str(ip_network((ip.partition("%")[0], 64), strict=False))
    except ValueError:
        return ip
