from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from piod.clock import SimulatedClock, timestamp
from piod.errors import StorageFailed
from piod.storage.ledger import DAY_S, JobRow, Ledger, TaskRow

NOW = 1_790_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "piod.sqlite"


@pytest.fixture
async def ledger(path: Path, clock: SimulatedClock) -> AsyncIterator[Ledger]:
    ledger = await Ledger.open(path, clock.hold)
    yield ledger
    await ledger.close()


def at(seconds: float) -> str:
    return timestamp(NOW + seconds)


def new_job(ledger: Ledger, job_name: str = "stirring", started_at: str | None = None) -> JobRow:
    return JobRow(
        job_id=ledger.next_job_id(),
        unit="unit1",
        experiment="exp µ1",
        job_name=job_name,
        job_source="experiment_profile/4",
        started_at=started_at or at(0),
        leader="leader1",
        pid=4711,
        options={"target_rpm": 500, "ignore_rpm": None, "targets": [1.5, True]},
        config_overrides=(("stirring.config", "target_rpm", "500"),),
    )


async def test_a_job_is_kept_whole_and_runs_until_it_is_ended(ledger: Ledger) -> None:
    job = new_job(ledger)
    await ledger.add_job(job)
    assert await ledger.job(job.job_id) == job
    assert job.is_running
    await ledger.end_job(job.job_id, at(60), "disconnected", "stopped by a request")
    ended = await ledger.job(job.job_id)
    assert ended == replace(
        job, ended_at=at(60), state="disconnected", reason="stopped by a request"
    )
    assert not ended.is_running


async def test_the_first_end_of_a_job_counts(ledger: Ledger) -> None:
    job = new_job(ledger)
    await ledger.add_job(job)
    await ledger.end_job(job.job_id, at(1), "failed", "no tachometer signal")
    await ledger.end_job(job.job_id, at(2), "disconnected", None)
    ended = await ledger.job(job.job_id)
    assert ended is not None
    assert (ended.ended_at, ended.state, ended.reason) == (at(1), "failed", "no tachometer signal")


async def test_history_is_newest_first_and_can_be_paged(ledger: Ledger) -> None:
    jobs = [new_job(ledger) for _ in range(5)]
    await asyncio.gather(*(ledger.add_job(job) for job in jobs))
    assert [j.job_id for j in await ledger.history()] == ["5", "4", "3", "2", "1"]
    assert [j.job_id for j in await ledger.history(limit=2, offset=1)] == ["4", "3"]


@pytest.mark.parametrize(
    "text", ["", "0", "01", "1.0", "1e0", " 1", "+1", "-1", "١", "9" * 30, "job", "2"]
)
async def test_a_text_that_is_no_id_of_a_job_finds_none(ledger: Ledger, text: str) -> None:
    job = new_job(ledger)
    assert job.job_id == "1"
    await ledger.add_job(job)
    assert await ledger.job(text) is None
    assert await ledger.settings(text) == {}


async def test_an_id_is_never_given_twice_after_pruning_and_a_restart(
    path: Path, clock: SimulatedClock
) -> None:
    first = await Ledger.open(path, clock.hold)
    for _ in range(3):
        job = new_job(first)
        await first.add_job(job)
        await first.end_job(job.job_id, at(1), "disconnected", None)
    assert await first.prune(NOW + 100 * DAY_S, max_age_days=30, max_rows=1000) == 3
    assert await first.history() == []
    await first.close()

    second = await Ledger.open(path, clock.hold)
    assert second.next_job_id() == "4"
    await second.close()


def damage(path: Path) -> None:
    path.write_bytes(b"\xff" * 10_000)


async def test_an_id_is_never_given_twice_after_the_ledger_was_damaged(
    path: Path, clock: SimulatedClock
) -> None:
    before = int(time.time())
    damage(path)
    for _ in range(2):  # also when no job was added before the next restart
        ledger = await Ledger.open(path, clock.hold)
        assert int(ledger.next_job_id()) > before
        await ledger.close()


async def test_jobs_that_a_dead_daemon_left_open_are_lost_since_its_last_sign_of_life(
    path: Path, clock: SimulatedClock
) -> None:
    first = await Ledger.open(path, clock.hold)
    ended, running = new_job(first), new_job(first, "od_reading")
    late = new_job(first, "monitor", started_at=at(40))
    for job in (ended, running, late):
        await first.add_job(job)
    await first.end_job(ended.job_id, at(10), "disconnected", None)
    first.put_setting(running.job_id, "$state", "ready", at(0))
    first.mark_alive(at(5))
    first.mark_alive(at(30))
    await first.close()  # nothing ends the jobs: as a crash would

    second = await Ledger.open(path, clock.hold)
    try:
        lost = await second.close_lost(at(3600))
        assert lost.alive_at == at(30)
        assert [(j.job_name, j.ended_at, j.state) for j in lost.jobs] == [
            ("od_reading", at(30), "lost"),
            ("monitor", at(40), "lost"),
        ]
        assert await second.settings(running.job_id) == {"$state": "lost"}
        assert list(reversed(await second.recent_lost(10))) == list(lost.jobs)
        assert [j.job_name for j in await second.recent_lost(1)] == ["monitor"]
        assert await second.job(ended.job_id) == replace(
            ended, ended_at=at(10), state="disconnected"
        )
        assert (await second.close_lost(at(3700))).jobs == ()
    finally:
        await second.close()


