"""When systemd's watchdog is fed, and what stops it (piod.actors.watchdog)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing

import pytest

from piod.actors.actor import Actor, Ref
from piod.actors.buses.bus import Bus, FindHang, RevokeAll
from piod.actors.watchdog import Watchdog
from tests.unit import Unit

INTERVAL_S = 0.4


class Meals:
    """How often the watchdog was fed."""

    def __init__(self) -> None:
        self.count = 0

    def feed(self) -> None:
        self.count += 1

    async def goes_on(self) -> bool:
        """Whether it is fed now, in time."""
        before = self.count
        await asyncio.sleep(INTERVAL_S)
        return self.count > before


@asynccontextmanager
async def watching(buses: Mapping[str, Ref[Bus]] | None) -> AsyncIterator[Meals]:
    meals = Meals()
    watchdog = Watchdog(meals.feed, INTERVAL_S)
    watchdog.buses = buses
    task = asyncio.create_task(watchdog.keep_feeding())
    try:
        yield meals
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def hang() -> None:
    await asyncio.Event().wait()


async def test_it_is_fed_while_all_is_well_and_while_the_daemon_starts_anew(unit: Unit) -> None:
    await unit.run("stirring")
    async with watching(unit.daemon.buses) as meals:
        assert await meals.goes_on()
    async with watching(None) as meals:
        assert await meals.goes_on()


async def test_a_hung_bus_thread_stops_it_only_while_an_output_of_that_bus_is_on(
    unit: Unit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = unit.board.pwm
    works = port.answer
    monkeypatch.setattr(port, "answer", hang)
    async with watching(unit.daemon.buses) as meals:
        assert await meals.goes_on()
        await unit.run("stirring")
        assert unit.duty > 0
        await asyncio.sleep(INTERVAL_S)
        assert not await meals.goes_on()
        assert "systemd will restart piod: pwm bus did not answer" in caplog.text
        await unit.post("/unit_api/jobs/stop/all")
        await asyncio.sleep(INTERVAL_S)
        assert await meals.goes_on()
        assert "the watchdog is fed again" in caplog.text
        monkeypatch.setattr(port, "answer", works)
        await unit.run("stirring", options={"target_rpm": 321})
        assert await meals.goes_on()


async def test_an_output_that_cannot_be_turned_off_counts_as_on(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await unit.run("stirring")
    unit.board.faults.add("bus_error", bus="pwm")
    monkeypatch.setattr(unit.board.pwm, "answer", hang)
    await unit.daemon.pwm.ask(RevokeAll("a test"), timeout=1)
    async with watching(unit.daemon.buses) as meals:
        assert not await meals.goes_on()
    unit.board.faults.clear()


@pytest.mark.parametrize("fault", ["device_missing", "bus_error"])
async def test_a_bus_that_says_what_is_wrong_has_answered(unit: Unit, fault: str) -> None:
    await unit.run("stirring")
    unit.board.faults.add(fault, bus="pwm")
    async with watching(unit.daemon.buses) as meals:
        assert await meals.goes_on()
        await unit.daemon.pwm.ask(RevokeAll("a test"), timeout=1)
        assert await meals.goes_on()
    unit.board.faults.clear()


async def test_a_slow_disk_does_not_stop_it(unit: Unit) -> None:
    await unit.run("stirring")
    ledger = unit.data_dir / "storage" / "piod.sqlite"
    with closing(sqlite3.connect(ledger, isolation_level=None)) as hog:
        hog.execute("BEGIN EXCLUSIVE")
        writing = asyncio.create_task(unit.request("POST", "/unit_api/jobs/stop/all"))
        async with watching(unit.daemon.buses) as meals:
            assert await meals.goes_on()
            assert await meals.goes_on()
            assert not writing.done()
        hog.execute("ROLLBACK")
    assert (await writing)[0] == 202


class Busy(Actor[FindHang], Bus):
    """A bus actor that is stuck in what it does."""

    async def receive(self, message: FindHang) -> object:
        await asyncio.Event().wait()
        return None


@pytest.mark.parametrize("state", ["stuck", "gone"])
async def test_a_bus_actor_that_does_not_answer_stops_it(
    unit: Unit, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    ref: Ref[Bus] = Ref("i2c bus")
    life = asyncio.create_task(Busy("i2c bus").live(ref))
    await asyncio.sleep(0)
    if state == "gone":
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
    async with watching({**unit.daemon.buses, "i2c": ref}) as meals:
        assert not await meals.goes_on()
    assert "systemd will restart piod: i2c bus" in caplog.text
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
