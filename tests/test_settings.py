"""The settings: what is taken, and the one line that says what is wrong with the rest."""

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from push_server import casts, config_text
from push_server.casts import Address, SettingsError
from push_server.channels import ChannelSet, Namespace
from push_server.config_load import BLOCKED_PORTS, load_settings
from push_server.settings import SETTINGS, Settings

GOLDEN = Path(__file__).parent / "golden"
KEY = "k" * 24
SECRET = "whsec_" + "A" * 32


def load(
    tmp_path: Path, text: str, environ: Mapping[str, str] = {}, *, serving: bool = False
) -> Settings:
    path = tmp_path / "push-server.toml"
    path.write_text(text, "utf-8")
    return load_settings(str(path), environ, serving=serving)


def refused(tmp_path: Path, text: str, environ: Mapping[str, str] = {}) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text, environ)
    assert "\n" not in str(caught.value)
    return caught.value


# What is taken


GOOD: list[tuple[str, str, Any]] = [
    ("listen", '"127.0.0.1:6660"', (Address("127.0.0.1", 6660),)),
    ("listen", '"0.0.0.0:80"', (Address("0.0.0.0", 80),)),
    ("listen", '"127.0.0.1:0"', (Address("127.0.0.1", 0),)),
    ("listen", '"[::1]:65535"', (Address("::1", 65535),)),
    ("listen", '"[0:0:0::1]:443"', (Address("::1", 443),)),
    ("listen", '"unix:/run/push.sock"', (Address(path="/run/push.sock"),)),
    ("listen", f'"unix:/{"p" * 106}"', (Address(path="/" + "p" * 106),)),
    ("listen", '["[::1]:81", "127.0.0.1:81"]', (Address("::1", 81), Address("127.0.0.1", 81))),
    ("listen", '"[::1]:81  unix:/a"', (Address("::1", 81), Address(path="/a"))),
    ("listen", '["unix:/a b,c"]', (Address(path="/a b,c"),)),
    ("listen", '["127.0.0.1:0", "127.0.0.1:0"]', (Address("127.0.0.1", 0),) * 2),
    ("internal_listen", '"10.1.2.3:6667"', Address("10.1.2.3", 6667)),
    ("internal_listen", '"172.31.0.1:6667"', Address("172.31.0.1", 6667)),
    ("internal_listen", '"[fd00::1]:6667"', Address("fd00::1", 6667)),
    ("internal_listen", '"unix:/a"', Address(path="/a")),
    ("public_url", '"https://push.example.com"', "https://push.example.com"),
    ("public_url", '""', ""),
    ("site_origins", '["http://a.b:8080", "http://[::1]:81"]', ("http://a.b:8080", "http://[::1]:81")),
    ("site_origins", "[]", ()),
    ("document_domain", '"example.com"', "example.com"),
    ("trusted_proxy", '"0::0:1"', "::1"),
    ("trusted_proxy", '"::ffff:127.0.0.1"', "127.0.0.1"),
    ("trusted_proxy", '"unix:"', "unix:"),
    ("jsonp", "true", True),
    ("broker", '"memory:"', "memory:"),
    ("broker", '"sqlite:a.db"', "sqlite:a.db"),
    ("token_keys", f'["{KEY}", "ünïcödé keys count their bytes"]',
     (KEY, "ünïcödé keys count their bytes")),
    ("heartbeat", "0.05", 0.05),
    ("heartbeat", "600", 600),
    ("drain_spread", "0", 0),
    ("reset_spread", "600", 600),
    ("presence_grace", "0", 0),
    ("webhook_url", '""', ""),
    ("connections", "0", 0),
    ("channels_per_connection", "256", 256),
    ("unlimited_addresses", "[]", ()),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_good_values(tmp_path: Path, name: str, text: str, value: object) -> None:
    assert getattr(load(tmp_path, f"{name} = {text}"), name) == value


def test_defaults_are_those_of_the_table() -> None:
    assert load_settings(None, {}, serving=False) == Settings()
    assert Settings().listen == (Address("127.0.0.1", 6660),)
    assert list(SETTINGS) == [field.name for field in dataclasses.fields(Settings)]


def test_api_keys(tmp_path: Path) -> None:
    keys = load(
        tmp_path,
        f'[api_keys]\ncms = "{SECRET}"\n'
        f'chat = {{ secret = "{SECRET}", channels = ["chat:*", "news"] }}',
    ).api_keys
    assert list(keys) == ["cms", "chat"]
    assert keys["cms"].secret == bytes(24)
    assert keys["cms"].channels is None
    assert keys["chat"].channels == ChannelSet.of(["chat:*", "news"])


@pytest.mark.parametrize(
    "url", ["https://www.example.com/push/events", "http://127.0.0.1:8080", "http://[::1]:81/a%20b"]
)
def test_webhooks(tmp_path: Path, url: str) -> None:
    settings = load(tmp_path, f'webhook_url = "{url}"\nwebhook_key = "{SECRET}"')
    assert (settings.webhook_url, settings.webhook_key) == (url, SECRET)
    assert SECRET not in repr(settings)


def test_namespaces(tmp_path: Path) -> None:
    namespaces = load(
        tmp_path, '[namespace.chat]\nhistory_size = 5\n[namespace."*"]\nclient_publish = false'
    ).namespace
    assert namespaces.of("chat:lobby") == Namespace(history_size=5)
    assert namespaces.of("node:7") == Namespace(client_publish=False)


def test_namespace_has_a_cast_for_every_field() -> None:
    assert list(casts._NAMESPACE) == [field.name for field in dataclasses.fields(Namespace)]


# What is refused. One row per bad value: the text, the setting that is named, words of the line.

BAD = [
    # Unknown keys, at every depth
    ('listn = "x"', "listn", 'did you mean "listen"'),
    ("heartbeats = 1", "heartbeats", 'did you mean "heartbeat"'),
    ("[namespace.chat]\nhistory_sise = 1", "namespace.chat.history_sise", '"history_size"'),
    (f'[api_keys.cms]\nsecret = "{SECRET}"\nchannel = []', "api_keys.cms.channel", '"channels"'),
    # Addresses
    ("listen = 6660", "listen", "needs a string"),
    ("listen = []", "listen", "needs an address"),
    ("listen = [6660]", "listen", "needs a string"),
    ('listen = ["127.0.0.1:6660", 6660]', "listen", "needs a string"),
    ('listen = "127.0.0.1:6660, [::1]"', "listen", "not '[::1]'"),
    ('listen = ["unix:/a", "127.0.0.1:82", "unix:/a"]', "listen", "unix:/a is there twice"),
    ('listen = ["127.0.0.1:82", "127.0.0.1:6666"]', "listen", "port 6666"),
    ('listen = "6660"', "listen", 'needs "127.0.0.1:6660"'),
    ('listen = ":6660"', "listen", "needs"),
    ('listen = "localhost:6660"', "listen", "needs"),
    ('listen = "127.0.0.1:65536"', "listen", "needs"),
    ('listen = "127.0.0.1:-1"', "listen", "needs"),
    ('listen = "127.0.0.1: 80"', "listen", "needs"),
    ('listen = "127.0.0.256:80"', "listen", "needs"),
    ('listen = "::1:6660"', "listen", "needs"),
    ('listen = "[127.0.0.1]:6660"', "listen", "needs"),
    ('listen = "unix:run/push.sock"', "listen", "absolute path"),
    (f'listen = "unix:/{"p" * 107}"', "listen", "107 bytes"),
    ('listen = "unix:/a\\u0000b"', "listen", "absolute path"),
    ('listen = "127.0.0.1:6666"', "listen", "browsers refuse to connect to port 6666"),
    ('listen = "127.0.0.1:10080"', "listen", "port_redirected = true"),
    ('listen = "127.0.0.1:22"', "listen", "browsers refuse"),
    ('public_url = "http://push.example.com:6667"', "public_url", "browsers refuse"),
    ('port_redirected = true\npublic_url = "http://a.b:6000"', "public_url", "browsers refuse"),
    ('internal_listen = "0.0.0.0:6667"', "internal_listen", "the public can reach 0.0.0.0:6667"),
    ('internal_listen = "[::]:6667"', "internal_listen", "allow_public_internal = true"),
    ('internal_listen = "8.8.8.8:6667"', "internal_listen", "public"),
    ('internal_listen = "172.32.0.1:6667"', "internal_listen", "public"),
    ('internal_listen = "[::ffff:8.8.8.8]:6667"', "internal_listen", "public"),
    ('internal_listen = "[2001:db8::1]:6667"', "internal_listen", "public"),
    ('internal_listen = "127.0.0.1:6660"', "internal_listen", "another address than listen"),
    ('listen = "unix:/a"\ninternal_listen = "unix:/a"', "internal_listen", "another address"),
    ('listen = ["unix:/b", "127.0.0.1:82"]\ninternal_listen = "127.0.0.1:82"',
     "internal_listen", "another address"),
    ('trusted_proxy = "proxy"', "trusted_proxy", "needs an IP address"),
    ('trusted_proxy = "10.0.0.0/8"', "trusted_proxy", "needs an IP address"),
    ('jsonp = "yes"', "jsonp", "needs true or false"),
    ('trusted_proxy = "unix:/a"', "trusted_proxy", "needs an IP address"),
    ('unlimited_addresses = ["unix:"]', "unlimited_addresses", "needs an IP address"),
    ('unlimited_addresses = ["localhost"]', "unlimited_addresses", "needs an IP address"),
    ('unlimited_addresses = "::1"', "unlimited_addresses", "needs a list"),
    # Origins
    ('site_origins = "https://a.b"', "site_origins", "needs a list"),
    ("site_origins = [1]", "site_origins", "needs a string"),
    ('site_origins = ["www.example.com"]', "site_origins", "needs an origin"),
    ('site_origins = ["https://www.example.com/"]', "site_origins", "write 'https://www.example.com'"),
    ('site_origins = ["https://WWW.example.com"]', "site_origins", "write 'https://www.example.com'"),
    ('site_origins = ["https://www.example.com/cms"]', "site_origins", "no path"),
    ('site_origins = ["https://*.example.com"]', "site_origins", "no wildcard"),
    ('site_origins = ["https://www.example.com:443"]', "site_origins", "leave out :443"),
    ('site_origins = ["http://www.example.com:80"]', "site_origins", "leave out :80"),
    ('site_origins = ["http://www.example.com:65536"]', "site_origins", "needs an origin"),
    ('site_origins = ["http://www.example.com:080"]', "site_origins", "needs an origin"),
    ('site_origins = ["https://user@example.com"]', "site_origins", "needs an origin"),
    ('site_origins = ["https://example.com\\n"]', "site_origins", "needs an origin"),
    ('site_origins = ["https://example.com."]', "site_origins", "needs an origin"),
    ('site_origins = ["https://-.example.com"]', "site_origins", "needs an origin"),
    ('site_origins = ["ftp://example.com"]', "site_origins", "needs an origin"),
    ('site_origins = ["null"]', "site_origins", "needs an origin"),
    ('site_origins = ["*"]', "site_origins", "needs an origin"),
    ('public_url = "https://push.example.com/push"', "public_url", "no path"),
    ('public_url = "https://p.a.b"\nsite_origins = ["http://w.a.b"]', "site_origins", "both https"),
    ('document_domain = "com"', "document_domain", "needs a domain"),
    ('document_domain = ".example.com"', "document_domain", "needs a domain"),
    ('document_domain = "Example.com"', "document_domain", "needs a domain"),
    ('document_domain = "example.com"\nsite_origins = ["http://www.example.org"]',
     "document_domain", "http://www.example.org in site_origins is not under example.com"),
    ('document_domain = "example.com"\nsite_origins = ["http://notexample.com"]',
     "document_domain", "not under"),
    ('document_domain = "www.example.com"\npublic_url = "http://push.example.com"',
     "document_domain", "in public_url is not under"),
    # The broker
    ('broker = ""', "broker", 'needs "sqlite:PATH"'),
    ('broker = "push.db"', "broker", 'needs "sqlite:PATH"'),
    ('broker = "sqlite:"', "broker", 'needs "sqlite:PATH"'),
    ('broker = "sqlite:a\\nb"', "broker", 'needs "sqlite:PATH"'),
    # Keys
    ('token_keys = "x"', "token_keys", "needs a list"),
    ("token_keys = [1]", "token_keys", "in quotes"),
    (f'token_keys = ["{KEY}", "{KEY[1:]}"]', "token_keys", "24 bytes or more"),
    ('token_keys_file = "a\\u0000b"', "token_keys_file", "no path has a NUL"),
    ('token_keys_file = "/nonexistent"', "token_keys_file", "cannot read /nonexistent"),
    (f'token_keys_file = "x"\ntoken_keys = ["{KEY}"]', "token_keys_file", "not both"),
    ("api_keys = 1", "api_keys", "needs a table"),
    ("[api_keys]\ncms = 1", "api_keys.cms", "whsec_"),
    (f'[api_keys]\ncms = "{SECRET[6:]}"', "api_keys.cms", "begins with whsec_"),
    (f'[api_keys]\ncms = "{SECRET}="', "api_keys.cms", "not base64"),
    (f'[api_keys]\ncms = "{SECRET[:-4]}____"', "api_keys.cms", "not base64"),
    (f'[api_keys]\ncms = "{SECRET[:-4]}"', "api_keys.cms", "24 bytes"),
    (f'[api_keys]\n"a b" = "{SECRET}"', "api_keys.a b", "A-Z a-z 0-9"),
    ('[api_keys.cms]\nchannels = ["a"]', "api_keys.cms.secret", "whsec_"),
    (f'[api_keys.cms]\nsecret = "{SECRET}"\nchannels = "a"', "api_keys.cms.channels", "a list"),
    (f'[api_keys.cms]\nsecret = "{SECRET}"\nchannels = ["$a"]', "api_keys.cms.channels", "prefix*"),
    # Namespaces
    ("namespace = 1", "namespace", "needs a table"),
    ("[namespace]\nchat = 1", "namespace.chat", "needs a table"),
    ('[namespace."a:b"]', "namespace.a:b", "before the first colon"),
    ('[namespace."$a"]', "namespace.$a", "before the first colon"),
    ("[namespace.chat]\nhistory_size = -1", "namespace.chat.history_size", "from 0"),
    ("[namespace.chat]\nhistory_ttl = inf", "namespace.chat.history_ttl", "seconds from 0"),
    ("[namespace.chat]\nclient_publish = 1", "namespace.chat.client_publish", "true or false"),
    ("[namespace.chat]\npresence = 1", "namespace.chat.presence", "true or false"),
    ("[namespace.chat]\njoin_leave = true", "namespace.chat.join_leave", "presence = true"),
    # Webhooks
    *(
        (f"webhook_url = {url!r}", "webhook_url", "needs a URL such as")
        for url in (
            "www.example.com/events",
            "ftp://www.example.com/",
            "https://user:word@www.example.com/",
            "https://www.example.com/?a=b",
            "https://www.example.com/#a",
            "https://www.example.com/a b",
            "https:///events",
            "unix:/run/cms.sock",
        )
    ),
    ('webhook_url = "https://a.b/"', "webhook_key", "webhook_url needs one"),
    (f'webhook_key = "{SECRET}"', "webhook_url", "signs nothing without it"),
    ('webhook_key = "whsec_AAAA"', "webhook_key", "24 bytes"),
    ("webhook_key = 1", "webhook_key", "begins with whsec_"),
    (
        f'webhook_url = "https://a.b/"\nwebhook_key = "{SECRET}"\n[api_keys]\ncms = "{SECRET}"',
        "webhook_key",
        "is one of api_keys",
    ),
    ("presence_grace = -1", "presence_grace", "needs seconds from 0 to 600"),
    # Numbers
    ("port_redirected = 1", "port_redirected", "true or false"),
    ("heartbeat = 0", "heartbeat", "seconds from 0.05 to 600"),
    ("heartbeat = nan", "heartbeat", "seconds"),
    ("heartbeat = true", "heartbeat", "seconds"),
    ('heartbeat = "25"', "heartbeat", "seconds"),
    ("connections = true", "connections", "whole number"),
    ("connections = 1.5", "connections", "whole number"),
    ("connections = -1", "connections", "whole number from 0"),
    ("channels_per_connection = 257", "channels_per_connection", "from 1 to 256"),
    ("threads = 0", "threads", "from 1"),
    # The file
    ("listen", "config", "is not TOML"),
    ('listen = "a"\nlisten = "b"', "config", "is not TOML"),
]


@pytest.mark.parametrize(("text", "setting", "said"), BAD)
def test_bad_values(tmp_path: Path, text: str, setting: str, said: str) -> None:
    error = refused(tmp_path, text)
    assert error.setting == setting
    assert said in error.message


def test_every_setting_has_a_bad_value() -> None:
    tried = {setting.partition(".")[0] for _, setting, _ in BAD}
    same_cast = {"allow_public_internal": "port_redirected"}
    # The bridges' are in test_bridge_settings.py.
    sections = ("Times", "Limits", "Bridges")
    limits = {name for name, row in SETTINGS.items() if row.section in sections}
    assert set(SETTINGS) - limits - set(same_cast) <= tried


@pytest.mark.parametrize("port", sorted(BLOCKED_PORTS))
def test_a_redirect_makes_a_blocked_port_usable(tmp_path: Path, port: int) -> None:
    text = f'internal_listen = "unix:/a"\nlisten = "127.0.0.1:{port}"'
    refused(tmp_path, text)
    assert load(tmp_path, f"port_redirected = true\n{text}").listen[0].port == port


def test_a_public_internal_listener_can_be_forced(tmp_path: Path) -> None:
    text = 'internal_listen = "0.0.0.0:6667"\nallow_public_internal = true'
    assert load(tmp_path, text).internal_listen == Address("0.0.0.0", 6667)


def test_no_message_and_no_repr_shows_a_secret(tmp_path: Path) -> None:
    secret = "whsec_verysecretverysecret!"
    for text in (
        f'[api_keys]\ncms = "{secret}"',
        f'api_keys = "{secret}"',
        f'token_keys = "{secret}"',
        'token_keys = ["verysecret"]',
    ):
        assert "verysecret" not in str(refused(tmp_path, text))
    settings = load(tmp_path, f'token_keys = ["{KEY}"]\n[api_keys]\ncms = "{SECRET}"')
    assert KEY not in repr(settings)
    assert "secret" not in repr(settings)


# The environment


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("broker", "memory:", "memory:"),
        ("broker", '"memory:"', "memory:"),
        ("listen", "[::1]:81", (Address("::1", 81),)),
        ("listen", "[::1]:81 127.0.0.1:81", (Address("::1", 81), Address("127.0.0.1", 81))),
        ("listen", "[::1]:81,127.0.0.1:81", (Address("::1", 81), Address("127.0.0.1", 81))),
        ("listen", '["[::1]:81", "unix:/a"]', (Address("::1", 81), Address(path="/a"))),
        ("heartbeat", "10", 10),
        ("port_redirected", "true", True),
        # Text that happens to be a number or a date is text where a string is wanted.
        ("token_keys", "1" * 24, ("1" * 24,)),
        ("token_keys_file", "", ""),
        ("token_keys", f"{KEY}, {KEY[::-1]}", (KEY, KEY[::-1])),
        ("token_keys", f'["{KEY}"]', (KEY,)),
        ("token_keys", f'"{KEY}"', (KEY,)),
        ("unlimited_addresses", "::1,127.0.0.1", ("::1", "127.0.0.1")),
        ("unlimited_addresses", "", ()),
        ("site_origins", "http://a.b", ("http://a.b",)),
    ],
)
def test_environment(name: str, text: str, value: object) -> None:
    settings = load_settings(None, {f"PUSH_SERVER_{name.upper()}": text}, serving=False)
    assert getattr(settings, name) == value


