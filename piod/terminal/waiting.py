"""What a terminal shows while the hardware works: time and progress, in one line."""

from __future__ import annotations

import time
from collections.abc import Callable

from piod.terminal.asking import Terminal

REDRAW_EVERY_S = 0.2
LOOK_EVERY_S = 0.6
QUICK_S = 0.4
"""A step that is taken sooner shows nothing."""
BAR_WIDTH = 24


class Waiting:
    """A context; :meth:`show` is to be called each REDRAW_EVERY_S.

    ``progress`` asks how far it is, 0 to 1; None: that is not known. Where a line cannot be
    written over, one line says that it works, and no more.
    """

    def __init__(self, terminal: Terminal, progress: Callable[[], float | None]) -> None:
        self._terminal = terminal
        self._ask_progress = progress
        self._progress: float | None = None
        self._begun_s = self._looked_s = time.monotonic()
        self._shown = False

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._terminal.rewrites:
            self._terminal.rewrite("")

    def show(self) -> None:
        """How it is now."""
        now_s = time.monotonic()
        if now_s - self._begun_s < QUICK_S:
            return
        if not self._terminal.rewrites:
            if not self._shown:
                self._terminal.say("working …")
            self._shown = True
            return
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._progress = self._ask_progress()
        self._shown = True
        minutes, seconds = divmod(int(now_s - self._begun_s), 60)
        self._terminal.rewrite(
            f"{_bar(self._progress, now_s)} {minutes}:{seconds:02}  Ctrl-C stops and aborts"
        )


def _bar(progress: float | None, now_s: float) -> str:
    """How far it is; something that moves, where that is not known."""
    if not progress:
        place = int(now_s / REDRAW_EVERY_S) % BAR_WIDTH
        return f"[{'.' * place}#{'.' * (BAR_WIDTH - 1 - place)}]     "
    full = min(BAR_WIDTH, int(progress * BAR_WIDTH))
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {progress:4.0%}"
