"""A subscriber that stays subscribed: what ``push-server listen`` prints.

Speaks the stream transport of `docs/protocol.rst` as any outside client would, with nothing but
the standard library: one JSON value per line, the cursor kept from line to line. When the
connection ends, whoever ended it, the next one begins at the cursor, so nothing is lost that the
server still has, and the server says `reset` if it has not. Between attempts it waits a random
part of a growing time, so that many listeners do not come back at once.

Imported by the command line.
"""

import json
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from push_server.casts import Address

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
CONNECT_TIMEOUT = 10.0
SILENT_HEARTBEATS = 2.2
"""Heartbeats without a byte after which the connection is given up."""
LINE_LIMIT = 64 * 1024 * 1024
"""Bytes of one line; more is not this protocol."""

Message = dict[str, Any]
"""A publication, a control message, or from here ``{"type":"disconnected","reason","delay"}``."""


class ListenError(Exception):
    """Raised if the server refuses for good: asking again would get the same answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the browser listener is, and what it is called there."""

    address: Address | str
    """An address to connect to, or the URL of the push host."""
    host: str

    def connect(self) -> HTTPConnection:
        """A connection that is not open yet."""
        if isinstance(self.address, Address):
            return _AddressConnection(self.address, timeout=CONNECT_TIMEOUT)
        parts = urlsplit(self.address)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        return kind(parts.netloc, timeout=CONNECT_TIMEOUT)


class _AddressConnection(HTTPConnection):
    def __init__(self, address: Address, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._address = address

    def connect(self) -> None:
        if not self._address.path:
            place = (self._address.host, self._address.port)
            self.sock = socket.create_connection(place, self.timeout)
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address.path)


class Listener:
    """Iterate over it for what comes; it ends only when the session is revoked.

    `token` is called for every connection, so that an expired token is replaced. Raises
    `ListenError` while iterating.
    """

    def __init__(
        self,
        target: Target,
        token: Callable[[], str],
        channels: Sequence[str],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.cursor = ""
        self._target = target
        self._token = token
        self._channels = channels
        self._sleep = sleep
        self._attempt = 0
        self._delay: float | None = None
        """Seconds to wait before coming back, if the server named them."""

    def __iter__(self) -> Iterator[Message]:
        while True:
            try:
                for message in self._one_connection():
                    yield message
                    if message.get("type") == "revoked":
                        return
                reason = "closed"
            except (OSError, HTTPException, ValueError) as error:
                if isinstance(error, ssl.SSLCertVerificationError):
                    raise ListenError(f"certificate: {error.verify_message}") from None
                reason = str(error) or type(error).__name__
            delay = pause(self._attempt) if self._delay is None else self._delay
            self._attempt, self._delay = self._attempt + 1, None
            yield {"type": "disconnected", "reason": reason, "delay": round(delay * 1000)}
            self._sleep(delay)

    def _one_connection(self) -> Iterator[Message]:
        connection = self._target.connect()
        try:
            connection.connect()
            # Taken now: once the head of an endless answer is read, the connection forgets it.
            sock = connection.sock
            response = self._request(connection)
            while line := response.readline(LINE_LIMIT):
                yield self._note(json.loads(line), sock)
        finally:
            connection.close()

    def _request(self, connection: HTTPConnection) -> HTTPResponse:
        query = [("channel", channel) for channel in self._channels]
        if self.cursor:
            query.append(("since", self.cursor))
        headers = {"Host": self._target.host, "Authorization": f"Bearer {self._token()}"}
        connection.request("GET", "/subscribe/stream?" + urlencode(query), headers=headers)
        response = connection.getresponse()
        if response.status == 200:
            return response
        answer = f"{response.status} {_error_in(response.read(65_536)) or response.reason}"
        if response.status < 500 and response.status != 429:
            raise ListenError(answer)
        after = response.headers.get("Retry-After", "")
        if after.isdigit():
            self._delay = min(int(after), LONGEST_PAUSE) * random.uniform(1.0, 1.5)
        raise ConnectionError(answer)

    def _note(self, message: object, sock: socket.socket) -> Message:
        if not isinstance(message, dict):
            raise ValueError("not a line of the stream")
        self.cursor = str(message.get("cursor", self.cursor))
        kind = message.get("type")
        if kind == "hello":
            self._attempt = 0
            sock.settimeout(SILENT_HEARTBEATS * float(message["heartbeat"]))
        elif kind == "reconnect":
            self._delay = float(message["delay"]) / 1000
        return message


def pause(attempt: int) -> float:
    """Seconds to wait after this many connections that said nothing."""
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt, 10)))


def _error_in(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, LookupError, TypeError):
        return ""
