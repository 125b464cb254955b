"""Keeping the plant: ``plant.json``, from which :mod:`.run_on` takes it up again."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from piod.clock import Clock

from .plant import Plant
from .replaced_file import ReplacedFile
from .run_on import PLANT_FILE, saved_text

SAVE_EVERY_S = 1.0


class PlantFile:
    """The plant of a running daemon in ``<directory>/plant.json``.

    The plant's time scale is ``clock.monotonic()``. ``flush_interval_s`` as for
    the silicon. A disk that refuses is logged and tried again: the plant goes on.
    """

    def __init__(
        self, directory: Path, plant: Plant, clock: Clock, flush_interval_s: float = 0.0
    ) -> None:
        self._plant = plant
        self._clock = clock
        self._file = ReplacedFile(directory / PLANT_FILE, flush_interval_s, self._render)

    def changed(self) -> None:
        """An output, or the truth itself, was changed from outside."""
        try:
            self._file.changed()
        except OSError:
            pass  # logged, and to be tried again

    async def keep_saving(self) -> None:
        """Save each second of wall time, until cancelled; saves once more then."""
        try:
            while True:
                self.changed()
                await asyncio.sleep(SAVE_EVERY_S)
        finally:
            self.close()

    def close(self) -> None:
        """Save the plant as it is now, and save no more by itself."""
        self.changed()
        self._file.close()

    def _render(self) -> str:
        self._plant.advance_to(self._clock.monotonic())
        return saved_text(self._plant, time.time(), self._clock.time())
