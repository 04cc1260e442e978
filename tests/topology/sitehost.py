"""The programs of the site's host: PHP-FPM, nginx with the shipped files, and certificates.

The addresses in the shipped files are the addresses of the host, so only paths are replaced.
Imported by the tests of whole hosts.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ports import listens
from waiting import wait_until_up

from .network import TOOLS, Host

ROOT = Path(__file__).resolve().parents[2]
NGINX = ROOT / "nginx"


def fpm_program() -> str | None:
    """Debian has the version in the name of the program."""
    found = sorted(Path("/usr/sbin").glob("php-fpm[0-9]*"))
    return shutil.which("php-fpm", path=TOOLS) or (str(found[-1]) if found else None)


class Authority:
    """A certificate authority of our own, and what it certifies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate = folder / "authority.pem"
        self._openssl("-subj", "/CN=Authority of a test", "-keyout", folder / "authority.key",
                      "-out", self.certificate)

    def certify(self, *names: str) -> None:
        """Certificate and key for these names, under Let's Encrypt's names for the files."""
        self._openssl(
            "-CA", self.certificate, "-CAkey", self._folder / "authority.key",
            "-subj", f"/CN={names[0]}", "-addext", "basicConstraints=critical,CA:FALSE",
            "-addext", f"subjectAltName={','.join(f'DNS:{name}' for name in names)}",
            "-keyout", self._folder / "privkey.pem", "-out", self._folder / "fullchain.pem",
        )

    def trusted_by(self, home: Path) -> None:
        """Have a Chromium with this home directory trust it."""
        store = home / ".pki/nssdb"
        store.mkdir(parents=True)
        for arguments in (
            ["-N", "--empty-password"],
            ["-A", "-n", "authority", "-t", "C,,", "-i", str(self.certificate)],
        ):
            subprocess.run(["certutil", "-d", f"sql:{store}", *arguments], check=True,
                           capture_output=True, timeout=30)

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:P-256", "-nodes", "-days", "2", *map(str, arguments)],
            check=True, capture_output=True, timeout=30,
        )


class Program:
    """A program of a host, in the foreground."""

    def __init__(self, host: Host, folder: Path, name: str, *command: str | Path) -> None:
        self.output = folder / f"{name}.output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                host.command(*command), cwd=folder, env={**os.environ, "PATH": TOOLS},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )

    def said(self) -> str:
        """What it has written."""
        return self.output.read_text()

    def children(self) -> set[int]:
        """The processes that it has started."""
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def reload(self) -> None:
        """SIGHUP."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """SIGTERM."""
        self.process.terminate()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait(10)


def start_php(host: Host, folder: Path, pools: Mapping[str, Mapping[str, str]]) -> Program:
    """PHP-FPM and the example in plain PHP: a pool for each site, its socket ``<pool>.sock``.

    The mapping has the environment of each pool.

    Each has one worker, so that what one request publishes is on its way before the next one
    begins: an editor who does one thing after the other is shown to everybody in that order.
    """
    program = fpm_program()
    assert program is not None
    for part in ("client", "examples/plain_php"):
        shutil.copytree(ROOT / "cms_module" / part, folder / "html" / part)
    sections = [f"[global]\nerror_log = {folder}/php.log\n"]
    for name, environment in pools.items():
        settings = {
            "user": "root",
            "listen": f"{folder}/{name}.sock",
            "pm": "static",
            "pm.max_children": "1",
            "catch_workers_output": "yes",
            "php_admin_value[session.save_path]": str(folder),
            **{f"env[{variable}]": f'"{value}"' for variable, value in environment.items()},
        }
        lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
        sections.append(f"[{name}]\n{lines}")
    (folder / "fpm.conf").write_text("".join(sections))
    started = Program(host, folder, "php", program, "--nodaemonize", "--allow-to-run-as-root",
                      "--fpm-config", folder / "fpm.conf")
    wait_until_up(
        started.process, lambda: all(map(listens, _sockets(folder, pools))), started.said
    )
    return started


def _sockets(folder: Path, pools: Mapping[str, object]) -> Sequence[str]:
    return [f"{folder}/{name}.sock" for name in pools]


def start_nginx(host: Host, folder: Path, push_socket: Path) -> Program:
    """nginx: the site with TLS and without, and the push host with TLS, as we ship them."""
    paths = {
        r"/etc/letsencrypt/live/[^/]*/": f"{folder}/",
        r"/var/log/nginx/": f"{folder}/",
        r"snippets/push-cms-headers\.conf": str(NGINX / "cms-headers.conf"),
        r"include fastcgi_params": "include /etc/nginx/fastcgi_params",
        r"/var/www/html": str(folder / "html/examples/plain_php"),
        r"/run/php/php-fpm\.sock": f"{folder}/secure.sock",
        # The push server is behind a Unix socket: the other of the two lines.
        r" *proxy_pass http://127\.0\.0\.1:6660;\n": "",
        r"#proxy_pass http://unix:/run/push-server/http\.sock": f"proxy_pass http://unix:{push_socket}",
    }
    texts = {}
    for name in ("push-host.conf", "cms-host.conf"):
        texts[name] = (NGINX / name).read_text("utf-8")
        for pattern, replacement in paths.items():
            texts[name] = re.sub(pattern, replacement, texts[name])
    # The same site on port 80 has another name: a browser that was once told to use TLS with a
    # name does so for good.
    plain = texts["cms-host.conf"]
    plain = plain[plain.index("server {"):].replace("443 ssl http2", "80")
    plain = re.sub(r" *ssl_certificate.*\n", "", plain)
    plain = plain.replace("www.example.com", "www.example.net").replace("secure.sock", "plain.sock")
    texts["cms-host-80.conf"] = plain
    for name, text in texts.items():
        (folder / name).write_text(text)
    includes = " ".join(f"include {folder / name};" for name in texts)
    temporary = " ".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{includes} }}\n"
    )
    started = Program(host, folder, "nginx", "nginx", "-p", folder, "-c", folder / "nginx.conf",
                      "-e", "stderr")
    wait_until_up(started.process, lambda: bool(started.children()), started.said)
    return started
