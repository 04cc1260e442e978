"""The broker interface: order, durability, history, and the memory of what was spent.

A broker gives every publication its place, makes it durable, and only then calls `deliver`.
It runs on the event loop; what blocks inside it (a disk) has a thread of its own. It calls
upward only through the callbacks it is given.

To add a broker: one file that implements these methods, one line in `BROKERS`
(`push_server/brokers/__init__.py`), one fixture parameter in `tests/test_brokers.py`.

Imported by the brokers, and by the hub and the doors for the interface.
"""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from push_server import log
from push_server.brokers.roster import Roster
from push_server.brokers.survey import Asked, Survey
from push_server.channels import Namespace, Namespaces
from push_server.errors import Conflict, PushError
from push_server.history import History
from push_server.positions import Position
from push_server.publications import Publication, Published, PublishRequest
from push_server.revocations import Revocation

ID_SECONDS = 24 * 3600.0
"""How long a publication id is remembered: a CMS that spools may retry for hours."""


def remember_until(now: float, keep: Namespace) -> float:
    """When the id of a publication accepted now may be forgotten; never before the history."""
    return now + max(ID_SECONDS, keep.history_ttl)


def digest(data: bytes) -> bytes:
    """What is remembered of the data of an id, to tell a retry from another message."""
    return sha256(data).digest()[:16]


def id_conflict(request: PublishRequest) -> Conflict:
    """The answer to an id that was used in this channel before, with other data."""
    return Conflict("id_conflict", f"The id {request.id} was used for other data.")


def new_epoch(now: float) -> int:
    """The epoch of a log created now: unix microseconds, above every earlier one."""
    return int(now * 1_000_000)


Deliver = Callable[[str, Sequence[Publication]], None]
"""Called on the loop with the next publications of one channel, in order, after the commit."""

Revoked = Callable[[Revocation], None]
"""Called on the loop for each revocation: those still in force at start, then each new one."""


Restarted = Callable[[str, str, Position], None]
"""Called on the loop when what was delivered of a channel is not what its log goes on from: the
channel, the reason of the `reset`, and where delivery goes on."""

Missed = Callable[[], None]
"""Called on the loop when publications may have been lost, in channels that nobody has joined."""

Unheard = Callable[[str], None]
"""Called on the loop when no channel that begins so can be heard any more, though it is watched."""

Degraded = Callable[[bool], None]
"""Called on the loop when the log is out of reach, and when it is back."""


class Broker(ABC):
    """Where publications get their place and are kept."""

    restarted: Restarted = staticmethod(lambda *_: None)
    missed: Missed = staticmethod(lambda: None)
    unheard: Unheard = staticmethod(lambda _: None)
    degraded: Degraded = staticmethod(lambda _: None)
    """Set by the house; brokers whose log can be lost or out of reach while they run call them."""
    asked: Asked = staticmethod(lambda *_: {})
    """Set by the house: answers for this node in a survey of all."""

    def __init__(
        self,
        namespaces: Namespaces,
        deliver: Deliver,
        revoked: Revoked,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.namespaces = namespaces
        """Replaced as a whole when the configuration is reloaded."""
        self.deliver = deliver
        self.revoked = revoked
        self.clock = clock
        self.counts: Counter[str] = Counter()
        """What happened since the start that only the broker sees, for `stats` and `/metrics`."""
        self.roster = Roster()
        """Who is present; brokers of several nodes put one here that all of them share."""

    def _hand_over(self, channel: str, publications: Sequence[Publication]) -> None:
        """Call `deliver`, whose faults are not the publishers': their messages are kept."""
        try:
            self.deliver(channel, publications)
        except Exception:  # noqa: BLE001 - whatever it is, the publishers must get their answer
            log.error("deliver.failed", channel=channel)

    async def survey(self, what: str, argument: str = "") -> Survey:
        """What every node that shares this log has to say to a question, within a second."""
        return Survey({self.roster.node: self.asked(what, argument)}, complete=True)

    @abstractmethod
    async def start(self) -> None:
        """Open the log. Raises `PushError` naming the setting to change if it cannot."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was accepted, then let go of the log."""

    def join(self, channel: str) -> None:  # noqa: B027 - one node needs to do nothing
        """From now on a channel has subscribers here, and has to be delivered.

        Called before the first `read` of it. Only brokers of several nodes need to know.
        """

    def leave(self, channel: str) -> None:  # noqa: B027
        """A channel has no subscribers here any more. Called once after each `join`."""

    async def watch(self, prefix: str) -> None:  # noqa: B027
        """From now on `deliver` is called for all channels that begin so; others may come, too.

        Returns when nothing is left out any more. What cannot be proved complete later is
        announced through `missed`, or `restarted`. Only brokers of several nodes need to know:
        one node hears all. Raises `PushError` if it cannot be; then it counts as `unwatch`.
        """

    def unwatch(self, prefix: str) -> None:  # noqa: B027
        """The end of that. Called once after each `watch`."""

    @abstractmethod
    async def publish(self, requests: Sequence[PublishRequest]) -> Sequence[Published | PushError]:
        """Place each request in its channel; return when all are durable.

        One answer per request, in order. Requests of one call to one channel keep their order
        and are delivered together. An id seen in the channel within 24 hours is answered with
        its first place and `duplicate`, or with `Conflict` if the data differ. What is answered
        with an error was not stored, with one exception: after `Unavailable` nobody knows (a
        sync that failed may have reached the disk all the same), so the publisher sends the
        same id again.
        """

    @abstractmethod
    async def read(self, since: Mapping[str, Position | None]) -> Mapping[str, History]:
        """Where each channel stands, and what it holds since the given position.

        `None` asks only for the head. The answer covers at least everything delivered before
        the call was made; the caller holds back what is delivered meanwhile and merges. No
        channel is `restarted` between the verdict on it and the return.
        """

    @abstractmethod
    async def history(self, channel: str, since: int | Position, limit: int) -> History:
        """At most `limit` kept publications beyond an offset or a position, oldest first.

        The answer covers everything that any node acknowledged before the call was made.
        """

    @abstractmethod
    async def claim(self, key: str, ttl: float) -> bool:
        """Whether this is the first claim of `key` within `ttl` seconds, on any node."""

    @abstractmethod
    async def revoke(self, revocation: Revocation) -> None:
        """Announce a revocation through `revoked` on every node, and remember it durably.

        It is announced even if it cannot be stored; then this raises, and the caller has to
        send it again for it to survive a restart.
        """
