"""How much infrared light a culture gets, and when the photodiodes see too much of it.

Source: handbook jobs-and-hardware §2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

from piod.errors import Unavailable

AUTO_START_PERCENT = 85.0
"""The intensity at which the light is looked at, and the most that ``auto`` chooses."""
LEAST_AUTO_PERCENT = 50.0
INTENSE_PERCENT = 90.0
"""Above this a fixed intensity deserves a warning: LEDs age fast."""

_MOST_SIGNAL_VOLTS = 0.06
_MOST_REFERENCE_VOLTS = 0.25


class Glare(Enum):
    """What too much light on a photodiode demands."""

    NONE = "none"
    WARNING = "warning"
    """Tell somebody."""
    DANGER = "danger"
    """All LEDs off and end: the ADC may be harmed."""


_WARNING_VOLTS, _DANGER_VOLTS = 3.0, 3.2


def glare(smoothed_volts: float) -> Glare:
    """Judge the smoothed signal of a photodiode. What is no number is a danger."""
    if smoothed_volts <= _WARNING_VOLTS:
        return Glare.NONE
    return Glare.WARNING if smoothed_volts <= _DANGER_VOLTS else Glare.DANGER


def auto_intensity_percent(signals_volts: Sequence[float], reference_volts: float | None) -> float:
    """The intensity for ``ir_led_intensity = auto``, to 0.01 %.

    ``signals_volts`` and ``reference_volts`` (None: there is no REF) were read at
    :data:`AUTO_START_PERCENT`. With exactly one signal and REF: so much light that
    neither goes over its usual range, 50 to 85 %. Otherwise 85 %. Raises Unavailable if
    a voltage is not finite.
    """
    for volts in (*signals_volts, reference_volts or 0.0):
        if not math.isfinite(volts):
            raise Unavailable(f"the IR intensity cannot be chosen: a photodiode reads {volts} V")
    if len(signals_volts) != 1 or reference_volts is None:
        return AUTO_START_PERCENT
    chosen = AUTO_START_PERCENT
    for volts, most in (
        (signals_volts[0], _MOST_SIGNAL_VOLTS),
        (reference_volts, _MOST_REFERENCE_VOLTS),
    ):
        if volts > 0:
            chosen = min(chosen, most * AUTO_START_PERCENT / volts)
    return round(max(chosen, LEAST_AUTO_PERCENT), 2)
