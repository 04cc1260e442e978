"""Connections that another process is to serve: they go there unread.

Several processes accept from one socket, so what one of them alone can serve (a Bayeux session
lives in one) comes to any. The request line is looked at and not read; then the connection is sent,
as a descriptor, through a pair of sockets that all of them have from their parent. What waits there
outlives the process that is to take it, as connections do that wait to be accepted.

A connection stays where it went, for its later requests, too.

Runs on the I/O thread. Imported by the listeners, and by the parent and the house for the pair.
"""

import json
import re
import socket
from typing import Any, NamedTuple, Protocol

from waitress import wasyncore

from push_server import log
from push_server.publications import dump_json

LINE_BYTES = 64
"""How much of a request is looked at."""
MESSAGE_BYTES = 256
"""An address, and whether the connection has had an answer."""

_BAYEUX = re.compile(rb"(?:GET|POST|OPTIONS) /bayeux[/? ]")


class Admit(Protocol):
    """Serves a connection."""

    def __call__(self, sock: socket.socket, addr: Any, *, served: bool) -> None:
        """`served`: whether it has had an answer before."""


class Handover(NamedTuple):
    """The pair, as one process has it."""

    inbox: socket.socket
    outbox: socket.socket
    mine: bool = False
    """Whether this process is the one that takes them."""

    @classmethod
    def make(cls) -> "Handover":
        """A new pair."""
        inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (inbox, outbox):
            end.setblocking(False)
        return cls(inbox, outbox)

    def close(self) -> None:
        """Close both ends; what waits there is cut off."""
        self.inbox.close()
        self.outbox.close()

    def takes(self, sock: socket.socket, addr: Any, *, served: bool) -> bool:
        """Send a connection there, if that is where its next request belongs.

        False, too, if it cannot be: then the request is refused here.
        """
        try:
            if self.mine or not _BAYEUX.match(sock.recv(LINE_BYTES, socket.MSG_PEEK)):
                return False
            socket.send_fds(self.outbox, [dump_json([addr, served])], [sock.fileno()])
        except OSError:
            return False
        return True


class Inbox(wasyncore.dispatcher):  # type: ignore[misc]
    """Takes the connections that the other processes send."""

    def __init__(
        self, inbox: socket.socket, sockets: dict[int, Any], room: int, admit: Admit
    ) -> None:
        super().__init__(inbox, map=sockets)
        self._room = room
        self._admit = admit

    def readable(self) -> bool:
        """While there is room; then they wait, and the other processes refuse."""
        return len(self._map) < self._room

    def writable(self) -> bool:
        """Never."""
        return False

    def handle_read(self) -> None:
        """Serve one."""
        try:
            text, descriptors, _, _ = socket.recv_fds(self.socket, MESSAGE_BYTES, 1)
        except OSError as error:
            log.rejected("handover.failed", "all", reason=error.strerror)
            return
        for descriptor in descriptors:  # none if this process may have no more
            try:
                addr, served = json.loads(text)
                self._admit(socket.socket(fileno=descriptor), tuple(addr), served=served)
            except Exception as failure:  # noqa: BLE001  # one connection, not all behind it
                log.error("handover.failed", failure)
