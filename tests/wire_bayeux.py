"""Bayeux clients as far as a subscriber needs them, on raw sockets: one for each way to connect.

Written from the Bayeux specification and `docs/bayeux.rst` alone, as `wire` is. Names and elements
are translated into those of every other transport, so that one contract holds for all. Clients
from outside are in `test_bayeux_clients.py`. Imported by `contract`.
"""

import json
import time
from itertools import count
from typing import Any, ClassVar
from urllib.parse import urlencode

from waiting import PATIENCE
from wire import (
    Asked,
    Body,
    Ended,
    Message,
    Receiver,
    Refused,
    Response,
    Wire,
    message_of,
    read_head,
    read_response,
    request_bytes,
)
from wire_ws import CLOSE, TEXT, Upgraded, read_frame, text_frame

Element = dict[str, Any]
CONTROL = "/service/push"


def name_of(channel: str) -> str:
    """A channel as Bayeux spells it."""
    return "/" + channel.replace(":", "/", 1)


def refused(error: str) -> Refused:
    """A failed reply, as the HTTP answer that it stands for."""
    status, code, text = error.split(":", 2)
    response = Response("HTTP/1.1", int(status), [("Content-Type", "application/json")])
    response.body = json.dumps({"error": {"code": code, "message": text}}).encode()
    return Refused(response)


class LongPolling(Receiver):
    """Messages in POST requests; what is delivered comes with the answers to connects."""

    kind: ClassVar[str] = "long-polling"

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.asked = asked
        self.headers = dict(asked.headers)
        ours = {
            name: text for name, text in asked.query if name in ("since", "instance", "ticket")
        }
        if bearer := self.headers.pop("Authorization", ""):
            ours["token"] = bearer.removeprefix("Bearer ")
        self.identity = ""
        self._numbers = count(1)
        self._asked = ""
        """The id of the connect that is not answered yet."""
        self._over = False
        self.wire = self.open()
        try:
            reply = self.call(
                "/meta/handshake",
                version="1.0",
                supportedConnectionTypes=[self.kind],
                ext={"push": ours},
            )
            self.identity = reply["clientId"]
            self.hello = reply["ext"]["push"]
            self.start()
            if channels := [text for name, text in asked.query if name == "channel"]:
                self.call("/meta/subscribe", subscription=[*map(name_of, channels)])
                self.hello["channels"] += channels
            self.cursor = self.hello["cursor"]
            self.begin()
        except BaseException:
            self.close()
            raise

    # What the ways differ in.

    def open(self) -> Wire:
        """The connection that connects go by."""
        return self.asked.connect()

    def start(self) -> None:
        """What comes between the handshake and everything else."""

    def begin(self) -> None:
        """The first connect, which is answered at once."""
        self.read(time.monotonic() + PATIENCE)

    def request(self, messages: list[Element]) -> bytes:
        """Messages as an HTTP request."""
        headers = {**self.headers, "Content-Type": "application/json"}
        return request_bytes("POST", "/bayeux", headers, json.dumps(messages).encode())

    def elements(self, response: Response) -> list[Element]:
        """What an HTTP answer holds."""
        if response.status != 200:
            raise Refused(response)
        return list(response.json())

    def exchange(self, message: Element) -> list[Element]:
        """Send one message; what comes back with its answer."""
        with self.asked.connect() as wire:
            wire.send(self.request([message]))
            return self.elements(read_response(wire))

    def hold(self) -> None:
        """Have a connect under way, if there is none."""
        if not self._asked:
            self.wire.send(self.request([self.connect()]))

    def fetch(self, deadline: float) -> list[Element]:
        """What comes next."""
        self.hold()
        # Nothing is taken from the wire before all of it comes.
        while not self.wire.buffer:
            if not self.wire.fill(deadline):
                raise Ended("closed before the answer")
        return self.elements(read_response(self.wire))

    # What they share.

    def message(self, channel: str, **members: Any) -> Element:
        known = {"clientId": self.identity} if self.identity else {}
        return {"channel": channel, "id": str(next(self._numbers)), **known, **members}

    def connect(self) -> Element:
        message = self.message("/meta/connect", connectionType=self.kind)
        self._asked = message["id"]
        return message

    def call(self, channel: str, **members: Any) -> Element:
        """One message and its reply; raises `Refused`."""
        message = self.message(channel, **members)
        reply: Element | None = None
        for element in self.exchange(message):
            if "successful" in element and element.get("id") == message["id"]:
                reply = element
            else:
                self.take_in(element)
        assert reply is not None, "no reply"
        if not reply["successful"]:
            raise refused(reply["error"])
        return reply

    def publish(self, channel: str, data: Any, **ours: Any) -> Any:
        """Publish by this very connection."""
        return self.call(name_of(channel), data=data, ext={"push": ours})["ext"]["push"]

    def take_in(self, element: Element) -> None:
        """A reply to a connect, a control message or a publication."""
        if "successful" in element:
            assert element["channel"] == "/meta/connect" and element["id"] == self._asked, element
            self._asked = ""
            self._over = not element["successful"]
        elif element["channel"] == CONTROL:
            control = element["data"]
            self.waiting.append(message_of(control, control["cursor"]))
        else:
            assert set(element) == {"channel", "id", "data", "ext"}, element
            ours = dict(element["ext"]["push"])
            cursor = ours.pop("cursor")
            channel = element["channel"][1:].replace("/", ":", 1)
            value = {"channel": channel, "data": element["data"], **ours}
            assert value["id"] == element["id"]
            self.waiting.append(Message(None, value, cursor))

    def read(self, deadline: float) -> None:
        if self._over:
            raise Ended("the session is over")
        for element in self.fetch(deadline):
            self.take_in(element)
        if not self.waiting and self._over:
            raise Ended("the session is over")

    def close(self) -> None:
        self.wire.close()


