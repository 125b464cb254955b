"""What jobs remember beyond their own life, in the ledger: JSON values by experiment and key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from piod.clock import timestamp
from piod.events import JsonValue
from piod.storage.ledger import Ledger


class ExperimentMemory:
    """The memory of one experiment; see :class:`piod.jobs.instruments.Memory`.

    ``now``: Unix seconds. Raises StorageFull or StorageFailed.
    """

    def __init__(self, ledger: Ledger, experiment: str, now: Callable[[], float]) -> None:
        self._database = ledger.database
        self._experiment = experiment
        self._now = now

    async def recall(self, key: str) -> JsonValue:
        """What was kept; None: nothing."""
        for work in reversed(self._database.unsaved()):
            if isinstance(work, _Keep) and (work.experiment, work.key) == (self._experiment, key):
                return work.native
        text = await self._database.read(
            lambda connection: _text(connection, self._experiment, key)
        )
        value: JsonValue = None if text is None else json.loads(text)
        return value

    async def keep(self, key: str, value: JsonValue) -> None:
        """Keep it, durable when this returns; None forgets it."""
        work = self._work(key, value)
        # an older one that waits in a batch must not come after it
        self._database.later(("memory", self._experiment, key), work)
        await self._database.write(work)

    def keep_later(self, key: str, value: JsonValue) -> None:
        """Keep it with the next batch, within seconds; for what changes by itself."""
        self._database.later(("memory", self._experiment, key), self._work(key, value))

    def _work(self, key: str, value: JsonValue) -> _Keep:
        text = None
        if value is not None:
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return _Keep(self._experiment, key, text, timestamp(self._now()))


@dataclass(frozen=True, slots=True)
class _Keep:
    experiment: str
    key: str
    text: str | None
    updated_at: str

    @property
    def native(self) -> JsonValue:
        value: JsonValue = None if self.text is None else json.loads(self.text)
        return value

    def __call__(self, connection: sqlite3.Connection) -> None:
        if self.text is None:
            connection.execute(
                "DELETE FROM memory WHERE experiment = ? AND key = ?", (self.experiment, self.key)
            )
            return
        connection.execute(
            "INSERT INTO memory (experiment, key, value, updated_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (experiment, key) "
            "DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
            (self.experiment, self.key, self.text, self.updated_at),
        )


def _text(connection: sqlite3.Connection, experiment: str, key: str) -> str | None:
    record: tuple[str] | None = connection.execute(
        "SELECT value FROM memory WHERE experiment = ? AND key = ?", (experiment, key)
    ).fetchone()
    return None if record is None else record[0]
