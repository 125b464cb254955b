"""Voltages of the photodiodes in the light of the IR LED: one reading after the other.

A reading takes at most :attr:`PhotodiodeReader.reading_s`: the other LEDs go dark, the IR
LED on, 40 samples of each photodiode as one timed list, the IR LED off. It is told by
nothing but its leases and parts; a reading that fails (BusError) leaves the IR LED off, or
says that it could not turn it off by failing again at :meth:`PhotodiodeReader.dark`.

What cannot be trusted is never handed on as a voltage (:attr:`Light.untrusted`):

* samples at the end of the ADC's range; at the next reading the gain is coarser;
* **a sudden drop** (handbook jobs-and-hardware HAZ-9): the ADC of the RP2040 wraps around
  every 1.65 V, so a bright photodiode may read as a dark one; and a chip that was reset in
  the middle of a reading has turned its LED off. Whether it is one of these shows a second
  look at a quarter of the light: a photodiode that is really in the dark sees a quarter.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from piod.clock import Clock
from piod.config import Config
from piod.errors import Unavailable
from piod.hw.ports import AnalogInputs, Sample
from piod.jobs.exponential import ExponentialMean
from piod.jobs.instruments import LedOutputs
from piod.jobs.od.dark import DarkOffsets, dark_offset_volts
from piod.jobs.od.light import (
    AUTO_START_PERCENT,
    Glare,
    auto_intensity_percent,
    glare,
)
from piod.jobs.od.photodiodes import Photodiodes, signal_of
from piod.jobs.od.sampling import READING, TUNING, SamplingPlan
from piod.jobs.od.signal import TimedVolts, choose_hum_hz, mean_volts, signal_volts

SWITCHING_S = 0.15
"""What a reading takes beside waiting for the light and looking: to switch LEDs and gains."""
DARK_SETTLE_S = 0.3
"""The RP2040 smooths its inputs over 0.04 s: after so long nothing is left of the light."""
GAIN_KEEP = 0.05
"""Weight of the old mean in the smoothed signal that gain and glare go by."""
SATURATED_SAMPLES = 2
"""So many may be at the end of the range: they are trimmed away."""

DROP, DROP_FROM_VOLTS = 0.5, 0.02
"""A fall of a signal above DROP_FROM_VOLTS to less than this part of it is looked into."""
DIM = 0.25
"""Part of the light at the second look: so little that no ADC wraps."""
DIM_FACTOR, DIM_MARGIN_VOLTS = 1.5, 0.005
"""What a look in dim light promises may be so much more than what full light shows."""

FULL_GAIN = math.inf
"""A voltage for which the coarsest gain is chosen."""


class TooBright(Unavailable):
    """A photodiode sees so much light that its ADC may be harmed."""

    default_remediation = (
        "Lower ir_led_intensity, or look what shines on the photodiode; then start anew."
    )


@dataclass(frozen=True)
class ReaderSettings:
    """What ``[od_reading.config]`` says about taking a reading."""

    hum_hz: float | None
    """``local_ac_hz``; None: found out at the start."""
    darken_others: bool
    light_settle_s: float
    use_dark_offsets: bool

    @classmethod
    def of(cls, config: Config) -> ReaderSettings:
        """Raises ConfigurationError."""
        section = "od_reading.config"
        return cls(
            hum_hz=config.number(section, "local_ac_hz", None, minimum=1, maximum=1000),
            darken_others=config.boolean(section, "turn_off_leds_during_reading", True),
            light_settle_s=config.number(
                section, "duration_between_led_off_and_od_reading", 0.125, minimum=0, maximum=0.25
            ),
            use_dark_offsets=config.boolean(section, "use_dark_offsets", True),
        )


@dataclass(frozen=True)
class Light:
    """One reading: volts by channel, dark offsets taken away; why others have none."""

    at: float
    """Unix time at which it began."""
    volts: Mapping[str, float]
    untrusted: Mapping[str, str]
    bright: Mapping[str, str]
    """What is to be said of channels that see more light than is good."""
    real_percent: float
    """The intensity that the chip made of what it was told."""


@dataclass
class _Channel:
    """What is known of one photodiode."""

    signal: str
    prior_volts: float | None = None
    """For the smoothing of the next reading."""
    latest_volts: float | None = None
    """For noticing a drop."""
    doubted: bool = False
    """The last look into a drop has shown that it was none."""
    smoothed: ExponentialMean = field(default_factory=lambda: ExponentialMean(GAIN_KEEP))

    def relight(self, factor: float) -> None:
        if self.prior_volts is not None:
            self.prior_volts *= factor
        if self.latest_volts is not None:
            self.latest_volts *= factor
        if self.smoothed.mean is not None:
            self.smoothed.mean *= factor

    def distrust(self) -> None:
        self.prior_volts = None


class PhotodiodeReader:
    """Reads the photodiodes. ``leds`` is the lease of ``ir_channel``."""

    def __init__(
        self,
        *,
        adc: AnalogInputs,
        leds: LedOutputs,
        ir_channel: str,
        photodiodes: Photodiodes,
        clock: Clock,
        settings: ReaderSettings,
    ) -> None:
        self._adc = adc
        self._leds = leds
        self._ir = ir_channel
        self._photodiodes = photodiodes
        self._clock = clock
        self._told = settings
        self._channels = {name: _Channel(signal_of(name)) for name in photodiodes.channels}
        self._hum_hz = settings.hum_hz
        self._percent = 0.0
        self._real_percent = 0.0
        """What the chip made of it: its levels have steps."""
        self.offsets = DarkOffsets({})

    @property
    def percent(self) -> float:
        """The intensity that the IR LED is read at."""
        return self._percent

    @property
    def real_percent(self) -> float:
        """What the chip makes of it: its levels have steps. 0 before the first light."""
        return self._real_percent

    @property
    def reading_s(self) -> float:
        """The longest that a reading takes, from the first LED that changes to the last.

        That is one with a look into a drop. Some ADCs take longer than their plan.
        """
        looks_s = sum(self._adc.sampling_s(self._looks(plan)) for plan in (READING, TUNING))
        return math.ceil(10 * (looks_s + 2 * self._told.light_settle_s + SWITCHING_S)) / 10

    @property
    def hum_hz(self) -> float | None:
        """The frequency of the mains that is fitted away; None: no ADC here sees it."""
        return self._hum_hz

    async def initialise(self, percent: float | None) -> None:
        """Dark offsets, gains, hum and intensity (None: as much as suits the signals).

        BusError; UnusableSamples; TooBright.
        """
        await self.dark()
        dark = await self._look_dark() if self._told.use_dark_offsets else None
        self._percent = AUTO_START_PERCENT if percent is None else percent
        for channel in self._channels.values():
            self._adc.set_gain(channel.signal, self._adc.gain_for(channel.signal, 1.0))
        async with self._lit():
            samples = await self._sample(TUNING)
            dim = await self._look_dim()
        self._choose_hum(samples)
        if dark is not None:
            self._take_offsets(dark)
        promised = self._promised(dim)
        volts = {name: max(0.0, mean_volts(found)) for name, found in self._lifted(samples).items()}
        for name in volts:
            if self._lied(volts[name], promised[name]):
                volts[name] = promised[name]
            channel = self._channels[name]
            channel.prior_volts = None
            channel.doubted = False
            channel.latest_volts = channel.smoothed.mean = volts[name]
            self._check_glare(name)
            self._choose_gain(channel)
        if percent is None:
            self._choose_intensity(volts)

    async def read(self, penalty: float) -> Light:
        """One reading; ``penalty`` is the weight of the one before, in samples.

        BusError: nothing is known; UnusableSamples; TooBright.
        """
        at = self._clock.time()
        async with self._lit():
            samples = await self._sample(READING)
            timed = self._lifted(samples)
            fresh = {name: mean_volts(found) for name, found in timed.items()}
            fallen = [name for name in fresh if self._fell(name, fresh[name])]
            promised = self._promised(await self._look_dim()) if fallen else {}
        lying = {n: promised[n] for n in fallen if self._lied(fresh[n], promised[n])}
        for name in fallen:
            self._channels[name].prior_volts = None  # of a step the reading before knows nothing
        volts, untrusted, bright = self._judge(samples, timed, lying, penalty)
        return Light(at, volts, untrusted, bright, self._real_percent)

    async def dark(self) -> None:
        """Turn the IR LED off. BusError: it may be on."""
        await self._leds.set_levels({self._ir: 0.0})

    def relight(self, percent: float) -> None:
        """Read at another intensity from the next reading on."""
        self._percent = percent

    # -- what a reading consists of ------------------------------------------------

    def _others_dark(self) -> AbstractAsyncContextManager[None]:
        return self._leds.others_dark() if self._told.darken_others else nullcontext()

    @asynccontextmanager
    async def _lit(self) -> AsyncIterator[None]:
        """The light of the IR LED alone.

        Who is cancelled is not held up to turn it off: the end of the lease does that, or
        the job that is put to sleep.
        """
        async with self._others_dark():
            try:
                self._expect(await self._shine(self._percent))
                yield
            except Exception:  # whatever it is, it must not leave the LED on
                await self.dark()
                raise
            await self.dark()

    async def _shine(self, percent: float) -> float:
        real = await self._leds.set_levels({self._ir: percent})
        await self._clock.sleep(self._told.light_settle_s)
        return real[self._ir]

    def _expect(self, real_percent: float) -> None:
        """Scale all that is known of the signals to that light."""
        before, self._real_percent = self._real_percent, real_percent
        if before == 0 or real_percent == before:
            return
        factor = real_percent / before
        for channel in self._channels.values():
            channel.relight(factor)
            self._choose_gain(channel)

    async def _sample(self, plan: SamplingPlan) -> Mapping[str, Sequence[Sample]]:
        names = list(self._channels)
        taken = await self._adc.sample(self._looks(plan))
        return {name: taken[index :: len(names)] for index, name in enumerate(names)}

    def _looks(self, plan: SamplingPlan) -> Sequence[tuple[float, str]]:
        signals = [channel.signal for channel in self._channels.values()]
        return [(offset_s, signal) for offset_s in plan.offsets_s for signal in signals]

    async def _look_dim(self) -> tuple[Mapping[str, Sequence[Sample]], float]:
        """Samples in dim light, and by how much full light is brighter."""
        real_percent = await self._shine(DIM * self._percent)
        return await self._sample(TUNING), self._real_percent / real_percent

    async def _look_dark(self) -> Mapping[str, Sequence[Sample]]:
        """A short look first, for the gain; then, at that gain, as long a look as a reading."""
        async with self._others_dark():
            await self._clock.sleep(DARK_SETTLE_S)
            for channel in self._channels.values():
                self._adc.set_gain(channel.signal, self._adc.gain_for(channel.signal, 1.0))
            for name, looks in _timed(await self._sample(TUNING)).items():
                signal = self._channels[name].signal
                self._adc.set_gain(signal, self._adc.gain_for(signal, max(0.0, mean_volts(looks))))
            return await self._sample(READING)

    # -- what its samples mean -----------------------------------------------------

    def _lifted(self, samples: Mapping[str, Sequence[Sample]]) -> dict[str, list[TimedVolts]]:
        """Without the dark offsets."""
        return {name: self.offsets.subtract(name, found) for name, found in _timed(samples).items()}

    def _promised(self, dim: tuple[Mapping[str, Sequence[Sample]], float]) -> Mapping[str, float]:
        """What full light would give, by a look in dim light."""
        samples, brighter = dim
        return {name: brighter * mean_volts(found) for name, found in self._lifted(samples).items()}

    def _take_offsets(self, dark: Mapping[str, Sequence[Sample]]) -> None:
        """Upstream averages them before it knows the hum; that is up to 0.1 mV off."""
        volts: dict[str, float] = {}
        for name, samples in _timed(dark).items():
            hums = self._adc.carries_hum(self._channels[name].signal)
            volts[name] = dark_offset_volts(samples, self._hum_hz if hums else None)
        self.offsets = DarkOffsets(volts)

    def _judge(
        self,
        samples: Mapping[str, Sequence[Sample]],
        timed: Mapping[str, Sequence[TimedVolts]],
        lying: Mapping[str, float],
        penalty: float,
    ) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
        """Volts, what is untrusted and what is too bright."""
        volts: dict[str, float] = {}
        untrusted: dict[str, str] = {}
        bright: dict[str, str] = {}
        for name, channel in self._channels.items():
            channel.doubted = name in lying
            if name in lying:
                channel.distrust()
                channel.smoothed.update(lying[name])
                untrusted[name] = _fallen(name, lying[name])
            elif sum(sample.saturated for sample in samples[name]) > SATURATED_SAMPLES:
                full_volts = self._adc.full_scale_volts(channel.signal)
                channel.distrust()
                channel.latest_volts = full_volts
                channel.smoothed.update(full_volts)
                untrusted[name] = (
                    f"photodiode {name} reads {full_volts:.2f} V or more, the end of its ADC's "
                    "range: lower ir_led_intensity if that goes on"
                )
                self._adc.set_gain(channel.signal, self._adc.gain_for(channel.signal, FULL_GAIN))
                self._check_glare(name)
                continue
            else:
                volts[name] = self._signal(channel, timed[name], penalty)
            if self._check_glare(name) is Glare.WARNING:
                bright[name] = f"photodiode {name} sees too much light: lower ir_led_intensity"
            self._choose_gain(channel)
        return volts, untrusted, bright

    def _signal(self, channel: _Channel, samples: Sequence[TimedVolts], penalty: float) -> float:
        hum_hz = self._hum_hz if self._adc.carries_hum(channel.signal) else None
        volts = signal_volts(
            samples, hum_hz=hum_hz, prior_volts=channel.prior_volts, penalty=penalty
        )
        volts = round(volts, 10)
        channel.prior_volts = channel.latest_volts = volts
        channel.smoothed.update(volts)
        return volts

    def _fell(self, name: str, volts: float) -> bool:
        """Whether that is a drop to be looked into."""
        channel = self._channels[name]
        before = channel.latest_volts
        if channel.doubted:
            return True
        return before is not None and before > DROP_FROM_VOLTS and volts < DROP * before

    @staticmethod
    def _lied(volts: float, promised: float) -> bool:
        return promised > DIM_FACTOR * volts + DIM_MARGIN_VOLTS

    def _check_glare(self, name: str) -> Glare:
        smoothed = self._channels[name].smoothed.mean or 0.0
        judged = glare(smoothed)
        if judged is Glare.DANGER:
            raise TooBright(f"photodiode {name} reads {smoothed:.2f} V: its ADC may be harmed")
        return judged

    def _choose_gain(self, channel: _Channel) -> None:
        smoothed = channel.smoothed.mean or 0.0
        self._adc.set_gain(channel.signal, self._adc.gain_for(channel.signal, smoothed))

    def _choose_hum(self, samples: Mapping[str, Sequence[Sample]]) -> None:
        if self._told.hum_hz is not None:
            return
        humming = [n for n, each in self._channels.items() if self._adc.carries_hum(each.signal)]
        self._hum_hz = choose_hum_hz(_timed(samples)[humming[0]]) if humming else None

    def _choose_intensity(self, volts: Mapping[str, float]) -> None:
        reference = self._photodiodes.reference
        self._percent = auto_intensity_percent(
            [volts[name] for name in self._photodiodes.angles],
            None if reference is None else volts[reference],
        )


def _timed(samples: Mapping[str, Sequence[Sample]]) -> dict[str, list[TimedVolts]]:
    return {name: [(one.t_s, one.volts) for one in found] for name, found in samples.items()}


def _fallen(name: str, promised: float) -> str:
    return (
        f"photodiode {name} reads less than a look in dim light promises ({promised:.2f} V): its "
        "ADC has wrapped around, or the IR LED went out; lower ir_led_intensity if that goes on"
    )
