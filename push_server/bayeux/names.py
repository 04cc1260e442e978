"""Channel names there and here: ``/node/7`` is ``node:7``.

The first segment is the namespace, deeper segments stay as they are: ``/a/b/c`` is ``a:b/c``, and
``/chat`` is ``chat``. The mapping goes both ways without loss. Names of ours that it cannot reach
(a slash and no colon before it, an empty segment) are no Bayeux channels. A colon is
allowed in deeper segments, where clients let it through.
"""

import re

from push_server.channels import check_channel
from push_server.errors import BadInput
from push_server.rooms import Glob

META = "/meta/"
SERVICE = "/service/"
CONTROL = "/service/push"
"""Where our control messages come: it needs no subscription, as no service channel does."""

_GLOB = re.compile(r"(/(?:[A-Za-z0-9._-]+/(?:[A-Za-z0-9._:-]+/)*)?)(\*\*?)")
_NAME = re.compile(r"/[A-Za-z0-9._-]+(?:/[A-Za-z0-9._:-]+)*")


def to_channel(name: object) -> str:
    """Our channel of a Bayeux channel. Raises `BadInput` if it can be none."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadInput("channel_malformed", "A channel is / and segments of A-Z a-z 0-9 . _ - :")
    return check_channel(name[1:].replace("/", ":", 1))


def to_glob(name: object) -> Glob | None:
    """The glob that a Bayeux wildcard is: ``/chat/*`` and ``/chat/**``; None if it is none."""
    match = _GLOB.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        return None
    return Glob(match[1][1:].replace("/", ":", 1), deep=match[2] == "**")


def to_name(channel: str) -> str:
    """The Bayeux channel of one of ours."""
    return "/" + channel.replace(":", "/", 1)
