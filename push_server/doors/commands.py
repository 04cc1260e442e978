"""The commands of ``POST /api``.

To add one: a function here, a line in `COMMANDS`, a row in `docs/protocol.rst`, a method in
`push_server/client.py`, a test.

A command is prepared in a worker (everything that can be wrong with it is found there) and then
performed on the event loop. Preparing gives either publish requests, so that a run of them
becomes one group commit, or a coroutine function. Parameters nobody knows are refused.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from push_server.brokers.base import Broker
from push_server.brokers.survey import CHANNELS, DISCONNECT, STATS
from push_server.channels import check_channel
from push_server.doors.context import Context
from push_server.doors.request import check_fields
from push_server.errors import BadInput, Denied, PushError, TooLarge
from push_server.hub import ANONYMOUS
from push_server.positions import OFFSET_LIMIT, channel_key, cursor_entry, join_cursor, parse_cursor
from push_server.publications import Published, PublishRequest, check_id, dump_json
from push_server.revocations import SESSION, TOKEN, USER, Revocation
from push_server.signatures import ApiKey
from push_server.tokens import LEEWAY, LIFETIME_LIMIT

HISTORY_LIMIT = 1000
PRESENCE_LIMIT = 10_000
FOREVER = float(2**53)
"""`before` of a session's or a token's revocation: whatever a skewed clock wrote as `iat`."""

ANSWERS_BYTES = 32 * 1024 * 1024
"""Of the answers to one list, beyond which nothing more is read for it: a few kilobytes can ask for
all that is kept, a thousand times."""

Result = Any
"""What a command gives: a value, or bytes that are JSON already."""
Perform = Callable[[], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Call:
    """One command and what came with it."""

    context: Context
    key: ApiKey
    params: Mapping[str, Any]
    auto_id: str
    """The publication id if the publisher gives none; the same in every retry."""
    signed_at: int
    """The timestamp under the signature: the clock of the CMS."""


@dataclass(frozen=True, slots=True)
class Publishes:
    """A prepared `publish` or `broadcast`."""

    requests: Sequence[PublishRequest]
    many: bool

    def result(self, answers: Sequence[Published | PushError]) -> Result:
        """The command's result; raises its error if it is a single publish that failed."""
        if self.many:
            return {
                "results": [
                    answer.entry() if isinstance(answer, PushError) else answer.as_json()
                    for answer in answers
                ]
            }
        if isinstance(answers[0], PushError):
            raise answers[0]
        return answers[0].as_json()


def _usable(call: Call, channel: object) -> str:
    name = check_channel(channel)
    if not call.key.may_use(name):
        raise Denied("channel_denied", "This API key is limited to other channels.")
    return name


def _request(call: Call, channel: object, data: bytes) -> PublishRequest:
    exclude = call.params.get("exclude")
    given_id = call.params.get("id")
    return PublishRequest(
        channel=_usable(call, channel),
        id=call.auto_id if given_id is None else check_id(given_id),
        data=data,
        exclude=None if exclude is None else check_id(exclude, "exclude"),
    )


def publish(call: Call) -> Publishes:
    """``publish``: one message to one channel."""
    check_fields(call.params, {"channel", "data"}, {"id", "exclude"})
    data = dump_json(call.params["data"])
    return Publishes([_request(call, call.params["channel"], data)], many=False)


def broadcast(call: Call) -> Publishes:
    """``broadcast``: one message to many channels, under the same id in each."""
    check_fields(call.params, {"channels", "data"}, {"id", "exclude"})
    channels = call.params["channels"]
    if not isinstance(channels, list) or not 0 < len(channels) <= 1000:
        raise BadInput("params", "channels is a list of 1 to 1,000 channel names.")
    data = dump_json(call.params["data"])  # once: the channels share it
    return Publishes([_request(call, channel, data) for channel in channels], many=True)


