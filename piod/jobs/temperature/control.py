"""What the thermostat knows of the liquid: how warm it is, and what it loses to the room.

The heater works in cycles: on for a while, then paused while the liquid's temperature is
inferred. So the liquid swings, by a kelvin or two; it is coolest where it is inferred, at
the end of the pause. And it answers slowly, so that a controller that waits for it
overshoots. :class:`LiquidEstimate` looks one cycle ahead with the equation of
:mod:`.board`, and corrects itself by each inference.
"""

from __future__ import annotations

import math

from piod.jobs.temperature.board import LIQUID_K_PER_PERCENT, LIQUID_TAU_S

_TRUST_LIQUID = 0.25
_TRUST_SURROUNDINGS = 0.2
"""The part of a surprise that is taken for the liquid, and for its surroundings."""
_TRUST_AT_REST = 0.5
"""Without heating nothing is inferred: of what the reading says of the surroundings, so much."""
_COLDEST_ROOM_CELSIUS, _WARMEST_ROOM_CELSIUS = 4.0, 28.0
_BELOW_TARGET = 0.35
"""Where the coolest point of the swing is put, from target (0) to a mean on target (1)."""
_MAY_EXCEED_K = 0.1
"""How far the next inference may be foreseen above its aim."""
_MAY_FALL_SHORT_K = 0.3
"""How far it may be foreseen below, while less than what holds the target would do."""
_APPROACH_K = 13.0
"""The liquid is never driven towards a balance further than this above its target."""


class LiquidEstimate:
    """The liquid at the end of each pause, °C. ``cycle_s`` is as long as on and pause."""

    def __init__(self, celsius: float, *, cycle_s: float, pause_s: float) -> None:
        """``celsius``: the liquid at first, after a rest of the heater."""
        self.celsius = celsius
        self._surroundings = min(max(celsius, _COLDEST_ROOM_CELSIUS), _WARMEST_ROOM_CELSIUS)
        self._pause_s = pause_s
        self._keeps = math.exp(-cycle_s / LIQUID_TAU_S)
        """The part of its excess over the surroundings that it has after a cycle."""
        on_s = cycle_s - pause_s
        self._k_per_percent = (
            LIQUID_K_PER_PERCENT
            * math.exp(-pause_s / LIQUID_TAU_S)
            * (1 - math.exp(-on_s / LIQUID_TAU_S))
        )

    def observe(self, celsius: float, duty_percent: float) -> None:
        """One cycle with ``duty_percent`` is over, and the liquid was inferred."""
        foreseen = self._foreseen(duty_percent)
        surprise = celsius - foreseen
        if duty_percent == 0:
            self.celsius = celsius
            self._surroundings += _TRUST_AT_REST * surprise / (1 - self._keeps)
        else:
            self.celsius = foreseen + _TRUST_LIQUID * surprise
            self._surroundings += _TRUST_SURROUNDINGS * surprise

    def aim(self, target_celsius: float) -> float:
        """What to bring the inferred temperature to, so that the swing lies about the target."""
        fall = (target_celsius - self._surroundings) * self._pause_s / LIQUID_TAU_S
        return target_celsius - _BELOW_TARGET * max(fall, 0.0) / 2

    def holding_duty(self, target_celsius: float) -> float:
        """The duty cycle, percent, that would hold the target in the long run; below 0: none."""
        excess = self.aim(target_celsius) - self._surroundings
        return excess * (1 - self._keeps) / self._k_per_percent

    def within_sight(self, duty_percent: float, target_celsius: float) -> float:
        """``duty_percent``, raised or lowered to where the liquid neither overshoots nor drops.

        Below 0: no heating is little enough.
        """
        aim, rest = self.aim(target_celsius), self._foreseen(0.0)
        least = (aim - _MAY_FALL_SHORT_K - rest) / self._k_per_percent
        most = (aim + _MAY_EXCEED_K - rest) / self._k_per_percent
        excess = target_celsius + _APPROACH_K - self._surroundings
        most = min(most, excess * (1 - self._keeps) / self._k_per_percent)
        return min(max(duty_percent, min(least, self.holding_duty(target_celsius))), most)

    def _foreseen(self, duty_percent: float) -> float:
        return (
            self._keeps * self.celsius
            + (1 - self._keeps) * self._surroundings
            + self._k_per_percent * duty_percent
        )
