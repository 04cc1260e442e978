"""A real push server in a process of its own, for tests that look at it from outside.

    with PushServer(heartbeat=1) as push:
        with push.sse(push.token("42", sub_ch=["node:*"]), "node:7") as alice:
            push.api("publish", channel="node:7", data={"n": 1})
            assert alice.take(1)[0].value["data"] == {"n": 1}

Keyword arguments are settings, as in `push-server.toml`. Imported by the tests.
"""

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from formulas import issue_token, sign_webhook
from ports import free_port
from server_process import ServerProcess
from waiting import PATIENCE
from wire import (
    Address,
    Asked,
    Ended,
    Poll,
    Response,
    Sse,
    Stream,
    Wire,
    read_response,
    request_bytes,
)
from wire_classic import Frame, Interval, Jsonp
from wire_ws import Ws

SITE = "http://www.site.localhost:8080"
PUSH_HOST = "push.site.localhost"

Subscriber = TypeVar("Subscriber")


class ApiError(Exception):
    """Raised by `PushServer.api` if the command was refused."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status} {response.body[:300]!r}")
        self.response = response


class RawAnswer(bytes):
    """What a connection sent, and whether the server closed it."""

    closed: bool


class PushServer(ServerProcess):
    """A push server process, its keys, and clients for it."""

    def __init__(self, descriptors: int | None = None, **settings: Any) -> None:
        self.port = free_port()
        self.internal_port = free_port()
        self.api_secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.host = f"{PUSH_HOST}:{self.port}"
        defaults = {
            "listen": f"127.0.0.1:{self.port}",
            "internal_listen": f"127.0.0.1:{self.internal_port}",
            "public_url": f"http://{self.host}",
            "site_origins": [SITE],
            "document_domain": "site.localhost",
            "broker": "memory:",
            "drain_spread": 1,
            "jsonp": True,
            "token_keys": [secrets.token_urlsafe(32)],
            "api_keys": {"cms": self.api_secret},
        }
        super().__init__({**defaults, **settings}, descriptors)
        self.token_keys: list[str] = self.settings["token_keys"]
        self.secrets |= {*self.token_keys, self.api_secret}
        self.server_errors: list[Response] = []
        """Every 5xx that `request` met: bad input must never cause one."""

    def ask_ready(self) -> object:
        try:
            return self.get("/ready", internal=True, timeout=2).status
        except (OSError, Ended) as error:
            return error

    def check_healthy(self, log_since: int = 0) -> None:
        """What must hold after any test: alive, ready, and nothing in the log to regret."""
        assert self.alive, self.log[-4000:]
        assert self.get("/ready", internal=True).status == 200
        self.check_log(log_since)

    # Tokens, tickets and signatures

    def token(
        self,
        user: str = "42",
        sub_ch: Sequence[str] = ("*",),
        pub_ch: Sequence[str] = (),
        ttl: float = 300,
        *,
        key: str | None = None,
        **claims: Any,
    ) -> str:
        """A fresh token; further claims are added or replace those made here."""
        now = int(time.time())
        return self.sign_claims(
            {
                "v": 1,
                "sub": user,
                "sid": f"session-{user}",
                "iat": now,
                "exp": now + int(ttl),
                "sub_ch": list(sub_ch),
                "pub_ch": list(pub_ch),
                **claims,
            },
            key,
        )

    def sign_claims(self, claims: Mapping[str, Any], key: str | None = None) -> str:
        """A token over exactly these claims, signed with the newest key."""
        return self.remember(issue_token(claims, key or self.token_keys[-1]))

    def remember(self, secret: str) -> str:
        """A secret that must never be in the log."""
        self.secrets.add(secret)
        return secret

    def ticket(self, token: str) -> str:
        """A ticket bought with this token."""
        response = self.request("POST", "/ticket", token=token)
        assert response.status == 200, response
        return self.remember(response.json()["ticket"])

    def signed_headers(
        self,
        body: bytes,
        webhook_id: str | None = None,
        timestamp: str | None = None,
        secret: str | None = None,
    ) -> dict[str, str]:
        """The headers of a valid call of `/api` with this body."""
        webhook_id = webhook_id or "msg_" + secrets.token_hex(8)
        timestamp = timestamp or str(int(time.time()))
        signature = sign_webhook(secret or self.api_secret, webhook_id, timestamp, body)
        return {
            "Content-Type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature,
        }

    # Requests

    @property
    def address(self) -> Address:
        return ("127.0.0.1", self.port)

    @property
    def internal_address(self) -> Address:
        listen = str(self.settings["internal_listen"])
        if listen.startswith("unix:"):
            return listen.removeprefix("unix:")
        return ("127.0.0.1", self.internal_port)

    def wire(self, internal: bool = False, source: str | None = None) -> Wire:
        """A fresh socket to one of the two listeners."""
        return Wire.connect(self.internal_address if internal else self.address, source)

    def head(self, internal: bool = False) -> dict[str, str]:
        """The headers that every request needs."""
        return {"Host": f"127.0.0.1:{self.internal_port}" if internal else self.host}

    def request(
        self,
        method: str,
        target: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        internal: bool = False,
        source: str | None = None,
        timeout: float = PATIENCE,
    ) -> Response:
        """One request on a connection of its own."""
        fields = {**self.head(internal), "Connection": "close", **(headers or {})}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        with self.wire(internal, source) as wire:
            wire.send(request_bytes(method, target, fields, body))
            response = read_response(wire, method, timeout)
        if response.status >= 500:
            self.server_errors.append(response)
        return response

    def get(self, target: str, **options: Any) -> Response:
        return self.request("GET", target, **options)

    def raw(
        self,
        data: bytes | Iterable[bytes],
        *,
        internal: bool = False,
        timeout: float = PATIENCE,
        source: str | None = None,
    ) -> RawAnswer:
        """Send bytes as they are (each piece in a segment of its own) and read up to the end."""
        with self.wire(internal, source) as wire:
            for piece in [data] if isinstance(data, bytes) else data:
                wire.send(piece)
            try:
                answer = RawAnswer(wire.rest(timeout))
                answer.closed = True
            except TimeoutError:
                answer = RawAnswer(wire.buffer)
                answer.closed = False
            return answer

    def api_raw(
        self, body: bytes, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Response:
        """`POST /api` with this body; signed unless headers are given."""
        return self.request(
            "POST",
            "/api",
            headers=self.signed_headers(body) if headers is None else headers,
            body=body,
            internal=True,
            **options,
        )

    def api(self, method: str, **params: Any) -> Any:
        """The result of one command; `ApiError` if it is refused."""
        body = json.dumps({"method": method, "params": params}).encode()
        response = self.api_raw(body)
        if response.status != 200:
            raise ApiError(response)
        answer = response.json()
        assert set(answer) == {"result"}, answer
        return answer["result"]

    def api_batch(self, commands: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        """The answers of several commands sent in one request."""
        body = json.dumps([{"method": name, "params": params} for name, params in commands])
        response = self.api_raw(body.encode())
        if response.status != 200:
            raise ApiError(response)
        answers = response.json()
        assert isinstance(answers, list)
        return answers

    # Subscribers

    def subscribe(
        self,
        receiver: Callable[[Asked], Subscriber],
        token: str | None,
        channels: Iterable[str],
        *more: tuple[str, str],
        since: str | None = None,
        last_event_id: str | None = None,
        instance: str | None = None,
        ticket: str | None = None,
        origin: str | None = None,
        headers: Mapping[str, str] | None = None,
        source: str | None = None,
    ) -> Subscriber:
        """A subscriber of any kind; `more` stands in its URL besides."""
        query = [*(("channel", channel) for channel in channels), *more]
        for name, value in (("since", since), ("instance", instance), ("ticket", ticket)):
            if value is not None:
                query.append((name, value))
        fields = {**self.head(), **(headers or {})}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        if last_event_id is not None:
            fields["Last-Event-ID"] = last_event_id
        if origin is not None:
            fields["Origin"] = origin
        return receiver(Asked(self.address, query, fields, source))

    def sse(self, token: str | None, *channels: str, **options: Any) -> Sse:
        """An SSE subscriber that has read its `hello`; `Refused` if it was not let in."""
        return self.subscribe(Sse, token, channels, **options)

    def stream(self, token: str | None, *channels: str, **options: Any) -> Stream:
        """The same on the JSON-lines stream."""
        return self.subscribe(Stream, token, channels, **options)

    def ws(self, token: str | None, *channels: str, **options: Any) -> Ws:
        """The same on a WebSocket."""
        return self.subscribe(Ws, token, channels, **options)

    def frame(self, token: str | None, *channels: str, **options: Any) -> Frame:
        """The same in a forever frame."""
        origin = ("origin", self.settings["site_origins"][0])
        return self.subscribe(Frame, token, channels, origin, **options)

    def interval(self, token: str | None, *channels: str, **options: Any) -> Interval:
        """A client that polls at short intervals."""
        return self.subscribe(Interval, token, channels, **options)

    def jsonp(self, token: str | None, *channels: str, **options: Any) -> Jsonp:
        """A long-poll client that loads scripts."""
        return self.subscribe(Jsonp, token, channels, ("callback", "cb"), **options)

    def poll(self, token: str | None, *channels: str, **options: Any) -> Poll:
        """A long-poll client; without `since` it has polled once for its first cursor."""
        return self.subscribe(Poll, token, channels, **options)
