"""One HTTP connection, from accept until it is closed or taken; again, when it comes back.

Imported by the listeners.
"""

import socket
import time
from typing import Any

from waitress.channel import HTTPChannel

from push_server.front.requests import JSONErrorTask, StrictParser, Take, Task
from push_server.publications import dump_json
from push_server.transports.base import response

BODY_FACTOR = 1.5
"""The body has this many times longer than the head (10 and 15 seconds by default)."""


class Channel(HTTPChannel):  # type: ignore[misc]
    """One HTTP connection, until it is taken."""

    task_class = Task
    error_task_class = JSONErrorTask
    parser_class = StrictParser
    take: Take | None = None
    served = False
    """Whether a request was answered: then the connection idles rightfully (keep-alive)."""
    counted = False
    """Whether it counts against its address: until its first request is complete."""
    waits = False
    """Whether its next request is not served before the client has taken the last answer."""

    def __init__(self, server: Any, sock: socket.socket, addr: Any, adj: Any, map: Any) -> None:
        self.owes_since = time.monotonic()
        """Since when the client owes us a request, on the monotonic clock."""
        super().__init__(server, sock, addr, adj, map=map)
        server.count(self)

    @property
    def last_activity(self) -> float:
        """When bytes came or went last, on the monotonic clock."""
        return self._active_at

    @last_activity.setter
    def last_activity(self, _wall: float) -> None:
        # waitress notes the time on the wall, which can be set.
        self._active_at = time.monotonic()

    def handle_read(self) -> None:
        """Read, unless another process is to serve what comes (I/O thread)."""
        handover = self.server.handover
        between = self.request is None and not self.requests
        if (
            handover is not None
            and between
            and handover.takes(self.socket, self.addr, served=self.served)
        ):
            self.handle_close()
        else:
            super().handle_read()

    def received(self, data: bytes) -> bool:
        """Note when a request begins and when it is complete (I/O thread)."""
        if self.served and self.request is None and not self.requests:
            # The first request is owed since the connection was made: blank lines, of which
            # waitress makes no request, gain no time.
            self.owes_since = time.monotonic()
        result = bool(super().received(data))
        if self.counted and self.requests:
            self.server.uncount(self)
        return result

    def readable(self) -> bool:
        """Not once the connection is taken (I/O thread)."""
        return self.take is None and bool(super().readable())

    def writable(self) -> bool:
        """Also to be looked at once more, when it waits (I/O thread)."""
        return self.waits or bool(super().writable())

    def handle_write(self) -> None:
        """Send; then have the next request served, if it waited for that (I/O thread)."""
        super().handle_write()
        if self.waits and self.connected and not self.total_outbufs_len:
            self.waits = False
            self.server.add_task(self)

    @property
    def idle(self) -> bool:
        """Whether it was answered and has not begun another request, or lets that wait."""
        between = self.waits or (not self.requests and self.request is None)
        return self.served and between and self.take is None

    def overdue(self, now: float, head_seconds: float) -> bool:
        """Whether the client takes too long over its request.

        waitress renews its timeout with every byte, so one byte a second holds a connection for
        ever (slowloris); these limits are absolute.
        """
        if self.requests or self.take is not None or self.idle:
            return False
        request = self.request
        in_body = request is not None and request.headers_finished
        return now - self.owes_since > head_seconds * (BODY_FACTOR if in_body else 1)

    def give_up(self) -> None:
        """Close on a client that is overdue (I/O thread)."""
        if self.request is not None:
            body = dump_json({"error": {"code": "timeout", "message": "The request is too slow."}})
            try:
                self.socket.send(response(408, self.server.headers(), body))
            except OSError:
                pass
        self.will_close = True

    def del_channel(self, map: Any = None) -> None:
        """Stop counting it (I/O thread)."""
        if self.counted:
            self.server.uncount(self)
        super().del_channel(map)

    def service(self) -> None:
        """Run one request; if it was taken, have the I/O thread let go (where it is served)."""
        request = self.requests[0]
        super().service()
        self.served = True
        self.owes_since = time.monotonic()
        # Not `self.take`: by now another worker may be serving the next request, and taking it.
        if request.taken:
            self.server.let_go(self)

    def leave(self) -> None:
        """Pass the socket on and forget it (I/O thread)."""
        take, sock, server, addr = self.take, self.socket, self.server, self.addr
        assert take is not None
        self.del_channel()
        for buffer in self.outbufs:
            buffer.close()
        if sock is None:
            return  # the client was gone, and waitress closed, before the worker was done
        take(sock, lambda returned: server.take_back(returned, addr))


class Returned(Channel):
    """A connection that comes back; it has made itself known before."""

    served = True
