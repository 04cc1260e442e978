"""From what a configuration says to what the program uses: one cast per kind of value.

Rules: a cast takes the name of the setting and the value as TOML gave it, and returns the
value or raises `SettingsError`, whose message says in one line what is wrong and what to write
instead. A message may quote an address or a name, never a key. Nothing here reads a file, the
environment or the clock. What concerns two settings at once is in `config_load`.

Pure; imported by `settings` (and the value types by whoever uses them).
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import TypeVar

from push_server.addresses import UNIX_PEER, plain_address
from push_server.channels import ChannelSet, Namespace, Namespaces, is_pattern_or_name
from push_server.signatures import KEY_BYTES, ApiKey, decode_secret

T = TypeVar("T")
Cast = Callable[[str, object], T]

_HOST_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
_ORIGIN = re.compile(rf"(https?)://({_HOST.pattern}|\[[0-9a-f:.]+\])(?::([1-9][0-9]{{0,4}}))?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAMESPACE_NAME = re.compile(r"[A-Za-z0-9._-][A-Za-z0-9._/-]{0,127}|\*")
_BROKER = re.compile(r"[a-z][a-z0-9+]*:[^\x00-\x1f]*")

_PRIVATE = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
"""Networks that the public internet does not reach. Written out, because `is_private` of the
standard library also holds for 0.0.0.0, which means every address of the machine."""


class SettingsError(Exception):
    """Raised if a setting cannot be used.

    `setting` is the key as the owner of the site wrote it, `message` says what to write instead.
    """

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(setting, message)
        self.setting = setting
        self.message = message

    def __str__(self) -> str:
        return f"{self.setting}: {self.message}"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: an IP address and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether only this machine or a private network can reach it."""
        return bool(self.path) or any(ip_address(self.host) in network for network in _PRIVATE)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is spelled most like this one."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def refuse_unknown(given: Iterable[str], known: Iterable[str], inside: str = "") -> None:
    """Raise `SettingsError` for the first key that is not known, naming the nearest one."""
    names = list(known)
    for key in given:
        if key not in names:
            raise SettingsError(inside + key, f'unknown; did you mean "{nearest(key, names)}"?')


