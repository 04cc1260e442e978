"""What is said, the name, the address: does the push host have what it needs to be found?"""

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from push_server.doctor import probe
from push_server.doctor.findings import CONFIG, SHELL, Finding, doubtful, good, skipped, wrong
from push_server.doctor.visit import Visit

HOSTS = "the DNS zone, or /etc/hosts"


def settings(visit: Visit) -> Iterator[Finding]:
    """The settings that no server can check by itself: whether enough is said."""
    if visit.settings is None:
        yield good("no configuration here; looking from outside of the push host")
        return
    if visit.config_path and Path(visit.config_path).stat().st_mode & stat.S_IRWXO:
        yield doubtful(f"anybody can get at {visit.config_path}, which may hold keys",
                       "owner and group alone", SHELL, f"chmod o= {visit.config_path}")
    if not visit.settings.public_url:
        yield doubtful(
            f"public_url is not set; taking {visit.url}", "the URL that browsers use",
            CONFIG, 'public_url = "https://push.example.com"',
        )
    if not visit.settings.site_origins:
        yield wrong(
            "site_origins is empty, so no page may connect", "the site as browsers send it",
            CONFIG, 'site_origins = ["https://www.example.com"]',
        )
    elif visit.settings.public_url:
        yield good(f"{visit.config_path or 'the environment'} says what is needed")


def resolve(visit: Visit) -> Iterator[Finding]:
    """Whether the push host's name leads to addresses; `visit.addresses` has them."""
    name = visit.origin.name
    try:
        found = socket.getaddrinfo(visit.origin.dialled, None, type=socket.SOCK_STREAM)
    except OSError as error:
        yield wrong(
            f"{name} has no address ({probe.reason(error)})", "an A record, an AAAA record or both",
            HOSTS, f"{name}. A {_wanted(visit)}",
        )
        return
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if visit.origin.dialled == "localhost":
        # Few servers for trying things out listen on both 127.0.0.1 and ::1; browsers try both.
        addresses = tuple(one for one in addresses if _accepts(visit, one)) or addresses
    visit.addresses = addresses
    yield good(f"{name} is {' and '.join(visit.addresses)}")


def _wanted(visit: Visit) -> str:
    """The address that the name should have, if the configuration gives it away."""
    public = [address.host for address in visit.listens if address.host and ":" not in address.host]
    return public[0] if public and not public[0].startswith("127.") else "198.51.100.81"


def address(visit: Visit) -> Iterator[Finding]:
    """Whether the addresses are this host's, where they have to be."""
    if not visit.is_push_host:
        yield skipped("can be seen on the push host")
        return
    for one in [address.host for address in visit.listens if address.host]:
        if not is_here(one):
            yield wrong(
                f"listen says {one}, which this host does not have", "an address of this host",
                SHELL, f"ip address add {one} dev eth0",
            )
    for one in visit.addresses:
        if is_here(one):
            yield good(f"{one} is an address of this host")
        elif _accepts(visit, one):
            yield good(f"{one} is none of this host's addresses, but answers (NAT, load balancer)")
        else:
            yield wrong(
                f"{visit.origin.name} is {one}, which this host does not have, and nothing"
                f" answers there on port {visit.origin.port}",
                "the address of this host, or of what stands in front of it",
                SHELL, f"ip address add {one} dev eth0",
            )


def is_here(address: str) -> bool:
    """Whether this host has the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as trial:
        try:
            trial.bind((address, 0))
        except OSError:
            return False
    return True


def _accepts(visit: Visit, address: str) -> bool:
    try:
        probe.dial(visit.origin, address).close()
    except OSError:
        return False
    return True
