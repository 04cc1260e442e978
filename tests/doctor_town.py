"""A small real set-up that a test breaks in one place at a time: what the doctor is shown.

Two hosts that exist only for a module (network namespaces; root). The push host has the shipped
nginx configurations on their shipped addresses, a push server behind it on a Redis, another one
behind the port redirect on SQLite, and a CMS. The other host is a visitor's. Names are in hosts
files, certificates come from a CA of our own.

What differs from the sound set-up is declared; `Town.become` does only what has to be done, so that
a set-up costs a fraction of a second.
"""

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple, Self

from formulas import issue_token
from redis_server import RedisServer
from server_process import toml
from waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
TOOLS = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CMS, PUSH, PLAIN, VISITOR = "198.51.100.71", "198.51.100.81", "198.51.100.82", "198.51.100.11"
CMS6, PUSH6 = "2001:db8::71", "2001:db8::81"
HOSTS: Mapping[str, str] = {
    "push.example.com": f"{PUSH} {PUSH6}",
    "www.example.com": CMS,
    "plain-push.example.com": PLAIN,
    "plain.example.com": CMS,
}
NEEDED = ("ip", "nft", "nginx", "openssl", "prlimit")

Done = subprocess.CompletedProcess[str]
Pairs = tuple[tuple[str, str], ...]


class Broken(NamedTuple):
    """A set-up with one thing wrong."""

    hop: str
    """The check that must name it, and the only one that may complain."""
    says: str
    """A part of what it says."""
    status: str = "error"
    which: str = "tls"
    """Which of the two push servers is looked at: "tls" or "plain"."""
    where: str = "push"
    """From where: "push", "cms" (the same host, with the CMS's settings), "outside"."""
    hosts: Mapping[str, str | None] = {}
    nginx: Pairs = ()
    """Texts of the shipped configuration, and what stands there instead."""
    certificate: str = "good"
    site_certificate: str = "good"
    mode: int = 0o600
    """Who may read that."""
    config: Mapping[str, Any] = {}
    """What the doctor reads; the server that runs was started without it."""
    server: Mapping[str, Any] = {}
    """The configuration of a server that is started for this, in place of the usual one."""
    environ: Mapping[str, str] = {}
    options: tuple[str, ...] = ()
    begin: str = ""
    """Run in a shell of the push host, before; and after:"""
    end: str = ""
    php: str = ""
    """What the connection test of the CMS says of the same hop, if it looks at it."""
    site: str = ""
    """The host that the connection test takes for the site's, in place of the real one."""
    skew: float = 0
    """Seconds that the clock of the CMS is ahead."""


SOUND = Broken("", "")


def run(*command: str | Path, **options: Any) -> Done:
    """A command's end; its output is text."""
    environ = {**os.environ, "PATH": TOOLS, **options.pop("environ", {})}
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=60, **options
    )


def must(*command: str | Path, **options: Any) -> str:
    """What a command prints that may not fail."""
    done = run(*command, **options)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


class _Page(socketserver.StreamRequestHandler):
    """A page of the CMS, over FastCGI: 200 at /, else 404, with a clock that may be wrong."""

    def handle(self) -> None:
        told = b""
        while len(head := self.rfile.read(8)) == 8:
            _, kind, _, length, padding = struct.unpack("!BBHHBx", head)
            content = self.rfile.read(length + padding)[:length]
            told += content if kind == 4 else b""
            if kind == 5 and not content:
                break
        status = "404 Not Found" if b"push-doctor" in told else "200 OK"
        server: Any = self.server
        date = formatdate(time.time() + server.skew, usegmt=True)
        page = f"Status: {status}\r\nDate: {date}\r\nContent-Type: text/plain\r\n\r\npage".encode()
        for kind, content in ((6, page), (6, b""), (3, bytes(8))):
            self.wfile.write(struct.pack("!BBHHBx", 1, kind, 1, len(content), 0) + content)


