"""Taking a request's connection out of the HTTP front, over to the loop.

Imported by the doors of everything that lasts longer than a request.
"""

import socket
from collections.abc import Callable

from push_server.doors.context import Context
from push_server.doors.request import Request

GiveBack = Callable[[socket.socket], None]
Attach = Callable[[socket.socket, GiveBack], object]


def can_take(request: Request) -> bool:
    """Whether the front lets go of connections; other WSGI servers do not."""
    return "push_server.hijack" in request.environ


def take(request: Request, context: Context, attach: Attach) -> bool:
    """Have `attach` called on the loop, with the socket and the way to give it back.

    False if there are bytes behind the request: nobody knows whose they would be. Then, and where
    `can_take` is false, the door has to answer.
    """

    def pass_on(sock: socket.socket, give_back: GiveBack) -> None:  # runs on the I/O thread
        context.crossing.post(attach, sock, give_back)

    taken: bool = request.environ["push_server.hijack"](pass_on)
    return taken
