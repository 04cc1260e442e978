"""A connection to a STOMP 1.2 broker (RabbitMQ, ActiveMQ), and the thread that keeps one up.

What is sent over it is decided by whoever talks: `stomp_in` and `stomp_out`.

One thread for each of these, and two of the library's for reading and heartbeats. Imported by these
two; the only importer of stomp.
"""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import stomp
from stomp.exception import StompException

from push_server import log
from push_server.bridge_settings import StompAddress
from push_server.bridges.intake import RETRY_SECONDS, Complaints, pause

HEARTBEAT_MS = 10_000
CONNECT_SECONDS = 10.0
PREFETCH = 100
"""Messages the broker sends ahead of our acknowledgements."""
LOOK_SECONDS = 0.25
"""How long a thread waits before it looks whether it should end."""
ORIGIN = "push-origin"
"""The header by which a message that we sent is known."""
_RECEIPT_SECONDS = 10.0
_TOPICS = ("/topic/", "/exchange/", "topic://")

# The library tells each step of its own; what matters of it is told here.
logging.getLogger("stomp.py").setLevel(logging.CRITICAL)


class Lost(Exception):
    """Raised if the connection to the broker has ended; the message says why."""


class Conversation(stomp.ConnectionListener):  # type: ignore[misc]  # stomp is not typed
    """One connection to the broker, from CONNECT to its end."""

    def __init__(self, address: StompAddress) -> None:
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._receipts = 0
        self._receipted = 0
        self._ended = ""
        self._heard = threading.Condition()
        """Notified of each receipt, and of the end."""
        connection = stomp.Connection12(
            [(address.host, address.port)],
            # Named always: what the library would send instead, RabbitMQ refuses.
            vhost=address.vhost,
            heartbeats=(HEARTBEAT_MS, HEARTBEAT_MS),
            reconnect_attempts_max=1,
            timeout=CONNECT_SECONDS,
            auto_decode=False,
        )
        connection.set_listener("bridge", self)
        if address.tls:
            connection.set_ssl([(address.host, address.port)], ca_certs=address.ca)
        self._connection = connection
        try:
            connection.connect(address.user, address.password, wait=True)
        except (StompException, OSError) as error:
            self.close()
            raise Lost(self._ended or type(error).__name__) from None

    # What the library calls, on its own threads.

    def on_message(self, frame: Any) -> None:
        """Queue it."""
        self._inbox.put(frame)

    def on_receipt(self, _frame: Any) -> None:
        """The broker has what we sent."""
        with self._heard:
            self._receipted += 1
            self._heard.notify()

    def on_error(self, frame: Any) -> None:
        """ERROR is the end, whatever else the broker still sends."""
        self._end(f"error: {str(frame.headers.get('message', ''))[:200]}")

    def on_disconnected(self) -> None:
        """The connection is gone."""
        self._end("disconnected")

    def on_heartbeat_timeout(self) -> None:
        """The broker is silent."""
        self._end("silent")

    def _end(self, reason: str) -> None:
        with self._heard:
            self._ended = self._ended or reason
            self._heard.notify()
        self._inbox.put(None)

    # What the bridge's thread calls.

    def check(self) -> None:
        """Raise `Lost` if this connection has ended."""
        if self._ended:
            raise Lost(self._ended)

    def subscribe(self, destination: str, name: str) -> None:
        """Begin to receive from a queue or topic; the name comes with each message."""
        headers = {"prefetch-count": str(PREFETCH)}
        if destination.startswith(_TOPICS):
            # A plain subscription to a topic loses whatever is sent while we are away. Under a
            # name that stays the same the broker keeps a queue, which all who use it share.
            headers |= {"durable": "true", "auto-delete": "false"}
        self._connection.subscribe(destination, id=name, ack="client-individual", headers=headers)

    def take(self, limit: int) -> list[Any]:
        """The messages that have come; empty after a moment without any. Raises `Lost`."""
        frames: list[Any] = []
        try:
            frames.append(self._inbox.get(timeout=LOOK_SECONDS))
            while len(frames) < limit:
                frames.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        self.check()
        return frames

    def ack(self, frame: Any) -> None:
        """The message is ours now."""
        self._send(self._connection.ack, frame.headers["ack"])

    def send(
        self, destination: str, body: bytes, content_type: str, headers: Mapping[str, str]
    ) -> None:
        """Send a message that outlives the broker; `settle` waits until the broker has it."""
        self._receipts += 1
        self._send(
            self._connection.send,
            destination,
            body,
            content_type=content_type,
            headers={"persistent": "true", **headers},
            receipt=str(self._receipts),
        )

    def settle(self) -> None:
        """Wait until the broker has all that was sent. Raises `Lost`."""
        with self._heard:
            self._heard.wait_for(lambda: self._settled or self._ended, _RECEIPT_SECONDS)
            if not self._settled:
                raise Lost(self._ended or "no receipt")

    @property
    def _settled(self) -> bool:
        return self._receipted >= self._receipts

    def _send(self, method: Callable[..., None], *args: Any, **options: Any) -> None:
        try:
            method(*args, **options)
        except (StompException, OSError) as error:
            raise Lost(self._ended or type(error).__name__) from None

    def close(self) -> None:
        """Hang up."""
        try:
            self._connection.disconnect()
        except (StompException, OSError):
            pass


class Supervisor:
    """A thread that talks to the broker, and begins anew when a conversation ends."""

    def __init__(
        self,
        name: str,
        talk: Callable[[Conversation], None],
        address: StompAddress,
        counts: Counter[str],
        outcomes: Sequence[str],
    ) -> None:
        self._counts = counts
        self._name = name
        self._talk = talk
        self._address = address
        self._stopping = threading.Event()
        self._complaints = Complaints(name)
        self.complain = self._complaints.say
        for outcome in outcomes:
            counts.setdefault(f"bridge.{name}_{outcome}", 0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float = 2.0) -> None:
        """End, after what is under way (any thread)."""
        self._stopping.set()
        self._thread.join(seconds)

    @property
    def stopping(self) -> bool:
        """Whether the server ends."""
        return self._stopping.is_set()

    def count(self, outcome: str, number: int = 1) -> None:
        """For `stats` and ``/metrics``."""
        self._counts[f"bridge.{self._name}_{outcome}"] += number

    def rest(self, attempt: int) -> None:
        """Wait before another attempt, longer each time, or until the server ends."""
        self._stopping.wait(pause(attempt))

    def _run(self) -> None:
        attempt = 0
        while True:
            began = time.monotonic()
            reason = self._once()
            if self.stopping:
                return
            self.count("failed")
            self.complain("bridge.down", reason, broker=self._address.shown)
            attempt = 0 if time.monotonic() - began > RETRY_SECONDS[1] else attempt + 1
            self.rest(attempt)

    def _once(self) -> str:
        """One conversation; why it ended."""
        conversation = None
        try:
            conversation = Conversation(self._address)
            log.info("bridge.up", bridge=self._name, broker=self._address.shown)
            self._complaints.forget()
            self._talk(conversation)
        except Lost as lost:
            return str(lost)
        except Exception as failure:  # noqa: BLE001  # whatever it is, the thread must live
            log.error("bridge.failed", failure)
            return "failed"
        finally:
            if conversation is not None:
                conversation.close()
        return "ended"
