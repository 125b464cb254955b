"""Growth rate over HTTP, fed by an od_reading that reads what the test wants."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from piod.actors import admission
from piod.clock import SimulatedClock
from piod.jobs.job import Job, Options, Setting
from piod.jobs.job import Unit as Parts
from piod.jobs.registry import JOBS
from piod.storage.memory import ExperimentMemory
from tests.unit import Unit, running_unit

INTERVAL_S = 10.0
RATE = 0.5


def growing(seconds: float, seed: str = "") -> Mapping[str, float]:
    """OD 0.1 at the begin, growing at RATE, with noise of 0.2 %."""
    noise = random.Random(f"{seed}{seconds}").gauss(0, 0.002)
    return {"2": 0.1 * math.exp(RATE * seconds / 3600) * (1 + noise)}


@dataclass
class World:
    """What the fake jobs see; tests change it."""

    od: Callable[[float], Mapping[str, float]] = growing
    fused: Callable[[float], float] | None = None
    begun_s: float | None = None
    calibration: str | None = None
    taken: int = 0
    readings: list[float] = field(default_factory=list)


WORLD = World()


class FakeOdReading(Job):
    """Publishes readings as od_reading does."""

    job_name = "od_reading"
    settings = (Setting("interval", "float"),)

    def __init__(self, unit: Parts) -> None:
        self._unit = unit

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls(unit)

    async def start(self) -> None:
        self._unit.publish("interval", INTERVAL_S)

    async def run(self) -> None:
        clock = self._unit.clock
        if WORLD.begun_s is None:
            WORLD.begun_s = clock.monotonic()
        while True:
            at, now_s = clock.time(), clock.monotonic() - WORLD.begun_s
            await clock.sleep(1.0)  # a reading takes its time
            by = {} if WORLD.calibration is None else {"calibration": WORLD.calibration}
            for channel, od in WORLD.od(now_s).items():
                self._unit.record("od", od, channel, at=at, angle="90", **by)
            if WORLD.fused is not None:
                self._unit.record("od_fused", WORLD.fused(now_s), at=at)
            WORLD.taken += 1
            await clock.sleep(INTERVAL_S - 1.0)


class OdBlank(FakeOdReading):
    """Another job that reads OD, of media alone."""

    job_name = "od_blanking"


class Dose(Job):
    """One dosing event."""

    job_name = "dose"
    event: ClassVar[str] = "add_media"

    def __init__(self, unit: Parts) -> None:
        self._unit = unit

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls(unit)

    async def run(self) -> None:
        self._unit.record("dosing", 1.0, event=self.event)


class Remove(Dose):
    job_name = "remove"
    event = "remove_waste"


KINDS = {**JOBS, **{job.job_name: job for job in (FakeOdReading, OdBlank, Dose, Remove)}}


@pytest.fixture(autouse=True)
def world() -> World:
    WORLD.__init__()  # type: ignore[misc] # the jobs hold on to this one
    return WORLD


@asynccontextmanager
async def growing_unit(
    data_dir: Path, clock: SimulatedClock, config_ini: str | None = None
) -> AsyncIterator[Unit]:
    async with running_unit(data_dir, clock, kinds=KINDS, config_ini=config_ini) as unit:
        yield unit


@pytest.fixture
async def culture(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Unit]:
    async with growing_unit(tmp_path, clock) as unit:
        yield unit


async def run_both(unit: Unit, **options: object) -> str:
    job_id = await run_growth(unit, **options)
    await run_od(unit)
    return job_id


async def run_growth(unit: Unit, **options: object) -> str:
    return await unit.run("growth_rate_calculating", env={"EXPERIMENT": "E"}, options=options)


async def run_od(unit: Unit, experiment: str = "E", job_name: str = "od_reading") -> str:
    return await unit.run(job_name, env={"EXPERIMENT": experiment})


async def estimate(unit: Unit) -> tuple[float, float] | None:
    """Filtered OD and rate as published now."""
    settings = await unit.settings("growth_rate_calculating")
    if "growth_rate" not in settings:
        return None
    od = json.loads(settings["od_filtered"])["od_filtered"]
    rate = json.loads(settings["growth_rate"])["growth_rate"]
    return float(od), float(rate)


async def known(unit: Unit) -> tuple[float, float]:
    now = await estimate(unit)
    assert now is not None
    return now


async def passes(unit: Unit, count: int) -> None:
    """Let so many more OD readings be taken and taken in."""
    until = WORLD.taken + count
    while WORLD.taken < until:
        await unit.clock.sleep(2)


async def truth(unit: Unit, channel: str = "2") -> float:
    """The normalised OD of now, without noise."""
    assert WORLD.begun_s is not None
    kept: Any = await memory(unit).recall("od_statistics")
    hours = (unit.clock.monotonic() - WORLD.begun_s) / 3600
    return 0.1 * math.exp(RATE * hours) / float(kept["statistics"]["mean"][channel])


def memory(unit: Unit) -> ExperimentMemory:
    return ExperimentMemory(unit.daemon.ledger, "E", unit.clock.time)


# -- the measure, the filter ----------------------------------------------------------


async def test_it_finds_the_rate_and_keeps_its_readings(culture: Unit) -> None:
    await run_both(culture)
    await culture.clock.sleep(3 * 3600)
    od, rate = await known(culture)
    assert rate == pytest.approx(RATE, rel=0.1)
    assert od == pytest.approx(await truth(culture), rel=0.01)
    kinds = await culture.get("/unit_api/readings")
    assert kinds["growth_rate"]["readings"] == kinds["od_filtered"]["readings"] > 1000
    kalman = json.loads(
        (await culture.settings("growth_rate_calculating"))["kalman_filter_outputs"]
    )
    assert kalman["state"] == [od, rate]
    assert len(kalman["covariance_matrix"]) == 2


async def test_five_readings_are_left_out_before_the_measure_and_five_after(culture: Unit) -> None:
    WORLD.od = lambda s: {"2": 99.0 if WORLD.taken < 5 else (0.2 if WORLD.taken < 40 else 0.4)}
    await run_both(culture)
    await passes(culture, 45)
    assert await estimate(culture) is None
    await passes(culture, 1)
    kept: Any = await memory(culture).recall("od_statistics")
    assert kept["statistics"]["mean"]["2"] == pytest.approx(0.2)
    assert await estimate(culture) is not None


async def test_the_blank_is_taken_off(culture: Unit) -> None:
    await memory(culture).keep("od_blank", {"2": 0.05})
    WORLD.od = lambda s: {"2": 0.1 if WORLD.taken < 41 else 0.15}
    await run_both(culture)
    await passes(culture, 200)
    od, _ = await known(culture)
    assert od == pytest.approx(2.0, rel=0.01)


async def test_a_blank_that_makes_no_sense_is_ignored_and_said(
    culture: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    await memory(culture).keep("od_blank", {"2": "much"})
    await run_both(culture)
    await passes(culture, 60)
    assert await estimate(culture) is not None
    assert "the kept blank is not used" in caplog.text


async def test_fused_readings_are_used_where_there_are_such(culture: Unit) -> None:
    WORLD.od = lambda s: {"2": 7.0}
    WORLD.fused = lambda s: growing(s)["2"]
    await run_both(culture)
    await culture.clock.sleep(3 * 3600)
    _, rate = await known(culture)
    assert rate == pytest.approx(RATE, rel=0.1)


async def test_several_photodiodes_are_one_pass_whatever_their_order(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[od_config.photodiode_channel]\n1=90\n3=45\n2=REF\n"

    def both(s: float) -> Mapping[str, float]:
        pair = [("1", growing(s)["2"]), ("3", 3 * growing(s, "other")["2"])]
        return dict(reversed(pair) if WORLD.taken % 2 else pair)

    WORLD.od = both
    async with growing_unit(tmp_path, clock, config) as unit:
        await run_both(unit)
        await clock.sleep(2 * 3600)
        od, _ = await known(unit)
        assert od == pytest.approx(await truth(unit, "1"), rel=0.02)


async def test_a_pass_without_one_of_its_channels_is_left_out(
    tmp_path: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    WORLD.od = lambda s: {"1": 0.1} if WORLD.taken in (60, 61) else {"1": 0.1, "3": 0.3}
    async with growing_unit(
        tmp_path, clock, "[od_config.photodiode_channel]\n1=90\n3=45\n"
    ) as unit:
        await run_both(unit)
        await passes(unit, 80)
        assert (await known(unit))[0] == pytest.approx(1.0, abs=0.01)
        assert caplog.text.count("lacked a channel") == 1


async def test_readings_at_or_below_the_blank_are_left_out_and_said_once(
    culture: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    WORLD.od = lambda s: {"2": 0.0 if 50 <= WORLD.taken < 55 else 0.1}
    await run_both(culture)
    await passes(culture, 80)
    assert (await known(culture))[0] == pytest.approx(1.0, abs=0.01)
    assert caplog.text.count("which is not above its blank") == 1


# -- doses ----------------------------------------------------------------------------


async def test_a_dose_moves_the_od_at_once_and_leaves_the_rate(culture: Unit) -> None:
    await run_both(culture)
    await culture.clock.sleep(2 * 3600)
    _, rate = await known(culture)
    WORLD.od = lambda s: {"2": 0.7 * growing(s)["2"]}
    await culture.run("dose")
    await passes(culture, 2)
    od, after = await known(culture)
    assert od == pytest.approx(0.7 * await truth(culture), rel=0.02)
    assert after == pytest.approx(rate, abs=0.03)


async def test_removing_waste_flags_nothing(culture: Unit) -> None:
    await run_both(culture)
    await culture.clock.sleep(2 * 3600)
    od, _ = await known(culture)
    WORLD.od = lambda s: {"2": 0.7 * growing(s)["2"]}
    await culture.run("remove")
    await passes(culture, 2)
    assert (await known(culture))[0] > 0.85 * od  # an outlier


# -- restarts, sleep, clocks -----------------------------------------------------------


async def test_its_state_survives_a_restart_of_the_unit(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with growing_unit(tmp_path, clock) as unit:
        await run_both(unit)
        await clock.sleep(2 * 3600)
        _, rate = await known(unit)
    async with growing_unit(tmp_path, clock) as unit:
        await run_both(unit)
        await passes(unit, 5)
        assert await estimate(unit) is None
        await passes(unit, 1)
        again = await known(unit)
        assert again[0] == pytest.approx(await truth(unit), rel=0.02)
        assert again[1] == pytest.approx(rate, abs=0.02)


async def test_a_crash_loses_nothing_also_with_ignore_cache(
    culture: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_both(culture, ignore_cache=True)
    await culture.clock.sleep(2 * 3600)
    _, rate = await known(culture)

    def bug(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("a bug")

    monkeypatch.setattr(ExperimentMemory, "keep_later", bug)
    await passes(culture, 3)
    assert (await culture.settings("growth_rate_calculating"))["restarts"] == "1"
    await passes(culture, 6)
    again = await known(culture)
    assert again[0] == pytest.approx(await truth(culture), rel=0.02)
    assert again[1] == pytest.approx(rate, abs=0.02)


async def test_ignore_cache_begins_at_the_next_reading_with_a_rate_of_nothing(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with growing_unit(tmp_path, clock) as unit:
        first = await run_both(unit)
        await clock.sleep(2 * 3600)
        await unit.post("/unit_api/jobs/stop", {"job_id": first})
        await run_growth(unit, ignore_cache=None)
        await passes(unit, 6)
        again = await known(unit)
        assert again[0] == pytest.approx(await truth(unit), rel=0.02)  # the measure of OD stays
        assert again[1] == 0


async def test_clear_cache_forgets_the_measure_but_not_the_blank_and_ends(culture: Unit) -> None:
    await memory(culture).keep("od_blank", {"2": 0.05})
    first = await run_both(culture)
    await passes(culture, 60)
    await culture.post("/unit_api/jobs/stop", {"job_id": first})
    await run_growth(culture, clear_cache=True)
    await culture.clock.sleep(0.1)
    assert [row["job_name"] for row in await culture.get("/unit_api/jobs/running")] == [
        "od_reading"
    ]
    assert await memory(culture).recall("od_statistics") is None
    assert await memory(culture).recall("growth_filter") is None
    assert await memory(culture).recall("od_blank") == {"2": 0.05}


async def test_asleep_it_calculates_nothing_and_publishes_nothing_old(culture: Unit) -> None:
    job_id = await run_both(culture)
    await culture.clock.sleep(2 * 3600)
    _, rate = await known(culture)
    await culture.change(job_id, state="sleeping")
    assert await estimate(culture) is None
    WORLD.od = lambda s: {"2": 0.5 * growing(s)["2"]}  # diluted while nobody looked
    await passes(culture, 20)
    assert await estimate(culture) is None
    await culture.change(job_id, state="ready")
    await passes(culture, 2)
    now = await known(culture)
    assert now[0] == pytest.approx(0.5 * await truth(culture), rel=0.02)
    assert now[1] == pytest.approx(rate, abs=0.03)


@pytest.mark.parametrize("step_s", [-7200.0, 7200.0])
async def test_a_clock_that_is_set_moves_neither_od_nor_rate(
    culture: Unit, clock: SimulatedClock, step_s: float
) -> None:
    await run_both(culture)
    await clock.sleep(2 * 3600)
    _, rate = await known(culture)
    await passes(culture, 1)
    await clock.sleep(INTERVAL_S - 2.5)  # in the middle of a reading, or not
    clock.offset_s += step_s
    await passes(culture, 10)
    again = await known(culture)
    assert again[0] == pytest.approx(await truth(culture), rel=0.02)
    assert again[1] == pytest.approx(rate, abs=0.02)


async def test_without_od_readings_the_rate_is_not_known_and_that_is_said(
    culture: Unit, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "RATE_LIMIT_S", 0.0)
    await run_growth(culture)
    od_job = await run_od(culture)
    await passes(culture, 60)
    assert await estimate(culture) is not None
    await culture.post("/unit_api/jobs/stop", {"job_id": od_job})
    caplog.clear()
    await culture.clock.sleep(90)
    assert await estimate(culture) is not None
    await culture.clock.sleep(20)
    assert await estimate(culture) is None
    assert "no OD readings of the experiment E" in caplog.text
    await run_od(culture)
    await passes(culture, 8)
    assert await estimate(culture) is not None


async def test_readings_of_another_experiment_or_job_are_not_its_own(culture: Unit) -> None:
    await run_growth(culture)
    await run_od(culture, experiment="F")
    await run_od(culture, job_name="od_blanking")
    await passes(culture, 60)
    assert await estimate(culture) is None


async def test_kept_state_that_cannot_be_is_not_used(
    culture: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    await memory(culture).keep("od_statistics", {"source": "od", "statistics": {"mean": 1}})
    await memory(culture).keep("growth_filter", {"source": "od"})
    await run_both(culture)
    await passes(culture, 60)
    assert (await known(culture))[0] == pytest.approx(await truth(culture), rel=0.02)
    assert "cannot be read" in caplog.text
    assert "measure of OD is not used" in caplog.text


async def test_a_measure_of_other_photodiodes_is_taken_anew(
    tmp_path: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with growing_unit(tmp_path, clock) as unit:
        await run_both(unit)
        await passes(unit, 60)
    WORLD.od = lambda s: {"3": 0.3}
    async with growing_unit(tmp_path, clock, "[od_config.photodiode_channel]\n3=90\n") as unit:
        await run_both(unit)
        await passes(unit, 60)
        assert (await known(unit))[0] == pytest.approx(1.0, abs=0.01)
    assert "of other photodiodes" in caplog.text


async def test_a_measure_by_another_calibration_is_taken_anew(
    culture: Unit,
    world: World,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "RATE_LIMIT_S", 0.0)
    await run_both(culture)
    await passes(culture, 60)
    before, _ = await known(culture)
    await culture.post("/unit_api/jobs/stop", {"job_name": "od_reading"})
    world.calibration, world.od = "truth", lambda s: {"2": 10 * growing(s)["2"]}
    await run_od(culture)
    await passes(culture, 20)
    assert "the kept measure of OD is of other calibrations" in caplog.text
    await passes(culture, 60)
    after, _ = await known(culture)
    assert after == pytest.approx(before, rel=0.1), "ten times the number is not ten times the OD"
    kept: Any = await memory(culture).recall("od_statistics")
    assert kept["units"] == {"2": "truth"}


async def test_a_blank_by_another_calibration_is_not_taken_off(
    culture: Unit, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await memory(culture).keep("od_blank", {"2": 0.05})
    await memory(culture).keep("od_blank_units", {"2": None})
    world.calibration = "truth"
    await run_both(culture)
    await passes(culture, 60)
    assert "the kept blank is not used" in caplog.text


async def test_a_wrong_configuration_refuses_the_start(culture: Unit) -> None:
    path = culture.data_dir / "config.ini"
    path.write_text("[growth_rate_calculating.config]\nekf_outlier_std_threshold=2\n")
    task = await culture.post("/unit_api/jobs/run/job_name/growth_rate_calculating")
    assert task["status"] == "failed"
    assert "ekf_outlier_std_threshold must be above 2" in task["error"]


async def test_the_state_of_a_reading_is_on_disk_within_seconds(culture: Unit) -> None:
    await run_both(culture)
    await passes(culture, 50)
    with culture.clock.hold():
        await asyncio.sleep(3.5)  # a batch of the ledger
    assert culture.daemon.ledger.database.unsaved() == []
    kept: Any = await memory(culture).recall("growth_filter")
    assert kept["state"]["od"] == (await known(culture))[0]
