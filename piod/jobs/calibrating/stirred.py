"""A standard that is stirred: the job ``stirring`` as a part, led to a speed, then left alone.

Between :meth:`Stirred.reach` and :meth:`Stirred.retarget` nothing changes the duty cycle, so
that no reading of the photodiodes falls into a change of speed. Speeds are RPM.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from piod.errors import BadRequest, Unavailable
from piod.events import JsonValue
from piod.jobs.job import Unit
from piod.jobs.stirring import Stirring
from piod.jobs.stirring_settings import MAX_TARGET_RPM
from piod.jobs.stirring_speed import observation_window_s, rpm_of

REACH_S = 60.0
LOOK_S = 0.5


class NotStirred(Unavailable):
    """The standard is not stirred as it should be."""

    default_remediation = (
        "Check the stir bar, that the vial stands in the reactor, and whether the stirrer can "
        "turn that fast; then measure again."
    )


class Stirred:
    """Stirs at a target speed until the errand that it leases in is over; at 0 it does not."""

    def __init__(self, unit: Unit, target_rpm: float) -> None:
        self._clock = unit.clock
        self._hall_sensor = unit.hall_sensor
        self._stirring: Stirring | None = None
        self._target_rpm = target_rpm
        self._given_up = False
        """Kicks have not helped: the rest of the time need not be waited for."""

    @classmethod
    async def create(cls, errand: Unit, target_rpm: float) -> Stirred:
        """Lease the stirrer, unless the target is 0. BadRequest; Conflict: somebody stirs."""
        if not (math.isfinite(target_rpm) and 0 <= target_rpm <= MAX_TARGET_RPM):
            raise BadRequest(f"rpm must be 0 to {MAX_TARGET_RPM:g}, got {target_rpm:g}")
        stirred = cls(errand, target_rpm)
        if target_rpm > 0:
            options = {"target_rpm": target_rpm, "use_rpm": True, "enable_dodging_od": False}
            stirred._stirring = await Stirring.create(errand.part(stirred._heed), options)
        return stirred

    async def reach(self, within_rpm: float) -> None:
        """Return when the speed was measured to be so near to the target. NotStirred, BusError."""
        stirring = self._stirring
        if stirring is None:
            return
        await stirring.start()
        until_s = self._clock.monotonic() + REACH_S
        async with _leading(stirring) as leading:
            while self._clock.monotonic() < until_s and not self._given_up:
                rpm = stirring.measured_rpm or 0.0
                if rpm > 0 and abs(rpm - self._target_rpm) <= within_rpm:
                    return
                await self._clock.sleep(LOOK_S)
                if leading.done():
                    leading.result()
        if not stirring.measured_rpm:
            raise NotStirred("no turn of the stirrer was seen, whatever kicks it got")
        raise NotStirred(
            f"the stirrer has not come within {within_rpm:g} of {self._target_rpm:g} RPM "
            f"in {REACH_S:g} s; it was measured at {stirring.measured_rpm:g} RPM"
        )

    async def retarget(self, rpm: float, settle_s: float) -> None:
        """Stir at another speed, as far as the duty cycle for it is known; wait so long."""
        self._target_rpm = rpm
        stirring = self._stirring
        if stirring is None:
            return
        stirring.change("target_rpm", rpm)
        async with _leading(stirring) as leading:
            await self._clock.sleep(settle_s)
            if leading.done():
                leading.result()

    async def measured_rpm(self) -> float:
        """The speed now: a bar that was lost during the readings spoils them. NotStirred."""
        if self._stirring is None:
            return 0.0
        window_s = observation_window_s(self._target_rpm)
        rpm = rpm_of(await self._hall_sensor.record_edges(window_s))
        if rpm == 0:
            raise NotStirred("the stirrer has stopped to turn during the measurement")
        return rpm

    def _heed(self, setting: str, value: JsonValue) -> None:
        """What the part publishes is nobody's setting, but its news may be of use."""
        if setting == "stalled":
            self._given_up = value is True


@asynccontextmanager
async def _leading(stirring: Stirring) -> AsyncIterator[asyncio.Task[None]]:
    """The job's own loop leads the speed meanwhile; then the duty cycle stays as it is."""
    leading = asyncio.ensure_future(stirring.run())
    try:
        yield leading
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
