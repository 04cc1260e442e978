"""Long poll as a script: for pages that may load scripts from elsewhere and nothing else.

Off by default. What made JSONP dangerous was ambient authority: any page could load the script,
and the visitor's cookies came with the request. Here a ticket has to stand in the URL, good for
one request, and without it there is nothing to load.
"""

import re
from collections.abc import Callable, Sequence

from push_server.errors import BadInput
from push_server.transports.base import Headers, response
from push_server.transports.poll import Poll

# ASCII and short: a callback is the beginning of the answer, and old browsers were made to run
# answers that began with bytes of the attacker's choice as Flash ("Rosetta Flash").
_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]{0,63}")


class Jsonp(Poll):
    """A poll's answer in a call of the function that the request names."""

    name = "jsonp"
    content_type = "text/javascript; charset=utf-8"
    setting = "jsonp"

    def __init__(self, callback: str = "") -> None:
        self._callback = callback.encode()

    def chosen(self, parameter: Callable[[str], str], origins: Sequence[str]) -> "Jsonp":
        """The one that calls ``callback=``. Raises `BadInput` if that is no name of a function."""
        callback = parameter("callback")
        if not _CALLBACK.fullmatch(callback):
            raise BadInput(
                "callback_malformed",
                "callback is 1 to 64 of A-Z a-z 0-9 _ $ . and begins with no digit.",
                event="proto.reject",
                reason="callback",
            )
        return Jsonp(callback)

    def answer(
        self, publications: bytes, controls: bytes, cursor: str, headers: Headers, keep_alive: bool
    ) -> bytes:
        """``/**/callback({"cursor":…,"publications":[…],"control":[…]});``."""
        body = self.body(publications, controls, cursor)
        # The comment in front keeps the answer from beginning with bytes that somebody chose.
        # Opened as a page, it is a file to be saved.
        return response(
            200,
            (*headers, ("Content-Disposition", "attachment; filename=f.txt")),
            b"/**/%b(%b);" % (self._callback, body),
            content_type=self.content_type,
            keep_alive=keep_alive,
        )
