"""One visit of the doctor: what is known at the door, the checks, and the report.

Imported by the command line.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from push_server import casts, setup_text
from push_server.casts import Address
from push_server.config_sources import ENVIRONMENT
from push_server.doctor import report
from push_server.doctor.dialects import translated
from push_server.doctor.examine import Examination
from push_server.doctor.probe import Origin
from push_server.doctor.table import CHECKS
from push_server.doctor.visit import Visit
from push_server.settings import Settings, SettingsError
from push_server.signatures import decode_secret


def examine(visit: Visit, say: Callable[[str], None], *, colours: bool, as_json: bool) -> bool:
    """Do all checks and say what they found; whether no hop fails."""
    began = time.monotonic()
    results = translated(Examination(visit, CHECKS).run(), visit.proxy, visit.site_server)
    seconds = time.monotonic() - began
    if as_json:
        say(report.as_json(visit, results, seconds))
    else:
        for line in report.as_text(visit, results, seconds, colours):
            say(line)
    return report.is_well(results)


def is_push_host(environ: Mapping[str, str]) -> bool:
    """Whether the environment alone has the configuration of a server, as in a container."""
    return f"{ENVIRONMENT}TOKEN_KEYS" in environ or f"{ENVIRONMENT}TOKEN_KEYS_FILE" in environ


def on_push_host(settings: Settings, path: str, url: str, sites: Sequence[str]) -> Visit:
    """A visit with the configuration at hand.

    Raises `SettingsError` if nothing says where browsers go.
    """
    # One that may publish to all channels, if there is one.
    key = min(settings.api_keys.values(), key=lambda key: key.channels is not None, default=None)
    ports = [setup_text.reachable(address) for address in settings.listen if not address.path]
    if not (url or settings.public_url or ports):
        raise SettingsError("public_url", "needed to look from outside; or give --url")
    return Visit(
        url=url or settings.public_url or f"http://{ports[0]}",
        settings=settings,
        config_path=path,
        sites=sites or settings.site_origins,
        token_keys=settings.token_keys,
        api=_of_address(setup_text.reachable(settings.internal_listen)),
        api_key=key.secret if key else b"",
    )


def elsewhere(environ: Mapping[str, str], url: str, sites: Sequence[str]) -> Visit:
    """A visit with what a CMS has in its environment, or with a URL alone.

    Raises `SettingsError` if there is no URL, or something in the environment cannot be used.
    """
    given = url or environ.get("PUSH_URL", "").rstrip("/")
    # Several, oldest first, while keys rotate.
    token_keys = environ.get("PUSH_TOKEN_KEY", "").split()
    api_keys = environ.get("PUSH_API_KEY", "").split()
    if not given:
        raise SettingsError(
            "--url", "no configuration is here; name it with --config, or the push host with --url"
        )
    return Visit(
        url=casts.origin("--url" if url else "PUSH_URL", given),
        sites=sites,
        token_keys=[casts.token_key("PUSH_TOKEN_KEY", key) for key in token_keys],
        api=_of_cms(environ.get("PUSH_API", "")),
        api_key=decode_secret(casts.webhook_key("PUSH_API_KEY", api_keys[-1])) if api_keys else b"",
    )


def _of_address(address: Address) -> Origin:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return Origin("http", host, address.port, address.path)


def _of_cms(given: str) -> Origin | None:
    """The internal API as the CMS names it."""
    if not given:
        return None
    if given.startswith("unix:"):
        return _of_address(casts.address("PUSH_API", given))
    bare = given.rstrip("/").removesuffix("/api")
    return Origin(*casts.split_origin(casts.origin("PUSH_API", bare)))
