"""The bus of digital lines: hall sensor, button, PCB LED.

Messages: :class:`RecordEdges`, :class:`~piod.actors.buses.bus.BusState`,
:class:`~piod.actors.buses.bus.FindHang`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from piod.actors.actor import Actor, Message, Ref
from piod.actors.buses.bus import Bus, BusReport, BusState, FindHang, Opening
from piod.errors import DeviceMissing
from piod.hw.ports import GpioPort

RECORD_TIMEOUT_S = 3600.0
"""Wall time; a window is in the unit's time, and a simulated unit may be slow."""


@dataclass(frozen=True)
class RecordEdges(Message["GpioBus", Sequence[float]]):
    """The times in seconds of the falling edges on ``line`` within ``window_s``."""

    line: int
    window_s: float


GpioMessage = RecordEdges | BusState | FindHang


class GpioBus(Actor[GpioMessage], Bus):
    """Owns the digital lines: hall sensor, button, PCB LED."""

    def __init__(self, port: GpioPort) -> None:
        super().__init__("gpio bus")
        self._port = port
        self._opening = Opening("gpio", port)

    async def starting(self) -> None:
        self.spawn(self._opening.keep_trying())
        await self._opening.first_attempt()

    async def receive(self, message: GpioMessage) -> object:
        match message:
            case RecordEdges(line, window_s):
                self._opening.check()
                return self.later(self._record(line, window_s))
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
            if self._opening.gone(error):
                self.spawn(self._opening.keep_trying())
            raise


class EdgeCounter:
    """One input line whose edges can be recorded, as a job reads it."""

    def __init__(self, bus: Ref[GpioBus], line: int) -> None:
        self._bus = bus
        self._line = line

    async def record_edges(self, window_s: float) -> Sequence[float]:
        """The times in seconds of the falling edges within ``window_s`` from now."""
        # the window is in the clock of the unit, which may be slower than wall time
        return await self._bus.ask(RecordEdges(self._line, window_s), timeout=RECORD_TIMEOUT_S)
