"""The command ``push-server``.

Rules. A configuration that cannot work ends every command with status 2 and one line, before
anything is started or written; what fails later ends it with status 1. Standard output carries
only the result (a token, an acknowledgement, publications), so that it can be piped; everything
for the person goes to standard error. Keys are never printed, except by `init`, which makes them.

The only importer of click.
"""

import base64
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from push_server import __version__, casts, config_text, setup_text
from push_server.brokers import is_shared, make_broker
from push_server.channels import check_channel, is_pattern_or_name
from push_server.config_load import load_settings
from push_server.config_sources import ENVIRONMENT
from push_server.errors import PushError
from push_server.listener import Listener, ListenError, Target
from push_server.settings import Settings, SettingsError
from push_server.tokens import LIFETIME_LIMIT, TokenKeys

DEFAULT_CONFIG = "push-server.toml"
TOKEN_SECONDS = 3600
LINES = "-"

F = TypeVar("F", bound=Callable[..., Any])


class Failed(click.ClickException):
    """Ends the program with one line that says why it could not do its work."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """The line, in the form that the server itself uses."""
        click.echo(f"push-server: {self.message}", file=file, err=file is None)


class ConfigurationError(Failed):
    """Ends the program with the one line that says what to change."""

    exit_code = 2


def config_option(command: F) -> F:
    """``--config``, alike on every command."""
    return click.option(
        "--config",
        "config_path",
        envvar="PUSH_SERVER_CONFIG",
        metavar="FILE",
        help=f"The configuration file; ./{DEFAULT_CONFIG} if there is one.",
    )(command)


def read_settings(config_path: str | None, *, serving: bool) -> tuple[Settings, str | None]:
    """The settings, and the file that they came from."""
    if config_path is None and Path(DEFAULT_CONFIG).exists():
        config_path = DEFAULT_CONFIG
    try:
        settings = load_settings(config_path, os.environ, serving=serving)
        # Makes the broker and opens nothing: only the table of brokers knows the schemes.
        make_broker(settings.broker, settings.namespace, lambda *_: None, lambda _: None)
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
    except PushError as error:
        raise ConfigurationError(error.message) from None
    return settings, config_path


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="push-server")
def main() -> None:
    """Push updates to the browsers of your site's users."""


@main.command()
@config_option
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256),
              help="Processes that serve one port together. More than one takes Redis.")
def serve(config_path: str | None, workers: int) -> None:
    """Run the server.

    SIGTERM ends it in good order; SIGHUP lets it read keys and namespaces again.
    """
    settings, config_path = read_settings(config_path, serving=True)
    if workers > 1 and not is_shared(settings.broker):
        raise ConfigurationError(
            f'broker: "{settings.broker}" is for one process; --workers {workers} needs'
            ' "redis://…"'
        )
    # Here and not above: tools that start in a moment need none of what a server imports.
    if workers > 1:
        from push_server.workers import Workers

        try:
            sys.exit(Workers(settings, config_path, workers).run())
        except SettingsError as error:
            raise ConfigurationError(str(error)) from None
    from push_server.server import run

    sys.exit(run(settings, config_path))


@main.command()
@click.option("--config", "config_path", envvar="PUSH_SERVER_CONFIG", default=DEFAULT_CONFIG,
              metavar="FILE", show_default=True,
              help="The file to write; one that exists is left alone.")
@click.option("--site", "sites", multiple=True, metavar="ORIGIN",
              help="Your site as browsers see it, such as https://www.example.com. Repeatable.")
@click.option("--url", "public_url", default="", metavar="ORIGIN",
              help="The push host as browsers see it, such as https://push.example.com. On http"
                   " with a port from 1024 on, the server listens on that port; else on 6660,"
                   " behind your redirect or proxy.")
@click.option("--post-message", is_flag=True,
              help="Let page and iframe talk by postMessage only, not through document.domain.")
def init(config_path: str, sites: Sequence[str], public_url: str, post_message: bool) -> None:
    """Write a configuration with fresh keys.

    Every setting is explained in it. What the CMS has to be told is printed.
    """
    serviced = _for_a_service(config_path)
    try:
        values = setup_text.fresh_values(sites, public_url, post_message)
        if serviced:
            values.pop("listen", None)  # systemd opens the port that its socket unit names
        # The new settings as if they stood in the environment: checked before anything is written.
        given = {ENVIRONMENT + name.upper(): config_text.toml(values[name]) for name in values}
        settings = load_settings(None, given)
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
    _write_new(config_path, config_text.initial_file(values), 0o640 if serviced else 0o600)
    serve = f"push-server serve --config {config_path}"
    start = "systemctl start push-server" if serviced else serve
    click.echo(f"wrote {config_path}; start: {start}", err=True)
    click.echo(setup_text.for_the_cms(settings))