def test_tables_in_the_environment() -> None:
    settings = load_settings(
        None,
        {
            "PUSH_SERVER_NAMESPACE": "{ chat = { history_size = 5 } }",
            "PUSH_SERVER_API_KEYS": f'{{ cms = "{SECRET}" }}',
        },
        serving=False,
    )
    assert settings.namespace.of("chat:a").history_size == 5
    assert list(settings.api_keys) == ["cms"]


def test_the_environment_wins_and_other_variables_are_none_of_ours(tmp_path: Path) -> None:
    environ = {"PUSH_SERVER_HEARTBEAT": "7", "PUSH_SERVER_CONFIG": "x", "PUSH_SERVERS": "x"}
    assert load(tmp_path, "heartbeat = 8", environ).heartbeat == 7


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, "", {"PUSH_SERVER_HEARTBEET": "7"})
    assert str(error) == 'PUSH_SERVER_HEARTBEET: unknown; did you mean "PUSH_SERVER_HEARTBEAT"?'


def test_a_bad_variable_is_named_as_it_was_written(tmp_path: Path) -> None:
    assert refused(tmp_path, "", {"PUSH_SERVER_THREADS": "0"}).setting == "PUSH_SERVER_THREADS"


def test_a_variable_that_is_not_text_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, "", {"PUSH_SERVER_TOKEN_KEYS": "\udcff" * 24})
    assert str(error) == "PUSH_SERVER_TOKEN_KEYS: is not UTF-8 text"


