"""Observations for the fused OD: three angles at several speeds, against the plant's optics."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.errors import BadRequest
from piod.hw.simulator.optics import BLANK_VOLTS, CELL_GAIN
from piod.jobs.calibrating import od_fusion
from piod.jobs.calibrating.od_fusion import FusionObservation, by_angle
from piod.jobs.calibrating.photometer import NoLightSeen
from piod.jobs.calibrating.stirred import NotStirred
from tests.jobs.calibrating.bench import IR, Bench, bench_on
from tests.jobs.test_od_reading import XR, put_in

ANGLES = {"1": "45", "2": "90", "3": "135"}
ONE = FusionObservation(rpm=500.0, angles=ANGLES)


@pytest.fixture
async def bench(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Bench]:
    """An XR unit, with photodiodes at 45°, 90°, 135° and REF."""
    async with bench_on(tmp_path, clock, **XR) as one:
        yield one


def truth_volts(od: float) -> dict[str, float]:
    cells = 0.375 * od / (1 + od / 10)
    return {
        angle: 204 / 257 * (BLANK_VOLTS[angle] + CELL_GAIN[angle] * cells) for angle in CELL_GAIN
    }


async def test_four_samples_of_each_angle_follow_the_optics(bench: Bench) -> None:
    for od in (0.1, 1.0):
        await put_in(bench.whole, od)
        observed = await bench.measure(od_fusion.run, ONE)
        assert len(observed.samples) == 4
        for sample in observed.samples:
            assert sample == pytest.approx(truth_volts(od), rel=0.03)
        assert observed.ir_led_intensity == 80.0


async def test_the_readings_are_taken_at_four_speeds(bench: Bench) -> None:
    """The first three of seven to warm up, at the speed asked for."""
    await put_in(bench.whole, 0.5)
    rpms: list[float] = []
    was_lit = False

    def watch() -> None:
        nonlocal was_lit
        lit = bench.whole.plant.optics.levels[IR] > 0
        if lit and not was_lit:
            rpms.append(bench.whole.plant.stirrer.rpm)
        was_lit = lit
        bench.clock.call_at(bench.clock.monotonic() + 0.02, watch)

    watch()
    await bench.measure(od_fusion.run, ONE)
    speeds = [1.0, 1.0, 1.0, 1.0, 0.9, 1.1, 0.8]
    assert [rpm / rpms[-7] for rpm in rpms[-7:]] == pytest.approx(speeds, abs=0.04)


async def test_it_insists_on_the_speed_more_than_standards_do(bench: Bench) -> None:
    with pytest.raises(NotStirred, match="within 60 of 4000 RPM"):
        await bench.measure(od_fusion.run, replace(ONE, rpm=4000.0))


async def test_an_unplugged_photodiode_is_named(tmp_path: Path, clock: SimulatedClock) -> None:
    missing = {signal: angle for signal, angle in XR["angles"].items() if signal != "pd3"}
    async with bench_on(tmp_path, clock, **{**XR, "angles": missing}) as bench:
        with pytest.raises(NoLightSeen, match=r"photodiode 3 \(135°\) sees no light"):
            await bench.measure(od_fusion.run, ONE)


def test_photodiodes_of_one_angle_are_averaged() -> None:
    angles = {"1": "45", "2": "90", "3": "90"}
    assert by_angle({"1": 0.5, "2": 0.1, "3": 0.3}, angles) == pytest.approx({"45": 0.5, "90": 0.2})


async def test_a_number_of_repeats_that_is_none_is_refused(bench: Bench) -> None:
    for repeats in (0, 6, True):
        with pytest.raises(BadRequest, match="repeats must be 1 to 5"):
            await od_fusion.run(bench.unit, replace(ONE, repeats=repeats), bench.told.append)


async def test_cancelling_at_any_moment_turns_everything_off_at_once(bench: Bench) -> None:
    await put_in(bench.whole, 0.5)
    drawn = random.Random(10)
    for _ in range(8):
        assert await bench.cancelled(od_fusion.run, ONE, drawn.uniform(0.01, 20))
