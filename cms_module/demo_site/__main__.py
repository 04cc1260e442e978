"""The site as a server of its own, beside a push server that runs already.

The keys come from a file (``--keys keys.json``) or from the environment; what stands in the
environment wins. They are called ``token_key`` and ``api_key``, as the push server has them, and
``secret``, which is this site's own: `DEMO_TOKEN_KEY`, `DEMO_API_KEY`, `DEMO_SECRET`.

The only importer of waitress on this side of the system.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from waitress.server import create_server

from cms_module.demo_site.door import Settings
from cms_module.demo_site.site import DemoSite
from push_server.client import PushClient

LISTEN = "127.0.0.1:8080"
DOMAIN = "site.localhost"
PUSH_URL = f"http://push.{DOMAIN}:6660"
API_URL = "http://127.0.0.1:6667"
THREADS = 8
KEYS = ("token_key", "api_key", "secret")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cms_module.demo_site", description="A small site that uses push."
    )
    parser.add_argument("--listen", default=LISTEN, help="address and port (default %(default)s)")
    parser.add_argument("--url", help="the site as browsers see it (default: www.site.localhost)")
    parser.add_argument("--push-url", default=PUSH_URL, help="push host as browsers see it")
    parser.add_argument("--api-url", default=API_URL, help="internal API, http://… or unix:/…")
    parser.add_argument("--keys", type=Path, help="JSON file with token_key, api_key and secret")
    return parser.parse_args(arguments)


def read_keys(path: Path | None) -> dict[str, str]:
    """The keys from the file and the environment. Raises `ValueError` naming what is missing."""
    keys: dict[str, str] = json.loads(path.read_text("utf-8")) if path else {}
    for name in KEYS:
        keys[name] = os.environ.get(f"DEMO_{name.upper()}") or keys.get(name, "")
        if not keys[name]:
            raise ValueError(f"no {name}: use --keys FILE, or set DEMO_{name.upper()}")
    return keys


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        keys = read_keys(options.keys)
        settings = Settings(
            site_url=options.url or f"http://www.{DOMAIN}:{options.listen.rpartition(':')[2]}",
            push_url=options.push_url,
            token_key=keys["token_key"],
            secret=keys["secret"],
        )
        client = PushClient(options.api_url, keys["api_key"], name="demo-site")
        server = create_server(
            DemoSite(settings, client), listen=options.listen, threads=THREADS, ident=None
        )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"demo site: {error}\n")
        return 1
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
