"""A file that shows a state that changes: replaced whole, never half written."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

from .run_on import replace_text

log = logging.getLogger(__name__)

RETRY_S = 0.1


class ReplacedFile:
    """Writes ``render()`` to ``path`` after each change, by rename.

    ``interval_s``: 0: at once, within :meth:`changed`; else at most so often,
    wall time, the last change included. ``written`` is called after each write.
    No fsync: it need not survive the machine, only the daemon. Belongs to the
    event loop's thread.
    """

    def __init__(
        self,
        path: Path,
        interval_s: float,
        render: Callable[[], str],
        written: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._interval_s = interval_s
        self._render = render
        self._written = written
        self._dirty = False
        self._failing = False
        self._written_s = -math.inf
        self._pending: asyncio.TimerHandle | None = None

    @property
    def is_written(self) -> bool:
        """The file shows the last change."""
        return not self._dirty

    def changed(self) -> None:
        """The state changed. Raises OSError if it is to be written now and cannot.

        It is tried again all the same: what the caller takes back by then is not written.
        """
        self._dirty = True
        wait_s = self._written_s + self._interval_s - time.monotonic()
        if self._interval_s <= 0 or wait_s <= 0:
            self.flush()
        elif self._pending is None:
            self._write_in(wait_s)

    def flush(self) -> None:
        """Write what is not written yet; nothing to do costs nothing. OSError."""
        if not self._dirty:
            return
        self._cancel()
        try:
            replace_text(self.path, self._render())
        except OSError as error:
            if not self._failing:  # told once until it is over
                self._failing = True
                log.warning("cannot write %s: %s", self.path, error.strerror or error)
            self._write_in(RETRY_S)
            raise
        self._dirty = False
        self._written_s = time.monotonic()
        if self._failing:
            self._failing = False
            log.warning("%s can be written again", self.path)
        self._written()

    def close(self) -> None:
        """Write what is not written yet, if it can be, and write no more by itself."""
        try:
            self.flush()
        except OSError:
            pass  # logged; there is nobody left to wait for a better time
        self._cancel()

    def _write_in(self, wait_s: float) -> None:
        self._pending = asyncio.get_running_loop().call_later(wait_s, self._write_late)

    def _write_late(self) -> None:
        self._pending = None
        try:
            self.flush()
        except OSError:
            pass  # logged, and to be tried again

    def _cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
