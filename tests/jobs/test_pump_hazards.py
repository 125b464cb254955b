"""Each way in which a pump could stay on, pump again, or go uncounted, and does not.

Handbook jobs-and-hardware §2.6 and §2.7, HAZ-5, HAZ-6 and HAZ-8. What becomes of the pumps of
a daemon that is killed: tests/process/test_pump_dies.py.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from piod.actors import volumes as ledger_of_volumes
from piod.actors.buses.bus import BusState, RevokeAll
from piod.actors.buses.pwm import Revoke
from piod.actors.jobs import Run
from piod.actors.resume import RunRequest
from piod.actors.volumes import LookForRoom, VolumeLedger
from piod.clock import SimulatedClock
from piod.errors import OverflowRefused, StorageFull
from piod.events import PwmChanged
from piod.hw.linux.pwm import LinuxPwm
from piod.jobs import pumping
from piod.jobs.job import Job, Options
from piod.jobs.job import Unit as Parts
from piod.jobs.pump_actions import circulation
from piod.jobs.pump_actions.single import AddMedia
from piod.jobs.pumping import open_pump
from piod.jobs.registry import JOBS
from piod.storage.volumes import VolumeStore
from tests.hw.fake_sysfs import FakeSysfs, is_off
from tests.jobs.pump_bench import (
    ALL_OFF,
    EXPERIMENT,
    MAX_FILL_ML,
    PINS,
    RUN,
    VIAL,
    Doses,
    bench,
    calibrate,
    calibrate_all,
    duties,
    duty,
    failed,
    flow_rate,
    idle,
    in_vial_ml,
    pump,
    pumped_s,
    refused,
    row,
    volumes,
)
from tests.unit import Unit, running_unit

SLACK_S = 0.5
"""Wall time, on a machine that is busy with other tests."""


@pytest.fixture
async def unit(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Unit]:
    async with bench(tmp_path, clock) as one:
        yield one


async def assert_counted(unit: Unit, role: str = "media") -> None:
    """The ledger counts what was pumped, by the true calibration, and the plant agrees."""
    now = await volumes(unit)
    counted_ml = now[
        "cumulative_waste_removed_ml" if role == "waste" else f"cumulative_{role}_added_ml"
    ]
    assert counted_ml == pytest.approx(pumped_s(unit, role) * flow_rate(unit, role), abs=1e-6)
    assert now["lowest"] - 1e-9 <= in_vial_ml(unit) <= now["highest"] + 1e-9
    assert now["doubt"] is None


async def assert_off_for(unit: Unit, seconds: float = 60.0) -> None:
    for _ in range(round(seconds)):
        assert duties(unit) == ALL_OFF
        await unit.clock.sleep(1)


# -- the event loop is blocked: outputs as on a Raspberry Pi, in real time -----------------


class Watch:
    """Looks at the outputs from a thread of its own, whatever becomes of the event loop."""

    def __init__(self, channels: dict[str, Path]) -> None:
        self._channels = channels
        self._on_since: dict[str, float] = {}
        self.longest_s = dict.fromkeys(channels, 0.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ended.wait(0.005):
            now = time.monotonic()
            for role, channel in self._channels.items():
                if is_off(channel):
                    self._on_since.pop(role, None)
                else:
                    since = self._on_since.setdefault(role, now)
                    self.longest_s[role] = max(self.longest_s[role], now - since)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


@asynccontextmanager
async def real_outputs(tmp_path: Path) -> AsyncIterator[tuple[Unit, dict[str, Path]]]:
    """A unit with the PWM outputs of the kernel, and the folders of its pumps."""
    sysfs = FakeSysfs(tmp_path / "sys")
    channels = {pin: sysfs.add_pwm_gpio(pin) for pin in (17, 13, 16, 12, 18)}
    (tmp_path / "data").mkdir()
    port = LinuxPwm(tuple(channels), None, sysfs.root)
    clock = SimulatedClock(scale=1)
    async with running_unit(tmp_path / "data", clock, config_ini=VIAL, pwm=port) as unit:
        yield unit, {role: channels[pin] for role, pin in PINS.items()}


async def until_on(channel: Path) -> None:
    for _ in range(2000):
        if not is_off(channel):
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the pump does not turn")


async def over(unit: Unit) -> None:
    """In real time: no job runs any more."""
    for _ in range(500):
        if not await unit.get("/unit_api/jobs/running"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("jobs run for ever")


async def test_a_blocked_event_loop_does_not_lengthen_a_dose(tmp_path: Path) -> None:
    async with real_outputs(tmp_path) as (unit, channels):
        with Watch(channels) as watch:
            await pump(unit, "add_media", duration=0.3)
            await until_on(channels["media"])
            time.sleep(0.3 + SLACK_S)  # noqa: ASYNC251 # the loop is to stand still
            assert is_off(channels["media"])
            await over(unit)
        assert 0.2 < watch.longest_s["media"] < 0.3 + SLACK_S
        assert (await volumes(unit))["cumulative_media_added_ml"] == pytest.approx(0.3 * 0.0911)


@pytest.mark.long  # it takes the time that it takes
async def test_a_blocked_event_loop_stops_a_pump_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pumping, "RENEW_S", 0.1)
    monkeypatch.setattr(pumping, "RENEWED_OFF_AFTER_S", 0.3)
    async with real_outputs(tmp_path) as (unit, channels):
        job_id = await pump(unit, "remove_waste", continuously=None)
        for _ in range(50):
            await asyncio.sleep(0.01)
            assert not is_off(channels["waste"]), "it is renewed"
        time.sleep(0.3 + SLACK_S)  # noqa: ASYNC251 # the loop is to stand still
        assert is_off(channels["waste"])
        await unit.post("/unit_api/jobs/stop", {"job_id": job_id})
        await asyncio.sleep(0.2)
        assert is_off(channels["waste"])


@pytest.mark.long  # it takes the time that it takes
async def test_a_blocked_event_loop_stops_a_circulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circulation, "LEAD_S", 0.1)
    monkeypatch.setattr(circulation, "WASTE_OFF_AFTER_S", 0.3)
    monkeypatch.setattr(circulation, "CYCLE_S", 0.2)
    async with real_outputs(tmp_path) as (unit, channels):
        await pump(unit, "circulate_media", duration=60)
        await until_on(channels["media"])
        time.sleep(0.3 + SLACK_S)  # noqa: ASYNC251 # the loop is to stand still
        assert is_off(channels["media"])
        assert is_off(channels["waste"])
        await unit.post("/unit_api/jobs/stop/all")
        assert is_off(channels["media"])
        assert is_off(channels["waste"])


# -- the owner ends ------------------------------------------------------------------------


@pytest.mark.parametrize("job_name", ["add_media", "remove_waste"])
async def test_a_stop_in_the_middle_of_a_dose_turns_the_pump_off_at_once_and_counts_it(
    unit: Unit, job_name: str
) -> None:
    await calibrate_all(unit)
    role = "media" if job_name == "add_media" else "waste"
    job_id = await pump(unit, job_name, duration=10)
    await unit.clock.sleep(3)
    assert duty(unit, role) == 100
    stopped_s = unit.clock.monotonic()
    await unit.request("POST", "/unit_api/jobs/stop", {"job_id": job_id})
    while duty(unit, role):
        await unit.clock.sleep(0.01)
    assert unit.clock.monotonic() - stopped_s <= 0.1
    await idle(unit)
    assert (await row(unit, job_id))["state"] == "disconnected"
    await assert_counted(unit, role)
    await assert_off_for(unit)


async def test_stop_all_stops_the_pumps_first(unit: Unit) -> None:
    assert min(JOBS[name].stop_first for name in JOBS if name.startswith(("add_", "circ"))) > max(
        kind.stop_first for kind in JOBS.values() if kind.job_name == "temperature_automation"
    )
    await pump(unit, "add_media", duration=10)
    await pump(unit, "add_alt_media", duration=10)
    await unit.post("/unit_api/jobs/stop/all")
    assert duties(unit) == ALL_OFF


async def test_sleep_in_the_middle_of_a_dose_turns_the_pump_off_at_once(unit: Unit) -> None:
    """HAZ-8; the rest is never pumped: test_pump_actions.py."""
    await calibrate_all(unit)
    job_id = await pump(unit, "add_media", ml=1)
    await unit.clock.sleep(3)
    await unit.change(job_id, state="sleeping")
    assert duties(unit) == ALL_OFF
    await assert_counted(unit)
    await assert_off_for(unit)
    await unit.change(job_id, state="ready")
    await assert_off_for(unit)


@pytest.mark.parametrize("after_s", [0.5, 5.2, 10.3])
async def test_sleep_in_the_middle_of_a_circulation_turns_both_pumps_off_at_once(
    unit: Unit, after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calibrate_all(unit)
    job_id = await pump(unit, "circulate_media", duration=60)
    await unit.clock.sleep(after_s)
    kept = VolumeStore.keep

    async def keep(store: VolumeStore, *rows: Any, **more: Any) -> None:
        assert duties(unit) == ALL_OFF, "none waits for the disk"
        await kept(store, *rows, **more)

    with monkeypatch.context() as patch:
        patch.setattr(VolumeStore, "keep", keep)
        assert (await unit.change(job_id, state="sleeping"))[0] == 200
    assert duties(unit) == ALL_OFF
    await assert_counted(unit, "waste")
    await assert_off_for(unit, 20)


class Crashing(AddMedia):
    """With a bug that shows in the middle of a dose."""

    async def go_on(self, runs: AsyncExitStack) -> None:
        await self._unit.clock.sleep(3)
        raise RuntimeError("a bug")


async def test_a_crash_in_the_middle_of_a_dose_turns_the_pump_off_and_nothing_is_repeated(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with bench(tmp_path, clock, kinds={**JOBS, "add_media": Crashing}) as unit:
        await calibrate_all(unit)
        job_id = await pump(unit, "add_media", ml=1)
        await clock.sleep(3.1)
        assert duties(unit) == ALL_OFF
        await idle(unit)
        assert (await row(unit, job_id))["state"] == "lost"
        await assert_counted(unit)
        await assert_off_for(unit)


class Feeder(Job):
    """Doses by itself, as an automation does."""

    job_name = "feeder"

    def __init__(self, unit: Parts) -> None:
        self._unit = unit

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls(unit)

    async def run(self) -> None:
        media = await open_pump(self._unit, "media")
        while True:
            await media.dose(0.3, source="feeder")
            await self._unit.clock.sleep(60)


async def test_the_pump_of_an_automation_stops_with_it_and_can_be_leased_again(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    """HAZ-8."""
    async with bench(tmp_path, clock, kinds={**JOBS, "feeder": Feeder}) as unit:
        await calibrate_all(unit)
        job_id = await pump(unit, "feeder")
        for _ in range(3):
            while not duty(unit, "media"):
                await clock.sleep(0.1)
            await clock.sleep(1)
            await unit.change(job_id, state="sleeping")
            assert duties(unit) == ALL_OFF
            await assert_counted(unit)
            await unit.change(job_id, state="ready")
        while not duty(unit, "media"):
            await clock.sleep(0.1)
        await unit.post("/unit_api/jobs/stop", {"job_id": job_id})
        assert duties(unit) == ALL_OFF
        await assert_counted(unit)
        await assert_off_for(unit)


async def test_a_stop_at_any_instant_of_a_start_leaves_nothing_on_and_nothing_uncounted(
    unit: Unit,
) -> None:
    await calibrate_all(unit)
    for turns in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 100_000):
        request = RunRequest("add_media", {"ml": 0.1}, experiment=EXPERIMENT)
        running = asyncio.ensure_future(unit.daemon.jobs.ask(Run(request), timeout=5))
        for _ in range(turns):
            if duty(unit, "media"):
                break
            await asyncio.sleep(0)
        await unit.daemon.end_jobs("a test")
        await asyncio.gather(running, return_exceptions=True)
        assert duties(unit) == ALL_OFF
        await assert_counted(unit)
        assert (await unit.daemon.pwm.ask(BusState(), timeout=5)).leases == {}
    now = await volumes(unit)
    await pump(unit, "add_media", ml=(17.9 - now["highest"]) / 1.03)  # no other is on its way
    await idle(unit)
    await assert_counted(unit)


class Fickle(Feeder):
    """Gives up doses that have hardly begun."""

    job_name = "fickle"

    async def run(self) -> None:
        media = await open_pump(self._unit, "media")
        for turns in (*range(30), *range(30, 400, 7)):
            dosing = asyncio.ensure_future(media.dose(0.001, source="fickle"))
            for _ in range(turns):
                await asyncio.sleep(0)
            dosing.cancel()
            await asyncio.wait({dosing})
            assert dosing.cancelled() or dosing.exception() is None
        await media.dose(0.1, source="fickle")


async def test_a_dose_given_up_at_any_instant_leaves_no_lease_and_nothing_uncounted(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with bench(tmp_path, clock, kinds={**JOBS, "fickle": Fickle}) as unit:
        await calibrate_all(unit)
        job_id = await pump(unit, "fickle")
        await idle(unit)
        assert (await row(unit, job_id))["state"] == "disconnected"
        assert duties(unit) == ALL_OFF
        await assert_counted(unit)


# -- the hardware --------------------------------------------------------------------------


async def test_when_the_guard_has_turned_it_off_the_action_ends_and_it_is_counted(
    unit: Unit,
) -> None:
    await calibrate_all(unit)
    for seconds, message in (
        (9, Revoke("its time was over", PINS["media"])),
        (8, RevokeAll("the guard fired")),
    ):
        job_id = await pump(unit, "add_media", duration=seconds)
        await unit.clock.sleep(3)
        await unit.daemon.pwm.ask(message, timeout=5)
        assert duties(unit) == ALL_OFF
        await idle(unit)
        assert (await row(unit, job_id))["state"] == "lost"
        await assert_counted(unit)
    await assert_off_for(unit)


async def test_an_output_that_refuses_to_go_off_is_counted_for_as_long_as_it_was_on(
    unit: Unit,
) -> None:
    await calibrate_all(unit)
    await pump(unit, "add_media", duration=2)
    await unit.clock.sleep(1)
    fault = unit.board.faults.add("bus_error", bus="pwm", pin=PINS["media"])
    await unit.clock.sleep(3)
    assert duty(unit, "media") == 100, "nothing can turn it off"
    unit.board.faults.remove(fault.id)
    await idle(unit)
    assert duties(unit) == ALL_OFF
    assert pumped_s(unit, "media") > 3.9
    now = await volumes(unit)
    assert now["highest"] >= in_vial_ml(unit)
    assert now["cumulative_media_added_ml"] >= 0.97 * 3.9 * flow_rate(unit, "media")


async def until_ended(unit: Unit, job_id: str) -> None:
    """In real time: a refusing output is waited for in real time."""
    for _ in range(500):
        if not (await row(unit, job_id))["is_running"]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not end")


@pytest.mark.parametrize("role", ["media", pytest.param("waste", marks=pytest.mark.long)])
async def test_while_a_pump_cannot_be_turned_off_nothing_is_added_and_a_doubt_stays(
    unit: Unit, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_of_volumes, "STUCK_AFTER_S", 0.1)
    await calibrate_all(unit)
    job_id = await pump(unit, "add_media" if role == "media" else "remove_waste", duration=2)
    await unit.clock.sleep(1)
    fault = unit.board.faults.add("bus_error", bus="pwm", pin=PINS[role])
    await unit.request("POST", "/unit_api/jobs/stop", {"job_id": job_id})
    for _ in range(200):  # at the first refusal, not only when it is clear that it is stuck
        if (await volumes(unit))["doubt"]:
            break
        await asyncio.sleep(0.01)
    status, answer = await refused(unit, "add_alt_media", ml=0.1)
    assert status == 409
    assert "cannot be turned off" in answer["error"]
    await until_ended(unit, job_id)
    await unit.clock.sleep(30)
    assert duty(unit, role) == 100
    now = await volumes(unit)
    assert "cannot be turned off" in now["doubt"]
    assert now["lowest"] <= in_vial_ml(unit) <= now["highest"]
    path = f"/unit_api/bioreactor/experiments/{EXPERIMENT}"
    status, answer = await unit.request("PATCH", path, {"values": {"current_volume_ml": 15}})
    assert status == 409, answer
    unit.board.faults.remove(fault.id)
    for _ in range(200):
        if duties(unit) == ALL_OFF and "could not" in str((await volumes(unit))["doubt"]):
            break
        await asyncio.sleep(0.01)
    now = await volumes(unit)
    assert now["lowest"] <= in_vial_ml(unit) <= now["highest"] <= 20
    assert "could not be turned off for" in now["doubt"]
    assert (await refused(unit, "add_media", ml=0.1))[0] == 409
    ml = in_vial_ml(unit)
    status, _ = await unit.request("PATCH", path, {"values": {"current_volume_ml": ml}})
    assert (status, (await volumes(unit))["doubt"]) == (200, None)


@pytest.mark.parametrize("within_s", [60.0, 2.0])
async def test_waste_counts_only_until_the_event_loop_was_last_seen_alive(
    unit: Unit, within_s: float
) -> None:
    """The guard has turned the pump off meanwhile, before or after its off-time."""
    await calibrate_all(unit)
    await pump(unit, "add_media", ml=2.5)
    await idle(unit)
    await pump(unit, "remove_waste", duration=3 + within_s)
    await unit.clock.sleep(3)
    unit.board.pwm.cut(PINS["waste"])
    unit.clock._now += 20  # what a loop that hangs finds when it goes on
    if within_s > 20:
        await unit.daemon.pwm.ask(RevokeAll("the daemon hung"), timeout=5)
    await idle(unit)
    now = await volumes(unit)
    assert now["lowest"] <= in_vial_ml(unit) <= now["highest"]


async def test_a_ledger_that_crashes_lets_nobody_confirm_what_still_flows(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calibrate_all(unit)
    path = f"/unit_api/bioreactor/experiments/{EXPERIMENT}"
    job_id = await pump(unit, "add_media", duration=25)
    await unit.clock.sleep(2)
    assert (await unit.get(path))["doses_under_way"] == ["add_media (CLI)"]
    receive = VolumeLedger.receive

    async def crash(ledger: VolumeLedger, message: Any) -> object:
        if isinstance(message, LookForRoom):
            raise RuntimeError("a bug")
        return await receive(ledger, message)

    with monkeypatch.context() as patch:
        patch.setattr(VolumeLedger, "receive", crash)
        assert (await refused(unit, "add_alt_media", continuously=True))[0] == 503
    await unit.clock.sleep(1)
    assert duty(unit, "media") == 100
    told = {"values": {"current_volume_ml": 15}}
    status, answer = await unit.request("PATCH", path, told)
    assert (status, "may be pumping" in answer["error"]) == (409, True)
    await pump(unit, "remove_waste", duration=20)
    await unit.clock.sleep(21)
    now = await volumes(unit)
    assert now["doubt"] is not None, "waste does not make up for what flows still"
    await until_over(unit, job_id)
    now = await volumes(unit)
    assert now["lowest"] <= in_vial_ml(unit) <= now["highest"]
    assert now["doubt"] is not None
    assert (await unit.request("PATCH", path, told))[0] == 200
    assert (await volumes(unit))["doubt"] is None


async def until_over(unit: Unit, job_id: str) -> None:
    for _ in range(100):
        if not (await row(unit, job_id))["is_running"]:
            return
        await unit.clock.sleep(0.5)
    raise AssertionError("it runs for ever")


async def test_an_output_that_refuses_to_go_on_fails_the_action_and_counts_nothing(
    unit: Unit,
) -> None:
    await calibrate_all(unit)
    unit.board.faults.add("bus_error", bus="pwm", pin=PINS["media"], count=1)
    await failed(unit, "add_media", ml=1)
    assert duties(unit) == ALL_OFF
    assert (await volumes(unit))["current_volume_ml"] == 15
    await pump(unit, "add_media", ml=0.5)
    await idle(unit)
    await assert_counted(unit)


class Sleeper(Job):
    """Leaves its output to the off-time."""

    job_name = "sleeper"

    def __init__(self, unit: Parts) -> None:
        self._unit = unit

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls(unit)

    async def run(self) -> None:
        output = await self._unit.lease_pwm("media", hz=200)
        for _ in range(5):
            await output.set_duty(40, off_after_s=2)
            await self._unit.clock.sleep(1)
        await asyncio.Event().wait()


async def test_the_bus_knows_of_an_off_time_and_tells_of_changes_alone(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with bench(tmp_path, clock, kinds={**JOBS, "sleeper": Sleeper}) as unit:
        with unit.daemon.hub.subscribe() as events:
            await pump(unit, "sleeper")
            begun = clock.time()
            await clock.sleep(20)
            events.close()
            told = [event async for event in events if isinstance(event, PwmChanged)]
        assert [dict(event.duty_percent) for event in told] == [{PINS["media"]: 40.0}, {}]
        assert 6 <= told[1].at - begun < 6.3


# -- volumes -------------------------------------------------------------------------------


async def test_an_intercept_is_counted_once_in_each_run_however_long(unit: Unit) -> None:
    await calibrate(unit, "media", [0.1, 0.05])
    await calibrate(unit, "waste", [0.1, -0.05])
    await pump(unit, "add_media", ml=1)
    await idle(unit)
    assert pumped_s(unit, "media") == pytest.approx(9.5)
    assert (await volumes(unit))["cumulative_media_added_ml"] == pytest.approx(1)
    with Doses(unit) as doses:
        job_id = await pump(unit, "remove_waste", continuously=None)
        await unit.clock.sleep(100)
        await unit.post("/unit_api/jobs/stop", {"job_id": job_id})
        taken = await doses.taken()
    expected_ml = 0.1 * pumped_s(unit, "waste") - 0.05
    assert len({one.details["dose_id"] for one in taken}) > 2
    now = await volumes(unit)
    assert now["cumulative_waste_removed_ml"] == pytest.approx(expected_ml)
    assert sum(one.value for one in taken) == pytest.approx(expected_ml)


async def test_a_circulation_counts_the_intercept_of_each_pulse(unit: Unit) -> None:
    await calibrate_all(unit)
    await calibrate(unit, "media", [flow_rate(unit, "media"), 0.05])
    job_id = await pump(unit, "circulate_media", duration=120)
    await idle(unit)
    assert (await row(unit, job_id))["state"] == "disconnected"
    now = await volumes(unit)
    assert 0 < now["cumulative_media_added_ml"] < now["cumulative_waste_removed_ml"]
    assert now["highest"] < 16


async def test_small_doses_by_points_that_are_a_little_off_do_not_flood(unit: Unit) -> None:
    """The two points of the line are 2.5 % off: its intercept takes a third of a small dose."""
    rate = flow_rate(unit, "media")
    low_ml, high_ml = 0.975 * rate * 9.95, 1.025 * rate * 29.95
    slope = (high_ml - low_ml) / 20
    recorded = f"{{x: [10, 30], y: [{low_ml}, {high_ml}]}}"
    await calibrate(unit, "media", [slope, low_ml - 10 * slope], recorded=recorded)
    steps = {"media" + "_" * number: 0.05 + 1e-6 * number for number in range(60)}
    for _ in range(3):
        body = {"options": steps, "env": {"EXPERIMENT": EXPERIMENT}}
        await unit.request("POST", f"{RUN}/pumps", body)  # a sequence that is too long is refused
        await idle(unit)
        steps = dict(list(steps.items())[: len(steps) // 2])
    now = await volumes(unit)
    assert now["current_volume_ml"] > 15
    assert now["lowest"] <= in_vial_ml(unit) <= now["highest"] < MAX_FILL_ML


async def test_the_readings_add_up_also_when_the_disk_refuses_the_fact(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calibrate_all(unit)
    with Doses(unit) as doses:
        await pump(unit, "add_media", duration=10)
        await unit.clock.sleep(1)

        async def refuse(*rows: object, **more: object) -> None:
            raise StorageFull("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(VolumeStore, "keep", refuse)
            await unit.post("/unit_api/jobs/stop", {"job_name": "add_media"})
            await idle(unit)
        counted_ml = (await volumes(unit))["cumulative_media_added_ml"]
        assert sum(one.value for one in await doses.taken()) == pytest.approx(counted_ml)


async def test_a_refused_run_does_not_change_the_model(unit: Unit) -> None:
    status, _ = await unit.request(
        "POST",
        f"{RUN}/add_media",
        {
            "options": {"duration": 5000},
            "env": {"MODEL_NAME": "pioreactor_40ml", "MODEL_VERSION": "1.5"},
        },
    )
    assert status == 400
    status, answer = await refused(unit, "add_media", duration=60)
    assert (status, "stay below 18 mL" in answer["error"]) == (400, True)


async def test_the_name_of_a_source_is_short(unit: Unit) -> None:
    status, answer = await refused(unit, "add_media", duration=1, source_of_event="x" * 201)
    assert (status, "200 characters at most" in answer["error"]) == (400, True)


async def test_less_than_the_intercept_cannot_be_pumped(unit: Unit) -> None:
    await calibrate(unit, "media", [0.1, 0.05])
    status, answer = await refused(unit, "add_media", ml=0.04)
    assert (status, duties(unit)) == (400, ALL_OFF)
    assert "would take a run of -0.1 s" in answer["error"]


async def test_without_a_calibration_no_volume_is_pumped_whoever_asks(unit: Unit) -> None:
    for job_name in ("add_media", "add_alt_media", "remove_waste"):
        status, answer = await refused(unit, job_name, ml=1)
        assert status == 400
        assert "no active calibration" in answer["error"]
    request = RunRequest("add_media", {"ml": 1}, experiment=EXPERIMENT)
    with pytest.raises(Exception, match="no active calibration"):
        await unit.daemon.jobs.ask(Run(request), timeout=5)
    assert pumped_s(unit, "media") == 0


async def test_two_inflows_at_once_are_counted_together(unit: Unit) -> None:
    """HAZ-6: each of them alone would fit; also where no request is looked at before."""
    await calibrate_all(unit)
    await pump(unit, "add_media", ml=1.6)
    status, answer = await refused(unit, "add_alt_media", ml=1.6)
    assert status == 400
    assert "may be on its way" in answer["error_info"]["cause"]
    await unit.post("/unit_api/jobs/stop/all")
    await pump(unit, "remove_waste", duration=10)
    await idle(unit)

    asked = [
        unit.daemon.jobs.ask(Run(RunRequest(name, {"ml": 1.6}, experiment=EXPERIMENT)), timeout=5)
        for name in ("add_media", "add_alt_media")
    ]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers].count(OverflowRefused) == 1
    await idle(unit)
    assert in_vial_ml(unit) < MAX_FILL_ML


async def test_a_pump_does_not_turn_while_its_intent_is_not_on_disk(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calibrate_all(unit)

    async def refuse(*rows: object, **more: object) -> None:
        assert duties(unit) == ALL_OFF
        raise StorageFull("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(VolumeStore, "keep", refuse)
        assert "disk is full" in await failed(unit, "add_media", ml=1)
    assert pumped_s(unit, "media") == 0
    await pump(unit, "add_media", ml=2.8)  # the refused one is not counted
    await idle(unit)
    await assert_counted(unit)


async def test_a_fact_that_the_disk_refuses_ends_the_action_with_its_pump_off(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calibrate_all(unit)
    job_id = await pump(unit, "add_media", ml=1)

    async def refuse(*rows: object, **more: object) -> None:
        assert duties(unit) == ALL_OFF
        raise StorageFull("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(VolumeStore, "keep", refuse)
        await idle(unit)
    assert "the disk is full" in (await row(unit, job_id))["reason"]
    await assert_counted(unit)


class Buggy(AddMedia):
    """Cannot even be asked."""

    @classmethod
    async def refuse(cls, unit: Parts, options: Options) -> None:
        await unit.lease_pwm("media", hz=200)
        raise RuntimeError("a bug")


async def test_a_job_that_crashes_when_it_is_asked_harms_no_other(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with bench(tmp_path, clock, kinds={**JOBS, "add_media": Buggy}) as unit:
        job_id = await pump(unit, "remove_waste", duration=5)
        status, answer = await refused(unit, "add_media", duration=1)
        assert status == 500
        assert "crashed: RuntimeError: a bug" in answer["error"]
        assert duty(unit, "waste") == 100
        assert [one["job_id"] for one in await unit.get("/unit_api/jobs/running")] == [job_id]
        assert "GPIO 13" not in (await unit.daemon.pwm.ask(BusState(), timeout=5)).leases
