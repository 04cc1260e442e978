"""From the file and the environment to settings that fit together.

Every key can stand in the TOML file or, as ``PUSH_SERVER_<KEY>``, in the environment, which wins. A
key nobody knows is refused: a limit that is silently not in force is worse than a server that does
not start. Nothing here changes anything; what is wrong is one `SettingsError`.

Imported by the command line and the server, at start and again on SIGHUP.
"""

import dataclasses
from collections.abc import Callable, Mapping

from push_server import casts, config_sources
from push_server.settings import SETTINGS, Settings, SettingsError
from push_server.signatures import decode_secret

# Ports that browsers refuse to connect to: the list of the Fetch standard, which Chromium and
# Firefox follow. Nothing reaches the server then, and the page cannot tell why.
BLOCKED_PORTS = frozenset({
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101,
    102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389,
    427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636,
    989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665,
    6666, 6667, 6668, 6669, 6679, 6697, 10080,
})


def load_settings(
    path: str | None, environ: Mapping[str, str], *, serving: bool = True
) -> Settings:
    """The settings in the file at `path` (None: no file) and the environment.

    Raises `SettingsError` if a setting is unknown, wrong, or does not fit another. `serving`
    False is for tools, which need no token keys.
    """
    defaults = {name: row.default for name, row in SETTINGS.items()}
    given = [
        *config_sources.read_file(path, defaults),
        *config_sources.read_environment(environ, defaults),
    ]
    values = {name: SETTINGS[name].cast(written, value) for name, written, value in given}
    settings = Settings(**values)  # type: ignore[arg-type]  # each row casts to its field's type
    if settings.token_keys_file:
        if settings.token_keys:
            raise SettingsError("token_keys_file", "give either this or token_keys, not both")
        keys = config_sources.read_token_keys("token_keys_file", settings.token_keys_file)
        settings = dataclasses.replace(settings, token_keys=keys)
    for check in _CHECKS:
        check(settings)
    if serving and not settings.token_keys:
        raise SettingsError("token_keys", "needed to serve; `push-server init` makes one")
    return settings


# What two settings have to agree on. Each raises SettingsError naming the one to change.


def _check_port(settings: Settings) -> None:
    for address in settings.listen:
        if address.port in BLOCKED_PORTS and not settings.port_redirected:
            raise SettingsError(
                "listen",
                f"browsers refuse to connect to port {address.port}; use another, such as 6660,"
                " or set port_redirected = true if a port redirect stands in front",
            )
    if settings.public_url:
        port = casts.split_origin(settings.public_url)[2]
        if port in BLOCKED_PORTS:
            raise SettingsError("public_url", f"browsers refuse to connect to port {port}")


def _check_internal_listen(settings: Settings) -> None:
    internal = settings.internal_listen
    if not internal.is_private and not settings.allow_public_internal:
        raise SettingsError(
            "internal_listen",
            f"the public can reach {internal}; use 127.0.0.1, a private address or unix:/path,"
            " or set allow_public_internal = true",
        )
    if internal in settings.listen and (internal.path or internal.port):
        raise SettingsError("internal_listen", "needs another address than listen")


def _check_schemes(settings: Settings) -> None:
    if not settings.public_url:
        return
    scheme = casts.split_origin(settings.public_url)[0]
    for origin in settings.site_origins:
        if casts.split_origin(origin)[0] != scheme:
            raise SettingsError(
                "site_origins",
                f"{origin} and public_url {settings.public_url} must both be http or both https:"
                " browsers keep such pages apart",
            )


def _check_document_domain(settings: Settings) -> None:
    domain = settings.document_domain
    if not domain:
        return
    for name, origins in (
        ("site_origins", settings.site_origins),
        ("public_url", [settings.public_url] if settings.public_url else []),
    ):
        for origin in origins:
            host = casts.split_origin(origin)[1]
            if host != domain and not host.endswith("." + domain):
                raise SettingsError(
                    "document_domain",
                    f"{origin} in {name} is not under {domain}; use their common parent domain,"
                    ' or "" for postMessage',
                )


def _check_webhook(settings: Settings) -> None:
    if settings.webhook_url and not settings.webhook_key:
        raise SettingsError("webhook_key", "webhook_url needs one; `push-server init` makes keys")
    if settings.webhook_key and not settings.webhook_url:
        raise SettingsError("webhook_url", "webhook_key signs nothing without it")
    secret = settings.webhook_key and decode_secret(settings.webhook_key)
    if secret in [key.secret for key in settings.api_keys.values()]:
        raise SettingsError("webhook_key", "is one of api_keys; it needs to be another")


def _check_bridges(settings: Settings) -> None:
    for name in ("stomp_consume", "stomp_produce"):
        if getattr(settings, name) and settings.stomp_url is None:
            raise SettingsError("stomp_url", f"{name} needs it")
    if settings.stomp_url and not (settings.stomp_consume or settings.stomp_produce):
        raise SettingsError("stomp_consume", "stomp_url does nothing without it or stomp_produce")


_CHECKS: tuple[Callable[[Settings], None], ...] = (
    _check_port,
    _check_internal_listen,
    _check_schemes,
    _check_document_domain,
    _check_webhook,
    _check_bridges,
)
