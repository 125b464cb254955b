"""A job that crashes while it sleeps: its next life sleeps on, and wakes as a whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from piod.actors.buses.bus import RevokeAll
from piod.clock import SimulatedClock
from tests.unit import Unit, running_unit

LIGHT_DARK = {
    "automation_name": "light_dark_cycle",
    "light_intensity": 30,
    "light_duration_minutes": 1,
    "dark_duration_minutes": 1,
}


def is_dark_and_still(unit: Unit) -> bool:
    return not any((*unit.plant.duties.values(), *unit.plant.optics.levels.values()))


@pytest.mark.parametrize(
    ("job_name", "options"),
    [
        ("temperature_automation", {"automation_name": "thermostat", "target_temperature": 37}),
        ("led_automation", LIGHT_DARK),
        ("led_intensity", {"B": 30}),
        ("od_reading", {}),
        ("stirring", {}),
    ],
)
async def test_a_job_that_was_restarted_asleep_wakes_with_all_it_publishes(
    tmp_path: Path, clock: SimulatedClock, job_name: str, options: dict[str, Any]
) -> None:
    async with running_unit(tmp_path, clock) as unit:
        job_id = await unit.run(job_name, options=options)
        await clock.sleep(25)
        before = await unit.settings(job_name)
        await unit.change(job_id, state="sleeping")
        for name in ("pwm", "led"):
            bus: Any = unit.daemon.buses[name]
            await bus.ask(RevokeAll("a test wants the job to crash"), timeout=5)
        await clock.sleep(5)
        asleep = await unit.settings(job_name)
        assert (asleep["$state"], asleep["restarts"]) == ("sleeping", "1")
        assert is_dark_and_still(unit)
        status, answer = await unit.change(job_id, state="ready")
        assert (status, answer["settings"]["$state"]) == (200, "ready")
        await clock.sleep(240)
        after = await unit.settings(job_name)
        assert before.keys() <= after.keys()