def _for_a_service(path: str) -> bool:
    """Whether the group is to read the file: the folder hands its files to one (set-group-ID).

    The Debian package makes such a folder; its group is the one of the service.
    """
    try:
        return bool(Path(path).parent.stat().st_mode & stat.S_ISGID)
    except OSError:
        return False  # writing will say why


def _write_new(path: str, content: str, mode: int) -> None:
    try:
        # Closed from the first moment: it holds keys.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.fchmod(descriptor, mode)
    except FileExistsError:
        message = f"{path} exists; remove it, or name another with --config"
        raise ConfigurationError(message) from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)


@main.command("check-config")
@config_option
def check_config(config_path: str | None) -> None:
    """Say what is wrong with the settings, or print them.

    What is printed are the settings in force, from the file and the environment, without keys.
    """
    settings, path = read_settings(config_path, serving=True)
    click.echo(config_text.effective(settings), nl=False)
    if path is not None and Path(path).stat().st_mode & stat.S_IRWXO:
        warning = f"warning: anybody can get at {path}; if it holds keys: chmod o= {path}"
        click.echo(warning, err=True)


def _patterns(_context: object, _option: object, given: Sequence[str]) -> list[str]:
    for entry in given:
        if not is_pattern_or_name(entry):
            raise click.BadParameter(f"{entry!r} is neither a channel name nor a prefix and *")
    return list(given)


def _names(_context: object, _argument: object, given: Sequence[str]) -> list[str]:
    try:
        return [check_channel(name) for name in given]
    except PushError as error:
        raise click.BadParameter(error.message) from None


@main.command()
@config_option
@click.option("--user", required=True, help="User id, as in the CMS; 0 for anonymous visitors.")
@click.option("--subscribe", "sub_ch", multiple=True, callback=_patterns, metavar="CHANNEL",
              help="A channel, or a prefix and *, the user may receive. Repeatable.")
@click.option("--publish", "pub_ch", multiple=True, callback=_patterns, metavar="CHANNEL",
              help="The same for publishing from the browser.")
@click.option("--ttl", default=TOKEN_SECONDS, show_default=True, help="Seconds it is good for.",
              type=click.IntRange(1, int(LIFETIME_LIMIT)))
@click.option("--session", default="", help="Session hash, for revoking; a random one if left out.")
@click.option("--name", default="", help="Display name.")
def token(config_path: str | None, user: str, sub_ch: list[str], pub_ch: list[str], ttl: int,
          session: str, name: str) -> None:
    """Print a token as the CMS would issue it."""
    settings, _ = read_settings(config_path, serving=True)
    claims = token_claims(user, sub_ch, pub_ch, ttl, session)
    if name:
        claims["name"] = name
    keys = TokenKeys(settings.token_keys)
    issued = keys.issue(claims)
    try:
        keys.verify(issued, time.time())
    except PushError:
        raise click.BadParameter("no server would take this token; look at --user") from None
    click.echo(issued)


def token_claims(
    user: str, sub_ch: Sequence[str], pub_ch: Sequence[str], ttl: int, session: str = ""
) -> dict[str, Any]:
    """The claims of a token issued now."""
    now = int(time.time())
    return {
        "v": 1,
        "sub": user,
        "sid": session or secrets.token_hex(16),
        "iat": now,
        "exp": now + ttl,
        "sub_ch": list(sub_ch),
        "pub_ch": list(pub_ch),
        "jti": secrets.token_hex(8),
    }


@main.command()
@config_option
@click.argument("channel")
@click.argument("data", required=False)
@click.option("--id", "publication_id", help="Publishing an id again publishes nothing twice.")
@click.option("--key", "key_name", help="Name of the API key to sign with; the first if left out.")
@click.option("--url", help="The internal API, if it is not where internal_listen says.")
def publish(config_path: str | None, channel: str, data: str | None, publication_id: str | None,
            key_name: str | None, url: str | None) -> None:
    """Publish DATA, which is JSON, to CHANNEL.

    The place it got is printed. With - for DATA, every line of the input is published; with a
    single - each line says where to, as {"channel": …, "data": …}, with an "id" if you like.
    """
    where_to: str | None = channel
    if data is None:
        if channel != LINES:
            raise click.UsageError("Missing argument 'DATA'.")
        where_to, data = None, LINES
    if data == LINES and publication_id:
        raise click.UsageError("--id is for one publication; after a single - lines have their own")
    settings, _ = read_settings(config_path, serving=False)
    # Here and not above: no other command needs an HTTP client, and importing one takes time.
    from push_server.client import PushClient
    from push_server.feeding import Feed, FeedError

    key = _api_key(settings, key_name)
    where = url or setup_text.api_url(settings.internal_listen)
    try:
        client = PushClient(where, key, name="cli", connect_timeout=2, timeout=15, attempts=8)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    with client:
        if data == LINES:
            feed = Feed(client, where_to, settings.max_body, show=sys.stderr.isatty())
            try:
                feed.run(sys.stdin.buffer)
            except FeedError as error:
                raise Failed(str(error)) from None
            return
        try:
            value = json.loads(data)
        except ValueError:
            raise click.BadParameter("DATA is JSON; write a text as '\"text\"'") from None
        result = client.publish(channel, value, id=publication_id)
    if result.value is None:
        raise Failed(str(result.error))
    click.echo(json.dumps(result.value.as_json()))


