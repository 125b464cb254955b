"""How much infrared light, and too much of it."""

from __future__ import annotations

import math

import pytest

from piod.errors import Unavailable
from piod.jobs.od.light import Glare, auto_intensity_percent, glare


@pytest.mark.parametrize(
    ("signals", "reference", "percent"),
    [
        ([0.03], 0.1, 85.0),  # both are dim enough
        ([0.0782], 0.1, 65.22),  # the signal decides
        ([0.03], 0.35, 60.71),  # REF decides
        ([0.6], 2.0, 50.0),  # never below
        ([0.0], -0.001, 85.0),
        ([0.6, 0.6], 2.0, 85.0),  # several signals: not chosen
        ([0.6], None, 85.0),
        ([], 0.3, 85.0),
    ],
)
def test_auto_keeps_signal_and_reference_in_range(
    signals: list[float], reference: float | None, percent: float
) -> None:
    assert auto_intensity_percent(signals, reference) == percent


@pytest.mark.parametrize(("signals", "reference"), [([math.nan], 0.1), ([0.1], math.inf)])
def test_auto_refuses_what_is_no_number(signals: list[float], reference: float) -> None:
    with pytest.raises(Unavailable):
        auto_intensity_percent(signals, reference)


@pytest.mark.parametrize(
    ("volts", "verdict"),
    [
        (0.3, Glare.NONE),
        (3.0, Glare.NONE),
        (3.01, Glare.WARNING),
        (3.2, Glare.WARNING),
        (3.21, Glare.DANGER),
        (math.nan, Glare.DANGER),
    ],
)
def test_glare_is_judged(volts: float, verdict: Glare) -> None:
    assert glare(volts) is verdict
