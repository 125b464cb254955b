"""The sweep of the stirrer: what it measures against the plant's truth, and how it fails."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from pathlib import Path

import pytest

from piod.config import ConfigFiles
from piod.errors import BadRequest, BusError, Conflict
from piod.jobs.calibrating import stirring_sweep
from piod.jobs.calibrating.stirring_sweep import NotTurning, StirringSweep
from tests.jobs.calibrating.bench import Bench

STIRRING_PIN = 17


async def test_every_point_is_the_speed_that_the_plant_turns_at(bench: Bench) -> None:
    began_s = bench.clock.monotonic()
    swept = await bench.measure(stirring_sweep.run, StirringSweep())
    assert 60 <= bench.clock.monotonic() - began_s <= 68
    stirrer = bench.whole.plant.stirrer
    truth = [stirrer.steady_rpm(duty, 15.0) for duty in swept.duty_percent]
    off = [rpm - true for rpm, true in zip(swept.rpm, truth, strict=True)]
    assert len(off) == 15
    assert swept.still_percent == ()
    assert max(map(abs, off)) < 0.02 * max(truth)
    assert abs(statistics.fmean(off)) < 0.005 * max(truth)
    line = statistics.linear_regression(swept.duty_percent, swept.rpm)
    for duty, true in zip(swept.duty_percent, truth, strict=True):
        assert line.slope * duty + line.intercept == pytest.approx(true, abs=0.01 * max(truth))
    assert swept.pwm_hz == 200.0


def test_the_points_go_down_up_and_down_around_the_initial_duty_cycle(tmp_path: Path) -> None:
    """Handbook unit-api §9, the vector "sweep-like"."""
    config = ConfigFiles(tmp_path).current()
    down = (39.9, 34.875, 29.85, 24.825, 19.8)
    assert stirring_sweep.duties(StirringSweep(), config) == (*down, *reversed(down), *down)
    assert stirring_sweep.duties(StirringSweep(20.0, 30.0), config)[:2] == (30.0, 27.5)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (20.0, None),
        (None, 30.0),
        (30.0, 20.0),
        (20.0, 20.0),
        (0.0, 50.0),
        (10.0, 101.0),
        (math.nan, 50.0),
        (10.0, math.inf),
    ],
)
def test_a_range_that_is_none_is_refused(
    tmp_path: Path, low: float | None, high: float | None
) -> None:
    with pytest.raises(BadRequest, match="sweep"):
        stirring_sweep.duties(StirringSweep(low, high), ConfigFiles(tmp_path).current())


async def test_the_bar_is_not_thrown_off_on_the_way_to_a_high_duty_cycle(bench: Bench) -> None:
    swept = await bench.measure(stirring_sweep.run, StirringSweep(20.0, 100.0))
    assert len(swept.rpm) == 15
    assert not bench.whole.plant.stirrer.truth()["bar_lost"]


async def test_points_at_which_it_stands_still_are_named_and_the_rest_counts(bench: Bench) -> None:
    swept = await bench.measure(stirring_sweep.run, StirringSweep(6.0, 46.0))
    assert set(swept.still_percent) == {6.0}
    assert set(swept.duty_percent) == {16.0, 26.0, 36.0, 46.0}
    for duty, rpm in zip(swept.duty_percent, swept.rpm, strict=True):
        true = bench.whole.plant.stirrer.steady_rpm(duty, 15.0)
        assert rpm == pytest.approx(true, abs=30)


async def test_a_bar_that_is_lost_on_the_way_is_caught_again(bench: Bench) -> None:
    def lose() -> None:
        bench.whole.plant.stirrer.patch({"bar_lost": True})()

    bench.clock.call_at(bench.clock.monotonic() + 22, lose)
    swept = await bench.measure(stirring_sweep.run, StirringSweep())
    assert len(swept.still_percent) == 1
    assert len(swept.rpm) == 14


async def test_without_a_turn_it_ends_soon_with_the_reason(bench: Bench) -> None:
    bench.whole.board.faults.add("stirrer_stall")
    began_s = bench.clock.monotonic()
    with pytest.raises(NotTurning, match=r"no turn .* at 30 %"):
        await bench.measure(stirring_sweep.run, StirringSweep())
    assert bench.clock.monotonic() - began_s < 20


async def test_turns_at_too_few_points_are_refused(bench: Bench) -> None:
    bench.clock.call_at(
        bench.clock.monotonic() + 10, lambda: bench.whole.board.faults.add("stirrer_stall")
    )
    with pytest.raises(NotTurning, match=r"turn at 1 of 15|turn at 2 of 15"):
        await bench.measure(stirring_sweep.run, StirringSweep())


async def test_cancelling_at_any_moment_turns_it_off_at_once(bench: Bench) -> None:
    drawn = random.Random(8)
    for _ in range(8):
        assert await bench.cancelled(stirring_sweep.run, StirringSweep(), drawn.uniform(0.01, 60))


async def test_stirring_that_runs_is_named(bench: Bench) -> None:
    await bench.whole.run("stirring")
    with pytest.raises(Conflict, match=r"GPIO 17 is in use by stirring \(job"):
        await stirring_sweep.run(bench.unit, StirringSweep(), bench.told.append)
    assert bench.whole.duty > 0


async def test_while_it_sweeps_stirring_is_refused(bench: Bench) -> None:
    sweeping = asyncio.ensure_future(
        stirring_sweep.run(bench.unit, StirringSweep(), bench.told.append)
    )
    await bench.clock.sleep(10)
    task = await bench.whole.post("/unit_api/jobs/run/job_name/stirring", {})
    assert task["status"] == "failed"
    assert "in use by calibration_session (job" in task["error"]
    await sweeping


async def test_a_bus_that_fails_ends_it_with_the_reason_and_off(bench: Bench) -> None:
    bench.clock.call_at(
        bench.clock.monotonic() + 15,
        lambda: bench.whole.board.faults.add("bus_error", bus="pwm", pin=STIRRING_PIN, count=1),
    )
    with pytest.raises(BusError, match="pwm"):
        await bench.measure(stirring_sweep.run, StirringSweep())


async def test_it_can_follow_at_once(bench: Bench) -> None:
    await bench.cancelled(stirring_sweep.run, StirringSweep(), 20.0)
    await bench.measure(stirring_sweep.run, StirringSweep(25.0, 30.0))