def text(name: str, value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise SettingsError(name, f'needs a string in quotes, such as "text", not {value!r}')
    return value


def file_path(name: str, value: object) -> str:
    """A path, which may be empty."""
    given = text(name, value)
    if "\0" in given:
        raise SettingsError(name, "needs a path, and no path has a NUL in it")
    return given


def boolean(name: str, value: object) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        raise SettingsError(name, f"needs true or false, not {value!r}")
    return value


def number(low: int, high: int) -> Cast[int]:
    """The cast for a whole number from `low` to `high`."""

    def cast(name: str, value: object) -> int:
        # bool is an int in Python; "connections = true" is a mistake all the same.
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise SettingsError(name, f"needs a whole number from {low} to {high}, not {value!r}")
        return value

    return cast


def seconds(low: float, high: float) -> Cast[float]:
    """The cast for a time span from `low` to `high` seconds."""

    def cast(name: str, value: object) -> float:
        # The comparison is false for nan too.
        if isinstance(value, bool) or not (
            isinstance(value, int | float) and low <= value <= high
        ):
            raise SettingsError(name, f"needs seconds from {low:g} to {high:g}, not {value!r}")
        return value

    return cast


def list_of(item: Cast[T]) -> Cast[tuple[T, ...]]:
    """The cast for a list whose entries `item` casts."""

    def cast(name: str, value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise SettingsError(name, 'needs a list, such as ["one", "two"]')
        return tuple(item(name, entry) for entry in value)

    return cast


def address(name: str, value: object) -> Address:
    """``127.0.0.1:6660``, ``[::1]:6660`` or ``unix:/path``.

    Host names are refused: one name can mean several addresses, and which of them is public
    would be decided by a resolver.
    """
    given = text(name, value)
    if given.startswith("unix:"):
        path = given.removeprefix("unix:")
        # 107 bytes and a NUL is all that the kernel has room for.
        if not path.startswith("/") or "\0" in path or len(path.encode()) > 107:
            raise SettingsError(name, "needs an absolute path of 107 bytes at most after unix:")
        return Address(path=path)
    match = _ADDRESS.fullmatch(given)
    if match:
        try:
            host = ip_address(match[1] or match[2])
        except ValueError:
            host = None
        if host is not None and (host.version == 6) == bool(match[1]) and int(match[3]) < 65536:
            return Address(str(host), int(match[3]))
    raise SettingsError(
        name, f'needs "127.0.0.1:6660", "[::1]:6660" or "unix:/path", not {given!r}'
    )


def addresses(name: str, value: object) -> tuple[Address, ...]:
    """One address or several: a list, or one string with blanks or commas between them."""
    if isinstance(value, str):
        value = re.split(r"[\s,]+", value.strip())
    found = list_of(address)(name, value if isinstance(value, list) else [value])
    if not found:
        raise SettingsError(name, 'needs an address, such as "127.0.0.1:6660"')
    for each in found:
        if found.count(each) > 1 and (each.path or each.port):
            raise SettingsError(name, f"{each} is there twice")
    return found


def ip(name: str, value: object) -> str:
    """An IP address, spelled as the sockets will spell it."""
    try:
        return plain_address(text(name, value))
    except ValueError:
        raise SettingsError(name, f"needs an IP address, not {value!r}") from None


def proxy(name: str, value: object) -> str:
    """An IP address, or ``unix:`` for whoever comes through a Unix socket."""
    try:
        return UNIX_PEER if value == UNIX_PEER else plain_address(text(name, value))
    except ValueError:
        raise SettingsError(name, f'needs an IP address or "unix:", not {value!r}') from None


def origin(name: str, value: object) -> str:
    """A web origin exactly as browsers send it: scheme, host, and the port if it is unusual.

    Origins are compared as whole strings, so a spelling that no browser sends would be a
    setting that silently never matches.
    """
    given = text(name, value)
    match = _ORIGIN.fullmatch(given)
    if match:
        scheme, host, port = match.groups()
        if port is not None and int(port) == _DEFAULT_PORTS[scheme]:
            raise SettingsError(name, f"browsers leave out :{port}; write {scheme}://{host}")
        if port is None or int(port) < 65536:
            return given
    repaired = given.strip().lower().rstrip("/")
    hint = f"write {repaired!r}" if _ORIGIN.fullmatch(repaired) else "no path, no wildcard"
    raise SettingsError(
        name, f'needs an origin such as "https://www.example.com", not {given!r}; {hint}'
    )


def split_origin(given: str) -> tuple[str, str, int]:
    """Scheme, host and port of an origin that `origin` has let through."""
    match = _ORIGIN.fullmatch(given)
    assert match is not None
    scheme, host, port = match.groups()
    return scheme, host, int(port or _DEFAULT_PORTS[scheme])


def webhook_url(name: str, value: object) -> str:
    """A whole http or https URL, without user, query or fragment."""
    given = text(name, value)
    found, slash, path = given.partition("://")[2].partition("/")
    head = given[: len(given) - len(slash + path)]
    if not found or not _ORIGIN.fullmatch(head) or not _PATH.fullmatch(slash + path):
        raise SettingsError(
            name, f'needs a URL such as "https://www.example.com/push/events", not {given!r}'
        )
    return given


def webhook_key(name: str, value: object) -> str:
    """A ``whsec_…`` secret, as text."""
    _api_secret(name, value)
    return text(name, value)


def optional(cast: Cast[str]) -> Cast[str]:
    """The cast for a string that may be empty, which turns the feature off."""
    return lambda name, value: "" if value == "" else cast(name, value)


def domain(name: str, value: object) -> str:
    """A host name with a dot in it: browsers refuse a top-level domain as document.domain."""
    given = text(name, value)
    if not _HOST.fullmatch(given) or "." not in given:
        raise SettingsError(name, f'needs a domain such as "example.com", not {given!r}')
    return given


def broker(name: str, value: object) -> str:
    """``scheme:rest``; the brokers know which schemes there are."""
    given = text(name, value)
    if not _BROKER.fullmatch(given) or given == "sqlite:":
        raise SettingsError(name, 'needs "sqlite:PATH", "redis://HOST:PORT/DB" or "memory:"')
    return given


def token_key(name: str, value: object) -> str:
    """A secret that signs tokens."""
    if not isinstance(value, str):
        raise SettingsError(name, "needs keys in quotes")
    if len(value.encode()) < KEY_BYTES:
        raise SettingsError(
            name, f"every key needs {KEY_BYTES} bytes or more; `push-server init` makes one"
        )
    return value


def api_keys(name: str, value: object) -> Mapping[str, ApiKey]:
    """Keys by name: ``"whsec_…"``, or ``{secret = "whsec_…", channels = ["chat:*"]}``."""
    return MappingProxyType(
        {key: _api_key(f"{name}.{key}", key, entry) for key, entry in table(name, value)}
    )


def _api_key(path: str, name: str, value: object) -> ApiKey:
    if not _KEY_NAME.fullmatch(name):
        raise SettingsError(path, "a key's name is 1 to 64 of A-Z a-z 0-9 _ -")
    if not isinstance(value, dict):
        return ApiKey(name, _api_secret(path, value))
    refuse_unknown(value, ("secret", "channels"), f"{path}.")
    secret = _api_secret(f"{path}.secret", value.get("secret"))
    if "channels" not in value:
        return ApiKey(name, secret)
    return ApiKey(name, secret, ChannelSet.of(_channels(f"{path}.channels", value["channels"])))


def _api_secret(name: str, value: object) -> bytes:
    try:
        return decode_secret(value if isinstance(value, str) else "")
    except ValueError as error:
        raise SettingsError(name, f"{error}; `push-server init` makes one") from None


def _channel(name: str, value: object) -> str:
    if not isinstance(value, str) or not is_pattern_or_name(value):
        raise SettingsError(name, f'needs channel names or "prefix*", not {value!r}')
    return value


_channels = list_of(_channel)

_NAMESPACE: Mapping[str, Cast[object]] = {
    "history_size": number(0, 1_000_000),
    "history_ttl": seconds(0, 30 * 86_400),
    "history_bytes": number(0, 2**40),
    "client_publish": boolean,
    "presence": boolean,
    "join_leave": boolean,
}
"""One row per field of `push_server.channels.Namespace`."""


def namespaces(name: str, value: object) -> Namespaces:
    """The tables ``[namespace.<name>]``; ``[namespace."*"]`` is for all that have none."""
    return Namespaces(
        MappingProxyType(
            {key: _namespace(f"{name}.{key}", key, entry) for key, entry in table(name, value)}
        )
    )


def _namespace(path: str, name: str, value: object) -> Namespace:
    if not _NAMESPACE_NAME.fullmatch(name):
        raise SettingsError(path, "is not the part of a channel name before the first colon")
    given = dict(table(path, value))
    refuse_unknown(given, _NAMESPACE, f"{path}.")
    values = {key: _NAMESPACE[key](f"{path}.{key}", entry) for key, entry in given.items()}
    if values.get("join_leave") and not values.get("presence"):
        raise SettingsError(f"{path}.join_leave", "needs presence = true beside it")
    return Namespace(**values)  # type: ignore[arg-type]  # each row casts to its field's type


def table(name: str, value: object) -> Iterable[tuple[str, object]]:
    if not isinstance(value, dict):
        raise SettingsError(name, f"needs a table, such as [{name}] with lines under it")
    return value.items()
