"""``GET /subscribe/…``: from a request to a subscriber.

Token, rights, channels and cursor are settled here, so that every refusal is an ordinary HTTP
answer. Then the connection is handed to the hub: as a socket where the front can let go of one,
else as an iterator that occupies this worker until the stream ends.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from push_server.brokers.base import Broker
from push_server.connection import Connection, IteratorConnection, SocketConnection
from push_server.doors.context import Context
from push_server.doors.guard import authenticate
from push_server.doors.orders import make_order
from push_server.doors.request import Answer, Request
from push_server.doors.taking import GiveBack, can_take, take
from push_server.errors import BadInput, NotFound, Unavailable
from push_server.positions import START_TAG, Position, channel_key
from push_server.subscriber import SubscribeRequest
from push_server.transports import TRANSPORTS
from push_server.transports.base import Headers

POLL_SECONDS = 25.0
POLL_SECONDS_LIMIT = 60.0

_TICKET = re.compile("(?:^|&)(?:ticket=|[^=&]*%)")
"""A parameter that is a ticket, or whose name is spelled so that it may be one."""


def waits_for_nothing(path: str, query: str) -> bool:
    """Whether a request can be dealt with on waitress's I/O thread: it needs neither the broker,
    which remembers the tickets, nor the loop; that of Bayeux does everything there, later. Whether
    the process lives has to be seen also while all workers wait for a disk that hangs."""
    if path in ("/bayeux", "/live") or path.startswith("/bayeux/"):
        return True
    transport = TRANSPORTS.get(path.removeprefix("/subscribe/"))
    return transport is not None and not transport.latest and not _TICKET.search(query)


class SubscribeDoor:
    """Serves every transport in the table."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._blocking = threading.Semaphore(context.settings.blocking_connections)

    def __call__(self, request: Request, headers: Headers) -> Answer | None:
        """The answer, or None if the connection was taken."""
        order = self._order(request, headers)
        context = self._context
        if not can_take(request):
            return self._serve_blocking(order)

        def attach(sock: socket.socket, give_back: GiveBack) -> None:  # runs on the loop
            context.crossing.spawn(self._attach(order, sock, give_back))

        if not take(request, context, attach):
            raise BadInput("pipelined", "Send nothing behind a long-lived request.")
        return None

    def _order(self, request: Request, headers: Headers) -> SubscribeRequest:
        transport = TRANSPORTS.get(request.path.removeprefix("/subscribe/"))
        if transport is None:
            raise NotFound("not_found", "There is no such transport.")
        context = self._context
        settings = context.settings
        if transport.setting and not getattr(settings, transport.setting):
            raise NotFound("transport_off", f"`{transport.setting}` is off.")
        transport = transport.chosen(request.parameter, settings.site_origins)
        headers += transport.policy(settings.site_origins)
        grant = authenticate(request, context, tickets=True)
        connection = request.header("connection").lower()
        order = make_order(
            settings,
            grant,
            request.ip,
            request.parameters("channel"),
            # What comes by itself when a client reconnects wins over the URL that it began with.
            since=request.header("last-event-id")
            or request.parameter("lastEventId")  # event-source-polyfill
            or request.parameter("since"),
            instance=request.parameter("instance"),
            transport=transport,
            timeout=_timeout(request) if transport.waits else 0.0,
            headers=headers,
            keep_alive=request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
            and "close" not in connection,
            fallback=request.parameter("fallback"),
        )
        if transport.latest and order.since is None:
            since = context.crossing.call(_before_the_last(context.broker, order.channels))
            order = order._replace(since=since)
        return order

    async def _attach(
        self, order: SubscribeRequest, sock: socket.socket, give_back: GiveBack
    ) -> None:
        # In one step: a connection that is watched before the hub knows its subscriber could end
        # in between, and the hub would have the subscriber for ever.
        hub = self._context.hub
        back = give_back if order.transport.once else None
        await hub.attach(order, SocketConnection(hub, sock, back))

    def _serve_blocking(self, order: SubscribeRequest) -> Answer:
        """Serve from this very worker (a WSGI server that cannot let go of a socket)."""
        if not self._blocking.acquire(blocking=False):
            raise Unavailable("full", "`blocking_connections` are in use.", retry_after=5)
        context = self._context
        connection = IteratorConnection(context.hub)
        context.crossing.post(self._attach_iterator, order._replace(keep_alive=False), connection)
        pieces = iter(connection)

        def close() -> None:
            context.crossing.post(connection.close, "gone")
            self._blocking.release()

        head = b""
        while b"\r\n\r\n" not in head:
            piece = next(pieces, None)
            if piece is None:
                close()
                raise Unavailable("stopping", "The server is stopping.", retry_after=1)
            head += piece
        head, _, first = head.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        # Whether its connection is kept, and what time it is, that server says by itself.
        kept = [
            (name, value)
            for name, _, value in (line.partition(": ") for line in lines[1:])
            if name.lower() not in ("connection", "date")
        ]
        return int(lines[0].split(" ")[1]), kept, _Body(first, pieces, close)

    def _attach_iterator(self, order: SubscribeRequest, connection: Connection) -> None:
        self._context.crossing.spawn(self._context.hub.attach(order, connection))


class _Body:
    """The body of a blocking answer.

    No generator: one that was never begun does not notice that it is closed, and a WSGI server
    closes the answer of a client that left early without a look at it.
    """

    def __init__(self, first: bytes, rest: Iterable[bytes], close: Callable[[], None]) -> None:
        self._pieces = chain([first], rest)
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces


async def _before_the_last(broker: Broker, channels: Iterable[str]) -> Mapping[str, Position]:
    """The place in each channel that only its last publication lies beyond."""
    places = {}
    for channel in channels:
        head = (await broker.history(channel, 0, 1)).head
        last = (await broker.history(channel, max(head.offset - 2, 0), 2)).publications
        if len(last) == 2:
            place = last[0].position
        elif head.offset == 1:
            place = Position(head.epoch, 0, START_TAG)
        else:  # nothing was published, or nothing is kept
            place = head
        places[channel_key(channel)] = place
    return places


def _timeout(request: Request) -> float:
    text = request.parameter("timeout")
    if not text:
        return POLL_SECONDS
    try:
        timeout = float(text)
    except ValueError:
        timeout = -1
    if not 0 <= timeout <= POLL_SECONDS_LIMIT:
        raise BadInput("timeout_malformed", f"timeout is 0 to {POLL_SECONDS_LIMIT:.0f} seconds.")
    return timeout
