"""Surveys: what every node has to say, or to do, when all are asked the same.

Here is what all brokers share: the questions, and what comes back. A broker of a single node asks
nobody else (`Broker.survey`); the one for Redis asks over the bus.

Imported by the brokers, and by the hub and the doors.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

STATS = "stats"
CHANNELS = "channels"
DISCONNECT = "disconnect"
"""What is asked: all numbers of a node; the subscribers of its channels, by prefix; to send the
connections of somebody away."""

Asked = Callable[[str, str], Mapping[str, int]]
"""Called on the loop with a question and its argument; answers for this node."""


class Survey(NamedTuple):
    """The answers."""

    nodes: Mapping[str, Mapping[str, int]]
    """By the id of the node."""
    complete: bool
    """Whether every node that is known to be there has answered."""

    def total(self) -> dict[str, int]:
        """The sums over all nodes."""
        sums: dict[str, int] = {}
        for numbers in self.nodes.values():
            for name, number in numbers.items():
                sums[name] = sums.get(name, 0) + number
        return sums
