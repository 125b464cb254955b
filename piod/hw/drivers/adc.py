"""The ADCs of a unit, whatever chips they are: signals by name, sampled together.

Each chip writes its part of a timed list and reads its part of the answers
(:class:`Adc`); :class:`Signals` puts the parts together, so that photodiodes on
several chips are looked at one right after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from piod.hw.ports import AnalogInputs, I2cAccess, Sample, TimedAnswer, TimedTransfer


class Look(NamedTuple):
    """One sample to be taken of an input of a chip; seconds from the start of the list."""

    offset_s: float
    input: int


class Adc(Protocol):
    """The driver of one ADC chip. An input or a gain that it has not is a ValueError."""

    carries_hum: bool
    """Whether hum of the mains may be on its inputs; see AnalogInputs."""

    def check_input(self, input: int) -> None:
        """ValueError: it has no such input."""
        ...

    async def prepare(self) -> float:
        """Make the chip measure as it should; seconds to wait before the first look."""
        ...

    def steps(self, looks: Sequence[Look]) -> list[TimedTransfer]:
        """The transactions that take these looks, in order of time."""
        ...

    def samples(self, looks: Sequence[Look], answers: Sequence[TimedAnswer]) -> list[Sample]:
        """What the answers to :meth:`steps` say, a sample for each look. BusError."""
        ...

    def full_scale_volts(self, input: int) -> float: ...

    def gain_for(self, volts: float) -> float: ...

    def set_gain(self, input: int, gain: float) -> None: ...


class Signals(AnalogInputs):
    """Signals by name, each on an input of an ADC; see :class:`piod.hw.ports.AnalogInputs`."""

    def __init__(self, bus: I2cAccess, inputs: Mapping[str, tuple[Adc, int]]) -> None:
        for adc, number in inputs.values():
            adc.check_input(number)
        self._bus = bus
        self._inputs = dict(inputs)

    @property
    def signals(self) -> Sequence[str]:
        return tuple(self._inputs)

    async def sample(self, plan: Sequence[tuple[float, str]]) -> Sequence[Sample]:
        wanted = self._looks(plan)
        delay_s = max([await adc.prepare() for adc in wanted], default=0.0)
        if delay_s:
            for looks in wanted.values():
                looks[:] = [Look(look.offset_s + delay_s, look.input) for look in looks]
        steps = [(step, adc) for adc, looks in wanted.items() for step in adc.steps(looks)]
        steps.sort(key=lambda entry: entry[0].offset_s)
        answers: dict[Adc, list[TimedAnswer]] = {adc: [] for adc in wanted}
        got = await self._bus.transfer_at([step for step, _ in steps])
        for (_, adc), answer in zip(steps, got, strict=True):
            answers[adc].append(answer)
        samples = {adc: iter(adc.samples(looks, answers[adc])) for adc, looks in wanted.items()}
        return [next(samples[self._input(signal)[0]]) for _, signal in plan]

    def sampling_s(self, plan: Sequence[tuple[float, str]]) -> float:
        steps = [step for adc, looks in self._looks(plan).items() for step in adc.steps(looks)]
        return max((step.offset_s for step in steps), default=0.0)

    def _looks(self, plan: Sequence[tuple[float, str]]) -> dict[Adc, list[Look]]:
        """The part of ``plan`` that each ADC has."""
        wanted: dict[Adc, list[Look]] = {}
        before_s = 0.0
        for offset_s, signal in plan:
            if not offset_s >= before_s:
                raise ValueError(f"a plan cannot go back to {offset_s} s")
            before_s = offset_s
            adc, number = self._input(signal)
            wanted.setdefault(adc, []).append(Look(offset_s, number))
        return wanted

    def full_scale_volts(self, signal: str) -> float:
        adc, number = self._input(signal)
        return adc.full_scale_volts(number)

    def gain_for(self, signal: str, volts: float) -> float:
        return self._input(signal)[0].gain_for(volts)

    def set_gain(self, signal: str, gain: float) -> None:
        adc, number = self._input(signal)
        adc.set_gain(number, gain)

    def carries_hum(self, signal: str) -> bool:
        return self._input(signal)[0].carries_hum

    def _input(self, signal: str) -> tuple[Adc, int]:
        try:
            return self._inputs[signal]
        except KeyError:
            raise ValueError(f"{signal!r} is not wired to an ADC of this unit") from None
