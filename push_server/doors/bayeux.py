"""What a Bayeux client may ask for: handshake, connect, subscribe, publish.

Every message has an answer of its own, with the HTTP status that fits in its ``error``
(``403:channel_denied:…``). What is asked for is checked by the same functions as everywhere else.

Event loop only. Imported by the doors that bring messages: `bayeux_http`, `bayeux_socket`.
"""

import secrets
from asyncio import Lock, sleep
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from push_server import log
from push_server.bayeux.elements import BAYEUX
from push_server.bayeux.mailbox import Mailbox, Reply, farewell
from push_server.bayeux.names import CONTROL, META, SERVICE, to_channel, to_glob
from push_server.bayeux.requests import Message
from push_server.doors import renewal
from push_server.doors.context import Context
from push_server.doors.orders import make_order, sort_channels
from push_server.doors.publish import publish_request
from push_server.errors import BadInput, Denied, NotFound, PushError, TooMany
from push_server.positions import Position, channel_key
from push_server.publications import dump_json
from push_server.rooms import Glob
from push_server.subscriber import Subscriber, SubscribeRequest
from push_server.tokens import Grant

HOLD_SECONDS = 25.0
"""How long a connect is held. Clients give up ten seconds, or a fifth, later."""
EVENT_SOURCE_SECONDS = 10.0
"""Between the connects of a client whose messages come another way."""
GLOBS_LIMIT = 16
TURN = 100
"""Messages of one request that are answered before others have their turn."""
SEEN_LIMIT = 1000
"""Channels that a session remembers to have been in, where it has come back with a cursor."""
VERSION = "1.0"
"""Of the protocol."""
POLLING, CROSS_ORIGIN, CALLBACK, WEBSOCKET, EVENT_SOURCE = (
    "long-polling",
    "cross-origin-long-polling",
    "callback-polling",
    "websocket",
    "eventsource",
)


class Client:
    """One Bayeux session: what a clientId stands for."""

    __slots__ = ("changing", "connected", "globs", "grant", "mailbox", "seen", "since")

    def __init__(
        self, mailbox: Mailbox, grant: Grant, since: Mapping[str, Position] | None
    ) -> None:
        self.mailbox = mailbox
        self.grant = grant
        self.since = since
        """Where it stood in an earlier session; each channel goes on from there once."""
        self.seen: set[str] = set()
        self.globs: set[Glob] = set()
        self.changing = Lock()
        """Held while its channels change: its requests come on several connections at once."""
        self.connected = False
        """Whether its first connect was answered."""

    def note(self, channels: Sequence[str]) -> None:
        """It has gone on in these channels."""
        if self.since is None:
            return
        if len(self.seen) > SEEN_LIMIT:
            # What its cursor does not speak of it may be told to load once more.
            self.seen = {name for name in self.seen if channel_key(name) in self.since}
        self.seen.update(channels)

    @property
    def subscriber(self) -> Subscriber:
        """The client in the hub. Raises `NotFound` if it has just left."""
        subscriber: Subscriber | None = self.mailbox.subscriber
        if subscriber is None or not subscriber.present:
            raise NotFound("session_unknown", "This session has ended.")
        return subscriber


class Hold(NamedTuple):
    """A connect that is to be held."""

    client: Client
    reply: Reply


