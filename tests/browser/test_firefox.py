"""Tests of the other modules again, in Firefox.

The two browsers differ where this product lives: in frames and `document.domain`, in locks and
broadcasts, in what is kept for the back button, in how a WebSocket fails.
"""

from collections.abc import Callable, Iterator

import pytest
from driver import Browser
from firefox import Firefox, missing_firefox
from test_bridge import test_bridge_on_http
from test_classic import (
    FRAME,
    HARD,
    Plain,
    test_a_forever_frame_says_when_it_ends,
    test_client_pull_without_a_script,
    test_event_source,
    test_interval_poll,
    test_jsonp,
    test_live_picture,
    test_xhr_streaming,
)
from test_faults import test_killed_and_started_again_the_page_catches_up
from test_pages import (
    test_a_notification_reaches_its_user_and_nobody_else,
    test_the_only_page_comes_back_and_catches_up,
)
from test_sharing import (
    leader_way,
    test_an_heir_asks_once_for_all,
    test_another_user_ends_the_one_before_at_once,
    test_eight_tabs_one_connection,
    test_no_gap_and_no_duplicate_when_the_leader_goes,
    way,
)
from world import World, expect, info

__all__ = [
    "leader_way",
    "test_a_forever_frame_says_when_it_ends",
    "test_a_notification_reaches_its_user_and_nobody_else",
    "test_an_heir_asks_once_for_all",
    "test_another_user_ends_the_one_before_at_once",
    "test_bridge_on_http",
    "test_client_pull_without_a_script",
    "test_eight_tabs_one_connection",
    "test_event_source",
    "test_interval_poll",
    "test_jsonp",
    "test_killed_and_started_again_the_page_catches_up",
    "test_live_picture",
    "test_no_gap_and_no_duplicate_when_the_leader_goes",
    "test_the_only_page_comes_back_and_catches_up",
    "test_xhr_streaming",
    "way",
]


@pytest.fixture(scope="module")
def warm_firefox() -> Iterator[Firefox]:
    if reason := missing_firefox():
        pytest.skip(reason)
    with Firefox() as browser:
        yield browser


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The users of the other one have a history by now."""
    with World() as shared:
        yield shared


@pytest.fixture
def browser(warm_firefox: Firefox) -> Iterator[Browser]:
    yield warm_firefox
    warm_firefox.close_tabs()


@pytest.mark.parametrize(
    ("cluster", "bridge"),
    [("", "document.domain"), ("?0", "document.domain"), ("?1", "postMessage")],
)
def test_bridge_in_a_secure_context(
    browser: Browser, make_world: Callable[..., World], cluster: str, bridge: str
) -> None:
    """Unlike Chromium it honours document.domain there unless a side asks it not to."""
    world = make_world("site.localhost")
    tab = world.open(browser, "alice", domain="site.localhost", cluster=cluster)
    assert info(tab)["bridge"] == bridge
    world.notify("alice", 1)
    expect(tab, [1])


def test_forever_frame(browser: Browser, world: World) -> None:
    page = Plain(browser, world, "firefox")
    site = world.site.origin(world.host)
    url = f"{page.url}/subscribe/frame?channel={page.channel}&origin={site}&ticket={page.ticket()}"
    page.tab.run(FRAME, url, page.url)
    page.subscribed()
    page.publish(*HARD)
    page.expect(*HARD)
