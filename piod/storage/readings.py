"""The readings of the unit: what its jobs measured and did, kept and exported.

A database of its own beside the ledger: the ledger is small and precious, and is read
whole at each start; readings are many and may be lost. It is opened, and checked, while
the unit is at work already; what is added before waits.

:meth:`Readings.add` only notes a reading; :meth:`Readings.flush`, called every few
seconds, makes what was noted durable with one flush of the disk. Reads see both.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from piod.errors import Unavailable
from piod.events import JsonValue
from piod.storage.database import Database

log = logging.getLogger(__name__)

SCHEMA: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE kinds (kind_id INTEGER PRIMARY KEY, kind TEXT NOT NULL UNIQUE)",
        """
        CREATE TABLE series (
            series_id INTEGER PRIMARY KEY,
            unit TEXT NOT NULL,
            experiment TEXT NOT NULL,
            channel TEXT NOT NULL,
            UNIQUE (unit, experiment, channel)
        )
        """,
        """
        CREATE TABLE readings (
            reading_id INTEGER PRIMARY KEY,
            kind_id INTEGER NOT NULL,
            series_id INTEGER NOT NULL,
            at_ms INTEGER NOT NULL,
            value REAL NOT NULL,
            details TEXT
        )
        """,
        "CREATE INDEX readings_by_time ON readings (kind_id, at_ms, series_id)",
    ),
)
"""Step n leads from version n to n + 1, and only adds (see :mod:`piod.storage.schema`)."""

OPEN_TIMEOUT_S = 10.0
"""Wall time that a reader waits for the database to be opened."""
PAGE_ROWS = 1000
FLUSH_ROWS = 2000
"""So many that wait are written before their time."""
MAX_WAITING = 50_000
"""That wait while the disk takes none: two days of OD; the oldest go first."""
SLICE_ROWS = 5000
"""Deleted in one step, so that readings that come meanwhile need not wait."""
SLICE_PAGES = 256
DAY_MS = 86_400_000
SETTLED_MS, LEAP_MS = 7 * DAY_MS, 30 * DAY_MS
"""A clock that leapt ahead by more than the latter is believed after readings of the former."""
_EARLIEST_MS, _LATEST_MS = -(2**62), 2**62


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading. ``at``: Unix seconds, kept to the millisecond; ``kind``, ``channel``,
    ``details`` as in :class:`piod.events.ReadingTaken`."""

    unit: str
    experiment: str
    kind: str
    channel: str | None
    at: float
    value: float
    details: Mapping[str, JsonValue]

    @property
    def at_ms(self) -> int:
        return round(self.at * 1000)


@dataclass(frozen=True)
class KindCount:
    """How many readings of a kind there are, and the Unix times of the first and the last."""

    readings: int
    first_at: float
    last_at: float