def test_a_line_end_in_a_variable_adds_no_key() -> None:
    environ = {"PUSH_SERVER_DOCUMENT_DOMAIN": '"a.b"\nport_redirected = true'}
    with pytest.raises(SettingsError):
        load_settings(None, environ, serving=False)


@given(st.sampled_from(sorted(SETTINGS)), st.text())
def test_no_text_does_anything_but_load_or_be_refused(name: str, text: str) -> None:
    try:
        load_settings(None, {f"PUSH_SERVER_{name.upper()}": text}, serving=False)
    except SettingsError:
        pass


# Token keys


def key_file(tmp_path: Path, content: str, mode: int = 0o640) -> Path:
    path = tmp_path / "keys"
    path.write_text(content)
    path.chmod(mode)
    return path


def test_serving_needs_token_keys(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="token_keys: needed to serve"):
        load(tmp_path, "", serving=True)
    assert load(tmp_path, f'token_keys = ["{KEY}"]', serving=True).token_keys == (KEY,)


def test_token_keys_file(tmp_path: Path) -> None:
    path = key_file(tmp_path, f"# oldest first\n{KEY}\n\n  {KEY}new  \n")
    settings = load(tmp_path, f'token_keys_file = "{path}"', serving=True)
    assert settings.token_keys == (KEY, KEY + "new")


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o601])
def test_a_key_file_open_to_everybody_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, KEY, mode)
    error = refused(tmp_path, f'token_keys_file = "{path}"')
    assert error.message == f"anybody can get at it; run: chmod o= {path}"


