"""The command line, as a person or a script uses it."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result
from harness import PushServer
from ports import free_port
from waiting import PATIENCE

from push_server import __version__
from push_server.cli import main
from push_server.setup_text import common_domain
from push_server.tokens import TokenKeys

KEY = "k" * 24
GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("PUSH_SERVER_"):
            monkeypatch.delenv(name)
    return tmp_path


# Before 8.2, click mixed the two outputs unless told otherwise; since then it cannot be told.
SEPARATE: Any = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


def invoke(*arguments: str, **options: Any) -> Result:
    result = CliRunner(**SEPARATE).invoke(main, arguments, **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments: str, status: int = 2) -> str:
    """The one line that a command ends with."""
    result = invoke(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    line = result.stderr.removesuffix("\n")
    assert "\n" not in line
    assert line.startswith("push-server: ")
    return line.removeprefix("push-server: ")


def test_help_names_every_command() -> None:
    shown = invoke("--help").stdout
    for command in ("serve", "init", "check-config", "token", "publish", "listen"):
        assert f"\n  {command} " in shown
        assert invoke(command, "--help").exit_code == 0
    assert invoke("--version").stdout == f"push-server, version {__version__}\n"


def test_it_runs_as_a_module() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "push_server", "--version"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE,
    )
    assert shown.stdout == f"push-server, version {__version__}\n"


# init


def test_init_writes_a_configuration_that_works(folder: Path) -> None:
    result = invoke(
        "init", "--site", "https://www.example.com", "--url", "https://push.example.com"
    )
    assert result.exit_code == 0
    path = folder / "push-server.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    values = tomllib.loads(path.read_text("utf-8"))
    assert values["site_origins"] == ["https://www.example.com"]
    assert values["public_url"] == "https://push.example.com"
    assert values["document_domain"] == "example.com"
    assert invoke("check-config").exit_code == 0
    # The CMS is told the same values, in each of its languages.
    expected = {
        "url": "https://push.example.com",
        "api": "http://127.0.0.1:6667",
        "token_key": values["token_keys"][0],
        "api_key": values["api_keys"]["cms"],
    }
    for name, value in expected.items():
        assert f"define('PUSH_{name.upper()}', '{value}');\n" in result.stdout
        assert f"  '{name}' => '{value}',\n" in result.stdout
        assert f"PUSH_{name.upper()}={value}\n" in result.stdout
    assert "push-server serve --config push-server.toml" in result.stderr


@pytest.mark.parametrize(
    ("url", "listen"),
    [
        ("http://push.example.com:7000", "127.0.0.1:7000"),
        # A redirect or a proxy stands there, as without a port.
        ("http://push.example.com:81", "127.0.0.1:6660"),
        ("https://push.example.com:7000", "127.0.0.1:6660"),
    ],
)
def test_init_listens_on_the_port_that_browsers_come_to(
    folder: Path, url: str, listen: str
) -> None:
    invoke("init", "--url", url)
    assert f'\nlisten = ["{listen}"]\n' in "\n" + invoke("check-config").stdout


def test_init_lets_the_service_of_a_package_read_the_file(folder: Path) -> None:
    folder.chmod(0o2750)
    result = invoke("init", "--url", "http://push.example.com:7000")
    assert stat.S_IMODE((folder / "push-server.toml").stat().st_mode) == 0o640
    assert result.stderr.endswith("; start: systemctl start push-server\n")
    # Where it listens is in the unit of the socket, which systemd opens.
    assert "listen" not in tomllib.loads((folder / "push-server.toml").read_text())


def test_init_writes_where_all_commands_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSH_SERVER_CONFIG", str(folder / "other.toml"))
    assert invoke("init").exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["other.toml"]
    assert invoke("check-config").exit_code == 0


def test_init_makes_new_keys_every_time(folder: Path) -> None:
    invoke("init", "--config", "a.toml")
    invoke("init", "--config", "b.toml")
    first, second = (tomllib.loads((folder / name).read_text()) for name in ("a.toml", "b.toml"))
    assert set(first) == {"token_keys", "api_keys"}
    assert first["token_keys"] != second["token_keys"]
    assert first["api_keys"] != second["api_keys"]


def test_init_overwrites_nothing(folder: Path) -> None:
    path = folder / "push-server.toml"
    path.write_text("mine")
    assert refused("init").startswith("push-server.toml exists")
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--site", "www.example.com"], "--site: needs an origin"),
        (["--url", "https://push.example.com/"], "--url: needs an origin"),
        (["--site", "http://w.a.b", "--url", "https://p.a.b"], "site_origins: http://w.a.b"),
        (["--config", "missing/push-server.toml"], "cannot write missing/push-server.toml"),
    ],
)
def test_init_checks_before_it_writes(folder: Path, arguments: list[str], said: str) -> None:
    assert refused("init", *arguments).startswith(said)
    assert list(folder.iterdir()) == []


def test_init_for_post_message(folder: Path) -> None:
    invoke("init", "--site", "http://w.a.b", "--url", "http://p.a.b", "--post-message")
    assert "document_domain" not in tomllib.loads((folder / "push-server.toml").read_text())


@pytest.mark.parametrize(
    ("origins", "domain"),
    [
        (["https://www.example.com", "https://push.example.com"], "example.com"),
        (["https://a.b.example.com", "https://b.example.com:8443"], "b.example.com"),
        (["https://example.com", "https://push.example.com"], "example.com"),
        (["https://www.example.com", "https://push.example.org"], ""),
        (["https://a.com", "https://b.com"], ""),
        (["http://localhost:1", "http://localhost:2"], ""),
        (["http://10.0.0.1:1", "http://10.0.0.1:2"], ""),
        (["http://[::1]:1", "http://[::1]:2"], ""),
    ],
)
def test_common_domain(origins: list[str], domain: str) -> None:
    assert common_domain(origins) == domain


# check-config, and how every command finds its configuration


def test_check_config_prints_what_is_in_force(folder: Path) -> None:
    (folder / "push-server.toml").write_text(f'token_keys = ["{KEY}"]')
    (folder / "push-server.toml").chmod(0o600)
    result = invoke("check-config")
    assert (result.exit_code, result.stderr) == (0, "")
    expected = (GOLDEN / "defaults.toml").read_text()
    assert result.stdout == expected.replace("token_keys: 0", "token_keys: 1")
    assert KEY not in result.output


def test_check_config_warns_of_a_file_open_to_everybody(folder: Path) -> None:
    (folder / "push-server.toml").write_text(f'token_keys = ["{KEY}"]')
    (folder / "push-server.toml").chmod(0o644)
    result = invoke("check-config")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: anybody can get at push-server.toml")


def test_the_file_is_named_by_option_variable_or_place(folder: Path) -> None:
    for name, threads in (("option", 2), ("variable", 3), ("push-server.toml", 4)):
        (folder / name).write_text(f'threads = {threads}\ntoken_keys = ["{KEY}"]')
    environment = {"PUSH_SERVER_CONFIG": "variable"}
    for arguments, env, threads in (
        (["--config", "option"], environment, 2),
        ([], environment, 3),
        ([], {}, 4),
    ):
        shown = invoke("check-config", *arguments, env=env).stdout
        assert f"\nthreads = {threads}\n" in shown


@pytest.mark.parametrize("command", [["serve"], ["check-config"], ["token", "--user", "1"]])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('listn = ""', 'listn: unknown; did you mean "listen"?'),
        ("threads = 0", "threads: needs a whole number"),
        ("", "token_keys: needed to serve"),
        (f'broker = "redix:"\ntoken_keys = ["{KEY}"]', 'broker = "redix:"'),
    ],
)
def test_a_bad_configuration_ends_every_command(
    folder: Path, command: list[str], content: str, said: str
) -> None:
    (folder / "push-server.toml").write_text(content)
    assert refused(*command).startswith(said)
    assert [path.name for path in folder.iterdir()] == ["push-server.toml"]


# token


def test_token_prints_a_token(folder: Path) -> None:
    (folder / "push-server.toml").write_text(f'token_keys = ["{KEY}old", "{KEY}"]')
    result = invoke(
        "token", "--user", "42", "--subscribe", "node:*", "--subscribe", "news",
        "--publish", "chat:*", "--ttl", "60", "--session", "s1", "--name", "Zoë",
    )
    assert result.exit_code == 0
    now = time.time()
    # The newest key signs.
    grant = TokenKeys([KEY]).verify(result.stdout.strip(), now)
    assert (grant.user, grant.session) == ("42", "s1")
    assert grant.claims["name"] == "Zoë"
    assert grant.may_subscribe("node:7")
    assert grant.may_subscribe("news")
    assert not grant.may_subscribe("chat:lobby")
    assert grant.may_publish("chat:lobby")
    assert not grant.may_publish("news")
    assert grant.expires - grant.issued == 60
    assert abs(grant.issued - now) < 30


@pytest.mark.parametrize(
    "arguments",
    [
        ["--user", ""],
        ["--user", "a b"],
        ["--user", "1", "--subscribe", "$sys"],
        ["--user", "1", "--publish", "a*b"],
        ["--user", "1", "--ttl", "0"],
        ["--user", "1", "--ttl", "604801"],
        [],
    ],
)
def test_token_refuses_what_no_server_would_take(folder: Path, arguments: list[str]) -> None:
    (folder / "push-server.toml").write_text(f'token_keys = ["{KEY}"]')
    result = invoke("token", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


# publish


def test_publish_an_argument(push: PushServer) -> None:
    config = str(push.config_file)
    result = invoke("publish", "--config", config, "cli:one", '{"a": 1}', "--id", "once")
    assert result.exit_code == 0, result.output
    first = json.loads(result.stdout)
    assert (first["offset"], first["id"], first["duplicate"]) == (1, "once", False)
    again = invoke("publish", "--config", config, "cli:one", '{"a": 1}', "--id", "once")
    assert json.loads(again.stdout) == {**first, "duplicate": True}


def test_publish_lines(push: PushServer) -> None:
    lines = "".join(f'{{"n": {number}}}\n\n' for number in range(700))
    result = invoke("publish", "--config", str(push.config_file), "cli:lines", "-", input=lines)
    assert result.exit_code == 0, result.output
    assert result.stderr == "700 published\n"
    kept = push.api("history", channel="cli:lines", since=0, limit=1000)["publications"]
    assert [publication["data"]["n"] for publication in kept] == list(range(700))


def test_publish_lines_that_say_where_they_go(push: PushServer) -> None:
    config = str(push.config_file)
    line = '{"channel": "cli:each", "data": 1, "id": "line"}\n'
    other = '{"channel": "cli:other", "data": 2}'
    result = invoke("publish", "--config", config, "-", input=line + other)
    assert result.stderr == "2 published\n"
    invoke("publish", "--config", config, "-", input=line)
    for channel, data in (("cli:each", 1), ("cli:other", 2)):
        history = push.api("history", channel=channel)
        assert [kept["data"] for kept in history["publications"]] == [data]
    for wrong, said in (("7", "line 1 is no {"), ('{"channel": "cli:each"}', "line 1: params")):
        result = invoke("publish", "--config", config, "-", input=wrong)
        assert result.exit_code == 1 and f"push-server: {said}" in result.stderr


def test_publish_stops_at_a_line_that_is_not_json(push: PushServer) -> None:
    result = invoke(
        "publish", "--config", str(push.config_file), "cli:stop", "-", input="1\n2\n{\n4\n"
    )
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("2 published\npush-server: line 3 is not JSON")
    assert push.api("history", channel="cli:stop", since=0)["offset"] == 2


def test_a_line_is_published_before_the_next_is_written(push: PushServer) -> None:
    with start("publish", "--config", str(push.config_file), "cli:tail", "-") as process:
        assert process.stdin is not None
        with push.sse(push.token(sub_ch=["cli:tail"]), "cli:tail") as listener:
            for number in range(3):
                process.stdin.write(f"{number}\n")
                process.stdin.flush()
                assert listener.take(1)[0].value["data"] == number
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_publish_refusals(push: PushServer, folder: Path) -> None:
    config = ["--config", str(push.config_file)]
    assert invoke("publish", *config, "cli:bad", "{").exit_code == 2
    assert invoke("publish", *config, "cli:bad").exit_code == 2
    assert invoke("publish", *config, "cli:bad", "-", "--id", "x", input="1").exit_code == 2
    assert refused("publish", *config, "$sys", "1", status=1).startswith("channel_malformed: ")
    assert refused("publish", *config, "cli:bad", "1", "--key", "cmss") == (
        'api_keys.cmss: unknown; did you mean "cms"?'
    )
    assert refused("publish", "cli:bad", "1").startswith("api_keys: needed to publish")
    closed = f"http://127.0.0.1:{free_port()}"
    said = refused("publish", *config, "--url", closed, "cli:bad", "1", status=1)
    assert said == f"unreachable: No connection to {closed}/api."


# listen


@contextmanager
def start(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "push_server", *arguments],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("PUSH_SERVER_")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def read(stream: IO[str] | None) -> Iterator[dict[str, Any]]:
    assert stream is not None
    return map(json.loads, stream)


def test_listen_prints_as_it_comes_and_resumes(
    push_server_factory: Callable[..., PushServer],
) -> None:
    push = push_server_factory(broker="sqlite")
    config = ["--config", str(push.config_file)]
    with start("listen", *config, "cli:news", "--user", "9") as process:
        out, said = read(process.stdout), read(process.stderr)
        hello = next(said)
        assert hello["type"] == "hello"
        assert hello["channels"] == ["user:9", "cli:news"]
        push.api("publish", channel="cli:news", data="a")
        push.api("publish", channel="user:9", data="b")
        first = next(out)
        assert first == {
            "channel": "cli:news", "offset": 1, "id": first["id"], "data": "a"
        }
        assert next(out)["data"] == "b"
        push.kill()
        assert next(said)["type"] == "disconnected"
        push.start()
        push.api("publish", channel="cli:news", data="c")
        assert next(out)["data"] == "c"
        kinds = [next(said)["type"]]
        while kinds[-1] != "recovered":
            kinds.append(next(said)["type"])
        assert kinds[-2:] == ["hello", "recovered"]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert list(out) == []


def test_listen_ends_when_the_session_is_revoked(push: PushServer) -> None:
    with start("listen", "--config", str(push.config_file), "--user", "cli-revoked") as process:
        said = read(process.stderr)
        assert next(said)["type"] == "hello"
        push.api("revoke", user="cli-revoked")
        assert next(said)["type"] == "revoked"
        assert process.wait(PATIENCE) == 1


def test_listen_says_what_cannot_be_mended(push: PushServer, folder: Path) -> None:
    config = ["--config", str(push.config_file)]
    said = refused("listen", *config, "cli:x", "--token", "x.y", status=1)
    assert said.startswith("401 token_invalid: ")
    for arguments in ([], ["a b"], ["node:*"], ["$sys"]):
        assert invoke("listen", *config, *arguments).exit_code == 2
    assert refused("listen", *config, "--url", "push.example.com", "a").startswith("--url: needs")
    assert refused("listen", "a").startswith("token_keys: needed")


# serve


def test_serve_says_in_one_line_why_it_cannot_start(folder: Path, push: PushServer) -> None:
    (folder / "push-server.toml").write_text(
        f'listen = "127.0.0.1:{push.port}"\ninternal_listen = "127.0.0.1:0"\nbroker = "memory:"\n'
        f'token_keys = ["{KEY}"]'
    )
    ended = subprocess.run(
        [sys.executable, "-m", "push_server", "serve"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("push-server: listen: cannot listen on")
    assert "Traceback" not in ended.stderr
