"""Each way in which the heater could stay on, or come back on, and does not.

Handbook jobs-and-hardware §2.3, HAZ-1 to HAZ-4; HAZ-2 is of the sensor (§1.4).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from piod.actors.buses.bus import RevokeAll
from piod.actors.heater import keep_looking_while_off
from piod.clock import SimulatedClock
from piod.jobs.automations.temperature.thermostat import Thermostat
from piod.jobs.registry import JOBS
from tests.unit import Unit, running_unit

HEATER_PIN = 18
SENSOR = 0x4F
JOB = "temperature_automation"
CYCLE_S = 200.0


def duty(unit: Unit) -> float:
    """What the heater's pin holds, percent."""
    return unit.plant.duties.get(HEATER_PIN, 0.0)


async def start(unit: Unit, target: float = 37.0) -> str:
    return await unit.run(
        JOB, options={"automation_name": "thermostat", "target_temperature": target}
    )


async def until(unit: Unit, *, on: bool, within_s: float = 600.0, step_s: float = 0.05) -> float:
    """Let time pass until the heater is on, or off; how long that took."""
    passed_s = 0.0
    while (duty(unit) > 0) != on:
        await unit.clock.sleep(step_s)
        passed_s += step_s
        assert passed_s <= within_s, f"the heater is {'off' if on else 'on'} after {passed_s} s"
    return passed_s


async def heating(unit: Unit) -> str:
    """A thermostat that has just turned the heater on; its job id."""
    job_id = await start(unit)
    await until(unit, on=True, step_s=0.1)
    await unit.clock.sleep(5)
    assert duty(unit) > 10
    return job_id


async def assert_off_for(unit: Unit, seconds: float = 1.5 * CYCLE_S) -> None:
    """Longer than any pause."""
    for _ in range(round(seconds / 5)):
        assert duty(unit) == 0
        await unit.clock.sleep(5)


async def interlock(unit: Unit) -> str:
    return (await unit.settings(JOB))["interlock"]


@pytest.fixture
async def warm(unit: Unit) -> Unit:
    await heating(unit)
    return unit


# -- the sensor -------------------------------------------------------------------------


async def test_a_reading_that_fails_turns_it_off_within_two_seconds_and_latches(
    warm: Unit,
) -> None:
    fault = warm.board.faults.add("chip_missing", address=SENSOR)
    await until(warm, on=False, within_s=2.1)
    warm.board.faults.remove(fault.id)
    await assert_off_for(warm)
    assert "could not be read" in await interlock(warm)
    problems = (await warm.get("/unit_api/health"))["problems"]
    assert any("heater is off until its interlock is reset" in problem for problem in problems)


async def test_one_nack_in_passing_is_no_failed_reading(warm: Unit) -> None:
    warm.board.faults.add("nack", address=SENSOR, count=1)
    for _ in range(80):
        await warm.clock.sleep(0.5)
        assert duty(warm) > 0


@pytest.mark.parametrize("celsius", [-55.0, 127.0])
async def test_a_reading_that_cannot_be_true_turns_it_off_within_two_seconds(
    warm: Unit, celsius: float
) -> None:
    warm.board.faults.add("temperature_stuck", celsius=celsius)
    await until(warm, on=False, within_s=2.1)
    warm.board.faults.clear()
    await assert_off_for(warm)
    assert warm.power == []


async def test_a_reading_below_zero_is_not_taken_for_256_degrees(warm: Unit) -> None:
    warm.board.faults.add("temperature_stuck", celsius=-0.0625)
    await until(warm, on=False, within_s=2.1)
    assert "-0.0625" in await interlock(warm)
    await assert_off_for(warm)
    assert warm.power == []


async def test_a_sensor_that_is_frozen_turns_it_off_within_a_minute(warm: Unit) -> None:
    warm.board.faults.add("temperature_stuck")
    await until(warm, on=False, within_s=60)
    await assert_off_for(warm)
    assert "its sensor" in await interlock(warm)


@pytest.mark.parametrize("into_cycle_s", [30, 60, 100, 150])
async def test_a_sensor_that_freezes_at_any_time_of_the_cycle_ends_the_heating(
    warm: Unit, into_cycle_s: float
) -> None:
    await warm.clock.sleep(into_cycle_s)
    warm.board.faults.add("temperature_stuck")
    await warm.clock.sleep(60)
    await assert_off_for(warm)
    assert await interlock(warm) != "ok"