@pytest.mark.parametrize(
    ("content", "said"), [("", "no key"), ("# only\n", "no key"), ("short", "24 bytes")]
)
def test_a_key_file_without_good_keys_is_refused(tmp_path: Path, content: str, said: str) -> None:
    assert said in refused(tmp_path, f'token_keys_file = "{key_file(tmp_path, content)}"').message


def test_a_key_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, "")
    path.write_bytes(b"\xff" * 40)
    assert "UTF-8" in refused(tmp_path, f'token_keys_file = "{path}"').message


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match="config: cannot read /nonexistent"):
        load_settings("/nonexistent", {})


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "push-server.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(str(path), {})


# Written out


FULL = f"""
listen = "[::1]:8081"
internal_listen = "unix:/run/push-server/api.sock"
public_url = "https://push.example.com"
site_origins = ["https://www.example.com", "https://shop.example.com:8443"]
document_domain = "example.com"
jsonp = true
trusted_proxy = "10.0.0.1"
broker = "memory:"
token_keys = ["{KEY}", "{KEY[::-1]}"]
heartbeat = 12.5
connection_max_age = 60.0
unlimited_addresses = []
[api_keys]
cms = "{SECRET}"
chat = {{ secret = "{SECRET}", channels = ["news", "chat:*", "all"] }}
[namespace.chat]
history_size = 10
[namespace."*"]
client_publish = false
"""


