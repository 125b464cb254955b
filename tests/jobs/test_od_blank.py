"""The blank over HTTP, on the simulated photodiodes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from piod.clock import SimulatedClock
from piod.storage.memory import ExperimentMemory
from tests.jobs.test_od_reading import USUAL, calibrate, fault, put_in, truth_volts
from tests.unit import Unit, running_unit

EXPERIMENT = "exp1"
ENV = {"EXPERIMENT": EXPERIMENT}


@pytest.fixture
async def unit(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Unit]:
    """With OD in volts."""
    async with running_unit(tmp_path, clock, config_ini=USUAL) as one:
        yield one


async def measure(unit: Unit, **options: object) -> dict[str, Any]:
    """Run od_blank to its end; its row."""
    body = {"options": options, "env": ENV}
    task = await unit.post("/unit_api/jobs/run/job_name/od_blank", body)
    assert task["status"] == "complete", task
    return await ended(unit)


async def ended(unit: Unit) -> dict[str, Any]:
    for _ in range(1000):
        row = (await unit.history())[0]
        if not row["is_running"]:
            assert row["job_name"] == "od_blank"
            return row
        await unit.clock.sleep(0.5)
    raise AssertionError("the blank is never measured")


async def kept(unit: Unit, key: str = "od_blank") -> Any:
    memory = ExperimentMemory(unit.daemon.ledger, EXPERIMENT, unit.clock.time)
    return await memory.recall(key)


async def test_the_blank_is_the_voltage_of_media_and_nothing_stays_on(unit: Unit) -> None:
    await put_in(unit, 0.0)
    began = unit.clock.monotonic()
    await measure(unit)
    assert 45 <= unit.clock.monotonic() - began <= 60
    assert (await kept(unit))["2"] == pytest.approx(truth_volts(0.0), rel=0.01)
    assert await kept(unit, "od_blank_units") == {"2": None}
    assert unit.duty == 0
    assert unit.plant.optics.levels["A"] == 0


async def test_it_stirs_by_itself_while_it_measures(unit: Unit) -> None:
    await unit.run("od_blank", options={"n_samples": 10})
    await unit.clock.sleep(15)
    assert unit.duty > 20
    assert unit.plant.stirrer.rpm == pytest.approx(500, rel=0.1)
    await ended(unit)
    assert unit.duty == 0


async def test_it_leaves_stirring_that_goes_on_alone(unit: Unit) -> None:
    await unit.run("stirring", options={"target_rpm": 300})
    await unit.clock.sleep(30)
    await measure(unit, n_samples=5)
    assert (await unit.settings())["$state"] == "ready"
    assert await unit.measured_rpm() == pytest.approx(300, rel=0.05)


async def test_stop_in_the_middle_turns_everything_off_and_keeps_nothing(unit: Unit) -> None:
    await unit.run("od_blank", env=ENV)
    await unit.clock.sleep(20.2)
    assert unit.duty > 20
    await unit.post("/unit_api/jobs/stop", {"job_name": "od_blank"})
    assert (unit.duty, unit.plant.optics.levels["A"]) == (0, 0)
    assert await kept(unit) is None


async def test_with_a_calibration_the_blank_is_an_od(unit: Unit) -> None:
    """As od_reading publishes it, or it could not be taken off."""
    await calibrate(unit)
    await put_in(unit, 0.05)
    await measure(unit, n_samples=20)
    assert (await kept(unit))["2"] == pytest.approx(0.05, rel=0.05)


async def test_it_is_refused_while_od_reading_runs_or_stirring_sleeps(unit: Unit) -> None:
    await unit.run("od_reading")
    task = await unit.post("/unit_api/jobs/run/job_name/od_blank", {})
    assert task["status"] == "failed"
    assert "while od_reading runs" in task["error"]
    await unit.post("/unit_api/jobs/stop", {"job_name": "od_reading"})
    job_id = await unit.run("stirring")
    await unit.change(job_id, state="sleeping")
    other = {"options": {"n_samples": 6}}
    task = await unit.post("/unit_api/jobs/run/job_name/od_blank", other)
    assert task["status"] == "failed"
    assert "while stirring sleeps" in task["error"]


async def test_a_blank_can_be_forgotten_without_hardware(unit: Unit) -> None:
    await measure(unit, n_samples=5)
    assert await kept(unit) is not None
    await fault(unit, "device_missing", bus="i2c")
    await measure(unit, delete=True)
    assert await kept(unit) is None


async def test_readings_that_fail_are_made_up_for_or_end_it_with_the_reason(unit: Unit) -> None:
    await unit.run("od_blank", options={"n_samples": 10}, env=ENV)
    await unit.clock.sleep(13)
    await fault(unit, "chip_reset", address=0x2C)
    row = await ended(unit)
    assert "2" in await kept(unit)
    await unit.run("od_blank", options={"n_samples": 11}, env=ENV)
    await unit.clock.sleep(13)
    await fault(unit, "chip_missing", address=0x2C)
    await unit.clock.sleep(30)
    assert unit.duty == 0
    await unit.request("DELETE", "/simulator/faults")  # an LED that may be on keeps the row open
    row = await ended(unit)
    assert "0x2C" in json.dumps(row)
    assert unit.duty == 0


async def test_a_stirrer_that_does_not_turn_ends_it_with_the_reason(unit: Unit) -> None:
    await fault(unit, "stirrer_stall")
    await unit.run("od_blank")
    row = await ended(unit)
    assert "does not stir" in json.dumps(row)
    assert unit.duty == 0
