"""Akima's curve: through every point, each piece shaped by its nearest neighbours alone.

H. Akima, J. ACM 17 (1970) 589; handbook unit-api.md §4.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from piod.calibrations.curves import AkimaCurve
from piod.calibrations.fits.fit import Fit, Points, fitted, usable

LEAST_LEVELS = 3


def akima(x: Sequence[float], y: Sequence[float]) -> Fit:
    """The curve through the mean y of each x.

    It has no parameters to tell of; residuals are there only where an x was measured several
    times. Raises UnusablePoints: it needs three different x.
    """
    points = usable(x, y, at_least=LEAST_LEVELS)
    u, places, heights = _means(points)
    widths = [right - left for left, right in pairwise(u)]
    rises = [right - left for left, right in pairwise(heights)]
    secants = [rise / width for rise, width in zip(rises, widths, strict=True)]
    slopes = _slopes(secants)
    rows = []
    for i, (width, secant) in enumerate(zip(widths, secants, strict=True)):
        by_x = points.scale / points.span
        second = (3 * secant - 2 * slopes[i] - slopes[i + 1]) / width
        third = (slopes[i] + slopes[i + 1] - 2 * secant) / width / width
        rows.append(
            (
                points.centre + points.scale * heights[i],
                slopes[i] * by_x,
                second * by_x / points.span,
                third * by_x / points.span / points.span,
            )
        )
    return fitted(AkimaCurve(places, tuple(rows)), points.x, points.y, ())


def _means(points: Points) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Of each level: its u, its x, and the mean v there."""
    groups: list[list[tuple[float, float, float]]] = [[] for _ in points.levels]
    index = 0
    for point in sorted(zip(points.u, points.x, points.v, strict=True)):
        while index + 1 < len(points.levels) and point[0] >= points.levels[index + 1]:
            index += 1
        groups[index].append(point)
    return (
        points.levels,
        tuple(group[0][1] for group in groups),
        tuple(math.fsum(v for *_, v in group) / len(group) for group in groups),
    )


def _slopes(secants: Sequence[float]) -> list[float]:
    """The slope at each point, of the ``secants`` between them and two more at each end."""
    first, second = secants[0], secants[1]
    last, before = secants[-1], secants[-2]
    m = [3 * first - 2 * second, 2 * first - second, *secants, 2 * last - before]
    m.append(3 * last - 2 * before)
    slopes = []
    for i in range(len(secants) + 1):
        right, left = abs(m[i + 3] - m[i + 2]), abs(m[i + 1] - m[i])
        if right + left == 0:
            slopes.append((m[i + 1] + m[i + 2]) / 2)
        else:
            slopes.append((right * m[i + 1] + left * m[i + 2]) / (right + left))
    return slopes