async def test_a_sensor_that_does_not_feel_the_heater_turns_it_off_within_two_minutes(
    unit: Unit,
) -> None:
    unit.board.faults.add("heater_failure")
    await start(unit)
    await until(unit, on=True)
    assert duty(unit) >= 10
    await until(unit, on=False, within_s=120)
    await assert_off_for(unit)
    assert "does not feel the heater" in await interlock(unit)


async def test_a_heater_that_fails_later_is_noticed_within_two_minutes(warm: Unit) -> None:
    warm.board.faults.add("heater_failure")
    await warm.clock.sleep(120)
    await assert_off_for(warm)
    assert await interlock(warm) != "ok"


async def test_a_sensor_that_runs_away_turns_it_off_long_before_a_limit(warm: Unit) -> None:
    warm.board.faults.add("temperature_runaway", celsius_per_minute=10)
    await until(warm, on=False, within_s=80)
    assert "cannot explain" in await interlock(warm)
    await assert_off_for(warm)


async def test_a_sensor_lost_in_the_pause_does_not_bring_the_old_duty_back(unit: Unit) -> None:
    """HAZ-1."""
    await heating(unit)
    await until(unit, on=False)
    await unit.clock.sleep(20)
    unit.board.faults.add("chip_missing", address=SENSOR)
    await assert_off_for(unit)
    unit.board.faults.clear()
    await assert_off_for(unit)


