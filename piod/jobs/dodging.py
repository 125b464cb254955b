"""When OD is read: the schedule that od_reading publishes, for jobs that keep out of its way.

It is on the clock's monotonic scale, so that setting the machine's clock moves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from piod.calibrations.fields import read_mapping, read_number, required
from piod.clock import Clock
from piod.config import Config
from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.instruments import Peers
from piod.jobs.job import JobLog

OD_READING = "od_reading"
SCHEDULE = "schedule"
"""The setting of od_reading that carries it."""

LEAST_GAP_S = 0.5
"""Readings that leave less time between them cannot be dodged."""

_EARLY_S = 1e-6
"""An instant that is not later than so much before a reading is that of the reading."""


@dataclass(frozen=True)
class OdSchedule:
    """Readings at ``first_s``, ``first_s + interval_s`` …, each over after ``reading_s``."""

    first_s: float
    interval_s: float
    reading_s: float

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "first_s": self.first_s,
            "interval_s": self.interval_s,
            "reading_s": self.reading_s,
        }

    @classmethod
    def from_json(cls, value: object) -> OdSchedule:
        """Raises BadRequest for what :meth:`to_json` does not give."""
        fields = read_mapping(value, SCHEDULE)
        names = ("first_s", "interval_s", "reading_s")
        numbers = [read_number(required(fields, name), name) for name in names]
        if numbers[1] <= 0 or numbers[2] < 0:
            raise BadRequest(f"no schedule of OD readings: {value!r}")
        return cls(*numbers)

    def next_s(self, now_s: float) -> float:
        """When the next reading begins, now at the earliest."""
        if now_s <= self.first_s:
            return self.first_s
        past = (now_s - self.first_s - _EARLY_S) / self.interval_s
        return self.first_s + math.ceil(past) * self.interval_s

    def over_s(self, now_s: float) -> float:
        """When the last reading that has begun is over; −∞: none has begun."""
        last_s = self.next_s(now_s)
        if last_s > now_s + _EARLY_S:
            last_s -= self.interval_s
        return last_s + self.reading_s if last_s >= self.first_s - _EARLY_S else -math.inf

    def gap_s(self, now_s: float, need_s: float, *, before_s: float, after_s: float) -> float:
        """How long to wait until nothing is read for ``need_s``.

        A gap begins ``after_s`` after a reading and ends ``before_s`` before the next one.
        0 when all gaps are too short.
        """
        if self.interval_s < self.reading_s + after_s + need_s + before_s:
            return 0.0
        begin_s = max(now_s, self.over_s(now_s) + after_s)
        end_s = self.next_s(begin_s) - before_s
        if begin_s + need_s > end_s:
            begin_s = end_s + before_s + self.reading_s + after_s
        return begin_s - now_s


@dataclass(frozen=True)
class Delays:
    """How long before and after a reading there must be peace, seconds."""

    before_s: float
    after_s: float

    @classmethod
    def of(cls, config: Config, section: str) -> Delays:
        """``pre_delay_duration`` and ``post_delay_duration``. Raises ConfigurationError."""
        return cls(
            config.number(section, "pre_delay_duration", 1.5, minimum=0, maximum=60),
            config.number(section, "post_delay_duration", 0.5, minimum=0, maximum=60),
        )

    def gap_s(self, schedule: OdSchedule) -> float:
        """What is left between two readings; below 0: nothing."""
        return schedule.interval_s - schedule.reading_s - self.before_s - self.after_s


def od_schedule(peers: Peers) -> OdSchedule | None:
    """When OD is read; None: it is not, or od_reading is asleep."""
    settings: Mapping[str, JsonValue] | None = peers.settings(OD_READING)
    told = None if settings is None else settings.get(SCHEDULE)
    return None if told is None else OdSchedule.from_json(told)


class DodgeOd:
    """Whether, and how, a job keeps out of the way of OD readings.

    ``enabled``, ``during_rpm`` and ``outside_rpm`` are what people choose.
    """

    def __init__(
        self,
        peers: Peers,
        clock: Clock,
        log: JobLog,
        delays: Delays,
        *,
        enabled: bool,
        during_rpm: float,
        outside_rpm: float,
    ) -> None:
        self._peers = peers
        self._clock = clock
        self._log = log
        self.delays = delays
        self.enabled = enabled
        self.during_rpm = during_rpm
        self.outside_rpm = outside_rpm
        self._undodgeable: OdSchedule | None = None
        """The schedule that was complained about."""

    def schedule(self) -> OdSchedule | None:
        """The readings to dodge; None: there is nothing to dodge, or no time between them."""
        schedule = od_schedule(self._peers) if self.enabled else None
        if schedule is None or self.delays.gap_s(schedule) >= LEAST_GAP_S:
            return schedule
        if schedule != self._undodgeable:
            self._undodgeable = schedule
            self._log.error(
                "OD is read each %g s, which is too often to stir between the readings: they are "
                "not dodged. A longer interval would do, or shorter delays (pre_delay_duration, "
                "post_delay_duration).",
                schedule.interval_s,
            )
        return None

    async def keep_out(self, need_s: float = 0.0) -> None:
        """Wait until OD is not read for ``need_s``, if there ever is such a time.

        Whether enabled or not. For what takes time, peace before the reading is kept, too.
        """
        schedule = od_schedule(self._peers)
        if schedule is None:
            return
        before_s = self.delays.before_s if need_s else 0.0
        now_s = self._clock.monotonic()
        await self._clock.sleep(schedule.gap_s(now_s, need_s, before_s=before_s, after_s=0.0))
