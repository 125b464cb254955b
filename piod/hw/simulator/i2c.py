"""The I2C bus of the simulated unit: which chips are there.

A chip answers to its address. Its registers, and what they measure, are not
simulated yet: whoever reads or writes them gets a BusError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from piod.errors import BusError
from piod.hw.ports import I2cMessage, I2cPort, Write
from piod.hw.wiring import Wiring

from .faults import Faults, MissingChip


def chips_of(wiring: Wiring) -> Mapping[int, str]:
    """The kinds of the chips of a unit with that wiring, by their I2C address."""
    chips = {entry.address: entry.driver.upper() for entry in wiring.adc.values()}
    chips.setdefault(wiring.dac_address, "DAC43608")  # on later HATs the PICO is the DAC, too
    chips.setdefault(wiring.temp_address, "TMP1075")
    return chips


class SimulatedI2c(I2cPort):
    """The I2C port; ``chips`` are those of :func:`chips_of`."""

    def __init__(self, chips: Mapping[int, str], faults: Faults) -> None:
        self._chips = chips
        self._faults = faults
        self._open = False

    async def open(self) -> None:
        self._open = False
        self._faults.access("i2c")
        self._open = True

    async def close(self) -> None:
        self._open = False

    async def transfer(self, address: int, messages: Sequence[I2cMessage]) -> Sequence[bytes]:
        chip = self._addressed(address)
        if chip is None:
            raise BusError(f"No chip answers at I2C address 0x{address:02X}.")
        if any(message != Write(b"") for message in messages):
            raise BusError(
                f"The registers of the {chip} at I2C address 0x{address:02X} are not simulated yet."
            )
        return []

    async def probe(self, address: int) -> bool:
        return self._addressed(address) is not None

    def _addressed(self, address: int) -> str | None:
        if not 0x08 <= address <= 0x77:
            raise ValueError(f"0x{address:02X} is not the address of a chip")
        if not self._open:
            raise BusError("The I2C bus is not open.")
        self._faults.access("i2c")
        if any(fault.address == address for fault in self._faults.of(MissingChip)):
            return None
        return self._chips.get(address)
