"""WordPress as people see it: two browsers, a bell, a note, and what ends it."""


import pytest
from driver import Browser, Tab
from waiting import wait_for
from wordpress.site import Visitor, WordPress
from wordpress.story import comment

READY = """
window.line || pushServer.ready.then((line) => { window.line = line; });
return window.line && line.info().state === "live";
"""
NOTES = "return [...document.querySelectorAll('.pn-toast strong')].map((note) => note.textContent)"
COUNTER = """
const counter = document.querySelector(".pn-counter");
return counter && !counter.hidden ? counter.textContent : "";
"""
ASKED = """
return performance.getEntriesByType("resource").filter(
  ({name}) => name.startsWith(location.origin) && name.includes(".php")).length
"""


@pytest.fixture
def bob(wordpress: WordPress) -> Visitor:
    return wordpress.visitor("bob")


@pytest.fixture
def post(wordpress: WordPress) -> int:
    return int(wordpress.sql("SELECT ID FROM wp_posts WHERE post_name = 'hello-alice'")[0][0])


def come_in(browser: Browser, site: WordPress, user: str) -> Tab:
    """A tab with a page of this user that is live."""
    tab = browser.tab()
    tab.cdp("Network.clearBrowserCookies")
    tab.goto(site.origin + "/wp-login.php")
    tab.run(
        "for (const name of ['user_login', 'user_pass'])"
        " document.getElementById(name).value = arguments[0];"
        "document.getElementById('wp-submit').click()",
        user,
    )
    tab.wait("return location.pathname.startsWith('/wp-admin')")
    tab.goto(site.origin + "/members/")
    tab.wait(READY)
    return tab


def test_a_comment_is_seen_at_once_on_every_page_and_read_on_one(
    browser: Browser, other_browser: Browser, wordpress: WordPress, bob: Visitor, post: int
) -> None:
    one = come_in(browser, wordpress, "alice")
    two = come_in(other_browser, wordpress, "alice")
    assert one.run("return line.info().bridge") == "document.domain"
    comment(bob, post, "<b>Hello</b>")
    for tab in (one, two):
        tab.wait("return document.querySelector('.pn-toast')")
        assert tab.run(NOTES) == ["Bob commented on “Hello of Alice”"]
        assert tab.run(COUNTER) == "1"
        # The block on the page shows it, too.
        assert "Hello" in tab.run("return document.querySelector('.pn-list').textContent")
    one.run("document.querySelector('#wpadminbar .pn-bell').click()")
    for tab in (one, two):
        tab.wait(f"return !(() => {{ {COUNTER} }})()")
    link = one.run("return document.querySelector('.pn-panel a').href")
    assert link.startswith(f"{wordpress.origin}/hello-alice/#comment-")


def test_a_page_asks_the_site_once_and_misses_nothing(
    browser: Browser, wordpress: WordPress, bob: Visitor, post: int
) -> None:
    tab = come_in(browser, wordpress, "alice")
    tab.goto("about:blank")
    comment(bob, post, "Between two pages")
    wordpress.settle()
    tab.goto(wordpress.origin + "/hello-alice/")
    tab.wait(READY)
    tab.wait(COUNTER)
    comment(bob, post, "Live")
    tab.wait("return document.querySelector('.pn-toast')")
    assert tab.run(ASKED) == 1
    assert tab.run(COUNTER) == "2"


def test_the_administration_never_opens_itself_to_other_subdomains(
    browser: Browser, wordpress: WordPress
) -> None:
    tab = come_in(browser, wordpress, "admin")
    tab.goto(wordpress.origin + "/wp-admin/")
    tab.wait(READY)
    tab.wait("return line.info().bridge === 'postMessage'")
    assert tab.run("return document.domain") == "www.wp.test"


