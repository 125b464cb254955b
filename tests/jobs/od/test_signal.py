"""One voltage from forty samples: the handbook's vectors, and what must hold for all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piod.errors import BadRequest
from piod.jobs.od.sampling import READING, TUNING, SamplingPlan
from piod.jobs.od.signal import (
    TimedVolts,
    UnusableSamples,
    choose_hum_hz,
    hum_aic,
    prior_penalty,
    signal_volts,
)

COUNTS_PER_VOLT = 4095 * 32 / 3.3


def humming(plan: SamplingPlan, scale: float = 1.0) -> list[TimedVolts]:
    """The handbook's samples: 2000, hum of 50 Hz and an alternating error."""
    return [
        (t_s, scale * (2000 + 30 * math.sin(2 * math.pi * 50 * t_s + 1) + 5 * (-1) ** k))
        for k, t_s in enumerate(plan.offsets_s)
    ]


@pytest.mark.parametrize(
    ("hum_hz", "with_prior"), [(50.0, 1996.110869), (60.0, 1995.310107), (None, 1995.799228)]
)
def test_it_gives_the_vectors_with_a_prior(hum_hz: float | None, with_prior: float) -> None:
    signal = signal_volts(humming(READING), hum_hz=hum_hz, prior_volts=1990, penalty=24)
    assert signal == pytest.approx(with_prior, abs=5e-7)


@pytest.mark.parametrize(("hum_hz", "alone"), [(50.0, 1999.981716), (60.0, 1999.255808)])
def test_it_gives_the_vectors_without_a_prior(hum_hz: float, alone: float) -> None:
    assert signal_volts(humming(READING), hum_hz=hum_hz) == pytest.approx(alone, abs=5e-7)


@pytest.mark.parametrize("hum_hz", [50.0, None])
def test_volts_give_the_same_as_counts(hum_hz: float | None) -> None:
    in_counts = signal_volts(humming(READING), hum_hz=hum_hz, prior_volts=1990, penalty=24)
    in_volts = signal_volts(
        humming(READING, 1 / COUNTS_PER_VOLT),
        hum_hz=hum_hz,
        prior_volts=1990 / COUNTS_PER_VOLT,
        penalty=24,
    )
    assert in_volts * COUNTS_PER_VOLT == pytest.approx(in_counts, rel=1e-12)


def test_the_criterion_of_the_hum_is_that_of_the_vectors() -> None:
    samples = humming(TUNING)
    assert hum_aic(samples, 60) == pytest.approx(42.402894, abs=5e-7)
    assert hum_aic(samples, 50) == pytest.approx(27.066994, abs=5e-7)
    assert choose_hum_hz(samples) == 50


def test_without_any_hum_sixty_hertz_is_taken() -> None:
    silent = [(t_s, 0.5) for t_s in TUNING.offsets_s]
    assert hum_aic(silent, 50) == -math.inf
    assert choose_hum_hz(silent) == 60


@given(
    volts=st.floats(0.005, 3.0),
    hum_part=st.floats(0.0, 0.3),
    phase=st.floats(0.0, 7.0),
    hum_hz=st.sampled_from([50.0, 60.0]),
)
def test_hum_of_any_phase_leaves_the_signal_alone(
    volts: float, hum_part: float, phase: float, hum_hz: float
) -> None:
    samples = [
        (t_s, volts * (1 + hum_part * math.sin(2 * math.pi * hum_hz * t_s + phase)))
        for t_s in READING.offsets_s
    ]
    assert signal_volts(samples, hum_hz=hum_hz) == pytest.approx(volts, rel=1e-9)
    prior = 0.9 * volts
    pulled = signal_volts(samples, hum_hz=hum_hz, prior_volts=prior, penalty=24)
    assert prior < pulled < volts


@settings(max_examples=50)
@given(st.lists(st.floats(0.0, 3.3), min_size=40, max_size=40), st.floats(0.0, 3.3))
def test_any_samples_give_a_number_of_volts(volts: list[float], prior: float) -> None:
    samples = list(zip(READING.offsets_s, volts, strict=True))
    for hum_hz in (50.0, None):
        signal = signal_volts(samples, hum_hz=hum_hz, prior_volts=prior, penalty=24)
        assert 0 <= signal < 10


def test_one_bubble_is_dropped() -> None:
    samples = [(t_s, 0.2) for t_s in READING.offsets_s]
    samples[17] = (samples[17][0], 3.0)
    assert signal_volts(samples) == pytest.approx(0.2)
    assert signal_volts(samples, hum_hz=60) == pytest.approx(0.2)


@pytest.mark.parametrize("hum_hz", [50.0, None])
def test_a_signal_of_zero_is_no_prior(hum_hz: float | None) -> None:
    samples = humming(READING)
    alone = signal_volts(samples, hum_hz=hum_hz)
    for prior in (0.0, math.nan, None):
        assert signal_volts(samples, hum_hz=hum_hz, prior_volts=prior, penalty=24) == alone


def test_below_the_dark_there_is_no_signal() -> None:
    assert signal_volts([(t_s, -0.001) for t_s in READING.offsets_s], hum_hz=60) == 0


def test_samples_in_step_with_the_hum_are_averaged() -> None:
    """At one phase of the hum nobody can tell it from the signal."""
    samples = [(0.0031 + k / 50, 1.0 + 0.01 * (-1) ** k) for k in range(40)]
    assert signal_volts(samples, hum_hz=50) == pytest.approx(1.0)
    assert signal_volts(samples, hum_hz=50, prior_volts=0.5, penalty=38) == pytest.approx(0.75)


@pytest.mark.parametrize(
    "samples",
    [
        humming(READING)[:7],
        [],
        [(t_s, math.nan) for t_s in READING.offsets_s],
        [(t_s, math.inf) for t_s in READING.offsets_s],
        [(math.nan, 0.1) for _ in READING.offsets_s],
        list(reversed(humming(READING))),
    ],
    ids=["seven", "none", "nan", "infinite", "times that are nan", "backwards"],
)
def test_unusable_samples_are_refused(samples: list[TimedVolts]) -> None:
    for hum_hz in (60.0, None):
        with pytest.raises(UnusableSamples):
            signal_volts(samples, hum_hz=hum_hz)
    with pytest.raises(UnusableSamples):
        choose_hum_hz(samples)


def test_the_prior_counts_less_the_longer_it_is_ago() -> None:
    penalty = prior_penalty(3.0, 5.0)
    assert penalty == 24
    assert penalty / (38 + penalty) == pytest.approx(0.39, abs=0.005)
    assert prior_penalty(3.0, 60.0) == 2
    assert prior_penalty(0.0, 5.0) == 0


@pytest.mark.parametrize(
    ("penalizer", "interval_s"), [(3.0, 0.0), (3.0, -5.0), (3.0, math.nan), (-1.0, 5.0)]
)
def test_a_prior_that_cannot_be_is_refused(penalizer: float, interval_s: float) -> None:
    with pytest.raises(BadRequest):
        prior_penalty(penalizer, interval_s)


def test_the_samples_of_a_reading_are_spread_over_less_than_half_a_second() -> None:
    offsets = READING.offsets_s
    assert len(offsets) == 40
    assert offsets[0] == 0
    assert list(offsets) == sorted(offsets)
    assert offsets[-1] == pytest.approx(0.413, abs=5e-4)
    assert TUNING.offsets_s[-1] == pytest.approx(0.118, abs=5e-4)
