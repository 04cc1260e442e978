"""The doctor before set-ups that are broken in one place each: it names that place and no other."""

import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from doctor_town import (
    CMS,
    NEEDED,
    PLAIN,
    PUSH,
    SOUND,
    TOOLS,
    Broken,
    Done,
    Town,
    complaints,
    read,
    run,
)
from redis_server import program

from push_server.brokers.sqlite_file import LIBRARY
from push_server.doctor.storage import SAFE_SQLITE
from push_server.doctor.table import CHECKS

PROXY = "proxy_pass http://127.0.0.1:6660;"
NEW_KEY = "k" * 43
NEW_SECRET = "whsec_" + "A" * 43 + "="
VISITORS_ADDRESS = "proxy_set_header X-Forwarded-For $remote_addr;"
CLUSTER = "add_header Origin-Agent-Cluster $push_agent_cluster always;"
SITE_NAME = "fastcgi_param HTTP_HOST $host$cms_port;"
SITE_PAGE = "try_files $uri $uri/ /index.php?$query_string;"
# The public port of the plain push host, for connections from other hosts.
WALL = (
    "nft 'add table inet wall; add chain inet wall input { type filter hook input priority 0; };"
    " add rule inet wall input iifname wire tcp dport 6660 drop'"
)
NO_WALL = "nft delete table inet wall"

OLD_SQLITE = tuple(map(int, LIBRARY.split("."))) < SAFE_SQLITE
"""Whether Python has a SQLite that two programs on one file can make damage it."""

