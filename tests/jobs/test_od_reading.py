"""OD readings over HTTP, on the simulated photodiodes and culture."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from piod.clock import SimulatedClock
from piod.errors import StorageFull
from piod.events import JsonValue, ReadingTaken
from piod.jobs.od.meter import FIRST_REFERENCE
from piod.storage.memory import ExperimentMemory
from tests.unit import Unit, running_unit

USUAL = "[leds]\nA=IR\nC=white\n[od_reading.config]\nref_normalization=unity\n"
XR: dict[str, Any] = {
    "wired_for": ("pioreactor_20ml_XR", "1.5"),
    "angles": {"pd1": "45", "pd2": "90", "pd3": "135", "pd4": "REF"},
    "config_ini": USUAL + "[od_config.photodiode_channel]\n1=45\n2=90\n3=135\n4=REF\n",
}
RP2040 = 0x2C
IR = "A"


def truth_volts(biomass: float, percent: float = 80.0, gain: float = 1.0) -> float:
    """What the photodiode at 90° gives (handbook §6.4), gain 1.6: at 45°.

    The LED driver of the RP2040 has levels of 1/257.
    """
    blank = {1.0: 0.019, 1.6: 0.030}[gain]
    return round(255 * percent / 100) / 257 * (blank + gain * 0.375 * biomass / (1 + biomass / 10))


class Readings:
    """Every reading of a unit, as it is taken."""

    def __init__(self, unit: Unit) -> None:
        self.taken: list[ReadingTaken] = []
        self._task = asyncio.ensure_future(self._follow(unit))

    async def _follow(self, unit: Unit) -> None:
        with unit.daemon.hub.subscribe() as events:
            async for event in events:
                if isinstance(event, ReadingTaken):
                    self.taken.append(event)

    def of(self, kind: str, channel: str | None = None) -> list[ReadingTaken]:
        return [one for one in self.taken if one.kind == kind and channel in (None, one.channel)]

    def values(self, kind: str = "od", channel: str | None = None) -> list[float]:
        return [one.value for one in self.of(kind, channel)]

    def times(self) -> list[float]:
        return [one.at for one in self.of("od")]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def od_unit(
    tmp_path: Path, clock: SimulatedClock, **kwargs: Any
) -> AsyncIterator[tuple[Unit, Readings]]:
    """A unit whose plant does not change by itself, and what is read on it."""
    kwargs.setdefault("config_ini", USUAL)
    async with running_unit(tmp_path, clock, **kwargs) as unit:
        await put_in(unit, 0.5)
        readings = Readings(unit)
        await asyncio.sleep(0)
        try:
            yield unit, readings
        finally:
            await readings.close()


async def put_in(unit: Unit, od: float) -> None:
    """A vial with a standard of that OD."""
    changes = {"vial": {"standard_od": od}}
    status, body = await unit.request("PATCH", "/simulator/plant", changes)
    assert status == 200, body


async def fault(unit: Unit, kind: str, **params: object) -> None:
    status, body = await unit.request("POST", "/simulator/faults", {"kind": kind, **params})
    assert status in (200, 201), body


async def lit(unit: Unit) -> None:
    """Wait for a moment in which the IR LED is on and the photodiodes are looked at."""
    while unit.plant.optics.levels[IR] == 0:
        await unit.clock.sleep(0.01)
    await unit.clock.sleep(0.2)


def calibration(percent: float = 80.0, top: float = 8.0) -> dict[str, object]:
    """An upload of a calibration of od90 that is the plant's truth, recorded up to ``top``."""
    knots = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]
    knots = [knot for knot in knots if knot <= top]
    volts = [truth_volts(knot, percent) for knot in knots]
    rows = [
        [low, (high - low) / (right - left), 0.0, 0.0]
        for (left, low), (right, high) in itertools.pairwise(zip(knots, volts, strict=True))
    ]
    record = {
        "calibration_type": "od600",
        "calibration_name": "truth",
        "calibrated_on_pioreactor_unit": "pio01",
        "created_at": "2026-01-01T00:00:00Z",
        "curve_data_": {"type": "spline", "knots": knots, "coefficients": rows},
        "recorded_data": {"x": knots, "y": volts},
        "ir_led_intensity": percent,
        "angle": "90",
        "pd_channel": "2",
    }
    text = json.dumps(record).replace('"2026-01-01T00:00:00Z"', "2026-01-01T00:00:00Z")
    return {"calibration_data": text}


