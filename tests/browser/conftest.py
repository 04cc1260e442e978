"""Fixtures of the browser tests: warm browsers, and a world for those who need no other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from driver import Browser, missing
from firefox import Firefox, missing_firefox
from world import World

BROWSERS: dict[str, tuple[type[Browser], Callable[[], str]]] = {
    "Chromium": (Browser, missing),
    "Firefox": (Firefox, missing_firefox),
}
TRANSPORTS = Path(__file__).resolve().parents[2] / "docs/transports.rst"


@pytest.fixture(scope="session")
def warm_browser() -> Iterator[Callable[..., Browser]]:
    """Gives the browser of this name, the same for the whole run, or the second one."""
    with ExitStack() as browsers:

        @cache
        def warm(name: str, number: int = 1) -> Browser:
            start, absent = BROWSERS[name]
            if reason := absent():
                pytest.skip(reason)
            return browsers.enter_context(start())

        yield warm


@pytest.fixture
def browser(
    request: pytest.FixtureRequest, warm_browser: Callable[..., Browser]
) -> Iterator[Browser]:
    """Chromium, or what `in_both_browsers` says; the tabs that the test opened are closed."""
    browser = warm_browser(getattr(request, "param", "Chromium"))
    yield browser
    browser.close_tabs()


@pytest.fixture
def other_browser(warm_browser: Callable[..., Browser]) -> Iterator[Browser]:
    """Another Chromium, with cookies of its own."""
    browser = warm_browser("Chromium", 2)
    yield browser
    browser.close_tabs()


@pytest.fixture(scope="session")
def shared_world() -> Iterator[Callable[[str], World]]:
    """Gives the world of the browser of this name."""
    with ExitStack() as worlds:
        yield cache(lambda name: worlds.enter_context(World()))


@pytest.fixture
def world(browser: Browser, shared_world: Callable[[str], World]) -> World:
    """A world with default settings. A test takes users that no other test takes."""
    return shared_world(browser.name)


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    """Makes worlds with settings of their own; they end with the test."""
    with ExitStack() as worlds:
        yield lambda *args, **settings: worlds.enter_context(World(*args, **settings))


@pytest.fixture(scope="session")
def documented() -> dict[tuple[str, str], str]:
    """What docs/transports.rst says of a transport in a browser."""
    said: dict[tuple[str, str], str] = {}
    for table in publish_doctree(TRANSPORTS.read_text("utf-8")).findall(nodes.table):
        (_, *heads), *rows = (
            [cell.astext() for cell in row.findall(nodes.entry)] for row in table.findall(nodes.row)
        )
        if heads == list(BROWSERS):
            said |= {
                (row[0], name): cell
                for row in rows
                for name, cell in zip(heads, row[1:], strict=True)
            }
    return said


@pytest.fixture
def shown(
    browser: Browser,
    documented: dict[tuple[str, str], str],
    record_property: Callable[[str, object], None],
) -> Callable[[str, str], None]:
    """Ends a test that has used a transport: what it has seen must be what the document says.

    It also stands in the report of the run (pytest's `--junitxml`), for tools/browser_table.
    """

    def compare(transport: str, seen: str) -> None:
        record_property("transport", transport)
        record_property("browser", f"{browser.name} {browser.version}")
        record_property("seen", seen)
        said = documented.get((transport, browser.name), "nothing")
        assert seen == said, f"docs/transports.rst says {said}; `make docs` would mend it"

    return compare
