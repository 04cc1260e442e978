"""The listening sockets, and the I/O thread that reads from all of them.

Imported by the house.
"""

import errno
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any
from wsgiref.types import WSGIApplication

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import BaseWSGIServer, TcpWSGIServer, UnixWSGIServer

from push_server import log
from push_server.addresses import UNIX_PEER, address_group, plain_address
from push_server.front.channel import Channel, Returned
from push_server.front.dispatch import AtOnce, Dispatcher
from push_server.front.handover import Handover, Inbox
from push_server.sockets import BACKLOG
from push_server.transports.base import Headers

HEADER_BYTES = 16_384
ACCEPTS_PER_TURN = 64
SHARED_ACCEPTS_PER_TURN = 2
"""Where several processes accept from one socket: who is awake first must not take them all."""
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

CROWDED = 0.8
"""From this share of the connections allowed here, the longest idle are closed."""


class Front(BaseWSGIServer):  # type: ignore[misc]
    """What both kinds of listener do beyond waitress."""

    channel_class = Channel
    head_seconds = 10.0
    per_address = 0
    """Connections of one address without a complete request yet; 0: any number."""
    unlimited: frozenset[str] = frozenset()
    accepts_per_turn = ACCEPTS_PER_TURN
    handover: Handover | None = None
    next_channel_cleanup = float("inf")
    """Never by waitress, which goes by the clock of the wall: set back by an hour, it would look
    after nobody for an hour. `Fronts` does it."""
    headers: Callable[[], Headers] = staticmethod(tuple)
    """Those of every answer; what the front refuses by itself has them, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._incomplete: Counter[str] = Counter()
        self._posted: deque[Callable[[], None]] = deque()
        self._waking = False
        self._rests = False
        """Whether there were no descriptors left: then nobody is accepted for up to a second."""
        super().__init__(*args, **kwargs)

    def handle_accept(self) -> None:
        """Accept all that wait; waitress takes one per turn, and each turn polls everything."""
        for _ in range(self.accepts_per_turn):
            before = len(self.active_channels)
            if len(self._map) < self.adj.connection_limit:
                super().handle_accept()
            if len(self.active_channels) == before:
                return

    def add_task(self, channel: Channel) -> None:
        """Have the next request of a channel served, when its last answer has left (any thread).

        A few kilobytes can ask for 16 MB, and there waitress has the worker wait for the client:
        one that sends requests and reads nothing would occupy all of them.
        """
        if channel.total_outbufs_len:
            channel.waits = True
        else:
            super().add_task(channel)

    def accept(self) -> Any:
        """Accept one connection, if there is a descriptor for it (I/O thread)."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno in NO_ROOM:
                log.rejected("http.accept", "all", reason=error.strerror)
                self._rests = True  # to ask again at once, and again, takes all the time there is
            return None

    def readable(self) -> bool:
        """While somebody more can be accepted (I/O thread)."""
        full = self.in_connection_overflow
        room = bool(super().readable())
        if self.in_connection_overflow and not full:
            log.rejected("http.full", "all", limit=self.adj.connection_limit)
        return room and not self._rests

    def pull_trigger(self) -> None:
        """Wake the I/O thread (any thread).

        Not itself: it would write into a pipe that nobody else empties, and stand still for ever
        when that is full. It looks at every channel in its next turn anyway.
        """
        if not self.task_dispatcher.here:
            super().pull_trigger()

    def let_go(self, channel: Channel) -> None:
        """Have the I/O thread let go of a channel (any thread)."""
        if self.task_dispatcher.here:
            channel.leave()
        else:
            self._post(channel.leave)

    def take_back(self, sock: socket.socket, addr: Any) -> None:
        """Serve a connection that comes back (any thread)."""
        self._post(lambda: self.readmit(sock, addr))

    def _post(self, call: Callable[[], None]) -> None:
        self._posted.append(call)
        if not self._waking:  # one wake-up serves many
            self._waking = True
            self.trigger.pull_trigger(self._run_posted)

    def _run_posted(self) -> None:
        self._waking = False  # before the queue is emptied: what comes later wakes us again
        while self._posted:
            try:
                self._posted.popleft()()
            except Exception as failure:  # noqa: BLE001  # one connection, not all behind it
                log.error("front.posted", failure)

    def count(self, channel: Channel) -> None:
        """Turn away the address that opens connections and asks nothing."""
        ip = channel.addr[0]
        if not self.per_address or channel.served or ip in self.unlimited:
            return
        channel.counted = True
        self._incomplete[address_group(ip)] += 1
        if self._incomplete[address_group(ip)] > self.per_address:
            log.rejected("http.handshakes", ip, limit="handshakes_per_ip")
            channel.will_close = True

    def uncount(self, channel: Channel) -> None:
        """A connection no longer counts against its address."""
        channel.counted = False
        group = address_group(channel.addr[0])
        self._incomplete[group] -= 1
        if not self._incomplete[group]:
            del self._incomplete[group]

    def maintenance(self, now: float) -> None:
        """Close those who take too long; `now` is on the monotonic clock (I/O thread)."""
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if channel.overdue(now, self.head_seconds):
                log.rejected("http.timeout", channel.addr[0], phase="request")
                channel.give_up()
        # Connections that had an answer and idle would otherwise fill the house: one cheap
        # request a minute on each keeps everybody else out.
        excess = len(self._map) - int(CROWDED * self.adj.connection_limit)
        if self._rests:
            self._rests, excess = False, len(self._map)
        if excess > 0:
            idle = [channel for channel in self.active_channels.values() if channel.idle]
            for channel in sorted(idle, key=attrgetter("owes_since"))[:excess]:
                channel.will_close = True

    def readmit(self, sock: socket.socket, addr: Any, *, served: bool = True) -> None:
        """Serve a connection that comes back, or from another process (I/O thread).

        `served`: it has had an answer, so it does not count against its address.
        """
        if sock.fileno() >= 0:
            kind = Returned if served else Channel
            kind(self, sock, addr, self.adj, self._map)


