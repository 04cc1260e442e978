"""The PHP client: its own tests, and what it does with a real push server and with bad ones.

PHP runs in processes of its own, as the requests of a site do, once with ext-curl and once
without any extension. What it sends and how long it takes is looked at from outside.
"""

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from harness import PushServer
from ports import free_port, listens
from waiting import PATIENCE, wait_for, wait_until_up

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "cms_module/examples/plain_php"
DRIVE = ROOT / "tests/php/drive.php"
TIMEOUT, CONNECT_TIMEOUT = 0.3, 0.1
SLACK = 0.05
"""Seconds that are nothing beside a time limit, on a machine that is busy, too."""

pytestmark = pytest.mark.skipif(shutil.which("php") is None, reason="PHP is not installed")


def php_has(extension: str) -> bool:
    """Whether PHP as it is installed has this extension."""
    if shutil.which("php") is None:
        return False
    asked = subprocess.run(
        ["php", "-r", f"exit(extension_loaded('{extension}') ? 0 : 1);"], check=False, timeout=60
    )
    return asked.returncode == 0


@pytest.fixture(
    params=[
        pytest.param(
            ("php",), id="curl", marks=pytest.mark.skipif(not php_has("curl"), reason="no php-curl")
        ),
        pytest.param(("php", "-n"), id="streams"),
    ]
)
def php(request: pytest.FixtureRequest) -> Sequence[str]:
    """The two ways in which the client speaks HTTP."""
    command: Sequence[str] = request.param
    return command


class Ran(NamedTuple):
    """What one PHP process did."""

    results: list[Any]
    seconds: list[float]
    log: list[str]