class Bayeux:
    """The sessions of this process."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._clients: dict[str, Client] = {}

    def client(self, identity: object) -> Client | None:
        """The session with this clientId."""
        return self._clients.get(identity) if isinstance(identity, str) else None

    async def answer(
        self, messages: Sequence[Message], way: str, ip: str, *, holds: bool = True
    ) -> bytes | Hold:
        """The answers to the messages of one request, or the connect that is to be held.

        `way` is the connection type that the request came by.
        """
        replies: list[Reply] = []
        connects: list[Hold] = []
        for number, message in enumerate(messages):
            if number % TURN == TURN - 1:
                await sleep(0)
            reply = _reply_to(message)
            try:
                done = await self._answer(message, reply, way, ip)
            except PushError as error:
                log.refused(error, ip)
                replies.append({**reply, **self._refusal(message, error)})
                continue
            if isinstance(done, Hold):
                connects.append(done)
            else:
                replies.append({**reply, "successful": True, **done})
        waits = (
            holds
            and not replies
            and len(connects) == 1
            and connects[0].client.connected
            and connects[0].reply["advice"]["timeout"] > 0
            and not connects[0].client.mailbox.due
            and not asks_at_once(messages[0])
        )
        if waits:
            return connects[0]
        parts = [dump_json(reply) for reply in replies]
        for hold in connects:
            hold.client.connected = True
            hold.client.mailbox.connect(hold.reply, lambda array: parts.append(array[1:-1]), 0)
        return b"[%b]" % b",".join(parts)

    async def _answer(self, message: Message, reply: Reply, way: str, ip: str) -> Reply | Hold:
        channel = message.get("channel")
        if not isinstance(channel, str):
            raise BadInput("channel_malformed", "A message has a channel.")
        if way == CALLBACK and "token" in _ext(message):
            # URLs are logged; a ticket is worth nothing by then.
            raise BadInput("token_in_url", "Send a ticket in ext.push, not a token.")
        if channel == "/meta/handshake":
            return await self._handshake(message, ip)
        client = self.client(message.get("clientId"))
        if client is None:
            raise NotFound("session_unknown", "There is no such session.")
        if channel == "/meta/connect":
            return await self._connect(client, message, reply, way)
        if channel == "/meta/disconnect":
            client.mailbox.close("left")
            return {}
        if channel == "/meta/subscribe":
            async with client.changing:
                return await self._subscribe(client, message)
        if channel == "/meta/unsubscribe":
            async with client.changing:
                return self._unsubscribe(client, message)
        if channel.startswith((META, SERVICE)):
            raise Denied("channel_denied", "Nobody listens there.")
        return await self._publish(client, channel, message)

    def _refusal(self, message: Message, error: PushError) -> Reply:
        refusal: Reply = {"successful": False, "error": _error(error)}
        channel = message.get("channel")
        if channel == "/meta/handshake":
            # Without "none" clients ask again at once, and for ever.
            again = {"reconnect": "handshake", "interval": 1000 * (error.retry_after or 5)}
            refusal["advice"] = again if error.status in (429, 503) else {"reconnect": "none"}
        elif error.code == "session_unknown":
            refusal["error"] = "402::session_unknown"
            if channel == "/meta/connect":
                refusal |= farewell("gone")
        return refusal

    # The meta channels.

    async def _handshake(self, message: Message, ip: str) -> Reply:
        types = self._connection_types(message)
        asked = _ext(message)
        if "ticket" in asked:
            grant = await renewal.opened(self.context, asked["ticket"])
        else:
            grant = renewal.verified(self.context, asked.get("token"))
        order = make_order(
            self.context.settings,
            grant,
            ip,
            [],
            transport=BAYEUX,
            since=asked.get("since"),
            instance=asked.get("instance"),
            begun=True,
        )
        acks = isinstance(message.get("ext"), dict) and bool(message["ext"].get("ack"))
        identity, subscriber = await self._let_in(grant, order, acks=acks)
        ext: dict[str, Any] = {
            "push": {
                "user": grant.user,
                "expires": int(grant.expires),
                "channels": order.channels,
                # Told already is what it missed, and waits: it stands where it did until it comes.
                "cursor": subscriber.cursor if order.since is None else asked["since"],
            }
        }
        return {
            "version": VERSION,
            "minimumVersion": VERSION,
            "supportedConnectionTypes": types,
            "clientId": identity,
            "advice": _advice(0, HOLD_SECONDS),
            "ext": {**ext, "ack": True} if acks else ext,
        }

    def _connection_types(self, message: Message) -> list[str]:
        """What we support, if the client speaks our version and one of these. Raises `BadInput`."""
        minimum = message.get("minimumVersion", VERSION)
        # As text: "0.9" and "1" come before "1.0"; "1.1", "2.0" and "10.0" after it.
        if not isinstance(minimum, str) or minimum > VERSION:
            raise BadInput("bayeux_version", f"This is Bayeux {VERSION}.")
        types = [POLLING, CROSS_ORIGIN, WEBSOCKET, EVENT_SOURCE]
        if self.context.settings.jsonp:
            types.append(CALLBACK)
        offered = message.get("supportedConnectionTypes")
        if not isinstance(offered, list) or not any(kind in types for kind in offered):
            raise BadInput("connection_types", f"Supported are {', '.join(types)}.")
        return types

    async def _let_in(
        self, grant: Grant, order: SubscribeRequest, *, acks: bool
    ) -> tuple[str, Subscriber]:
        """Begin a session: its clientId, and the client in the hub. Raises `PushError`."""
        identity = secrets.token_urlsafe(24)
        mailbox = Mailbox(self.context.hub, acks=acks)
        client = Client(mailbox, renewal.kept(grant), order.since)
        mailbox.on_end = lambda: self._forget(identity)
        self._clients[identity] = client
        try:
            await self.context.hub.receive(order, mailbox)
        except BaseException:
            mailbox.close("refused")
            raise
        return identity, client.subscriber

    def _forget(self, identity: str) -> None:
        client = self._clients.pop(identity)
        for glob in client.globs:
            self.context.hub.unwatch_glob(client.mailbox.subscriber, glob)

    async def _connect(self, client: Client, message: Message, reply: Reply, way: str) -> Hold:
        kind = message.get("connectionType")
        if token := _ext(message).get("token"):
            async with client.changing:
                # Not before: it may be revoked while the channels change, and nobody has it yet.
                grant = renewal.verified(self.context, token)
                renewal.renew(self.context, client.subscriber, client.grant, grant)
                client.grant = renewal.kept(grant)
                for glob in [each for each in client.globs if not grant.subscribe.covers(each[0])]:
                    self._unwatch(client, glob)
        ext = message.get("ext")
        if client.mailbox.acks and isinstance(ext, dict):
            client.mailbox.confirm(ext.get("ack"))
        # What comes to an EventSource leaves through that, so its connects are not held.
        holds = kind != EVENT_SOURCE or way == WEBSOCKET
        advice = _advice(0, HOLD_SECONDS) if holds else _advice(EVENT_SOURCE_SECONDS, 0)
        return Hold(client, {**reply, "successful": True, "advice": advice})

    async def _subscribe(self, client: Client, message: Message) -> Reply:
        subscriber = client.subscriber
        names = [name for name in _subscription(message) if name != CONTROL]
        globs = [glob for name in names if (glob := to_glob(name)) is not None]
        self._check_globs(client, globs)
        asked = [to_channel(name) for name in names if to_glob(name) is None]
        granted, denied = sort_channels(
            asked,
            client.grant,
            self.context.settings.channels_per_connection,
            subscriber.channels,
        )
        if denied:
            raise Denied("channel_denied", "The token does not grant all of these channels.")
        fresh = [name for name in granted if name not in subscriber.channels]
        for known in (True, False):
            channels = [name for name in fresh if (name in client.seen) is known]
            if channels:
                since = None if known else client.since
                # Not `subscriber`: it may have ended while it was let into the others.
                await self.context.hub.subscribe(
                    client.subscriber, client.grant.name, channels, since, lambda: None
                )
                # Not before: where the log did not answer, the client asks again.
                client.note(channels)
        for glob in globs:
            await self._watch(client, glob)
        return {"subscription": message["subscription"]}

    def _check_globs(self, client: Client, globs: Sequence[Glob]) -> None:
        if not all(client.grant.subscribe.covers(glob.prefix) for glob in globs):
            raise Denied("channel_denied", "The token does not grant all of such channels.")
        if len(client.globs.union(globs)) > GLOBS_LIMIT:
            raise TooMany("too_many_channels", f"A client has {GLOBS_LIMIT} wildcards at most.")

    async def _watch(self, client: Client, glob: Glob) -> None:
        if glob in client.globs:
            return
        subscriber = client.subscriber
        again = client.since is not None  # of such channels no cursor speaks
        await self.context.hub.watch_glob(subscriber, glob, again=again)
        if subscriber.present:
            client.globs.add(glob)

    def _unwatch(self, client: Client, glob: Glob) -> None:
        client.globs.discard(glob)
        self.context.hub.unwatch_glob(client.subscriber, glob)

    def _unsubscribe(self, client: Client, message: Message) -> Reply:
        subscriber = client.subscriber
        names = [name for name in _subscription(message) if name != CONTROL]
        for glob in client.globs.intersection(map(to_glob, names)):
            self._unwatch(client, glob)
        asked = {to_channel(name) for name in names if to_glob(name) is None}
        personal = next(iter(subscriber.channels))
        left = [name for name in subscriber.channels if name in asked and name != personal]
        self.context.hub.unsubscribe(subscriber, left)
        return {"subscription": message["subscription"]}

    async def _publish(self, client: Client, channel: str, message: Message) -> Reply:
        asked = _ext(message)
        fields = {key: asked[key] for key in ("id", "exclude") if key in asked}
        if "data" in message:
            fields["data"] = message["data"]
        wish = publish_request(
            {**fields, "channel": to_channel(channel)}, client.grant, self.context.settings
        )
        (result,) = await self.context.broker.publish([wish])
        if isinstance(result, PushError):
            raise result
        return {"ext": {"push": result.as_json()}}


def asks_at_once(message: Message) -> bool:
    """Whether a connect says that it will not wait."""
    advice = message.get("advice")
    return isinstance(advice, dict) and advice.get("timeout") == 0


def _advice(interval: float, timeout: float) -> Reply:
    return {
        "reconnect": "retry",
        "interval": int(interval * 1000),
        "timeout": int(timeout * 1000),
    }


def _reply_to(message: Message) -> Reply:
    return {key: message[key] for key in ("id", "channel", "subscription") if key in message}


def _error(error: PushError) -> str:
    """Bayeux's form: code, arguments, text."""
    if error.code == "channel_malformed":
        return f"405::{error.message}"
    if error.code == "bayeux_version":
        return f"300::{error.message}"
    if error.code == "connection_types":
        return f"301::{error.message}"
    return f"{error.status}:{error.code}:{error.message}"


def _ext(message: Message) -> Mapping[str, Any]:
    """Our own part of `ext`."""
    ext = message.get("ext")
    ours = ext.get("push") if isinstance(ext, dict) else None
    return ours if isinstance(ours, dict) else {}


def _subscription(message: Message) -> Sequence[Any]:
    subscription = message.get("subscription")
    names = subscription if isinstance(subscription, list) else [subscription]
    if not names:
        raise BadInput("channel_malformed", "A subscription names a channel.")
    return names


