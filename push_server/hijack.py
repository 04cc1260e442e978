"""The HTTP front: waitress, and the way a connection leaves it and comes back.

waitress accepts, parses, and runs the WSGI application in its workers. A worker that is to hold
a connection open calls ``environ["push_server.hijack"](take)``; when the worker is done, waitress's
own I/O thread lets go of the socket and passes it to `take`, together with the way back for the
next request. No thread and no waitress object is held meanwhile.

Everything is attached by class attributes and `super()`; no method of waitress is copied. What
waitress 3.0.2 leaves open is closed here (`Channel.overdue`) and in `heads`.

Threads: methods say which thread runs them. The only importer of waitress.
"""

import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any
from wsgiref.types import WSGIApplication

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import BaseWSGIServer, TcpWSGIServer, UnixWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import Error

from push_server import log
from push_server.addresses import UNIX_PEER, address_group, plain_address
from push_server.heads import BadHead, check_head
from push_server.publications import dump_json
from push_server.sockets import BACKLOG
from push_server.transports.base import response

GiveBack = Callable[[socket.socket], None]
Take = Callable[[socket.socket, GiveBack], None]

HEADER_BYTES = 16_384
ACCEPTS_PER_TURN = 64
SHARED_ACCEPTS_PER_TURN = 2
"""Where several processes accept from one socket: who is awake first must not take them all."""
CROWDED = 0.8
"""From this share of the connections allowed here, the longest idle are closed."""
BODY_FACTOR = 1.5
"""The body has this many times longer than the head (10 and 15 seconds by default)."""


class Refusal(Error):  # type: ignore[misc]
    """What the parser refuses, with a status of its own."""

    def __init__(self, bad: BadHead) -> None:
        super().__init__(bad.detail)
        self.code = bad.status
        self.reason = bad.reason


