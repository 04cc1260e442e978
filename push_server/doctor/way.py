"""The way from the public address to the server: redirect, port, certificate, proxy."""

import errno
import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from html import unescape

from push_server.casts import Address
from push_server.doctor import probe
from push_server.doctor.findings import (
    CONFIG,
    NGINX,
    NGINX_PROXY,
    SHELL,
    Finding,
    doubtful,
    good,
    skipped,
    wrong,
)
from push_server.doctor.names import is_here
from push_server.doctor.probe import Answer, Origin
from push_server.doctor.visit import Visit

DAYS = 14
"""Days before its end at which a certificate is worth a warning: renewals are due at thirty."""
_REDIRECT = "push-redirect"
_NO_WAY = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_FRAME = re.compile(r'data-(origins|document-domain|version)="([^"]*)"')


def server(visit: Visit) -> Iterator[Finding]:
    """Whether the server answers where it listens, without anything in between."""
    if not visit.listens:
        yield skipped("from here only the way that browsers take can be seen")
    for address in visit.listens:
        if address.host and not is_here(address.host):
            yield skipped(f"{address.host} is no address of this host")
            continue
        host = f"[{address.host}]" if ":" in address.host else address.host
        direct = Origin("http", host, address.port, address.path)
        try:
            answer = probe.ask(direct, "/push.js", {"Host": visit.origin.authority})
        except probe.FAILURES as error:
            yield wrong(
                f"{address}: {probe.reason(error)}", f"the push server at listen = {address}",
                SHELL, "systemctl start push-server",
            )
            continue
        if answer.status == 200 and "javascript" in answer.headers.get("Content-Type", ""):
            yield good(f"the push server answers at {address}")
        elif answer.code == "host_unknown":
            yield wrong(
                f"{address} does not take itself for {visit.origin.host}",
                "a server that was restarted since public_url was changed",
                SHELL, "systemctl reload push-server",
            )
        else:
            yield wrong(f"{address}: {answer}", "the push server; another program has its port",
                        SHELL, f"ss -ltnp 'sport = :{address.port}'")


def redirect(visit: Visit) -> Iterator[Finding]:
    """Whether the kernel sends the public port to the server's, if that is the way."""
    behind = [
        Address(host, address.port)
        for address in (visit.settings.listen if visit.settings else ())
        for host in visit.addresses
        if address.port != visit.origin.port and _covers(address.host, host)
    ]
    if not behind or visit.origin.scheme != "http" or visit.is_direct:
        yield skipped("no port redirect is needed on this way")
        return
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    program = shutil.which(_REDIRECT, path=path)
    if program is None or os.geteuid() != 0:
        yield skipped(f"needs root and {_REDIRECT}; the port tells")
        return
    for address in behind:
        pair = f"{visit.origin.port}:{address.port}"
        command = [program, "status", address.host, "--port", pair]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=probe.PATIENCE * 2
            )
        except subprocess.TimeoutExpired:
            yield skipped(f"{_REDIRECT} status takes too long")
            continue
        said = (done.stdout or done.stderr).strip().replace("\n", "; ")
        if done.returncode == 0:
            yield good(said)
        else:
            yield wrong(
                said, f"{address.host}:{visit.origin.port} -> {address.port} in force",
                SHELL, f"{_REDIRECT} up {address.host} --port {pair} --apply",
            )


def _covers(listening: str, host: str) -> bool:
    """Whether who listens there is reached at this address."""
    return listening == host or listening == ("::" if ":" in host else "0.0.0.0")


def port(visit: Visit) -> Iterator[Finding]:
    """Whether every address of the push host takes connections."""
    reached, tried = [], 0
    for address in visit.addresses:
        place = f"{address} port {visit.origin.port}"
        try:
            probe.dial(visit.origin, address).close()
        except OSError as error:
            if error.errno in _NO_WAY and ":" in address:
                yield skipped(f"{place}: this machine has no IPv6 to try it with")
                continue
            tried += 1
            yield wrong(f"{place}: {probe.reason(error)}", "a connection", *_opening(visit, error))
            continue
        tried += 1
        reached.append(address)
        yield good(f"{place} takes connections")
    if not tried:
        yield wrong(f"{visit.origin.name} has IPv6 alone, this machine has none",
                    "an A record, too: many visitors have no IPv6 either",
                    "the DNS zone", f"{visit.origin.name}. A 198.51.100.81")
    visit.addresses = tuple(reached)


