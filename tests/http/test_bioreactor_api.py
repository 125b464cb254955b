"""``/unit_api/bioreactor`` of a whole unit, with a job that doses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.jobs.job import Job, Options
from piod.jobs.job import Unit as JobParts
from piod.jobs.liquids import Amount, Dose
from piod.jobs.registry import JOBS
from piod.storage.imports import VOLUMES_UNCONFIRMED
from piod.storage.volumes import VolumeStore
from tests.unit import Unit, running_unit

PATH = "/unit_api/bioreactor/experiments/Exp001"
VALUES = {
    "current_volume_ml": 14,
    "efflux_tube_volume_ml": 14,
    "alt_media_fraction": 0,
    "cumulative_media_added_ml": 0,
    "cumulative_alt_media_added_ml": 0,
    "cumulative_waste_removed_ml": 0,
}


class Doser(Job):
    """Has 1 mL of media under way until it is stopped."""

    job_name = "doser"

    def __init__(self, dose: Dose) -> None:
        self.dose = dose

    @classmethod
    async def create(cls, unit: JobParts, options: Options) -> Doser:
        def flow(seconds: float) -> Amount:
            return Amount(0.09 * seconds, 0.1 * seconds, 0.11 * seconds)

        return cls(await unit.liquids.admit("media", flow, 10, "doser"))

    async def run(self) -> None:
        await asyncio.Event().wait()


KINDS = {**JOBS, "doser": Doser}
RUN = {"env": {"EXPERIMENT": "Exp001"}}


async def patch(unit: Unit, values: object) -> tuple[int, dict]:
    return await unit.request("PATCH", PATH, {"values": values})


async def test_a_fresh_experiment_has_all_six_variables(unit: Unit) -> None:
    assert await unit.get(PATH) == {
        "values": VALUES,
        "range_ml": {"lowest": 14, "highest": 14},
        "doubt": None,
        "doses_under_way": [],
    }


async def test_variables_are_set_and_kept(tmp_path: Path, clock: SimulatedClock) -> None:
    async with running_unit(tmp_path, clock) as unit:
        status, body = await patch(unit, {"current_volume_ml": 12.5, "alt_media_fraction": 1})
        assert status == 200
        expected = {**VALUES, "current_volume_ml": 12.5, "alt_media_fraction": 1}
        assert (body["status"], body["values"]) == ("success", expected)
        assert (await unit.get(PATH))["range_ml"] == {"lowest": 12.5, "highest": 12.5}
    async with running_unit(tmp_path, clock) as unit:
        assert (await unit.get(PATH))["values"] == expected
        other = await unit.get("/unit_api/bioreactor/experiments/another%20one")
        assert other["values"] == VALUES


async def test_the_older_name_is_taken(unit: Unit) -> None:
    status, body = await patch(unit, {"max_working_volume_ml": 13})
    assert (status, body["values"]["efflux_tube_volume_ml"]) == (200, 13)
    status, body = await patch(unit, {"max_working_volume_ml": 13, "efflux_tube_volume_ml": 13})
    assert status == 200
    status, body = await patch(unit, {"max_working_volume_ml": 13, "efflux_tube_volume_ml": 12})
    assert status == 400
    assert "older name" in body["error"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "at least one"),
        ([], "values must be an object"),
        (None, "values must not be null"),
        ({"volume": 3}, "'volume'"),
        ({"current_volume_ml": 20.5}, "current_volume_ml must be 0 to 20"),
        ({"current_volume_ml": -1}, "current_volume_ml must be 0 to 20"),
        ({"current_volume_ml": "12"}, "values.current_volume_ml must be a number"),
        ({"current_volume_ml": True}, "values.current_volume_ml must be a number"),
        ({"current_volume_ml": None}, "values.current_volume_ml must not be null"),
        ({"alt_media_fraction": 1.5}, "alt_media_fraction must be 0 to 1"),
        ({"cumulative_waste_removed_ml": -2}, "cumulative_waste_removed_ml must be at least 0"),
    ],
)
async def test_what_is_wrong_is_refused_by_name_and_nothing_changes(
    unit: Unit, values: object, told: str
) -> None:
    if isinstance(values, dict) and values:
        values = {"efflux_tube_volume_ml": 9, **values}
    status, body = await patch(unit, values)
    assert status == 400
    assert told in body["error"]
    assert (await unit.get(PATH))["values"] == VALUES


async def test_a_name_with_control_characters_is_refused(unit: Unit) -> None:
    status, body = await unit.request("GET", "/unit_api/bioreactor/experiments/a%00b")
    assert status == 400
    assert "experiment" in body["error"]


async def test_a_configuration_that_cannot_be_used_is_named(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    text = "[bioreactor]\ninitial_volume_ml=25\n"
    async with running_unit(tmp_path, clock, config_ini=text) as unit:
        status, body = await unit.request("GET", PATH)
        assert status == 400
        assert "[bioreactor] initial_volume_ml must be a number from 0 to 20" in body["error"]


async def test_a_job_that_is_stopped_in_the_middle_of_its_dose(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, kinds=KINDS) as unit:
        await unit.run("doser", **RUN)
        status, body = await patch(unit, {"current_volume_ml": 12})
        assert status == 409
        assert "doser" in body["error"]
        assert (await unit.get(PATH))["values"] == VALUES  # what is under way is not in it yet
        await clock.sleep(5)
        await unit.post("/unit_api/jobs/stop", {"job_name": "doser"})
        after = await unit.get(PATH)
        assert after["doubt"] is None
        assert after["range_ml"]["lowest"] == 14
        assert 14.5 <= after["values"]["current_volume_ml"] <= 14.6
        assert after["range_ml"]["highest"] == pytest.approx(14.572, abs=0.05)
        status, _ = await patch(unit, {"current_volume_ml": 12})
        assert status == 200


async def test_the_end_of_the_daemon_is_no_power_cut(tmp_path: Path, clock: SimulatedClock) -> None:
    async with running_unit(tmp_path, clock, kinds=KINDS) as unit:
        await unit.run("doser", **RUN)
        await clock.sleep(5)
        await unit.daemon.end_all_jobs()
    async with running_unit(tmp_path, clock) as unit:
        after = await unit.get(PATH)
        assert after["doubt"] is None
        assert after["range_ml"]["highest"] > 14.5
        [row] = await VolumeStore(unit.daemon.ledger).doses("Exp001")
        assert (row.state, row.source, row.job_name) == ("interrupted", "doser", "doser")


async def test_a_crash_of_a_dosing_job_leaves_no_dose_under_way(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    class Crasher(Doser):
        job_name = "doser"

        async def run(self) -> None:
            raise RuntimeError("as planned")

    async with running_unit(tmp_path, clock, kinds={**JOBS, "doser": Crasher}) as unit:
        await unit.post("/unit_api/jobs/run/job_name/doser", RUN)
        await clock.sleep(60)
        await unit.post("/unit_api/jobs/stop", {"job_name": "doser"})
        rows = await VolumeStore(unit.daemon.ledger).doses("Exp001")
        assert rows
        assert {row.state for row in rows} == {"interrupted"}
        status, _ = await patch(unit, {"current_volume_ml": 12})
        assert status == 200


async def test_a_doubt_is_a_problem_of_the_units_health(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock) as unit:
        assert (await unit.get("/unit_api/health"))["problems"] == []
        await unit.daemon.ledger.replace_meta([], {VOLUMES_UNCONFIRMED: "1"})
    async with running_unit(tmp_path, clock) as unit:
        [problem] = (await unit.get("/unit_api/health"))["problems"]
        assert problem.startswith("nothing may be added to the vial: an import")
        assert (await unit.get(PATH))["range_ml"] == {"lowest": 0, "highest": 20}
        status, body = await patch(unit, {"current_volume_ml": 12})
        assert (status, body["doubt"]) == (200, None), body
    async with running_unit(tmp_path, clock) as unit:  # health is examined anew
        assert (await unit.get("/unit_api/health"))["problems"] == []
