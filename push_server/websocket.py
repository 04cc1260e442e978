"""A WebSocket: a connection that also listens.

What comes in is parsed here as far as frames go; whole messages are handed to a `Listener`, one
at a time: while it works on one it pauses us, and what the client sends meanwhile waits in the
kernel, so that a client cannot put more into this process than one message and one read.

An idle connection keeps nothing of all this but a few numbers: the parser exists only while there
are bytes that do not make a frame yet.

Event loop only. Made by the doors that take WebSockets, owned by the hub.
"""

import socket
import time
from asyncio import TimerHandle
from typing import Protocol

from push_server.connection import Connection, Owner, SocketConnection
from push_server.transports import frames
from push_server.transports.frames import Inbound, Kind, Violation
from push_server.transports.ws import CLOSE_CODES

READ_BYTES = 16_384
"""At a time: what one client throws at us costs little, and the others have their turn."""
MESSAGE_SECONDS = 10.0
"""From the first byte of a message to its last, however slowly it drips in."""
FRAMES_PER_SECOND = 200
FRAMES_AT_ONCE = 1000
"""What one client may send: so many frames at once, and then at that rate. Pings count, and so do
the fragments of a message, each of which costs as much work as a message."""
GOODBYE_SECONDS = 5.0
"""How long a client may take to close after we have."""


class Listener(Protocol):
    """Who gets the messages of a client."""

    def received(self, kind: Kind, data: bytes) -> None:
        """Called with each whole message."""

    def violated(self, violation: Violation) -> None:
        """Called when the client broke the rules; the connection ends by itself."""

    def ended(self) -> None:
        """Called once, when the connection is over."""


class Host(Owner, Protocol):
    """What it needs from the hub beyond what every connection does."""

    def part_with(self, connection: Connection, reason: str) -> None:
        """Called when the client has ended the connection; the hub is to `finish` it."""


class WebSocketConnection(SocketConnection):
    """A client socket that speaks WebSocket as soon as `begin` was called."""

    __slots__ = (
        "_allowance",
        "_begun",
        "_charged_at",
        "_deadline",
        "_farewell",
        "_host",
        "_inbound",
        "_limit",
        "_listener",
        "_paused",
        "_ping",
        "_watched",
    )

    def __init__(self, host: Host, sock: socket.socket, listener: Listener) -> None:
        super().__init__(host, sock, None)
        self._host = host
        self._limit = 0
        self._listener: Listener | None = listener
        self._inbound: Inbound | None = None
        self._begun = False
        self._paused = True
        self._watched = True
        self._allowance = float(FRAMES_AT_ONCE)
        self._charged_at = 0.0
        self._deadline: TimerHandle | None = None
        self._ping: bytes | None = None
        """The last one that waits for an answer, until the client takes what was sent before."""
        self._farewell: bytes | None = None
        """The close frame, from when it is written or about to be."""

    @property
    def open(self) -> bool:
        """Whether messages can still be sent to the client."""
        return self._farewell is None and self._sock.fileno() >= 0

    def begin(self, limit: int) -> None:
        """The handshake was answered: what follows, both ways, are frames.

        Messages have at most `limit` bytes; called again, this changes only that.
        """
        self._begun = True
        self._limit = limit
        if self._inbound is not None:
            self._inbound.limit = limit

    def pause(self) -> None:
        """Hand out no further message until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Go on with what has come meanwhile."""
        self._paused = False
        if self._sock.fileno() < 0:
            return
        if not self._watched:
            self._watched = True
            self._owner.watch.add(self._sock.fileno(), self._readable)
        if self._inbound is not None:
            self._work(self._inbound)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self._violated(Violation(frames.POLICY_VIOLATION, "a message took too long"))

    # What comes in.

    def _readable(self) -> None:
        if self._paused and self._farewell is None:
            self._watched = False
            self._owner.watch.drop(self._sock.fileno())
            return
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close("gone")
            return
        if not data:
            self.close("gone")
        elif self._farewell is None:
            inbound = self._inbound or Inbound(self._limit)
            inbound.feed(data)
            self._work(inbound)
        # After our close frame everything is passed over, up to the end of the stream: to close a
        # socket with unread bytes in it would destroy what the client has not read yet.

    def _work(self, inbound: Inbound) -> None:
        self._inbound = inbound
        try:
            while self.open and not self._paused:
                event = inbound.next()
                if event is None:
                    break
                self._charge()
                self._take(event.kind, event.data)
        except Violation as violation:
            self._violated(violation)
        if not self.open:
            self._drop_inbound()
        elif inbound.empty:
            self._inbound = None
            self._relax()
        elif self._deadline is None and not self._paused:
            self._deadline = self._owner.loop.call_later(MESSAGE_SECONDS, self._too_slow)

    def _drop_inbound(self) -> None:
        if self._inbound is not None:
            self._inbound.drop()
            self._inbound = None

    def _charge(self) -> None:
        now = time.monotonic()
        earned = (now - self._charged_at) * FRAMES_PER_SECOND
        self._allowance = min(self._allowance + earned, FRAMES_AT_ONCE) - 1
        self._charged_at = now
        if self._allowance < 0:
            raise Violation(frames.POLICY_VIOLATION, "too many frames")

    def _take(self, kind: Kind, data: bytes) -> None:
        if kind is Kind.PING:
            # Of those that wait only the last is answered (RFC 6455, section 5.5.3): a client that
            # asks and does not read could fill its queue else.
            self._ping = data
            if self.idle:
                self._answer_ping()
        elif kind is Kind.CLOSE:
            self._farewell = frames.close_again(data)
            self._host.part_with(self, "left")
        elif kind in (Kind.TEXT, Kind.BINARY):
            self._relax()
            if self._listener is not None:
                self._listener.received(kind, data)

    def _answer_ping(self) -> None:
        data, self._ping = self._ping, None
        if data is not None and self.open:
            self.write(frames.pong(data))

    def _unblock(self) -> None:
        super()._unblock()
        self._answer_ping()

    def _violated(self, violation: Violation) -> None:
        if self._listener is not None:
            self._listener.violated(violation)
        self.fail(violation.code, violation.reason)

    # The end.

    def fail(self, code: int, reason: str) -> None:
        """End the connection with this close code."""
        if self._farewell is None:
            self._farewell = frames.close(code, reason)
            self._host.part_with(self, "failed")

    def finish(self, reason: str) -> None:
        """Send a close frame behind everything written, and wait for the client to close, too."""
        if not self._begun:
            super().finish(reason)
            return
        if self._farewell is None:
            self._farewell = frames.close(CLOSE_CODES.get(reason, CLOSE_CODES["failed"]), reason)
        self._relax()
        self.write(self._farewell)
        self._begun = False  # so that this is done once
        if self._queue is None:
            self._say_goodbye()
        else:
            self.when_idle(self._say_goodbye)

    def _say_goodbye(self) -> None:
        if self._sock.fileno() < 0:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close("gone")
            return
        if not self._watched:
            self._watched = True
            self._owner.watch.add(self._sock.fileno(), self._readable)
        self._deadline = self._owner.loop.call_later(GOODBYE_SECONDS, self.close, "done")

    def close(self, reason: str) -> None:
        """Close the socket; whatever is queued is dropped."""
        if reason == "revoked" and self._farewell is not None and self._queue is None:
            return  # Everything has left, the last word too; what is missing is the client's part.
        self._relax()
        self._drop_inbound()
        self._ping = None
        super().close(reason)
        # The listener knows us: without this, only the garbage collector could free the two.
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.ended()