# One row per broken set-up, in the order of the checks.
BROKEN = {
    "no site may connect": Broken(
        "settings", "site_origins is empty", config={"site_origins": []}),
    "anybody can read the keys": Broken(
        "settings", "chmod o= ", status="warning", mode=0o644),
    "no name": Broken(
        "names", "push.example.com. A ", hosts={"push.example.com": None}, php="warning"),
    "name with a foreign address": Broken(
        "address", "203.0.113.9, which this host does not have",
        hosts={"push.example.com": "203.0.113.9"}),
    "address not on the host": Broken(
        "address", "ip address add 198.51.100.82 ", which="plain",
        begin=f"ip address del {PLAIN}/24 dev wire",
        end=f"ip address add {PLAIN}/24 dev wire"),
    "listens on a foreign address": Broken(
        "address", "listen says 198.51.100.99", config={"listen": "198.51.100.99:6660"}),
    "server not running": Broken(
        "server", "systemctl start push-server", config={"listen": "127.0.0.1:6690"}),
    "server hangs": Broken(
        "server", "no answer within", which="plain", begin='kill -STOP "$(cat "$TOWN/plain.pid")"',
        end='kill -CONT "$(cat "$TOWN/plain.pid")"'),
    "another program on the port": Broken(
        "server", "another program", config={"listen": f"{CMS}:80"}),
    "redirect down": Broken(
        "redirect", "push-redirect up 198.51.100.82 --port 80:6660 --apply", which="plain",
        begin="push-redirect down --apply", end='push-redirect up "$PLAIN" --apply'),
    "redirect to another port": Broken(
        "redirect", "80 -> 6660: not in force", which="plain",
        begin='push-redirect up "$PLAIN" --port 80:6661 --apply',
        end='push-redirect up "$PLAIN" --apply'),
    "nothing on the port": Broken(
        "port", "connection refused", nginx=((f"{PUSH}:443", f"{PUSH}:8443"),),
        hosts={"push.example.com": PUSH}, php="warning"),
    "nothing on the port of IPv6": Broken(
        "port", "2001:db8::81 port 443: connection refused",
        nginx=(("listen [2001:db8::81]:443 ssl http2;", ""),)),
    "firewall before the port": Broken(
        "port", "tcp dport 80 accept", which="plain", where="outside",
        begin=WALL, end=NO_WALL),
    "certificate over": Broken("tls", "certificate has expired", certificate="old", php="warning"),
    "certificate nearly over": Broken(
        "tls", "certbot renew", certificate="ending", status="warning"),
    "certificate of another name": Broken("tls", "Hostname mismatch", certificate="other",
        php="warning"),
    "certificate without a chain": Broken("tls", "fullchain.pem", certificate="unchained"),
    "no TLS on the port": Broken(
        "tls", "ssl http2;", nginx=((f"listen {PUSH}:443 ssl http2;", f"listen {PUSH}:443;"),),
        hosts={"push.example.com": PUSH}),
    "proxy to nowhere": Broken(
        "push_host", "does not reach the push server", nginx=((PROXY, PROXY.replace("60", "90")),),
        php="error"),
    "proxy changes Host": Broken(
        "push_host", "proxy_set_header Host $host;",
        nginx=(("proxy_set_header Host $host;", "proxy_set_header Host backend.local;"),),
        php="error"),
    "http is sent to https": Broken(
        "push_host", 'public_url = "https://push.example.com"', which="plain", where="outside",
        hosts={"plain-push.example.com": CMS},
        nginx=(("server_name plain.example.com; root pages;",
                "server_name plain-push.example.com; return 301 https://push.example.com$uri;"),)),
    "name with the address of the CMS": Broken(
        "push_host", "this is no push server", hosts={"push.example.com": CMS}, php="error"),
    "no document.domain": Broken(
        "agent_cluster", "Origin-Agent-Cluster is missing", nginx=((CLUSTER, ""),), php="error"),
    "no document.domain on error pages": Broken(
        "agent_cluster", "status 404 not_found: Origin-Agent-Cluster is missing",
        nginx=((CLUSTER, CLUSTER.replace(" always", "")),), php="error"),
    "document.domain twice": Broken(
        "agent_cluster", "Origin-Agent-Cluster is ?0, ?0",
        nginx=(("proxy_hide_header Origin-Agent-Cluster;\n\n    # As many", "\n    # As many"),)),
    "server without document.domain": Broken(
        "agent_cluster", "systemctl reload push-server", where="push",
        server={"document_domain": "", "listen": f"{PLAIN}:6661",
                "internal_listen": "127.0.0.1:6669",
                "public_url": "http://plain-push.example.com:6661"},
        config={"document_domain": "example.com"}, which="plain"),
    "X-Frame-Options": Broken(
        "frame", "X-Frame-Options: SAMEORIGIN",
        nginx=((CLUSTER, CLUSTER + ' add_header X-Frame-Options "SAMEORIGIN";'),), php="error"),
    "site not known to the server that runs": Broken(
        "frame", "systemctl reload push-server",
        config={"site_origins": ["https://www.example.com", "https://shop.example.com"]},
        hosts={"shop.example.com": CMS}),
    "a second policy": Broken(
        "frame", "frame-ancestors https://www.example.com",
        nginx=((CLUSTER, CLUSTER + " add_header Content-Security-Policy"
                " \"frame-ancestors 'self'\";"),)),
    "site moved": Broken(
        "sites", 'site_origins = ["https://example.com"]',
        nginx=((SITE_PAGE, "return 301 https://example.com$request_uri;"),)),
    "site away": Broken(
        "sites", "https://www.example.com: connection refused",
        nginx=((f"{CMS}:443", f"{CMS}:8443"), ("[2001:db8::71]:443", "[2001:db8::71]:8443"))),
    "site broken": Broken(
        "sites", "status 502", status="warning", nginx=((SITE_PAGE, "return 502;"),)),
    "certificate of the site over": Broken(
        "sites", "certbot renew --cert-name www.example.com", site_certificate="old"),
    "site without document.domain on error pages": Broken(
        "sites", "status 404: Origin-Agent-Cluster is missing",
        nginx=((SITE_PAGE, SITE_PAGE + ' add_header X-Other "1";'
                " location = /push-doctor-looks-for-an-error-page"
                ' { add_header X-Other "1"; return 404; }'),)),
    "cookies of the site for all": Broken(
        "sites", "the cookie SESS", status="warning",
        nginx=((SITE_NAME, SITE_NAME + ' add_header Set-Cookie "SESS=1; Domain=.example.com";'
                ' add_header Origin-Agent-Cluster "?0" always;'),)),
    "token key not loaded": Broken(
        "token_key", "systemctl reload push-server", config={"token_keys": [NEW_KEY]}),
    "token key of the CMS": Broken(
        "token_key", "PUSH_TOKEN_KEY=", where="cms", environ={"PUSH_TOKEN_KEY": NEW_KEY},
        php="error"),
    "token is stopped on the way": Broken(
        "token_key", "Authorization does not arrive", where="outside",
        nginx=((PROXY, PROXY + ' proxy_set_header Authorization "";'),)),
    "visitors choose their address": Broken(
        "forwarded", "that the visitor wrote", nginx=((VISITORS_ADDRESS, ""),), php="error"),
    "all visitors are the proxy": Broken(
        "forwarded", "every visitor as 127.0.0.1",
        nginx=((VISITORS_ADDRESS, 'proxy_set_header X-Forwarded-For "";'),), php="error"),
    "proxy not trusted": Broken(
        "forwarded", 'trusted_proxy = "127.0.0.1"', nginx=((PROXY, PROXY.replace("6660", "6661")),),
        server={"trusted_proxy": "", "listen": "127.0.0.1:6661",
                "internal_listen": "127.0.0.1:6669"}),
    "buffers": Broken(
        "streaming", "proxy_buffering off;",
        nginx=(("proxy_buffering off;", "proxy_ignore_headers X-Accel-Buffering;"),), php="error"),
    "compresses": Broken(
        "streaming", "gzip off;",
        nginx=(("gzip off;", "gzip on; gzip_proxied any; gzip_types *;"),),
        php="error"),
    "no upgrade": Broken(
        "websocket", "Upgrade", status="warning",
        nginx=(("proxy_set_header Upgrade $push_upgrade;", 'proxy_set_header Upgrade "";'),)),
    "cuts what is silent": Broken(
        "idle", "cuts a silent connection after 1 s", options=("--idle",),
        nginx=(("proxy_read_timeout 75s;", "proxy_read_timeout 1s;"),)),
    "API elsewhere": Broken(
        "api", "connection refused", where="cms", environ={"PUSH_API": "http://127.0.0.1:6699"},
        php="error"),
    "API is the browser listener": Broken(
        "api", "this is not the internal API", where="cms",
        environ={"PUSH_API": "http://127.0.0.1:6660"}, php="error"),
    "API key of the CMS": Broken(
        "api_key", "PUSH_API_KEY=", where="cms", environ={"PUSH_API_KEY": NEW_SECRET}, php="error"),
    "API key not loaded": Broken(
        "api_key", "systemctl reload push-server", config={"api_keys": {"cms": NEW_SECRET}}),
    "API on the push host": Broken(
        "api_private", "answered by the internal API",
        nginx=(("    location ~ ^/(api|live|ready|metrics)(/|$) {\n        return 404;",
                "    location = /live {\n        proxy_pass http://127.0.0.1:6667;"),),
        php="error"),
    "API on all addresses": Broken(
        "api_private", 'internal_listen = "127.0.0.1:6669"', which="plain",
        server={"internal_listen": "0.0.0.0:6669",
                "allow_public_internal": True, "listen": f"{PLAIN}:6661", "public_url": "http://plain-push.example.com:6661"}),
    "clock of the CMS": Broken(
        "clock", "https://www.example.com is 9", skew=95),
    "Redis throws away": Broken(
        "broker", "maxmemory-policy noeviction",
        begin='redis-cli -s "$REDIS" config set maxmemory-policy allkeys-lru',
        end='redis-cli -s "$REDIS" config set maxmemory-policy noeviction'),
    "Redis keeps nothing": Broken(
        "broker", "appendonly yes", status="warning",
        begin='redis-cli -s "$REDIS" config set appendonly no',
        end='redis-cli -s "$REDIS" config set appendonly yes'),
    "Redis elsewhere": Broken(
        "broker", "connecting to 127.0.0.1:6399", config={"broker": "redis://127.0.0.1:6399/0"}),
    "no folder for the log": Broken(
        "broker", "install -d -o push-server", which="plain",
        config={"broker": "sqlite:/nonexistent/push.db"}),
    "disk full": Broken(
        "broker", "a full disk ends publishing", which="plain",
        config={"broker": "sqlite:/proc/push.db"}),
    "another program has the log open": Broken(
        "broker", "sleep (pid ", which="plain", status="warning",
        begin='sleep 60 < "$TOWN/push.db" > /dev/null 2>&1 & echo $! > "$TOWN/sleep.pid"',
        end='kill "$(cat "$TOWN/sleep.pid")"'),
    "log in memory": Broken(
        "broker", "forgets everything", which="plain", status="warning",
        config={"broker": "memory:"}),
    "few descriptors": Broken(
        "descriptors", "LimitNOFILE=65536", status="warning",
        begin='prlimit --nofile=2000: --pid "$(cat "$TOWN/tls.pid")"',
        end='prlimit --nofile=20000: --pid "$(cat "$TOWN/tls.pid")"'),
    "short queue of the kernel": Broken(
        "kernel", "net.core.somaxconn = 4096", status="warning",
        begin="echo 128 > /proc/sys/net/core/somaxconn",
        end="echo 4096 > /proc/sys/net/core/somaxconn"),
    "few ports for a proxy": Broken(
        "kernel", "net.ipv4.ip_local_port_range = 1024 65535", status="warning",
        config={"connections": 15000},
        begin="echo 32768 42768 > /proc/sys/net/ipv4/ip_local_port_range",
        end="echo 32768 60999 > /proc/sys/net/ipv4/ip_local_port_range"),
}

