"""The settings written out: the file that `init` makes, what `check-config` prints, the manual.

All three are made from the table in `push_server.settings`, so that none can be forgotten when
a setting is added. Rule: a secret goes into the file that `init` makes and nowhere else.

Pure; imported by the command line and by ``tools/configuration_page``.
"""

import dataclasses
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from push_server.bridge_settings import Target
from push_server.casts import Address
from push_server.channels import Namespace
from push_server.config_sources import ENVIRONMENT
from push_server.settings import SETTINGS, Setting, Settings
from push_server.signatures import ApiKey

WIDTH = 88
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Address):
        value = str(value)
    if isinstance(value, Target):
        value = value.written
    if isinstance(value, bool | str):
        # JSON spells these as TOML does, but for DEL, which TOML wants escaped. Not as ASCII:
        # TOML has no surrogate pairs.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        members = ", ".join(f"{_key(key)} = {toml(entry)}" for key, entry in value.items())
        return f"{{ {members} }}" if members else "{}"
    return str(value).removesuffix(".0")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else toml(name)


def initial_file(values: Mapping[str, Any]) -> str:
    """A commented configuration file: these values, and every default as a comment."""
    lines = [
        "# Configuration of push-server. A line that begins with # shows a default.",
        f"# Every setting can also be given in the environment, as {ENVIRONMENT}<NAME>.",
        "# Keep this file to yourself: it holds keys.",
    ]
    section = ""
    for row in SETTINGS.values():
        if row.section != section:
            section = row.section
            lines += ["", "", f"# {section}"]
        lines += ["", *_comment(row.doc.replace("`", ""))]
        if row.name in values:
            lines.append(f"{row.name} = {toml(values[row.name])}")
        elif row.name == "namespace":
            lines += [f"# {line}" for line in _namespace_table("chat", Namespace())]
        else:
            lines.append(f"# {row.name} = {toml(row.default)}")
    return "\n".join([*lines, ""])


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


_PASSWORD = re.compile(r'://(?:[^"\\]|\\.)*@')
"""User and password in a URL, as the broker's may have, up to the last @ in it: whatever a password
has in it that should have been written as %40 or %2F, none of it is shown."""


def effective(settings: Settings) -> str:
    """The settings in force, as a configuration file without its secrets."""
    lines = [
        f"{row.name} = {_PASSWORD.sub('://***@', toml(getattr(settings, row.name)))}"
        for row in SETTINGS.values()
        if not row.secret and row.name != "namespace"
    ]
    lines.append(f"# token_keys: {len(settings.token_keys)}")
    lines += [f"# api_keys.{key.name}: {_scope(key)}" for key in settings.api_keys.values()]
    for name, namespace in settings.namespace.named.items():
        lines += ["", *_namespace_table(name, namespace)]
    return "\n".join([*lines, ""])


def _scope(key: ApiKey) -> str:
    if key.channels is None:
        return "all channels"
    prefixes = [f"{prefix}*" for prefix in key.channels.prefixes]
    return ", ".join([*sorted(key.channels.names), *prefixes])


def _namespace_table(name: str, namespace: Namespace) -> list[str]:
    quoted = name if name.replace("-", "").replace("_", "").isalnum() else toml(name)
    values = dataclasses.asdict(namespace)
    return [f"[namespace.{quoted}]", *(f"{key} = {toml(value)}" for key, value in values.items())]


def manual_page() -> str:
    """`docs/configuration.rst`."""
    return "\n".join([_MANUAL_HEAD, *_manual_rows(), ""])


_MANUAL_HEAD = f"""\
Configuration
=============

.. Made by ``make docs`` from the table in ``push_server/settings.py``; change it there.

The server reads one TOML file: the one named by ``--config``, else by ``PUSH_SERVER_CONFIG``,
else ``push-server.toml`` in the directory it is started in. ``push-server init`` writes one
with fresh keys and a comment for every setting.

Every setting can also be given in the environment, which wins over the file:
``{ENVIRONMENT}`` and the name in capitals. The value is written as in TOML, or bare; a list may
be written with commas::

    PUSH_SERVER_BROKER=memory:
    PUSH_SERVER_SITE_ORIGINS=https://www.example.com,https://shop.example.com
    PUSH_SERVER_NAMESPACE='{{ chat = {{ history_size = 50 }} }}'

A name that is not in this list is refused, and so is a value that cannot work. Then the server
does not start: it says in one line which setting to change, and ends with status 2.
``push-server check-config`` does the same without starting anything, and prints the settings
that are in force, without the keys.

On SIGHUP the server reads the file again. Keys, namespaces, ``public_url``, ``site_origins`` and
``document_domain`` hold from then on. Do not count on any other setting before the next start.
A file that is refused changes nothing; the log says why.
"""


def _manual_rows() -> Iterator[str]:
    section = ""
    for row in SETTINGS.values():
        if row.section != section:
            section = row.section
            yield f"\n{section}\n{'-' * len(section)}"
        yield f"\n``{row.name}``\n{_manual_text(row)}"


def _manual_text(row: Setting) -> str:
    return textwrap.fill(
        f"{row.doc} Default: `{toml(row.default)}`.".replace("`", "``"),
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
