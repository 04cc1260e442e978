"""Many processes on one port: ``push-server serve --workers N``.

The parent opens the listening sockets, forks the workers, and from then on only watches: a worker
that ends is replaced, SIGTERM and SIGHUP are passed on. Each worker is a whole server, a node of
its own on the shared log, and accepts from the sockets of the parent; so a connection that waits
to be accepted survives the worker that would have taken it. One worker has the Bayeux sessions; the
others hand over what comes for them.

The parent has one thread and no event loop, which makes it safe to fork at any time. It takes
its signals one by one (`sigtimedwait`), so none can come between two steps. A worker whose parent
is gone drains and ends.

Imported by the command line.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from push_server import log, systemd
from push_server.config_load import load_settings
from push_server.crossing import EXIT_DEAD_THREAD
from push_server.front.handover import Handover
from push_server.server import EXIT_AWAY, EXIT_SETTINGS, Inherited, run, set_up_log
from push_server.settings import Settings, SettingsError
from push_server.sockets import open_sockets

STEADY_SECONDS = 5.0
"""A worker that lives so long has started well."""
PAUSE_SECONDS = (0.1, 10.0)
"""The first and the longest pause before a worker that did not start well is replaced."""
STOP_SECONDS = 30.0
"""Workers that have not ended by then are killed; draining takes them a few."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

Serve = Callable[[Settings, str | None, Inherited], int]


@dataclass(slots=True)
class _Worker:
    started: float
    pause: float
    """Before it is replaced, if it ends too soon."""
    bayeux: bool
    """Whether it has the Bayeux sessions."""


class Workers:
    """The parent."""

    def __init__(
        self, settings: Settings, config_path: str | None, number: int, serve: Serve = run
    ) -> None:
        self._settings = settings
        self._config_path = config_path
        self._number = number
        self._serve = serve
        self._running: dict[int, _Worker] = {}
        self._due: list[tuple[float, float]] = []
        """When to start another worker, and the pause after that if it ends too soon."""
        self._steady = False
        """Whether any worker has started well: then the configuration is not to blame."""
        self._announced = False
        self._longest_pause = min(5.0, (systemd.watchdog_seconds() or 10.0) / 2)

    def run(self) -> int:
        """Serve until a signal ends it; returns the exit status."""
        set_up_log(workers=True)
        self._sockets = open_sockets(self._settings, systemd.inherited_sockets())
        self._lifeline, self._held = os.pipe()
        self._served, self._ready = os.pipe()
        self._handover = Handover.make()
        for end in (self._served, self._ready):
            os.set_blocking(end, False)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._due = [(time.monotonic(), PAUSE_SECONDS[0])] * self._number
        try:
            return self._watch()
        finally:
            self._stop()

    def _watch(self) -> int:
        while True:
            self._start_due()
            status = self._reap()
            if status is not None:
                return status
            self._tell()
            quiet = self._steady and not self._due
            taken = signal.sigtimedwait(SIGNALS, self._longest_pause if quiet else 0.25)
            if taken is None or taken.si_signo == signal.SIGCHLD:
                continue
            if taken.si_signo != signal.SIGHUP:
                return 0
            self._reload()

    def _tell(self) -> None:
        """Tell systemd that we are alive, and once, that somebody serves."""
        # A worker that hangs ends itself (crossing.py), so this process speaks for all.
        systemd.notify("WATCHDOG=1")
        if not self._announced:
            with contextlib.suppress(BlockingIOError):
                os.read(self._served, 1)
                self._announced = True
                systemd.notify("READY=1")

    def _start_due(self) -> None:
        now = time.monotonic()
        due = [pause for moment, pause in self._due if moment <= now]
        self._due = [each for each in self._due if each[0] > now]
        for pause in due:
            self._start(pause)

    def _start(self, pause: float) -> None:
        bayeux = not any(worker.bayeux for worker in self._running.values())
        try:
            pid = os.fork()
        except OSError as error:  # of processes or memory there is no more just now
            log.warn("worker.refused", reason=error.strerror)
            self._start_after(pause)
            return
        if pid == 0:
            self._become_worker(self._handover._replace(mine=bayeux))
        self._running[pid] = _Worker(time.monotonic(), pause, bayeux)
        log.info("worker.started", worker=pid)

    def _start_after(self, pause: float) -> None:
        """Start a worker after this pause, and the next one, if that fails too, after a longer."""
        longer = min(2 * pause, PAUSE_SECONDS[1])
        self._due.append((time.monotonic() + pause, longer))

    def _become_worker(self, handover: Handover) -> None:
        status = EXIT_DEAD_THREAD
        try:
            os.close(self._held)
            # Not SIGHUP: until the worker listens for it, it would end it. One that comes meanwhile
            # waits, so that it is not lost either.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*SIGNALS} - {signal.SIGHUP})
            inherited = Inherited(self._sockets, self._lifeline, self._ready, handover)
            status = self._serve(self._settings, self._config_path, inherited)
        except BaseException as failure:  # noqa: BLE001  # nothing may go on as a second parent
            log.error("worker.failed", failure)
        finally:
            logging.shutdown()
            os._exit(status)

    def _reap(self) -> int | None:
        """Have those who ended replaced; the exit status if there is no use in that."""
        now = time.monotonic()
        self._steady = self._steady or any(
            now - worker.started >= STEADY_SECONDS for worker in self._running.values()
        )
        while (ended := self._next_ended()) is not None:
            pid, status = ended
            worker = self._running.pop(pid)
            log.warn("worker.ended", worker=pid, status=status)
            if status in (EXIT_SETTINGS, EXIT_AWAY) and not self._steady:
                return status
            if now - worker.started >= STEADY_SECONDS:
                self._due.append((now, PAUSE_SECONDS[0]))
            else:
                self._start_after(worker.pause)
        return None

    def _next_ended(self) -> tuple[int, int] | None:
        """A worker that has ended, and its exit status (less than 0: the signal)."""
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in self._running:
                return pid, os.waitstatus_to_exitcode(status)
            if not pid:
                return None
        return None

    def _reload(self) -> None:
        """Have every worker read the configuration again; later ones begin with it."""
        with contextlib.suppress(SettingsError):  # the workers say what is wrong with it
            self._settings = load_settings(self._config_path, os.environ)
        self._signal(signal.SIGHUP)

    def _signal(self, number: int) -> None:
        for pid in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _stop(self) -> None:
        """Close the sockets, let the workers drain, and wait for them."""
        systemd.notify("STOPPING=1")
        for listening in chain.from_iterable(self._sockets.values()):
            listening.close()
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self._running:
            ended = self._next_ended()
            if ended is not None:
                del self._running[ended[0]]
            elif time.monotonic() > deadline:
                log.warn("worker.killed", workers=len(self._running))
                self._signal(signal.SIGKILL)
                deadline = float("inf")
            else:
                signal.sigtimedwait(SIGNALS, 0.25)
        for descriptor in (self._lifeline, self._held, self._served, self._ready):
            os.close(descriptor)
        self._handover.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
