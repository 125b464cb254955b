"""OD by calibration and by estimator: what the owner's standards make of a voltage.

Each photodiode goes by the active calibration of its angle (devices ``od45`` …), several
angles together by the active estimator (``od_fused``). Both hold at one intensity of the
IR LED only. Source: handbook jobs-and-hardware §2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from piod.calibrations.curves import AboveDomain, BelowDomain, NoSolution
from piod.calibrations.devices import od_device
from piod.calibrations.estimators import FUSED_DEVICE, FusedEstimator, MissingAngle
from piod.calibrations.records import Calibration, ODCalibration
from piod.errors import BadRequest, Conflict

VOLTAGE = "Voltage"
SAME_PERCENT = 0.01
"""Intensities that differ by no more are the same."""
AT_BOUND = 1e-3
"""An estimate so near to the end of its range, in log10 OD, is at the end."""


class OtherIntensity(Conflict):
    """A calibration or estimator was made at another intensity of the IR LED."""

    default_remediation = (
        "Set ir_led_intensity to that of the calibration, or make another one active."
    )


class Standards(Protocol):
    """Where the active calibrations and estimators are."""

    async def active_calibration(self, device: str) -> Calibration | None: ...

    async def active_estimator(self, device: str) -> FusedEstimator | None: ...


@dataclass(frozen=True)
class Calibrated:
    """An OD by calibration. ``clamped``: the voltage was outside what was recorded."""

    od: float
    clamped: bool


def check_od_calibration(calibration: Calibration, device: str) -> ODCalibration:
    """Raises BadRequest if it does not go from OD to voltage."""
    if not isinstance(calibration, ODCalibration) or calibration.y != VOLTAGE:
        raise BadRequest(
            f"the active calibration {calibration.calibration_name!r} of {device} gives "
            f"{calibration.y!r}, not {VOLTAGE!r}",
            remediation="Make another calibration active, or none.",
        )
    return calibration


def calibrated_od(calibration: ODCalibration, volts: float) -> Calibrated:
    """The OD at which ``volts`` are seen; outside what was recorded, the nearest end of it.

    Raises BrokenCurve, or NoSolution when nothing was recorded either.
    """
    try:
        return Calibrated(calibration.y_to_x(volts, enforce_bounds=True), False)
    except (BelowDomain, AboveDomain, NoSolution):
        points = list(zip(calibration.recorded_data.y, calibration.recorded_data.x, strict=True))
        if not points:
            raise
        ends = (min(points), max(points))
        return Calibrated(min(ends, key=lambda end: abs(end[0] - volts))[1], True)


def check_intensity(what: str, made_at: float, percent: float) -> None:
    """Raises OtherIntensity if ``what`` does not hold at ``percent``."""
    if abs(made_at - percent) > SAME_PERCENT:
        raise OtherIntensity(
            f"{what} was made with the IR LED at {made_at:g} %, which is now at {percent:g} %"
        )


@dataclass(frozen=True)
class OdStandards:
    """The calibrations (by angle) and the estimator that were active at the start."""

    calibrations: Mapping[str, ODCalibration] = field(default_factory=dict)
    estimator: FusedEstimator | None = None

    @classmethod
    async def active(cls, standards: Standards, angles: set[str]) -> OdStandards:
        """Raises BadRequest for a calibration that is none of OD."""
        calibrations: dict[str, ODCalibration] = {}
        for angle in sorted(angles):
            device = od_device(angle)
            found = await standards.active_calibration(device)
            if found is not None:
                calibrations[angle] = check_od_calibration(found, device)
        return cls(calibrations, await standards.active_estimator(FUSED_DEVICE))

    def by_calibration(self, angle: str, od: float, percent: float) -> Calibrated | None:
        """None: there is none for that angle. Raises OtherIntensity, CurveError."""
        calibration = self.calibrations.get(angle)
        if calibration is None:
            return None
        name = f"the calibration {calibration.calibration_name!r}"
        check_intensity(name, calibration.ir_led_intensity, percent)
        return calibrated_od(calibration, od)

    def fused(self, ods: Mapping[str, float], percent: float) -> Calibrated | None:
        """From uncalibrated ODs by angle. None: no estimator, or an angle is missing.

        Raises OtherIntensity; another PiodError: the estimator cannot be evaluated.
        """
        estimator = self.estimator
        if estimator is None:
            return None
        name = f"the estimator {estimator.estimator_name!r}"
        check_intensity(name, estimator.ir_led_intensity, percent)
        try:
            od = estimator.estimate(ods)
        except MissingAngle:
            return None
        where = math.log10(od)
        at_end = min(where - estimator.min_logc, estimator.max_logc - where) < AT_BOUND
        return Calibrated(od, at_end)
