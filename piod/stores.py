"""What one unit keeps on disk: opened after its outputs are off, closed after its actors.

Used by :mod:`piod.daemon` alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from piod.calibrations.store import CalibrationStore, EstimatorStore
from piod.clock import Clock
from piod.config import ConfigFiles
from piod.errors import PiodError
from piod.storage import imports
from piod.storage.files import remove_temporary_files
from piod.storage.installation import take_over_pointers
from piod.storage.layout import LEDGER_NAME, READINGS_NAME, STORAGE_FOLDER
from piod.storage.ledger import Ledger
from piod.storage.pointers import ActivePointers
from piod.storage.readings import Readings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stores:
    """The open stores. ``problem``: what the start could not take over, for health to tell."""

    ledger: Ledger
    readings: Readings
    calibrations: CalibrationStore
    estimators: EstimatorStore
    problem: str | None

    async def prepare(self) -> None:
        """Look what calibrations and estimators there are now."""
        await self.calibrations.prepare()
        await self.estimators.prepare()


@asynccontextmanager
async def open_stores(
    data_dir: Path,
    config: ConfigFiles,
    clock: Clock,
    *,
    writers_end: Callable[[], Awaitable[None]],
) -> AsyncIterator[Stores]:
    """The stores below ``data_dir``, for as long as the context lasts.

    An import that was cut short is settled first. ``writers_end`` is awaited before they
    close: it ends the actors that write to them. Raises StorageFailed, StorageFull.
    """
    storage, hold = data_dir / STORAGE_FOLDER, clock.hold
    # in a thread: folders on a slow card
    with hold():
        await asyncio.to_thread(storage.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(remove_temporary_files, storage)
    ledger = await Ledger.open(storage / LEDGER_NAME, hold)
    readings = Readings(storage / READINGS_NAME, hold)
    try:
        await imports.settle_at_start(data_dir, ledger, hold)
        cache = config.current().text("storage", "persistent_cache", None)
        problem = await take_over_pointers(data_dir, cache, ledger, hold)
        pointers = ActivePointers(ledger)
        stores = Stores(
            ledger,
            readings,
            CalibrationStore(storage / "calibrations", pointers, hold),
            EstimatorStore(storage / "estimators", pointers, hold),
            problem,
        )
        await stores.prepare()
        yield stores
    finally:
        await writers_end()
        try:
            await readings.close()
        except PiodError as refusal:
            log.error("the last readings were not kept: %s", refusal.message)
        await ledger.close()