async def test_a_lost_job_does_not_end_in_the_future_or_before_its_start(ledger: Ledger) -> None:
    woken_in_the_past = new_job(ledger, started_at=at(0))
    await ledger.add_job(woken_in_the_past)
    ledger.mark_alive(at(500))
    (lost,) = (await ledger.close_lost(at(100))).jobs
    assert lost.ended_at == at(100)

    never_marked = new_job(ledger, started_at=at(1000))
    await ledger.add_job(never_marked)
    (lost,) = (await ledger.close_lost(at(2000))).jobs
    assert lost.ended_at == at(1000)


async def test_settings_are_seen_before_and_after_they_are_on_disk(ledger: Ledger) -> None:
    job = new_job(ledger)
    await ledger.add_job(job)
    ledger.put_setting(job.job_id, "target_rpm", "500", at(0))
    ledger.put_setting(job.job_id, "$state", "ready", at(0))
    ledger.put_setting("999", "target_rpm", "1", at(0))
    assert await ledger.settings(job.job_id) == {"$state": "ready", "target_rpm": "500"}
    await ledger.database.flush()
    assert await ledger.settings(job.job_id) == {"$state": "ready", "target_rpm": "500"}
    ledger.put_setting(job.job_id, "target_rpm", "450", at(1))
    ledger.put_setting(job.job_id, "$state", None, at(1))
    for _ in range(2):
        assert await ledger.settings(job.job_id) == {"target_rpm": "450"}
        await ledger.database.flush()


async def test_a_setting_that_changes_often_is_written_once_a_batch(ledger: Ledger) -> None:
    statements: list[str] = []
    await ledger.database.write(lambda c: c.set_trace_callback(statements.append))
    for n in range(100):
        ledger.put_setting("1", "measured_rpm", str(n), at(n))
    await ledger.database.flush()
    assert len([s for s in statements if "INSERT" in s]) == 1
    assert await ledger.settings("1") == {"measured_rpm": "99"}


@pytest.mark.parametrize("result", [None, True, 0, "text", {"ok": True, "job_id": "1"}, [1.5, "µ"]])
async def test_a_task_keeps_its_result(ledger: Ledger, result: object) -> None:
    task = TaskRow(task_id="t1", kind="jobs/run", lock="power", created_at=at(0))
    await ledger.add_task(task)
    assert await ledger.task("t1") == task
    ledger.task_started("t1")
    for _ in range(2):
        assert await ledger.task("t1") == replace(task, status="in_progress")
        await ledger.database.flush()
    done = replace(task, status="complete", result=result, finished_at=at(1))
    ledger.task_started("t1")  # a late note does not bring it back
    await ledger.finish_task(done)
    ledger.task_started("t1")
    assert await ledger.task("t1") == done
    await ledger.database.flush()
    assert await ledger.task("t1") == done
    assert await ledger.task("t2") is None


async def test_a_failed_task_keeps_why(ledger: Ledger) -> None:
    task = TaskRow(task_id="t1", kind="hardware/check", created_at=at(0))
    await ledger.add_task(task)
    failed = replace(
        task,
        status="failed",
        error="no answer from 0x48",
        cause="NACK",
        remediation="Check the HAT.",
        error_status=503,
        finished_at=at(1),
    )
    await ledger.finish_task(failed)
    assert await ledger.task("t1") == failed


async def test_tasks_that_ran_when_the_daemon_died_are_failed_and_say_so(ledger: Ledger) -> None:
    pending = TaskRow(task_id="p", kind="plugins/install", created_at=at(0))
    done = TaskRow(
        task_id="d", kind="jobs/run", created_at=at(0), status="complete", finished_at=at(1)
    )
    for row in (pending, replace(pending, task_id="s"), done):
        await ledger.add_task(row)
    ledger.task_started("s")
    assert await ledger.fail_orphans(at(9)) == 2
    for task_id in ("p", "s"):
        task = await ledger.task(task_id)
        assert task is not None
        assert (task.status, task.finished_at) == ("failed", at(9))
        assert task.error is not None
        assert "piod ended" in task.error
        assert "plugins/install" in task.error
        assert task.cause
        assert task.remediation
        assert task.error_status == 503
    assert await ledger.task("d") == done


