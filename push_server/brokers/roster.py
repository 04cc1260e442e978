"""The roster: which users are present in which channels.

A node says what it has (`present`), and hears of users that came to a channel or left it for
good (`changed`). Here is the roster of a single node, in its memory; brokers of several nodes
have one that all nodes share.

Event loop only. Every broker has one; imported by the brokers and the presence.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import NamedTuple

JOIN = "join"
LEAVE = "leave"


class Member(NamedTuple):
    """A user in a channel."""

    connections: int
    """0 in the grace period: the last one has gone, and the user may come back."""
    name: str
    """The display name in the token; empty if there is none."""


Changed = Callable[[str, str, str, str], None]
"""Called on the loop with `JOIN` or `LEAVE`, channel, user and name."""

Gone = Callable[[str], None]
"""Called on the loop, on one node only, with the id of another that ended without a word."""


class Roster:
    """Who is present on this node."""

    changed: Changed = staticmethod(lambda *_: None)
    gone: Gone = staticmethod(lambda _: None)
    """Both set by the house."""

    def __init__(self) -> None:
        self.node = secrets.token_hex(6)
        """The id of this run of this node."""
        self._present: dict[str, dict[str, Member]] = {}

    def present(self, channel: str, user: str, member: Member | None) -> None:
        """From now on this node has this user in a channel, or (None) not any more."""
        members = self._present.setdefault(channel, {})
        before = members.pop(user, None)
        if member is not None:
            members[user] = member
        elif not members:
            del self._present[channel]
        if before is None and member is not None:
            self.changed(JOIN, channel, user, member.name)
        elif before is not None and member is None:
            self.changed(LEAVE, channel, user, before.name)

    async def who(self, channel: str) -> Mapping[str, Member]:
        """The users in a channel, on all nodes."""
        return dict(self._present.get(channel, {}))
