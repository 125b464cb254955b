"""What is wrong with the OD readings: logged when it begins, now and then, and when it is over."""

from __future__ import annotations

from collections.abc import Mapping

from piod.clock import Clock
from piod.jobs.job import JobLog

AGAIN_S = 300.0
"""A complaint that stays is logged again after so long."""


class Complaints:
    """Keeps the log from filling with one line a reading."""

    def __init__(self, log: JobLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def tell(self, reasons: Mapping[str, str]) -> None:
        """These are all that there are now, by what they are about."""
        now_s = self._clock.monotonic()
        for about in [each for each in self._logged_at if each not in reasons]:
            del self._logged_at[about]
            self._log.info("OD readings: no trouble with the %s any more", about)
        for about, reason in reasons.items():
            logged_at = self._logged_at.get(about)
            if logged_at is None or now_s - logged_at >= AGAIN_S:
                self._logged_at[about] = now_s
                self._log.warning("OD readings: %s", reason)
