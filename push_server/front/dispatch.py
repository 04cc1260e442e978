"""Which thread serves a request: a worker, or the I/O thread itself.

A worker may wait. For a request that waits for nothing, to wake one costs more than it gains:
Python runs one thread at a time, so each of a crowd of new subscribers would take the turn from the
I/O thread and from the loop. Served where it was read it takes a sixth less CPU time.

Imported by the listeners.
"""

from collections import deque
from collections.abc import Callable
from threading import get_ident

from waitress.task import ThreadedTaskDispatcher

from push_server import log
from push_server.front.channel import Channel

AtOnce = Callable[[str, str], bool]
"""Whether a request for this path, with this query, waits for nothing: no disk, and no loop."""


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """The workers of one application."""

    def __init__(self, at_once: AtOnce) -> None:
        super().__init__()
        self._at_once = at_once
        self._due: deque[Channel] = deque()
        self._io_thread = 0

    def use_this_thread(self) -> None:
        """Take the calling thread for the I/O thread."""
        self._io_thread = get_ident()

    @property
    def here(self) -> bool:
        """Whether the caller is the I/O thread (any thread)."""
        return get_ident() == self._io_thread

    def add_task(self, channel: Channel) -> None:
        """Have the next request of a channel served (I/O thread).

        Or a worker's, which has served one before it.
        """
        request = channel.requests[0]
        if self.here and request.error is None and self._at_once(request.path, request.query):
            self._due.append(channel)
        else:
            super().add_task(channel)

    @property
    def due(self) -> bool:
        """Whether the next turn must not wait (I/O thread)."""
        return bool(self._due)

    def serve_due(self) -> None:
        """Serve what waits for nothing, one request of each connection (I/O thread).

        Not before the turn is over: until then waitress has the lock of the channel, and closes it
        where the client has hung up behind its request. And no more, or a few clients that send
        hundreds of requests in one piece would keep everybody else waiting for seconds.
        """
        for _ in range(len(self._due)):
            channel = self._due.popleft()
            try:
                channel.service()
            except Exception as failure:  # noqa: BLE001  # one connection, not the whole front
                log.error("request.failed", failure)
                channel.handle_close()
