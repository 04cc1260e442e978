"""Publishing a stream of lines: ``push-server publish CHANNEL -``, or ``push-server publish -``.

A thread reads, the caller's thread publishes. Whatever has been read while one request was under
way goes into the next one: a file is published in large batches, and a line typed by hand, or
written by ``tail -f``, leaves at once.

Imported by the command line.
"""

import json
import queue
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from push_server.client import PushClient

BATCH_LINES = 200
READ_AHEAD = 2000
"""Lines in memory; after that the reader waits, and whoever writes to it."""
PROGRESS_SECONDS = 0.2


class FeedError(Exception):
    """Raised if a line cannot be published. The lines before it, and perhaps some after, were."""


class _Line(NamedTuple):
    number: int
    value: Any
    size: int


_Read = _Line | FeedError | None
"""A line, the reason why there is none, or the end."""


class Feed:
    """Publishes lines of JSON, in order: to one channel, or each where it says."""

    def __init__(
        self, client: PushClient, channel: str | None, max_body: int, *, show: bool
    ) -> None:
        self.published = 0
        self._client = client
        self._channel = channel
        # Half of what a request may hold: the rest is for the words around each value.
        self._batch_bytes = max_body // 2
        self._show = show
        self._shown = 0.0
        self._lines: queue.Queue[_Read] = queue.Queue(READ_AHEAD)
        self._put_back: list[_Read] = []

    def run(self, source: Iterable[bytes]) -> None:
        """Publish until the source ends. Raises `FeedError` at the first line that fails."""
        threading.Thread(target=self._read, args=(source,), daemon=True).start()
        try:
            while (first := self._take()) is not None:
                self._publish(self._gather(first))
        finally:
            if self._show:
                sys.stderr.write("\r")
            sys.stderr.write(f"{self.published} published\n")
            sys.stderr.flush()

    def _read(self, source: Iterable[bytes]) -> None:
        try:
            self._read_lines(source)
        except OSError as error:
            self._lines.put(FeedError(f"the input cannot be read: {error.strerror}"))

    def _read_lines(self, source: Iterable[bytes]) -> None:
        for number, line in enumerate(source, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                size = len(json.dumps(value))
            except (ValueError, RecursionError) as error:
                self._lines.put(FeedError(f"line {number} is not JSON: {error}"))
                return
            if self._channel is None and not isinstance(value, dict):
                self._lines.put(FeedError(f'line {number} is no {{"channel": …, "data": …}}'))
                return
            self._lines.put(_Line(number, value, size))
        self._lines.put(None)

    def _take(self) -> _Line | None:
        read = self._put_back.pop() if self._put_back else self._lines.get()
        if isinstance(read, FeedError):
            raise read
        return read

    def _gather(self, first: _Line) -> list[_Line]:
        """The first line and those that have been read already, as many as fit one request."""
        batch, size = [first], first.size
        while len(batch) < BATCH_LINES:
            try:
                read = self._lines.get_nowait()
            except queue.Empty:
                break
            if not isinstance(read, _Line) or size + read.size > self._batch_bytes:
                self._put_back.append(read)
                break
            batch.append(read)
            size += read.size
        return batch

    def _publish(self, batch: list[_Line]) -> None:
        channel = self._channel
        commands = [
            {
                "method": "publish",
                "params": {"channel": channel, "data": line.value} if channel else line.value,
            }
            for line in batch
        ]
        result = self._client.batch(commands)
        if result.value is None:
            where = f"line {batch[0].number}"
            if len(batch) > 1:
                where = f"lines {batch[0].number} to {batch[-1].number}"
            raise FeedError(f"{where}: {result.error}")
        failed = None
        for line, answer in zip(batch, result.value, strict=True):
            if answer.ok:
                self.published += 1
            elif failed is None:
                failed = FeedError(f"line {line.number}: {answer.error}")
        if failed is not None:
            raise failed
        self._progress()

    def _progress(self) -> None:
        now = time.monotonic()
        if self._show and now - self._shown >= PROGRESS_SECONDS:
            self._shown = now
            sys.stderr.write(f"\r{self.published} published")
            sys.stderr.flush()