def _api_key(settings: Settings, name: str | None) -> str:
    keys = settings.api_keys
    if not keys:
        raise ConfigurationError("api_keys: needed to publish; `push-server init` makes one")
    if name is None:
        name = next(iter(keys))
    elif name not in keys:
        close = casts.nearest(name, keys)
        raise ConfigurationError(f'api_keys.{name}: unknown; did you mean "{close}"?')
    return "whsec_" + base64.b64encode(keys[name].secret).decode()


@main.command()
@config_option
@click.argument("channels", nargs=-1, callback=_names)
@click.option("--user", default="", help="Listen as this user, so to the channel user:<id> too.")
@click.option("--token", "given_token", help="Use this token instead of issuing one.")
@click.option("--url", default="", help="The push host, if it is not where listen says.")
def listen(config_path: str | None, channels: Sequence[str], user: str, given_token: str | None,
           url: str) -> None:
    """Print publications as they come.

    One JSON object per line. It comes back by itself when the connection is lost, and goes on
    where it was; what the server says about the connection goes to standard error.
    """
    if not channels and not user and not given_token:
        raise click.UsageError("name channels, a --user or a --token")
    settings, _ = read_settings(config_path, serving=given_token is None)
    try:
        url = casts.origin("--url", url) if url else ""
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
    address = setup_text.reachable(settings.listen[0])
    origin = url or settings.public_url
    host = origin.partition("://")[2] or ("localhost" if address.path else str(address))
    user = user or f"cli-{secrets.token_hex(4)}"
    keys = TokenKeys(settings.token_keys)

    def issue() -> str:
        return given_token or keys.issue(token_claims(user, channels, [], TOKEN_SECONDS))

    listener = Listener(Target(url or address, host), issue, channels)
    try:
        for message in listener:
            _show(message)
        raise Failed("the session was revoked")
    except ListenError as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        # 128 + SIGINT, as shells expect of a program that was interrupted.
        sys.exit(130)


def _show(message: dict[str, Any]) -> None:
    if "channel" in message:
        message.pop("cursor", None)
        click.echo(json.dumps(message, ensure_ascii=False))
    elif message.get("type") != "ping":
        click.echo(json.dumps(message), err=True)


@main.command()
@config_option
@click.option("--url", default="", metavar="ORIGIN",
              help="The push host, if it is not what public_url says or nothing here says it.")
@click.option("--site", "sites", multiple=True, metavar="ORIGIN",
              help="A site that should be able to connect; those of site_origins. Repeatable.")
@click.option("--token", "given_token", envvar="PUSH_TOKEN", default="",
              help="A token to come with, where there is no key to issue one; or $PUSH_TOKEN.")
@click.option("--idle", is_flag=True,
              help="Also try how long a silent connection lives; takes a minute.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def doctor(config_path: str | None, url: str, sites: Sequence[str], given_token: str, idle: bool,
           as_json: bool) -> None:
    """Walk the way from a browser to the log, and name the hop that fails.

    On the push host it reads the configuration; on the host of the CMS PUSH_URL, PUSH_API,
    PUSH_TOKEN_KEY and PUSH_API_KEY in the environment; anywhere else give it --url, and --token
    for more. Status 0: no hop fails; 1: some do; 2: it cannot look.
    """
    from push_server.doctor import house_call

    try:
        url = casts.origin("--url", url) if url else ""
        sites = [casts.origin("--site", site) for site in sites]
        if config_path or Path(DEFAULT_CONFIG).exists() or house_call.is_push_host(os.environ):
            settings, path = read_settings(config_path, serving=False)
            visit = house_call.on_push_host(settings, path or "", url, sites)
        else:
            visit = house_call.elsewhere(os.environ, url, sites)
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
    visit.given_token, visit.idle = given_token, idle
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    healthy = house_call.examine(visit, click.echo, colours=colours, as_json=as_json)
    sys.exit(0 if healthy else 1)
