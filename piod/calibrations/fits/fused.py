"""The model of a fused OD estimator: fitted to records of standards, or moved by two of them.

Source: handbook unit-api.md §4.7 and §4.8. The model says, for each angle, what ln(reading)
is to be expected at a log10 OD, and how far it scatters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

from piod.calibrations.curves import AkimaCurve, SplineCurve
from piod.calibrations.estimators import ANGLES
from piod.calibrations.fits.akimas import akima
from piod.calibrations.fits.fit import Fit, UnusablePoints
from piod.events import JsonValue

FusedRecord: TypeAlias = "tuple[str, float, float]"
"""Angle, log10 OD of the standard, ln(reading)."""

FUSED_LEVELS = 4
"""So many different ODs a model needs at each angle."""

SIGMA_FLOOR = 0.04
"""No reading is believed to be better than this (of ln(reading))."""

_SAME_LOGC = 1e-6
"""ODs closer than this are one."""

_NORMAL_PER_MAD = 1.4826
"""Standard deviation over median absolute deviation, of a normal distribution."""


@dataclass(frozen=True)
class FusedFit:
    """What the estimator file holds of a fit, and how well it goes through the records."""

    mu_splines: Mapping[str, AkimaCurve]
    sigma_splines_log: Mapping[str, AkimaCurve]
    min_logc: float
    max_logc: float
    fits: Mapping[str, Fit]
    """By angle: of ln(reading) over log10 OD; its residuals are the scatter of the samples."""
    std_errors: Mapping[str, tuple[float, ...]]
    """By angle: the standard error of the mean at each level, in the order of the knots."""
    sigma_floor: float = SIGMA_FLOOR

    @property
    def angles(self) -> tuple[str, ...]:
        """In ascending order."""
        return tuple(self.mu_splines)

    @property
    def by_angle(self) -> dict[str, JsonValue]:
        """The records as ``recorded_data.by_angle`` of the file has them."""
        return {angle: {"x": list(fit.x), "y": list(fit.y)} for angle, fit in self.fits.items()}


def fit_fused(records: Sequence[FusedRecord], angles: Sequence[str] = ANGLES) -> FusedFit:
    """The model of ``records`` at ``angles``.

    Samples of one log10 OD make a level: their mean is a knot of the angle's curve, and
    1.4826·MAD of their residuals its spread. Raises UnusablePoints: each angle needs four
    levels.
    """
    mu_splines: dict[str, AkimaCurve] = {}
    sigma_splines_log: dict[str, AkimaCurve] = {}
    fits: dict[str, Fit] = {}
    std_errors: dict[str, tuple[float, ...]] = {}
    for angle in angles:
        samples = [(logc, seen) for recorded, logc, seen in records if recorded == angle]
        levels = _levels(samples)
        if len(levels) < FUSED_LEVELS:
            raise UnusablePoints(
                f"the model needs standards of at least {FUSED_LEVELS} different ODs, at "
                f"{angle}° there are {len(levels)}",
                remediation="Measure standards of other ODs.",
            )
        fit = akima([logc for logc, _ in samples], [seen for _, seen in samples])
        spreads = [math.log(max(_spread(seen), SIGMA_FLOOR)) for seen in levels.values()]
        mu_splines[angle] = _akima_curve(fit)
        sigma_splines_log[angle] = _akima_curve(akima(list(levels), spreads))
        fits[angle] = fit
        std_errors[angle] = tuple(_std_error(seen) for seen in levels.values())
    every = [logc for angle, logc, _ in records if angle in mu_splines]
    if not every:
        raise UnusablePoints("a model of no angle cannot be fitted")
    return FusedFit(mu_splines, sigma_splines_log, min(every), max(every), fits, std_errors)


def _levels(samples: Sequence[tuple[float, float]]) -> dict[float, list[float]]:
    levels: dict[float, list[float]] = {}
    for logc, seen in sorted(samples):
        levels.setdefault(logc, []).append(seen)
    return levels


def _spread(seen: Sequence[float]) -> float:
    middle = median(seen)
    return _NORMAL_PER_MAD * median(abs(value - middle) for value in seen)


def _std_error(seen: Sequence[float]) -> float:
    return max(_spread(seen), SIGMA_FLOOR) / math.sqrt(len(seen))


def _akima_curve(fit: Fit) -> AkimaCurve:
    assert isinstance(fit.curve, AkimaCurve)
    return fit.curve


@dataclass(frozen=True)
class LogAffine:
    """A model moved along log10 OD: c becomes ``scale``·c + ``offset``."""

    scale: float
    offset: float

    def place(self, logc: float) -> float:
        """Where ``logc`` comes to stand."""
        return self.scale * logc + self.offset

    def curve(self, curve: SplineCurve) -> AkimaCurve:
        """``curve`` with its knots moved: it gives at :meth:`place` what it gave before."""
        return AkimaCurve(
            tuple(self.place(knot) for knot in curve.knots),
            tuple(
                tuple(value / self.scale**power for power, value in enumerate(row))
                for row in curve.coefficients
            ),
        )


def two_point_offset(
    estimated_ods: tuple[float, float], standard_ods: tuple[float, float]
) -> LogAffine:
    """What makes of two estimates, of standards, the ODs that the standards have.

    Raises UnusablePoints: ODs must be above 0, the two of each different, and in one order.
    """
    if any(not 0 < od < math.inf for od in (*estimated_ods, *standard_ods)):
        raise UnusablePoints(
            "an OD of 0 has no logarithm, so it can move no model",
            remediation="Use standards that are no blanks.",
        )
    e1, e2 = (math.log10(od) for od in estimated_ods)
    t1, t2 = (math.log10(od) for od in standard_ods)
    apart, wanted = e2 - e1, t2 - t1
    if abs(apart) < _SAME_LOGC or abs(wanted) < _SAME_LOGC:
        told = "are estimated" if abs(apart) < _SAME_LOGC else "have"
        raise UnusablePoints(
            f"the two standards {told} the same OD",
            remediation="Use two standards that differ, best by a factor of ten.",
        )
    scale = wanted / apart
    if scale <= 0:
        raise UnusablePoints(
            "the standard of the greater OD is estimated to have the smaller one",
            remediation="Check that the standards were not swapped, and measure them again.",
        )
    return LogAffine(scale, t1 - scale * e1)
