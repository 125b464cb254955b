"""Light: the LEDs, the photodiodes around the vial, and what disturbs them.

Numbers: handbook, simulator recipe 6.4. With q the level of the IR LED (0 to 1), g
its output and c = 0.375·X/(1 + X/10), in volts::

    PD45  = q·g·(0.030 + 1.6·c)     PD90  = q·g·(0.019 + c)
    PD135 = q·g·(0.015 + 0.7·c)     PD180 = q·g·0.6·e^(−0.7·X)
    REF   = q·g·0.16

Every signal has a dark offset; other LEDs add to PD90. The LED gives 0.2 % less once
it is warm (here with a time constant of 20 s, so that a minute warms it) and ages by
1 % a month of shining.

The noise is drawn from the seed: that of a sample by time; that of a reading (stirring,
bubbles) by the number of times that the LED was switched on, and anew for each 2 s that
it stays on, so that it is the same within a reading. REF does not see the vial, hence
neither. Between two changes of an output a signal is looked up at most each HOLD_S.
"""

from __future__ import annotations

import math
import random

from .fields import Fields

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Mapping

REF = "REF"
ANGLES = ("45", "90", "135", "180", REF)
"""Of a photodiode to the IR LED, as ``[od_config.photodiode_channel]`` calls them."""
CHANNELS = "ABCD"

BLANK_VOLTS = {"45": 0.030, "90": 0.019, "135": 0.015}
CELL_GAIN = {"45": 1.6, "90": 1.0, "135": 0.7}
CELL_VOLTS = 0.375
SATURATION_OD = 10.0
TRANSMITTED_VOLTS = 0.6
EXTINCTION_PER_OD = 0.7
REF_VOLTS = 0.16
DARK_VOLTS = 0.002
STRAY_VOLTS_PER_PERCENT = 0.0005

WARM_LOSS = 0.002
WARM_TAU_S = 20.0
AGEING_PER_S = 0.01 / (30 * 86_400)
DIMMEST = 0.1

STIRRED_NOISE, STILL_NOISE = 0.005, 0.002
STILL_RPM = 1.0
BUBBLE_PROBABILITY = 0.002
BUBBLE_SIZE = 0.1
DOSE_SPIKE = 0.03
DOSE_SPIKE_S = 20.0
READING_S = 2.0
"""The noise of a reading stays the same for this long."""

SAMPLE_NOISE_VOLTS = 0.0003
HUM_VOLTS, HUM_HZ = 0.0005, 60.0
HUM_RAD_PER_S = 2 * math.pi * HUM_HZ
HOLD_S = 0.25
"""What changes by itself within this time is far below the noise."""

RING_BITS = 13
SAMPLES_PER_S = 1e5
"""Samples at the same angle within 10 µs have the same noise."""
GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
SALT = {angle: (index + 1) * 0x632BE59BD9B4E019 & MASK for index, angle in enumerate(ANGLES)}


