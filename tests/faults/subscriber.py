"""The browsers of a run: a few hundred sessions, each a page that keeps its cursor.

A session behaves as `docs/protocol.rst` tells a client to: it takes the cursor from every
message, comes back with it after whatever ended its connection, waits as long as it is told,
and ends when it is told `revoked`. It logs what it is told, not what it makes of it. Runs as a
process of the rig (`faults.child`).
"""

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlencode

from formulas import issue_token

from faults.child import Actor, main
from faults.clients import (
    PARSERS,
    Garbled,
    Got,
    Head,
    place_in,
    read_answer,
    read_head,
    short_hash,
)
from faults.logs import CANARY, Row, Writer

CONNECT_SECONDS = 5.0
POLL_SECONDS = 10
BACK_OFF_MOST = 2.0
TOKEN_SECONDS = 600


class Tap(asyncio.Protocol):
    """A socket whose bytes go to whoever listens; `over` is set when it ends."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.heard = time.monotonic()
        self.wire: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        try:
            self._take(data)
        except (ValueError, KeyError, Garbled) as error:
            # The bytes themselves are no promise; what they lack will be missed.
            self.end(f"garbled: {error!r}"[:200])

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("cut" if exc else "closed")

    def end(self, why: str) -> None:
        """Say why it is over; the first reason counts."""
        if not self.over.done():
            self.over.set_result(why)

    def reset(self) -> None:
        """End it with RST."""
        found = self.wire.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wire.abort()


class Session:
    """One page of one user."""

    def __init__(self, crowd: "Crowd", name: str, user: str, transport: str) -> None:
        self.name = name
        self.user = user
        self.transport = transport
        self.crowd = crowd
        self.channels = [f"user:{user}", *crowd.rooms_for(name)]
        self.sid = f"sid-{name}"
        self.cursor = ""
        self.conn = 0
        self.over = ""
        self.tap: Tap | None = None
        self.marked: set[str] = set()
        self.token: Row = {}
        self.token_seconds = TOKEN_SECONDS
        self.opened_at = 0.0
        self.wait = 0.0
        self._failures = 0
        self._head: Head | None = None
        self._buffer = b""
        self._steady = False
        """Whether a poll just goes on from the one before."""
        for channel in self.channels:
            self._log(channel, "begin", user=user, transport=transport)

    def _log(self, channel: str, row: str, **more: Any) -> None:
        at = round(self.crowd.now(), 6)
        self.crowd.log.write(channel, {"row": row, "session": self.name, "at": at, **more})

    # Its life.

    async def live(self) -> None:
        """Connect, and connect again, until the session is over."""
        while not self.over:
            why = await self._connect()
            self._steady = self._steady and why == "answered"
            if why != "answered":
                for channel in self.channels:
                    self._log(channel, "gone", why=why)
                self.crowd.counts[f"gone: {why.partition(':')[0]}"] += 1
                await asyncio.sleep(self._pause())
        for channel in self.channels:
            self._log(channel, "end", why=self.over)
        self.crowd.ended(self)

    def _pause(self) -> float:
        """As long as the server said, or a little longer after each failure."""
        if self.wait:
            wait, self.wait = self.wait, 0.0
            return wait
        self._failures += 1
        most = min(BACK_OFF_MOST, 0.05 * 2**self._failures)
        return self.crowd.chance.uniform(most / 2, most)

    async def _connect(self) -> str:
        host, port, name = self.crowd.address_for(self)
        self._head, self._buffer = None, b""
        if self._steady and self.tap is not None and not self.tap.over.done():
            tap = self.tap
        else:
            loop = asyncio.get_running_loop()
            connecting = loop.create_connection(lambda: Tap(self._take), host, port)
            try:
                _, tap = await asyncio.wait_for(connecting, CONNECT_SECONDS)
            except (OSError, TimeoutError):
                return "no connection"
        self.tap = tap
        tap.heard = time.monotonic()
        tap.wire.write(self._request(name))
        if self.transport == "poll":
            self._answered = asyncio.get_running_loop().create_future()
        why = await self._watch(tap)
        if why != "answered":
            tap.wire.abort()
        return why

    async def _watch(self, tap: Tap) -> str:
        """Wait until the connection is over, or has been silent for too long."""
        silence = self.crowd.config["silence"] + (POLL_SECONDS if self.transport == "poll" else 0)
        while True:
            waiting: set[asyncio.Future[Any]] = {tap.over}
            if self.transport == "poll":
                waiting.add(self._answered)
            done, _ = await asyncio.wait(
                waiting, timeout=1.0, return_when=asyncio.FIRST_COMPLETED
            )
            if self.transport == "poll" and self._answered.done():
                return str(self._answered.result())
            if done:
                return tap.over.result()
            # A reader that was told to be slow knows that it is not the server's silence.
            if tap.wire.is_reading() and time.monotonic() - tap.heard > silence:
                return "silence"

    def _request(self, host: str) -> bytes:
        now = int(time.time())
        seconds, self.token_seconds = self.token_seconds, TOKEN_SECONDS
        # Issued before it expires, however short it is to live.
        issued = min(now, now + seconds - 1)
        self.token = {"sid": self.sid, "jti": token_hex(6), "iat": issued}
        claims = {
            "v": 1, "sub": self.user, **self.token, "exp": now + seconds,
            "sub_ch": ["room:*", "short:*"], "pub_ch": [],
        }
        query = [("channel", channel) for channel in self.channels[1:]]
        if self.crowd.nosy(self.name):
            query.append(("channel", f"user:{self.crowd.other_user(self.user)}"))
        if self.cursor:
            query.append(("since", self.cursor))
        if self.transport == "poll":
            query.append(("timeout", str(POLL_SECONDS)))
        token = issue_token(claims, self.crowd.config["token_key"])
        self._asked_from = self.cursor
        return (
            f"GET /subscribe/{self.transport}?{urlencode(query)} HTTP/1.1\r\n"
            f"Host: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
        ).encode()

    # What the server says.

    def _take(self, data: bytes) -> None:
        if self._head is None:
            self._buffer += data
            found = read_head(self._buffer)
            if found is None:
                return
            self._head, data = found
            self._buffer = b""
            if self._head.status == 200 and self.transport != "poll":
                self._parser = PARSERS[self.transport]()
                self.conn += 1
        if self._head.status == 200 and self.transport != "poll":
            for message, cursor in self._parser.feed(data):
                self._hear(message, cursor)
            return
        self._buffer += data
        if len(self._buffer) >= int(self._head.fields["content-length"]):
            self._whole(self._head, self._buffer)

    def _whole(self, head: Head, body: bytes) -> None:
        """An answer with a length: a poll's, or a refusal."""
        assert self.tap is not None
        if head.status != 200:
            self._refused(head, body)
            return
        self._head, self._buffer = None, b""
        controls, publications, cursor = read_answer(body)
        fresh = not self._steady or any(
            control["type"] not in ("hello", "recovered") for control in controls
        )
        if fresh:
            self.conn += 1
        for control in controls:
            if fresh or control["type"] not in ("hello", "recovered"):
                self._hear(control, cursor)
        for got in publications:
            self._got(got, cursor)
        self.cursor = cursor
        self._steady = True
        self._failures = 0
        if head.fields.get("connection") == "close":
            self.tap.end("closed")
        self._answered.set_result("revoked" if self.over else "answered")

    def _refused(self, head: Head, body: bytes) -> None:
        assert self.tap is not None
        self.crowd.counts[f"refused: {head.status}"] += 1
        if CANARY.encode() in body:
            self.crowd.counts["leaks"] += 1
        if head.status == 401 and self.sid in self.crowd.revoked:
            self.over = "revoked"
        self.wait = min(float(head.fields.get("retry-after", 0)), 2 * BACK_OFF_MOST)
        self.tap.end(f"refused: {head.status} {body[:100]!r}")

    def _hear(self, message: Got | Row, cursor: str) -> None:
        if isinstance(message, Got):
            self._got(message, cursor)
            self.cursor = cursor
            return
        kind = message["type"]
        if kind == "hello":
            self._hello(message)
        elif kind == "recovered":
            for channel in message["channels"]:
                self._log(channel, "recovered")
        elif kind == "reset":
            self.crowd.counts["resets"] += len(message["channels"])
            for channel in message["channels"]:
                place = place_in(message["cursor"], channel)
                self._log(channel, "reset", reason=message["reason"], place=place)
                self._begin_at(channel, place)
        elif kind == "reconnect":
            self.wait = message["delay"] / 1000
        elif kind == "revoked":
            self.over = "revoked"
        self.cursor = cursor

    def _hello(self, message: Row) -> None:
        self._failures = 0
        self.opened_at = round(self.crowd.now(), 6)
        for channel in message["channels"]:
            if channel not in self.channels:
                # It asked for what is another's, and got it.
                self._log(channel, "begin", user=self.user, transport=self.transport)
                self.channels.append(channel)
            since = place_in(self._asked_from, channel) if self._asked_from else None
            # Not the cursor behind the message: a poll's is that of its whole answer.
            place = place_in(message["cursor"], channel)
            self._log(
                channel,
                "hello",
                conn=self.conn,
                since=since,
                place=place,
                at=self.opened_at,
                **self.token,
            )
            if since is None:
                self._begin_at(channel, place)

    def _begin_at(self, channel: str, place: list[Any] | None) -> None:
        """Whoever begins behind the last publication has nothing to wait for."""
        if place is not None and place[2] == short_hash(self.crowd.marker):
            self.marked.add(channel)

    def _got(self, got: Got, cursor: str) -> None:
        crowd = self.crowd
        now = crowd.now()
        place = place_in(cursor, got.channel)
        if place is None:
            raise Garbled(f"the cursor does not speak of {got.channel}")
        tag = f'"{place[2]}"' if place[1] == got.offset else "null"
        via = "history" if got.sent < self.opened_at else "live"
        canary = f',"canary":"{got.owner}"' if got.owner is not None else ""
        crowd.log.file(got.channel).write(
            f'{{"row":"got","session":"{self.name}","conn":{self.conn},"epoch":{place[0]},'
            f'"offset":{got.offset},"tag":{tag},"id":"{got.id}","sha":"{got.sha}",'
            f'"at":{now:.6f},"via":"{via}"{canary}}}\n'
        )
        crowd.received += 1
        if via == "live":
            crowd.lags.append(now - got.sent)
        if got.id == crowd.marker:
            self.marked.add(got.channel)


