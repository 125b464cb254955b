"""Normalised OD: how many times the culture's first density, its blank taken off.

The first readings of an experiment give each channel's mean and variance
(:class:`OdStatistics`), and are kept; with the blanks of ``od_blank`` they make a
:class:`Normalisation`. Source: handbook jobs-and-hardware §2.4, §2.9. Channels are texts
such as ``"1"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from piod.calibrations.fields import read_mapping, read_number, required
from piod.errors import BadRequest, Unavailable
from piod.events import JsonValue

_CUT = 2
"""Values dropped at each end: a bubble must not set the scale of an experiment."""
LEAST_READINGS = 8
"""After all trimming the variance has two values left."""
_BLANK_AT_MOST = 0.9
"""Part of the mean; a blank above it was measured on something else."""


class UnusableReadings(Unavailable):
    """OD readings from which growth cannot be calculated."""

    default_remediation = (
        "Check the vial, the photodiodes and the blank (od_blank); the next readings are tried."
    )


def trimmed_mean(values: Sequence[float], cut: int = _CUT) -> float:
    """The mean without the ``cut`` lowest and highest. Raises UnusableReadings."""
    if len(values) <= 2 * cut:
        raise UnusableReadings(f"{len(values)} OD readings are too few for a trimmed mean")
    kept = sorted(_finite(values))[cut : len(values) - cut]
    return sum(kept) / len(kept)


def variance_about_line(values: Sequence[float]) -> float:
    """The sample variance of ``values`` about a straight line over their order.

    Growth during the readings is not noise. Lowest and highest value are dropped before
    the line is drawn, then the two lowest and highest residuals. Raises UnusableReadings
    for fewer than :data:`LEAST_READINGS` values.
    """
    if len(values) < LEAST_READINGS:
        raise UnusableReadings(
            f"the variance of OD needs {LEAST_READINGS} readings at least, not {len(values)}"
        )
    by_value = sorted(range(len(values)), key=lambda index: _finite(values)[index])
    kept = sorted(by_value[1:-1])
    middle = sum(kept) / len(kept)
    mean = sum(values[index] for index in kept) / len(kept)
    slope = sum((index - middle) * (values[index] - mean) for index in kept) / sum(
        (index - middle) ** 2 for index in kept
    )
    residuals = sorted(values[index] - mean - slope * (index - middle) for index in kept)
    inner = residuals[_CUT : len(residuals) - _CUT]
    centre = sum(inner) / len(inner)
    return sum((residual - centre) ** 2 for residual in inner) / (len(inner) - 1)


@dataclass(frozen=True)
class OdStatistics:
    """Mean and variance of each channel's first readings."""

    mean: Mapping[str, float]
    variance: Mapping[str, float]

    @classmethod
    def of(cls, readings: Sequence[Mapping[str, float]]) -> OdStatistics:
        """From readings by channel, in order. Raises UnusableReadings.

        Each reading has the same channels.
        """
        channels = readings[0].keys() if readings else ()
        if not channels or any(reading.keys() != channels for reading in readings):
            raise UnusableReadings("the OD readings do not all have the same channels")
        series = {channel: [reading[channel] for reading in readings] for channel in channels}
        return cls(
            {channel: trimmed_mean(values) for channel, values in series.items()},
            {channel: variance_about_line(values) for channel, values in series.items()},
        )

    def to_json(self) -> JsonValue:
        return {"mean": dict(self.mean), "variance": dict(self.variance)}

    @classmethod
    def from_json(cls, value: object) -> OdStatistics:
        """Raises BadRequest if ``value`` is not what :meth:`to_json` gives."""
        fields = read_mapping(value, "od_statistics")
        mean = read_by_channel(required(fields, "mean"), "mean")
        variance = read_by_channel(required(fields, "variance"), "variance")
        if mean.keys() != variance.keys():
            raise BadRequest("mean and variance of the OD statistics have other channels")
        return cls(mean, variance)


def read_by_channel(value: object, where: str) -> dict[str, float]:
    """Numbers of 0 or more by channel, such as blanks. Raises BadRequest."""
    return {
        channel: read_number(number, f"{where}.{channel}", minimum=0.0)
        for channel, number in read_mapping(value, where).items()
    }


class Normalisation:
    """Makes normalised ODs: (od − blank)/(mean − blank), by channel.

    A blank above 0.9 of the mean is taken as 0 (``ignored_blanks`` names its channel).
    Raises UnusableReadings if a mean is not above 0.
    """

    def __init__(self, statistics: OdStatistics, blanks: Mapping[str, float]) -> None:
        self.ignored_blanks: list[str] = []
        self.variances: dict[str, float] = {}
        """Of the normalised OD, by channel."""
        self._blank_and_span: dict[str, tuple[float, float]] = {}
        for channel, mean in statistics.mean.items():
            if not 0 < mean < math.inf:
                raise UnusableReadings(
                    f"the first OD readings of channel {channel} were {mean} on the average: "
                    "nothing can be normalised by that"
                )
            blank = blanks.get(channel, 0.0)
            if not 0 <= blank <= _BLANK_AT_MOST * mean:
                self.ignored_blanks.append(channel)
                blank = 0.0
            span = mean - blank
            self._blank_and_span[channel] = blank, span
            self.variances[channel] = statistics.variance[channel] / span**2

    def normalise(self, reading: Mapping[str, float]) -> dict[str, float]:
        """The normalised OD by channel. Raises UnusableReadings.

        A reading must have every channel; at or below its blank it says nothing of growth.
        """
        normalised = {}
        for channel, (blank, span) in self._blank_and_span.items():
            if channel not in reading:
                raise UnusableReadings(f"the OD reading lacks channel {channel}")
            value = (reading[channel] - blank) / span
            if not 0 < value < math.inf:
                raise UnusableReadings(
                    f"channel {channel} reads an OD of {reading[channel]:.6g}, which is not above "
                    f"its blank of {blank:.6g}"
                )
            normalised[channel] = value
        return normalised


def _finite(values: Sequence[float]) -> Sequence[float]:
    if not all(map(math.isfinite, values)):
        raise UnusableReadings("an OD reading is no number")
    return values
