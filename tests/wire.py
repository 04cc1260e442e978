"""HTTP and the three transports as an outside client sees them, on raw sockets.

Written from `docs/protocol.rst` alone and without a line of the server's code: a mistake in
the server's framing cannot cancel out against the same mistake here. Every wait has a
deadline. Imported by `harness` and by tests that speak to sockets themselves.
"""

import json
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from waiting import PATIENCE

Address = tuple[str, int] | str
"""A loopback port, or the path of a Unix socket."""


class Ended(Exception):
    """Raised if the server closed the connection where more was expected."""


class Refused(Exception):
    """Raised if a stream was asked for and an ordinary answer came."""

    def __init__(self, response: "Response") -> None:
        super().__init__(f"{response.status} {response.body[:300]!r}")
        self.response = response


class Wire:
    """A socket with a buffer. `line` and `exactly` take nothing unless all of it is there."""

    def __init__(self, connected: socket.socket, buffer: bytes = b"") -> None:
        self.socket = connected
        self.buffer = buffer
        self.ended = False

    @classmethod
    def connect(cls, address: Address, source: str | None = None) -> Self:
        """A new connection; `source` is the loopback address it comes from."""
        if isinstance(address, str):
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connected.settimeout(PATIENCE)
            try:
                connected.connect(address)
            except OSError:
                connected.close()
                raise
        else:
            connected = socket.create_connection(address, PATIENCE, (source, 0) if source else None)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connected)

    def send(self, data: bytes, timeout: float = PATIENCE) -> None:
        """Write everything; a peer that has closed is noticed by the next read."""
        self.socket.settimeout(timeout)
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.ended = True

    def fill(self, deadline: float) -> bool:
        """Read once more; False when the server has closed."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"nothing came; the buffer holds {self.buffer[:300]!r}")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65_536)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        self.ended = not data
        return not self.ended

    def exactly(self, count: int, deadline: float) -> bytes:
        """The next `count` bytes."""
        while len(self.buffer) < count:
            if not self.fill(deadline):
                raise Ended(f"closed after {self.buffer[:300]!r}")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def line(self, deadline: float) -> bytes:
        """The next line, without its LF or CRLF."""
        while b"\n" not in self.buffer:
            if not self.fill(deadline):
                raise Ended(f"closed after {self.buffer[:300]!r}")
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.removesuffix(b"\r")

    def rest(self, timeout: float = PATIENCE) -> bytes:
        """Everything up to the end of the connection."""
        deadline = time.monotonic() + timeout
        while self.fill(deadline):
            pass
        data, self.buffer = self.buffer, b""
        return data

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Response:
    """One HTTP answer: the head, and as much of the body as was read."""

    def __init__(self, version: str, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self.version = version
        self.status = status
        self.headers = headers
        self.body = b""

    def header(self, name: str) -> str | None:
        """The value of a header that may stand there once at most."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} stands {len(values)} times in the answer"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The code of a refusal; asserts that it is one, in the form the protocol gives it."""
        body = self.json()
        assert set(body) == {"error"} and {"code", "message"} <= set(body["error"]), body
        return str(body["error"]["code"])

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.body[:200]!r}>"


class Body:
    """The body of an answer as it arrives, by whichever of the three framings it has."""

    def __init__(self, wire: Wire, head: Response, method: str = "GET") -> None:
        self.wire = wire
        self.data = b""
        self.chunked = (head.header("Transfer-Encoding") or "").lower() == "chunked"
        length = head.header("Content-Length")
        assert not (self.chunked and length), "both framings in one answer"
        self.left = int(length) if length is not None else None
        if method == "HEAD" or head.status in (204, 304) or head.status < 200:
            self.chunked, self.left = False, 0
        self._chunk: int | None = None

    def fill(self, deadline: float) -> bool:
        """Take in some more of the body; False at its end."""
        if self.chunked:
            if self._chunk is None:
                self._chunk = int(self.wire.line(deadline).partition(b";")[0], 16)
            data = self.wire.exactly(self._chunk + 2, deadline)
            assert data.endswith(b"\r\n"), "a chunk without its line end"
            self.data += data[:-2]
            if self._chunk == 0:
                self.chunked, self.left = False, 0
                return False
            self._chunk = None
            return True
        if self.left == 0:
            return False
        if not self.wire.buffer and not self.wire.fill(deadline):
            if self.left is not None:
                raise Ended(f"closed {self.left} bytes before the end of the body")
            return False
        taken = len(self.wire.buffer) if self.left is None else self.left
        data, self.wire.buffer = self.wire.buffer[:taken], self.wire.buffer[taken:]
        if self.left is not None:
            self.left -= len(data)
        self.data += data
        return True

    def line(self, deadline: float) -> bytes:
        """The next line of the body, without its LF."""
        while b"\n" not in self.data:
            if not self.fill(deadline):
                raise Ended(f"the body ended after {self.data[:300]!r}")
        line, _, self.data = self.data.partition(b"\n")
        return line

    def rest(self, deadline: float) -> bytes:
        """All of it."""
        while self.fill(deadline):
            pass
        return self.data


def read_head(wire: Wire, deadline: float) -> Response:
    """The next status line and headers; interim answers are passed over."""
    while True:
        version, status, *_ = wire.line(deadline).decode("latin-1").split(" ", 2)
        headers = []
        while line := wire.line(deadline).decode("latin-1"):
            name, colon, value = line.partition(":")
            assert colon and name == name.strip(), f"bad header line {line!r}"
            headers.append((name, value.strip()))
        if status != "100":
            return Response(version, int(status), headers)


def read_response(wire: Wire, method: str = "GET", timeout: float = PATIENCE) -> Response:
    """The next whole answer."""
    deadline = time.monotonic() + timeout
    response = read_head(wire, deadline)
    response.body = Body(wire, response, method).rest(deadline)
    return response


def read_accepted(wire: Wire, status: int) -> Response:
    """The head of an answer with this status; `Refused` with the whole of any other."""
    deadline = time.monotonic() + PATIENCE
    head = read_head(wire, deadline)
    if head.status != status:
        head.body = Body(wire, head).rest(deadline)
        raise Refused(head)
    return head


def parse_responses(data: bytes) -> list[Response]:
    """All answers in what a connection sent before it closed."""
    ours, theirs = socket.socketpair()
    theirs.close()
    responses = []
    with Wire(ours, data) as wire:
        while wire.buffer:
            responses.append(read_response(wire))
    return responses


def request_bytes(
    method: str,
    target: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
) -> bytes:
    """One HTTP/1.1 request. `Content-Length` is added where there is, or could be, a body."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if body is None and method == "POST":
        body = b""
    if body is not None and not any(name.lower() == "content-length" for name, _ in pairs):
        pairs.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in pairs)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class Asked(NamedTuple):
    """What a subscriber asks for, and how it gets there."""

    address: Address
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    source: str | None = None
    """The loopback address that it comes from."""

    def connect(self) -> Wire:
        """A new connection."""
        return Wire.connect(self.address, self.source)

    def target(self, transport: str) -> str:
        """The URL, without the host."""
        return f"/subscribe/{transport}?{urlencode(self.query)}"


