"""dosing_automation: what each one pumps, when, and when it does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from piod.clock import SimulatedClock
from piod.errors import StorageFull
from piod.events import JobIdentity, ReadingTaken
from piod.jobs.dosing_automation import DosingAutomation
from piod.jobs.registry import JOBS
from piod.storage.imports import VOLUMES_UNCONFIRMED
from piod.storage.volumes import VolumeStore
from tests.jobs.dosing.vial import calibrate_pumps, flowing, set_volumes, volumes
from tests.unit import Unit, running_unit

RUN = "/unit_api/jobs/run/job_name/dosing_automation"


async def start(unit: Unit, automation_name: str, **options: object) -> str:
    """Run an automation in a vial of 14 mL, with its tube at 14 mL."""
    unit.plant.patch({"volume_ml": 14.0, "efflux_ml": 14.0})
    await set_volumes(unit, current_volume_ml=14.0, efflux_tube_volume_ml=14.0)
    return await unit.run(
        "dosing_automation", options={"automation_name": automation_name, **options}
    )


async def event(unit: Unit) -> dict[str, Any]:
    """What the automation did last."""
    return dict(json.loads((await unit.settings("dosing_automation"))["latest_event"]))


def pumped(unit: Unit) -> dict[str, float]:
    """What each pump of the plant has moved, mL."""
    return {role: round(pump.pumped_ml, 3) for role, pump in unit.plant.pumps.items()}


def publish(unit: Unit, kind: str, value: float, channel: str | None = None) -> None:
    """A reading, as its job would publish it."""
    job = "growth_rate_calculating" if kind in ("od_filtered", "growth_rate") else "od_reading"
    identity = JobIdentity("pio01", "$experiment", job, "99")
    unit.daemon.hub.publish(ReadingTaken(identity, kind, value, channel, {}, unit.clock.time()))


async def test_chemostat_exchanges_each_duration_and_the_volume_stays(unit: Unit) -> None:
    await calibrate_pumps(unit)
    await start(unit, "chemostat", exchange_volume_ml=0.5, duration=20)
    await unit.clock.sleep(10 * 60)
    assert pumped(unit)["media"] == pytest.approx(0.5, rel=0.05)
    told = await event(unit)
    assert told["event_name"] == "DilutionEvent"
    assert told["data"]["volume_actually_cycled_ml"] == pytest.approx(0.5, rel=0.02)
    await unit.clock.sleep(9 * 20 * 60)
    assert pumped(unit)["media"] == pytest.approx(5, rel=0.05)
    assert unit.plant.vial.volume_ml == pytest.approx(14, abs=0.02)
    known = await volumes(unit)
    assert known["current_volume_ml"] == pytest.approx(14, abs=0.02)
    assert known["cumulative_media_added_ml"] == pytest.approx(5, rel=0.02)
    assert float((await unit.settings("dosing_automation"))["media_throughput"]) == pytest.approx(
        known["cumulative_media_added_ml"]
    )


async def test_a_new_duration_counts_from_the_last_run(unit: Unit) -> None:
    await calibrate_pumps(unit)
    job_id = await start(unit, "chemostat", exchange_volume_ml=0.2, duration=60)
    await unit.clock.sleep(15 * 60)
    once = pumped(unit)["media"]
    status, _ = await unit.change(job_id, duration=20)
    assert status == 200
    await unit.clock.sleep(4 * 60)
    assert pumped(unit)["media"] == once
    await unit.clock.sleep(3 * 60)
    assert pumped(unit)["media"] == pytest.approx(2 * once, rel=0.1)


async def test_a_new_volume_counts_at_the_next_exchange(unit: Unit) -> None:
    await calibrate_pumps(unit)
    job_id = await start(unit, "chemostat", exchange_volume_ml=0.2, duration=5)
    await unit.clock.sleep(60)
    assert (await unit.change(job_id, exchange_volume_ml=0.6))[0] == 200
    await unit.clock.sleep(5 * 60)
    assert pumped(unit)["media"] == pytest.approx(0.8, rel=0.05)
    status, body = await unit.change(job_id, exchange_volume_ml=-1)
    assert status == 400
    assert "exchange_volume_ml" in body["error"]


async def test_the_first_run_can_be_skipped(unit: Unit) -> None:
    await calibrate_pumps(unit)
    await start(unit, "chemostat", exchange_volume_ml=0.2, duration=10, skip_first_run=1)
    await unit.clock.sleep(9.5 * 60)
    assert pumped(unit)["media"] == 0
    await unit.clock.sleep(60)
    assert pumped(unit)["media"] > 0


@pytest.mark.parametrize(
    ("name", "options", "missing"),
    [
        ("chemostat", {"exchange_volume_ml": 1}, "media_pump"),
        ("turbidostat", {"exchange_volume_ml": 1, "target_biomass": 1}, "media_pump"),
        ("fed_batch", {"dosing_volume_ml": 1}, "media_pump"),
        (
            "pid_morbidostat",
            {"target_growth_rate": 0.1, "target_normalized_od": 1},
            "media_pump",
        ),
    ],
)
async def test_without_its_calibrations_it_does_not_start(
    unit: Unit, name: str, options: dict[str, object], missing: str
) -> None:
    body = {"options": {"automation_name": name, **options}}
    status, refusal = await unit.request("POST", RUN, body)
    assert status == 400
    assert missing in refusal["error"]


async def test_silent_needs_nothing_and_pumps_nothing(unit: Unit) -> None:
    await start(unit, "silent", duration=5)
    await unit.clock.sleep(3600)
    assert set(pumped(unit).values()) == {0}
    assert (await event(unit))["event_name"] == "NoEvent"


async def test_fed_batch_falls_asleep_before_the_vial_is_full_and_says_why(unit: Unit) -> None:
    await calibrate_pumps(unit)
    await start(unit, "fed_batch", dosing_volume_ml=1, duration=5)
    await unit.clock.sleep(3600)
    settings = await unit.settings("dosing_automation")
    assert settings["$state"] == "sleeping"
    told = json.loads(settings["latest_event"])
    assert told["event_name"] == "ErrorOccurred"
    assert "18" in told["message"]
    assert 16 < unit.plant.vial.highest_ml < 18
    assert not flowing(unit)


async def test_asleep_it_stops_in_the_middle_of_a_dose_and_goes_on_with_the_next(
    unit: Unit,
) -> None:
    await calibrate_pumps(unit)
    job_id = await start(unit, "chemostat", exchange_volume_ml=0.9, duration=20)
    await unit.clock.sleep(4)
    assert flowing(unit) == {"media"}
    assert (await unit.change(job_id, state="sleeping"))[0] == 200
    assert not flowing(unit)
    stopped_at = unit.plant.vial.volume_ml
    assert (await volumes(unit))["current_volume_ml"] == pytest.approx(stopped_at, abs=0.02)
    await unit.clock.sleep(3600)
    assert unit.plant.vial.volume_ml == stopped_at
    assert (await unit.change(job_id, state="ready"))[0] == 200
    await unit.clock.sleep(300)
    assert unit.plant.vial.volume_ml == pytest.approx(14, abs=0.02)


async def test_stopped_in_the_middle_of_a_dose_the_pump_is_off_at_once(unit: Unit) -> None:
    await calibrate_pumps(unit)
    await start(unit, "chemostat", exchange_volume_ml=0.9, duration=20)
    await unit.clock.sleep(4)
    assert flowing(unit) == {"media"}
    await unit.post("/unit_api/jobs/stop", {"job_name": "dosing_automation"})
    assert not flowing(unit)
    known = await volumes(unit)
    assert known["current_volume_ml"] == pytest.approx(unit.plant.vial.volume_ml, abs=0.05)


async def test_turbidostat_reacts_to_a_reading_and_lets_it_settle(unit: Unit) -> None:
    await calibrate_pumps(unit)
    await start(unit, "turbidostat", exchange_volume_ml=0.5, target_biomass=2)
    publish(unit, "od_filtered", 1.9)
    await unit.clock.sleep(5)
    assert not flowing(unit)
    assert (await event(unit))["event_name"] == "NoEvent"
    publish(unit, "od_filtered", 2.0)
    await unit.clock.sleep(1)
    assert flowing(unit) == {"media"}
    for _ in range(40):  # the exchange takes some 27 s, and 30 s follow
        await unit.clock.sleep(1)
        publish(unit, "od_filtered", 2.1)
    assert pumped(unit)["media"] == pytest.approx(0.5, rel=0.05), "it doses while it settles"
    for _ in range(40):
        await unit.clock.sleep(1)
        publish(unit, "od_filtered", 2.1)
    assert pumped(unit)["media"] == pytest.approx(1.0, rel=0.05)
    told = json.loads((await unit.settings("dosing_automation"))["latest_event"])
    assert told["event_name"] in ("DosingStarted", "DosingStopped", "DilutionEvent")


async def test_turbidostat_without_readings_waits_and_says_why(unit: Unit) -> None:
    await calibrate_pumps(unit)
    await start(unit, "turbidostat", exchange_volume_ml=0.5, target_biomass=2)
    publish(unit, "od_filtered", 1.0)
    await unit.clock.sleep(400)
    told = await event(unit)
    assert told["event_name"] == "NoEvent"
    assert "growth_rate_calculating is not running" in told["message"]
    assert (await unit.settings("dosing_automation"))["$state"] == "ready"
    publish(unit, "od_filtered", 2.5)
    await unit.clock.sleep(2)
    assert flowing(unit) == {"media"}, "it goes on when there are readings again"


async def test_turbidostat_says_which_signal_it_goes_by_and_changes_it_live(unit: Unit) -> None:
    await calibrate_pumps(unit)
    job_id = await start(unit, "turbidostat", exchange_volume_ml=0.5, target_biomass=2)
    settings = await unit.settings("dosing_automation")
    assert settings["biomass_signal"] == "auto"
    assert settings["resolved_biomass_signal"] == "normalized_od"
    assert (await unit.change(job_id, biomass_signal="od"))[0] == 200
    publish(unit, "od_filtered", 3.0)
    await unit.clock.sleep(1)
    assert not flowing(unit)
    publish(unit, "od", 3.0, "2")
    await unit.clock.sleep(1)
    assert flowing(unit) == {"media"}
    assert (await unit.settings("dosing_automation"))["resolved_biomass_signal"] == "od"
    status, body = await unit.change(job_id, biomass_signal="smell")
    assert status == 400
    assert "normalized_od" in body["error"]


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.05, (1.05, 0.0)), (0.15, (0.788, 0.262)), (0.9, (0.0, 1.05))]
)
async def test_morbidostat_adds_the_more_alt_media_the_faster_it_grows(
    unit: Unit, rate: float, expected: tuple[float, float]
) -> None:
    await calibrate_pumps(unit)
    await start(
        unit,
        "pid_morbidostat",
        target_growth_rate=0.1,
        target_normalized_od=1,
        duration=45,
        skip_first_run=1,
    )
    for _ in range(46):
        publish(unit, "growth_rate", rate)
        publish(unit, "od_filtered", 1.0)
        await unit.clock.sleep(60)
    await unit.clock.sleep(120)
    moved = pumped(unit)
    assert moved["media"] == pytest.approx(expected[0], rel=0.05, abs=0.01)
    assert moved["alt_media"] == pytest.approx(expected[1], rel=0.05, abs=0.01)
    assert unit.plant.vial.volume_ml == pytest.approx(14, abs=0.03)


async def test_morbidostat_does_nothing_in_a_thin_culture(unit: Unit) -> None:
    await calibrate_pumps(unit)
    await start(unit, "pid_morbidostat", target_growth_rate=0.1, target_normalized_od=1)
    publish(unit, "growth_rate", 0.5)
    publish(unit, "od_filtered", 0.7)
    await unit.clock.sleep(10)
    assert set(pumped(unit).values()) == {0}
    assert (await event(unit))["event_name"] == "NoEvent"


async def test_the_volumes_are_those_of_the_ledger_and_are_set_there(unit: Unit) -> None:
    await calibrate_pumps(unit)
    job_id = await start(
        unit, "chemostat", exchange_volume_ml=0.2, skip_first_run=1, alt_media_fraction=0.3
    )
    settings = await unit.settings("dosing_automation")
    assert settings["current_volume_ml"] == "14"
    assert settings["alt_media_fraction"] == "0.3"
    assert (await unit.change(job_id, current_volume_ml=12.5, max_working_volume_ml=13))[0] == 200
    known = await volumes(unit)
    assert known["current_volume_ml"] == 12.5
    assert known["efflux_tube_volume_ml"] == 13
    await set_volumes(unit, current_volume_ml=11)
    await unit.clock.sleep(0.1)
    assert (await unit.settings("dosing_automation"))["current_volume_ml"] == "11"
    status, body = await unit.change(job_id, current_volume_ml=500)
    assert status == 400
    assert "current_volume_ml" in body["error"]
    assert (await volumes(unit))["current_volume_ml"] == 11


async def test_the_first_run_that_lacks_a_reading_is_made_up_for_when_there_is_one(
    unit: Unit,
) -> None:
    await calibrate_pumps(unit)
    await start(unit, "pid_morbidostat", target_growth_rate=0.1, target_normalized_od=1)
    await unit.clock.sleep(30)
    assert "no reading" in (await event(unit))["message"]
    publish(unit, "growth_rate", 0.5)
    publish(unit, "od_filtered", 1.0)
    await unit.clock.sleep(5)
    assert flowing(unit) == {"alt_media"}, "a whole duration is lost"
    await unit.clock.sleep(300)
    once = pumped(unit)["alt_media"]
    for _ in range(20):
        publish(unit, "growth_rate", 0.5)
        publish(unit, "od_filtered", 1.0)
        await unit.clock.sleep(60)
    assert pumped(unit)["alt_media"] == once, "the duration counts from the run that was made"


async def test_what_the_ledger_refuses_keeps_the_other_settings_out_too(unit: Unit) -> None:
    await calibrate_pumps(unit)
    job_id = await start(unit, "chemostat", exchange_volume_ml=1, duration=5)
    await unit.clock.sleep(4)
    assert flowing(unit) == {"media"}
    status, _ = await unit.change(job_id, exchange_volume_ml=0.3, duration=9, current_volume_ml=10)
    assert status == 409
    settings = await unit.settings("dosing_automation")
    assert (settings["exchange_volume_ml"], settings["duration"]) == ("1", "5")
    assert (await unit.change(job_id, duration=9))[0] == 200, "what was refused is forgotten"
    assert (await unit.settings("dosing_automation"))["duration"] == "9"


async def test_it_waits_for_a_pump_that_a_person_uses(unit: Unit) -> None:
    await calibrate_pumps(unit)
    await start(unit, "chemostat", exchange_volume_ml=0.5, duration=20)
    await unit.clock.sleep(4)
    await unit.run("remove_waste", options={"duration": 15})
    await unit.clock.sleep(120)
    settings = await unit.settings("dosing_automation")
    assert settings["$state"] == "ready"
    assert json.loads(settings["latest_event"])["event_name"] == "DilutionEvent"
    assert unit.plant.vial.volume_ml == pytest.approx(14, abs=0.02)


async def test_a_disk_that_refuses_for_a_moment_costs_one_exchange(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calibrate_pumps(unit)
    await start(unit, "chemostat", exchange_volume_ml=0.5, duration=5, skip_first_run=1)

    async def refuse(*_: object, **__: object) -> None:
        raise StorageFull("no room on the disk")

    with monkeypatch.context() as disk:
        disk.setattr(VolumeStore, "keep", refuse)
        await unit.clock.sleep(310)
        assert pumped(unit)["media"] == 0, "a dose without its intent on disk"
        assert "no room" in (await event(unit))["message"]
    await unit.clock.sleep(300)
    assert pumped(unit)["media"] == pytest.approx(0.5, rel=0.05)
    assert (await unit.settings("dosing_automation"))["$state"] == "ready"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"biomass_signal": "smell"}, "biomass_signal"),
        ({"current_volume_ml": 99}, "current_volume_ml"),
        ({"max_working_volume_ml": 99}, "max_working_volume_ml"),
        ({"exchange_volume_ml": 1e300}, "exchange_volume_ml"),
    ],
)
async def test_bad_options_are_refused_before_the_run_is_accepted(
    unit: Unit, options: dict[str, object], named: str
) -> None:
    await calibrate_pumps(unit)
    usual = {"automation_name": "turbidostat", "exchange_volume_ml": 1, "target_biomass": 1}
    status, body = await unit.request("POST", RUN, {"options": {**usual, **options}})
    assert status == 400
    assert named in body["error"]


async def test_asleep_and_awake_in_the_middle_of_an_exchange_it_settles_first(unit: Unit) -> None:
    await calibrate_pumps(unit)
    job_id = await start(unit, "turbidostat", exchange_volume_ml=0.5, target_biomass=2)
    publish(unit, "od_filtered", 2.1)
    await unit.clock.sleep(3)
    assert flowing(unit) == {"media"}
    await unit.change(job_id, state="sleeping")
    await unit.change(job_id, state="ready")
    for _ in range(29):
        await unit.clock.sleep(1)
        publish(unit, "od_filtered", 2.1)
        assert not flowing(unit)
    for _ in range(3):
        await unit.clock.sleep(1)
        publish(unit, "od_filtered", 2.1)
    assert flowing(unit)


async def test_an_option_of_a_run_does_not_end_a_doubt(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock) as unit:
        await calibrate_pumps(unit)
        await unit.daemon.ledger.put_meta(VOLUMES_UNCONFIRMED, "1")  # as an import does
    usual = {"automation_name": "chemostat", "exchange_volume_ml": 1}
    async with running_unit(tmp_path, clock) as unit:
        body = {"options": {**usual, "current_volume_ml": 14}}
        status, refusal = await unit.request("POST", RUN, body)
        assert status == 409
        assert "doubt" in refusal["error"]
        await set_volumes(unit, current_volume_ml=14)
        await unit.clock.sleep(2)
        assert await unit.run("dosing_automation", options={**usual, "current_volume_ml": 14})


class TwoAtOnce(DosingAutomation):
    """Waste and media at once, as a plugin might; it does not wait for both when one fails."""

    automation_name = "two_at_once"
    pumps = ("media", "waste")

    async def execute(self) -> None:
        await asyncio.gather(self.dose("waste", 2.0), self.dose("media", 5.0))


async def test_a_dose_that_an_automation_left_behind_ends_when_it_falls_asleep(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    kinds = {**JOBS, TwoAtOnce.kind_name(): TwoAtOnce}
    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await calibrate_pumps(unit)
        await start(unit, "two_at_once")
        await unit.clock.sleep(3)
        assert (await unit.settings("dosing_automation"))["$state"] == "sleeping"
        assert not flowing(unit), "a pump is on while its owner sleeps"