class Crowd(Actor):
    """All sessions of one process."""

    def __init__(self, config: Row) -> None:
        super().__init__(config)
        self.chance = random.Random(config["seed"])
        self.log = Writer(Path(config["folder"]) / "received", f"{config['number']}-")
        self.sessions: dict[str, Session] = {}
        self.counts: Counter[str] = Counter()
        self.lags: list[float] = []
        self.received = 0
        self.revoked: set[str] = set()
        self.marker = config["marker"]
        self._made = 0
        self._dead: list[Any] = []
        """Connections that nobody reads or closes."""

    async def start(self) -> None:
        users = self.config["users"]
        for number in range(self.config["sessions"]):
            self._begin(users[number % len(users)], ("sse", "stream", "poll")[number % 3])

    def _begin(self, user: str, transport: str) -> None:
        self._made += 1
        name = f"{self.config['number']}.{self._made}"
        session = self.sessions[name] = Session(self, name, user, transport)
        self.spawn(session.live())

    def ended(self, session: Session) -> None:
        """A session is over; its user logs in again, in a new one."""
        del self.sessions[session.name]
        self.spawn(self._again(session))

    async def _again(self, session: Session) -> None:
        # A revocation means tokens up to the very second it was signed in.
        await asyncio.sleep(1.2)
        self._begin(session.user, session.transport)

    def rooms_for(self, name: str) -> list[str]:
        """The rooms of a session."""
        rooms: list[str] = random.Random(f"{self.config['seed']}{name}").sample(
            self.config["rooms"], self.config["rooms_each"]
        )
        return rooms

    def nosy(self, name: str) -> bool:
        """Whether a session asks for another's personal channel too."""
        return int(name.partition(".")[2]) % 4 == 0

    def other_user(self, user: str) -> str:
        """Another user."""
        users = self.config["users"]
        return str(users[(users.index(user) + 1) % len(users)])

    def address_for(self, session: Session) -> tuple[str, int, str]:
        """A node for this connection, through a proxy or not, and its name."""
        host, port, name = self.chance.choice(self.config["addresses"])
        return host, port, name

    def figures(self) -> Row:
        self.log.flush()
        lags, self.lags = sorted(self.lags), []
        streaming = [one for one in self.sessions.values() if one.tap and not one.tap.over.done()]
        return {
            "got": self.received,
            "resets": self.counts["resets"],
            "open": len(streaming),
            "lag50": lags[len(lags) // 2] if lags else None,
            "lag99": lags[len(lags) * 99 // 100] if lags else None,
            "counts": dict(self.counts),
        }

    def close(self) -> None:
        self.log.close()

    def _some(self, count: int, kinds: tuple[str, ...] = ("sse", "stream", "poll")) -> list[Tap]:
        taps = [
            one.tap
            for one in self.sessions.values()
            if one.transport in kinds and one.tap is not None and not one.tap.over.done()
        ]
        return self.chance.sample(taps, min(count, len(taps)))

    # What the rig asks for.

    async def do_cut(self, count: int) -> int:
        """End connections with RST; the sessions come back."""
        taps = self._some(count)
        for tap in taps:
            tap.reset()
        return len(taps)

    async def do_slow(self, count: int, seconds: float) -> int:
        """Read nothing for a while."""
        taps = self._some(count, ("sse", "stream"))
        for tap in taps:
            tap.wire.pause_reading()
        await asyncio.sleep(seconds)
        for tap in taps:
            if not tap.wire.is_closing():
                tap.heard = time.monotonic()
                tap.wire.resume_reading()
        return len(taps)

    async def do_half_open(self, count: int, seconds: float) -> int:
        """Walk away without closing, and come back on other connections."""
        taps = self._some(count, ("sse", "stream"))
        for tap in taps:
            tap.wire.pause_reading()
            # `_connect` aborts what it leaves; a copy of the descriptor keeps the peer in doubt.
            found = tap.wire.get_extra_info("socket")
            if found is not None and found.fileno() >= 0:
                self._dead.append(socket.fromfd(found.fileno(), found.family, found.type))
            tap.end("half open")
        await asyncio.sleep(seconds)
        for dead in self._dead:
            dead.close()
        self._dead.clear()
        return len(taps)

    async def do_expire(self, count: int) -> int:
        """Come back with tokens that the leeway keeps good for three seconds more."""
        sessions = self.chance.sample(
            list(self.sessions.values()), min(count, len(self.sessions))
        )
        for session in sessions:
            session.token_seconds = -57
            if session.tap is not None and not session.tap.over.done():
                session.tap.reset()
        return len(sessions)

    async def do_key(self, key: str) -> None:
        """Sign tokens with another key from now on."""
        self.config["token_key"] = key

    async def do_pick(self) -> Row:
        """A session that is to be revoked."""
        session = self.chance.choice(list(self.sessions.values()))
        return {"user": session.user, "sid": session.sid, "jti": session.token.get("jti", "")}

    async def do_revoked(self, sid: str) -> None:
        """From now on a 401 means that the session is over."""
        self.revoked.add(sid)

    async def do_marked(self) -> tuple[int, int]:
        """How many (session, channel) pairs have the last publication, and how many there are."""
        have = sum(len(one.marked & set(one.channels)) for one in self.sessions.values())
        return have, sum(len(one.channels) for one in self.sessions.values())

    async def do_missing(self) -> Any:
        """Who has not got the last publication, for the report of a run that failed."""
        return [
            [one.name, one.transport, sorted(set(one.channels) - one.marked), one.cursor]
            for one in self.sessions.values()
            if set(one.channels) - one.marked
        ][:20]

    async def do_dump(self) -> str:
        """What the sessions went through."""
        return json.dumps(dict(self.counts))


if __name__ == "__main__":
    main(Crowd)