async def calibrate(unit: Unit, **kwargs: float) -> None:
    body = {**calibration(**kwargs), "set_as_active": True}
    status, answer = await unit.request("POST", "/unit_api/calibrations/od90", body)
    assert status == 201, answer


async def published(unit: Unit, setting: str) -> Any:
    return json.loads((await unit.settings("od_reading"))[setting])


# -- the figures ------------------------------------------------------------------


@pytest.mark.parametrize("od", [0.0, 0.1, 5.0])
async def test_readings_are_the_voltage_that_the_photodiode_really_gives(
    od: float, tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await put_in(unit, od)
        await unit.run("od_reading")
        await clock.sleep(101)
        values = readings.values()
        assert len(values) == 21
        assert statistics.fmean(values) == pytest.approx(truth_volts(od), rel=0.01, abs=2.5e-4)
        assert statistics.stdev(values) < 0.005 * truth_volts(od)


@pytest.mark.parametrize("od", [0.2, 0.6, 4.0])
async def test_the_dark_offset_is_the_same_voltage_at_each_gain(
    od: float, tmp_path: Path, clock: SimulatedClock
) -> None:
    """D-3: upstream's, in counts, would take 8 mV and more off 0.5 V; and D-1, the gain."""
    async with od_unit(tmp_path, clock, **XR) as (unit, readings):
        await put_in(unit, od)
        await unit.run("od_reading")
        await clock.sleep(50)
        for channel, gain in (("2", 1.0), ("1", 1.6)):
            expected = truth_volts(od, gain=gain)
            mean = statistics.fmean(readings.values("od", channel))
            assert mean == pytest.approx(expected, rel=0.005)


async def test_a_gain_that_was_too_fine_costs_one_reading(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock, **XR) as (unit, readings):
        await put_in(unit, 0.2)
        await unit.run("od_reading")
        await clock.sleep(21)
        before = len(readings.values("od", "2"))
        await put_in(unit, 4.0)
        await clock.sleep(10)
        after = readings.values("od", "2")[before:]
        assert len(after) == 1
        assert after[0] == pytest.approx(truth_volts(4.0), rel=0.02)
        assert "problem" not in await unit.settings("od_reading")


async def test_classic_normalisation_is_the_ratio_to_ref(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    ini = USUAL.replace("unity", "classic")
    async with od_unit(tmp_path, clock, config_ini=ini) as (unit, readings):
        await unit.run("od_reading")
        await clock.sleep(60)
        expected = truth_volts(0.5) / (0.8 * 0.16)
        assert statistics.fmean(readings.values()) == pytest.approx(expected, rel=0.01)


async def test_an_experiment_keeps_its_first_ref_over_a_restart(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await unit.run("od_reading", options={"ir_led_intensity": 80})
        await clock.sleep(60)
        assert (await published(unit, "relative_intensity_of_ir_led"))[
            "relative_intensity_of_ir_led"
        ] == pytest.approx(1.0, abs=0.01)
        await unit.post("/unit_api/jobs/stop", {"job_name": "od_reading"})
        seen = len(readings.values())
        await unit.run("od_reading", options={"ir_led_intensity": 40})
        await clock.sleep(60)
        brightness = await published(unit, "relative_intensity_of_ir_led")
        assert brightness["relative_intensity_of_ir_led"] == pytest.approx(0.5, abs=0.01)
        now = statistics.fmean(readings.values()[seen:])
        assert now == pytest.approx(truth_volts(0.5), rel=0.01)


async def test_another_intensity_moves_no_od(tmp_path: Path, clock: SimulatedClock) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        job_id = await unit.run("od_reading")
        await clock.sleep(62)
        assert (await unit.change(job_id, ir_led_intensity=50))[0] == 200
        await lit(unit)
        assert unit.plant.optics.levels[IR] == pytest.approx(50, abs=0.5)
        await clock.sleep(60)
        assert readings.values() == pytest.approx(
            [truth_volts(0.5)] * len(readings.values()), rel=0.02
        )
        assert (await published(unit, "od2"))["ir_led_intensity"] == 50


@pytest.mark.parametrize("offset_s", [0.0, 0.2, 0.5], ids=["first", "looking", "last"])
async def test_another_intensity_moves_no_od_though_the_first_reading_at_it_fails(
    tmp_path: Path, clock: SimulatedClock, offset_s: float
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        job_id = await unit.run("od_reading")
        await clock.sleep(62)
        for percent in (40, 90):
            taken = len(readings.values())
            await unit.change(job_id, ir_led_intensity=percent)
            while unit.plant.optics.levels[IR] == 0:
                await clock.sleep(0.005)
            await clock.sleep(offset_s)
            await fault(unit, "chip_missing", address=RP2040)
            await clock.sleep(2)
            assert len(readings.values()) == taken
            assert "none was taken" in (await unit.settings("od_reading"))["problem"]
            await unit.request("DELETE", "/simulator/faults")
            await fault(unit, "bubbles", probability=0)
            await clock.sleep(30)
            now = readings.values()[taken:]
            assert len(now) >= 5
            assert now == pytest.approx([truth_volts(0.5)] * len(now), rel=0.03)


async def test_the_first_ref_is_kept_though_the_disk_was_full_when_it_was_read(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, refusals = ExperimentMemory.keep, 0

    async def full_twice(self: ExperimentMemory, key: str, value: JsonValue) -> None:
        nonlocal refusals
        if key == FIRST_REFERENCE and refusals < 2:
            refusals += 1
            raise StorageFull("the disk is full")
        await keep(self, key, value)

    monkeypatch.setattr(ExperimentMemory, "keep", full_twice)
    async with od_unit(tmp_path, clock) as (unit, readings):
        await unit.run("od_reading")
        await clock.sleep(2)
        assert len(readings.values()) == 1, "a reading is not lost for it"
        assert "the disk is full" in (await unit.settings("od_reading"))["problem"]
        await clock.sleep(20)
        assert "problem" not in await unit.settings("od_reading")
        await unit.post("/unit_api/jobs/stop", {"job_name": "od_reading"})
        seen = len(readings.values())
        await unit.run("od_reading", options={"ir_led_intensity": 40})
        await clock.sleep(60)
        now = statistics.fmean(readings.values()[seen:])
        assert now == pytest.approx(truth_volts(0.5), rel=0.01)


@pytest.mark.parametrize(("hat", "settle_s"), [("1.2", 0.125), ("1.0", 0.125), ("1.0", 0.25)])
async def test_no_reading_takes_longer_than_its_schedule_says(
    tmp_path: Path, clock: SimulatedClock, hat: str, settle_s: float
) -> None:
    told = f"duration_between_led_off_and_od_reading={settle_s}\n"
    async with od_unit(tmp_path, clock, hat_version=hat, config_ini=USUAL + told) as (unit, _):
        await put_in(unit, 2.0)
        await unit.run("od_reading")
        await clock.sleep(12)
        schedule = await published(unit, "schedule")
        for od in (2.0, 0.1):  # at last a drop, which is looked into
            await put_in(unit, od)
            while unit.plant.optics.levels[IR] == 0:
                await clock.sleep(0.005)
            began_s = ended_s = clock.monotonic()
            while clock.monotonic() - began_s < 3:
                if unit.plant.optics.levels[IR] > 0:
                    ended_s = clock.monotonic()
                await clock.sleep(0.005)
            took_s = ended_s - began_s
            assert 0.5 < took_s <= schedule["reading_s"]
        assert took_s > schedule["reading_s"] - 0.3, "and it does not say far too long"


async def test_auto_intensity_suits_the_brightest_signal(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock, config_ini=USUAL + "ir_led_intensity=auto\n") as (unit, _):
        await put_in(unit, 0.2)
        await unit.run("od_reading")
        percent = float((await unit.settings("od_reading"))["ir_led_intensity"])
        expected = 0.06 * 85 / truth_volts(0.2, 85)
        assert percent == pytest.approx(expected, rel=0.05)
        assert 50 < percent < 85


# -- calibration ------------------------------------------------------------------


async def test_an_active_calibration_gives_the_od_of_the_standard(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await calibrate(unit)
        await put_in(unit, 1.5)
        await unit.run("od_reading")
        await clock.sleep(100)
        assert statistics.fmean(readings.values("od")) == pytest.approx(1.5, rel=0.02)
        assert statistics.fmean(readings.values("raw_od")) == pytest.approx(
            truth_volts(1.5), rel=0.01
        )
        od2 = await published(unit, "od2")
        assert (od2["calibrated"], od2["calibration_name"]) == (1, "truth")
        assert await published(unit, "calibrated_od2") == od2
        assert (await published(unit, "ods"))["ods"] == {"2": od2}
        assert (await published(unit, "raw_od2"))["calibrated"] == 0
        assert readings.of("od")[-1].details == {
            "angle": "90",
            "calibrated": True,
            "calibration": "truth",
        }


async def test_a_calibration_of_another_intensity_leaves_raw_od_alone(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await calibrate(unit, percent=70.0)
        job_id = await unit.run("od_reading")
        await clock.sleep(11)
        assert readings.values("od") == []
        assert len(readings.values("raw_od")) == 3
        settings = await unit.settings("od_reading")
        assert "od2" not in settings
        assert "made with the IR LED at 70 %, which is now at 80 %" in settings["problem"]
        await unit.change(job_id, ir_led_intensity=70)
        await clock.sleep(10)
        assert readings.values("od") == pytest.approx([0.5, 0.5], rel=0.05)
        assert "problem" not in await unit.settings("od_reading")


async def test_od_outside_the_calibration_is_the_end_of_its_range(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await calibrate(unit, top=1.0)
        await put_in(unit, 3.0)
        await unit.run("od_reading")
        await clock.sleep(11)
        assert readings.values("od") == [1.0] * 3
        assert "outside the range" in (await unit.settings("od_reading"))["problem"]


# -- schedule and light -------------------------------------------------------------


async def test_readings_keep_to_their_schedule_whatever_else_goes_on(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await unit.run("led_intensity", options={"C": 50})
        await unit.run("stirring")
        await unit.run("od_reading")
        await clock.sleep(200)
        first = float((await unit.settings("od_reading"))["first_od_obs_time"])
        late = [at - first - 5 * index for index, at in enumerate(readings.times())]
        assert len(late) >= 40
        assert max(map(abs, late)) < 0.05


async def test_a_jump_of_the_clock_moves_no_reading(tmp_path: Path, clock: SimulatedClock) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await unit.run("od_reading")
        await clock.sleep(12)
        clock.offset_s += 3600
        await clock.sleep(10)
        times = readings.times()
        assert len(times) == 5
        steps = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert steps == pytest.approx([5, 5, 3605, 5], abs=0.05)


async def test_a_new_interval_counts_from_the_last_reading(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        job_id = await unit.run("od_reading", options={"interval": 10})
        await clock.sleep(12)
        await unit.change(job_id, interval=4)
        await clock.sleep(7)
        times = readings.times()
        steps = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert steps[:2] == pytest.approx([10, 4], abs=0.05)
        status, body = await unit.change(job_id, interval=0.5)
        assert status == 400
        assert "at least" in body["error"] or "1 to" in body["error"]


async def test_other_leds_are_dark_while_it_looks_and_on_again_afterwards(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await unit.run("led_intensity", options={"C": 50})
        await unit.run("od_reading")
        seen = []
        for _ in range(1000):
            levels = unit.plant.optics.levels
            seen.append((levels[IR] > 0, levels["C"] > 0))
            await clock.sleep(0.01)
        assert (True, True) not in seen
        shining = seen.count((False, True)) / len(seen)
        assert 0.85 < shining < 0.95
        assert statistics.fmean(readings.values()) == pytest.approx(truth_volts(0.5), rel=0.02)


async def test_sleep_is_dark_and_waking_keeps_to_the_schedule(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        job_id = await unit.run("od_reading")
        await clock.sleep(11)
        await lit(unit)
        assert (await unit.change(job_id, state="sleeping"))[0] == 200
        assert unit.plant.optics.levels[IR] == 0
        taken = len(readings.values())
        assert "schedule" not in await unit.settings("od_reading")
        await clock.sleep(33)
        assert (unit.plant.optics.levels[IR], len(readings.values())) == (0, taken)
        await unit.change(job_id, state="ready")
        await clock.sleep(20)
        first = readings.times()[0]
        late = [(at - first + 2.5) % 5 - 2.5 for at in readings.times()]
        assert len(late) >= taken + 3
        assert max(map(abs, late)) < 0.05


async def test_a_new_interval_while_it_sleeps_plans_no_reading_until_it_wakes(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, config_ini=USUAL) as unit:
        job_id = await unit.run("od_reading")
        await clock.sleep(12)
        await unit.change(job_id, state="sleeping")
        await unit.change(job_id, interval=8)
        assert "schedule" not in await unit.settings("od_reading")
        await unit.change(job_id, state="ready")
        schedule = json.loads((await unit.settings("od_reading"))["schedule"])
        assert schedule["interval_s"] == 8


async def test_stop_in_the_middle_of_a_reading_turns_the_ir_led_off_at_once(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, _):
        await unit.run("od_reading")
        await lit(unit)
        assert unit.plant.optics.levels[IR] > 0
        began = clock.monotonic()
        await unit.post("/unit_api/jobs/stop", {"job_name": "od_reading"})
        assert unit.plant.optics.levels[IR] == 0
        assert clock.monotonic() - began < 1.0
        row = (await unit.history())[0]
        assert (row["job_name"], row["is_running"]) == ("od_reading", 0)


async def test_a_snapshot_is_one_reading(tmp_path: Path, clock: SimulatedClock) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await unit.run("od_reading", options={"snapshot": None})
        await clock.sleep(20)
        assert readings.values() == pytest.approx([truth_volts(0.5)], rel=0.02)
        assert (await unit.history())[0]["is_running"] == 0


async def test_fake_data_needs_no_hardware(tmp_path: Path, clock: SimulatedClock) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await fault(unit, "device_missing", bus="i2c")
        await unit.run("od_reading", options={"fake_data": True})
        await clock.sleep(3600)
        values = readings.values()
        assert len(values) >= 720
        assert values[-1] / values[0] == pytest.approx(1.34, rel=0.05)


async def test_the_ir_led_of_another_job_is_refused_by_its_name(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, _):
        await unit.run("led_intensity", options={"A": 10})
        task = await unit.post("/unit_api/jobs/run/job_name/od_reading", {})
        assert task["status"] == "failed"
        assert "led_intensity" in task["error"]


# -- guards and faults -----------------------------------------------------------------


async def test_a_wrapped_adc_is_told_from_a_dark_photodiode(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    """HAZ-9: 1.70 V read as 0.05 V."""
    async with od_unit(tmp_path, clock) as (unit, readings):
        await put_in(unit, 9.0)
        await unit.run("od_reading")
        await clock.sleep(11)
        assert len(readings.values()) == 3
        await put_in(unit, 13.0)
        await clock.sleep(15)
        assert len(readings.values()) == 3
        assert "wrapped around" in (await unit.settings("od_reading"))["problem"]
        await put_in(unit, 0.2)
        await clock.sleep(10)
        assert readings.values()[3:] == pytest.approx([truth_volts(0.2)] * 2, rel=0.02)
        assert "problem" not in await unit.settings("od_reading")


async def test_an_adc_that_is_wrapped_from_the_start_is_recognised(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await put_in(unit, 13.0)
        await unit.run("od_reading")
        await clock.sleep(11)
        assert readings.values() == []
        assert "wrapped around" in (await unit.settings("od_reading"))["problem"]


async def test_a_real_drop_is_believed_at_once(tmp_path: Path, clock: SimulatedClock) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await put_in(unit, 5.0)
        await unit.run("od_reading")
        await clock.sleep(11)
        await put_in(unit, 0.1)
        await clock.sleep(20)
        assert len(readings.values()) == 7
        assert readings.values()[-1] == pytest.approx(truth_volts(0.1), rel=0.03)


async def test_too_much_light_ends_the_job_with_the_led_off(
    tmp_path: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with od_unit(tmp_path, clock, **XR) as (unit, readings):
        await put_in(unit, 8.0)
        await unit.run("od_reading")
        await clock.sleep(11)
        await put_in(unit, 17.0)
        await clock.sleep(25)
        assert "sees too much light" in (await unit.settings("od_reading"))["problem"]
        assert len(readings.values("od", "1")) >= 6
        await put_in(unit, 30.0)
        await clock.sleep(15)
        assert (await unit.history())[0]["is_running"] == 0
        assert unit.plant.optics.levels[IR] == 0
        assert "its ADC may be harmed" in caplog.text
        again = {"options": {"interval": 6}}
        task = await unit.post("/unit_api/jobs/run/job_name/od_reading", again)
        assert task["status"] == "failed"
        assert "its ADC may be harmed" in task["error"]
        assert unit.plant.optics.levels[IR] == 0


async def test_a_chip_that_is_not_there_refuses_the_start_with_the_reason(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, _):
        await fault(unit, "chip_missing", address=RP2040)
        task = await unit.post("/unit_api/jobs/run/job_name/od_reading", {})
        assert task["status"] == "failed"
        assert "0x2C" in task["error"]


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("chip_missing", {"address": RP2040}),
        ("i2c_stuck", {"recoverable": False}),
        ("device_missing", {"bus": "i2c"}),
        ("bus_error", {"bus": "i2c"}),
    ],
)
async def test_it_reads_again_when_the_bus_works_again(
    kind: str, params: dict[str, object], tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        job_id = await unit.run("od_reading")
        await clock.sleep(6)
        await lit(unit)
        await fault(unit, kind, **params)
        await clock.sleep(20)
        settings = await unit.settings("od_reading")
        assert (settings["$state"], settings["restarts"]) == ("ready", "0")
        assert "none was taken" in settings["problem"]
        taken = len(readings.values())
        await unit.request("DELETE", "/simulator/faults")
        # each of several hundred readings is looked at: none is to meet a bubble
        await fault(unit, "bubbles", probability=0)
        await asyncio.sleep(0.5)  # a device that is missing is looked for in wall time
        await clock.sleep(4.0)
        assert unit.plant.optics.levels[IR] == 0
        await clock.sleep(21)
        assert len(readings.values()) >= taken + 3
        assert readings.values()[taken:] == pytest.approx(
            [truth_volts(0.5)] * (len(readings.values()) - taken), rel=0.03
        )
        first = readings.times()[0]
        assert max(abs((at - first + 2.5) % 5 - 2.5) for at in readings.times()) < 0.05
        assert "problem" not in await unit.settings("od_reading")
        assert (await unit.history())[0]["job_id"] == job_id


async def test_single_refusals_of_a_chip_cost_nothing(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await unit.run("od_reading")
        await clock.sleep(6)
        await lit(unit)
        await fault(unit, "nack", address=RP2040, count=1)
        await clock.sleep(11)
        assert len(readings.values()) == 5


@pytest.mark.parametrize("seconds", [0, 0.1, 2])
async def test_a_reset_in_the_middle_of_a_reading_gives_no_false_od(
    seconds: float, tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock) as (unit, readings):
        await unit.run("od_reading")
        await clock.sleep(6)
        await lit(unit)
        await fault(unit, "chip_reset", address=RP2040, seconds=seconds)
        await clock.sleep(30)
        assert len(readings.values()) >= 6
        assert readings.values() == pytest.approx(
            [truth_volts(0.5)] * len(readings.values()), rel=0.03
        )
        settings = await unit.settings("od_reading")
        assert (settings["$state"], settings["restarts"]) == ("ready", "0")
        assert "problem" not in settings


async def test_photodiodes_that_cannot_be_are_refused(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    wrong = {
        "1=REF\n2=REF\n": "is REF already",
        "1=REF\n2=60\n": "angle is 45, 90, 135, 180 or REF",
        "1=REF\n4=90\n": "no photodiode channel '4'",
        "1=REF\n2=\n": "no photodiode that sees the vial",
    }
    async with od_unit(tmp_path, clock) as (unit, _):
        for index, (section, named) in enumerate(wrong.items()):
            ini = f"{USUAL}[od_config.photodiode_channel]\n{section}"
            (unit.data_dir / "config.ini").write_text(ini)
            options = {"options": {"interval": 5 + index}}
            task = await unit.post("/unit_api/jobs/run/job_name/od_reading", options)
            assert task["status"] == "failed"
            assert named in task["error"]


# -- several angles ----------------------------------------------------------------


def estimator(percent: float) -> str:
    """A fused estimator that is the plant's truth, in steps of a quarter of log10 OD."""
    knots = [-2 + index / 4 for index in range(13)]
    shapes = {"45": (0.030, 1.6), "90": (0.019, 1.0), "135": (0.015, 0.7)}
    light = round(255 * percent / 100) / 257

    def curve(values: list[float]) -> dict[str, Any]:
        points = list(zip(knots, values, strict=True))
        rows = [
            [low, (high - low) / (right - left), 0.0, 0.0]
            for (left, low), (right, high) in itertools.pairwise(points)
        ]
        return {"type": "akima", "knots": knots, "coefficients": rows}

    mu, sigma = {}, {}
    for angle, (blank, gain) in shapes.items():
        ods = [10**knot for knot in knots]
        seen = [light * (blank + gain * 0.375 * od / (1 + od / 10)) for od in ods]
        mu[angle] = curve([math.log(volts) for volts in seen])
        sigma[angle] = curve([math.log(0.02)] * len(knots))
    record = {
        "estimator_type": "od_fused_estimator",
        "estimator_name": "truth",
        "calibrated_on_pioreactor_unit": "pio01",
        "created_at": "2026-01-01T00:00:00Z",
        "ir_led_intensity": percent,
        "angles": ["45", "90", "135"],
        "mu_splines": mu,
        "sigma_splines_log": sigma,
        "min_logc": knots[0],
        "max_logc": knots[-1],
        "sigma_floor": 0.001,
        "recorded_data": {},
    }
    return json.dumps(record).replace('"2026-01-01T00:00:00Z"', "2026-01-01T00:00:00Z")


async def test_an_active_estimator_makes_one_od_of_all_angles(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with od_unit(tmp_path, clock, **XR) as (unit, readings):
        folder = tmp_path / "storage" / "estimators" / "od_fused"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "truth.yaml").write_text(estimator(80.0))
        status, answer = await unit.request(
            "PATCH", "/unit_api/active_estimators/od_fused/truth", None
        )
        assert status == 200, answer
        await put_in(unit, 10**0.25)
        job_id = await unit.run("od_reading")
        await clock.sleep(31)
        fused = readings.values("od_fused")
        assert len(fused) == 7
        assert statistics.fmean(fused) == pytest.approx(10**0.25, rel=0.02)
        assert (await published(unit, "od_fused"))["od_fused"] == fused[-1]
        await unit.change(job_id, ir_led_intensity=70)
        await clock.sleep(10)
        assert len(readings.values("od_fused")) == 7
        settings = await unit.settings("od_reading")
        assert "od_fused" not in settings
        assert "the estimator 'truth' was made with the IR LED at 80 %" in settings["problem"]
