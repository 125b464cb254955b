"""A command that is not accepted in time is refused, and then not done (piod.actors.tasks)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from piod.http import tasks as http_tasks
from tests.unit import Unit

REBOOT = "/unit_api/system/reboot"
STOP = "/unit_api/jobs/stop/all"
ACCEPTED_WITHIN_S = 0.1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch is accepted, or refused, sooner than in life."""
    early_s = http_tasks.ASK_TIMEOUT_S - ACCEPTED_WITHIN_S
    monkeypatch.setattr(http_tasks, "REFUSE_BEFORE_S", early_s)


@contextmanager
def held_ledger(unit: Unit) -> Iterator[None]:
    """Meanwhile nothing can be written to it."""
    path = unit.data_dir / "storage" / "piod.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as hog:
        hog.execute("BEGIN EXCLUSIVE")
        yield
        hog.execute("ROLLBACK")


async def rows(unit: Unit, kind: str) -> list[tuple[str, str]]:
    """Id and status of the tasks of that kind that are on disk."""
    await unit.daemon.ledger.database.flush()
    with closing(sqlite3.connect(unit.data_dir / "storage" / "piod.sqlite")) as database:
        query = "SELECT task_id, status FROM tasks WHERE kind = ?"
        return database.execute(query, (kind,)).fetchall()


@pytest.mark.usefixtures("impatient")
async def test_a_reboot_whose_check_takes_too_long_is_refused_and_never_done(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, checked = asyncio.Event(), asyncio.Event()

    async def slow_check() -> None:
        await go_on.wait()
        checked.set()

    with monkeypatch.context() as patch:
        patch.setattr(unit.machine, "check", slow_check)
        asking = asyncio.create_task(unit.request("POST", REBOOT))
        await asyncio.sleep(ACCEPTED_WITHIN_S / 2)
        _, busy = await unit.request("POST", REBOOT)
        status, answer = await asking
        assert (status, answer["error"][:18]) == (503, "reboot: not begun,")
        assert (await unit.task(busy))["error"] == answer["error"], "who knows its id is told"
        go_on.set()
        await checked.wait()
        await asyncio.sleep(0.1)
    assert unit.power == []
    assert await rows(unit, "reboot") == [(busy["task_id"], "failed")]
    monkeypatch.setattr(http_tasks, "REFUSE_BEFORE_S", 0)
    await unit.post(REBOOT)
    assert unit.power == ["reboot"], "its lock is free"


@pytest.mark.usefixtures("impatient")
async def test_a_reboot_that_a_slow_disk_delays_is_refused_and_never_done(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await unit.run("stirring")
    with held_ledger(unit):
        status, answer = await unit.request("POST", REBOOT)
        assert (status, answer["error"][:18]) == (503, "reboot: not begun,")
        status, again = await unit.request("POST", REBOOT)
        assert (status, again["error"]) == (503, answer["error"]), "its lock is free"
    await asyncio.sleep(0.1)
    assert [status for _, status in await rows(unit, "reboot")] == ["failed", "failed"]
    assert unit.power == []
    assert unit.duty > 0


@pytest.mark.usefixtures("impatient")
async def test_a_stop_that_a_slow_disk_delays_is_done_and_says_so(unit: Unit) -> None:
    await unit.run("stirring")
    with held_ledger(unit):
        status, answer = await unit.request("POST", STOP)
        assert (status, answer["error"][:26]) == (503, "stop jobs: that is being d")
        assert unit.duty == 0
    task_id = answer["error_info"]["cause"].split()[1]
    task = await unit.task({"result_url_path": f"/unit_api/task_results/{task_id}"})
    assert task["result"] == {"ok": True, "stopped": 1}
    assert await rows(unit, "stop jobs") == [(task_id, "complete")]
