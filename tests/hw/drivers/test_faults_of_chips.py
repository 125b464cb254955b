"""Each fault of the bus and of a chip, as each driver meets it: named, and over when it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from recorded_bus import Leds, RecordedBus

from piod.clock import SimulatedClock
from piod.errors import BusError, DeviceMissing
from piod.hw.drivers import analog_inputs, led_driver, thermometer
from piod.hw.ports import BusStuck, NoAnswer
from piod.hw.simulator.chips import build_chips, chips_of
from piod.hw.wiring import load_wiring

HAT_1_0, OPTICS_1_5 = ("1.0", ("pioreactor_20ml", "1.1")), ("1.2", ("pioreactor_20ml", "1.5"))

ACCESSES: Mapping[str, tuple[tuple[str, tuple[str, str]], int]] = {
    "RP2040, ADC": (OPTICS_1_5, 0x2C),
    "RP2040, LEDs": (OPTICS_1_5, 0x2C),
    "ADS1114": (OPTICS_1_5, 0x49),
    "ADS1115": (HAT_1_0, 0x48),
    "DAC43608": (HAT_1_0, 0x49),
    "TMP1075": (OPTICS_1_5, 0x4F),
}
"""What is accessed: on which HAT and model, at which address."""

FAULTS: Mapping[str, tuple[type[BusError], bool]] = {
    "nack": (NoAnswer, True),
    "chip_missing": (NoAnswer, True),
    "chip_reset": (NoAnswer, True),
    "i2c_stuck": (BusStuck, False),
    "device_missing": (DeviceMissing, False),
    "bus_error": (BusError, False),
}
"""How it is refused, and whether the fault is of one chip."""


class Vial:
    """Surroundings in which nothing changes."""

    def __init__(self) -> None:
        self.leds = Leds()

    def analog_input(self, signal: str, kind: str) -> Callable[[float], float]:
        return lambda now_s: 0.5

    def pcb_celsius(self, now_s: float) -> float:
        return 31.25

    def set_led(self, channel: str, percent: float, now_s: float) -> None:
        self.leds.set(channel, percent, now_s)


async def rig(
    what: str, directory: Path, clock: SimulatedClock
) -> tuple[RecordedBus, Callable[[], Awaitable[float]], float]:
    """The bus, one access that tells a number, and the number."""
    (hat, model), address = ACCESSES[what]
    wiring = load_wiring(directory, hat, model)
    bus = RecordedBus(clock, build_chips(chips_of(wiring), Vial(), 0.0))
    await bus.bus.open()
    await clock.sleep(2)

    async def look(signal: str) -> float:
        ((_, volts, _),) = await analog_inputs(bus, wiring).sample([(0.0, signal)])
        return volts

    if what == "TMP1075":
        return bus, thermometer(bus, wiring).read_celsius, 31.25
    if what in ("RP2040, LEDs", "DAC43608"):
        return bus, lambda: led_driver(bus, wiring).set_level("B", 50), 50
    signal = "aux" if what == "RP2040, ADC" else "pd1"
    assert wiring.adc[signal].address == address
    return bus, lambda: look(signal), 0.5


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", ACCESSES)
async def test_a_fault_is_named_and_the_driver_works_again_after_it(
    what: str, fault: str, tmp_path: Path, clock: SimulatedClock
) -> None:
    bus, access, number = await rig(what, tmp_path, clock)
    assert await access() == pytest.approx(number, rel=0.02)
    refusal, of_the_chip = FAULTS[fault]
    address = ACCESSES[what][1]
    where = {"address": address} if of_the_chip else {"bus": "i2c"}
    bus.faults.add(fault, **({} if fault == "i2c_stuck" else where))
    with pytest.raises(BusError) as refused:
        await access()
    assert type(refused.value) is refusal
    if of_the_chip:
        assert f"0x{address:02X}" in refused.value.message
    match fault:
        case "nack":
            assert not bus.faults, "it was one"
        case "chip_reset":
            await clock.sleep(3.1)  # the RP2040 is silent for 2 s, then looks once a second
        case "i2c_stuck":
            await bus.bus.recover()
        case _:
            bus.faults.clear()
    if fault == "device_missing":
        await bus.bus.open()
    assert await access() == pytest.approx(number, rel=0.02)
