"""led_automation: light and dark in minutes of time, by one schedule."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from piod.clock import SimulatedClock, timestamp
from tests.unit import Unit, running_unit

CYCLE = {
    "automation_name": "light_dark_cycle",
    "light_intensity": 40,
    "light_duration_minutes": 16,
    "dark_duration_minutes": 8,
}
RUN = "/unit_api/jobs/run/job_name/led_automation"
PICO = 0x2C


def light(unit: Unit) -> float:
    """What LEDs C and D show, to a percent; nothing else is on."""
    shown = unit.plant.optics.levels
    assert shown["C"] == shown["D"]
    assert shown["A"] == shown["B"] == 0
    return round(shown["C"])


async def minutes(unit: Unit, number: float) -> None:
    await unit.clock.sleep(60 * number)


@pytest.mark.parametrize("duration", [None, 1, 60])
async def test_the_cycle_is_in_minutes_whatever_the_duration(
    unit: Unit, duration: int | None
) -> None:
    await unit.run(
        "led_automation", options={**CYCLE, **({"duration": duration} if duration else {})}
    )
    seen = [light(unit)]
    await minutes(unit, 0.5)
    for _ in range(3 * 24):
        seen.append(light(unit))
        await minutes(unit, 1)
    assert seen == [40, *3 * (16 * [40] + 8 * [0])]


async def test_a_new_intensity_counts_at_once_when_it_is_light(unit: Unit) -> None:
    job_id = await unit.run("led_automation", options=CYCLE)
    await unit.change(job_id, light_intensity=70)
    await unit.clock.sleep(0.01)
    assert light(unit) == 69  # of 100 steps of the chip
    await minutes(unit, 20)
    assert light(unit) == 0
    await unit.change(job_id, light_intensity=20)
    await unit.clock.sleep(0.01)
    assert light(unit) == 0
    await minutes(unit, 5)
    assert light(unit) == 20


async def test_new_durations_count_from_the_start_of_the_job(unit: Unit) -> None:
    job_id = await unit.run("led_automation", options=CYCLE)
    await minutes(unit, 5)
    await unit.change(job_id, light_duration_minutes=2, dark_duration_minutes=2)
    await unit.clock.sleep(1)
    assert light(unit) == 40  # minute 5 of 2 + 2: light
    await minutes(unit, 1)
    assert light(unit) == 0


async def test_only_light_or_only_dark_are_cycles_too(unit: Unit) -> None:
    await unit.run("led_automation", options={**CYCLE, "dark_duration_minutes": 0})
    await minutes(unit, 100)
    assert light(unit) == 40
    await unit.post("/unit_api/jobs/stop/all")
    await unit.run("led_automation", options={**CYCLE, "light_duration_minutes": 0})
    await minutes(unit, 100)
    assert light(unit) == 0


async def test_a_cycle_of_nothing_is_refused(unit: Unit) -> None:
    nothing = {"light_duration_minutes": 0, "dark_duration_minutes": 0}
    task = await unit.post(RUN, {"options": {**CYCLE, **nothing}})
    assert task["status"] == "failed"
    assert "cannot both be 0" in task["error"]
    job_id = await unit.run("led_automation", options={**CYCLE, "dark_duration_minutes": 0})
    status, _ = await unit.change(job_id, light_duration_minutes=0)
    assert status == 400
    assert light(unit) == 40


async def test_the_first_run_can_be_skipped(unit: Unit) -> None:
    await unit.run("led_automation", options={**CYCLE, "skip_first_run": 1, "duration": 1})
    assert light(unit) == 0
    await minutes(unit, 1.1)
    assert light(unit) == 40


async def test_asleep_it_is_dark_and_the_cycle_goes_on(unit: Unit) -> None:
    job_id = await unit.run("led_automation", options=CYCLE)
    await unit.change(job_id, state="sleeping")
    assert light(unit) == 0
    await minutes(unit, 17)
    await unit.change(job_id, state="ready")
    await unit.clock.sleep(1)
    assert light(unit) == 0, "it is night by now"
    await minutes(unit, 7.5)
    assert light(unit) == 40


async def test_its_end_turns_its_leds_off(unit: Unit) -> None:
    job_id = await unit.run("led_automation", options=CYCLE)
    await unit.change(job_id, state="disconnected")
    await unit.clock.sleep(1)
    assert light(unit) == 0
    assert await unit.get("/unit_api/jobs/running") == []


async def test_a_crash_does_not_shift_the_cycle(unit: Unit) -> None:
    await unit.run("led_automation", options=CYCLE)
    await minutes(unit, 15.9)
    # the bus, which repeats what is lit, may meet the first three
    unit.board.faults.add("nack", address=PICO, count=6)
    await minutes(unit, 0.2)
    await unit.clock.sleep(3)
    assert (await unit.settings("led_automation"))["restarts"] == "1"
    assert light(unit) == 0
    await minutes(unit, 8)
    assert light(unit) == 40


async def test_leds_of_another_job_are_waited_for_a_little(unit: Unit) -> None:
    held = await unit.run("led_intensity", options={"D": 10})
    _, accepted = await unit.request("POST", RUN, {"options": CYCLE})
    await unit.clock.sleep(1)
    await unit.post("/unit_api/jobs/stop", {"job_id": held})
    task = await unit.task(accepted)
    assert task["status"] == "complete", task
    assert light(unit) == 40


async def test_what_it_did_last_is_told_and_kept(unit: Unit) -> None:
    from piod.events import ReadingTaken

    with unit.daemon.hub.subscribe() as events:
        await unit.run("led_automation", options=CYCLE)
        await minutes(unit, 17)
        events.close()
        taken = [event async for event in events if isinstance(event, ReadingTaken)]
    settings = await unit.settings("led_automation")
    assert settings["automation_name"] == "light_dark_cycle"
    event = json.loads(settings["latest_event"])
    assert event["event_name"] == "ChangedLedIntensity"
    assert event["data"]["intensity"] == 0
    assert [(each.channel, each.value) for each in taken] == [
        ("C", 40),
        ("D", 40),
        ("C", 0),
        ("D", 0),
    ]


async def test_silent_has_one_timer_however_often_its_duration_is_changed(unit: Unit) -> None:
    from piod.events import SettingPublished

    job_id = await unit.run(
        "led_automation",
        options={"automation_name": "silent", "duration": 30, "skip_first_run": True},
    )
    for duration in (20, 10, 5):
        status, _ = await unit.change(job_id, duration=duration)
        assert status == 200
    with unit.daemon.hub.subscribe() as events:
        await minutes(unit, 21)
        events.close()
        told = [
            event
            async for event in events
            if isinstance(event, SettingPublished) and event.setting == "latest_event"
        ]
    assert len(told) == 4
    assert light(unit) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs the option automation_name"),
        ({"automation_name": "disco"}, "there are: light_dark_cycle, silent"),
        ({"automation_name": "silent", "light_intensity": 4}, "no option 'light_intensity'"),
        ({"automation_name": "light_dark_cycle"}, "needs the option light_intensity"),
        ({"automation_name": "silent", "duration": 0}, "duration must be"),
    ],
)
async def test_a_run_that_names_no_automation_of_it_is_refused(
    unit: Unit, options: dict[str, Any], words: str
) -> None:
    status, answer = await unit.request("POST", RUN, {"options": options})
    assert status == 400, answer
    assert words in answer["error"]


async def test_capabilities_tell_of_each_automation(unit: Unit) -> None:
    described = await unit.get("/unit_api/capabilities")
    mine = [job for job in described["jobs"] if job["job_name"] == "led_automation"]
    assert [job["automation_name"] for job in mine] == ["light_dark_cycle", "silent"]
    silent = mine[1]
    assert {option["name"] for option in silent["options"]} == {"skip_first_run", "duration"}
    assert set(silent["published_settings"]) == {
        *("automation_name", "latest_event", "duration"),
        *("$state", "restarts"),
    }
    assert {"job_name": "led_automation", "automation_name": "silent", "setting": "duration"} in [
        {key: each.get(key) for key in ("job_name", "automation_name", "setting")}
        for each in described["settings"]
    ]


PLUGIN = """
from piod.jobs.job import Setting
from piod.jobs.led_automation import LedAutomation, lease_lights


