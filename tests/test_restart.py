"""A restart under load: the port refuses nobody, nothing is lost, everybody is back in time.

The sockets belong to the service manager, so the kernel keeps who connects meanwhile until the next
process accepts. Where changes are judged (CI=true), with 2,000 visitors and the settings as
they are shipped; elsewhere with fewer, who are told to hurry.
"""

import asyncio
import contextlib
import json
import os
import resource
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from harness import ApiError
from managed import Service
from service_manager import ServiceManager
from waiting import until
from wire import Ended

JUDGED = os.environ.get("CI") == "true"
VISITORS = 2000 if JUDGED else 200
HURRY = {} if JUDGED else {"drain_spread": 2}
BACK_WITHIN = 20.0 if JUDGED else 5.0
PATIENCE = 60.0


@dataclass
class Visitor:
    """One stream that comes back as `docs/protocol.rst` says, and remembers what it was given."""

    port: int
    host: str
    token: str
    cursor: str = ""
    offsets: list[int] = field(default_factory=list)
    greeted: list[float] = field(default_factory=list)
    """When it was told hello, once for each connection."""
    troubles: list[str] = field(default_factory=list)
    """Refused connections, answers other than 200, resets."""
    pause: float = 0.0

    async def stay(self) -> None:
        """Be connected, for ever."""
        while True:
            self.pause = 0.5
            try:
                await self._one_connection()
            except OSError as error:
                self.troubles.append(repr(error))
            await asyncio.sleep(self.pause)

    async def _one_connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        since = f"&since={self.cursor}" if self.cursor else ""
        writer.write(
            f"GET /subscribe/stream?channel=news{since} HTTP/1.1\r\nHost: {self.host}\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n".encode()
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                self.troubles.append(head.decode().partition("\r\n")[0])
            while line := await reader.readline():
                with contextlib.suppress(ValueError):
                    self._hear(json.loads(line))
        except asyncio.IncompleteReadError:
            self.troubles.append("no answer")
        finally:
            writer.close()

    def _hear(self, message: object) -> None:
        if not isinstance(message, dict):
            return  # the size of a chunk
        self.cursor = message.get("cursor", self.cursor)
        if message.get("channel") == "news":
            self.offsets.append(message["offset"])
        match message.get("type"):
            case "hello":
                self.greeted.append(time.monotonic())
            case "reconnect":
                self.pause = message["delay"] / 1000
            case "reset":
                self.troubles.append("reset")


class Publisher(threading.Thread):
    """Publishes without a pause, each until it is acknowledged, as a CMS with a spool does."""

    def __init__(self, push: Service) -> None:
        super().__init__()
        self._push = push
        self.acknowledged = 0
        self.refused = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(0.3):
            publication_id = uuid.uuid4().hex
            while not self._try(publication_id):
                time.sleep(0.05)

    def _try(self, publication_id: str) -> bool:
        try:
            self._push.api("publish", channel="news", data="x" * 200, id=publication_id)
        except ConnectionRefusedError:
            self.refused += 1
        except (ApiError, Ended, OSError):
            pass
        else:
            self.acknowledged += 1
            return True
        return False


@pytest.fixture
def push() -> Iterator[Service]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    push = Service(broker="sqlite", **HURRY)
    if JUDGED:
        del push.settings["drain_spread"]
    yield push
    push.remove()


async def visit(push: Service, manager: ServiceManager) -> tuple[list[Visitor], float]:
    """Restart with everybody there; the visitors, and when it began."""
    visitors = [
        Visitor(push.port, push.host, push.token(f"u{n}", ttl=3600)) for n in range(VISITORS)
    ]
    stays = [asyncio.create_task(visitor.stay()) for visitor in visitors]
    publisher = Publisher(push)
    try:
        await until(lambda: all(visitor.greeted for visitor in visitors), seconds=PATIENCE)
        publisher.start()
        await until(lambda: publisher.acknowledged >= 5)
        begun = time.monotonic()
        await asyncio.to_thread(manager.restart)
        await until(lambda: all(len(visitor.greeted) > 1 for visitor in visitors), seconds=PATIENCE)
        publisher.stopping.set()
        await asyncio.to_thread(publisher.join)
        assert publisher.refused == 0
        last = publisher.acknowledged
        await until(
            lambda: all(visitor.offsets[-1:] == [last] for visitor in visitors), seconds=PATIENCE
        )
    finally:
        publisher.stopping.set()
        for stay in stays:
            stay.cancel()
        await asyncio.gather(*stays, return_exceptions=True)
    return visitors, begun


def test_nobody_is_refused_and_nothing_is_lost(push: Service) -> None:
    with push.managed() as manager:
        manager.start()
        visitors, begun = asyncio.run(visit(push, manager))
    assert [visitor.troubles for visitor in visitors if visitor.troubles] == []
    for visitor in visitors:
        first, last = visitor.offsets[0], visitor.offsets[-1]
        assert visitor.offsets == list(range(first, last + 1))
        assert first == 1
    back = sorted(visitor.greeted[1] - begun for visitor in visitors)
    assert back[-1] < BACK_WITHIN, back[-10:]
    print(f"half back after {back[len(back) // 2]:.1f} s, all after {back[-1]:.1f} s")  # noqa: T201
