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


def rate_of(curve: str) -> PumpRate:
    text = DEVICE.format(name="cal", curve=curve, recorded="{x: [1, 6], y: [0.1, 1]}", dc=100)
    return calibrated("media", parse_calibration(text))


RATES = {**{name: rate_of(curve) for name, curve in CURVES.items()}, "none": uncalibrated("media")}


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
