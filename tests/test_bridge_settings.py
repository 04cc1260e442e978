"""What the settings of the bridges take, and what they say of the rest."""

from pathlib import Path

import pytest

from push_server import config_text
from push_server.bridge_settings import StompAddress
from push_server.bridges.intake import RETRY_SECONDS, make_id, make_request, pause
from push_server.config_load import load_settings
from push_server.errors import BadInput, Denied, PushError
from push_server.settings import Settings, SettingsError

URL = 'stomp_url = "stomp://push:s%2Fcret@rabbit.example:61000/%2Fsite"\n'


def load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "push-server.toml"
    path.write_text(text, "utf-8")
    return load_settings(str(path), {}, serving=False)


def test_a_stomp_url_says_where_and_who(tmp_path: Path) -> None:
    settings = load(tmp_path, URL + '[stomp_consume]\n"/queue/a" = "news:1"')
    assert settings.stomp_url == StompAddress(
        "stomp://rabbit.example:61000/%2Fsite", "rabbit.example", 61000, "/site", "push", "s/cret"
    )
    assert "cret" not in repr(settings)
    assert "cret" not in config_text.effective(settings)


@pytest.mark.parametrize(
    ("url", "port", "vhost", "ca"),
    [
        ("stomp://h", 61613, "/", None),
        ("stomps://h/", 61614, "/", None),
        ("stomps://h/v?ca=/etc/ca%20x.pem", 61614, "v", "/etc/ca x.pem"),
    ],
)
def test_the_defaults_of_a_stomp_url(
    tmp_path: Path, url: str, port: int, vhost: str, ca: str | None
) -> None:
    found = load(tmp_path, f'stomp_url = "{url}"\n[stomp_consume]\n"/q" = "news:1"').stomp_url
    assert found is not None
    assert (found.port, found.vhost, found.ca) == (port, vhost, ca)
    assert found.tls == url.startswith("stomps")


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ('stomp_url = "http://secret@h"', "stomp_url"),
        ('stomp_url = "stomp://"', "stomp_url"),
        ('stomp_url = "stomp://h:99999"', "stomp_url"),
        ('stomp_url = "stomp://h?secret=1"', "stomp_url"),
        ('stomp_url = "stomp://h?secret"', "stomp_url"),
        ("stomp_url = 1", "stomp_url"),
        ('stomp_url = "stomp://h"', "stomp_consume"),
        ('[stomp_consume]\n"/queue/a" = "news:1"', "stomp_url"),
        ('[stomp_produce]\n"news:1" = "/queue/a"', "stomp_url"),
        (URL + '[stomp_consume]\n"/queue/a b" = "news:1"', "stomp_consume"),
        (URL + '[stomp_consume]\n"/queue/a" = "news:*"', 'stomp_consume."/queue/a"'),
        (URL + '[stomp_consume]\n"/queue/a" = "$ready"', 'stomp_consume."/queue/a"'),
        (URL + '[stomp_consume]\n"/queue/a" = []', 'stomp_consume."/queue/a"'),
        (URL + '[stomp_consume]\n"/queue/a" = ["a b"]', 'stomp_consume."/queue/a"'),
        (URL + '[stomp_consume]\n"/queue/a" = 1', 'stomp_consume."/queue/a"'),
        (URL + '[stomp_produce]\n"news:*" = "/queue/a"', "stomp_produce"),
        (URL + '[stomp_produce]\n"news:1" = "/queue/\\n"', 'stomp_produce."news:1"'),
        (URL + "stomp_produce = 1", "stomp_produce"),
        ('stomp_parked = ""', "stomp_parked"),
        ("stomp_state = 1", "stomp_state"),
        ('redis_inbox = "redis://:secret@h/0"', "redis_inbox"),
        ('redis_inbox = "http://h?stream=a"', "redis_inbox"),
        ('redis_inbox_channels = ""', "redis_inbox_channels"),
    ],
)
def test_what_is_refused_names_the_setting(tmp_path: Path, text: str, setting: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert caught.value.setting == setting
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_in_force_can_be_read_back(tmp_path: Path) -> None:
    text = (
        URL + '[stomp_consume]\n"/queue/a" = "news:1"\n"/queue/b" = ["node:7", "chat:*"]\n'
        '[stomp_produce]\n"chat:1" = "/topic/c"\n'
    )
    settings = load(tmp_path, text)
    again = load(tmp_path, URL + config_text.effective(settings))
    assert again.stomp_consume == settings.stomp_consume
    assert again.stomp_produce == settings.stomp_produce


def test_a_message_names_only_what_the_setting_allows(tmp_path: Path) -> None:
    settings = load(tmp_path, URL + '[stomp_consume]\n"/q" = ["chat:*", "node:7"]\n"/r" = "a:1"')
    choice, fixed = settings.stomp_consume["/q"], settings.stomp_consume["/r"]
    assert choice.channel_of("chat:5") == "chat:5"
    assert choice.channel_of("node:7") == "node:7"
    assert fixed.channel_of("user:1") == "a:1"
    for named, kind in ((None, BadInput), ("node:8", Denied), ("user:1", Denied), ("$x", BadInput)):
        with pytest.raises(kind):
            choice.channel_of(named)


def test_an_id_of_any_shape_becomes_one_of_ours_and_always_the_same() -> None:
    assert make_id("order-1842") == "order-1842"
    odd = ["T_1@@session-x@@2", "x" * 65, "", "\u00fc", "\ud800"]
    made = [make_id(each) for each in odd]
    assert made == [make_id(each) for each in odd]
    assert len({*made}) == len(odd)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"NaN", b'{"a":1,"a":2}', b"[" * 40 + b"]" * 40]
)
def test_what_is_no_json_can_never_be_published(body: bytes) -> None:
    with pytest.raises(PushError) as caught:
        make_request("news:1", "1", body, 1000)
    assert caught.value.status == 400


def test_a_bridge_tries_on_however_long_the_outage() -> None:
    # 2 to the power of a night's attempts is more than a float holds.
    assert RETRY_SECONDS[0] / 2 <= pause(0) <= RETRY_SECONDS[0]
    for attempt in (10, 1_100, 10**6):
        assert RETRY_SECONDS[1] / 2 <= pause(attempt) <= RETRY_SECONDS[1]
