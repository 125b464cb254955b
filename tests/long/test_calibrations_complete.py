"""Each protocol from its start to an active calibration, over HTTP, on the simulated plant.

The person's part is played through ``PATCH /simulator/plant``. The curve is held against the
plant's truth over its range, then the job that uses it against the same job without it.
Prints the figures.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from piod.calibrations.estimators import parse_estimator
from piod.calibrations.records import Calibration, parse_calibration
from piod.clock import SimulatedClock
from piod.hw.simulator.optics import BLANK_VOLTS, CELL_GAIN, CELL_VOLTS, SATURATION_OD
from piod.hw.simulator.pumps import DEAD_TIME_S, NOMINAL_ML_PER_S
from tests.jobs.test_od_reading import XR, Readings, truth_volts
from tests.person import Inputs, Person, patch, put_in
from tests.unit import Unit, running_unit

pytestmark = pytest.mark.long

FULL_SCALE_PART = 0.03
FUSED_PART = 0.1
PLACES = 50
VIAL = "[bioreactor]\ninitial_volume_ml = 10\nefflux_tube_volume_ml = 15\n"
SEEDS = (1, 2, 3)
FUSING: dict[str, Any] = {**XR, "default_model": XR["wired_for"]}


async def the_active(unit: Unit, device: str, link: Mapping[str, Any]) -> Calibration:
    """The calibration that the result links to; it is the active one."""
    active = await unit.get("/unit_api/active_calibrations")
    assert active[device]["calibration_name"] == link["calibration_name"]
    assert link["device"] == device
    return parse_calibration(_text_of(link["path"]))


def _text_of(path: str) -> str:
    return Path(path).read_text()


def worst_part(calibration: Calibration, truth: Mapping[float, float]) -> float:
    """How far the curve is from the truth at worst, as a part of the truth's full scale."""
    full = max(truth.values())
    return max(abs(calibration.x_to_y(x) - y) for x, y in truth.items()) / full


def places(calibration: Calibration) -> list[float]:
    low, high = calibration.domain
    return [low + (high - low) * i / (PLACES - 1) for i in range(PLACES)]


# -- a pump -------------------------------------------------------------------------------


