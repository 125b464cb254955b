"""ADS1114 of the v1.5 and XR models: one input, measured continuously, 128 times a second.

The chip is asked for its configuration before and after every list of samples: what it
measured with another one, because it was reset or because somebody else wrote to it,
is never handed on.
"""

from __future__ import annotations

from collections.abc import Sequence

from piod.errors import BusError
from piod.hw.drivers import ads111x
from piod.hw.drivers.adc import Look
from piod.hw.drivers.ads111x import DEFAULT_GAIN, GAINS
from piod.hw.drivers.chip import Chip
from piod.hw.ports import I2cAccess, Read, Sample, TimedAnswer, TimedTransfer, Write

SETTLE_S = 2 * ads111x.CONVERSION_S
"""After a new configuration: the conversion that goes on still has the old one."""

_READ_CONFIG = (Write(ads111x.CONFIG), Read(2))
_READ_RESULT = (Write(ads111x.CONVERSION), Read(2))


class Ads1114(Chip):
    """An :class:`~piod.hw.drivers.adc.Adc` with one input, number 0."""

    carries_hum = False
    """It sits beside its photodiode, and each value is an average over 1/128 s."""

    def __init__(self, bus: I2cAccess, address: int) -> None:
        super().__init__(bus, address)
        self._gain = DEFAULT_GAIN

    def check_input(self, input: int) -> None:
        if input != 0:
            raise ValueError(f"the {self} has no input {input}, only 0")

    async def prepare(self) -> float:
        """See Adc. BusError also if the chip does not hold what is written to it."""
        config = self._config()
        (answer,) = await self.bus.transfer(self.address, _READ_CONFIG)
        if ads111x.same_settings(answer, config):
            return 0.0
        write = Write(ads111x.CONFIG + config.to_bytes(2, "big"))
        (answer,) = await self.bus.transfer(self.address, [write, *_READ_CONFIG])
        if not ads111x.same_settings(answer, config):
            raise BusError(
                f"The {self} was configured as {config:04X} and holds {answer.hex().upper()}."
            )
        return SETTLE_S

    def steps(self, looks: Sequence[Look]) -> list[TimedTransfer]:
        steps = []
        fresh_s = 0.0
        for offset_s, _ in looks:
            read_s = max(offset_s, fresh_s)
            steps.append(TimedTransfer(read_s, self.address, _READ_RESULT))
            fresh_s = read_s + ads111x.CONVERSION_S
        end_s = steps[-1].offset_s
        return [*steps, TimedTransfer(end_s, self.address, _READ_CONFIG)]

    def samples(self, looks: Sequence[Look], answers: Sequence[TimedAnswer]) -> list[Sample]:
        if not ads111x.same_settings(answers[-1].data[0], self._config()):
            raise BusError(f"The {self} lost its configuration while it measured.")
        samples = []
        for t_s, (value,) in answers[:-1]:
            samples.append(Sample(t_s, *ads111x.to_volts(value, self._gain)))
        return samples

    def full_scale_volts(self, input: int) -> float:
        return GAINS[self._gain].full_scale_volts

    def gain_for(self, volts: float) -> float:
        return ads111x.gain_for(volts)

    def set_gain(self, input: int, gain: float) -> None:
        self.check_input(input)
        self._gain = ads111x.check_gain(gain)

    def _config(self) -> int:
        return GAINS[self._gain].bits | ads111x.AT_128_HZ | ads111x.NO_COMPARATOR
