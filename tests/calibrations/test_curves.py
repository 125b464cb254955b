"""Curves: the reference's numbers, and what holds for every curve."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piod.calibrations.curves import (
    AboveDomain,
    AkimaCurve,
    BelowDomain,
    BrokenCurve,
    NoSolution,
    PolyCurve,
    SplineCurve,
    choose_solution,
    real_roots,
)

SPLINE = SplineCurve(
    (0, 0.5, 2),
    (
        (0.0544808040, 0.9643001600, 0, -0.1382510909),
        (0.5193494977, 0.8606118418, -0.2073766363, 0.0460836970),
    ),
)
AKIMA = AkimaCurve(
    (0, 0.25, 0.5, 1, 2),
    (
        (0.05, 1.06, -0.24, 0),
        (0.3, 0.94, -0.2742857, 0.1371429),
        (0.52, 0.8285714, -0.1371429, 0),
        (0.9, 0.6914286, -0.1028571, 0.0114286),
    ),
)
NEAR = 1e-7  # the vectors give their coefficients to 7 or 10 decimals


@pytest.mark.parametrize(
    ("x", "y"), [(-1, -0.771568), (0, 0.054481), (0.3, 0.340038), (1.5, 1.218668), (3, 2.094833)]
)
def test_spline_follows_the_vectors(x: float, y: float) -> None:
    assert SPLINE.evaluate(x) == pytest.approx(y, abs=1e-6)


def test_inverses_follow_the_vectors() -> None:
    assert SPLINE.solve(0.7) == pytest.approx([-2.9274488510, 0.7211113167], abs=NEAR)
    assert AKIMA.evaluate(0.3) == pytest.approx(0.346331, abs=1e-6)
    assert AKIMA.solve(0.7) == pytest.approx([0.7256707213], abs=NEAR)
    poly = PolyCurve((-0.1296277916, 0.9803573201, 0.0564615385))
    assert poly.solve(0.7) == pytest.approx([0.7261549581, 6.8367087479], abs=NEAR)


def test_two_point_spline_is_a_line_both_ways() -> None:
    line = SplineCurve((0, 1), ((0, 2, 0, 0),))
    assert [line.evaluate(x) for x in (-3, 0.5, 7)] == [-6, 1, 14]
    assert [line.solve(y) for y in (-6, 1, 14)] == [[-3], [0.5], [7]]


def test_results_have_ten_decimals() -> None:
    third = PolyCurve((1 / 3, 0))
    assert third.evaluate(1) == 0.3333333333
    assert PolyCurve((3, 0)).solve(1) == [0.3333333333]
    assert math.copysign(1, PolyCurve((2.0, 1.0)).solve(1.0)[0]) == 1


def test_flat_piece_at_y_gives_its_knots_and_meeting_pieces_one_solution() -> None:
    curve = SplineCurve((0, 1, 2, 3), ((0, 5, 0, 0), (5, 0, 0, 0), (5, 3, 0, 0)))
    assert curve.solve(5) == [1, 2]
    assert curve.solve(8) == [3]
    assert curve.evaluate(1.5) == 5
    assert SplineCurve((0, 1), ((5, 0, 0, 0),)).solve(5) == [0, 1]
    assert SplineCurve((0, 1), ((5, 0, 0, 0),)).solve(4) == []


def test_piece_in_the_middle_gives_nothing_outside_itself() -> None:
    # The parabola of the middle piece would reach 0.75 at u = 0.5 and again at u = 1.5.
    curve = SplineCurve((0, 1, 2, 3), ((-1, 1, 0, 0), (0, 2, -1, 0), (1, 1, 0, 0)))
    assert curve.solve(0.75) == [1.5]


@pytest.mark.parametrize(
    "curve",
    [PolyCurve(()), SplineCurve((), ()), AkimaCurve((1.0,), ())],
)
def test_empty_curve_has_no_solution(curve: PolyCurve | SplineCurve) -> None:
    with pytest.raises(NoSolution):
        curve.evaluate(1)
    with pytest.raises(NoSolution):
        curve.solve(1)


@pytest.mark.parametrize(
    ("knots", "rows", "problem"),
    [
        ((0.0, 1.0), ((1, 0, 0, 0), (1, 0, 0, 0)), "2 rows of coefficients and 2 knots"),
        ((0.0, 1.0), ((1, 0, 0),), "4 numbers"),
        ((0.0, 0.0), ((1, 0, 0, 0),), "must increase"),
    ],
)
def test_rows_that_make_no_curve_are_told(
    knots: tuple[float, ...], rows: tuple[tuple[float, ...], ...], problem: str
) -> None:
    with pytest.raises(BrokenCurve, match=problem):
        SplineCurve(knots, rows).evaluate(0.5)
    with pytest.raises(BrokenCurve, match=problem):
        AkimaCurve(knots, rows).solve(0.5)


def test_values_that_are_not_finite_are_refused() -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(BrokenCurve):
            PolyCurve((1, 0)).evaluate(bad)
        with pytest.raises(BrokenCurve):
            SPLINE.evaluate(bad)
        with pytest.raises(BrokenCurve):
            PolyCurve((1, 0)).solve(bad)
    with pytest.raises(BrokenCurve):
        PolyCurve((1e200, 0, 0)).evaluate(1e200)


def test_roots_of_known_polynomials() -> None:
    assert real_roots([2.0]) == []
    assert real_roots([0.0, 0.0]) == []
    assert real_roots([0, 0, 2, -1]) == [0.5]
    assert real_roots([1, 0, 1]) == []
    assert real_roots([1, -2, 1]) == [1]  # only touches zero
    assert real_roots([1, -3, 3, -1]) == pytest.approx([1])
    assert real_roots([1, 0, -5, 0, 4]) == pytest.approx([-2, -1, 1, 2])
    assert real_roots([1e-300, 1, -1])[-1] == pytest.approx(1)  # all but linear
    assert real_roots([1e300, 1e300, -1e300]) == pytest.approx(
        [-1.618033988749895, 0.6180339887498949]
    )


def test_every_separate_root_is_found() -> None:
    """Polynomials of degree 1 to 7 made from their roots."""
    generator = random.Random(7)
    for degree in [1, 2, 3, 4, 5, 6, 7] * 20:
        roots = sorted(generator.sample([n / 4 for n in range(-20, 21)], degree))
        terms = [generator.choice([-3.0, 1.0, 0.01])]
        for root in roots:
            terms = [a - b * root for a, b in zip([*terms, 0.0], [0.0, *terms], strict=True)]
        assert real_roots(terms) == pytest.approx(roots, abs=1e-6)


@given(
    coefficients=st.lists(st.floats(-100, 100, allow_nan=False), min_size=2, max_size=6),
    x=st.floats(-50, 50),
)
@settings(max_examples=150, deadline=None)
def test_every_solution_evaluates_to_y(coefficients: list[float], x: float) -> None:
    curve = PolyCurve(tuple(round(c, 3) for c in coefficients))
    y = curve.evaluate(x)
    size = sum(abs(c) * 60.0**i for i, c in enumerate(reversed(curve.coefficients)))
    for solution in curve.solve(y):
        if abs(solution) <= 60:
            assert curve.evaluate(solution) == pytest.approx(y, abs=1e-8 * (1 + size))


@given(x=st.floats(-1.5, 5))  # right of the spline's turning point
@settings(max_examples=100, deadline=None)
def test_spline_inverse_contains_where_it_came_from(x: float) -> None:
    for curve in (SPLINE, AKIMA):
        solutions = curve.solve(curve.evaluate(x))
        assert solutions == sorted(solutions)
        assert min(abs(solution - x) for solution in solutions) < 1e-6


def test_choice_among_solutions_goes_by_the_domain() -> None:
    assert choose_solution([-1, 2, 3, 9], 0, 4, enforce_bounds=False) == 2
    assert choose_solution([-3, 6], 0, 4, enforce_bounds=False) == 6
    assert choose_solution([-3, 8], 0, 4, enforce_bounds=False) == -3
    assert choose_solution([-3, 8], -math.inf, math.inf, enforce_bounds=True) == -3
    assert choose_solution([4 + 5e-13], 0, 4, enforce_bounds=True) == 4
    assert choose_solution([-5e-13], 0, 4, enforce_bounds=True) == 0
    assert choose_solution([5], 0, 4, enforce_bounds=False) == 5


def test_choice_outside_the_domain_is_refused_when_bounds_hold() -> None:
    with pytest.raises(BelowDomain, match="-1 lies below the calibrated range from 0"):
        choose_solution([-1, 8], 0, 4, enforce_bounds=True)
    with pytest.raises(AboveDomain, match="5 lies above the calibrated range up to 4"):
        choose_solution([5], 0, 4, enforce_bounds=True)
    for enforce_bounds in (True, False):
        with pytest.raises(NoSolution):
            choose_solution([], 0, 4, enforce_bounds=enforce_bounds)


@pytest.mark.parametrize("x", [-0.5, 0, 0.3, 0.5, 1.7, 2, 3])
def test_slope_is_that_of_the_curve(x: float) -> None:
    step = 1e-6
    rise = SPLINE.evaluate(x + step) - SPLINE.evaluate(x - step)
    assert SPLINE.slope(x) == pytest.approx(rise / (2 * step), abs=1e-3)
