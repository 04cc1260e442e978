"""A WebSocket client: who it is, and what it asks for while it is here.

To add a method: a coroutine function here, a line in `METHODS`, words in docs/protocol.rst, a
test in tests/test_websocket.py.

One command at a time: the next message is not read before the last one is answered, so a client
that asks faster than it is served waits, in its own socket. What is asked for is checked by the
same functions as an HTTP request for it.

Event loop only, but for making one. Imported by the WebSocket door.
"""

import socket
from asyncio import TimerHandle
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from push_server import log
from push_server.addresses import address_group
from push_server.channels import check_channel, personal_channel
from push_server.doors import renewal
from push_server.doors.commands import presence_limit, who_is_there
from push_server.doors.context import Context
from push_server.doors.orders import cursor_of, make_order, sort_channels, unlimited
from push_server.doors.publish import publish_request
from push_server.doors.request import parse_json
from push_server.errors import BadInput, Denied, PushError, TooMany, Unavailable
from push_server.publications import dump_json
from push_server.subscriber import Subscriber, SubscribeRequest
from push_server.tokens import Grant
from push_server.transports import TRANSPORTS, frames
from push_server.transports.base import Headers
from push_server.transports.frames import Kind, Violation
from push_server.transports.ws import REFUSED
from push_server.websocket import WebSocketConnection

CONNECT_SECONDS = 10.0
"""From the answer to the handshake to a first message with a token."""
CONNECT_BYTES = 32 * 1024
"""Of a first message: a token, a cursor, and as many channels as there may be."""
COMMAND_BYTES = 8 * 1024
"""What a message may have beyond `max_body`: the words around a publication's data."""
IDENTITY_CHARACTERS = 64
STRANGERS_SHARE = 10
"""One in so many connections may be without a token as yet."""
WEBSOCKET = TRANSPORTS["ws"]

Identity = str | int | None
Answer = Callable[[Mapping[str, Any]], None]


