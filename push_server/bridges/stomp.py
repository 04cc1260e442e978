"""From queues and topics of a STOMP 1.2 broker (RabbitMQ, ActiveMQ) into channels.

A message is acknowledged only after its publication has been acknowledged to us, so one that
was under way when anything broke comes again. Its id makes the second time harmless: the header
``id`` if the sender set one, else ``amqp-message-id``, else STOMP's ``message-id``. RabbitMQ
makes the last one anew for every delivery; senders who need each message exactly once set one of
the others.

What can never be published is parked, that is sent to another queue together with the reason,
and acknowledged. It is never refused with NACK: the broker would send it again at once, for ever.
A message that this very system sent out (`stomp_out`) is dropped, or it would go round in circles.

One thread for all queues, and two of the library's for reading and heartbeats. Imported by the
house where the configuration asks for it; the only importer of stomp.
"""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import stomp
from stomp.exception import StompException

from push_server import log
from push_server.bridge_settings import StompAddress, Target
from push_server.bridges.intake import (
    RETRY_SECONDS,
    Complaints,
    is_final,
    make_request,
    pause,
)
from push_server.errors import BadInput, PushError
from push_server.publications import Published, PublishRequest

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

Publish = Callable[[Sequence[PublishRequest]], Sequence[Published | PushError]]


class Lost(Exception):
    """Raised if the connection to the broker has ended; the message says why."""


class Conversation(stomp.ConnectionListener):  # type: ignore[misc]  # stomp is not typed
    """One connection to the broker, from CONNECT to its end."""

    def __init__(self, address: StompAddress) -> None:
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._receipts = 0
        self._receipted = 0
        self._ended = ""
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
        self._receipted += 1

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
        self._ended = self._ended or reason
        self._inbox.put(None)

    # What the bridge's thread calls.

    def check(self) -> None:
        """Raise `Lost` if this connection has ended."""
        if self._ended:
            raise Lost(self._ended)

    def subscribe(self, number: int, destination: str) -> None:
        """Begin to receive from a queue or topic."""
        headers = {"prefetch-count": str(PREFETCH)}
        if destination.startswith(_TOPICS):
            # A plain subscription to a topic loses whatever is sent while we are away. With a
            # name that stays the same the broker keeps a queue, which all our nodes share.
            headers |= {"durable": "true", "auto-delete": "false"}
        self._connection.subscribe(
            destination, id=f"push-server-{number}", ack="client-individual", headers=headers
        )

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
        """Send a message; `settle` waits until the broker has it."""
        self._receipts += 1
        self._send(
            self._connection.send,
            destination,
            body,
            content_type=content_type,
            headers=dict(headers),
            receipt=str(self._receipts),
        )

    def settle(self) -> None:
        """Wait until the broker has all that was sent. Raises `Lost`."""
        end = time.monotonic() + _RECEIPT_SECONDS
        while self._receipted < self._receipts:
            self.check()
            if time.monotonic() > end:
                raise Lost("no receipt")
            time.sleep(0.005)

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


@dataclass(frozen=True, slots=True)
class _Message:
    frame: Any
    request: PublishRequest


class StompBridge:
    """Publishes what stands in queues."""

    def __init__(
        self,
        address: StompAddress,
        targets: Mapping[str, Target],
        parked: str,
        origin: str,
        publish: Publish,
        max_body: int,
        counts: Counter[str],
    ) -> None:
        self._targets = targets
        self._parked = parked
        self._origin = origin
        self._publish = publish
        self._max_body = max_body
        self._supervisor = Supervisor(
            "stomp", self._talk, address, counts, ("taken", "parked", "looped", "failed")
        )
        self.start, self.stop = self._supervisor.start, self._supervisor.stop

    def _talk(self, conversation: Conversation) -> None:
        sources = list(self._targets)
        for number, destination in enumerate(sources):
            conversation.subscribe(number, destination)
        while not self._supervisor.stopping:
            frames = conversation.take(PREFETCH)
            messages = [
                message for frame in frames if (message := self._read(conversation, frame, sources))
            ]
            self._deliver(conversation, messages)

    def _read(
        self, conversation: Conversation, frame: Any, sources: Sequence[str]
    ) -> _Message | None:
        """The message, or None if it was dealt with."""
        headers = frame.headers
        if headers.get(ORIGIN) == self._origin:
            self._supervisor.count("looped")
            conversation.ack(frame)
            return None
        source = sources[int(headers["subscription"].rpartition("-")[2])]
        try:
            return _Message(frame, self._request(source, frame))
        except PushError as error:
            self._park(conversation, frame, source, error)
            return None

    def _request(self, source: str, frame: Any) -> PublishRequest:
        headers = frame.headers
        given = headers.get("id") or headers.get("amqp-message-id") or headers.get("message-id")
        if not given:
            raise BadInput("id_missing", "The message has no id.")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return make_request(
            self._targets[source].channel_of(headers.get("channel")),
            given,
            frame.body or b"",
            self._max_body,
            text=kind == "text/plain",
        )

    def _park(
        self, conversation: Conversation, frame: Any, source: str, error: PushError
    ) -> None:
        content_type = frame.headers.get("content-type", "application/octet-stream")
        conversation.send(
            self._parked,
            frame.body or b"",
            content_type,
            {"push-reason": error.code, "push-source": source, ORIGIN: self._origin},
        )
        conversation.settle()  # before the ack: it must never be in neither place
        conversation.ack(frame)
        self._supervisor.count("parked")
        self._supervisor.complain("bridge.parked", error.code, source=source)

    def _deliver(self, conversation: Conversation, messages: list[_Message]) -> None:
        """Publish until every message is either stored or parked."""
        attempt = 0
        while messages and not self._supervisor.stopping:
            # A broker that has lost us sends what we hold to somebody else.
            conversation.check()
            try:
                answers = self._publish([message.request for message in messages])
            except PushError as error:
                answers = [error] * len(messages)
            waiting = []
            for message, answer in zip(messages, answers, strict=True):
                if not isinstance(answer, PushError):
                    conversation.ack(message.frame)
                    self._supervisor.count("taken")
                elif is_final(answer):
                    self._park(conversation, message.frame, message.request.channel, answer)
                else:
                    waiting.append(message)
                    self._supervisor.complain("bridge.waiting", answer.code)
            if waiting:
                self._supervisor.rest(attempt)
                attempt += 1
            messages = waiting
