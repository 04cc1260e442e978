"""From queues and topics of a STOMP 1.2 broker (RabbitMQ, ActiveMQ) into channels.

A message is acknowledged only after its publication has been acknowledged to us, so one that
was under way when anything broke comes again. Its id makes the second time harmless: the header
``id`` if the sender set one, else ``amqp-message-id``, else STOMP's ``message-id``. RabbitMQ
makes the last one anew for every delivery; senders who need each message exactly once set one of
the others.

What can never be published is parked, that is sent to another queue together with the reason,
and acknowledged. It is never refused with NACK: the broker would send it again at once, for ever.
A message that this very system sent out (`stomp_out`) is dropped, or it would go round in circles.

One thread for all queues. Imported by the house where the configuration asks for it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from push_server.bridge_settings import StompAddress, Target
from push_server.bridges.intake import is_final, make_request
from push_server.bridges.stomp import ORIGIN, PREFETCH, Conversation, Supervisor
from push_server.errors import BadInput, PushError
from push_server.publications import Published, PublishRequest

Publish = Callable[[Sequence[PublishRequest]], Sequence[Published | PushError]]


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
        for destination in self._targets:
            # Of this system and this topic, whatever else is consumed: the broker keeps a queue
            # for each name.
            conversation.subscribe(destination, f"{self._origin} {destination}")
        while not self._supervisor.stopping:
            frames = conversation.take(PREFETCH)
            messages = [
                message for frame in frames if (message := self._read(conversation, frame))
            ]
            self._deliver(conversation, messages)

    def _read(self, conversation: Conversation, frame: Any) -> _Message | None:
        """The message, or None if it was dealt with."""
        headers = frame.headers
        if headers.get(ORIGIN) == self._origin:
            self._supervisor.count("looped")
            conversation.ack(frame)
            return None
        source = headers["subscription"].removeprefix(f"{self._origin} ")
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
