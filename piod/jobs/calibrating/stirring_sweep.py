"""The stirrer's speed at duty cycles down, up and down again: what its curve is fitted to.

Fifteen points over the range, 2 s to settle and 2 s to count turns at each. Source: handbook
unit-api §4.5. Beyond the recipe: a stirrer that does not turn is kicked, as ``stirring``
does, before the sweep and after a point at which it stood still; and a turning stir bar is
sped up in steps, or it is thrown off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from piod.clock import Clock
from piod.config import Config
from piod.errors import BadRequest, ConfigurationError, Unavailable
from piod.jobs.calibrating import Progress, unpublished
from piod.jobs.job import EdgeInput, PwmOutput, Unit
from piod.jobs.stalls import MOST_KICKS
from piod.jobs.stirrer import KICK_S, RAMP_STEP_PERCENT, RAMP_STEP_S, STALL_KICK_S
from piod.jobs.stirring_settings import SECTION
from piod.jobs.stirring_speed import rpm_of

LOW, HIGH = 0.66, 1.33
"""The usual range, in parts of ``initial_duty_cycle``."""
POINTS_PER_PASS = 5
SPIN_UP_S, SETTLE_S, WINDOW_S = 3.0, 2.0, 2.0
LEAST_TURNING = 3
"""Points; fewer make no curve."""

REMEDIATION = (
    "Check that a stir bar is in the vial, that the vial stands in the reactor and that the "
    "heating PCB with its hall sensor is connected; then try again."
)


class NotTurning(Unavailable):
    """The hall sensor saw no turn of the stirrer, or too few."""

    default_remediation = REMEDIATION


@dataclass(frozen=True)
class StirringSweep:
    """Sweep over a range of duty cycles; both None: around ``initial_duty_cycle``."""

    min_duty_percent: float | None = None
    max_duty_percent: float | None = None


@dataclass(frozen=True)
class StirringSwept:
    """Pairs of duty cycle and speed, in the order in which they were measured."""

    duty_percent: tuple[float, ...]
    rpm: tuple[float, ...]
    still_percent: tuple[float, ...]
    """Duty cycles at which no turn was seen: not among the pairs."""
    pwm_hz: float


def duties(request: StirringSweep, config: Config) -> tuple[float, ...]:
    """The duty cycles to be swept. BadRequest; ConfigurationError."""
    low, high = _range(request, config)
    step = (high - low) / (POINTS_PER_PASS - 1)
    up = [round(low + index * step, 3) for index in range(POINTS_PER_PASS)]
    return (*reversed(up), *up, *reversed(up))


def _range(request: StirringSweep, config: Config) -> tuple[float, float]:
    low, high = request.min_duty_percent, request.max_duty_percent
    if low is None and high is None:
        initial = _initial_percent(config)
        return LOW * initial, min(HIGH * initial, 100.0)
    if low is None or high is None:
        raise BadRequest("a sweep needs both ends of its range of duty cycles, or none")
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high <= 100):
        raise BadRequest(
            f"a sweep goes from a lower to a higher duty cycle, above 0 to 100 %; "
            f"got {low:g} to {high:g} %"
        )
    return low, high


def _initial_percent(config: Config) -> float:
    initial = config.number(SECTION, "initial_duty_cycle", 30.0, minimum=0, maximum=100)
    if initial <= 0:
        raise ConfigurationError(f"[{SECTION}] initial_duty_cycle must be above 0 for a sweep")
    return initial


async def run(unit: Unit, request: StirringSweep, progress: Progress) -> StirringSwept:
    """Sweep; about 65 s.

    BadRequest; Conflict: somebody else stirs; NotTurning; BusError.
    """
    config = unit.config
    to_be_swept = duties(request, config)
    initial = _initial_percent(config)
    hz = config.number(SECTION, "pwm_hz", 200.0, minimum=0.1, maximum=10_000)
    turning: list[tuple[float, float]] = []
    still: list[float] = []
    async with unit.errand(unpublished) as errand:
        motor = _Motor(await errand.lease_pwm("stirring", hz=hz), errand.hall_sensor, unit.clock)
        progress(0.0)
        await _spin_up(motor, initial)
        for index, duty_percent in enumerate(to_be_swept):
            await motor.go(duty_percent)
            rpm = await motor.measured_rpm(SETTLE_S)
            if rpm > 0:
                turning.append((duty_percent, rpm))
            else:
                still.append(duty_percent)
                if index + 1 < len(to_be_swept):
                    await motor.kick_free()
                    await motor.hold(initial)
            progress((index + 1) / len(to_be_swept))
    if len(turning) < LEAST_TURNING:
        raise NotTurning(
            f"the stirrer was seen to turn at {len(turning)} of {len(to_be_swept)} duty cycles: "
            "too few for a curve"
        )
    return StirringSwept(
        duty_percent=tuple(duty_percent for duty_percent, _ in turning),
        rpm=tuple(rpm for _, rpm in turning),
        still_percent=tuple(still),
        pwm_hz=hz,
    )


async def _spin_up(motor: _Motor, initial_percent: float) -> None:
    """Get it going, and see that it does: a minute of a sweep without a bar helps nobody."""
    await motor.kick()
    for kicks_left in reversed(range(1 + MOST_KICKS)):
        await motor.hold(initial_percent)
        if await motor.measured_rpm(SPIN_UP_S - WINDOW_S) > 0:
            return
        if kicks_left:
            await motor.kick_free()
    raise NotTurning(
        f"no turn of the stirrer was seen at {initial_percent:g} %, after {MOST_KICKS} kicks"
    )


class _Motor:
    """The stirrer's motor and its hall sensor."""

    def __init__(self, pwm: PwmOutput, hall_sensor: EdgeInput, clock: Clock) -> None:
        self._pwm = pwm
        self._hall_sensor = hall_sensor
        self._clock = clock
        self._running_percent = 0.0

    async def hold(self, duty_percent: float) -> None:
        await self._pwm.set_duty(duty_percent)
        self._running_percent = duty_percent

    async def go(self, duty_percent: float) -> None:
        """To a duty cycle, upwards in steps."""
        while duty_percent - self._running_percent > RAMP_STEP_PERCENT:
            await self.hold(self._running_percent + RAMP_STEP_PERCENT)
            await self._clock.sleep(RAMP_STEP_S)
        await self.hold(duty_percent)

    async def kick(self) -> None:
        await self.hold(100.0)
        await self._clock.sleep(KICK_S)

    async def kick_free(self) -> None:
        """A bar that stands still, or has let go of the magnets, is caught anew."""
        await self.hold(0.0)
        await self._clock.sleep(STALL_KICK_S)
        await self.hold(100.0)
        await self._clock.sleep(STALL_KICK_S)

    async def measured_rpm(self, settle_s: float) -> float:
        await self._clock.sleep(settle_s)
        return rpm_of(await self._hall_sensor.record_edges(WINDOW_S))