class Message(NamedTuple):
    """What one transport unit carried."""

    control: str | None
    """The type of a control message; `None` for a publication."""
    value: dict[str, Any]
    cursor: str


class Receiver:
    """A subscriber: what the three transports have in common."""

    def __init__(self) -> None:
        self.cursor = ""
        self.hello: dict[str, Any] = {}
        self.waiting: deque[Message] = deque()

    def read(self, deadline: float) -> None:
        """Put at least one more message into `waiting`, or raise `Ended`."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def next(self, timeout: float = PATIENCE) -> Message:
        """The next message of any kind."""
        deadline = time.monotonic() + timeout
        while not self.waiting:
            self.read(deadline)
        message = self.waiting.popleft()
        self.cursor = message.cursor
        return message

    def take(self, count: int, timeout: float = PATIENCE) -> list[Message]:
        """The next `count` publications; control messages between them are passed over."""
        deadline = time.monotonic() + timeout
        taken: list[Message] = []
        while len(taken) < count:
            try:
                message = self.next(max(0.0, deadline - time.monotonic()))
            except TimeoutError as error:
                raise TimeoutError(f"{len(taken)} of {count} publications came") from error
            if message.control is None:
                taken.append(message)
        return taken

    def control(self, kind: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """The next control message of this type; a publication before it is an error."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.next(max(0.0, deadline - time.monotonic()))
            assert message.control is not None, f"{message} came before {kind}"
            if message.control == kind:
                return message.value

    def until_end(self, timeout: float = PATIENCE) -> list[Message]:
        """Everything up to the moment the server closes."""
        deadline = time.monotonic() + timeout
        messages = []
        while True:
            try:
                messages.append(self.next(max(0.0, deadline - time.monotonic())))
            except Ended:
                return messages

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def message_of(value: dict[str, Any], cursor: str) -> Message:
    """The message in a JSON object of the wire; asserts that it is exactly one kind."""
    assert ("channel" in value) != ("type" in value), value
    return Message(value.get("type"), value, cursor)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    assert len(value) == len(pairs), "a member stands twice"
    return value


