"""The daemon's end of the guard, its dead man's switch (``piod.hw.guard_process``).

:func:`spawn_guard` starts it, and :meth:`GuardLink.restart` starts it anew.
Imports nothing that the guard does not need.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import allocate_lock

from piod.hw.guard_process import HERE, LATE_AFTER_S, MAX_LINE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

BEAT_EVERY_S = 0.5
"""How often the daemon's event loop is to call :meth:`GuardLink.beat`."""

_SIGKILL = 9


class GuardLink:
    """The daemon's end of the guard. Usable from any thread; no call ever waits.

    A dead guard raises nothing: :attr:`alive` turns False, ``report_fd`` reads
    EOF, and what is said meanwhile is told to the next one (:meth:`restart`).
    """

    def __init__(self, pid: int, commands_fd: int, report_fd: int, late_after_s: float) -> None:
        self._lock = allocate_lock()
        self._recipes: dict[str, str] = {}
        self._deadlines: dict[str, float | None] = {}
        self._late_after_s = late_after_s
        self._pid: int | None = pid
        self._commands_fd: int | None = commands_fd
        self._unread = b""
        self.unanswered_beats = 0
        """Beats since the guard was last heard: of a guard that hangs, more and more."""
        self.report_fd = report_fd
        """Readable when there is a report, or when the guard is dead; -1 once closed."""

    def register(self, output: str, recipe: str) -> None:
        """Say how ``output`` (a name without blanks) is turned off; replaces an older recipe."""
        line = f"register {output} {recipe}"
        if len(output.split()) != 1 or "\n" in line or len(os.fsencode(line)) >= MAX_LINE_BYTES:
            raise ValueError(f"this cannot be told to the guard: {line!r}")
        with self._lock:
            self._recipes[output] = recipe
            self._tell(line)

    def on(self, output: str, deadline_monotonic_s: float | None = None) -> None:
        """``output`` is about to be turned on; call this *before* the hardware is told.

        ``deadline_monotonic_s``: when it is to be off at the latest, on the scale
        of ``time.monotonic``; it replaces the deadline before. None: no limit.
        """
        with self._lock:
            self._deadlines[output] = deadline_monotonic_s
            self._tell(_on_line(output, deadline_monotonic_s))

    def off(self, output: str) -> None:
        """``output`` has been turned off; call this *after* the hardware was told."""
        with self._lock:
            self._deadlines.pop(output, None)
            self._tell(f"off {output}")

    def beat(self) -> None:
        """The event loop is alive; to be called every BEAT_EVERY_S by it, by nothing else."""
        with self._lock:
            self.unanswered_beats += 1
            self._tell(f"beat {time.monotonic()!r}")

    @property
    def pid(self) -> int | None:
        """The process; None when it is known to have ended."""
        return self._pid

    @property
    def alive(self) -> bool:
        """Whether the guard still runs and follows."""
        with self._lock:
            return self._commands_fd is not None and not self._reaped()

    def dismiss(self) -> None:
        """Kill a guard that does not answer; ``report_fd`` reads EOF then."""
        with self._lock:
            self._hang_up()

    def read_reports(self) -> list[str]:
        """The reports that have come since the last call; none once it is dead."""
        try:
            data = os.read(self.report_fd, 65536)
        except OSError:
            return []  # nothing there yet, or closed
        *lines, self._unread = (self._unread + data).split(b"\n")
        if not data:
            with self._lock:
                self._hang_up()
        if lines:
            self.unanswered_beats = 0
        reports = [line.decode("utf-8", "replace") for line in lines]
        return [report for report in reports if report != HERE]

    def restart(self, keep_fds: Iterable[int] = ()) -> None:
        """Put a new guard in the place of this one, and tell it all that this one knew.

        ``report_fd`` is another one afterwards: stop watching the old one before.
        Raises OSError when no process can be started.
        """
        pid, commands_fd, report_fd = _spawn(keep_fds, self._late_after_s)
        with self._lock:
            self._bury()
            self._pid, self._commands_fd, self.report_fd = pid, commands_fd, report_fd
            self._unread = b""
            self.unanswered_beats = 0
            for output, recipe in self._recipes.items():
                self._tell(f"register {output} {recipe}")
            for output, deadline in self._deadlines.items():
                self._tell(_on_line(output, deadline))

    def close(self, timeout_s: float = 1.0) -> bool:
        """The orderly end: the guard turns off what is still on, exits and is reaped.

        Waits for that, ``timeout_s`` at most. False: it did not, or was dead before.
        """
        until = time.monotonic() + timeout_s
        with self._lock:
            if self._reaped():
                self._bury()
                return False
            self._tell("end")
            if self._commands_fd is not None:
                os.close(self._commands_fd)
                self._commands_fd = None
            while not (ended := self._reaped()) and time.monotonic() < until:
                time.sleep(0.005)
            self._bury()
        return ended

    def _tell(self, line: str) -> None:
        if self._commands_fd is None:
            return
        try:
            os.write(self._commands_fd, line.encode("utf-8", "surrogateescape") + b"\n")
        except BlockingIOError:
            # It has stopped reading, so it guards nothing. Killed, it cannot
            # wake up later and act on old news; EOF on report_fd tells the daemon.
            self._hang_up()
        except OSError:
            self._hang_up()

    def _hang_up(self) -> None:
        """Kill first: a closed pipe would make a live guard turn everything off."""
        if not self._reaped() and self._pid is not None:
            os.kill(self._pid, _SIGKILL)
        if self._commands_fd is not None:
            os.close(self._commands_fd)
            self._commands_fd = None

    def _bury(self) -> None:
        self._hang_up()
        until = time.monotonic() + 0.5
        while not self._reaped() and time.monotonic() < until:
            time.sleep(0.001)
        if self.report_fd >= 0:
            os.close(self.report_fd)
            self.report_fd = -1

    def _reaped(self) -> bool:
        if self._pid is not None:
            try:
                if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                    return False
            except ChildProcessError:
                pass  # somebody else waited for every child
            self._pid = None
        return True


