"""The doctor without a patient: the order of the checks, what is printed, and what is refused."""

import ast
import json
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from graphlib import TopologicalSorter
from http.client import HTTPMessage, HTTPResponse
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from harness import PushServer
from ports import free_port

from push_server.casts import Address
from push_server.channels import ChannelSet
from push_server.config_load import load_settings
from push_server.doctor import (
    dialects,
    examine,
    findings,
    house_call,
    keys,
    pages,
    probe,
    report,
    streams,
)
from push_server.doctor.examine import Examination, Result
from push_server.doctor.findings import Check, Finding, doubtful, good, skipped, wrong
from push_server.doctor.table import CHECKS
from push_server.doctor.visit import Visit
from push_server.settings import Settings, SettingsError
from push_server.signatures import ApiKey

ROOT = Path(__file__).resolve().parent.parent
VISIT = Visit("http://push.example.com")


def says(*findings: Finding) -> Callable[[Visit], Iterator[Finding]]:
    return lambda _visit: iter(findings)


def breaks(_visit: Visit) -> Iterator[Finding]:
    yield good("so far")
    raise ArithmeticError("a fault of the test")


released = threading.Event()


def hangs(_visit: Visit) -> Iterator[Finding]:
    released.wait(30)
    yield good("late")


def statuses(*checks: Check) -> dict[str, str]:
    return {run.check.name: str(run.status) for run in Examination(VISIT, checks).run()}


def test_what_needs_a_failed_check_is_skipped() -> None:
    assert statuses(
        Check("last", "", says(good("")), ("middle",)),
        Check("middle", "", says(good("")), ("first",)),
        Check("first", "", says(good(""), wrong("", ""))),
        Check("other", "", says(doubtful("", ""))),
        Check("after a doubt", "", says(good("")), ("other",)),
        Check("nothing to see", "", says(skipped(""))),
        Check("after nothing", "", says(good("")), ("nothing to see",)),
        Check("later", "", says(good("")), after=("first",)),
    ) == {
        "last": "skipped", "middle": "skipped", "first": "error", "other": "warning",
        "after a doubt": "ok", "nothing to see": "skipped", "after nothing": "ok",
        "later": "ok",
    }


def test_the_first_fault_is_named_to_all_behind_it() -> None:
    checks = [Check("a", "", says(wrong("", ""))), Check("b", "", says(good("")), ("a",)),
              Check("c", "", says(good("")), ("b",))]
    results = Examination(VISIT, checks).run()
    assert [result.findings[0].seen for result in results[1:]] == ["first a", "first a"]


def test_a_check_that_breaks_hides_no_other() -> None:
    results = Examination(VISIT, [
        Check("broken", "", breaks), Check("sound", "", says(good("")))]).run()
    assert [str(result.status) for result in results] == ["error", "ok"]
    assert "a fault of the test" in results[0].findings[1].seen


def test_nobody_waits_for_a_check_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "SECONDS", 0.1)
    began = time.monotonic()
    try:
        assert statuses(
            Check("hung", "", hangs), Check("behind", "", says(good("")), ("hung",))
        ) == {"hung": "error", "behind": "skipped"}
        assert time.monotonic() - began < 10
    finally:
        released.set()


def test_the_table_is_in_order() -> None:
    TopologicalSorter({check.name: check.needs + check.after for check in CHECKS}).prepare()
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert {needed for check in CHECKS for needed in check.needs + check.after} <= set(names)
    # The manual has them in the same order.
    manual = (ROOT / "docs/doctor.rst").read_text("utf-8")
    assert re.findall(r"^``([a-z_]+)``$", manual, re.MULTILINE) == names


RESULTS = [
    examine.Result(
        CHECKS[0], [good("fine"), wrong("a\x1b[2Jb\nc", "d", "push-server.toml", "e = 1")]
    ),
    examine.Result(CHECKS[1], [skipped("why")]),
]


def test_the_text_names_what_was_expected_and_what_to_paste() -> None:
    text = "\n".join(report.as_text(VISIT, RESULTS, 1.25, colours=False))
    assert "\x1b" not in text
    assert "  ok       settings      fine\n" in text
    # What came over the network does not steer the terminal.
    assert (
        "  FAILED                 a?[2Jb?c\n           expected: d\n"
        "           push-server.toml:\n               e = 1\n"
    ) in text
    assert text.endswith("\n1 failed, 0 warnings, 0 ok, 1 skipped; 1.2 seconds")


