"""Exponential mean and standard deviation, by the handbook's example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piod.jobs.exponential import ExponentialMean, ExponentialStd

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def test_the_std_starts_from_its_initial_value() -> None:
    std = ExponentialStd(0.95, 0.8, variance=0.001**2)
    assert std.update(1.00) == pytest.approx(0.001)
    assert [std.update(x) for x in (1.01, 0.99, 1.20)] == pytest.approx(
        [0.0022249, 0.0032346, 0.0402038], abs=5e-8
    )


def test_after_a_reset_the_initial_value_is_gone() -> None:
    std = ExponentialStd(0.95, 0.8, variance=0.001**2)
    std.update(1.0)
    std.reset()
    assert std.update(1.20) == 0
    assert [std.update(x) for x in (1.21, 1.19)] == pytest.approx([0.0089443, 0.0090421], abs=5e-8)


def test_whole_numbers_are_numbers() -> None:
    """Upstream's mean aborts on an integer."""
    mean = ExponentialMean(0.75)
    assert [mean.update(value) for value in (1, 2, 2)] == [1.0, 1.25, 1.4375]
    std = ExponentialStd(0.95, 0.8)
    assert [std.update(value) for value in (1, 2)] == pytest.approx([0.0, 0.8**0.5])


@given(NUMBERS)
def test_the_mean_stays_within_what_was_seen(values: list[float]) -> None:
    mean = ExponentialMean(0.75)
    for value in values:
        latest = mean.update(value)
    margin = 1e-9 * max(map(abs, values))
    assert min(values) - margin <= latest <= max(values) + margin


@given(NUMBERS)
def test_the_variance_is_never_negative(values: list[float]) -> None:
    std = ExponentialStd(0.95, 0.8)
    assert all(std.update(value) >= 0 for value in values)
