"""The site: a WSGI application with a page for each thing that push is good for.

Where it meets the push server, the places to copy from:

* `DemoSite.token` signs what the browser of a logged-in user may do.
* `DemoSite.send`, `say` and `clear` publish, after the site has remembered what happened.
* `DemoSite.logout` takes the rights of the session back.

Push is never in the way: when the push server is away, each of these still does its work, and
the page shows the news when it is next loaded.
"""

import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cms_module.demo_site.memory import PEOPLE, Memory, Person, Picture
from cms_module.demo_site.tokens import hash_session, issue_token
from cms_module.demo_site.web import FOLDER, Answer, Markup, Refused, Request, join, render
from push_server.client import PushClient

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

COOKIE = "linden_session"
TOKEN_SECONDS = 3600
TEXT_LIMIT = 300
CHAT = "chat:lobby"
SLIDES = "slides:tour"
CHANNELS = (CHAT, Picture.CHANNEL, SLIDES)
"""What everybody who is logged in may listen to."""
DRAWN = (Picture.CHANNEL, SLIDES)
"""What their pages may publish to by themselves. The chat goes through the site."""

TABS = ("today", "chat", "whiteboard", "slides", "status")

STATIC = {
    "site.css": "text/css; charset=utf-8",
    "notifications.css": "text/css; charset=utf-8",
    "site.js": "text/javascript; charset=utf-8",
    "notifications.js": "text/javascript; charset=utf-8",
    "chat.js": "text/javascript; charset=utf-8",
    "whiteboard.js": "text/javascript; charset=utf-8",
    "deck.js": "text/javascript; charset=utf-8",
    "slideshow.js": "text/javascript; charset=utf-8",
    "status.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_logger = logging.getLogger("demo_site")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the site has to be told."""

    site_url: str
    push_url: str
    document_domain: str
    """As the push server has it; empty to let page and frame talk by messages only."""
    token_key: str
    secret: str
    """Signs what only this site reads: form tokens and session hashes."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, and who makes it."""

    request: Request
    session: str
    person: Person | None
    form_token: str

    @property
    def user(self) -> Person:
        """The person who is logged in, on pages that nobody else gets to."""
        assert self.person is not None
        return self.person


Page = Callable[["DemoSite", Visit], Answer]


class DemoSite:
    """The application. Safe to call from several threads."""

    def __init__(
        self, settings: Settings, client: PushClient, memory: Memory | None = None
    ) -> None:
        self.settings = settings
        self.client = client
        self.memory = memory or Memory()
        self._host = urlsplit(settings.site_url).netloc
        self._common = {
            # Without this on every answer of the site, Chromium ignores document.domain.
            "Origin-Agent-Cluster": "?0",
            "Content-Security-Policy": (
                f"default-src 'none'; script-src 'self' {settings.push_url}; style-src 'self';"
                f" img-src 'self'; connect-src 'self'; frame-src {settings.push_url};"
                " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        request = Request(environ)
        try:
            answer = self._answer(request)
        except Refused as refused:
            answer = self._refusal(request, refused)
        if request.method == "HEAD":
            answer.body = b""
        return answer.start(start_response, self._common)

    def _answer(self, request: Request) -> Answer:
        if request.host != self._host:
            # One name only: the bridge to the push host depends on it, and a page that has
            # pointed its own name here (DNS rebinding) gets nothing to read.
            return Answer.redirect(self.settings.site_url + "/")
        if request.path.startswith("/static/"):
            return self._static(request.path.removeprefix("/static/"))
        method = "GET" if request.method == "HEAD" else request.method
        page = ROUTES.get((method, request.path))
        if page is None:
            known = any(path == request.path for _, path in ROUTES)
            status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
            raise Refused(status, "There is nothing at this address.")
        return self._visit(request, page)

    def _visit(self, request: Request, page: Page) -> Answer:
        given = request.cookie(COOKIE)
        session = given if 20 <= len(given) <= 64 else secrets.token_urlsafe(24)
        visit = Visit(request, session, self.memory.person_of(session), self._form_token(session))
        if visit.person is None and page not in OPEN:
            raise Refused(HTTPStatus.FORBIDDEN, "Please log in first.")
        answer = page(self, visit)
        if session != given and not any(name == "Set-Cookie" for name, _ in answer.headers):
            answer.headers.append(_cookie(session))
        return answer

    def _form_token(self, session: str) -> str:
        message = b"form:" + session.encode("utf-8", "replace")
        return hmac.digest(self.settings.secret.encode(), message, "sha256").hex()

    def _form(self, visit: Visit) -> dict[str, str]:
        """The fields of a form that one of our own pages has sent."""
        origin = visit.request.origin
        fields = visit.request.form()
        given = fields.get("form_token", "").encode()
        if origin not in ("", self.settings.site_url) or not hmac.compare_digest(
            given, visit.form_token.encode()
        ):
            raise Refused(
                HTTPStatus.FORBIDDEN, "This form has expired. Please go back and try again."
            )
        return fields

    def _static(self, name: str) -> Answer:
        if name not in STATIC:
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
        return Answer((FOLDER / "static" / name).read_bytes(), STATIC[name])

    def _refusal(self, request: Request, refused: Refused) -> Answer:
        if request.wants_json:
            return Answer.json({"error": refused.message}, refused.status)
        content = render("error.html", message=refused.message)
        return Answer.page(self._frame("Sorry", content, None), refused.status)

    # Pages

    def home(self, visit: Visit) -> Answer:
        """The front page: the way in, or what is new."""
        if visit.person is None:
            people = join(
                render(
                    "login.html",
                    id=person.id,
                    name=person.name,
                    role=person.role,
                    initial=person.name[0],
                    form_token=visit.form_token,
                )
                for person in PEOPLE.values()
            )
            content = render("welcome.html", people=people)
            return Answer.page(self._frame("Welcome", content, None))
        others = [person for person in PEOPLE.values() if person != visit.person]
        options = join(render("option.html", id=one.id, name=one.name) for one in others)
        content = render(
            "home.html",
            first_name=visit.user.first_name,
            other=others[0].first_name,
            other_id=others[0].id,
            options=options,
            form_token=visit.form_token,
        )
        return Answer.page(self._frame("Today", content, visit, "site.js"))

    def chat(self, visit: Visit) -> Answer:
        """The chat room, with what was said before."""
        me = visit.user.id
        messages = join(
            render(
                "message.html",
                kind="mine" if message["user"] == me else "theirs",
                id=message["id"],
                user=message["user"],
                name=message["name"],
                initial=message["name"][0],
                text=message["text"],
                at=message["at"],
            )
            for message in self.memory.conversation()
        )
        content = render("chat.html", messages=messages, form_token=visit.form_token)
        return Answer.page(self._frame("Chat", content, visit, "site.js", "chat.js"))

    def whiteboard(self, visit: Visit) -> Answer:
        """The whiteboard; the picture comes by script, once the page is listening."""
        content = render("whiteboard.html", name=visit.user.first_name, form_token=visit.form_token)
        return Answer.page(self._frame("Whiteboard", content, visit, "site.js", "whiteboard.js"))

    def slides(self, visit: Visit) -> Answer:
        """The slideshow, opened where the presenter is, with the lines that drive it."""
        lines = (FOLDER / "static" / "slideshow.js").read_text("utf-8").rstrip("\n")
        presenting = visit.request.query("present") == "1"
        content = render(
            "slides.html",
            lines=lines,
            first=self._current_slide(),
            mode="You are presenting: everybody sees what you see."
            if presenting
            else "You are watching: the slides follow whoever presents.",
            switch="/slides" if presenting else "/slides?present=1",
            switch_label="Stop presenting" if presenting else "Present",
        )
        return Answer.page(
            self._frame("Slides", content, visit, "deck.js", "slideshow.js", "site.js")
        )

    def _current_slide(self) -> int:
        """The slide shown last, from the channel's history."""
        head = self.client.history(SLIDES, limit=1).value
        if head is None or not head.offset:
            return 1
        page = self.client.history(SLIDES, since=head.offset - 1, limit=1).value
        if page is None or not page.publications:
            return 1
        shown = page.publications[-1].get("data")
        number = shown.get("page") if isinstance(shown, dict) else None
        return number if isinstance(number, int) and 1 <= number <= 99 else 1

    def status(self, visit: Visit) -> Answer:
        """What push is doing right now."""
        content = render("status.html", form_token=visit.form_token)
        return Answer.page(self._frame("Backstage", content, visit, "site.js", "status.js"))

    def _frame(self, title: str, content: Markup, visit: Visit | None, *scripts: str) -> Markup:
        """A whole page around its content; for those who are logged in, with push."""
        if visit is None or visit.person is None:
            return render("frame.html", title=title, content=content, head="", bar="", push="")
        person = visit.person
        head = render(
            "head.html",
            user=person.id,
            push_url=self.settings.push_url,
            domain=self.settings.document_domain,
            form_token=visit.form_token,
        )
        here = visit.request.path.strip("/") or "today"
        marks = {tab: Markup('aria-current="page"') if tab == here else "" for tab in TABS}
        bar = render(
            "bar.html",
            id=person.id,
            name=person.name,
            initial=person.name[0],
            role=person.role,
            form_token=visit.form_token,
            **marks,
        )
        push = render(
            "push.html",
            push_url=self.settings.push_url,
            scripts=join(render("script.html", name=name) for name in scripts),
        )
        return render("frame.html", title=title, content=content, head=head, bar=bar, push=push)

    # What pages ask for

    def token(self, visit: Visit) -> Answer:
        """The right to listen, for one hour. Pages come back for a new one before it ends."""
        person = visit.user
        now = int(time.time())
        claims = {
            "v": 1,
            "sub": person.id,
            "sid": hash_session(visit.session, self.settings.secret),
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "sub_ch": list(CHANNELS),
            "pub_ch": list(DRAWN),
            "name": person.name,
        }
        token = issue_token(claims, self.settings.token_key)
        return Answer(token.encode(), "text/plain; charset=utf-8")

    def inbox(self, visit: Visit) -> Answer:
        """The notifications of whoever asks."""
        return Answer.json(self.memory.inbox(visit.user))

    def conversation(self, visit: Visit) -> Answer:
        """The chat as the site knows it."""
        return Answer.json({"user": visit.user.id, "messages": self.memory.conversation()})

    def picture(self, visit: Visit) -> Answer:
        """The whiteboard as the site knows it, brought up to date."""
        picture = self.memory.picture
        complete = picture.catch_up(self.client)
        return Answer.json({**picture.as_json(), "complete": complete})

    # What people do

    def login(self, visit: Visit) -> Answer:
        """Begin a session. There is no password, because there is nothing to protect."""
        person = PEOPLE.get(self._form(visit).get("person", ""))
        if person is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "Nobody here has this name.")
        self.memory.close_session(visit.session)
        answer = Answer.redirect("/")
        # A new id, so that an id planted before the login is worth nothing after it.
        answer.headers.append(_cookie(self.memory.open_session(person)))
        return answer

    def logout(self, visit: Visit) -> Answer:
        """End the session, here and at the push server, which closes its connections at once."""
        self._form(visit)
        if visit.person:
            self.memory.close_session(visit.session)
            self.client.revoke(sid=hash_session(visit.session, self.settings.secret))
        answer = Answer.redirect("/")
        answer.headers.append(_cookie("", max_age=0))
        return answer

    def send(self, visit: Visit) -> Answer:
        """Send a notification to one person, or to everybody."""
        fields = self._form(visit)
        sender = visit.user
        title, text = _text(fields, "title", 80), _text(fields, "text", required=False)
        chosen = fields.get("to", "")
        people = [one for one in PEOPLE.values() if chosen in (one.id, "everybody")]
        if not people:
            raise Refused(HTTPStatus.BAD_REQUEST, "Nobody here has this name.")
        item = self.memory.notify(people, title, text, sender.name)
        self.client.broadcast(
            [f"user:{person.id}" for person in people], {"type": "notification", **item}
        )
        return self._done(visit, "/", item)

    def seen(self, visit: Visit) -> Answer:
        """Note that somebody has looked, and tell all the pages this person has open."""
        self._form(visit)
        seen = self.memory.mark_seen(visit.user)
        self.client.publish(f"user:{visit.user.id}", {"type": "seen", "seen": seen})
        return self._done(visit, "/", {"seen": seen})

    def say(self, visit: Visit) -> Answer:
        """Say something in the chat room."""
        message = self.memory.say(visit.user, _text(self._form(visit), "text"))
        self.client.publish(CHAT, message)
        return self._done(visit, "/chat", message)

    def clear(self, visit: Visit) -> Answer:
        """Wipe the whiteboard."""
        self._form(visit)
        published = self.client.publish(
            Picture.CHANNEL, {"clear": True, "name": visit.user.first_name}
        )
        return self._done(visit, "/whiteboard", {"ok": published.ok})

    def echo(self, visit: Visit) -> Answer:
        """Send a signal to the page that asked for it, so that it can time the way."""
        mark = _text(self._form(visit), "mark", 40)
        published = self.client.publish(f"user:{visit.user.id}", {"type": "echo", "mark": mark})
        return self._done(visit, "/status", {"ok": published.ok})

    @staticmethod
    def _done(visit: Visit, url: str, value: Any) -> Answer:
        return Answer.json(value) if visit.request.wants_json else Answer.redirect(url)


ROUTES: dict[tuple[str, str], Page] = {
    ("GET", "/"): DemoSite.home,
    ("GET", "/chat"): DemoSite.chat,
    ("GET", "/whiteboard"): DemoSite.whiteboard,
    ("GET", "/slides"): DemoSite.slides,
    ("GET", "/status"): DemoSite.status,
    ("GET", "/push/token"): DemoSite.token,
    ("GET", "/notifications.json"): DemoSite.inbox,
    ("GET", "/chat.json"): DemoSite.conversation,
    ("GET", "/whiteboard.json"): DemoSite.picture,
    ("POST", "/login"): DemoSite.login,
    ("POST", "/logout"): DemoSite.logout,
    ("POST", "/notifications/send"): DemoSite.send,
    ("POST", "/notifications/seen"): DemoSite.seen,
    ("POST", "/chat/say"): DemoSite.say,
    ("POST", "/whiteboard/clear"): DemoSite.clear,
    ("POST", "/status/echo"): DemoSite.echo,
}
OPEN = (DemoSite.home, DemoSite.login, DemoSite.logout)
"""What those may use who are not logged in."""


def _cookie(value: str, max_age: int | None = None) -> tuple[str, str]:
    ending = "" if max_age is None else f"; Max-Age={max_age}"
    return ("Set-Cookie", f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax{ending}")


def _text(
    fields: dict[str, str], name: str, limit: int = TEXT_LIMIT, *, required: bool = True
) -> str:
    """A field as one line of text, shortened to what fits."""
    printable = "".join(c if c.isprintable() else " " for c in fields.get(name, ""))
    text = " ".join(printable.split())[:limit]
    if required and not text:
        raise Refused(HTTPStatus.BAD_REQUEST, "Please write something first.")
    return text
