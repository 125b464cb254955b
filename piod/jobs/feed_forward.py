"""Guessing the duty cycle that gives a speed, and learning from what was measured.

A :class:`LineFeedForward` knows no calibration, a :class:`CalibratedFeedForward`
asks one. Speeds are RPM, duty cycles percent.
"""

from __future__ import annotations

from typing import Protocol

from piod.calibrations.curves import CurveError
from piod.calibrations.records import Calibration
from piod.errors import BadRequest
from piod.jobs.pid import clamp

DEAD_BAND_PERCENT = 5.0
"""Duty cycle at which an uncalibrated stirrer is taken to stand still."""
REFERENCE_RPM = 500.0
"""Speed at ``initial_duty_cycle`` without a calibration."""
LEARNED_FACTOR = (0.25, 4.0)
"""How far measured pairs may correct the feed-forward."""


class FeedForward(Protocol):
    """Guesses the duty cycle for a speed, and learns from measured pairs."""

    def duty_for(self, rpm: float) -> float:
        """The duty cycle in percent for ``rpm`` > 0."""
        ...

    def learn(self, duty_percent: float, rpm: float) -> None:
        """``duty_percent`` was seen to give ``rpm`` > 0."""
        ...


def feed_forward_from(calibration: Calibration | None, initial_duty_percent: float) -> FeedForward:
    """By the active calibration, or without one by a line. Raises BadRequest for one of no RPM."""
    if calibration is None:
        return LineFeedForward(initial_duty_percent)
    if calibration.y != "RPM":
        raise BadRequest(
            f"the active stirring calibration {calibration.calibration_name!r} gives "
            f"{calibration.y!r}, not RPM",
            remediation="Make another calibration active, or none.",
        )
    return CalibratedFeedForward(calibration)


class LineFeedForward:
    """duty = 5 % + rpm / slope; the slope is learned."""

    def __init__(self, initial_duty_percent: float) -> None:
        rise = max(initial_duty_percent - DEAD_BAND_PERCENT, 1.0)
        self._prior = REFERENCE_RPM / rise
        self._slope = self._prior
        """RPM per percent."""

    def duty_for(self, rpm: float) -> float:
        return clamp(0.0, DEAD_BAND_PERCENT + rpm / self._slope, 100.0)

    def learn(self, duty_percent: float, rpm: float) -> None:
        if duty_percent <= DEAD_BAND_PERCENT + 1.0:
            return  # too near the dead band to tell a slope
        low, high = LEARNED_FACTOR
        slope = rpm / (duty_percent - DEAD_BAND_PERCENT)
        self._slope = clamp(low * self._prior, slope, high * self._prior)


class CalibratedFeedForward:
    """The inverse of a stirring calibration, times a learned factor."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._factor = 1.0

    def duty_for(self, rpm: float) -> float:
        duty = self._calibration.y_to_x(rpm, enforce_bounds=False)
        return clamp(0.0, self._factor * duty, 100.0)

    def learn(self, duty_percent: float, rpm: float) -> None:
        try:
            expected = self._calibration.y_to_x(rpm, enforce_bounds=False)
        except CurveError:
            return
        if expected > 0:
            low, high = LEARNED_FACTOR
            self._factor = clamp(low, duty_percent / expected, high)