class TcpFront(Front, TcpWSGIServer):  # type: ignore[misc]
    """A front on a TCP address."""

    def fix_addr(self, addr: Any) -> tuple[str, int]:
        """A socket for IPv4 and IPv6, as systemd makes them, names IPv4 clients in IPv6."""
        host, port = addr[:2]
        return plain_address(host), port


class UnixFront(Front, UnixWSGIServer):  # type: ignore[misc]
    """A front on a Unix socket."""

    def fix_addr(self, addr: Any) -> tuple[str, None]:
        """waitress says "localhost", which is no address either."""
        return UNIX_PEER, None


class Fronts:
    """All listeners of this process on one I/O thread: the thread that calls `run`."""

    def __init__(self, every_second: Callable[[], None] = lambda: None) -> None:
        """`every_second` is called so, on the I/O thread."""
        self._every_second = every_second
        self._next_look = time.monotonic()
        self._map: dict[int, Any] = {}
        self._fronts: list[Front] = []
        self._dispatchers: list[Dispatcher] = []
        self._running = True

    def listen(
        self,
        application: WSGIApplication,
        sockets: Iterable[socket.socket],
        *,
        threads: int,
        max_body: int,
        channels: int,
        head_seconds: float,
        per_address: int,
        unlimited: frozenset[str],
        shared: bool = False,
        handover: Handover | None = None,
        at_once: AtOnce = lambda path, query: False,
        headers: Callable[[], Headers] = tuple,
    ) -> None:
        """Serve an application on these sockets, with one set of workers for all of them.

        `shared`: other processes accept from the sockets, too; `handover` is for what one of them
        serves alone. `at_once` names the requests that need no worker.
        """
        adjustments = _adjustments(channels, max_body)
        dispatcher = Dispatcher(at_once)
        for sock in sockets:
            kind = UnixFront if sock.family == socket.AF_UNIX else TcpFront
            front = kind(
                application,
                self._map,
                _sock=sock,
                bind_socket=False,
                dispatcher=dispatcher,
                adj=adjustments,
                sockinfo=(sock.family, sock.type, sock.proto, None),
            )
            if shared:
                front.accepts_per_turn = SHARED_ACCEPTS_PER_TURN
            front.head_seconds = head_seconds
            front.per_address = per_address
            front.unlimited = unlimited
            front.handover = handover
            front.headers = headers
            self._fronts.append(front)
        if handover is not None and handover.mine:
            Inbox(handover.inbox, self._map, channels, front.readmit)
        dispatcher.set_thread_count(threads)
        self._dispatchers.append(dispatcher)

    def run(self) -> None:
        """Serve until `stop` (this thread becomes the I/O thread)."""
        for dispatcher in self._dispatchers:
            dispatcher.use_this_thread()
        while self._running:
            self.turn(1.0)

    def turn(self, seconds: float) -> None:
        """Look at all sockets once, waiting so long at most (I/O thread).

        poll, not select: select fails for good past 1,024 descriptors, and the hub has many.
        """
        if any(dispatcher.due for dispatcher in self._dispatchers):
            seconds = 0.0
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._map, count=1)
        for dispatcher in self._dispatchers:
            dispatcher.serve_due()
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + 1.0
            for front in self._fronts:
                front.maintenance(now)
            self._every_second()

    def stop_accepting(self) -> None:
        """Close the listening sockets; requests under way go on (any thread)."""
        for front in self._fronts:
            front.trigger.pull_trigger(lambda front=front: wasyncore.dispatcher.close(front))

    def stop(self) -> None:
        """Finish the requests under way and end `run` (any thread).

        Each listener has at most five seconds.
        """
        for dispatcher in self._dispatchers:
            dispatcher.shutdown()
        self._running = False
        for front in self._fronts:
            front.pull_trigger()


def _adjustments(channels: int, max_body: int) -> Adjustments:
    """What is not as waitress has it."""
    return Adjustments(
        backlog=BACKLOG,
        connection_limit=channels,
        channel_timeout=60,
        max_request_header_size=HEADER_BYTES,
        max_request_body_size=max_body + 1,
        channel_request_lookahead=0,
        log_socket_errors=False,
        ident=None,
        expose_tracebacks=False,
        # The application knows whom to believe; see `push_server.doors.forwarded`.
        clear_untrusted_proxy_headers=False,
    )
