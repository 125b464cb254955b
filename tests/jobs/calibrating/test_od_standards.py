"""A standard before the photodiodes: its voltages against the plant's optics, and refusals."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.errors import BadRequest, BusError, ConfigurationError, Conflict, PiodError, Unavailable
from piod.jobs.calibrating import od_standards
from piod.jobs.calibrating.od_standards import OdStandard, OdStandardSeen
from piod.jobs.calibrating.photometer import Reference
from piod.jobs.calibrating.stirred import NotStirred
from piod.jobs.od.reference import ReferenceLost
from tests.jobs.calibrating.bench import IR, Bench, bench_on
from tests.jobs.test_od_reading import RP2040, USUAL, XR, lit, put_in, truth_volts

ONE = OdStandard(rpm=500.0, angles={"2": "90"})


async def seen(bench: Bench, od: float, request: OdStandard = ONE) -> OdStandardSeen:
    await put_in(bench.whole, od)
    return await bench.measure(od_standards.run, request)


async def test_voltages_of_a_session_follow_the_optics(bench: Bench) -> None:
    first = await seen(bench, 2.0)
    request = replace(ONE, reference=first.reference)
    volts = {2.0: first.volts["2"]}
    for od in (1.0, 0.5, 0.2, 0.05, 0.0):
        volts[od] = (await seen(bench, od, request)).volts["2"]
    truth = {od: truth_volts(od) for od in volts}
    assert {od: volts[od] / truth[od] for od in volts} == pytest.approx(
        dict.fromkeys(volts, 1.0), abs=0.015
    )


async def test_a_standard_takes_half_a_minute_and_tells_what_it_was_seen_at(bench: Bench) -> None:
    began_s = bench.clock.monotonic()
    one = await seen(bench, 0.5)
    assert 15 <= bench.clock.monotonic() - began_s <= 35
    assert one.rpm == pytest.approx(500, abs=120)
    assert one.ir_led_intensity == 80.0
    assert one.reference.percent == pytest.approx(100 * 204 / 257)
    assert one.reference.volts == pytest.approx(0.16 * 204 / 257, rel=0.01)
    assert 0 < one.spread_volts["2"] < 0.02 * one.volts["2"]
    assert set(one.volts) == {"2"}


async def test_each_photodiode_that_is_asked_for_is_seen(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with bench_on(tmp_path, clock, **XR) as bench:
        one = await seen(bench, 0.5, replace(ONE, angles={"1": "45", "2": "90"}))
    truth = {"1": truth_volts(0.5, gain=1.6), "2": truth_volts(0.5)}
    assert one.volts == pytest.approx(truth, rel=0.015)
    assert set(one.spread_volts) == {"1", "2"}


async def test_nothing_of_the_experiment_is_used_or_changed(bench: Bench) -> None:
    """Another REF than the session's would shift every voltage."""
    await bench.unit.memory.keep("ir_led_reference_normalization", {"volts": 0.5, "percent": 80.0})
    one = await seen(bench, 0.5)
    assert one.volts["2"] == pytest.approx(truth_volts(0.5), rel=0.015)
    kept = await bench.unit.memory.recall("ir_led_reference_normalization")
    assert kept == {"volts": 0.5, "percent": 80.0}


async def test_later_standards_are_seen_in_the_light_of_the_first(bench: Bench) -> None:
    one = await seen(bench, 0.5)
    assert one.reference.volts is not None
    doubled = Reference(one.reference.percent, 2 * one.reference.volts)
    other = await seen(bench, 0.5, replace(ONE, reference=doubled))
    assert other.volts["2"] == pytest.approx(2 * truth_volts(0.5), rel=0.015)
    assert other.reference == doubled


async def test_the_stirrer_holds_its_duty_cycle_while_the_light_is_on(bench: Bench) -> None:
    duties: set[float] = set()

    def watch() -> None:
        if bench.whole.plant.optics.levels[IR] > 0:
            duties.add(bench.whole.duty)
        bench.clock.call_at(bench.clock.monotonic() + 0.05, watch)

    watch()
    await seen(bench, 0.5)
    assert len(duties) == 1
    assert duties.pop() > 15


async def test_at_0_rpm_nothing_stirs(bench: Bench) -> None:
    one = await seen(bench, 0.5, replace(ONE, rpm=0.0))
    assert one.rpm == 0
    assert one.volts["2"] == pytest.approx(truth_volts(0.5), rel=0.01)
    assert bench.whole.plant.stirrer.turns == 0


