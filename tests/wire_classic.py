"""Clients of the transports from before there were better ones, on raw sockets.

Written from `docs/protocol.rst` alone, as `wire` is. Imported by `harness`.
"""

import json
import time
from collections import Counter, deque
from html.parser import HTMLParser
from typing import Any

from wire import Asked, Poll, Response, Streaming, message_in


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
