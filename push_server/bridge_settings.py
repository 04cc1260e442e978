"""What the settings of the bridges say: where the other system is, and what goes where.

Rules as in `push_server.casts`: a cast returns the value or raises `SettingsError`, and quotes no
password.

Pure; imported by `settings` and by the bridges.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from push_server.casts import SettingsError, table
from push_server.channels import ChannelSet, check_channel, is_pattern_or_name
from push_server.errors import BadInput, Denied, PushError

_DESTINATION = re.compile(r"[\x21-\x7e]{1,255}")
_INBOX = re.compile(r"(?:rediss?|unix)://[\x21-\x7e]*[?&]stream=[\x21-\x7e]+")
_PORTS = {"stomp": 61613, "stomps": 61614}


@dataclass(frozen=True, slots=True)
class StompAddress:
    """A STOMP broker, and who we are there."""

    shown: str
    """The URL without user and password, for messages and the log."""
    host: str
    port: int
    vhost: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where the messages of one source go: one channel, or a choice of channels."""

    channel: str
    """The only channel; empty if each message names its own."""
    channels: ChannelSet
    """What a message may name."""

    @property
    def written(self) -> str | list[str]:
        """As it stands in the configuration."""
        names = [*sorted(self.channels.names), *(f"{each}*" for each in self.channels.prefixes)]
        return self.channel or names

    def channel_of(self, named: str | None) -> str:
        """The channel of a message. Raises `BadInput` or `Denied`."""
        if self.channel:
            return self.channel
        if named is None:
            raise BadInput("channel_missing", "The message does not name its channel.")
        channel = check_channel(named)
        if channel not in self.channels:
            raise Denied("channel_denied", "The setting does not let this bridge publish there.")
        return channel


def stomp_url(name: str, value: object) -> StompAddress | None:
    """``stomp://user:password@host:61613/vhost``, ``stomps://`` over TLS; empty for none."""
    if value == "":
        return None
    try:
        assert isinstance(value, str)
        parts = urlsplit(value)
        default = _PORTS[parts.scheme]
        port = parts.port or default
        options = dict(item.split("=", 1) for item in parts.query.split("&") if item)
        if not parts.hostname or parts.fragment or set(options) - {"ca"}:
            raise ValueError
    except (AssertionError, KeyError, ValueError):
        raise SettingsError(
            name,
            "needs stomp://user:password@host:61613/vhost (stomps:// over TLS, with ?ca=/path/to/"
            "ca.pem for an authority of your own); a / in the vhost is written %2F",
        ) from None
    return StompAddress(
        shown=f"{parts.scheme}://{parts.hostname}:{port}{parts.path}",
        host=parts.hostname,
        port=port,
        vhost=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "stomps",
        ca=unquote(options["ca"]) if "ca" in options else None,
    )


def targets(name: str, value: object) -> Mapping[str, Target]:
    """From a source to a channel, or to a list of channels that its messages may name."""
    return MappingProxyType(
        {
            source: target(f'{name}."{source}"', given)
            for source, given in table(name, value)
            if _named(name, source)
        }
    )


def target(name: str, value: object) -> Target:
    """One channel, or a list of names and ``prefix*`` patterns."""
    if isinstance(value, str):
        return Target(_channel(name, value), ChannelSet.of([]))
    if (
        isinstance(value, list)
        and value
        and all(isinstance(entry, str) and is_pattern_or_name(entry) for entry in value)
    ):
        return Target("", ChannelSet.of(value))
    raise SettingsError(
        name, 'needs a channel such as "news:front", or a list such as ["chat:*", "node:7"]'
    )


def outlets(name: str, value: object) -> Mapping[str, str]:
    """From a channel to the queue or topic that its publications go to."""
    found = {}
    for channel, destination in table(name, value):
        if not isinstance(destination, str) or not _DESTINATION.fullmatch(destination):
            raise SettingsError(
                f'{name}."{channel}"', 'needs a destination such as "/topic/chat"'
            )
        found[_channel(name, channel)] = destination
    return MappingProxyType(found)


def destination(name: str, value: object) -> str:
    """A queue or topic of the STOMP broker."""
    if isinstance(value, str) and _DESTINATION.fullmatch(value):
        return value
    raise SettingsError(name, 'needs a destination such as "/queue/parked"')


def redis_inbox(name: str, value: object) -> str:
    """``redis://host:6379/0?stream=cms:outbox``; the forms of ``broker``, with a stream."""
    if isinstance(value, str) and (not value or _INBOX.fullmatch(value)):
        return value
    raise SettingsError(name, 'needs "redis://HOST:PORT/DB?stream=KEY"')


def _named(name: str, source: str) -> bool:
    if not _DESTINATION.fullmatch(source):
        raise SettingsError(name, f'"{source[:60]}" is no destination such as "/queue/news"')
    return True


def _channel(name: str, value: str) -> str:
    try:
        return check_channel(value)
    except PushError as error:
        raise SettingsError(name, error.message) from None
