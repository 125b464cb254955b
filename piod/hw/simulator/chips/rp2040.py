"""The RP2040 of HAT 1.1 and later with Pioreactor's firmware: four ADC inputs, four LEDs.

Pointers 0 to 3 set an LED, 4 to 7 read an input, 8 reads the firmware's version; any
other reads FF FF. The value of an input is stored in 16 bits: from firmware 0.4 on,
which counts in 1/32 of a step of the ADC, it wraps around every 1.65 V.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

LEDS = "ABCD"
PWM_COUNTS = 257
"""The LED's counter runs from 0 to 256, so that level 255 is 99.2 % on."""
FIRST_INPUT, VERSION, INVALID = 4, 8, b"\xff\xff"
REFERENCE_VOLTS = 3.3
ADC_STEPS = 4095
LOOP_S = 0.011
"""Inputs 2 and 3, the photodiodes, are measured once a loop …"""
SLOW_LOOPS = 100
"""… inputs 0 and 1 once in so many."""
NEW_WEIGHT = 0.25
"""Of a new value of inputs 2 and 3 in their moving average."""


class SimulatedRp2040:
    """See the module. ``inputs``: volts by input 0 to 3, those that are missing see 0 V.

    ``set_led`` is told each level that changes, and may refuse it with BusError.
    """

    def __init__(
        self,
        inputs: Mapping[int, Callable[[float], float]],
        set_led: Callable[[str, float, float], None],
        now_s: float = 0.0,
        firmware: tuple[int, int] = (0, 5),
    ) -> None:
        self._inputs = dict(inputs)
        self._set_led = set_led
        self._firmware = firmware
        self._scale = 32 if firmware >= (0, 4) else 16
        self._levels = [0] * len(LEDS)
        self._pointer = 0
        self._started_s = now_s
        self._loops = dict.fromkeys(self._inputs, 0)
        """How many loops each value knows of."""
        self._values = dict.fromkeys(self._inputs, 0.0)

    def power_on(self, now_s: float) -> None:
        for led in range(len(LEDS)):
            self._drive(led, 0, now_s)
        self._pointer = 0
        self._started_s = now_s
        self._loops = dict.fromkeys(self._inputs, 0)
        self._values = dict.fromkeys(self._inputs, 0.0)

    def write(self, data: bytes, now_s: float) -> None:
        self._pointer = data[0]
        if len(data) > 1 and self._pointer < len(LEDS):
            for each in self._inputs:
                self._value(each, now_s)  # up to now they have seen the light as it was
            self._drive(self._pointer, data[1], now_s)

    def read(self, count: int, now_s: float) -> bytes:
        pointer = self._pointer
        if FIRST_INPUT <= pointer < VERSION:
            # The firmware adds 1024 conversions of 12 bits and drops the last bits.
            value = int(self._value(pointer - FIRST_INPUT, now_s)) & 0xFFFF
            answer = value.to_bytes(2, "little")
        elif pointer == VERSION:
            answer = bytes(reversed(self._firmware))
        else:
            answer = INVALID
        return answer if count == 2 else (answer + b"\xff" * count)[:count]

    def _drive(self, led: int, level: int, now_s: float) -> None:
        if level != self._levels[led]:
            self._set_led(LEDS[led], 100 * level / PWM_COUNTS, now_s)
            self._levels[led] = level

    def _value(self, number: int, now_s: float) -> float:
        """The value of an input, with all loops that are over."""
        source = self._inputs.get(number)
        if source is None:
            return 0.0
        loops = int((now_s - self._started_s) / LOOP_S)
        if number < 2:
            loops -= loops % SLOW_LOOPS
        passed = loops - self._loops[number]
        if passed:
            volts = min(max(source(now_s), 0.0), REFERENCE_VOLTS)
            new = volts / REFERENCE_VOLTS * ADC_STEPS * self._scale
            if number >= 2:
                new += (self._values[number] - new) * math.pow(1 - NEW_WEIGHT, passed)
            self._values[number] = new
            self._loops[number] = loops
        return self._values[number]
