"""The digital lines of the simulated unit: hall sensor, button and PCB LED."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from piod.clock import Clock
from piod.errors import BusError
from piod.hw.ports import GpioPort

from .faults import Button, Faults, LostEdges
from .plant import Plant


class SimulatedGpio(GpioPort):
    """The GPIO port on the plant.

    Edges carry the simulated time, ``clock.monotonic()``. The button reads high
    while the fault ``button`` is there.
    """

    def __init__(
        self,
        clock: Clock,
        plant: Plant,
        faults: Faults,
        *,
        hall_line: int,
        button_line: int,
        led_line: int,
    ) -> None:
        self._clock = clock
        self._plant = plant
        self._faults = faults
        self._hall_line = hall_line
        self._button_line = button_line
        self._led_line = led_line
        self._lost = random.Random(f"{plant.seed}:lost_edges")
        self._open = False
        self._pressed = False
        self._button_recordings: list[list[float]] = []
        self._button_waits: list[tuple[bool, asyncio.Future[None]]] = []
        self.led_on = False
        """The level of the PCB LED's line."""

    async def open(self) -> None:
        self._open = False
        self._faults.access("gpio")
        self._open = True
        self.led_on = False

    async def close(self) -> None:
        self._open = False
        self.led_on = False
        self._end_waits(lambda waited: True, BusError("The GPIO lines were closed."))

    async def read(self, line: int) -> bool:
        self._check_input(line)
        if line == self._button_line:
            return self._pressed
        self._plant.advance_to(self._clock.monotonic())
        return self._plant.stirrer.hall_level()

    async def write(self, line: int, level: bool) -> None:
        if line != self._led_line:
            raise ValueError(f"GPIO {line} is not an output line of this unit")
        self._access(line)
        self.led_on = level

    async def record_edges(self, line: int, window_s: float) -> Sequence[float]:
        """See the port. BusError if the port was closed meanwhile."""
        self._check_input(line)
        if line == self._button_line:
            return await self._record_button(window_s)
        edges = self._plant.start_recording(self._clock.monotonic())
        try:
            await self._clock.sleep(window_s)
        finally:
            self._plant.stop_recording(edges, self._clock.monotonic())
        self._require_open()
        for fault in self._faults.of(LostEdges):
            edges = [edge for edge in edges if self._lost.random() >= fault.fraction]
        return edges

    async def _record_button(self, window_s: float) -> Sequence[float]:
        releases: list[float] = []
        self._button_recordings.append(releases)
        try:
            await self._clock.sleep(window_s)
        finally:
            self._button_recordings = [r for r in self._button_recordings if r is not releases]
        self._require_open()
        return releases

    async def await_level(self, line: int, level: bool) -> None:
        """See the port. BusError if the port was closed meanwhile."""
        self._check_input(line)
        if line != self._button_line:
            raise ValueError(f"GPIO {line} is not claimed for both edges")
        if self._pressed == level:
            return
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._button_waits.append((level, changed))
        await changed

    def _end_waits(self, which: Callable[[bool], bool], error: BusError | None = None) -> None:
        waits, self._button_waits = self._button_waits, []
        for level, changed in waits:
            if changed.done():
                continue  # nobody waits any more
            if not which(level):
                self._button_waits.append((level, changed))
            elif error is not None:
                changed.set_exception(error)
            else:
                changed.set_result(None)

    def sense_button(self) -> None:
        """The faults have changed: the button may have been pressed or let go."""
        pressed = bool(self._faults.of(Button))
        if self._pressed and not pressed:
            for releases in self._button_recordings:
                releases.append(self._clock.monotonic())
        self._pressed = pressed
        self._end_waits(lambda level: level == pressed)

    def _check_input(self, line: int) -> None:
        if line not in (self._hall_line, self._button_line):
            raise ValueError(f"GPIO {line} is not an input line of this unit")
        self._access(line)

    def _access(self, line: int) -> None:
        self._require_open()
        self._faults.access("gpio", line)

    def _require_open(self) -> None:
        if not self._open:
            raise BusError("The GPIO lines are not open.")
