"""What must not happen beside each other: new jobs and a reboot, an import and an update, …"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from piod import daemon as daemon_module
from piod.actors import system as system_actor
from piod.actors.gate import no_new_jobs
from piod.actors.jobs import ResumeLost
from piod.clock import SimulatedClock, timestamp
from piod.defaults import write_defaults
from piod.errors import Conflict
from piod.plugins.simulated import SimulatedInstaller
from piod.storage import imports
from piod.storage.ledger import Ledger
from piod.storage.rows import JobRow, TaskRow
from piod.system import UpdateRequest
from tests.trees import NEW, zip_of
from tests.unit import Unit, running_unit

API = "/unit_api"
REBOOT = f"{API}/system/reboot"
UPDATE = f"{API}/system/update"
INSTALL = f"{API}/plugins/install"
IMPORT = f"{API}/import_zipped_dot_pioreactor"
RUN = f"{API}/jobs/run/job_name/stirring"
STOP = f"{API}/jobs/stop/all"
RUNNING = f"{API}/jobs/running"

Answer = tuple[int, Any]


def assert_refusal(answer: Answer, *words: str) -> None:
    status, body = answer
    assert status == 409, body
    assert set(body) == {"error", "error_info"}
    for word in words:
        assert word in body["error"]
    assert body["error_info"]["remediation"]


# -- what is under way ---------------------------------------------------------------


class Held:
    """A call that is begun and does not end before it is let go on."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    def before(self, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def held(*arguments: object) -> object:
            self.begun.set()
            await self.go_on.wait()
            return await call(*arguments)

        return held


@pytest.fixture
def held(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Held]]:
    """``held(name)``: the method of that name of the simulated machine, held."""
    all_held: list[Held] = []

    def hold(name: str) -> Held:
        one = Held()
        monkeypatch.setattr(unit.machine, name, one.before(getattr(unit.machine, name)))
        all_held.append(one)
        return one

    yield hold
    for one in all_held:
        one.go_on.set()


async def send_import(unit: Unit) -> Answer:
    form = aiohttp.FormData()
    form.add_field("archive", zip_of(NEW), filename="x.zip", content_type="application/zip")
    async with unit.client.post(IMPORT, data=form) as answer:
        return answer.status, await answer.json()


async def send_reboot(unit: Unit) -> Answer:
    return await unit.request("POST", REBOOT)


async def send_update(unit: Unit) -> Answer:
    return await unit.request("POST", UPDATE, {"options": {}})


async def send_install(unit: Unit) -> Answer:
    return await unit.request("POST", INSTALL, {"args": ["pioreactor-x"]})


COMMANDS = {
    "reboot": send_reboot,
    "update": send_update,
    "install a plugin": send_install,
    "import of files": send_import,
}
LOCKS = {
    "reboot": "power-lock",
    "update": "update-lock",
    "install a plugin": "plugins-lock",
    "import of files": "import-dot-pioreactor-lock",
}


