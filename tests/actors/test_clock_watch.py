"""A clock that jumps or that nobody sets: noticed, told, and without effect on what runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from piod.actors import clock_watch, recorder
from piod.actors.clock_watch import ASK_AGAIN_EVERY_S, ASK_EVERY_S, PROBLEM_S
from piod.clock import SimulatedClock, SteppingEventLoop, timestamp
from piod.defaults import write_defaults
from piod.errors import Unavailable
from piod.http import unit as http_unit
from piod.storage.ledger import JobRow, Ledger
from piod.system import NoSystem
from tests.unit import Unit, running_unit

DAY_S = 86_400.0


class Machine(NoSystem):
    """Tells about its clock what ``tell`` makes of it."""

    def __init__(self, tell: Callable[[], Awaitable[bool | None]]) -> None:
        super().__init__("a machine of the tests")
        self._tell = tell
        self.asked = 0

    async def clock_synchronised(self) -> bool | None:
        self.asked += 1
        return await self._tell()


class Told:
    """What the machine says of its clock, as the test changes it."""

    def __init__(self, now: bool | None) -> None:
        self.now = now

    async def __call__(self) -> bool | None:
        return self.now


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks and answers are due at once: they are paced by wall time."""
    monkeypatch.setattr(clock_watch, "CHECK_EVERY_S", 0.01)
    monkeypatch.setattr(clock_watch, "ASK_EVERY_S", 0.01)
    monkeypatch.setattr(clock_watch, "ASK_AGAIN_EVERY_S", 0.01)
    monkeypatch.setattr(http_unit, "FRESH_S", 0)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait (wall time) for what the watch is to notice."""
    async with asyncio.timeout(5):
        while not await condition():  # noqa: ASYNC110 - what happens in a unit sets no event here
            await asyncio.sleep(0.01)


async def clock_of(unit: Unit) -> dict[str, Any]:
    return dict((await unit.get("/unit_api/health"))["clock"])


async def problems_of(unit: Unit) -> list[str]:
    return list((await unit.get("/unit_api/health"))["problems"])


def lines(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


@pytest.mark.parametrize("seconds", [DAY_S, -DAY_S, 3.0])
async def test_a_jump_is_told_once_and_is_a_problem_for_an_hour(
    unit: Unit, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    assert await clock_of(unit) == {"synchronised": True, "last_jump": None}
    unit.clock.offset_s += seconds

    async def seen() -> bool:
        return (await clock_of(unit))["last_jump"] is not None

    await until(seen)
    jump = (await clock_of(unit))["last_jump"]
    assert jump == {"at": timestamp(unit.clock.time()), "seconds": pytest.approx(seconds)}
    assert any("the clock jumped by" in problem for problem in await problems_of(unit))
    await asyncio.sleep(0.1)  # ten more checks
    assert len(lines(caplog, "the clock jumped by")) == 1
    await unit.clock.advance(PROBLEM_S - 1)
    assert any("the clock jumped by" in problem for problem in await problems_of(unit))
    await unit.clock.advance(1)
    assert not any("the clock jumped by" in problem for problem in await problems_of(unit))
    assert (await clock_of(unit))["last_jump"] == jump, "still on show"


async def test_small_steps_are_no_jumps(unit: Unit, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        unit.clock.offset_s += 1.5
        await asyncio.sleep(0.05)
    assert (await clock_of(unit))["last_jump"] is None
    assert not lines(caplog, "the clock jumped by")


async def test_a_clock_that_its_user_sets_is_told_too(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, leader_name="pio01") as unit:
        body = {"utc_clock_time": timestamp(clock.time() + 500)}
        status, accepted = await unit.request("PATCH", "/unit_api/system/utc_clock", body)
        assert status == 202
        assert (await unit.task(accepted))["status"] == "complete"

        async def told() -> bool:
            found = await clock_of(unit)
            return found["last_jump"] is not None and found["synchronised"] is False

        await until(told)
        assert (await clock_of(unit))["last_jump"]["seconds"] == pytest.approx(500, abs=5)


async def test_an_unsynchronised_clock_is_told_once_for_each_change(
    tmp_path: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told = Told(False)
    async with running_unit(tmp_path, clock, system=Machine(told)) as unit:

        async def is_now(value: bool | None) -> None:
            async def so() -> bool:
                return (await clock_of(unit))["synchronised"] is value

            await until(so)

        await is_now(False)
        assert any("not synchronised" in problem for problem in await problems_of(unit))
        await asyncio.sleep(0.1)
        assert len(lines(caplog, "the clock is not synchronised")) == 1
        told.now = True
        await is_now(True)
        assert len(lines(caplog, "the clock is synchronised")) == 1
        told.now = None
        await is_now(None)
        assert await problems_of(unit) == [], "what is not known is no problem"


@pytest.mark.parametrize("error", [Unavailable("no bus"), TimeoutError()])
async def test_a_machine_that_does_not_tell_is_no_problem(
    tmp_path: Path, clock: SimulatedClock, error: Exception
) -> None:
    async def refuse() -> bool | None:
        raise error

    machine = Machine(refuse)
    async with running_unit(tmp_path, clock, system=machine) as unit:

        async def asked_again() -> bool:
            return machine.asked > 2

        await until(asked_again)
        assert await clock_of(unit) == {"synchronised": None, "last_jump": None}
        assert await problems_of(unit) == []


async def test_a_machine_that_hangs_delays_no_answer_and_is_given_up(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_watch, "ASK_TIMEOUT_S", 0.05)

    async def hang() -> bool | None:
        return await asyncio.get_running_loop().create_future()

    machine = Machine(hang)
    async with running_unit(tmp_path, clock, system=machine) as unit:
        async with asyncio.timeout(1):
            assert (await clock_of(unit))["synchronised"] is None

        async def asked_again() -> bool:
            return machine.asked > 1

        await until(asked_again)


async def test_the_machine_is_asked_at_most_once_a_minute(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ASK_EVERY_S >= 60
    monkeypatch.setattr(clock_watch, "ASK_EVERY_S", ASK_EVERY_S)
    machine = Machine(Told(False))
    async with running_unit(tmp_path, clock, system=machine) as unit:
        for _ in range(20):
            await clock_of(unit)
        await asyncio.sleep(0.1)
        assert machine.asked == 1


async def test_once_the_clock_is_synchronised_the_machine_is_asked_hourly_and_after_a_jump(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ASK_AGAIN_EVERY_S >= 3600
    monkeypatch.setattr(clock_watch, "ASK_AGAIN_EVERY_S", ASK_AGAIN_EVERY_S)
    told = Told(False)
    machine = Machine(told)
    async with running_unit(tmp_path, clock, system=machine) as unit:

        async def synchronised() -> bool:
            return (await clock_of(unit))["synchronised"] is True

        async def unsynchronised() -> bool:
            return (await clock_of(unit))["synchronised"] is False

        await asyncio.sleep(0.1)
        assert machine.asked > 2, "until it is"
        told.now = True
        await until(synchronised)
        asked = machine.asked
        await asyncio.sleep(0.2)  # of twenty checks
        assert machine.asked == asked
        told.now = False
        unit.clock.offset_s += 60
        await until(unsynchronised)


# -- what runs does not care ----------------------------------------------------------------


async def a_stir(data_dir: Path, jump_s: float) -> list[float]:
    """The duty of the stirrer at each second of five minutes; after one of them, the jump.

    Time stands while a request is under way, so that two histories can be compared.
    """
    clock = SimulatedClock(start_time=1_790_000_000.0)
    async with running_unit(data_dir, clock) as unit:
        with clock.hold():
            path, body = "/unit_api/jobs/run/job_name/stirring", {"options": {"target_rpm": 400}}
            assert (await unit.request("POST", path, body))[0] == 202
        duties = []
        for second in range(300):
            await clock.sleep(1)
            duties.append(unit.duty)
            if second == 60:
                clock.offset_s += jump_s
            if second == 200:
                with clock.hold():
                    [job] = await unit.get("/unit_api/jobs/running")
                    assert (await unit.change(job["job_id"], target_rpm=600))[0] == 200
        assert (await unit.post("/unit_api/jobs/stop/all"))["result"]["stopped"] == 1
        assert unit.duty == 0
    return duties


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_a_job_runs_on_unchanged_over_a_jump(
    tmp_path_factory: pytest.TempPathFactory, jump_s: float
) -> None:
    histories = []
    for jump in (0.0, jump_s):
        with asyncio.Runner(loop_factory=SteppingEventLoop) as runner:
            histories.append(runner.run(a_stir(tmp_path_factory.mktemp("unit"), jump)))
    without_jump, with_jump = histories
    assert len(set(without_jump)) > 5, "it is regulated"
    assert with_jump == pytest.approx(without_jump, abs=1e-3)


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
async def test_a_rate_limit_and_a_task_do_not_see_a_jump(unit: Unit, jump_s: float) -> None:
    path, body = "/unit_api/jobs/run/job_name/stirring", {"options": {"target_rpm": "400"}}
    status, accepted = await unit.request("POST", path, body)
    assert status == 202
    unit.clock.offset_s += jump_s
    if jump_s > 0:
        assert (await unit.request("POST", path, body))[0] == 429, "a second is not over"
    else:
        await asyncio.sleep(1.05)
        assert (await unit.request("POST", path, body))[0] == 202, "a second, not a day"
    assert (await unit.task(accepted))["status"] == "complete"


# -- resumption after a boot ------------------------------------------------------------------

RESUME = "[piod]\nresume_jobs=stirring\n"


@pytest.fixture
async def lost(tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of a unit that lost its power a minute ago, by its clock, stirring."""
    monkeypatch.setattr(recorder, "ALIVE_EVERY_S", 3600)
    data_dir = tmp_path / "unit"
    write_defaults(data_dir, leader_hostname="leader01")
    (data_dir / "unit_config.ini").write_text(RESUME)
    ledger = await Ledger.open(data_dir / "storage" / "piod.sqlite", clock.hold)
    row = JobRow(
        job_id=ledger.next_job_id(),
        unit="pio01",
        experiment="Exp001",
        job_name="stirring",
        job_source="user",
        started_at=timestamp(clock.time() - 4000),
        leader="leader01",
        pid=1,
    )
    await ledger.add_job(row)
    await ledger.put_meta("alive_at", timestamp(clock.time() - 60))
    await ledger.put_meta(clock_watch.BOOT_KEY, "another boot")
    await ledger.close()
    return data_dir