def revoke(call: Call) -> Perform:
    """``revoke``: end sessions, users' tokens, or one token; close their streams."""
    check_fields(call.params, set(), {"sid", "user", "before", "jti"})
    if call.key.channels is not None:
        raise Denied("command_denied", "An API key limited to channels cannot revoke.")
    before = call.params.get("before", call.signed_at)
    if isinstance(before, bool) or not isinstance(before, (int, float)) or not 0 <= before < 2**53:
        raise BadInput("params", "before is a time in unix seconds.")
    expires = time.time() + LIFETIME_LIMIT + LEEWAY
    limits = {SESSION: FOREVER, USER: float(before), TOKEN: FOREVER}
    revocations = []
    for kind, limit in limits.items():
        value = call.params.get(kind)
        if value is None:
            continue
        if not isinstance(value, str) or not 0 < len(value) <= 512:
            raise BadInput("params", f"{kind} is a string.")
        revocations.append(Revocation(kind, value, limit, expires))
    if not revocations:
        raise BadInput("params", "Name a sid, a user or a jti.")

    async def perform() -> Result:
        closed = 0
        for revocation in revocations:
            closed += len(call.context.hub.census.meant_by(revocation))
            await call.context.broker.revoke(revocation)
        return {"closed": closed}

    return perform


def disconnect(call: Call) -> Perform:
    """``disconnect``: close the streams of a user or a session, on all nodes; they come back."""
    check_fields(call.params, set(), {"sid", "user"})
    if call.key.channels is not None:
        raise Denied("command_denied", "An API key limited to channels cannot disconnect.")
    user, session = call.params.get("user", ""), call.params.get("sid", "")
    for name, value in call.params.items():
        if not isinstance(value, str) or not 0 < len(value) <= 512 or "\n" in value:
            raise BadInput("params", f"{name} is a string.")
    if not user and not session:
        raise BadInput("params", "Name a user or a sid.")

    async def perform() -> Result:
        survey = await call.context.broker.survey(DISCONNECT, f"{user}\n{session}")
        return {"closed": survey.total().get("closed", 0), "complete": survey.complete}

    return perform


def history(call: Call) -> Perform:
    """``history``: what a channel keeps, after an offset or a cursor."""
    check_fields(call.params, {"channel"}, {"since", "limit"})
    channel = _usable(call, call.params["channel"])
    limit = call.params.get("limit", 100)
    since = call.params.get("since", 0)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= HISTORY_LIMIT:
        raise BadInput("params", f"limit is 0 to {HISTORY_LIMIT}.")
    if isinstance(since, str):
        since = parse_cursor(since).get(channel_key(channel))
        if since is None:
            raise BadInput("params", "The cursor does not speak of this channel.")
    elif isinstance(since, bool) or not isinstance(since, int) or not 0 <= since < OFFSET_LIMIT:
        raise BadInput("params", "since is an offset or a cursor.")

    async def perform() -> Result:
        found = await call.context.broker.history(channel, since, limit)
        result: dict[str, Any] = {
            "channel": channel,
            "epoch": found.head.epoch,
            "offset": found.head.offset,
            "cursor": join_cursor([cursor_entry(channel, found.head)]),
        }
        if found.reset is not None:
            result["reset"] = found.reset
        kept = b",".join(publication.json for publication in found.publications)
        return b'%b,"publications":[%b]}' % (dump_json(result)[:-1], kept)

    return perform


def channels(call: Call) -> Perform:
    """``channels``: those with subscribers that the key may use, on all nodes."""
    check_fields(call.params, set(), {"prefix"})
    prefix = call.params.get("prefix", "")
    if not isinstance(prefix, str):
        raise BadInput("params", "prefix is a string.")

    async def perform() -> Result:
        survey = await call.context.broker.survey(CHANNELS, prefix)
        found: dict[str, Any] = {
            name: {"subscribers": size}
            for name, size in survey.total().items()
            if call.key.may_use(name)
        }
        if len(survey.nodes) > 1:
            for node, sizes in survey.nodes.items():
                for name in found.keys() & sizes:
                    found[name].setdefault("nodes", {})[node] = sizes[name]
        return {"channels": found, "complete": survey.complete}

    return perform


