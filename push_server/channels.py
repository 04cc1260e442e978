"""Channel names: what is one, who may have it, and what its namespace decides.

Names are ASCII, compared byte for byte and never joined with other text to make a key, so no
two names can ever stand for the same channel (the hole of CVE-2026-39972, and of every
look-alike in Unicode).

Pure; imported from floor 2 up.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from push_server.errors import BadInput, Denied

_NAME = re.compile(r"[A-Za-z0-9._:-][A-Za-z0-9._:/-]{0,127}")
_PATTERN = re.compile(r"(?:[A-Za-z0-9._:-][A-Za-z0-9._:/-]{0,126})?\*")
_WILDCARD = re.compile(r"/\*\*?|[A-Za-z0-9._:*-][A-Za-z0-9._:/*-]{0,127}")
"""Tried after `_NAME` failed: whatever could be meant as a wildcard by some other system."""

PERSONAL = "user:"
"""Prefix of the channel that belongs to one user."""


def check_channel(name: object) -> str:
    """The name, if a client may speak of such a channel.

    Raises `BadInput` for what is not a channel name, internal channels (``$…``) and Bayeux
    paths (``/meta/…``) among it; `Denied` for wildcards, because whether one is allowed is a
    matter of the grant and native transports have none.
    """
    if not isinstance(name, str):
        raise BadInput("channel_malformed", "A channel name is a string.")
    if _NAME.fullmatch(name):
        return name
    if "*" in name and _WILDCARD.fullmatch(name):
        raise Denied("channel_denied", "The token does not grant this wildcard.")
    if name[:1] in ("$", "/"):
        raise BadInput("channel_malformed", "Channel names do not begin with $ or /.")
    raise BadInput("channel_malformed", "A channel name is 1 to 128 of A-Z a-z 0-9 . _ : / -")


def is_pattern_or_name(text: object) -> bool:
    """Whether a token may list this: a channel name, or a prefix followed by ``*``."""
    return isinstance(text, str) and bool(_NAME.fullmatch(text) or _PATTERN.fullmatch(text))


def personal_channel(user: str) -> str:
    """The channel that is always granted to, and subscribed for, this user."""
    return PERSONAL + user


@dataclass(frozen=True, slots=True)
class ChannelSet:
    """The channels that a list of names and ``prefix*`` patterns grants."""

    names: frozenset[str]
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, listed: Sequence[str]) -> "ChannelSet":
        """The set that a token's ``sub_ch`` or ``pub_ch`` describes."""
        return cls(
            frozenset(entry for entry in listed if not entry.endswith("*")),
            tuple(entry[:-1] for entry in listed if entry.endswith("*")),
        )

    def covers(self, prefix: str) -> bool:
        """Whether it holds all channels that begin so."""
        personal = prefix.startswith(PERSONAL)
        return any(
            prefix.startswith(known) and (not personal or known.startswith(PERSONAL))
            for known in self.prefixes
        )

    def __contains__(self, channel: str) -> bool:
        # A pattern such as "*" or "us*" must not open the personal channels of other users:
        # those are granted by name, or by a pattern that spells out "user:".
        if channel in self.names:
            return True
        personal = channel.startswith(PERSONAL)
        return any(
            channel.startswith(prefix) and (not personal or prefix.startswith(PERSONAL))
            for prefix in self.prefixes
        )


@dataclass(frozen=True, slots=True)
class Namespace:
    """What the owner of the site decides for all channels of one namespace."""

    history_size: int = 1000
    """Publications kept per channel; 0 keeps none."""
    history_ttl: float = 600.0
    """Seconds a publication is kept."""
    history_bytes: int = 16 * 1024 * 1024
    """Bytes of publications kept per channel."""
    client_publish: bool = True
    """Whether browsers may publish where their token grants it."""
    presence: bool = False
    """Whether count is kept of who is in its channels."""
    join_leave: bool = False
    """Whether the subscribers of a channel are told who comes and goes."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The settings of every namespace; ``"*"`` holds for those not named."""

    named: Mapping[str, Namespace] = field(default_factory=dict)

    def of(self, channel: str) -> Namespace:
        """The settings that hold for this channel."""
        name = channel.partition(":")[0]
        return self.named.get(name) or self.named.get("*") or _DEFAULT

    @property
    def any_presence(self) -> bool:
        """Whether presence is wanted anywhere."""
        return any(namespace.presence for namespace in self.named.values())


_DEFAULT = Namespace()
