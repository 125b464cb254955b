"""The bus of digital lines: hall sensor, button, PCB LED.

Messages: :class:`RecordEdges`, :class:`AwaitLevel`, :class:`LeaseLine`,
:class:`WriteLine`, :class:`~piod.actors.buses.bus.BusState`,
:class:`~piod.actors.buses.bus.FindHang`.

An output line is leased like any other output: it goes low when its holder's life ends.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from piod.actors.actor import Actor, AskTimeout, Life, Message, Ref
from piod.actors.buses.bus import (
    ASK_TIMEOUT_S,
    Bus,
    BusReport,
    BusState,
    FindHang,
    Opening,
    access,
)
from piod.errors import BusError, Conflict, DeviceMissing
from piod.hw.ports import GpioPort

RECORD_TIMEOUT_S = 3600.0
"""Wall time; a window is in the unit's time, and a simulated unit may be slow."""
LEVEL_TIMEOUT_S = 86_400.0
"""Wall time after which a button that nobody presses is asked about anew."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordEdges(Message["GpioBus", Sequence[float]]):
    """The times in seconds of the falling edges on ``line`` within ``window_s``."""

    line: int
    window_s: float


@dataclass(frozen=True)
class AwaitLevel(Message["GpioBus", None]):
    """Answered when the input ``line`` has that level, at once if it has; True is high."""

    line: int
    level: bool


@dataclass(frozen=True)
class LeaseLine(Message["GpioBus", None]):
    """Give the output ``line`` to the owner of ``life`` until that ends; it is low then.

    Refused with Conflict while somebody else has it.
    """

    line: int
    life: Life


@dataclass(frozen=True)
class WriteLine(Message["GpioBus", None]):
    """Drive the output ``line``, which is leased to the owner of ``life``."""

    line: int
    level: bool
    life: Life


GpioMessage = RecordEdges | AwaitLevel | LeaseLine | WriteLine | BusState | FindHang


class GpioBus(Actor[GpioMessage], Bus):
    """Owns the digital lines: hall sensor, button, PCB LED."""

    def __init__(self, port: GpioPort) -> None:
        super().__init__("gpio bus")
        self._port = port
        self._opening = Opening("gpio", port)
        self._leases: dict[int, Life] = {}

    async def starting(self) -> None:
        self.spawn(self._opening.keep_trying())
        await self._opening.first_attempt()

    async def receive(self, message: GpioMessage) -> object:
        match message:
            case RecordEdges(line, window_s):
                self._opening.check()
                return self.later(self._record(line, window_s))
            case AwaitLevel(line, level):
                self._opening.check()
                return self.later(self._await_level(line, level))
            case LeaseLine(line, life):
                self._opening.check()
                self._lease(line, life)
                return None
            case WriteLine(line, level, life):
                self._opening.check()
                if self._leases.get(line) is not life:
                    raise BusError(f"GPIO {line} is not leased to {life.name} any more")
                return self.later(self._write(line, level))
            case BusState():
                problem = self._opening.problem
                return BusReport(None if problem is None else problem.message)
            case FindHang():
                return None  # nothing that it drives does harm
            case _:
                assert_never(message)

    async def _record(self, line: int, window_s: float) -> Sequence[float]:
        try:
            return await self._port.record_edges(line, window_s)
        except DeviceMissing as error:
            self._look_again(error)
            raise

    async def _await_level(self, line: int, level: bool) -> None:
        try:
            await self._port.await_level(line, level)
        except DeviceMissing as error:
            self._look_again(error)
            raise

    async def _write(self, line: int, level: bool) -> None:
        try:
            await access("gpio", self._port.write(line, level))
        except DeviceMissing as error:
            self._look_again(error)
            raise

    def _look_again(self, error: DeviceMissing) -> None:
        if self._opening.gone(error):
            self.spawn(self._opening.keep_trying())

    def _lease(self, line: int, life: Life) -> None:
        holder = self._leases.get(line)
        if holder is life:
            return
        if holder is not None:
            raise Conflict(f"GPIO {line} is in use by {holder.name}")
        self._leases[line] = life
        life.at_end(lambda: self._release(line, life))

    def _release(self, line: int, life: Life) -> None:
        if self._leases.get(line) is life:
            del self._leases[line]
            if not self.life.ended:  # else its port is closed or opened anew: low, too
                self.spawn(self._darken(line))

    async def _darken(self, line: int) -> None:
        if line not in self._leases:
            try:
                await self._write(line, False)
            except BusError as error:
                log.warning("GPIO %d may still be high: %s", line, error.message)


class EdgeCounter:
    """One input line whose edges can be recorded, as a job reads it."""

    def __init__(self, bus: Ref[GpioBus], line: int) -> None:
        self._bus = bus
        self._line = line

    async def record_edges(self, window_s: float) -> Sequence[float]:
        """The times in seconds of the falling edges within ``window_s`` from now."""
        # the window is in the clock of the unit, which may be slower than wall time
        return await self._bus.ask(RecordEdges(self._line, window_s), timeout=RECORD_TIMEOUT_S)


class WatchedLine:
    """One input line whose level can be awaited, as a job sees it."""

    def __init__(self, bus: Ref[GpioBus], line: int) -> None:
        self._bus = bus
        self._line = line

    async def await_level(self, level: bool) -> None:
        """Return when the line has that level."""
        while True:
            try:
                await self._bus.ask(AwaitLevel(self._line, level), timeout=LEVEL_TIMEOUT_S)
            except AskTimeout:
                continue
            return


class LeasedLine:
    """One output line, as the job that leases it drives it."""

    def __init__(self, bus: Ref[GpioBus], line: int, life: Life) -> None:
        self._bus = bus
        self._line = line
        self._life = life

    async def set_level(self, level: bool) -> None:
        """Drive it; returns when it has that level."""
        message = WriteLine(self._line, level, self._life)
        await self._bus.ask(message, timeout=ASK_TIMEOUT_S)