async def test_facts_are_kept_over_a_restart(path: Path, clock: SimulatedClock) -> None:
    ledger = await Ledger.open(path, clock.hold)
    assert await ledger.get_meta("model") is None
    await ledger.put_meta("model", "pioreactor_20ml/1.1")
    await ledger.put_meta("model", "pioreactor_40ml/1.5")
    ledger.mark_alive(at(1))
    assert await ledger.get_meta("alive_at") == at(1)
    await ledger.close()
    ledger = await Ledger.open(path, clock.hold)
    assert await ledger.get_meta("model") == "pioreactor_40ml/1.5"
    assert await ledger.get_meta("alive_at") == at(1)
    await ledger.close()


async def test_history_is_bounded_by_age_and_by_number(ledger: Ledger) -> None:
    for day in range(10):
        job = new_job(ledger, started_at=at(day * DAY_S))
        await ledger.add_job(job)
        ledger.put_setting(job.job_id, "$state", "disconnected", at(0))
        if day != 2:
            await ledger.end_job(job.job_id, at(day * DAY_S + 1), "disconnected", None)
    now = NOW + 10 * DAY_S
    assert await ledger.prune(now, max_age_days=5.5, max_rows=100) == 4  # days 0, 1, 3, 4
    assert [j.job_id for j in await ledger.history()] == ["10", "9", "8", "7", "6", "3"]
    assert await ledger.prune(now, max_age_days=100, max_rows=3) == 2
    # the one that runs is never forgotten
    assert [j.job_id for j in await ledger.history()] == ["10", "9", "8", "3"]
    assert await ledger.settings("6") == {}
    assert await ledger.settings("10") == {"$state": "disconnected"}


async def test_tasks_are_bounded_and_kept_at_least_a_day(ledger: Ledger) -> None:
    async def kept() -> str:
        return "".join([i for i in "012345r" if await ledger.task(i) is not None])

    for i in range(6):
        finished_at = at((i - 5) * DAY_S / 2)
        await ledger.add_task(
            TaskRow(
                task_id=str(i),
                kind="k",
                created_at=finished_at,
                status="complete",
                finished_at=finished_at,
            )
        )
    await ledger.add_task(TaskRow(task_id="r", kind="k", created_at=at(-100 * DAY_S)))
    now = NOW + 1
    assert await ledger.prune(now, max_age_days=2, max_rows=100) == 2
    assert await kept() == "2345r"
    assert await ledger.prune(now, max_age_days=2, max_rows=3) == 1
    assert await kept() == "345r"
    # neither bound reaches into the last day
    await ledger.prune(now, max_age_days=0.01, max_rows=0)
    assert await kept() == "45r"


def size(path: Path) -> int:
    return path.stat().st_size


async def test_pruning_gives_the_space_back(path: Path, clock: SimulatedClock) -> None:
    ledger = await Ledger.open(path, clock.hold)
    jobs = [replace(new_job(ledger), options={"note": "x" * 2000}) for _ in range(300)]
    await asyncio.gather(*(ledger.add_job(job) for job in jobs))
    await asyncio.gather(*(ledger.end_job(job.job_id, at(1), "disconnected", None) for job in jobs))
    await ledger.close()
    full = size(path)
    ledger = await Ledger.open(path, clock.hold)
    await ledger.prune(NOW + DAY_S, max_age_days=30, max_rows=10)
    await ledger.close()
    assert size(path) < full / 4


async def test_a_ledger_of_a_newer_piod_is_used_as_it_is(path: Path, clock: SimulatedClock) -> None:
    ledger = await Ledger.open(path, clock.hold)
    await ledger.close()
    newer = sqlite3.connect(path)
    newer.execute("ALTER TABLE jobs ADD COLUMN mood TEXT NOT NULL DEFAULT 'fine'")
    newer.execute("ALTER TABLE tasks ADD COLUMN mood TEXT")
    newer.execute("PRAGMA user_version = 99")
    newer.close()

    ledger = await Ledger.open(path, clock.hold)
    try:
        job = new_job(ledger)
        await ledger.add_job(job)
        task = TaskRow(task_id="t", kind="k", created_at=at(0))
        await ledger.add_task(task)
        assert await ledger.history() == [job]
        assert await ledger.task("t") == task
        version = await ledger.database.read(
            lambda c: c.execute("PRAGMA user_version").fetchone()[0]
        )
        assert version == 99
    finally:
        await ledger.close()


async def test_an_id_that_is_taken_is_refused(ledger: Ledger) -> None:
    job = new_job(ledger)
    await ledger.add_job(job)
    with pytest.raises(StorageFailed):
        await ledger.add_job(replace(job, job_name="another"))
    assert await ledger.history() == [job]
