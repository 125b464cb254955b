"""TMP1075 on the heating PCB: a temperature in steps of 1/16 °C, signed, 12 bits.

Registers: 0 temperature (left-justified), 1 configuration, 2 and 3 limits, 15 identity.
"""

from __future__ import annotations

from collections.abc import Callable

TEMPERATURE, IDENTITY = 0x00, 0x0F
AT_POWER_ON = {0x01: 0x00FF, 0x02: 0x4B00, 0x03: 0x5000, IDENTITY: 0x7500}
STEP_CELSIUS = 0.0625


class SimulatedTmp1075:
    """See the module. ``celsius``: the temperature that it feels, at that time."""

    def __init__(self, celsius: Callable[[float], float]) -> None:
        self._celsius = celsius
        self.power_on(0.0)

    def power_on(self, now_s: float) -> None:
        self._pointer = TEMPERATURE
        self._registers = dict(AT_POWER_ON)

    def write(self, data: bytes, now_s: float) -> None:
        self._pointer = data[0]
        if len(data) == 3 and self._pointer in AT_POWER_ON and self._pointer != IDENTITY:
            self._registers[self._pointer] = int.from_bytes(data[1:], "big")

    def read(self, count: int, now_s: float) -> bytes:
        if self._pointer == TEMPERATURE:
            steps = round(self._celsius(now_s) / STEP_CELSIUS)
            value = (min(max(steps, -0x800), 0x7FF) << 4) & 0xFFFF
        else:
            value = self._registers.get(self._pointer, 0xFFFF)
        return (value.to_bytes(2, "big") * count)[:count]
