"""Keys and clocks: do both sides hold the same, and does the server see who comes?"""

import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from ipaddress import ip_address

from push_server import __version__, casts, signatures
from push_server.addresses import UNIX_PEER
from push_server.doctor import probe
from push_server.doctor.findings import (
    CONFIG,
    NGINX_PROXY,
    SHELL,
    Finding,
    doubtful,
    good,
    skipped,
    wrong,
)
from push_server.doctor.probe import Answer, Origin
from push_server.doctor.visit import Visit
from push_server.signatures import WINDOW
from push_server.tokens import LEEWAY

CLAIM = "192.0.2.77"
"""An address that nobody has (RFC 5737), for a forged X-Forwarded-For."""
SKEW_WARNING = 30
NO_TOKEN = "needs a token that the server takes"
CMS = "the settings of the CMS"


def echo(visit: Visit, **headers: str) -> Answer:
    """What the server says of a request with our token."""
    return probe.ask(visit.origin, "/echo", {"Authorization": f"Bearer {visit.token()}", **headers})


def token_key(visit: Visit) -> Iterator[Finding]:
    """Whether the server takes a token that was signed with the key at hand."""
    if not visit.can_issue:
        yield skipped("no token here: --token, or PUSH_TOKEN_KEY as the CMS has it")
        return
    try:
        answer = echo(visit)
    except probe.FAILURES as error:
        yield wrong(f"{visit.url}/echo: {probe.reason(error)}", "an answer")
        return
    if answer.status == 200:
        visit.token_taken = True
        visit.server_version = str(answer.json.get("version", ""))
        yield good("the server takes our tokens")
    elif answer.code == "token_missing":
        yield wrong("the header Authorization does not arrive", "the token, as it was sent",
                    NGINX_PROXY, "proxy_set_header Authorization $http_authorization;")
    elif answer.code == "token_invalid" and visit.is_push_host:
        yield wrong("the running server does not know the key in the configuration",
                    "token_keys of the file in force", SHELL, "systemctl reload push-server")
    elif answer.code == "token_invalid":
        yield wrong("the server does not take this token",
                    "a key that is one of its token_keys, and clocks that agree",
                    CMS, "PUSH_TOKEN_KEY=… (the last of token_keys in push-server.toml)")
    elif answer.status == 404:
        yield skipped("this server is older than the check")
    else:
        yield wrong(f"{visit.url}/echo: {answer}", "status 200")


def api_key(visit: Visit) -> Iterator[Finding]:
    """Whether the server takes a call that was signed with the key at hand."""
    if not visit.api_key or visit.api is None:
        yield skipped("no API key here: PUSH_API and PUSH_API_KEY as the CMS has them")
        return
    answer = call(visit, "stats", {})
    if answer.status == 200:
        yield good("the server takes our signature")
    elif answer.code == "signature_invalid" and abs(_ahead(answer, time.time())) > WINDOW:
        yield skipped("first clock: a signature is good for five minutes")
    elif answer.code == "signature_invalid" and visit.is_push_host:
        yield wrong("the running server does not know the key in the configuration",
                    "api_keys of the file in force", SHELL, "systemctl reload push-server")
    elif answer.code == "signature_invalid":
        yield wrong("the server does not know this API key", "a key that is one of its api_keys",
                    CMS, "PUSH_API_KEY=… (one of api_keys in push-server.toml)")
    else:
        yield wrong(f"POST /api: {answer}", "status 200")


def call(visit: Visit, method: str, params: dict[str, object]) -> Answer:
    """One signed command of the internal API. Raises one of `probe.FAILURES`."""
    assert visit.api is not None
    body = json.dumps({"method": method, "params": params}).encode()
    call_id, now = secrets.token_hex(16), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "webhook-id": call_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signatures.sign(visit.api_key, call_id, now, body),
    }
    return probe.ask(visit.api, "/api", headers, method="POST", body=body)


def forwarded(visit: Visit) -> Iterator[Finding]:
    """Whether the server sees the visitor's own address, and not one the visitor made up."""
    if not visit.token_taken:
        yield skipped(NO_TOKEN)
        return
    honest = echo(visit)
    forged = echo(visit, **{"X-Forwarded-For": CLAIM, "X-Real-IP": CLAIM})
    if honest.status != 200 or forged.status != 200:
        yield wrong(f"/echo: {forged if honest.status == 200 else honest}", "status 200")
        return
    seen, source = str(honest.json.get("address", "")), honest.source
    proxy = visit.settings.trusted_proxy if visit.settings else ""
    if forged.json.get("address") == CLAIM:
        if visit.is_direct and source == proxy:
            yield skipped(f"here we are {source}, which trusted_proxy believes; try from outside")
            return
        yield wrong("the server believes an address that the visitor wrote into X-Forwarded-For",
                    "the address that the proxy sees",
                    NGINX_PROXY, "proxy_set_header X-Forwarded-For $remote_addr;")
    elif seen == source:
        yield good(f"the server sees us as {seen}, and no address we make up")
    elif seen == UNIX_PEER or _is_closer(seen, source, visit.addresses[0]):
        where = (NGINX_PROXY, "proxy_set_header X-Forwarded-For $remote_addr;")
        if visit.settings is not None and not proxy:
            where = (CONFIG, f'trusted_proxy = "{seen}"')
        yield wrong(f"the server sees every visitor as {seen}; we came as {source}",
                    "the visitor's own address: limits per address would hit all at once", *where)
    else:
        yield good(f"the server sees us as {seen} (here we are {source}), and none we make up")


def _is_closer(seen: str, source: str, peer: str) -> bool:
    """Whether the server sees an address that we, at `source`, cannot have on the way to `peer`."""
    inside = ip_address(seen)
    if inside.is_loopback:
        return not ip_address(source).is_loopback
    return inside.is_private and ip_address(peer).is_global


def clock(visit: Visit) -> Iterator[Finding]:
    """Whether the clocks of this host, the push host and the sites agree."""
    with ThreadPoolExecutor(8) as together:
        yield from together.map(_clock, (visit.url, *visit.site_origins))


def _clock(place: str) -> Finding:
    try:
        before = time.time()
        answer = probe.ask(Origin(*casts.split_origin(place)), "/push-doctor")
        ahead = _ahead(answer, before)
    except (TypeError, *probe.FAILURES):
        return skipped(f"{place} does not say what time it is")
    if abs(ahead) <= SKEW_WARNING:
        return good(f"{place}: within {max(2, abs(round(ahead)))} seconds of ours")
    seen = f"{place} is {abs(ahead):.0f} seconds {'ahead of' if ahead > 0 else 'behind'} us"
    kind = wrong if abs(ahead) > LEEWAY else doubtful
    return kind(seen, f"clocks that agree; tokens allow {LEEWAY:.0f} seconds",
                "a root shell of both", "timedatectl set-ntp true")


def _ahead(answer: Answer, now: float) -> float:
    """Seconds by which the clock behind an answer is ahead. Raises `TypeError`, `ValueError`."""
    # The header has whole seconds.
    return parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5 - now


def versions(visit: Visit) -> Iterator[Finding]:
    """Whether the server that runs is the one that is installed."""
    running = visit.server_version
    if not running:
        yield skipped("the server does not say its version")
    elif running == __version__:
        yield good(f"push-server {running} on both sides")
    else:
        yield doubtful(f"{running} runs, {__version__} is installed here", "one version",
                       SHELL, "systemctl restart push-server")
