"""`PushClient`: how a Python back end publishes, revokes and asks.

    push = PushClient("http://127.0.0.1:6667", "whsec_…", name="shop")
    push.publish("user:42", {"text": "Your order is on its way."})

It is made for the middle of a page request, so it keeps three rules.

1. *It never makes a page wait.* One call, its retries included, ends within `timeout` (0.3 s),
   whatever the server does: refuses, hangs, or sends one byte a minute.
2. *It never breaks a page.* Every call returns a `Result`; what went wrong is in `error`. With
   `strict=True` the same errors are raised instead.
3. *It never publishes twice.* The id of the request and the ids of the publications in it are
   made once, before the first attempt. To try again later, pass the `id` of the result.

A host name is resolved by the operating system, which has time limits of its own: name the
server by address, or by a Unix socket (``unix:/run/push-server/api.sock``).

Safe to share between threads; connections are kept open and reused. Imported by the command
line and by whoever uses this package as a library.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import uuid4

from push_server import __version__, log
from push_server.calls import (
    Caller,
    InvalidCall,
    NoAnswer,
    PushClientError,
    Refused,
    Unreachable,
)
from push_server.publications import Published
from push_server.results import HistoryPage, Result, history_page_of, outcome_of, published_of
from push_server.signatures import decode_secret, sign

__all__ = [
    "HistoryPage",
    "InvalidCall",
    "NoAnswer",
    "PushClient",
    "PushClientError",
    "Refused",
    "Result",
    "Unreachable",
]

CONNECT_TIMEOUT = 0.1
TIMEOUT = 0.3
ATTEMPTS = 3
PAUSE = 0.02
"""Seconds before the second attempt; doubled each time, and drawn between half and all of it."""
COMMANDS_LIMIT = 1000
"""Commands the server takes in one batch."""

_RETRIED: Final = frozenset({500, 502, 503, 504})

T = TypeVar("T")


class PushClient:
    """The internal API of a push server, as methods.

    `url` is ``http://host:port`` or ``unix:/path``, `key` the ``whsec_…`` secret that the
    server's ``api_keys`` lists, `name` what this back end is called in the server's logs.
    `timeout` bounds a whole call, `connect_timeout` each attempt to connect. Raises `ValueError`
    if the address or the key cannot be one; no method raises unless `strict`.
    """

    def __init__(
        self,
        url: str,
        key: str,
        name: str = "python",
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        strict: bool = False,
    ) -> None:
        if not (name.isascii() and name.isprintable()):
            raise ValueError("the name of a client is printable ASCII")
        if attempts < 1:
            raise ValueError("a call has at least one attempt")
        self._url = _api_url(url)
        self._secret = decode_secret(key)
        self._timeout = timeout
        self._attempts = attempts
        self._strict = strict
        self._away = False
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"push-server-client/{__version__} {name}",
        }
        self._caller = Caller(self._url, headers, connect_timeout)

    def publish(
        self,
        channel: str,
        data: Any,
        id: str | None = None,
        exclude: str | None = None,
    ) -> Result[Published]:
        """Publish `data` (anything JSON) to a channel.

        `exclude` is the page-instance id that must not get it back.
        """
        publication_id = id or uuid4().hex
        params = {"channel": channel, "data": data, "id": publication_id, "exclude": exclude}
        return self._call(_command("publish", params), published_of, publication_id)

    def broadcast(
        self,
        channels: Sequence[str],
        data: Any,
        id: str | None = None,
        exclude: str | None = None,
    ) -> Result[list[Result[Published]]]:
        """Publish the same data to many channels; one result per channel, in order."""
        publication_id = id or uuid4().hex
        params = {"channels": [*channels], "data": data, "id": publication_id, "exclude": exclude}

        def convert(answer: Any) -> list[Result[Published]]:
            return [outcome_of(entry, published_of, publication_id) for entry in answer["results"]]

        return self._call(_command("broadcast", params), convert, publication_id)

    def batch(self, commands: Sequence[Mapping[str, Any]]) -> Result[list[Result[Any]]]:
        """Send up to 1,000 commands ``{"method": …, "params": {…}}`` in one request.

        One result per command, in order: a command that fails does not fail the others. A
        publish or broadcast without an id gets one here.
        """
        if not 0 < len(commands) <= COMMANDS_LIMIT:
            invalid = InvalidCall("batch_size", f"A batch has 1 to {COMMANDS_LIMIT} commands.")
            return self._failed(invalid)
        if not all(map(_is_command, commands)):
            return self._failed(InvalidCall("command", "A command has a method and params."))
        prepared = [_with_id(command) for command in commands]
        ids = [str(command.get("params", {}).get("id", "")) for command in prepared]

        def convert(answer: Any) -> list[Result[Any]]:
            pairs = zip(answer, ids, strict=True)
            return [outcome_of(entry, lambda value: value, given) for entry, given in pairs]

        return self._call(prepared, convert)

    def revoke(
        self,
        *,
        sid: str | None = None,
        user: str | None = None,
        before: int | None = None,
        jti: str | None = None,
    ) -> Result[int]:
        """Close the connections of a session, a user or a token, and refuse those tokens.

        With `user`, tokens issued at or before `before` (unix seconds, default now) are meant.
        The value is the number of connections closed on the server that answers; all others
        close theirs, too.
        """
        params = {"sid": sid, "user": user, "before": before, "jti": jti}
        return self._call(_command("revoke", params), lambda answer: int(answer["closed"]))

    def disconnect(self, *, user: str | None = None, sid: str | None = None) -> Result[int]:
        """Close the connections of a user or a session; those whose token is good come back.

        The value is the number of connections closed, on all servers.
        """
        params = {"user": user, "sid": sid}
        return self._call(_command("disconnect", params), lambda answer: int(answer["closed"]))

    def history(
        self, channel: str, since: int | str | None = None, limit: int | None = None
    ) -> Result[HistoryPage]:
        """What a channel keeps, oldest first, after `since` (an offset or a cursor)."""
        params = {"channel": channel, "since": since, "limit": limit}
        return self._call(_command("history", params), history_page_of)

    def channels(self, prefix: str = "") -> Result[dict[str, int]]:
        """The channels somebody listens to, with the number of subscribers of each."""

        def convert(answer: Any) -> dict[str, int]:
            return {name: int(entry["subscribers"]) for name, entry in answer["channels"].items()}

        return self._call(_command("channels", {"prefix": prefix or None}), convert)

    def presence(self, channel: str, limit: int | None = None) -> Result[dict[str, Any]]:
        """Who is in a channel: ``count``, ``anonymous``, and ``users`` by id, at most `limit`."""
        return self._call(_command("presence", {"channel": channel, "limit": limit}), dict)

    def stats(self) -> Result[dict[str, Any]]:
        """The numbers of the server."""
        return self._call(_command("stats", {}), dict)

    def close(self) -> None:
        """Close the connections that are kept open. A later call opens them again."""
        self._caller.close()

    def __enter__(self) -> "PushClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(
        self, command: Any, convert: Callable[[Any], T], publication_id: str = ""
    ) -> Result[T]:
        try:
            body = json.dumps(command, separators=(",", ":"), allow_nan=False).encode("ascii")
        except (TypeError, ValueError, RecursionError) as reason:
            invalid = InvalidCall("not_json", f"This is not JSON: {reason}")
            return self._failed(invalid, publication_id)
        deadline = time.monotonic() + self._timeout
        message_id = uuid4().hex
        pause = PAUSE
        lost: PushClientError | None = None
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause *= 2
            outcome = self._attempt(message_id, body, deadline, convert, publication_id)
            if outcome.error is None:
                self._succeeded()
                return outcome
            error = outcome.error
            if isinstance(error, NoAnswer):
                lost = error
            if not _worth_retrying(error) or time.monotonic() + pause >= deadline:
                break
        # An attempt that got no answer may have been heard, even if a later one found nobody.
        if lost and isinstance(error, Unreachable):
            error = lost
        return self._failed(error, publication_id)

    def _attempt(
        self,
        message_id: str,
        body: bytes,
        deadline: float,
        convert: Callable[[Any], T],
        publication_id: str,
    ) -> Result[T]:
        now = int(time.time())
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(self._secret, message_id, now, body),
        }
        try:
            status, content = self._caller.post(body, headers, deadline)
        except PushClientError as error:
            return Result(None, error, publication_id)
        try:
            answer = json.loads(content)
            if isinstance(answer, list):
                return Result(convert(answer), None, publication_id)
            return outcome_of(answer, convert, publication_id, status)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            if status in _RETRIED:
                failed = Refused("http_error", f"The server answered with status {status}.", status)
                return Result(None, failed, publication_id)
            unclear = NoAnswer("answer_malformed", f"Status {status}, and no answer of the API.")
            return Result(None, unclear, publication_id)

    def _failed(self, error: PushClientError, publication_id: str = "") -> Result[Any]:
        if self._strict:
            raise error
        if isinstance(error, (InvalidCall, Refused)):
            log.rejected("client.refused", self._url, code=error.code)
        elif not self._away:
            # One line per outage, not one per page.
            self._away = True
            log.warn("client.away", url=self._url, code=error.code)
        return Result(None, error, publication_id)

    def _succeeded(self) -> None:
        if self._away:
            self._away = False
            log.info("client.back", url=self._url)


def _api_url(url: str) -> str:
    if url.startswith("unix:/"):
        return url
    if url.startswith("http://") and len(url) > len("http://"):
        return url.rstrip("/").removesuffix("/api") + "/api"
    raise ValueError("the API of a push server is at http://host:port or unix:/path")


def _command(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in params.items() if value is not None or name == "data"}
    return {"method": method, "params": given}


def _is_command(command: object) -> bool:
    if not isinstance(command, Mapping):
        return False
    params = command.get("params", {})
    return isinstance(command.get("method"), str) and isinstance(params, Mapping)


def _with_id(command: Mapping[str, Any]) -> dict[str, Any]:
    if command["method"] not in ("publish", "broadcast"):
        return dict(command)
    return {**command, "params": {"id": uuid4().hex, **command.get("params", {})}}


def _worth_retrying(error: PushClientError) -> bool:
    return not isinstance(error, Refused) or error.status in _RETRIED
