"""What the internal API answers, as values.

What is not of the form that `docs/protocol.rst` gives it raises one of the errors of looking things
up and converting them, which the client takes for no answer.

Imported by the client.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from push_server.calls import PushClientError, Refused
from push_server.publications import Published

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What became of a call: `value` if `ok`, else `error`."""

    value: T | None
    error: PushClientError | None = None
    id: str = ""
    """The publication id, given or made; publishing again with it publishes nothing twice."""

    @property
    def ok(self) -> bool:
        """Whether the server did what was asked."""
        return self.error is None

    def unwrap(self) -> T:
        """The value. Raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # No error means there is a value.


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The answer to `PushClient.history`: publications, oldest first, and the channel's head."""

    channel: str
    epoch: int
    offset: int
    cursor: str
    publications: Sequence[Mapping[str, Any]]


def published_of(answer: Any) -> Published:
    """The result of ``publish``."""
    return Published(
        channel=str(answer["channel"]),
        epoch=int(answer["epoch"]),
        offset=int(answer["offset"]),
        id=str(answer["id"]),
        duplicate=bool(answer["duplicate"]),
    )


def history_page_of(answer: Any) -> HistoryPage:
    """The result of ``history``."""
    return HistoryPage(
        channel=str(answer["channel"]),
        epoch=int(answer["epoch"]),
        offset=int(answer["offset"]),
        cursor=str(answer["cursor"]),
        publications=list(answer["publications"]),
    )


def outcome_of(
    answer: Any, convert: Callable[[Any], T], publication_id: str, status: int = 200
) -> Result[T]:
    """The result in a ``{"result": …}``, ``{"error": …}`` or bare entry."""
    if "error" in answer:
        error = answer["error"]
        code, message = str(error["code"]), str(error["message"])
        # Inside a list an error names its own status.
        own = int(error.get("status", max(status, 400)))
        return Result(None, Refused(code, message, own), publication_id)
    return Result(convert(answer.get("result", answer)), None, publication_id)
