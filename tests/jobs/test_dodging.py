"""Stirring around OD readings: what is on the pin while the photodiodes look."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from piod.clock import SimulatedClock
from piod.jobs.dodging import OdSchedule
from tests.unit import Unit, running_unit

IR = "A"
DODGE = {"target_rpm": 500, "enable_dodging_od": True}


class Watch:
    """The stirrer's duty cycle and the IR LED, at each change of one of them."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self.seen: list[tuple[float, float, bool, float]] = []
        """Seconds, duty, lit, RPM."""

    async def follow(self, seconds: float, step: float = 0.02) -> None:
        unit, end = self._unit, self._unit.clock.monotonic() + seconds
        while unit.clock.monotonic() < end:
            lit = unit.plant.optics.levels[IR] > 0
            now = (unit.clock.monotonic(), unit.duty, lit, unit.plant.stirrer.rpm)
            self.seen.append(now)
            await unit.clock.sleep(step)

    def changes_while_lit(self) -> int:
        """How often the duty cycle changed between two looks in the same light."""
        return sum(
            before[1] != after[1] and before[2] and after[2]
            for before, after in itertools.pairwise(self.seen)
        )

    def duties(self, *, lit: bool) -> set[float]:
        return {round(duty, 3) for _, duty, light, _ in self.seen if light is lit}

    def rpm(self, *, lit: bool) -> list[float]:
        return [rpm for _, _, light, rpm in self.seen if light is lit]


async def test_it_stands_still_for_each_reading_and_turns_between_them(unit: Unit) -> None:
    await unit.run("stirring", options=DODGE)
    await unit.run("od_reading", options={"interval": 10})
    await unit.clock.sleep(60)
    assert (await unit.settings())["currently_dodging_od"] == "True"
    watch = Watch(unit)
    await watch.follow(60)
    assert watch.changes_while_lit() == 0
    assert watch.duties(lit=True) == {0.0}
    assert max(watch.rpm(lit=True)) < 100
    assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)
    assert (await unit.settings())["stalled"] == "False"


async def test_the_kick_between_two_readings_does_not_shoot_over_the_speed(unit: Unit) -> None:
    await unit.run("stirring", options=DODGE)
    await unit.run("od_reading", options={"interval": 5})
    await unit.clock.sleep(30)
    watch = Watch(unit)
    await watch.follow(30)
    assert max(watch.rpm(lit=False)) == pytest.approx(500, rel=0.1)
    assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)


@pytest.mark.parametrize("interval", [3.6, 5, 23, 60])
async def test_no_reading_sees_the_stirrer_change_whatever_the_interval(
    interval: float, unit: Unit
) -> None:
    await unit.run("stirring", options=DODGE)
    await unit.run("od_reading", options={"interval": interval})
    watch = Watch(unit)
    await watch.follow(4 * interval)
    assert watch.changes_while_lit() == 0
    assert max(watch.duties(lit=False)) > 20


async def test_a_slow_speed_during_readings_is_kept_without_kicks(unit: Unit) -> None:
    options = {**DODGE, "target_rpm_during_od_reading": 300}
    await unit.run("stirring", options=options)
    await unit.run("od_reading", options={"interval": 12})
    await unit.clock.sleep(60)
    watch = Watch(unit)
    await watch.follow(60)
    assert watch.changes_while_lit() == 0
    assert 100.0 not in watch.duties(lit=False)
    assert watch.rpm(lit=True) == pytest.approx([300] * len(watch.rpm(lit=True)), rel=0.15)


async def test_it_follows_od_readings_that_begin_sleep_wake_and_end(unit: Unit) -> None:
    async def dodging() -> str:
        await unit.clock.sleep(2)
        return (await unit.settings())["currently_dodging_od"]

    await unit.run("stirring", options=DODGE)
    await unit.clock.sleep(30)
    assert await dodging() == "False"
    watch = Watch(unit)
    following = asyncio.ensure_future(watch.follow(130))
    job_id = await unit.run("od_reading", options={"interval": 10})
    assert await dodging() == "True"
    await unit.clock.sleep(30)
    await unit.change(job_id, state="sleeping")
    assert await dodging() == "False"
    await unit.clock.sleep(10)
    assert unit.duty > 20
    await unit.change(job_id, state="ready")
    assert await dodging() == "True"
    await unit.clock.sleep(20)
    await unit.post("/unit_api/jobs/stop", {"job_name": "od_reading"})
    assert await dodging() == "False"
    await unit.clock.sleep(30)
    assert unit.duty > 20
    assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)
    await following
    assert watch.changes_while_lit() == 0


