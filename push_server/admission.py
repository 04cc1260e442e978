"""How many connections there may be: in all, and of one address.

Raises instead of deciding what to do; a limit per user is the hub's, because there the oldest
connection makes room. Event loop only. Imported by the hub.
"""

import random
from collections import Counter

from push_server import log
from push_server.errors import TooMany, Unavailable

RETRY_SECONDS = 30
"""Those turned away come back within so many seconds, spread."""


class Admission:
    """The count of connections."""

    def __init__(self, *, connections: int, per_address: int) -> None:
        self.size = 0
        self._connections = connections
        self._per_address = per_address
        self._addresses: Counter[str] = Counter()

    def enter(self, address: str) -> None:
        """Count one more; `address` is empty where no limit holds.

        Raises `Unavailable` if the server is full, `TooMany` if the address has its share.
        """
        if self.size >= self._connections:
            log.rejected("admit.shed", "all", limit="connections")
            raise Unavailable(
                "full",
                "This server holds as many connections as `connections` allows.",
                retry_after=random.randint(1, RETRY_SECONDS),
            )
        if address:
            if self._addresses[address] >= self._per_address:
                log.rejected("quota.address", address, limit="connections_per_ip")
                raise TooMany(
                    "too_many_connections",
                    "This address has as many connections as `connections_per_ip` allows.",
                    retry_after=random.randint(1, RETRY_SECONDS),
                )
            self._addresses[address] += 1
        self.size += 1

    def leave(self, address: str) -> None:
        """Count one less."""
        self.size -= 1
        if address:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
