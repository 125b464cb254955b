"""The guard: a tiny process that turns outputs off when the daemon cannot.

It is the unit's dead man's switch. The daemon starts it (``piod.hw.guard``) and
tells it, through a pipe, which outputs exist, which are on and until when.
Commands, one line each:

    register OUTPUT RECIPE      how to turn it off (piod.hw.off)
    on OUTPUT DEADLINE|-        it is about to be on; CLOCK_MONOTONIC seconds
    off OUTPUT                  the daemon has turned it off
    beat TIME                   the event loop was alive at TIME
    end                         the daemon is done: turn off what is on, and exit

What the guard does, it reports on a second pipe: ``fired heartbeat``,
``fired deadline OUTPUT``, ``failed OUTPUT REASON``.

- An output whose deadline passed GRACE_S ago is turned off. The daemon's own bus
  thread is on time and says ``off`` before that.
- When the last beat is older than LATE_AFTER_S, everything is turned off, once
  until the beats resume.
- When the pipe closes, the daemon is dead: everything is turned off, then it exits.

An output that a dead process frees but a hung one holds (a GPIO line) can only
be turned off by killing the daemon; so that is done, when such an output is on.
"""

from __future__ import annotations

# _signal, because the module ``signal`` brings enum along: a sixth of this process
import _signal  # type: ignore[import-not-found]  # typeshed does not describe it
import os
import select
import time

from piod.hw import off as recipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LATE_AFTER_S = 2.5
"""The age of the last beat at which the daemon counts as hung: 2 s late."""

GRACE_S = 0.1
"""How long after a deadline the guard leaves it to the daemon's own thread."""

RETRY_S = 0.05
"""Pause between attempts to turn an output off."""

LAST_TRIES_S = 5.0
"""How long a guard without a daemon goes on trying."""

HOLDER_GRACE_S = 1.0
"""How long a held line may outlast its deadline before its holder is killed."""

HUNG_ON_S = 0.4
"""How long an output stays on that a hung daemon turns on all the same."""

MAX_WAIT_S = 3600.0
"""Longer, it looks again in between: poll takes 24 days at most, and fails above."""

MAX_LINE_BYTES = 4096
"""PIPE_BUF: up to here, a write to a pipe is all or nothing."""

NAME = b"piod-guard"
HERE = "here"
"""The report that answers each beat: the daemon replaces a guard that hangs."""

_SIGKILL = 9


def main(arguments: list[str]) -> None:
    """What ``piod.hw.guard.spawn_guard`` runs: two pipes, the daemon, its patience, files."""
    commands, reports, daemon = (int(argument) for argument in arguments[:3])
    keep = [int(argument) for argument in arguments[4:]]
    be_the_guard(commands, reports, daemon, float(arguments[3]), keep)


def be_the_guard(
    commands_fd: int, reports_fd: int, daemon_pid: int, late_after_s: float, keep: Iterable[int]
) -> None:
    # A service manager (its watchdog with SIGABRT) or a terminal signals all processes
    # of the daemon: this one ends when the daemon has, and not before.
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGABRT):
        _signal.signal(number, _signal.SIG_IGN)
    _take_a_name()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nowhere, fd)
    _close_all_but({0, 1, 2, commands_fd, reports_fd, *keep})
    _Guard(commands_fd, reports_fd, daemon_pid, late_after_s).run()


