"""The examples of docs/plugins.md: an owner's own automation is one class in one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from piod.events import JobIdentity, ReadingTaken
from tests.jobs.dosing.vial import calibrate_pumps, set_volumes
from tests.unit import Unit

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


async def install(unit: Unit, name: str) -> None:
    source = str(EXAMPLES / f"{name}.py")
    task = await unit.post(
        "/unit_api/plugins/install", {"args": [name], "options": {"source": source}}
    )
    assert task["status"] == "complete", task
    [listed] = await unit.get("/unit_api/plugins/installed")
    assert listed["error"] is None


async def test_a_dosing_automation_of_an_owner_feeds_a_hungry_culture(unit: Unit) -> None:
    await calibrate_pumps(unit)
    await set_volumes(unit, current_volume_ml=14, efflux_tube_volume_ml=14)
    await install(unit, "feast")
    job_id = await unit.run(
        "dosing_automation",
        options={"automation_name": "feast", "portion_ml": 0.5, "duration": 10},
    )
    settings = await unit.settings("dosing_automation")
    assert settings["hungry_below"] == "0.1"
    await unit.clock.sleep(60)
    assert unit.plant.pumps["media"].pumped_ml == 0, "it doses without a reading"
    identity = JobIdentity("pio01", "$experiment", "growth_rate_calculating", "99")
    for rate, expected_ml in ((0.3, 0.0), (0.05, 0.5)):
        for _ in range(10):
            unit.daemon.hub.publish(
                ReadingTaken(identity, "growth_rate", rate, None, {}, unit.clock.time())
            )
            await unit.clock.sleep(60)
        assert unit.plant.pumps["media"].pumped_ml == pytest.approx(expected_ml, rel=0.05)
    assert (await unit.change(job_id, portion_ml=50))[0] == 400


async def test_an_led_automation_of_an_owner_is_brightest_at_noon(unit: Unit) -> None:
    await install(unit, "sunrise")
    await unit.run("led_automation", options={"automation_name": "sunrise", "noon_percent": 40})
    assert unit.plant.optics.levels["D"] == 0
    await unit.clock.sleep(12 * 3600)
    assert round(unit.plant.optics.levels["D"]) == 40
    await unit.clock.sleep(6 * 3600)
    assert round(unit.plant.optics.levels["D"]) == 20


async def test_a_temperature_automation_of_an_owner_heats_behind_the_interlock(unit: Unit) -> None:
    await install(unit, "cool_down")
    await unit.run("temperature_automation", options={"automation_name": "cool_down"})
    await unit.clock.sleep(850)  # between two looks at the liquid
    settings = await unit.settings("temperature_automation")
    assert settings["heater_duty_cycle"] == "15"
    await unit.clock.sleep(3 * 3600)
    settings = await unit.settings("temperature_automation")
    assert settings["heater_duty_cycle"] == "0"
    assert "cools down" in json.loads(settings["latest_event"])["message"]
