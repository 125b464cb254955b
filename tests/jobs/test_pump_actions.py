"""Pump actions: what they move, what they tell, and what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from piod.clock import SimulatedClock
from tests.jobs.pump_bench import (
    ALL_OFF,
    EXPERIMENT,
    MAX_FILL_ML,
    RUN,
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
    pumped_ml,
    pumped_s,
    refused,
    row,
    volumes,
)
from tests.unit import Unit


@pytest.fixture
async def unit(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Unit]:
    async with bench(tmp_path, clock) as one:
        yield one


# -- one run ------------------------------------------------------------------------------


async def test_a_volume_is_pumped_by_the_active_calibration(unit: Unit) -> None:
    await calibrate_all(unit)
    for job_name, role, volume_ml in (
        ("add_media", "media", 16.0),
        ("add_alt_media", "alt_media", 17.0),
        ("remove_waste", "waste", 16.0),
    ):
        job_id = await pump(unit, job_name, ml=1)
        assert duties(unit) == {**ALL_OFF, role: 100}
        await idle(unit)
        assert duties(unit) == ALL_OFF
        assert pumped_s(unit, role) == pytest.approx(1 / flow_rate(unit, role))
        assert (await row(unit, job_id))["state"] == "disconnected"
        now = await volumes(unit)
        assert now["current_volume_ml"] == volume_ml
        assert in_vial_ml(unit) == pytest.approx(volume_ml, abs=0.02)
        assert now["lowest"] <= in_vial_ml(unit) <= now["highest"]
    assert now["alt_media_fraction"] == pytest.approx(1 / 17)


async def test_the_calibrations_duty_cycle_is_used(unit: Unit) -> None:
    await calibrate(unit, "media", [0.05, 0], dc=60)
    await pump(unit, "add_media", ml=0.1)
    assert duty(unit, "media") == 60
    await idle(unit)
    assert duty(unit, "media") == 0
    assert pumped_s(unit, "media") == pytest.approx(2)


async def test_without_a_calibration_a_duration_counts_by_the_nominal_rate(unit: Unit) -> None:
    await pump(unit, "add_media", duration=10)
    assert duty(unit, "media") == 100
    await idle(unit)
    now = await volumes(unit)
    assert now["current_volume_ml"] == pytest.approx(15 + 0.911)
    assert (now["lowest"], now["highest"]) == pytest.approx(
        (15 + 0.7 * 0.0911 * 9.95, 15 + 1.3 * 0.0911 * 10.02)
    )
    assert now["lowest"] <= in_vial_ml(unit) <= now["highest"]


async def test_with_a_calibration_a_duration_counts_by_it(unit: Unit) -> None:
    await calibrate(unit, "media", [0.05, 0])
    await pump(unit, "add_media", duration="10")
    await idle(unit)
    assert (await volumes(unit))["current_volume_ml"] == 15.5


async def test_what_is_recorded_adds_up_to_what_was_moved(unit: Unit) -> None:
    await calibrate_all(unit)
    with Doses(unit) as doses:
        await pump(unit, "add_media", ml=1, source_of_event="UI")
        await idle(unit)
        job_id = await pump(unit, "remove_waste", ml=1)
        await unit.clock.sleep(3)
        await unit.change(job_id, state="disconnected")
        await idle(unit)
        taken = await doses.taken()
    now = await volumes(unit)
    media = [one for one in taken if one.channel == "media"]
    waste = [one for one in taken if one.channel == "waste"]
    assert sum(one.value for one in media) == pytest.approx(now["cumulative_media_added_ml"])
    assert sum(one.value for one in waste) == pytest.approx(now["cumulative_waste_removed_ml"])
    assert now["cumulative_waste_removed_ml"] == pytest.approx(
        pumped_s(unit, "waste") * flow_rate(unit, "waste")
    )
    assert 3 <= pumped_s(unit, "waste") < 3.1
    assert waste[-1].value < 0, "what was announced and not pumped any more"
    assert media[0].details["event"] == "add_media"
    assert media[0].details["source_of_event"] == "UI"
    assert media[0].job.experiment == EXPERIMENT
    assert len({one.details["dose_id"] for one in media}) == 1


async def test_a_dose_is_announced_before_it_is_pumped(unit: Unit) -> None:
    with Doses(unit) as doses:
        await pump(unit, "add_media", duration=3)
        [announced] = await doses.taken()
    assert announced.value == pytest.approx(3 * 0.0911)


UNCLEAR: list[tuple[dict[str, Any], str]] = [
    ({}, "exactly one of the options ml, duration, continuously"),
    ({"ml": 1, "duration": 2}, "got ml and duration"),
    ({"ml": 1, "continuously": None}, "got ml and continuously"),
    ({"continuously": False}, "got none"),
    ({"ml": 0}, "option ml must be above 0"),
    ({"ml": -1}, "option ml must be above 0"),
    ({"ml": "nan"}, "finite"),
    ({"ml": "inf"}, "finite"),
    ({"ml": True}, "must be a number"),
    ({"duration": 0}, "option duration must be above 0"),
    ({"duration": "-3"}, "option duration must be above 0"),
    ({"duration": 1e9}, "86400"),
    ({"manually": None, "ml": 1}, "no option 'manually'"),
    ({"ml": 1}, "media_pump has no active calibration"),
]


async def test_what_cannot_be_pumped_is_refused_before_the_202(unit: Unit) -> None:
    for options, words in UNCLEAR:
        status, answer = await refused(unit, "add_media", **options)
        assert status == 400
        assert words in answer["error"]
        assert duties(unit) == ALL_OFF
        assert await unit.history() == []


async def test_a_pump_without_a_channel_is_refused(tmp_path: Path, clock: SimulatedClock) -> None:
    async with bench(tmp_path, clock) as unit:
        (tmp_path / "config.ini").write_text("[PWM]\n1 = stirring\n4 = waste\n")
        status, answer = await refused(unit, "add_media", duration=1)
    assert status == 400
    assert "no PWM channel has the role 'media'" in answer["error"]


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"coefficients": [-0.1, 1]}, "does not rise with time"),
    ({"coefficients": [0.0, 1]}, "does not rise with time"),
    ({"coefficients": [0.1, 0], "dc": 0}, "nothing turns so"),
    ({"coefficients": [-0.01, 0.1, 0]}, "does not rise throughout"),
    ({"coefficients": [0.1, 1.5]}, "would take a run of -5 s"),
    (
        {"coefficients": [0.01, 0.1, 0], "recorded": "{x: [1, 5], y: [0.11, 0.75]}"},
        "above the calibrated range",
    ),
    ({"coefficients": [0.01, 0.1, 0], "recorded": "{x: [], y: []}"}, "no recorded points"),
]


async def test_a_calibration_that_cannot_tell_how_long_is_refused(unit: Unit) -> None:
    for calibration, words in UNUSABLE:
        await calibrate(unit, "media", **calibration)
        status, answer = await refused(unit, "add_media", ml=1)
        assert status == 400
        assert words in answer["error"]


async def test_a_curve_is_believed_where_it_was_recorded_and_from_the_origin(unit: Unit) -> None:
    curve = {"coefficients": [0.01, 0.1, 0], "recorded": "{x: [1, 5], y: [0.11, 0.75]}"}
    await calibrate(unit, "media", **curve)
    for volume_ml, seconds in ((0.75, 5.0), (0.24, 7.0), (0.055, 7.5)):
        await pump(unit, "add_media", ml=volume_ml)
        await idle(unit)
        assert pumped_s(unit, "media") == pytest.approx(seconds)
    assert (await volumes(unit))["current_volume_ml"] == pytest.approx(15 + 0.75 + 0.24 + 0.055)


# -- who has the pump ------------------------------------------------------------------


async def test_two_runs_of_the_same_pump_are_refused_and_of_others_not(unit: Unit) -> None:
    job_id = await pump(unit, "add_media", duration=5)
    assert f"in use by add_media (job {job_id})" in await failed(unit, "add_media", duration=6)
    assert duty(unit, "media") == 100
    await pump(unit, "add_alt_media", duration=2)
    await pump(unit, "remove_waste", duration=2)
    assert duties(unit) == dict.fromkeys(ALL_OFF, 100)
    await idle(unit)
    assert duties(unit) == ALL_OFF
    assert (await volumes(unit))["cumulative_media_added_ml"] == pytest.approx(5 * 0.0911)


async def test_pumps_are_only_limited_for_the_same_request_again(unit: Unit) -> None:
    await pump(unit, "add_media", duration=0.1)
    await idle(unit)
    await pump(unit, "add_media", duration=0.2)
    await idle(unit)
    assert (await refused(unit, "add_media", duration=0.2))[0] == 429


# -- the overflow ------------------------------------------------------------------------


async def test_a_dose_that_reaches_the_maximum_is_refused_before_the_202(unit: Unit) -> None:
    await calibrate(unit, "media")
    status, answer = await refused(unit, "add_media", ml=3)
    assert status == 400
    assert "could bring the vial to" in answer["error"]
    assert "remove_waste" in answer["error_info"]["remediation"]
    await pump(unit, "add_media", ml=2.8)
    await idle(unit)
    assert (await refused(unit, "add_media", ml=0.5))[0] == 400
    assert (await refused(unit, "add_alt_media", duration=5))[0] == 400


async def test_a_dose_without_calibration_counts_at_its_worst(unit: Unit) -> None:
    assert (await refused(unit, "add_media", duration=26))[0] == 400  # 1.3 × 2.37 mL
    await pump(unit, "add_media", duration=25)
    await idle(unit)
    assert in_vial_ml(unit) < MAX_FILL_ML


async def test_the_model_that_the_run_names_counts(tmp_path: Path, clock: SimulatedClock) -> None:
    async with bench(tmp_path, clock, default_model=None) as unit:
        body = {
            "options": {"duration": 40},
            "env": {
                "EXPERIMENT": EXPERIMENT,
                "MODEL_NAME": "pioreactor_40ml",
                "MODEL_VERSION": "1.5",
            },
        }
        status, answer = await unit.request("POST", f"{RUN}/add_media", body)
        assert status == 202, answer


async def test_an_inflow_without_an_end_stops_below_the_maximum(
    unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    await calibrate(unit, "media")
    await pump(unit, "add_media", continuously=None)
    await idle(unit)
    assert duties(unit) == ALL_OFF
    now = await volumes(unit)
    assert now["highest"] == pytest.approx(MAX_FILL_ML, abs=1e-3)
    assert 17.8 < in_vial_ml(unit) < MAX_FILL_ML
    assert "any more and the vial may be full" in caplog.text


async def test_an_inflow_without_an_end_is_refused_when_there_is_no_room(unit: Unit) -> None:
    path = f"/unit_api/bioreactor/experiments/{EXPERIMENT}"
    await unit.request("PATCH", path, {"values": {"current_volume_ml": 18}})
    status, answer = await refused(unit, "add_media", continuously=True)
    assert status == 400
    assert "could bring the vial to" in answer["error"]


async def test_waste_without_an_end_goes_on_until_it_is_stopped_and_is_kept_on_the_way(
    unit: Unit,
) -> None:
    await calibrate_all(unit)
    await pump(unit, "add_media", ml=2.5)
    await idle(unit)
    job_id = await pump(unit, "remove_waste", continuously=None)
    for _ in range(100):
        assert duty(unit, "waste") == 100
        await unit.clock.sleep(1)
    kept = (await volumes(unit))["cumulative_waste_removed_ml"]
    assert kept > 60 * flow_rate(unit, "waste")
    await unit.post("/unit_api/jobs/stop", {"job_id": job_id})
    assert duties(unit) == ALL_OFF
    now = await volumes(unit)
    assert now["cumulative_waste_removed_ml"] == pytest.approx(
        pumped_s(unit, "waste") * flow_rate(unit, "waste")
    )
    assert now["current_volume_ml"] == 15


# -- a sequence --------------------------------------------------------------------------


async def test_a_sequence_is_pumped_in_its_order(unit: Unit) -> None:
    await calibrate_all(unit)
    with Doses(unit) as doses:
        await pump(unit, "pumps", waste=0.2, media=0.1, sleep=3, alt_media="0.3", media_=0.2)
        await idle(unit)
        taken = await doses.taken()
    assert [one.channel for one in taken] == ["waste", "media", "alt_media", "media"]
    assert [one.value for one in taken] == pytest.approx([0.2, 0.1, 0.3, 0.2])
    assert taken[2].at - taken[1].at == pytest.approx(3 + 0.1 / flow_rate(unit, "media"), abs=1e-3)
    assert (await volumes(unit))["current_volume_ml"] == pytest.approx(15.6)


async def test_a_sequence_that_would_overflow_on_its_way_is_refused_as_a_whole(unit: Unit) -> None:
    await calibrate_all(unit)
    status, answer = await refused(unit, "pumps", media=1, sleep=1, alt_media=1, media_=1)
    assert status == 400
    assert "step 4 of the sequence" in answer["error"]
    await pump(unit, "pumps", media=1, alt_media=1, waste=1, media_=1)
    await idle(unit)
    assert (await volumes(unit))["current_volume_ml"] == pytest.approx(17)


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({}, "at least one of"),
    ({"sleep": 5}, "at least one of"),
    ({"media": 0}, "option media must be above 0"),
    ({"media": 1, "media_": "nan"}, "finite"),
    ({"madia": 1}, "no option 'madia'"),
    ({"alt-media": 1, "alt_media": 1}, "given twice"),
    ({"media": 1, "waste": 1}, "no active calibration"),
]


async def test_a_sequence_that_makes_no_sense_is_refused(unit: Unit) -> None:
    for options, words in SENSELESS:
        status, answer = await refused(unit, "pumps", **options)
        assert status == 400
        assert words in answer["error"]


# -- circulation ------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "calibrated"), [("media", True), ("alt_media", False)])
async def test_circulation_moves_less_in_than_out_and_all_of_it_is_counted(
    unit: Unit, role: str, calibrated: bool
) -> None:
    if calibrated:
        await calibrate_all(unit)
    await pump(unit, f"circulate_{role}", duration=25)
    highest_ml, inflow_on = 0.0, False
    while await unit.get("/unit_api/jobs/running"):
        highest_ml = max(highest_ml, in_vial_ml(unit))
        inflow_on |= duty(unit, role) > 0
        assert duty(unit, role) == 0 or duty(unit, "waste") > 0, "waste leads and follows"
        await unit.clock.sleep(0.1)
    assert inflow_on
    assert duties(unit) == ALL_OFF
    assert highest_ml < 15.2
    now = await volumes(unit)
    moved_in, moved_out = now[f"cumulative_{role}_added_ml"], now["cumulative_waste_removed_ml"]
    assert 0.5 < moved_in < moved_out
    if calibrated:
        assert moved_in == pytest.approx(pumped_ml(unit, role), rel=0.12)  # dead time of each pulse
        assert moved_in <= 0.95 * moved_out
    assert now["lowest"] <= in_vial_ml(unit) <= now["highest"] < MAX_FILL_ML
    assert now["current_volume_ml"] == pytest.approx(15, abs=0.8)


async def test_circulation_needs_both_pumps(unit: Unit) -> None:
    await pump(unit, "remove_waste", duration=5)
    assert "in use by remove_waste" in await failed(unit, "circulate_media", duration=5)
    assert duty(unit, "media") == 0
    await idle(unit)
    await pump(unit, "add_media", duration=0.5)  # given back
    await idle(unit)
    assert (await refused(unit, "circulate_media"))[0] == 400
    assert (await refused(unit, "circulate_media", duration=0))[0] == 400


# -- sleep --------------------------------------------------------------------------------


async def test_what_was_left_when_it_fell_asleep_is_never_pumped(unit: Unit) -> None:
    await calibrate_all(unit)
    job_id = await pump(unit, "pumps", media=0.5, waste=0.5)
    await unit.clock.sleep(2)
    await unit.change(job_id, state="sleeping")
    assert duties(unit) == ALL_OFF
    await pump(unit, "add_media", ml=0.1)  # it holds no pump
    await idle_but(unit, job_id)
    assert (await unit.change(job_id, state="ready"))[0] == 200
    await idle(unit)
    assert (await row(unit, job_id))["state"] == "disconnected"
    now = await volumes(unit)
    assert now["cumulative_media_added_ml"] == pytest.approx(
        pumped_s(unit, "media") * flow_rate(unit, "media")
    )
    assert now["cumulative_media_added_ml"] < 0.1 + 0.3
    assert now["cumulative_waste_removed_ml"] == 0
    assert pumped_ml(unit, "waste") == 0


async def idle_but(unit: Unit, job_id: str) -> None:
    while [one["job_id"] for one in await unit.get("/unit_api/jobs/running")] != [job_id]:
        await unit.clock.sleep(0.05)


async def test_capabilities_tell_the_options_of_upstream(unit: Unit) -> None:
    jobs = {job["job_name"]: job for job in (await unit.get("/unit_api/capabilities"))["jobs"]}
    names = {
        name: [option["name"] for option in jobs[name]["options"]]
        for name in ("add_media", "remove_waste", "circulate_media", "circulate_alt_media", "pumps")
    }
    single = ["ml", "duration", "continuously", "source_of_event"]
    assert names["add_media"] == names["remove_waste"] == single
    assert names["circulate_media"] == names["circulate_alt_media"]
    assert names["circulate_media"] == ["duration", "source_of_event"]
    assert names["pumps"] == ["media", "alt_media", "waste", "sleep", "source_of_event"]
    [wanted] = [one for one in jobs["circulate_media"]["options"] if one["name"] == "duration"]
    assert wanted["required"] is True