@pytest.mark.parametrize(("name", "text"), [("defaults", ""), ("full", FULL)])
def test_effective_settings(tmp_path: Path, name: str, text: str) -> None:
    settings = load(tmp_path, text)
    written = config_text.effective(settings)
    assert written == (GOLDEN / f"{name}.toml").read_text("utf-8")
    # It is a configuration itself, the same one but for the secrets.
    again = load(tmp_path, written)
    assert again == dataclasses.replace(settings, token_keys=(), api_keys={})


def test_the_initial_file_is_the_defaults_and_the_values(tmp_path: Path) -> None:
    values = {"token_keys": [KEY], "document_domain": "example.com"}
    text = config_text.initial_file(values)
    assert tomllib.loads(text) == values
    # Every comment that shows a default is one, and no setting was left out.
    names = [*SETTINGS, *casts._NAMESPACE]
    shown = "\n".join(
        line.removeprefix("# ")
        for line in text.splitlines()
        if line == "# [namespace.chat]" or line.startswith(tuple(f"# {name} = " for name in names))
    )
    defaults = tomllib.loads(shown)
    assert defaults.pop("namespace") == {"chat": dataclasses.asdict(Namespace())}
    assert defaults == {
        name: row.default
        for name, row in SETTINGS.items()
        if name not in values and name != "namespace"
    }


