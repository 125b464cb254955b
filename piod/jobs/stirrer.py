"""The stirrer's motor, driven so that the stir bar follows: kicks from rest, steps up to speed.

Duty cycles are percent, speeds RPM.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from piod.clock import Clock
from piod.jobs.interrupts import Interrupts
from piod.jobs.job import PwmOutput
from piod.jobs.pid import clamp

KICK_S = 0.5
"""Full duty cycle to get a stirrer at rest going, at start and wake."""
RETARGET_KICK_S = 0.35
"""The same, when a new target finds the stirrer off."""
LEAST_KICK_S, KICK_RPM_PER_S = 0.15, 2000.0
"""Between readings it was off for seconds only, and a kick must not shoot over the speed: a
stirrer at full duty gains about so much, and is kicked for no longer than that takes."""
STALL_KICK_S = 0.75
"""Length of each half (off, full on) of a kick against a stall."""

RAMP_STEP_PERCENT = 20.0
"""A turning stir bar is sped up in steps of at most this, or it may be thrown off."""
RAMP_STEP_S = 1.0


def short_kick_s(rpm: float) -> float:
    """How long to kick a stirrer that is to turn at ``rpm`` and was off for seconds only."""
    return clamp(LEAST_KICK_S, rpm / KICK_RPM_PER_S, RETARGET_KICK_S)


class Stirrer:
    """The motor at ``pwm``. ``driven`` is told each duty cycle that it is left at.

    A change that ``changed`` tells of ends what takes steps.
    """

    def __init__(
        self,
        pwm: PwmOutput,
        clock: Clock,
        changed: Interrupts,
        driven: Callable[[float], None],
    ) -> None:
        self._pwm = pwm
        self._clock = clock
        self._changed = changed
        self._driven = driven
        self.duty_percent = 0.0
        """What it was last left at."""

    async def drive(self, duty_percent: float) -> None:
        """To this duty cycle at once."""
        await self._pwm.set_duty(duty_percent)
        self.duty_percent = duty_percent
        self._driven(duty_percent)

    async def go(self, duty_percent: float, kick_s: float, *, until_s: float = math.inf) -> None:
        """To this duty cycle: with a kick of that length, or in steps from a lower one.

        Steps that would come later than ``until_s`` are left out.
        """
        if kick_s and duty_percent > 0:
            await self._pwm.set_duty(100.0)
            await self._clock.sleep(kick_s)
        elif self.duty_percent > 0:
            while duty_percent - self.duty_percent > RAMP_STEP_PERCENT:
                await self.drive(self.duty_percent + RAMP_STEP_PERCENT)
                if self._clock.monotonic() + RAMP_STEP_S > until_s:
                    return
                if not await self._changed.wait(RAMP_STEP_S):
                    return  # another setting counts now
        await self.drive(duty_percent)

    async def kick_loose(self) -> None:
        """Off, then full on: what a stall may need. It is to be driven again at once."""
        await self._pwm.set_duty(0.0)
        await self._clock.sleep(STALL_KICK_S)
        await self._pwm.set_duty(100.0)
        await self._clock.sleep(STALL_KICK_S)
