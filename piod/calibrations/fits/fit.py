"""What every fit starts from and ends with: points that can be fitted, and :class:`Fit`.

:func:`usable` checks points and scales them to numbers near 1, so that no fit meets an
overflow or a sum that rounding has eaten.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from piod.calibrations.curves import Curve, CurveError
from piod.calibrations.fits.least_squares import Solution
from piod.errors import BadRequest
from piod.events import JsonValue

LARGEST = 1e30
"""Sizes beyond it are no measurement; below it, no power that a fit takes overflows."""

_SMALLEST_SPAN = 1e-30
_SAME_PART = 1e-9
"""Points whose x differ by less than this part of their range stand at one x."""
_ROUNDING_PART = 1e-13
"""A fit that misses by less than this part of its y misses by rounding alone."""


class UnusablePoints(BadRequest):
    """No curve of the wanted kind can be made of these points."""

    default_remediation = "Measure at more, and more different, settings; then fit again."


@dataclass(frozen=True)
class Parameter:
    """A fitted number: a slope, the height of a knot.

    ``std_error`` is its standard error; None when there are no more points than
    parameters, so that nothing tells of it.
    """

    name: str
    value: float
    std_error: float | None


@dataclass(frozen=True)
class Fit:
    """A curve and the points that it was fitted to, in the order of recording."""

    curve: Curve
    x: tuple[float, ...]
    y: tuple[float, ...]
    residuals: tuple[float, ...]
    """Each y less the curve at its x, in the unit of y."""
    parameters: tuple[Parameter, ...]

    @property
    def rmse(self) -> float:
        """The root of the mean squared residual, in the unit of y."""
        return math.hypot(*self.residuals) / math.sqrt(len(self.residuals))

    @property
    def degrees_of_freedom(self) -> int:
        """How many points there are beyond what the parameters take up."""
        return max(len(self.x) - len(self.parameters), 0)

    def parameter(self, name: str) -> Parameter:
        """The one of that name. KeyError."""
        found = {parameter.name: parameter for parameter in self.parameters}
        return found[name]

    def view(self) -> dict[str, JsonValue]:
        """How well it fits, as JSON: for the result of a session."""
        return {
            "rmse": self.rmse,
            "degrees_of_freedom": self.degrees_of_freedom,
            "residuals": list(self.residuals),
            "parameters": [
                {"name": p.name, "value": p.value, "std_error": p.std_error}
                for p in self.parameters
            ],
        }


@dataclass(frozen=True)
class Points:
    """Points that have passed :func:`usable`, and the same scaled: u runs from 0 to 1 over x,
    v = (y − ``centre``) / ``scale`` lies within ±1."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: float
    span: float
    centre: float
    scale: float
    u: tuple[float, ...]
    v: tuple[float, ...]
    weights: tuple[float, ...]
    """The largest is 1."""
    levels: tuple[float, ...]
    """The different u, ascending."""

    def score(self, sse: float, parameters: int) -> float:
        """AICc of a fit with that sum of squared errors in v.

        Errors that are rounding count as one size: they shall not choose.
        """
        size = _ROUNDING_PART * max(abs(y) for y in self.y) / self.scale
        return aicc(len(self.x), max(sse, len(self.x) * size * size), parameters)


def usable(
    x: Sequence[float],
    y: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    at_least: int = 2,
) -> Points:
    """The points as they can be fitted; of ``at_least`` so many different x.

    Raises UnusablePoints.
    """
    if len(x) != len(y):
        raise UnusablePoints(f"there are {len(x)} values of x and {len(y)} of y")
    if weights is None:
        weights = (1.0,) * len(x)
    if len(weights) != len(x):
        raise UnusablePoints(f"there are {len(x)} points and {len(weights)} weights")
    if any(not abs(value) <= LARGEST for value in (*x, *y)):
        raise UnusablePoints(f"a value is not a number, or is beyond ±{LARGEST:g}")
    if any(not 0 < weight <= LARGEST for weight in weights):
        raise UnusablePoints(f"a weight is not above 0, or is beyond {LARGEST:g}")
    if len(x) < at_least:
        raise UnusablePoints(f"a fit needs at least {at_least} points, there are {len(x)}")
    low = float(min(x))
    span = float(max(x) - low)
    if not span > max(_SMALLEST_SPAN, _SAME_PART * max(abs(value) for value in x)):
        raise UnusablePoints(f"a fit needs different values of x, all are {low:g}")
    u = tuple((value - low) / span for value in x)
    levels = _levels(u)
    if len(levels) < at_least:
        raise UnusablePoints(
            f"a fit needs at least {at_least} different values of x, there are {len(levels)}"
        )
    centre = math.fsum(y) / len(y)
    scale = max(abs(value - centre) for value in y) or 1.0
    heaviest = max(weights)
    return Points(
        x=tuple(map(float, x)),
        y=tuple(map(float, y)),
        low=low,
        span=span,
        centre=centre,
        scale=scale,
        u=u,
        v=tuple((value - centre) / scale for value in y),
        weights=tuple(weight / heaviest for weight in weights),
        levels=levels,
    )


def _levels(u: Sequence[float]) -> tuple[float, ...]:
    levels: list[float] = []
    for here in sorted(u):
        if not levels or here - levels[-1] > _SAME_PART:
            levels.append(here)
    return tuple(levels)


def fitted(
    curve: Curve, x: Sequence[float], y: Sequence[float], parameters: Sequence[Parameter]
) -> Fit:
    """The result. Raises UnusablePoints when the curve has no value at one of the points."""
    try:
        residuals = tuple(seen - curve.evaluate(at) for at, seen in zip(x, y, strict=True))
    except CurveError as error:
        raise UnusablePoints(f"the points make no curve: {error.message}") from error
    return Fit(curve, tuple(x), tuple(y), residuals, tuple(parameters))


def standard_errors(solution: Solution, points: int) -> list[float | None]:
    """That of each parameter of ``solution``, from the scatter of ``points`` around it."""
    free = points - len(solution.values)
    if free <= 0:
        return [None] * len(solution.values)
    variance = solution.sse / free
    return [math.sqrt(max(row[i], 0.0) * variance) for i, row in enumerate(solution.covariance)]


def aicc(points: int, sse: float, parameters: int) -> float:
    """Akaike's criterion, corrected for few points: the least is the best fit.

    n·ln(SSE/n) + 2k + 2k(k+1)/(n−k−1); infinite when n ≤ k+1 (handbook §4.9).
    """
    n, k = points, parameters
    if n <= k + 1:
        return math.inf
    sse = max(sse, sys.float_info.min)
    return n * math.log(sse / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
