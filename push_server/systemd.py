"""The service manager: the sockets it has opened for us, what it is told, and its log.

systemd speaks through a few environment variables and one datagram socket (sd_listen_fds(3),
sd_notify(3), sd-daemon(3)), so no library is needed. Anybody else may speak like it. Where none
of the variables is set, as in a terminal or on FreeBSD, everything here does nothing.

Imported by the server and its workers.
"""

import logging
import os
import socket
from collections.abc import MutableMapping
from typing import IO

from push_server import log

FIRST_DESCRIPTOR = 3
PRIORITIES = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Levels as syslog(3) numbers them."""


def inherited_sockets(
    environ: MutableMapping[str, str] = os.environ,
) -> dict[str, list[socket.socket]]:
    """The sockets that listen already, by the name of the setting they are for.

    That is `FileDescriptorName` in the unit of the socket. To be called once: afterwards neither
    we nor a child of ours takes them for its own again.
    """
    meant = environ.pop("LISTEN_PID", "") == str(os.getpid())
    number = int(environ.pop("LISTEN_FDS", "0"))
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    sockets: dict[str, list[socket.socket]] = {}
    for index in range(number if meant else 0):
        os.set_inheritable(FIRST_DESCRIPTOR + index, False)
        name = names[index] if index < len(names) else ""
        sockets.setdefault(name, []).append(socket.socket(fileno=FIRST_DESCRIPTOR + index))
    return sockets


def notify(*lines: str) -> None:
    """Tell the manager something: ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``, ``STATUS=…``."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    # An "@" stands for the first byte of an abstract name.
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
        teller.setblocking(False)
        try:
            teller.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            # Nobody is served worse for it; a watchdog that hears nothing does its work.
            log.warn("systemd.deaf", reason=error.strerror)


def watchdog_seconds() -> float | None:
    """How long the manager bears to hear nothing from this process; `None`: for ever."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    return microseconds / 1_000_000 or None


def journal_reads(stream: IO[str]) -> bool:
    """Whether what is written here goes into the journal, which knows the time by itself."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class JournalFormatter(logging.Formatter):
    """Lines with their priority in front, for ``journalctl -p warning``; no time, no process."""

    def format(self, record: logging.LogRecord) -> str:
        """The record; each line of a traceback is a line of the journal."""
        priority = PRIORITIES.get(record.levelno, 5)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