class Scale:
    """What a person weighs: what the pump has moved since the last time, to 0.01 mL."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._seen_ml = 0.0

    async def weigh(self) -> float:
        truth = await self._unit.get("/simulator/plant")
        before, self._seen_ml = self._seen_ml, truth["pumps"]["media"]["pumped_ml"]
        await patch(self._unit, volume_ml=10.0)  # the vial that was pumped into
        return self._seen_ml - before

    async def typed(self) -> Inputs:
        return {"volume_ml": round(await self.weigh(), 2)}


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_pump(tmp_path: Path, clock: SimulatedClock, seed: int) -> None:
    async with running_unit(tmp_path, clock, seed=seed, config_ini=VIAL) as unit:
        scale = Scale(unit)

        async def emptied() -> Inputs:
            await scale.weigh()
            return {}

        async def dosed(**options: object) -> float:
            await scale.weigh()
            await unit.run("add_media", options=options)
            await clock.sleep(60)
            return await scale.weigh()

        nominal_ml = await dosed(duration=1.0 / NOMINAL_ML_PER_S)
        person = await Person.begin(unit, "duration_based", "media_pump")
        await person.walk(
            {
                "name_input": {"calibration_name": "mine"},
                "volume_targets": {"mls_to_calibrate_for": [0.5, 1.0]},
                "pwm_settings": {"hz": 250, "dc": 100},
                "prime_pump_duration": {"prime_duration_s": 15},
                "tracer_run": emptied,
                "tracer_volume": scale.typed,
                "test_volume": scale.typed,
            }
        )
        calibration = await the_active(unit, "media_pump", person.result["calibration_link"])
        rate = unit.plant.pumps["media"].ml_per_s
        truth = {s: rate * (s - DEAD_TIME_S) for s in places(calibration)}
        part = worst_part(calibration, truth)
        calibrated_ml = await dosed(ml=1.0)
        print(
            f"\npump, seed {seed}: curve within {100 * part:.2f} % of full scale; 1 mL by "
            f"calibration {calibrated_ml:.3f}, by the nominal rate {nominal_ml:.3f}"
        )
        assert part <= FULL_SCALE_PART
        assert abs(calibrated_ml - 1) <= 0.03
        assert abs(calibrated_ml - 1) < abs(nominal_ml - 1)


# -- the stirrer --------------------------------------------------------------------------


@pytest.mark.parametrize("rpm_per_percent", [17.0, 18.5, 23.0])
async def test_the_stirrer(tmp_path: Path, clock: SimulatedClock, rpm_per_percent: float) -> None:
    """Its motor is another than the nominal one of 20 RPM for each percent."""
    async with running_unit(tmp_path, clock, config_ini=VIAL) as unit:
        await patch(unit, stirrer={"rpm_per_percent": rpm_per_percent})

        async def misses(*targets: float) -> list[float]:
            """RPM off the target 8 s after the start, before any measurement corrects it."""
            missed = []
            for target in targets:
                job_id = await unit.run("stirring", options={"target_rpm": target})
                await clock.sleep(8)
                unit.board.truth()
                missed.append(abs(unit.plant.stirrer.rpm - target))
                await unit.change(job_id, state="disconnected")
                await clock.sleep(5)
            return missed

        before = await misses(400.0, 500.0, 600.0)
        person = await Person.begin(unit, "dc_based", "stirring")
        await person.walk({})
        [link] = person.result["calibrations"]
        calibration = await the_active(unit, "stirring", link)
        stirrer = unit.plant.stirrer
        truth = {duty: stirrer.steady_rpm(duty, 15.0) for duty in places(calibration)}
        part = worst_part(calibration, truth)
        after = await misses(401.0, 501.0, 601.0)  # the same again would be too soon
        print(
            f"\nstirrer, {rpm_per_percent} RPM/%: curve within {100 * part:.2f} % of full "
            f"scale; after 8 s off by {statistics.fmean(after):.1f} RPM, without "
            f"{statistics.fmean(before):.1f}"
        )
        assert part <= FULL_SCALE_PART
        assert statistics.fmean(after) < statistics.fmean(before)


# -- optical density ----------------------------------------------------------------------


INTERVALS_S = (5 + i / 1000 for i in itertools.count())


async def od_read(unit: Unit, kind: str, od: float) -> float:
    """What od_reading makes of a vial of that OD: the median of its readings in a minute."""
    await put_in(unit, od)
    readings = Readings(unit)
    try:
        # the same options again would be too soon for the unit
        interval_s = next(INTERVALS_S)
        job_id = await unit.run("od_reading", options={"interval": interval_s})
        await unit.clock.sleep(60)
        await unit.change(job_id, state="disconnected")
        await unit.clock.sleep(5)
        return statistics.median(readings.values(kind))
    finally:
        await readings.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_photodiode(tmp_path: Path, clock: SimulatedClock, seed: int) -> None:
    async with running_unit(
        tmp_path, clock, seed=seed, config_ini="[od_reading.config]\nref_normalization=unity\n"
    ) as unit:
        checked = (0.3, 0.75, 1.5, 3.0)
        before = {od: await od_read(unit, "od", od) for od in checked}
        left = iter(standards := (4.0, 2.0, 1.0, 0.5, 0.25, 0.1))
        last = standards[-1]

        async def standard() -> Inputs:
            od = next(left)
            await put_in(unit, od)
            return {"od600_value": od}

        async def blank() -> Inputs:
            await put_in(unit, 0.0)
            return {"od600_blank": 0}

        async def more() -> Inputs:
            done = person.data["od600_values"][-1] == last
            return {"next_action": person.step["fields"][0]["options"][1 if done else 0]}

        person = await Person.begin(unit, "standards", "od90")
        await person.walk(
            {
                "name_input": {"calibration_name": "mine"},
                "rpm_input": {"rpm": 500},
                "measure_standard": standard,
                "another_standard": more,
                "measure_blank": blank,
            }
        )
        [link] = person.result["calibrations"]
        calibration = await the_active(unit, "od90", link)
        part = worst_part(calibration, {od: truth_volts(od) for od in places(calibration)})
        after = {od: await od_read(unit, "od", od) for od in checked}
        tell("od90", seed, part, before, after)
        assert part <= FULL_SCALE_PART
        assert all(abs(after[od] - od) <= 0.1 * od for od in checked)
        assert worst(after) < worst(before)


def worst(read: Mapping[float, float]) -> float:
    """The worst relative error of readings by true OD."""
    return max(abs(value - od) / od for od, value in read.items())


def tell(what: str, seed: int, part: float | None, before: Any, after: Any) -> None:
    curve = "" if part is None else f"curve within {100 * part:.2f} % of full scale; "
    with_it, without = (
        json.dumps({od: round(v, 3) for od, v in read.items()}) for read in (after, before)
    )
    print(f"\n{what}, seed {seed}: {curve}reads {with_it}, without {without}")


SIX = (0.05, 0.15, 0.4, 1.0, 2.5, 6.0)
BETWEEN = (0.09, 0.25, 0.7, 1.6, 4.0)


def spread(ods: Sequence[float]) -> list[float]:
    """Places over the whole range, at equal ratios."""
    low, high = min(ods), max(ods)
    return [low * (high / low) ** (i / (PLACES - 1)) for i in range(PLACES)]


def fused_volts(od: float) -> dict[str, float]:
    """What the three photodiodes give of that OD in truth, by angle."""
    cells = CELL_VOLTS * od / (1 + od / SATURATION_OD)
    light = truth_volts(0.0) / BLANK_VOLTS["90"]
    return {angle: light * (BLANK_VOLTS[angle] + CELL_GAIN[angle] * cells) for angle in CELL_GAIN}


async def fuse(unit: Unit, name: str, typed: Mapping[float, float]) -> Person:
    """A fused model from vials of those true ODs, of which the person believes others."""
    left = iter(typed)

    async def place() -> Inputs:
        nonlocal od
        od = next(left)
        await put_in(unit, od)
        return {}

    async def believed() -> Inputs:
        return {"od_value": typed[od]}

    async def more() -> Inputs:
        return {"another": len(person.data["standards"]) < len(typed)}

    od = 0.0
    person = await Person.begin(unit, "od_fusion_standards", "od_fused")
    await person.walk(
        {
            "name": {"estimator_name": name},
            "rpm": {"rpm": 500},
            "place_standard": place,
            "measure_standard": believed,
            "another_standard": more,
        }
    )
    active = await unit.get("/unit_api/active_estimators")
    assert active["od_fused"]["estimator_name"] == name
    assert person.result["path"].endswith(f"/od_fused/{name}.yaml")
    return person


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_fused_od(tmp_path: Path, clock: SimulatedClock, seed: int) -> None:
    async with running_unit(tmp_path, clock, seed=seed, **FUSING) as unit:
        before = {od: await od_read(unit, "od", od) for od in BETWEEN}
        person = await fuse(unit, "fused", {od: od for od in SIX})
        estimator = parse_estimator(_text_of(person.result["path"]))
        curve = {od: estimator.estimate(fused_volts(od)) for od in spread(SIX)}
        after = {od: await od_read(unit, "od_fused", od) for od in BETWEEN}
        print(f"\nod_fused, seed {seed}: curve within {100 * worst(curve):.1f} % of OD")
        tell("od_fused", seed, None, before, after)
        assert worst(curve) <= FUSED_PART
        assert worst(after) <= FUSED_PART
        assert worst(after) < worst(before)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_fused_od_corrected(tmp_path: Path, clock: SimulatedClock, seed: int) -> None:
    """The model comes from a lab whose ODs are others: 1.4·OD^1.15."""
    async with running_unit(tmp_path, clock, seed=seed, **FUSING) as unit:
        await fuse(unit, "theirs", {od: 1.4 * od**1.15 for od in SIX})
        before = {od: await od_read(unit, "od_fused", od) for od in BETWEEN}
        left = iter((0.2, 3.0))

        async def standard() -> Inputs:
            od = next(left)
            await put_in(unit, od)
            return {"standard_od": od}

        person = await Person.begin(unit, "od_fusion_offset", "od_fused")
        await person.walk(
            {
                "select_worker": {"source_unit": "pio01"},
                "select_estimator": {"source_estimator_name": "theirs"},
                "name": {"estimator_name": "ours"},
                "rpm": {"rpm": 500},
                "standard_od": standard,
            }
        )
        active = await unit.get("/unit_api/active_estimators")
        assert active["od_fused"]["estimator_name"] == "ours"
        after = {od: await od_read(unit, "od_fused", od) for od in BETWEEN}
        tell("od_fused, offset", seed, None, before, after)
        assert worst(after) <= FUSED_PART
        assert worst(after) < worst(before)
