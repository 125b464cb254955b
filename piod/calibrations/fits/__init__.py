"""Fits: from recorded points to a curve, with how well it goes through them.

* :func:`.spline_auto`: a natural cubic spline, its number of knots chosen by AICc; what
  stirring and the standards use;
* :func:`.akima`: a curve through the points themselves;
* :func:`.poly_auto`, :func:`.poly_fixed`: polynomials, of a chosen or a given degree;
* :func:`.line_through_origin`: a pump, which moves nothing in no time;
* :func:`.fit_fused`: the model of a fused OD estimator; :class:`.LogAffine`: one that is
  shifted and stretched by two standards.

All are pure and give a frozen result: :class:`.Fit` or :class:`.FusedFit`. Points that
cannot be fitted are refused with :class:`.UnusablePoints`, and nothing else is ever raised
for numbers; whether a fit makes sense is for :mod:`piod.calibrations.verdicts` to say.
Source: handbook unit-api.md §4.4, 4.7 to 4.9.

Plain Python: there are some tens of points and six unknowns at most, and numpy would cost
the unit's memory and start-up time.
"""

from piod.calibrations.fits.akimas import akima
from piod.calibrations.fits.fit import Fit, Parameter, UnusablePoints, aicc
from piod.calibrations.fits.fused import (
    FUSED_LEVELS,
    FusedFit,
    FusedRecord,
    LogAffine,
    fit_fused,
    two_point_offset,
)
from piod.calibrations.fits.polynomials import line_through_origin, poly_auto, poly_fixed
from piod.calibrations.fits.splines import spline_auto

__all__ = [
    "FUSED_LEVELS",
    "Fit",
    "FusedFit",
    "FusedRecord",
    "LogAffine",
    "Parameter",
    "UnusablePoints",
    "aicc",
    "akima",
    "fit_fused",
    "line_through_origin",
    "poly_auto",
    "poly_fixed",
    "spline_auto",
    "two_point_offset",
]
