"""The internal API: open to the CMS, closed to everybody else."""

from collections.abc import Iterator
from ipaddress import ip_address

from push_server.doctor import probe
from push_server.doctor.findings import (
    CONFIG,
    NGINX,
    SHELL,
    Finding,
    doubtful,
    good,
    skipped,
    wrong,
)
from push_server.doctor.probe import Origin
from push_server.doctor.visit import Visit

USUAL_PORT = 6667


def api(visit: Visit) -> Iterator[Finding]:
    """Whether the CMS reaches the internal API, and a publication gets through the server."""
    if visit.api is None:
        yield skipped("PUSH_API is not known here; try from the host of the CMS")
        return
    try:
        answer = probe.ask(visit.api, "/ready")
    except probe.FAILURES as error:
        yield wrong(f"{visit.api}: {probe.reason(error)}",
                    "the internal API, where internal_listen is",
                    *_reaching(visit, error))
        return
    if answer.status == 200 and answer.json.get("ready") is True:
        yield good(f"{visit.api} answers, and a publication gets through the server")
    elif answer.status == 503 and answer.code:
        yield wrong(f"{visit.api}/ready: {answer}", "a publication that gets through the server",
                    SHELL, "journalctl -u push-server -n 20")
    else:
        yield wrong(f"{visit.api}/ready: {answer}; this is not the internal API",
                    "the internal API, where internal_listen is",
                    "the settings of the CMS", "PUSH_API=http://127.0.0.1:6667")


def _reaching(visit: Visit, error: Exception) -> tuple[str, str]:
    if isinstance(error, PermissionError):
        return SHELL, "usermod -aG push-server www-data"
    if visit.is_push_host:
        return SHELL, "systemctl restart push-server"
    where = f"{visit.api.host}:{visit.api.port}" if visit.api and not visit.api.path else visit.api
    return CONFIG, f'internal_listen = "{where}"'


def api_private(visit: Visit) -> Iterator[Finding]:
    """Whether the internal API is out of reach at the public address and the public URL."""
    for target in ("/live", "/ready", "/metrics"):
        answer = probe.ask(visit.origin, target)
        if answer.status == 200 and (answer.json or b"push_connections" in answer.body):
            yield wrong(f"{visit.url}{target} is answered by the internal API", "status 404",
                        NGINX, "location ~ ^/(api|live|ready|metrics)(/|$) { return 404; }")
            return
    port = visit.settings.internal_listen.port if visit.settings else USUAL_PORT
    for address in visit.addresses:
        if not port or ip_address(address).is_loopback:
            continue
        try:
            found = probe.ask(Origin("http", address, port), "/live", address=address)
        except probe.FAILURES:
            continue
        if found.json.get("live") is True:
            # Somebody may have wanted it so, in a network where browsers are, too.
            meant = visit.settings is not None and visit.settings.internal_listen.host == address
            kind = doubtful if meant else wrong
            yield kind(f"the internal API answers at {address} port {port}",
                       "nothing that browsers can reach",
                       CONFIG, f'internal_listen = "127.0.0.1:{port}"')
            return
    yield good("the internal API cannot be reached on the way that browsers take")