class Lobby:
    """What all sessions share: the server, and the count of those who have shown no token yet."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._strangers: Counter[str] = Counter()

    def enter(self, ip: str) -> None:
        """Count one more. Raises `Unavailable`, `TooMany`."""
        group = address_group(ip)
        limit = self.context.settings.handshakes_per_ip
        if self._strangers.total() >= max(self.context.hub.capacity // STRANGERS_SHARE, 1):
            raise Unavailable("full", "Too many have not shown a token yet.", retry_after=5)
        if self._strangers[group] >= limit and ip not in unlimited(self.context.settings):
            raise TooMany(
                "too_many_handshakes",
                "This address has as many connections without a token as `handshakes_per_ip`.",
                retry_after=5,
                event="ws.reject",
            )
        self._strangers[group] += 1

    def leave(self, ip: str) -> None:
        """Count one less."""
        group = address_group(ip)
        self._strangers[group] -= 1
        if not self._strangers[group]:
            del self._strangers[group]


class Session:
    """The listener on one WebSocket."""

    __slots__ = ("_connection", "_deadline", "_grant", "_ip", "_lobby")

    _connection: WebSocketConnection

    def __init__(self, lobby: Lobby, ip: str) -> None:
        self._lobby = lobby
        self._ip = ip
        self._grant: Grant | None = None
        self._deadline: TimerHandle | None = None
        """When a stranger has to go; None once it is none."""

    # The beginning: with a token or ticket in the handshake, or without.

    def enter(self, sock: socket.socket, grant: Grant, order: SubscribeRequest) -> None:
        """Become a subscriber as the handshake asks."""
        context = self.context
        self._connection = WebSocketConnection(context.hub, sock, self)
        context.crossing.spawn(self._attach(grant, order))

    def wait(self, sock: socket.socket, headers: Headers) -> None:
        """Answer the handshake, and wait for `connect`."""
        hub = self.context.hub
        self._connection = connection = WebSocketConnection(hub, sock, self)
        try:
            self._lobby.enter(self._ip)
        except PushError as error:
            self._note(error)
            hub.refuse(headers, connection, error)
            return
        self._deadline = hub.loop.call_later(CONNECT_SECONDS, self._too_late)
        connection.write(WEBSOCKET.head(headers))
        connection.begin(CONNECT_BYTES)
        connection.resume()

    def _too_late(self) -> None:
        self.violated(Violation(frames.POLICY_VIOLATION, "no connect"))
        self._connection.fail(REFUSED + 408, "no connect in time")

    def _known(self) -> None:
        """It is a stranger no more, or gone."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._lobby.leave(self._ip)

    async def _attach(self, grant: Grant, order: SubscribeRequest) -> None:
        hub, connection = self.context.hub, self._connection
        try:
            await hub.receive(order, connection)
        except PushError as error:
            self._note(error)
            hub.refuse(order.headers, connection, error)
        except BaseException:
            connection.close("failed")
            raise
        else:
            self._enter(grant)
            connection.resume()

    async def begin(self, grant: Grant, params: Mapping[str, Any]) -> None:
        """Become a subscriber as `connect` asks. Raises `PushError`."""
        order = make_order(
            self.context.settings,
            grant,
            self._ip,
            _channels(params),
            transport=WEBSOCKET,
            since=params.get("since"),
            instance=params.get("instance"),
            begun=True,
        )
        await self.context.hub.receive(order, self._connection)
        self._enter(grant)

    def _enter(self, grant: Grant) -> None:
        self._known()
        self.take(grant)
        self._connection.begin(self.context.settings.max_body + COMMAND_BYTES)

    def take(self, grant: Grant) -> None:
        """Act under this grant from now on."""
        self._grant = renewal.kept(grant)

    # What the connection calls.

    def received(self, kind: Kind, data: bytes) -> None:
        """Take a command."""
        if kind is not Kind.TEXT:
            raise Violation(frames.UNSUPPORTED_DATA, "text only")
        identity: Identity = None
        try:
            identity, command = _command(parse_json(data))
            name, params = _method(command)
            if (name == "connect") != (self._grant is None):
                raise BadInput("command", "`connect` comes first, and once.")
        except PushError as error:
            self._fault(identity, error)
            return
        self._connection.pause()
        self.context.hub.counts[f"commands.{name}"] += 1
        self.context.crossing.spawn(self._perform(METHODS[name], params, identity))

    def violated(self, violation: Violation) -> None:
        """Note it: nobody else knows the address."""
        self.context.hub.counts[f"violations.{violation.code}"] += 1
        log.rejected("ws.reject", self._ip, code=violation.code, reason=violation.reason)

    def ended(self) -> None:
        """The connection is over."""
        self._known()

    # Commands and their answers.

    async def _perform(
        self, method: "Method", params: "Params", identity: Identity
    ) -> None:
        connection = self._connection
        try:
            await method(self, params, partial(self._answer, identity))
        except PushError as error:
            self._fault(identity, error)
        except BaseException:
            self.context.hub.counts["failed"] += 1
            connection.fail(1011, "failed")
            raise
        connection.resume()

    def _answer(self, identity: Identity, result: Mapping[str, Any]) -> None:
        self._send({"id": identity, "result": result})

    def _fault(self, identity: Identity, error: PushError) -> None:
        """Refuse a command; who does not come in has to go."""
        self._note(error)
        self._send({"id": identity, **error.entry()})
        if self._grant is None:
            self._connection.fail(REFUSED + error.status, error.code)

    def _send(self, value: Mapping[str, Any]) -> None:
        if self._connection.open:
            self._connection.write(frames.text(dump_json(value)))

    def _note(self, error: PushError) -> None:
        detail = {"detail": error.detail} if error.detail else {}
        log.rejected(error.event, self._ip, status=error.status, reason=error.reason, **detail)

    @property
    def grant(self) -> Grant:
        """What the client's token allows."""
        assert self._grant is not None
        return self._grant

    @property
    def context(self) -> Context:
        """The server."""
        return self._lobby.context

    @property
    def subscriber(self) -> Subscriber:
        """The client in the hub. Raises `Unavailable` if it has just left."""
        subscriber: Subscriber | None = self._connection.subscriber
        if subscriber is None or not subscriber.present:
            raise Unavailable("leaving", "This connection is being closed.")
        return subscriber


# The methods. Each answers once, or raises; `connect` is answered by `hello`.

Params = Mapping[str, Any]
Method = Callable[[Session, Params, Answer], Coroutine[Any, Any, None]]


async def connect(session: Session, params: Params, answer: Answer) -> None:
    """``connect``: the token, and what goes into the query of other transports."""
    _fields(params, {"token"}, {"channels", "since", "instance", "fallback"})
    grant = renewal.verified(session.context, params["token"])
    fallback = params.get("fallback")
    if isinstance(fallback, str) and fallback:
        session.context.hub.note_fallback(fallback)
    await session.begin(grant, params)


