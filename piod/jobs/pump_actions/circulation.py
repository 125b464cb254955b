"""circulate_media, circulate_alt_media: media in and out at once, to rinse vial and tubes.

The waste pump leads by a second and runs throughout; each second the inflow runs for a part of
it, such that surely less flows in than out, also where each pulse has an intercept of its own;
the waste follows for a second. Both pumps are told anew each second, so that a blocked event
loop stops them. Both go through the ledger of volumes, in doses of ten seconds: what flowed in
during one, the next one takes out.
Source: handbook jobs-and-hardware.md §2.7; unlike there, what flows in is counted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import ClassVar

from piod.errors import BadRequest
from piod.jobs.job import Option, Options, OptionValue, Unit
from piod.jobs.liquids import PumpRole
from piod.jobs.pump_actions.action import SOURCE, PumpAction
from piod.jobs.pump_rate import LONGEST_S, following, pulsed
from piod.jobs.pumping import Pump, PumpRun, open_pump, unbroken

CYCLE_S = 1.0
MOST_OF_CYCLE = 0.85
LEAD_S = 1.0
DOSE_CYCLES = 10
WASTE_OFF_AFTER_S = 3.0
RATE_OVER_S = 10.0
"""Over which the rate of the waste pump is taken."""


class Circulation(PumpAction):
    """Base of the two."""

    role: ClassVar[PumpRole]
    options = (
        Option("duration", "float", "how long, s", required=True, maximum=LONGEST_S),
        SOURCE,
    )

    def __init__(self, unit: Unit, options: Options, inflow: Pump, waste: Pump) -> None:
        super().__init__(unit, options)
        self._clock = unit.clock
        self._cycles = math.ceil(_duration_s(options) / CYCLE_S)
        self._inflow_pump, self._waste_pump = inflow, waste
        self._pulse_s = _pulse_s(inflow, waste)
        self._runs: tuple[PumpRun, PumpRun] | None = None
        self._waste_s = 0.0
        for pump in (inflow, waste):
            if pump.rate.calibration_name is None:
                unit.log.warning(
                    "the %s pump is not calibrated: media flow in slowly, to be safe", pump.role
                )

    @classmethod
    def parse_options(cls, given: Mapping[str, object]) -> dict[str, OptionValue]:
        parsed = super().parse_options(given)
        if not _duration_s(parsed) > 0:
            raise BadRequest(f"option duration must be above 0, got {parsed['duration']}")
        return parsed

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Circulation:
        return cls(unit, options, await open_pump(unit, cls.role), await open_pump(unit, "waste"))

    @classmethod
    async def refuse(cls, unit: Unit, options: Options) -> None:
        inflow, waste = await open_pump(unit, cls.role), await open_pump(unit, "waste")
        pulse_s = _pulse_s(inflow, waste)
        pulses = min(DOSE_CYCLES, math.ceil(_duration_s(options) / CYCLE_S))
        flow = pulsed(inflow.rate.flow, pulse_s)
        await unit.liquids.check(cls.role, flow, pulses * pulse_s)

    async def begin(self, runs: AsyncExitStack) -> None:
        inflow = await runs.enter_async_context(self._inflow_pump.run(self._source))
        waste = await runs.enter_async_context(self._waste_pump.run(self._source))
        self._runs = inflow, waste
        runs.push_async_callback(self._both_off)
        await self._admit_waste(waste)
        await waste.turn_on(WASTE_OFF_AFTER_S)

    async def go_on(self, runs: AsyncExitStack) -> None:
        assert self._runs is not None, "it has begun"
        inflow, waste = self._runs
        await self._clock.sleep(LEAD_S)
        for cycle in range(self._cycles):
            if cycle % DOSE_CYCLES == 0:
                await self._next_doses(inflow, waste, self._cycles - cycle)
            await waste.turn_on(WASTE_OFF_AFTER_S)
            await inflow.turn_on(self._pulse_s)
            waste.announce(CYCLE_S)
            inflow.announce(CYCLE_S)
            await self._clock.sleep(CYCLE_S)  # the pulse is over before the next one
        await inflow.settle()
        await waste.turn_on(LEAD_S)
        await waste.wait()
        await runs.aclose()
        self._log.info("about %.2f mL in, %.2f mL out", inflow.moved_ml, waste.moved_ml)

    async def _both_off(self) -> None:
        """At once, before anything waits for the disk."""
        if self._runs is not None:
            await unbroken(asyncio.gather(*(run.turn_off() for run in self._runs)))

    async def _next_doses(self, inflow: PumpRun, waste: PumpRun, cycles: int) -> None:
        """Keep what was moved, then admit what is next: the waste first."""
        await inflow.settle()
        await waste.settle()
        await self._admit_waste(waste)
        pulses = min(DOSE_CYCLES, cycles)
        flow = pulsed(self._inflow_pump.rate.flow, self._pulse_s)
        await inflow.admit(flow, pulses * self._pulse_s)

    async def _admit_waste(self, waste: PumpRun) -> None:
        seconds = (DOSE_CYCLES + 1) * CYCLE_S + LEAD_S + WASTE_OFF_AFTER_S
        await waste.admit(following(self._waste_pump.rate.flow, waste.run_s), seconds)


class CirculateMedia(Circulation):
    """Circulates media."""

    job_name = "circulate_media"
    help = "Pump media in and waste out at once."
    role = "media"


class CirculateAltMedia(Circulation):
    """Circulates alternative media."""

    job_name = "circulate_alt_media"
    help = "Pump alternative media in and waste out at once."
    role = "alt_media"


def _duration_s(options: Options) -> float:
    duration_s = options["duration"]
    assert isinstance(duration_s, int | float), "the option is a number"
    return float(duration_s)


def _pulse_s(inflow: Pump, waste: Pump) -> float:
    """How long the inflow runs each second, such that surely less comes in than goes out."""
    flow = waste.rate.flow
    # of its first doses, and of those after an intercept, which comes but once in a run
    out_ml = min(flow(RATE_OVER_S).least_ml, following(flow, RATE_OVER_S)(RATE_OVER_S).least_ml)
    pulse_s = inflow.rate.longest_below(out_ml * CYCLE_S / RATE_OVER_S)
    pulse_s = min(MOST_OF_CYCLE * CYCLE_S, pulse_s)
    if not inflow.rate.flow(pulse_s).expected_ml > 0:
        raise BadRequest(
            "by the calibrations of the two pumps, a pulse of the inflow that moves surely less "
            "than the waste pump takes out in that time would move nothing",
            remediation="Calibrate the two pumps anew, also at the times of small doses.",
        )
    return pulse_s
