"""The heater's board: reading it, and what a reading means.

Used by :mod:`.heater` alone, which acts on it. A reading is held against what a board can
have at all, against what the heater does (:mod:`.board_watch`), and against the limits of
the reactor model:

- above the reduce limit the heater gets a tenth less at each check, and no more than that
  until the board has cooled by RECOVERED_K;
- above the disable limit the heater is to be off;
- above the shutdown limit, confirmed by a second reading, the machine, too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from piod.actors.board_watch import BoardWatch
from piod.clock import Clock
from piod.errors import BusError
from piod.hw.models import Limits
from piod.hw.ports import Thermometer

log = logging.getLogger(__name__)

SAMPLE_S = 2.0
FULL_PERCENT = 100.0
REDUCE_BY = 0.9
RECOVERED_K = 3.0
LOWEST_CELSIUS, HIGHEST_CELSIUS = -20.0, 125.0
"""What the board can have."""
COOLED_S, COOLED_CELSIUS = 1800.0, 65.0
"""A heater that has been off for so long leaves its board below this, in any room."""


class HeaterBoard:
    """The board behind ``thermometer``. ``limits``: of the model, as it is known now."""

    def __init__(
        self, thermometer: Thermometer, limits: Callable[[], Limits], clock: Clock
    ) -> None:
        self._thermometer = thermometer
        self._limits = limits
        self._clock = clock
        self._watch = BoardWatch()
        self.ceiling_percent = FULL_PERCENT
        """The highest duty cycle that the board allows now."""
        self._reduced_s = -math.inf
        self.judged_s = -math.inf
        """When the last reading was judged, on the clock's monotonic scale."""
        self._off_since_s = clock.monotonic()

    def driven(self, duty_percent: float) -> None:
        """From now on the heater is at ``duty_percent``, which it was not before."""
        now_s = self._clock.monotonic()
        if not duty_percent:
            self._off_since_s = now_s
        self._watch.driven(duty_percent, now_s)

    def forget(self) -> None:
        """Somebody has looked after the heater: full power, and no old readings."""
        self.ceiling_percent = FULL_PERCENT
        self._watch.forget()

    async def read_celsius(self) -> float:
        """A reading that can be true. Raises BusError."""
        celsius = await self._thermometer.read_celsius()
        if not LOWEST_CELSIUS <= celsius <= HIGHEST_CELSIUS:
            raise BusError(f"the heater's board cannot be at {celsius} °C")
        return celsius

    def judge(self, celsius: float, duty_percent: float) -> str | None:
        """Take note of a reading with the heater at ``duty_percent``, and lower the ceiling or
        lift it; what is wrong with the sensor, None: nothing.
        """
        now_s = self._clock.monotonic()
        self.judged_s = now_s
        problem = self._watch.problem(celsius, now_s)
        if problem is not None or self.is_too_hot(celsius):
            return problem
        limits = self._limits()
        if celsius > limits.max_temp_to_reduce_heating:
            if duty_percent and now_s - self._reduced_s >= SAMPLE_S:
                if self.ceiling_percent == FULL_PERCENT:
                    log.warning("the heater's board is at %g °C: its power is reduced", celsius)
                self._reduced_s = now_s
                self.ceiling_percent = REDUCE_BY * min(duty_percent, self.ceiling_percent)
        elif celsius < limits.max_temp_to_reduce_heating - RECOVERED_K:
            self.ceiling_percent = FULL_PERCENT
        return None

    @property
    def limit_celsius(self) -> float:
        """Above this the heater is to be off."""
        return self._limits().max_temp_to_disable_heating

    def is_too_hot(self, celsius: float) -> bool:
        """Whether the heater is to be off."""
        return celsius > self.limit_celsius

    def is_far_too_hot(self, celsius: float) -> bool:
        """Whether the machine is to be off, if a second reading confirms it."""
        return celsius > self._limits().max_temp_to_shutdown

    def is_long_off(self, now_s: float) -> bool:
        """Whether a heater that is off now was so for COOLED_S, at ``now_s``."""
        return now_s - self._off_since_s >= COOLED_S

    async def confirm_far_too_hot(self) -> str | None:
        """Why the machine is to be off, by another reading; None: it is not, or nobody knows.

        One reading may err; a second one, with the heater off, hardly does.
        """
        await self._clock.sleep(SAMPLE_S)
        try:
            celsius = await self._thermometer.read_celsius()
        except BusError as error:
            log.critical("whether the heater is too hot is not known: %s", error.message)
            return None
        limit = self._limits().max_temp_to_shutdown
        if not limit < celsius <= HIGHEST_CELSIUS:
            return None
        return f"the heater's board is at {celsius:g} °C, above {limit:g} °C"
