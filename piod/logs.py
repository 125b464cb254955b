"""Logs on stderr: one line each, with the job that they are about.

In a terminal they carry the time and colours. Under systemd they go to its journal
(:mod:`piod.journal`); if that is not there, to stderr with the priority as ``<N>``
in front.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from piod.actors.hub import Hub
from piod.actors.job import job_of
from piod.events import LogEmitted
from piod.journal import NOTICE, PRIORITIES, JournalHandler, about, stderr_is_journal

_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}


class _OneLine(logging.Formatter):
    """``time level about: message``; a traceback follows on lines of its own."""

    def __init__(self, *, journal: bool, colour: bool) -> None:
        super().__init__()
        self._journal = journal
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        message = " ".join(record.getMessage().splitlines())
        text = f"{about(record)}: {message}"
        if not self._journal:
            time = self.formatTime(record, "%H:%M:%S")
            level = f"{record.levelname:<8}"
            if self._colour and record.levelno in _COLOURS:
                level = f"{_COLOURS[record.levelno]}{level}\x1b[0m"
            text = f"{time}.{int(record.msecs):03d} {level} {text}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if self._journal:
            priority = PRIORITIES.get(record.levelno, 6)
            text = "\n".join(f"<{priority}>{line}" for line in text.splitlines())
        return text


def set_up(unit_name: str, level: int = logging.INFO) -> None:
    """Send the logs of this process to the journal, or to stderr where that is none."""
    logging.addLevelName(NOTICE, "NOTICE")
    journal = "JOURNAL_STREAM" in os.environ or "INVOCATION_ID" in os.environ
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    colour = sys.stderr.isatty() and not journal and "NO_COLOR" not in os.environ
    handler.setFormatter(_OneLine(journal=journal, colour=colour))
    if stderr_is_journal():
        try:
            handler = JournalHandler(unit_name, handler)
        except OSError:
            pass  # a journal that has only the stream: lines will do
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("piod").setLevel(level)


class HubHandler(logging.Handler):
    """Publishes piod's log records to the event hub, for whoever forwards them.

    Use only where records come from the event loop's own thread; records of
    other threads are handed over by ``call_soon``.
    """

    def __init__(self, hub: Hub, call_soon: Callable[[Callable[[], None]], object]) -> None:
        super().__init__(logging.INFO)
        self._hub = hub
        self._call_soon = call_soon

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = LogEmitted(
                level=record.levelname,
                message=record.getMessage(),
                source=record.name,
                job=job_of(record),
                at=record.created,
            )
            self._call_soon(lambda: self._hub.publish(event))
        except Exception:  # logging's contract: a wrong log call must not fail its caller
            self.handleError(record)
