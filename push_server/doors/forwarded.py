"""Whose request it is, where a reverse proxy stands in front.

The limits per address and the log go by the visitor's address, and X-Forwarded-For is a line
that anybody can write. Pure; imported by the public application.
"""

import re

from push_server.addresses import plain_address
from push_server.doors.request import Request
from push_server.errors import BadInput

_WITH_PORT = re.compile(r"\[([^]]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def visitor(request: Request, trusted_proxy: str) -> str:
    """The address of the visitor. Raises `BadInput` if the trusted proxy names none.

    Three rules, each against one forgery:

    * Only `trusted_proxy` is believed. Else any client takes an address of its choice: a fresh one
      for each connection, so that no limit holds, or another's, who is then shut out and logged.
    * Only the last entry counts, the one that our own proxy wrote. A proxy that appends leaves
      what the visitor claims in front of it.
    * An entry is an IP address. Any other text would be an address that nobody else shares, or
      ("unix:") one that has no limits, and would go into the log.

    A request of the proxy that has no such header is the proxy's own: it looks whether we live.
    """
    claims: str | None = request.environ.get("HTTP_X_FORWARDED_FOR")
    if claims is None or not trusted_proxy or request.ip != trusted_proxy:
        return request.ip
    entry = claims.rpartition(",")[2].strip()
    match = _WITH_PORT.fullmatch(entry)
    try:
        return plain_address((match[1] or match[2]) if match else entry)
    except ValueError:
        raise BadInput(
            "forwarded_malformed",
            "X-Forwarded-For must end in the visitor's IP address; see the proxy's configuration.",
            event="http.reject",
            detail=entry,
        ) from None
