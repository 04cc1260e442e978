"""Clients of the transports from before there were better ones, on raw sockets.

Written from `docs/protocol.rst` alone, as `wire` is. Imported by `harness` and the tests.
"""

import json
import re
import time
from base64 import b64encode
from collections import Counter, deque
from html.parser import HTMLParser
from typing import Any

from waiting import PATIENCE
from wire import (
    Asked,
    Body,
    Ended,
    Message,
    Poll,
    Receiver,
    Refused,
    Response,
    Streaming,
    message_in,
    read_accepted,
    read_response,
    request_bytes,
)

BOUNDARY = b"--next-picture-of-the-push-server"
PART = (b"Content-Type: image/png", b"")


def picture(number: int, size: int = 0) -> str:
    """A picture to be published, another one for each number."""
    content = b"GIF89a" + number.to_bytes(4, "big") + b"." * size
    return f"data:image/gif;base64,{b64encode(content).decode()}"


class Frame(Streaming):
    """A reader of the forever frame: an HTML parser that runs no script."""

    transport = "frame"
    content_type = "text/html; charset=utf-8"

    def __init__(self, asked: Asked) -> None:
        self.parser = PageParser()
        super().__init__(asked)

    def read(self, deadline: float) -> None:
        while not self.parser.texts:
            self.parser.feed(self.body.line(deadline).decode("ascii"))
        self.waiting.append(message_in(self.parser.texts.popleft()))


class PageParser(HTMLParser):
    """What stands in ``<p>`` elements of a page that are followed by ``<hr>``."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: deque[str] = deque()
        self.elements: Counter[str] = Counter()
        self._text: str | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements[tag] += 1
        if tag == "p":
            assert not attrs
            self._text = ""
        elif tag == "hr":
            assert self._text is not None
            self.texts.append(self._text)
            self._text = None

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text += data


class Interval(Poll):
    """A client that asks fifty times a second."""

    transport = "interval"

    def read(self, deadline: float) -> None:
        time.sleep(0.02)
        super().read(deadline)


class Jsonp(Poll):
    """A reader of calls of one function."""

    transport = "jsonp"

    def value(self, response: Response) -> Any:
        assert response.header("Content-Type") == "text/javascript; charset=utf-8"
        callback = dict(self.query)["callback"].encode()
        prefix, suffix = b"/**/" + callback + b"(", b");"
        assert response.body.startswith(prefix) and response.body.endswith(suffix), response
        return json.loads(response.body[len(prefix) : -len(suffix)])


class Pictures(Receiver):
    """A reader of pictures that replace each other. It is told nothing but their bytes."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.wire = asked.connect()
        self.wire.send(request_bytes("GET", asked.target("multipart"), asked.headers))
        deadline = time.monotonic() + PATIENCE
        try:
            head = read_accepted(self.wire, 200)
            kind = f"multipart/x-mixed-replace; boundary={BOUNDARY[2:].decode()}"
            assert head.header("Content-Type") == kind
            self.body = Body(self.wire, head)
            assert self.body.line(deadline) == BOUNDARY + b"\r"
            assert self.body.line(deadline).startswith(b"X-Padding: ")
            self._part(deadline)
        except BaseException:
            self.close()
            raise

    def _part(self, deadline: float) -> None:
        assert tuple(self.body.line(deadline).rstrip(b"\r") for _ in PART) == PART

    def read(self, deadline: float) -> None:
        end = b"\r\n" + BOUNDARY + b"\r\n"
        while end not in self.body.data:
            if not self.body.fill(deadline):
                raise Ended("the body ended")
        content, _, self.body.data = self.body.data.partition(end)
        self._part(deadline)
        data = f"data:image/gif;base64,{b64encode(content).decode()}"
        self.waiting.append(Message(None, {"data": data}, ""))

    def close(self) -> None:
        self.wire.close()


class Page(HTMLParser):
    """The items of a page of client pull, and which elements it has."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.items: list[str] = []
        self.title = ""
        self._at = ""
        assert response.status == 200, response
        assert response.header("Content-Type") == "text/html; charset=utf-8"
        self.feed(response.body.decode())

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.add(tag)
        self._at = tag
        if tag == "li":
            self.items.append("")

    def handle_endtag(self, tag: str) -> None:
        self._at = ""

    def handle_data(self, data: str) -> None:
        if self._at == "li":
            self.items[-1] += data
        elif self._at == "title":
            self.title += data


def again(response: Response) -> tuple[int, str]:
    """After how many seconds the browser loads what."""
    match = re.fullmatch(r"(\d+); url=(/pull\?.*)", response.header("Refresh") or "")
    assert match, response
    return int(match[1]), match[2]


class Pull(Receiver):
    """A browser that loads the page again and again, sooner than it is told to. What is published
    has to be text, no two the same."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.asked = asked
        self._target = asked.target("").replace("/subscribe/", "/pull")
        self._headers = asked.headers
        self._known: set[str] = set()
        self._load()

    def _load(self) -> list[str]:
        """What is new on the page, the oldest first."""
        with self.asked.connect() as wire:
            wire.send(request_bytes("GET", self._target, self._headers))
            response = read_response(wire)
        if response.status != 200:
            raise Refused(response)
        self._target = again(response)[1]
        self._headers = {"Host": self.asked.headers["Host"]}  # the ticket is in the URL
        items = Page(response).items
        new = [item for item in reversed(items) if item not in self._known]
        self._known.update(items)
        return new

    def read(self, deadline: float) -> None:
        while not (new := self._load()):
            if time.monotonic() > deadline:
                raise TimeoutError("the page stays as it is")
            time.sleep(0.02)
        self.waiting += [Message(None, {"data": item}, "") for item in new]

    def close(self) -> None:
        """There is nothing open."""
