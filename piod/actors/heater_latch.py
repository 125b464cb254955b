"""Why the heater stays off until somebody has looked after it: kept in the ledger.

Used by :mod:`.heater` alone, which decides when it trips and when it is reset.
"""

from __future__ import annotations

import asyncio
import json
import logging

from piod.errors import PiodError
from piod.storage.ledger import Ledger

log = logging.getLogger(__name__)

TRIP_KEY = "heater_trip"
"""Key in the ledger."""
RETRY_S = 1.0
"""Pause before a disk that refused is tried again, wall time."""


class TripLatch:
    """``reason`` says why the heater stays off; None: it does not."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._keeping = asyncio.Lock()
        self.reason: str | None = None
        self._kept_reason: str | None = None
        """What the ledger says."""

    async def recall(self) -> None:
        """What the daemon before this one kept. Raises StorageFailed."""
        kept = await self._ledger.get_meta(TRIP_KEY)
        if kept is not None:
            self.reason = self._kept_reason = str(json.loads(kept)["reason"])
            log.warning("the heater stays off until its interlock is reset: %s", self.reason)

    async def keep(self) -> None:
        """Bring the ledger up to date; on disk when this returns. StorageFull, StorageFailed."""
        async with self._keeping:
            reason = self.reason
            if reason is None:
                await self._ledger.remove_meta(TRIP_KEY)
            else:
                await self._ledger.put_meta(TRIP_KEY, json.dumps({"reason": reason}))
            self._kept_reason = reason

    async def keep_at_last(self) -> None:
        """The daemon ends: what the ledger does not say yet is tried once more."""
        if self.reason == self._kept_reason:
            return
        try:
            await self.keep()
        except PiodError as refusal:
            log.critical("the state of the heater's interlock is lost: %s", refusal.message)

    async def insist_on_keeping(self) -> None:
        """The same, again and again until the disk takes it. The heater stays off all the same."""
        refused = False
        while True:
            try:
                await self.keep()
                break
            except PiodError as refusal:
                if not refused:
                    log.error(
                        "that the heater's interlock has tripped is not kept, trying again: %s",
                        refusal.message,
                    )
                refused = True
            await asyncio.sleep(RETRY_S)
        if refused:
            log.warning("the state of the heater's interlock is kept now")
