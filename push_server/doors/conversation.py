"""A WebSocket client: who it is, how it begins, and how its commands are answered.

One command at a time: the next message is not read before the last one is answered, so a client
that asks faster than it is served waits, in its own socket. What is asked for is checked by the
same functions as an HTTP request for it; see `methods`.

Event loop only, but for making one. Imported by the WebSocket door.
"""

import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from push_server import log
from push_server.doors import renewal
from push_server.doors.lobby import COMMAND_BYTES, Guest, Lobby
from push_server.doors.orders import make_order
from push_server.doors.request import parse_json
from push_server.errors import BadInput, PushError, Unavailable
from push_server.publications import dump_json
from push_server.subscriber import Subscriber, SubscribeRequest
from push_server.tokens import Grant
from push_server.transports import TRANSPORTS
from push_server.transports.base import Headers
from push_server.transports.ws import REFUSED
from push_server.websocket import WebSocketConnection

IDENTITY_CHARACTERS = 64
WEBSOCKET = TRANSPORTS["ws"]

Identity = str | int | None
Answer = Callable[[Mapping[str, Any]], None]
Params = Mapping[str, Any]
Method = Callable[["Conversation", Params, Answer], Coroutine[Any, Any, None]]


class Conversation(Guest):
    """The listener on one WebSocket."""

    __slots__ = ("_grant", "_methods")

    def __init__(self, lobby: Lobby, methods: Mapping[str, Method], ip: str) -> None:
        super().__init__(lobby, ip)
        self._methods = methods
        self._grant: Grant | None = None

    # The beginning: with a token or ticket in the handshake, or without.

    def enter(
        self, sock: socket.socket, grant: Grant, order: SubscribeRequest, headers: Headers
    ) -> None:
        """Become a subscriber as the handshake asks; `headers` are those of a refusal."""
        context = self.context
        self._connection = WebSocketConnection(context.hub, sock, self)
        context.crossing.spawn(self._attach(grant, order, headers))

    async def _attach(self, grant: Grant, order: SubscribeRequest, headers: Headers) -> None:
        hub, connection = self.context.hub, self._connection
        try:
            await hub.receive(order, connection)
        except PushError as error:
            log.refused(error, self._ip)
            hub.refuse(headers, connection, error)
        except BaseException:
            connection.close("failed")
            raise
        else:
            self._enter(grant)
            connection.resume()

    async def begin(self, grant: Grant, channels: Sequence[Any], params: Params) -> None:
        """Become a subscriber as `connect` asks. Raises `PushError`."""
        order = make_order(
            self.context.settings,
            grant,
            self._ip,
            channels,
            transport=WEBSOCKET,
            since=params.get("since"),
            instance=params.get("instance"),
            fallback=params.get("fallback"),
            begun=True,
        )
        if not self._connection.open:  # the hub would not hear of its end again
            raise Unavailable("leaving", "This connection is being closed.")
        await self.context.hub.receive(order, self._connection)
        self._enter(grant)

    def _enter(self, grant: Grant) -> None:
        self._known()
        self.take(grant)
        self._connection.begin(self.context.settings.max_body + COMMAND_BYTES)

    def take(self, grant: Grant) -> None:
        """Act under this grant from now on."""
        self._grant = renewal.kept(grant)

    def _heard(self, text: bytes) -> None:
        """Take a command."""
        identity: Identity = None
        try:
            identity, command = _command(parse_json(text))
            name, params = self._method(command)
            if (name == "connect") != (self._grant is None):
                raise BadInput("command", "`connect` comes first, and once.")
        except PushError as error:
            self._fault(identity, error)
            return
        self._connection.pause()
        self.context.hub.counts[f"commands.{name}"] += 1
        self.context.crossing.spawn(self._perform(self._methods[name], params, identity))

    def _method(self, command: Mapping[str, Any]) -> tuple[str, Params]:
        if not {"id", "method", "params"}.issuperset(command):
            raise BadInput("command", "A command has id, method and params, and no more.")
        name, params = command.get("method"), command.get("params", {})
        if not isinstance(name, str) or name not in self._methods:
            raise BadInput("command", f"The methods are {', '.join(self._methods)}.")
        if not isinstance(params, dict):
            raise BadInput("command", "params is an object.")
        return name, params

    # Commands and their answers.

    async def _perform(
        self, method: Method, params: Params, identity: Identity
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
        self._send(dump_json({"id": identity, "result": result}))

    def _fault(self, identity: Identity, error: PushError) -> None:
        """Refuse a command; who does not come in has to go."""
        log.refused(error, self._ip)
        self._send(dump_json({"id": identity, **error.entry()}))
        if self._grant is None:
            self._connection.fail(REFUSED + error.status, error.code)

    @property
    def grant(self) -> Grant:
        """What the client's token allows."""
        assert self._grant is not None
        return self._grant

    @property
    def subscriber(self) -> Subscriber:
        """The client in the hub. Raises `Unavailable` if it has just left."""
        subscriber: Subscriber | None = self._connection.subscriber
        if subscriber is None or not subscriber.present:
            raise Unavailable("leaving", "This connection is being closed.")
        return subscriber


def _command(value: object) -> tuple[Identity, Mapping[str, Any]]:
    if not isinstance(value, dict):
        raise BadInput("command", "A command is an object with id, method and params.")
    identity = value.get("id")
    if isinstance(identity, str) and 0 < len(identity) <= IDENTITY_CHARACTERS:
        return identity, value
    if isinstance(identity, int) and not isinstance(identity, bool) and abs(identity) < 2**53:
        return identity, value
    raise BadInput("command", "id is a number or a short string; the answer carries it.")
