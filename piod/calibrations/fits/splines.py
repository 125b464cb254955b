"""Natural cubic regression splines.

A natural spline is determined by its heights at the knots: it is straight outside them, and
its second derivative is continuous. So the heights are what is fitted. Source: handbook
unit-api.md §4.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from piod.calibrations.curves import SplineCurve
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

MOST_KNOTS = 6

_SAME_KNOT = 1e-9  # of the range


def spline_auto(
    x: Sequence[float], y: Sequence[float], weights: Sequence[float] | None = None
) -> Fit:
    """The natural spline with as many knots, 2 to 6, as AICc finds worth it.

    The knots stand at quantiles of x, so that there are more where there are more points.
    Σ weight·residual² is least. Its parameters are the heights, named ``height at <knot>``.
    Raises UnusablePoints: it needs two different x.
    """
    points = usable(x, y, weights)
    ascending = sorted(zip(points.u, points.x, strict=True))
    best: tuple[float, Sequence[tuple[float, float]], Solution] | None = None
    for count in range(2, min(MOST_KNOTS, len(x), len(points.levels)) + 1):
        knots = _knots(ascending, count)
        try:
            solution = _heights(points, [u for u, _ in knots])
        except RankDeficient:
            continue  # no point tells of some knot
        score = points.score(solution.sse, len(knots))
        if best is None or score < best[0]:
            best = score, knots, solution
    if best is None:
        raise UnusablePoints("the points make no curve: their x or their weights differ too much")
    _, knots, solution = best
    errors = standard_errors(solution, len(x))
    places = [place for _, place in knots]
    heights = [points.centre + points.scale * value for value in solution.values]
    parameters = [
        Parameter(f"height at {place:g}", height, None if error is None else error * points.scale)
        for place, height, error in zip(places, heights, errors, strict=True)
    ]
    return fitted(
        SplineCurve(tuple(places), _rows(knots, heights, points)), points.x, points.y, parameters
    )


def _knots(ascending: Sequence[tuple[float, float]], count: int) -> Sequence[tuple[float, float]]:
    """The quantiles 0 to 1 in ``count`` − 1 steps, as (u, x); equal ones are one."""
    knots: list[tuple[float, float]] = []
    last = len(ascending) - 1
    for index in range(count):
        place = last * index / (count - 1)
        below = min(int(place), last)
        above = min(below + 1, last)
        u, x = (
            low + (high - low) * (place - below)
            for low, high in zip(ascending[below], ascending[above], strict=True)
        )
        if not knots or u - knots[-1][0] > _SAME_KNOT:
            knots.append((u, x))
    return knots


def _heights(points: Points, knots: Sequence[float]) -> Solution:
    """The heights at ``knots`` that fit ``points`` best. Raises RankDeficient."""
    bends = _bends(knots)
    rows, right = [], []
    for u, v, weight in zip(points.u, points.v, points.weights, strict=True):
        root = math.sqrt(weight)
        rows.append([root * value for value in _row(u, knots, bends)])
        right.append(root * v)
    return least_squares(rows, right)


def _row(u: float, knots: Sequence[float], bends: Sequence[Sequence[float]]) -> list[float]:
    """By how much each height counts at ``u``."""
    i = max(index for index, knot in enumerate(knots[:-1]) if index == 0 or knot <= u)
    width = knots[i + 1] - knots[i]
    left, right = (knots[i + 1] - u) / width, (u - knots[i]) / width
    bend_left = (left**3 - left) * width**2 / 6
    bend_right = (right**3 - right) * width**2 / 6
    row = [bend_left * bends[i][j] + bend_right * bends[i + 1][j] for j in range(len(knots))]
    row[i] += left
    row[i + 1] += right
    return row


def _bends(knots: Sequence[float]) -> list[list[float]]:
    """By how much each height counts in the second derivative at each knot.

    At the first and the last knot that is 0: the spline is natural. Inside it follows from
    the first derivatives being equal from both sides.
    """
    inner = len(knots) - 2
    widths = [right - left for left, right in pairwise(knots)]
    equations = [[0.0] * inner for _ in range(inner)]
    by_height = [[0.0] * len(knots) for _ in range(inner)]
    for i in range(inner):
        left, right = widths[i], widths[i + 1]
        equations[i][i] = (left + right) / 3
        if i > 0:
            equations[i][i - 1] = left / 6
        if i < inner - 1:
            equations[i][i + 1] = right / 6
        by_height[i][i] = 1 / left
        by_height[i][i + 1] = -1 / left - 1 / right
        by_height[i][i + 2] = 1 / right
    bends = [[0.0] * len(knots) for _ in knots]
    for j in range(len(knots)) if inner else ():
        column = least_squares(equations, [row[j] for row in by_height]).values
        for i, value in enumerate(column, start=1):
            bends[i][j] = value
    return bends


def _rows(
    knots: Sequence[tuple[float, float]], heights: Sequence[float], points: Points
) -> tuple[tuple[float, ...], ...]:
    """The pieces a + b·t + c·t² + d·t³, t = x − knot."""
    bends = _bends([u for u, _ in knots])
    # heights less the centre: their differences shall not drown in an offset
    level = [(height - points.centre) / points.scale for height in heights]
    second = [sum(part * value for part, value in zip(row, level, strict=True)) for row in bends]
    rows = []
    for i, (left, right) in enumerate(pairwise(u for u, _ in knots)):
        width = right - left
        slope = (level[i + 1] - level[i]) / width - width * (2 * second[i] + second[i + 1]) / 6
        jerk = (second[i + 1] - second[i]) / width / 6
        by_x = points.scale / points.span
        rows.append(
            (
                heights[i],
                slope * by_x,
                second[i] / 2 * by_x / points.span,
                jerk * by_x / points.span / points.span,
            )
        )
    return tuple(rows)
