"""The settings: what there is, and what it means.

`Settings` is the table: one row per setting, with type, cast, default and meaning together. The
configuration that `push-server init` writes, the output of `check-config` and
`docs/configuration.rst` are made from it. How settings are read, and what they have to agree on, is
the business of `config_load`.

Imported by the command line and the server, and for the types by whoever is handed settings.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from push_server import bridge_settings, casts
from push_server.bridge_settings import StompAddress, Target
from push_server.casts import Address, Cast, SettingsError
from push_server.channels import Namespaces
from push_server.signatures import ApiKey

__all__ = ["SETTINGS", "Address", "Setting", "Settings", "SettingsError"]

_DAY = 86_400.0
_MIB = 1024 * 1024


class Setting(NamedTuple):
    """One row of the table."""

    name: str
    cast: Cast[object]
    default: Any
    """As it would stand in the TOML file."""
    doc: str
    """What it decides; literal text in `backticks`."""
    section: str
    secret: bool


def _row(
    cast: Cast[Any], default: Any, doc: str, *, section: str = "", secret: bool = False
) -> Any:
    return dataclasses.field(
        default_factory=partial(cast, "default", default),
        repr=not secret,
        metadata={"cast": cast, "default": default, "doc": doc, "section": section,
                  "secret": secret},
    )


# To add a setting:
# 1. one row here: name, type, cast, default in TOML's terms, and a doc that says what it does,
#    its unit, and when to change it;
# 2. what it has to agree with, in `config_load._CHECKS`, if there is such a thing;
# 3. one row of good and one of bad values in tests/test_settings.py;
# 4. `make docs`, which writes docs/configuration.rst anew.
# `section` begins a new group, and holds for the rows that follow.
@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the owner of a site decides. The defaults serve one small site as they are."""

    listen: tuple[Address, ...] = _row(
        casts.addresses, "127.0.0.1:6660",
        "Where browsers connect, directly or through a port redirect or a proxy: IP address and"
        " port, or `unix:/path`; or a list of these, such as"
        " `[\"198.51.100.81:6660\", \"[2001:db8::81]:6660\"]`. An IPv6 address, `[::]` too, serves"
        " IPv6 alone.",
        section="Addresses",
    )
    internal_listen: Address = _row(
        casts.address, "127.0.0.1:6667",
        "Where the CMS publishes and the monitoring asks. Loopback, a private address or"
        " `unix:/path`. Browsers are refused here.",
    )
    public_url: str = _row(
        casts.optional(casts.origin), "",
        "The push host as browsers see it, such as `https://push.example.com`. Requests for other"
        " hosts are refused, but for IP addresses and localhost. Empty: every name in the domain of"
        " a site is taken for it.",
    )
    site_origins: tuple[str, ...] = _row(
        casts.list_of(casts.origin), [],
        "The CMS sites whose pages may connect, each exactly as browsers send it:"
        " `https://www.example.com`. No wildcards.",
    )
    document_domain: str = _row(
        casts.optional(casts.domain), "",
        "The common parent domain of site and push host, such as `example.com`. Page and iframe"
        " then talk by direct calls. Every sibling subdomain that also sets it can script your"
        " pages; leave it empty to use postMessage only.",
    )
    jsonp: bool = _row(
        casts.boolean, False,
        "Whether script elements may poll: `/subscribe/jsonp`, and Bayeux's callback-polling.",
    )
    trusted_proxy: str = _row(
        casts.optional(casts.proxy), "",
        "IP address of the one reverse proxy whose X-Forwarded-For is believed, or `unix:` if it"
        " comes through a Unix socket. The last entry of the header counts. Empty: the header is"
        " ignored.",
    )
    port_redirected: bool = _row(
        casts.boolean, False,
        "Set this if a port redirect stands in front of a `listen` port that browsers refuse"
        " (6665 to 6669 among others).",
    )
    allow_public_internal: bool = _row(
        casts.boolean, False,
        "Set this to let `internal_listen` be an address the public can reach. Only the"
        " signature then stands between a stranger and your users.",
    )

    broker: str = _row(
        casts.broker, "sqlite:push.db",
        "Where publications are kept: `sqlite:PATH` survives power loss, `redis://HOST:PORT/DB`"
        " (or `rediss://`, `unix:///PATH?db=DB`) is shared by many servers, `memory:` survives"
        " nothing. A relative path starts in the directory the server is started in.",
        section="Publications",
    )

    token_keys: tuple[str, ...] = _row(
        casts.list_of(casts.token_key), [],
        "Keys that sign the users' tokens, shared with the CMS, oldest first, 24 bytes or more"
        " each. The last one signs; all are accepted. To rotate: add, wait one token lifetime,"
        " remove.",
        section="Keys", secret=True,
    )
    token_keys_file: str = _row(
        casts.file_path, "",
        "A file with the token keys instead, one per line, oldest first. Nobody but owner and"
        " group may have access to it.",
    )
    api_keys: Mapping[str, ApiKey] = _row(
        casts.api_keys, {},
        "Keys that sign calls of the internal API, by name: `\"whsec_…\"`, or"
        " `{secret = \"whsec_…\", channels = [\"chat:*\"]}` for one that may publish to those"
        " channels only.",
        secret=True,
    )

    webhook_url: str = _row(
        casts.optional(casts.webhook_url), "",
        "Where the CMS is told which users are online and which channels have subscribers, such"
        " as `https://www.example.com/push/events`. Empty: nowhere. Redirects are not followed.",
        section="Webhooks",
    )
    webhook_key: str = _row(
        casts.optional(casts.webhook_key), "",
        "The key, `whsec_…`, that signs what the CMS is told. One of its own: whoever has it"
        " can say who is online.",
        secret=True,
    )

    heartbeat: float = _row(
        casts.seconds(0.05, 600), 25,
        "Seconds between pings on an idle connection. Keep it below the idle timeout of every"
        " proxy on the way, often 60.",
        section="Times",
    )
    connection_max_age: float = _row(
        casts.seconds(0.05, 7 * _DAY), 3600,
        "Seconds after which a connection is asked to come back, so that load spreads over a"
        " restarted server.",
    )
    drain_spread: float = _row(
        casts.seconds(0, 600), 15,
        "Seconds over which the clients come back after a restart.",
    )
    reset_spread: float = _row(
        casts.seconds(0, 600), 20,
        "Seconds within which pages that cannot resume load anew from the CMS. Few do so at once;"
        " of a crowd 100 a second, and the rest at any time in it.",
    )
    stall_timeout: float = _row(
        casts.seconds(0.05, 3600), 30,
        "Seconds a client may take nothing off a full socket before it is cut. It resumes from"
        " its cursor. One that is gone without a word is noticed as long after a ping.",
    )
    handshake_timeout: float = _row(
        casts.seconds(0.05, 600), 10,
        "Seconds from accept to the end of the request's head, however slowly it drips in.",
    )

    presence_grace: float = _row(
        casts.seconds(0, 600), 3,
        "Seconds after the last connection of a user until others hear that the user has left."
        " Most have only turned a page.",
    )

    connections: int = _row(
        casts.number(0, 10_000_000), 0,
        "Open client connections in all. `0`: 80 percent of the file descriptors the process may"
        " have.",
        section="Limits",
    )
    connections_per_user: int = _row(
        casts.number(1, 1_000_000), 16,
        "Open connections of one user; the oldest makes room.",
    )
    connections_per_ip: int = _row(
        casts.number(1, 10_000_000), 200,
        "Open connections from one IPv4 address or one IPv6 /64 network.",
    )
    handshakes_per_ip: int = _row(
        casts.number(1, 1_000_000), 20,
        "Connections from one address that have not sent a whole request yet.",
    )
    unlimited_addresses: tuple[str, ...] = _row(
        casts.list_of(casts.ip), ["127.0.0.1", "::1"],
        "Addresses that the limits per address do not apply to.",
    )
    channels_per_connection: int = _row(
        casts.number(1, 256), 64,
        "Channels that one connection may subscribe to besides the personal one.",
    )
    queue_bytes: int = _row(
        casts.number(1024, 1024 * _MIB), 256 * 1024,
        "Bytes that may wait for one client. One that falls further behind is cut and resumes"
        " from its cursor.",
    )
    max_body: int = _row(
        casts.number(1024, 64 * _MIB), 256 * 1024,
        "Bytes of a request body, hence of a publication.",
    )
    threads: int = _row(
        casts.number(1, 256), 8,
        "Worker threads that answer ordinary requests. Long-lived connections need none.",
    )
    blocking_connections: int = _row(
        casts.number(0, 10_000), 16,
        "Long-lived connections that may each hold a thread where another WSGI server runs the"
        " application.",
    )

    stomp_url: StompAddress | None = _row(
        bridge_settings.stomp_url, "",
        "A STOMP 1.2 broker such as RabbitMQ, for the bridges below:"
        " `stomp://user:password@host:61613/vhost`, or `stomps://` over TLS. Needs the package"
        " `stomp.py`.",
        section="Bridges", secret=True,
    )
    stomp_consume: Mapping[str, Target] = _row(
        bridge_settings.targets, {},
        "Queues and topics whose messages are published: `\"/queue/news\" = \"news:front\"` sends"
        " all to one channel, a list such as `[\"chat:*\", \"node:7\"]` lets each message choose"
        " among these with its header `channel`.",
    )
    stomp_parked: str = _row(
        bridge_settings.destination, "/queue/push-server.parked",
        "Where a message goes that can never be published, with the reason in its header"
        " `push-reason`.",
    )
    stomp_produce: Mapping[str, str] = _row(
        bridge_settings.outlets, {},
        "Channels whose publications are also sent to a queue or topic:"
        " `\"chat:lobby\" = \"/topic/chat\"`. On one of several servers only.",
    )
    stomp_state: str = _row(
        casts.file_path, "push-stomp.cursor",
        "The file that remembers how far `stomp_produce` has come. A relative path starts in the"
        " directory the server is started in.",
    )
    redis_inbox: str = _row(
        bridge_settings.redis_inbox, "",
        "A Redis stream whose entries are published, with the fields `data`, `channel` and, if"
        " you like, `id`: `redis://HOST:PORT/DB?stream=KEY`. The server removes what it has"
        " published.",
        secret=True,
    )
    redis_inbox_channels: Target = _row(
        bridge_settings.target, ["*"],
        "What `redis_inbox` may publish to: one channel for all entries, or a list of names and"
        " patterns to choose from. Personal channels need a pattern that spells out `user:`.",
    )

    namespace: Namespaces = _row(
        casts.namespaces, {},
        "One table for each namespace, the part of a channel name before the first colon, and"
        ' `[namespace."*"]` for all that have none. A table does not inherit from `"*"`.'
        " `history_size`: publications kept per channel. `history_ttl`: seconds they are kept."
        " `history_bytes`: bytes kept per channel. `client_publish`: whether browsers may publish"
        " where their token grants it. `presence`: whether count is kept of the users in a"
        " channel. `join_leave`: whether its subscribers are told who comes and goes. A change of"
        " the last two takes a restart.",
        section="Namespaces",
    )


def _table() -> dict[str, Setting]:
    rows: dict[str, Setting] = {}
    section = ""
    for field in dataclasses.fields(Settings):
        section = field.metadata["section"] or section
        rows[field.name] = Setting(**{**field.metadata, "name": field.name, "section": section})
    return rows


SETTINGS = _table()
"""The rows of `Settings` by name, in order."""
