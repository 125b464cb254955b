"""The daemon's side of systemd's watchdog: fed only while piod can be trusted with outputs.

It is fed from the event loop, so a loop that hangs does not feed it, and only
after every bus actor has answered in time that nothing hangs that keeps an output
on. Not asked: the ledger, and all else that may be slow without any harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from piod.actors.actor import Ref
from piod.actors.buses.bus import Bus, FindHang
from piod.errors import PiodError

log = logging.getLogger(__name__)

MAX_WITHOUT_DAEMON_S = 60.0
"""For so long a daemon may take to start anew in this process."""


class Watchdog:
    """Calls ``feed`` at least every ``interval_s`` of wall time while all is well.

    ``buses`` are those of the daemon that runs; None while it starts anew.
    """

    def __init__(self, feed: Callable[[], None], interval_s: float) -> None:
        self._feed = feed
        self._interval_s = interval_s
        self._buses: Mapping[str, Ref[Bus]] | None = None
        self._without_since = time.monotonic()

    @property
    def buses(self) -> Mapping[str, Ref[Bus]] | None:
        return self._buses

    @buses.setter
    def buses(self, buses: Mapping[str, Ref[Bus]] | None) -> None:
        self._buses = buses
        self._without_since = time.monotonic()

    async def keep_feeding(self) -> None:
        """Until cancelled. What stops the feeding is logged, and when it goes on."""
        starving: list[str] = []
        while True:
            # half of the interval at most, and a quarter of a pause: never late when all is well
            reasons = await self._reasons()
            if not reasons:
                self._feed()
                if starving:
                    log.warning("the watchdog is fed again")
            elif not starving:
                log.critical("systemd will restart piod: %s", "; ".join(reasons))
            starving = reasons
            await asyncio.sleep(self._interval_s / 4)

    async def _reasons(self) -> list[str]:
        """Why it is not to be fed, in words; none when all is well."""
        if self._buses is None:
            late = time.monotonic() - self._without_since > MAX_WITHOUT_DAEMON_S
            return ["the daemon does not start anew"] if late else []
        found = await asyncio.gather(*(self._ask(bus) for bus in self._buses.values()))
        return [reason for reason in found if reason is not None]

    async def _ask(self, bus: Ref[Bus]) -> str | None:
        try:
            return await bus.ask(FindHang(), timeout=self._interval_s / 2)
        except PiodError as refusal:
            return refusal.message