def message_in(text: bytes | str) -> Message:
    """The message in JSON text that holds its own cursor, as all but SSE have it."""
    text = text if isinstance(text, str) else text.decode("ascii")
    value = json.loads(text, object_pairs_hook=_members)
    cursor = value["cursor"] if "type" in value else value.pop("cursor")
    return message_of(value, cursor)


class Streaming(Receiver):
    """What SSE and the JSON-lines stream have in common: one request, one endless body."""

    transport = ""
    content_type = ""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.wire = asked.connect()
        self.wire.send(request_bytes("GET", asked.target(self.transport), asked.headers))
        try:
            self.head = read_accepted(self.wire, 200)
            self.body = Body(self.wire, self.head)
            assert self.head.header("Content-Type") == self.content_type
            self.hello = self.control("hello")
        except BaseException:
            self.wire.close()
            raise

    def close(self) -> None:
        self.wire.close()


class Sse(Streaming):
    """An SSE client as the WHATWG text describes one, for LF line ends."""

    transport = "sse"
    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, asked: Asked) -> None:
        self.retry: int | None = None
        self._data: list[str] = []
        self._event = ""
        self._id = ""
        super().__init__(asked)

    def read(self, deadline: float) -> None:
        while True:
            line = self.body.line(deadline).decode("ascii")
            assert "\r" not in line
            if line:
                self._field(line)
            elif self._data:
                value = json.loads("\n".join(self._data))
                message = message_of(value, self._id)
                assert self._event == ("" if message.control is None else "control")
                self._data, self._event = [], ""
                self.waiting.append(message)
                return

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id":
            self._id = value
        elif name == "retry":
            self.retry = int(value)
        else:
            assert name == "", f"{line!r} is no field of an event stream"


class Stream(Streaming):
    """A reader of JSON lines."""

    transport = "stream"
    content_type = "application/x-ndjson; charset=utf-8"

    def read(self, deadline: float) -> None:
        self.waiting.append(message_in(self.body.line(deadline)))


class Poll(Receiver):
    """A long-poll client that keeps its connection."""

    transport = "poll"

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.asked = asked
        self.headers = asked.headers
        self.query = [(name, value) for name, value in asked.query if name != "since"]
        self.wire = asked.connect()
        self.connections = 1
        self.held = False
        given = dict(asked.query)
        self.position = given.get("since", "")
        if "since" in given:
            return
        try:
            self.read(time.monotonic() + PATIENCE)
            self.hello = self.control("hello")
        except BaseException:
            self.wire.close()
            raise

    def target(self, **extra: str) -> str:
        """The URL of the next poll."""
        since = [("since", self.position)] if self.position else []
        query = [*self.query, *since, *extra.items()]
        return self.asked._replace(query=query).target(self.transport)

    def value(self, response: Response) -> Any:
        """The object in an answer."""
        return response.json()

    def hold(self, seconds: int = 25) -> None:
        """Have a request under way, which the server may hold so long."""
        if self.wire.ended:
            self.wire.close()
            self.wire = self.asked.connect()
            self.connections += 1
        self.wire.send(request_bytes("GET", self.target(timeout=str(seconds)), self.headers))
        self.held = True

    def answer(self, hold: int = 25, timeout: float = PATIENCE) -> dict[str, Any]:
        """Poll once and return the answer as it is, moving on to its cursor."""
        if not self.held:
            self.hold(hold)
        response = read_response(self.wire, timeout=timeout)
        self.held = False
        if response.header("Connection") == "close":
            self.wire.ended = True
        if response.status != 200:
            raise Refused(response)
        value = self.value(response)
        assert set(value) == {"cursor", "publications", "control"}, value
        assert isinstance(value, dict)
        self.position = value["cursor"]
        return value

    def read(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no poll brought anything")
        # Where it stands it is told at once. Then one second at a time: a test that waits for what
        # never comes shall soon know.
        answer = self.answer(hold=1 if self.hello else 0, timeout=left + 2)
        for control in answer["control"]:
            if control["type"] == "hello":
                self.hello = control
            self.waiting.append(message_of(control, answer["cursor"]))
        for publication in answer["publications"]:
            self.waiting.append(message_of(publication, answer["cursor"]))

    def close(self) -> None:
        self.wire.close()
