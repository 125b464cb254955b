"""ADS1115 of HAT 1.0: four inputs, one conversion at a time, started by its own settings.

Input and gain are written with each conversion and read back with its result, so no
idea of the gain can disagree with the chip. 128 conversions a second at most: a plan
that is faster is stretched.
"""

from __future__ import annotations

from collections.abc import Sequence

from piod.errors import BusError
from piod.hw.drivers import ads111x
from piod.hw.drivers.adc import Look
from piod.hw.drivers.ads111x import DEFAULT_GAIN, GAINS
from piod.hw.drivers.chip import Chip
from piod.hw.ports import I2cAccess, Read, Sample, TimedAnswer, TimedTransfer, Write

INPUTS = 4
WIRE_S = 0.0015
"""Room for the transactions of one conversion, at 100 kHz."""

_READ_RESULT = (Write(ads111x.CONFIG), Read(2), Write(ads111x.CONVERSION), Read(2))


class Ads1115(Chip):
    """An :class:`~piod.hw.drivers.adc.Adc` with a gain for each input."""

    carries_hum = True

    def __init__(self, bus: I2cAccess, address: int) -> None:
        super().__init__(bus, address)
        self._gains = [DEFAULT_GAIN] * INPUTS

    def check_input(self, input: int) -> None:
        if input not in range(INPUTS):
            raise ValueError(f"the {self} has no input {input}")

    async def prepare(self) -> float:
        return 0.0

    def steps(self, looks: Sequence[Look]) -> list[TimedTransfer]:
        steps = []
        free_s = 0.0
        for offset_s, number in looks:
            begin_s = max(offset_s, free_s)
            start = self._config(number).to_bytes(2, "big")
            steps.append(TimedTransfer(begin_s, self.address, [Write(ads111x.CONFIG + start)]))
            read_s = begin_s + ads111x.CONVERSION_S
            # The pause: a bus that began late must not read early.
            steps.append(TimedTransfer(read_s, self.address, _READ_RESULT, ads111x.CONVERSION_S))
            free_s = read_s + WIRE_S
        return steps

    def samples(self, looks: Sequence[Look], answers: Sequence[TimedAnswer]) -> list[Sample]:
        samples = []
        for look, started, result in zip(looks, answers[::2], answers[1::2], strict=True):
            config, value = result.data
            if not config[0] & 0x80:
                raise BusError(f"The {self} does not come to the end of a conversion.")
            if not ads111x.same_settings(config, self._config(look.input)):
                raise BusError(f"The {self} lost its configuration while it measured.")
            volts, saturated = ads111x.to_volts(value, self._gains[look.input])
            samples.append(Sample(started.t_s + ads111x.CONVERSION_S / 2, volts, saturated))
        return samples

    def full_scale_volts(self, input: int) -> float:
        return GAINS[self._gains[input]].full_scale_volts

    def gain_for(self, volts: float) -> float:
        return ads111x.gain_for(volts)

    def set_gain(self, input: int, gain: float) -> None:
        self.check_input(input)
        self._gains[input] = ads111x.check_gain(gain)

    def _config(self, number: int) -> int:
        return (
            ads111x.BUSY_OR_START
            | (4 + number) << 12  # this input against ground
            | GAINS[self._gains[number]].bits
            | ads111x.SINGLE_SHOT
            | ads111x.AT_128_HZ
            | ads111x.NO_COMPARATOR
        )
