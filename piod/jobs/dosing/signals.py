"""The readings that dosing automations go by: density and growth of the culture.

:class:`Signals` is given the readings of the experiment as they are published, so what it knows
is never older than the last reading, and says so when there is none: a signal that never came, or
that stays out for STALE_S, is a :class:`NoSignal`, by which nobody doses.

Source of the names and of *auto*: handbook jobs-and-hardware.md §2.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from piod.calibrations.devices import OD, od_device
from piod.calibrations.estimators import FUSED_DEVICE
from piod.errors import BadRequest, Unavailable
from piod.events import ReadingTaken
from piod.jobs.automation import wait_for
from piod.jobs.job import Unit
from piod.jobs.od.photodiodes import Photodiodes

STALE_S = 300.0
"""A reading older than that says nothing about the culture of now."""

AUTO = "auto"
NORMALIZED_OD = "normalized_od"
OD_FUSED = "od_fused"
BIOMASS_SIGNALS = (AUTO, NORMALIZED_OD, OD_FUSED, OD)


class NoSignal(Unavailable):
    """A reading that is needed never came, or is too old."""


@dataclass(frozen=True)
class Signal:
    """One series of readings. ``kind``: of the events; ``channel``: of a photodiode, None: any.

    ``name``: what settings call it; ``job_name``: the job that takes them.
    """

    name: str
    kind: str
    job_name: str
    channel: str | None = None


GROWTH_RATE = Signal("growth_rate", "growth_rate", "growth_rate_calculating")
NORMALIZED = Signal(NORMALIZED_OD, "od_filtered", "growth_rate_calculating")
FUSED = Signal(OD_FUSED, "od_fused", "od_reading")


def check_biomass_signal(name: object) -> str:
    """``name`` if it is one of BIOMASS_SIGNALS; BadRequest."""
    if isinstance(name, str) and name in BIOMASS_SIGNALS:
        return name
    known = ", ".join(BIOMASS_SIGNALS)
    raise BadRequest(f"biomass_signal must be one of {known}, got {name!r:.80}")


async def biomass_signal(unit: Unit, name: str) -> Signal:
    """The series that ``name``, of BIOMASS_SIGNALS, means on this unit now.

    *auto* is the best that can be had: fused OD if its estimator is active, OD if a photodiode
    has an active calibration, else normalized OD. *od* is the lowest channel that sees the vial
    (of those with a calibration, for *auto*). ConfigurationError.
    """
    angles = Photodiodes.of(unit.config, unit.adc.signals).angles
    if name == AUTO:
        if await unit.active_estimator(FUSED_DEVICE) is not None:
            return FUSED
        angles = {
            channel: angle
            for channel, angle in angles.items()
            if await unit.active_calibration(od_device(angle)) is not None
        }
        name = OD if angles else NORMALIZED_OD
    if name == OD:
        channel = min(angles)
        if len(angles) > 1:
            unit.log.warning(
                "of the photodiodes %s that could be gone by, channel %s is", [*angles], channel
            )
        return Signal(OD, "od", "od_reading", channel)
    return FUSED if name == OD_FUSED else NORMALIZED


@dataclass(frozen=True)
class _Reading:
    value: float
    taken_s: float


class Signals:
    """The last readings of the experiment, of those that :meth:`take` was given."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._clock = unit.clock
        self._readings: dict[tuple[str, str | None], _Reading] = {}
        self._news = asyncio.Event()

    def take(self, event: ReadingTaken) -> None:
        """Take in a reading, if it is of this experiment."""
        if event.job.experiment == self._unit.experiment:
            reading = _Reading(event.value, self._clock.monotonic())
            self._readings[event.kind, event.channel] = reading
            self._readings[event.kind, None] = reading
            self._news.set()

    def latest(self, signal: Signal) -> float:
        """The last value. NoSignal, with the reason, if there is none of the last STALE_S."""
        reading = self._readings.get((signal.kind, signal.channel))
        if reading is None or self._age_s(reading) > STALE_S:
            raise self._missing(signal)
        return reading.value

    async def news(self) -> None:
        """Return at the next reading of any kind, or :meth:`look_again`."""
        self._news.clear()
        await self._news.wait()

    def look_again(self) -> None:
        """Whoever waits for a reading is to look whether it is still the one to wait for."""
        self._news.set()

    async def next(self, signal: Signal, wanted: Callable[[], bool]) -> None:
        """Return at the next value, or when it is no longer ``wanted`` (:meth:`look_again`).

        NoSignal when none comes for STALE_S.
        """
        key = (signal.kind, signal.channel)
        last = self._readings.get(key)
        until_s = self._clock.monotonic() + STALE_S
        while wanted() and self._readings.get(key) is last:
            self._news.clear()
            left_s = until_s - self._clock.monotonic()
            if left_s <= 0 or not await wait_for(self._news, self._clock, left_s):
                raise self._missing(signal)

    def _missing(self, signal: Signal) -> NoSignal:
        reading = self._readings.get((signal.kind, signal.channel))
        if self._unit.peers.settings(signal.job_name) is None:
            why = f"{signal.job_name} is not running"
        elif reading is None:
            why = f"{signal.job_name} has not published one yet"
        else:
            why = f"the last one is {self._age_s(reading):.0f} s old"
        return NoSignal(
            f"there is no reading of {signal.name} to go by: {why}",
            remediation=f"Start {signal.job_name}, or see why it publishes nothing.",
        )

    def _age_s(self, reading: _Reading) -> float:
        return self._clock.monotonic() - reading.taken_s
