"""How much of the disk publishing may take, so that what has to go on has room.

A disk that is quite full cannot be rescued from inside: SQLite needs room even to delete, and a
logout has to be written down. So publishing stops before.

The writer's thread. Imported by the SQLite store.
"""

import os
from collections.abc import Iterable

from push_server import log
from push_server.brokers.sqlite_file import Connection
from push_server.publications import PublishRequest

LOW_WATER = 64 * 1024 * 1024
"""What is kept free, or 5 % of a small disk."""
ROW_COST = 1024
DATA_COST = 2
"""What a publication takes: its rows, and each byte of its data, which stands in the write-ahead
log and in the database."""


class Space:
    """The room on the disk that a log is on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._room = 0
        self._low = False

    def measure(self, db: Connection) -> None:
        """See how much there is: the disk has other users, too."""
        disk = os.statvfs(self._path)
        free = disk.f_bavail * disk.f_frsize
        ((size,),) = db.execute(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        )
        # The write-ahead log is yet to be copied into the file.
        free -= max(size - os.stat(self._path).st_size, 0)
        self._room = free - min(LOW_WATER, disk.f_blocks * disk.f_frsize // 20)
        low = self._room < 0
        if low and not self._low:
            log.warn("storage.low", path=self._path, free=free)
        self._low = low

    def take(self, requests: Iterable[PublishRequest]) -> bool:
        """Whether there is room for these, and for all since it was measured.

        One broadcast to a thousand channels can be larger than all that is kept free.
        """
        self._room -= sum(ROW_COST + DATA_COST * len(request.data) for request in requests)
        return self._room >= 0
