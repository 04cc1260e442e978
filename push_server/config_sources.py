"""Where settings are written: the TOML file, the environment, the file with the token keys.

What comes out is what was written, under the name of the setting and the name that the owner of
the site knows it by (``PUSH_SERVER_LISTEN`` or ``listen``), so that an error can say where to look.
What it means is decided in `push_server.settings`. Rule: an error never quotes a value.

Imported by `config_load`.
"""

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping

from push_server import casts
from push_server.casts import SettingsError

ENVIRONMENT = "PUSH_SERVER_"

NOT_SETTINGS = frozenset({"PUSH_SERVER_CONFIG"})
"""Variables with the prefix that are something else: the path of the file."""

Defaults = Mapping[str, object]
"""Every setting and its default; the type of the default tells which kind of value is wanted."""

Given = Iterator[tuple[str, str, object]]
"""The name of the setting, the name it was written by, the value."""


def read_file(path: str | None, defaults: Defaults) -> Given:
    """What the file says. Raises `SettingsError` if it cannot be read or has an unknown key."""
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise SettingsError("config", f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("config", f"{path} is not TOML: {error}") from None
    casts.refuse_unknown(content, defaults)
    for name, value in content.items():
        yield name, name, value


def read_environment(environ: Mapping[str, str], defaults: Defaults) -> Given:
    """What the variables say. Raises `SettingsError` for one that names no setting."""
    names = {ENVIRONMENT + name.upper(): name for name in defaults}
    given = {
        variable: value
        for variable, value in environ.items()
        if variable.startswith(ENVIRONMENT) and variable not in NOT_SETTINGS
    }
    casts.refuse_unknown(given, names)
    for variable, value in given.items():
        # Python reads bytes that are no UTF-8 as lone surrogates, which nothing can encode.
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise SettingsError(variable, "is not UTF-8 text")
        name = names[variable]
        yield name, variable, _environment_value(value, defaults[name])


def _environment_value(value: str, default: object) -> object:
    """The TOML value that a variable stands for.

    Where a string is wanted, text that happens to be a TOML number or date (a key of digits)
    is that text; where a list is wanted, text that is no TOML list is split at the commas. What
    may be a string or a list (`listen`) has a string as its default.
    """
    try:
        document = tomllib.loads(f"value = {value}")
        # A line end in the variable could smuggle in further keys.
        parsed = document["value"] if len(document) == 1 else value
    except tomllib.TOMLDecodeError:
        parsed = value
    if isinstance(default, str) and not isinstance(parsed, str | list):
        return value
    if isinstance(default, list) and not isinstance(parsed, list):
        bare = parsed if isinstance(parsed, str) else value
        return [part.strip() for part in bare.split(",") if part.strip()]
    return parsed


def read_token_keys(name: str, path: str) -> tuple[str, ...]:
    """The keys in a file, one per line. Raises `SettingsError` if anybody could read them too."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = [line.strip() for line in file]
    except PermissionError:
        remedy = f"run: chgrp push-server {path} && chmod 640 {path}"
        raise SettingsError(name, f"this user may not read {path}; {remedy}") from None
    except OSError as error:
        remedy = "name a file with a key in each line, or use token_keys"
        raise SettingsError(name, f"cannot read {path}: {error.strerror}; {remedy}") from None
    except UnicodeDecodeError:
        raise SettingsError(name, f"{path} is not UTF-8 text") from None
    if mode & stat.S_IRWXO:
        raise SettingsError(name, f"anybody can get at it; run: chmod o= {path}")
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise SettingsError(name, f"there is no key in {path}")
    return tuple(casts.token_key(name, key) for key in keys)
