"""The digital lines of a Raspberry Pi (GpioPort), on python-periphery.

All access happens in one bus thread. Edges are timed by the kernel, which
queues them; the thread only has to fetch them, so a busy process delays a
reading and never bends it. Any number of recordings run at once.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, cast

from piod.errors import BusError, DeviceMissing
from piod.hw.header import gpio_chip
from piod.hw.linux.bus_thread import BusThread, fail, resolve, tell
from piod.hw.linux.refusals import bus_error

NS_PER_S = 1e9
CLOCK_STEP_NS = 10_000_000
"""Beyond this a difference of clocks is a clock that was set, not time that passed."""


@dataclass(frozen=True)
class LineSpec:
    """How one line is claimed; ``line`` is its GPIO number. An output starts low."""

    line: int
    direction: Literal["in", "out"]
    bias: Literal["default", "pull_up", "pull_down", "disable"] = "default"
    edge: Literal["none", "rising", "falling", "both"] = "none"


class EdgeEvent(Protocol):
    """What the kernel says of an edge."""

    @property
    def edge(self) -> str: ...
    @property
    def timestamp(self) -> int: ...


class Line(Protocol):
    """What is used of ``periphery.GPIO``; its errors are OSErrors."""

    @property
    def fd(self) -> int: ...
    def read(self) -> bool: ...
    def write(self, value: bool) -> None: ...
    def read_event(self) -> EdgeEvent: ...
    def close(self) -> None: ...


OpenLine: TypeAlias = Callable[[str, LineSpec], Line]


def open_periphery_line(chip: str, spec: LineSpec) -> Line:
    """Claim a line of the character device ``chip``. Raises OSError."""
    import periphery  # here, so that a simulated unit never loads it

    direction = "in" if spec.direction == "in" else "low"
    line = periphery.GPIO(chip, spec.line, direction, edge=spec.edge, bias=spec.bias, label="piod")
    return cast(Line, line)  # the types that it ships leave the fields of an event out


class LinuxGpio:
    """The lines of ``lines``; see :class:`piod.hw.ports.GpioPort`.

    ``chip``: the character device they are on, found by its label if None.
    ``open_line`` claims one.
    """

    def __init__(
        self,
        lines: Sequence[LineSpec],
        chip: str | None = None,
        open_line: OpenLine = open_periphery_line,
    ) -> None:
        self._specs = {spec.line: spec for spec in lines}
        self._chip = chip
        self._open_line = open_line
        self._bus: _Bus | None = None

    async def open(self) -> None:
        """Claim the lines; outputs start low. Raises DeviceMissing or BusError, nothing claimed."""
        await self.close()
        bus = _Bus(BusThread("GPIO"))
        try:
            await bus.thread.run(
                lambda: bus.claim(self._chip or gpio_chip(), self._specs, self._open_line)
            )
        except BaseException:
            await bus.thread.run(bus.release)
            await bus.thread.stop()
            raise
        self._bus = bus

    async def close(self) -> None:
        """Drive outputs low, end all recordings with a BusError, let go of every line.

        Raises BusError if an output refuses; the port is closed all the same.
        """
        bus, self._bus = self._bus, None
        if bus is not None:
            refused = await bus.thread.run(bus.release)
            await bus.thread.stop()
            if refused:
                raise BusError(f"GPIO {refused[0]} could not be driven low.")

    async def read(self, line: int) -> bool:
        """See :meth:`piod.hw.ports.GpioPort.read`. ValueError: not one of its lines."""
        self._spec(line)
        bus = self._opened()
        return await bus.thread.run(lambda: bus.read(line))

    async def write(self, line: int, level: bool) -> None:
        """See :meth:`piod.hw.ports.GpioPort.write`. ValueError: not one of its outputs."""
        if self._spec(line).direction != "out":
            raise ValueError(f"GPIO {line} is an input")
        bus = self._opened()
        await bus.thread.run(lambda: bus.write(line, level))

    async def record_edges(self, line: int, window_s: float) -> Sequence[float]:
        """See :meth:`piod.hw.ports.GpioPort.record_edges`. ValueError: it has no falling edges."""
        if self._spec(line).edge not in ("falling", "both"):
            raise ValueError(f"GPIO {line} is not claimed for falling edges")
        bus = self._opened()
        loop = asyncio.get_running_loop()
        recording = _Recording(line, loop, loop.create_future())
        if not bus.thread.post(lambda: bus.start(recording, window_s)):
            raise BusError("The GPIO bus is closed.")
        try:
            return await recording.answer
        finally:
            bus.thread.post(lambda: bus.forget(recording))

    async def await_level(self, line: int, level: bool) -> None:
        """See :meth:`piod.hw.ports.GpioPort.await_level`. ValueError: not for both edges."""
        if self._spec(line).edge != "both":
            raise ValueError(f"GPIO {line} is not claimed for both edges")
        bus = self._opened()
        loop = asyncio.get_running_loop()
        wait = _Wait(line, level, loop, loop.create_future())
        if not bus.thread.post(lambda: bus.start_wait(wait)):
            raise BusError("The GPIO bus is closed.")
        try:
            await wait.answer
        finally:
            bus.thread.post(lambda: bus.forget_wait(wait))

    def _spec(self, line: int) -> LineSpec:
        if line not in self._specs:
            raise ValueError(f"GPIO {line} is not a line of this unit")
        return self._specs[line]

    def _opened(self) -> _Bus:
        if self._bus is None:
            raise BusError("The GPIO bus is closed.")
        return self._bus


@dataclass(eq=False)
class _Recording:
    line: int
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Sequence[float]]
    edges_s: list[float] = field(default_factory=list)


@dataclass(eq=False)
class _Wait:
    line: int
    level: bool
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[None]

    def end(self, error: BusError | None = None) -> None:
        if error is None:
            tell(self.loop, lambda: resolve(self.answer, None))
        else:
            tell(self.loop, lambda: fail(self.answer, error))


class _Bus:
    """The claimed lines, from open to close. Lives in the bus thread."""

    def __init__(self, thread: BusThread) -> None:
        self.thread = thread
        self._lines: dict[int, Line] = {}
        self._specs: Mapping[int, LineSpec] = {}
        self._recordings: list[_Recording] = []
        self._waits: list[_Wait] = []
        self._clock = _KernelClock()

    def claim(self, chip: str | None, specs: Mapping[int, LineSpec], open_line: OpenLine) -> None:
        if chip is None:
            raise DeviceMissing(
                "The GPIO lines of the 40-pin header are not there.",
                cause="no GPIO chip has the label of a Raspberry Pi's",
                remediation="Run piod on a Raspberry Pi, and let its user open /dev/gpiochip*; "
                "on Raspberry Pi OS the members of the group gpio may.",
            )
        self._specs = specs
        for line, spec in specs.items():
            try:
                self._lines[line] = open_line(chip, spec)
            except OSError as error:
                raise _bus_error(line, "could not be claimed", error) from error

    def release(self) -> list[int]:
        """All low and let go; the outputs that refused to go low."""
        refused = []
        for recording in self._recordings:
            self.thread.cancel(recording)
            self._end(recording, BusError("The GPIO bus was closed during a recording."))
        self._recordings = []
        for wait in self._waits:
            wait.end(BusError("The GPIO bus was closed."))
        self._waits = []
        for number, line in self._lines.items():
            self.thread.unwatch(line.fd)
            try:
                if self._specs[number].direction == "out":
                    line.write(False)
            except OSError:
                refused.append(number)
            try:
                line.close()
            except OSError:
                pass  # there is nothing more to let go of
        self._lines = {}
        return refused

    def read(self, line: int) -> bool:
        try:
            return self._claimed(line).read()
        except OSError as error:
            raise _bus_error(line, "could not be read", error) from error

    def write(self, line: int, level: bool) -> None:
        try:
            self._claimed(line).write(level)
        except OSError as error:
            raise _bus_error(line, "could not be driven", error) from error

    def start(self, recording: _Recording, window_s: float) -> None:
        line = recording.line
        try:
            fd = self._claimed(line).fd
            self._fetch(line)  # what is queued belongs to others, or to nobody
        except BusError as error:
            self._end(recording, error)
            return
        except OSError as error:
            self._fail_all(line, error)
            self._end(recording, _bus_error(line, "could not be watched", error))
            return
        self._recordings.append(recording)
        self.thread.watch(fd, lambda: self._readable(line))
        self.thread.at(recording, time.monotonic() + window_s, lambda: self._finish(recording))

    def forget(self, recording: _Recording) -> None:
        """Its caller has its answer, or waits no more."""
        self.thread.cancel(recording)
        if recording in self._recordings:
            self._recordings.remove(recording)
        self._unwatch_if_idle(recording.line)

    def start_wait(self, wait: _Wait) -> None:
        """Watch first and look then, so that no change falls in between."""
        try:
            line = self._claimed(wait.line)
            self._fetch(wait.line)  # what is queued has been
            self._waits.append(wait)
            self.thread.watch(line.fd, lambda: self._readable(wait.line))
            if line.read() == wait.level:
                wait.end()
        except BusError as error:
            wait.end(error)
        except OSError as error:
            wait.end(_bus_error(wait.line, "could not be watched", error))

    def forget_wait(self, wait: _Wait) -> None:
        """As :meth:`forget`."""
        if wait in self._waits:
            self._waits.remove(wait)
        self._unwatch_if_idle(wait.line)

    def _unwatch_if_idle(self, line: int) -> None:
        awaited = any(wait.line == line for wait in self._waits)
        if line in self._lines and not self._of(line) and not awaited:
            self.thread.unwatch(self._lines[line].fd)

    def _claimed(self, line: int) -> Line:
        if line not in self._lines:
            raise BusError("The GPIO bus is closed.")
        return self._lines[line]

    def _finish(self, recording: _Recording) -> None:
        self._readable(recording.line)
        if recording in self._recordings:
            self._end(recording, tuple(recording.edges_s))
            self.forget(recording)

    def _readable(self, line: int) -> None:
        try:
            self._fetch(line)
        except OSError as error:
            self._fail_all(line, error)

    def _fetch(self, line: int) -> None:
        """Give the edges that the kernel has queued to all who record ``line``."""
        source = self._lines[line]
        poller = select.poll()
        poller.register(source.fd, select.POLLIN | select.POLLPRI)
        while poller.poll(0):
            event = source.read_event()
            for wait in self._waits:
                if wait.line == line and wait.level == (event.edge == "rising"):
                    wait.end()
            if event.edge == "falling":
                at_s = self._clock.monotonic_ns(event.timestamp) / NS_PER_S
                for recording in self._of(line):
                    recording.edges_s.append(at_s)

    def _fail_all(self, line: int, error: OSError) -> None:
        for recording in self._of(line):
            self._end(recording, _bus_error(line, "could not be watched", error))
            self.forget(recording)
        for wait in [wait for wait in self._waits if wait.line == line]:
            wait.end(_bus_error(line, "could not be watched", error))
            self.forget_wait(wait)

    def _of(self, line: int) -> list[_Recording]:
        return [recording for recording in self._recordings if recording.line == line]

    @staticmethod
    def _end(recording: _Recording, result: Sequence[float] | BusError) -> None:
        answer = recording.answer
        if isinstance(result, BusError):
            tell(recording.loop, lambda: fail(answer, result))
        else:
            tell(recording.loop, lambda: resolve(answer, result))


class _KernelClock:
    """The kernel's time of an edge, put on the monotonic scale.

    python-periphery asks the newer GPIO interface for wall-clock times, and gets
    monotonic ones from the older one. A wall clock that is set in the middle of
    a window would bend an interval, so its offset is followed, in steps only:
    reading it anew for each edge would add the jitter of this process.
    """

    def __init__(self) -> None:
        self._offset_ns = 0

    def monotonic_ns(self, timestamp_ns: int) -> int:
        now_ns, offset_ns = _clocks()
        if abs(timestamp_ns - now_ns) <= abs(timestamp_ns - now_ns - offset_ns):
            return timestamp_ns
        if abs(offset_ns - self._offset_ns) > CLOCK_STEP_NS:
            self._offset_ns = offset_ns
        return timestamp_ns - self._offset_ns


def _clocks() -> tuple[int, int]:
    """The monotonic time, and what the wall clock is ahead of it."""
    while True:
        before_ns = time.monotonic_ns()
        offset_ns = time.time_ns() - before_ns
        if time.monotonic_ns() - before_ns < CLOCK_STEP_NS // 10:  # nothing came in between
            return before_ns, offset_ns


def _bus_error(line: int, what: str, error: OSError) -> BusError:
    return bus_error(f"GPIO {line} {what}", error)
