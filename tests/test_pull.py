"""Client pull: the page that loads itself again."""

import time
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from harness import SITE, PushServer
from waiting import PATIENCE
from wire_classic import Page, again

pytestmark = pytest.mark.usefixtures("unharmed")


def test_it_shows_what_was_published_last_and_goes_on(push: PushServer) -> None:
    token = push.token("puller", sub_ch=["board:*"])
    for number in range(25):
        push.api("publish", channel=f"board:{number % 2}", data={"text": f"news {number}"})
    first = push.get(
        f"/pull?channel=board:0&channel=board:1&every=3&ticket={push.ticket(token)}"
    )
    page = Page(first)
    assert page.items == [f"news {number}" for number in range(24, 4, -1)]
    assert "board:0, board:1" in page.title
    push.api("publish", channel="user:puller", data="for you")
    seconds, target = again(first)
    push.remember(parse_qs(urlsplit(target).query)["ticket"][0])
    assert seconds == 3
    second = push.get(target)
    assert Page(second).items[:2] == ["for you", "news 24"]
    assert again(second)[1] != target
    assert push.get(target).status == 401, "each ticket is good for one page"
    push.remember(parse_qs(urlsplit(again(second)[1]).query)["ticket"][0])


def test_it_ends_with_the_token(push: PushServer) -> None:
    token = push.token("short", ttl=-57)  # three seconds of the leeway are left
    first = push.get("/pull?every=1", token=token)
    assert Page(first).items == []
    target = again(first)[1]
    push.remember(parse_qs(urlsplit(target).query)["ticket"][0])
    deadline = time.monotonic() + PATIENCE
    while (answer := push.get(target)).status == 200:
        assert time.monotonic() < deadline
        target = again(answer)[1]
        push.remember(parse_qs(urlsplit(target).query)["ticket"][0])
        time.sleep(0.2)
    assert answer.status == 401


def test_it_ends_with_the_session(push: PushServer) -> None:
    first = push.get("/pull", token=push.token("gone", sid="gone"))
    target = again(first)[1]
    push.remember(parse_qs(urlsplit(target).query)["ticket"][0])
    push.api("revoke", sid="gone")
    assert push.get(target).status == 401


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("plain", "plain"), ({"text": "said"}, "said"), ({"text": 1}, '{"text": 1}'),
        ([1, "\u00e4"], '[1, "\u00e4"]'), (None, "null"),
        ("</li><script>alert(1)</script>", "</li><script>alert(1)</script>"),
        ({"text": "<img src=x onerror=alert(1)> & \" ' &lt;"},
         "<img src=x onerror=alert(1)> & \" ' &lt;"),
    ],
)
def test_43_what_is_published_is_text(push: PushServer, data: object, text: str) -> None:
    # Attack: markup in a publication, which would run for whoever looks at the page.
    channel = f"pull:{abs(hash(text))}"
    push.api("publish", channel=channel, data=data)
    answer = push.get(f"/pull?channel={channel}", token=push.token("reader"))
    push.remember(parse_qs(urlsplit(again(answer)[1]).query)["ticket"][0])
    page = Page(answer)
    assert page.items == [text]
    assert page.elements == {"html", "meta", "title", "ol", "li"}
    policy = answer.header("Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none';")
    assert policy.endswith(f"frame-ancestors 'self' {SITE}")


@pytest.mark.parametrize(
    "every", ["0", "0.5", "-1", "21", "1e1", "x", "", "1;url=//evil.test", "\u0661", "9" * 30]
)
def test_a_strange_interval_is_refused(push: PushServer, every: str) -> None:
    # Attack, or accident: a browser that loads the page a hundred times a second.
    answer = push.get(f"/pull?every={quote(every)}", token=push.token("fast"))
    assert answer.status == 400


def test_rights_are_those_of_all_transports(push: PushServer) -> None:
    assert push.get("/pull?channel=a").status == 401
    token = push.token("limited", sub_ch=["node:*"])
    assert push.get("/pull?channel=secret:1", token=token).status == 403
    assert push.get("/pull?channel=a%20b", token=token).status == 400
    assert push.get(f"/pull?token={token}").status == 400
    assert push.request("POST", "/pull", token=token).status == 405
