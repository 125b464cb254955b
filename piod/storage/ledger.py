"""The unit's ledger: which jobs ran and run, what they published, what became of tasks.

Its rows are those of :mod:`piod.storage.rows`; times are texts as
:func:`piod.clock.timestamp` makes them.

What a 2xx acknowledges is durable: ``add_job``, ``end_job``, ``add_task``,
``finish_task``, ``put_meta``, ``remove_meta``. What changes by itself every few seconds goes in
batches and may lose the last three seconds in a power cut: ``put_setting``,
``task_started``, ``mark_alive``. Reads see both.

Whether a job runs is known by the daemon, whose actors live or not; the ledger
only keeps what it was told. So a row that is still open when the daemon starts
is of a job that died with the daemon before: :meth:`Ledger.close_lost`.

Every method raises :class:`piod.errors.StorageFull` or
:class:`piod.errors.StorageFailed` when the disk refuses.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from piod.clock import timestamp
from piod.storage.database import Database
from piod.storage.rows import (
    JOB_COLUMNS,
    TASK_COLUMNS,
    JobRow,
    LostJobs,
    TaskRow,
    TaskStatus,
    job_record,
    job_row,
    task_record,
    task_row,
)
from piod.storage.schema import SCHEMA

__all__ = ["JobRow", "Ledger", "LostJobs", "TaskRow", "TaskStatus"]

DAY_S = 86_400.0


class Ledger:
    """The durable state of the unit. Made by :meth:`open`; used on one event loop."""

    def __init__(self, database: Database, last_job_id: int) -> None:
        self.database = database
        self.meta_changes = 0
        """How often a fact of :meth:`put_meta` has changed; what is kept in memory goes by it."""
        self._last_job_id = last_job_id

    @classmethod
    async def open(cls, path: Path, hold: Callable[[], AbstractContextManager[None]]) -> Ledger:
        """Open the ledger in the file ``path``, made if it is missing.

        ``hold`` is :meth:`piod.clock.Clock.hold`. A damaged file is moved aside:
        see :attr:`piod.storage.database.Database.replaced_corrupt`.
        """
        database = await Database.open(path, schema=SCHEMA, hold=hold)
        try:
            if database.replaced_corrupt is not None:
                # The ids that were given are gone with the damaged file. A unit never
                # starts a job each second all its life, so this is beyond all of them.
                beyond = int(time.time())
                await database.write(lambda connection: _skip_job_ids(connection, beyond))
            last_job_id = await database.read(_last_job_id)
        except BaseException:
            await database.close()
            raise
        return cls(database, last_job_id)

    async def close(self) -> None:
        """Put everything on disk and end the threads."""
        await self.database.close()

    # -- jobs ---------------------------------------------------------------------

    def next_job_id(self) -> str:
        """An id that no job of this unit has had."""
        self._last_job_id += 1
        return str(self._last_job_id)

    async def add_job(self, row: JobRow) -> None:
        """Keep a job that starts. ``row.job_id`` comes from :meth:`next_job_id`. Durable."""
        values = job_record(row)
        statement = f"INSERT INTO jobs ({JOB_COLUMNS}) VALUES ({_places(values)})"
        await self.database.write(lambda connection: _run(connection, statement, values))

    async def end_job(self, job_id: str, ended_at: str, state: str, reason: str | None) -> None:
        """Note how a job ended. Durable. The first end counts, a second changes nothing."""
        await self.database.write(
            lambda connection: _run(
                connection,
                "UPDATE jobs SET ended_at = ?, state = ?, reason = ? "
                "WHERE job_id = ? AND ended_at IS NULL",
                (ended_at, state, reason, _rowid(job_id)),
            )
        )

    async def job(self, job_id: str) -> JobRow | None:
        """The job of that id, if it is (still) in the history."""
        rows = await self._jobs("WHERE job_id = ?", _rowid(job_id))
        return rows[0] if rows else None

    async def history(self, limit: int = 10_000, offset: int = 0) -> list[JobRow]:
        """Jobs that ran and run, newest first."""
        return await self._jobs("ORDER BY job_id DESC LIMIT ? OFFSET ?", limit, offset)

    async def recent_lost(self, limit: int) -> list[JobRow]:
        """The last jobs that died with the daemon, newest first; but not the daemon's own."""
        return await self._jobs(
            "WHERE state = 'lost' AND NOT is_long_running_job ORDER BY job_id DESC LIMIT ?", limit
        )

    async def close_lost(self, now: str) -> LostJobs:
        """Mark the jobs that the last daemon left open as ``lost``. Durable.

        To be called at the start, before any job runs. They ended at the
        daemon's last sign of life, as far as that lies between their start and
        ``now`` (a unit without a clock chip may have woken in the past).
        """
        return await self.database.write(lambda connection: _close_lost(connection, now))

    def mark_alive(self, now: str) -> None:
        """The sign of life that dates the end of lost jobs; every 30 s or so. Batched."""
        self.database.later(("meta", "alive_at"), _PutMeta("alive_at", now))

    async def _jobs(self, rest: str, *parameters: object) -> list[JobRow]:
        statement = f"SELECT {JOB_COLUMNS} FROM jobs {rest}"
        return await self.database.read(
            lambda connection: [job_row(r) for r in connection.execute(statement, parameters)]
        )

    # -- settings -----------------------------------------------------------------

    def put_setting(self, job_id: str, setting: str, value: str | None, updated_at: str) -> None:
        """Keep what a job published; None deletes it. Batched, the last of a batch is written."""
        work = _PutSetting(int(job_id), setting, value, updated_at)
        self.database.later(("setting", job_id, setting), work)

    async def settings(self, job_id: str) -> dict[str, str]:
        """What a job has published, by setting; empty for a job that is not known."""
        rowid = _rowid(job_id)
        unsaved = [
            work
            for work in self.database.unsaved()
            if isinstance(work, _PutSetting) and work.job_id == rowid
        ]
        values: dict[str, str] = await self.database.read(
            lambda connection: dict(
                connection.execute(
                    "SELECT setting, value FROM settings WHERE job_id = ? ORDER BY setting",
                    (rowid,),
                ).fetchall()
            )
        )
        for work in unsaved:
            if work.value is None:
                values.pop(work.setting, None)
            else:
                values[work.setting] = work.value
        return values

    # -- tasks --------------------------------------------------------------------

    async def add_task(self, row: TaskRow) -> None:
        """Keep a task that was accepted. Durable. What became of it already, stays."""
        await self._put_task(row, "DO NOTHING")

    def task_started(self, task_id: str) -> None:
        """Note that a pending task is in progress. Batched."""
        self.database.later(("task", task_id), _StartTask(task_id))

    async def finish_task(self, row: TaskRow) -> None:
        """Keep what became of a task: its row with the outcome filled in. Durable."""
        news = ", ".join(f"{column} = excluded.{column}" for column in TASK_COLUMNS.split(", "))
        await self._put_task(row, f"DO UPDATE SET {news}")

    async def task(self, task_id: str) -> TaskRow | None:
        """The task of that id, if it is (still) kept."""
        started = _StartTask(task_id) in self.database.unsaved()
        record = await self.database.read(
            lambda connection: connection.execute(
                f"SELECT {TASK_COLUMNS} FROM tasks WHERE task_id = ?", (task_id,)
            ).fetchone()
        )
        if record is None:
            return None
        row = task_row(record)
        return replace(row, status="in_progress") if started and row.status == "pending" else row

    async def open_tasks(self, lock: str) -> list[TaskRow]:
        """The tasks that hold ``lock`` and are not over; at the start, those left unfinished."""
        return await self.database.read(
            lambda connection: [
                task_row(record)
                for record in connection.execute(
                    f"SELECT {TASK_COLUMNS} FROM tasks "
                    "WHERE lock = ? AND status IN ('pending', 'in_progress') ORDER BY created_at",
                    (lock,),
                )
            ]
        )

    async def fail_orphans(self, now: str, *, but_lock: str | None = None) -> int:
        """Fail the tasks that ran when the last daemon ended; how many. Durable.

        Not those that hold ``but_lock``: their work outlives the daemon. To be called
        at the start, before any task runs.
        """
        return await self.database.write(
            lambda connection: _run(
                connection,
                "UPDATE tasks SET status = 'failed', error_status = 503, "
                "error = 'piod ended while the task (' || kind || ') was running: "
                "it may be done in part.', "
                "cause = 'The daemon crashed, was stopped, or the unit lost its power.', "
                "remediation = 'Look at what the unit did, then send the command again.', "
                "finished_at = ? WHERE status IN ('pending', 'in_progress') "
                "AND (? IS NULL OR lock IS NOT ?)",
                (now, but_lock, but_lock),
            )
        )

    async def _put_task(self, row: TaskRow, if_there: str) -> None:
        values = task_record(row)
        statement = (
            f"INSERT INTO tasks ({TASK_COLUMNS}) VALUES ({_places(values)}) "
            f"ON CONFLICT (task_id) {if_there}"
        )
        await self.database.write(lambda connection: _run(connection, statement, values))

    # -- meta, bounds -------------------------------------------------------------

    async def get_meta(self, key: str) -> str | None:
        """A fact about the unit that is not a job's or a task's."""
        for work in reversed(self.database.unsaved()):
            if isinstance(work, _PutMeta) and work.key == key:
                return work.value
        return await self.database.read(lambda connection: _meta(connection, key))

    async def put_meta(self, key: str, value: str) -> None:
        """Keep such a fact. Durable."""
        await self._change_meta(_PutMeta(key, value))

    async def metas(self, prefix: str) -> dict[str, str]:
        """All such facts whose key begins with ``prefix``, by key."""
        unsaved = [
            work
            for work in self.database.unsaved()
            if isinstance(work, _PutMeta) and work.key.startswith(prefix)
        ]
        values: dict[str, str] = await self.database.read(
            lambda connection: dict(
                connection.execute(
                    "SELECT key, value FROM meta WHERE substr(key, 1, ?) = ? ORDER BY key",
                    (len(prefix), prefix),
                ).fetchall()
            )
        )
        return values | {work.key: work.value for work in unsaved}

    async def remove_meta(self, key: str) -> None:
        """Forget a fact that :meth:`put_meta` kept, if it is there. Durable."""
        await self._change_meta(
            lambda connection: _run(connection, "DELETE FROM meta WHERE key = ?", (key,))
        )

    async def replace_meta(self, prefixes: Sequence[str], facts: Mapping[str, str]) -> None:
        """Forget all facts whose key begins so, and keep ``facts``, in one step. Durable."""
        await self._change_meta(_ReplaceMeta(tuple(prefixes), dict(facts)))

    async def _change_meta(self, work: Callable[[sqlite3.Connection], object]) -> None:
        try:
            await self.database.write(work)
        finally:
            self.meta_changes += 1

    async def prune(self, now_unix_s: float, max_age_days: float, max_rows: int) -> int:
        """Bound the history: forget what is older, or beyond the newest ``max_rows``.

        Only jobs that ended, with their settings, and tasks that finished; no
        task in its first day. Gives the space back to the disk. Answers how many
        jobs and tasks were forgotten. To be called at the start and daily.
        """
        too_old = timestamp(now_unix_s - max_age_days * DAY_S)
        a_day_old = timestamp(now_unix_s - DAY_S)
        return await self.database.write(
            lambda connection: _prune(connection, too_old, a_day_old, max_rows)
        )


