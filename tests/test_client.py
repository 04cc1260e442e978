"""`push_server.client` against a server that misbehaves in every way, and against the real one."""

import base64
import contextlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from harness import PushServer

from push_server.client import InvalidCall, NoAnswer, PushClient, Refused, Unreachable
from push_server.signatures import decode_secret, sign

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
PUBLISHED = {"channel": "news", "epoch": 1, "offset": 7, "id": "a", "duplicate": False}
SLACK = 1.0
"""Seconds a loaded machine may add to a time limit."""

Behaviour = Callable[[socket.socket], object]
"""What to do with a request once it is read; the connection is kept if it returns `True`."""


def answer(body: object, status: int = 200, *, keep: bool = False) -> Behaviour:
    """Answer with JSON (or with bytes as they are)."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n"
    head += "\r\n" if keep else "Connection: close\r\n\r\n"

    def behave(peer: socket.socket) -> bool:
        peer.sendall(head.encode() + content)
        return keep

    return behave


def result(value: object) -> Behaviour:
    return answer({"result": value})


def error(code: str, status: int) -> Behaviour:
    return answer({"error": {"code": code, "message": "No."}}, status)


def cut(peer: socket.socket) -> None:
    """Close without a word."""


def hang(peer: socket.socket) -> None:
    """Say nothing until the client gives up."""
    peer.settimeout(5)
    with contextlib.suppress(OSError):
        peer.recv(1)


def drip(data: bytes) -> Behaviour:
    """One byte every 20 ms, for ever: each of them is in time, all of them together are not."""

    def behave(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for byte in data:
                peer.sendall(bytes([byte]))
                time.sleep(0.02)

    return behave


class Stub:
    """A server that treats its first request by the first behaviour, and so on; the last stays."""

    def __init__(self, *behaviours: Behaviour, path: str | None = None) -> None:
        self.behaviours = list(behaviours)
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.connections = 0
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.url = f"unix:{path}"
        else:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.listener.listen(16)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while request := self._read(peer):
                self.requests.append(request)
                number = min(len(self.requests), len(self.behaviours)) - 1
                if self.behaviours[number](peer) is not True:
                    return

    @staticmethod
    def _read(peer: socket.socket) -> tuple[dict[str, str], bytes] | None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = peer.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        fields[":line"] = lines[0]
        while len(body) < int(fields["content-length"]):
            body += peer.recv(65536)
        return fields, body

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block ends in this time."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds + SLACK


def refusing_url() -> str:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_request_is_signed_as_in_standard_webhooks() -> None:
    with Stub(result(PUBLISHED)) as stub, PushClient(stub.url, KEY, name="shop") as client:
        outcome = client.publish("news", {"é": 1}, id="a")
    assert outcome.ok
    assert outcome.unwrap().offset == 7
    headers, body = stub.requests[0]
    assert headers[":line"] == "POST /api HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].endswith(" shop")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(bytes(range(32)), signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 10
    assert json.loads(body) == {
        "method": "publish",
        "params": {"channel": "news", "data": {"é": 1}, "id": "a"},
    }
    assert body.isascii()


def test_signature_of_the_published_vector() -> None:
    body = b'{"method":"publish","params":{"channel":"news","data":{"n":1}}}'
    secret = decode_secret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    assert sign(secret, "msg_1", 1800000000, body) == (
        "v1,Oi2BRhAxOjYuEMIQkbnu2SwK8ggew+WITNYE+fdkjKg="
    )


@pytest.mark.parametrize(
    "first",
    [cut, error("unavailable", 503), answer(b"<html>oops</html>", 500), answer(b"\x00\xff{")],
    ids=["cut", "503", "500", "garbage"],
)
def test_retry_keeps_every_id(first: Behaviour) -> None:
    with Stub(first, result(PUBLISHED)) as stub, PushClient(stub.url, KEY, timeout=3) as client:
        assert client.publish("news", 1).ok
    (one, first_body), (two, second_body) = stub.requests
    assert one["webhook-id"] == two["webhook-id"]
    assert first_body == second_body
    assert json.loads(first_body)["params"]["id"]


def test_attempts_are_bounded() -> None:
    with Stub(error("unavailable", 503)) as stub, PushClient(stub.url, KEY, timeout=5) as client:
        outcome = client.publish("news", 1)
    assert len(stub.requests) == 3
    assert isinstance(outcome.error, Refused)
    assert (outcome.error.code, outcome.error.status) == ("unavailable", 503)
    assert outcome.error.temporary


@pytest.mark.parametrize("status", [400, 401, 403, 409, 413, 429, 507])
def test_what_is_refused_is_not_sent_again(status: int) -> None:
    with Stub(error("no", status)) as stub, PushClient(stub.url, KEY) as client:
        outcome = client.publish("news", 1)
    assert len(stub.requests) == 1
    assert isinstance(outcome.error, Refused)
    assert outcome.error.status == status
    assert outcome.error.temporary == (status in (429, 507))


@pytest.mark.parametrize(
    "behaviour",
    [
        hang,
        drip(b"HTTP/1.1 200 X\r\nX-Pad: " + b"x" * 1000),
        drip(b"HTTP/1.1 200 X\r\nContent-Length: 5000\r\n\r\n" + b" " * 5000),
        drip(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 500),
    ],
    ids=["hang", "slow head", "slow body", "slow chunks"],
)
def test_a_slow_server_costs_no_more_than_the_timeout(behaviour: Behaviour) -> None:
    with Stub(behaviour) as stub, PushClient(stub.url, KEY) as client, within(0.3):
        outcome = client.publish("news", 1, id="mine")
    assert isinstance(outcome.error, NoAnswer)
    assert outcome.error.code == "timeout"
    assert outcome.id == "mine"


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("push_server.calls.ANSWER_LIMIT", 10)
    with Stub(result(PUBLISHED)) as stub, PushClient(stub.url, KEY) as client:
        assert isinstance(client.publish("news", 1).error, NoAnswer)


def test_nobody_listens() -> None:
    with PushClient(refusing_url(), KEY) as client, within(0.3):
        outcome = client.publish("news", 1)
    assert isinstance(outcome.error, Unreachable)
    assert outcome.error.temporary
    assert not outcome.ok
    with pytest.raises(Unreachable):
        outcome.unwrap()


def test_a_full_backlog_costs_no_more_than_the_connect_timeout() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        client = stack.enter_context(
            PushClient(f"http://127.0.0.1:{address[1]}", KEY, attempts=1, timeout=3)
        )
        with within(0.1):
            outcome = client.publish("news", 1)
    assert isinstance(outcome.error, Unreachable)


def test_what_may_have_been_heard_is_not_called_unreachable() -> None:
    """The server takes the request, dies without an answer, and is then gone."""

    def die(peer: socket.socket) -> None:
        stub.close()

    with Stub(die, cut) as stub, PushClient(stub.url, KEY, timeout=2) as client:
        assert isinstance(client.publish("news", 1).error, NoAnswer)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"7", b"{}", b'{"result":7}', b'{"error":7}', b"[" * 5000],
    ids=["empty", "list", "null", "number", "object", "no object", "no error", "deep"],
)
def test_an_answer_that_is_none_is_no_answer(body: bytes) -> None:
    with Stub(answer(body)) as stub, PushClient(stub.url, KEY, attempts=1) as client:
        outcome = client.publish("news", 1)
    assert isinstance(outcome.error, NoAnswer)
    assert outcome.error.code == "answer_malformed"


def test_no_redirect_is_followed_and_no_proxy_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    elsewhere = b"HTTP/1.1 307 X\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
    with (
        Stub(lambda peer: peer.sendall(elsewhere)) as stub,
        PushClient(stub.url, KEY, attempts=1) as client,
    ):
        assert isinstance(client.publish("news", 1).error, NoAnswer)
        assert len(stub.requests) == 1


def test_connections_are_reused_and_a_stale_one_is_replaced() -> None:
    kept = answer({"result": PUBLISHED}, keep=True)
    with Stub(kept) as stub, PushClient(stub.url, KEY) as client:
        assert client.publish("news", 1).ok
        assert client.publish("news", 2).ok
        assert stub.connections == 1
    with Stub(kept, cut, result(PUBLISHED)) as stub:
        client = PushClient(stub.url, KEY)
        assert client.publish("news", 1).ok
        assert client.publish("news", 2).ok
        client.close()


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "api.sock")
    with PushClient(f"unix:{path}", KEY) as client:
        assert isinstance(client.publish("news", 1).error, Unreachable)
        with Stub(result(PUBLISHED), path=path) as stub:
            assert client.publish("news", 1).ok
            assert stub.requests[0][0][":line"] == "POST /api HTTP/1.1"


def test_unix_socket_that_hangs(tmp_path: Path) -> None:
    path = str(tmp_path / "api.sock")
    with Stub(hang, path=path), PushClient(f"unix:{path}", KEY) as client, within(0.3):
        assert isinstance(client.stats().error, NoAnswer)


@pytest.mark.parametrize(
    "data", [object(), float("nan"), {1, 2}, {"a": b"bytes"}], ids=["object", "nan", "set", "bytes"]
)
def test_what_is_not_json_is_not_sent(data: Any) -> None:
    with PushClient(refusing_url(), KEY) as client:
        outcome = client.publish("news", data)
    assert isinstance(outcome.error, InvalidCall)
    assert not outcome.error.temporary


def test_nesting_without_end_is_not_sent() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with PushClient(refusing_url(), KEY) as client:
        assert isinstance(client.publish("news", deep).error, InvalidCall)


def test_strict_raises_what_would_have_been_returned() -> None:
    with PushClient(refusing_url(), KEY, strict=True) as client:
        with pytest.raises(Unreachable) as caught:
            client.publish("news", 1)
        assert str(caught.value).startswith("unreachable: ")
        with pytest.raises(InvalidCall):
            client.publish("news", object())
    with Stub(error("channel_malformed", 400)) as stub, PushClient(stub.url, KEY) as client:
        assert str(client.publish("$x", 1).error) == "channel_malformed: No."


def test_an_outage_is_two_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "push_server")
    with Stub(cut, cut, cut, cut, result(PUBLISHED)) as stub:
        with PushClient(stub.url, KEY, attempts=1) as client:
            for _ in range(4):
                client.publish("news", "a secret")
            assert client.publish("news", "a secret").ok
    assert [record.getMessage().split(" url=")[0] for record in caplog.records] == [
        "event=client.away",
        "event=client.back",
    ]
    assert "secret" not in caplog.text


def test_none_is_data() -> None:
    with Stub(result(PUBLISHED)) as stub, PushClient(stub.url, KEY) as client:
        client.publish("news", None, id="a", exclude="page")
    assert json.loads(stub.requests[0][1])["params"] == {
        "channel": "news",
        "data": None,
        "id": "a",
        "exclude": "page",
    }


def test_broadcast_has_one_result_per_channel() -> None:
    refused = {"error": {"code": "channel_malformed", "message": "No."}}
    entries = [PUBLISHED, {"result": PUBLISHED}, refused]
    with Stub(result({"results": entries})) as stub, PushClient(stub.url, KEY) as client:
        results = client.broadcast(["a", "b", "$"], {"n": 1}).unwrap()
    assert [entry.ok for entry in results] == [True, True, False]
    assert isinstance(results[2].error, Refused)
    assert len({entry.id for entry in results}) == 1


def test_batch_keeps_the_order_and_names_every_publication() -> None:
    entries = [
        {"result": PUBLISHED},
        {"error": {"code": "storage_error", "message": "No.", "status": 503}},
        {"result": {"closed": 2}},
    ]
    commands = [
        {"method": "publish", "params": {"channel": "a", "data": 1}},
        {"method": "publish", "params": {"channel": "$", "data": 1, "id": "mine"}},
        {"method": "revoke", "params": {"user": "42"}},
    ]
    with Stub(answer(entries)) as stub, PushClient(stub.url, KEY) as client:
        results = client.batch(commands).unwrap()
    assert [entry.ok for entry in results] == [True, False, True]
    # Not refused for good: whether it was stored is unknown, and its id makes a retry safe.
    assert isinstance(results[1].error, Refused)
    assert (results[1].error.status, results[1].error.temporary) == (503, True)
    assert results[2].value == {"closed": 2}
    sent = json.loads(stub.requests[0][1])
    assert sent[0]["params"]["id"] == results[0].id != ""
    assert sent[1]["params"]["id"] == results[1].id == "mine"
    assert "id" not in sent[2]["params"]
    assert "id" not in commands[0]["params"]


def test_batch_with_too_few_answers_is_no_answer() -> None:
    command = {"method": "stats", "params": {}}
    with Stub(answer([{"result": {}}])) as stub, PushClient(stub.url, KEY, attempts=1) as client:
        assert isinstance(client.batch([command, command]).error, NoAnswer)


@pytest.mark.parametrize("commands", [[], [{"method": "stats"}] * 1001, ["stats"], [{"method": 1}]])
def test_batch_that_cannot_be_sent(commands: Any) -> None:
    with PushClient(refusing_url(), KEY) as client:
        assert isinstance(client.batch(commands).error, InvalidCall)


def test_values_of_the_other_methods() -> None:
    page = {"channel": "a", "epoch": 3, "offset": 9, "cursor": "1~", "publications": [PUBLISHED]}
    answers = [
        result({"closed": 2}),
        result(page),
        result({"channels": {"a": {"subscribers": 4}}}),
        result({"channel": "a", "count": 0}),
        result({"connections": 5}),
        result({"closed": 3, "complete": True}),
    ]
    with Stub(*answers) as stub, PushClient(stub.url, KEY) as client:
        assert client.revoke(user="42", before=9).value == 2
        history = client.history("a", since=3, limit=1).unwrap()
        assert (history.epoch, history.offset, history.cursor) == (3, 9, "1~")
        assert history.publications == [PUBLISHED]
        assert client.channels("a").value == {"a": 4}
        assert client.presence("a", 2).value == {"channel": "a", "count": 0}
        assert client.stats().value == {"connections": 5}
        assert client.disconnect(user="42").value == 3
    assert [json.loads(body) for _, body in stub.requests] == [
        {"method": "revoke", "params": {"user": "42", "before": 9}},
        {"method": "history", "params": {"channel": "a", "since": 3, "limit": 1}},
        {"method": "channels", "params": {"prefix": "a"}},
        {"method": "presence", "params": {"channel": "a", "limit": 2}},
        {"method": "stats", "params": {}},
        {"method": "disconnect", "params": {"user": "42"}},
    ]


@pytest.mark.parametrize("url", ["", "127.0.0.1:6667", "https://127.0.0.1", "http://", "unix:x"])
def test_addresses_that_cannot_be_one(url: str) -> None:
    with pytest.raises(ValueError, match="unix:/path"):
        PushClient(url, KEY)


@pytest.mark.parametrize("key", ["", "secret", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ="])
def test_keys_that_cannot_be_one(key: str) -> None:
    with pytest.raises(ValueError, match=r"whsec_|bytes"):
        PushClient("http://127.0.0.1:6667", key)


def test_name_cannot_forge_a_header() -> None:
    with pytest.raises(ValueError, match="printable"):
        PushClient("http://127.0.0.1:6667", KEY, name="a\r\nX-Evil: 1")


def test_threads_share_a_client() -> None:
    outcomes: list[bool] = []
    with Stub(answer({"result": PUBLISHED}, keep=True)) as stub:
        client = PushClient(stub.url, KEY, timeout=5)

        def work() -> None:
            outcomes.extend(client.publish("news", n).ok for n in range(20))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        client.close()
    assert outcomes == [True] * 80
    assert len({headers["webhook-id"] for headers, _ in stub.requests}) == 80


@pytest.fixture(scope="module", params=["tcp", "unix"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PushServer]:
    settings: dict[str, Any] = {}
    if request.param == "unix":
        settings["internal_listen"] = f"unix:{tmp_path_factory.mktemp('api') / 'api.sock'}"
    with PushServer(**settings) as server:
        yield server


@pytest.fixture
def client(real: PushServer) -> Iterator[PushClient]:
    listen = str(real.settings["internal_listen"])
    url = listen if listen.startswith("unix:") else f"http://{listen}"
    with PushClient(url, real.api_secret, timeout=5, strict=True) as client:
        yield client


def test_real_publish_reaches_a_subscriber_once(real: PushServer, client: PushClient) -> None:
    with real.sse(real.token("42"), "news:1") as alice:
        first = client.publish("news:1", {"n": 1}, id="once").unwrap()
        again = client.publish("news:1", {"n": 1}, id="once").unwrap()
        client.publish("news:1", {"n": 2})
        assert [event.value["data"] for event in alice.take(2)] == [{"n": 1}, {"n": 2}]
    assert (first.offset, first.duplicate) == (again.offset, False)
    assert again.duplicate


def test_real_conflict_and_refusal(client: PushClient) -> None:
    client.publish("news:2", 1, id="same")
    with pytest.raises(Refused) as conflict:
        client.publish("news:2", 2, id="same")
    assert (conflict.value.status, conflict.value.code) == (409, "id_conflict")
    with pytest.raises(Refused) as malformed:
        client.publish("$internal", 1)
    assert malformed.value.status == 400


def test_real_broadcast_batch_history_channels_stats(real: PushServer, client: PushClient) -> None:
    with real.sse(real.token("42"), "node:1", "node:2"):
        results = client.broadcast(["node:1", "node:2"], {"n": 1}).unwrap()
        assert [entry.unwrap().channel for entry in results] == ["node:1", "node:2"]
        assert client.channels("node:").unwrap() == {"node:1": 1, "node:2": 1}
    outcome = client.batch(
        [
            {"method": "publish", "params": {"channel": "node:1", "data": 2}},
            {"method": "nonsense", "params": {}},
        ]
    ).unwrap()
    assert [entry.ok for entry in outcome] == [True, False]
    page = client.history("node:1").unwrap()
    assert [entry["data"] for entry in page.publications] == [{"n": 1}, 2]
    assert page.offset == 2
    rest = client.history("node:1", since=1).unwrap()
    assert [entry["data"] for entry in rest.publications] == [2]
    assert client.stats().unwrap()


def test_real_revoke_closes_the_session(real: PushServer, client: PushClient) -> None:
    with real.sse(real.token("7", sid="gone"), "news:3") as bob:
        assert client.revoke(sid="gone").unwrap() == 1
        assert bob.until_end()[-1].value["type"] == "revoked"


def test_real_wrong_key(real: PushServer, client: PushClient) -> None:
    listen = str(real.settings["internal_listen"])
    url = listen if listen.startswith("unix:") else f"http://{listen}"
    with PushClient(url, KEY) as stranger:
        refused = stranger.publish("news:1", 1).error
    assert isinstance(refused, Refused)
    assert refused.status == 401