if not OLD_SQLITE:
    del BROKEN["another program has the log open"]  # then it is no fault


HAS_PHP = shutil.which("php") is not None and "curl" in run("php", "-m").stdout.split()
ITS_OWN = ("spool", "after_response", "speed")
"""What a PHP on the command line, or on a busy machine, has to complain about."""


def php_complaints(town: Town) -> dict[str, str]:
    """What the connection test of a CMS finds wrong."""
    return {hop: status for hop, status in town.php().items()
            if status in ("error", "warning") and hop not in ITS_OWN}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    missing = [name for name in NEEDED if shutil.which(name, path=TOOLS) is None]
    if missing or program() is None:
        pytest.skip(f"not on this machine: {', '.join(missing) or 'Redis'}")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Town(tmp_path_factory.mktemp("town")) as built:
        yield built


def examined(town: Town, expected: dict[str, str]) -> tuple[Done, dict[str, Any]]:
    """The doctor's report, which complains of this and nothing else.

    A machine that is starved may be slower than the doctor is patient, so it may look twice. What
    is broken stays so.
    """
    for _ in range(2):
        began = time.monotonic()
        done = town.doctor("--json")
        assert time.monotonic() - began < 10
        report = read(done)
        if complaints(report) == expected:
            return done, report
    raise AssertionError(f"{complaints(report)}, not {expected}: {done.stdout}")


