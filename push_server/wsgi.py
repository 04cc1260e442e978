"""The same applications for another WSGI server: gunicorn, uWSGI, wsgiref.

    gunicorn --threads 32 push_server.wsgi:application

Everything is answered, but a long-lived request then holds one of that server's threads, so
`blocking_connections` caps them. The configuration is the file that PUSH_SERVER_CONFIG names, or
the environment alone. One process only: the hub of another process knows nothing of this one's.

`application` is for browsers; `internal_application` is for the CMS and must be served on an
address of its own that the public cannot reach.
"""

import asyncio
import os
import threading
from dataclasses import dataclass
from typing import Any

from push_server.config_load import load_settings
from push_server.doors.context import Context
from push_server.doors.internal import internal_application as make_internal
from push_server.doors.public import public_application as make_public
from push_server.doors.router import Router
from push_server.server import make_context
from push_server.settings import Settings


@dataclass(slots=True)
class Applications:
    """The two applications, and the event loop behind them in a thread of its own."""

    public: Router
    internal: Router
    _context: Context
    _loop: asyncio.AbstractEventLoop
    _thread: threading.Thread

    def close(self) -> None:
        """Let every subscriber go and close the log."""

        async def finish() -> None:
            self._context.hub.drain(0)
            self._context.hub.close()
            await self._context.broker.close()

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result()
        _end(self._loop, self._thread)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def start(settings: Settings) -> Applications:
    """Start the event loop and return the applications. Raises what a start can raise."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="push-loop", daemon=True)
    thread.start()
    try:
        context = asyncio.run_coroutine_threadsafe(make_context(settings), loop).result()
    except BaseException:
        _end(loop, thread)
        raise
    return Applications(make_public(context), make_internal(context), context, loop, thread)


def __getattr__(name: str) -> Any:
    """Make the applications when a WSGI server first asks for one by name."""
    if name not in ("application", "internal_application"):
        raise AttributeError(name)
    applications = start(load_settings(os.environ.get("PUSH_SERVER_CONFIG"), os.environ))
    globals()["application"] = applications.public
    globals()["internal_application"] = applications.internal
    return globals()[name]
