"""How page and frame talk: document.domain where it works, postMessage everywhere, nobody else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from driver import Browser
from world import World, events, expect, in_both_browsers, info, live

DOMAIN = "document.domain"
POST = "postMessage"


@in_both_browsers
@pytest.mark.parametrize(
    ("page", "cluster", "bridge"),
    [
        # Over plain http browsers honour document.domain whatever the header says.
        ("example.test", "", DOMAIN),
        ("example.test", "?0", DOMAIN),
        ("example.test", "?1", DOMAIN),
        # A page that says nothing goes by what the server says.
        ("server", "", DOMAIN),
        # It may refuse, and another domain is none.
        ("", "", POST),
        ("test", "", POST),
        ("elsewhere.test", "", POST),
    ],
)
def test_bridge_on_http(
    browser: Browser, world: World, page: str, cluster: str, bridge: str
) -> None:
    user = f"bridge-{page}{cluster.replace('?', '-')}"
    tab = world.open(browser, user, domain=page, cluster=cluster, channels="node:1")
    assert info(tab)["bridge"] == bridge, tab.account()
    for number in range(5):
        world.notify(user, number)
    expect(tab, list(range(5)))


@pytest.mark.parametrize(
    ("browser", "cluster", "bridge"),
    [
        ("Chromium", "?0", DOMAIN),
        ("Chromium", "", POST),
        ("Chromium", "?1", POST),
        ("Firefox", "?0", DOMAIN),
        ("Firefox", "", DOMAIN),
        ("Firefox", "?1", POST),
    ],
    indirect=["browser"],
)
def test_bridge_in_a_secure_context(
    browser: Browser, make_world: Callable[..., World], cluster: str, bridge: str
) -> None:
    """``*.localhost`` is one: Chromium refuses, silently, unless both sides ask with ?0."""
    world = make_world("site.localhost")
    tab = world.open(browser, "alice", domain="site.localhost", cluster=cluster)
    assert info(tab)["bridge"] == bridge, tab.account()
    assert tab.run("return window.originAgentCluster") == (bridge == POST)
    for number in range(5):
        world.notify("alice", number)
    expect(tab, list(range(5)))


def test_the_server_alone_can_switch_document_domain_off(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    world = make_world(document_domain="")
    tab = world.open(browser, "alice", domain="example.test")
    assert info(tab)["bridge"] == POST
    assert tab.run("return document.domain") == world.host
    world.notify("alice", "hi")
    expect(tab, ["hi"])


@pytest.mark.parametrize("domain", ["", "example.test"])
def test_payloads_arrive_as_they_are(browser: Browser, world: World, domain: str) -> None:
    user = f"payloads-{domain}"
    payloads: list[Any] = [
        "žluťoučký €  \U0001f600 ​",
        "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
        {"__proto__": {"polluted": True}, "constructor": 1, "type": "revoked", "channel": "x"},
        [None, True, 1.5, -0.25, "", {}, []],
        "line\nbreaks\r\nand \\u0000 \x00 NUL",
        "x" * 100_000,
    ]
    tab = world.open(browser, user, domain=domain)
    for payload in payloads:
        world.notify(user, payload)
    tab.wait("return got.length >= arguments[0]", len(payloads))
    # Compared as text: the WebDriver answer itself would drop a member named __proto__.
    for index, payload in enumerate(payloads):
        same = (
            "const sent = JSON.stringify(JSON.parse(arguments[1]));"
            "return JSON.stringify(got[arguments[0]][1]) === sent"
        )
        assert tab.run(same, index, json.dumps(payload)), payload
    assert tab.run("return window.hacked === undefined && ({}).polluted === undefined")
    assert info(tab)["state"] == "live"


@pytest.mark.parametrize("host", ["evil.example.test", "www.example.test"])
def test_forged_messages_of_a_sibling_frame_are_ignored(
    browser: Browser, world: World, host: str
) -> None:
    """A frame beside the push frame says exactly what the page would say, and says it first.

    Neither another origin nor the right origin in the wrong window is heeded. The same words
    from the frame's parent are, so that silence means a refusal.
    """
    tab = browser.open(world.site.url(world.host))
    answer = tab.command(
        "/execute/async",
        {
            "script": """
                const [push, forgerUrl, token, done] = arguments;
                const add = (url) => new Promise((loaded) => {
                  const frame = document.createElement("iframe");
                  frame.onload = () => loaded(frame.contentWindow);
                  frame.src = url;
                  document.body.append(frame);
                });
                (async () => {
                  const frame = await add(push + "/frame");
                  const forger = await add(forgerUrl);
                  const forged = await new Promise((heard) => {
                    window.addEventListener("message", ({data}) => heard(data.forged));
                    forger.postMessage({token, index: 0}, "*");
                  });
                  const {port1, port2} = new MessageChannel();
                  port1.onmessage = ({data}) => done([forged, data[0].type]);
                  frame.postMessage({push: "connect"}, push, [port2]);
                })();
            """,
            "args": [
                world.site.push_url,
                world.site.url(host, path="/forger"),
                world.push.token("forged"),
            ],
        },
    )
    assert answer == [0, "ready"]


def test_the_frame_itself_compares_origins_exactly(browser: Browser, world: World) -> None:
    """Should the header that keeps other sites from embedding it ever be lost."""
    tab = browser.open(world.site.url(world.host))
    origin = world.site.origin(world.host)
    lists = [
        [origin],
        ["http://other.test", origin],
        [],
        [origin + "0"],
        [origin[:-1]],
        [origin.rpartition(":")[0]],
        [origin.replace("http:", "https:")],
        [origin.replace("www", "*")],
        ["*"],
        [origin + "/"],
        [origin.upper()],
    ]
    heard = tab.command(
        "/execute/async",
        {
            "script": """
                const [lists, url, done] = arguments;
                const heard = lists.map(() => "");
                // What was not asked for may come as well, in half a second after the rest.
                let missing = lists.length + 2;
                const came = () => {
                  missing -= 1;
                  if (missing === 0) setTimeout(() => done(heard), 500);
                };
                lists.forEach((list, index) => {
                  const frame = document.createElement("iframe");
                  frame.onload = () => {
                    const {port1, port2} = new MessageChannel();
                    port1.onmessage = ({data}) => {
                      heard[index] = data[0].type;
                      came();
                    };
                    frame.contentWindow.postMessage({push: "connect"}, "*", [port2]);
                    came();
                  };
                  frame.src = url + "?origins=" + encodeURIComponent(JSON.stringify(list));
                  document.body.append(frame);
                });
            """,
            "args": [lists, world.site.url("push.example.test", path="/frame").rstrip("?")],
        },
    )
    assert heard == ["ready", "ready", *[""] * (len(lists) - 2)]


def test_a_site_that_is_not_listed_gets_no_frame(browser: Browser, world: World) -> None:
    tab = browser.open(world.site.url("evil.example.test", "mallory"))
    tab.wait("return push.info().state === 'retrying'")
    assert [code for _, code, _ in events(tab, "error")] == ["frame_silent"]
    assert "http://evil.example.test" in info(tab)["lastError"]["message"]


def test_two_sites_do_not_share_a_connection(
    browser: Browser, make_world: Callable[..., World]
) -> None:
    """Even for the same user and session: the other site may be somebody else's."""
    world = make_world(document_domain="")
    other = "shop.example.test"
    world.push.write_config(site_origins=[world.site.origin(world.host), world.site.origin(other)])
    world.push.restart()
    first = world.open(browser, "alice")
    second = browser.open(world.site.url(other, "alice"))
    live(second)
    assert info(first)["connection"] != info(second)["connection"]
    assert world.connections() == 2