def test_a_new_role_is_a_new_token_without_a_new_page(
    browser: Browser, wordpress: WordPress
) -> None:
    tab = come_in(browser, wordpress, "dora")
    first = tab.run("return line.info().connection")
    user = "get_user_by('login', 'dora')->ID"
    wordpress.probe(f"(new WP_User({user}))->add_role('author');")
    tab.wait(
        "return line.info().state === 'live' && line.info().connection !== arguments[0]", first
    )
    wordpress.probe(f"(new WP_User({user}))->set_role('contributor');")
    wordpress.settle()
    wordpress.probe(f"return push_notify({user}, 'Still told');")
    tab.wait("return document.querySelector('.pn-toast')")


def test_a_logout_in_one_tab_ends_the_others(
    browser: Browser, other_browser: Browser, wordpress: WordPress
) -> None:
    tab = come_in(browser, wordpress, "carol")
    elsewhere = come_in(other_browser, wordpress, "carol")
    leaving = browser.open(wordpress.origin + "/members/")
    leaving.wait(READY)
    leaving.goto(leaving.run("return document.querySelector('#wp-admin-bar-logout a').href"))
    tab.wait("return line.info().state === 'revoked'")
    user = "get_user_by('login', 'carol')->ID"
    wordpress.probe(f"return push_notify({user}, 'For one of them');")
    elsewhere.wait("return document.querySelector('.pn-toast')")
    wordpress.settle()
    assert tab.run(NOTES) == []
    wait_for(lambda: elsewhere.run(NOTES) == ["For one of them"], "and only once")


def test_a_page_that_was_left_open_does_nothing_for_who_comes_next(
    browser: Browser, wordpress: WordPress
) -> None:
    tab = come_in(browser, wordpress, "alice")
    for user in ("bob", "alice"):
        wordpress.probe(f"return push_notify(get_user_by('login', '{user}')->ID, 'For {user}');")
    tab.wait(COUNTER)
    seen = "return get_user_meta(get_user_by('login', 'bob')->ID, 'push_server_seen', true);"
    before = wordpress.probe(seen)
    come_in(browser, wordpress, "bob")
    tab.wait("return ['revoked', 'signed_out'].includes(line.info().state)")
    tab.run("document.querySelector('#wpadminbar .pn-bell').click()")
    tab.wait("return performance.getEntriesByType('resource').some("
             "({name}) => name.endsWith('push_server_seen'))")
    wordpress.settle()
    assert wordpress.probe(seen) == before


def test_the_owner_tests_the_whole_way(browser: Browser, wordpress: WordPress) -> None:
    tab = come_in(browser, wordpress, "admin")
    tab.goto(wordpress.origin + "/wp-admin/options-general.php?page=push-server")
    tab.run("document.querySelector('[name=test]').click()")
    tab.wait(
        "return document.querySelector('#push-server-check-browser[data-status=ok]')"
    )
    tab.cdp(
        "Emulation.setDeviceMetricsOverride", width=390, height=780, deviceScaleFactor=1,
        mobile=True,
    )
    assert tab.run("return document.documentElement.scrollWidth") == 390


def test_the_bell_is_there_on_a_phone(
    browser: Browser, wordpress: WordPress, bob: Visitor, post: int
) -> None:
    tab = come_in(browser, wordpress, "alice")
    tab.cdp(
        "Emulation.setDeviceMetricsOverride", width=390, height=780, deviceScaleFactor=1,
        mobile=True,
    )
    comment(bob, post, "On the road")
    tab.wait("return document.querySelector('.pn-toast')")
    tab.run("document.querySelector('#wpadminbar .pn-bell').click()")
    panel = tab.wait(
        "const box = document.querySelector('#wpadminbar .pn-panel').getBoundingClientRect();"
        "return box.width && [box.left, box.right, box.height]"
    )
    assert panel[0] >= 0
    assert panel[1] <= 390
    assert panel[2] > 100
    widths = tab.run(
        "return ['ul', 'li'].map((name) =>"
        " document.querySelector(`#wpadminbar .pn-panel ${name}`).getBoundingClientRect().width)"
    )
    assert widths[0] == widths[1], "what is in the admin bar floats by itself"
