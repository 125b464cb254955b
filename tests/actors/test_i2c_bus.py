"""The I2C bus meets what goes wrong in passing, counts it, and says what does not pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from piod.actors.actor import Ref
from piod.actors.buses import bus as buses
from piod.actors.buses import i2c
from piod.actors.buses.bus import BusHangs, BusReport, BusState
from piod.actors.buses.i2c import BusAccess, DeviceStatistics, I2cBus
from piod.actors.hub import Hub
from piod.actors.supervisor import Supervisor
from piod.clock import SimulatedClock
from piod.errors import BusError
from piod.events import I2cCounts, I2cFailed
from piod.hw.ports import BusStuck, NoAnswer, Read, TimedTransfer, Write
from piod.hw.simulator.chips.rp2040 import SimulatedRp2040
from piod.hw.simulator.faults import Faults
from piod.hw.simulator.i2c import SimulatedI2c
from piod.restarts import FOR_EVER

PICO, NOBODY = 0x2C, 0x48
VERSION = [Write(b"\x08"), Read(2)]


class Rig:
    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        self.hub = Hub()
        self.faults = Faults(lambda: self.port.faults_changed())
        chip = SimulatedRp2040({}, lambda channel, percent, now_s: None)
        self.port = SimulatedI2c({PICO: chip}, self.faults, clock)
        self.supervisor = Supervisor(clock)
        self.ref: Ref[I2cBus] = self.supervisor.start(  # type: ignore[assignment] # its actor
            "i2c bus", lambda: I2cBus(self.port, clock, self.hub), FOR_EVER
        ).ref
        self.bus = BusAccess(self.ref)

    async def counts(self) -> I2cCounts:
        return (await self.ref.ask(DeviceStatistics(), timeout=5))[PICO]

    async def report(self) -> BusReport:
        return await self.ref.ask(BusState(), timeout=5)


@pytest.fixture
async def rig(clock: SimulatedClock) -> AsyncIterator[Rig]:
    one = Rig(clock)
    await asyncio.sleep(0)
    yield one
    await one.supervisor.stop_all()


async def test_a_transient_nack_is_tried_again_and_counted(rig: Rig) -> None:
    with rig.hub.subscribe() as events:
        rig.faults.add("nack", address=PICO, count=2)
        assert await rig.bus.transfer(PICO, VERSION) == [bytes([5, 0])]
        events.close()
        told = [event async for event in events]
    assert await rig.counts() == I2cCounts(accesses=1, retries=2, failures=0)
    assert [isinstance(event, I2cFailed) and event.again for event in told] == [True, True]


async def test_a_chip_that_does_not_answer_is_given_up_soon(rig: Rig) -> None:
    rig.faults.add("chip_missing", address=PICO)
    began_s = rig.clock.monotonic()
    with pytest.raises(NoAnswer, match="0x2C"):
        await rig.bus.transfer(PICO, VERSION)
    assert rig.clock.monotonic() - began_s < 0.1
    assert await rig.counts() == I2cCounts(accesses=1, retries=2, failures=1)
    assert (await rig.report()).problem is None, "the bus itself is well"


async def test_a_list_that_fails_late_is_not_begun_again(rig: Rig) -> None:
    """Whoever measures would rather miss a reading than get one that is late."""
    items = [TimedTransfer(t_s, PICO, VERSION) for t_s in (0.0, 0.5)]
    asked = asyncio.ensure_future(rig.bus.transfer_at(items))
    await rig.clock.sleep(0.25)
    rig.faults.add("nack", address=PICO, count=1)
    with pytest.raises(NoAnswer, match="item 2 of a timed list of 2"):
        await asked
    assert await rig.counts() == I2cCounts(accesses=1, retries=0, failures=1)


async def test_the_failing_chip_of_a_list_is_the_one_that_is_counted(rig: Rig) -> None:
    items = [TimedTransfer(0.0, PICO, VERSION), TimedTransfer(0.01, NOBODY, VERSION)]
    with pytest.raises(NoAnswer):
        await rig.bus.transfer_at(items)
    counted = await rig.ref.ask(DeviceStatistics(), timeout=5)
    assert counted[PICO].failures == 0
    assert counted[NOBODY].failures == 1


async def test_one_list_at_a_time(rig: Rig) -> None:
    items = [TimedTransfer(t_s, PICO, VERSION) for t_s in (0.0, 1.0)]
    began_s = rig.clock.monotonic()
    first, second = await asyncio.gather(rig.bus.transfer_at(items), rig.bus.transfer_at(items))
    assert rig.clock.monotonic() - began_s > 2
    assert [first[1].t_s, second[1].t_s] == pytest.approx([1.0, 1.0])


async def test_a_list_that_nobody_waits_for_any_more_frees_the_bus(rig: Rig) -> None:
    items = [TimedTransfer(t_s, PICO, VERSION) for t_s in (0.0, 2.0)]
    asked = asyncio.ensure_future(rig.bus.transfer_at(items))
    await rig.clock.sleep(0.5)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    began_s = rig.clock.monotonic()
    await rig.bus.transfer(PICO, VERSION)
    assert rig.clock.monotonic() - began_s < 0.1


async def test_a_stuck_bus_is_freed_in_passing(rig: Rig) -> None:
    rig.faults.add("i2c_stuck")
    assert await rig.bus.transfer(PICO, VERSION) == [bytes([5, 0])]
    assert (await rig.report()).problem is None


async def test_a_bus_that_stays_stuck_refuses_with_the_reason_until_it_is_free(rig: Rig) -> None:
    short_circuit = rig.faults.add("i2c_stuck", recoverable=False)
    for _ in range(2):
        with pytest.raises(BusStuck, match="held low"):
            await rig.bus.transfer(PICO, VERSION)
    assert (await rig.counts()).accesses == 1, "the second was refused at once"
    assert "held low" in str((await rig.report()).problem)
    rig.faults.remove(short_circuit.id)
    await rig.clock.sleep(0.5)
    assert (await rig.report()).problem is None
    await rig.bus.transfer(PICO, VERSION)


async def test_a_bus_that_is_gone_is_looked_for_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buses, "RETRY_S", (0.001, 0.001))
    gone = rig.faults.add("device_missing", bus="i2c")
    with pytest.raises(BusError):
        await rig.bus.transfer(PICO, VERSION)
    assert "There is no i2c bus" in str((await rig.report()).problem)
    rig.faults.remove(gone.id)
    until = time.monotonic() + 5
    while (await rig.report()).problem is not None:
        assert time.monotonic() < until
        await asyncio.sleep(0.001)
    await rig.bus.transfer(PICO, VERSION)


async def test_an_access_that_hangs_ends_and_others_come_after_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (buses, i2c):
        monkeypatch.setattr(module, "ACCESS_TIMEOUT_S", 0.02)

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(rig.port, "transfer", hang)
        patch.setattr(rig.port, "transfer_at", hang)
        with pytest.raises(BusHangs):
            await rig.bus.transfer(PICO, VERSION)
        began_s = rig.clock.monotonic()
        with pytest.raises(BusHangs):
            await rig.bus.transfer_at([TimedTransfer(t, PICO, VERSION) for t in (0.0, 1.5)])
        assert rig.clock.monotonic() - began_s >= 1.5, "it was given its own length"
    assert await rig.bus.transfer(PICO, VERSION) == [bytes([5, 0])]


async def test_what_is_no_transaction_is_the_callers_mistake_and_not_the_buss_end(
    rig: Rig,
) -> None:
    with pytest.raises(ValueError, match="address"):
        await rig.bus.transfer(0x00, VERSION)
    with pytest.raises(ValueError, match="timed list"):
        await rig.bus.transfer_at([TimedTransfer(9.0, PICO, VERSION)])
    assert await rig.bus.probe(PICO)
    assert not await rig.bus.probe(NOBODY)
