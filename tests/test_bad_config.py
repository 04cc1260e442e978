"""A configuration that cannot work: a line with key and remedy, status 2, and nothing begun."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KEY = 'token_keys = ["a token key of 32 characters...."]'
FREE = 'listen = "127.0.0.1:0"\ninternal_listen = "127.0.0.1:0"'

# What is wrong: the lines of the configuration, the key that is named, the remedy that is named.
BAD: Mapping[str, tuple[str, str, str]] = {
    "unknown key": (f"{KEY}\n{FREE}\nlisen = 1", "lisen", 'did you mean "listen"?'),
    "unknown key of a namespace": (
        f"{KEY}\n{FREE}\n[namespace.chat]\nhistory = 1", "namespace.chat.history",
        'did you mean "history_'),
    "wrong type": (f'{KEY}\n{FREE}\nconnections = "many"', "connections", "a whole number from"),
    "text for a list": (
        f'{KEY}\n{FREE}\nsite_origins = "https://www.example.com"', "site_origins",
        'such as ["one", "two"]'),
    "port in use": (
        f'{KEY}\nlisten = "127.0.0.1:PORT"\ninternal_listen = "127.0.0.1:0"', "listen",
        "ss -ltnp sport = :PORT"),
    "internal port in use": (
        f'{KEY}\nlisten = "127.0.0.1:0"\ninternal_listen = "127.0.0.1:PORT"', "internal_listen",
        "ss -ltnp sport = :PORT"),
    "address of another host": (
        f'{KEY}\nlisten = "192.0.2.1:6660"', "listen", "an address of this host"),
    "no key file": (f'{FREE}\ntoken_keys_file = "none"', "token_keys_file", "with a key in each"),
    "unreadable key file": (f'{FREE}\ntoken_keys_file = "secret"', "token_keys_file", "chmod 640"),
    "world-readable key file": (f'{FREE}\ntoken_keys_file = "open"', "token_keys_file",
                                "chmod o= open"),
    "public internal listener": (
        f'{KEY}\nlisten = "127.0.0.1:0"\ninternal_listen = "0.0.0.0:6667"', "internal_listen",
        "use 127.0.0.1, a private address or unix:/path"),
    "no broker of that name": (f'{KEY}\n{FREE}\nbroker = "nosql:x"', "broker", "redis://host:6379"),
    "no broker at all": (f'{KEY}\n{FREE}\nbroker = "redis"', "broker", '"redis://HOST'),
    "a Redis without a host": (f'{KEY}\n{FREE}\nbroker = "redis:///0"', "broker", "no host"),
    "half an address of IPv6": (f'{KEY}\n{FREE}\nbroker = "redis://[::1/0"', "broker", "redis://"),
    "a database that is no number": (
        f'{KEY}\n{FREE}\nbroker = "redis://127.0.0.1/x"', "broker", "is a number"),
    "a folder that is not there": (
        f'{KEY}\n{FREE}\nbroker = "sqlite:none/push.db"', "broker", "name another file"),
}


@pytest.mark.parametrize("what", BAD)
def test_one_line_says_it(what: str, tmp_path: Path) -> None:
    if what == "unreadable key file" and os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("needs setpriv: root reads everything")
    lines, key, remedy = BAD[what]
    for name, mode in (("secret", 0o000), ("open", 0o644)):
        (tmp_path / name).write_text("k" * 40)
        (tmp_path / name).chmod(mode)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        (tmp_path / "bad.toml").write_text(lines.replace("PORT", port))
        before = sorted(tmp_path.iterdir())
        command = [sys.executable, "-m", "push_server", "serve", "--config", "bad.toml"]
        if os.geteuid() == 0 and shutil.which("setpriv"):
            command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False, timeout=30,
        )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    said = done.stderr.removeprefix("push-server: ")
    assert said.startswith((f"{key}: ", f"{key} = ")), said
    assert remedy.replace("PORT", port) in said, said
    assert sorted(tmp_path.iterdir()) == before
