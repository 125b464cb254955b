"""What the photodiodes see of one standard: a vial of known OD, stirred.

Stir to within 120 RPM, wait 1 s, three readings to warm up 1 s apart, then three 3 s apart:
their mean counts. Source: handbook unit-api §4.6.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from piod.jobs.calibrating import Progress, unpublished
from piod.jobs.calibrating.photometer import Photometer, Reference
from piod.jobs.calibrating.stirred import Stirred
from piod.jobs.job import Unit

NEAR_RPM = 120.0
CALM_S = 1.0
WARM_UPS, WARM_UP_EVERY_S = 3, 1.0
READINGS, EVERY_S = 3, 3.0
REACHED, READY = 0.35, 0.45
"""Parts of the work."""


@dataclass(frozen=True)
class OdStandard:
    """Look at the standard that is in the vial.

    ``angles``: of the photodiodes that count, degrees as text by channel, such as
    ``{"2": "90"}``. ``reference``: that of the session's first standard; None: this is it.
    """

    rpm: float
    angles: Mapping[str, str]
    reference: Reference | None = None


@dataclass(frozen=True)
class OdStandardSeen:
    """Volts by channel, as ``od_reading`` would publish them without a calibration."""

    volts: Mapping[str, float]
    spread_volts: Mapping[str, float]
    """Standard deviation between the readings, by channel."""
    rpm: float
    """As measured after the readings; 0: it was not to be stirred."""
    ir_led_intensity: float
    """Percent."""
    reference: Reference
    """For the other standards of the session."""


async def run(unit: Unit, request: OdStandard, progress: Progress) -> OdStandardSeen:
    """Measure; about 25 s.

    BadRequest; ConfigurationError; Conflict: somebody has the stirrer or the IR LED, or the
    configuration was changed since the session began; NotStirred; ReferenceLost;
    UnsteadyLight; TooBright; Unavailable: a photodiode cannot be trusted; BusError.
    """
    async with unit.errand(unpublished) as errand:
        photometer = await Photometer.create(errand, request.angles, request.reference)
        stirred = await Stirred.create(errand, request.rpm)
        progress(0.0)
        await stirred.reach(NEAR_RPM)
        progress(REACHED)
        await unit.clock.sleep(CALM_S)
        await photometer.start()
        progress(READY)
        told = counted(progress, READY, WARM_UPS + READINGS)
        await photometer.take(WARM_UPS, WARM_UP_EVERY_S, told)
        readings = await photometer.take(READINGS, EVERY_S, told)
        rpm = await stirred.measured_rpm()
    progress(1.0)
    seen = {channel: [reading[channel] for reading in readings] for channel in readings[0]}
    return OdStandardSeen(
        volts={channel: statistics.fmean(volts) for channel, volts in seen.items()},
        spread_volts={channel: statistics.stdev(volts) for channel, volts in seen.items()},
        rpm=rpm,
        ir_led_intensity=photometer.percent,
        reference=photometer.reference,
    )


def counted(progress: Progress, begin: float, count: int) -> Callable[[], None]:
    """To be called ``count`` times, on the way from ``begin`` to nearly the end."""
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        progress(begin + (0.95 - begin) * done / count)

    return told
