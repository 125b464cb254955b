"""Calibrations and estimators as JSON values: what the API tells of them.

All fields of a record under the names of its file, without keys that piod does
not know; times in UTC. What is true of a record only on this unit (is it
active?) is added by the front end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime

from piod.calibrations.curves import Curve, PolyCurve
from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.records import Calibration

_COMMON = ("calibration_name", "calibrated_on_pioreactor_unit", "x", "y")


def calibration_view(calibration: Calibration) -> dict[str, object]:
    """``calibration`` as upstream tells it."""
    known = {field.name for field in fields(Calibration)}
    own = [field.name for field in fields(calibration) if field.name not in known]
    recorded = calibration.recorded_data
    return {
        "calibration_type": calibration.calibration_type,
        **{name: getattr(calibration, name) for name in _COMMON},
        "created_at": _instant(calibration.created_at),
        "curve_data_": curve_view(calibration.curve_data_),
        "recorded_data": {"x": recorded.x, "y": recorded.y},
        **{name: getattr(calibration, name) for name in own},
    }


def estimator_view(estimator: FusedEstimator) -> dict[str, object]:
    """``estimator`` as upstream tells it."""
    return {
        "estimator_type": estimator.estimator_type,
        "estimator_name": estimator.estimator_name,
        "calibrated_on_pioreactor_unit": estimator.calibrated_on_pioreactor_unit,
        "created_at": _instant(estimator.created_at),
        "ir_led_intensity": estimator.ir_led_intensity,
        "angles": estimator.angles,
        "mu_splines": _curves(estimator.mu_splines),
        "sigma_splines_log": _curves(estimator.sigma_splines_log),
        "min_logc": estimator.min_logc,
        "max_logc": estimator.max_logc,
        "sigma_floor": estimator.sigma_floor,
        "recorded_data": estimator.recorded_data,
        "y": estimator.y,
        "low_conc_scales": estimator.low_conc_scales,
    }


def curve_view(curve: Curve) -> dict[str, object]:
    """``curve`` as its file has it."""
    if isinstance(curve, PolyCurve):
        return {"type": curve.type, "coefficients": curve.coefficients}
    return {"type": curve.type, "knots": curve.knots, "coefficients": curve.coefficients}


def _curves(curves: Mapping[str, Curve]) -> dict[str, object]:
    return {angle: curve_view(curve) for angle, curve in curves.items()}


def _instant(instant: datetime) -> str:
    # not clock.timestamp(): the last millisecond of the year 9999 does not survive a float
    text = instant.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
