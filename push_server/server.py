"""The house: puts the parts together, keeps them running, and takes them down in order.

Threads: this one becomes the event loop (hub, brokers, signals); waitress's I/O thread and its
workers are started here; the broker may own one more. Nothing else.

Signals: SIGTERM and SIGINT drain and end, SIGHUP reads the configuration again.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
import threading
from itertools import chain
from typing import NamedTuple

from push_server import log, systemd
from push_server.addresses import without_limit
from push_server.bridges.build import make_bridges
from push_server.brokers import make_broker
from push_server.config_load import load_settings
from push_server.crossing import EXIT_DEAD_THREAD, Crossing, Pulse
from push_server.doors.context import Context
from push_server.doors.internal import internal_application
from push_server.doors.public import public_application
from push_server.doors.subscribe import waits_for_nothing
from push_server.errors import PushError
from push_server.front.handover import Handover
from push_server.front.listeners import Fronts
from push_server.hub import Hub
from push_server.presence import Presence
from push_server.revocations import Revocations
from push_server.settings import Settings, SettingsError
from push_server.signatures import decode_secret
from push_server.sockets import Sockets, address_of, open_sockets
from push_server.tokens import TokenKeys
from push_server.webhooks import Webhooks

EXIT_SETTINGS = 2
"""The configuration cannot work; whoever starts servers need not try again."""
EXIT_AWAY = 69
"""The log is out of reach or out of room, which may pass."""
"""Exit status when the configuration cannot be used."""
DRAIN_SECONDS = 5.0
"""How long clients have to take their last words."""
FRONT_SILENCE = 10.0
"""Seconds without a turn of waitress's thread after which the watchdog is told nothing."""
DESCRIPTOR_SHARE = 0.8
"""Of the descriptors for connections that last."""
FRONT_SHARE, RESERVE_SHARE = 0.1, 0.03
"""The same for those that are asking or idle, of browsers, and besides of the CMS. Both listeners
share waitress's count; the reserve keeps the way in of the CMS open when browsers have filled
theirs."""
FRONT_LEAST = 32
"""waitress counts the listening sockets, too."""
INTERNAL_THREADS = 16
"""Workers of the internal listener. Each waits for one commit; together they make a group."""


class Inherited(NamedTuple):
    """What a worker has from its parent."""

    sockets: Sockets
    lifeline: int
    """A pipe that can be read when the parent is gone."""
    ready: int
    """A pipe that takes a byte when the worker serves."""
    handover: Handover
    """The way to the worker that has the Bayeux sessions."""


