"""Webhooks: tells the CMS which users are online and which channels have subscribers.

Off unless `webhook_url` is set; no other address is ever called, and no redirect is followed.
Events are numbered, 1, 2, 3 … in each run of each node, so that the CMS sees what it missed.
They are sent in order, one request at a time, and again until the CMS has answered 2xx. A
snapshot of everything, at the start, every hour, and whenever too much waits, replaces what
waits before it: whoever has a snapshot needs nothing older.

Two threads. The loop counts and puts events into the queue, and never waits. The thread of the
sender does everything that can take time. What they share is under one lock.

Imported by the house.
"""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Sequence
from typing import Any

from push_server import log
from push_server.calls import Caller, PushClientError
from push_server.channels import PERSONAL, personal_channel
from push_server.hub import ANONYMOUS
from push_server.presence import Roll
from push_server.publications import dump_json
from push_server.signatures import sign

QUEUE_EVENTS = 10_000
"""Events that may wait; a snapshot takes the place of more."""
BATCH_EVENTS = 100
"""Events in one request."""
SNAPSHOT_NAMES = 1000
"""Names in one event of a snapshot."""
SNAPSHOT_SECONDS = 3600.0
CONNECT_SECONDS = 2.0
CALL_SECONDS = 10.0
"""For a whole request, however slowly the answer drips."""
ANSWER_BYTES = 65_536
RETRY_SECONDS = (0.5, 60.0)
"""The first and the longest pause after a failure."""
PARTING_SECONDS = 2.0
"""For the last words when the server ends."""

Event = dict[str, Any]


class Webhooks:
    """An observer of the hub that reports to the CMS."""

    def __init__(
        self, url: str, secret: bytes, node: str, grace: float, counts: Counter[str]
    ) -> None:
        self._sender = Sender(url, secret, node, counts)
        self._users: Roll[str] = Roll(grace)
        self._channels: Roll[str] = Roll(grace)
        self._number = 0
        self._snapshot_at = 0.0

    def start(self) -> None:
        """Begin to send."""
        self._sender.start()

    def enter(self, user: str, name: str, channels: Collection[str], now: float) -> None:
        """Report a user or a channel that was not there (the hub's call)."""
        if _counts(user, channels) and self._users.enter(user):
            self._report({"type": "user.online", "user": user})
        for channel in channels:
            if _is_shared(channel) and self._channels.enter(channel):
                self._report({"type": "channel.occupied", "channel": channel})

    def leave(self, user: str, channels: Collection[str], now: float) -> None:
        """Count (the hub's call)."""
        if _counts(user, channels):
            self._users.leave(user, now)
        for channel in channels:
            if _is_shared(channel):
                self._channels.leave(channel, now)

    def tick(self, now: float) -> None:
        """Report what is gone for good, and from time to time all that is there."""
        for user in self._users.tick(now):
            self._report({"type": "user.offline", "user": user})
        for channel in self._channels.tick(now):
            self._report({"type": "channel.vacated", "channel": channel})
        if now >= self._snapshot_at or self._sender.waiting > QUEUE_EVENTS:
            self._snapshot_at = now + SNAPSHOT_SECONDS
            self._sender.put(self._snapshot(), replace=True)

    def gone(self, node: str) -> None:
        """Report that another node ended without a word (the roster's callback)."""
        self._report({"type": "node.gone", "gone": node})

    def close(self) -> None:
        """Report the end of this node, and give it a moment."""
        self._report({"type": "node.stopped"})
        self._sender.close()

    def _report(self, event: Event) -> None:
        self._sender.put([self._numbered(event)])

    def _numbered(self, event: Event) -> Event:
        self._number += 1
        return {"number": self._number, "time": int(time.time()), **event}

    def _snapshot(self) -> Sequence[Event]:
        """All users and channels, in as many events as that takes."""
        names = [("users", user) for user in self._users]
        names += [("channels", channel) for channel in self._channels]
        starts = range(0, max(len(names), 1), SNAPSHOT_NAMES)
        parts = [names[start : start + SNAPSHOT_NAMES] for start in starts]
        return [
            self._numbered(
                {
                    "type": "snapshot",
                    "part": index + 1,
                    "parts": len(parts),
                    "users": [name for kind, name in part if kind == "users"],
                    "channels": [name for kind, name in part if kind == "channels"],
                }
            )
            for index, part in enumerate(parts)
        ]


