"""The weak spots of docs/weak-spots.md: that each has its test, and some of these tests."""

from __future__ import annotations

import ast
import asyncio
import re
import sqlite3
import zipfile
from contextlib import closing
from io import BytesIO
from pathlib import Path

from aiohttp import web

from piod.actors.supervisor import Supervisor
from piod.actors.tasks import Launch, Tasks
from piod.clock import SimulatedClock
from piod.events import JsonValue
from piod.http.routes import GET, POST, Answer, Route
from piod.http.tasks import TaskHandlers
from piod.jobs.job import Job, Options
from piod.jobs.job import Unit as Parts
from piod.restarts import FOR_EVER
from piod.storage.ledger import Ledger
from tests.http.conftest import Serve
from tests.unit import Unit, running_unit

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "weak-spots.md"
EXPORT = "/unit_api/zipped_dot_pioreactor"


def named_tests() -> dict[int, list[str]]:
    """The tests that the table names, by the number of the weak spot."""
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", TABLE.read_text(), re.MULTILINE)
    return {int(number): re.findall(r"`([^`]*::[^`]*)`", shown) for number, shown in rows}


def test_every_weak_spot_is_in_the_table_and_has_a_test() -> None:
    named = named_tests()
    assert list(named) == list(range(1, 29))
    assert all(named.values())


def test_every_test_that_the_table_names_exists() -> None:
    for tests in named_tests().values():
        for test in tests:
            path, _, name = test.partition("::")
            tree = ast.parse((TESTS / path).read_text())
            functions = ast.FunctionDef | ast.AsyncFunctionDef
            assert name in {node.name for node in tree.body if isinstance(node, functions)}, test


# -- 1 -------------------------------------------------------------------------------


async def test_a_task_without_a_value_is_complete_with_null(
    serve: Serve, tmp_path: Path, clock: SimulatedClock
) -> None:
    async def nothing() -> JsonValue:
        return None

    ledger = await Ledger.open(tmp_path / "piod.sqlite", clock.hold)
    supervisor = Supervisor(clock)
    try:
        tasks = supervisor.start("tasks", lambda: Tasks(ledger, clock.time), FOR_EVER).ref
        await asyncio.sleep(0)
        handlers = TaskHandlers(tasks, "pio01")  # type: ignore[arg-type] # it is that of Tasks

        async def launch(request: web.Request) -> web.Response:
            return await handlers.launch(Launch("nothing", nothing))

        client = await serve(
            [
                Route(POST, "/launch", launch, summary="x", answers={202: Answer("x", {})}),
                Route(
                    GET,
                    "/unit_api/task_results/{task_id}",
                    handlers.result,
                    summary="x",
                    answers={200: Answer("x", {})},
                    path_params={"task_id": "x"},
                ),
            ]
        )
        path = (await (await client.post("/launch")).json())["result_url_path"]
        for _ in range(1000):
            if (answer := await client.get(path)).status != 202:
                break
            await asyncio.sleep(0.005)
        for _ in range(3):
            told = await (await client.get(path)).json()
            assert (answer.status, told["status"], told["result"]) == (200, "complete", None)
    finally:
        await supervisor.stop_all()
        await ledger.close()


# -- 3, 19 ---------------------------------------------------------------------------


async def exported(unit: Unit) -> zipfile.ZipFile:
    async with unit.client.get(EXPORT) as answer:
        assert answer.status == 200
        return zipfile.ZipFile(BytesIO(await answer.read()))


async def test_an_export_follows_no_link_that_leads_out(unit: Unit) -> None:
    outside = unit.data_dir.parent / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (unit.data_dir / "file.txt").symlink_to(outside / "secret.txt")
    (unit.data_dir / "folder").symlink_to(outside)
    (unit.data_dir / "inside.txt").write_text("mine")
    (unit.data_dir / "alias.txt").symlink_to("inside.txt")
    archive = await exported(unit)
    names = archive.namelist()
    assert archive.read("alias.txt") == b"mine"
    assert not [name for name in names if name.startswith(("file.txt", "folder"))]
    assert all(b"secret" not in archive.read(name) for name in names)


async def test_an_export_holds_what_the_open_ledger_has_only_in_its_log(
    unit: Unit, tmp_path: Path
) -> None:
    job_id = await unit.run("stirring")
    assert (unit.data_dir / "storage" / "piod.sqlite-wal").stat().st_size > 0
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes((await exported(unit)).read("storage/piod.sqlite"))
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = database.execute("SELECT job_id, job_name FROM jobs").fetchall()
    assert [(str(number), name) for number, name in rows] == [(job_id, "stirring")]


# -- 8 -------------------------------------------------------------------------------


class Brief(Job):
    """Ready, and done."""

    job_name = "brief"

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls()

    async def run(self) -> None:
        return


async def test_a_job_that_is_done_at_once_has_run_well(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, kinds={"brief": Brief}) as unit:
        task = await unit.post("/unit_api/jobs/run/job_name/brief")
        assert (task["status"], task["result"]) == ("complete", {"ok": True, "job_id": "1"})
        for _ in range(1000):
            row = (await unit.history())[0]
            if not row["is_running"]:
                break
            await asyncio.sleep(0.005)
        assert (row["state"], row["reason"]) == ("disconnected", None)
