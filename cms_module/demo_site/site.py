"""The site: a WSGI application with a page for each thing that push is good for.

Where it meets the push server, the places to copy from:

* `DemoSite.token` signs what the browser of a logged-in user may do.
* `DemoSite.send`, `say` and `clear` publish, after the site has remembered what happened.
* `DemoSite.logout` takes the rights of the session back.

Push is never in the way: when the push server is away, each of these still does its work, and
the page shows the news when it is next loaded.
"""

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from cms_module.demo_site.door import Door, Page, Settings, Visit, session_cookie
from cms_module.demo_site.memory import PEOPLE, Memory, Person, Picture
from cms_module.demo_site.tokens import hash_session, issue_token
from cms_module.demo_site.web import FOLDER, Answer, Markup, Refused, join, render
from push_server.client import PushClient

TOKEN_SECONDS = 3600
TEXT_LIMIT = 300
CHAT = "chat:lobby"
SLIDES = "slides:tour"
CHANNELS = (CHAT, Picture.CHANNEL, SLIDES)
"""What everybody who is logged in may listen to."""
DRAWN = (Picture.CHANNEL, SLIDES)
"""What their pages may publish to by themselves. The chat goes through the site."""

TABS = ("today", "chat", "whiteboard", "slides", "status")


class DemoSite(Door):
    """The pages of the site, and what people do on them."""

    def __init__(
        self, settings: Settings, client: PushClient, memory: Memory | None = None
    ) -> None:
        super().__init__(settings)
        self.client = client
        self.memory = memory or Memory()

    def person_of(self, session: str) -> Person | None:
        return self.memory.person_of(session)

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
            return Answer.page(self.frame("Welcome", content, None))
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
        return Answer.page(self.frame("Today", content, visit, "site.js"))

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
        return Answer.page(self.frame("Chat", content, visit, "site.js", "chat.js"))

    def whiteboard(self, visit: Visit) -> Answer:
        """The whiteboard; the picture comes by script, once the page is listening."""
        content = render("whiteboard.html", name=visit.user.first_name, form_token=visit.form_token)
        return Answer.page(self.frame("Whiteboard", content, visit, "site.js", "whiteboard.js"))

    def slides(self, visit: Visit) -> Answer:
        """The slideshow, opened where the presenter is, with the lines that drive it."""
        lines = (FOLDER / "static" / "slideshow.js").read_text("utf-8").rstrip("\n")
        presenting = visit.request.query("present") == "1"
        first, since = self._current_slide()
        content = render(
            "slides.html",
            lines=lines,
            first=first,
            since=since,
            mode="You are presenting: everybody sees what you see."
            if presenting
            else "You are watching: the slides follow whoever presents.",
            switch="/slides" if presenting else "/slides?present=1",
            switch_label="Stop presenting" if presenting else "Present",
        )
        return Answer.page(
            self.frame("Slides", content, visit, "deck.js", "slideshow.js", "site.js")
        )

    def _current_slide(self) -> tuple[int, str]:
        """The slide shown last, from the channel's history, and the cursor of that place."""
        head = self.client.history(SLIDES, limit=1).value
        if head is None:
            return 1, ""
        page = self.client.history(SLIDES, since=head.offset - 1, limit=1) if head.offset else None
        if page is None or page.value is None or not page.value.publications:
            return 1, head.cursor
        shown = page.value.publications[-1].get("data")
        number = shown.get("page") if isinstance(shown, dict) else None
        return number if isinstance(number, int) and 1 <= number <= 99 else 1, head.cursor

    def status(self, visit: Visit) -> Answer:
        """What push is doing right now."""
        content = render("status.html", form_token=visit.form_token)
        return Answer.page(self.frame("Backstage", content, visit, "site.js", "status.js"))

    def frame(self, title: str, content: Markup, visit: Visit | None, *scripts: str) -> Markup:
        """A whole page around its content; for those who are logged in, with push."""
        if visit is None or visit.person is None:
            return render("frame.html", title=title, content=content, head="", bar="", push="")
        person = visit.person
        head = render(
            "head.html",
            user=person.id,
            push_url=self.settings.push_url,
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
        person = PEOPLE.get(self.form(visit).get("person", ""))
        if person is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "Nobody here has this name.")
        self.memory.close_session(visit.session)
        answer = Answer.redirect("/")
        # A new id, so that an id planted before the login is worth nothing after it.
        answer.headers.append(session_cookie(self.memory.open_session(person)))
        return answer

    def logout(self, visit: Visit) -> Answer:
        """End the session, here and at the push server, which closes its connections at once."""
        self.form(visit)
        if visit.person:
            self.memory.close_session(visit.session)
            self.client.revoke(sid=hash_session(visit.session, self.settings.secret))
        answer = Answer.redirect("/")
        answer.headers.append(session_cookie("", max_age=0))
        return answer

    def send(self, visit: Visit) -> Answer:
        """Send a notification to one person, or to everybody."""
        fields = self.form(visit)
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
        self.form(visit)
        seen = self.memory.mark_seen(visit.user)
        self.client.publish(f"user:{visit.user.id}", {"type": "seen", "seen": seen})
        return self._done(visit, "/", {"seen": seen})

    def say(self, visit: Visit) -> Answer:
        """Say something in the chat room."""
        message = self.memory.say(visit.user, _text(self.form(visit), "text"))
        self.client.publish(CHAT, message)
        return self._done(visit, "/chat", message)

    def clear(self, visit: Visit) -> Answer:
        """Wipe the whiteboard."""
        self.form(visit)
        published = self.client.publish(
            Picture.CHANNEL, {"clear": True, "name": visit.user.first_name}
        )
        return self._done(visit, "/whiteboard", {"ok": published.ok})

    def echo(self, visit: Visit) -> Answer:
        """Send a signal to the page that asked for it, so that it can time the way."""
        mark = _text(self.form(visit), "mark", 40)
        published = self.client.publish(f"user:{visit.user.id}", {"type": "echo", "mark": mark})
        return self._done(visit, "/status", {"ok": published.ok})

    @staticmethod
    def _done(visit: Visit, url: str, value: Any) -> Answer:
        return Answer.json(value) if visit.request.wants_json else Answer.redirect(url)

    ROUTES: ClassVar[Mapping[tuple[str, str], Page]] = {
        ("GET", "/"): home,
        ("GET", "/chat"): chat,
        ("GET", "/whiteboard"): whiteboard,
        ("GET", "/slides"): slides,
        ("GET", "/status"): status,
        ("GET", "/push/token"): token,
        ("GET", "/notifications.json"): inbox,
        ("GET", "/chat.json"): conversation,
        ("GET", "/whiteboard.json"): picture,
        ("POST", "/login"): login,
        ("POST", "/logout"): logout,
        ("POST", "/notifications/send"): send,
        ("POST", "/notifications/seen"): seen,
        ("POST", "/chat/say"): say,
        ("POST", "/whiteboard/clear"): clear,
        ("POST", "/status/echo"): echo,
    }
    OPEN = (home, login, logout)


def _text(
    fields: dict[str, str], name: str, limit: int = TEXT_LIMIT, *, required: bool = True
) -> str:
    """A field as one line of text, shortened to what fits."""
    printable = "".join(c if c.isprintable() else " " for c in fields.get(name, ""))
    text = " ".join(printable.split())[:limit]
    if required and not text:
        raise Refused(HTTPStatus.BAD_REQUEST, "Please write something first.")
    return text
