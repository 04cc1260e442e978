"""Fixtures that all tests may use, and how a run is shared between processes."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import PurePath
from typing import Any

import pytest
from harness import PushServer
from redis_server import RedisServer, program
from wordpress.site import WordPress, missing, started

SHARED = {
    "wordpress": "wordpress",
    "test_wordpress_pages": "wordpress",
    "test_bayeux_clients": "bayeux",
    "test_bayeux_pages": "bayeux",
    "test_sse_clients": "bayeux",
}
"""Files, or folders, that one process takes together, because of what they set up."""

LONG = ("wordpress", "test_topology", "test_packaging", "test_doctor", "test_soak_short")
"""What is begun with, so that no process works alone in the end."""


def part_of(nodeid: str) -> str:
    """What of a run stays in one process: a file, or several."""
    names = PurePath(nodeid.partition("::")[0]).with_suffix("").parts
    return next((SHARED[name] for name in names if name in SHARED), names[-1])


def pytest_configure(config: pytest.Config) -> None:
    # Who starts a run with "&" has it ignore SIGINT, and with it all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A thousand servers and commands are started: none shall compile again what another has.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(config.rootpath / ".pytest_cache/bytecode")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        order = {name: number for number, name in enumerate(LONG)}
        items.sort(key=lambda item: order.get(part_of(item.nodeid), len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give out whole parts, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Parts(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return part_of(nodeid)

    config.option.loadscopereorder = False
    return Parts(config, log)


@pytest.fixture(scope="session")
def push() -> Iterator[PushServer]:
    """A push server with default settings, shared by all tests of the run.

    A test that uses it takes channel and user names that no other test takes.
    """
    with PushServer() as server:
        yield server


@pytest.fixture(scope="module")
def unharmed(push: PushServer) -> Iterator[None]:
    """After the module: the shared server is alive and well, and nothing was its own fault."""
    errors, log = len(push.server_errors), len(push.log)
    yield
    push.check_healthy(log)
    assert push.server_errors[errors:] == []


@pytest.fixture
def push_server_factory() -> Iterator[Callable[..., PushServer]]:
    """Makes push servers with settings of their own; they end with the test."""
    with ExitStack() as servers:
        yield lambda **settings: servers.enter_context(PushServer(**settings))


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Redis that loses nothing, shared by all tests of the run; each takes its own prefix."""
    if program() is None:
        pytest.skip("no Redis on this machine (Debian package redis-tools)")
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture(scope="session")
def wordpress() -> Iterator[WordPress]:
    """A WordPress with the plugin, and a push server for it, shared by all tests of the run."""
    if reason := missing():
        pytest.skip(f"WordPress {reason}")
    with started() as site:
        yield site
