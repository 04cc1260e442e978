"""What the head of a request may be, beyond what waitress asks of it.

waitress lets through what some proxy in front may read differently: Content-Length beside
Transfer-Encoding, a folded header, two Host headers. Where two parsers disagree on such a request,
one user's request is smuggled into another's connection (RFC 9112, sections 3.2, 5.2, 6.1).

Pure; imported by the HTTP front.
"""

import re
from collections import Counter

HEADER_COUNT = 64
TARGET_BYTES = 12_288

_REQUEST_LINE = re.compile(rb"[A-Z]+ [!-~]+ HTTP/([0-9]\.[0-9])")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*(?:\r\n|$)", re.I)
_BLANKS = re.compile(rb"\r\n[^:\r\n]*:[ \t]{65}")
"""waitress takes the square of their number: 15,000 hold its only I/O thread for 0.7 seconds."""
_ONCE = (b"host", b"content-length", b"transfer-encoding")


class BadHead(Exception):
    """Raised if a head breaks a rule; the connection has to end, whatever follows on it."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(status, reason, detail)
        self.status = status
        self.reason = reason
        self.detail = detail


def check_head(head: bytes) -> None:
    """Check the request line and the headers, as they came. Raises `BadHead`."""
    line, _, fields = head.partition(b"\r\n")
    if b" //" in line:
        raise BadHead(400, "Bad Request", "target begins with //")
    if len(line) > TARGET_BYTES:
        raise BadHead(414, "URI Too Long", "target over 12 KiB")
    request_line = _REQUEST_LINE.fullmatch(line)
    if request_line is None:
        raise BadHead(400, "Bad Request", "request line")
    if request_line[1] not in (b"1.0", b"1.1"):
        raise BadHead(505, "HTTP Version Not Supported", "version")
    if b"\0" in head or b"\r\n " in head or b"\r\n\t" in head:
        raise BadHead(400, "Bad Request", "NUL or folded header")
    if _BLANKS.search(head):
        raise BadHead(400, "Bad Request", "over 64 blanks before a value")
    lines = fields.split(b"\r\n")
    if len(lines) > HEADER_COUNT + 2:
        raise BadHead(431, "Request Header Fields Too Large", f"over {HEADER_COUNT} headers")
    names = Counter(field.partition(b":")[0].strip().lower() for field in lines)
    if any(names[name] > 1 for name in _ONCE):
        raise BadHead(400, "Bad Request", "framing header twice")
    if names[b"transfer-encoding"] and (
        names[b"content-length"] or line.endswith(b"1.0") or not _CHUNKED.search(head)
    ):
        raise BadHead(400, "Bad Request", "Transfer-Encoding")
    if not names[b"host"] and line.endswith(b"1.1"):
        raise BadHead(400, "Bad Request", "no Host")
    if any(b"_" in name for name in names):
        # X_Forwarded_For and X-Forwarded-For are one name to a WSGI application.
        raise BadHead(400, "Bad Request", "underscore in a header name")
