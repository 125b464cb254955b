"""The PWM outputs of the simulated unit: a duty acts at its simulated instant.

As on real hardware, an output that fails to turn off is still on: its turning
off stays due and is tried again until it works or a new duty replaces it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from piod.clock import SimulatedClock, Timer
from piod.errors import BusError
from piod.hw.ports import PwmPort

from .faults import Faults
from .plant import Plant
from .plant_file import PlantFile
from .silicon import SiliconFile

log = logging.getLogger(__name__)

RETRY_OFF_S = 0.05
"""Simulated seconds between two attempts to turn an output off."""

MIN_HZ = 0.1


class OutputGuard(Protocol):
    """What an output tells the process that turns it off when the daemon cannot."""

    def on(self, output: str, deadline_monotonic_s: float | None) -> None: ...

    def off(self, output: str) -> None: ...


def output_key(pin: int) -> str:
    """What the guard calls the PWM output on ``pin``."""
    return f"pwm:{pin}"


class _Deadline:
    """The pending turning-off of one output; a newer one makes an older one void."""

    timer: Timer | None = None


class SimulatedPwm(PwmPort):
    """The PWM port on the plant.

    Deadlines are kept by the simulated clock. The guard learns them only at time
    scale 1, where wall time and simulated time keep the same pace; at any scale
    it learns what is on.
    """

    def __init__(
        self,
        clock: SimulatedClock,
        plant: Plant,
        pins: Sequence[int],
        faults: Faults,
        silicon: SiliconFile | None,
        plant_file: PlantFile | None,
        guard: OutputGuard | None,
    ) -> None:
        self._clock = clock
        self._plant = plant
        self._pins = tuple(pins)
        self._faults = faults
        self._silicon = silicon
        self._plant_file = plant_file
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._open = False
        self._deadlines: dict[int, _Deadline] = {}
        self._failing: set[int] = set()
        """Pins whose refusal to go off is in the log already."""
        self._off_unwritten: set[int] = set()
        """Pins that are off while the silicon's file may still show them on."""
        if silicon is not None:
            silicon.written = self._tell_guard_what_is_off

    @property
    def pins(self) -> Sequence[int]:
        return self._pins

    async def open(self) -> None:
        self._open = False
        self._all_off()
        self._open = True

    async def close(self) -> None:
        """Drive every pin to 0. The port is closed even if that raises BusError."""
        if self._open:
            self._open = False
            self._all_off()

    async def set_duty(
        self, pin: int, duty_percent: float, *, hz: float, off_after_s: float | None = None
    ) -> None:
        """See the port. After a BusError the output is off, or is turned off as soon as can be.

        Raises ValueError for a pin that is not one of ``pins`` and for numbers
        out of range.
        """
        self._check(pin, duty_percent, hz, off_after_s)
        if not self._open:
            raise BusError("The PWM bus is not open.")
        if duty_percent == 0:
            self._turn_off(pin)
            return
        self._tell_guard_on(pin, off_after_s)
        try:
            self._drive(pin, duty_percent)
        except BusError:
            self._turn_off_or_retry(pin)
            raise
        self._forget_deadline(pin)
        if off_after_s is not None:
            self._turn_off_in(pin, off_after_s)

    def cut(self, pin: int) -> None:
        if threading.get_ident() == self._thread:
            self._turn_off_or_retry(pin)
            return
        try:
            self._loop.call_soon_threadsafe(self._turn_off_or_retry, pin)
        except RuntimeError:
            pass  # the loop is closed: its end has turned everything off, or the guard does

    async def answer(self) -> None:
        if not self._open:
            raise BusError("The PWM bus is not open.")

    # -- turning off ---------------------------------------------------------------

    def _all_off(self) -> None:
        """Turn every pin off, each whatever becomes of the others; BusError."""
        refusal: BusError | None = None
        for pin in self._pins:
            try:
                self._turn_off(pin)
            except BusError as error:
                refusal = error
        if self._silicon is not None:
            self._silicon.flush()
        if refusal is not None:
            raise refusal

    def _turn_off(self, pin: int) -> None:
        """Drive ``pin`` to 0; if that fails, BusError, and it is tried again while it is on."""
        try:
            self._drive(pin, 0.0)
        except BusError:
            if self._plant.duties.get(pin, 0.0) > 0:
                self._forget_deadline(pin)
                self._turn_off_in(pin, RETRY_OFF_S)
            else:
                self._tell_guard_off(pin)
            raise
        self._forget_deadline(pin)
        self._failing.discard(pin)
        self._tell_guard_off(pin)

    def _turn_off_or_retry(self, pin: int) -> None:
        if pin not in self._pins:
            return
        try:
            self._turn_off(pin)
        except BusError as error:
            if pin not in self._failing:  # told once until it is over
                self._failing.add(pin)
                log.warning("GPIO %d cannot be turned off yet: %s", pin, error.message)

    def _turn_off_in(self, pin: int, seconds: float) -> None:
        deadline = self._deadlines[pin] = _Deadline()

        def due() -> None:
            # A timer that is due already cannot be cancelled any more.
            if self._deadlines.get(pin) is deadline:
                self._turn_off_or_retry(pin)

        deadline.timer = self._clock.call_at(self._clock.monotonic() + seconds, due)

    def _forget_deadline(self, pin: int) -> None:
        deadline = self._deadlines.pop(pin, None)
        if deadline is not None and deadline.timer is not None:
            deadline.timer.cancel()

    # -- the guard, the silicon, the plant -------------------------------------------

    def _tell_guard_on(self, pin: int, off_after_s: float | None) -> None:
        self._off_unwritten.discard(pin)
        if self._guard is not None:
            timed = off_after_s is not None and self._clock.scale == 1
            deadline = time.monotonic() + (off_after_s or 0.0) if timed else None
            self._guard.on(output_key(pin), deadline)

    def _tell_guard_off(self, pin: int) -> None:
        """Once the silicon's file shows it; until then the guard has to watch it."""
        self._off_unwritten.add(pin)
        if self._silicon is None or self._silicon.is_written:
            self._tell_guard_what_is_off()

    def _tell_guard_what_is_off(self) -> None:
        for pin in self._off_unwritten:
            if self._guard is not None:
                self._guard.off(output_key(pin))
        self._off_unwritten.clear()

    def _drive(self, pin: int, duty_percent: float) -> None:
        self._faults.access("pwm", pin)
        now = self._clock.monotonic()
        self._plant.advance_to(now)
        if self._silicon is not None:
            self._silicon.hold("pwm", str(pin), duty_percent)
        if duty_percent != self._plant.duties.get(pin):
            self._plant.set_pwm(pin, duty_percent, now)
            if self._plant_file is not None:
                self._plant_file.changed()

    def _check(self, pin: int, duty_percent: float, hz: float, off_after_s: float | None) -> None:
        """Misuse is a bug of the caller and never reaches an output."""
        if pin not in self._pins:
            raise ValueError(f"GPIO {pin} is not a PWM output of this unit")
        if not 0 <= duty_percent <= 100:
            raise ValueError(f"duty cycle of GPIO {pin} must be 0 to 100 %, got {duty_percent}")
        if duty_percent == 0:
            return
        if not MIN_HZ <= hz < math.inf:
            raise ValueError(f"PWM frequency of GPIO {pin} must be {MIN_HZ} Hz or more, got {hz}")
        if off_after_s is not None and not 0 <= off_after_s < math.inf:
            raise ValueError(f"off_after_s of GPIO {pin} must be 0 or more, got {off_after_s}")
