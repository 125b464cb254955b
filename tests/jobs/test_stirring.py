"""Stirring over HTTP, on the simulated motor."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from tests.unit import Unit, running_unit


async def watch_duty(unit: Unit, seconds: float, step: float = 0.05) -> list[float]:
    """The duty cycle on the pin, sampled."""
    seen = []
    for _ in range(round(seconds / step)):
        seen.append(unit.duty)
        await unit.clock.sleep(step)
    return seen


async def test_it_holds_its_target_within_five_percent_after_a_minute(unit: Unit) -> None:
    await unit.run("stirring", options={"target_rpm": "400"})
    await unit.clock.sleep(60)
    assert await unit.measured_rpm() == pytest.approx(400, rel=0.05)
    assert unit.plant.truth()["rpm"] == pytest.approx(400, rel=0.05)


@pytest.mark.parametrize("seed", range(2, 8))
async def test_whatever_motor_it_gets(seed: int, tmp_path: Path, clock: SimulatedClock) -> None:
    async with running_unit(tmp_path, clock, seed=seed) as unit:
        await unit.run("stirring", options={"target_rpm": 400})
        await clock.sleep(60)
        assert await unit.measured_rpm() == pytest.approx(400, rel=0.03)


async def test_a_wrong_initial_duty_cycle_is_learned_away(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[stirring.config]\ninitial_duty_cycle=18\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        await unit.run("stirring", options={"target_rpm": 500})
        await clock.sleep(40)
        assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)


async def test_a_new_target_is_followed(unit: Unit) -> None:
    job_id = await unit.run("stirring", options={"target_rpm": "400"})
    await unit.clock.sleep(60)
    assert await unit.change(job_id, target_rpm=700) == (200, {"settings": {"target_rpm": "700"}})
    await unit.clock.sleep(20)
    assert await unit.measured_rpm() == pytest.approx(700, rel=0.05)


async def test_a_large_rise_is_ramped_so_that_the_bar_stays_on(unit: Unit) -> None:
    job_id = await unit.run("stirring", options={"target_rpm": 300})
    await unit.clock.sleep(30)
    await unit.change(job_id, target_rpm=1500)
    seen = await watch_duty(unit, 5)
    assert max(b - a for a, b in itertools.pairwise(seen)) <= 20.001
    await unit.clock.sleep(40)
    assert await unit.measured_rpm() == pytest.approx(1500, rel=0.05)


async def test_the_start_kicks_at_full_duty_for_half_a_second(unit: Unit) -> None:
    status, accepted = await unit.request("POST", "/unit_api/jobs/run/job_name/stirring", {})
    assert status == 202
    seen = await watch_duty(unit, 1.0, step=0.01)
    assert 0.45 <= seen.count(100.0) * 0.01 <= 0.55
    assert seen[-1] == 30.0
    await unit.task(accepted)


async def test_ready_means_kicked_and_looping_not_near_the_target(unit: Unit) -> None:
    began = unit.clock.monotonic()
    await unit.run("stirring", options={"target_rpm": 1000})
    assert unit.clock.monotonic() - began < 1.0
    assert (await unit.settings())["$state"] == "ready"


async def test_target_zero_means_zero_without_a_kick(unit: Unit) -> None:
    await unit.run("stirring", options={"target_rpm": 0})
    assert set(await watch_duty(unit, 60)) == {0.0}
    settings = await unit.settings()
    assert settings["target_rpm"] == "0"
    assert json.loads(settings["measured_rpm"])["measured_rpm"] == 0


async def test_a_target_after_a_target_of_zero_starts_from_a_full_estimate(unit: Unit) -> None:
    job_id = await unit.run("stirring", options={"target_rpm": 500})
    await unit.clock.sleep(30)
    await unit.change(job_id, target_rpm=0)
    await unit.clock.sleep(30)
    assert unit.duty == 0
    assert unit.plant.truth()["rpm"] == 0
    await unit.change(job_id, target_rpm=500)
    await unit.clock.sleep(10)
    assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)


async def test_sleeping_stops_the_stirrer_and_waking_kicks_it(unit: Unit) -> None:
    job_id = await unit.run("stirring")
    await unit.clock.sleep(30)
    assert (await unit.change(job_id, state="sleeping"))[0] == 200
    assert unit.duty == 0
    settings = await unit.settings()
    assert settings["$state"] == "sleeping"
    assert settings["duty_cycle"] == "0"
    assert json.loads(settings["measured_rpm"])["measured_rpm"] == 0
    assert set(await watch_duty(unit, 120)) == {0.0}
    waking = asyncio.ensure_future(unit.change(job_id, state="ready"))
    seen = await watch_duty(unit, 1.0)
    await waking
    assert max(seen) == 100
    await unit.clock.sleep(10)
    assert (await unit.settings())["$state"] == "ready"
    assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)


async def test_a_target_set_while_asleep_holds_after_waking(unit: Unit) -> None:
    job_id = await unit.run("stirring")
    await unit.change(job_id, state="sleeping")
    await unit.change(job_id, target_rpm=800)
    await unit.clock.sleep(10)
    assert unit.duty == 0
    await unit.change(job_id, state="ready")
    await unit.clock.sleep(10)
    assert await unit.measured_rpm() == pytest.approx(800, rel=0.05)


async def test_a_thrown_bar_is_caught_by_one_kick(unit: Unit) -> None:
    await unit.run("stirring")
    await unit.clock.sleep(30)
    await unit.request("PATCH", "/simulator/plant", {"stirrer": {"bar_lost": True}})
    await unit.clock.sleep(60)
    assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)
    assert (await unit.settings())["stalled"] == "False"


async def test_kicks_against_a_stall_are_bounded_and_then_reported(
    unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    await unit.run("stirring")
    await unit.clock.sleep(30)
    await unit.request("POST", "/simulator/faults", {"kind": "stirrer_stall"})
    await unit.clock.sleep(120)
    settings = await unit.settings()
    assert settings["stalled"] == "True"
    assert settings["$state"] == "ready"
    assert "no turn of the stirrer was seen after 3 kicks" in caplog.text
    assert 100.0 not in await watch_duty(unit, 600)
    assert 0 < unit.duty <= 60
    await unit.request("DELETE", "/simulator/faults")
    await unit.clock.sleep(60)
    assert (await unit.settings())["stalled"] == "False"


async def test_a_few_lost_edges_do_not_stop_it(unit: Unit) -> None:
    await unit.request("POST", "/simulator/faults", {"kind": "lost_edges", "fraction": 0.05})
    await unit.run("stirring")
    await unit.clock.sleep(300)
    assert unit.plant.truth()["rpm"] == pytest.approx(500, rel=0.15)


async def test_without_feedback_it_holds_its_duty_cycle(unit: Unit) -> None:
    job_id = await unit.run("stirring", options={"use_rpm": False, "duty_cycle": 33})
    assert set(await watch_duty(unit, 120, step=0.5)) == {33.0}
    assert "target_rpm" not in await unit.settings()
    status, body = await unit.change(job_id, target_rpm=300)
    assert status == 400
    assert "without RPM feedback" in body["error"]
    assert (await unit.change(job_id, duty_cycle=40))[0] == 200
    await unit.clock.sleep(1)
    assert unit.duty == 40


async def test_a_given_duty_cycle_is_the_first_one(unit: Unit) -> None:
    await unit.run("stirring", options={"duty_cycle": 22, "target_rpm": 400})
    assert unit.duty == 22


async def test_a_setting_during_a_measurement_takes_effect_at_once(unit: Unit) -> None:
    job_id = await unit.run("stirring")
    await unit.clock.sleep(6.2)  # the first measurement has begun
    before = unit.duty
    await unit.change(job_id, target_rpm=0)
    await unit.clock.sleep(0.01)
    assert before > 0
    assert unit.duty == 0


async def test_the_configuration_counts_and_overrides_win(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[stirring.config]\ninitial_target_rpm=600\n[stirring.pid]\nKp=0.001\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        await unit.run("stirring")
        assert (await unit.settings())["target_rpm"] == "600"
        await unit.post("/unit_api/jobs/stop/all")
        override = [["stirring.config", "initial_target_rpm", "250"]]
        await unit.run("stirring", options={"use_rpm": True}, config_overrides=override)
        assert (await unit.settings())["target_rpm"] == "250"


CALIBRATION = """\
calibration_type: simple_stirring
calibration_name: bench
calibrated_on_pioreactor_unit: pio01
created_at: 2026-06-12T07:00:00Z
curve_data_: {type: poly, coefficients: [10.0, 100.0]}
x: DC %
y: RPM
recorded_data: {x: [10.0, 60.0], y: [200.0, 700.0]}
pwm_hz: 200.0
voltage: 12.0
"""


async def test_an_active_calibration_gives_the_first_duty_cycle(unit: Unit) -> None:
    folder = unit.data_dir / "storage" / "calibrations" / "stirring"
    folder.mkdir(parents=True)
    (folder / "bench.yaml").write_text(CALIBRATION)
    await unit.daemon.ledger.put_meta("active_calibration:stirring", "bench")
    await unit.run("stirring", options={"target_rpm": 500})
    assert unit.duty == 40.0  # the curve: 100 + 10·40 RPM
    await unit.clock.sleep(60)
    assert await unit.measured_rpm() == pytest.approx(500, rel=0.05)


async def test_a_broken_calibration_is_ignored_with_a_warning(
    unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    await unit.daemon.ledger.put_meta("active_calibration:stirring", "gone")
    await unit.run("stirring", options={"target_rpm": 500})
    assert unit.duty == 30.0
    assert "gone" in caplog.text
