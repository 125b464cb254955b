"""How much warmer the heater's board is than the liquid, from the heater's past.

The heater sits on the board that carries the temperature sensor, and warms the board at
once and the liquid slowly::

    board − liquid = 0.237 + fast + slow      (K, after long rest 0.237)
    d(fast)/dt = (0.0852·duty − fast) / 22.81 s
    d(slow)/dt = (0.1081·duty − slow) / 103.1 s
    d(liquid)/dt = (surroundings + 1.4864·duty − liquid) / 1500 s

The duty cycle is in percent. Source: handbook jobs-and-hardware §6.2, where the numbers
were fitted to upstream's regression. Reactors differ, by tens of percent, so nothing here
may be relied on to a degree.
"""

from __future__ import annotations

import math

LIQUID_K_PER_PERCENT = 1.4864
LIQUID_TAU_S = 1500.0
_RESTING_EXCESS_K = 0.237
_FAST_K_PER_PERCENT, _FAST_TAU_S = 0.0852, 22.81
_SLOW_K_PER_PERCENT, _SLOW_TAU_S = 0.1081, 103.1

_SURE_K = 0.2
_UNSURE = 0.3
"""The liquid's temperature by the excess is good to so much, and this part of the excess."""


class BoardExcess:
    """The excess over the liquid that the heater has caused. Times in seconds, one scale."""

    def __init__(self) -> None:
        self._fast_k = self._slow_k = 0.0
        self._duty_percent = 0.0
        self._at_s = 0.0

    def driven(self, duty_percent: float, now_s: float) -> None:
        """From ``now_s`` on the heater is at ``duty_percent``."""
        self._fast_k, self._slow_k = self._parts(now_s)
        self._at_s, self._duty_percent = now_s, duty_percent

    def kelvin(self, now_s: float) -> float:
        """The excess at ``now_s``, which is not before the last change of the duty cycle."""
        return sum(self._parts(now_s))

    def bounded(self, liquid_celsius: float, board_celsius: float, now_s: float) -> float:
        """``liquid_celsius``, inferred, pulled to what a reading of the board allows.

        The inferences were fitted to reactors in balance: while the liquid warms up
        under a high duty cycle, they take it for up to 3 K colder than it is.
        """
        excess_k = self.kelvin(now_s)
        liquid_by_excess = board_celsius - _RESTING_EXCESS_K - excess_k
        slack_k = _SURE_K + _UNSURE * excess_k
        return min(max(liquid_celsius, liquid_by_excess - slack_k), liquid_by_excess + slack_k)

    def _parts(self, now_s: float) -> tuple[float, float]:
        passed_s = max(now_s - self._at_s, 0.0)
        return (
            _towards(self._fast_k, _FAST_K_PER_PERCENT * self._duty_percent, passed_s, _FAST_TAU_S),
            _towards(self._slow_k, _SLOW_K_PER_PERCENT * self._duty_percent, passed_s, _SLOW_TAU_S),
        )


def _towards(value: float, goal: float, seconds: float, tau_s: float) -> float:
    return goal + (value - goal) * math.exp(-seconds / tau_s)
