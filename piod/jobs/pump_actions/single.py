"""add_media, add_alt_media, remove_waste: one run of one pump.

By volume, through the active calibration; for a duration; or continuously. Continuously, an
inflow ends where the vial could come to its maximum fill volume; waste goes on until stopped.
Source: handbook jobs-and-hardware.md §2.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import ClassVar

from piod.errors import BadRequest
from piod.jobs.job import Option, Options, OptionValue, Unit
from piod.jobs.liquids import PumpRole
from piod.jobs.pump_actions.action import SOURCE, PumpAction
from piod.jobs.pump_rate import LONGEST_S
from piod.jobs.pumping import Pump, PumpRun, open_pump

AMOUNTS = ("ml", "duration", "continuously")
NO_ROOM_S = 0.1
"""A run that the ledger refuses, with its reason, when there is no room at all."""


class SinglePump(PumpAction):
    """Base of the three."""

    role: ClassVar[PumpRole]
    options = (
        Option("ml", "float", "volume, mL; needs an active calibration"),
        Option("duration", "float", "time to pump for, s", maximum=LONGEST_S),
        Option("continuously", "boolean", "pump until stopped, or until the vial may be full"),
        SOURCE,
    )

    def __init__(self, unit: Unit, options: Options, pump: Pump) -> None:
        super().__init__(unit, options)
        self._options = options
        self._pump = pump
        self._run: PumpRun | None = None

    @classmethod
    def parse_options(cls, given: Mapping[str, object]) -> dict[str, OptionValue]:
        parsed = super().parse_options(given)
        amounts = [name for name in AMOUNTS if name in parsed and parsed[name] is not False]
        if len(amounts) != 1:
            got = f"got {' and '.join(amounts)}" if amounts else "got none"
            raise BadRequest(
                f"{cls.job_name} needs exactly one of the options {', '.join(AMOUNTS)}; {got}",
                remediation="Name a volume (ml), a time (duration, s), or continuously.",
            )
        for name in ("ml", "duration"):
            value = parsed.get(name)
            if isinstance(value, int | float) and value <= 0:
                raise BadRequest(f"option {name} must be above 0, got {value:g}")
        return parsed

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> SinglePump:
        return cls(unit, options, await open_pump(unit, cls.role))

    @classmethod
    async def refuse(cls, unit: Unit, options: Options) -> None:
        pump = await open_pump(unit, cls.role)
        seconds = await _seconds(unit, pump, options)
        if seconds is not None:
            await unit.liquids.check(cls.role, pump.rate.flow, seconds)

    async def begin(self, runs: AsyncExitStack) -> None:
        seconds = await _seconds(self._unit, self._pump, self._options)
        self._run = run = await runs.enter_async_context(self._pump.run(self._source))
        if seconds is None:
            await run.start_endless()
        else:
            await run.start(seconds)

    async def go_on(self, runs: AsyncExitStack) -> None:
        assert self._run is not None, "it has begun"
        if self._options.get("continuously") and self.role == "waste":
            await self._run.go_on()
        await self._run.wait()
        await runs.aclose()
        moved = f"{self._run.moved_ml:.2f} mL"
        if self._options.get("continuously"):
            self._log.warning("stopped after about %s: any more and the vial may be full", moved)
        else:
            self._log.info("about %s pumped", moved)


class AddMedia(SinglePump):
    """Pumps media in."""

    job_name = "add_media"
    help = "Add media to the vial."
    role = "media"


class AddAltMedia(SinglePump):
    """Pumps alternative media in."""

    job_name = "add_alt_media"
    help = "Add alternative media to the vial."
    role = "alt_media"


class RemoveWaste(SinglePump):
    """Pumps waste out, down to the efflux tube."""

    job_name = "remove_waste"
    help = "Remove waste from the vial."
    role = "waste"


async def _seconds(unit: Unit, pump: Pump, options: Options) -> float | None:
    """How long to pump; None: without an end."""
    volume_ml, duration_s = options.get("ml"), options.get("duration")
    if isinstance(volume_ml, int | float):
        return pump.rate.seconds_for(volume_ml)
    if isinstance(duration_s, int | float):
        return float(duration_s)
    if pump.role == "waste":
        return None
    return pump.rate.longest_below(await unit.liquids.room_ml()) or NO_ROOM_S
