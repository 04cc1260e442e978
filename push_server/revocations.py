"""Which tokens are no longer good although they have not expired.

Kept in memory on every node, fed by the broker: what is still in force at start, then each new
one. Read by worker threads while the loop writes: every operation is a single dict access.

Pure: `now` is an argument. Imported from floor 3 up.
"""

from collections import deque
from dataclasses import dataclass

SESSION = "sid"
USER = "user"
TOKEN = "jti"
EVERYBODY = "all"
"""Every token issued until then: said of a log that lost revocations nobody can name any more."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens that are no longer good.

    `kind` is one of "sid", "user", "jti", and `value` the claim that is meant; or "all", and
    ``*``. `before`, unix seconds: only tokens issued in or before that second. `expires`: when
    every token that could be meant has expired by itself, so that this can be forgotten.
    """

    kind: str
    value: str
    before: float
    expires: float

    def covers(self, user: str, session: str, token_id: str, issued: float) -> bool:
        """Whether a token with these claims is meant."""
        # Asked of every subscriber, so the likeliest answer is found first.
        kind, value = self.kind, self.value
        if kind == SESSION:
            meant = session == value
        elif kind == USER:
            meant = user == value
        else:
            meant = kind == EVERYBODY or token_id == value
        return meant and value != "" and int(issued) <= self.before


class Revocations:
    """All revocations in force."""

    def __init__(self) -> None:
        self._in_force: dict[tuple[str, str], Revocation] = {}
        self._ends: deque[tuple[float, tuple[str, str]]] = deque()
        """When each ends, in the order in which they came. Not the order of the dict: there one
        that is replaced again and again stays the oldest, and would keep all others."""

    def add(self, revocation: Revocation) -> None:
        """Put one in force; a later `before` for the same claim replaces an earlier one."""
        key = (revocation.kind, revocation.value)
        known = self._in_force.get(key)
        if known is None or known.before <= revocation.before:
            self._in_force[key] = revocation
            self._ends.append((revocation.expires, key))

    def covers(self, user: str, session: str, token_id: str, issued: float) -> bool:
        """Whether a token with these claims has been revoked."""
        return bool(self._in_force) and any(
            (found := self._in_force.get(key)) is not None
            and found.covers(user, session, token_id, issued)
            for key in ((SESSION, session), (USER, user), (TOKEN, token_id), (EVERYBODY, "*"))
        )

    def forget(self, now: float) -> None:
        """Drop those, oldest first, that have outlived every token they meant."""
        while self._ends and self._ends[0][0] < now:
            _, key = self._ends.popleft()
            ended = self._in_force.get(key)
            if ended is not None and ended.expires < now:
                del self._in_force[key]

    def __len__(self) -> int:
        return len(self._in_force)
