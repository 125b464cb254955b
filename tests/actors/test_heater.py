"""The interlock of the heater, and what it makes of the readings of the board."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from piod.actors import heater_latch
from piod.actors.actor import Life, Ref
from piod.actors.board_watch import BoardWatch
from piod.actors.buses.i2c import DeviceStatistics
from piod.actors.heater import HeaterInterlock, InterlockState, LookWhileOff
from piod.actors.leased_heater import (
    HeaterLease,
    LeaseHeater,
    ReadBoard,
    ResetInterlock,
    SetHeater,
)
from piod.clock import SimulatedClock
from piod.errors import StorageFull
from piod.hw.drivers.tmp1075 import Tmp1075
from piod.hw.simulator.heat import Heat, TemperatureSensor
from piod.jobs.instruments import Heater, HeaterTripped
from piod.jobs.job import Job, Options
from piod.jobs.job import Unit as Parts
from piod.jobs.registry import JOBS
from piod.storage.ledger import Ledger
from tests.unit import Unit, running_unit

HEATER_PIN = 18


class Heating(Job):
    """Leases the heater, and does what a test tells it to."""

    job_name = "heating"
    heater: Heater

    def __init__(self, heater: Heater) -> None:
        type(self).heater = heater

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls(await unit.lease_heater())

    async def run(self) -> None:
        await asyncio.Event().wait()


class Other(Heating):
    job_name = "other"


class Bypass(Heating):
    """Wants the heater without its interlock."""

    job_name = "bypass"

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        await unit.lease_pwm("heating", hz=16)
        return await super().create(unit, options)


def duty(unit: Unit) -> float:
    return unit.plant.duties.get(HEATER_PIN, 0.0)


@pytest.fixture
async def kinds() -> dict[str, type[Job]]:
    return {**JOBS, **{kind.job_name: kind for kind in (Heating, Other, Bypass)}}


async def test_a_duty_that_is_not_set_anew_ends_after_five_minutes(
    tmp_path: Path, clock: SimulatedClock, kinds: dict[str, type[Job]]
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await unit.run("heating")
        assert await Heating.heater.set_duty(20) == 20
        await clock.sleep(298)
        assert duty(unit) == Heating.heater.duty_percent == 20
        await clock.sleep(6)
        assert duty(unit) == Heating.heater.duty_percent == 0
        assert Heating.heater.trip is None
        await Heating.heater.set_duty(20)
        assert duty(unit) == 20


async def test_a_command_that_is_overtaken_while_it_reads_drives_nothing(
    tmp_path: Path, clock: SimulatedClock, kinds: dict[str, type[Job]]
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await unit.run("heating")
        for ticks in range(12):
            late = asyncio.create_task(Heating.heater.set_duty(50))
            for _ in range(ticks):
                await asyncio.sleep(0)
            late.cancel()
            await Heating.heater.set_duty(0)
            await clock.sleep(5)
            assert duty(unit) == 0


async def test_the_heater_has_one_owner_and_no_way_round_its_interlock(
    tmp_path: Path, clock: SimulatedClock, kinds: dict[str, type[Job]]
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await unit.run("heating")
        other = await unit.post("/unit_api/jobs/run/job_name/other")
        assert "in use by heating (job 1)" in other["error"]
        bypass = await unit.post("/unit_api/jobs/run/job_name/bypass")
        assert "interlock" in bypass["error"]
        await Heating.heater.set_duty(20)
        await unit.post("/unit_api/jobs/stop", {"job_name": "heating"})
        assert duty(unit) == 0


async def test_a_lease_of_the_past_drives_nothing(
    tmp_path: Path, clock: SimulatedClock, kinds: dict[str, type[Job]]
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await unit.run("heating")
        stale = Heating.heater
        await unit.post("/unit_api/jobs/stop", {"job_name": "heating"})
        await unit.run("other")
        with pytest.raises(Exception, match="no lease of the heater"):
            await stale.set_duty(20)
        assert duty(unit) == 0


async def lend(heater: Ref[HeaterInterlock], life: Life) -> HeaterLease:
    request = LeaseHeater(life, lambda state: None, lambda error: None)
    return await heater.ask(request, timeout=5)


@pytest.mark.parametrize("gives_up", [True, False])
async def test_an_owner_that_ends_at_any_instant_of_leasing_leaves_the_heater_to_the_next(
    tmp_path: Path, clock: SimulatedClock, gives_up: bool
) -> None:
    async with running_unit(tmp_path, clock) as unit:
        heater = unit.daemon.heater
        for ticks in range(20):
            life = Life(f"owner {ticks}")
            asked = asyncio.create_task(lend(heater, life))
            for _ in range(ticks):
                await asyncio.sleep(0)
            life.end()
            if gives_up:
                asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await clock.sleep(0.2)
            following = Life("the next")
            lease = await lend(heater, following)
            assert await heater.ask(SetHeater(lease, 20), timeout=5) == 20
            following.end()
            await clock.sleep(0.2)
            assert duty(unit) == 0


async def test_an_output_whose_off_time_came_is_not_driven_again_by_readings_of_the_job(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_unit(tmp_path, clock) as unit:
        heater, life = unit.daemon.heater, Life("owner")
        lease = await lend(heater, life)
        await heater.ask(SetHeater(lease, 20), timeout=5)
        read_celsius, slow = Tmp1075.read_celsius, asyncio.Event()

        async def stands_in_line(self: Tmp1075) -> float:
            slow.set()
            await clock.sleep(3.0)
            return await read_celsius(self)

        with monkeypatch.context() as patched:
            patched.setattr(Tmp1075, "read_celsius", stands_in_line)
            await slow.wait()
        await clock.sleep(1.0)
        await heater.ask(ReadBoard(lease), timeout=5)  # the job looks, and heats no longer for it
        await clock.sleep(1.5)
        assert duty(unit) == 0, "4 s after it was set"
        for _ in range(30):
            await clock.sleep(0.1)
            assert duty(unit) == 0
        life.end()


@pytest.mark.parametrize("retry_s", [0.01, 60.0], ids=["meanwhile", "at the end"])
async def test_a_trip_that_the_disk_refuses_is_kept_once_it_has_room(
    tmp_path: Path,
    clock: SimulatedClock,
    kinds: dict[str, type[Job]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    retry_s: float,
) -> None:
    monkeypatch.setattr(heater_latch, "RETRY_S", retry_s)

    async def full(self: Ledger, key: str, value: str = "") -> None:
        raise StorageFull("the disk is full")

    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await unit.run("heating")
        await Heating.heater.set_duty(20)
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "put_meta", full)
            unit.board.faults.add("chip_missing", address=0x4F)
            await clock.sleep(2.5)
            assert Heating.heater.trip is not None
        await asyncio.sleep(0.1)
        assert ("is kept now" in caplog.text) == (retry_s < 1)
    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await unit.run("heating")
        assert Heating.heater.trip is not None
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "remove_meta", full)
            with pytest.raises(StorageFull):
                await Heating.heater.reset()
            with pytest.raises(HeaterTripped):
                await Heating.heater.set_duty(20)
        await Heating.heater.reset()
        assert await Heating.heater.set_duty(20) == 20


async def test_driving_the_pin_low_again_is_in_nobody_s_way(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hot(self: Tmp1075) -> float:
        return 100.0

    async with running_unit(tmp_path, clock) as unit:
        heater = unit.daemon.heater
        for ticks in range(20):
            with monkeypatch.context() as patched:
                patched.setattr(Tmp1075, "read_celsius", hot)
                looked = asyncio.create_task(heater.ask(LookWhileOff(), timeout=5))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                life = Life("owner")
                lease = await lend(heater, life)
                await looked
            assert (await heater.ask(InterlockState(), timeout=5)).trip is not None
            await heater.ask(ResetInterlock(), timeout=5)
            assert await heater.ask(SetHeater(lease, 20), timeout=5) == 20
            life.end()
            await clock.sleep(61)  # it is looked at when no job has read it for a minute


async def test_without_a_good_reading_it_does_not_start_and_a_broken_sensor_trips_after_that(
    tmp_path: Path, clock: SimulatedClock, kinds: dict[str, type[Job]]
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await unit.run("heating")
        fault = unit.board.faults.add("chip_missing", address=0x4F)
        with pytest.raises(Exception, match="0x4F"):
            await Heating.heater.set_duty(20)
        assert Heating.heater.trip is None, "it has never heated"
        unit.board.faults.remove(fault.id)
        await Heating.heater.set_duty(20)
        unit.board.faults.add("chip_missing", address=0x4F)
        await clock.sleep(2.1)
        assert duty(unit) == 0
        with pytest.raises(HeaterTripped, match="could not be read"):
            await Heating.heater.set_duty(20)
        await Heating.heater.reset()
        with pytest.raises(Exception, match="0x4F"):
            await Heating.heater.set_duty(20)
        unit.board.faults.clear()
        await Heating.heater.reset()
        await Heating.heater.set_duty(20)
        assert duty(unit) == 20


async def test_a_heater_that_works_keeps_its_duty_with_a_sample_each_two_seconds(
    tmp_path: Path, clock: SimulatedClock, kinds: dict[str, type[Job]]
) -> None:
    async with running_unit(tmp_path, clock, kinds=kinds) as unit:
        await unit.run("heating")
        await Heating.heater.set_duty(20)
        before = await unit.daemon.buses["i2c"].ask(DeviceStatistics(), timeout=5)
        for _ in range(100):
            await clock.sleep(1)
            assert duty(unit) == 20
        after = await unit.daemon.buses["i2c"].ask(DeviceStatistics(), timeout=5)
        assert 49 <= after[0x4F].accesses - before[0x4F].accesses <= 51


# -- the watch ------------------------------------------------------------------------------


def cycles(
    duty_percent: float,
    *,
    hours: float = 2.0,
    seed: int = 1,
    gain: float = 1.0,
    disturb: Callable[[Heat, float], None] = lambda heat, now_s: None,
    reading: Callable[[float, float], float] = lambda celsius, now_s: celsius,
) -> tuple[str, float] | None:
    """Cycles of 89 s on and 111 s off; what the watch complains of first, and when."""
    heat, sensor, watch = Heat(), TemperatureSensor(seed), BoardWatch()
    now_s, driven = 0.0, 0.0
    while now_s < hours * 3600:
        wanted = duty_percent if now_s % 200 < 89 else 0.0
        if wanted != driven:
            driven = wanted
            watch.driven(driven, now_s)
            heat.duty_percent = driven * gain
        celsius = reading(sensor.celsius(heat.board_celsius, now_s), now_s)
        problem = watch.problem(round(celsius / 0.0625) * 0.0625, now_s)
        if problem is not None:
            return problem, now_s
        step_s = 2.0 if driven else 5.0
        disturb(heat, now_s)
        heat.advance(step_s)
        now_s += step_s
    return None


@pytest.mark.parametrize("duty_percent", [0.5, 3.0, 10.0, 20.0, 45.0, 100.0])
@pytest.mark.parametrize("gain", [0.5, 1.0, 1.7])
def test_a_sound_sensor_is_never_blamed(duty_percent: float, gain: float) -> None:
    assert cycles(duty_percent, gain=gain) is None


@pytest.mark.parametrize("seed", range(6))
def test_doses_of_cold_medium_are_no_fault_of_the_sensor(seed: int) -> None:
    drawn = random.Random(seed)

    def dose(heat: Heat, now_s: float) -> None:
        if drawn.random() < 0.02:  # each minute or two
            heat.liquid_celsius -= 1.0  # 1 mL at room temperature into 15 mL at 37 °C

    assert cycles(20.0, disturb=dose) is None


@pytest.mark.parametrize("duty_percent", [10.0, 20.0, 60.0])
def test_a_sensor_off_its_board_is_found_within_two_minutes(duty_percent: float) -> None:
    found = cycles(duty_percent, reading=lambda celsius, now_s: 24 + celsius % 0.1)
    assert found is not None
    assert found[1] <= 120


def test_a_frozen_sensor_is_found_within_a_minute_even_below_ten_percent() -> None:
    for since_s in (0.0, 10.0, 1000.0, 1050.0, 1100.0):
        kept: list[float] = []

        def freeze(
            celsius: float, now_s: float, since_s: float = since_s, kept: list[float] = kept
        ) -> float:
            if now_s < since_s:
                return celsius
            kept.append(celsius)
            return kept[0]

        found = cycles(6.0, reading=freeze)
        assert found is not None
        assert found[0].endswith("while the duty cycle changed")
        assert found[1] <= since_s + 60


@pytest.mark.parametrize("from_s", [400.0, 450.0, 520.0])
def test_a_drift_no_heater_makes_is_found(from_s: float) -> None:
    found = cycles(
        20.0, reading=lambda celsius, now_s: celsius + max(0.0, now_s - from_s) * 10 / 60
    )
    assert found is not None
    assert found[1] <= from_s + 120