# -- in the database's thread -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PutSetting:
    job_id: int
    setting: str
    value: str | None
    updated_at: str

    def __call__(self, connection: sqlite3.Connection) -> None:
        if self.value is None:
            connection.execute(
                "DELETE FROM settings WHERE job_id = ? AND setting = ?", (self.job_id, self.setting)
            )
            return
        connection.execute(
            "INSERT INTO settings (job_id, setting, value, updated_at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (job_id, setting) "
            "DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
            (self.job_id, self.setting, self.value, self.updated_at),
        )


@dataclass(frozen=True, slots=True)
class _StartTask:
    task_id: str

    def __call__(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE tasks SET status = 'in_progress' WHERE task_id = ? AND status = 'pending'",
            (self.task_id,),
        )


@dataclass(frozen=True, slots=True)
class _PutMeta:
    key: str
    value: str

    def __call__(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO meta (key, value) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (self.key, self.value),
        )


@dataclass(frozen=True, slots=True)
class _ReplaceMeta:
    prefixes: tuple[str, ...]
    facts: Mapping[str, str]

    def __call__(self, connection: sqlite3.Connection) -> None:
        for prefix in self.prefixes:
            connection.execute(
                "DELETE FROM meta WHERE substr(key, 1, ?) = ?", (len(prefix), prefix)
            )
        for key, value in self.facts.items():
            _PutMeta(key, value)(connection)


