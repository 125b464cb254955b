"""When an OD reading looks at a photodiode: pauses of irregular length.

Equal pauses could fall into step with the hum of the mains and see it as a constant;
multiples of the golden ratio do not. Source: handbook jobs-and-hardware §2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

_GOLDEN = 0.618034


@dataclass(frozen=True)
class SamplingPlan:
    """``count`` samples, with pauses shorter than ``longest_pause_s``."""

    count: int
    longest_pause_s: float

    @property
    def offsets_s(self) -> tuple[float, ...]:
        """Seconds from the first sample to each.

        The first two are due at one instant, as far as the ADC is that fast.
        """
        offsets = [0.0]
        for index in range(self.count - 1):
            pause_s = self.longest_pause_s * (_GOLDEN * index % 1)
            offsets.append(offsets[-1] + pause_s)
        return tuple(offsets)


READING = SamplingPlan(40, 0.85 / 39)
"""One OD reading, or one look in the dark: 0.42 s."""
TUNING = SamplingPlan(10, 0.25 / 9)
"""The short look at the light from which gain and hum frequency are chosen: 0.13 s."""
