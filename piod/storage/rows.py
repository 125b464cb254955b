"""The rows of the ledger: jobs and tasks, as frozen dataclasses and as records of SQLite.

Times are texts as :func:`piod.clock.timestamp` makes them, so that their order
as texts is their order in time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

TaskStatus = Literal["pending", "in_progress", "complete", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One run of a job.

    ``state`` is what it was added with while it runs (its present state is its
    setting ``$state``) and how it ended afterwards; ``reason`` says why.
    ``options`` and ``config_overrides`` (section, parameter, value) are what it
    was run with.
    """

    job_id: str
    unit: str
    experiment: str
    job_name: str
    job_source: str
    started_at: str
    leader: str
    pid: int
    is_long_running_job: bool = False
    ended_at: str | None = None
    state: str = "init"
    options: Mapping[str, object] = field(default_factory=dict)
    config_overrides: Sequence[tuple[str, str, str]] = ()
    reason: str | None = None

    @property
    def is_running(self) -> bool:
        return self.ended_at is None


@dataclass(frozen=True, slots=True)
class LostJobs:
    """The jobs that died with the daemon, and when it was last known to live."""

    jobs: tuple[JobRow, ...]
    alive_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task.

    ``lock`` names what it keeps others from doing while it runs. ``result`` (a
    JSON value) counts when it is ``complete``; ``error``, ``cause``,
    ``remediation`` and ``error_status`` (the HTTP status of that refusal) when
    it ``failed``.
    """

    task_id: str
    kind: str
    created_at: str
    lock: str | None = None
    status: TaskStatus = "pending"
    result: object = None
    error: str | None = None
    cause: str | None = None
    remediation: str | None = None
    error_status: int | None = None
    finished_at: str | None = None


JOB_COLUMNS = (
    "job_id, unit, experiment, job_name, job_source, started_at, leader, pid, "
    "is_long_running_job, ended_at, state, options, config_overrides, reason"
)

TASK_COLUMNS = (
    "task_id, kind, created_at, lock, status, result, error, cause, remediation, "
    "error_status, finished_at"
)


def job_record(row: JobRow) -> tuple[object, ...]:
    """The values of JOB_COLUMNS."""
    return (
        int(row.job_id),
        row.unit,
        row.experiment,
        row.job_name,
        row.job_source,
        row.started_at,
        row.leader,
        row.pid,
        row.is_long_running_job,
        row.ended_at,
        row.state,
        json.dumps(dict(row.options)),
        json.dumps([list(override) for override in row.config_overrides]),
        row.reason,
    )


def job_row(record: sqlite3.Row) -> JobRow:
    return JobRow(
        job_id=str(record["job_id"]),
        unit=record["unit"],
        experiment=record["experiment"],
        job_name=record["job_name"],
        job_source=record["job_source"],
        started_at=record["started_at"],
        leader=record["leader"],
        pid=record["pid"],
        is_long_running_job=bool(record["is_long_running_job"]),
        ended_at=record["ended_at"],
        state=record["state"],
        options=json.loads(record["options"]),
        config_overrides=tuple((s, p, v) for s, p, v in json.loads(record["config_overrides"])),
        reason=record["reason"],
    )


def task_record(row: TaskRow) -> tuple[object, ...]:
    """The values of TASK_COLUMNS."""
    return (
        row.task_id,
        row.kind,
        row.created_at,
        row.lock,
        row.status,
        json.dumps(row.result),
        row.error,
        row.cause,
        row.remediation,
        row.error_status,
        row.finished_at,
    )


def task_row(record: sqlite3.Row) -> TaskRow:
    return TaskRow(
        task_id=record["task_id"],
        kind=record["kind"],
        created_at=record["created_at"],
        lock=record["lock"],
        status=record["status"],
        result=json.loads(record["result"]),
        error=record["error"],
        cause=record["cause"],
        remediation=record["remediation"],
        error_status=record["error_status"],
        finished_at=record["finished_at"],
    )
