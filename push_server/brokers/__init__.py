"""The table of brokers, and how the setting `broker` chooses one.

Imported by the command line and the server.
"""

from collections.abc import Callable

from push_server.brokers.base import Broker, Deliver, Revoked
from push_server.brokers.memory import MemoryBroker
from push_server.brokers.sqlite import SQLiteBroker
from push_server.channels import Namespaces
from push_server.errors import BadInput

Make = Callable[[str, Namespaces, Deliver, Revoked], Broker]


def _memory(rest: str, namespaces: Namespaces, deliver: Deliver, revoked: Revoked) -> Broker:
    if rest:
        raise _unusable("memory:" + rest, "nothing may follow memory:")
    return MemoryBroker(namespaces, deliver, revoked)


def _sqlite(rest: str, namespaces: Namespaces, deliver: Deliver, revoked: Revoked) -> Broker:
    if not rest or rest == ":memory:":
        raise _unusable("sqlite:" + rest, "name a file, such as sqlite:push.db, or use memory:")
    return SQLiteBroker(rest, namespaces, deliver, revoked)


def _redis(scheme: str) -> Make:
    def make(rest: str, namespaces: Namespaces, deliver: Deliver, revoked: Revoked) -> Broker:
        # Only who names a Redis pays for the package, which takes 10 MB and half of the start.
        from push_server.brokers.redis import RedisBroker

        return RedisBroker(f"{scheme}:{rest}", namespaces, deliver, revoked)

    return make


# To add a broker:
# 1. one file in this folder with a subclass of `Broker`;
# 2. a function above that makes one from what follows the scheme, and its line here;
# 3. one parameter of the fixture in tests/test_brokers.py: the contract must pass unchanged;
# 4. its form in the text of the setting `broker` (push_server/settings.py), then `make docs`.
BROKERS = {
    "memory": _memory,
    "sqlite": _sqlite,
    "redis": _redis("redis"),
    "rediss": _redis("rediss"),
    "unix": _redis("unix"),
}


def is_shared(url: str) -> bool:
    """Whether several processes can have this broker together."""
    return url.partition(":")[0] not in ("memory", "sqlite")


def make_broker(url: str, namespaces: Namespaces, deliver: Deliver, revoked: Revoked) -> Broker:
    """The broker that the setting `broker` names.

    Raises `BadInput` naming the setting if there is none; call `start` on the result.
    """
    scheme, colon, rest = url.partition(":")
    make = BROKERS.get(scheme)
    if make is None or not colon:
        raise _unusable(
            url, "use sqlite: followed by the path of a file, redis://host:6379/0, or memory:"
        )
    return make(rest, namespaces, deliver, revoked)


def _unusable(url: str, reason: str) -> BadInput:
    return BadInput("broker_unusable", f'broker = "{url}": {reason}.')