class Optics:
    """The light of one unit. ``ir_channel``: the LED channel of the IR LED; None: there is none."""

    STATE = ("ir_channel", "led", "flashes", "lit_s", "warm", "burnt_s", "since_dose_s")

    def __init__(self, seed: int, ir_channel: str | None = "A") -> None:
        self._seed = seed
        self.ir_channel = ir_channel
        self._bubble_probability = BUBBLE_PROBABILITY
        self._levels = dict.fromkeys(CHANNELS, 0.0)
        self._flashes = 0
        self._lit_s = 0.0
        self._warm = 0.0
        self._burnt_s = 0.0
        self._since_dose_s = 1e9
        self._noise_volts: list[float] = []
        self._volts: Mapping[str, float] = {}
        self._valid_from_s, self._valid_until_s = math.inf, -math.inf
        self._reading = (-1, -1)
        self._bubble = 1.0
        self._deviations: Mapping[str, float] = {}

    @property
    def levels(self) -> Mapping[str, float]:
        """What the LEDs shine with, percent by channel."""
        return self._levels

    @property
    def output(self) -> float:
        """The light of the IR LED for the same level, against that of a new cold one."""
        return max(DIMMEST, 1 - AGEING_PER_S * self._burnt_s) * (1 - WARM_LOSS * self._warm)

    def set_led(self, channel: str, percent: float) -> None:
        """The level of one LED changes now."""
        if channel == self.ir_channel and percent > 0 and self._levels[channel] == 0:
            self._flashes += 1
            self._lit_s = 0.0
        self._levels[channel] = percent
        self.forget()

    def dosed(self) -> None:
        """Liquid comes in now."""
        self._since_dose_s = 0.0

    def bubbles(self, probability: float) -> None:
        """A reading meets a bubble with that probability from now on."""
        if probability != self._bubble_probability:
            self._bubble_probability = probability
            self._reading = (-1, -1)
            self.forget()

    def forget(self) -> None:
        """Something has changed that the photodiodes see."""
        self._valid_until_s = -math.inf

    def advance(self, seconds: float) -> None:
        lit = self.ir_channel is not None and self._levels[self.ir_channel] > 0
        goal = 1.0 if lit else 0.0
        self._warm = goal + (self._warm - goal) * math.exp(-seconds / WARM_TAU_S)
        if lit:
            self._lit_s += seconds
            self._burnt_s += seconds
        self._since_dose_s = min(1e9, self._since_dose_s + seconds)

    def knows(self, now_s: float) -> bool:
        """Whether :meth:`volts` can answer without another :meth:`look`."""
        return self._valid_from_s <= now_s < self._valid_until_s

    def look(self, now_s: float, biomass: float, rpm: float) -> None:
        """Take note of what the photodiodes see from now on."""
        if not self._noise_volts:  # only now: safe-outputs is in a hurry
            drawn = random.Random(f"{self._seed}:samples")
            self._noise_volts = [
                drawn.gauss(0.0, SAMPLE_NOISE_VOLTS) for _ in range(1 << RING_BITS)
            ]
        level = 0.0 if self.ir_channel is None else self._levels[self.ir_channel] / 100
        light = level * self.output
        cells = CELL_VOLTS * biomass / (1 + biomass / SATURATION_OD)
        number = math.floor(self._lit_s / READING_S)
        clear = self._clear_of((self._flashes, number), rpm > STILL_RPM)
        spike = 1 + DOSE_SPIKE if self._since_dose_s < DOSE_SPIKE_S else 1.0
        volts = {REF: light * REF_VOLTS + DARK_VOLTS}
        for angle, gain in CELL_GAIN.items():
            volts[angle] = light * (BLANK_VOLTS[angle] + gain * cells) * clear[angle] * spike
        volts["180"] = light * TRANSMITTED_VOLTS * math.exp(-EXTINCTION_PER_OD * biomass)
        volts["180"] *= clear["180"] * spike
        for angle in ("45", "90", "135", "180"):
            volts[angle] += DARK_VOLTS
        others = sum(self._levels[channel] for channel in CHANNELS if channel != self.ir_channel)
        volts["90"] += STRAY_VOLTS_PER_PERCENT * others
        self._volts = volts
        self._valid_from_s = now_s
        self._valid_until_s = now_s + min(HOLD_S, (number + 1) * READING_S - self._lit_s)

    def volts(self, angle: str | None, now_s: float, hum: bool) -> float:
        """A sample, as of the last :meth:`look`; None: of a photodiode that is not there."""
        dark = angle is None
        time_slot = int(now_s * SAMPLES_PER_S) ^ SALT[REF if angle is None else angle]
        noise = self._noise_volts[(time_slot * GOLDEN & MASK) >> (64 - RING_BITS)]
        volts = (DARK_VOLTS if dark else self._volts[angle or REF]) + noise
        if hum:
            volts += HUM_VOLTS * math.sin(HUM_RAD_PER_S * now_s)
        return volts if volts > 0 else 0.0

    def truth(self) -> dict[str, object]:
        return {"led": dict(self._levels), "ir_output": self.output}

    def to_json(self) -> dict[str, object]:
        return {
            "ir_channel": self.ir_channel,
            "led": dict(self._levels),
            "flashes": self._flashes,
            "lit_s": self._lit_s,
            "warm": self._warm,
            "burnt_s": self._burnt_s,
            "since_dose_s": self._since_dose_s,
        }

    @classmethod
    def from_json(cls, state: object, seed: int) -> Optics:
        fields = Fields(state, "optics", cls.STATE)
        optics = cls(seed, _channel(fields))
        optics._levels = read_levels(fields.value("led"), "optics.led")
        optics._flashes = fields.integer("flashes", 0, 10**15)
        optics._lit_s = fields.number("lit_s", 0, 1e12)
        optics._warm = fields.number("warm", 0, 1)
        optics._burnt_s = fields.number("burnt_s", 0, 1e12)
        optics._since_dose_s = fields.number("since_dose_s", 0, 1e9)
        return optics

    def _clear_of(self, reading: tuple[int, int], stirred: bool) -> Mapping[str, float]:
        """By angle: what bubbles and swirls leave of the light, drawn once a reading."""
        if reading != self._reading:
            drawn = random.Random(f"{self._seed}:reading:{reading[0]}:{reading[1]}")
            deviations = {angle: drawn.gauss(0.0, 1.0) for angle in ANGLES if angle != REF}
            bubble = abs(drawn.gauss(0.0, BUBBLE_SIZE))
            self._reading = reading
            self._bubble = 1 + bubble if drawn.random() < self._bubble_probability else 1.0
            self._deviations = deviations
        noise = STIRRED_NOISE if stirred else STILL_NOISE
        bubble = self._bubble
        return {angle: bubble * (1 + noise * by) for angle, by in self._deviations.items()}


def _channel(fields: Fields) -> str | None:
    return None if fields.value("ir_channel") is None else fields.choice("ir_channel", CHANNELS)


def read_levels(value: object, name: str) -> dict[str, float]:
    """LED levels by channel, percent, every channel named; BadRequest."""
    fields = Fields(value, name, CHANNELS)
    return {channel: fields.number(channel, 0, 100) for channel in CHANNELS}
