"""From a Redis stream that other programs append to, into channels.

    XADD cms:outbox * channel user:42 data '{"text":"Hello"}'
    XADD cms:outbox * channel user:42 data '{"text":"Hello"}' id order-1842

It is read with a consumer group, so several servers share the work; what one had taken when it
died, another takes over. An entry is removed after its publication has been acknowledged. Its id
is the publication's unless it has a field ``id``, so whatever comes twice is published once. What
can never be published goes to a second stream, ``<name>:parked``, with the reason.

Only the event loop runs this. Imported by the house where the configuration asks for it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from push_server import log
from push_server.bridge_settings import Target
from push_server.bridges.intake import (
    RETRY_SECONDS,
    Complaints,
    is_final,
    make_request,
    pause,
)
from push_server.brokers.redis_connection import FAILURES, Aside, ResponseError, reason_of
from push_server.brokers.redis_url import RedisAddress, parse_redis_url
from push_server.errors import BadInput, PushError
from push_server.publications import Published, PublishRequest

GROUP = "push-server"
BATCH = 100
BLOCK_MS = 1000
CLAIM_MS = 5_000
"""Idle time after which another server's entries are taken over. If it was only slow, the ids of
the publications make that harmless."""
PARKED_LIMIT = 10_000
_FIELDS = {b"channel", b"data", b"id"}

Publish = Callable[[Sequence[PublishRequest]], Awaitable[Sequence[Published | PushError]]]


def parse_inbox(url: str) -> tuple[RedisAddress, str]:
    """Where the stream is, and its key. Raises `ValueError` saying what is wrong with the URL."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    streams = [value for name, value in options if name == "stream"]
    if len(streams) != 1 or not streams[0]:
        raise ValueError("names one stream, as ?stream=KEY")
    rest = urlencode([option for option in options if option[0] != "stream"])
    return parse_redis_url(parts._replace(query=rest).geturl()), streams[0]


@dataclass(frozen=True, slots=True)
class _Entry:
    id: bytes
    fields: Sequence[bytes]
    """Names and values in turn, as Redis gave them."""


