"""The webhooks: what the CMS is told, in which order, and that nothing it does harms anybody."""

import json
import logging
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from formulas import sign_webhook
from harness import PushServer
from ports import free_port
from waiting import PATIENCE, PROMPT, wait_for

from push_server import webhooks
from push_server.config_load import load_settings
from push_server.doctor import house_call, streams
from push_server.signatures import decode_secret
from push_server.webhooks import SNAPSHOT_SECONDS, Sender, Webhooks

KEY = "whsec_" + "AQID" * 11

Behave = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, **headers: str) -> Behave:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x00\xff" * 100 + b"\r\n\r\n")
    handler.close_connection = True


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 70_000)
    handler.close_connection = True


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, never an end."""
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    end = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < end:
            handler.wfile.write(b"x")
            time.sleep(0.02)
    except OSError:
        pass


class Cms:
    """A web server that records what it is told; the last behaviour is for all that follow."""

    def __init__(self, *behaviours: Behave, port: int = 0, tls: ssl.SSLContext | None = None):
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[dict[str, Any]] = []
        """The events of what was answered 2xx, each request once."""
        waiting = [*behaviours] or [answer(204)]
        cms = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                cms.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
                behave = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                self.status = 0
                behave(self)
                if 200 <= self.status < 300:
                    cms.taken += json.loads(body)["events"]

            def do_GET(self) -> None:
                raise AssertionError("a redirect was followed")

            def send_response(self, code: int, message: str | None = None) -> None:
                self.status = code
                super().send_response(code, message)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/events"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "Cms":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def said(self) -> list[tuple[Any, ...]]:
        """Type and subject of what was taken, snapshots left out."""
        return [
            (event["type"], event.get("user") or event.get("channel") or event.get("gone"))
            for event in self.taken
            if event["type"] != "snapshot"
        ]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "RETRY_SECONDS", (0.01, 0.05))


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Webhooks]]:
    made: list[Webhooks] = []

    def build(url: str) -> Webhooks:
        hooks = Webhooks(url, decode_secret(KEY), "0a1b2c", 3.0, Counter())
        hooks.start()
        made.append(hooks)
        return hooks

    yield build
    for hooks in made:
        hooks.close()


def counts(hooks: Webhooks) -> Counter[str]:
    return hooks._sender._counts


def sender(url: str) -> Sender:
    started = Sender(url, decode_secret(KEY), "0a1b2c", Counter())
    started.start()
    return started


def events(*numbers: int) -> list[dict[str, Any]]:
    return [{"number": number, "type": "test"} for number in numbers]


def numbers(cms: Cms) -> list[int]:
    return [event["number"] for event in cms.taken]


# What is reported.


def test_users_and_channels_come_and_go(make: Callable[[str], Webhooks]) -> None:
    with Cms() as cms:
        hooks = make(cms.url)
        hooks.enter("42", "Ann", ["user:42", "node:7"], 0)
        hooks.enter("42", "Ann", ["user:42", "node:7"], 1)
        hooks.enter("43", "", ["user:43", "node:7", "node:8"], 1)
        hooks.leave("42", ["user:42", "node:7"], 2)
        hooks.tick(6)
        hooks.leave("42", ["user:42", "node:7"], 6)
        hooks.leave("43", ["user:43", "node:7", "node:8"], 7)
        hooks.tick(8.9)
        hooks.tick(9)
        hooks.tick(10)
        expected = [
            ("user.online", "42"),
            ("channel.occupied", "node:7"),
            ("user.online", "43"),
            ("channel.occupied", "node:8"),
            ("user.offline", "42"),
            ("user.offline", "43"),
            ("channel.vacated", "node:7"),
            ("channel.vacated", "node:8"),
        ]
        # The first snapshot may have replaced what came before it.
        wait_for(lambda: len(cms.said) and cms.said[-1] == expected[-1])
        assert cms.said == expected[-len(cms.said) :]
        taken = numbers(cms)
        assert taken == sorted(taken)


def test_who_comes_back_in_time_has_not_left(make: Callable[[str], Webhooks]) -> None:
    with Cms() as cms:
        hooks = make(cms.url)
        hooks.tick(0)
        hooks.enter("42", "", ["user:42", "node:7"], 0)
        for now in range(1, 20, 2):
            hooks.leave("42", ["user:42", "node:7"], now)
            hooks.tick(now + 1)
            hooks.enter("42", "", ["user:42", "node:7"], now + 1)
        hooks.gone("other")
        wait_for(lambda: ("node.gone", "other") in cms.said)
        assert cms.said == [
            ("user.online", "42"),
            ("channel.occupied", "node:7"),
            ("node.gone", "other"),
        ]


def test_who_enters_and_leaves_channels_was_there_before(make: Callable[[str], Webhooks]) -> None:
    with Cms() as cms:
        hooks = make(cms.url)
        hooks.tick(0)
        hooks.enter("42", "", ["user:42"], 0)
        hooks.enter("42", "", ["node:7"], 1)
        hooks.leave("42", ["node:7"], 2)
        hooks.tick(10)
        hooks.enter("42", "", ["$no webhook"], 10)
        hooks.leave("42", ["user:42", "$no webhook"], 11)
        hooks.tick(20)
        wait_for(lambda: ("user.offline", "42") in cms.said)
        assert cms.said == [
            ("user.online", "42"),
            ("channel.occupied", "node:7"),
            ("channel.vacated", "node:7"),
            ("user.offline", "42"),
        ]


def test_anonymous_visitors_and_the_house_are_no_users(make: Callable[[str], Webhooks]) -> None:
    with Cms() as cms:
        hooks = make(cms.url)
        hooks.tick(0)
        for user, channel in (("0", "node:7"), ("$ready", "$ready")):
            hooks.enter(user, "", [f"user:{user}", channel], 0)
        for user, channel in (("0", "node:7"), ("$ready", "$ready")):
            hooks.leave(user, [f"user:{user}", channel], 0)
        hooks.tick(3)
        wait_for(lambda: len(cms.said) == 2)
        assert cms.said == [("channel.occupied", "node:7"), ("channel.vacated", "node:7")]


def test_a_snapshot_at_the_start_and_every_hour(make: Callable[[str], Webhooks]) -> None:
    with Cms() as cms:
        hooks = make(cms.url)
        hooks.tick(100)
        hooks.tick(101)
        wait_for(lambda: cms.taken)
        for index in range(1500):
            hooks.enter(f"u{index}", "", [f"user:u{index}", "node:7"], 101)
        wait_for(lambda: len(cms.taken) == 1502)
        hooks.tick(99 + SNAPSHOT_SECONDS)
        hooks.tick(100 + SNAPSHOT_SECONDS)
        wait_for(lambda: len(cms.taken) == 1504)
        first, *_, one, two = cms.taken
        assert first["users"] == first["channels"] == [] and first["parts"] == 1
        assert (one["part"], two["part"], one["parts"], two["parts"]) == (1, 2, 2, 2)
        assert one["users"] + two["users"] == [f"u{index}" for index in range(1500)]
        assert one["channels"] + two["channels"] == ["node:7"]
        assert numbers(cms) == list(range(1, 1505))
        # Each part of a snapshot is a request of its own.
        assert [len(json.loads(body)["events"]) for _, body in cms.requests[-2:]] == [1, 1]
        assert all(len(json.loads(body)["events"]) <= 100 for _, body in cms.requests)


def test_too_much_that_waits_is_replaced_by_a_snapshot(
    make: Callable[[str], Webhooks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "QUEUE_EVENTS", 50)
    port = free_port()
    hooks = make(f"http://127.0.0.1:{port}/events")
    hooks.tick(0)
    wait_for(lambda: counts(hooks)["webhooks.failed"])
    for index in range(200):
        hooks.enter(f"u{index}", "", [f"user:u{index}"], 1)
        hooks.tick(1)
        assert hooks._sender.waiting <= 52
    with Cms(port=port) as cms:
        hooks.enter("last", "", ["user:last"], 1)
        wait_for(lambda: ("user.online", "last") in cms.said)
        known: set[str] = set()
        for event in cms.taken:
            if event["type"] == "snapshot":
                known = set(event["users"])
            else:
                known.add(event["user"])
        assert known == {*(f"u{index}" for index in range(200)), "last"}
        taken = numbers(cms)
        assert taken == sorted(taken) and len(taken) < 60
    assert counts(hooks)["webhooks.replaced"] + len(taken) == taken[-1]


# How it is sent.


def test_every_request_is_signed_with_the_key() -> None:
    with Cms() as cms:
        out = sender(cms.url)
        out.put([{"number": 7, "type": "user.online", "user": "42", "time": 1}])
        wait_for(lambda: cms.taken)
        out.close()
    (headers, body), = cms.requests
    assert headers["webhook-id"] == "0a1b2c-7"
    assert headers["content-type"] == "application/json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 5
    assert headers["webhook-signature"] == sign_webhook(
        KEY, headers["webhook-id"], headers["webhook-timestamp"], body
    )
    assert json.loads(body) == {
        "node": "0a1b2c",
        "events": [{"number": 7, "type": "user.online", "user": "42", "time": 1}],
    }


def test_the_library_of_the_standard_verifies_it() -> None:
    standard = pytest.importorskip("standardwebhooks")
    with Cms() as cms:
        out = sender(cms.url)
        out.put(events(1))
        wait_for(lambda: cms.taken)
        out.close()
    headers, body = cms.requests[0]
    assert standard.Webhook(KEY).verify(body, headers)["node"] == "0a1b2c"


BAD = {
    "error": answer(500),
    "refusal": answer(400),
    "redirect": answer(307, Location="/elsewhere"),
    "see other": answer(303, Location="/elsewhere"),
    "garbage": garbage,
    "endless": endless,
    "drip": drip,
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_taken_is_sent_again_in_order(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "CALL_SECONDS", 0.3)
    caplog.set_level(logging.INFO)
    with Cms(answer(204), BAD[kind], BAD[kind], BAD[kind], answer(200)) as cms:
        out = sender(cms.url)
        out.put(events(1))
        wait_for(lambda: cms.taken)
        out.put(events(2))
        wait_for(lambda: len(cms.requests) > 1)
        started = time.monotonic()
        out.put(events(3))
        out.put(events(4))
        assert time.monotonic() - started < PROMPT
        wait_for(lambda: len(cms.taken) == 4)
        out.close()
        assert numbers(cms) == [1, 2, 3, 4]
        ids = [headers["webhook-id"] for headers, _ in cms.requests]
        assert ids == ["0a1b2c-1", *["0a1b2c-2"] * 4, "0a1b2c-3"]
        assert len({body for _, body in cms.requests[1:5]}) == 1
    told = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in told] == ["event=webhook.down", "event=webhook.up"]
    assert "failures=3" in told[1]
    assert out._counts == {"webhooks.sent": 4, "webhooks.failed": 3, "webhooks.replaced": 0}


def test_nobody_there_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    out = sender(f"http://127.0.0.1:{port}/events")
    for number in range(1, 251):
        out.put(events(number))
    wait_for(lambda: out._counts["webhooks.failed"] > 3)
    with Cms(port=port) as cms:
        wait_for(lambda: len(cms.taken) == 250)
        out.close()
        assert numbers(cms) == list(range(1, 251))
        assert len(cms.requests) <= 4
    assert sum("webhook.down" in record.getMessage() for record in caplog.records) == 1


def test_a_snapshot_gets_past_what_is_never_taken() -> None:
    with Cms() as good, Cms(answer(400)) as cms:
        out = sender(cms.url)
        out.put(events(1))
        out.put(events(2))
        wait_for(lambda: out._counts["webhooks.failed"] > 2)
        out.put([{"number": 3, "type": "snapshot"}], replace=True)
        wait_for(lambda: json.loads(cms.requests[-1][1])["events"][0]["number"] == 3)
        assert good.requests == []
        out.close()


def test_the_end_is_told_and_never_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "PARTING_SECONDS", 0.5)
    with Cms() as cms:
        hooks = Webhooks(cms.url, decode_secret(KEY), "0a1b2c", 3.0, Counter())
        hooks.start()
        hooks.close()
        wait_for(lambda: cms.said == [("node.stopped", None)])
        assert not hooks._sender._thread.is_alive()
    with Cms(answer(500)) as cms:
        hooks = Webhooks(cms.url, decode_secret(KEY), "0a1b2c", 3.0, Counter())
        hooks.start()
        hooks.tick(0)
        wait_for(lambda: len(cms.requests) > 2)
        hooks.close()
        assert not hooks._sender._thread.is_alive()
    with Cms(drip) as cms:
        hooks = Webhooks(cms.url, decode_secret(KEY), "0a1b2c", 3.0, Counter())
        hooks.start()
        hooks.tick(0)
        wait_for(lambda: cms.requests)
        started = time.monotonic()
        hooks.close()
        assert time.monotonic() - started < PROMPT
        hooks._sender._thread.join(PATIENCE)


def test_what_nobody_foresaw_does_not_end_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cms() as cms:
        out = sender(cms.url)
        with monkeypatch.context() as patch:
            patch.setattr(out._caller, "post", lambda *_: 1 / 0)
            out.put(events(1))
            wait_for(lambda: out._counts["webhooks.failed"])
        wait_for(lambda: cms.taken)
        out.close()


# With TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    command += " -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    command += f" -keyout {path} -out {path}c"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=20)
    path.write_bytes(path.read_bytes() + Path(f"{path}c").read_bytes())
    return path


@pytest.mark.parametrize("behave", [answer(204), drip])
def test_over_tls(behave: Behave, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "CALL_SECONDS", 0.5)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Cms(behave, answer(204), tls=context) as cms:
        stranger = sender(cms.url)
        stranger.put(events(1))
        wait_for(lambda: stranger._counts["webhooks.failed"])
        stranger.close()
        assert cms.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        friend = sender(cms.url)
        friend.put(events(1))
        wait_for(lambda: cms.taken, 5)
        friend.close()


def test_a_certificate_of_another_name(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is good for 127.0.0.1, and not for the name that leads there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Cms(answer(204), tls=context) as cms:
        sending = sender(cms.url.replace("127.0.0.1", "localhost"))
        sending.put(events(1))
        wait_for(lambda: sending._counts["webhooks.failed"])
        sending.close()
        assert cms.requests == []


# The server as a whole.


def test_the_cms_of_a_server(push_server_factory: Callable[..., PushServer]) -> None:
    with Cms() as cms:
        push = push_server_factory(webhook_url=cms.url, webhook_key=KEY, presence_grace=0.2)
        push.remember(KEY)
        wait_for(lambda: cms.taken)
        # The doctor comes by, and is nobody who comes online.
        url = f"http://127.0.0.1:{push.port}"
        visit = house_call.on_push_host(load_settings(str(push.config_file), {}), "", url, [])
        visit.token_taken = True
        (finding,) = streams.streaming(visit)
        assert "3 publications came one by one" in finding.seen
        with push.stream(push.token("42"), "node:7"), push.stream(push.token("42"), "node:7"):
            wait_for(lambda: len(cms.said) == 2)
        wait_for(lambda: len(cms.said) == 4)
        assert cms.said == [
            ("user.online", "42"),
            ("channel.occupied", "node:7"),
            ("user.offline", "42"),
            ("channel.vacated", "node:7"),
        ]
        assert push.api("stats")["webhooks.sent"] == 5
        push.terminate()
        wait_for(lambda: cms.taken[-1]["type"] == "node.stopped")
        assert numbers(cms) == [1, 2, 3, 4, 5, 6]


def test_a_bad_cms_delays_no_stream(push_server_factory: Callable[..., PushServer]) -> None:
    with Cms(drip) as cms:
        push = push_server_factory(webhook_url=cms.url, webhook_key=KEY)
        with push.stream(push.token("42"), "node:7") as stream:
            wait_for(lambda: cms.requests)
            started = time.monotonic()
            for number in range(20):
                push.api("publish", channel="node:7", data=number)
            assert [message.value["data"] for message in stream.take(20)] == list(range(20))
            assert time.monotonic() - started < PROMPT