class CallbackPolling(LongPolling):
    """The same by script elements."""

    kind = "callback-polling"

    def request(self, messages: list[Element]) -> bytes:
        query = urlencode({"message": json.dumps(messages), "jsonp": "cb"})
        return request_bytes("GET", f"/bayeux?{query}", self.headers)

    def elements(self, response: Response) -> list[Element]:
        if response.status != 200:
            raise Refused(response)
        assert response.body.startswith(b"/**/cb([") and response.body.endswith(b"]);")
        return list(json.loads(response.body[len(b"/**/cb(") : -len(b");")]))


class EventSource(LongPolling):
    """What is delivered comes as events; messages are sent as by `LongPolling`."""

    kind = "eventsource"

    def start(self) -> None:
        headers = {**self.headers, "Accept": "text/event-stream"}
        self.wire.send(request_bytes("GET", f"/bayeux/{self.identity}", headers))
        deadline = time.monotonic() + PATIENCE
        head = read_head(self.wire, deadline)
        assert head.header("Content-Type") == "text/event-stream; charset=utf-8"
        self.body = Body(self.wire, head)
        assert [self.body.line(deadline) for _ in range(2)] == [b"retry: 5000", b""]

    def begin(self) -> None:
        """Nothing: connects would only say that somebody is there."""

    def hold(self) -> None:
        """Nothing: what comes, comes by itself."""

    def fetch(self, deadline: float) -> list[Element]:
        line = self.body.line(deadline)
        assert line.startswith(b"data: ") and self.body.line(deadline) == b"", line
        return list(json.loads(line.removeprefix(b"data: ")))


class WebSocket(LongPolling):
    """Messages both ways on one connection."""

    kind = "websocket"

    def open(self) -> Wire:
        self.upgraded = Upgraded(
            self.asked.address, "/bayeux", self.headers, self.asked.source
        )
        return self.upgraded.wire

    def _next(self, deadline: float) -> list[Element]:
        got = read_frame(self.wire, deadline)
        if got.opcode == CLOSE:
            raise Ended(f"closed with {got.code}")
        assert (got.opcode, got.fin) == (TEXT, True), got
        return list(json.loads(got.payload.decode("ascii")))

    def exchange(self, message: Element) -> list[Element]:
        self.wire.send(text_frame([message]))
        deadline = time.monotonic() + PATIENCE
        got: list[Element] = []
        while not any(element.get("id") == message["id"] for element in got):
            got += self._next(deadline)
        return got

    def hold(self) -> None:
        if not self._asked:
            self.wire.send(text_frame([self.connect()]))

    def fetch(self, deadline: float) -> list[Element]:
        self.hold()
        return self._next(deadline)
