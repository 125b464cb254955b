"""The TMP1075's driver: signed, and never believing what cannot be."""

from __future__ import annotations

import pytest
from recorded_bus import RecordedBus, ScriptedBus, Volts

from piod.clock import SimulatedClock
from piod.hw.drivers.tmp1075 import Tmp1075
from piod.hw.ports import BusStuck, ImplausibleReading, NoAnswer
from piod.hw.simulator.chips.tmp1075 import SimulatedTmp1075

ADDRESS = 0x4F


class Rig:
    """A driver on a recorded wire to a simulated chip."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.celsius = Volts(25.0)
        self.bus = RecordedBus(clock, {ADDRESS: SimulatedTmp1075(self.celsius)})
        self.driver = Tmp1075(self.bus, ADDRESS)


@pytest.fixture
async def rig(clock: SimulatedClock) -> Rig:
    rig = Rig(clock)
    await rig.bus.bus.open()
    return rig


@pytest.mark.parametrize(
    ("answer", "celsius"),
    [
        *(("1940", 25.25), ("0000", 0.0), ("0010", 0.0625), ("FFF0", -0.0625)),
        *(("FF00", -1.0), ("EC00", -20.0), ("7D00", 125.0), ("32F0", 50.9375)),
    ],
)
async def test_the_temperature_is_signed(answer: str, celsius: float) -> None:
    bus = ScriptedBus([answer])
    assert await Tmp1075(bus, ADDRESS).read_celsius() == celsius
    assert bus.wire == [f"4F w00 r{answer}"]


@pytest.mark.parametrize("answer", ["FFFF", "EBF0", "7D10", "7FF0", "8000"])
async def test_what_cannot_be_is_refused(answer: str) -> None:
    with pytest.raises(ImplausibleReading, match=f"0x4F reads {answer}"):
        await Tmp1075(ScriptedBus([answer]), ADDRESS).read_celsius()


@pytest.mark.parametrize(
    ("celsius", "answer", "read"),
    [
        *((25.0, "1900", 25.0), (25.03, "1900", 25.0), (25.04, "1910", 25.0625)),
        *((-0.05, "FFF0", -0.0625), (-10.0, "F600", -10.0)),
    ],
)
async def test_the_twin_answers_in_sixteenths(
    rig: Rig, celsius: float, answer: str, read: float
) -> None:
    rig.celsius.volts = celsius
    assert await rig.driver.read_celsius() == read
    assert rig.bus.wire == [f"4F w00 r{answer}"]


@pytest.mark.parametrize("celsius", [-30.0, -300.0, 126.0, 1000.0])
async def test_the_twin_clips_and_the_driver_refuses(rig: Rig, celsius: float) -> None:
    rig.celsius.volts = celsius
    with pytest.raises(ImplausibleReading):
        await rig.driver.read_celsius()


async def test_a_sensor_that_is_gone_is_told_from_a_stuck_bus(rig: Rig) -> None:
    assert await rig.driver.present()
    rig.bus.faults.add("chip_missing", address=ADDRESS)
    assert not await rig.driver.present()
    with pytest.raises(NoAnswer, match="0x4F"):
        await rig.driver.read_celsius()
    rig.bus.faults.clear()
    rig.bus.faults.add("i2c_stuck")
    with pytest.raises(BusStuck):
        await rig.driver.read_celsius()
    await rig.bus.bus.recover()
    assert await rig.driver.read_celsius() == 25.0
