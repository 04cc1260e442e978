"""Requests that see more than an answer: the address, the certificate, and when each piece came.

On `http.client` and not on `requests`: the doctor connects to one chosen address of a name, looks
at the certificate, reads a stream piece by piece against the clock, and asks for an upgrade.
Nothing follows redirects, and no proxy of the environment is asked. Every wait ends at a deadline.

Imported by the checks; knows nothing of them.
"""

import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse
from typing import Any, NamedTuple

from push_server import __version__, casts
from push_server.casts import SettingsError

PATIENCE = 2.5
"""Seconds for one answer. All checks in a row stay well below ten."""
BODY_LIMIT = 256 * 1024
LINE_LIMIT = 64 * 1024

FAILURES = (OSError, HTTPException, ValueError)
"""What can go wrong with a connection; `reason` says it in words."""


class Origin(NamedTuple):
    """Where a server is: scheme, host and port, or the path of a Unix socket."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """As it stands in ``Host``: without a port that goes without saying."""
        usual = {"http": 80, "https": 443}[self.scheme]
        return self.host if self.port == usual else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """The host, an IPv6 address without its brackets."""
        return self.host.strip("[]")

    @property
    def dialled(self) -> str:
        """What to ask a resolver for: browsers take every name under localhost for this machine."""
        return "localhost" if self.host.endswith(".localhost") else self.name

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: HTTPMessage
    body: bytes
    source: str
    """Our own address on that connection; empty on a Unix socket."""

    def all(self, name: str) -> list[str]:
        """Every line of a header."""
        return [value.strip() for value in self.headers.get_all(name, [])]

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object in the body; empty if there is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def code(self) -> str:
        """The code of an error in our own form; empty if it is none, so that it was not us."""
        error = self.json.get("error")
        return str(error.get("code", "")) if isinstance(error, dict) else ""

    @property
    def is_proxy_failure(self) -> bool:
        """Whether a proxy says that it does not reach the server behind it."""
        return self.status in (502, 503, 504) and not self.code

    def __str__(self) -> str:
        server = self.headers.get("Server")
        said = f" {self.code}" if self.code else f" from {server}" if server else ""
        return f"status {self.status}{said}"


def redirected(answer: Answer) -> str:
    """The origin that an answer sends its visitor to; empty if it stays where it is."""
    scheme, colon, rest = answer.headers.get("Location", "").partition("://")
    if not 300 <= answer.status < 400 or not colon:
        return ""
    try:
        return casts.origin("", f"{scheme}://{rest.partition('/')[0]}".lower())
    except SettingsError:
        return ""


def reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate does not hold: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g} seconds"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.strip("[]").lower()
    return str(error) or type(error).__name__


@cache
def _trust() -> ssl.SSLContext:
    """What the system trusts; reading it takes longer than most answers."""
    return ssl.create_default_context()


def connect(origin: Origin, address: str = "", timeout: float = PATIENCE) -> socket.socket:
    """A connection, with TLS if the scheme says so. Raises `OSError`."""
    sock = dial(origin, address, timeout)
    if origin.scheme != "https":
        return sock
    try:
        return _trust().wrap_socket(sock, server_hostname=origin.name)
    except BaseException:
        sock.close()
        raise


def dial(origin: Origin, address: str = "", timeout: float = PATIENCE) -> socket.socket:
    """A connection without TLS. Raises `OSError`."""
    if not origin.path:
        return socket.create_connection((address or origin.dialled, origin.port), timeout)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout)
        sock.connect(origin.path)
    except BaseException:
        sock.close()
        raise
    return sock


def ask(
    origin: Origin,
    target: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
    address: str = "",
    timeout: float = PATIENCE,
) -> Answer:
    """One request and its answer. Raises one of `FAILURES`."""
    deadline = time.monotonic() + timeout
    with _request(origin, method, target, headers, body, address, timeout) as (sock, response):
        source = _source(sock)
        content = bytearray()
        # From Python 3.13 on, the last byte of an answer closes it, and the socket with it.
        while len(content) < BODY_LIMIT and not response.isclosed():
            _limit(sock, deadline)
            piece = response.read1(16_384)
            if not piece:
                break
            content += piece
        return Answer(response.status, response.headers, bytes(content), source)


class Stream:
    """An answer that goes on: its lines, and when they come."""

    def __init__(self, sock: socket.socket, response: HTTPResponse) -> None:
        self.head = Answer(response.status, response.headers, b"", _source(sock))
        self._sock = sock
        self._response = response

    def line(self, seconds: float) -> dict[str, Any]:
        """The next line. Raises `TimeoutError` if none comes, `EOFError` if none ever will."""
        _limit(self._sock, time.monotonic() + seconds)
        line = self._response.readline(LINE_LIMIT)
        if not line.endswith(b"\n"):
            raise EOFError
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("not a line of a stream")
        return value


@contextmanager
def stream(
    origin: Origin, target: str, headers: Mapping[str, str], *, timeout: float = PATIENCE
) -> Iterator[Stream]:
    """A request whose answer is read while it comes. Raises one of `FAILURES`."""
    with _request(origin, "GET", target, headers, None, "", timeout) as (sock, response):
        yield Stream(sock, response)


@contextmanager
def _request(
    origin: Origin,
    method: str,
    target: str,
    headers: Mapping[str, str] | None,
    body: bytes | None,
    address: str,
    timeout: float,
) -> Iterator[tuple[socket.socket, HTTPResponse]]:
    sock = connect(origin, address, timeout)
    connection = HTTPConnection("localhost")
    connection.sock = sock
    given = {
        "Host": "localhost" if origin.path else origin.authority,
        "User-Agent": f"push-server-doctor/{__version__}",
        "Connection": "close",
        **(headers or {}),
    }
    try:
        connection.request(method, target, body, given)
        _limit(sock, time.monotonic() + timeout)
        response = connection.getresponse()
        try:
            yield sock, response
        finally:
            response.close()
    finally:
        connection.close()
        sock.close()


def _limit(sock: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def _source(sock: socket.socket) -> str:
    return "" if sock.family == socket.AF_UNIX else str(sock.getsockname()[0])
