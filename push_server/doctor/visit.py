"""What the doctor knows before it looks, and what one check leaves for the next.

There are three standpoints. On the push host the configuration says everything. On the host of the
CMS the four values of the CMS do (`PUSH_URL`, `PUSH_API`, `PUSH_TOKEN_KEY`, `PUSH_API_KEY`). From
anywhere else there is a URL, and perhaps a token. A check asks for what it needs and is skipped
where it is not known.

Imported by the checks.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from push_server import casts, setup_text
from push_server.casts import Address
from push_server.doctor.probe import Origin
from push_server.settings import Settings
from push_server.tokens import TokenKeys

CHANNEL = "user:push-doctor"
"""What the doctor listens to. Always the same: a channel that was published to once is remembered
for ever. As a personal one it is no news to webhooks."""
TOKEN_SECONDS = 300


@dataclass
class Visit:
    """One run of the doctor."""

    url: str
    """The push host as browsers see it."""
    settings: Settings | None = None
    """The configuration, on the push host."""
    config_path: str = ""
    sites: Sequence[str] = ()
    given_token: str = ""
    token_keys: Sequence[str] = ()
    api: Origin | None = None
    """Where the internal API is reached from here."""
    api_key: bytes = b""
    idle: bool = False
    proc: Path = Path("/proc")

    # What checks found, for those that need them.
    addresses: tuple[str, ...] = ()
    """Of the push host."""
    frame: Mapping[str, str] = field(default_factory=dict)
    """What the page of the iframe says of its server."""
    proxy: str = ""
    """What stands before the server, as it calls itself."""
    site_server: str = ""
    """The same of a site."""
    token_taken: bool = False
    server_version: str = ""
    heartbeat: float = 25.0
    connections: int = 0
    """How many there will be: what is configured, or what there are now and a margin."""

    @property
    def origin(self) -> Origin:
        """The push host, taken apart."""
        return Origin(*casts.split_origin(self.url))

    @property
    def is_push_host(self) -> bool:
        """Whether this looks at the server from its own host."""
        return self.settings is not None

    @property
    def listens(self) -> tuple[Address, ...]:
        """Where the server listens for browsers, as it is reached from its own host."""
        if self.settings is None:
            return ()
        return tuple(setup_text.reachable(address) for address in self.settings.listen)

    @property
    def is_direct(self) -> bool:
        """Whether browsers connect to a port of the server itself, with nothing in between."""
        own = {address.port for address in self.listens}
        return self.origin.scheme == "http" and self.origin.port in own

    @property
    def document_domain(self) -> str:
        """What page and iframe set, as far as it is known here."""
        if self.settings is not None:
            return self.settings.document_domain
        return self.frame.get("document_domain", "")

    @property
    def site_origins(self) -> Sequence[str]:
        """The sites that may connect, as far as they are known here."""
        origins: Sequence[str] = self.sites or json.loads(self.frame.get("origins", "[]"))
        return origins

    @property
    def can_issue(self) -> bool:
        """Whether there is a token to come with."""
        return bool(self.given_token or self.token_keys)

    def token(self) -> str:
        """The token that was given, or a fresh one of our own."""
        if self.given_token:
            return self.given_token
        now = int(time.time())
        claims = {
            "v": 1,
            # An anonymous visitor: no user who comes online, and nobody's limits.
            "sub": "0",
            "sid": secrets.token_hex(16),
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "sub_ch": [CHANNEL],
            "pub_ch": [],
        }
        return TokenKeys(self.token_keys).issue(claims)

