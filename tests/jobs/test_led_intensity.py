"""led_intensity: levels that a person chose, as long as one of them is not 0."""

from __future__ import annotations

from typing import Any

import pytest

from piod.actors.buses.bus import RevokeAll
from tests.unit import Unit

FULL = 100 * 255 / 257
PICO = 0x2C


def leds(unit: Unit) -> dict[str, float]:
    """What the LEDs really show, percent."""
    return {channel: unit.plant.optics.levels[channel] for channel in "ABCD"}


async def test_levels_are_shown_and_published(unit: Unit) -> None:
    await unit.run("led_intensity", options={"A": 50, "D": 100})
    assert leds(unit) == {
        "A": pytest.approx(100 * 128 / 257),
        "B": 0,
        "C": 0,
        "D": pytest.approx(FULL),
    }
    settings = await unit.settings("led_intensity")
    assert settings["A"] == "50"
    assert settings["D"] == "100"
    assert "B" not in settings


async def test_running_it_again_changes_the_levels_of_the_one_that_runs(unit: Unit) -> None:
    first = await unit.run("led_intensity", options={"A": 50, "B": 10})
    again = await unit.run("led_intensity", options={"a": 20})
    assert again == first
    assert leds(unit)["A"] == pytest.approx(20, abs=0.5)
    assert leds(unit)["B"] == pytest.approx(10, abs=0.5)
    assert len(await unit.history()) == 1


async def test_it_ends_when_the_last_led_is_off_and_another_begins_anew(unit: Unit) -> None:
    first = await unit.run("led_intensity", options={"A": 50, "B": 10})
    await unit.run("led_intensity", options={"A": 0})
    assert leds(unit)["A"] == 0
    assert leds(unit)["B"] > 0
    await unit.run("led_intensity", options={"B": 0})
    second = await unit.run("led_intensity", options={"A": 30})
    assert second != first
    assert leds(unit)["A"] == pytest.approx(30, abs=0.5)
    [row] = [row for row in await unit.history() if row["job_id"] == first]
    assert row["state"] == "disconnected"


async def test_all_at_zero_ends_at_once(unit: Unit) -> None:
    await unit.run("led_intensity", options=dict.fromkeys("ABCD", 0))
    await unit.clock.sleep(0.1)
    assert await unit.get("/unit_api/jobs/running") == []


async def test_stopping_it_turns_its_leds_off(unit: Unit) -> None:
    await unit.run("led_intensity", options={"A": 50, "B": 10})
    await unit.post("/unit_api/jobs/stop", {"job_name": "led_intensity"})
    assert leds(unit) == dict.fromkeys("ABCD", 0.0)


async def test_an_led_of_another_job_is_refused_with_its_name_and_nothing_is_changed(
    unit: Unit,
) -> None:
    await unit.run(
        "led_automation",
        options={
            "automation_name": "light_dark_cycle",
            "light_intensity": 5,
            "light_duration_minutes": 10,
            "dark_duration_minutes": 10,
        },
    )
    job_id = await unit.run("led_intensity", options={"A": 50})
    before = leds(unit)
    refused = await unit.post(
        "/unit_api/jobs/run/job_name/led_intensity", {"options": {"A": 20, "B": 1, "D": 90}}
    )
    assert refused["status"] == "failed"
    assert "LED D is in use by led_automation" in refused["error"]
    assert leds(unit) == before
    assert (await unit.settings("led_intensity"))["A"] == "50"
    status, answer = await unit.change(job_id, B=10)
    assert status == 200, answer
    assert leds(unit)["B"] > 0, "nothing of what was refused is held"


async def test_levels_can_be_set_as_settings(unit: Unit) -> None:
    job_id = await unit.run("led_intensity", options={"A": 50})
    assert await unit.change(job_id, A=20, C=30) == (200, {"settings": {"A": "20", "C": "30"}})
    assert leds(unit)["A"] == pytest.approx(20, abs=0.5)
    assert leds(unit)["C"] == pytest.approx(30, abs=0.5)
    status, _ = await unit.change(job_id, A=101)
    assert status == 400
    assert leds(unit)["A"] == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize(
    "options", [{}, {"A": 101}, {"B": -1}, {"E": 5}, {"A": "x"}, {"no_log": True}]
)
async def test_what_cannot_be_shown_is_refused_before_the_202(
    unit: Unit, options: dict[str, Any]
) -> None:
    status, answer = await unit.request(
        "POST", "/unit_api/jobs/run/job_name/led_intensity", {"options": options}
    )
    assert status == 400, answer


