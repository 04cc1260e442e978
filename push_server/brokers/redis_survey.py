"""Surveys of all nodes that share a Redis.

Who asks sends the question over the bus name that every node hears. Redis says how many heard it:
so many answer, each to the bus name of who asked. A node that has died hears nothing and is not
waited for; one that hears and is silent (a process that was stopped) is left out after a while, and
the survey is not complete.

Event loop only. Imported by the Redis broker.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from push_server.brokers.redis_link import Link
from push_server.brokers.redis_wire import ENTRY_LIMIT
from push_server.brokers.survey import Asked, Survey
from push_server.errors import PushError
from push_server.publications import dump_json

SURVEY_SECONDS = 0.7
"""How long the answers may take: whoever asks hears something within a second."""

QUESTION = b"? "
"""What stands behind the node's id in a question over the bus."""

_NUMBER_LIMIT = 2**53


@dataclass(slots=True, eq=False)
class _Question:
    """A survey that is going on."""

    enough: asyncio.Future[None]
    expected: int | None = None
    """How many others heard it."""
    answers: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def check(self) -> None:
        if len(self.answers) == self.expected and not self.enough.done():
            self.enough.set_result(None)


class RedisSurvey:
    """Asks the other nodes, and answers them."""

    def __init__(
        self,
        node: str,
        bus_all: str,
        bus_node: Callable[[str], str],
        asked: Asked,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.link: Link
        """Set by the broker when it starts."""
        self._node = node
        self._bus_all = bus_all
        self._bus_node = bus_node
        self._asked = asked
        self._spawn = spawn
        self._open: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    async def ask(self, what: str, argument: str) -> Survey:
        """What all nodes say; only this one if Redis is away."""
        number = next(self._numbers)
        question = self._open[number] = _Question(asyncio.get_running_loop().create_future())
        asked = dump_json([number, what, argument])
        message = self._node.encode() + b" " + QUESTION + asked
        complete = False
        try:
            async with asyncio.timeout(SURVEY_SECONDS):
                question.expected = await self.link.one(("PUBLISH", self._bus_all, message)) - 1
                question.check()
                await question.enough
            complete = True
        except (TimeoutError, PushError):
            pass
        finally:
            del self._open[number]
        return Survey({self._node: self._asked(what, argument), **question.answers}, complete)

    def hear_question(self, origin: bytes, text: bytes) -> bool:
        """Answer another node; whether this was a question."""
        try:
            number, what, argument = json.loads(text)
            asker = origin.decode("ascii")
        except (ValueError, TypeError, RecursionError):
            return False
        if not (asker.isalnum() and type(number) is int):
            return False
        if not (isinstance(what, str) and isinstance(argument, str)):
            return False
        answer = dump_json(self._asked(what, argument))
        if len(answer) < ENTRY_LIMIT:
            self._spawn(self._answer(asker, b"%s %d %s" % (self._node.encode(), number, answer)))
        return True

    async def _answer(self, asker: str, message: bytes) -> None:
        try:
            await self.link.one(("PUBLISH", self._bus_node(asker), message))
        except PushError:
            pass  # who asked will say that the survey is not complete

    def hear_answer(self, message: bytes) -> bool:
        """Take what another node says; whether it was an answer."""
        parsed = _parse_answer(message)
        if parsed is None:
            return False
        node, number, numbers = parsed
        question = self._open.get(number)
        if question is not None and node != self._node:
            question.answers[node] = numbers
            question.check()
        return True


def _parse_answer(message: bytes) -> tuple[str, int, Mapping[str, int]] | None:
    try:
        node, number, text = message.split(b" ", 2)
        numbers = json.loads(text)
        parsed = node.decode("ascii"), int(number), numbers
    except (ValueError, RecursionError):
        return None
    if not parsed[0].isalnum() or len(message) > ENTRY_LIMIT or not isinstance(numbers, dict):
        return None
    if not all(type(n) is int and 0 <= n < _NUMBER_LIMIT for n in numbers.values()):
        return None
    return parsed