def _take_a_name() -> None:
    """Be ``piod-guard``: whoever kills ``piod serve`` by name must not kill the guard with it.

    The command line that others see lies in this process's own memory
    (``arg_start`` and ``arg_end`` of proc(5)).
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            status = file.read()
        words = status[status.rindex(b")") + 2 :].split()
        start, end = int(words[45]), int(words[46])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(NAME.ljust(end - start, b"\0")[: end - start])
        with open("/proc/self/comm", "wb") as file:
            file.write(NAME)
    except (OSError, ValueError, IndexError):
        pass  # it guards under any name


def _close_all_but(keep: set[int]) -> None:
    """What the daemon has open (a socket, a GPIO line of a C library) must end with it."""
    try:
        opened = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        opened = list(range(1024))
    for fd in opened:
        if fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass  # the listing's own, closed meanwhile


class _Guard:
    def __init__(
        self, commands_fd: int, reports_fd: int, daemon_pid: int, late_after_s: float
    ) -> None:
        self._commands_fd = commands_fd
        self._reports_fd = reports_fd
        self._daemon_pid = daemon_pid
        self._late_after_s = late_after_s
        self._recipes: dict[str, str] = {}
        self._deadlines: dict[str, float] = {}  # of the outputs that are on; inf: none
        self._failing: dict[str, float] = {}  # to be off since then, and not yet off
        self._last_beat: float | None = None  # None: the daemon is still starting
        self._hung = False
        self._killed = False
        self._unread = b""
        self._ended = False

    def run(self) -> None:
        poller = select.poll()
        poller.register(self._commands_fd, select.POLLIN)
        listening = True
        while listening:
            wait_s = min(self._next_due() - time.monotonic(), MAX_WAIT_S)
            poller.poll(max(0.0, wait_s) * 1000)
            listening = self._drain()  # always before anything is fired
            if listening:
                self._act(time.monotonic())
        self._last_act()

    # -- commands ---------------------------------------------------------------

    def _drain(self) -> bool:
        """Obey all that is in the pipe; False when the daemon is gone or done."""
        while not self._ended:
            try:
                data = os.read(self._commands_fd, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                try:
                    self._obey(line.decode("utf-8", "surrogateescape").split(" ", 2))
                except ValueError:
                    self._report(f"failed - did not understand {line!r}")
            if len(self._unread) > MAX_LINE_BYTES:
                self._unread = b""  # no line of ours is that long
        return False

    def _obey(self, words: list[str]) -> None:
        match words:
            case ["register", output, recipe]:
                self._recipes[output] = recipe
            case ["on", output, deadline]:
                self._failing.pop(output, None)
                self._deadlines[output] = float("inf")
                if self._last_beat is None:
                    self._last_beat = time.monotonic()
                until = float("inf") if deadline == "-" else float(deadline)
                if self._hung:
                    # Told by a thread of a daemon whose loop hangs. Not at once:
                    # it still has to write the duty, and our 0 must come after.
                    until = min(until, time.monotonic() + HUNG_ON_S)
                self._deadlines[output] = until
            case ["off", output]:
                self._failing.pop(output, None)
                self._deadlines.pop(output, None)
            case ["beat", sent]:
                self._last_beat = min(float(sent), time.monotonic())
                self._hung = False
                self._report(HERE)
            case ["end"]:
                self._ended = True
            case _:
                raise ValueError

    # -- what it is there for -----------------------------------------------------

    def _next_due(self) -> float:
        due = [deadline + GRACE_S for deadline in self._deadlines.values()]
        if self._last_beat is not None and not self._hung:
            due.append(self._last_beat + self._late_after_s)
        if self._failing:
            due.append(time.monotonic() + RETRY_S)
        return min(due, default=float("inf"))

    def _act(self, now: float) -> None:
        for output, since in list(self._failing.items()):
            self._try(output, since)
            if output in self._failing and now - since > HOLDER_GRACE_S:
                self._kill_holder(output)
        for output, deadline in list(self._deadlines.items()):
            if now >= deadline + GRACE_S:
                self._deadlines[output] = float("inf")
                self._try(output, now)
                self._report(f"fired deadline {output}")
        if (
            self._last_beat is not None
            and not self._hung
            and now >= self._last_beat + self._late_after_s
        ):
            self._hung = True
            held = [o for o in self._recipes if recipes.needs_holder_gone(self._recipes[o])]
            slow = [o for o in self._recipes if recipes.is_slow(self._recipes[o])]
            for output in self._recipes:
                if output not in held and output not in slow:
                    self._try(output, now)
            self._report("fired heartbeat")
            for output in held:
                if output in self._deadlines:
                    self._kill_holder(output)
                    self._try(output, now)
            for output in slow:
                self._try(output, now)

    def _last_act(self) -> None:
        now = time.monotonic()
        outputs = self._deadlines if self._ended else self._recipes
        ordered = sorted(
            (output for output in outputs if output in self._recipes),
            key=lambda output: recipes.is_slow(self._recipes[output]),
        )
        self._failing = dict.fromkeys(ordered, now)
        until = now + LAST_TRIES_S
        while True:
            for output, since in list(self._failing.items()):
                self._try(output, since)
            if not self._failing or time.monotonic() > until:
                break
            time.sleep(RETRY_S)
        for output in self._failing:
            _log(f"could not turn {output} off: {self._recipes[output]}")

    def _try(self, output: str, since: float) -> None:
        """Turn ``output`` off, or keep it among those that fail ``since`` then."""
        recipe = self._recipes.get(output)
        if recipe is None:
            self._deadlines.pop(output, None)
            self._report(f"failed {output} is not registered")
            return
        try:
            recipes.turn_off(recipe)
        except Exception as error:  # whatever it is, the other outputs come next
            if output not in self._failing:
                self._failing[output] = since
                self._report(f"failed {output} {type(error).__name__} {error}")
        else:
            self._failing.pop(output, None)
            self._deadlines.pop(output, None)

    def _kill_holder(self, output: str) -> None:
        # A child's parent cannot have been replaced by a stranger of the same pid.
        if not self._killed and os.getppid() == self._daemon_pid:
            self._killed = True
            _log(f"the daemon is hung and holds {output}: killing it")
            os.kill(self._daemon_pid, _SIGKILL)

    def _report(self, text: str) -> None:
        try:
            os.write(self._reports_fd, text.replace("\n", " ").encode("utf-8", "replace") + b"\n")
        except OSError:
            pass  # nobody listens: the daemon is hung or dead


def _log(text: str) -> None:
    try:
        os.write(2, f"piod guard: {text}\n".encode())
    except OSError:
        pass  # nobody listens; the outputs matter more
