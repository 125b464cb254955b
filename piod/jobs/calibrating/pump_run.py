"""One run of a pump, into a beaker: so many seconds at a frequency and a duty cycle.

The person has taken the tubes out of the vial (handbook unit-api §4.4), so the ledger of
volumes is not asked. The output is given its off-time with its duty cycle: the bus thread
and the guard keep it, whatever becomes of this process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from piod.errors import BadRequest
from piod.jobs.calibrating import Progress, unpublished
from piod.jobs.job import Unit, range_text

SUFFIX = "_pump"
"""``media_pump`` is the device of the role ``media`` in ``[PWM]``."""
ROLES = ("media", "alt_media", "waste")
LONGEST_S = 280.0
"""Callers wait 300 s for a step to be over."""
LEAST_HZ, MOST_HZ = 0.1, 10_000.0
TICK_S = 1.0


@dataclass(frozen=True)
class PumpRun:
    """Turn the pump of ``device``, such as ``media_pump``, for ``seconds``."""

    device: str
    seconds: float
    hz: float
    duty_percent: float


@dataclass(frozen=True)
class PumpRan:
    """For how long it was on."""

    seconds: float


def role_of(device: str) -> str:
    """The role in ``[PWM]`` of a pump. BadRequest: it is none."""
    role = device.removesuffix(SUFFIX)
    if role == device or role not in ROLES:
        known = ", ".join(f"{each}{SUFFIX}" for each in ROLES)
        raise BadRequest(f"{device!r} is no pump; the pumps are: {known}")
    return role


def check(request: PumpRun) -> None:
    """Raises BadRequest naming what is out of range."""
    role_of(request.device)
    for what, value, least, most, unit in (
        ("seconds", request.seconds, 0.0, LONGEST_S, "s"),
        ("hz", request.hz, LEAST_HZ, MOST_HZ, "Hz"),
        ("duty_percent", request.duty_percent, 0.0, 100.0, "%"),
    ):
        if not (math.isfinite(value) and least <= value <= most and value > 0):
            above = "above 0 and " if least == 0 else ""
            allowed = range_text(least, most, unit)
            raise BadRequest(f"{what} of a pump run must be {above}{allowed}, got {value:g}")


async def run(unit: Unit, request: PumpRun, progress: Progress) -> PumpRan:
    """Turn the pump; it is off, and confirmed to be, when this returns.

    BadRequest; ConfigurationError: the pump has no PWM channel; Conflict: somebody else has
    it; BusError: it may have run for less, and the run does not count.
    """
    check(request)
    clock = unit.clock
    async with unit.errand(unpublished) as errand:
        pump = await errand.lease_pwm(role_of(request.device), hz=request.hz)
        progress(0.0)
        await pump.set_duty(request.duty_percent, off_after_s=request.seconds)
        began_s = clock.monotonic()
        while (left_s := began_s + request.seconds - clock.monotonic()) > 0:
            await clock.sleep(min(TICK_S, left_s))
            progress(min(1.0, (clock.monotonic() - began_s) / request.seconds))
        await pump.set_duty(0.0)  # refused if the lease was lost on the way
    progress(1.0)
    return PumpRan(request.seconds)