def test_configuration_page_is_up_to_date() -> None:
    page = Path(__file__).parent.parent / "docs" / "configuration.rst"
    assert page.read_text("utf-8") == config_text.manual_page(), "run: make docs"


@example("\x7f\0\u2028", -1, False, -1e-7)
@example("", 0, True, 1e22)
@given(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
def test_values_are_written_as_toml(text: str, number: int, flag: bool, fraction: float) -> None:
    value = [text, number, flag, fraction]
    assert tomllib.loads(f"value = {config_text.toml(value)}") == {"value": value}


def test_docs_of_settings_end_like_sentences() -> None:
    for row in SETTINGS.values():
        assert row.doc.endswith("."), row.name
        assert row.doc.count("`") % 2 == 0, row.name


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().threads = 1  # type: ignore[misc]


def test_nobody_reads_the_environment_behind_our_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "PUSH_SERVER_THREADS", "3")
    assert load(tmp_path, "").threads == 8


@pytest.mark.parametrize(
    "account", ["push:s3cret", "p@s3cret", 'push:a"s3cret', "push:\\s3cret", ":ab/s3cret="]
)
def test_the_password_of_the_broker_is_not_shown(account: str) -> None:
    # check-config is pasted into tickets and chats.
    settings = dataclasses.replace(Settings(), broker=f"redis://{account}@10.0.0.5:6379/0")
    shown = config_text.effective(settings)
    assert 'broker = "redis://***@10.0.0.5:6379/0"' in shown
    assert "s3cret" not in shown
