"""Every error this server answers with, and the HTTP status that fits it.

The tree, by who has to act:

* `PushError`
    * `BadInput` (400): the request is malformed; sending it again will not help.
    * `Unauthorized` (401): no token, or one that does not verify.
    * `Denied` (403): verified, but not allowed to do this.
    * `Conflict` (409): the same id was used for other data.
    * `NotFound` (404), `MethodNotAllowed` (405), `UnsupportedMedia` (415), `Misdirected` (421),
      `UpgradeRequired` (426), `NotServed` (501): no such thing here.
    * `TooLarge` (413), `TooMany` (429): over a limit; the message names the setting.
    * `Unavailable` (503), `StorageFull` (507): not the client's fault; the same request may
      succeed later.

Raised on any floor, turned into an answer only by the doors. The message is shown to the
client: it never contains a token, a key or a payload. Imported by everybody, imports nobody.
"""

from collections.abc import Sequence
from typing import Any


class PushError(Exception):
    """Base of all errors that become an HTTP answer.

    `code` is the stable machine-readable word, `message` the sentence for a person. `event`,
    `reason` and `detail` are for the log alone: what kind of refusal it was, and what the client
    is not told.
    """

    status = 500

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after: int | None = None,
        event: str = "request.reject",
        reason: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.event = event
        self.reason = reason or code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def body(self) -> dict[str, dict[str, Any]]:
        """The JSON object that every refusal carries."""
        return {"error": {"code": self.code, "message": self.message}}

    def entry(self) -> dict[str, dict[str, Any]]:
        """The same inside a list, where no HTTP status stands beside it.

        The status matters: 4xx and 507 say that nothing was stored, other 5xx that it is unknown.
        """
        return {"error": {"code": self.code, "message": self.message, "status": self.status}}

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What an answer of this status has to say in its head."""
        return () if self.retry_after is None else (("Retry-After", str(self.retry_after)),)


class BadInput(PushError):
    """Raised if a request cannot be understood."""

    status = 400


class Unauthorized(PushError):
    """Raised if a request carries no valid token, ticket or signature."""

    status = 401

    def headers(self) -> tuple[tuple[str, str], ...]:
        """How to show who one is (RFC 9110, 11.6.1)."""
        return (("WWW-Authenticate", "Bearer"),)


class Denied(PushError):
    """Raised if a valid token does not grant what was asked for."""

    status = 403


class NotFound(PushError):
    """Raised if there is no such route."""

    status = 404


class MethodNotAllowed(PushError):
    """Raised if the route exists but not for this HTTP method."""

    status = 405

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__("method_not_allowed", f"This route takes {' '.join(methods)}.")
        self._methods = methods

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The methods that it takes (RFC 9110, 15.5.6)."""
        return (("Allow", ", ".join(self._methods)),)


class Conflict(PushError):
    """Raised if a publication id was used before with other data."""

    status = 409


class TooLarge(PushError):
    """Raised if a body or a value is over its size limit."""

    status = 413


class UnsupportedMedia(PushError):
    """Raised if a body is not of the type the route takes."""

    status = 415


class Misdirected(PushError):
    """Raised if the Host header names a site this server does not serve."""

    status = 421


class UpgradeRequired(PushError):
    """Raised if the route takes WebSocket and the request is no handshake for it."""

    status = 426

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The version it takes (RFC 6455, 4.2.2)."""
        return (("Sec-WebSocket-Version", "13"),)


class TooMany(PushError):
    """Raised if a quota is used up."""

    status = 429


class NotServed(PushError):
    """Raised if the server that runs the application cannot do what this route needs."""

    status = 501


class Unavailable(PushError):
    """Raised if the server cannot do this now; the same request may succeed later."""

    status = 503


class StorageFull(PushError):
    """Raised if the log has no room; nothing was stored."""

    status = 507
