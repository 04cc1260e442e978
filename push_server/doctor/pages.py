"""What browsers are told: may the site embed the iframe, and may both set document.domain?"""

import json
import re
import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from push_server import casts
from push_server.doctor import probe
from push_server.doctor.findings import (
    CONFIG,
    NGINX,
    NGINX_SITE,
    SHELL,
    Finding,
    doubtful,
    good,
    skipped,
    wrong,
)
from push_server.doctor.probe import Answer, Origin
from push_server.doctor.visit import Visit

HEADER = "Origin-Agent-Cluster"
SHARED = "?0"
"""The value with which an origin asks for document.domain."""
NOWHERE = "/push-doctor-looks-for-an-error-page"


def agent_cluster(visit: Visit) -> Iterator[Finding]:
    """Whether the push host asks for document.domain on every answer."""
    domain = visit.document_domain
    if not domain:
        yield skipped('document_domain = "": page and iframe use postMessage')
        return
    for target in ("/frame", NOWHERE, "/metrics"):
        try:
            answer = probe.ask(visit.origin, target)
        except probe.FAILURES as error:
            yield wrong(f"{target}: {probe.reason(error)}", "an answer")
            return
        if (seen := _told(answer)) != SHARED:
            yield wrong(f"{target}, {answer}: {HEADER} is {seen or 'missing'}",
                        f"{HEADER}: {SHARED}, once, on every answer",
                        *_cluster_remedy(visit, target, seen))
            return
    yield good(f"every answer has {HEADER}: {SHARED}; any other host under {domain} that sets"
               ' document.domain too can script your pages (document_domain = "" ends that)')


def _told(answer: Answer) -> str:
    return ", ".join(answer.all(HEADER))


def _cluster_remedy(visit: Visit, target: str, seen: str) -> tuple[str, str]:
    if "," in seen:
        return NGINX, f"proxy_hide_header {HEADER};"
    if seen == "?1" and target == "/frame":
        return SHELL, "systemctl reload push-server"
    return NGINX, f'add_header {HEADER} "{SHARED}" always;'


def frame(visit: Visit) -> Iterator[Finding]:
    """Whether the sites may embed the iframe."""
    if visit.frame["options"]:
        yield wrong(f"/frame has X-Frame-Options: {visit.frame['options']}",
                    "none: it cannot name another origin, and keeps the site out",
                    NGINX, "proxy_hide_header X-Frame-Options; # and no add_header of it here")
        return
    for site in visit.sites:
        for policy in visit.frame["policy"].split("\n"):
            allowed = _ancestors(policy)
            if allowed is not None and site not in allowed and "*" not in allowed:
                yield wrong(f"/frame may be embedded by {' '.join(allowed) or 'nobody'},"
                            f" not by {site}", f"frame-ancestors {site}",
                            *_ancestors_remedy(visit, site))
                return
    yield good(f"{', '.join(visit.site_origins)} may embed the iframe")


def _ancestors(policy: str) -> Sequence[str] | None:
    """Whom a Content-Security-Policy lets embed the page; None: it does not say."""
    found = re.search(r"(?:^|[;,])\s*frame-ancestors\s([^;,]*)", policy)
    return None if found is None else [word for word in found[1].split() if word != "'none'"]


def _ancestors_remedy(visit: Visit, site: str) -> tuple[str, str]:
    known = json.loads(visit.frame["origins"])
    if site in known:
        return NGINX, "proxy_pass_header Content-Security-Policy; # and no add_header of it here"
    if visit.settings is not None and site in visit.settings.site_origins:
        return SHELL, "systemctl reload push-server"
    return CONFIG, f"site_origins = {json.dumps([*known, site])}"


def sites(visit: Visit) -> Iterator[Finding]:
    """Whether every site is where site_origins says, and asks for document.domain."""
    with ThreadPoolExecutor(8) as together:
        for findings in together.map(lambda site: [*_site(visit, site)], visit.site_origins):
            yield from findings


def _site(visit: Visit, site: str) -> Iterator[Finding]:
    origin = Origin(*casts.split_origin(site))
    try:
        page, missing = probe.ask(origin, "/"), probe.ask(origin, NOWHERE)
    except probe.FAILURES as error:
        remedy = f"curl -I {site}/"
        if isinstance(error, ssl.SSLCertVerificationError):
            remedy = f"certbot renew --cert-name {origin.name} && systemctl reload nginx"
        yield wrong(f"{site}: {probe.reason(error)}", "the site, under this name", SHELL, remedy)
        return
    visit.site_server = page.headers.get("Server", "")
    moved = probe.redirected(page)
    if moved not in ("", site):
        known = [moved if one == site else one for one in visit.site_origins]
        yield wrong(f"{site} sends browsers to {moved}, which is not in site_origins",
                    "the origin that browsers end up at", CONFIG,
                    f"site_origins = {json.dumps(list(dict.fromkeys(known)))}")
        return
    if page.status >= 500:
        yield doubtful(f"{site}: {page}", "a page", SHELL, f"curl -I {site}/")
    cookies = [name for answer in (page, missing) for name in _wide_cookies(visit, answer)]
    if cookies:
        yield doubtful(f"{site}: the cookie {cookies[0]} is sent to the push host, too",
                       "cookies without Domain=", "the CMS's cookie settings",
                       "session.cookie_domain =")
    for target, answer in (("/", page), (NOWHERE, missing)):
        fault = _site_cluster(visit, origin, _told(answer))
        if fault:
            yield wrong(f"{site}{target}, status {answer.status}: {HEADER} {fault}",
                        f"{HEADER}: {SHARED}, once, on every answer",
                        NGINX_SITE, "include snippets/push-cms-headers.conf;")
            return
    yield good(f"{site} answers" + (
        f", with {HEADER}: {SHARED}" if _told(page) == SHARED else ""
    ))


def _site_cluster(visit: Visit, origin: Origin, told: str) -> str:
    """What is wrong with the header; browsers want it where the context is secure."""
    if not visit.document_domain or told == SHARED:
        return ""
    if not told and origin.scheme == "http" and not origin.host.endswith("localhost"):
        return ""
    return f"is {told}" if told else "is missing"


def _wide_cookies(visit: Visit, answer: Answer) -> Iterator[str]:
    """Names of cookies that browsers send to the push host as well."""
    for cookie in answer.all("Set-Cookie"):
        found = re.search(r";\s*domain=\.?([^;\s]+)", cookie, re.I)
        if found and f".{visit.origin.name}".endswith(f".{found[1].lower()}"):
            yield cookie.partition("=")[0]
