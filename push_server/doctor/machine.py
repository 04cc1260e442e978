"""The machine: descriptors and kernel settings, measured against the connections there may be."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from push_server.doctor import probe
from push_server.doctor.findings import Finding, doubtful, good, skipped, wrong
from push_server.doctor.visit import Visit
from push_server.sockets import BACKLOG, SEND_BUFFER

FEW = 4096
"""Descriptors below which a site of a few thousand visitors has no room."""
FULL = 0.8
"""Of its descriptors a server uses so many for clients (`server.DESCRIPTOR_SHARE`)."""
UNIT = "systemctl edit push-server, under [Service]"
SYSCTL = "/etc/sysctl.d/push-server.conf, then run: sysctl --system"

_SAMPLE = re.compile(rb"^(\w+)(?:\{[^}\n]*\})? (\S+)$", re.MULTILINE)


def metrics(visit: Visit) -> Mapping[str, float]:
    """The numbers of ``/metrics``, those with labels added up. Raises one of `probe.FAILURES`."""
    assert visit.api is not None
    numbers: dict[str, float] = {}
    for name, value in _SAMPLE.findall(probe.ask(visit.api, "/metrics").body):
        numbers[name.decode()] = numbers.get(name.decode(), 0.0) + float(value)
    return numbers


def descriptors(visit: Visit) -> Iterator[Finding]:
    """Whether the server process may open as many files as it has connections."""
    if visit.api is None:
        yield skipped("asks the internal API, which is not known here")
        return
    numbers = metrics(visit)
    limit, used = numbers.get("process_max_fds", 0), numbers.get("process_open_fds", 0)
    set_limit = visit.settings.connections if visit.settings else 0
    visit.connections = set_limit or int(numbers.get("push_connections", 0) / FULL)
    seen = f"the server may open {limit:.0f} files, and has {used:.0f} open"
    if not limit:
        yield skipped("this system does not say")
    elif used > FULL * limit:
        yield wrong(seen, f"at most {FULL:.0%} in use", UNIT, f"LimitNOFILE={4 * limit:.0f}")
    elif limit < FEW:
        yield doubtful(seen, f"{FEW} or more", UNIT, "LimitNOFILE=65536")
    else:
        yield good(f"{seen}: room for {FULL * limit:.0f} connections")


class _Demand(NamedTuple):
    """A kernel setting, the least it should be, and what happens below."""

    name: str
    least: int
    why: str
    paste: str = ""


def kernel(visit: Visit) -> Iterator[Finding]:
    """Whether the kernel's limits fit the connections that there are, or that are configured."""
    if not visit.is_push_host or not (visit.proc / "sys").is_dir():
        yield skipped("can be seen on the push host, if it runs Linux")
        return
    faults = 0
    for demand in _demands(visit):
        numbers = _read(visit, demand.name)
        # A range counts by its width.
        have = numbers[-1] - (numbers[0] if len(numbers) == 2 else 0) if numbers else demand.least
        if have < demand.least:
            faults += 1
            yield doubtful(f"{demand.name} is {' '.join(map(str, numbers))}: {demand.why}",
                           f"{demand.least} or more", SYSCTL,
                           f"{demand.name} = {demand.paste or demand.least}")
    if not faults:
        low, high = [*_read(visit, _PORTS), 0, 0][:2]
        ports = f"; through a proxy on this host {high - low} connections can be open"
        yield good(f"its limits fit{ports if _is_behind_loopback(visit) and high else ''}")


_PORTS = "net.ipv4.ip_local_port_range"


def _demands(visit: Visit) -> Iterator[_Demand]:
    connections = visit.connections
    yield _Demand("net.core.somaxconn", BACKLOG,
                  "when everybody comes back after a restart, some are refused")
    yield _Demand("net.core.wmem_max", SEND_BUFFER, "slow readers are cut too soon")
    yield _Demand("fs.file-max", 2 * connections, "the machine runs out of files")
    if _is_behind_loopback(visit):
        yield _Demand(_PORTS, min(connections, 64_000),
                      "a proxy on this host needs a port for each connection", "1024 65535")
    yield _Demand("net.netfilter.nf_conntrack_max", 2 * connections,
                  "the firewall's table of connections is full before the server is")


def _is_behind_loopback(visit: Visit) -> bool:
    return visit.settings is not None and bool(visit.settings.trusted_proxy) and any(
        address.host.startswith("127.") for address in visit.listens
    )


def _read(visit: Visit, name: str) -> list[int]:
    """The numbers of a setting; none if this kernel does not have it."""
    try:
        text = visit.proc.joinpath("sys", *name.split(".")).read_text()
        return [int(word) for word in text.split()]
    except (OSError, ValueError):
        return []