class RedisInbox:
    """Publishes what is appended to one stream."""

    def __init__(
        self,
        address: RedisAddress,
        stream: str,
        target: Target,
        node: str,
        publish: Publish,
        max_body: int,
        counts: Counter[str],
    ) -> None:
        self._address = address
        self._stream = stream
        self._target = target
        self._node = node
        self._publish = publish
        self._max_body = max_body
        self._counts = counts
        self._task: asyncio.Task[None] | None = None
        self._complaints = Complaints("inbox")
        for outcome in ("taken", "parked", "failed"):
            counts.setdefault(f"bridge.inbox_{outcome}", 0)

    def start(self) -> None:
        """Begin to read."""
        self._task = asyncio.create_task(self._run(), name="redis-inbox")

    async def stop(self) -> None:
        """End; what was taken and not yet published stays in Redis."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        attempt = 0
        while True:
            began = time.monotonic()
            try:
                await self._converse()
            except FAILURES as error:
                reason = reason_of(error)
            except Exception as failure:  # noqa: BLE001  # whatever it is, the bridge must live
                log.error("bridge.failed", failure)
                reason = "failed"
            self._count("failed")
            self._complain("bridge.down", reason)
            attempt = 0 if time.monotonic() - began > RETRY_SECONDS[1] else attempt + 1
            await asyncio.sleep(pause(attempt))

    async def _converse(self) -> None:
        aside = await Aside.open(self._address)
        try:
            await self._make_group(aside)
            log.info("bridge.up", bridge="inbox", broker=self._address.shown)
            self._complaints.forget()
            # What a run before this one had taken, under a name that is now nobody's, comes by
            # the claim; what we took ourselves on a connection that broke comes first.
            start: bytes | None = b"0"
            claimed_at = 0.0
            while True:
                if start is None and time.monotonic() - claimed_at > CLAIM_MS / 1000:
                    await self._handle(aside, await self._claim(aside))
                    claimed_at = time.monotonic()
                entries = await self._read(aside, start or b">")
                await self._handle(aside, entries)
                if start is not None:
                    start = entries[-1].id if entries else None
        finally:
            await aside.close()

    async def _make_group(self, aside: Aside) -> None:
        try:
            await aside.ask("XGROUP", "CREATE", self._stream, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _read(self, aside: Aside, start: bytes) -> list[_Entry]:
        reply = await aside.ask(
            "XREADGROUP", "GROUP", GROUP, self._node, "COUNT", str(BATCH),
            "BLOCK", str(BLOCK_MS),
            "STREAMS", self._stream, start,
            seconds=BLOCK_MS / 1000 + 5,
        )  # fmt: skip
        return _entries(reply[0][1]) if reply else []

    async def _claim(self, aside: Aside) -> list[_Entry]:
        reply = await aside.ask(
            "XAUTOCLAIM", self._stream, GROUP, self._node, str(CLAIM_MS), "0", "COUNT", str(BATCH)
        )
        return _entries(reply[1])

    async def _handle(self, aside: Aside, entries: Sequence[_Entry]) -> None:
        """Publish until every entry is either stored or parked."""
        wishes: list[tuple[_Entry, PublishRequest]] = []
        for entry in entries:
            try:
                wishes.append((entry, self._request(entry)))
            except PushError as error:
                await self._park(aside, entry, error)
        attempt = 0
        while wishes:
            try:
                answers = await self._publish([request for _, request in wishes])
            except PushError as error:
                answers = [error] * len(wishes)
            waiting = []
            stored = []
            for wish, answer in zip(wishes, answers, strict=True):
                if not isinstance(answer, PushError):
                    stored.append(wish[0].id)
                elif is_final(answer):
                    await self._park(aside, wish[0], answer)
                else:
                    waiting.append(wish)
                    self._complain("bridge.waiting", answer.code)
            await self._done(aside, stored)
            self._count("taken", len(stored))
            wishes = waiting
            if wishes:
                await asyncio.sleep(pause(attempt))
                attempt += 1

    def _request(self, entry: _Entry) -> PublishRequest:
        names, values = entry.fields[::2], entry.fields[1::2]
        fields = dict(zip(names, values, strict=True))
        if len(fields) != len(names) or not _FIELDS.issuperset(fields) or b"data" not in fields:
            raise BadInput("fields", "An entry has data, and may have channel and id.")
        try:
            named = fields[b"channel"].decode("ascii") if b"channel" in fields else None
            given = fields.get(b"id", b"").decode("utf-8")
        except UnicodeDecodeError:
            raise BadInput("fields", "channel and id are text.") from None
        return make_request(
            self._target.channel_of(named),
            given or f"{self._stream}:{entry.id.decode('ascii')}",
            fields[b"data"],
            self._max_body,
        )

    async def _park(self, aside: Aside, entry: _Entry, error: PushError) -> None:
        await aside.ask(
            "XADD", f"{self._stream}:parked", "MAXLEN", "~", str(PARKED_LIMIT), "*",
            "push-reason", error.code, *entry.fields,
        )  # fmt: skip
        await self._done(aside, [entry.id])
        self._count("parked")
        self._complain("bridge.parked", error.code)

    async def _done(self, aside: Aside, ids: Sequence[bytes]) -> None:
        if ids:
            # In this order: an entry that is gone is taken off the list of the pending by the
            # next claim, one that is no longer pending would stay in the stream for ever.
            await aside.ask("XDEL", self._stream, *ids)
            await aside.ask("XACK", self._stream, GROUP, *ids)

    def _count(self, outcome: str, number: int = 1) -> None:
        self._counts[f"bridge.inbox_{outcome}"] += number

    def _complain(self, event: str, reason: str) -> None:
        self._complaints.say(event, reason, broker=self._address.shown)


def _entries(listed: Any) -> list[_Entry]:
    # A claimed entry that has been deleted meanwhile comes without fields.
    return [_Entry(entry_id, fields) for entry_id, fields in listed if fields]
