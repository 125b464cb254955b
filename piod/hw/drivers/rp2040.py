"""The RP2040 of HAT 1.1 and later with Pioreactor's firmware: ADC and LED driver.

Source: pico-build ``main.c`` (handbook jobs-and-hardware.md §1.4).

**An input cannot be trusted above 1.5 V.** From firmware 0.4 on the chip stores in 16
bits a number that is greater: a value wraps around every 1.65 V, and 1.7 V reads as
0.05 V. A sample near the wrap is called saturated; one beyond it cannot be told from a
dark photodiode. A sudden drop of a bright signal is a wrap.
"""

from __future__ import annotations

from collections.abc import Sequence

from piod.errors import BusError
from piod.hw.drivers.adc import Look
from piod.hw.drivers.chip import Chip
from piod.hw.drivers.led import CHANNELS, led_level, led_number
from piod.hw.ports import Read, Sample, TimedAnswer, TimedTransfer, Write

FIRST_INPUT, VERSION = 4, 8
INPUTS = 4
REFERENCE_VOLTS = 3.3
ADC_STEPS = 4095
TRUSTED_VOLTS = 1.5
PWM_COUNTS = 257
"""Of the LEDs: level 255, the highest, is on for 255 of 257 counts, 99.2 %."""

_READ_VERSION = (Write(bytes([VERSION])), Read(2))
_READ_INPUT = [(Write(bytes([FIRST_INPUT + number])), Read(2)) for number in range(INPUTS)]


class Rp2040(Chip):
    """Both sides of the chip: :class:`~piod.hw.drivers.adc.Adc` and LedDriver.

    It has no gains (all is measured at 1) and nothing to be configured. The version of
    the firmware, which gives the scale, is read with every list of samples.
    """

    carries_hum = True
    channels = CHANNELS

    # -- ADC -----------------------------------------------------------------------

    def check_input(self, input: int) -> None:
        if input not in range(INPUTS):
            raise ValueError(f"the {self} has no input {input}")

    async def prepare(self) -> float:
        return 0.0

    def steps(self, looks: Sequence[Look]) -> list[TimedTransfer]:
        steps = [TimedTransfer(0.0, self.address, _READ_VERSION)]
        for offset_s, number in looks:
            steps.append(TimedTransfer(offset_s, self.address, _READ_INPUT[number]))
        return steps

    def samples(self, looks: Sequence[Look], answers: Sequence[TimedAnswer]) -> list[Sample]:
        volts_per_unit = REFERENCE_VOLTS / ADC_STEPS / self._scale(answers[0].data[0])
        samples = []
        for t_s, (value,) in answers[1:]:
            volts = (value[0] | value[1] << 8) * volts_per_unit
            samples.append(Sample(t_s, volts, volts >= TRUSTED_VOLTS))
        return samples

    def full_scale_volts(self, input: int) -> float:
        return TRUSTED_VOLTS

    def gain_for(self, volts: float) -> float:
        return 1.0

    def set_gain(self, input: int, gain: float) -> None:
        self.check_input(input)
        if gain != 1:
            raise ValueError(f"the {self} measures with gain 1 only, not with {gain:g}")

    async def firmware(self) -> tuple[int, int]:
        """The version of the firmware, (major, minor). BusError."""
        (answer,) = await self.bus.transfer(self.address, _READ_VERSION)
        return self._version(answer)

    def _version(self, answer: bytes) -> tuple[int, int]:
        minor, major = answer
        if answer == b"\xff\xff":
            raise BusError(
                f"The {self} does not tell the version of its firmware.",
                remediation="Load the firmware again: restart the unit.",
            )
        return major, minor

    def _scale(self, answer: bytes) -> int:
        return 32 if self._version(answer) >= (0, 4) else 16

    # -- LEDs ------------------------------------------------------------------------

    async def set_level(self, channel: str, percent: float) -> float:
        """See :meth:`piod.hw.ports.LedDriver.set_level`. There is no way to read it back."""
        level = led_level(percent)
        led = led_number(channel)
        await self.bus.transfer(self.address, [Write(bytes([led, level]))])
        return 100 * level / PWM_COUNTS

    async def all_off(self) -> None:
        """Turn off all LEDs with nobody in between."""
        await self.bus.transfer_at(
            [
                TimedTransfer(0.0, self.address, [Write(bytes([led, 0]))])
                for led in range(len(CHANNELS))
            ]
        )
