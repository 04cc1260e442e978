"""The mailbox: a Bayeux client's connection, which is there between its requests, too.

What the hub writes waits here until a ``/meta/connect`` fetches it. One such request may be
*held*: it is answered as soon as there is something, or when its time is over. Where the client
has a stream open (WebSocket, EventSource), what comes leaves through that at once, and a held
connect stays held.

With the ``ack`` extension nothing leaves but in answers to connects, and what an answer carried is
kept, as a numbered batch, until a connect confirms that number: an answer that was lost is
given again.

What waits has the byte budget of every connection. A client that sends no connect for
`GONE_SECONDS`, whatever it has open, is gone.

Event loop only. Owned by the hub.
"""

from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, NamedTuple

from push_server.connection import LOOK_AGAIN_SECONDS, Owner
from push_server.publications import dump_json

GONE_SECONDS = 30.0
"""From one connect's answer to the next connect: longer than any pause a client is told to make."""

REPLACED_MILLISECONDS = 5_000
"""After this, who had to make room for another connection of the same user begins anew."""

REPLAY_BYTES = 32 * 1024
"""How much of a replay waits here at a time; the rest follows as it is fetched."""

Send = Callable[[bytes], None]
"""Sends a JSON array."""
Reply = dict[str, Any]
Finish = Callable[["Mailbox", str], None]
Idle = Callable[[], bool]


class Held(NamedTuple):
    """A connect that waits for its answer."""

    reply: Reply
    send: Send
    timer: TimerHandle | None


