"""The demo site: what it lets in, what it signs, what it publishes, what it never lets through.

The push server is a double that notes what it is asked; tests/browser/test_demo.py has the real
one, and real browsers.
"""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from ports import free_port

from cms_module.demo_site import run
from cms_module.demo_site.__main__ import main, read_keys
from cms_module.demo_site.door import Settings
from cms_module.demo_site.memory import PEOPLE, Memory, is_segment
from cms_module.demo_site.site import DemoSite
from cms_module.demo_site.tokens import hash_session, issue_token
from cms_module.demo_site.web import Markup, render
from push_server.client import HistoryPage, PushClientError, Result, Unreachable
from push_server.publications import Published
from push_server.tokens import Grant, TokenKeys

with warnings.catch_warnings():
    # WebOb, under WebTest, still imports cgi, which is deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webtest import TestApp

SITE = "http://www.site.localhost:8080"
PUSH = "http://push.site.localhost:6660"
TOKEN_KEY = "token-key-of-the-tests"
SECRET = "secret-of-the-tests"
EVIL = "<script>alert('é')</script>&\""


class FakePush:
    """Notes what the site asks of the push server; may be told to fail."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any]] = []
        self.revoked: list[str] = []
        self.pages: list[HistoryPage] = []
        self.asked: list[tuple[str, Any]] = []
        self.error: PushClientError | None = None

    def publish(self, channel: str, data: Any) -> Result[Published]:
        json.dumps(data)
        self.published.append((channel, data))
        return Result(None, self.error)

    def broadcast(self, channels: list[str], data: Any) -> Result[Any]:
        for channel in channels:
            self.publish(channel, data)
        return Result(None, self.error)

    def revoke(self, *, sid: str) -> Result[int]:
        self.revoked.append(sid)
        return Result(0, self.error)

    def history(self, channel: str, since: Any = None, limit: Any = None) -> Result[HistoryPage]:
        self.asked.append((channel, since))
        if self.error or not self.pages:
            return Result(None, self.error or Unreachable("unreachable", "No."))
        return Result(self.pages.pop(0))


@pytest.fixture
def push() -> FakePush:
    return FakePush()


@pytest.fixture
def app(push: FakePush) -> Any:
    settings = Settings(SITE, PUSH, TOKEN_KEY, SECRET)
    site = DemoSite(settings, push)  # type: ignore[arg-type]  # As much of it as the site uses.
    return TestApp(site, extra_environ={"HTTP_HOST": "www.site.localhost:8080"})


def login(app: Any, person: str = "alice") -> Any:
    """The front page of this person."""
    token = re.search(r'name="form_token" value="([0-9a-f]+)"', app.get("/").text)
    assert token
    return app.post("/login", {"form_token": token[1], "person": person}).follow()


def token_of(page: Any) -> str:
    """The form token in a page of somebody who is logged in."""
    return str(page.html.find("meta", {"name": "site"})["data-form-token"])


def grant_of(app: Any) -> Grant:
    """What the token of this visitor allows, as the push server reads it."""
    return TokenKeys([TOKEN_KEY]).verify(app.get("/push/token").text, time.time())


def post(app: Any, path: str, token: str, status: int = 200, **fields: str) -> Any:
    """What a script of the site sends."""
    return app.post(
        path,
        {"form_token": token, **fields},
        headers={"Accept": "application/json"},
        status=status,
    )


# Sessions and forms


def test_everybody_sees_the_way_in_and_no_more(app: Any, push: FakePush) -> None:
    page = app.get("/")
    assert "Alice Moreau" in page
    assert "Bob Okafor" in page
    assert "push.js" not in page
    token = re.search(r'name="form_token" value="([0-9a-f]+)"', page.text)
    assert token
    for method, path in DemoSite.ROUTES:
        if method == "GET" and path != "/":
            app.get(path, status=403)
        elif path not in ("/", "/login", "/logout"):
            fields = {"form_token": token[1], "to": "bob", "title": "x", "text": "x"}
            app.post(path, fields, status=403)
    assert push.published == []


def test_login_begins_a_new_session(app: Any) -> None:
    app.get("/")
    before = app.cookies["linden_session"]
    page = login(app)
    assert app.cookies["linden_session"] != before
    assert "Hello, Alice." in page
    cookie = app.get("/").request.headers["Cookie"]
    assert before not in cookie


def test_session_cookie_is_out_of_reach_of_scripts_and_other_sites(app: Any) -> None:
    cookie = app.get("/").headers["Set-Cookie"]
    assert re.fullmatch(r"linden_session=[\w-]{32}; Path=/; HttpOnly; SameSite=Lax", cookie)


def test_session_id_of_a_stranger_is_nobody(app: Any) -> None:
    app.set_cookie("linden_session", "A" * 32)
    assert "Come in as" in app.get("/")
    app.get("/push/token", status=403)


@pytest.mark.parametrize("value", ["", "short", "x" * 500, '"', "\\"])
def test_malformed_cookie_is_replaced(app: Any, value: str) -> None:
    page = app.get("/", headers={"Cookie": f"linden_session={value}; bad\x01name"})
    assert "Set-Cookie" in page.headers


FORMS = [path for method, path in DemoSite.ROUTES if method == "POST"]


@pytest.mark.parametrize("path", FORMS)
def test_no_form_works_without_its_token(app: Any, push: FakePush, path: str) -> None:
    login(app)
    push.published.clear()
    fields = {"person": "bob", "to": "bob", "title": "x", "text": "x", "mark": "x"}
    for token in ("", "0" * 64, "é"):
        assert "expired" in app.post(path, {**fields, "form_token": token}, status=403)
    assert "Alice" in app.get("/")
    assert push.published == []
    assert push.revoked == []


@pytest.mark.parametrize("path", FORMS)
def test_no_form_of_another_site_works(app: Any, path: str) -> None:
    token = token_of(login(app))
    fields = {"form_token": token, "person": "bob", "to": "bob", "title": "x", "text": "x"}
    app.post(path, fields, headers={"Origin": "http://evil.example"}, status=403)
    app.post(path, fields, headers={"Origin": "http://push.site.localhost:6660"}, status=403)


def test_form_token_of_somebody_else_is_not_good(app: Any, push: FakePush) -> None:
    other = TestApp(app.app, extra_environ={"HTTP_HOST": "www.site.localhost:8080"})
    token = token_of(login(other, "bob"))
    login(app)
    post(app, "/chat/say", token, 403, text="hello")


def test_login_as_nobody(app: Any) -> None:
    token = re.search(r'name="form_token" value="([0-9a-f]+)"', app.get("/").text)
    assert token
    app.post("/login", {"form_token": token[1], "person": "eve"}, status=400)


def test_logout_takes_the_rights_of_this_session_back(app: Any, push: FakePush) -> None:
    page = login(app)
    session = app.cookies["linden_session"]
    sid = grant_of(app).session
    assert sid == hash_session(session, SECRET)
    app.post("/logout", {"form_token": token_of(page)}).follow()
    assert push.revoked == [sid]
    app.set_cookie("linden_session", session)
    app.get("/push/token", status=403)


def test_logout_works_while_push_is_away(app: Any, push: FakePush) -> None:
    page = login(app)
    push.error = Unreachable("unreachable", "No.")
    assert "Come in as" in app.post("/logout", {"form_token": token_of(page)}).follow()


# The token


def test_token_allows_this_person_and_no_other(app: Any) -> None:
    login(app, "bob")
    grant = grant_of(app)
    assert grant.user == "bob"
    assert grant.may_subscribe("user:bob")
    assert not grant.may_subscribe("user:alice")
    for channel in ("chat:lobby", "draw:board", "slides:tour"):
        assert grant.may_subscribe(channel)
    assert not grant.may_subscribe("chat:office")
    assert grant.may_publish("draw:board")
    assert grant.may_publish("slides:tour")
    # The chat goes through the site, which knows who says what.
    assert not grant.may_publish("chat:lobby")
    assert not grant.may_publish("user:alice")
    assert grant.expires - grant.issued == 3600
    assert grant.claims["name"] == "Bob Okafor"


def test_token_never_holds_the_session_id(app: Any) -> None:
    login(app)
    assert app.cookies["linden_session"] not in json.dumps(dict(grant_of(app).claims))
    assert app.get("/push/token").headers["Cache-Control"] == "no-store"


def test_token_of_the_published_vector() -> None:
    claims = {"v": 1, "sub": "42", "iat": 1800000000, "exp": 1800000600}
    assert issue_token(claims, "test-secret") == (
        "eyJ2IjoxLCJzdWIiOiI0MiIsImlhdCI6MTgwMDAwMDAwMCwiZXhwIjoxODAwMDAwNjAwfQ"
        ".53z85Jdd-_ULVnRzSySWI7bB4kPKlLB2dx-nqWjOsXo"
    )


# Headers and addresses


def test_every_answer_has_the_headers(app: Any) -> None:
    login(app)
    answers = [
        *(app.get(path) for method, path in DemoSite.ROUTES if method == "GET"),
        app.get("/static/site.js"),
        app.get("/nowhere", status=404),
        app.get("/login", status=405),
        app.post("/login", status=403),
        app.get("/", headers={"Host": "localhost:8080"}, status=303),
    ]
    for answer in answers:
        assert answer.headers["Origin-Agent-Cluster"] == "?0"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert f"frame-src {PUSH};" in policy
        assert "unsafe" not in policy


def test_pages_have_no_script_or_style_in_them(app: Any) -> None:
    login(app)
    for path in ("/", "/chat", "/whiteboard", "/slides", "/status"):
        page = app.get(path)
        for script in page.html.find_all("script"):
            assert script.get("src")
            assert not script.text.strip()
        assert not page.html.find_all("style")
        assert not page.html.find_all(
            lambda tag: any(name == "style" or name.startswith("on") for name in tag.attrs)
        )
        assert not re.search(r"https?://(?!push\.site\.localhost:6660|www\.w3\.org)", page.text)


def test_pages_are_valid_where_it_matters(app: Any) -> None:
    """One h1, a title, a language, unique ids, and a label for every field."""
    login(app)
    for path in ("/", "/chat", "/whiteboard", "/slides", "/status"):
        html = app.get(path).html
        assert html.html["lang"] == "en"
        assert html.title.text
        assert len(html.find_all("h1")) == 1
        assert len(html.find_all(attrs={"aria-current": "page"})) == 1
        ids = [tag["id"] for tag in html.find_all(id=True)]
        assert len(ids) == len(set(ids))
        for field in html.find_all(["input", "select", "textarea"]):
            labelled = field.find_parent("label") or html.find("label", {"for": field.get("id")})
            assert field.get("type") == "hidden" or labelled, field


def test_every_file_that_pages_name_is_there(app: Any) -> None:
    login(app)
    named: set[str] = set()
    for path in ("/", "/chat", "/whiteboard", "/slides", "/status"):
        named.update(re.findall(r'(?:src|href)="(/static/[^"]+)"', app.get(path).text))
    assert len(named) == 11
    for name in named:
        app.get(name)


@pytest.mark.parametrize("name", ["../site.py", "..%2fsite.py", "", "unknown.js", "/etc/passwd"])
def test_only_known_files_are_served(app: Any, name: str) -> None:
    app.get(f"/static/{name}", status=404)


def test_other_host_names_lead_to_the_real_one(app: Any) -> None:
    answer = app.get("/chat", headers={"Host": "attacker.example:8080"}, status=303)
    assert answer.headers["Location"] == f"{SITE}/"


def test_head_has_no_body(app: Any) -> None:
    answer = app.head("/")
    assert answer.body == b""
    assert int(answer.headers["Content-Length"]) > 1000


# What people do


def test_notification_reaches_the_inbox_and_the_channel(app: Any, push: FakePush) -> None:
    token = token_of(login(app, "alice"))
    sent = post(app, "/notifications/send", token, to="bob", title="A parcel", text="Left shelf")
    assert push.published == [("user:bob", {"type": "notification", **sent.json})]
    assert sent.json["sender"] == "Alice Moreau"
    assert "A parcel" not in app.get("/notifications.json")
    login(app, "bob")
    inbox = app.get("/notifications.json").json
    assert inbox["items"][0] == sent.json
    assert inbox["unread"] == 2


def test_notification_to_everybody(app: Any, push: FakePush) -> None:
    token = token_of(login(app))
    post(app, "/notifications/send", token, to="everybody", title="Lunch", text="")
    assert [channel for channel, _ in push.published] == ["user:alice", "user:bob"]


def test_notification_works_while_push_is_away_and_without_script(app: Any, push: FakePush) -> None:
    push.error = Unreachable("unreachable", "No.")
    form = login(app).forms["send"]
    form["title"] = "No hurry"
    assert form.submit().status_int == 303
    login(app, "bob")
    assert "No hurry" in app.get("/notifications.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"to": "eve", "title": "x"},
        {"to": "bob", "title": " \r\n\0 "},
        {"to": "bob"},
        {"title": "x"},
    ],
)
def test_notification_that_cannot_be_sent(app: Any, push: FakePush, fields: dict[str, str]) -> None:
    token = token_of(login(app))
    assert "error" in post(app, "/notifications/send", token, 400, **fields).json
    assert push.published == []


def test_seen_is_told_to_all_pages_of_this_person(app: Any, push: FakePush) -> None:
    token = token_of(login(app))
    assert app.get("/notifications.json").json["unread"] == 1
    seen = post(app, "/notifications/seen", token).json["seen"]
    assert push.published == [("user:alice", {"type": "seen", "seen": seen})]
    assert app.get("/notifications.json").json["unread"] == 0


def test_chat_is_remembered_published_and_escaped(app: Any, push: FakePush) -> None:
    token = token_of(login(app, "bob"))
    said = post(app, "/chat/say", token, text=EVIL).json
    assert push.published == [("chat:lobby", said)]
    assert (said["user"], said["text"]) == ("bob", EVIL)
    page = app.get("/chat")
    assert "<script>alert" not in page.text
    assert page.html.find("li", {"data-id": str(said["id"])}).find(class_="said").text == EVIL
    assert app.get("/chat.json").json["messages"][-1] == said


def test_control_characters_and_length_are_trimmed(app: Any, push: FakePush) -> None:
    token = token_of(login(app))
    said = post(app, "/chat/say", token, text="a\r\n\x00\x1b b\u2028c" + "x" * 999).json["text"]
    assert said.startswith("a b cxxx")
    assert len(said) == 300


def test_a_form_that_is_too_long_or_no_form_at_all(app: Any) -> None:
    token = token_of(login(app))
    post(app, "/chat/say", token, 413, text="x" * 20_000)
    app.post("/chat/say", b"\xff\xfe", status=400)
    app.post("/chat/say", "&".join(f"a{n}=1" for n in range(50)), status=400)
    environ = {
        **app.extra_environ,
        "PATH_INFO": "/login",
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": "many",
        "wsgi.input": io.BytesIO(),
    }
    setup_testing_defaults(environ)
    statuses: list[str] = []
    app.app(environ, lambda status, headers: statuses.append(status))
    assert statuses == ["400 Bad Request"]


def test_echo(app: Any, push: FakePush) -> None:
    token = token_of(login(app))
    assert post(app, "/status/echo", token, mark="7").json == {"ok": True}
    assert push.published == [("user:alice", {"type": "echo", "mark": "7"})]


# The picture and the slides, from the channel's history


def page_of(*data: Any, first: int = 1, epoch: int = 5, head: int | None = None) -> HistoryPage:
    publications = [{"offset": first + n, "data": entry} for n, entry in enumerate(data)]
    last = first + len(data) - 1 if head is None else head
    return HistoryPage("draw:board", epoch, last, f"1~{last}", publications)


LINE = {"color": 1, "width": 0, "points": [1, 2, 3, 4]}


def test_picture_is_read_from_where_it_was_read_last(app: Any, push: FakePush) -> None:
    login(app)
    push.pages = [page_of(LINE, {**LINE, "evil": EVIL})]
    picture = app.get("/whiteboard.json").json
    assert (picture["epoch"], picture["offset"], picture["complete"]) == (5, 2, True)
    assert picture["segments"] == [LINE, LINE]
    push.pages = [page_of(LINE, first=3)]
    assert len(app.get("/whiteboard.json").json["segments"]) == 3
    assert push.asked == [("draw:board", 0), ("draw:board", 2)]


def test_picture_of_several_pages(app: Any, push: FakePush) -> None:
    login(app)
    push.pages = [page_of(LINE, LINE, head=3), page_of(LINE, first=3)]
    assert len(app.get("/whiteboard.json").json["segments"]) == 3


def test_picture_starts_anew_after_a_wipe_and_in_another_log(app: Any, push: FakePush) -> None:
    login(app)
    push.pages = [page_of(LINE, {"clear": True}, LINE)]
    assert app.get("/whiteboard.json").json["segments"] == [LINE]
    push.pages = [page_of(epoch=6, head=1), page_of({**LINE, "color": 2}, epoch=6)]
    picture = app.get("/whiteboard.json").json
    assert (picture["epoch"], picture["offset"]) == (6, 1)
    assert picture["segments"] == [{**LINE, "color": 2}]
    assert push.asked[-1] == ("draw:board", 0)


def test_picture_while_push_is_away_is_the_last_one_known(app: Any, push: FakePush) -> None:
    login(app)
    push.pages = [page_of(LINE)]
    app.get("/whiteboard.json")
    picture = app.get("/whiteboard.json").json
    assert (picture["segments"], picture["complete"]) == ([LINE], False)


@pytest.mark.parametrize(
    "data",
    [
        None,
        7,
        [],
        {},
        {"points": [1, 2]},
        {**LINE, "points": []},
        {**LINE, "points": [1]},
        {**LINE, "points": [1, -1]},
        {**LINE, "points": [1, 3001]},
        {**LINE, "points": "ab"},
        {**LINE, "points": [1, 2.5]},
        {**LINE, "points": [1, True]},
        {**LINE, "color": EVIL},
        {**LINE, "width": 99},
        {**LINE, "points": [0] * 402},
        {"clear": 1},
    ],
)
def test_what_is_no_line_is_left_out(app: Any, push: FakePush, data: Any) -> None:
    login(app)
    push.pages = [page_of(LINE, data)]
    assert app.get("/whiteboard.json").json["segments"] == [LINE]
    assert not (isinstance(data, dict) and is_segment(data))


def test_wipe(app: Any, push: FakePush) -> None:
    token = token_of(login(app))
    assert post(app, "/whiteboard/clear", token).json == {"ok": True}
    assert push.published == [("draw:board", {"clear": True, "name": "Alice"})]


@pytest.mark.parametrize(
    ("data", "shown"),
    [({"page": 4}, "4"), ({"page": EVIL}, "1"), ({"page": -1}, "1"), (None, "1"), ([], "1")],
)
def test_slides_open_where_the_presenter_is(
    app: Any, push: FakePush, data: Any, shown: str
) -> None:
    login(app)
    push.pages = [page_of(head=9), page_of(data, first=9, head=10)]
    page = app.get("/slides")
    deck = page.html.find(id="deck")
    # The cursor is that of the slide: a turn between the two questions is still to come.
    assert (deck["data-first"], deck["data-since"]) == (shown, "1~9")
    assert push.asked == [("slides:tour", None), ("slides:tour", 8)]


def test_slides_show_the_lines_they_run(app: Any) -> None:
    login(app)
    page = app.get("/slides")
    lines = page.html.find("code").text
    assert lines == app.get("/static/slideshow.js").text.rstrip("\n")
    assert len(lines.splitlines()) == 5
    assert "watching" in page
    assert "presenting" in app.get("/slides?present=1")


# Small parts


def test_templates_escape_everything_but_markup() -> None:
    assert render("option.html", id='"><b>', name=EVIL) == (
        '<option value="&quot;&gt;&lt;b&gt;">'
        "&lt;script&gt;alert(&#x27;é&#x27;)&lt;/script&gt;&amp;&quot;</option>\n"
    )
    assert "<b>" in render("option.html", id="", name=Markup("<b>"))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cms_module.demo_site.memory.SESSIONS", 3)
    memory = Memory()
    sessions = [memory.open_session(PEOPLE["bob"]) for _ in range(5)]
    assert [bool(memory.person_of(session)) for session in sessions] == [False] * 2 + [True] * 3
    for _ in range(300):
        memory.say(PEOPLE["bob"], "hello")
        memory.notify([PEOPLE["bob"]], "x", "", "x")
    assert len(memory.conversation()) == 200
    assert len(memory.inbox(PEOPLE["bob"])["items"]) == 50
    numbers = [message["id"] for message in memory.conversation()]
    assert numbers == sorted(set(numbers))


def test_keys_from_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"token_key": "a", "api_key": "b"}))
    with pytest.raises(ValueError, match="no secret: use --keys FILE, or set DEMO_SECRET"):
        read_keys(path)
    monkeypatch.setenv("DEMO_SECRET", "c")
    monkeypatch.setenv("DEMO_API_KEY", "d")
    assert read_keys(path) == {"token_key": "a", "api_key": "d", "secret": "c"}


def test_site_says_in_one_line_why_it_cannot_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOKEN_KEY", "API_KEY", "SECRET"):
        monkeypatch.delenv(f"DEMO_{name}", raising=False)
    assert main([]) == 1
    assert capsys.readouterr().err == (
        "demo site: no token_key: use --keys FILE, or set DEMO_TOKEN_KEY\n"
    )


# The launcher


def test_keys_are_fresh_private_and_kept(tmp_path: Path) -> None:
    path = run.make_keys(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    keys = path.read_text()
    assert run.make_keys(tmp_path).read_text() == keys
    other = tmp_path / "other"
    other.mkdir()
    assert run.make_keys(other).read_text() != keys


@pytest.mark.parametrize("option", ["--port", "--push-port"])
def test_taken_port_is_named(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--port": str(free_port()), "--push-port": str(free_port()), option: str(port)}
        arguments = [word for pair in ports.items() for word in pair]
        before = {name: signal.getsignal(name) for name in run.ENDS}
        try:
            assert run.main([*arguments, "--dir", str(tmp_path / "demo")]) == 1
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
    error = capsys.readouterr().err
    assert error.startswith(f"demo: port {port} is taken")
    assert error.endswith(f'choose another: make demo ARGS="{option} NUMBER"\n')
    assert error.count("\n") == 1


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_launcher_starts_both_and_ends_both(way: signal.Signals, tmp_path: Path) -> None:
    port, push_port = free_port(), free_port()
    arguments = ["--port", str(port), "--push-port", str(push_port), "--dir", str(tmp_path / "d")]
    process = subprocess.Popen(
        [sys.executable, "-m", "cms_module.demo_site.run", *arguments],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        assert process.stdout
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, process.communicate(timeout=10)[1]
            said += line
        assert f"http://www.site.localhost:{port}" in said
        assert run.answers(push_port, "/push.js", f"push.site.localhost:{push_port}")
        process.send_signal(way)
        while "Goodbye" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(way)  # whoever is impatient
        assert process.wait(20) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
    for closed in (port, push_port):
        run.check_port(closed, "--port")


def test_launcher_says_why_a_server_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other server is not left behind."""
    places = run.Places(tmp_path, free_port(), free_port(), free_port())
    monkeypatch.setattr(run, "write_config", lambda places, keys: tmp_path / "missing.toml")
    with pytest.raises(run.CannotRun, match="the push server ended"):
        run.start(places)
    run.check_port(places.port, "--port")
