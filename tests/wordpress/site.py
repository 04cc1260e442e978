"""A real WordPress on MariaDB, PHP-FPM and nginx, in a folder of its own.

    with WordPress(push) as site:
        alice = site.visitor("alice")
        alice.get("/hello-alice/")

Every daemon has its sockets, its data and its log in that folder and is a child of this process;
no service of the machine is touched. `site.port` serves WordPress with the plugin, `site.off_port`
the same without it, by PHP workers of its own.

Imported by the tests of the WordPress plugin.
"""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple, Self

from harness import PushServer
from ports import free_port
from waiting import PATIENCE, wait_for, wait_until_up

HERE = Path(__file__).resolve().parent
PLUGIN = HERE.parent.parent / "cms_module/wordpress"
SOURCE = Path(os.environ.get("PUSH_WORDPRESS", "/usr/share/wordpress"))
"""Debian's WordPress, or another one that somebody wants to try."""
HOST = "www.wp.test"
WORKERS = 5

SETTINGS = ("PUSH_URL", "PUSH_API", "PUSH_TOKEN_KEY", "PUSH_API_KEY")


def fpm() -> str | None:
    """PHP-FPM; Debian has the version in the name of the program."""
    found = sorted(Path("/usr/sbin").glob("php-fpm[0-9]*"))
    return shutil.which("php-fpm") or (str(found[-1]) if found else None)


def program(name: str) -> str | None:
    """A program, also where a user's PATH does not look."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def missing() -> str:
    """What has to be installed; empty if nothing."""
    there = {
        "wordpress": SOURCE.is_dir(),
        "mariadb-server-core": program("mariadbd") is not None,
        "mariadb-client-core": program("mariadb") is not None,
        "nginx-light": program("nginx") is not None,
        "php-cli": program("php") is not None,
        "php-fpm": fpm() is not None,
        "php-mysql": program("php") is not None and _php_has("mysqli"),
    }
    absent = [package for package, found in there.items() if not found]
    return f"needs the Debian packages {' '.join(absent)}" if absent else ""


def _php_has(extension: str) -> bool:
    code = f"exit(extension_loaded('{extension}') ? 0 : 1);"
    return subprocess.run(["php", "-r", code], check=False, timeout=60).returncode == 0


class Answer(NamedTuple):
    """What the site answered."""

    status: int
    headers: http.client.HTTPMessage
    text: str
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Visitor:
    """Somebody with a browser that keeps cookies and follows redirects, but runs no scripts."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """A page."""
        return self._follow("GET", path, None, headers or {})

    def post(self, path: str, **form: Any) -> Answer:
        """What a form sends."""
        return self._follow("POST", path, urllib.parse.urlencode(form), {})

    def login(self, user: str) -> Self:
        """Log in; the password of every user is his name."""
        self.cookies["wordpress_test_cookie"] = "WP Cookie check"
        form = {"log": user, "pwd": user, "wp-submit": "Log In", "testcookie": "1"}
        answer = self.once("POST", "/wp-login.php", urllib.parse.urlencode(form))
        assert answer.status == 302, answer.text
        return self

    def state(self) -> Any:
        """What the script of a page asks for."""
        answer = self.get("/wp-admin/admin-ajax.php?action=push_server_state")
        assert answer.status == 200, answer
        return answer.json

    def _follow(
        self, method: str, path: str, body: str | None, headers: Mapping[str, str]
    ) -> Answer:
        for _ in range(6):
            answer = self.once(method, path, body, headers)
            if answer.status not in (301, 302, 303):
                return answer
            method, body = "GET", None
            where = urllib.parse.urlsplit(answer.headers["Location"])
            path = where.path + (f"?{where.query}" if where.query else "")
        raise AssertionError(f"redirected again and again, at last to {path}")

    def once(
        self, method: str, path: str, body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, and no redirects."""
        begin = time.monotonic()
        wire = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(wire):
            fields = {"Host": f"{HOST}:{self.port}", **(headers or {})}
            if self.cookies:
                fields["Cookie"] = "; ".join(map("=".join, self.cookies.items()))
            if body is not None:
                fields["Content-Type"] = "application/x-www-form-urlencoded"
            wire.request(method, path, body, fields)
            response = wire.getresponse()
            text = response.read().decode()
            seconds = time.monotonic() - begin
        for line in response.headers.get_all("Set-Cookie", []):
            for key, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0" or morsel.value in ("", " ", "%20", "+"):
                    self.cookies.pop(key, None)
                else:
                    self.cookies[key] = morsel.coded_value
        return Answer(response.status, response.headers, text, seconds)


