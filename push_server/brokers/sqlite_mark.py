"""How far the log got, told by a second file, so that a log that lost its end is noticed.

SQLite cannot know that its write-ahead log was deleted, cut off or damaged: it takes what it can
read for all there ever was. Clients who had seen what is missing would be told `future` or `tag`;
those who had not would be told nothing. So the mark is written over after each commit, before
anybody is answered. It is not synced: after a power loss an older one may be there, so it may lag
behind the log, but it is never ahead of it. A log that is behind its mark has lost something that
was acknowledged.

Imported by `push_server.brokers.sqlite_file`.
"""

import contextlib
import os
import re
from zlib import crc32

_LINE = re.compile(rb"push ([0-9]{16}) ([0-9]{16}) [0-9a-f]{8}\n")


class Mark:
    """The epoch of a log and the number of publications it ever had."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.epoch = 0  # no log has this one: the file was not there, or damaged
        self.total = 0
        self._fd = -1

    def open(self) -> None:
        """Read what was written last. Raises `OSError` if the file cannot be opened."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        read = os.pread(self._fd, 256, 0)
        match = _LINE.fullmatch(read)
        if match:
            epoch, total = int(match[1]), int(match[2])
            if read == _line(epoch, total):
                self.epoch, self.total = epoch, total

    def begin(self, epoch: int, total: int) -> None:
        """Write a mark that a power loss cannot take away, if the disk has room for it."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, len(_line(epoch, total)))
        self.write(epoch, total)
        with contextlib.suppress(OSError):
            os.fsync(self._fd)

    def write(self, epoch: int, total: int) -> None:
        """Write over the mark. If that fails it stays behind the log, which does no harm."""
        self.epoch, self.total = epoch, total
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, _line(epoch, total), 0)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _line(epoch: int, total: int) -> bytes:
    text = b"push %016d %016d " % (epoch, total)
    return text + b"%08x\n" % crc32(text)
