"""Fixtures that all tests may use."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from harness import PushServer
from redis_server import RedisServer, program
from wordpress.site import WordPress, missing, started


def pytest_configure(config: pytest.Config) -> None:
    # Who starts a run with "&" has it ignore SIGINT, and with it all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A thousand servers and commands are started: none shall compile again what another has.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(config.rootpath / ".pytest_cache/bytecode")


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