def _counts(user: str, channels: Collection[str]) -> bool:
    """Whether a connection comes or goes with these channels, and not only enters or leaves some:
    it has its personal one from its beginning to its end."""
    return _is_user(user) and personal_channel(user) in channels


def _is_user(user: str) -> bool:
    return user != ANONYMOUS and not user.startswith("$")


def _is_shared(channel: str) -> bool:
    # Whether a personal channel has subscribers, the user's own events say.
    return not channel.startswith((PERSONAL, "$"))


class Sender:
    """The queue, and the thread that empties it."""

    def __init__(self, url: str, secret: bytes, node: str, counts: Counter[str]) -> None:
        self._secret = secret
        self._node = node
        self._counts = counts
        self._caller = Caller(
            url,
            {"Content-Type": "application/json", "User-Agent": "push-server"},
            CONNECT_SECONDS,
            ANSWER_BYTES,
        )
        for outcome in ("sent", "replaced", "failed"):
            counts[f"webhooks.{outcome}"] = 0
        self._queue: deque[Event] = deque()
        self._replaced = 0
        """Counts the snapshots that replaced what waited."""
        self._changed = threading.Condition()
        self._closing = False
        self._failures = 0
        """In a row; of the sender's thread alone."""
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Events in the queue (any thread)."""
        return len(self._queue)

    def put(self, events: Sequence[Event], *, replace: bool = False) -> None:
        """Queue events; with `replace` they take the place of all that wait (loop)."""
        with self._changed:
            if replace:
                self._counts["webhooks.replaced"] += len(self._queue)
                self._queue.clear()
                self._replaced += 1
            self._queue.extend(events)
            self._changed.notify()

    def close(self) -> None:
        """Send what waits if the CMS is there, wait a moment for it, and end (loop)."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(PARTING_SECONDS)

    def _run(self) -> None:
        going_on = True
        while going_on:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                batch = self._next_batch()
                replaced = self._replaced
            going_on = bool(batch) and self._deliver(batch, replaced)
        self._caller.close()

    def _next_batch(self) -> list[Event]:
        """What goes into one request; a part of a snapshot goes alone."""
        batch: list[Event] = []
        while self._queue and len(batch) < BATCH_EVENTS:
            if batch and "snapshot" in (batch[-1]["type"], self._queue[0]["type"]):
                break
            batch.append(self._queue.popleft())
        return batch

    def _deliver(self, batch: Sequence[Event], replaced: int) -> bool:
        """Send until it is taken or replaced; False if the server ends before that."""
        body = dump_json({"node": self._node, "events": batch})
        message_id = f"{self._node}-{batch[0]['number']}"
        pause = RETRY_SECONDS[0]
        while (failure := self._attempt(message_id, body)) is not None:
            self._counts["webhooks.failed"] += 1
            if not self._failures:
                log.warn("webhook.down", reason=failure)
            self._failures += 1
            until = time.monotonic() + pause * random.uniform(0.5, 1.0)
            with self._changed:
                while (left := until - time.monotonic()) > 0 and not self._closing:
                    self._changed.wait(left)
                if self._closing:
                    return False
                if self._replaced != replaced:
                    self._counts["webhooks.replaced"] += len(batch)
                    return True
            pause = min(2 * pause, RETRY_SECONDS[1])
        self._counts["webhooks.sent"] += len(batch)
        if self._failures:
            log.info("webhook.up", failures=self._failures)
            self._failures = 0
        return True

    def _attempt(self, message_id: str, body: bytes) -> str | None:
        """Send once; why it failed, or None."""
        now = int(time.time())
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(now),  # of this attempt: an old one would not be taken
            "webhook-signature": sign(self._secret, message_id, now, body),
        }
        seconds = PARTING_SECONDS if self._closing else CALL_SECONDS
        try:
            status, _ = self._caller.post(body, headers, time.monotonic() + seconds)
        except PushClientError as error:
            return error.code
        except Exception as failure:  # noqa: BLE001  # whatever it is, the thread must live
            log.error("webhook.failed", failure)
            return "failed"
        return None if 200 <= status < 300 else f"status_{status}"
