"""SIGKILL while publishing: what was acknowledged is in the log, at the place it was given.

A child process (this file, run as a program) publishes into one SQLite file from several
tasks and prints each acknowledgement when it has it. It is killed at a random moment, a hundred
times; each next child opens the same file. Every few rounds, and at the end, the file is opened
here and compared with everything that was ever printed.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from push_server.brokers.sqlite import SQLiteBroker
from push_server.channels import Namespace, Namespaces
from push_server.publications import Published, PublishRequest

ROUNDS = 100
SEED = 20_261_120
COMPARE_EVERY = 20
CHANNELS = ("a", "b", "c")
KEEP = Namespaces({"*": Namespace(history_size=10**6, history_ttl=10**9, history_bytes=10**12)})

Acknowledged = dict[tuple[str, int], tuple[int, str]]
"""(channel, offset) -> (epoch, id)."""


def request_of(channel: str, name: str) -> PublishRequest:
    return PublishRequest(channel, name, b'"%s"' % name.encode())


async def publish_until_killed(broker: SQLiteBroker, number: str, task: int) -> None:
    count = 0
    while True:
        requests = []
        for _ in range(1 + (task + count) % 4):
            count += 1
            requests.append(request_of(CHANNELS[count % 3], f"{number}.{task}.{count}"))
        lines = []
        for answer in await broker.publish(requests):
            assert isinstance(answer, Published)
            lines.append(f"{answer.channel} {answer.epoch} {answer.offset} {answer.id}\n")
        # One write shorter than PIPE_BUF: all of it or nothing.
        os.write(1, "".join(lines).encode())


async def child(path: str, number: str) -> None:
    broker = SQLiteBroker(path, KEEP, lambda *_: None, lambda _: None)
    await broker.start()
    os.write(1, b"started\n")
    await asyncio.gather(*(publish_until_killed(broker, number, task) for task in range(4)))


def one_round(path: Path, number: int, moment: float, acknowledged: Acknowledged) -> None:
    """Let a child publish for a moment and kill it; note what it was told."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(path), str(number)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert process.stdout is not None
    with process.stdout as output:
        try:
            assert output.readline() == b"started\n"
            time.sleep(moment)
        finally:
            process.kill()
            lines = output.read().decode().splitlines()
            process.wait()
    assert process.returncode == -9
    for line in lines:
        channel, epoch, offset, name = line.split()
        place = (channel, int(offset))
        assert place not in acknowledged, f"two acknowledgements for one place: {line}"
        acknowledged[place] = (int(epoch), name)


async def compare(path: Path, acknowledged: Acknowledged, chance: random.Random) -> None:
    """Open the log and look for everything that was acknowledged, and for gaps."""
    broker = SQLiteBroker(str(path), KEEP, lambda *_: None, lambda _: None)
    await broker.start()
    try:
        found: Acknowledged = {}
        for channel in CHANNELS:
            history = await broker.history(channel, 0, 10**6)
            for expected, item in enumerate(history.publications, start=1):
                assert item.position.offset == expected
                assert item.json.endswith(b'"data":"%s"}' % item.id.encode())
                found[channel, expected] = (item.position.epoch, item.id)
            assert len(history.publications) == history.head.offset
        lost = {place: told for place, told in acknowledged.items() if found.get(place) != told}
        assert lost == {}
        names = [name for _, name in found.values()]
        assert len(set(names)) == len(names)
        # A publisher who never got its answer sends the same id again: never a second place.
        (channel, offset), (epoch, name) = chance.choice(sorted(found.items()))
        again = await broker.publish([request_of(channel, name)])
        assert again == [Published(channel, epoch, offset, name, duplicate=True)]
    finally:
        await broker.close()


def test_sigkill_while_publishing_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "push.db"
    chance = random.Random(SEED)
    acknowledged: Acknowledged = {}
    for number in range(1, ROUNDS + 1):
        one_round(path, number, chance.uniform(0.0, 0.08), acknowledged)
        if number % COMPARE_EVERY == 0:
            asyncio.run(compare(path, acknowledged, chance))
    # Enough happened for the test to mean something.
    assert len(acknowledged) > 10 * ROUNDS
    assert os.path.getsize(path) > 0


if __name__ == "__main__":
    asyncio.run(child(*sys.argv[1:]))
