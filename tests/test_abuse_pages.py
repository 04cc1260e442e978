"""Attacks by pages of others in a visitor's browser: rows 47 to 50.

Frames and messages between windows (45 and 46) need a browser: see `browser/test_bridge.py` and
`browser/test_forever_frame.py`.
"""

from http.client import HTTPMessage
from typing import Any

import pytest
from contract import NEEDED
from harness import SITE, PushServer
from wire import Response

from push_server.doctor import pages, probe

pytestmark = pytest.mark.usefixtures("unharmed")

EVIL = ("https://evil.example", "null", f"{SITE}.evil.example", SITE.replace("http:", "https:"))
JSON = {"Content-Type": "application/json"}
READ = (
    "/frame", "/push.js", "/pull", "/echo", "/bayeux", "/nowhere",
    *(
        f"/subscribe/{name}?{'&'.join(f'{key}={text}' for key, text in NEEDED.get(name, ()))}"
        for name in ("sse", "stream", "poll", "interval", "jsonp", "frame", "multipart")
    ),
)
WRITTEN = ("/ticket", "/publish", "/presence", "/bayeux", "/bayeux/handshake", "/revoke")


def cors(response: Response) -> dict[str, str | None]:
    names = ("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials")
    return {name.rpartition("-")[2]: response.header(name) for name in names}


NOTHING = {"Origin": None, "Credentials": None}


# 47: a sibling subdomain.


def test_47_the_doctor_says_who_can_script_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    # With document.domain any sibling that sets it as well is let in. That is how browsers made
    # it, so what is left is to say so, and how to do without.
    headers = HTTPMessage()
    headers["Origin-Agent-Cluster"] = "?0"
    answer = probe.Answer(200, headers, b"", "")
    monkeypatch.setattr(probe, "ask", lambda *_: answer)

    class Visit:
        origin = None
        document_domain = "example.com"

    [finding] = pages.agent_cluster(Visit())  # type: ignore[arg-type]
    assert "any other host under example.com" in finding.seen
    assert "can script your pages" in finding.seen
    assert 'document_domain = ""' in finding.seen


@pytest.mark.parametrize(("domain", "cluster"), [("site.localhost", "?0"), ("", "?1")])
def test_47_one_line_takes_it_away(
    push_server_factory: Any, domain: str, cluster: str
) -> None:
    # Every answer has to say so, errors and refusals too: else Chromium decides by the first.
    push = push_server_factory(document_domain=domain)
    token = push.token()
    answers = [push.get(target) for target in ("/frame", "/push.js", "/nowhere", "/subscribe/sse")]
    answers += [push.get("/subscribe/poll", token=token), push.get("/frame", headers={"Host": "x"})]
    answers += [push.request("POST", "/ticket", token=token, headers={"Origin": EVIL[0]})]
    answers += [push.get(f"/frame?{'x' * 13_000}")]
    assert {answer.header("Origin-Agent-Cluster") for answer in answers} == {cluster}


# 48: cookies that a sibling has set for the whole domain.


@pytest.mark.parametrize("name", ["token", "session", "push", "__Host-push", "Authorization"])
def test_48_a_cookie_is_nothing(push: PushServer, name: str) -> None:
    token = push.token(f"cookie-{name}")
    cookie = {"Cookie": f"{name}={token}; {name}={push.token('other')}"}
    for target in READ:
        bare, tossed = push.get(target), push.get(target, headers=cookie)
        assert tossed.status == bare.status
        assert tossed.header("Set-Cookie") is None
    for target in WRITTEN:
        body = b'{"channel":"a","data":1}'
        tossed = push.request("POST", target, headers={**JSON, **cookie}, body=body)
        assert tossed.status in (200, 401, 404), target
        if tossed.status == 200:  # Bayeux says it inside
            assert tossed.json()[0]["successful"] is False
        assert tossed.header("Set-Cookie") is None
    answer = push.get("/subscribe/poll", token=token, headers=cookie)
    hello = answer.json()["control"][0]
    assert (answer.status, hello["user"]) == (200, f"cookie-{name}")
    assert answer.header("Set-Cookie") is None


# 49: a page that makes the visitor's browser send something.


@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize("origin", EVIL)
def test_49_a_foreign_page_posts_nothing(push: PushServer, target: str, origin: str) -> None:
    # With everything that a page could have got hold of, the token included.
    token = push.token("csrf", pub_ch=["*"])
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
        headers = {"Origin": origin, "Content-Type": kind, "Cookie": f"token={token}"}
        response = push.request("POST", target, token=token, headers=headers, body=b"{}")
        assert (response.status, response.error) == (403, "origin_denied")
        assert cors(response) == NOTHING


@pytest.mark.parametrize("target", WRITTEN[:4])
def test_49_nothing_ambient_counts(push: PushServer, target: str) -> None:
    for headers in ({}, {"Origin": SITE}, {"Sec-Fetch-Site": "same-site"}):
        fields = {**headers, **JSON, "Cookie": "session=1"}
        response = push.request("POST", target, headers=fields, body=b'{"channel":"a","data":1}')
        if target == "/bayeux":
            assert response.json()[0]["successful"] is False
        else:
            assert (response.status, response.error) == (401, "token_missing")


def test_49_a_page_of_another_site_names_its_origin(push: PushServer) -> None:
    token = push.token("site")
    site = {"Sec-Fetch-Site": "cross-site"}
    response = push.request("POST", "/ticket", token=token, headers=site)
    assert (response.status, response.error) == (403, "origin_denied")
    # One of the list may be on another site: what it says of itself counts.
    response = push.request("POST", "/ticket", token=token, headers={**site, "Origin": SITE})
    assert response.status == 200


# 50: what others may read.


@pytest.mark.parametrize("origin", EVIL)
def test_50_nothing_is_reflected(push: PushServer, origin: str) -> None:
    token = push.token("cors")
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
        "Origin": origin,
    }
    for target in (*READ, *WRITTEN):
        for method in ("OPTIONS", "GET", "POST"):
            response = push.request(method, target, token=token, headers=ask)
            assert response.status == 403
            assert cors(response) == NOTHING
            assert response.header("Access-Control-Allow-Headers") is None


def test_50_a_site_of_the_list_and_nobody_else(push: PushServer) -> None:
    token = push.token("cors")
    for target in (*READ, *WRITTEN):
        for method in ("OPTIONS", "GET"):
            if method == "GET" and target.startswith(("/subscribe/s", "/subscribe/frame")):
                continue  # they do not end
            if method == "GET" and target.startswith("/subscribe/multipart"):
                continue
            response = push.request(method, target, token=token, headers={"Origin": SITE})
            assert response.header("Access-Control-Allow-Origin") == SITE, target
            if method == "OPTIONS":
                assert response.status == (404 if target in ("/nowhere", "/revoke") else 204)
            if response.status == 204:
                allowed = (response.header("Access-Control-Allow-Headers") or "").lower()
                assert "authorization" in allowed
            assert "Origin" in (response.header("Vary") or "")
            credentials = "true" if target.startswith("/bayeux") else None
            assert response.header("Access-Control-Allow-Credentials") == credentials
    # Who names no origin is told nothing that a cache could show to others.
    for target in ("/push.js", "/frame"):
        response = push.get(target)
        assert cors(response) == NOTHING
        assert "Origin" in (response.header("Vary") or "")
