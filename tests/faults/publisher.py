"""The CMS side of a run: several writers that publish, retry with the same id, and keep a log.

What is about to be tried is handed to the kernel before it is sent, and what came of it is
synced to the disk before the same writer sends anything else. A writer gives a publication up
only when it has 200 or 4xx. Runs as a process of the rig (`faults.child`).
"""

import asyncio
import json
import os
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

from formulas import sign_webhook

from faults.child import Actor, main
from faults.logs import CANARY, Row, Writer, digest, owner_of

ANSWER_SECONDS = 3.0
RETRY_MOST = 1.5
BEHIND_MOST = 3.0
"""Seconds of work that a writer catches up with after an outage."""


class Item(NamedTuple):
    """A publication on its way."""

    channel: str
    id: str
    data: Any
    sha: str
    sent: float


class Unknown(Exception):
    """Raised if nobody can say whether the commands were carried out."""


class Api:
    """Signed calls on a connection that is kept."""

    def __init__(self, addresses: Sequence[Sequence[Any]], secret: str) -> None:
        self._addresses = deque(tuple(address) for address in addresses)
        self._secret = secret
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, commands: object) -> tuple[int, Any]:
        """Status and answer. Raises `Unknown` if there is none, or one that promises nothing."""
        body = json.dumps(commands).encode()
        try:
            status, answer = await asyncio.wait_for(self._exchange(body), ANSWER_SECONDS)
            value = json.loads(answer)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self._drop()
            raise Unknown(type(error).__name__) from error
        if status >= 500:
            raise Unknown(str(status))
        return status, value

    async def _exchange(self, body: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            host, port = self._addresses[0]
            self._streams = await asyncio.open_connection(host, port, limit=4 << 20)
        reader, writer = self._streams
        webhook, stamp = "msg_" + token_hex(8), str(int(time.time()))
        head = (
            "POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"webhook-id: {webhook}\r\nwebhook-timestamp: {stamp}\r\n"
            f"webhook-signature: {sign_webhook(self._secret, webhook, stamp, body)}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        answer = await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            self._drop()
        return status, answer

    def _drop(self) -> None:
        """Let go of the connection; the next one goes to the next node."""
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None
        self._addresses.rotate(-1)


class Publishers(Actor):
    """All writers of one process."""

    def __init__(self, config: Row) -> None:
        super().__init__(config)
        self._chance = random.Random(config["seed"])
        folder = Path(config["folder"]) / "published"
        self._logs = [Writer(folder, f"{number}-") for number in range(config["writers"])]
        self._rate = config["rate"]
        self._stopping = False
        self._counter = 0
        self._recent: deque[Item] = deque(maxlen=400)
        self._counts: Counter[str] = Counter()
        self._weights = [
            config["personal_share"] if owner_of(name) else 1.0 for name in config["channels"]
        ]

    async def start(self) -> None:
        self._writers = [self.spawn(self._write(n)) for n in range(self.config["writers"])]

    def figures(self) -> Row:
        return dict(self._counts)

    def close(self) -> None:
        for log in self._logs:
            log.close()

    # Making publications.

    def _item(self, channel: str, size: int | None = None) -> Item:
        self._counter += 1
        data: Row = {"n": self._counter, "t": round(self.now(), 6)}
        if (owner := owner_of(channel)) is not None:
            data["secret"] = f"{CANARY}{owner}-{self._counter}"
        if size is None:
            size = 16_000 if self._chance.random() < 0.01 else self._chance.randrange(20, 400)
        data["text"] = "x" * size
        name = f"{self.config['seed']}-{self._counter}"
        return Item(channel, name, data, digest(data), data["t"])

    def _batch(self) -> list[Item]:
        size = self._chance.choice((1, 1, 5, 20, 40))
        channels = self._chance.choices(self.config["channels"], self._weights, k=3)
        if self._chance.random() < 0.8:
            channels = channels[:1]
        return [self._item(self._chance.choice(channels)) for _ in range(size)]

    # Sending them.

    def _api(self, number: int) -> Api:
        addresses = self.config["addresses"]
        turned = addresses[number % len(addresses) :] + addresses[: number % len(addresses)]
        return Api(turned, self.config["secret"])

    async def _write(self, number: int) -> None:
        api = self._api(number)
        due = self.now()
        while not self._stopping:
            await asyncio.sleep(due - self.now())
            batch = self._batch()
            due = max(due, self.now() - BEHIND_MOST)
            due += len(batch) * self.config["writers"] / self._rate
            await self._send(self._logs[number], api, batch)
            if self._chance.random() < 0.02:
                await self._send(self._logs[number], api, batch)
            if self._chance.random() < 0.005 and batch[0] in self._recent:
                await self._contradict(self._logs[number], api, batch[0])

    async def _contradict(self, log: Writer, api: Api, item: Item) -> None:
        """Use an id again for something else; the first body wins."""
        await self._send(log, api, [item._replace(data="other", sha=digest("other"))])

    async def _send(self, log: Writer, api: Api, batch: list[Item]) -> None:
        pause = 0.05
        while batch:
            for item in batch:
                row = {"row": "try", "id": item.id, "sha": item.sha, "sent": item.sent}
                log.write(item.channel, {**row, "at": self._at()})
            log.flush()
            self._counts["tries"] += len(batch)
            left = self._settle(log, batch, await self._post(api, batch))
            for channel in {item.channel for item in batch}:
                file = log.file(channel)
                file.flush()
                os.fdatasync(file.fileno())
            batch = left
            if batch:
                await asyncio.sleep(pause * self._chance.uniform(0.5, 1.5))
                pause = min(pause * 2, RETRY_MOST)

    def _at(self) -> float:
        return round(self.now(), 6)

    async def _post(self, api: Api, batch: Sequence[Item]) -> Sequence[Row]:
        """One row for each publication: what came of it."""
        commands: list[Row] = [
            {"method": "publish", "params": {"channel": i.channel, "data": i.data, "id": i.id}}
            for i in batch
        ]
        try:
            status, value = await api.call(commands if len(commands) > 1 else commands[0])
        except Unknown as why:
            return [{"row": "unknown", "why": str(why)}] * len(batch)
        answers = value if isinstance(value, list) else [value] * len(batch)
        return [self._outcome(status, answer) for answer in answers]

    @staticmethod
    def _outcome(status: int, answer: Row) -> Row:
        if "result" in answer:
            result = answer["result"]
            return {
                "row": "ack",
                "epoch": result["epoch"],
                "offset": result["offset"],
                "dup": result["duplicate"],
            }
        code = answer["error"]["code"]
        # The status of one command in a list; where none is told, only a contradiction is a no.
        status = answer["error"].get("status", status)
        if status >= 500 or (status == 200 and code != "id_conflict"):
            return {"row": "unknown", "why": code}
        return {"row": "nack", "status": status, "code": code}

    def _settle(self, log: Writer, batch: list[Item], rows: Sequence[Row]) -> list[Item]:
        """Log what came of each; those of which nobody knows."""
        left = []
        for item, row in zip(batch, rows, strict=True):
            log.write(item.channel, {**row, "id": item.id, "at": self._at()})
            self._counts[row["row"]] += 1
            if row["row"] == "unknown":
                left.append(item)
            elif row["row"] == "ack":
                if not row["dup"]:
                    self._counts["acked"] += 1
                self._recent.append(item)
        return left

    # What the rig asks for.

    async def _all(self, batches: Sequence[list[Item]], at_once: int) -> None:
        """Send batches, several at a time, each by a writer of its own."""
        waiting = deque(batches)

        async def work(number: int) -> None:
            api = self._api(number)
            while waiting:
                await self._send(self._logs[number % len(self._logs)], api, waiting.popleft())

        await asyncio.gather(*(work(number) for number in range(at_once)))

    async def do_duplicates(self, count: int) -> int:
        """Publish again what was acknowledged lately."""
        again = list(self._recent)[-count:]
        await self._all([[item] for item in again], 4)
        return len(again)

    async def do_disorder(self, count: int) -> str:
        """Eight writers, one channel, counters in no order."""
        channel: str = self._chance.choice(self.config["channels"])
        items = [self._item(channel) for _ in range(count)]
        self._chance.shuffle(items)
        await self._all([[item] for item in items], 8)
        return channel

    async def do_huge(self, size: int) -> str:
        """One publication as large as a request may be."""
        rooms = [name for name in self.config["channels"] if owner_of(name) is None]
        channel: str = self._chance.choice(rooms)
        await self._all([[self._item(channel, size)]], 1)
        return channel

    async def do_storm(self, count: int, at_once: int) -> int:
        """Many single publications at once, as fast as they are taken."""
        channels = self._chance.choices(self.config["channels"], self._weights, k=count)
        await self._all([[self._item(channel)] for channel in channels], at_once)
        return count

    async def do_marker(self, id: str) -> int:  # the command's own word
        """The last publication of every channel."""
        sent = self._at()
        data = {"t": sent}
        items = [Item(name, id, data, digest(data), sent) for name in self.config["channels"]]
        await self._all([items[i : i + 20] for i in range(0, len(items), 20)], 2)
        return len(items)

    async def do_stop(self) -> Row:
        """Begin nothing new, and finish what was begun."""
        self._stopping = True
        await asyncio.gather(*self._writers)
        return self.figures()


if __name__ == "__main__":
    main(Publishers)
