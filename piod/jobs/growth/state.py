"""What the growth filter knows, to be kept over a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from piod.calibrations.fields import read_list, read_mapping, read_number, required, wrong
from piod.errors import BadRequest
from piod.events import JsonValue

FASTEST_PER_H = 10.0
"""No culture doubles in 4 minutes."""
LEAST_OD, MOST_OD = 1e-6, 1e6
"""Bounds of a normalised OD."""

_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class FilterState:
    """Estimate and uncertainty of normalised OD and rate, and the noise learned so far."""

    od: float
    rate_per_h: float
    od_variance: float
    covariance: float
    rate_variance: float
    noise: tuple[tuple[float, ...], ...]
    """Covariance of the observations, in the order of the sensors."""
    rate_noise: float
    """Variance that a step adds to the rate's."""
    residual_variance: float
    residual_mean: float | None
    """Of the first sensor's residuals."""
    far_in_a_row: int
    """The latest readings that were each beyond the limit of outliers."""
    undisturbed_in_a_row: int
    """Readings since the last dose or gap. A fresh filter begins as if there was none."""

    def to_json(self) -> JsonValue:
        numbers: dict[str, JsonValue] = {name: getattr(self, name) for name in _NUMBERS}
        return {
            **numbers,
            "noise": [list(row) for row in self.noise],
            "residual_mean": self.residual_mean,
            "far_in_a_row": self.far_in_a_row,
            "undisturbed_in_a_row": self.undisturbed_in_a_row,
        }

    @classmethod
    def from_json(cls, value: object) -> FilterState:
        """Raises BadRequest if ``value`` is not a state that a filter can be in."""
        read = read_mapping(value, "filter_state")
        numbers = {name: read_number(required(read, name), name) for name in _NUMBERS}
        mean = required(read, "residual_mean")
        state = cls(
            **numbers,
            noise=tuple(
                tuple(read_number(item, f"noise[{index}]") for item in read_list(row, "noise"))
                for index, row in enumerate(read_list(required(read, "noise"), "noise"))
            ),
            residual_mean=None if mean is None else read_number(mean, "residual_mean"),
            far_in_a_row=_count(read, "far_in_a_row"),
            undisturbed_in_a_row=_count(read, "undisturbed_in_a_row"),
        )
        state.check()
        return state

    def check(self) -> None:
        """Raises BadRequest if no filter can be in this state."""
        if not LEAST_OD <= self.od <= MOST_OD:
            raise wrong("od", f"must be from {LEAST_OD:g} to {MOST_OD:g}", self.od)
        if not abs(self.rate_per_h) <= FASTEST_PER_H:
            raise wrong("rate_per_h", f"must be at most {FASTEST_PER_H:g}", self.rate_per_h)
        for name in ("od_variance", "rate_variance", "rate_noise"):
            if not 0 < getattr(self, name) < math.inf:
                raise wrong(name, "must be above 0", getattr(self, name))
        if not 0 <= self.residual_variance < math.inf:
            raise wrong("residual_variance", "must be 0 or more", self.residual_variance)
        if self.covariance**2 > self.od_variance * self.rate_variance * _ROUNDING:
            raise wrong("covariance", "is larger than the variances allow", self.covariance)
        size = len(self.noise)
        square = size > 0 and all(len(row) == size for row in self.noise)
        if not square or not _is_covariance(self.noise):
            raise BadRequest("noise: must be a covariance matrix")


_NUMBERS = (
    "od",
    "rate_per_h",
    "od_variance",
    "covariance",
    "rate_variance",
    "rate_noise",
    "residual_variance",
)


def _count(read: Mapping[str, object], name: str) -> int:
    return int(read_number(required(read, name), name, 0))


def _is_covariance(matrix: Sequence[Sequence[float]]) -> bool:
    """Whether a square matrix is symmetric with correlations of 1 at most."""
    return all(
        matrix[i][i] > 0
        and matrix[i][j] == matrix[j][i]
        and matrix[i][j] ** 2 <= matrix[i][i] * matrix[j][j] * _ROUNDING
        for i in range(len(matrix))
        for j in range(len(matrix))
    )