class _Cms(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    skew = 0.0


class Town:
    """The hosts, and all that runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = SOUND
        self._stack = ExitStack()
        self._site, self._outside = (f"doctor-{os.getpid()}-{role}" for role in ("site", "out"))
        self._nginx: subprocess.Popen[bytes] | None = None
        self._conf = ""
        self.token_key = secrets.token_urlsafe(32)
        self.api_key = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

    # Building it.

    def __enter__(self) -> Self:
        with self._stack:
            self._redis = self._stack.enter_context(RedisServer(appendonly="yes"))
            self._make_hosts()
            self._make_certificates()
            self._cms = self._stack.enter_context(_Cms(str(self.folder / "php.sock"), _Page))
            threading.Thread(target=self._cms.serve_forever, kwargs={"poll_interval": 0.05}).start()
            self._stack.callback(self._cms.shutdown)
            started = [self._begin_server(which, {}) for which in ("tls", "plain")]
            for log in started:
                self._await_server(log)
            self._redirect("up", PLAIN, "--apply")
            self._write_nginx(SOUND)
            self._start_nginx()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _make_hosts(self) -> None:
        for name in (self._site, self._outside):
            must("ip", "netns", "add", name)
            self._stack.callback(run, "ip", "netns", "delete", name)
            etc = Path("/etc/netns") / name
            etc.mkdir(parents=True)
            self._stack.callback(shutil.rmtree, etc)
            # A name that is not in the hosts file is asked for where nobody answers.
            (etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions attempts:1\n")
        self._write_hosts(SOUND)
        self.at_site("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire",
                     "netns", self._outside)
        for name, addresses in (
            (self._site, (f"{CMS}/24", f"{PUSH}/24", f"{PLAIN}/24", f"{CMS6}/64", f"{PUSH6}/64")),
            (self._outside, (f"{VISITOR}/24", "2001:db8::11/64")),
        ):
            inside = ("ip", "-n", name)
            for device in ("lo", "wire"):
                must(*inside, "link", "set", device, "up")
            for address in addresses:
                must(*inside, "address", "add", address, "dev", "wire",
                     *(["nodad"] if ":" in address else []))

    def _make_certificates(self) -> None:
        folder = self.folder
        new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes")
        for name in ("ca", "middle"):
            # The last is what Python 3.13 demands of an authority; of the others, whose they are.
            must(*new, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
                 "-days", "30", "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign")
        must("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", folder / "site.key", "-out", folder / "site.csr", "-subj", "/CN=town")
        ours = "DNS:push.example.com,DNS:www.example.com,DNS:shop.example.com"
        for name, days, names, issuer in (
            ("good", 60, ours, "ca"), ("old", 0, ours, "ca"), ("ending", 10, ours, "ca"),
            ("other", 60, "DNS:a.example.org", "ca"), ("unchained", 60, ours, "middle"),
        ):
            (folder / "names").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
            must("openssl", "x509", "-req", "-in", folder / "site.csr",
                 "-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key",
                 "-CAcreateserial", "-days", str(days), "-extfile", folder / "names",
                 "-out", folder / f"{name}.pem")

    def settings(self, which: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of one of the two push servers."""
        both = {
            "drain_spread": 0,
            "document_domain": "example.com",
            "token_keys": [self.token_key],
            "api_keys": {"cms": self.api_key},
        }
        if which == "tls":
            return {
                "listen": "127.0.0.1:6660",
                "public_url": "https://push.example.com",
                "site_origins": ["https://www.example.com"],
                "trusted_proxy": "127.0.0.1",
                "broker": f"unix://{self._redis.socket_path}",
                **both, **changes,
            }
        return {
            "listen": f"{PLAIN}:6660",
            "internal_listen": "127.0.0.1:6668",
            "public_url": "http://plain-push.example.com",
            "site_origins": ["http://plain.example.com"],
            # A file belongs to one server.
            "broker": f"sqlite:{self.folder}/{'own' if changes else 'push'}.db",
            **both, **changes,
        }

    def _begin_server(self, name: str, changes: Mapping[str, Any]) -> Path:
        """Start a push server; returns its log."""
        which = name if name in ("tls", "plain") else self.now.which
        file, log = self.folder / f"{name}.toml", self.folder / f"{name}.log"
        file.write_text(toml(self.settings(which, changes)))
        with log.open("wb") as output:
            process = self._popen(
                sys.executable, "-m", "push_server", "serve", "--config", str(file),
                stdout=output, stderr=output,
            )
        (self.folder / f"{name}.pid").write_text(str(process.pid))
        self._stack.callback(_end, process)
        return log

    def _await_server(self, log: Path) -> None:
        wait_for(lambda: log.read_text().count("event=listening") >= 2, log.read_text)

    def _popen(self, *command: str, **options: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            ["ip", "netns", "exec", self._site, *command], cwd=self.folder,
            env={**os.environ, "PATH": TOOLS, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, **options,
        )

    def _start_nginx(self) -> None:
        conf = str(self.folder / "nginx.conf")
        with (self.folder / "nginx.log").open("wb") as log:
            self._nginx = self._popen(
                "nginx", "-p", str(self.folder), "-c", conf, "-e", "stderr", stderr=log
            )
        self._stack.callback(_end, self._nginx)
        wait_for(self._workers, (self.folder / "nginx.log").read_text)

    # Changing it.

    def become(self, wanted: Broken) -> None:
        """Undo what was broken before, and break this."""
        before, self.now = self.now, wanted
        if before.end:
            self.at_site("sh", "-ec", before.end)
        self._cms.skew = wanted.skew
        if wanted.hosts != before.hosts:
            self._write_hosts(wanted)
        self._write_nginx(wanted)
        if wanted.begin:
            self.at_site("sh", "-ec", wanted.begin)

    @contextmanager
    def with_server(self) -> Iterator[None]:
        """While this lasts, the server that the set-up wants runs in place of the usual one."""
        if not self.now.server:
            yield
            return
        outer, self._stack = self._stack, ExitStack()
        try:
            with self._stack:
                self._await_server(self._begin_server("own", self.now.server))
                yield
        finally:
            self._stack = outer

    def _write_hosts(self, wanted: Broken) -> None:
        lines = ["127.0.0.1 localhost"]
        for name, addresses in {**HOSTS, **wanted.hosts}.items():
            lines += [f"{address} {name}" for address in (addresses or "").split()]
        for name in (self._site, self._outside):
            (Path("/etc/netns") / name / "hosts").write_text("\n".join([*lines, ""]))

    def _write_nginx(self, wanted: Broken) -> None:
        """Write the configuration; if it changed while nginx runs, wait until it is in force."""
        included = "".join(
            (ROOT / "nginx" / name).read_text("utf-8") for name in
            ("push-host.conf", "push-host-80.conf", "cms-host.conf")
        )
        text = re.sub(r"/etc/letsencrypt/live/.*/privkey.pem", f"{self.folder}/site.key", included)
        text = f"""
            user root; daemon off; worker_processes 1; pid pid; error_log stderr;
            events {{}}
            http {{
                access_log off; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                client_body_temp_path body; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                server {{ listen {CMS}:80; server_name plain.example.com; root pages; }}
                {text}
            }}"""
        for old, new in (
            *((f"/etc/letsencrypt/live/{name}.example.com/fullchain", f"{self.folder}/{kind}")
              for name, kind in (("push", wanted.certificate), ("www", wanted.site_certificate))),
            ("php-fpm.sock;", "php-fpm.sock; fastcgi_pass_header Date;"),
            ("include fastcgi_params", "include /etc/nginx/fastcgi_params"),
            ("/run/php/php-fpm.sock", f"{self.folder}/php.sock"), ("/var/www/html", "pages"),
            ("snippets/push-cms-headers.conf", str(ROOT / "nginx/cms-headers.conf")),
            ("/var/log/nginx/", f"{self.folder}/"), *wanted.nginx,
        ):
            assert old in text, old
            text = text.replace(old, new)
        if text == self._conf:
            return
        self._conf = text
        (self.folder / "pages").mkdir(exist_ok=True)
        (self.folder / "pages/index.php").write_text("<?php\n")
        (self.folder / "nginx.conf").write_text(text)
        if self._nginx is not None:
            old_workers = self._workers()
            os.kill(self._master(), signal.SIGHUP)
            log = self.folder / "nginx.log"
            wait_for(lambda: self._workers() and not self._workers() & old_workers, log.read_text)

    def _master(self) -> int:
        return int((self.folder / "pid").read_text())

    def _workers(self) -> set[int]:
        with contextlib.suppress(OSError, ValueError):
            master = self._master()
            children = Path(f"/proc/{master}/task/{master}/children")
            return set(map(int, children.read_text().split()))
        return set()

    def at_site(self, *command: str | Path) -> str:
        """Run something on the push host."""
        known = {
            "TOWN": str(self.folder), "REDIS": str(self._redis.socket_path), "PLAIN": PLAIN,
            "PATH": f"{ROOT}/iptables:{TOOLS}",
        }
        return must("ip", "netns", "exec", self._site, *command, environ=known)

    def _redirect(self, *arguments: str) -> None:
        self.at_site(sys.executable, ROOT / "iptables/push-redirect", *arguments)

    # Looking at it.

    def doctor(self, *options: str, colours: bool = False) -> Done:
        """What the doctor says of the set-up as it is."""
        now = self.now
        environ = {
            "PATH": f"{ROOT}/iptables:{TOOLS}", "PYTHONPATH": str(ROOT),
            "SSL_CERT_FILE": str(self.folder / "ca.pem"),
        }
        command = [sys.executable, "-m", "push_server", "doctor", *now.options, *options]
        settings = {**self.settings(now.which, now.server), **now.config}
        if now.where == "push":
            file = self.folder / "doctor.toml"
            file.write_text(toml(settings))
            file.chmod(now.mode)
            command += ["--config", str(file)]
        elif now.where == "cms":
            port = "6667" if now.which == "tls" else "6668"
            environ |= {
                "PUSH_URL": settings["public_url"], "PUSH_API": f"http://127.0.0.1:{port}",
                "PUSH_TOKEN_KEY": self.token_key, "PUSH_API_KEY": self.api_key, **now.environ,
            }
        else:
            command += ["--url", settings["public_url"]]
            environ |= {"PUSH_TOKEN": self._token(), **now.environ}
        host = self._outside if now.where == "outside" else self._site
        (self.folder / "empty").mkdir(exist_ok=True)
        return run("ip", "netns", "exec", host, *command, environ=environ,
                   cwd=self.folder / "empty")

    def php(self) -> dict[str, str]:
        """What the PHP client's connection test finds on the host of the CMS: hop -> status."""
        settings = self.settings(self.now.which, self.now.server)
        port = "6667" if self.now.which == "tls" else "6668"
        values = {
            "url": settings["public_url"], "api": f"http://127.0.0.1:{port}", "spool": "",
            "token_key": self.token_key, "api_key": self.api_key,
            **{name.lower().removeprefix("push_"): value
               for name, value in self.now.environ.items()},
        }
        site = settings["site_origins"][0].partition("://")[2]
        script = f"""
            require '{ROOT}/cms_module/client/autoload.php';
            $client = PushServer\\Client::create(json_decode('{json.dumps(values)}', true));
            $checks = $client->testConnection('{self.now.site or site}');
            echo json_encode(array_map(fn ($check) => $check->status->value, $checks));
        """
        found: dict[str, str] = json.loads(self.at_site(
            "php", "-d", f"curl.cainfo={self.folder}/ca.pem", "-r", script
        ))
        return found

    def _token(self) -> str:
        now = int(time.time())
        claims = {"v": 1, "sub": "7", "sid": "s", "iat": now, "exp": now + 300,
                  "sub_ch": [], "pub_ch": []}
        return issue_token(claims, self.token_key)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def complaints(report: Mapping[str, Any]) -> dict[str, str]:
    """The checks that found something, and how bad it is."""
    return {check["name"]: check["status"] for check in report["checks"]
            if check["status"] in ("error", "warning")}


def read(done: Done) -> dict[str, Any]:
    """The report in what the doctor printed."""
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"{done.returncode}: {done.stdout}{done.stderr}") from None
    return report