class Sunrise(LedAutomation):
    automation_name = "sunrise"
    settings = (Setting("peak", "float", settable=True, unit="%", minimum=0, maximum=100),)

    def __init__(self, unit, lights, peak):
        super().__init__(unit.publish)
        self._unit, self._lights, self._peak = unit, lights, peak

    @classmethod
    async def create(cls, unit, options):
        return cls(unit, await lease_lights(unit, "CD", "sunrise"), options.get("peak", 50))

    async def run(self):
        for step in range(11):
            await self._lights.show(self._peak * step / 10)
            await self._unit.clock.sleep(60)
"""


async def test_a_plugin_adds_an_automation_by_one_class_in_one_file(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "sunrise.py").write_text(PLUGIN)
    (tmp_path / "plugins" / "usurper.py").write_text(
        PLUGIN.replace('automation_name = "sunrise"', 'automation_name = "silent"')
    )
    async with running_unit(tmp_path, clock) as unit:
        await unit.run("led_automation", options={"automation_name": "sunrise", "peak": 80})
        await minutes(unit, 5.5)
        assert light(unit) == 40
        await minutes(unit, 6)
        assert light(unit) == 0
        assert (await unit.history())[0]["state"] == "disconnected"
        plugins = {each["name"]: each for each in await unit.get("/unit_api/plugins/installed")}
        assert "is taken by piod itself" in str(plugins)


async def test_it_is_resumed_after_an_outage_when_the_configuration_says_so(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    from piod.actors.resume import to_resume
    from piod.config import Config, ConfigFiles
    from piod.jobs.registry import JOBS
    from piod.storage.rows import LostJobs

    (tmp_path / "config.ini").write_text("[piod]\nresume_jobs = led_automation\n")
    async with running_unit(tmp_path, clock) as unit:
        await unit.run("led_automation", options=CYCLE)
        [view] = await unit.daemon.ledger.history(10, 0)
    config: Config = ConfigFiles(tmp_path).current()
    lost = LostJobs((view,), "2026-01-01T00:00:00.000Z")
    now = 1767225600.0 + 10
    [(_, request)] = to_resume(lost, config, JOBS, now)
    assert dict(request.options)["automation_name"] == "light_dark_cycle"


async def after_an_outage(unit: Unit, data_dir: Path) -> Path:
    """Another unit's data directory, with what was on disk when the power went out, just now."""
    with unit.clock.hold():
        # what waits in a batch is on disk within seconds: with this, now
        await unit.daemon.ledger.put_meta("alive_at", timestamp(unit.clock.time()))
    (data_dir / "storage").mkdir(parents=True)
    with (
        closing(sqlite3.connect(unit.data_dir / "storage" / "piod.sqlite")) as running,
        closing(sqlite3.connect(data_dir / "storage" / "piod.sqlite")) as lost,
    ):
        running.backup(lost)
    (data_dir / "config.ini").write_text("[piod]\nresume_jobs = led_automation\n")
    return data_dir


