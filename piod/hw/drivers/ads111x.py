"""What ADS1115 and ADS1114 have in common: registers, gains, the meaning of a value.

Source: data sheet SBAS444; handbook jobs-and-hardware.md §1.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

CONVERSION, CONFIG = b"\x00", b"\x01"
BUSY_OR_START = 0x8000
"""Bit 15 of the configuration: written, starts a conversion; read, tells that it is over."""
SINGLE_SHOT = 0x0100
AT_128_HZ = 0x0080
NO_COMPARATOR = 0x0003
CONVERSION_S = 1 / (128 * 0.9)
"""The longest that one takes: the chip's clock may be off by 10 %."""
FULL_SCALE_STEPS = 0x7FFF
HEADROOM = 0.85
"""A gain is chosen for voltages up to this part of its full scale."""


class Gain(NamedTuple):
    """How a gain is written in the configuration, and the voltage that it ends at."""

    bits: int
    full_scale_volts: float


GAINS: Mapping[float, Gain] = MappingProxyType(
    {
        2 / 3: Gain(0x0000, 6.144),
        1.0: Gain(0x0200, 4.096),
        2.0: Gain(0x0400, 2.048),
        4.0: Gain(0x0600, 1.024),
        8.0: Gain(0x0800, 0.512),
        16.0: Gain(0x0A00, 0.256),
    }
)
DEFAULT_GAIN = 1.0


def gain_for(volts: float) -> float:
    """The finest gain whose full scale leaves ``volts`` its headroom."""
    for gain in sorted(GAINS, reverse=True):
        if volts < HEADROOM * GAINS[gain].full_scale_volts:
            return gain
    return min(GAINS)


def check_gain(gain: float) -> float:
    """ValueError: there is no such gain."""
    if gain not in GAINS:
        raise ValueError(f"an ADS111x has no gain {gain:g}")
    return gain


def to_volts(value: bytes, gain: float) -> tuple[float, bool]:
    """The voltage in the conversion register, and whether it is at an end of the range."""
    steps = int.from_bytes(value, "big", signed=True)
    volts = steps / FULL_SCALE_STEPS * GAINS[gain].full_scale_volts
    return volts, not -0x8000 < steps < FULL_SCALE_STEPS


def same_settings(answer: bytes, config: int) -> bool:
    """Whether the configuration that was read is ``config``, but for bit 15."""
    return not (int.from_bytes(answer, "big") ^ config) & ~BUSY_OR_START
