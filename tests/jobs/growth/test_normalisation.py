"""Normalised OD: the scale of an experiment, robust against bubbles and growth."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from piod.errors import BadRequest
from piod.jobs.growth.normalisation import (
    Normalisation,
    OdStatistics,
    UnusableReadings,
    read_by_channel,
    trimmed_mean,
    variance_about_line,
)


def test_the_mean_drops_two_at_each_end() -> None:
    assert trimmed_mean([5, 1, 100, 2, 3, -50, 4]) == 3


def test_growth_during_the_readings_is_no_noise() -> None:
    assert variance_about_line([1 + 0.01 * k for k in range(35)]) == pytest.approx(0, abs=1e-20)


def test_the_variance_is_that_of_the_inner_residuals() -> None:
    ripple = [0.0, 0.3, -0.3, 0.1, -0.1, 0.2, -0.2, 0.05, -0.05, 0.15, -0.15, 0.25, -0.25]
    values = [2.0 + value for value in (*ripple, *reversed(ripple))]
    rest = sorted(values)[1:-1]
    # A symmetric series but for the two that are dropped: the line is nearly level.
    inner = sorted(value - statistics.fmean(rest) for value in rest)[2:-2]
    assert variance_about_line(values) == pytest.approx(statistics.variance(inner), rel=0.05)


def test_a_bubble_sets_neither_mean_nor_variance() -> None:
    noise = random.Random(1)
    clean = [1 + noise.gauss(0, 0.01) for _ in range(35)]
    bubbled = [*clean]
    bubbled[11] = 4.0
    assert trimmed_mean(bubbled) == pytest.approx(trimmed_mean(clean), rel=0.01)
    assert variance_about_line(bubbled) == pytest.approx(variance_about_line(clean), rel=0.5)


def test_the_first_od_becomes_one_and_the_blank_zero() -> None:
    normalisation = Normalisation(OdStatistics({"1": 0.3}, {"1": 0.0004}), {"1": 0.1})
    assert normalisation.normalise({"1": 0.3}) == pytest.approx({"1": 1.0})
    assert normalisation.normalise({"1": 0.5, "2": 9.0}) == pytest.approx({"1": 2.0})
    assert normalisation.variances == pytest.approx({"1": 0.01})
    assert normalisation.ignored_blanks == []


@pytest.mark.parametrize("blank", [0.271, 1.0, math.nan, -0.1])
def test_a_blank_above_the_culture_is_ignored(blank: float) -> None:
    normalisation = Normalisation(OdStatistics({"1": 0.3}, {"1": 0.0004}), {"1": blank})
    assert normalisation.ignored_blanks == ["1"]
    assert normalisation.normalise({"1": 0.6}) == pytest.approx({"1": 2.0})


def test_a_blank_of_nine_tenths_is_taken() -> None:
    normalisation = Normalisation(OdStatistics({"1": 0.3}, {"1": 0.0004}), {"1": 0.9 * 0.3})
    assert normalisation.ignored_blanks == []


@pytest.mark.parametrize("od", [0.1, 0.05, 0.0, -1.0, math.nan, math.inf])
def test_a_reading_at_or_below_its_blank_is_refused(od: float) -> None:
    normalisation = Normalisation(OdStatistics({"1": 0.3}, {"1": 0.0004}), {"1": 0.1})
    with pytest.raises(UnusableReadings, match="channel 1"):
        normalisation.normalise({"1": od})


def test_a_reading_without_a_channel_is_refused() -> None:
    normalisation = Normalisation(OdStatistics({"1": 0.3, "2": 1}, {"1": 0.0004, "2": 0.1}), {})
    with pytest.raises(UnusableReadings, match="lacks channel 2"):
        normalisation.normalise({"1": 0.3})


@pytest.mark.parametrize("mean", [0.0, -0.2, math.nan, math.inf])
def test_a_scale_that_cannot_be_is_refused(mean: float) -> None:
    with pytest.raises(UnusableReadings):
        Normalisation(OdStatistics({"1": mean}, {"1": 0.1}), {})


def test_statistics_keep_the_channels_apart_and_survive_a_restart() -> None:
    readings = [{"1": 0.1 + 0.001 * (-1) ** k, "3": 2.0 + 0.1 * (-1) ** k} for k in range(35)]
    found = OdStatistics.of(readings)
    assert found.mean == pytest.approx({"1": 0.1, "3": 2.0}, rel=1e-2)
    assert found.variance == pytest.approx({"1": 1e-6, "3": 1e-2}, rel=0.1)
    assert OdStatistics.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    "readings",
    [
        [],
        [{"1": 0.1}] * 7,
        [{}] * 35,
        [{"1": 0.1}] * 34 + [{"2": 0.1}],
        [{"1": 0.1}] * 34 + [{"1": math.nan}],
    ],
    ids=["none", "seven", "no channels", "another channel", "nan"],
)
def test_readings_that_make_no_statistics_are_refused(readings: list[dict[str, float]]) -> None:
    with pytest.raises(UnusableReadings):
        OdStatistics.of(readings)


@pytest.mark.parametrize(
    "kept",
    [
        None,
        {},
        {"mean": {"1": 0.1}},
        {"mean": {"1": 0.1}, "variance": {"2": 0.1}},
        {"mean": {"1": 0.1}, "variance": {"1": -0.1}},
        {"mean": {"1": math.inf}, "variance": {"1": 0.1}},
        {"mean": {"1": "0.1"}, "variance": {"1": 0.1}},
        {"mean": [0.1], "variance": [0.1]},
    ],
)
def test_kept_statistics_that_cannot_be_are_refused(kept: object) -> None:
    with pytest.raises(BadRequest):
        OdStatistics.from_json(kept)


def test_blanks_are_numbers_by_channel() -> None:
    assert read_by_channel({"1": 0, "2": 0.02}, "od_blank") == {"1": 0.0, "2": 0.02}
    with pytest.raises(BadRequest, match=r"od_blank\.2"):
        read_by_channel({"1": 0, "2": None}, "od_blank")