async def test_dodging_is_turned_on_and_off_live(unit: Unit) -> None:
    job_id = await unit.run("stirring", options={"target_rpm": 500})
    await unit.run("od_reading", options={"interval": 8})
    await unit.clock.sleep(20)
    refused, _ = await unit.change(job_id, target_rpm_during_od_reading=100)
    assert refused == 400
    watch = Watch(unit)
    following = asyncio.ensure_future(watch.follow(100))
    changes: dict[str, Any] = {"enable_dodging_od": True, "target_rpm_during_od_reading": 0}
    assert (await unit.change(job_id, **changes))[0] == 200
    await unit.clock.sleep(40)
    assert (await unit.settings())["currently_dodging_od"] == "True"
    assert min(watch.duties(lit=True)) == 0
    await unit.change(job_id, target_rpm_outside_od_reading=800)
    await unit.clock.sleep(20)
    assert await unit.measured_rpm() == pytest.approx(800, rel=0.1)
    await unit.change(job_id, enable_dodging_od=False)
    await unit.clock.sleep(35)
    await following
    assert watch.changes_while_lit() == 0
    assert (await unit.settings())["currently_dodging_od"] == "False"
    assert (await unit.settings())["target_rpm"] == "800"
    await unit.clock.sleep(30)
    assert await unit.measured_rpm() == pytest.approx(800, rel=0.05)


async def test_a_jump_of_the_clock_does_not_bring_them_out_of_step(
    unit: Unit, clock: SimulatedClock
) -> None:
    await unit.run("stirring", options=DODGE)
    await unit.run("od_reading", options={"interval": 7})
    await clock.sleep(20)
    clock.offset_s -= 7200.5
    watch = Watch(unit)
    await watch.follow(40)
    assert watch.duties(lit=True) == {0.0}
    assert watch.changes_while_lit() == 0


