"""Dark offsets, in volts."""

from __future__ import annotations

import pytest

from piod.jobs.od.dark import DarkOffsets, dark_offset_volts
from piod.jobs.od.sampling import READING
from piod.jobs.od.signal import TimedVolts, signal_volts

DARK_VOLTS = 0.005


def converted(volts: float, full_scale_volts: float) -> list[TimedVolts]:
    """What an ADS1114 at one gain makes of a steady voltage."""
    counts = round(volts / full_scale_volts * 32767)
    return [(t_s, counts / 32767 * full_scale_volts) for t_s in READING.offsets_s]


@pytest.mark.parametrize("full_scale_volts", [0.512, 1.024, 2.048, 4.096])
def test_the_offset_is_the_same_at_every_gain(full_scale_volts: float) -> None:
    """D-3: upstream keeps counts of the dark reading's gain; 0.500 V and 5 mV gave 0.485 V."""
    offsets = DarkOffsets({"2": dark_offset_volts(converted(DARK_VOLTS, 0.256))})
    lit = converted(0.400 + DARK_VOLTS, full_scale_volts)
    assert signal_volts(offsets.subtract("2", lit)) == pytest.approx(0.400, abs=2e-4)


def test_a_channel_without_an_offset_has_none() -> None:
    samples = converted(0.1, 0.256)
    assert DarkOffsets({"1": 0.01}).subtract("2", samples) == samples


def test_noise_about_the_dark_does_not_lift_a_dark_signal() -> None:
    samples = [(t_s, DARK_VOLTS + 3e-4 * (-1) ** k) for k, t_s in enumerate(READING.offsets_s)]
    offsets = DarkOffsets({"1": dark_offset_volts(samples)})
    assert signal_volts(offsets.subtract("1", samples)) < 1e-6


def test_an_offset_is_never_negative() -> None:
    samples = [(t_s, -0.001) for t_s in READING.offsets_s]
    assert dark_offset_volts(samples) == 0
    assert dark_offset_volts(samples, 60) == 0