async def test_after_a_boot_a_job_waits_for_the_clock_and_goes_on(
    lost: Path, clock: SimulatedClock
) -> None:
    told = Told(False)
    async with running_unit(lost, clock, system=Machine(told)) as unit:
        resuming = asyncio.create_task(unit.daemon.resume())
        await asyncio.sleep(0.2)
        assert await unit.get("/unit_api/jobs/running") == []
        told.now = True
        assert len(await resuming) == 1


async def test_a_clock_that_turns_out_wrong_by_then_counts_as_what_it_is(
    lost: Path, clock: SimulatedClock
) -> None:
    """The clock woke where it stood; the time server tells that weeks have passed."""
    told = Told(False)
    async with running_unit(lost, clock, system=Machine(told)) as unit:
        resuming = asyncio.create_task(unit.daemon.resume())
        await asyncio.sleep(0.05)
        clock.offset_s += 20 * DAY_S
        told.now = True
        assert await resuming == []


async def test_while_the_clock_stays_unsynchronised_nothing_is_resumed(
    lost: Path,
    clock: SimulatedClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(clock_watch, "PATIENCE_S", 0.1)
    async with running_unit(lost, clock, system=Machine(Told(False))) as unit:
        assert await unit.daemon.resume() == []
        assert lines(caplog, "is not resumed: the clock is not synchronised")


async def test_within_one_boot_the_clock_need_not_be_synchronised(
    lost: Path, clock: SimulatedClock
) -> None:
    async with running_unit(lost, clock, system=Machine(Told(False))):
        pass  # notes the boot; killed, for all that the next one knows
    ledger = await Ledger.open(lost / "storage" / "piod.sqlite", clock.hold)
    row = (await ledger.history())[0]
    again = JobRow(
        job_id=ledger.next_job_id(),
        unit=row.unit,
        experiment=row.experiment,
        job_name=row.job_name,
        job_source=row.job_source,
        started_at=row.started_at,
        leader=row.leader,
        pid=row.pid,
    )
    await ledger.add_job(again)
    await ledger.close()
    async with running_unit(lost, clock, system=Machine(Told(False))) as unit:
        assert len(await unit.daemon.resume()) == 1


@pytest.mark.parametrize("decision", ["stop all", "stop that one", "run it anew"])
async def test_what_somebody_decides_while_a_job_waits_counts(
    lost: Path, clock: SimulatedClock, decision: str
) -> None:
    told = Told(False)
    async with running_unit(lost, clock, system=Machine(told)) as unit:
        resuming = asyncio.create_task(unit.daemon.resume())
        await asyncio.sleep(0.05)
        if decision == "run it anew":
            job_id = await unit.run("stirring", options={"target_rpm": "300"})
            await unit.post("/unit_api/jobs/stop", {"job_id": job_id})
        elif decision == "stop that one":
            await unit.post("/unit_api/jobs/stop", {"job_name": "stirring"})
        else:
            await unit.post("/unit_api/jobs/stop/all")
        told.now = True
        assert await resuming == []
        assert await unit.get("/unit_api/jobs/running") == []
        assert unit.duty == 0
