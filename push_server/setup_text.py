"""What ``push-server init`` decides, and the lines that go into the CMS.

Keys are made here, from the operating system's randomness, and printed once: the CMS has to be
told them. The names on the CMS side (`PUSH_URL`, `PUSH_API`, `PUSH_TOKEN_KEY`, `PUSH_API_KEY`)
are what the PHP side looks for.

Imported by the command line.
"""

import secrets
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from push_server import casts
from push_server.casts import Address
from push_server.settings import Settings

KEY_BYTES = 32
API_KEY_NAME = "cms"
OWN_PORTS = 1024
"""From here on a server takes a port itself; to those below, a redirect or a proxy leads."""


def fresh_values(sites: Sequence[str], public_url: str, post_message: bool) -> dict[str, Any]:
    """The settings that a new configuration file sets, with keys nobody has seen.

    Raises `SettingsError` if a site or the URL is not an origin.
    """
    values: dict[str, Any] = {
        "token_keys": [secrets.token_urlsafe(KEY_BYTES)],
        "api_keys": {API_KEY_NAME: "whsec_" + b64encode(secrets.token_bytes(KEY_BYTES)).decode()},
    }
    if sites:
        values["site_origins"] = [casts.origin("--site", site) for site in sites]
    if public_url:
        values["public_url"] = casts.origin("--url", public_url)
        scheme, _, port = casts.split_origin(values["public_url"])
        if scheme == "http" and port >= OWN_PORTS:
            values["listen"] = f"127.0.0.1:{port}"
    if sites and public_url and not post_message:
        domain = common_domain([*values["site_origins"], values["public_url"]])
        if domain:
            values["document_domain"] = domain
    return values


def common_domain(origins: Sequence[str]) -> str:
    """The longest domain that all hosts are under; empty if only a top-level domain is left."""
    hosts = [casts.split_origin(origin)[1].split(".")[::-1] for origin in origins]
    common = []
    for labels in zip(*hosts, strict=False):
        if len(set(labels)) > 1:
            break
        common.append(labels[0])
    # An address has no parent domain.
    if len(common) < 2 or common[0].isdigit() or common[0].endswith("]"):
        return ""
    return ".".join(reversed(common))


def for_the_cms(settings: Settings) -> str:
    """The same four values in the three places where a CMS keeps its own settings."""
    key = settings.api_keys[API_KEY_NAME]
    pairs = {
        "url": settings.public_url or f"http://{settings.listen[0]}",
        "api": api_url(settings.internal_listen),
        "token_key": settings.token_keys[-1],
        "api_key": "whsec_" + b64encode(key.secret).decode(),
    }
    constants = [f"define('PUSH_{name.upper()}', '{value}');" for name, value in pairs.items()]
    array = [f"  '{name}' => '{value}'," for name, value in pairs.items()]
    variables = [f"PUSH_{name.upper()}={value}" for name, value in pairs.items()]
    return "\n".join(
        [
            "// WordPress, in wp-config.php:",
            *constants,
            "",
            "// Drupal, in settings.php:",
            "$settings['push_server'] = [",
            *array,
            "];",
            "",
            "# Anything else, in the environment of PHP:",
            *variables,
        ]
    )


def api_url(address: Address) -> str:
    """Where a program on this host reaches the internal API."""
    return str(address) if address.path else f"http://{reachable(address)}"


def reachable(address: Address) -> Address:
    """Where to connect to a server that listens here: on all addresses is also on loopback."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host)
    return Address(loopback, address.port) if loopback else address
