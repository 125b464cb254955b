"""The voltage of the rail that pumps, stirrer and heater run at: a calibration holds for one.

Source: handbook jobs-and-hardware §1.4. There, too, why not every number can be trusted
(HAZ-9): the RP2040 wraps around at 12.3 V, so a supply of 12.5 V reads 0.2 V. That must
not end a session after an hour's work: the doubt is told instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from piod.errors import ConfigurationError
from piod.jobs.calibrating import Progress
from piod.jobs.job import Unit
from piod.jobs.monitor import RAIL_DIVIDER, RAIL_SIGNAL

LEAST_VOLTS = 3.0
"""Nothing turns below that."""
REFRESH_S = 1.2
"""The RP2040 looks at the rail so rarely: before its first look it tells 0 V."""


@dataclass(frozen=True)
class AuxVoltage:
    """Look at the rail."""


@dataclass(frozen=True)
class AuxVoltageRead:
    """What the rail has, to 0.1 V. ``doubt``: why that may be wrong; None: it is right."""

    volts: float
    doubt: str | None


async def run(unit: Unit, request: AuxVoltage, progress: Progress) -> AuxVoltageRead:
    """Measure. BusError; ConfigurationError: it is not wired."""
    adc = unit.adc
    if RAIL_SIGNAL not in adc.signals:
        raise ConfigurationError(
            "the voltage of the PWM rail is not wired to an ADC of this unit",
            remediation=f"Name the input of {RAIL_SIGNAL!r} in the adc.yaml of this HAT.",
        )
    progress(0.0)
    (sample,) = await adc.sample([(0.0, RAIL_SIGNAL)])
    if sample.volts < LEAST_VOLTS * RAIL_DIVIDER:
        await unit.clock.sleep(REFRESH_S)
        (sample,) = await adc.sample([(0.0, RAIL_SIGNAL)])
    volts = round(sample.volts / RAIL_DIVIDER, 1)
    doubt: str | None = None
    if volts < LEAST_VOLTS:
        doubt = (
            f"the PWM rail reads {volts:g} V: it has no supply, or one above 12.3 V, which "
            "the ADC of this HAT cannot tell"
        )
    progress(1.0)
    return AuxVoltageRead(volts, doubt)
