"""Exponentially weighted mean and standard deviation of a stream of numbers.

``keep`` is always the weight of the old value, 0 ≤ keep < 1. Source: handbook
jobs-and-hardware §2.2 (REF tracker) and §2.4. State is plain fields, so that an
owner can keep it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class ExponentialMean:
    """mean ← keep·mean + (1 − keep)·x; the first value is taken as it is."""

    keep: float
    mean: float | None = None

    def update(self, value: float) -> float:
        """The mean with ``value`` in it."""
        if self.mean is None:
            self.mean = float(value)
        else:
            self.mean = self.keep * self.mean + (1 - self.keep) * value
        return self.mean


@dataclass
class ExponentialStd:
    """Standard deviation about an exponential mean.

    variance ← keep·variance + (1 − keep)·(x − new mean)·(x − old mean). The first value
    only sets the mean. While ``variance`` is None nothing is known of the spread, and the
    first product is taken unweighted.
    """

    keep: float
    mean_keep: float
    variance: float | None = None
    mean: float | None = None

    @property
    def std(self) -> float:
        """The standard deviation; 0 while nothing is known."""
        return 0.0 if self.variance is None else math.sqrt(self.variance)

    def update(self, value: float) -> float:
        """The standard deviation with ``value`` in it."""
        old = self.mean
        if old is None:
            self.mean = float(value)
            return self.std
        self.mean = self.mean_keep * old + (1 - self.mean_keep) * value
        spread = (value - self.mean) * (value - old)
        if self.variance is None:
            self.variance = spread
        else:
            self.variance = self.keep * self.variance + (1 - self.keep) * spread
        return self.std

    def reset(self) -> None:
        """Forget everything, an initial standard deviation too."""
        self.mean = None
        self.variance = None