def presence(call: Call) -> Perform:
    """``presence``: who is in a channel, on all nodes."""
    check_fields(call.params, {"channel"}, {"limit"})
    channel = _usable(call, call.params["channel"])
    limit = presence_limit(call.params)
    if not call.context.settings.namespace.of(channel).presence:
        raise BadInput("presence_off", "The namespace of this channel has no `presence = true`.")

    return lambda: who_is_there(call.context.broker, channel, limit)


def presence_limit(params: Mapping[str, Any]) -> int:
    """How many users to name. Raises `BadInput`."""
    limit = params.get("limit", PRESENCE_LIMIT)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= PRESENCE_LIMIT:
        raise BadInput("params", f"limit is 0 to {PRESENCE_LIMIT}.")
    return limit


async def who_is_there(broker: Broker, channel: str, limit: int) -> dict[str, Any]:
    """The users in a channel, on all nodes; `limit` of them by name."""
    members = dict(await broker.roster.who(channel))
    nobody = members.pop(ANONYMOUS, None)
    users: dict[str, dict[str, Any]] = {}
    for user, member in islice(members.items(), limit):
        users[user] = {"connections": member.connections}
        if member.name:
            users[user]["name"] = member.name
    return {
        "channel": channel,
        "count": len(members),
        "anonymous": 0 if nobody is None else nobody.connections,
        "users": users,
    }


def stats(call: Call) -> Perform:
    """``stats``: the numbers of all nodes, and of each."""
    check_fields(call.params, set(), set())

    async def perform() -> Result:
        survey = await call.context.broker.survey(STATS)
        return {**survey.total(), "nodes": survey.nodes, "complete": survey.complete}

    return perform


COMMANDS: dict[str, Callable[[Call], Publishes | Perform]] = {
    "publish": publish,
    "broadcast": broadcast,
    "revoke": revoke,
    "disconnect": disconnect,
    "history": history,
    "channels": channels,
    "presence": presence,
    "stats": stats,
}


def prepare(
    context: Context, key: ApiKey, command: object, auto_id: str, signed_at: int
) -> Publishes | Perform | PushError:
    """The command, ready to be performed, or what is wrong with it."""
    if not isinstance(command, dict) or not {"method", "params"}.issuperset(command):
        return BadInput("command", "A command has method and params.")
    method, params = command.get("method"), command.get("params", {})
    if not isinstance(method, str) or method not in COMMANDS:
        return BadInput("command", f"The methods are {', '.join(COMMANDS)}.")
    if not isinstance(params, dict):
        return BadInput("command", "params is an object.")
    try:
        return COMMANDS[method](Call(context, key, params, auto_id, signed_at))
    except PushError as error:
        return error


async def perform_all(
    context: Context, prepared: Sequence[Publishes | Perform | PushError]
) -> list[bytes | PushError]:
    """Perform commands in order (event loop). A run of publishes is one group commit."""
    results: list[bytes | PushError] = []
    index = size = 0
    while index < len(prepared):
        run = []
        while index < len(prepared) and isinstance(step := prepared[index], Publishes):
            run.append(step)
            index += 1
        if run:
            results += await _publish_run(context, run)
            continue
        step = prepared[index]
        index += 1
        if isinstance(step, PushError):
            results.append(step)
            continue
        assert not isinstance(step, Publishes)
        try:
            if size > ANSWERS_BYTES:
                raise TooLarge("answer_too_large", "Ask for less at once.")
            result = await step()
            answer = result if isinstance(result, bytes) else dump_json(result)
            results.append(answer)
            size += len(answer)
        except PushError as error:
            results.append(error)
    return results


async def _publish_run(
    context: Context, run: Sequence[Publishes]
) -> list[bytes | PushError]:
    requests = [request for publishes in run for request in publishes.requests]
    answers = iter(await context.broker.publish(requests))
    results: list[bytes | PushError] = []
    for publishes in run:
        try:
            result = publishes.result([next(answers) for _ in publishes.requests])
            results.append(dump_json(result))
        except PushError as error:
            results.append(error)
    return results