class Site:
    """A PHP site with a push server at some address."""

    def __init__(self, php: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> None:
        self.php = php
        self.spool = folder / "spool"
        self.settings = {"spool": str(self.spool), **settings}

    def start(self, *steps: Sequence[Any], **options: Any) -> subprocess.Popen[str]:
        """A request begins: each step is the name of a method and its arguments."""
        process = subprocess.Popen(
            [*self.php, str(DRIVE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        asked = [
            (name, dict(last[0]) if last and isinstance(last[0], dict) else list(last))
            for name, *last in steps
        ]
        assert process.stdin is not None
        process.stdin.write(json.dumps({"settings": self.settings, "steps": asked, **options}))
        process.stdin.close()
        process.stdin = None
        return process

    def end(self, process: subprocess.Popen[str]) -> Ran:
        """The request ends."""
        output, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (0, ""), output
        answer = json.loads(output)
        return Ran(
            [step["result"] for step in answer["steps"]],
            [step["seconds"] for step in answer["steps"]],
            answer["log"],
        )

    def request(self, *steps: Sequence[Any], **options: Any) -> Ran:
        return self.end(self.start(*steps, **options))

    def end_pause(self) -> None:
        """The breaker's five seconds are over."""
        (self.spool / "flag-pause").unlink(missing_ok=True)

    @property
    def waiting(self) -> list[str]:
        return sorted(path.name for path in self.spool.glob("*.jsonl"))


def settings_of(push: PushServer) -> dict[str, Any]:
    """The four values that `push-server init` prints."""
    return {
        "url": f"http://127.0.0.1:{push.port}",
        "api": f"http://127.0.0.1:{push.internal_port}",
        "token_key": push.token_keys[-1],
        "api_key": push.api_secret,
    }


@pytest.fixture
def site(php: Sequence[str], push: PushServer, tmp_path: Path) -> Site:
    """A site of the shared push server."""
    return Site(php, tmp_path, settings_of(push))


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(php: Sequence[str], push: PushServer, tmp_path: Path) -> MakeSite:
    """Makes sites with other settings, each with a spool of its own."""
    made = iter(range(100))

    def make(server: PushServer | None = None, **settings: Any) -> Site:
        folder = tmp_path / str(next(made))
        folder.mkdir()
        return Site(php, folder, {**settings_of(server or push), **settings})

    return make


@pytest.mark.skipif(shutil.which("phpunit") is None, reason="PHPUnit is not installed (phpunit)")
def test_the_library_by_its_own_tests(tmp_path: Path) -> None:
    program = shutil.which("phpunit")
    assert program is not None
    done = subprocess.run(
        ["php", "-d", "apc.enable_cli=1", program, "-c", str(ROOT / "tests/php")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=120,
    )
    assert done.returncode == 0, done.stdout
    tests = re.search(r"OK \((\d+) tests", done.stdout)
    assert tests is not None
    assert int(tests[1]) > 100


# With a push server


def test_a_token_of_php_is_accepted(site: Site, push: PushServer) -> None:
    token, refused = site.request(
        ("token", "php-token", "raw-session", ["node:*", "chat:a"], [], 600, "Žofie 🌻"),
        ("token", "php-token", "raw-session", ["node 7"]),
    ).results
    assert refused is None
    with push.stream(push.remember(token), "node:1", "chat:a", "chat:b") as listener:
        hello = listener.hello
        assert hello["user"] == "php-token"
        assert sorted(hello["channels"]) == ["chat:a", "node:1", "user:php-token"]
        assert hello["denied"] == ["chat:b"]


def test_a_request_arrives_as_one_batch_in_order(site: Site, push: PushServer) -> None:
    channel = f"php:{site.php[-1].strip('-')}"
    listener = push.stream(push.token("php-reader", ["*"]), channel)
    with listener:
        ran = site.request(*[("publish", channel, {"n": n, "ž": "🌻"}) for n in range(20)],
                           ("broadcast", [channel, f"{channel}:other"], "last"), ("flush",))
        received = listener.take(21)
    ids = ran.results[:-1]
    assert ran.results[-1] is True
    assert [message.value["id"] for message in received] == ids
    assert [message.value["data"] for message in received] == [
        *({"n": n, "ž": "🌻"} for n in range(20)), "last",
    ]
    assert ran.log == []
    assert site.waiting == []


def test_what_is_published_goes_out_when_the_request_ends(site: Site, push: PushServer) -> None:
    channel = f"php:end:{len(site.php)}"
    with push.stream(push.token("php-reader", ["*"]), channel) as listener:
        site.request(("publish", channel, 1), ("publish", channel, 2), after_response=True)
        assert [message.value["data"] for message in listener.take(2)] == [1, 2]
        # Sessions are an extension of PHP, which a site can be without.
        none = "-ddisable_functions=session_status,session_write_close"
        Site([*site.php, none], site.spool.parent, site.settings).request(
            ("publish", channel, 3), after_response=True
        )
        assert [message.value["data"] for message in listener.take(1)] == [3]


def test_a_logout_ends_one_session_and_leaves_the_other(site: Site, push: PushServer) -> None:
    user = f"php-logout-{len(site.php)}"
    one_session, another = f"{user}-here", f"{user}-there"
    here, there = site.request(("token", user, one_session), ("token", user, another)).results
    with push.stream(push.remember(here)) as one, push.stream(push.remember(there)) as other:
        ended = site.request(("revoke", {"sessionId": one_session}), ("flush",))
        assert ended.results == [True, True]
        one.control("revoked")
        one.until_end()
        push.api("publish", channel=f"user:{user}", data="still here")
        assert other.take(1)[0].value["data"] == "still here"
        assert push.get("/subscribe/poll", token=here).status == 401
        assert site.request(("revoke", {"user": user}), ("flush",)).results == [True, True]
        other.control("revoked")
    assert push.get("/subscribe/poll", token=there).status == 401


def test_who_is_in_a_channel(
    make_site: MakeSite, push_server_factory: Callable[..., PushServer]
) -> None:
    server = push_server_factory(namespace={"room": {"presence": True}})
    site = make_site(server)
    token = site.request(("token", "7", "s", ["room:*", "hall:*"], [], 60, "Ann")).results[0]
    with server.stream(server.remember(token), "room:1"):
        assert site.request(("presence", "room:1")).results == [{"7": "Ann"}]
    assert site.request(("presence", "room:2")).results == [[]], "nobody"
    asked = site.request(("presence", "hall:1"), ("presence", "no room"), ("presence", "hall:1"))
    assert asked.results == [None, None, None]
    # Once an hour each: the namespace without presence, and the name that is none.
    assert len(asked.log) == 2


def test_a_session_is_revoked_whichever_key_signed_its_token(
    make_site: MakeSite, push_server_factory: Callable[..., PushServer]
) -> None:
    old, new = "an-older-key-of-some-length-0001", "the-newest-key-of-some-length-02"
    server = push_server_factory(token_keys=[old, new])
    token = make_site(server, token_key=old).request(("token", "42", "session")).results[0]
    rotated = make_site(server, token_key=[old, new])
    with server.stream(server.remember(token)) as listener:
        assert rotated.request(("revoke", {"sessionId": "session"}), ("flush",)).results[1]
        listener.control("revoked")


def test_what_the_client_takes_the_server_takes(site: Site, push: PushServer) -> None:
    """The limits of the two are the same: depth, size and number of commands."""
    channel = f"php:limits:{len(site.php)}"
    deep: Any = "bottom"
    for _ in range(29):
        deep = [deep]
    ran = site.request(
        ("publish", channel, deep), ("publish", channel, [deep]), ("flush",),
        ("publish", channel, "x" * 261_900), ("publish", channel, "x" * 262_144), ("flush",),
    )
    assert [result is None for result in ran.results] == [False, True, False, False, True, False]
    assert ran.results[2] is ran.results[5] is True
    assert [line.partition(":")[0] for line in ran.log] == ["error", "error"]
    kept = push.api("history", channel=channel)["publications"]
    assert [entry["id"] for entry in kept] == [ran.results[0], ran.results[3]]


def test_over_a_unix_socket(
    make_site: MakeSite, push_server_factory: Callable[..., PushServer], tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/api.sock"
    server = push_server_factory(internal_listen=address)
    site = make_site(server, api=address)
    assert site.request(("publish", "news", 1), ("flush",)).results[1] is True
    assert len(server.api("history", channel="news")["publications"]) == 1
    found = statuses(site)
    assert found.pop("after_response") == "warning"
    assert found.pop("tls") == "skipped"
    assert set(found.values()) == {"ok"}


# While it is away


def test_where_php_may_not_look_no_page_is_told(tmp_path: Path) -> None:
    """Hosts keep PHP inside some folders (open_basedir); a warning would stand in the page."""
    for spool in ("null", f"'{tmp_path.parent}/elsewhere'"):
        code = f"""
            require '{ROOT}/cms_module/client/autoload.php';
            $push = PushServer\\Client::create([
                'url' => 'http://127.0.0.1:9', 'api' => 'http://127.0.0.1:9', 'spool' => {spool},
                'token_key' => str_repeat('t', 32),
                'api_key' => 'whsec_' . base64_encode(str_repeat('a', 32)),
            ], static fn () => null);
            $push->publish('news', 1);
            echo strlen($push->token('1', 's')) > 0 ? 'page' : 'nothing';
        """
        inside = f"open_basedir={ROOT}:{tmp_path}"
        command = ["php", "-d", "display_errors=stdout", "-d", "log_errors=0", "-d", inside]
        assert subprocess.check_output([*command, "-r", code], text=True, timeout=60) == "page"


@contextlib.contextmanager
def listening(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that accepts, and then does something else than answering."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def accept(listener: socket.socket) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                peer, _ = listener.accept()
                peer.settimeout(5)
                threads.append(threading.Thread(target=serve, args=(peer,)))
                threads[-1].start()

    def serve(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            behave(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        threads.append(threading.Thread(target=accept, args=(listener,)))
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)


def hang(peer: socket.socket) -> None:
    while peer.recv(65_536):
        pass


def trickle(peer: socket.socket) -> None:
    """One byte now and then, so that no wait for a single byte ever takes long."""
    peer.recv(65_536)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b" " * 900:
        peer.sendall(bytes([byte]))
        time.sleep(0.02)


def cost(make_site: MakeSite, port: int) -> tuple[float, float]:
    """What a flush takes at first, and in later requests: the best of three outages."""
    first, later = [], []
    for _ in range(3):
        site = make_site(api=f"http://127.0.0.1:{port}")
        steps = [("publish", "news", 1), ("flush",)]
        ran = site.request(*steps)
        assert ran.results[1] is False
        assert len(ran.log) == 1, ran.log
        assert "The push server is away." in ran.log[0]
        first.append(ran.seconds[1])
        for _ in range(3):
            ran = site.request(*steps)
            assert (ran.results[1], ran.log) == (False, [])
            later.append(ran.seconds[1])
        assert len(site.waiting) == 4
    return min(first), sorted(later)[len(later) // 2]


@pytest.mark.parametrize("behave", [hang, trickle])
def test_a_server_that_hangs_costs_one_timeout(
    make_site: MakeSite, behave: Callable[[socket.socket], None]
) -> None:
    with listening(behave) as port:
        first, later = cost(make_site, port)
    assert TIMEOUT - SLACK < first < 2 * TIMEOUT - SLACK
    assert later < SLACK


def test_a_server_that_refuses_costs_nothing(make_site: MakeSite) -> None:
    first, later = cost(make_site, free_port())
    assert first < SLACK
    assert later < SLACK


def test_a_server_that_drops_connections_costs_a_short_timeout(make_site: MakeSite) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as held:
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        first, later = cost(make_site, full.getsockname()[1])
    assert CONNECT_TIMEOUT - SLACK < first < TIMEOUT - SLACK
    assert later < SLACK


def test_everything_arrives_in_order_and_once(
    make_site: MakeSite, push_server_factory: Callable[..., PushServer]
) -> None:
    server = push_server_factory(broker="sqlite")
    site = make_site(server)
    token = server.remember(site.request(("token", "42", "session")).results[0])
    ids: list[str] = []

    def publish(count: int) -> Ran:
        ran = site.request(*[("publish", "news", len(ids) + n) for n in range(count)], ("flush",))
        ids.extend(ran.results[:-1])
        return ran

    assert publish(3).results[-1] is True
    server.kill()
    lines = publish(3).log
    site.request(("revoke", {"sessionId": "session"}), ("flush",))
    for _ in range(5):
        lines += publish(2).log
    site.end_pause()
    lines += publish(1).log
    assert len(lines) == 1
    assert len(site.waiting) == 8
    server.start()
    assert server.get("/subscribe/poll", token=token).status == 200
    site.end_pause()
    back = publish(2)
    assert back.results[-1] is True
    assert back.log == ["info: The push server is back."]
    assert site.waiting == []
    kept = server.api("history", channel="news", limit=1000)["publications"]
    assert [entry["data"] for entry in kept] == list(range(len(ids)))
    assert [entry["id"] for entry in kept] == ids
    assert server.get("/subscribe/poll", token=token).status == 401, "the revocation survived"


def test_what_a_stopped_server_heard_is_not_published_twice(
    make_site: MakeSite, push_server_factory: Callable[..., PushServer]
) -> None:
    server = push_server_factory()
    site = make_site(server)
    server.signal(signal.SIGSTOP)
    try:
        assert site.request(("publish", "news", "once"), ("flush",)).results[1] is False
    finally:
        server.signal(signal.SIGCONT)
    wait_for(lambda: server.api("history", channel="news")["publications"])
    site.end_pause()
    assert site.request(("drain",)).results == [True]
    assert site.waiting == []
    assert len(server.api("history", channel="news")["publications"]) == 1


class CountingApi(http.server.BaseHTTPRequestHandler):
    """An API that takes its time and writes down what it was sent."""

    sent: list[list[Any]]

    def do_POST(self) -> None:
        commands = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sent.append([command["params"]["data"] for command in commands])
        time.sleep(0.005)
        content = json.dumps([{"result": {}} for _ in commands]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextlib.contextmanager
def counting(port: int = 0) -> Iterator[tuple[int, list[list[Any]]]]:
    """Port of a `CountingApi`, and the batches it was sent."""
    sent: list[list[Any]] = []
    handler = type("Handler", (CountingApi,), {"sent": sent})
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1], sent
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def test_processes_that_drain_at_once_send_nothing_twice(make_site: MakeSite) -> None:
    port = free_port()
    site = make_site(api=f"http://127.0.0.1:{port}", max_body=1024)
    site.request(*[step for n in range(60) for step in (("publish", "news", n), ("flush",))])
    assert len(site.waiting) == 60
    site.end_pause()
    with counting(port) as (_, sent):
        begin = time.time() + 0.5
        both = [
            site.start(("wait_until", begin), ("publish", "news", 1000 + n), ("flush",), ("drain",))
            for n in range(2)
        ]
        for process in both:
            site.end(process)
        # Whoever met a raised pause has left its own; the next request takes it along.
        site.end_pause()
        assert site.request(("drain",)).results == [True]
    data = [value for batch in sent for value in batch]
    assert site.waiting == []
    assert [value for value in data if value < 1000] == list(range(60))
    assert sorted(data) == [*range(60), 1000, 1001]
    assert len(sent) > 5


# After the response


def fpm() -> str | None:
    """Debian has the version in the name of the program."""
    found = sorted(Path("/usr/sbin").glob("php-fpm[0-9]*"))
    return shutil.which("php-fpm") or (str(found[-1]) if found else None)


@contextlib.contextmanager
def workers(folder: Path, count: int) -> Iterator[Path]:
    """Socket of a PHP-FPM with so many workers; what PHP logs is in ``folder/log``."""
    program = fpm()
    assert program is not None
    address = folder / "fpm.sock"
    (folder / "fpm.conf").write_text(
        f"[global]\nerror_log = {folder}/log\n[www]\nlisten = {address}\npm = static\n"
        f"pm.max_children = {count}\ncatch_workers_output = yes\n"
        f"php_admin_value[session.save_path] = {folder}\n"
        + ("user = root\n" if os.geteuid() == 0 else "")
    )
    arguments = ["--nodaemonize", "--fpm-config", str(folder / "fpm.conf")]
    if os.geteuid() == 0:
        arguments.append("--allow-to-run-as-root")
    process = subprocess.Popen([program, *arguments], stderr=subprocess.DEVNULL)
    try:
        wait_until_up(process, lambda: listens(str(address)))
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE)


def fastcgi(address: Path, script: Path, cookie: str) -> tuple[bytes, float]:
    """What a script answers, and after how many seconds its response was complete."""

    def record(kind: int, content: bytes) -> bytes:
        return struct.pack("!BBHHBx", 1, kind, 1, len(content), 0) + content

    parameters = {
        b"REQUEST_METHOD": b"GET",
        b"SCRIPT_FILENAME": bytes(script),
        b"HTTP_COOKIE": cookie.encode(),
    }
    pairs = b"".join(
        struct.pack("!BB", len(name), len(value)) + name + value
        for name, value in parameters.items()
    )
    begin = time.monotonic()
    output = b""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(PATIENCE)
        wire.connect(str(address))
        wire.sendall(record(1, struct.pack("!HB5x", 1, 0)))
        wire.sendall(record(4, pairs) + record(4, b"") + record(5, b""))
        with wire.makefile("rb") as answer:
            while head := answer.read(8):
                _, kind, _, length, padding = struct.unpack("!BBHHBx", head)
                content = answer.read(length + padding)[:length]
                if kind == 3:  # the end of the request
                    return output, time.monotonic() - begin
                output += content
    raise AssertionError(f"the response broke off: {output!r}")


@pytest.mark.skipif(fpm() is None, reason="PHP-FPM is not installed (php-fpm)")
def test_the_visitor_has_the_page_before_the_push_server_is_called(
    tmp_path: Path, push: PushServer
) -> None:
    page = tmp_path / "page.php"
    with listening(hang) as port, workers(tmp_path, 2) as address:
        settings = {**settings_of(push), "api": f"http://127.0.0.1:{port}"}
        page.write_text(
            f"""<?php
            require '{ROOT}/cms_module/client/autoload.php';
            session_start();
            $settings = json_decode('{json.dumps(settings)}', true);
            $settings['spool'] = '{tmp_path}/' . $_COOKIE['PHPSESSID'];
            $client = PushServer\\Client::create($settings);
            $client->publish('news', 1);
            // What others do at the end still finds the session, and reaches the visitor.
            register_shutdown_function(function () {{
                $_SESSION['n'] = 1 + ($_SESSION['n'] ?? 0);
                echo 'page ', $_SESSION['n'];
            }});
            """
        )
        # The best of three, each with an outage of its own: a busy machine takes its time.
        slowest, later = [], []
        for visitor in "abc":
            # Two workers; both would be waiting for the push server, or for the session.
            answers = [fastcgi(address, page, f"PHPSESSID={visitor}") for _ in range(2)]
            assert [output[-6:] for output, _ in answers] == [b"page 1", b"page 2"]
            slowest.append(max(seconds for _, seconds in answers))
            wait_for(lambda: len(list(tmp_path.glob("*/*.jsonl"))) % 4 >= 2)
            later += [fastcgi(address, page, f"PHPSESSID={visitor}")[1] for _ in range(2)]
            wait_for(lambda: len(list(tmp_path.glob("*/*.jsonl"))) % 4 == 0)
        assert min(slowest) < TIMEOUT / 2
        assert min(later) < TIMEOUT / 2
    assert (tmp_path / "log").read_text().count("push: The push server is away.") == 3


# The connection test


def statuses(site: Site) -> dict[str, str]:
    return {name: check[0] for name, check in site.request(("testConnection",)).results[0].items()}


def messages(site: Site) -> dict[str, str]:
    return {name: check[1] for name, check in site.request(("testConnection",)).results[0].items()}


def test_the_connection_test_says_that_all_is_well(site: Site) -> None:
    assert statuses(site) == {
        "settings": "ok", "names": "ok", "port": "ok", "tls": "skipped", "push_host": "ok",
        "agent_cluster": "ok", "frame": "ok", "token_key": "ok", "forwarded": "ok",
        "streaming": "ok", "api_private": "ok", "versions": "ok", "api": "ok", "api_key": "ok",
        "clock": "ok", "speed": "ok", "spool": "ok", "after_response": "warning",
    }


def test_the_connection_test_knows_that_localhost_is_this_machine(
    make_site: MakeSite, push: PushServer
) -> None:
    # Nobody stands in between: that the server sees 127.0.0.1 is as it should be.
    # Without curl, PHP may not find the name: then this is skipped.
    found = statuses(make_site(url=f"http://push.site.localhost:{push.port}"))
    assert found["forwarded"] == ("skipped" if found["names"] == "warning" else "ok")


def test_the_connection_test_names_the_wrong_key(make_site: MakeSite) -> None:
    site = make_site(api_key="whsec_" + "A" * 43 + "=", token_key="x" * 32)
    found = statuses(site)
    assert (found["api"], found["api_key"], found["token_key"]) == ("ok", "error", "error")
    assert "'api_key' must be one of its api_keys" in messages(site)["api_key"]
    assert "'token_key' must be one of its token_keys" in messages(site)["token_key"]


def test_the_connection_test_names_the_hop_that_fails(
    make_site: MakeSite, push: PushServer
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    site = make_site(api=away, url=away, spool="/dev/null/spool")
    found, said = statuses(site), messages(site)
    assert found["api"] == found["spool"] == "error"
    assert found["port"] == "warning"  # browsers may take another way
    assert {found[name] for name in ("speed", "clock", "api_key", "token_key")} == {"skipped"}
    assert f"'api' = {away}" in said["api"]
    assert f"'url' = {away}" in said["port"]
    assert "setting spool" in said["spool"]
    swapped = make_site(api=f"http://127.0.0.1:{push.port}")
    assert statuses(swapped)["api"] == "error"
    assert "is not the internal listener" in messages(swapped)["api"]
    with listening(hang) as port:
        assert "in time" in messages(make_site(api=f"http://127.0.0.1:{port}"))["api"]


@pytest.mark.parametrize("skew", [-400, 400])
def test_the_connection_test_names_the_clocks(make_site: MakeSite, skew: int) -> None:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + skew))
    body = b'{"error":{"code":"signature_invalid","message":"No."}}'

    def refuse(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(
            f"HTTP/1.1 401 X\r\nDate: {date}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode() + body
        )

    with listening(refuse) as port:
        site = make_site(api=f"http://127.0.0.1:{port}")
        assert statuses(site)["clock"] == "error"
        assert ("ahead" if skew > 0 else "behind") in messages(site)["clock"]
        assert "clocks of this host and of the push server differ" in messages(site)["api_key"]


# The example, and the page that teaches it


class Browser:
    """A visitor of the site, with cookies."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(CookieJar())
        )

    def open(self, path: str, **form: str) -> tuple[int, str]:
        """Status and text of a page, after redirects."""
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            with self._opener.open(self._address + path, data, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@contextlib.contextmanager
def served(
    folder: Path, push: PushServer, temporary: Path, command: str | None = None
) -> Iterator[str]:
    """Address of a site in this folder; PHP's own web server, with the four settings."""
    port = str(free_port())
    settings = {f"PUSH_{name.upper()}": value for name, value in settings_of(push).items()}
    command = (command or "php -S 127.0.0.1:8080").replace("8080", port)
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        cwd=folder,
        env={**os.environ, **settings, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_up(process, lambda: listens(int(port)))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def story(address: str, push: PushServer) -> None:
    """Two visitors log in; one publishes, both hear it; one logs out, the other stays."""
    alice, bob = Browser(address), Browser(address)
    assert alice.open("/token.php") == (401, "")
    for visitor, name in ((alice, "alice"), (bob, "bob")):
        status, page = visitor.open("/index.php", do="log in", user=name)
        assert status == 200
        assert f"You are {name}." in page
        # Its own copy, so that no page waits for the push server.
        assert '<script src="/push.js">' in page
        assert "Push.connect" in visitor.open("/push.js")[1]
    tokens = [push.remember(visitor.open("/token.php")[1]) for visitor in (alice, bob)]
    assert tokens[0] != tokens[1]
    with push.stream(tokens[0], "news") as one, push.stream(tokens[1], "news") as other:
        text = "Grüße <b>"
        assert bob.open("/index.php", do="save", text=text)[0] == 200
        for listener in (one, other):
            assert listener.take(1)[0].value["data"] == {"user": "bob", "text": text}
        alice.open("/index.php", do="log out")
        one.control("revoked")
        bob.open("/index.php", do="save", text="still here")
        assert other.take(1)[0].value["data"]["text"] == "still here"
    assert alice.open("/token.php")[0] == 401
    assert push.get("/subscribe/poll", token=tokens[0]).status == 401


def test_the_example(push: PushServer, tmp_path: Path) -> None:
    with served(EXAMPLE, push, tmp_path) as address:
        story(address, push)


def test_the_example_without_a_push_server(tmp_path: Path) -> None:
    nobody = PushServer()
    try:
        with served(EXAMPLE, nobody, tmp_path) as address:
            visitor = Browser(address)
            assert "You are eve." in visitor.open("/index.php", do="log in", user="eve")[1]
            assert visitor.open("/index.php", do="save", text="nobody listens")[0] == 200
            assert visitor.open("/token.php")[0] == 200
    finally:
        shutil.rmtree(nobody.folder)


def test_the_page_about_php_does_what_it_says(push: PushServer, tmp_path: Path) -> None:
    tree = publish_doctree(
        (ROOT / "docs/php.rst").read_text("utf-8"),
        settings_overrides={"report_level": 1, "halt_level": 1, "syntax_highlight": "none"},
    )
    blocks: dict[str, list[str]] = {}
    for block in tree.findall(nodes.literal_block):
        blocks.setdefault(block["classes"][-1], []).append(block.astext())
    copy, exports, check, start, drain = blocks["sh"]
    push_php, token_php, publish, logout, logout_all = blocks["php"]
    folder, temporary = tmp_path / "site", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    printed = {f"PUSH_{name.upper()}": value for name, value in settings_of(push).items()}
    assert re.findall(r"export (\w+)=", exports) == list(printed)
    environment = {
        **os.environ, **printed, "PUSH_SOURCE": str(ROOT), "TMPDIR": str(temporary),
    }

    def shell(code: str) -> str:
        return subprocess.run(
            ["sh", "-euc", code],
            cwd=folder, env=environment, capture_output=True, text=True, check=True,
            timeout=PATIENCE,
        ).stdout

    shell(copy)
    lines = shell(check).splitlines()
    told = {name: status for name, status, _ in (line.split(": ", 2) for line in lines)}
    assert len(told) == len(lines) > 10
    assert {name: status for name, status in told.items() if status != "ok"} == {
        "tls": "skipped", "after_response": "warning",
    }
    for name, text in (("push.php", push_php), ("token.php", token_php)):
        (folder / name).write_text(text + "\n")
        example = (EXAMPLE / name).read_text().replace("/../../client/", "/client/")
        assert (folder / name).read_text() == example
    index = (EXAMPLE / "index.php").read_text()
    assert logout in index
    assert publish.partition("[")[0] in index
    (script,) = re.findall(r"  push\.subscribe\(.*?\n  \}\);\n", index, re.DOTALL)
    assert script in blocks["html"][0] + "\n"
    *copies, serve = start.splitlines()
    shell("\n".join(copies))
    shell(f"php -r 'require \"push.php\"; {logout_all}'")
    with served(folder, push, temporary, serve) as address:
        story(address, push)
    assert shell(drain) == ""
