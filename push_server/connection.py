"""Connections: where the hub writes bytes to.

`SocketConnection` is a socket taken from the HTTP front, written with plain non-blocking
`send`. asyncio's transports are not used: they cost two to three times the memory, copy what
cannot be sent at once, and queue without bound on a reader that has stopped (92 MB were seen).
Here the bytes of a fan-out are shared, and each connection has a byte budget: a reader that
falls behind by more, or that makes no progress, is cut, and comes back with its cursor for what
it missed.

`IteratorConnection` is the same thing where there is no socket to take, under any other WSGI
server: the bytes go through a queue to the thread that serves the response.

Event loop only, except for taking from an `IteratorConnection`. Imported by the hub, which owns
connections, and by the doors and the bridge that make them.
"""

import socket
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from push_server.watch import Watch

MIN_DRAIN_RATE = 1024
"""Bytes per second; a blocked reader that takes less over `MIN_DRAIN_SECONDS` is cut."""
MIN_DRAIN_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 0.05


class Owner(Protocol):
    """What a connection needs from the hub."""

    loop: AbstractEventLoop
    watch: Watch
    queue_bytes: int
    blocked: set["SocketConnection"]

    def closed(self, connection: "Connection", reason: str) -> None:
        """Called once, when the connection is over, whoever ended it."""


class Connection(Protocol):
    """One subscriber's way out."""

    subscriber: Any

    @property
    def idle(self) -> bool:
        """Whether everything written has left this process."""

    def write(self, data: bytes) -> None:
        """Send, or queue within the budget, or cut the connection."""

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once, as soon as the queue is empty."""

    def finish(self, reason: str) -> None:
        """Close as soon as everything written has left."""

    def close(self, reason: str) -> None:
        """Close at once."""

    def release(self) -> bool:
        """Give the connection back for its next request; False if that cannot be done."""


class SocketConnection:
    """A client socket, taken from the HTTP front after its request was read."""

    __slots__ = (
        "_blocked_at",
        "_drained",
        "_finishing",
        "_give_back",
        "_idle",
        "_owner",
        "_progress_at",
        "_queue",
        "_sock",
        "subscriber",
    )

    def __init__(
        self, owner: Owner, sock: socket.socket, give_back: Callable[[socket.socket], None] | None
    ) -> None:
        self.subscriber: Any = None
        self._owner = owner
        self._sock = sock
        self._give_back = give_back
        self._queue: bytearray | None = None
        self._idle: Callable[[], None] | None = None
        self._finishing = False
        self._blocked_at = self._progress_at = 0.0
        self._drained = 0
        owner.watch.add(sock.fileno(), self._readable)

    @property
    def idle(self) -> bool:
        """Whether everything written has been taken by the kernel."""
        return self._queue is None

    def write(self, data: bytes) -> None:
        """Send at once if nothing waits; queue what the kernel does not take."""
        if self._queue is None:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close("gone")
                return
            if sent == len(data):
                return
            self._block()
        else:
            sent = 0
            if len(self._queue) + len(data) > self._owner.queue_bytes:
                self.close("slow")
                return
        assert self._queue is not None
        self._queue += memoryview(data)[sent:]

    def _block(self) -> None:
        self._queue = bytearray()
        self._blocked_at = self._progress_at = time.monotonic()
        self._drained = 0
        self._owner.blocked.add(self)
        # By number: asyncio looks a socket up by its repr, which costs two system calls.
        self._owner.loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        queue = self._queue
        assert queue is not None
        try:
            sent = self._sock.send(queue)
        except BlockingIOError:
            return
        except OSError:
            self.close("gone")
            return
        del queue[:sent]
        self._drained += sent
        self._progress_at = time.monotonic()
        if queue:
            return
        self._unblock()
        if self._finishing:
            self.close("done")
        elif self._idle is not None:
            callback, self._idle = self._idle, None
            callback()

    def _unblock(self) -> None:
        if self._queue is not None:
            self._queue = None
            self._owner.blocked.discard(self)
            self._owner.loop.remove_writer(self._sock.fileno())

    def stalled(self, now: float, stall_timeout: float) -> bool:
        """Whether this blocked reader takes nothing, or too little, to be kept."""
        if now - self._progress_at > stall_timeout:
            return True
        blocked = now - self._blocked_at
        return blocked > MIN_DRAIN_SECONDS and self._drained < blocked * MIN_DRAIN_RATE

    def _readable(self) -> None:
        # The client has hung up, or sent bytes it has no business to send now. Of a connection
        # that goes back to the HTTP front they may be the next request, so they stay where they
        # are, in the kernel, and are read once, there.
        try:
            data = self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            self.close("gone")
            return
        if data and self._give_back is not None:
            self._owner.watch.drop(self._sock.fileno())
        else:
            self.close("talked" if data else "gone")

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once, as soon as the queue is empty."""
        self._idle = callback

    def finish(self, reason: str) -> None:
        """Close as soon as everything written has left; the stall limits hold."""
        if self._queue is None:
            self.close("done")
        else:
            self._finishing = True

    def release(self) -> bool:
        """Hand the socket back to the HTTP front for the next request."""
        if self._give_back is None or self._queue is not None or self._sock.fileno() < 0:
            return False
        self._owner.watch.drop(self._sock.fileno())
        self._owner.closed(self, "released")
        # When this turn of the loop is over: the front's thread, woken by the first of a crowd that
        # is answered, would take the interpreter from us at every `send` to the others.
        self._owner.loop.call_soon(self._give_back, self._sock)
        return True

    def close(self, reason: str) -> None:
        """Close the socket; whatever is queued is dropped."""
        if self._sock.fileno() < 0:
            return
        self._unblock()
        self._owner.watch.drop(self._sock.fileno())
        self._sock.close()
        self._owner.closed(self, reason)


class IteratorConnection:
    """A response, head and body, that another WSGI server's thread takes piece by piece."""

    _END = b""

    def __init__(self, owner: Owner) -> None:
        self.subscriber: Any = None
        self._owner = owner
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._written = 0
        self._taken = 0
        self._open = True

    @property
    def idle(self) -> bool:
        """Whether the serving thread has taken everything."""
        return self._written == self._taken

    def write(self, data: bytes) -> None:
        """Queue, or cut at the budget."""
        if not self._open or not data:  # of what is no picture, one transport sends nothing
            return
        waiting = self._written - self._taken
        if waiting and waiting + len(data) > self._owner.queue_bytes:
            self.close("slow")
            return
        self._written += len(data)
        self._queue.put(data)

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back soon, for another look: the serving thread does not say when it took all."""
        self._owner.loop.call_later(LOOK_AGAIN_SECONDS, callback)

    def finish(self, reason: str) -> None:
        """End the response after what was written."""
        self.close("done")

    def release(self) -> bool:
        """There is nothing to give back; the other server goes on by itself."""
        return False

    def close(self, reason: str) -> None:
        """End the response."""
        if self._open:
            self._open = False
            self._queue.put(self._END)
            self._owner.closed(self, reason)

    def take(self, seconds: float | None = None) -> bytes | None:
        """What was written next; empty at the end, None if nothing comes in time (any thread)."""
        try:
            data = self._queue.get(timeout=seconds)
        except Empty:
            return None
        self._taken += len(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        """What was written, up to the end of the stream (worker thread)."""
        while data := self.take():
            yield data
