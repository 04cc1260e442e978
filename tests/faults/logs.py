"""The four logs of a run: what stands in them, and how they are written and read.

All are JSON lines in one folder. `at` is seconds since the run began, on the one monotonic
clock that all processes of a machine share, so no jump of the wall clock moves them.

``run.json`` -- the conditions::

    seed broker git machine seconds          what was run
    channels    {name: {"keep": n}}          every channel, and how many publications it keeps
    marker      id                           of the last publication of every channel
    healed      at                           when the last fault was over
    bounds      {converge, revoke, duplicates, rss_factor, rss_slack, fds_slack,
                 log_per_minute}                     seconds, numbers, bytes
    base        at                           when the resources of the warm server were taken
    secrets     [text]                       what no log of a server may contain

``published/N-CHANNEL.jsonl`` -- the publisher log. A try is written before it is sent; what
came of it is synced to the disk before the next request. A retry keeps its id::

    {"row":"try","id","sha","sent","at"}              sent: the time in the payload
    {"row":"ack","id","epoch","offset","dup","at"}
    {"row":"nack","id","status","code","at"}         4xx: not stored
    {"row":"unknown","id","why","at"}                5xx, timeout, cut: nobody knows

``received/N-CHANNEL.jsonl`` -- the subscriber log. A session is one page of one user: it
outlives its connections and carries one cursor through all of them. A place is
[epoch, offset, tag], taken from the cursors by a parser of our own::

    {"row":"begin","session","user","transport","at"}
    {"row":"hello","session","conn","at","since":place|null,"place":place,
                   "sid","jti","iat"}                 sid, jti, iat: of the token
    {"row":"recovered","session","at"}
    {"row":"reset","session","at","reason","place"}
    {"row":"got","session","conn","epoch","offset","tag","id","sha","at","via"[,"canary"]}
    {"row":"gone","session","at","why"}
    {"row":"end","session","at","why"}

``via`` is ``history`` for what was published before the connection was opened, else ``live``.
``canary`` is the owner whose secret stood in the payload. A long poll that just goes on is one
connection: it has one ``hello``. ``tag`` is null where the wire did not say it (in a poll
answer all but the last publication).

``read/CHANNEL.jsonl`` -- the last subscriber: what ``history`` says, after every fault and at
the end::

    {"row":"pass","at","until","epoch","first","head"}      begun, ended; offsets covered
    {"row":"kept","epoch","offset","id","sha"}

``faults.jsonl`` -- the fault log, one row when a fault is over::

    {"kind","t0","t1","node","params","loses","channels","holds","errors"}

``loses``: it may destroy what was acknowledged, if every client is told (``channels``: only of
these; null: of all). ``holds``: bytes may arrive late by as much as it lasted. ``errors``: the
server may log errors. Revocations stand here too, as kind ``revoke`` with ``params``
``{"by","value","before"}``; their ``t1`` is the acknowledgement.

``server.jsonl`` -- the server log, once a second for each node and for all clients::

    {"row":"sample","at","node","pid","rss","fds","threads","cpu","log_bytes","answer"}
    {"row":"clients","at","got","resets","open","lag50","lag99"}
    {"row":"log","at","node","level","line"}         warnings and errors
    {"row":"leak","at","where","what"}               a secret where none may be

Imported by the rig's processes, the checker and the mutants. Nothing here knows a rule.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

Row = dict[str, Any]

PERSONAL = "user:"
CANARY = "canary-"


def digest(data: object) -> str:
    """What the logs keep of a payload."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]


def owner_of(channel: str) -> str | None:
    """The user of a personal channel."""
    return channel.removeprefix(PERSONAL) if channel.startswith(PERSONAL) else None


def file_part(channel: str) -> str:
    """A channel's name as part of a file name; the rig's channels need no more."""
    return channel.replace(":", ".")


class Rows:
    """The rows of some files, read anew each time they are gone through."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    def __iter__(self) -> Iterator[Row]:
        for path in self.paths:
            with path.open(encoding="ascii") as lines:
                for line in lines:
                    # Whoever wrote it may have been killed in the middle of its last row.
                    if line.endswith("\n"):
                        yield json.loads(line)


@dataclass(slots=True)
class ChannelLogs:
    """What was logged of one channel."""

    name: str
    keep: int
    """How many publications the server was told to keep."""
    published: Iterable[Row]
    received: Iterable[Row]
    read: Iterable[Row]


@dataclass(slots=True)
class Logs:
    """All logs of a run. Channels are apart, so that one at a time need be in memory."""

    run: Row
    faults: list[Row] = field(default_factory=list)
    server: Iterable[Row] = ()
    channels: dict[str, ChannelLogs] = field(default_factory=dict)

    def in_memory(self) -> "Logs":
        """A copy that can be changed."""
        return Logs(
            json.loads(json.dumps(self.run)),
            [dict(row) for row in self.faults],
            [dict(row) for row in self.server],
            {
                name: ChannelLogs(
                    name,
                    logs.keep,
                    [dict(row) for row in logs.published],
                    [dict(row) for row in logs.received],
                    [dict(row) for row in logs.read],
                )
                for name, logs in self.channels.items()
            },
        )


def load(folder: Path) -> Logs:
    """The logs in the folder of a run."""
    run: Row = json.loads((folder / "run.json").read_text())
    channels = {}
    for name, terms in run["channels"].items():
        part = file_part(name)
        channels[name] = ChannelLogs(
            name,
            terms["keep"],
            *(
                Rows(*sorted(folder.glob(f"{kind}/{part}.jsonl")))
                for kind, part in (
                    ("published", f"*-{part}"),
                    ("received", f"*-{part}"),
                    ("read", part),
                )
            ),
        )
    faults = list(Rows(folder / "faults.jsonl"))
    return Logs(run, faults, Rows(folder / "server.jsonl"), channels)


class Writer:
    """Appends rows to one file per channel, in a folder of the run."""

    def __init__(self, folder: Path, prefix: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._prefix = prefix
        self._files: dict[str, Any] = {}

    def file(self, channel: str) -> Any:
        """The file of a channel, opened when it is first needed."""
        found = self._files.get(channel)
        if found is None:
            path = self._folder / f"{self._prefix}{file_part(channel)}.jsonl"
            found = self._files[channel] = path.open("a", encoding="ascii")
        return found

    def write(self, channel: str, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self.file(channel).write(json.dumps(row, separators=(",", ":")) + "\n")

    def flush(self) -> None:
        """Hand everything to the kernel: it outlives this process."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def dump_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to a new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    path.write_text("".join(chain(lines)), encoding="ascii")
