"""Whether a fitted curve can be used, and which points do not belong to it."""

from __future__ import annotations

import math
from statistics import median

from piod.calibrations.curves import CurveError
from piod.calibrations.fits import Fit
from piod.calibrations.verdicts.verdict import Verdict

_FALL_PART = 0.02
_OUTLIER_SPREADS = 5.0
_OUTLIER_PART = 0.03
_NORMAL_PER_MAD = 1.4826
_PLACES = 200  # at so many a curve is looked at


def judge_rising(
    fit: Fit, x_unit: str, y_unit: str, *, falling: bool = False, blocks: bool = False
) -> list[Verdict]:
    """Whether the curve rises all over its data (or falls, with ``falling``).

    Where it turns, one y stands for two x, and a job may take the wrong one.
    """
    low, high = min(fit.x), max(fit.x)
    sign = -1.0 if falling else 1.0
    places = [low + (high - low) * i / (_PLACES - 1) for i in range(_PLACES)]
    try:
        values = [sign * fit.curve.evaluate(x) for x in places]
    except CurveError as error:
        return [Verdict("no_curve", error.message, "Measure again.", blocks=True)]
    peak = 0
    worst, start, end = 0.0, 0, 0
    for i, value in enumerate(values):
        if value > values[peak]:
            peak = i
        if values[peak] - value > worst:
            worst, start, end = values[peak] - value, peak, i
    if worst <= _FALL_PART * (max(values) - min(values)):
        return []
    wrong, right = ("rises", "fall") if falling else ("falls", "rise")
    return [
        Verdict(
            "not_monotonic",
            f"the curve {wrong} by {worst:.3g} {y_unit} from {places[start]:.4g} to "
            f"{places[end]:.4g} {x_unit}, where it should {right}",
            "Measure again there; if it stays so, calibrate over a narrower range.",
            blocks,
        )
    ]


def judge_outliers(fit: Fit, x_unit: str, y_unit: str) -> list[Verdict]:
    """Points that lie far from the curve, beside how far the others do."""
    tallest = max(fit.y) - min(fit.y)
    usual = _NORMAL_PER_MAD * median(abs(residual) for residual in fit.residuals)
    limit = max(_OUTLIER_SPREADS * usual, _OUTLIER_PART * tallest)
    if not 0 < limit < math.inf:
        return []
    return [
        Verdict(
            "outlier",
            f"the point at {x:.4g} {x_unit} reads {y:.4g} {y_unit}; the curve through all has "
            f"{y - residual:.4g} there",
            "Check that number; if it is wrong, measure again.",
        )
        for x, y, residual in zip(fit.x, fit.y, fit.residuals, strict=True)
        if abs(residual) > limit
    ]