@contextlib.contextmanager
def started(*, is_network: bool = False) -> Iterator["WordPress"]:
    """A site and a push server that know each other. PHP must not complain while they run."""
    push = PushServer()
    site = WordPress(push, is_network=is_network)
    push.host = f"push.wp.test:{push.port}"
    push.settings.update(
        public_url=f"http://{push.host}", site_origins=[site.origin], document_domain="wp.test"
    )
    with push, site:
        yield site
        assert site.complaints == []


class WordPress:
    """The site; what `push-server init` prints is in its wp-config.php."""

    def __init__(self, push: PushServer, *, is_network: bool = False) -> None:
        self.is_network = is_network
        """Whether it is a network, with a second site at /second/."""
        self.folder = Path(tempfile.mkdtemp(prefix="push-wordpress-"))
        self.port, self.off_port = free_port(), free_port()
        self.push = push
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> list[str]:
        """What the plugin has written to PHP's log."""
        path = self.folder / "debug.log"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [line.partition("Push Server: ")[2] for line in lines if "Push Server: " in line]

    @property
    def complaints(self) -> list[str]:
        """What PHP has complained of in the plugin's files."""
        path = self.folder / "debug.log"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        signs = ("A notification failed", "push-server/")
        return [line for line in lines if any(sign in line for sign in signs)]

    def configure(self, **settings: str) -> None:
        """Define these in wp-config.php from now on, and none of the others."""
        lines = [f"define('{name}', {json.dumps(text)});" for name, text in settings.items()]
        (self.folder / "push-config.php").write_text("\n".join(["<?php", *lines, ""]))

    def settings(self, **changes: str) -> dict[str, str]:
        """The four lines that `push-server init` prints."""
        values = (
            self.push.settings["public_url"], f"http://127.0.0.1:{self.push.internal_port}",
            self.push.token_keys[-1], self.push.api_secret,
        )
        return {**dict(zip(SETTINGS, values, strict=True)), **changes}

    def visitor(self, user: str = "", *, off: bool = False) -> Visitor:
        """A new browser, with this user logged in."""
        visitor = Visitor(self.off_port if off else self.port)
        return visitor.login(user) if user else visitor

    def probe(self, code: str, visitor: Visitor | None = None) -> Any:
        """The value that PHP code returns, as part of a request of this visitor."""
        name = f"probe{time.monotonic_ns()}"
        (self.folder / "probes" / f"{name}.php").write_text(f"<?php\n{code}\n")
        answer = (visitor or self.visitor()).get(f"/?probe={name}")
        assert answer.status == 200, answer.text
        return json.loads(answer.text)

    def settle(self) -> None:
        """Wait until no worker is busy any more: what is published after a response is out."""
        status = "/fpm-status?json"
        wait_for(lambda: self.visitor().get(status).json["active processes"] <= 1)

    def sql(self, query: str) -> list[list[str]]:
        """Rows of the database."""
        command = ["mariadb", "--no-defaults", f"--socket={self.folder}/db.sock", "-uroot", "-NB"]
        done = subprocess.run(
            [*command, "wordpress", "-e", query],
            capture_output=True, text=True, check=True, timeout=PATIENCE,
        )
        return [line.split("\t") for line in done.stdout.splitlines()]

    def waiting(self) -> int:
        """How many batches wait for the push server."""
        return int(self.sql("SELECT COUNT(*) FROM wp_push_server_spool")[0][0])

    # The daemons

    def __enter__(self) -> Self:
        try:
            self._put_files()
            self._start_database()
            self._install()
            self._start_php()
            self._start_nginx()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _put_files(self) -> None:
        www = self.folder / "www"
        # Without Debian's configuration, which looks into /etc and /var.
        shutil.copytree(SOURCE, www, ignore=shutil.ignore_patterns(".htaccess", "wp-config.php"))
        shutil.copytree(PLUGIN, www / "wp-content/plugins/push-server")
        shutil.copytree(HERE / "theme", www / "wp-content/themes/plain")
        (www / "wp-content/mu-plugins").mkdir()
        shutil.copy(HERE / "probe.php", www / "wp-content/mu-plugins")
        (self.folder / "probes").mkdir()
        config = (HERE / "wp-config.php").read_text()
        (www / "wp-config.php").write_text(
            self._fill(
                config, database="wordpress", socket=self.folder / "db.sock",
                network=str(self.is_network).lower(),
            )
        )
        self.configure(**self.settings())

    def _fill(self, text: str, **values: object) -> str:
        for name, value in {"folder": self.folder, **values}.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def _start_database(self) -> None:
        # Debian's own configuration names sockets and users of the service.
        common = ["--no-defaults", f"--datadir={self.folder}/data"]
        if os.geteuid() == 0:
            common.append("--user=root")
        subprocess.run(
            ["mariadb-install-db", *common, "--auth-root-authentication-method=normal",
             "--skip-test-db"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60,
        )
        database = program("mariadbd")
        assert database is not None
        self._start(
            [database, *common, f"--socket={self.folder}/db.sock", "--skip-networking",
             "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0",
             f"--pid-file={self.folder}/db.pid", f"--log-error={self.folder}/db.log"],
            self._database_answers,
        )

    def _database_answers(self) -> bool:
        command = ["mariadb", "--no-defaults", f"--socket={self.folder}/db.sock", "-uroot", "-e"]
        return subprocess.run(
            [*command, "CREATE DATABASE IF NOT EXISTS wordpress"],
            stderr=subprocess.DEVNULL, check=False, timeout=PATIENCE,
        ).returncode == 0

    def _install(self) -> None:
        # A network cannot have a port in its name.
        scripts = {"install.php": ["network"], "network.php": []} if self.is_network else {
            "install.php": []
        }
        host = HOST if self.is_network else f"{HOST}:{self.port}"
        for script, more in scripts.items():
            done = subprocess.run(
                ["php", str(HERE / script), host, str(self.folder / "www"), *more],
                env={**os.environ, "PUSH_SINGLE": "1" if more else ""},
                capture_output=True, text=True, check=False, timeout=60,
            )
            assert done.returncode == 0, done.stdout + done.stderr

    def _start_php(self) -> None:
        root = os.geteuid() == 0
        pools = "".join(
            f"[{name}]\nlisten = {self.folder}/{name}.sock\nlisten.backlog = 511\npm = static\n"
            f"pm.max_children = {WORKERS}\npm.status_path = /fpm-status\n"
            f"catch_workers_output = yes\nenv[TMPDIR] = {self.folder}\n"
            f"env[PUSH_PROBE] = {self.folder}/probes\n"
            f"env[PUSH_OFF] = {off}\nphp_admin_value[opcache.revalidate_freq] = 0\n"
            + ("user = root\n" if root else "")
            for name, off in (("on", 0), ("off", 1))
        )
        (self.folder / "fpm.conf").write_text(
            f"[global]\nerror_log = {self.folder}/fpm.log\n{pools}"
        )
        php = fpm()
        assert php is not None
        self._start(
            [php, "--nodaemonize", "--fpm-config", str(self.folder / "fpm.conf"),
             *(["--allow-to-run-as-root"] if root else [])],
            lambda: (self.folder / "off.sock").exists(),
        )

    def _start_nginx(self) -> None:
        config = self._fill(
            (HERE / "nginx.conf").read_text(), port=self.port, off_port=self.off_port,
            host=HOST if self.is_network else "$http_host",
            user="user root;" if os.geteuid() == 0 else "",
        )
        (self.folder / "nginx.conf").write_text(config)
        web = program("nginx")
        assert web is not None
        self._start(
            [web, "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)],
            lambda: self.visitor().get("/").status == 200,
        )

    def _start(self, command: list[str], is_up: Callable[[], bool]) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
        self._processes.append(process)
        wait_until_up(process, is_up, (self.folder / "daemons.log").read_text)
