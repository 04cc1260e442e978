"""Fixtures of the browser tests: one warm browser, and a world for those who need no other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from driver import Browser, missing
from world import World


@pytest.fixture(scope="session")
def warm_browser() -> Iterator[Browser]:
    """The browser of the whole run."""
    if reason := missing():
        pytest.skip(reason)
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(warm_browser: Browser) -> Iterator[Browser]:
    """The same; the tabs that the test opened are closed after it."""
    yield warm_browser
    warm_browser.close_tabs()


@pytest.fixture(scope="session")
def world(warm_browser: Browser) -> Iterator[World]:
    """A world with default settings. A test takes users that no other test takes."""
    with World() as shared:
        yield shared


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    """Makes worlds with settings of their own; they end with the test."""
    with ExitStack() as worlds:
        yield lambda *args, **settings: worlds.enter_context(World(*args, **settings))
