"""The drivers of the chips on the I2C bus, and which of them a unit has.

A driver knows its chip's registers and nothing of jobs; it starts no task and keeps no
idea of the chip that the chip could contradict. Its errors are BusErrors. Retries are
the business of the bus that it is given.
"""

from __future__ import annotations

from piod.hw.drivers.adc import Adc, Signals
from piod.hw.drivers.ads1114 import Ads1114
from piod.hw.drivers.ads1115 import Ads1115
from piod.hw.drivers.dac43608 import Dac43608
from piod.hw.drivers.rp2040 import Rp2040
from piod.hw.drivers.tmp1075 import Tmp1075
from piod.hw.ports import AnalogInputs, I2cAccess, LedDriver, Thermometer
from piod.hw.wiring import Wiring


def analog_inputs(bus: I2cAccess, wiring: Wiring) -> AnalogInputs:
    """The ADCs of a unit with that wiring. ConfigurationError names an input that is not there."""
    adcs: dict[int, Adc] = {}
    for entry in wiring.adc.values():
        if entry.address not in adcs:
            adcs[entry.address] = _adc(bus, entry.driver, entry.address)
    return Signals(
        bus,
        {signal: (adcs[entry.address], entry.channel) for signal, entry in wiring.adc.items()},
    )


def led_driver(bus: I2cAccess, wiring: Wiring) -> LedDriver:
    """The LED driver of a unit with that wiring."""
    if wiring.hat_version in ("0.1", "1.0"):
        return Dac43608(bus, wiring.dac_address)
    return Rp2040(bus, wiring.dac_address)


def thermometer(bus: I2cAccess, wiring: Wiring) -> Thermometer:
    """The temperature sensor of the heating PCB."""
    return Tmp1075(bus, wiring.temp_address)


def _adc(bus: I2cAccess, driver: str, address: int) -> Adc:
    match driver:
        case "pico":
            return Rp2040(bus, address)
        case "ads1115":
            return Ads1115(bus, address)
        case "ads1114":
            return Ads1114(bus, address)
        case _:
            raise ValueError(f"there is no driver for a {driver}")
