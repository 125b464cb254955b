"""DAC43608 of HAT 1.0: eight outputs, of which the first four drive LEDs.

A channel that is powered up drives what its register holds, which after power-on is
full scale; all channels wake up powered down. Registers: 1 configuration (bit n powers
channel n down, bit 8 all), 2 status, 3 broadcast, 8 to 15 the channels.
"""

from __future__ import annotations

from collections.abc import Callable

LEDS = "ABCD"
CONFIG, STATUS, BROADCAST, FIRST_CHANNEL = 1, 2, 3, 8
CHANNELS = 8
ALL_DOWN = 0x0100
CONFIG_AT_POWER_ON = 0x00FF
FULL_SCALE = 0x0FF0
DEVICE_ID = 0x0500
SOFT_RESET = 0x0A


class SimulatedDac43608:
    """See the module. ``set_led`` is told each level that changes; it may refuse: BusError."""

    def __init__(self, set_led: Callable[[str, float, float], None]) -> None:
        self._set_led = set_led
        self._shown = [0.0] * len(LEDS)
        self.power_on(0.0)

    def power_on(self, now_s: float) -> None:
        self._pointer = 0
        self._set(CONFIG_AT_POWER_ON, [FULL_SCALE] * CHANNELS, now_s)

    def write(self, data: bytes, now_s: float) -> None:
        self._pointer = data[0] & 0x0F
        if len(data) != 3:
            return
        value = int.from_bytes(data[1:], "big")
        levels = list(self._levels)
        if self._pointer == CONFIG:
            self._set(value & 0x01FF, levels, now_s)
        elif self._pointer == STATUS and value & 0x0F == SOFT_RESET:
            self.power_on(now_s)
        elif self._pointer == BROADCAST:
            self._set(self._config, [value & FULL_SCALE] * CHANNELS, now_s)
        elif self._pointer >= FIRST_CHANNEL:
            levels[self._pointer - FIRST_CHANNEL] = value & FULL_SCALE
            self._set(self._config, levels, now_s)

    def read(self, count: int, now_s: float) -> bytes:
        if self._pointer == CONFIG:
            value = self._config
        elif self._pointer == STATUS:
            value = DEVICE_ID
        elif self._pointer >= FIRST_CHANNEL:
            value = self._levels[self._pointer - FIRST_CHANNEL]
        else:
            value = 0
        return (value.to_bytes(2, "big") * count)[:count]

    def _set(self, config: int, levels: list[int], now_s: float) -> None:
        for index, channel in enumerate(LEDS):
            down = config & (ALL_DOWN | 1 << index)
            percent = 0.0 if down else 100 * (levels[index] >> 4) / 255
            if percent != self._shown[index]:
                self._set_led(channel, percent, now_s)
                self._shown[index] = percent
        self._config = config
        self._levels = levels
