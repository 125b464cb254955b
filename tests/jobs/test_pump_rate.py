"""How much a pump moves: never less in more time, and never outside of its own bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest

from piod.calibrations.records import parse_calibration
from piod.jobs.liquids import Amount, Flow
from piod.jobs.pump_rate import PumpRate, calibrated, following, pulsed, uncalibrated
from tests.jobs.pump_bench import DEVICE

CURVES = {
    "line": "{type: poly, coefficients: [0.09, 0]}",
    "line above the origin": "{type: poly, coefficients: [0, 0.09, 0.05]}",
    "line below the origin": "{type: poly, coefficients: [0.09, -0.05]}",
    "parabola": "{type: poly, coefficients: [0.01, 0.1, 0.02]}",
    "spline": "{type: spline, knots: [1, 3, 6], "
    "coefficients: [[0.1, 0.1, 0, 0], [0.3, 0.05, 0, 0]]}",
}


def rate_of(curve: str, recorded: str = "{x: [1, 6], y: [0.1, 1]}") -> PumpRate:
    text = DEVICE.format(name="cal", curve=curve, recorded=recorded, dc=100)
    return calibrated("media", parse_calibration(text))


RATES = {
    **{name: rate_of(curve) for name, curve in CURVES.items()},
    "line without points": rate_of(CURVES["line below the origin"], "{x: [], y: []}"),
    "none": uncalibrated("media"),
}


def values(amount: Amount) -> tuple[float, float, float]:
    return amount.least_ml, amount.expected_ml, amount.most_ml


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize("of", ["a run", "its rest", "pulses"])
def test_more_time_never_moves_less_and_the_bounds_hold(rate: PumpRate, of: str) -> None:
    flows: dict[str, Flow] = {
        "a run": rate.flow,
        "its rest": following(rate.flow, 2.5),
        "pulses": pulsed(rate.flow, 0.7),
    }
    flow = flows[of]
    assert values(flow(0)) == (0, 0, 0)
    amounts = [flow(0.013 * step) for step in range(1500)]
    for before, after in pairwise(amounts):
        assert 0 <= after.least_ml <= after.expected_ml <= after.most_ml
        assert all(b <= a + 1e-9 for b, a in zip(values(before), values(after), strict=True))


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_a_run_in_parts_moves_what_it_moves_in_one(rate: PumpRate) -> None:
    parts = [rate.flow(2), following(rate.flow, 2)(3), following(rate.flow, 5)(4)]
    least_ml, expected_ml, most_ml = (sum(each) for each in zip(*map(values, parts), strict=True))
    whole = rate.flow(9)
    assert expected_ml == pytest.approx(whole.expected_ml)
    assert least_ml <= whole.least_ml + 1e-9
    assert most_ml >= whole.most_ml - 1e-9


@pytest.mark.parametrize("rate", [rate_of(curve) for curve in CURVES.values()], ids=CURVES)
def test_a_dose_takes_the_time_in_which_it_is_moved(rate: PumpRate) -> None:
    for volume_ml in (0.06, 0.1, 0.25, 0.4):
        assert rate.flow(rate.seconds_for(volume_ml)).expected_ml == pytest.approx(volume_ml)


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_the_longest_run_below_a_room_is_just_below_it(rate: PumpRate) -> None:
    seconds = rate.longest_below(3)
    assert 2.999 < rate.flow(seconds).most_ml < 3
    assert rate.longest_below(0) == 0


def test_a_step_at_the_start_leaves_no_room_below_it() -> None:
    assert RATES["line above the origin"].longest_below(0.05) == 0


TRUE_ML_PER_S = 0.09


def true_ml(seconds: float) -> float:
    return TRUE_ML_PER_S * max(0.0, seconds - 0.05)


def tilted(first_off: float, last_off: float) -> PumpRate:
    """A line through points at 10 and 30 s, each so much off the truth."""
    low_ml, high_ml = (1 + first_off) * true_ml(10), (1 + last_off) * true_ml(30)
    slope = (high_ml - low_ml) / 20
    return rate_of(
        f"{{type: poly, coefficients: [{slope}, {low_ml - 10 * slope}]}}",
        f"{{x: [10, 30], y: [{low_ml}, {high_ml}]}}",
    )


@pytest.mark.parametrize("off", [(-0.027, 0.027), (0.027, -0.027), (-0.01, 0.0), (0.0, 0.0)])
def test_a_line_through_points_that_are_a_little_off_holds_for_every_dose(
    off: tuple[float, float],
) -> None:
    """The tilt gives it an intercept, which small doses do not have; nor do long runs."""
    rate = tilted(*off)
    for step in range(1, 2000):
        seconds = 0.05 * step
        amount = rate.flow(seconds)
        assert amount.least_ml <= true_ml(seconds) <= amount.most_ml
        assert 0 <= amount.least_ml <= amount.expected_ml <= amount.most_ml
        # of a waste pump: no more room than there is, in any part of a run
        assert following(rate.flow, seconds)(10).least_ml <= 10 * TRUE_ML_PER_S


def test_a_line_with_an_intercept_and_no_points_is_not_sure_to_move_anything() -> None:
    for intercept in (0.05, -0.05):
        rate = rate_of(f"{{type: poly, coefficients: [0.09, {intercept}]}}", "{x: [], y: []}")
        amount = rate.flow(10)
        assert (amount.least_ml, amount.expected_ml) == (0, pytest.approx(0.9 + intercept))
        assert amount.most_ml >= 1.3 * 0.9


@pytest.mark.parametrize("seconds", [0.5, 9.0])
def test_a_curve_beyond_its_points_may_go_on_as_it_did_or_straight(seconds: float) -> None:
    amount = RATES["parabola"].flow(seconds)
    end_s = 1.0 if seconds < 1 else 6.0
    end_ml = 0.01 * end_s**2 + 0.1 * end_s + 0.02
    straight_ml = end_ml * seconds / end_s
    on_ml = end_ml + (0.02 * end_s + 0.1) * (seconds - end_s)
    assert amount.least_ml <= 0.975 * min(straight_ml, on_ml)
    assert amount.most_ml >= 1.025 * max(straight_ml, on_ml)
