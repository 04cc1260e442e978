"""Everything at once: a push server, the site beside it, and a word on what to try.

Makes what it needs in one directory (``.demo``): fresh keys, kept between runs, and the push
server's configuration, written anew each time. Starts both servers, waits until both answer,
and ends both on Ctrl-C. If one of them ends by itself, the other is ended too.

    python -m cms_module.demo_site.run [--port 8080] [--push-port 6660] [--dir .demo]
"""

import argparse
import base64
import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

DOMAIN = "site.localhost"
START_SECONDS = 20.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.05
LOG_LINES = 15
ENDS = (signal.SIGINT, signal.SIGTERM)


class CannotRun(Exception):
    """Raised if the demo cannot be shown; the message says why in one line."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is."""

    folder: Path
    port: int
    push_port: int
    api_port: int

    @property
    def site_url(self) -> str:
        return f"http://www.{DOMAIN}:{self.port}"

    @property
    def push_url(self) -> str:
        return f"http://push.{DOMAIN}:{self.push_port}"


def make_keys(folder: Path) -> Path:
    """The file with the keys, which only its owner can read."""
    path = folder / "keys.json"
    if not path.exists():
        keys = {
            "token_key": secrets.token_urlsafe(32),
            "api_key": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
            "secret": secrets.token_urlsafe(32),
        }
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w", encoding="utf-8") as file:
            json.dump(keys, file, indent=1)
    return path


def write_config(places: Places, keys: dict[str, str]) -> None:
    """The push server's configuration for this demo. JSON spells these values as TOML does."""
    path = places.folder / "push-server.toml"
    values: dict[str, object] = {
        "listen": f"127.0.0.1:{places.push_port}",
        "internal_listen": f"127.0.0.1:{places.api_port}",
        "public_url": places.push_url,
        "site_origins": [places.site_url],
        "document_domain": DOMAIN,
        "broker": f"sqlite:{places.folder / 'push.db'}",
        "token_keys": [keys["token_key"]],
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    lines += [f"api_keys = {{ demo = {json.dumps(keys['api_key'])} }}"]
    # A picture takes 30 publications a second and should still be there after lunch.
    lines += ["", "[namespace.draw]", "history_size = 20000", "history_ttl = 86400"]
    lines += ["", "[namespace.slides]", "history_size = 10", "history_ttl = 86400", ""]
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


def check_port(port: int, option: str) -> None:
    """Raises `CannotRun` if something listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            raise CannotRun(
                f"port {port} is taken ({error.strerror});"
                f' choose another: make demo ARGS="{option} NUMBER"'
            ) from None


def free_port() -> int:
    """A loopback port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """One of the two servers."""

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self._log = log
        file: IO[bytes]
        with log.open("wb") as file:
            # A session of its own: Ctrl-C reaches this process alone, which ends them in order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises `CannotRun`, with the last words, if it has ended."""
        status = self.process.poll()
        if status is not None:
            words = self._log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
            raise CannotRun("\n  ".join([f"the {self.name} ended (status {status}):", *words]))

    def stop(self) -> None:
        """End it: politely, then not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def answers(port: int, path: str, host: str) -> bool:
    """Whether a server answers this request with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path, headers={"Host": host})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def wait_until_ready(children: Sequence[Child], places: Places) -> None:
    """Return when both answer. Raises `CannotRun` if that takes too long."""
    open_doors = [
        ("push server", places.api_port, "/ready", f"127.0.0.1:{places.api_port}"),
        ("site", places.port, "/", places.site_url.removeprefix("http://")),
    ]
    deadline = time.monotonic() + START_SECONDS
    for name, port, path, host in open_doors:
        while not answers(port, path, host):
            for child in children:
                child.check()
            if time.monotonic() > deadline:
                raise CannotRun(f"the {name} does not answer on port {port}")
            time.sleep(POLL_SECONDS)


def serve(places: Places) -> Child:
    """The push server, with what `write_config` wrote."""
    config = places.folder / "push-server.toml"
    arguments = ["serve", "--config", str(config)]
    return Child("push server", "push_server", arguments, places.folder / "push-server.log")


def start(places: Places) -> list[Child]:
    """Both servers, running."""
    keys_file = make_keys(places.folder)
    write_config(places, json.loads(keys_file.read_text("utf-8")))
    site = [
        *("--listen", f"127.0.0.1:{places.port}", "--url", places.site_url),
        *("--push-url", places.push_url, "--api-url", f"http://127.0.0.1:{places.api_port}"),
        *("--keys", str(keys_file)),
    ]
    children: list[Child] = []
    try:
        children.append(serve(places))
        children.append(Child("site", "cms_module.demo_site", site, places.folder / "site.log"))
        wait_until_ready(children, places)
    except BaseException:
        stop(children)
        raise
    return children


def stop(children: Sequence[Child]) -> None:
    """End both, the site first, so that nothing is published to nobody."""
    for child in reversed(children):
        child.stop()


def welcome(places: Places) -> str:
    """What to do now."""
    return f"""
  Linden House is open:  {places.site_url}

  1. Come in as Alice. Open a private window beside it and come in as Bob.
  2. As Alice, tell Bob something: Bob's bell counts it at once.
  3. Draw together on the whiteboard, talk in the chat, present the slides.
  4. "Backstage" shows what the push server ({places.push_url}) is doing.

  Keys, configuration and logs are in {places.folder}. Ctrl-C ends it all.
"""


def interrupt(*_: object) -> None:
    """End the demo; whoever asks for that twice must not leave servers behind."""
    for name in ENDS:
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the demo until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m cms_module.demo_site.run", description="The push server and a demo site."
    )
    parser.add_argument("--port", type=int, default=8080, help="of the site (%(default)s)")
    parser.add_argument(
        "--push-port", type=int, default=6660, help="of the push server (%(default)s)"
    )
    parser.add_argument("--dir", type=Path, default=Path(".demo"), help="for keys and logs")
    options = parser.parse_args(arguments)
    for name in ENDS:
        signal.signal(name, interrupt)
    children: list[Child] = []
    try:
        check_port(options.port, "--port")
        check_port(options.push_port, "--push-port")
        options.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        places = Places(options.dir.resolve(), options.port, options.push_port, free_port())
        children = start(places)
        sys.stdout.write(welcome(places))
        sys.stdout.flush()
        while True:
            time.sleep(0.5)
            for child in children:
                child.check()
    except KeyboardInterrupt:
        sys.stdout.write("\n  Goodbye.\n")
        return 0
    except (CannotRun, OSError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    finally:
        stop(children)


if __name__ == "__main__":
    sys.exit(main())
