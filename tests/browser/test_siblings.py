"""What a page on a sibling subdomain can do to a page of the site (47)."""

import pytest
from driver import Browser
from waiting import wait_for
from world import World, in_both_browsers

TRY = """
if (arguments[0]) document.domain = arguments[0];
try {
  return page.push.info().state;
} catch (error) {
  return error.name;
}
"""


@in_both_browsers
@pytest.mark.parametrize(("domain", "reached"), [("example.test", "live"), ("", "SecurityError")])
def test_47_a_sibling_that_opts_in_too(
    browser: Browser, world: World, domain: str, reached: str
) -> None:
    # With the bridge document.domain the page has opened itself to all that do the same: that
    # is the risk that the documents and the doctor tell of. With postMessage it has not.
    tab = browser.open(world.site.url("evil.example.test", path="/page.js"))
    user = f"sibling-{domain.partition('.')[0]}"
    # Not in a frame of its own: then the push host's frame does not come at all.
    tab.run("window.page = open(arguments[0])", world.url(user, domain=domain))
    try:
        wait_for(
            lambda: world.push.api("channels", prefix=f"user:{user}")["channels"], "it is live"
        )
        assert tab.run(TRY, "") == "SecurityError", "whoever does not opt in has no access"
        wait_for(lambda: tab.run(TRY, "example.test") == reached)
    finally:
        tab.run("page.close()")
