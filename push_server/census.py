"""The census: which subscribers of this node something means, and how many there are of what.

It looks and changes nothing. Event loop only. Imported by the hub.
"""

from collections import Counter
from collections.abc import Iterable

from push_server.channels import PERSONAL, personal_channel
from push_server.lifetimes import Lifetimes
from push_server.partings import Partings
from push_server.revocations import SESSION, USER, Revocation
from push_server.rooms import Rooms
from push_server.subscriber import Subscriber
from push_server.transports import TRANSPORTS


class Census:
    """The subscribers of this node, as others ask for them."""

    def __init__(self, rooms: Rooms, lifetimes: Lifetimes, partings: Partings) -> None:
        self._rooms = rooms
        self._lifetimes = lifetimes
        self._partings = partings

    def of_user(self, user: str) -> list[Subscriber]:
        """Those of a user: in the user's personal channel, which all of them have."""
        room = self._rooms.of(personal_channel(user))
        return [subscriber for subscriber in room if subscriber.user == user]

    def of_session(self, user: str, session: str) -> list[Subscriber]:
        """Those of a user, of a session, or of both; one of the two may be empty."""
        among = self.of_user(user) if user else self._lifetimes.everyone()
        return [
            subscriber
            for subscriber in among
            if session in ("", subscriber.session) and not subscriber.parting
        ]

    def meant_by(self, revocation: Revocation) -> list[Subscriber]:
        """Those whose token a revocation means, who have been told their last among them."""
        among: Iterable[Subscriber]
        if revocation.kind == USER:
            # A user has few, and they are in one room: thousands of others need not be asked.
            among = (*self.of_user(revocation.value), *self._partings)
        else:
            among = self._lifetimes.everyone()
            if revocation.kind == SESSION:  # of thousands, before any call
                among = [each for each in among if each.session == revocation.value]
        return [
            subscriber
            for subscriber in among
            if revocation.covers(
                subscriber.user, subscriber.session, subscriber.token_id, subscriber.issued
            )
        ]

    def channels(self, prefix: str) -> dict[str, int]:
        """The subscribers of each channel, personal ones only where the prefix asks for them."""
        return {
            name: size
            for name, size in self._rooms.sizes()
            if name.startswith(prefix)
            and not (name.startswith(PERSONAL) and not prefix.startswith(PERSONAL))
            and not name.startswith("$")
        }

    def numbers(self) -> dict[str, int]:
        """How many users and channels there are, and connections by transport and fallback."""
        names = [name for name, _ in self._rooms.sizes()]
        everyone = self._lifetimes.everyone()
        by_transport = Counter(subscriber.transport.name for subscriber in everyone)
        fallbacks = Counter(
            f"fallbacks.{subscriber.transport.name}.{subscriber.fallback}"
            for subscriber in everyone
            if subscriber.fallback
        )
        return {
            "users": sum(name.startswith(PERSONAL) for name in names),
            "channels": len(names),
            **{f"connections.{name}": by_transport[name] for name in {*TRANSPORTS, *by_transport}},
            **fallbacks,
        }
