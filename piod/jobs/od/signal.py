"""One voltage from the samples of a reading, without the hum of the mains.

Samples are pairs of seconds (in order) and volts, with the dark offset already
subtracted. The lowest and the highest are dropped. Then

* with a hum frequency: least squares of y = C + b·sin(2πft) + c·cos(2πft), C being the signal;
* without one (an ADC that filters the hum itself): the mean.

Both take a prior, the previous signal, which counts as much as ``penalty`` samples.
In volts the prior holds through a change of gain. Source: handbook jobs-and-hardware §2.2,
where the same calculation is done in ADC counts; it is linear, so at one gain the results
are the same but for the scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from piod.errors import BadRequest, Unavailable
from piod.jobs.od.sampling import READING

TimedVolts: TypeAlias = tuple[float, float]
"""Seconds, volts."""

HUM_HZ = (60.0, 50.0)
"""The mains frequencies of the world; the first is taken if both fit as well."""

_LEAST_SAMPLES = 8
"""Six remain after trimming, for the three unknowns of the fit."""
_EXACT_FIT = 1e-20
"""A sum of squares up to this is rounding, not noise."""
_LEAST_DETERMINANT = 1e-3
"""Part of its usual size; below, the samples lie so that hum and signal look alike."""


class UnusableSamples(Unavailable):
    """The samples of a reading cannot be made into a signal."""

    default_remediation = (
        "If it persists, check the photodiodes and the HAT; the log of piod has the details."
    )


def prior_penalty(smoothing_penalizer: float, interval_s: float) -> float:
    """The weight of the prior, in samples, for readings ``interval_s`` apart.

    The longer the interval the less the previous reading says: 40·penalizer/interval.
    Raises BadRequest for an interval that is not above 0 or a penalizer below 0.
    """
    if not (0 < interval_s < math.inf):
        raise BadRequest(f"the interval of OD readings must be above 0 s, not {interval_s}")
    if not (0 <= smoothing_penalizer < math.inf):
        raise BadRequest(f"smoothing_penalizer must be 0 or more, not {smoothing_penalizer}")
    return READING.count * smoothing_penalizer / interval_s


def signal_volts(
    samples: Sequence[TimedVolts],
    *,
    hum_hz: float | None = None,
    prior_volts: float | None = None,
    penalty: float = 0.0,
) -> float:
    """The signal of ``samples`` in volts, 0 at least.

    ``prior_volts`` None or 0: there is no prior (a signal that was cut off at 0 tells
    nothing). Raises UnusableSamples for fewer than 8 samples, values that are not finite
    or times that go back.
    """
    kept = _trimmed(samples)
    if prior_volts is None or not (0 < prior_volts < math.inf):
        prior_volts, penalty = 0.0, 0.0
    if hum_hz is None:
        return max(0.0, _mean(kept, prior_volts, penalty))
    return max(0.0, _fit(kept, hum_hz, prior_volts, penalty)[0])


def mean_volts(samples: Sequence[TimedVolts]) -> float:
    """The plain mean of all samples, in volts. Raises as :func:`signal_volts` does."""
    _check(samples)
    return sum(volts for _, volts in samples) / len(samples)


def hum_aic(samples: Sequence[TimedVolts], hum_hz: float) -> float:
    """Akaike's criterion of the fit with hum of ``hum_hz``: the lower the better.

    n·ln(SSE/n) + 6, −∞ for an exact fit. Raises as :func:`signal_volts` does.
    """
    kept = _trimmed(samples)
    signal, sine, cosine = _fit(kept, hum_hz, 0.0, 0.0)
    turn = 2 * math.pi * hum_hz
    squares = sum(
        (volts - signal - sine * math.sin(turn * t_s) - cosine * math.cos(turn * t_s)) ** 2
        for t_s, volts in kept
    )
    if squares <= _EXACT_FIT:
        return -math.inf
    return len(kept) * math.log(squares / len(kept)) + 6


def choose_hum_hz(samples: Sequence[TimedVolts]) -> float:
    """Which of :data:`HUM_HZ` explains ``samples`` best. Raises as :func:`signal_volts` does."""
    return min(HUM_HZ, key=lambda hum_hz: hum_aic(samples, hum_hz))


def _check(samples: Sequence[TimedVolts]) -> None:
    if len(samples) < _LEAST_SAMPLES:
        raise UnusableSamples(
            f"an OD reading needs {_LEAST_SAMPLES} samples at least, it has {len(samples)}"
        )
    previous = -math.inf
    for t_s, volts in samples:
        if not (math.isfinite(t_s) and math.isfinite(volts)):
            raise UnusableSamples(f"a sample of an OD reading is no number: {volts} V at {t_s} s")
        if t_s < previous:
            raise UnusableSamples("the samples of an OD reading are not in order of time")
        previous = t_s


def _trimmed(samples: Sequence[TimedVolts]) -> list[TimedVolts]:
    """All but the lowest and the highest sample, still in order of time."""
    _check(samples)
    volts = [value for _, value in samples]
    lowest, highest = volts.index(min(volts)), volts.index(max(volts))
    if lowest == highest:  # all are equal
        highest += 1
    return [sample for index, sample in enumerate(samples) if index not in (lowest, highest)]


def _mean(kept: Sequence[TimedVolts], prior: float, penalty: float) -> float:
    return (sum(volts for _, volts in kept) + penalty * prior) / (len(kept) + penalty)


def _fit(
    kept: Sequence[TimedVolts], hum_hz: float, prior: float, penalty: float
) -> tuple[float, float, float]:
    """C, b and c of C + b·sin + c·cos, with penalty·(C − prior)² added to the squares.

    The normal equations, C eliminated by hand. Where the samples cannot tell hum from
    signal, the hum is taken to be 0.
    """
    turn = 2 * math.pi * hum_hz
    sin_sum = cos_sum = sin_sin = sin_cos = cos_cos = volts_sin = volts_cos = 0.0
    mean = _mean(kept, prior, penalty)
    for t_s, volts in kept:
        sine, cosine = math.sin(turn * t_s), math.cos(turn * t_s)
        rest = volts - mean
        sin_sum += sine
        cos_sum += cosine
        sin_sin += sine * sine
        sin_cos += sine * cosine
        cos_cos += cosine * cosine
        volts_sin += rest * sine
        volts_cos += rest * cosine
    weight = len(kept) + penalty
    sin_sin -= sin_sum * sin_sum / weight
    sin_cos -= sin_sum * cos_sum / weight
    cos_cos -= cos_sum * cos_sum / weight
    determinant = sin_sin * cos_cos - sin_cos * sin_cos
    if determinant < _LEAST_DETERMINANT * (len(kept) / 2) ** 2:
        return mean, 0.0, 0.0
    b = (volts_sin * cos_cos - volts_cos * sin_cos) / determinant
    c = (volts_cos * sin_sin - volts_sin * sin_cos) / determinant
    return mean - (b * sin_sum + c * cos_sum) / weight, b, c
