"""What the site remembers: people, sessions, notifications, the conversation, the picture.

A real site has a database; this one starts anew each time. Every list is bounded, because a
demo is left running. One lock guards it all: waitress serves from several threads, and nothing
here takes long. The lock is not held while the push server is asked.
"""

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from push_server.client import PushClient

SESSIONS = 10_000
NOTIFICATIONS = 50
MESSAGES = 200
SEGMENTS = 20_000
POINTS = 400
"""Numbers in one segment; the page sends 30 segments a second and stays far below."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can log in."""

    id: str
    name: str
    role: str

    @property
    def first_name(self) -> str:
        return self.name.split()[0]


PEOPLE = {
    person.id: person
    for person in (
        Person("alice", "Alice Moreau", "Front desk"),
        Person("bob", "Bob Okafor", "Studio 4"),
    )
}


@dataclass(frozen=True, slots=True)
class Notification:
    """Something one person should know."""

    id: int
    title: str
    text: str
    sender: str
    at: int
    url: str = "/"


@dataclass(frozen=True, slots=True)
class Message:
    """Something said in the chat room."""

    id: int
    user: str
    name: str
    text: str
    at: int


@dataclass(slots=True)
class Inbox:
    """One person's notifications, oldest first, and up to where they have been seen."""

    items: deque[Notification] = field(default_factory=lambda: deque(maxlen=NOTIFICATIONS))
    seen: int = 0

    @property
    def unread(self) -> int:
        return sum(item.id > self.seen for item in self.items)


class Picture:
    """The whiteboard as the site knows it: the segments that the push server has passed on.

    Browsers draw for each other without asking the site. The site reads the history of the
    channel when somebody opens the page, from where it read last, so that a newcomer gets the
    whole picture although nobody sent it anywhere.
    """

    CHANNEL = "draw:board"
    PAGE = 1000
    PAGES = 20

    def __init__(self) -> None:
        self.epoch = 0
        self.offset = 0
        self.segments: deque[dict[str, Any]] = deque(maxlen=SEGMENTS)
        self._lock = threading.Lock()

    def catch_up(self, client: PushClient) -> bool:
        """Read what was drawn since the last time. Returns whether the picture is complete."""
        with self._lock:
            for _ in range(self.PAGES):
                page = client.history(self.CHANNEL, since=self.offset, limit=self.PAGE).value
                if page is None:
                    return False
                if page.epoch != self.epoch:
                    # Another log: what was read of the old one says nothing about this one.
                    self.epoch = page.epoch
                    self.segments.clear()
                    if self.offset:
                        self.offset = 0
                        continue
                for publication in page.publications:
                    self._add(publication.get("data"))
                    self.offset = int(publication["offset"])
                if self.offset >= page.offset or not page.publications:
                    self.offset = page.offset
                    return True
            return False

    def _add(self, data: Any) -> None:
        # What a browser published is whatever a browser liked to publish.
        if not isinstance(data, dict):
            return
        if data.get("clear") is True:
            self.segments.clear()
        elif is_segment(data):
            self.segments.append({name: data[name] for name in ("color", "width", "points")})

    def as_json(self) -> dict[str, Any]:
        """The picture, and the offset up to which it is one."""
        with self._lock:
            return {"epoch": self.epoch, "offset": self.offset, "segments": list(self.segments)}


def is_segment(data: dict[str, Any]) -> bool:
    """Whether this is a piece of a line: a colour, a width and points as x, y, x, y …"""
    points = data.get("points")
    return (
        _is_number(data.get("color"), 7)
        and _is_number(data.get("width"), 2)
        and isinstance(points, list)
        and 2 <= len(points) <= POINTS
        and len(points) % 2 == 0
        and all(_is_number(point, 3000) for point in points)
    )


def _is_number(value: object, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest


class Memory:
    """Everything there is to remember."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._inboxes = {user: Inbox() for user in PEOPLE}
        self._messages: deque[Message] = deque(maxlen=MESSAGES)
        self._last_id = 0
        self.picture = Picture()
        self._begin()

    def _begin(self) -> None:
        """What happened before the visitor came."""
        alice, bob = PEOPLE["alice"], PEOPLE["bob"]
        self.say(alice, "Good morning! The kitchen on the second floor has fresh coffee.")
        self.say(bob, "Thank you. Is the large meeting room free at three?")
        self.say(alice, "It is. I have put your name on it.")
        self.notify(
            [alice],
            "Welcome to Linden House",
            "Whatever happens here shows up by itself. You never have to reload a page.",
            "Linden House",
        )
        self.notify(
            [bob],
            "Your room is reserved",
            "Large meeting room, today from three to five. The screen is already set up.",
            alice.name,
        )

    def _next_id(self) -> int:
        # Milliseconds, so that a page still open from before a restart never sees a number twice.
        self._last_id = max(self._last_id + 1, int(time.time() * 1000))
        return self._last_id

    def open_session(self, person: Person) -> str:
        """The id of a new session of this person."""
        session = secrets.token_urlsafe(24)
        with self._lock:
            self._sessions[session] = person.id
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return session

    def close_session(self, session: str) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.pop(session, None)

    def person_of(self, session: str) -> Person | None:
        """Who is logged in with this session."""
        with self._lock:
            return PEOPLE.get(self._sessions.get(session, ""))

    def notify(
        self, people: Sequence[Person], title: str, text: str, sender: str
    ) -> dict[str, Any]:
        """Put a notification into the inboxes of these people; what to tell their pages."""
        with self._lock:
            item = Notification(self._next_id(), title, text, sender, int(time.time()))
            for person in people:
                self._inboxes[person.id].items.append(item)
        return asdict(item)

    def inbox(self, person: Person) -> dict[str, Any]:
        """The notifications of one person, newest first, and how many are new."""
        with self._lock:
            box = self._inboxes[person.id]
            return {
                "items": [asdict(item) for item in reversed(box.items)],
                "seen": box.seen,
                "unread": box.unread,
            }

    def mark_seen(self, person: Person) -> int:
        """Note that this person has seen everything so far; up to which notification."""
        with self._lock:
            box = self._inboxes[person.id]
            if box.items:
                box.seen = box.items[-1].id
            return box.seen

    def say(self, person: Person, text: str) -> dict[str, Any]:
        """Add a message to the conversation."""
        with self._lock:
            message = Message(self._next_id(), person.id, person.name, text, int(time.time()))
            self._messages.append(message)
        return asdict(message)

    def conversation(self) -> list[dict[str, Any]]:
        """The messages, oldest first."""
        with self._lock:
            return [asdict(message) for message in self._messages]
