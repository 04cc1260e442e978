"""The lines to paste, for a proxy that is not nginx.

The checks say what is to be done in nginx's words. Whatever names itself in ``Server`` as Apache or
Caddy is told the same in its own; the lines are those of ``nginx/other``. HAProxy does not name
itself.

To add a remedy for nginx to a check: one row here. Pure; imported by the house call.
"""

import re
from collections.abc import Mapping, Sequence

from push_server.doctor.examine import Result
from push_server.doctor.findings import NGINX, NGINX_PROXY, NGINX_SITE, Finding

APACHE, CADDY = "Apache", "Caddy"

PLACES: Mapping[str, Mapping[str, str]] = {
    APACHE: {
        NGINX: "Apache, the VirtualHost of the push host",
        NGINX_PROXY: "Apache, the VirtualHost of the push host",
        NGINX_SITE: "Apache, the VirtualHost of the site",
    },
    CADDY: {
        NGINX: "Caddyfile, the block of the push host",
        NGINX_PROXY: "Caddyfile, the reverse_proxy of the push host",
        NGINX_SITE: "Caddyfile, the block of the site",
    },
}

_PASS = (
    r'ProxyPass "/" "http://127.0.0.1:6660/" flushpackets=on disablereuse=on timeout=75'
    r" connectiontimeout=5 upgrade=websocket nocanon"
)
LINES: Sequence[tuple[str, str, str]] = (
    # nginx, as a pattern; Apache; Caddy
    (r"proxy_pass http://(.*);", _PASS.replace("127.0.0.1:6660", r"\1"), r"reverse_proxy \1"),
    (r"proxy_buffering off;", _PASS, "flush_interval -1"),
    (r"proxy_read_timeout (\d+s);", _PASS, r"read_timeout \1, in transport http"),
    (r"proxy_http_version 1.1;.*", _PASS, 'take "header_up -Upgrade" out'),
    (r"gzip off;", "SetEnv no-gzip 1", 'take "encode" out'),
    (r"proxy_set_header Host .*", "ProxyPreserveHost On", "header_up Host {host}"),
    (
        r"proxy_set_header X-Forwarded-For .*",
        'RequestHeader set X-Forwarded-For "expr=%{REMOTE_ADDR}"',
        "header_up X-Forwarded-For {remote_host}",
    ),
    (
        r"proxy_set_header Authorization .*",
        'take "RequestHeader unset Authorization" out',
        'take "header_up -Authorization" out',
    ),
    (
        r"add_header Origin-Agent-Cluster .*",
        """Header always set Origin-Agent-Cluster "?0" "expr=-z resp('Origin-Agent-Cluster')\"""",
        "header ?Origin-Agent-Cluster ?0",
    ),
    (
        r"proxy_hide_header Origin-Agent-Cluster;",
        "Header onsuccess unset Origin-Agent-Cluster",
        "header ?Origin-Agent-Cluster ?0, in place of every other",
    ),
    (
        r"proxy_hide_header X-Frame-Options;.*",
        "Header always unset X-Frame-Options",
        "header -X-Frame-Options",
    ),
    (
        r"proxy_pass_header Content-Security-Policy;.*",
        'take every "Header" with Content-Security-Policy out',
        'take every "header" with Content-Security-Policy out',
    ),
    (
        r"include snippets/push-cms-headers\.conf;",
        'Header always set Origin-Agent-Cluster "?0"',
        "header Origin-Agent-Cluster ?0",
    ),
    (
        r"location ~ \^/\(api.*",
        'ProxyPassMatch "^/(api|live|ready|metrics)(/|$)" "!"',
        "error @internal 404, with @internal path /api /api/* /live /ready /metrics",
    ),
    (r"listen \S+ ssl http2;", "SSLEngine on", "take http:// out before the name"),
    (r"ssl_certificate (.*);", r"SSLCertificateFile \1", "take tls out: Caddy has its own"),
    (r"server_name (.*);", r"ServerName \1", r"\1 {"),
)


def in_words_of(server: str, finding: Finding) -> Finding:
    """The finding with the line for what has this ``Server`` header; for nginx if it is unknown."""
    program = next((name for name in PLACES if server.startswith(name)), "")
    if not program or finding.place not in PLACES[program]:
        return finding
    for pattern, apache, caddy in LINES:
        if found := re.fullmatch(pattern, finding.paste):
            line = found.expand(apache if program == APACHE else caddy)
            return finding._replace(place=PLACES[program][finding.place], paste=line)
    return finding


def translated(results: Sequence[Result], proxy: str, site: str) -> list[Result]:
    """All results, for the proxy of the push host and the web server of the site."""
    return [
        result._replace(
            findings=[
                in_words_of(site if finding.place == NGINX_SITE else proxy, finding)
                for finding in result.findings
            ]
        )
        for result in results
    ]
