"""What systemd gives to the daemon that it starts, and how the daemon answers.

:func:`received` takes from the environment, once and early, so that no child
inherits it: the notify socket, the interval of the watchdog, and the listening
sockets of ``piod.socket``. Without systemd all of it is absent, and whatever is
told goes nowhere. Protocols: sd_notify(3), sd_watchdog_enabled(3),
sd_listen_fds(3). Cheap to import.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

FIRST_LISTEN_FD = 3


class Notifier:
    """Tells systemd how the daemon is; ``address`` None: nobody listens.

    No call ever waits or raises: a service manager that does not read must not
    stop a reactor.
    """

    def __init__(self, address: str | None = None) -> None:
        if address is not None and address.startswith("@"):
            address = "\0" + address[1:]  # an abstract socket
        self._address = address
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @property
    def listens(self) -> bool:
        """Whether there is somebody to tell."""
        return self._socket is not None

    def close(self) -> None:
        """Tell nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self) -> None:
        """The outputs are safe and the port is open; or: a reload is over."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """A reload begins; :meth:`ready` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon begins to end."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._tell("STATUS=" + " ".join(text.splitlines()))

    def watchdog(self) -> None:
        """The daemon is alive for another interval."""
        self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", text.split("\n")[0], error.strerror)


@dataclass(frozen=True)
class FromSystemd:
    """What this process was given; the defaults are those of a process without systemd."""

    notifier: Notifier = field(default_factory=Notifier)
    watchdog_s: float | None = None
    """The daemon is restarted when it has not been fed for so long."""
    listen_fds: tuple[int, ...] = ()
    """Sockets to serve on, instead of binding one; none is inherited by a child."""


def received(environment: MutableMapping[str, str] = os.environ) -> FromSystemd:
    """Take what systemd gave out of ``environment``. What is meant for another process is not ours.

    A value that makes no sense counts as absent.
    """
    taken = {
        name: environment.pop(name, "")
        for name in (
            "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
            "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
        )
    }  # fmt: skip
    address = taken["NOTIFY_SOCKET"]
    own_pid = str(os.getpid())
    microseconds = _count(taken["WATCHDOG_USEC"]) if taken["WATCHDOG_PID"] in ("", own_pid) else 0
    count = _count(taken["LISTEN_FDS"]) if taken["LISTEN_PID"] == own_pid else 0
    listen_fds = tuple(range(FIRST_LISTEN_FD, FIRST_LISTEN_FD + count))
    for descriptor in listen_fds:
        os.set_inheritable(descriptor, False)
    return FromSystemd(
        Notifier(address if address[:1] in ("/", "@") else None),
        microseconds / 1e6 if microseconds else None,
        listen_fds,
    )


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and text.isascii() else 0