async def subscribe(session: Session, params: Params, answer: Answer) -> None:
    """``subscribe``: more channels, without losing the connection."""
    _fields(params, {"channels"}, {"since"})
    asked = _channels(params)
    subscriber, grant, context = session.subscriber, session.grant, session.context
    granted, denied = sort_channels(
        asked, grant, context.settings.channels_per_connection, subscriber.channels
    )
    since = cursor_of(params.get("since"))
    named = [name for name in granted if name in asked]

    def tell() -> None:
        answer({"channels": named, "denied": denied, "cursor": subscriber.cursor})

    fresh = [name for name in named if name not in subscriber.channels]
    if fresh:
        await context.hub.subscribe(subscriber, grant.name, fresh, since, tell)
    else:
        tell()


async def unsubscribe(session: Session, params: Params, answer: Answer) -> None:
    """``unsubscribe``: fewer channels."""
    _fields(params, {"channels"}, set())
    asked = {check_channel(name) for name in _channels(params)}
    subscriber = session.subscriber
    if personal_channel(subscriber.user) in asked:
        raise BadInput("params", "The personal channel cannot be left.")
    left = [name for name in subscriber.channels if name in asked]
    session.context.hub.unsubscribe(subscriber, left)
    answer({"channels": left, "cursor": subscriber.cursor})


async def publish(session: Session, params: Params, answer: Answer) -> None:
    """``publish``: as ``POST /publish``."""
    wish = publish_request(params, session.grant, session.context.settings)
    (result,) = await session.context.broker.publish([wish])
    if isinstance(result, PushError):
        raise result
    answer(result.as_json())


async def presence(session: Session, params: Params, answer: Answer) -> None:
    """``presence``: who is in a channel that one is in, if its subscribers may know."""
    _fields(params, {"channel"}, {"limit"})
    channel, limit = check_channel(params["channel"]), presence_limit(params)
    namespace = session.context.settings.namespace.of(channel)
    if channel not in session.subscriber.channels:
        raise Denied("channel_denied", "Only subscribers of a channel may ask who is there.")
    if not (namespace.presence and namespace.join_leave):
        raise Denied("presence_denied", "Who is in this channel is not for its subscribers.")
    answer(await who_is_there(session.context.broker, channel, limit))


async def renew(session: Session, params: Params, answer: Answer) -> None:
    """``renew``: a newer token of the same user and session, in place of the one there is."""
    _fields(params, {"token"}, set())
    grant, subscriber = renewal.verified(session.context, params["token"]), session.subscriber
    lost = renewal.renew(session.context, subscriber, session.grant, grant)
    session.take(grant)
    answer(
        {
            "expires": int(grant.expires),
            "channels": list(subscriber.channels),
            "denied": lost,
            "cursor": subscriber.cursor,
        }
    )


async def ping(session: Session, params: Params, answer: Answer) -> None:
    """``ping``: a sign of life from the client, answered by ours."""
    _fields(params, set(), set())
    answer({})


METHODS: Mapping[str, Method] = {
    "connect": connect,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    "publish": publish,
    "presence": presence,
    "renew": renew,
    "ping": ping,
}


# The form of commands.


def _command(value: object) -> tuple[Identity, Mapping[str, Any]]:
    if not isinstance(value, dict):
        raise BadInput("command", "A command is an object with id, method and params.")
    identity = value.get("id")
    if isinstance(identity, str) and 0 < len(identity) <= IDENTITY_CHARACTERS:
        return identity, value
    if isinstance(identity, int) and not isinstance(identity, bool) and abs(identity) < 2**53:
        return identity, value
    raise BadInput("command", "id is a number or a short string; the answer carries it.")


def _method(command: Mapping[str, Any]) -> tuple[str, Params]:
    if not {"id", "method", "params"}.issuperset(command):
        raise BadInput("command", "A command has id, method and params, and no more.")
    name, params = command.get("method"), command.get("params", {})
    if not isinstance(name, str) or name not in METHODS:
        raise BadInput("command", f"The methods are {', '.join(METHODS)}.")
    if not isinstance(params, dict):
        raise BadInput("command", "params is an object.")
    return name, params


def _fields(params: Params, required: set[str], optional: set[str]) -> None:
    if missing := sorted(required - params.keys()):
        raise BadInput("params", f"The parameter {missing[0]} is missing.")
    if unknown := sorted(params.keys() - required - optional):
        raise BadInput("params", f"There is no parameter {unknown[0][:40]}.")


def _channels(params: Params) -> Sequence[Any]:
    channels = params.get("channels", [])
    if not isinstance(channels, list):
        raise BadInput("params", "channels is a list of channel names.")
    return channels