def remedies_for_nginx() -> Iterator[tuple[str, str]]:
    """Every place and line for nginx in the checks, as they stand in the source."""
    for path in sorted((ROOT / "push_server/doctor").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            parts = getattr(node, "args", None) or getattr(node, "elts", None) or []
            for place, paste in pairwise(parts if isinstance(parts, list) else []):
                if isinstance(place, ast.Name) and place.id in vars(findings) and (
                    isinstance(paste, ast.Constant | ast.JoinedStr)
                ):
                    yield getattr(findings, place.id), re.sub(
                        r"\{SAFE\}|\{HEADER\}|\{.*?\}",
                        lambda hole: {"{SAFE}": "75", "{HEADER}": pages.HEADER}.get(hole[0], "x"),
                        ast.unparse(paste).removeprefix("f")[1:-1],
                    )


@pytest.mark.parametrize("server", ["Apache/2.4.57 (Debian)", "Caddy"])
def test_every_line_for_nginx_is_known_to_the_others(server: str) -> None:
    found = [pair for pair in remedies_for_nginx() if "nginx" in pair[0]]
    assert len(found) >= 15
    for place, paste in found:
        fault = wrong("", "", place, paste)
        told = dialects.in_words_of(server, fault)
        assert server.split("/")[0] in told.place, paste
        assert told.paste != paste
        assert dialects.in_words_of("nginx/1.22.1", fault) == fault
    shell = wrong("", "", "a root shell", "reboot")
    assert dialects.in_words_of(server, shell) == shell


def test_site_and_push_host_may_have_different_servers() -> None:
    check = Check("", "", says())
    faults = [wrong("", "", findings.NGINX, "gzip off;"),
              wrong("", "", findings.NGINX_SITE, "include snippets/push-cms-headers.conf;")]
    (result,) = dialects.translated([Result(check, faults)], "Apache", "Caddy")
    assert [fault.paste for fault in result.findings] == [
        "SetEnv no-gzip 1", "header Origin-Agent-Cluster ?0"]


def test_colours_are_around_the_word_alone() -> None:
    plain = list(report.as_text(VISIT, RESULTS, 1, colours=False))
    coloured = list(report.as_text(VISIT, RESULTS, 1, colours=True))
    assert "\x1b[1;31mFAILED   \x1b[0m" in "".join(coloured)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain


def test_the_json_has_it_all() -> None:
    told = json.loads(report.as_json(VISIT, RESULTS, 1.25))
    assert (told["ok"], told["url"], told["seconds"]) == (False, VISIT.url, 1.25)
    assert [check["status"] for check in told["checks"]] == ["error", "skipped"]
    assert told["checks"][0]["findings"][1] == {
        "status": "error", "seen": "a\x1b[2Jb\nc", "expected": "d",
        "place": "push-server.toml", "paste": "e = 1",
    }


# The command.


def doctor(*options: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    known = {name: value for name, value in os.environ.items() if not name.startswith("PUSH_")}
    return subprocess.run(
        [sys.executable, "-m", "push_server", "doctor", *options], cwd=cwd,
        env={**known, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True, text=True, check=False, timeout=60,
    )


@pytest.mark.parametrize(
    ("options", "environ", "says"),
    [
        ([], {}, "--url: no configuration is here"),
        (["--url", "push.example.com"], {}, "--url: needs an origin"),
        (["--url", "http://a.example", "--site", "https://b.example/x"], {}, "--site: needs an"),
        ([], {"PUSH_URL": "push"}, "PUSH_URL: needs an origin"),
        ([], {"PUSH_URL": "http://a.example", "PUSH_API": "unix:api"}, "PUSH_API: needs"),
        ([], {"PUSH_URL": "http://a.example", "PUSH_API": "127.0.0.1:6667"}, "PUSH_API: needs"),
        ([], {"PUSH_URL": "http://a.example", "PUSH_API_KEY": "x"}, "PUSH_API_KEY: an API key"),
        ([], {"PUSH_URL": "http://a.example", "PUSH_TOKEN_KEY": "x"}, "PUSH_TOKEN_KEY: every"),
        (["--config", "none.toml"], {}, "config: cannot read none.toml"),
    ],
)
def test_it_cannot_look(
    options: list[str], environ: dict[str, str], says: str, tmp_path: Path
) -> None:
    done = doctor(*options, cwd=tmp_path, **environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(
    tmp_path: Path, environ: dict[str, str], coloured: bool
) -> None:
    leader, terminal = pty.openpty()
    url = f"http://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "push_server", "doctor", "--url", url], cwd=tmp_path,
        stdout=terminal, env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
    )
    os.close(terminal)
    said = b""
    try:
        while piece := os.read(leader, 4096):
            said += piece
    except OSError:
        pass  # how a terminal says that nobody writes any more
    os.close(leader)
    assert process.wait(10) == 1
    assert (b"\x1b[" in said) == coloured
    assert b"connection refused" in said


def test_a_server_with_nothing_in_front(tmp_path: Path) -> None:
    server = PushServer(
        broker="sqlite", document_domain="", internal_listen=f"unix:{tmp_path}/api.sock"
    )
    # Under a name that no resolver needs to know.
    server.settings.update(site_origins=[server.settings["public_url"]])
    with server:
        server.config_file.chmod(0o600)
        done = doctor("--config", str(server.config_file), "--json", cwd=server.folder)
    found = {check["name"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert found.pop("broker") in ("ok", "warning")
    away = {"redirect", "tls", "agent_cluster", "idle", "kernel"}
    assert {name for name, status in found.items() if status != "ok"} <= away, done.stdout
    assert done.returncode == 0


def test_a_silent_connection_and_one_with_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST_POLL", 1)  # in place of a minute
    server = PushServer(heartbeat=1)
    origin = f"http://127.0.0.1:{server.port}"
    server.settings.update(public_url=origin, site_origins=[origin], document_domain="")
    with server:
        visit = house_call.on_push_host(load_settings(str(server.config_file), {}), "", "", [])
        visit.idle, visit.token_taken, visit.heartbeat = True, True, 1.0
        assert [finding.seen for finding in streams.idle(visit)] == [
            "the way keeps a connection that is silent for 1 seconds",
            "heartbeats keep a stream open, one every 1 s",
        ]


def test_an_answer_that_closes_with_its_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does from Python 3.13 on."""
    read1 = HTTPResponse.read1

    def read_and_close(response: HTTPResponse, size: int) -> bytes:
        piece = read1(response, size)
        if response.length == 0:
            response.close()
        return piece

    def serve(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.recv(4096)
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    monkeypatch.setattr(HTTPResponse, "read1", read_and_close)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        port = listener.getsockname()[1]
        assert probe.ask(probe.Origin("http", "127.0.0.1", port), "/").body == b"ok"
        server.join()


# What is known at the door.

SECRET = "whsec_" + "A" * 43 + "="


def test_the_settings_of_a_cms_are_taken_as_php_takes_them() -> None:
    environ = {
        "PUSH_URL": "https://push.example.com/", "PUSH_API": "http://10.0.0.81:6667/api",
        "PUSH_TOKEN_KEY": f"{'a' * 30} {'b' * 30}", "PUSH_API_KEY": f"{SECRET}\n{SECRET}",
    }
    visit = house_call.elsewhere(environ, "", [])
    assert (visit.url, str(visit.api)) == ("https://push.example.com", "http://10.0.0.81:6667")
    assert (visit.token_keys, visit.api_key) == (["a" * 30, "b" * 30], bytes(32))
    assert house_call.elsewhere({"PUSH_API": "unix:/run/api.sock"}, "http://a.b", []).api == (
        "http", "", 0, "/run/api.sock")


def settings(**changes: Any) -> Settings:
    return replace(Settings(), **changes)


def test_where_browsers_go_if_nobody_says_it() -> None:
    on_port = house_call.on_push_host(settings(listen=(Address("0.0.0.0", 6660),)), "", "", [])
    assert on_port.url == "http://127.0.0.1:6660"
    hidden = settings(listen=(Address(path="/run/push.sock"),))
    with pytest.raises(SettingsError, match=r"^public_url: needed"):
        house_call.on_push_host(hidden, "", "", [])
    assert house_call.on_push_host(hidden, "", "http://a.b", []).url == "http://a.b"


def test_the_key_for_all_channels_is_taken() -> None:
    known = {"chat": ApiKey("chat", b"c" * 32, ChannelSet.of(["chat:*"])),
             "cms": ApiKey("cms", b"a" * 32)}
    assert house_call.on_push_host(settings(api_keys=known), "", "", []).api_key == b"a" * 32


@pytest.mark.parametrize(
    ("seen", "source", "peer", "hidden"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "198.51.100.81", "198.51.100.81", True),
        ("::1", "2001:db8::11", "2001:db8::81", True),
        # From home, through a router, to a server behind a proxy on another machine.
        ("10.0.0.5", "192.168.1.2", "93.184.215.14", True),
        ("8.8.8.8", "192.168.1.2", "93.184.215.14", False),
        ("192.168.1.9", "192.168.1.9", "192.168.1.81", False),
    ],
)
def test_whose_address_the_server_sees(seen: str, source: str, peer: str, hidden: bool) -> None:
    assert keys._is_closer(seen, source, peer) is hidden


@pytest.mark.parametrize(
    ("location", "origin"),
    [
        ("https://example.com/x?y", "https://example.com"),
        ("HTTPS://Example.COM", "https://example.com"),
        ("/elsewhere", ""),
        ("https://example.com:443/", ""),
        ('https://a"; rm -rf /; "/', ""),
        ("javascript://x", ""),
    ],
)
def test_where_an_answer_leads(location: str, origin: str) -> None:
    headers = HTTPMessage()
    headers["Location"] = location
    assert probe.redirected(probe.Answer(301, headers, b"", "")) == origin
    assert probe.redirected(probe.Answer(200, headers, b"", "")) == ""
