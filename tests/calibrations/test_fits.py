"""Fits: the reference's numbers, and what holds for any numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piod.calibrations.curves import AkimaCurve, CurveError, PolyCurve, SplineCurve
from piod.calibrations.fits import (
    Fit,
    FusedRecord,
    UnusablePoints,
    aicc,
    akima,
    fit_fused,
    line_through_origin,
    poly_auto,
    poly_fixed,
    spline_auto,
    two_point_offset,
)

X = (0, 0.25, 0.5, 1, 2)
Y = (0.05, 0.30, 0.52, 0.90, 1.50)

PRINTED = 6e-11  # the reference prints ten decimals


def rows(fit: Fit) -> list[float]:
    assert isinstance(fit.curve, SplineCurve)
    return [value for row in fit.curve.coefficients for value in row]


# -- the vectors of the handbook, §9 -----------------------------------------------------


def test_spline_auto_gives_the_vector() -> None:
    fit = spline_auto(X, Y)
    assert isinstance(fit.curve, SplineCurve)
    assert fit.curve.knots == (0, 0.5, 2)
    assert rows(fit) == pytest.approx(
        [
            *(0.0544808040, 0.9643001600, 0, -0.1382510909),
            *(0.5193494977, 0.8606118418, -0.2073766363, 0.0460836970),
        ],
        abs=PRINTED,
    )
    values = [fit.curve.evaluate(x) for x in (-1, 0, 0.3, 1.5, 3)]
    assert values == pytest.approx([-0.771568, 0.054481, 0.340038, 1.218668, 2.094833], abs=5e-7)
    assert fit.curve.solve(0.7) == pytest.approx([-2.9274488510, 0.7211113167], abs=PRINTED)


def test_akima_gives_the_vector() -> None:
    fit = akima(X, Y)
    assert isinstance(fit.curve, AkimaCurve)
    assert fit.curve.knots == X
    assert rows(fit) == pytest.approx(
        [
            *(0.05, 1.06, -0.24, 0),
            *(0.3, 0.94, -0.2742857, 0.1371429),
            *(0.52, 0.8285714, -0.1371429, 0),
            *(0.9, 0.6914286, -0.1028571, 0.0114286),
        ],
        abs=5.1e-8,
    )
    assert fit.curve.evaluate(0.3) == pytest.approx(0.346331, abs=5e-7)
    assert fit.curve.solve(0.7) == pytest.approx([0.7256707213], abs=PRINTED)
    assert rows(akima((0, 1, 3), (0, 2, 3))) == pytest.approx(
        [0, 2.75, -0.75, 0, 2, 1.25, -0.375, 0]
    )


def test_poly_auto_gives_the_vectors() -> None:
    bent = poly_auto(X, Y).curve
    assert isinstance(bent, PolyCurve)
    assert bent.coefficients == pytest.approx(
        [-0.1296277916, 0.9803573201, 0.0564615385], abs=PRINTED
    )
    assert bent.solve(0.7) == pytest.approx([0.7261549581, 6.8367087479], abs=PRINTED)
    straight = poly_auto(range(1, 7), (1.1, 1.9, 3.2, 3.9, 5.1, 6.0)).curve
    assert isinstance(straight, PolyCurve)
    assert straight.coefficients == pytest.approx([0.9942857143, 0.0533333333], abs=PRINTED)


def test_spline_with_repeated_x_merges_its_knots() -> None:
    y = (0.10, 0.11, 0.09, 0.10, 0.10, 0.10, 0.20, 0.33, 0.41, 0.50)
    fit = spline_auto((1, 1, 1, 1, 1, 1, 2, 3, 4, 5), y)
    assert isinstance(fit.curve, SplineCurve)
    assert fit.curve.knots == (1, 2.75, 5)
    assert rows(fit) == pytest.approx(
        [
            *(0.0991814778, 0.1152861923, 0, -0.0013728092),
            *(0.2935749151, 0.1026735078, -0.0072072483, 0.0010677405),
        ],
        abs=PRINTED,
    )


def test_spline_of_a_sweep_gives_the_vector() -> None:
    down = [39.9, 34.875, 29.85, 24.825, 19.8]
    y = [
        *(652.1, 575.4, 491, 400.2, 303.3),
        *(298.9, 396.7, 488.8, 572.9, 650),
        *(653, 574.2, 490.1, 401.5, 301.8),
    ]
    curve = spline_auto([*down, *reversed(down), *down], y).curve
    assert isinstance(curve, SplineCurve)
    assert curve.knots == (19.8, 29.85, 39.9)
    assert curve.evaluate(30) == pytest.approx(493.2840418, abs=6e-8)
    assert curve.solve(500) == pytest.approx([-37.89326412, 30.38862984], abs=6e-9)


def test_spline_of_two_points_is_the_line_through_them() -> None:
    fit = spline_auto((0, 1), (0, 2))
    assert rows(fit) == [0, 2, 0, 0]
    assert [parameter.std_error for parameter in fit.parameters] == [None, None]


def test_pump_line_gives_the_vector() -> None:
    seconds = [0.4] * 4 + [0.75] * 2 + [1.1] * 4
    fit = line_through_origin(seconds, [0.50 + 0.01 * i for i in range(10)])
    slope = fit.parameter("slope")
    assert slope.value == pytest.approx(0.6315669947, abs=PRINTED)
    assert slope.std_error == pytest.approx(0.0760623896, abs=PRINTED)
    assert fit.curve == PolyCurve((slope.value, 0.0))
    # the least volume of the vector differs from its own slope × 0.4 s in the ninth digit
    assert slope.value * 0.4 == pytest.approx(0.2526267941, abs=5e-9)
    assert slope.value * 1.1 == pytest.approx(0.6947236942, abs=PRINTED)


def test_aicc_follows_its_formula() -> None:
    assert aicc(10, 2.5, 3) == pytest.approx(10 * math.log(0.25) + 6 + 4)
    assert aicc(4, 1.0, 3) == math.inf
    assert aicc(9, 0.0, 2) == aicc(9, 2.2e-308, 2)


# -- what a fit must do ------------------------------------------------------------------


def test_three_standards_give_a_line_and_five_at_most_three_knots() -> None:
    generator = random.Random(3)
    for _ in range(50):
        for points, most in ((3, 2), (5, 3), (6, 4)):
            y = [generator.uniform(0, 1) for _ in range(points)]
            curve = spline_auto(range(points), y).curve
            assert isinstance(curve, SplineCurve)
            assert len(curve.knots) <= most


@pytest.mark.parametrize("fit", [spline_auto, poly_auto])
def test_points_on_a_line_give_that_line_and_nothing_fancier(fit: Callable[..., Fit]) -> None:
    """Rounding must not buy knots: without a floor, the SSE of the noise of floats would choose."""
    x = [0.1 * i for i in range(12)]
    found = fit(x, [3.3 * value - 0.7 for value in x])
    assert len(found.parameters) == 2
    assert found.curve.evaluate(7.7) == pytest.approx(3.3 * 7.7 - 0.7)
    assert found.rmse < 1e-9


def test_residuals_and_standard_errors_tell_of_the_scatter() -> None:
    """Of 400 noisy lines, the true slope lies within two standard errors in about 95 of 100."""
    generator = random.Random(11)
    x = [float(i) for i in range(12)]
    inside = 0
    for _ in range(400):
        fit = poly_fixed(x, [2 * value + 5 + generator.gauss(0, 0.3) for value in x], 1)
        slope = fit.parameter("x^1")
        assert slope.std_error is not None
        inside += abs(slope.value - 2) < 2.23 * slope.std_error  # Student's t of 10 degrees
    assert 370 <= inside <= 392
    assert fit.degrees_of_freedom == 10
    assert fit.rmse == pytest.approx(math.sqrt(sum(r * r for r in fit.residuals) / 12))
    assert fit.residuals[4] == pytest.approx(fit.y[4] - fit.curve.evaluate(4), abs=1e-9)


def test_spline_errors_are_those_of_the_line_when_it_is_one() -> None:
    x, y = (1, 2, 3, 4), (1.0, 2.2, 2.9, 4.1)
    at_one = spline_auto(x, y).parameters[0]
    line = poly_fixed([value - 1 for value in x], y, 1).parameter("x^0")
    assert (at_one.value, at_one.std_error) == pytest.approx((line.value, line.std_error))


def test_weights_pull_the_fit_each_in_its_own_way() -> None:
    """The spline minimises Σw·r², the polynomial Σ(w·r)², whatever the order of the points."""
    x, y = [0.0, 1.0, 1.0, 2.0], [0.0, 1.0, 2.0, 2.0]
    weights = [1.0, 1.0, 9.0, 1.0]
    spline = spline_auto(x, y, weights).curve
    poly = poly_fixed(x, y, 1, [math.sqrt(weight) for weight in weights]).curve
    for at in (0.0, 1.0, 2.0):
        assert spline.evaluate(at) == pytest.approx(poly.evaluate(at))
    assert poly.evaluate(1.0) > poly_fixed(x, y, 1).curve.evaluate(1.0) + 0.1
    backwards = poly_fixed(x[::-1], y[::-1], 1, [3.0**0.5 for _ in x]).curve
    assert backwards.evaluate(0.3) == pytest.approx(poly_fixed(x, y, 1).curve.evaluate(0.3))
    turned = poly_fixed(x[::-1], y[::-1], 1, [math.sqrt(w) for w in weights[::-1]]).curve
    assert turned.evaluate(0.3) == pytest.approx(poly.evaluate(0.3))


def test_polynomial_of_a_given_degree_goes_through_so_many_points() -> None:
    x = (-1.0, 0.0, 2.0, 3.0, 5.0, 8.0)
    for degree in range(1, 6):
        wanted = PolyCurve(tuple(0.5 - 0.1 * i for i in range(degree + 1)))
        fit = poly_fixed(x, [wanted.evaluate(at) for at in x], degree)
        assert isinstance(fit.curve, PolyCurve)
        assert fit.curve.coefficients == pytest.approx(wanted.coefficients, abs=1e-7)


def test_akima_averages_what_was_measured_at_one_x() -> None:
    fit = akima((0, 1, 1, 2, 3), (0.0, 0.9, 1.1, 2.0, 3.0))
    assert isinstance(fit.curve, AkimaCurve)
    assert fit.curve.knots == (0, 1, 2, 3)
    assert fit.curve.evaluate(1) == pytest.approx(1)
    assert fit.residuals == pytest.approx((0, -0.1, 0.1, 0, 0), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: spline_auto([1], [1]), "at least 2 points, there are 1"),
        (lambda: spline_auto([], []), "there are 0"),
        (lambda: spline_auto([2, 2, 2], [1, 2, 3]), "all are 2"),
        (lambda: spline_auto([1, 2], [1]), "2 values of x and 1 of y"),
        (lambda: spline_auto([1, 2], [1, math.nan]), "not a number"),
        (lambda: spline_auto([1, 2], [1, math.inf]), "not a number"),
        (lambda: spline_auto([1, 2], [1, 10**400]), "beyond"),
        (lambda: spline_auto([1, 2], [1, 2], [1, 0]), "weight"),
        (lambda: spline_auto([1, 2], [1, 2], [1]), "2 points and 1 weights"),
        (lambda: akima([1, 2, 2], [1, 2, 3]), "3 different values of x, there are 2"),
        (lambda: poly_fixed([1, 2, 3], [1, 2, 3], 3), "at least 4 points"),
        (lambda: poly_fixed([1, 2], [1, 2], 0), "1 to 5, got 0"),
        (lambda: poly_fixed([1, 2], [1, 2], 6), "1 to 5, got 6"),
        (lambda: poly_auto([1, 1], [1, 2]), "all are 1"),
        (lambda: line_through_origin([0, 0], [1, 2]), "different values of x"),
        (lambda: line_through_origin([], []), "there are 0"),
    ],
)
def test_points_that_make_no_curve_are_refused(call: Callable[[], Fit], told: str) -> None:
    with pytest.raises(UnusablePoints, match=told) as refusal:
        call()
    assert refusal.value.remediation


def test_polynomials_that_rounding_would_ruin_are_refused_or_of_lower_degree() -> None:
    """Powers of 10⁷, of which only the differences count, leave no digits to the curve."""
    x = [1e7 + i for i in range(8)]
    y = [math.sin(i) for i in range(8)]
    with pytest.raises(UnusablePoints, match="too far from 0") as refusal:
        poly_fixed(x, y, 5)
    assert "spline" in refusal.value.remediation
    assert poly_auto(x, y).rmse < 1
    assert spline_auto(x, y).rmse < 1


def test_unknowns_that_the_points_do_not_determine_are_refused() -> None:
    with pytest.raises(UnusablePoints, match="differ too little"):
        poly_fixed([0, 1e-8, 2e-8, 1], [0, 1, 0, 1], 3)


# -- the fused model ---------------------------------------------------------------------

ODS = (0.02, 0.1, 0.5, 2.0)


def records(scatter: float = 0.0, seed: int = 5) -> list[FusedRecord]:
    generator = random.Random(seed)
    return [
        (angle, math.log10(od), gain * math.log(od) + generator.gauss(0, scatter))
        for od in ODS
        for _ in range(4)
        for angle, gain in (("45", 0.6), ("90", 0.8), ("135", 1.0))
    ]


def test_fused_model_passes_through_the_mean_of_each_level() -> None:
    fused = fit_fused(records(scatter=0.2))
    assert fused.angles == ("45", "90", "135")
    assert (fused.min_logc, fused.max_logc) == (math.log10(0.02), math.log10(2.0))
    for angle in fused.angles:
        for od in ODS:
            seen = [
                y for at, logc, y in records(scatter=0.2) if (at, logc) == (angle, math.log10(od))
            ]
            assert fused.mu_splines[angle].evaluate(math.log10(od)) == pytest.approx(
                sum(seen) / 4, abs=1e-9
            )
            middle = (sorted(seen)[1] + sorted(seen)[2]) / 2
            off = sorted(abs(value - middle) for value in seen)
            spread = max(1.4826 * (off[1] + off[2]) / 2, 0.04)
            assert fused.sigma_splines_log[angle].evaluate(math.log10(od)) == pytest.approx(
                math.log(spread), abs=1e-9
            )
        logc, seen_at = zip(*((c, y) for at, c, y in records(0.2) if at == angle), strict=True)
        assert fused.by_angle[angle] == {"x": list(logc), "y": list(seen_at)}
        assert len(fused.std_errors[angle]) == len(ODS)


def test_readings_without_scatter_are_believed_to_the_floor_only() -> None:
    fused = fit_fused(records())
    for angle in fused.angles:
        assert math.exp(fused.sigma_splines_log[angle].evaluate(-1)) == pytest.approx(0.04)


def test_fused_model_of_three_levels_is_refused() -> None:
    with pytest.raises(UnusablePoints, match="at least 4 different ODs, at 45° there are 3"):
        fit_fused([record for record in records() if record[1] < 0])
    with pytest.raises(UnusablePoints, match="at 90° there are 0"):
        fit_fused([record for record in records() if record[0] == "45"])
    with pytest.raises(UnusablePoints, match="no angle"):
        fit_fused(records(), angles=())


def test_two_standards_move_a_model_onto_themselves() -> None:
    moved = two_point_offset((0.11, 0.9), (0.1, 1.0))
    curve = fit_fused(records()).mu_splines["90"]
    new = moved.curve(curve)
    for estimated, true in ((0.11, 0.1), (0.9, 1.0)):
        assert moved.place(math.log10(estimated)) == pytest.approx(math.log10(true))
        assert new.evaluate(math.log10(true)) == pytest.approx(
            curve.evaluate(math.log10(estimated)), abs=1e-8
        )
    assert two_point_offset((0.1, 1.0), (0.2, 2.0)).scale == pytest.approx(1)
    assert two_point_offset((0.1, 1.0), (0.2, 2.0)).offset == pytest.approx(math.log10(2))


@pytest.mark.parametrize(
    ("estimated", "standard", "told"),
    [
        ((0.5, 0.5), (0.1, 1.0), "are estimated the same"),
        ((0.1, 0.5), (1.0, 1.0), "have the same OD"),
        ((0.5, 0.1), (0.1, 1.0), "smaller one"),
        ((0.5, 0.1), (0.0, 1.0), "no logarithm"),
        ((math.nan, 0.1), (0.1, 1.0), "no logarithm"),
    ],
)
def test_standards_that_move_no_model_are_refused(
    estimated: tuple[float, float], standard: tuple[float, float], told: str
) -> None:
    with pytest.raises(UnusablePoints, match=told):
        two_point_offset(estimated, standard)


# -- any numbers -------------------------------------------------------------------------

ANY = st.floats(allow_nan=True, allow_infinity=True)
TAME = st.floats(-100, 100).map(lambda value: round(value, 2))
CLOSE = st.integers(0, 5).map(lambda steps: 1.0 + steps * 2.0**-40)
NUMBERS = st.one_of(ANY, TAME, CLOSE, st.integers(-5, 5).map(float))


@st.composite
def some_points(draw: st.DrawFn) -> tuple[list[float], list[float], list[float] | None]:
    size = draw(st.integers(0, 16))
    of_x, of_y = (
        draw(st.sampled_from([ANY, TAME, CLOSE, NUMBERS])),
        draw(st.sampled_from([ANY, TAME, NUMBERS])),
    )
    x = draw(st.lists(of_x, min_size=size, max_size=size))
    y = draw(st.lists(of_y, min_size=size, max_size=size))
    weights = draw(st.none() | st.lists(st.floats(0, 1e30), min_size=size, max_size=size))
    return x, y, weights


@settings(max_examples=200, deadline=None)
@given(some_points(), st.integers(-1, 7))
def test_any_numbers_give_a_curve_or_a_refusal(
    points: tuple[list[float], list[float], list[float] | None], degree: int
) -> None:
    x, y, weights = points
    fits: Sequence[Callable[[], Fit]] = (
        lambda: spline_auto(x, y, weights),
        lambda: akima(x, y),
        lambda: poly_auto(x, y),
        lambda: poly_fixed(x, y, degree, weights),
        lambda: line_through_origin(x, y),
    )
    for fit in fits:
        try:
            found = fit()
        except UnusablePoints:
            continue
        assert all(map(math.isfinite, found.residuals))
        assert math.isfinite(found.rmse)
        assert all(math.isfinite(p.value) for p in found.parameters)
        assert all(p.std_error is None or math.isfinite(p.std_error) for p in found.parameters)
        assert (found.x, found.y) == (tuple(x), tuple(y))
        found.view()
        try:
            found.curve.solve(sum(y) / len(y))
        except CurveError:
            pass  # extreme curves may have no finite root


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-50, 50), st.floats(-100, 100)), min_size=3, max_size=14).filter(
        lambda points: len({x for x, _ in points}) >= 3
    ),
    st.floats(0.01, 100),
    st.floats(-1000, 1000),
)
def test_a_fit_does_not_depend_on_the_unit_of_x(
    points: list[tuple[int, float]], factor: float, offset: float
) -> None:
    """The same curve in seconds and in minutes. (Not the polynomials' choice, by rounding.)"""
    x, y = [float(x) for x, _ in points], [y for _, y in points]
    there = [factor * value + offset for value in x]
    size = 1 + max(map(abs, y))
    for fit in (spline_auto, akima):
        here, moved = fit(x, y), fit(there, y)
        if len(here.parameters) != len(moved.parameters):
            continue  # two numbers of knots were equally good
        for at in x:
            assert moved.curve.evaluate(factor * at + offset) == pytest.approx(
                here.curve.evaluate(at), abs=1e-6 * size
            )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.1, 30), min_size=2, max_size=20),
    st.floats(0.001, 10),
    st.floats(-0.1, 0.1),
)
def test_no_other_line_through_the_origin_is_better(
    x: list[float], slope: float, by: float
) -> None:
    y = [slope * value + math.sin(7 * value) for value in x]
    fit = line_through_origin(x, y)
    best = fit.parameter("slope").value

    def sse(of: float) -> float:
        return math.fsum((b - of * a) ** 2 for a, b in zip(x, y, strict=True))

    assert sse(best) <= sse(best + by) + 1e-9 * (1 + sse(best))
