"""From channels to queues and topics of a STOMP 1.2 broker.

A subscriber inside the process: it has a cursor and recovers like every other, so an outage of
the STOMP broker loses nothing that the history still keeps, and what it did lose is counted. The
cursor goes to a file once the broker has confirmed what came before it. After a crash some
messages may be sent twice, the second time with the same header ``id``. Without the file the
bridge begins at what is published next.

Of the processes on one machine only one sends, the one that holds a lock beside that file. Of
several machines only one may have `stomp_produce`, or each would send everything.

One thread. Imported by the house where the configuration asks for it.
"""

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from push_server.bridge_settings import StompAddress
from push_server.bridges.stomp import LOOK_SECONDS, ORIGIN, Conversation, Lost, Supervisor
from push_server.casts import SettingsError
from push_server.connection import IteratorConnection
from push_server.crossing import Crossing
from push_server.errors import PushError
from push_server.hub import Hub
from push_server.positions import parse_cursor
from push_server.publications import dump_json
from push_server.subscriber import SubscribeRequest
from push_server.transports import TRANSPORTS

USER = "$stomp"
"""No token can be issued for it."""
LIFETIME = 86_400.0
"""Seconds until the hub ends the subscription; the next one begins at the cursor."""
WINDOW = 100
"""Messages sent before the broker has to confirm them."""


class StompOutlet:
    """Sends what is published."""

    def __init__(
        self,
        address: StompAddress,
        outlets: Mapping[str, str],
        state: Path,
        origin: str,
        hub: Hub,
        crossing: Crossing,
        counts: Counter[str],
    ) -> None:
        self._outlets = outlets
        self._state = state
        self._origin = origin
        self._hub = hub
        self._crossing = crossing
        self._cursor = _read_state(state)
        self._lock: TextIO | None = None
        self._supervisor = Supervisor(
            "stomp_out", self._talk, address, counts, ("sent", "lost", "failed")
        )
        self.start = self._supervisor.start

    def stop(self) -> None:
        """End (any thread)."""
        self._supervisor.stop()

    def _talk(self, conversation: Conversation) -> None:
        while not self._supervisor.stopping:
            if not self._is_ours():
                conversation.take(1)  # that is, wait a moment, and notice if the broker goes
                continue
            connection = IteratorConnection(self._hub)
            self._crossing.post(self._attach, self._order(), connection)
            try:
                self._send_all(conversation, connection)
            finally:
                self._crossing.post(self._detach, connection)
            self._supervisor.rest(0)

    def _is_ours(self) -> bool:
        """Whether this process is the one that sends; another takes over when it ends."""
        if self._lock is None:
            lock = self._state.with_name(self._state.name + ".lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock  # held for as long as the process lives
            self._cursor = _read_state(self._state)
        return True

    def _attach(self, order: SubscribeRequest, connection: IteratorConnection) -> None:
        self._crossing.spawn(self._hub.attach(order, connection))  # on the loop

    def _detach(self, connection: IteratorConnection) -> None:
        # Behind the task of `_attach`, which may not have begun: the hub would keep a subscriber
        # of a connection that had ended before, for ever.
        self._hub.loop.call_soon(connection.close, "gone")  # on the loop

    def _order(self) -> SubscribeRequest:
        return SubscribeRequest(
            user=USER,
            session=USER,
            token_id="",
            issued=time.time(),
            expires=time.time() + LIFETIME,
            address="",
            channels=list(self._outlets),
            denied=(),
            since=parse_cursor(self._cursor) if self._cursor else None,
            instance=None,
            transport=TRANSPORTS["stream"],
            timeout=0,
            headers=(),
            keep_alive=False,
        )

    def _send_all(self, conversation: Conversation, connection: IteratorConnection) -> None:
        cursor, unsettled = self._cursor, 0
        for message in _messages(connection):
            conversation.check()
            if message is not None:
                cursor = message["cursor"]
                if "channel" in message:
                    self._send(conversation, message)
                    unsettled += 1
                elif message["type"] == "reset":
                    self._supervisor.count("lost", len(message["channels"]))
                    self._supervisor.complain("bridge.lost", str(message["reason"]))
            if unsettled < WINDOW and message is not None:
                continue  # more may be there already
            conversation.settle()
            self._supervisor.count("sent", unsettled)
            unsettled = 0
            self._keep(cursor)
            if self._supervisor.stopping:
                return

    def _keep(self, cursor: str) -> None:
        """Come back to this place, even after a restart."""
        if cursor == self._cursor:
            return
        self._cursor = cursor
        new = self._state.with_name(self._state.name + ".new")
        try:
            with new.open("w", encoding="ascii") as file:
                file.write(cursor)
                file.flush()
                # Or a power loss could leave the name, and nothing in it: no place to come back to.
                os.fsync(file.fileno())
            new.replace(self._state)
        except OSError as error:
            self._supervisor.complain("bridge.state", error.strerror or "failed")

    def _send(self, conversation: Conversation, message: Mapping[str, Any]) -> None:
        conversation.send(
            self._outlets[message["channel"]],
            dump_json(message["data"]),
            "application/json",
            {
                "id": message["id"],
                "channel": message["channel"],
                "offset": str(message["offset"]),
                ORIGIN: self._origin,
            },
        )


def _messages(connection: IteratorConnection) -> Iterator[dict[str, Any] | None]:
    """What the hub writes, message by message; None whenever there is nothing for a moment."""
    buffer, head = b"", True
    while (piece := connection.take(LOOK_SECONDS)) != b"":
        if piece is None:
            yield None
            continue
        buffer += piece
        if head:
            if b"\r\n\r\n" not in buffer:
                continue
            status = buffer.split(b" ", 2)[1]
            if status != b"200":
                raise Lost(f"the hub answers {status.decode('ascii', 'replace')}")
            buffer, head = buffer.partition(b"\r\n\r\n")[2], False
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            yield json.loads(line)


def _read_state(path: Path) -> str:
    """The cursor of the run before. Raises `SettingsError` if the file cannot be used."""
    try:
        cursor = path.read_text("ascii").strip()
        if cursor:
            parse_cursor(cursor)
        return cursor
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, PushError) as error:
        raise SettingsError("stomp_state", f"{path}: {error}") from None