@pytest.mark.parametrize("jump_s", [0.0, 87_000.0, -87_000.0])
async def test_resumed_after_an_outage_it_goes_on_in_its_cycle_even_after_jumps_of_the_clock(
    tmp_path: Path, clock: SimulatedClock, jump_s: float
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    async with running_unit(before, clock) as unit:
        await unit.run("led_automation", options=CYCLE)
        await minutes(unit, 10)
        clock.offset_s += jump_s
        await minutes(unit, 4)
        data_dir = await after_an_outage(unit, tmp_path / "after")
    async with running_unit(data_dir, clock) as unit:
        await minutes(unit, 3)
        assert len(await unit.daemon.resume()) == 1
        assert light(unit) == 0, "minute 17: night"
        await minutes(unit, 6)
        assert light(unit) == 0
        await minutes(unit, 2)
        assert light(unit) == 40, "minute 25: day"


async def test_a_resumed_cycle_that_would_have_begun_in_the_future_begins_anew(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    async with running_unit(before, clock) as unit:
        await unit.run("led_automation", options=CYCLE)
        data_dir = await after_an_outage(unit, tmp_path / "after")
    with closing(sqlite3.connect(data_dir / "storage" / "piod.sqlite")) as database, database:
        changed = database.execute(
            "UPDATE memory SET value = ? WHERE key = 'light_dark_cycle_began'",
            (str(clock.time() + 3600),),
        )
        assert changed.rowcount == 1
    async with running_unit(data_dir, clock) as unit:
        assert len(await unit.daemon.resume()) == 1
        assert light(unit) == 40


async def test_a_cycle_that_is_run_anew_begins_with_light_whatever_was_kept(unit: Unit) -> None:
    job_id = await unit.run("led_automation", options=CYCLE)
    await minutes(unit, 17)
    assert light(unit) == 0
    await unit.post("/unit_api/jobs/stop", {"job_id": job_id})
    await unit.run("led_automation", options={**CYCLE, "light_intensity": 30})
    assert light(unit) == 30


async def test_a_crash_after_a_resumption_does_not_shift_the_cycle_either(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    async with running_unit(before, clock) as unit:
        await unit.run("led_automation", options=CYCLE)
        await minutes(unit, 10)
        data_dir = await after_an_outage(unit, tmp_path / "after")
    async with running_unit(data_dir, clock) as unit:
        await unit.daemon.resume()
        await minutes(unit, 5.9)
        unit.board.faults.add("nack", address=PICO, count=6)
        await minutes(unit, 0.2)
        await unit.clock.sleep(3)
        assert (await unit.settings("led_automation"))["restarts"] == "1"
        assert light(unit) == 0
        await minutes(unit, 8)
        assert light(unit) == 40
