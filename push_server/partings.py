"""How a subscriber is let go: its last words, and the time it has to take them.

Who has been told its last is in no channel any more; nothing is delivered to it. Until its client
has taken everything it still counts against the limits, and a revocation still finds it.

Event loop only. Imported by the hub.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from push_server.subscriber import Subscriber


class Partings:
    """Those who are being let go."""

    def __init__(
        self,
        *,
        leave: Callable[[Subscriber], None],
        wait: Callable[[Subscriber], None],
        fail: Callable[[Subscriber, Exception], None],
    ) -> None:
        self._leave = leave
        """Takes a subscriber out of its channels."""
        self._wait = wait
        """Gives it the time that a client has to take what was written."""
        self._fail = fail
        self._parting: set[Subscriber] = set()

    def __iter__(self) -> Iterator[Subscriber]:
        return iter(tuple(self._parting))

    def __len__(self) -> int:
        return len(self._parting)

    def answer(self, subscriber: Subscriber) -> None:
        """Send a poll's answer and give the connection back for its next request."""
        subscriber.answer()
        self._part(subscriber, "done")

    def reconnect(self, subscriber: Subscriber, reason: str, delay: int) -> None:
        """Ask a client to come back after so many milliseconds, and let it go."""
        self.dismiss(subscriber, reason, {"type": "reconnect", "reason": reason, "delay": delay})

    def dismiss(self, subscriber: Subscriber, reason: str, message: Mapping[str, Any]) -> None:
        """Say a last word and let it go. Never raises: others wait behind this one."""
        if isinstance(subscriber.held, list):
            # It has not begun. The cursor that counts is the one the client has.
            subscriber.connection.close("dismissed")
            return
        if subscriber.parting:
            return
        try:
            subscriber.keep_alive = False
            subscriber.say(message)
            if subscriber.transport.once:
                subscriber.answer()
            else:
                subscriber.flush()
            self._part(subscriber, reason)
        except Exception as failure:  # noqa: BLE001  # one connection, not all behind it
            self._fail(subscriber, failure)

    def ended(self, subscriber: Subscriber, reason: str) -> None:
        """Its client has ended the connection, in the words of the transport."""
        if not subscriber.parting:
            subscriber.keep_alive = False
            self._part(subscriber, reason)

    def over(self, subscriber: Subscriber) -> None:
        """Its connection is closed, whether it was let go before or not."""
        if subscriber.parting:
            self._parting.discard(subscriber)
        else:
            self._leave(subscriber)

    def _part(self, subscriber: Subscriber, reason: str) -> None:
        """Let the connection go, at once or when its client has taken everything."""
        connection = subscriber.connection
        if subscriber.keep_alive and not connection.idle:
            connection.when_idle(lambda: self._part(subscriber, reason))
        elif not (subscriber.keep_alive and connection.release()):
            connection.finish(reason)
        if connection.subscriber is subscriber and not subscriber.parting:
            self._leave(subscriber)
            subscriber.parting = True
            self._parting.add(subscriber)
            self._wait(subscriber)
