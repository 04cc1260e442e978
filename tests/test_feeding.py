"""Publishing lines: batches that fit, order kept, and the line that failed named."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from push_server.client import InvalidCall, PushClient, Result
from push_server.feeding import BATCH_LINES, READ_AHEAD, Feed, FeedError


class Recorder(PushClient):
    """A client that keeps the batches instead of sending them."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "whsec_" + "A" * 32)
        self.batches: list[list[Any]] = []
        self.refused: set[Any] = set()
        self.broken = False
        self.sent = threading.Event()

    def batch(self, commands: Sequence[Mapping[str, Any]]) -> Result[list[Result[Any]]]:
        self.batches.append([command["params"]["data"] for command in commands])
        self.sent.set()
        if self.broken:
            return Result(None, InvalidCall("broken", "No."))
        return Result(
            [
                Result(None, InvalidCall("bad", "Not this."))
                if command["params"]["data"] in self.refused
                else Result({})
                for command in commands
            ]
        )


def feed(client: Recorder, source: Iterable[bytes], max_body: int = 1000) -> Feed:
    feeding = Feed(client, "chan", max_body, show=False)
    feeding.run(source)
    return feeding


def numbers(count: int) -> list[bytes]:
    return [b"%d\n" % number for number in range(count)]


def test_order_is_kept_and_batches_are_bounded() -> None:
    client = Recorder()
    assert feed(client, numbers(1000), 10**6).published == 1000
    assert [data for batch in client.batches for data in batch] == list(range(1000))
    assert max(map(len, client.batches)) <= BATCH_LINES


def test_a_batch_fits_half_of_a_request() -> None:
    client = Recorder()
    # As JSON each is 102 bytes, or 602 with its escapes.
    lines = [b'"%s"' % (b"x" * 100)] * 20 + ['"é"'.replace("é", "é" * 100).encode()] * 3
    feed(client, lines, max_body=1000)
    for batch in client.batches:
        size = sum(102 if data[0] == "x" else 602 for data in batch)
        assert size <= 500 or len(batch) == 1


def test_a_line_leaves_at_once() -> None:
    client = Recorder()

    def slowly() -> Iterator[bytes]:
        for number in range(3):
            yield b"%d" % number
            assert client.sent.wait(10)
            client.sent.clear()

    feed(client, slowly())
    assert client.batches == [[0], [1], [2]]


def test_empty_input_and_empty_lines() -> None:
    client = Recorder()
    assert feed(client, []).published == 0
    assert feed(client, [b"\n", b"  \r\n", b"1"]).published == 1


@pytest.mark.parametrize("line", [b"{", b"\xff", b"nan", b"[" * 100_000])
def test_what_is_not_json_is_named_after_what_went_before(line: bytes) -> None:
    client = Recorder()
    with pytest.raises(FeedError, match=r"^line 3 is not JSON"):
        feed(client, [b"1\n", b"2\n", line, b"4\n"])
    assert [data for batch in client.batches for data in batch] == [1, 2]


def test_input_that_cannot_be_read_ends_it() -> None:
    client = Recorder()

    def broken() -> Iterator[bytes]:
        yield b"1"
        raise IsADirectoryError(21, "Is a directory")

    with pytest.raises(FeedError, match=r"^the input cannot be read: Is a directory$"):
        feed(client, broken())
    assert client.batches == [[1]]


def test_a_refused_line_is_named_and_ends_it() -> None:
    client = Recorder()
    client.refused = {3}
    with pytest.raises(FeedError, match=r"^line 4: bad: Not this\.$"):
        feed(client, numbers(READ_AHEAD))
    sent = [data for batch in client.batches for data in batch]
    assert sent == list(range(len(sent)))
    assert len(sent) <= 4 + BATCH_LINES


def test_a_batch_that_failed_is_named() -> None:
    client = Recorder()
    client.broken = True
    with pytest.raises(FeedError, match=r"^lines? 1( to \d+)?: broken: No\.$"):
        feed(client, numbers(5))


def test_progress_is_shown_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    client = Recorder()
    Feed(client, "chan", 1000, show=True).run(numbers(2))
    shown = capsys.readouterr().err
    assert shown.endswith("\r2 published\n")
    Feed(client, "chan", 1000, show=False).run(numbers(2))
    assert capsys.readouterr().err == "2 published\n"
