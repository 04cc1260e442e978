"""The broker that keeps its log in one SQLite file: durable, for one push server.

What is answered has been synced to the disk, by a thread that commits everything that gathered
during its last commit at once (`push_server.brokers.writer`). Recent history is served from
memory (`push_server.brokers.windows`); the disk (`push_server.brokers.sqlite_store`) is read
only at start and when a client asks for more than memory holds.

Everything here runs on the loop. Memory changes after the commit, in the order of the commits:
first the windows, then `deliver`, then the answers to the publishers.

Imported by `push_server.brokers`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from push_server.brokers.base import Broker, Deliver, Revoked
from push_server.brokers.memory import Claims
from push_server.brokers.sqlite_store import Opened, SQLiteStore
from push_server.brokers.windows import BUDGET, Windows
from push_server.brokers.writer import Job, Placed, Writer
from push_server.channels import Namespaces
from push_server.errors import PushError
from push_server.history import EPOCH, TRIMMED, ChannelLog, History
from push_server.positions import Position
from push_server.publications import Published, PublishRequest
from push_server.revocations import Revocation

REQUEST_BYTES = 1_000
"""What a publish request takes besides its data, about."""


class SQLiteBroker(Broker):
    """A durable broker for one process."""

    def __init__(
        self,
        path: str,
        namespaces: Namespaces,
        deliver: Deliver,
        revoked: Revoked,
        clock: Callable[[], float] = time.time,
        *,
        budget: int = BUDGET,
        store: Callable[..., SQLiteStore] = SQLiteStore,
    ) -> None:
        super().__init__(namespaces, deliver, revoked, clock)
        # Looked up each time: the namespaces may be replaced while the thread runs.
        self._writer = Writer(
            store(path, lambda name: self.namespaces.of(name), clock),
            self._settle,
            self._renewed,
        )
        self._budget = budget
        self._claims = Claims()
        self._loading: dict[str, asyncio.Future[ChannelLog | PushError]] = {}

    async def start(self) -> None:
        """Open the file and announce the revocations in force."""
        opened: Opened = await self._writer.start()
        self._windows = Windows(opened.epoch, opened.heads, self._budget)
        for key, expires in opened.claims:
            self._claims.put(key, expires)
        for revocation in opened.revocations:
            self.revoked(revocation)

    async def close(self) -> None:
        """Commit what was accepted, then close the file."""
        await self._writer.close()

    async def publish(self, requests: Sequence[PublishRequest]) -> Sequence[Published | PushError]:
        """Place the requests in the next transaction."""
        size = sum(len(request.data) + REQUEST_BYTES for request in requests)
        try:
            answers = await self._writer.ask(
                partial(SQLiteStore.place, requests=requests), len(requests), size
            )
        except PushError as error:
            answers = error
        if isinstance(answers, PushError):
            return [answers] * len(requests)
        placed: Sequence[Published | PushError] = answers
        return placed

    def _settle(self, placed: Placed) -> None:
        for channel, publications in placed.items():
            self._windows.append(channel, publications, self.namespaces.of(channel))
        for channel, publications in placed.items():
            self._hand_over(channel, publications)

    def _renewed(self, opened: Opened) -> None:
        """Go on with the log that has replaced a damaged one; nothing of it is known here yet."""
        channels = list(self._windows.channels())
        self._windows = Windows(opened.epoch, opened.heads, self._budget)
        for channel in channels:
            self.restarted(channel, EPOCH, self._windows.head(channel))

    async def read(self, since: Mapping[str, Position | None]) -> Mapping[str, History]:
        """Answer from memory where that suffices, and then without waiting; else load."""
        while True:
            windows = self._windows
            histories = await self._read(since)
            if windows is self._windows:
                return histories
            # The log was replaced meanwhile, and these are verdicts on the old one.

    async def _read(self, since: Mapping[str, Position | None]) -> Mapping[str, History]:
        histories: dict[str, History] = {}
        short: list[str] = []
        for channel, position in since.items():
            window = self._window(channel)
            histories[channel] = history = window.since(position)
            if history.reset == TRIMMED and not window.whole:
                short.append(channel)
        for channel, window in (await self._load(short) if short else {}).items():
            histories[channel] = window.since(since[channel])
        return histories

    async def history(self, channel: str, since: int | Position, limit: int) -> History:
        """Answer from memory if it reaches back that far, else load."""
        window = self._window(channel)
        if not window.reaches(since):
            window = (await self._load([channel]))[channel]
        return window.page(since, limit)

    def _window(self, channel: str) -> ChannelLog:
        return self._windows.log(channel, self.namespaces.of(channel), self.clock())

    async def _load(self, channels: Sequence[str]) -> dict[str, ChannelLog]:
        """The whole logs of these channels; those on their way for somebody else are shared."""
        loading = {
            channel: self._loading.get(channel) or self._ask(channel) for channel in channels
        }
        # Waits without cancelling what others wait for, too.
        await asyncio.wait(loading.values())
        windows: dict[str, ChannelLog] = {}
        for channel, future in loading.items():
            window = future.result()
            if isinstance(window, PushError):
                raise window
            windows[channel] = window
        return windows

    def _ask(self, channel: str) -> asyncio.Future[ChannelLog | PushError]:
        loaded: asyncio.Future[ChannelLog | PushError] = asyncio.get_running_loop().create_future()

        def done(window: ChannelLog | PushError) -> None:
            # In this very call, before a later round can append to what is known here.
            del self._loading[channel]
            if isinstance(window, ChannelLog):
                self._windows.install(channel, window)
            loaded.set_result(window)

        self._writer.submit(Job(partial(SQLiteStore.load, channel=channel), done, writes=False))
        self._loading[channel] = loaded
        return loaded

    async def claim(self, key: str, ttl: float) -> bool:
        """Claim in memory, then make it outlive a restart; the disk being full denies nobody."""
        now = self.clock()
        if not self._claims.take(key, ttl, now):
            return False
        await self._writer.ask(partial(SQLiteStore.claim, key=key, expires=now + ttl))
        return True

    async def revoke(self, revocation: Revocation) -> None:
        """Announce it, then store it."""
        self.revoked(revocation)
        answer = await self._writer.ask(partial(SQLiteStore.revoke, revocation=revocation))
        if isinstance(answer, PushError):
            raise answer
