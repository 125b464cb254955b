"""What the photodiodes of three angles see of one standard, at several speeds.

Speeds differ so that the estimator learns how much a reading of the same culture may vary.
Source: handbook unit-api §4.7; the last change of speed there, after the last reading, is
left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from piod.errors import BadRequest
from piod.jobs.calibrating import Progress, unpublished
from piod.jobs.calibrating.od_standards import (
    REACHED,
    READY,
    WARM_UP_EVERY_S,
    WARM_UPS,
    counted,
)
from piod.jobs.calibrating.photometer import Photometer, Reference
from piod.jobs.calibrating.stirred import Stirred
from piod.jobs.job import Unit

NEAR_RPM = 60.0
SPEEDS = (1.0, 0.9, 1.1, 0.8, 1.2)
"""At which the readings are taken, in parts of the speed asked for."""
SETTLE_S = 2.0
LEAST_VOLTS = 0.0005
"""Nothing has no logarithm, and the dark reads up to 0.1 mV. The media alone gives 10 mV."""


@dataclass(frozen=True)
class FusionObservation:
    """Look at the standard in the vial ``repeats`` times; see OdStandard for the rest."""

    rpm: float
    angles: Mapping[str, str]
    repeats: int = 4
    reference: Reference | None = None


@dataclass(frozen=True)
class FusionObserved:
    """One sample for each reading: volts by angle, as the estimator is fed with them."""

    samples: tuple[Mapping[str, float], ...]
    ir_led_intensity: float
    """Percent."""
    reference: Reference
    """For the other standards of the session."""


async def run(unit: Unit, request: FusionObservation, progress: Progress) -> FusionObserved:
    """Measure; about 25 s. Raises what ``od_standards.run`` raises, and NoLightSeen."""
    if isinstance(request.repeats, bool) or not 1 <= request.repeats <= len(SPEEDS):
        raise BadRequest(f"repeats must be 1 to {len(SPEEDS)}, got {request.repeats}")
    samples: list[Mapping[str, float]] = []
    async with unit.errand(unpublished) as errand:
        photometer = await Photometer.create(
            errand, request.angles, request.reference, least_volts=LEAST_VOLTS
        )
        stirred = await Stirred.create(errand, request.rpm)
        progress(0.0)
        await stirred.reach(NEAR_RPM)
        progress(REACHED)
        await photometer.start()
        progress(READY)
        told = counted(progress, READY, WARM_UPS + request.repeats)
        await photometer.take(WARM_UPS, WARM_UP_EVERY_S, told)
        for index in range(request.repeats):
            if index:
                await stirred.retarget(SPEEDS[index] * request.rpm, SETTLE_S)
            (reading,) = await photometer.take(1, WARM_UP_EVERY_S, told)
            samples.append(by_angle(reading, request.angles))
        await stirred.measured_rpm()  # refused if it has stopped to turn
    progress(1.0)
    return FusionObserved(tuple(samples), photometer.percent, photometer.reference)


def by_angle(volts: Mapping[str, float], angles: Mapping[str, str]) -> Mapping[str, float]:
    """Photodiodes of the same angle are averaged."""
    seen: dict[str, list[float]] = {}
    for channel, angle in angles.items():
        seen.setdefault(angle, []).append(volts[channel])
    return {angle: statistics.fmean(seen[angle]) for angle in sorted(seen, key=int)}
