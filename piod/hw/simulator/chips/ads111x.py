"""ADS1115 (four inputs) and ADS1114 (one): 16-bit ADCs of Texas Instruments.

Registers: 0 conversion, 1 configuration, 2 and 3 the thresholds of a comparator that
nobody uses. One conversion at a time (bit 15 of the configuration starts it and tells
that it is over), or one after the other; in that mode a new configuration counts from
the next conversion on, after the one that is going on. Source: data sheet SBAS444.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

CONVERSION, CONFIG = 0, 1
AT_POWER_ON = (0x0000, 0x8583, 0x8000, 0x7FFF)
START = IDLE = 0x8000
SINGLE_SHOT = 0x0100
FULL_SCALE_VOLTS = (6.144, 4.096, 2.048, 1.024, 0.512, 0.256, 0.256, 0.256)
RATES_HZ = (8, 16, 32, 64, 128, 250, 475, 860)
DIFFERENCES = ((0, 1), (0, 3), (1, 3), (2, 3))


class SimulatedAds111x:
    """See the module. ``inputs``: volts by input; those that are missing see 0 V."""

    def __init__(
        self, inputs: Mapping[int, Callable[[float], float]], *, has_multiplexer: bool
    ) -> None:
        self._inputs = dict(inputs)
        self._has_multiplexer = has_multiplexer
        self.power_on(0.0)

    def power_on(self, now_s: float) -> None:
        self._registers = list(AT_POWER_ON)
        self._pointer = CONVERSION
        self._finishing: tuple[float, int] | None = None
        """The conversion that is going on with earlier settings, or alone: end, value."""
        self._since_s = math.inf
        """One conversion follows the other from then on; inf: none does."""
        self._conversions = 0
        """How many of those the conversion register knows of."""

    def write(self, data: bytes, now_s: float) -> None:
        self._pointer = data[0] & 0x03
        if len(data) == 3 and self._pointer != CONVERSION:
            value = int.from_bytes(data[1:], "big")
            if self._pointer == CONFIG:
                self._configure(value, now_s)
            else:
                self._registers[self._pointer] = value

    def read(self, count: int, now_s: float) -> bytes:
        self._catch_up(now_s)
        value = self._registers[self._pointer]
        if self._pointer == CONFIG:
            busy = self._finishing is not None or self._since_s < math.inf
            value = value & ~IDLE if busy else value | IDLE
        answer = value.to_bytes(2, "big")
        return answer if count == 2 else (answer * count)[:count]

    def _configure(self, config: int, now_s: float) -> None:
        self._catch_up(now_s)
        continuous = self._since_s < math.inf
        if continuous and self._finishing is None:
            end_s = self._since_s + (self._conversions + 1) * self._conversion_s()
            self._finishing = end_s, self._convert(now_s)
        self._registers[CONFIG] = config
        if not self._has_multiplexer:
            self._registers[CONFIG] &= ~0x7000
        if config & SINGLE_SHOT:
            self._since_s = math.inf
            if config & START and (continuous or self._finishing is None):
                self._finishing = now_s + self._conversion_s(), self._convert(now_s)
        else:
            self._since_s = now_s if self._finishing is None else self._finishing[0]
            self._conversions = 0

    def _catch_up(self, now_s: float) -> None:
        """Finish what is over by now."""
        if self._finishing is not None and now_s >= self._finishing[0]:
            self._registers[CONVERSION] = self._finishing[1]
            self._finishing = None
        if now_s >= self._since_s:
            # a nanosecond, lest the sum of many conversions miss its last one
            conversions = int((now_s - self._since_s + 1e-9) / self._conversion_s())
            if conversions > self._conversions:
                self._conversions = conversions
                self._registers[CONVERSION] = self._convert(now_s)

    def _conversion_s(self) -> float:
        return 1 / RATES_HZ[self._registers[CONFIG] >> 5 & 7]

    def _convert(self, now_s: float) -> int:
        """The register that shows the voltage of this instant, clipped at full scale."""
        config = self._registers[CONFIG]
        volts = self._volts(config >> 12 & 7, now_s)
        steps = round(volts / FULL_SCALE_VOLTS[config >> 9 & 7] * 0x7FFF)
        return min(max(steps, -0x8000), 0x7FFF) & 0xFFFF

    def _volts(self, multiplexer: int, now_s: float) -> float:
        if not self._has_multiplexer:
            return self._input(0, now_s)
        if multiplexer >= 4:
            return self._input(multiplexer - 4, now_s)
        plus, minus = DIFFERENCES[multiplexer]
        return self._input(plus, now_s) - self._input(minus, now_s)

    def _input(self, number: int, now_s: float) -> float:
        source = self._inputs.get(number)
        return 0.0 if source is None else source(now_s)
