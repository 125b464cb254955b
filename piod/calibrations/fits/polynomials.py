"""Polynomials: of the degree that the points are worth, of a given one, and a pump's line.

Source: handbook unit-api.md §4.4 and §4.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from piod.calibrations.curves import PolyCurve
from piod.calibrations.fits.fit import (
    Fit,
    Parameter,
    Points,
    UnusablePoints,
    fitted,
    standard_errors,
    usable,
)
from piod.calibrations.fits.least_squares import RankDeficient, Solution, least_squares

HIGHEST_DEGREE = 5

_LOST = 1e-6
"""More than this part of the range of y may not be lost by writing the powers of x out."""


def poly_auto(x: Sequence[float], y: Sequence[float]) -> Fit:
    """The polynomial of degree 0 to 5 that AICc finds best; a line through two points.

    Raises UnusablePoints: it needs two different x.
    """
    points = usable(x, y)
    best: tuple[float, Fit] | None = None
    for degree in range(min(HIGHEST_DEGREE, len(x) - 1, len(points.levels) - 1) + 1):
        try:
            fit, sse = _polynomial(points, degree)
        except UnusablePoints:
            continue  # x too close together for so high a degree
        score = points.score(sse, degree + 1)
        # two points: no criterion is finite, and a line is what joins them
        if best is None or score < best[0] or (degree == 1 and math.isinf(best[0])):
            best = score, fit
    if best is None:
        raise UnusablePoints("the points make no polynomial: their sizes differ too much")
    return best[1]


def poly_fixed(
    x: Sequence[float], y: Sequence[float], degree: int, weights: Sequence[float] | None = None
) -> Fit:
    """The polynomial of ``degree``, 1 to 5, for which Σ (weight·residual)² is least.

    A weight belongs to the point at its place, whatever the order of the points. Raises
    UnusablePoints: it needs one different x more than ``degree``.
    """
    if not 1 <= degree <= HIGHEST_DEGREE:
        raise UnusablePoints(
            f"the degree of a polynomial must be 1 to {HIGHEST_DEGREE}, got {degree}",
            remediation="Choose a degree in that range.",
        )
    fit, _ = _polynomial(usable(x, y, weights, at_least=degree + 1), degree)
    return fit


def line_through_origin(x: Sequence[float], y: Sequence[float]) -> Fit:
    """y = ``slope``·x by least squares: Σxy/Σx², with its standard error.

    Points at one x are enough. Raises UnusablePoints: some x must not be 0.
    """
    # with the origin, which is known, points at one x are points at two
    origin = (0.0,) if len(x) else ()
    points = usable((*origin, *x), (*origin, *y))
    longest = max(abs(value) for value in points.x)
    tallest = max(abs(value) for value in points.y) or 1.0
    solution = least_squares(
        [[value / longest] for value in points.x[1:]], [value / tallest for value in points.y[1:]]
    )
    per_unit = tallest / longest
    [slope], [error] = solution.values, standard_errors(solution, len(x))
    parameter = Parameter("slope", slope * per_unit, None if error is None else error * per_unit)
    return fitted(PolyCurve((parameter.value, 0.0)), points.x[1:], points.y[1:], [parameter])


def _polynomial(points: Points, degree: int) -> tuple[Fit, float]:
    """The fit, and its weighted sum of squares in v. Raises UnusablePoints."""
    # in t from −1 to 1 the powers differ as much as they can
    t = [2 * u - 1 for u in points.u]
    try:
        solution = least_squares(
            [
                [weight * value**power for power in range(degree + 1)]
                for value, weight in zip(t, points.weights, strict=True)
            ],
            [weight * v for v, weight in zip(points.v, points.weights, strict=True)],
        )
    except RankDeficient as error:
        raise UnusablePoints(
            f"the x or the weights differ too little or too much for a polynomial of degree "
            f"{degree}"
        ) from error
    written_out = _powers_of_x(points, degree)
    terms = [
        math.fsum(
            points.scale * part * value for part, value in zip(row, solution.values, strict=True)
        )
        for row in written_out
    ]
    terms[0] += points.centre
    fit = fitted(
        PolyCurve(tuple(reversed(terms))),
        points.x,
        points.y,
        _parameters(points, solution, terms, written_out),
    )
    for value, seen, missed in zip(t, points.v, fit.residuals, strict=True):
        expected = math.fsum(c * value**power for power, c in enumerate(solution.values))
        if abs(seen - expected - missed / points.scale) > _LOST + 1e-9 / points.scale:
            raise UnusablePoints(
                f"x lies too far from 0, beside how much it differs, for a polynomial of degree "
                f"{degree}",
                remediation="Fit a spline, or a polynomial of a lower degree.",
            )
    return fit, solution.sse


def _parameters(
    points: Points,
    solution: Solution,
    terms: Sequence[float],
    written_out: Sequence[Sequence[float]],
) -> list[Parameter]:
    """The coefficients of x, each error carried over from those of t."""
    free = len(points.x) - len(terms)
    parameters = []
    for power, (value, row) in enumerate(zip(terms, written_out, strict=True)):
        error: float | None = None
        if free > 0:
            variance = math.fsum(
                row[i] * row[j] * solution.covariance[i][j]
                for i in range(len(row))
                for j in range(len(row))
            )
            error = points.scale * math.sqrt(max(variance, 0.0) * solution.sse / free)
        parameters.append(Parameter(f"x^{power}", value, error))
    return parameters


def _powers_of_x(points: Points, degree: int) -> list[list[float]]:
    """For each power of x, lowest first, by how much each power of t counts in it."""
    # t = a + b·x
    b = 2 / points.span
    a = -1 - b * points.low
    rows = [[0.0] * (degree + 1) for _ in range(degree + 1)]
    for power in range(degree + 1):
        for of_x in range(power + 1):
            rows[of_x][power] = math.comb(power, of_x) * a ** (power - of_x) * b**of_x
    return rows