def spawn_guard(keep_fds: Iterable[int] = (), late_after_s: float = LATE_AFTER_S) -> GuardLink:
    """Start a guard. Raises OSError.

    It is a process in an interpreter of its own, which takes less memory than a
    fork of this one and can be done at any time. It closes every inherited file
    but stderr and ``keep_fds``: a lock on the data directory stays held until all
    outputs are off.
    """
    return GuardLink(*_spawn(keep_fds, late_after_s), late_after_s)


def _spawn(keep_fds: Iterable[int], late_after_s: float) -> tuple[int, int, int]:
    keep = sorted(set(keep_fds))
    commands_read, commands_write, reports_read, reports_write = _pipes()
    # -I -S: no site packages, no environment. So the way to this package is told,
    # as the last one: nothing in it may hide the standard library.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        f"import sys; sys.path.append({root!r}); "
        "from piod.hw.guard_process import main; main(sys.argv[1:])"
    )
    numbers = [commands_read, reports_write, os.getpid(), late_after_s, *keep]
    arguments = [sys.executable, "-I", "-S", "-c", code, *map(str, numbers)]
    # A file that is duplicated onto itself is not closed on exec; all others are.
    inherited = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in (commands_read, reports_write, *keep)]
    try:
        pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=inherited)
    except OSError:
        os.close(commands_write)
        os.close(reports_read)
        raise
    finally:
        os.close(commands_read)
        os.close(reports_write)
    return pid, commands_write, reports_read


def _pipes() -> tuple[int, int, int, int]:
    commands_read, commands_write = os.pipe()
    reports_read, reports_write = os.pipe()
    for fd in (commands_read, commands_write, reports_read, reports_write):
        os.set_blocking(fd, False)
    return commands_read, commands_write, reports_read, reports_write


def _on_line(output: str, deadline_s: float | None) -> str:
    return f"on {output} {'-' if deadline_s is None else repr(deadline_s)}"
