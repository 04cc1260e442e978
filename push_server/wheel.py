"""The timer wheel: one timer for the next deadline of every subscriber.

Each subscriber sits in exactly one slot of a quarter second, so filing and dropping one costs the
same whether there are ten or ten thousand, and all slots together are all subscribers.

Pure: `now` is an argument, on the monotonic clock. Imported by the hub, which has the clock, and by
`lifetimes`.
"""

from collections.abc import Iterator

from push_server.subscriber import Subscriber

TICK = 0.25
"""Seconds; the grain of every deadline a subscriber has."""


def _slot_at(moment: float) -> int:
    return int(moment / TICK) + 1


class Wheel:
    """The subscribers, by the slot in which they have to be looked at."""

    def __init__(self, now: float) -> None:
        self._slots: dict[int, set[Subscriber]] = {}
        self._next = _slot_at(now)

    def file(self, subscriber: Subscriber, moment: float) -> None:
        """Look at this subscriber at `moment`; it must not be filed already."""
        # Never in a slot that the wheel has passed: nobody would look there again.
        slot = subscriber.slot = max(_slot_at(moment), self._next)
        self._slots.setdefault(slot, set()).add(subscriber)

    def drop(self, subscriber: Subscriber) -> None:
        """Do not look at it any more; it need not be filed."""
        filed = self._slots.get(subscriber.slot)
        if filed is not None:
            filed.discard(subscriber)

    def turn(self, now: float) -> Iterator[Subscriber]:
        """Take out those whose moment has come; who stays has to be filed again."""
        last = int(now / TICK)
        while self._next <= last:
            self._next += 1
            yield from self._slots.pop(self._next - 1, ())

    def everyone(self) -> list[Subscriber]:
        """All subscribers that are filed."""
        return [subscriber for filed in self._slots.values() for subscriber in filed]
