"""One request: what waitress must not let through, and what the application is given with it.

Imported by the rest of the front.
"""

import socket
from collections.abc import Callable
from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import Error

from push_server import log
from push_server.heads import BadHead, check_head
from push_server.publications import dump_json

CHUNK_LINE_BYTES = 4096
"""Of the line before a chunk, or of the trailer behind the last one."""

GiveBack = Callable[[socket.socket], None]
Take = Callable[[socket.socket, GiveBack], None]

_CODES = {413: "body_too_large", 500: "internal"}
"""What the application says in the same case; no parser of ours knows more of the rest."""


class Refusal(Error):  # type: ignore[misc]
    """What the parser refuses, with a status of its own."""

    def __init__(self, bad: BadHead) -> None:
        super().__init__(bad.detail)
        self.code = bad.status
        self.reason = bad.reason


class StrictParser(HTTPRequestParser):  # type: ignore[misc]
    """Refuses heads that waitress lets through; every refusal ends the connection."""

    path = ""
    """Named when a client is gone before it was answered; of a head that was refused there is none,
    and waitress would fail."""
    refusal: Refusal | None = None
    completed: bool
    taken = False
    """Whether the worker that served this request took the connection."""

    def received(self, data: bytes) -> int:
        """Parse; answer with our own refusal where there is one (I/O thread)."""
        consumed: int = super().received(data)
        if not self.completed and _half_a_line(self.body_rcv) > CHUNK_LINE_BYTES:
            self.refusal = Refusal(BadHead(400, "Bad Request", "chunk line over 4 KiB"))
            self.completed = True
        if self.refusal is not None:
            self.error = self.refusal
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Check the raw head, then let waitress parse it (I/O thread)."""
        try:
            if header_plus != b"GET / HTTP/1.0\r\n":  # what waitress parses when one is too long
                check_head(header_plus)
            try:
                super().parse_header(header_plus)
            except ValueError:  # of urlsplit; waitress would log all of it, as often as it comes
                raise BadHead(400, "Bad Request", "host in the target") from None
        except BadHead as bad:
            self.refusal = Refusal(bad)
            raise ParsingError(bad.detail) from None


def _half_a_line(body: object) -> int:
    """The bytes of a line that is not whole: waitress copies them with every byte that comes."""
    if not isinstance(body, ChunkedReceiver):
        return 0
    return len(body.control_line) + len(body.trailer)


class JSONErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers what the parser refused, in the form of all our errors."""

    def execute(self) -> None:
        """Write the refusal and close (worker thread)."""
        refusal = self.request.error
        # Not waitress's own words: they quote the line that is wrong, a token and all.
        reason = refusal.body if isinstance(refusal, Refusal) else refusal.reason
        log.rejected("http.reject", self.channel.addr[0], status=refusal.code, reason=reason)
        message = "The request is malformed." if refusal.code == 400 else refusal.reason
        code = _CODES.get(refusal.code, "bad_request")
        body = dump_json({"error": {"code": code, "message": message}})
        self.status = f"{refusal.code} {refusal.reason}"
        self.response_headers = [
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
            *self.channel.server.headers(),
        ]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Task(WSGITask):  # type: ignore[misc]
    """Runs the application; gives it the means to take the connection away."""

    def get_environment(self) -> dict[str, Any]:
        """The WSGI environment and ``push_server.hijack`` (where it is served)."""
        environ: dict[str, Any] = super().get_environment()
        environ["push_server.hijack"] = self.hijack
        return environ

    def build_response_header(self) -> bytes:
        """Say what 426 asks to upgrade to, which an application may not (where it is served)."""
        if self.status.startswith("426 "):
            self.response_headers.append(("Upgrade", "websocket"))  # RFC 9110, 15.5.22
        head: bytes = super().build_response_header()
        return head

    def set_close_on_finish(self) -> None:
        """Not behind 204 and 304, whose end is known; waitress misses a length (where it is
        served)."""
        closing = self.request.headers.get("CONNECTION", "").lower() == "close"
        if self.has_body or self.version == "1.0" or closing:
            super().set_close_on_finish()

    def hijack(self, take: Take) -> bool:
        """Take the connection when this request is done; False if bytes wait behind it.

        With bytes of a next request in waitress's hands already, nobody could tell who is to
        answer them: the application answers 400 and the connection ends.
        """
        channel = self.channel
        with channel.requests_lock:
            begun = channel.request
            behind = begun is not None and (begun.headers_finished or begun.header_plus.strip())
            if len(channel.requests) > 1 or behind or channel.total_outbufs_len:
                self.set_close_on_finish()
                return False
            channel.take = take
        self.request.taken = True
        return True

    def finish(self) -> None:
        """Write nothing if the connection has been taken (where it is served)."""
        if self.channel.take is None:
            super().finish()
        else:
            # waitress has nothing more to do for it, nor to wake its I/O thread for.
            self.channel.connected = False
        # The environment holds our bound method: without this, every request is a cycle that
        # only the garbage collector can free.
        self.environ = None