class Mailbox:
    """What waits for one client."""

    def __init__(self, owner: Owner, *, acks: bool) -> None:
        self.subscriber: Any = None
        self.acks = acks
        self.on_end: Callable[[], None] = lambda: None
        """Called once, while the hub still knows it."""
        self.ended = ""
        """Why it is over; empty while it is not."""
        self._owner = owner
        self._waiting = bytearray()
        self._batches: dict[int, bytes] = {}
        """What was sent and not confirmed, by number (`acks`)."""
        self._number = 0
        self._held: Held | None = None
        self._stream: Send | None = None
        self._finish: Finish | None = None
        self._stream_idle: Idle = lambda: True
        self._emptied: Callable[[], None] | None = None
        self._gone: TimerHandle | None = None
        self._expect()

    # The hub's side: a connection.

    @property
    def idle(self) -> bool:
        """Whether there is room for more of a replay."""
        return len(self._waiting) < REPLAY_BYTES and self._stream_idle()

    def write(self, data: bytes) -> None:
        """Hand out at once, or keep within the budget."""
        if self.ended:
            return
        if self._stream is not None and not self.acks:
            self._stream(b"[%b]" % data[:-1])
            return
        kept = len(self._waiting) + sum(map(len, self._batches.values()))
        if kept and kept + len(data) > self._owner.queue_bytes:
            self.close("slow")
            return
        self._waiting += data
        self._release()

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once, as soon as what waits was fetched; or soon, for another look."""
        if self._stream_idle():
            self._emptied = callback
        else:
            self._owner.loop.call_later(LOOK_AGAIN_SECONDS, callback)

    def finish(self, reason: str) -> None:
        """End; the last words go with the connect that is held, if there is one."""
        self.close(reason)

    def release(self) -> bool:
        """There is nothing to give back."""
        return False

    def close(self, reason: str) -> None:
        """End: a held connect is told so, and later ones find nobody."""
        if self.ended:
            return
        self.ended = reason
        self._forget_gone()
        held, self._held = self._held, None
        if held is not None:
            self._answer(held, {**held.reply, **farewell(reason)})
        finish = self._finish
        self._forget_stream()
        self._emptied = None
        if finish is not None:
            finish(self, reason)
        self.on_end()
        self.on_end = lambda: None
        self._owner.closed(self, reason)

    # The client's side.

    def confirm(self, number: object) -> None:
        """The client has everything up to this batch."""
        if type(number) is int:  # `true`, as a handshake has it, is no number of a batch
            for known in [each for each in self._batches if each <= number]:
                del self._batches[known]

    @property
    def due(self) -> bool:
        """Whether a connect has something to fetch."""
        return bool(self._waiting or self._batches)

    def connect(self, reply: Reply, send: Send, seconds: float) -> None:
        """Answer a connect, at once if there is something, else within so many seconds."""
        self.let_go()
        self._forget_gone()
        if self.ended:
            send(dump_json([{**reply, **farewell(self.ended)}]))
        elif seconds <= 0 or self.due:
            self._answer(Held(reply, send, None), reply)
        else:
            timer = self._owner.loop.call_later(seconds, self.let_go)
            self._held = Held(reply, send, timer)

    def let_go(self) -> None:
        """Answer the connect that is held, if there is one, with what there is."""
        held, self._held = self._held, None
        if held is not None:
            self._answer(held, held.reply)

    def lose(self, send: Send) -> None:
        """The client hung up on a held connect, which had nothing in it."""
        if self._held is not None and self._held.send == send:
            if self._held.timer is not None:
                self._held.timer.cancel()
            self._held = None
            self._expect()

    def break_off(self, send: Send) -> None:
        """A stream is broken: nobody knows what of it was read, unless that is confirmed."""
        self.lose(send)
        if self._stream == send:
            self._forget_stream()
            if self.acks:
                self._expect()
            else:
                self.close("gone")

    def stream(self, send: Send, finish: Finish, idle: Idle) -> None:
        """From now on, what comes leaves through this; `finish` is called at the end.

        `idle` says whether everything sent has left. With acknowledgements it stays what connects
        come by, and no more.
        """
        before, self._finish = self._finish, finish
        self._stream, self._stream_idle = send, idle
        if before is not None:
            before(self, "replaced")
        if self._waiting and not self.acks:
            data = bytes(self._waiting)
            self._waiting.clear()
            send(b"[%b]" % data[:-1])
            self._call_emptied()

    def _take(self) -> tuple[bytes, dict[str, Any]]:
        """What waits, as elements with a comma behind each, and what `ext` says of it."""
        waiting = bytes(self._waiting)
        self._waiting.clear()
        self._call_emptied()
        if not self.acks:
            return waiting, {}
        before = b"".join(self._batches.values())
        self._number += 1
        if waiting:
            self._batches[self._number] = waiting
        return before + waiting, {"ack": self._number}

    def _release(self) -> None:
        # Not at once: what else this turn of the loop brings goes with it.
        if self._held is not None:
            self._owner.loop.call_soon(self._release_now)

    def _release_now(self) -> None:
        if self.due:
            self.let_go()

    def _answer(self, held: Held, reply: Reply) -> None:
        if held.timer is not None:
            held.timer.cancel()
        elements, ext = self._take()
        ext |= self._where(held.send)
        if ext:
            reply = {**reply, "ext": ext}
        held.send(b"[%b%b]" % (elements, dump_json(reply)))
        self._expect()

    def _where(self, send: Send) -> dict[str, Any]:
        """The cursor behind an answer, if all it speaks of is in it or came before it.

        Not beside an EventSource, which may bring it later than the answer.
        """
        in_order = self.acks or self._stream in (None, send)
        if self.subscriber is None or self.ended or not in_order or self.subscriber.unwritten:
            return {}
        return {"push": {"cursor": self.subscriber.cursor}}

    def _forget_stream(self) -> None:
        self._stream = self._finish = None
        self._stream_idle = lambda: True

    def _call_emptied(self) -> None:
        callback, self._emptied = self._emptied, None
        if callback is not None:
            self._owner.loop.call_soon(callback)

    def _expect(self) -> None:
        """Give the client so long for its next connect."""
        self._forget_gone()
        if not self.ended and self._held is None:
            self._gone = self._owner.loop.call_later(GONE_SECONDS, self.close, "gone")

    def _forget_gone(self) -> None:
        if self._gone is not None:
            self._gone.cancel()
            self._gone = None


def farewell(reason: str) -> Reply:
    """What the last connect is told."""
    if reason == "left":
        return {"successful": True, "advice": {"reconnect": "none"}}
    if reason == "drain":
        # Nothing, so that the next connect finds the server away, or another one. Sent to shake
        # hands with a server that goes, aiocometd forgets its subscriptions.
        return {}
    if reason == "revoked":
        return {
            "successful": False,
            "error": "403::revoked",
            "advice": {"reconnect": "none"},
        }
    # Who made room and comes back at once replaces another, who would do the same.
    interval = REPLACED_MILLISECONDS if reason == "replaced" else 0
    return {
        "successful": False,
        "error": "402::session_unknown",
        "advice": {"reconnect": "handshake", "interval": interval},
    }
