"""What every door needs: one object, made by the house, handed to each.

`settings` and `tokens` are replaced as a whole when the configuration is reloaded, so a door reads
them once per request.
"""

from dataclasses import dataclass

from push_server.brokers.base import Broker
from push_server.crossing import Crossing
from push_server.hub import Hub
from push_server.revocations import Revocations
from push_server.settings import Settings
from push_server.tokens import TokenKeys


@dataclass(slots=True)
class Context:
    """The running server, as seen from a WSGI worker."""

    settings: Settings
    tokens: TokenKeys
    revocations: Revocations
    broker: Broker
    hub: Hub
    crossing: Crossing
    serves_bayeux: bool = True
    """Whether the Bayeux sessions are in this process; of several workers, one has them."""
