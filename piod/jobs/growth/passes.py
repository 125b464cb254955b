"""OD readings, which come one channel at a time, put together to passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from piod.events import ReadingTaken

Source = Literal["od", "od_fused"]

Units: TypeAlias = Mapping[str, str | None]
"""By channel, the calibration or estimator that OD is by; None: it is uncalibrated."""

FUSED_CHANNEL = "1"
"""A fused reading stands for a single photodiode."""


@dataclass(frozen=True)
class OdPass:
    """One look at the culture: OD by channel, or the fused one as channel 1.

    ``at``: Unix seconds; ``job_id``: of the od_reading that took it.
    """

    source: Source
    job_id: str
    at: float
    od: Mapping[str, float]
    units: Units


class PassCollector:
    """Puts readings together; ``channels`` are those that each pass must have."""

    def __init__(self, channels: Collection[str]) -> None:
        self.incomplete = 0
        """Passes that lacked a channel, so far."""
        self._channels = frozenset(channels)
        self._at: tuple[str, float] | None = None
        self._od: dict[str, float] = {}
        self._units: dict[str, str | None] = {}

    def add(self, event: ReadingTaken) -> OdPass | None:
        """The pass that ``event`` (of kind od or od_fused) completes, if it does."""
        job_id = event.job.job_id
        if event.kind == "od_fused":
            units = {FUSED_CHANNEL: _named(event, "estimator")}
            return OdPass("od_fused", job_id, event.at, {FUSED_CHANNEL: event.value}, units)
        if event.kind != "od" or event.channel not in self._channels:
            return None
        if self._at != (job_id, event.at):
            if self._od:
                self.incomplete += 1
            self._at, self._od, self._units = (job_id, event.at), {}, {}
        self._od[event.channel] = event.value
        self._units[event.channel] = _named(event, "calibration")
        if self._od.keys() != self._channels:
            return None
        complete, self._od = self._od, {}
        return OdPass("od", job_id, event.at, complete, self._units)


def _named(event: ReadingTaken, detail: str) -> str | None:
    name = event.details.get(detail)
    return name if isinstance(name, str) else None
