"""The DAC43608's driver against its simulated twin: bytes, and no flash of light."""

from __future__ import annotations

import asyncio

import pytest
from recorded_bus import Leds, RecordedBus, ScriptedBus

from piod.clock import SimulatedClock
from piod.errors import BusError
from piod.hw.drivers.dac43608 import Dac43608
from piod.hw.ports import NoAnswer, Read, Write
from piod.hw.simulator.chips.dac43608 import SimulatedDac43608

ADDRESS = 0x49


class Rig:
    """A driver on a recorded wire to a simulated chip."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.leds = Leds()
        self.bus = RecordedBus(clock, {ADDRESS: SimulatedDac43608(self.leds.set)})
        self.driver = Dac43608(self.bus, ADDRESS)


@pytest.fixture
async def rig(clock: SimulatedClock) -> Rig:
    rig = Rig(clock)
    await rig.bus.bus.open()
    return rig


async def test_the_twin_wakes_up_dark_with_its_levels_at_full_scale(rig: Rig) -> None:
    assert rig.leds.told == []
    assert await rig.bus.transfer(ADDRESS, [Write(b"\x08"), Read(2)]) == [b"\x0f\xf0"]
    assert await rig.bus.transfer(ADDRESS, [Write(b"\x01"), Read(2)]) == [b"\x00\xff"]
    await rig.bus.transfer(ADDRESS, [Write(b"\x01\x00\xfe")])
    assert rig.leds.level("A") == 100, "the flash that a driver has to avoid"


async def test_a_level_is_written_before_its_channel_is_powered_up(rig: Rig) -> None:
    assert await rig.driver.set_level("B", 80) == 80
    assert rig.bus.wire == [
        "49 w090CC0 w09 r0CC0",
        "49 w01 r00FF",
        "49 w0100FD w01 r00FD",
    ]
    assert [(channel, percent) for channel, percent, _ in rig.leds.told] == [("B", 80)]


async def test_an_led_never_flashes_on_its_way(rig: Rig) -> None:
    for percent in (0, 10, 0, 20, 100, 1, 0, 5):
        await rig.driver.set_level("A", percent)
    shown = [round(percent) for _, percent, _ in rig.leds.told]
    assert shown == [10, 0, 20, 100, 1, 0, 5]


async def test_an_led_that_goes_off_is_powered_down_and_no_other(rig: Rig) -> None:
    await rig.driver.set_level("A", 10)
    await rig.driver.set_level("D", 100)
    rig.bus.wire.clear()
    assert await rig.driver.set_level("D", 0) == 0
    assert rig.bus.wire == ["49 w01 r00F6", "49 w0100FE w01 r00FE"]
    assert rig.leds.level("A") == pytest.approx(10.2, abs=0.01)
    assert rig.leds.level("D") == 0


async def test_a_channel_that_is_up_only_gets_its_level(rig: Rig) -> None:
    await rig.driver.set_level("A", 10)
    rig.bus.wire.clear()
    assert await rig.driver.set_level("A", 100) == 100
    assert rig.bus.wire == ["49 w080FF0 w08 r0FF0", "49 w01 r00FE"]


async def test_all_off_is_one_write_and_ends_with_the_next_level(rig: Rig) -> None:
    await rig.driver.set_level("A", 10)
    await rig.driver.set_level("B", 20)
    rig.bus.wire.clear()
    await rig.driver.all_off()
    assert rig.bus.wire == ["49 w0101FF w01 r01FF"]
    assert (rig.leds.level("A"), rig.leds.level("B")) == (0, 0)
    assert await rig.driver.set_level("A", 0) == 0
    await rig.driver.set_level("C", 40)
    assert [round(rig.leds.level(channel)) for channel in "ABCD"] == [0, 0, 40, 0]


async def test_a_level_too_low_for_the_chip_is_off(rig: Rig) -> None:
    assert await rig.driver.set_level("A", 0.1) == 0
    assert rig.leds.told == []


async def test_two_leds_may_be_set_at_once(rig: Rig) -> None:
    await asyncio.gather(*(rig.driver.set_level(channel, 20) for channel in "ABCD"))
    assert [round(rig.leds.level(channel)) for channel in "ABCD"] == [20] * 4
    await asyncio.gather(rig.driver.set_level("A", 30), rig.driver.all_off())
    assert [rig.leds.level(channel) for channel in "ABCD"] == [0] * 4


async def test_a_chip_that_does_not_hold_a_level_is_refused_and_stays_dark() -> None:
    bus = ScriptedBus(["0FF0"])
    with pytest.raises(BusError, match="LED A"):
        await Dac43608(bus, ADDRESS).set_level("A", 10)
    assert len(bus.wire) == 1, "it was not powered up"
    bus = ScriptedBus(["00FF"])
    with pytest.raises(BusError, match="powered down"):
        await Dac43608(bus, ADDRESS).all_off()


async def test_a_chip_that_is_gone_is_named(rig: Rig) -> None:
    rig.bus.faults.add("chip_missing", address=ADDRESS)
    assert not await rig.driver.present()
    with pytest.raises(NoAnswer, match="0x49"):
        await rig.driver.set_level("A", 10)


async def test_a_reset_turns_the_leds_off(rig: Rig) -> None:
    await rig.driver.set_level("A", 10)
    rig.bus.faults.add("chip_reset", address=ADDRESS, seconds=0)
    assert rig.leds.level("A") == 0
    await rig.driver.set_level("A", 10)
    assert max(percent for _, percent, _ in rig.leds.told) < 11