def _run(connection: sqlite3.Connection, statement: str, values: Sequence[object]) -> int:
    return connection.execute(statement, values).rowcount


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _rowid(job_id: str) -> int | None:
    """The key of a job's row; None for a text that is no id of ours, which matches no row."""
    if job_id.isascii() and job_id.isdecimal() and len(job_id) <= 18 and job_id[0] != "0":
        return int(job_id)
    return None


def _meta(connection: sqlite3.Connection, key: str) -> str | None:
    record: tuple[str] | None = connection.execute(
        "SELECT value FROM meta WHERE key = ?", (key,)
    ).fetchone()
    return None if record is None else record[0]


def _last_job_id(connection: sqlite3.Connection) -> int:
    last: int = connection.execute(
        "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0), "
        "coalesce((SELECT max(job_id) FROM jobs), 0))"
    ).fetchone()[0]
    return last


def _skip_job_ids(connection: sqlite3.Connection, beyond: int) -> None:
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?)", (beyond,))


def _close_lost(connection: sqlite3.Connection, now: str) -> LostJobs:
    alive_at = _meta(connection, "alive_at")
    records = connection.execute(
        "UPDATE jobs SET state = 'lost', "
        "ended_at = max(started_at, min(coalesce(?, started_at), ?)), "
        "reason = 'piod crashed, was killed, or the unit lost its power' "
        f"WHERE ended_at IS NULL RETURNING {JOB_COLUMNS}",
        (alive_at, now),
    ).fetchall()
    jobs = tuple(job_row(record) for record in records)
    for job in jobs:
        _PutSetting(int(job.job_id), "$state", "lost", now)(connection)
    return LostJobs(jobs, alive_at)


def _prune(connection: sqlite3.Connection, too_old: str, a_day_old: str, max_rows: int) -> int:
    forgotten = _run(
        connection,
        "DELETE FROM jobs WHERE ended_at IS NOT NULL AND (ended_at < ? OR job_id <= "
        "(SELECT job_id FROM jobs ORDER BY job_id DESC LIMIT 1 OFFSET ?))",
        (too_old, max_rows),
    )
    forgotten += _run(
        connection,
        "DELETE FROM tasks WHERE finished_at < ? AND (finished_at < ? OR finished_at <= "
        "(SELECT finished_at FROM tasks WHERE finished_at IS NOT NULL "
        "ORDER BY finished_at DESC LIMIT 1 OFFSET ?))",
        (a_day_old, too_old, max_rows),
    )
    connection.execute("DELETE FROM settings WHERE job_id NOT IN (SELECT job_id FROM jobs)")
    # The sqlite3 module steps this pragma once, and a step frees one page.
    free_pages = connection.execute("PRAGMA freelist_count").fetchone()[0]
    for _ in range(free_pages):
        connection.execute("PRAGMA incremental_vacuum(1)")
    return forgotten