@pytest.mark.parametrize("which", ["tls", "plain"])
@pytest.mark.parametrize("where", ["push", "cms", "outside"])
def test_a_sound_set_up_is_green(town: Town, which: str, where: str) -> None:
    town.become(SOUND._replace(which=which, where=where))
    done, report = examined(town, {})
    assert (done.returncode, done.stderr, report["ok"]) == (0, "", True)


@pytest.mark.parametrize("name", BROKEN)
def test_the_right_hop_is_named(town: Town, name: str) -> None:
    broken = BROKEN[name]
    town.become(broken)
    with town.with_server():
        done, report = examined(town, {broken.hop: broken.status})
    (check,) = [check for check in report["checks"] if check["name"] == broken.hop]
    faults = [finding for finding in check["findings"] if finding["status"] == broken.status]
    said = "\n".join(str(part) for finding in faults for part in finding.values())
    assert broken.says in said
    assert all(finding["expected"] for finding in faults)
    assert done.returncode == (1 if broken.status == "error" else 0)
    assert done.stderr == ""
    if broken.php and HAS_PHP:
        assert php_complaints(town) == {broken.hop: broken.php}


def test_the_connection_test_of_a_cms_finds_nothing_wrong(town: Town) -> None:
    if not HAS_PHP:
        pytest.skip("no PHP with curl on this machine")
    for which in ("tls", "plain"):
        town.become(SOUND._replace(which=which))
        assert php_complaints(town) == {}
        # What both look at has the same name.
        assert town.php().keys() <= {*ITS_OWN, *(check.name for check in CHECKS)}


def test_the_connection_test_of_a_cms_knows_its_own_site(town: Town) -> None:
    if not HAS_PHP:
        pytest.skip("no PHP with curl on this machine")
    town.become(SOUND._replace(site="shop.example.com"))
    assert php_complaints(town) == {"frame": "error"}