async def test_the_classic_ratio_needs_no_first_reference(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    ini = USUAL.replace("unity", "classic")
    async with bench_on(tmp_path, clock, config_ini=ini) as bench:
        one = await seen(bench, 0.5)
    assert one.reference.volts is None
    assert one.volts["2"] == pytest.approx(truth_volts(0.5) / (0.16 * 204 / 257), rel=0.015)


async def test_without_a_ref_it_is_the_voltage(tmp_path: Path, clock: SimulatedClock) -> None:
    ini = USUAL + "[od_config.photodiode_channel]\n2=90\n"
    async with bench_on(tmp_path, clock, config_ini=ini) as bench:
        one = await seen(bench, 0.5)
    assert one.volts["2"] == pytest.approx(truth_volts(0.5), rel=0.015)


# -- refusals ----------------------------------------------------------------------


async def test_no_turn_is_refused_soon(bench: Bench) -> None:
    bench.whole.board.faults.add("stirrer_stall")
    began_s = bench.clock.monotonic()
    with pytest.raises(NotStirred, match="no turn"):
        await seen(bench, 0.5)
    assert bench.clock.monotonic() - began_s < 45


async def test_a_speed_that_is_not_reached_is_refused_with_what_was(bench: Bench) -> None:
    with pytest.raises(NotStirred, match=r"within 120 of 4000 RPM in 60 s; .* at 1[789]\d\d"):
        await seen(bench, 0.5, replace(ONE, rpm=4000.0))


async def test_a_bar_that_is_lost_during_the_readings_spoils_them(bench: Bench) -> None:
    await put_in(bench.whole, 0.5)
    bench.clock.call_at(
        bench.clock.monotonic() + 18, lambda: bench.whole.board.faults.add("stirrer_stall")
    )
    with pytest.raises(NotStirred, match="during the measurement"):
        await bench.measure(od_standards.run, ONE)


async def test_a_dark_ref_is_refused(tmp_path: Path, clock: SimulatedClock) -> None:
    async with bench_on(tmp_path, clock, angles={"pd2": "90"}) as bench:
        with pytest.raises(ReferenceLost, match=r"REF photodiode \(1\)"):
            await seen(bench, 0.5)


async def test_a_photodiode_that_sees_too_much_is_refused(bench: Bench) -> None:
    with pytest.raises(Unavailable, match="photodiode 2 reads"):
        await seen(bench, 12.0)
    one = await seen(bench, 0.5)
    assert one.volts["2"] == pytest.approx(truth_volts(0.5), rel=0.015)


async def test_one_failed_reading_is_made_up_for(bench: Bench) -> None:
    bench.clock.call_at(
        bench.clock.monotonic() + 15,
        lambda: bench.whole.board.faults.add("chip_reset", address=RP2040),
    )
    one = await seen(bench, 0.5)
    assert one.volts["2"] == pytest.approx(truth_volts(0.5), rel=0.015)


async def test_a_chip_that_is_gone_is_the_reason_and_is_waited_for(bench: Bench) -> None:
    """The IR LED, which is on, cannot be turned off until the chip answers again."""
    await put_in(bench.whole, 0.5)
    faults = bench.whole.board.faults

    async def break_in_the_light() -> None:
        await lit(bench.whole)
        faults.add("chip_missing", address=RP2040)
        await bench.clock.sleep(30)
        assert bench.outputs_on() == {IR: pytest.approx(80, abs=1)}
        faults.clear()

    breaking = asyncio.ensure_future(break_in_the_light())
    with pytest.raises(BusError, match="0x2C"):
        await bench.measure(od_standards.run, ONE)
    await breaking
    await seen(bench, 0.5)


async def test_another_intensity_than_that_of_the_standards_before_is_refused(
    bench: Bench,
) -> None:
    other = replace(ONE, reference=Reference(percent=50.0, volts=0.08))
    with pytest.raises(Conflict, match=r"79\.4 %, but at 50\.0 %"):
        await seen(bench, 0.5, other)


async def test_photodiodes_that_have_moved_are_refused(bench: Bench) -> None:
    for angles, reason in (
        ({"2": "45"}, "photodiode 2 is at 90°, not at 45°"),
        ({"1": "90"}, "photodiode 1 sees no vial"),
        ({}, "no photodiode"),
    ):
        with pytest.raises(PiodError, match=reason):
            await seen(bench, 0.5, replace(ONE, angles=angles))


async def test_an_intensity_that_is_chosen_anew_each_time_is_refused(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    ini = USUAL + "ir_led_intensity=auto\n"
    async with bench_on(tmp_path, clock, config_ini=ini) as bench:
        with pytest.raises(ConfigurationError, match="ir_led_intensity is auto"):
            await seen(bench, 0.5)


async def test_an_rpm_that_is_none_is_refused(bench: Bench) -> None:
    for rpm in (-1.0, 5001.0, math.nan, math.inf):
        with pytest.raises(BadRequest, match="rpm must be 0 to 5000"):
            await seen(bench, 0.5, replace(ONE, rpm=rpm))


@pytest.mark.parametrize("job_name", ["stirring", "od_reading"])
async def test_hardware_in_use_is_refused_with_the_job(bench: Bench, job_name: str) -> None:
    await bench.whole.run(job_name)
    with pytest.raises(PiodError, match=rf"in use by {job_name} \(job"):
        await od_standards.run(bench.unit, ONE, bench.told.append)
    assert (await bench.whole.settings(job_name))["$state"] == "ready"


# -- outputs -----------------------------------------------------------------------


async def test_cancelling_at_any_moment_turns_everything_off_at_once(bench: Bench) -> None:
    await put_in(bench.whole, 0.5)
    drawn = random.Random(9)
    was_on = 0
    for _ in range(10):
        after_s = drawn.uniform(0.01, 20)
        was_on += await bench.cancelled(od_standards.run, ONE, after_s)
    assert was_on == 10
    await seen(bench, 0.5)


async def test_cancelling_while_the_light_is_on_turns_it_off_at_once(bench: Bench) -> None:
    """At instants within one reading, from the first sample on."""
    await put_in(bench.whole, 0.5)
    for wait_s in (0.0, 0.01, 0.1, 0.3, 0.4):
        doing = asyncio.ensure_future(od_standards.run(bench.unit, ONE, bench.told.append))
        while bench.whole.plant.optics.levels[IR] == 0:
            await bench.clock.sleep(0.005)
        await bench.clock.sleep(wait_s)
        assert bench.whole.plant.optics.levels[IR] > 0
        began_s = bench.clock.monotonic()
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        assert bench.outputs_on() == {}
        assert bench.clock.monotonic() - began_s < 0.1


def test_a_result_is_what_json_can_hold() -> None:
    one = OdStandardSeen({"2": 0.1}, {"2": 0.0}, 500.0, 80.0, Reference(79.4, None))
    assert asdict(one)["reference"] == {"percent": 79.4, "volts": None}
    assert Reference(**asdict(one)["reference"]) == one.reference
