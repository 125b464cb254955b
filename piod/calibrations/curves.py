"""Calibration curves: y for an x, and the x that give a y.

:class:`PolyCurve`, :class:`SplineCurve` and :class:`AkimaCurve` hold numbers as
they were recorded; whether these make a usable curve shows at the first
evaluation. :func:`choose_solution` picks one of several inverses by the domain
of the recorded data. Results are rounded to 10 decimals, extrapolation is
allowed. Source: handbook unit-api.md §3.4.

Plain Python: a lookup solves a few small polynomials, and numpy would cost the
unit's memory and start-up time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, TypeAlias

from piod.errors import BadRequest

DECIMALS = 10
"""To how many decimals results are rounded."""

_EDGE = 1e-9  # how far outside its piece a root still counts, for rounding
_SAME_SOLUTION = 1e-7  # pieces meet at knots: solutions closer than this are one
_ON_THE_DOMAIN = 1e-12  # a solution this little outside the domain is at its end
_ZERO = 64 * sys.float_info.epsilon  # a sum this small beside its terms is zero, but for rounding


class CurveError(BadRequest):
    """A curve cannot answer: see the subclasses."""

    default_remediation = "Use a value within the range of the calibration, or calibrate anew."


class BrokenCurve(CurveError):
    """Knots and coefficients do not make a curve, or its values are not finite."""


class NoSolution(CurveError):
    """No x gives this y, or the curve is empty."""


class BelowDomain(CurveError):
    """The x that gives this y lies below the recorded data."""


class AboveDomain(CurveError):
    """The x that gives this y lies above the recorded data."""


@dataclass(frozen=True)
class PolyCurve:
    """A polynomial; ``coefficients`` from the highest power down."""

    type: ClassVar[str] = "poly"
    coefficients: tuple[float, ...]

    def evaluate(self, x: float) -> float:
        """y at ``x``. Raises CurveError."""
        if not self.coefficients:
            raise NoSolution("the curve has no coefficients")
        return _rounded(_horner(self.coefficients, x))

    def solve(self, y: float) -> list[float]:
        """Every x that gives ``y``, ascending. A constant has none. Raises CurveError."""
        if not self.coefficients:
            raise NoSolution("the curve has no coefficients")
        *higher, constant = self.coefficients
        return [_rounded(root) for root in real_roots([*higher, constant - y])]


@dataclass(frozen=True)
class SplineCurve:
    """Cubic pieces between ``knots``; row (a, b, c, d) of the piece that starts at knot k
    stands for a + b·u + c·u² + d·u³, u = x − k. The first and last piece go on
    outside the knots."""

    type: ClassVar[str] = "spline"
    knots: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]

    def evaluate(self, x: float) -> float:
        """y at ``x``. Raises CurveError."""
        start, row = self._piece_at(x)
        return _rounded(_horner(row[::-1], x - start))

    def slope(self, x: float) -> float:
        """dy/dx at ``x``. Raises CurveError."""
        start, (_, b, c, d) = self._piece_at(x)
        return _rounded(_horner((3 * d, 2 * c, b), x - start))

    def solve(self, y: float) -> list[float]:
        """Every x that gives ``y``, ascending; of a flat piece at ``y``, its two knots.

        Raises CurveError.
        """
        pieces = self._pieces()
        found: list[float] = []
        for index, (start, end, row) in enumerate(pieces):
            low = -math.inf if index == 0 else start
            high = math.inf if index == len(pieces) - 1 else end
            a, *slopes = row
            if a == y and not any(slopes):
                found += (start, end)
                continue
            for root in real_roots([*reversed(slopes), a - y]):
                x = start + root
                if low - _EDGE <= x <= high + _EDGE:
                    found.append(min(max(x, low), high))
        solutions: list[float] = []
        for x in sorted(found):
            if not solutions or x - solutions[-1] >= _SAME_SOLUTION:
                solutions.append(x)
        return [_rounded(x) for x in solutions]

    def _piece_at(self, x: float) -> tuple[float, tuple[float, ...]]:
        """Start and row of the piece that ``x`` is in; outside the knots, of the nearest."""
        pieces = self._pieces()
        start, _, row = next((piece for piece in reversed(pieces) if piece[0] <= x), pieces[0])
        return start, row

    def _pieces(self) -> list[tuple[float, float, tuple[float, ...]]]:
        """Start, end and row of each piece."""
        knots, rows = self.knots, self.coefficients
        if not knots or not rows:
            raise NoSolution("the curve has no knots or no coefficients")
        if len(knots) != len(rows) + 1:
            raise BrokenCurve(
                f"the curve has {len(rows)} rows of coefficients and {len(knots)} knots; "
                "there must be one knot more than rows"
            )
        if any(len(row) != 4 for row in rows):
            raise BrokenCurve("each row of the curve's coefficients must have 4 numbers")
        if any(left >= right for left, right in pairwise(knots)):
            raise BrokenCurve("the knots of the curve must increase")
        return [(*ends, row) for ends, row in zip(pairwise(knots), rows, strict=True)]


class AkimaCurve(SplineCurve):
    """As a spline; only the fit that made it differs."""

    type: ClassVar[str] = "akima"


Curve: TypeAlias = PolyCurve | SplineCurve


def choose_solution(
    solutions: Sequence[float], low: float, high: float, *, enforce_bounds: bool
) -> float:
    """The one of ``solutions`` to go by, where data was recorded from ``low`` to ``high``.

    The smallest one inside, else the one nearest to it. With ``enforce_bounds``
    one outside is refused. Raises NoSolution, BelowDomain, AboveDomain.
    """
    if not solutions:
        raise NoSolution("the curve never takes this value")
    inside = [x for x in solutions if low <= x <= high]
    if inside:
        return min(inside)
    nearest = min(solutions, key=lambda x: max(low - x, x - high))
    if not enforce_bounds:
        return nearest
    if low - _ON_THE_DOMAIN <= nearest <= high + _ON_THE_DOMAIN:
        return min(max(nearest, low), high)
    if nearest < low:
        raise BelowDomain(f"the solution {nearest:g} lies below the calibrated range from {low:g}")
    raise AboveDomain(f"the solution {nearest:g} lies above the calibrated range up to {high:g}")


def real_roots(coefficients: Sequence[float]) -> list[float]:
    """The distinct real roots of a polynomial (highest power first), ascending.

    A constant, even 0, has none. Between two neighbouring roots of its derivative
    a polynomial is monotone, so each sign change there brackets exactly one root,
    which bisection finds to the last bit; a root that only touches zero is a root
    of the derivative. Raises BrokenCurve for numbers that are not finite.
    """
    if not all(map(math.isfinite, coefficients)):
        raise BrokenCurve("the curve has a coefficient that is not a finite number")
    leading = next((i for i, c in enumerate(coefficients) if c != 0), len(coefficients))
    terms = coefficients[leading:]
    degree = len(terms) - 1
    if degree < 1:
        return []
    if degree == 1:
        return [root for root in [-terms[1] / terms[0]] if math.isfinite(root)]
    # Cauchy's bound: every root is smaller than this.
    bound = 1.0 + max(abs(c / terms[0]) for c in terms[1:])
    bound = min(bound, sys.float_info.max)
    slopes = [c * (degree - i) for i, c in enumerate(terms[:-1])]
    bends = [x for x in real_roots(slopes) if -bound < x < bound]
    return list(_bracketed_roots(terms, [-bound, *bends, bound]))


def _bracketed_roots(terms: Sequence[float], points: Sequence[float]) -> Iterator[float]:
    signs = [_sign(terms, x) for x in points]
    for i, (x, sign) in enumerate(zip(points, signs, strict=True)):
        if i and sign * signs[i - 1] < 0:
            yield _bisected(terms, points[i - 1], x, signs[i - 1])
        if sign == 0:
            yield x


def _sign(terms: Sequence[float], x: float) -> int:
    """The sign of the polynomial at ``x``; 0 where only rounding keeps it from zero."""
    value = _horner(terms, x)
    size = _horner([abs(c) for c in terms], abs(x))
    if abs(value) <= _ZERO * size and math.isfinite(size):
        return 0
    return 1 if value > 0 else -1


def _bisected(terms: Sequence[float], low: float, high: float, sign_at_low: int) -> float:
    while True:
        middle = low / 2 + high / 2
        if not low < middle < high:
            return middle
        value = _horner(terms, middle) * sign_at_low
        if value == 0:
            return middle
        if value > 0:
            low = middle
        else:
            high = middle


def _horner(coefficients: Sequence[float], x: float) -> float:
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


def _rounded(value: float) -> float:
    if not math.isfinite(value):
        raise BrokenCurve("the curve has no finite value here")
    return round(value, DECIMALS) + 0.0  # never minus zero