class StrictParser(HTTPRequestParser):  # type: ignore[misc]
    """Refuses heads that waitress lets through; every refusal ends the connection."""

    path = ""
    """Named when a client is gone before it was answered; of a head that was refused there is none,
    and waitress would fail."""
    refusal: Refusal | None = None
    taken = False
    """Whether the worker that served this request took the connection."""

    def received(self, data: bytes) -> int:
        """Parse; answer with our own refusal where there is one (I/O thread)."""
        consumed: int = super().received(data)
        if self.refusal is not None:
            self.error = self.refusal
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Check the raw head, then let waitress parse it (I/O thread)."""
        if header_plus != b"GET / HTTP/1.0\r\n":  # what waitress parses when a head is too long
            try:
                check_head(header_plus)
            except BadHead as bad:
                self.refusal = Refusal(bad)
                raise ParsingError(bad.detail) from None
        super().parse_header(header_plus)


class JSONErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers what the parser refused, in the form of all our errors."""

    def execute(self) -> None:
        """Write the refusal and close (worker thread)."""
        refusal = self.request.error
        # Not waitress's own words: they quote the line that is wrong, a token and all.
        reason = refusal.body if isinstance(refusal, Refusal) else refusal.reason
        log.rejected("http.reject", self.channel.addr[0], status=refusal.code, reason=reason)
        message = "The request is malformed." if refusal.code == 400 else refusal.reason
        body = dump_json({"error": {"code": "bad_request", "message": message}})
        self.status = f"{refusal.code} {refusal.reason}"
        self.response_headers = [
            ("Content-Type", "application/json"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Task(WSGITask):  # type: ignore[misc]
    """Runs the application; gives it the means to take the connection away."""

    def get_environment(self) -> dict[str, Any]:
        """The WSGI environment and ``push_server.hijack`` (worker thread)."""
        environ: dict[str, Any] = super().get_environment()
        environ["push_server.hijack"] = self.hijack
        return environ

    def build_response_header(self) -> bytes:
        """Say what 426 asks to upgrade to, which an application may not (worker thread)."""
        if self.status.startswith("426 "):
            self.response_headers.append(("Upgrade", "websocket"))  # RFC 9110, 15.5.22
        head: bytes = super().build_response_header()
        return head

    def hijack(self, take: Take) -> bool:
        """Take the connection when this request is done; False if bytes wait behind it.

        With bytes of a next request in waitress's hands already, nobody could tell who is to
        answer them: the application answers 400 and the connection ends.
        """
        channel: Channel = self.channel
        with channel.requests_lock:
            begun = channel.request
            behind = begun is not None and (begun.headers_finished or begun.header_plus.strip())
            if len(channel.requests) > 1 or behind or channel.total_outbufs_len:
                self.set_close_on_finish()
                return False
            channel.take = take
        self.request.taken = True
        return True

    def finish(self) -> None:
        """Write nothing if the connection has been taken (worker thread)."""
        if self.channel.take is None:
            super().finish()
        else:
            # waitress has nothing more to do for it, nor to wake its I/O thread for.
            self.channel.connected = False
        # The environment holds our bound method: without this, every request is a cycle that
        # only the garbage collector can free.
        self.environ = None


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

    def __init__(self, server: Any, sock: socket.socket, addr: Any, adj: Any, map: Any) -> None:
        self.owes_since = time.monotonic()
        """Since when the client owes us a request, on the monotonic clock."""
        super().__init__(server, sock, addr, adj, map=map)
        server.count(self)

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

    @property
    def idle(self) -> bool:
        """Whether it was answered and has not begun another request."""
        return self.served and not self.requests and self.request is None and self.take is None

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
                self.socket.send(response(408, (), body))
            except OSError:
                pass
        self.will_close = True

    def del_channel(self, map: Any = None) -> None:
        """Stop counting it (I/O thread)."""
        if self.counted:
            self.server.uncount(self)
        super().del_channel(map)

    def service(self) -> None:
        """Run one request; then, if it was taken, have the I/O thread let go (worker thread)."""
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

        def give_back(returned: socket.socket) -> None:
            server.trigger.pull_trigger(lambda: server.readmit(returned, addr))

        take(sock, give_back)


class Returned(Channel):
    """A connection that comes back; it has made itself known before."""

    served = True


class Front(BaseWSGIServer):  # type: ignore[misc]
    """What both kinds of listener do beyond waitress."""

    channel_class = Channel
    head_seconds = 10.0
    per_address = 0
    """Connections of one address without a complete request yet; 0: any number."""
    unlimited: frozenset[str] = frozenset()
    accepts_per_turn = ACCEPTS_PER_TURN
    every_second: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._incomplete: Counter[str] = Counter()
        self._leaving: deque[Channel] = deque()
        self._waking = False
        super().__init__(*args, **kwargs)

    def handle_accept(self) -> None:
        """Accept all that wait; waitress takes one per turn, and each turn polls everything."""
        for _ in range(self.accepts_per_turn):
            before = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == before:
                return

    def let_go(self, channel: Channel) -> None:
        """Have the I/O thread let go of a channel (worker thread); one wake-up serves many."""
        self._leaving.append(channel)
        if not self._waking:
            self._waking = True
            self.trigger.pull_trigger(self._all_leave)

    def _all_leave(self) -> None:
        self._waking = False  # before the queue is emptied: what comes later wakes us again
        while self._leaving:
            self._leaving.popleft().leave()

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
        """Close those who take too long; waitress calls this every `cleanup_interval`."""
        super().maintenance(now)
        self.every_second()
        monotonic = time.monotonic()
        for channel in list(self.active_channels.values()):
            if channel.overdue(monotonic, self.head_seconds):
                log.rejected("http.timeout", channel.addr[0], phase="request")
                channel.give_up()
        # Connections that had an answer and idle would otherwise fill the house: one cheap
        # request a minute on each keeps everybody else out.
        excess = len(self._map) - int(CROWDED * self.adj.connection_limit)
        if excess > 0:
            idle = [channel for channel in self.active_channels.values() if channel.idle]
            for channel in sorted(idle, key=attrgetter("owes_since"))[:excess]:
                channel.will_close = True

    def readmit(self, sock: socket.socket, addr: Any) -> None:
        """Serve a connection that comes back."""
        if sock.fileno() >= 0:
            Returned(self, sock, addr, self.adj, self._map)


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

    def __init__(self) -> None:
        self._map: dict[int, Any] = {}
        self._fronts: list[Front] = []
        self._dispatchers: list[ThreadedTaskDispatcher] = []
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
        every_second: Callable[[], None],
        shared: bool = False,
    ) -> None:
        """Serve an application on these sockets, with one set of workers for all of them.

        `shared`: other processes accept from the sockets, too.
        """
        adjustments = Adjustments(
            backlog=BACKLOG,
            connection_limit=channels,
            cleanup_interval=1,
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
        dispatcher = ThreadedTaskDispatcher()
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
            front.every_second = every_second
            self._fronts.append(front)
        dispatcher.set_thread_count(threads)
        self._dispatchers.append(dispatcher)

    def run(self) -> None:
        """Serve until `stop` (this thread becomes the I/O thread).

        poll, not select: select fails for good past 1,024 descriptors, and the hub has many.
        """
        while self._running:
            wasyncore.loop(timeout=1.0, use_poll=True, map=self._map, count=1)

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
