"""HTTP calls that end in time, over TCP or a Unix socket, and the errors they end with.

`requests` limits the wait for each piece of an answer, not for the whole of it, and honours
proxies and redirects. A `Caller` is a `requests` session without any of that: one host, one
deadline for everything from the first byte sent to the last byte read.

The tree of errors, by what is known about the call:

* `PushClientError`
    * `InvalidCall`: the arguments cannot be sent; nothing was.
    * `Unreachable`: no connection; the server did nothing.
    * `NoAnswer`: the server may or may not have done it; ask again with the same id.
    * `Refused`: the server answered with an error; below 500, it did nothing.

The only importer of requests (and of urllib3, which comes with it). Imported by the client and
the webhooks.
"""

import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes read of an answer: a full page of history fits, an endless answer does not."""


class PushClientError(Exception):
    """Base of what can go wrong with a call. `code` is stable, `message` is for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def temporary(self) -> bool:
        """Whether the same call, with the same id, may succeed later."""
        return True


class InvalidCall(PushClientError):
    """Raised if the arguments cannot be put into a request."""

    @property
    def temporary(self) -> bool:
        return False


class Unreachable(PushClientError):
    """Raised if no connection to the server came about in time."""


class NoAnswer(PushClientError):
    """Raised if the request was sent and no answer that makes sense came back in time."""


class Refused(PushClientError):
    """Raised if the server answered with an error; `status` is its HTTP status."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(code, message)
        self.status = status

    @property
    def temporary(self) -> bool:
        return self.status >= 500 or self.status == 429


class Caller:
    """Posts to one URL: ``http://host:port/path``, the same with ``https``, or ``unix:/socket``,
    whose path is ``/api``."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        connect_timeout: float,
        answer_limit: int | None = None,
    ) -> None:
        self._place = url
        unix_path = url.removeprefix("unix:") if url.startswith("unix:/") else None
        self._url = "http://localhost/api" if unix_path else url
        self._connect_timeout = connect_timeout
        self._answer_limit = ANSWER_LIMIT if answer_limit is None else answer_limit
        self._session = requests.Session()
        # Proxies and credentials of the environment are meant for the outside world: here they
        # would send every publication through a third party.
        self._session.trust_env = False
        self._session.mount("http://", _Adapter(unix_path))
        self._session.mount("https://", _TlsAdapter(max_retries=0))
        self._session.headers.update(headers)

    def post(self, body: bytes, headers: Mapping[str, str], deadline: float) -> tuple[int, bytes]:
        """Status and body of the answer. Raises `Unreachable` or `NoAnswer`.

        `deadline` is on the monotonic clock.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unreachable("timeout", "There was no time left for the call.")
        _waits.until = deadline
        try:
            response = self._session.post(
                self._url,
                data=body,
                headers=headers,
                timeout=(min(self._connect_timeout, left), left),
                allow_redirects=False,
                stream=True,
            )
            with response:
                content = response.raw.read(self._answer_limit + 1)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise _failure(error, self._place) from error
        if len(content) > self._answer_limit:
            raise NoAnswer("answer_malformed", "The answer does not end.")
        return response.status_code, content

    def close(self) -> None:
        """Close the connections that are kept open. A later call opens them again."""
        self._session.close()


def _failure(error: Exception, place: str) -> PushClientError:
    """`Unreachable` only if it is certain that the server saw nothing."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(cause, (NewConnectionError, ConnectTimeoutError)):
        return Unreachable("unreachable", f"No connection to {place}.")
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return NoAnswer("timeout", f"No answer from {place} in time.")
    return NoAnswer("no_answer", f"The connection to {place} broke before an answer came.")


class _Waits(threading.local):
    """Until when this thread may wait on a socket."""

    until: float = 0.0


_waits = _Waits()


def _limit(sock: socket.socket) -> None:
    """Let the next read end at the deadline.

    The timeout of a plain socket starts again with every byte that arrives, so that a server
    sending a byte now and then could hold the caller for ever.
    """
    left = _waits.until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    sock.settimeout(left)


class _Socket(socket.socket):
    """A socket whose reads all end at one deadline."""

    def recv_into(self, *args: Any) -> int:
        _limit(self)
        return super().recv_into(*args)


class _TlsSocket(ssl.SSLSocket):
    """The same with TLS."""

    def recv_into(self, *args: Any) -> int:
        _limit(self)
        return super().recv_into(*args)


class _Connection(HTTPConnection):
    """A connection over TCP, or over the Unix socket named in the pool that made it."""

    unix_path: str | None = None

    def _new_conn(self) -> socket.socket:
        opened = self._connect_unix(self.unix_path) if self.unix_path else super()._new_conn()
        waiting = opened.gettimeout()
        timed = _Socket(opened.family, opened.type, opened.proto, opened.detach())
        timed.settimeout(waiting)
        return timed

    def _connect_unix(self, path: str) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX)
        try:
            opened.settimeout(self.timeout)
            opened.connect(path)
        except OSError as error:
            opened.close()
            raise NewConnectionError(self, f"No connection to {path}: {error}") from error
        return opened


class _Adapter(HTTPAdapter):
    """Makes `requests` use our connections, and no retries of its own."""

    def __init__(self, unix_path: str | None) -> None:
        connection = type("_Connection", (_Connection,), {"unix_path": unix_path})
        self._pool = type("_Pool", (HTTPConnectionPool,), {"ConnectionCls": connection})
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": self._pool}


class _TlsAdapter(HTTPAdapter):
    """Makes `requests` use our sockets with TLS, and trust what the system trusts."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        context = ssl.create_default_context()
        context.sslsocket_class = _TlsSocket
        # Not that names are not compared: urllib3 does it where the context does not. It has to,
        # because 1.26 tells the context no name if the URL has an address, which then refuses.
        context.check_hostname = False
        super().init_poolmanager(*args, **kwargs, ssl_context=context)
