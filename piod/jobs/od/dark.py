"""Dark offsets: what each photodiode reads while every LED is off.

Kept in volts, so that they hold at every gain. Upstream keeps ADC counts of the dark
reading's gain and takes too much away at any lower one (handbook jobs-and-hardware
§2.2, D-3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from piod.jobs.od.signal import TimedVolts, mean_volts, signal_volts


def dark_offset_volts(samples: Sequence[TimedVolts], hum_hz: float | None = None) -> float:
    """The offset that a reading in the dark shows, 0 at least.

    With ``hum_hz`` hum is fitted away; without it, when it is not chosen yet, all samples
    are averaged. Raises UnusableSamples.
    """
    if hum_hz is None:
        return max(0.0, mean_volts(samples))
    return signal_volts(samples, hum_hz=hum_hz)


@dataclass(frozen=True)
class DarkOffsets:
    """The dark offset in volts by channel; a channel without one has none."""

    volts: Mapping[str, float]

    def subtract(self, channel: str, samples: Sequence[TimedVolts]) -> list[TimedVolts]:
        """``samples`` of ``channel`` without the dark offset.

        Samples may fall below 0: cutting each off at 0, as upstream does, would lift the
        signal of a nearly dark photodiode by half its noise.
        """
        offset = self.volts.get(channel, 0.0)
        return [(t_s, volts - offset) for t_s, volts in samples]
