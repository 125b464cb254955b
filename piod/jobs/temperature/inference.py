"""How warm the liquid is, inferred from the heater board while it cools.

The sensor sits on the heater's board and reads its warmth. So the heater is paused, the
board is read every few seconds, and from the course of its cooling the liquid's
temperature is inferred. Source: handbook jobs-and-hardware §2.3; both models were fitted
upstream, for ordinary rooms, and know nothing of the volume. The regression turns noise
of one reading into about eight times as much, so each should be a mean of several.

Upstream meant :data:`TWO_EXPONENTIALS` for the first 20 mL reactor, and by a slip of
comparison never used its schedule; piod does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from piod.errors import Unavailable
from piod.jobs.linear import Singular, solve

ROOM_CELSIUS = 22.0
"""What the exponentials decay to."""

_COLDEST_CELSIUS, _HOTTEST_CELSIUS = -20.0, 125.0
"""The range in which the sensor's readings can be true."""
_FAR_BELOW, _FAR_ABOVE = 15.0, 3.0
"""The liquid is not this much (°C) colder than the coldest reading, or warmer than the hottest."""

_SCALE = 35.0
_INTERCEPT = -6.171633633597331
_COEFFICIENTS = (
    -13.7221255,  # the duty cycle
    150.807347,
    15.280857,
    -71.7124615,
    -81.5352596,
    -58.2053398,
    -84.9915201,
    -36.97293,
    -0.0851994806,
    11.263567,
    33.7434235,
    33.6348041,
    42.5731033,
    67.2551219,
    83.7883314,
    62.9508694,
    49.5735854,
    18.6594862,
    0.312848519,
    -38.2815596,
    -56.2834504,
    -92.7840943,
    -7.62113224,  # the first reading, squared
    8.18877406,  # the 20th reading times the duty cycle
)

_PRIOR_A, _PRIOR_A_WEIGHT = -0.0012, 100.0
_PRIOR_B, _PRIOR_B_WEIGHT = -0.325, 50.0


class InferenceFailed(Unavailable):
    """The board's readings do not tell the temperature of the liquid."""

    default_remediation = (
        "The next cycle tries again. If it persists, check the heater board's sensor and "
        "that a vial is in place."
    )


@dataclass(frozen=True)
class Inference:
    """A way to infer, and the schedule it was fitted for.

    The heater is paused every ``cycle_s``, for ``sample_count`` readings of the board
    with ``pause_s`` after each.
    """

    sample_count: int
    cycle_s: float
    pause_s: float
    _infer: Callable[[Sequence[float], float], float]

    def liquid_celsius(self, samples_celsius: Sequence[float], duty_percent: float) -> float:
        """The liquid's temperature now, after the last of ``samples_celsius``.

        ``duty_percent`` is the heater's duty cycle before the pause; at 0 the board is as
        warm as the liquid and the last reading is it. Raises InferenceFailed for too few
        or too many readings, for readings that cannot be true, and for a result that is
        far outside of them.
        """
        if len(samples_celsius) != self.sample_count:
            raise InferenceFailed(
                f"the temperature needs {self.sample_count} readings of the heater board, "
                f"not {len(samples_celsius)}"
            )
        if not 0 <= duty_percent <= 100:
            raise InferenceFailed(f"the heater's duty cycle cannot have been {duty_percent} %")
        for celsius in samples_celsius:
            if not _COLDEST_CELSIUS <= celsius <= _HOTTEST_CELSIUS:
                raise InferenceFailed(f"the heater board cannot have been at {celsius} °C")
        if duty_percent == 0:
            return samples_celsius[-1]
        inferred = self._infer(samples_celsius, duty_percent)
        low, high = min(samples_celsius) - _FAR_BELOW, max(samples_celsius) + _FAR_ABOVE
        if not low <= inferred <= high:
            raise InferenceFailed(
                f"the liquid cannot be at {inferred:.1f} °C while the heater board cools from "
                f"{samples_celsius[0]:.1f} to {samples_celsius[-1]:.1f} °C"
            )
        return inferred


def _regression(samples: Sequence[float], duty_percent: float) -> float:
    """Linear in the readings and the duty cycle, and two products of them."""
    duty = duty_percent / _SCALE
    x = [duty, *(celsius / _SCALE for celsius in samples)]
    features = (*x, x[1] * x[1], x[20] * duty)
    weighted = zip(_COEFFICIENTS, features, strict=True)
    return _INTERCEPT + sum(weight * feature for weight, feature in weighted)


def _two_exponentials(samples: Sequence[float], duty_percent: float) -> float:
    """The slower part of b·e^{px} + c·e^{qx} over the room, one step after the last reading.

    p and q come without a search: the sum of exponentials solves a linear equation in its
    own first and second integral. The duty cycle does not count.
    """
    above = [celsius - ROOM_CELSIUS for celsius in samples]
    first = _integral(above)
    second = _integral(first)
    columns = (second, first, range(len(above)), [1.0] * len(above))
    matrix = [[_dot(one, other) for other in columns] for one in columns]
    right = [_dot(column, above) for column in columns]
    matrix[0][0] += _PRIOR_A_WEIGHT
    matrix[1][1] += _PRIOR_B_WEIGHT
    right[0] += _PRIOR_A_WEIGHT * _PRIOR_A
    right[1] += _PRIOR_B_WEIGHT * _PRIOR_B
    try:
        a, b, _, _ = solve(matrix, right)
        discriminant = b * b + 4 * a
        if discriminant < 0:
            raise InferenceFailed("the heater board does not cool in the way it does over a vial")
        slow = (b + math.sqrt(discriminant)) / 2
        fast = (b - math.sqrt(discriminant)) / 2
        decays = [[math.exp(rate * x) for x in range(len(above))] for rate in (slow, fast)]
        weight, _ = solve(
            [[_dot(one, other) for other in decays] for one in decays],
            [_dot(decay, above) for decay in decays],
        )
        return ROOM_CELSIUS + weight * math.exp(slow * len(above))
    except (Singular, OverflowError) as error:
        raise InferenceFailed("the heater board's readings fit no cooling") from error


def _integral(values: Sequence[float]) -> list[float]:
    """Of ``values``, one apart, by trapezoids; 0 at the first."""
    steps = ((before + after) / 2 for before, after in pairwise(values))
    return [0.0, *accumulate(steps)]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


REGRESSION = Inference(sample_count=21, cycle_s=200.0, pause_s=5.0, _infer=_regression)
"""For every reactor but the first: the duty cycle, 21 readings and two products of them."""
TWO_EXPONENTIALS = Inference(sample_count=29, cycle_s=225.0, pause_s=5.0, _infer=_two_exponentials)
"""For the first 20 mL reactor."""


def inference_for(model_name: str, model_version: str) -> Inference:
    """The inference of a reactor model."""
    first = (model_name, model_version) == ("pioreactor_20ml", "1.0")
    return TWO_EXPONENTIALS if first else REGRESSION