@asynccontextmanager
async def under_way(
    unit: Unit, command: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[str, Any]]:
    """The task of ``command``, in the middle of its work until the context ends."""
    one = Held()
    may_end = threading.Event()
    unpack = imports.unpack

    def slowly(*arguments: Any) -> Generator[None, None, None]:
        while not may_end.wait(0.01):
            yield
        yield from unpack(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(unit.machine, "reboot", one.before(unit.machine.reboot))
        patch.setattr(unit.machine, "start_update", one.before(unit.machine.start_update))
        install = SimulatedInstaller.install
        patch.setattr(SimulatedInstaller, "install", one.before(install))
        patch.setattr(imports, "unpack", slowly)
        status, accepted = await COMMANDS[command](unit)
        assert status == 202
        try:
            if command != "import of files":
                await asyncio.wait_for(one.begun.wait(), 5)
            yield accepted
        finally:
            one.go_on.set()
            may_end.set()
        assert (await unit.task(accepted))["status"] == "complete"


async def goes_well(unit: Unit, path: str) -> bool:
    """A command, while simulated time may stand still: an import keeps a thread busy."""
    _, accepted = await unit.request("POST", path)
    for _ in range(500):
        status, task = await unit.request("GET", accepted["result_url_path"])
        if status == 200:
            return bool(task["status"] == "complete")
        await asyncio.sleep(0.01)
    return False


# -- new jobs ------------------------------------------------------------------------


async def test_no_job_starts_between_the_stop_of_all_jobs_and_the_reboot(
    unit: Unit, held: Callable[[str], Held]
) -> None:
    await unit.run("stirring")
    reboot = held("reboot")
    _, accepted = await send_reboot(unit)
    await reboot.begun.wait()
    assert unit.duty == 0
    assert_refusal(await unit.request("POST", RUN), "stirring", "about to reboot")
    assert await unit.get(RUNNING) == []
    assert (await unit.post(STOP))["status"] == "complete"
    reboot.go_on.set()
    assert (await unit.task(accepted))["status"] == "complete"
    assert unit.duty == 0


async def test_a_machine_that_is_going_down_takes_no_job(unit: Unit) -> None:
    assert (await unit.post(f"{API}/system/shutdown"))["status"] == "complete"
    assert_refusal(await unit.request("POST", RUN), "about to shut down")


async def test_a_machine_that_does_not_go_down_after_all_takes_jobs_again(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_actor, "GONE_WITHIN_S", 0.1)
    assert (await unit.post(REBOOT))["status"] == "complete"
    await asyncio.sleep(0.2)
    await unit.run("stirring")


async def test_a_reboot_that_is_denied_lets_jobs_start_again(unit: Unit) -> None:
    fault = {"kind": "system_error", "call": "reboot", "message": "not authorised"}
    await unit.request("POST", "/simulator/faults", fault)
    assert (await unit.post(REBOOT))["status"] == "failed"
    await unit.run("stirring")
    assert unit.duty > 0


async def test_a_crash_on_the_way_down_lets_jobs_start_again_and_frees_the_lock(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash() -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(unit.machine, "reboot", crash)
        assert (await unit.post(REBOOT))["status"] == "failed"
    await unit.run("stirring")
    for _ in range(100):  # the actor of the machine starts anew, with a little back-off
        status, accepted = await send_reboot(unit)
        if status == 202:
            break
        await asyncio.sleep(0.05)
    assert "lock" not in accepted
    assert (await unit.task(accepted))["status"] == "complete"


async def test_a_leader_takes_no_job_while_it_waits_to_go_down(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_actor, "LEADER_DELAY_S", 0.5)
    async with running_unit(tmp_path, clock, leader_name="pio01") as unit:
        _, accepted = await send_reboot(unit)
        await asyncio.sleep(0.1)
        assert unit.power == []
        assert_refusal(await unit.request("POST", RUN), "about to reboot")
        assert (await unit.task(accepted))["status"] == "complete"


async def test_no_job_starts_while_an_import_exchanges_the_files(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await unit.run("stirring")
    begun, may_end = threading.Event(), threading.Event()
    install = imports.install

    def held(data_dir: Path, stamp: str) -> None:
        begun.set()
        may_end.wait(5)
        install(data_dir, stamp)

    monkeypatch.setattr(imports, "install", held)
    _, accepted = await send_import(unit)
    try:
        await asyncio.to_thread(begun.wait, 5)
        assert unit.duty == 0
        assert_refusal(await unit.request("POST", RUN), "an import replaces the files")
    finally:
        may_end.set()
    assert (await unit.task(accepted))["status"] == "complete"
    await unit.run("stirring", options={"target_rpm": "300"})  # not the same within a second


async def test_an_import_that_fails_lets_jobs_start_again(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data_dir: Path, stamp: str) -> None:
        raise OSError(5, "the card is broken")

    monkeypatch.setattr(imports, "install", fail)
    _, accepted = await send_import(unit)
    assert (await unit.task(accepted))["status"] == "failed"
    await unit.run("stirring")


async def test_no_job_starts_while_piod_is_updated(unit: Unit, held: Callable[[str], Held]) -> None:
    update = held("start_update")
    _, accepted = await send_update(unit)
    await update.begun.wait()
    assert_refusal(await unit.request("POST", RUN), "being updated")
    update.go_on.set()
    assert (await unit.task(accepted))["status"] == "complete"
    await unit.run("stirring")


@pytest.fixture
async def half_updated(
    tmp_path: Path, clock: SimulatedClock
) -> AsyncIterator[tuple[Path, Callable[[], None]]]:
    """Where a unit was killed, stirring, in the middle of an update; and what ends the update."""
    write_defaults(tmp_path, leader_hostname="leader01")
    (tmp_path / "unit_config.ini").write_text("[piod]\nresume_jobs=stirring\n")
    started = asyncio.Event()
    with ExitStack() as still:
        still.enter_context(clock.hold())
        async with running_unit(tmp_path, clock) as unit:
            start_update = unit.machine.start_update

            async def watched(request: UpdateRequest) -> None:
                await start_update(request)
                started.set()

            unit.machine.start_update = watched  # type: ignore[method-assign] # for this test
            await send_update(unit)
            await started.wait()
        ledger = await Ledger.open(tmp_path / "storage" / "piod.sqlite", clock.hold)
        row = JobRow(
            job_id=ledger.next_job_id(),
            unit="pio01",
            experiment="Exp001",
            job_name="stirring",
            job_source="user",
            started_at=timestamp(clock.time()),
            leader="leader01",
            pid=1,
        )
        await ledger.add_job(row)
        await ledger.put_meta("alive_at", timestamp(clock.time()))
        await ledger.close()
        yield tmp_path, still.close


async def is_kept_out(unit: Unit) -> bool:
    """Whether the rest of an update keeps jobs out."""
    status, answer = await unit.request("POST", RUN, {"options": {"target_rpm": "300"}})
    return status == 409 and "piod is being updated" in answer["error"]


async def test_a_daemon_that_starts_in_the_middle_of_an_update_lets_jobs_wait_for_its_end(
    half_updated: tuple[Path, Callable[[], None]], clock: SimulatedClock
) -> None:
    data_dir, end_update = half_updated
    async with running_unit(data_dir, clock) as unit:
        resuming = asyncio.create_task(unit.daemon.resume())
        own = asyncio.create_task(unit.daemon.run_own_jobs())
        await asyncio.sleep(0.1)
        assert await is_kept_out(unit)
        assert await unit.get(RUNNING) == []
        assert not resuming.done()
        assert not own.done()
        end_update()
        assert len(await resuming) == 1
        await own
        assert {job["job_name"] for job in await unit.get(RUNNING)} == {"monitor", "stirring"}


async def test_an_update_that_hangs_keeps_jobs_out_for_so_long_only(
    half_updated: tuple[Path, Callable[[], None]],
    clock: SimulatedClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(system_actor, "REST_OF_UPDATE_S", 0.3)
    monkeypatch.setattr(daemon_module, "REST_OF_UPDATE_S", 0.3)
    monkeypatch.setattr(daemon_module, "ASK_TIMEOUT_S", 0.2)
    data_dir, end_update = half_updated
    async with running_unit(data_dir, clock) as unit:
        resuming = asyncio.create_task(unit.daemon.resume())
        await asyncio.sleep(0.1)
        assert await is_kept_out(unit)
        await asyncio.wait({resuming}, timeout=2)
        await asyncio.sleep(0)
        assert "the end of an update is not waited for" in caplog.text
        assert (await send_update(unit))[1]["lock"] == "update-lock", "it goes on"
        end_update()
        assert len(await resuming) == 1


async def test_an_update_that_meets_a_job_after_all_is_refused(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came after the check: the update looks again when no more can come."""
    ledger = unit.daemon.ledger
    keep = ledger.add_task

    async def keep_after_a_job(task: TaskRow) -> None:
        if task.kind == "update":
            await unit.run("stirring")
        await keep(task)

    monkeypatch.setattr(ledger, "add_task", keep_after_a_job)
    task = await unit.post(UPDATE, {"options": {}})
    assert task["status"] == "failed"
    assert "interrupt what is running: stirring" in task["error"]
    assert unit.machine.record()["done"] == []
    assert unit.duty > 0


async def test_a_run_that_is_kept_out_uses_no_slot_and_what_was_lost_waits(unit: Unit) -> None:
    async with no_new_jobs(unit.daemon.jobs, "it is Sunday"):
        async with no_new_jobs(unit.daemon.jobs, "it is late"):
            pass
        assert_refusal(await unit.request("POST", RUN), "stirring", "it is Sunday")
        with pytest.raises(Conflict, match="it is Sunday"):
            await unit.daemon.jobs.ask(ResumeLost(True), timeout=5)
    await unit.run("stirring")
    assert await unit.daemon.jobs.ask(ResumeLost(True), timeout=5) == []


async def test_a_hold_ends_with_its_holder_however_it_ends(unit: Unit) -> None:
    async def holder() -> None:
        async with no_new_jobs(unit.daemon.jobs, "for ever"):
            await asyncio.Event().wait()

    task = asyncio.create_task(holder())
    await asyncio.sleep(0.05)
    assert_refusal(await unit.request("POST", RUN), "for ever")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await unit.run("stirring")


# -- commands beside each other ------------------------------------------------------


@pytest.mark.parametrize("first", COMMANDS)
async def test_what_would_break_it_is_refused_and_everything_else_goes_on(
    unit: Unit, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.sleep(0)
    async with under_way(unit, first, monkeypatch) as accepted:
        for second, send in COMMANDS.items():
            answer = await send(unit)
            if second != first:
                assert_refusal(answer, first)
                assert accepted["task_id"] in answer[1]["error_info"]["cause"]
            else:
                assert answer[0] == 202
                assert answer[1]["lock"] == LOCKS[first]
                assert answer[1]["task_id"] == accepted["task_id"]
        assert await goes_well(unit, f"{API}/system/utc_clock")
        assert await goes_well(unit, STOP)
        assert unit.power == []
    for second, send in COMMANDS.items():
        if second != first and first != "reboot":
            status, then = await send(unit)
            assert status == 202, then
            assert (await unit.task(then))["status"] == "complete"


async def test_an_update_keeps_its_lock_when_the_actor_of_the_tasks_crashes(
    unit: Unit, held: Callable[[str], Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = asyncio.Event()

    async def crash(*arguments: object) -> None:
        crashed.set()
        raise RuntimeError("a bug")

    held("update_outcome")
    _, update = await send_update(unit)
    with monkeypatch.context() as patch:
        patch.setattr(unit.daemon.ledger, "finish_task", crash)
        await unit.request("POST", STOP)
        await asyncio.wait_for(crashed.wait(), 5)
    for _ in range(100):  # it starts anew after a little back-off
        status, busy = await send_update(unit)
        if status != 503:
            break
        await asyncio.sleep(0.02)
    assert (busy["task_id"], busy["lock"]) == (update["task_id"], "update-lock")
    assert_refusal(await send_reboot(unit), "update")


async def test_a_lock_is_free_after_a_crash_of_what_held_it(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*arguments: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedInstaller, "install", crash)
        _, accepted = await send_install(unit)
        assert (await unit.task(accepted))["status"] == "failed"
    assert (await unit.post(REBOOT))["status"] == "complete"