def _opening(visit: Visit, error: OSError) -> tuple[str, str]:
    if isinstance(error, TimeoutError):
        return SHELL, f"nft add rule inet filter input tcp dport {visit.origin.port} accept"
    if visit.origin.scheme == "https":
        return SHELL, "nginx -t && systemctl restart nginx"
    if visit.is_direct:
        return CONFIG, f'listen = "{visit.addresses[0]}:{visit.origin.port}"'
    return SHELL, f"{_REDIRECT} up {visit.addresses[0]} --apply"


def tls(visit: Visit) -> Iterator[Finding]:
    """Whether the certificate is trusted, names the host, and lasts, at every address."""
    if visit.origin.scheme != "https":
        yield skipped("plain http: everybody on the way can read what is pushed")
        return
    name = visit.origin.name
    for address in visit.addresses:
        try:
            with probe.connect(visit.origin, address) as sock:
                assert isinstance(sock, ssl.SSLSocket)
                certificate = sock.getpeercert() or {}
                version = sock.version()
        except ssl.SSLCertVerificationError as error:
            yield wrong(f"{address}: {error.verify_message}", f"a certificate for {name}",
                        *_certificate(error, name))
            continue
        except (OSError, ValueError) as error:
            yield wrong(f"{address}: {probe.reason(error)}", f"TLS for {name}",
                        NGINX, f"listen {address}:{visit.origin.port} ssl http2;")
            continue
        days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86_400
        if days < DAYS:
            yield doubtful(
                f"{address}: the certificate ends in {days:.1f} days", f"{DAYS} days or more",
                SHELL, f"certbot renew --cert-name {name} && systemctl reload nginx",
            )
        else:
            yield good(f"{address}: {version}, the certificate for {name} is good for"
                       f" {days:.0f} days")


def _certificate(error: ssl.SSLCertVerificationError, name: str) -> tuple[str, str]:
    """By OpenSSL's number: 10 expired, 20 and 21 no issuer, 62 another name."""
    if error.verify_code == 10:
        return SHELL, f"certbot renew --cert-name {name} && systemctl reload nginx"
    if error.verify_code in (20, 21):
        return NGINX, f"ssl_certificate /etc/letsencrypt/live/{name}/fullchain.pem;"
    return SHELL, f"certbot certonly --webroot -w /var/www/letsencrypt -d {name}"


def push_host(visit: Visit) -> Iterator[Finding]:
    """Whether it is the push server that answers at the end of the way."""
    try:
        answer = probe.ask(visit.origin, "/frame", address=visit.addresses[0])
    except probe.FAILURES as error:
        yield wrong(f"{visit.url}/frame: {probe.reason(error)}", "the page of the iframe",
                    NGINX_PROXY, _proxy_pass(visit))
        return
    visit.proxy = answer.headers.get("Server", "")
    page = answer.body.decode("utf-8", "replace")
    said = {name.replace("-", "_"): unescape(value) for name, value in _FRAME.findall(page)}
    if answer.status == 200 and "version" in said:
        visit.frame = {**said, "policy": "\n".join(answer.all("Content-Security-Policy")),
                       "options": ", ".join(answer.all("X-Frame-Options"))}
        visit.server_version = said["version"]
        yield good(f"push server {said['version']} answers at {visit.url}")
        return
    yield _stranger(visit, answer)


def _stranger(visit: Visit, answer: Answer) -> Finding:
    seen = f"{visit.url}/frame: {answer}"
    moved = probe.redirected(answer)
    if answer.code == "host_unknown":
        return wrong(f"{seen}: the proxy names another host than {visit.origin.authority}",
                     "Host as the browser sent it", NGINX_PROXY, "proxy_set_header Host $host;")
    if answer.is_proxy_failure:
        return wrong(f"{seen}: the proxy does not reach the push server",
                     "the page of the iframe", NGINX_PROXY, _proxy_pass(visit))
    if moved:
        return wrong(f"{seen}, to {moved}", "the page of the iframe, without a redirect",
                     CONFIG, f'public_url = "{moved}"')
    if answer.code:
        return wrong(seen, "the page of the iframe", SHELL, "journalctl -u push-server -n 20")
    return wrong(f"{seen}: this is no push server. Is it the site?",
                 "the page of the iframe", *_own_server(visit))


def _own_server(visit: Visit) -> tuple[str, str]:
    if visit.origin.scheme == "https":
        return NGINX, f"server_name {visit.origin.name};"
    return SHELL, f"ss -ltnp 'sport = :{visit.origin.port}'"


def _proxy_pass(visit: Visit) -> str:
    if not visit.listens:
        return "proxy_pass http://127.0.0.1:6660;"
    address = visit.listens[0]
    return f"proxy_pass http://{f'unix:{address.path}:' if address.path else address};"

