"""The recorder: keeps what jobs publish: settings in the ledger, readings beside it.

It subscribes to the event hub like anyone else, so the disk never slows a job.
What it writes goes out in batches. It takes no messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from piod.actors.actor import Actor
from piod.actors.hub import Hub, Lagged
from piod.clock import Clock, timestamp
from piod.errors import PiodError
from piod.events import ReadingTaken, SettingPublished
from piod.storage.ledger import Ledger
from piod.storage.readings import Reading, Readings

log = logging.getLogger(__name__)

ALIVE_EVERY_S = 30.0
"""How often the daemon notes that it lives, wall time: how old ``ended_at`` of a lost job is."""
FLUSH_EVERY_S = 4.0
"""Wall time between flushes of readings: what a power cut may take, with the flush itself."""
REOPEN_S = 30.0
"""Pause before the readings' database is tried anew, wall time."""


class Recorder(Actor[NoReturn]):
    """Writes published settings and readings, and that the daemon lives."""

    def __init__(self, hub: Hub, ledger: Ledger, readings: Readings, clock: Clock) -> None:
        super().__init__("recorder")
        self._hub = hub
        self._ledger = ledger
        self._readings = readings
        self._clock = clock

    async def starting(self) -> None:
        self.spawn(self._record())
        self.spawn(self._keep_readings())
        self.spawn(self._note_life())

    async def receive(self, message: NoReturn) -> object:
        raise AssertionError(f"the recorder takes no messages, got {message}")

    async def _record(self) -> None:
        with self._hub.subscribe(capacity=10_000) as events:
            async for event in events:
                match event:
                    case SettingPublished(job, setting, _, text, _, at):
                        self._ledger.put_setting(job.job_id, setting, text, timestamp(at))
                    case ReadingTaken(job, kind, value, channel, details, at):
                        self._readings.add(
                            Reading(job.unit, job.experiment, kind, channel, at, value, details)
                        )
                    case Lagged(missed):
                        log.error("%d published events were not kept: the disk is slow", missed)
                    case _:
                        pass

    async def _keep_readings(self) -> None:
        """Open their database, which takes time to be checked, then flush again and again."""
        await self._insist(self._readings.open, REOPEN_S, "cannot be opened")
        while True:
            try:
                async with asyncio.timeout(FLUSH_EVERY_S):
                    await self._readings.many_wait.wait()
            except TimeoutError:
                pass
            await self._insist(self._readings.flush, FLUSH_EVERY_S, "are not kept")

    async def _insist(
        self, work: Callable[[], Awaitable[None]], pause_s: float, problem: str
    ) -> None:
        """Do ``work`` until the disk lets it be done; say so when it begins not to."""
        refused: PiodError | None = None
        while True:
            try:
                await work()
            except PiodError as error:
                if refused is None:
                    log.error("the readings %s, trying again: %s", problem, error.message)
                refused = error
                await asyncio.sleep(pause_s)
                continue
            if refused is not None:
                log.warning("the readings are kept again; %d were lost", self._readings.dropped)
            return

    async def _note_life(self) -> None:
        while True:
            self._ledger.mark_alive(timestamp(self._clock.time()))
            await asyncio.sleep(ALIVE_EVERY_S)