async def test_without_a_fresh_reading_its_own_off_time_ends_it(
    warm: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(address: int, messages: object) -> list[bytes]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(warm.board.i2c, "transfer", never)
    await until(warm, on=False, within_s=4.1)
    await assert_off_for(warm)


# -- limits -------------------------------------------------------------------------------


async def test_over_temperature_latches_over_a_restart_of_the_job_and_of_the_daemon(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    """HAZ-4."""
    async with running_unit(tmp_path, clock) as unit:
        await heating(unit)
        unit.board.faults.add("temperature_stuck", celsius=81)
        await until(unit, on=False, within_s=2.1)
        unit.board.faults.clear()
        await unit.post("/unit_api/jobs/stop", {"job_name": JOB})
        await start(unit, 36)
        await assert_off_for(unit)
        assert "above the limit of 80" in await interlock(unit)
        assert unit.power == []
    async with running_unit(tmp_path, clock) as unit:
        job_id = await start(unit)
        await assert_off_for(unit)
        assert "above the limit of 80" in await interlock(unit)
        assert (await unit.change(job_id, reset_interlock=True))[0] == 200
        await until(unit, on=True)
        assert await interlock(unit) == "ok"
    async with running_unit(tmp_path, clock) as unit:
        await start(unit)
        assert await interlock(unit) == "ok"


async def test_over_temperature_in_the_pause_is_not_undone_at_its_end(unit: Unit) -> None:
    """HAZ-4."""
    await heating(unit)
    await until(unit, on=False)
    await unit.clock.sleep(30)
    unit.board.faults.add("temperature_stuck", celsius=81)
    await unit.clock.sleep(6)
    unit.board.faults.clear()
    await assert_off_for(unit)
    assert "above the limit" in await interlock(unit)


async def test_above_the_shutdown_limit_the_machine_is_powered_off(warm: Unit) -> None:
    warm.board.faults.add("temperature_stuck", celsius=86)
    await until(warm, on=False, within_s=2.1)
    assert warm.power == []
    await warm.clock.sleep(2.5)
    for _ in range(100):
        await asyncio.sleep(0)
    await warm.clock.sleep(1)
    assert warm.power == ["power_off"]
    assert await warm.get("/unit_api/jobs/running") == []
    assert duty(warm) == 0


async def test_one_reading_above_the_shutdown_limit_does_not_power_off(warm: Unit) -> None:
    warm.board.faults.add("temperature_stuck", celsius=86)
    await until(warm, on=False, within_s=2.1)
    warm.board.faults.clear()
    await assert_off_for(warm, 60)
    assert warm.power == []


MILD = """\
model_name: mild
model_version: "1.0"
display_name: Mild
reactor_capacity_ml: 20
reactor_max_fill_volume_ml: 18
reactor_diameter_mm: 27
max_temp_to_reduce_heating: 40
max_temp_to_disable_heating: 60
max_temp_to_shutdown: 70
"""


async def test_above_the_reduce_limit_it_is_turned_down_and_not_up_again(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mild.yaml").write_text(MILD)
    async with running_unit(tmp_path, clock, fixed_model=("mild", "1.0")) as unit:
        await start(unit, 39)
        seen = []
        for _ in range(600):
            await clock.sleep(2)
            seen.append(duty(unit))
            assert unit.plant.truth()["pcb_celsius"] < 41  # type: ignore[operator] # a number
        changes = [(one, other) for one, other in pairwise(seen) if one and other and one != other]
        assert len(changes) > 10
        assert all(other == pytest.approx(0.9 * one, abs=0.01) for one, other in changes)


# -- its job ends ----------------------------------------------------------------------


class Crashing(Thermostat):
    """A thermostat with a bug that shows when it is told to."""

    crashes = False

    async def run(self) -> None:
        running = asyncio.ensure_future(super().run())
        try:
            while not running.done():
                await self._clock.sleep(0.05)
                if Crashing.crashes:
                    Crashing.crashes = False
                    raise RuntimeError("a bug")
        finally:
            running.cancel()
            await asyncio.wait({running})


async def test_a_stop_turns_it_off_at_once(warm: Unit) -> None:
    await warm.request("POST", "/unit_api/jobs/stop", {"job_name": JOB})
    await until(warm, on=False, within_s=0.1, step_s=0.01)
    await assert_off_for(warm)


async def test_sleep_turns_it_off_at_once_and_waking_does_not_bring_the_old_duty_back(
    unit: Unit,
) -> None:
    job_id = await heating(unit)
    before = duty(unit)
    await unit.change(job_id, state="sleeping")
    await until(unit, on=False, within_s=0.1, step_s=0.01)
    await assert_off_for(unit)
    unit.board.patch({"liquid_celsius": 36.0})
    await unit.change(job_id, state="ready")
    await assert_off_for(unit, 10)
    await until(unit, on=True)
    assert duty(unit) != before


async def test_sleep_in_the_pause_is_not_undone_at_its_end(unit: Unit) -> None:
    """HAZ-3."""
    job_id = await heating(unit)
    await until(unit, on=False)
    await unit.clock.sleep(40)
    await unit.change(job_id, state="sleeping")
    await assert_off_for(unit)


async def test_a_stop_in_the_pause_is_not_undone_at_its_end(unit: Unit) -> None:
    """HAZ-3."""
    await heating(unit)
    await until(unit, on=False)
    await unit.clock.sleep(40)
    await unit.post("/unit_api/jobs/stop", {"job_name": JOB})
    await assert_off_for(unit)


async def test_a_crash_turns_it_off_at_once_and_the_next_life_begins_at_zero(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    kinds = {**JOBS, Thermostat.kind_name(): Crashing}
    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await heating(unit)
        Crashing.crashes = True
        await until(unit, on=False, within_s=0.15, step_s=0.01)
        # the board is still warm from the old duty: it waits for a whole inference
        await assert_off_for(unit, 150)
        assert (await unit.settings(JOB))["restarts"] == "1"
        await until(unit, on=True)


# -- a bus is lost -------------------------------------------------------------------------


async def test_the_loss_of_the_i2c_bus_turns_it_off_within_two_seconds(warm: Unit) -> None:
    warm.board.faults.add("device_missing", bus="i2c")
    await until(warm, on=False, within_s=2.1)
    warm.board.faults.clear()
    await assert_off_for(warm)


async def test_a_stuck_i2c_bus_turns_it_off(warm: Unit) -> None:
    warm.board.faults.add("i2c_stuck", recoverable=False)
    await until(warm, on=False, within_s=2.1)
    warm.board.faults.clear()
    await assert_off_for(warm)


async def test_an_error_of_the_pwm_bus_turns_it_off(warm: Unit) -> None:
    warm.board.faults.add("bus_error", bus="pwm", pin=HEATER_PIN, count=1)
    await until(warm, on=False, within_s=2.1)
    await assert_off_for(warm)
    assert "could not be driven" in await interlock(warm)


async def test_when_the_guard_has_turned_it_off_it_begins_at_zero(warm: Unit) -> None:
    await warm.daemon.pwm.ask(RevokeAll("the guard fired"), timeout=5)
    await until(warm, on=False, within_s=0.1)
    await assert_off_for(warm, 150)
    assert (await warm.settings(JOB))["restarts"] == "1"


# -- it heats although it is off ---------------------------------------------------------


@pytest.fixture
async def looked_after(unit: Unit) -> AsyncIterator[Unit]:
    """With what the process does beside the daemon."""
    looking = asyncio.create_task(keep_looking_while_off(unit.daemon.heater, unit.clock))
    yield unit
    looking.cancel()
    await asyncio.wait({looking})


async def problems(unit: Unit) -> list[str]:
    return list((await unit.get("/unit_api/health"))["problems"])


async def until_hotter(unit: Unit, celsius: float) -> None:
    """Let time pass until the heater's board is really above that."""
    for _ in range(3600):
        if float(str(unit.plant.truth()["pcb_celsius"])) > celsius:
            return
        await unit.clock.sleep(1)
    raise AssertionError(f"the board does not come to {celsius} °C")


async def test_a_heater_that_is_stuck_on_while_no_job_runs_is_noticed_and_powered_off(
    looked_after: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    looked_after.board.faults.add("heater_stuck")
    await until_hotter(looked_after, 80.1)
    await looked_after.clock.sleep(61)
    [problem] = [each for each in await problems(looked_after) if "heater" in each]
    assert "above the limit of 80 °C while it should be off" in problem
    assert any(
        record.levelname == "CRITICAL" and "above the limit" in record.message
        for record in caplog.records
    )
    await until_hotter(looked_after, 85.1)
    await looked_after.clock.sleep(61)
    for _ in range(100):
        await asyncio.sleep(0)
    await looked_after.clock.sleep(3)
    assert "power_off" in looked_after.power


async def test_a_heater_that_is_a_little_on_while_no_job_runs_is_noticed_in_time(
    looked_after: Unit,
) -> None:
    looked_after.board.faults.add("heater_stuck", duty_percent=28)
    await looked_after.clock.sleep(8000)
    [problem] = [each for each in await problems(looked_after) if "heater" in each]
    assert "long after it was turned off" in problem
    assert looked_after.power == []


async def test_a_pin_that_somebody_else_drives_is_driven_low_when_the_board_gets_too_hot(
    looked_after: Unit,
) -> None:
    await looked_after.board.pwm.set_duty(HEATER_PIN, 100, hz=16)
    await until_hotter(looked_after, 80.1)
    await until(looked_after, on=False, within_s=61, step_s=1)
    await looked_after.board.pwm.set_duty(HEATER_PIN, 100, hz=16)
    await until(looked_after, on=False, within_s=61, step_s=1)


async def test_a_heater_that_sticks_while_it_heats_ends_the_job_s_heating_and_is_powered_off(
    looked_after: Unit,
) -> None:
    await heating(looked_after)
    looked_after.board.faults.add("heater_stuck")
    await until(looked_after, on=False, within_s=120)
    assert await interlock(looked_after) != "ok"
    await until_hotter(looked_after, 85.1)
    await looked_after.clock.sleep(61)
    for _ in range(100):
        await asyncio.sleep(0)
    await looked_after.clock.sleep(3)
    assert "power_off" in looked_after.power


async def test_a_board_that_cools_after_a_hot_job_and_one_that_is_missing_trip_nothing(
    looked_after: Unit,
) -> None:
    looked_after.board.patch({"liquid_celsius": 72.0})
    await looked_after.clock.sleep(3000)
    looked_after.board.faults.add("chip_missing", address=SENSOR)
    await looked_after.clock.sleep(600)
    assert not any("heater" in problem for problem in await problems(looked_after))


async def test_the_loss_of_the_pwm_bus_trips_and_when_it_is_back_the_heater_goes_off(
    warm: Unit,
) -> None:
    warm.board.faults.add("device_missing", bus="pwm")
    await warm.clock.sleep(4)
    assert duty(warm) > 0, "nobody can turn it off"
    assert "could not be driven" in await interlock(warm)
    assert any("not confirmed to be off" in problem for problem in await problems(warm))
    warm.board.faults.clear()
    for _ in range(100):
        if duty(warm) == 0:
            break
        await asyncio.sleep(0.05)  # a device that is missing is looked for in wall time
    await assert_off_for(warm)


@pytest.mark.long  # what goes down waits for outputs that are not confirmed to be off
async def test_a_heater_that_cannot_be_turned_off_ends_the_machine_when_it_gets_too_hot(
    looked_after: Unit,
) -> None:
    await heating(looked_after)
    looked_after.board.faults.add("heater_stuck")  # as what cannot be driven may do
    looked_after.board.faults.add("device_missing", bus="pwm")
    await until_hotter(looked_after, 85.1)
    await looked_after.clock.sleep(64)
    for _ in range(200):
        if looked_after.power:
            break
        await asyncio.sleep(0.05)  # jobs get some wall time to turn their outputs off
    assert "power_off" in looked_after.power
    looked_after.board.faults.clear()