class Readings:
    """The readings in the file ``path``; used on one event loop.

    ``hold``: :meth:`piod.clock.Clock.hold`. Methods that touch the disk raise
    StorageFull or StorageFailed when it refuses, and Unavailable before :meth:`open` is done.
    """

    def __init__(self, path: Path, hold: Callable[[], AbstractContextManager[None]]) -> None:
        self.path = path
        self.dropped = 0
        """Readings that were given up because the disk took none."""
        self.many_wait = asyncio.Event()
        """So many wait that they should be flushed now."""
        self._hold = hold
        self._database: Database | None = None
        self._opened = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._waiting: deque[Reading] = deque()
        self._first_id = 0
        """Of the first that waits, once the database is open; the others follow."""

    async def open(self) -> None:
        """Open the file, made if it is missing; a damaged one is moved aside. Idempotent."""
        if self._database is not None:
            return
        database = await Database.open(self.path, schema=SCHEMA, hold=self._hold)
        try:
            self._first_id = 1 + await database.read(_last_id)
        except BaseException:
            await database.close()
            raise
        self._database = database
        self._opened.set()

    @property
    def replaced_corrupt(self) -> Path | None:
        """Where the damaged file that was found in its place lies now."""
        return None if self._database is None else self._database.replaced_corrupt

    async def close(self) -> None:
        """Put everything on disk. Idempotent."""
        if self._database is not None:
            try:
                await self.flush()
            finally:
                await self._database.close()

    def add(self, reading: Reading) -> None:
        """Note ``reading``; it is on disk after the next :meth:`flush`."""
        self._waiting.append(reading)
        if len(self._waiting) > MAX_WAITING:
            self._forget_first(1)
            self.dropped += 1
        if len(self._waiting) >= FLUSH_ROWS:
            self.many_wait.set()

    async def flush(self) -> None:
        """Make durable what was noted. What the disk refuses goes on waiting."""
        async with self._flushing:
            database = await self._ready()
            while self._waiting:
                first_id = self._first_id
                work = _Insert(first_id, tuple(islice(self._waiting, FLUSH_ROWS)))
                await database.write(work)
                self._forget_first(first_id + len(work.readings) - self._first_id)
            self.many_wait.clear()

    async def kinds(self) -> dict[str, KindCount]:
        """What there is, by kind."""
        database = await self._ready()
        first_id, waiting = self._first_id, tuple(self._waiting)
        counts = await database.read(lambda connection: _kinds(connection, first_id))
        for reading in waiting:
            old = counts.get(reading.kind) or KindCount(0, reading.at, reading.at)
            counts[reading.kind] = KindCount(
                old.readings + 1, min(old.first_at, reading.at), max(old.last_at, reading.at)
            )
        return dict(sorted(counts.items()))

    async def pages(
        self,
        kind: str,
        *,
        experiment: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> AsyncIterator[Sequence[Reading]]:
        """The readings of ``kind`` in the order of their times, a bounded number at a time.

        ``since`` (inclusive) and ``until`` (exclusive) are Unix seconds; None: no bound. What
        is added after the begin is left out. What is not on disk yet comes last.
        """
        database = await self._ready()
        first_id, waiting = self._first_id, tuple(self._waiting)
        since_ms = _EARLIEST_MS if since is None else round(since * 1000)
        until_ms = _LATEST_MS if until is None else round(until * 1000)
        query = _Page(kind, experiment, since_ms, until_ms, below_id=first_id)
        while True:
            records = await database.read(query)
            if records:
                yield [_reading(kind, record) for record in records]
            if len(records) < PAGE_ROWS:
                break
            query = query.after(records[-1])
        rest = [
            reading
            for reading in waiting
            if reading.kind == kind
            and experiment in (None, reading.experiment)
            and since_ms <= reading.at_ms < until_ms
        ]
        if rest:
            yield sorted(rest, key=lambda reading: reading.at)

    async def prune(self, now: float, max_age_days: float, max_rows: int) -> int:
        """Bound what is kept by age and number; how many were forgotten. Daily.

        ``now``: Unix seconds. A clock that ran ahead must not cost everything: age counts
        from the newest reading if that is earlier; and from the last one before a leap of
        more than LEAP_MS, until readings of SETTLED_MS have followed that leap.
        """
        database = await self._ready()
        newest = await database.read(_believed_newest_ms)
        if newest is None:
            return 0
        too_old_ms = min(round(now * 1000), newest) - round(max_age_days * DAY_MS)
        forgotten = 0
        while True:
            deleted = await database.write(lambda c: _delete_some(c, too_old_ms, max_rows))
            forgotten += deleted
            if not deleted:
                break
        while await database.write(_give_back_some):
            pass
        return forgotten

    async def _ready(self) -> Database:
        if self._database is None:
            try:
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    await self._opened.wait()
            except TimeoutError:
                pass
        if self._database is None:
            raise Unavailable(
                "the readings are not available: their database is still being opened and checked",
                remediation="Try again in a minute; if it persists, look at the log of piod.",
            )
        return self._database

    def _forget_first(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
        self._first_id += count


# -- in the database's threads ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Insert:
    """May be run again: ids tell what is there already."""

    first_id: int
    readings: tuple[Reading, ...]

    def __call__(self, connection: sqlite3.Connection) -> None:
        kinds: dict[str, int] = {}
        series: dict[tuple[str, str, str], int] = {}
        for reading_id, reading in enumerate(self.readings, self.first_id):
            try:
                at_ms, details = _storable(reading)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                log.error("a reading is not kept, which cannot be: %s: %.200r", error, reading)
                continue
            kind_id = kinds.get(reading.kind)
            if kind_id is None:
                kind_id = kinds[reading.kind] = _kind_id(connection, reading.kind)
            source = (reading.unit, reading.experiment, reading.channel or "")
            series_id = series.get(source)
            if series_id is None:
                series_id = series[source] = _series_id(connection, source)
            connection.execute(
                "INSERT OR IGNORE INTO readings "
                "(reading_id, kind_id, series_id, at_ms, value, details) VALUES (?, ?, ?, ?, ?, ?)",
                (reading_id, kind_id, series_id, at_ms, reading.value, details),
            )


def _storable(reading: Reading) -> tuple[int, str | None]:
    """Time and details as they are kept. Raises what says that they cannot be."""
    at_ms = reading.at_ms
    if not _EARLIEST_MS < at_ms < _LATEST_MS:
        raise ValueError(f"there is no such time as {at_ms} ms")
    if not math.isfinite(reading.value):
        raise ValueError(f"{reading.value} is no number")
    for text in (reading.unit, reading.experiment, reading.kind, reading.channel or ""):
        text.encode()
    if not reading.details:
        return at_ms, None
    details = json.dumps(
        reading.details, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    details.encode()
    return at_ms, details


def _kind_id(connection: sqlite3.Connection, kind: str) -> int:
    connection.execute("INSERT OR IGNORE INTO kinds (kind) VALUES (?)", (kind,))
    return _one(connection, "SELECT kind_id FROM kinds WHERE kind = ?", (kind,)) or 0


def _series_id(connection: sqlite3.Connection, source: tuple[str, str, str]) -> int:
    connection.execute(
        "INSERT OR IGNORE INTO series (unit, experiment, channel) VALUES (?, ?, ?)", source
    )
    where = "SELECT series_id FROM series WHERE unit = ? AND experiment = ? AND channel = ?"
    return _one(connection, where, source) or 0


@dataclass(frozen=True, slots=True)
class _Page:
    """A query of the next rows, by the order of the index; ``last`` is where the page before
    has ended."""

    kind: str
    experiment: str | None
    since_ms: int
    until_ms: int
    below_id: int
    last: tuple[int, int] = (0, 0)
    """Series and id of the last row, whose time is ``since_ms``."""

    def __call__(self, connection: sqlite3.Connection) -> list[sqlite3.Row]:
        return connection.execute(
            "SELECT at_ms, series_id, reading_id, value, details, unit, experiment, channel "
            "FROM readings JOIN series USING (series_id) "
            "WHERE kind_id = (SELECT kind_id FROM kinds WHERE kind = ?) "
            "AND at_ms >= ? AND at_ms < ? "
            "AND (at_ms > ? OR (series_id, reading_id) > (?, ?)) "
            "AND reading_id < ? AND (? IS NULL OR experiment = ?) "
            "ORDER BY at_ms, series_id, reading_id LIMIT ?",
            (
                self.kind,
                self.since_ms,
                self.until_ms,
                self.since_ms,
                *self.last,
                self.below_id,
                self.experiment,
                self.experiment,
                PAGE_ROWS,
            ),
        ).fetchall()

    def after(self, record: sqlite3.Row) -> _Page:
        return _Page(
            self.kind,
            self.experiment,
            record["at_ms"],
            self.until_ms,
            self.below_id,
            (record["series_id"], record["reading_id"]),
        )


def _reading(kind: str, record: sqlite3.Row) -> Reading:
    details = record["details"]
    return Reading(
        unit=record["unit"],
        experiment=record["experiment"],
        kind=kind,
        channel=record["channel"] or None,
        at=record["at_ms"] / 1000,
        value=record["value"],
        details={} if details is None else json.loads(details),
    )


def _kinds(connection: sqlite3.Connection, below_id: int) -> dict[str, KindCount]:
    records = connection.execute(
        "SELECT kind, count(*) AS readings, min(at_ms) AS first_ms, max(at_ms) AS last_ms "
        "FROM readings JOIN kinds USING (kind_id) WHERE reading_id < ? GROUP BY kind_id",
        (below_id,),
    )
    return {
        record["kind"]: KindCount(
            record["readings"], record["first_ms"] / 1000, record["last_ms"] / 1000
        )
        for record in records
    }


def _last_id(connection: sqlite3.Connection) -> int:
    return _one(connection, "SELECT max(reading_id) FROM readings") or 0


def _believed_newest_ms(connection: sqlite3.Connection) -> int | None:
    newest = _newest_ms(connection, _LATEST_MS)
    settled = None if newest is None else _newest_ms(connection, newest - SETTLED_MS)
    if newest is None or settled is None:
        return newest
    return newest if newest - settled <= LEAP_MS else settled


def _newest_ms(connection: sqlite3.Connection, before_ms: int) -> int | None:
    return _one(
        connection,
        "SELECT max((SELECT max(at_ms) FROM readings "
        "WHERE kind_id = kinds.kind_id AND at_ms < ?)) FROM kinds",
        (before_ms,),
    )


def _delete_some(connection: sqlite3.Connection, too_old_ms: int, max_rows: int) -> int:
    beyond = _last_id(connection) - max_rows
    deleted = connection.execute(
        "DELETE FROM readings WHERE reading_id IN "
        "(SELECT reading_id FROM readings WHERE reading_id <= ? ORDER BY reading_id LIMIT ?)",
        (beyond, SLICE_ROWS),
    ).rowcount
    if deleted:
        return deleted
    return connection.execute(
        "DELETE FROM readings WHERE reading_id IN (SELECT reading_id FROM kinds "
        "JOIN readings USING (kind_id) WHERE at_ms < ? LIMIT ?)",
        (too_old_ms, SLICE_ROWS),
    ).rowcount


def _give_back_some(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the disk; whether there are more to be given.

    Not the last quarter: the readings of the next day take their place.
    """
    free = _one(connection, "PRAGMA freelist_count") or 0
    if free <= (_one(connection, "PRAGMA page_count") or 0) // 4:
        return False
    for _ in range(min(free, SLICE_PAGES)):  # a step of this pragma frees one page
        connection.execute("PRAGMA incremental_vacuum(1)")
    return True


def _one(
    connection: sqlite3.Connection, statement: str, values: Sequence[object] = ()
) -> int | None:
    record: tuple[int | None] = connection.execute(statement, values).fetchone()
    return record[0]