async def test_a_new_interval_is_followed(unit: Unit) -> None:
    await unit.run("stirring", options=DODGE)
    job_id = await unit.run("od_reading", options={"interval": 30})
    await unit.clock.sleep(35)
    watch = Watch(unit)
    following = asyncio.ensure_future(watch.follow(60))
    while unit.plant.optics.levels[IR] == 0:
        await unit.clock.sleep(0.05)
    await unit.change(job_id, interval=7)
    await following
    assert watch.changes_while_lit() == 0
    last = [duty for at, duty, lit, _ in watch.seen[len(watch.seen) // 2 :] if lit]
    assert set(last) == {0.0}


@pytest.mark.parametrize("sooner_s", [0.1, 0.9, 1.6])
async def test_dodging_that_begins_shortly_before_a_reading_lets_it_pass(
    sooner_s: float, unit: Unit
) -> None:
    job_id = await unit.run("stirring", options={"target_rpm": 500})
    await unit.clock.sleep(20)
    await unit.run("od_reading", options={"interval": 10})
    peer = unit.daemon.hub.settings_of("od_reading")
    assert peer is not None
    schedule = OdSchedule.from_json(peer["schedule"])
    now_s = unit.clock.monotonic()
    await unit.clock.sleep(schedule.next_s(now_s + 2) - sooner_s - now_s)
    watch = Watch(unit)
    following = asyncio.ensure_future(watch.follow(15))
    await unit.change(job_id, enable_dodging_od=True)
    await following
    assert watch.changes_while_lit() == 0
    assert next(duty for _, duty, lit, _ in watch.seen if lit) > 20
    assert 0.0 in watch.duties(lit=True)


async def test_the_speed_is_learned_between_readings(tmp_path: Path, clock: SimulatedClock) -> None:
    config = "[stirring.config]\ninitial_duty_cycle=20\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        await unit.run("od_reading", options={"interval": 10})
        await unit.run("stirring", options=DODGE)
        await clock.sleep(60)
        assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)


async def test_readings_too_close_together_are_not_dodged_and_it_says_so(
    unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    await unit.run("stirring", options=DODGE)
    await unit.run("od_reading", options={"interval": 3})
    await unit.clock.sleep(60)
    assert (await unit.settings())["currently_dodging_od"] == "False"
    assert caplog.text.count("too often to stir between the readings") == 1
    assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)


async def test_without_rpm_feedback_there_is_nothing_to_dodge_with(unit: Unit) -> None:
    options = {"use_rpm": False, "enable_dodging_od": True}
    task = await unit.post("/unit_api/jobs/run/job_name/stirring", {"options": options})
    assert task["status"] == "failed"
    assert "needs a target speed" in task["error"]
    job_id = await unit.run("stirring", options={"use_rpm": False})
    assert (await unit.change(job_id, enable_dodging_od=True))[0] == 400


async def test_a_stall_is_found_and_reported_while_it_dodges(
    unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    await unit.run("stirring", options=DODGE)
    await unit.run("od_reading", options={"interval": 10})
    await unit.clock.sleep(25)
    await unit.request("POST", "/simulator/faults", {"kind": "stirrer_stall"})
    watch = Watch(unit)
    await watch.follow(60)
    assert (await unit.settings())["stalled"] == "True"
    await unit.request("DELETE", "/simulator/faults")
    await watch.follow(40)
    assert (await unit.settings())["stalled"] == "False"
    assert watch.changes_while_lit() == 0


async def test_sleep_in_a_reading_and_waking_start_the_stirrer_between_readings(
    unit: Unit,
) -> None:
    job_id = await unit.run("stirring", options=DODGE)
    await unit.run("od_reading", options={"interval": 8})
    await unit.clock.sleep(24.5)
    await unit.change(job_id, state="sleeping")
    assert unit.duty == 0
    watch = Watch(unit)
    following = asyncio.ensure_future(watch.follow(60))
    await unit.clock.sleep(15.2)
    assert unit.duty == 0
    await unit.change(job_id, state="ready")
    await following
    assert watch.changes_while_lit() == 0
    assert await unit.measured_rpm() == pytest.approx(500, rel=0.1)


async def test_without_dodging_kicks_and_trims_stay_out_of_readings(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[stirring.config]\nduration_between_updates_seconds=2\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        await unit.run("stirring", options={"target_rpm": 500})
        await clock.sleep(5)
        await unit.run("od_reading", options={"interval": 5})
        watch = Watch(unit)
        await watch.follow(60)
        await unit.request("POST", "/simulator/faults", {"kind": "stirrer_stall"})
        await watch.follow(60)
        assert watch.changes_while_lit() == 0
        assert 100.0 in watch.duties(lit=False)
        assert len(watch.duties(lit=False)) > 10


def test_the_next_reading_and_the_end_of_the_last() -> None:
    schedule = OdSchedule(100.0, 5.0, 1.0)
    assert [schedule.next_s(at) for at in (0, 100, 100.5, 105, 1e6 + 3)] == [
        *(100, 100, 105, 105, 1_000_005),
    ]
    assert [schedule.over_s(at) for at in (100, 100.5, 104.9, 105)] == [101, 101, 101, 106]
    assert schedule.over_s(99) == float("-inf")


def test_gaps_are_as_long_as_is_needed() -> None:
    schedule = OdSchedule(0.0, 5.0, 1.0)
    delays = {"before_s": 1.5, "after_s": 0.5}
    assert schedule.gap_s(2.0, 1.0, **delays) == 0.0
    assert schedule.gap_s(0.2, 1.0, **delays) == pytest.approx(1.3)
    assert schedule.gap_s(3.0, 1.0, **delays) == pytest.approx(3.5)
    assert schedule.gap_s(3.0, 9.0, **delays) == 0.0  # there is none