def set_up_log(*, workers: bool = False) -> None:
    """Log to standard error; with `workers`, saying which process it is."""
    process = " %(process)d" if workers else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        systemd.JournalFormatter()
        if systemd.journal_reads(sys.stderr)
        else logging.Formatter(f"%(asctime)s{process} %(levelname)s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # It names the path of a client that has left, with whatever line ends are in that, and says as
    # often as connections come and go that there are too many.
    logging.getLogger("waitress").setLevel(logging.ERROR)


def run(
    settings: Settings, config_path: str | None = None, inherited: Inherited | None = None
) -> int:
    """Serve until a signal ends it; returns the exit status."""
    set_up_log()
    try:
        return asyncio.run(_House(settings, config_path, inherited).run())
    except (SettingsError, PushError) as error:
        said = error.message if isinstance(error, PushError) else error
        sys.stderr.write(f"push-server: {said}\n")
        passing = isinstance(error, PushError) and error.status >= 500
        return EXIT_AWAY if passing else EXIT_SETTINGS


async def make_context(settings: Settings) -> Context:
    """Broker, hub and crossing on the running loop, ready to be served by any front."""
    revocations = Revocations()
    hub = Hub(
        revocations=revocations,
        heartbeat=settings.heartbeat,
        max_age=settings.connection_max_age,
        queue_bytes=settings.queue_bytes,
        stall_timeout=settings.stall_timeout,
        reset_spread=settings.reset_spread,
        max_connections=_connections(settings),
        max_per_user=settings.connections_per_user,
        max_per_address=settings.connections_per_ip,
    )
    broker = make_broker(settings.broker, settings.namespace, hub.deliver, hub.revoke)
    broker.restarted, broker.degraded = hub.restarted, hub.degraded
    broker.missed, broker.unheard = hub.missed, hub.unheard
    broker.asked = hub.asked
    hub.broker = broker
    await broker.start()
    _observe(hub, settings)
    crossing = Crossing(hub.loop)
    return Context(
        settings, TokenKeys(settings.token_keys), revocations, broker, hub, crossing
    )


def _observe(hub: Hub, settings: Settings) -> None:
    """Have count kept of users and channels, as far as the settings ask for it."""
    roster = hub.broker.roster
    if settings.namespace.any_presence:
        presence = Presence(settings.namespace, roster, hub.announce, settings.presence_grace)
        roster.changed = presence.changed
        hub.observers.append(presence)
    if settings.webhook_url:
        webhooks = Webhooks(
            settings.webhook_url,
            decode_secret(settings.webhook_key),
            roster.node,
            settings.presence_grace,
            hub.counts,
        )
        roster.gone = webhooks.gone
        hub.observers.append(webhooks)
        webhooks.start()


def _connections(settings: Settings) -> int:
    """How many connections there may be. Raises `SettingsError` if that is more than can be.

    Past the last descriptor, accepting fails at once and is tried again at once, for ever; so the
    limit stays below, with room for files and for connections that are being refused.
    """
    descriptors = _descriptors()
    possible = int(descriptors * DESCRIPTOR_SHARE)
    if settings.connections > possible:
        raise SettingsError(
            "connections",
            f"{settings.connections} need {int(settings.connections / DESCRIPTOR_SHARE)} file"
            f" descriptors, this process may open {descriptors}: raise LimitNOFILE (systemd) or"
            " ulimit -n",
        )
    return settings.connections or possible


def _descriptors() -> int:
    """Descriptors this process may have; raised to what the administrator allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


class _House:
    """One run of the server."""

    def __init__(
        self, settings: Settings, config_path: str | None, inherited: Inherited | None = None
    ) -> None:
        self._settings = settings
        self._inherited = inherited
        self._config_path = config_path
        self._stopping = asyncio.Event()
        self._fronts = Fronts(self._every_second)
        self._pulse = Pulse("front")
        self._pause = min(1.0, (systemd.watchdog_seconds() or 2.0) / 2)

    async def run(self) -> int:
        """Start, serve, drain, stop."""
        # Before the log is opened: where a port is taken, nothing has been begun.
        sockets = (
            self._inherited.sockets
            if self._inherited
            else open_sockets(self._settings, systemd.inherited_sockets())
        )
        try:
            self._context = await make_context(self._settings)
            self._context.serves_bayeux = self._inherited is None or self._inherited.handover.mine
        except BaseException:
            for listening in chain.from_iterable(sockets.values()):
                listening.close()
            raise
        try:
            self._bridges = make_bridges(self._context)
            self._serve_on(sockets)
        except BaseException:
            await self._context.broker.close()
            raise
        self._thread = threading.Thread(target=self._serve_http, name="waitress-io", daemon=True)
        self._thread.start()
        for bridge in self._bridges:
            bridge.start()
        self._heed_signals(asyncio.get_running_loop())
        # What lives as long as the process need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        self._tell("READY=1")
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._pause)
            if not self._thread.is_alive():
                log.warn("front.dead")
                os._exit(EXIT_DEAD_THREAD)
            # We are the loop, so it turns. The other thread has to have turned lately, too.
            if self._pulse.check() < FRONT_SILENCE:
                self._tell("WATCHDOG=1")
        self._tell("STOPPING=1")
        await self._stop()
        return 0

    def _heed_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # a worker begins without it
        if self._inherited is not None:
            loop.add_reader(self._inherited.lifeline, self._orphaned)

    def _serve_on(self, sockets: Sockets) -> None:
        settings = self._settings
        channels = max(FRONT_LEAST, int(_descriptors() * FRONT_SHARE))
        reserve = int(_descriptors() * RESERVE_SHARE)
        for name, application, threads, most in (
            ("listen", public_application(self._context), settings.threads, channels),
            (
                "internal_listen",
                internal_application(self._context),
                INTERNAL_THREADS,
                channels + reserve,
            ),
        ):
            self._fronts.listen(
                application,
                sockets[name],
                threads=threads,
                max_body=settings.max_body,
                channels=most,
                head_seconds=settings.handshake_timeout,
                per_address=settings.handshakes_per_ip if name == "listen" else 0,
                unlimited=without_limit(settings.unlimited_addresses, settings.trusted_proxy),
                shared=self._inherited is not None,
                handover=self._inherited.handover if self._inherited and name == "listen" else None,
                at_once=waits_for_nothing,
                headers=application.headers,
            )
            for listening in sockets[name]:
                log.info("listening", setting=name, address=address_of(listening))

    def _serve_http(self) -> None:
        try:
            self._fronts.run()
        except Exception as failure:  # noqa: BLE001
            log.error("front.failed", failure)  # the loop sees that this thread is gone

    def _every_second(self) -> None:
        """The two threads look at each other (I/O thread)."""
        self._pulse.beat()
        self._context.crossing.check_loop()

    def _tell(self, state: str) -> None:
        """Tell systemd, or the parent that talks to it."""
        if self._inherited is None:
            systemd.notify(state)
        elif state == "READY=1":
            # The parent waits for one worker only: many that came later may have filled the pipe.
            with contextlib.suppress(BlockingIOError):
                os.write(self._inherited.ready, b".")

    def _orphaned(self) -> None:
        assert self._inherited is not None
        asyncio.get_running_loop().remove_reader(self._inherited.lifeline)
        log.warn("worker.orphaned")
        self._stopping.set()

    def _reload(self) -> None:
        """Take keys, namespaces and origins from the configuration again (SIGHUP).

        Only what is read anew on every request changes, limits of a single request among it;
        the limits of the hub, the addresses and the broker stay as they are until a restart. A
        configuration that cannot be used changes nothing.
        """
        try:
            settings = load_settings(self._config_path, os.environ)
        except SettingsError as error:
            log.warn("reload.refused", setting=error.setting, reason=error.message)
            return
        self._context.settings = settings
        self._context.tokens = TokenKeys(settings.token_keys)
        self._context.broker.namespaces = settings.namespace
        log.info("reload.done")

    async def _stop(self) -> None:
        """Stop accepting, tell clients when to come back, finish what was accepted, close."""
        context = self._context
        log.info("draining", connections=context.hub.stats()["connections"])
        self._fronts.stop_accepting()
        for bridge in self._bridges:
            await bridge.stop()
        context.hub.drain(self._settings.drain_spread)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(context.hub.empty.wait(), DRAIN_SECONDS)
        # The workers need the loop to finish, so they are waited for in a thread.
        await asyncio.to_thread(self._fronts.stop)
        # So that no connection is handed to a hub that has closed.
        await asyncio.to_thread(self._thread.join, DRAIN_SECONDS)
        # What the loop has yet to answer needs the hub and the broker.
        await context.crossing.finish(DRAIN_SECONDS)
        context.hub.close()
        await context.broker.close()
        log.info("stopped")
