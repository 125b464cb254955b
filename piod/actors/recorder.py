"""The recorder: keeps in the ledger what jobs publish.

It subscribes to the event hub like anyone else, so the ledger never slows a job.
What it writes goes out in batches. It takes no messages.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from piod.actors.actor import Actor
from piod.actors.hub import Hub, Lagged
from piod.clock import Clock, timestamp
from piod.events import SettingPublished
from piod.storage.ledger import Ledger

log = logging.getLogger(__name__)

ALIVE_EVERY_S = 30.0
"""How often the daemon notes that it lives, wall time: how old ``ended_at`` of a lost job is."""


class Recorder(Actor[NoReturn]):
    """Writes published settings, and that the daemon lives."""

    def __init__(self, hub: Hub, ledger: Ledger, clock: Clock) -> None:
        super().__init__("recorder")
        self._hub = hub
        self._ledger = ledger
        self._clock = clock

    async def starting(self) -> None:
        self.spawn(self._record())
        self.spawn(self._note_life())

    async def receive(self, message: NoReturn) -> object:
        raise AssertionError(f"the recorder takes no messages, got {message}")

    async def _record(self) -> None:
        with self._hub.subscribe(capacity=10_000) as events:
            async for event in events:
                match event:
                    case SettingPublished(job, setting, _, text, _, at):
                        self._ledger.put_setting(job.job_id, setting, text, timestamp(at))
                    case Lagged(missed):
                        log.error("%d published settings were not kept: the disk is slow", missed)
                    case _:
                        pass

    async def _note_life(self) -> None:
        while True:
            self._ledger.mark_alive(timestamp(self._clock.time()))
            await asyncio.sleep(ALIVE_EVERY_S)
