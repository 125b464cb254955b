"""The self test over HTTP, on the simulated instruments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from piod.events import JobEnded, SettingPublished
from piod.jobs.self_test import RESULTS, TESTS, correlation
from piod.storage.memory import ExperimentMemory
from tests.jobs.test_od_reading import fault, put_in
from tests.unit import Unit

HEATER_PIN = 18
HEATING_PCB, RP2040 = 0x4F, 0x2C


async def results(unit: Unit, **options: object) -> dict[str, bool]:
    """Run the self test to its end: what was published, by name."""
    found: dict[str, bool] = {}
    with unit.daemon.hub.subscribe() as events:
        await unit.run("self_test", options=options)
        async for event in events:
            if isinstance(event, SettingPublished) and event.text in ("0", "1"):
                found[event.setting] = event.text == "1"
                assert unit.duty == 0  # after each of them
                assert unit.plant.duties.get(HEATER_PIN, 0.0) == 0
            if isinstance(event, JobEnded):
                break
    await unit.clock.sleep(3)
    off = (unit.duty, *unit.plant.optics.levels.values(), *unit.plant.duties.values())
    assert set(off) == {0.0}
    return found


def failed(found: dict[str, bool]) -> set[str]:
    return {name for name, well in found.items() if not well and name in TESTS}


async def test_a_sound_unit_with_a_blank_passes_all_tests(unit: Unit) -> None:
    await put_in(unit, 0.0)
    found = await results(unit)
    assert failed(found) == set()
    assert found["all_tests_passed"] is True
    assert set(TESTS) <= found.keys()
    memory = ExperimentMemory(unit.daemon.ledger, "$experiment", unit.clock.time)
    assert await memory.recall(RESULTS) == dict.fromkeys(TESTS, True)


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        (
            "stirrer_stall",
            {},
            {"test_positive_correlation_between_rpm_and_stirring"},
        ),
        ("heater_failure", {}, {"test_positive_correlation_between_temperature_and_heating"}),
        (
            "chip_missing",
            {"address": HEATING_PCB},
            {
                "test_detect_heating_pcb",
                "test_positive_correlation_between_temperature_and_heating",
            },
        ),
    ],
)
async def test_what_is_broken_fails_its_test_and_no_other(
    kind: str, params: dict[str, object], expected: set[str], unit: Unit
) -> None:
    await put_in(unit, 0.0)
    await fault(unit, kind, **params)
    found = await results(unit)
    assert failed(found) == expected
    assert found["all_tests_passed"] is False


async def test_a_culture_is_no_blank(unit: Unit) -> None:
    await put_in(unit, 1.0)
    assert failed(await results(unit, k="blank")) == {"test_PD_is_near_0_volts_for_blank"}


async def test_without_the_hat_every_test_that_needs_it_fails(unit: Unit) -> None:
    await fault(unit, "chip_missing", address=RP2040)
    found = await results(unit, k="ref")
    assert failed(found) == {name for name in TESTS if "ref" in name.lower()}


async def test_only_what_failed_is_tried_again(unit: Unit) -> None:
    await put_in(unit, 1.0)
    await results(unit, k="PD")
    await put_in(unit, 0.0)
    found = await results(unit, retry_failed=True)
    assert {name for name in found if name in TESTS} >= {"test_PD_is_near_0_volts_for_blank"}
    assert failed(found) == set()
    body: dict[str, Any] = {"options": {"retry_failed": True, "k": ""}}
    task = await unit.post("/unit_api/jobs/run/job_name/self_test", body)
    assert task["status"] == "failed"
    assert "none matches" in task["error"]


async def test_it_is_refused_beside_jobs_that_use_the_same_instruments(unit: Unit) -> None:
    await unit.run("stirring")
    task = await unit.post("/unit_api/jobs/run/job_name/self_test", {})
    assert task["status"] == "failed"
    assert "while stirring runs" in task["error"]


async def test_stop_in_the_middle_turns_everything_off(unit: Unit) -> None:
    await unit.run("self_test", options={"k": "stirring"})
    await unit.clock.sleep(3)
    assert unit.duty > 0
    await unit.post("/unit_api/jobs/stop", {"job_name": "self_test"})
    assert unit.duty == 0
    row = (await unit.history())[0]
    assert row["is_running"] == 0
    assert "failed" not in json.dumps(row)


def test_what_does_not_vary_is_not_correlated() -> None:
    assert correlation([1, 2, 3], [5, 5, 5]) == 0
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
