"""How much a pump moves in how many seconds, and how sure that is: arithmetic without I/O.

:func:`calibrated` and :func:`uncalibrated` make the :class:`PumpRate` of one pump.

A run moves ``flow(seconds)``: nothing in 0 s, never less in more time. A curve that does not go
through the origin has its intercept once in each run, however long it is. A straight line is
believed beyond what was recorded, as upstream does; any other curve only within that: from the
origin to its first point, and on from its last one, it is continued by straight lines, and no
dose is measured out by the latter.

How sure: a calibrated pump drifts by 2 %, and a run differs from the next by 1 % (handbook,
jobs-and-hardware §6.1), so 3 % either way. That holds between the first and the last recorded
point. Outside, nobody has looked: the curve may go on as it did there, or straight to or from
the origin, and the bounds reach over both. So points that are a few percent off, which tilt a
line and give it an intercept, do not make small doses look surer than they are. Of a line with
an intercept and no points, nothing is sure but that it was drawn through some.

The rate of a pump that is not calibrated is a guess: the nominal one, 30 % either way. Each
begins to pump up to 0.05 s late, and is turned off some milliseconds late.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from piod.calibrations.curves import CurveError, PolyCurve
from piod.calibrations.records import Calibration, PumpCalibration
from piod.errors import BadRequest
from piod.jobs.liquids import Amount, Flow, PumpRole

NOMINAL_ML_PER_S = 0.0911
"""At full duty (§2.7)."""
NOMINAL_HZ, NOMINAL_DUTY_PERCENT = 250.0, 100.0
UNCALIBRATED = 0.3
CALIBRATED = 0.03
DEAD_S = 0.05
LATE_S = 0.02
LONGEST_S = 86_400.0
"""The longest run that is planned."""

SAMPLES = 64
"""At which a curve is looked at for a fall."""

SAME_ML = 1e-9

NOTHING = Amount(0.0, 0.0, 0.0)


class NotCalibrated(BadRequest):
    """A volume was asked of a pump without an active calibration."""


class UnusableCalibration(BadRequest):
    """The active calibration cannot tell how long to pump."""

    default_remediation = "Calibrate the pump anew, or make another calibration active."


@dataclass(frozen=True)
class PumpRate:
    """What one pump moves, driven at ``hz`` (Hz) and ``duty_percent``.

    ``expected_ml``: of a run of so many seconds, above 0; ``inverse``: the seconds that move
    so many mL. ``reach_ml``: the least and the most that the same run may be expected to
    move, where nothing was recorded, and ``margin``, how far off that is at most.
    ``calibration_name`` None: it is not calibrated.
    """

    role: PumpRole
    hz: float
    duty_percent: float
    calibration_name: str | None
    expected_ml: Callable[[float], float]
    inverse: Callable[[float], float]
    reach_ml: Callable[[float], tuple[float, float]]
    margin: float = CALIBRATED

    def flow(self, seconds: float) -> Amount:
        """What a run of ``seconds`` moves."""
        if not seconds > 0:
            return NOTHING
        return Amount(
            (1 - self.margin) * self._reach_ml(seconds - DEAD_S)[0],
            max(0.0, self.expected_ml(seconds)),
            (1 + self.margin) * self._reach_ml(seconds + LATE_S)[1],
        )

    def seconds_for(self, volume_ml: float) -> float:
        """How long a run takes that moves ``volume_ml``.

        NotCalibrated; BadRequest for a volume that is not above 0, or that one run cannot move.
        """
        if not (math.isfinite(volume_ml) and volume_ml > 0):
            raise BadRequest(f"a volume to pump must be above 0 mL, got {volume_ml:g}")
        if self.calibration_name is None:
            raise NotCalibrated(
                f"{self.role}_pump has no active calibration, so {volume_ml:g} mL cannot be "
                "measured out",
                remediation=f"Calibrate {self.role}_pump, or make one of its calibrations active, "
                "or pump for a duration.",
            )
        by = f"by the calibration {self.calibration_name!r} of {self.role}_pump, {volume_ml:g} mL"
        try:
            seconds = self.inverse(volume_ml)
        except CurveError as error:
            raise BadRequest(
                f"{by} cannot be measured out: {error.message}",
                remediation="Pump a volume that was calibrated, or calibrate the pump anew.",
            ) from None
        if not 0 < seconds <= LONGEST_S:
            raise BadRequest(
                f"{by} would take a run of {seconds:g} s",
                remediation="Pump another volume, or calibrate the pump anew.",
            )
        return seconds

    def longest_below(self, room_ml: float) -> float:
        """The longest run that surely moves less than ``room_ml``, s; 0: none."""
        if self.flow(LONGEST_S).most_ml < room_ml:
            return LONGEST_S
        low, high = 0.0, LONGEST_S
        for _ in range(60):
            middle = (low + high) / 2
            if self.flow(middle).most_ml < room_ml:
                low = middle
            else:
                high = middle
        return low if low > 1e-6 else 0.0

    def _reach_ml(self, seconds: float) -> tuple[float, float]:
        if not seconds > 0:
            return 0.0, 0.0
        least, most = self.reach_ml(seconds)
        return max(0.0, least), max(0.0, most)


def uncalibrated(role: PumpRole) -> PumpRate:
    """The nominal rate."""
    rate = NOMINAL_ML_PER_S * NOMINAL_DUTY_PERCENT / 100
    return PumpRate(
        role,
        NOMINAL_HZ,
        NOMINAL_DUTY_PERCENT,
        None,
        lambda s: rate * s,
        lambda ml: ml / rate,
        lambda s: (rate * s, rate * s),
        UNCALIBRATED,
    )


def calibrated(role: PumpRole, calibration: Calibration) -> PumpRate:
    """The rate by a calibration. UnusableCalibration."""
    name = calibration.calibration_name
    what = f"the calibration {name!r} of {role}_pump"
    if not isinstance(calibration, PumpCalibration):
        raise UnusableCalibration(f"{what} is not one of a pump: {calibration.calibration_type}")
    if not (0 < calibration.dc <= 100 and calibration.hz > 0):
        raise UnusableCalibration(
            f"{what} was made at {calibration.dc:g} % and {calibration.hz:g} Hz: nothing turns so"
        )
    curve = calibration.curve_data_
    shape: _Shape
    if isinstance(curve, PolyCurve) and not any(curve.coefficients[:-2]):
        shape = _Line.of(what, curve, calibration)
    else:
        try:
            shape = _Recorded.of(what, calibration)
        except CurveError as error:
            raise UnusableCalibration(f"{what} cannot be used: {error.message}") from None
    return PumpRate(
        role,
        calibration.hz,
        calibration.dc,
        name,
        shape.ml,
        shape.seconds,
        shape.reach_ml,
        CALIBRATED if shape.is_recorded else UNCALIBRATED,
    )


def following(flow: Flow, seconds: float) -> Flow:
    """What a run moves after its first ``seconds``: the rest of it as a dose of its own."""
    before = flow(seconds)

    def rest(more_s: float) -> Amount:
        if not more_s > 0:
            return NOTHING
        after = flow(seconds + more_s)
        expected_ml = after.expected_ml - before.expected_ml
        share = more_s / (seconds + more_s)
        # An intercept is moved at no particular time, and the bounds of a curve that bends
        # may cross it: so at least, and at most, its share of the whole.
        return Amount(
            min(after.least_ml - before.least_ml, expected_ml, share * after.least_ml),
            expected_ml,
            max(after.most_ml - before.most_ml, expected_ml, share * after.most_ml),
        )

    return rest


def pulsed(flow: Flow, pulse_s: float) -> Flow:
    """What runs of ``pulse_s`` each move, by the seconds that they last together."""

    def moved(seconds: float) -> Amount:
        pulses = math.floor(seconds / pulse_s + 1e-9)
        whole, rest = flow(pulse_s), flow(max(0.0, seconds - pulses * pulse_s - 1e-9))
        return Amount(
            pulses * whole.least_ml + rest.least_ml,
            pulses * whole.expected_ml + rest.expected_ml,
            pulses * whole.most_ml + rest.most_ml,
        )

    return moved


class _Shape:
    """How a calibration's curve is read."""

    is_recorded = True
    """There are recorded points that tell how far to believe it."""

    def ml(self, seconds: float) -> float:
        raise NotImplementedError

    def seconds(self, volume_ml: float) -> float:
        raise NotImplementedError

    def reach_ml(self, seconds: float) -> tuple[float, float]:
        """The least and the most that it can be taken to say, mL."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Line(_Shape):
    slope: float
    intercept: float
    low_s: float
    high_s: float
    is_recorded: bool

    @classmethod
    def of(cls, what: str, curve: PolyCurve, calibration: Calibration) -> _Line:
        slope, intercept = (0.0, 0.0, *curve.coefficients)[-2:]
        if not (slope > 0 and math.isfinite(slope) and math.isfinite(intercept)):
            raise UnusableCalibration(f"{what} does not rise with time: {slope:g} mL/s")
        recorded = [seconds for seconds in calibration.recorded_data.x if seconds > 0]
        low_s, high_s = min(recorded, default=0.0), max(recorded, default=0.0)
        # a line that says that nothing was moved at a point does not go by its points
        known = abs(intercept) < SAME_ML or (low_s > 0 and slope * low_s + intercept > 0)
        return cls(slope, intercept, low_s, high_s, known)

    def ml(self, seconds: float) -> float:
        return self.slope * seconds + self.intercept

    def seconds(self, volume_ml: float) -> float:
        return (volume_ml - self.intercept) / self.slope

    def reach_ml(self, seconds: float) -> tuple[float, float]:
        line_ml = self.ml(seconds)
        if abs(self.intercept) < SAME_ML or self.low_s <= seconds <= self.high_s:
            straight_ml = line_ml
        elif self.is_recorded:
            end_s = self.low_s if seconds < self.low_s else self.high_s
            straight_ml = self.ml(end_s) * seconds / end_s
        else:
            straight_ml = self.slope * seconds
        least_ml = min(line_ml, straight_ml) if self.is_recorded else 0.0
        return least_ml, max(line_ml, straight_ml)


@dataclass(frozen=True)
class _Recorded(_Shape):
    calibration: Calibration
    low_s: float
    high_s: float

    @classmethod
    def of(cls, what: str, calibration: Calibration) -> _Recorded:
        low_s, high_s = calibration.domain
        if not (math.isfinite(high_s) and high_s > 0):
            raise UnusableCalibration(f"{what} has no recorded points to believe its curve between")
        low_s = max(0.0, low_s)
        step_s = (high_s - low_s) / SAMPLES
        recorded = [calibration.x_to_y(low_s + i * step_s) for i in range(SAMPLES)]
        recorded.append(calibration.x_to_y(high_s))
        if recorded[0] < 0 or any(b < a for a, b in pairwise(recorded)):
            raise UnusableCalibration(
                f"{what} does not rise throughout, from {low_s:g} to {high_s:g} s"
            )
        if not recorded[-1] > 0:
            raise UnusableCalibration(f"{what} says that nothing is moved")
        return cls(calibration, low_s, high_s)

    def ml(self, seconds: float) -> float:
        if seconds < self.low_s:
            return self.calibration.x_to_y(self.low_s) * seconds / self.low_s
        if seconds <= self.high_s:
            return self.calibration.x_to_y(seconds)
        return self.calibration.x_to_y(self.high_s) * seconds / self.high_s

    def seconds(self, volume_ml: float) -> float:
        least_ml = self.calibration.x_to_y(self.low_s)
        if volume_ml < least_ml:
            return self.low_s * volume_ml / least_ml
        return self.calibration.y_to_x(volume_ml, enforce_bounds=True)

    def reach_ml(self, seconds: float) -> tuple[float, float]:
        straight_ml = self.ml(seconds)
        if self.low_s == self.high_s or self.low_s <= seconds <= self.high_s:
            return straight_ml, straight_ml
        end_s = self.low_s if seconds < self.low_s else self.high_s
        step_s = (self.high_s - self.low_s) / SAMPLES
        inner_s = end_s + step_s if seconds < self.low_s else end_s - step_s
        end_ml = self.calibration.x_to_y(end_s)
        slope = (end_ml - self.calibration.x_to_y(inner_s)) / (end_s - inner_s)
        on_ml = end_ml + slope * (seconds - end_s)
        return min(straight_ml, on_ml), max(straight_ml, on_ml)