async def test_asleep_it_is_dark_and_awake_it_shines_as_it_should_by_then(unit: Unit) -> None:
    job_id = await unit.run("led_intensity", options={"A": 50})
    await unit.change(job_id, state="sleeping")
    assert leds(unit)["A"] == 0
    await unit.change(job_id, A=20)
    assert leds(unit)["A"] == 0
    await unit.change(job_id, state="ready")
    assert leds(unit)["A"] == pytest.approx(20, abs=0.5)


async def test_it_keeps_its_leds_while_it_sleeps(unit: Unit) -> None:
    job_id = await unit.run("led_intensity", options={"C": 50})
    await unit.change(job_id, state="sleeping")
    refused = await unit.post(
        "/unit_api/jobs/run/job_name/led_automation",
        {
            "options": {
                "automation_name": "light_dark_cycle",
                "light_intensity": 5,
                "light_duration_minutes": 1,
                "dark_duration_minutes": 1,
            }
        },
    )
    assert refused["status"] == "failed"
    assert "LED C is in use by led_intensity" in refused["error"]


async def test_a_chip_that_fails_ends_the_job_dark_and_it_comes_back_as_it_was_left(
    unit: Unit,
) -> None:
    job_id = await unit.run("led_intensity", options={"A": 50})
    await unit.change(job_id, A=30)
    fault = unit.board.faults.add("nack", address=PICO, count=3)
    status, answer = await unit.change(job_id, A=80)
    assert status == 503, answer
    assert not [each for each in unit.board.faults.list() if each.id == fault.id]
    await unit.clock.sleep(0.5)
    assert leds(unit)["A"] == 0
    await unit.clock.sleep(3)
    assert leds(unit)["A"] == pytest.approx(30, abs=0.5)
    assert (await unit.settings("led_intensity"))["restarts"] == "1"


async def test_its_changes_are_kept_in_the_history_of_the_experiment(unit: Unit) -> None:
    from piod.events import ReadingTaken

    with unit.daemon.hub.subscribe() as events:
        await unit.run(
            "led_intensity", options={"A": 50, "source_of_event": "UI"}, env={"EXPERIMENT": "exp"}
        )
        await unit.run("led_intensity", options={"A": 50, "B": 5})
        events.close()
        taken = [event async for event in events if isinstance(event, ReadingTaken)]
    assert [(each.kind, each.channel, each.value) for each in taken] == [
        ("led", "A", 50),
        ("led", "B", 5),
    ]
    assert taken[0].job.experiment == "exp"
    assert taken[0].details == {"source_of_event": "UI"}


@pytest.mark.parametrize("end", ["stop", "crash"])
async def test_the_end_of_its_light_is_kept_however_it_ends(unit: Unit, end: str) -> None:
    from piod.events import ReadingTaken

    with unit.daemon.hub.subscribe() as events:
        await unit.run("led_intensity", options={"A": 50, "B": 5})
        await unit.run("led_intensity", options={"B": 0})
        await unit.clock.sleep(10)
        ended_at = unit.clock.time()
        if end == "stop":
            await unit.post("/unit_api/jobs/stop", {"job_name": "led_intensity"})
        else:
            bus: Any = unit.daemon.buses["led"]
            await bus.ask(RevokeAll("a test wants the job to crash"), timeout=5)
            await unit.clock.sleep(0.01)
        events.close()
        taken = [event async for event in events if isinstance(event, ReadingTaken)]
    assert [(each.channel, each.value) for each in taken] == [
        ("A", 50),
        ("B", 5),
        ("B", 0),
        ("A", 0),
    ]
    assert taken[-1].at == pytest.approx(ended_at, abs=0.05)
    assert taken[-1].details == taken[0].details


async def test_no_log_leaves_them_out(unit: Unit) -> None:
    from piod.events import ReadingTaken

    with unit.daemon.hub.subscribe() as events:
        await unit.run("led_intensity", options={"A": 50, "no_log": None})
        await unit.post("/unit_api/jobs/stop", {"job_name": "led_intensity"})
        events.close()
        assert not [event async for event in events if isinstance(event, ReadingTaken)]


async def test_capabilities_name_its_options_as_upstream_does(unit: Unit) -> None:
    jobs = (await unit.get("/unit_api/capabilities"))["jobs"]
    [described] = [job for job in jobs if job["job_name"] == "led_intensity"]
    flags = {option["name"]: option["long_flag"] for option in described["options"]}
    assert flags == {
        **{channel.lower(): channel for channel in "ABCD"},
        "source_of_event": "source-of-event",
        "no_log": "no-log",
    }
