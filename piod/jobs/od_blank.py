"""OD of the blank: what the photodiodes see of media without cells, to be taken off later.

Reads OD as ``od_reading`` does, calibrations included, ``n_samples`` times in 1.5 s steps,
and keeps the trimmed mean of each channel in the experiment's memory (key
:data:`BLANKS`), where ``growth_rate_calculating`` finds it. Media is read as cultures are:
stirred. When nobody stirs, this job does, and stops with its end.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from piod.errors import Conflict, PiodError, Unavailable
from piod.events import JsonValue
from piod.jobs.dodging import OD_READING
from piod.jobs.growth.normalisation import trimmed_mean
from piod.jobs.job import Job, Option, Options, Setting, Unit
from piod.jobs.od.meter import OdMeter
from piod.jobs.od_reading import intensity_from
from piod.jobs.stirring import Stirring
from piod.restarts import NEVER

BLANKS, BLANK_UNITS = "od_blank", "od_blank_units"
"""In the experiment's memory: ``{"2": 0.0152}``, as od_reading would have published it; and the
names of the calibrations by which it is OD, null for none."""
INTERVAL_S = 1.5
USUAL_SAMPLES, LEAST_SAMPLES, MOST_SAMPLES = 30, 5, 1000
STIR_RPM = 500.0
NEAR_RPM = 50.0
STIR_TIMEOUT_S = 40.0
"""A stirrer that is not near its speed by then is good enough, as far as it turns."""
FAILURES = 5
"""Readings in a row that may fail."""


class OdBlank(Job):
    """Measures the blank of an experiment, or forgets it."""

    job_name = "od_blank"
    help = "Measure the OD of blank media."
    restart_policy = NEVER
    options = (
        Option(
            "n_samples",
            "integer range",
            "number of readings",
            minimum=LEAST_SAMPLES,
            maximum=MOST_SAMPLES,
        ),
        Option("delete", "boolean", "forget the blank of the experiment instead"),
    )
    settings = (Setting("means", "json", persist=True),)

    def __init__(
        self, unit: Unit, *, meter: OdMeter | None, stirring: Stirring | None, n_samples: int
    ) -> None:
        self._unit = unit
        self._clock = unit.clock
        self._publish = unit.publish
        self._log = unit.log
        self._meter = meter
        """None: the blank is to be forgotten."""
        self._stirring = stirring
        """None: somebody else stirs."""
        self._n_samples = n_samples
        self._percent: float | None = None

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> OdBlank:
        if options.get("delete") is True:
            return cls(unit, meter=None, stirring=None, n_samples=0)
        if unit.peers.settings(OD_READING) is not None:
            raise Conflict(
                "the blank cannot be measured while od_reading runs",
                remediation="Stop od_reading first.",
            )
        given = options.get("n_samples")
        job = cls(
            unit,
            meter=await OdMeter.create(unit, interval_s=INTERVAL_S, smooth=False),
            stirring=await _stirrer(unit),
            n_samples=given if isinstance(given, int) else USUAL_SAMPLES,
        )
        job._percent = intensity_from({}, unit)
        return job

    async def start(self) -> None:
        if self._stirring is not None:
            await self._stirring.start()
        if self._meter is not None:
            await self._meter.start(self._percent)

    async def run(self) -> None:
        if self._meter is None:
            await self._unit.memory.keep(BLANK_UNITS, None)
            await self._unit.memory.keep(BLANKS, None)
            self._log.info("the blank of experiment %s is forgotten", self._unit.experiment)
            return
        stirring = self._stirring
        keeping_speed = None if stirring is None else asyncio.ensure_future(stirring.run())
        try:
            if stirring is not None:
                await self._reach_speed(stirring)
            await self._measure(self._meter)
        finally:
            if keeping_speed is not None:
                keeping_speed.cancel()
                await asyncio.gather(keeping_speed, return_exceptions=True)

    async def sleep(self) -> None:
        if self._meter is not None:
            await self._meter.dark()
        if self._stirring is not None:
            await self._stirring.sleep()

    async def wake(self) -> None:
        if self._stirring is not None:
            await self._stirring.wake()

    async def _reach_speed(self, stirring: Stirring) -> None:
        until_s = self._clock.monotonic() + STIR_TIMEOUT_S
        while self._clock.monotonic() < until_s:
            if abs((stirring.measured_rpm or 0.0) - STIR_RPM) <= NEAR_RPM:
                return
            await self._clock.sleep(0.5)
        if not stirring.measured_rpm:
            raise Unavailable(
                "the media does not stir: no turn of the stirrer was seen",
                remediation="Check the stir bar and the hall sensor, then measure again.",
            )
        self._log.warning("the stirrer is at %g RPM, not %g", stirring.measured_rpm, STIR_RPM)

    async def _measure(self, meter: OdMeter) -> None:
        seen: dict[str, list[float]] = {}
        units: dict[str, JsonValue] = {}
        failed = 0
        due_s = self._clock.monotonic()
        while min(map(len, seen.values()), default=0) < self._n_samples:
            await self._clock.sleep(due_s - self._clock.monotonic())
            due_s += INTERVAL_S
            try:
                reading = await meter.read()
                ods = {name: one.published for name, one in reading.channels.items()}
                missing = sorted(name for name, od in ods.items() if od is None)
                if missing or not ods:
                    raise Unavailable("; ".join(reading.troubles.values()) or "nothing was read")
            except PiodError as error:
                failed += 1
                if failed >= FAILURES:
                    raise
                self._log.warning("a reading of the blank failed: %s", error.message)
                with suppress(PiodError):  # the bus of LEDs goes on trying to turn it off
                    await meter.dark()
                continue
            failed = 0
            for name, od in ods.items():
                if od is not None:
                    seen.setdefault(name, []).append(od)
                    units[name] = reading.channels[name].calibration_name
        await self._keep(seen, units)

    async def _keep(self, seen: dict[str, list[float]], units: dict[str, JsonValue]) -> None:
        means: dict[str, JsonValue] = {
            name: round(trimmed_mean(values), 8) for name, values in sorted(seen.items())
        }
        await self._unit.memory.keep(BLANK_UNITS, units)
        await self._unit.memory.keep(BLANKS, means)
        self._publish("means", means)
        for name, mean in means.items():
            self._log.info("the blank of photodiode %s is %s", name, mean)


async def _stirrer(unit: Unit) -> Stirring | None:
    """A stirrer of our own, unless somebody stirs."""
    peer = unit.peers.settings(Stirring.job_name)
    if peer is None:
        options = {"target_rpm": STIR_RPM, "use_rpm": True, "enable_dodging_od": False}
        return await Stirring.create(unit.part(lambda setting, value: None), options)
    if peer.get("$state") == "sleeping":
        raise Conflict(
            "the blank cannot be measured while stirring sleeps",
            remediation="Wake stirring, or stop it: od_blank stirs by itself then.",
        )
    return None
