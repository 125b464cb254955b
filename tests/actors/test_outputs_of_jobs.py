"""Ways in which an output could stay on, or come back on, and does not."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from piod.actors.actor import Actor, Life, Message, Ref
from piod.actors.buses.bus import RevokeAll
from piod.actors.guardian import Guardian
from piod.actors.jobs import JobFilter, Stop
from piod.actors.tasks import GetTask, Launch, Tasks
from piod.clock import SimulatedClock, timestamp
from piod.defaults import write_defaults
from piod.errors import DeviceMissing, Unavailable
from piod.events import JsonValue
from piod.http.unit import FRESH_S
from piod.hw.linux.pwm import LinuxPwm
from piod.jobs.job import Job, Options, PwmOutput
from piod.jobs.job import Unit as Parts
from piod.jobs.registry import JOBS
from piod.storage.ledger import JobRow, Ledger
from tests.unit import STIRRING_PIN, Unit, running_unit

RUN = "/unit_api/jobs/run/job_name"


class Holder(Job):
    """Holds an output on until it ends."""

    job_name = "holder"
    role = "stirring"

    def __init__(self, pwm: PwmOutput) -> None:
        self.pwm = pwm

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls(await unit.lease_pwm(cls.role, hz=200))

    async def run(self) -> None:
        await self.pwm.set_duty(40)
        await asyncio.Event().wait()


class Instant(Holder):
    """Does what it has to do at once."""

    job_name = "instant"

    async def run(self) -> None:
        pass


class Tidy(Holder):
    """Turns its output off by itself, when its lease has ended already."""

    job_name = "tidy"

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            await self.pwm.set_duty(0)


class Slow(Holder):
    """Takes longer to end than anybody waits."""

    job_name = "slow"

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            await asyncio.sleep(8)


class Careless(Holder):
    """Awaits something that somebody cancels."""

    job_name = "careless"

    async def run(self) -> None:
        await self.pwm.set_duty(40)
        waiting = asyncio.create_task(asyncio.sleep(1))
        await asyncio.sleep(0)
        waiting.cancel()
        await waiting


class Miscounting(Holder):
    """Asks a bus for what cannot be."""

    job_name = "miscounting"
    role = "media"

    async def run(self) -> None:
        await self.pwm.set_duty(30, off_after_s=-0.01)


def kinds(*more: type[Job]) -> dict[str, type[Job]]:
    return {**JOBS, **{kind.job_name: kind for kind in more}}


async def test_a_job_that_is_done_at_once_has_been_ready(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds(Instant)) as unit:
        assert await unit.run("instant") == "1"
        [row] = await unit.history()
        assert (row["state"], row["reason"]) == ("disconnected", None)


async def test_a_stop_is_not_lost_when_the_job_fails_while_it_ends(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds(Tidy)) as unit:
        await unit.run("tidy")
        assert unit.duty == 40
        assert (await unit.post("/unit_api/jobs/stop/all"))["status"] == "complete"
        await clock.sleep(60)
        assert unit.duty == 0
        assert await unit.get("/unit_api/jobs/running") == []


async def test_a_stop_that_meets_a_crash_is_a_stop(tmp_path: Path, clock: SimulatedClock) -> None:
    for ticks in range(10):
        data_dir = tmp_path / str(ticks)
        data_dir.mkdir()
        async with running_unit(data_dir, clock) as unit:
            await unit.run("stirring")
            revoked = asyncio.create_task(unit.daemon.pwm.ask(RevokeAll("a test"), timeout=1))
            for _ in range(ticks):
                await asyncio.sleep(0)
            await unit.daemon.jobs.ask(Stop(JobFilter()), timeout=4)
            await revoked
            await clock.sleep(10)
            assert unit.duty == 0
            assert await unit.get("/unit_api/jobs/running") == []


async def test_a_job_that_does_not_end_is_given_up_on_with_its_output_off(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds(Slow)) as unit:
        await unit.run("slow")
        began = time.monotonic()
        stopping = asyncio.create_task(unit.post("/unit_api/jobs/stop/all"))
        await asyncio.sleep(0.1)
        assert unit.duty == 0
        await stopping
    assert time.monotonic() - began < 5


async def test_a_child_that_another_ones_cancellation_ended_is_noticed(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds(Careless)) as unit:
        await unit.run("careless")
        await clock.sleep(3600)
        assert unit.duty == 0
        assert "cancellation" in (await unit.history())[0]["reason"]


async def test_a_stop_is_not_complete_while_an_output_is_not_confirmed_off(unit: Unit) -> None:
    await unit.run("stirring")
    fault = {"kind": "bus_error", "bus": "pwm", "pin": STIRRING_PIN}
    await unit.request("POST", "/simulator/faults", fault)
    task = await unit.post("/unit_api/jobs/stop/all")
    assert task["status"] == "failed"
    assert "not confirmed to be off" in task["error"]
    assert "not confirmed to be off" in (await unit.history())[0]["reason"]
    await asyncio.sleep(FRESH_S + 0.01)
    [problem] = (await unit.get("/unit_api/health"))["problems"]
    assert "GPIO 17 of stirring (job 1) is not confirmed to be off" in problem
    await unit.request("DELETE", "/simulator/faults")


@pytest.mark.parametrize("channel", ["2", "5"])
async def test_no_override_points_a_job_at_the_heater_or_a_pump(
    tmp_path: Path, clock: SimulatedClock, channel: str
) -> None:
    write_defaults(tmp_path, leader_hostname="pio01")
    async with running_unit(tmp_path, clock) as unit:
        body = {"config_overrides": [["PWM", "1", ""], ["PWM", channel, "stirring"]]}
        status, refusal = await unit.request("POST", f"{RUN}/stirring", body)
        assert status == 400
        assert "[PWM]" in refusal["error"]


async def test_nothing_but_heating_is_wired_to_the_heater(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, config_ini="[PWM]\n5=stirring\n") as unit:
        task = await unit.post(f"{RUN}/stirring")
        assert task["status"] == "failed"
        assert "heater" in task["error"]
        assert not any(unit.plant.duties.values())


async def test_a_late_deadline_of_one_output_leaves_the_others(unit: Unit) -> None:
    await unit.run("stirring")
    guardian = Guardian(None, unit.daemon.pwm, ())  # type: ignore[arg-type] # only its ears
    await guardian._hear("fired deadline pwm:13")
    await unit.clock.sleep(5)
    assert (await unit.settings())["restarts"] == "0"
    await guardian._hear("fired deadline pwm:17")
    await unit.clock.sleep(5)
    assert (await unit.settings())["restarts"] == "1"


async def test_a_bad_number_of_one_job_leaves_the_others(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds(Miscounting)) as unit:
        await unit.run("stirring")
        await unit.post(f"{RUN}/miscounting")
        await clock.sleep(30)
        assert (await unit.settings())["restarts"] == "0"


async def test_a_persons_duty_of_zero_survives_a_restart(unit: Unit) -> None:
    job_id = await unit.run("stirring", options={"use_rpm": False})
    await unit.change(job_id, duty_cycle=0)
    await unit.clock.sleep(5)
    await unit.daemon.pwm.ask(RevokeAll("a test"), timeout=1)
    await unit.clock.sleep(10)
    assert (await unit.settings())["restarts"] == "1"
    assert unit.duty == 0


@pytest.mark.parametrize("open_loop", [False, True])
async def test_zero_during_a_ramp_means_zero(unit: Unit, open_loop: bool) -> None:
    setting, low, high = ("duty_cycle", 20, 90) if open_loop else ("target_rpm", 300, 1500)
    options = {setting: low, "use_rpm": not open_loop}
    job_id = await unit.run("stirring", options=options)
    await unit.clock.sleep(30)
    await unit.change(job_id, **{setting: high})
    await unit.clock.sleep(1.5)
    await unit.change(job_id, **{setting: 0})
    await unit.clock.sleep(0.1)
    assert unit.duty == 0
    await unit.clock.sleep(600)
    assert unit.duty == 0


async def test_a_duty_set_while_asleep_is_not_published_as_if_it_were_on(unit: Unit) -> None:
    job_id = await unit.run("stirring")
    await unit.change(job_id, state="sleeping")
    await unit.change(job_id, duty_cycle=40)
    assert (await unit.settings())["duty_cycle"] == "0"
    assert unit.duty == 0


async def test_a_broken_configuration_at_the_start_does_not_open_the_unit(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[ui_basic_auth]\napi_key=c2VjcmV0\n[oops\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        status, refusal = await unit.request("POST", f"{RUN}/stirring")
        assert status == 503
        assert "config.ini, line 3" in refusal["error"]


# -- after an outage ------------------------------------------------------------------


class Media(Holder):
    job_name = "on_media"
    role = "media"
    resumable = True

    async def start(self) -> None:
        await asyncio.sleep(0.2)


class Waste(Media):
    job_name = "on_waste"
    role = "waste"


async def lose(data_dir: Path, clock: SimulatedClock, alive_s_ago: float, *names: str) -> None:
    """Leave a ledger behind as a power cut does."""
    (data_dir / "storage").mkdir()
    ledger = await Ledger.open(data_dir / "storage" / "piod.sqlite", clock.hold)
    for name in names:
        row = JobRow(
            job_id=ledger.next_job_id(),
            unit="pio01",
            experiment="Exp001",
            job_name=name,
            job_source="user",
            started_at=timestamp(clock.time() - 4000),
            leader="leader01",
            pid=1,
        )
        await ledger.add_job(row)
    await ledger.put_meta("alive_at", timestamp(clock.time() - alive_s_ago))
    await ledger.close()


async def test_a_stop_meets_every_job_that_is_being_resumed(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    await lose(tmp_path, clock, 60, "on_media", "on_waste")
    config = "[piod]\nresume_jobs=on_media, on_waste\n"
    both = kinds(Media, Waste)
    async with running_unit(tmp_path, clock, kinds=both, config_ini=config) as unit:
        resuming = asyncio.create_task(unit.daemon.resume())
        await asyncio.sleep(0.1)
        assert (await unit.post("/unit_api/jobs/stop/all"))["result"]["stopped"] == 2
        await resuming
        assert await unit.get("/unit_api/jobs/running") == []


async def test_nothing_is_resumed_when_the_clock_woke_in_the_past(
    tmp_path: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    await lose(tmp_path, clock, -5 * 3600, "stirring")
    config = "[piod]\nresume_jobs=stirring\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        assert await unit.daemon.resume() == []
        assert "the clock woke in the past" in caplog.text


# -- the model --------------------------------------------------------------------------


def naming(name: str, version: str) -> dict[str, str]:
    return {"MODEL_NAME": name, "MODEL_VERSION": version}


async def test_a_refused_run_does_not_change_the_model(unit: Unit) -> None:
    body = {"env": naming("pioreactor_40ml", "1.0")}
    assert (await unit.request("POST", f"{RUN}/nonsense", body))[0] == 404
    assert (await unit.get("/unit_api/health"))["model"]["name"] == "pioreactor_20ml"


async def test_of_two_runs_that_name_two_models_only_the_first_counts(unit: Unit) -> None:
    bodies = [
        {"options": {"target_rpm": 300}, "env": naming("pioreactor_20ml", "1.1")},
        {"options": {"target_rpm": 301}, "env": naming("pioreactor_40ml", "1.0")},
    ]
    await asyncio.gather(*(unit.request("POST", f"{RUN}/stirring", body) for body in bodies))
    await unit.clock.sleep(2)
    assert (await unit.get("/unit_api/health"))["model"]["name"] == "pioreactor_20ml"


# -- parts -----------------------------------------------------------------------------


def test_the_end_of_a_life_reaches_every_lease_even_if_one_fails() -> None:
    life, done = Life("somebody"), list[str]()
    life.at_end(lambda: [][0])
    life.at_end(lambda: done.append("off"))
    life.end()
    assert done == ["off"]


async def test_a_kernel_pwm_that_vanishes_is_a_missing_device(tmp_path: Path) -> None:
    chip = tmp_path / "class" / "pwmchip0"
    (chip / "device" / "of_node").mkdir(parents=True)
    (chip / "device" / "of_node" / "gpios").write_bytes(
        bytes([0, 0, 0, 1, 0, 0, 0, 17, 0, 0, 0, 0])
    )
    (chip / "pwm0").mkdir()
    for attribute in ("period", "duty_cycle", "enable"):
        (chip / "pwm0" / attribute).write_text("0")
    port = LinuxPwm([17], None, tmp_path / "class")
    await port.open()
    shutil.rmtree(chip)
    with pytest.raises(DeviceMissing):
        await port.set_duty(17, 30, hz=200)
    await port.close()


class Never(Message["Stillborn", None]):
    """Nobody asks it."""


class Stillborn(Actor[Never]):
    async def starting(self) -> None:
        self.spawn(asyncio.sleep(1))
        raise RuntimeError("before its children could begin")


async def test_children_that_never_began_leave_no_warning() -> None:
    ref: Ref[Stillborn] = Ref("stillborn")
    with pytest.raises(ExceptionGroup):
        await Stillborn("stillborn").live(ref)


async def test_tasks_that_a_crash_of_their_actor_left_are_failed(unit: Unit) -> None:
    async def one() -> tuple[Ref[Tasks], asyncio.Task[None]]:
        ref: Ref[Tasks] = Ref("tasks")
        living = asyncio.create_task(Tasks(unit.daemon.ledger, unit.clock.time).live(ref))
        await asyncio.sleep(0)
        return ref, living

    async def for_ever() -> JsonValue:
        await asyncio.Event().wait()
        return None

    ref, living = await one()
    launched = await ref.ask(Launch("something", for_ever), timeout=2)
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    ref, living = await one()
    task = await ref.ask(GetTask(launched.task.task_id), timeout=2)
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    assert task.status == "failed"


async def test_a_task_that_fails_before_it_is_on_disk_is_failed_there_too(unit: Unit) -> None:
    ref: Ref[Tasks] = Ref("tasks")
    living = asyncio.create_task(Tasks(unit.daemon.ledger, unit.clock.time).live(ref))
    await asyncio.sleep(0)

    async def refuse() -> JsonValue:
        raise Unavailable("not there")

    launched = await ref.ask(Launch("something", refuse, at_once=True), timeout=2)
    await asyncio.sleep(0.1)
    kept = await unit.daemon.ledger.task(launched.task.task_id)
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    assert kept is not None
    assert kept.status == "failed"
