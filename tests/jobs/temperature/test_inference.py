"""The liquid's temperature from a cooling heater board: the handbook's vectors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piod.jobs.temperature.inference import (
    REGRESSION,
    TWO_EXPONENTIALS,
    Inference,
    InferenceFailed,
    inference_for,
)


def cooling(count: int) -> list[float]:
    return [30 + 6 * math.exp(-0.15 * i) + 4 * math.exp(-0.01 * i) for i in range(count)]


@pytest.mark.parametrize(
    ("samples", "duty_percent", "celsius"),
    [([40 - 0.25 * i for i in range(21)], 20, 35.61856888), ([30.0] * 21, 10, 28.30671389)],
)
def test_the_regression_gives_the_vectors(
    samples: list[float], duty_percent: float, celsius: float
) -> None:
    assert REGRESSION.liquid_celsius(samples, duty_percent) == pytest.approx(celsius, abs=5e-9)


@pytest.mark.parametrize(("count", "celsius"), [(21, 33.25244494), (29, 32.86769278)])
def test_the_exponentials_give_the_vectors(count: int, celsius: float) -> None:
    inference = replace(TWO_EXPONENTIALS, sample_count=count)
    assert inference.liquid_celsius(cooling(count), 20) == pytest.approx(celsius, abs=5e-9)


@pytest.mark.parametrize("inference", [REGRESSION, TWO_EXPONENTIALS])
def test_a_heater_that_was_off_is_as_warm_as_the_liquid(inference: Inference) -> None:
    samples = cooling(inference.sample_count)
    assert inference.liquid_celsius(samples, 0) == samples[-1]


def test_only_the_first_20_ml_reactor_has_the_longer_schedule() -> None:
    """Upstream compares a text with a tuple, and gives it to none."""
    first = inference_for("pioreactor_20ml", "1.0")
    assert (first.sample_count, first.cycle_s) == (29, 225)
    for other in (("pioreactor_20ml", "1.1"), ("pioreactor_40ml", "1.0"), ("my_own", "1.0")):
        assert inference_for(*other) is REGRESSION
    assert (REGRESSION.sample_count, REGRESSION.cycle_s, REGRESSION.pause_s) == (21, 200, 5)


@pytest.mark.parametrize("inference", [REGRESSION, TWO_EXPONENTIALS])
@pytest.mark.parametrize("off_by", [-1, 1])
def test_another_number_of_readings_is_refused(inference: Inference, off_by: int) -> None:
    for duty_percent in (20, 0):
        with pytest.raises(InferenceFailed, match="readings"):
            inference.liquid_celsius(cooling(inference.sample_count + off_by), duty_percent)


@pytest.mark.parametrize("celsius", [math.nan, math.inf, 255.94, -40.0])
@pytest.mark.parametrize("duty_percent", [20, 0])
def test_a_reading_that_cannot_be_true_is_refused(celsius: float, duty_percent: float) -> None:
    with pytest.raises(InferenceFailed, match="cannot have been"):
        REGRESSION.liquid_celsius([*cooling(20), celsius], duty_percent)


@pytest.mark.parametrize("duty_percent", [-1, 100.5, math.nan])
def test_a_duty_cycle_that_cannot_be_is_refused(duty_percent: float) -> None:
    with pytest.raises(InferenceFailed, match="duty cycle"):
        REGRESSION.liquid_celsius(cooling(21), duty_percent)


def test_a_result_far_from_the_readings_is_refused() -> None:
    jump = [60.0] + [30.0] * 20
    with pytest.raises(InferenceFailed, match="cannot be at"):
        REGRESSION.liquid_celsius(jump, 20)


@pytest.mark.parametrize("inference", [REGRESSION, TWO_EXPONENTIALS])
@given(data=st.data())
def test_whatever_is_read_the_liquid_is_near_it_or_unknown(
    inference: Inference, data: st.DataObject
) -> None:
    """A thermostat must never be told a wild temperature."""
    count = inference.sample_count
    samples = data.draw(st.lists(st.floats(-20, 125), min_size=count, max_size=count))
    duty_percent = data.draw(st.floats(0, 100))
    try:
        celsius = inference.liquid_celsius(samples, duty_percent)
    except InferenceFailed:
        return
    assert min(samples) - 15 <= celsius <= max(samples) + 3


@given(st.floats(20, 28), st.floats(4, 40))
def test_the_regression_finds_the_liquid_under_the_simulated_board(
    room: float, duty_percent: float
) -> None:
    """Periodic steady state of the handbook's board (§6.2): 89 s on, 111 s off."""

    def excess(gain: float, tau_s: float, at_s: float) -> float:
        full = gain * duty_percent
        warmed = full * (1 - math.exp(-89 / tau_s)) / (1 - math.exp(-200 / tau_s))
        return warmed * math.exp(-at_s / tau_s)

    def liquid(at_s: float) -> float:
        return room + excess(1.4864, 1500, at_s)

    def board(at_s: float) -> float:
        return liquid(at_s) + 0.237 + excess(0.0852, 22.81, at_s) + excess(0.1081, 103.1, at_s)

    inferred = REGRESSION.liquid_celsius([board(5.3 * k) for k in range(21)], duty_percent)
    assert inferred == pytest.approx(liquid(111), abs=0.7)
