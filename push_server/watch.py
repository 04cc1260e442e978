"""The watch for hang-ups: one selector inside the event loop's own.

Almost every event on an idle connection is its end. Registering each socket with asyncio costs
half a kilobyte (a handle, a context, a key, a tuple) and ten microseconds; a selector of our own,
which asyncio sees as one descriptor (epoll and kqueue both can be nested), costs a third of both.

Event loop only. Imported by the hub and its connections.
"""

import selectors
from asyncio import AbstractEventLoop
from collections.abc import Callable

from push_server import log


class Watch:
    """Calls back when a descriptor has something to read."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._selector = selectors.DefaultSelector()
        loop.add_reader(self._selector.fileno(), self._ready)

    def add(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back as long as `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def drop(self, fd: int) -> None:
        """Forget `fd`; it need not be known."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def close(self) -> None:
        """Forget everything."""
        self._loop.remove_reader(self._selector.fileno())
        self._selector.close()

    def _ready(self) -> None:
        for key, _ in self._selector.select(0):
            callback: Callable[[], None] = key.data
            try:
                callback()
            except Exception as failure:  # noqa: BLE001  # one connection, not all behind it
                log.error("watch.failed", failure)
                self.drop(key.fd)  # it would be ready again at once, and for ever
