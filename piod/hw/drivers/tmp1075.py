"""TMP1075 on the heating PCB: its temperature, for the heater's control and its interlock.

The value is signed. Read as unsigned, a bus that is stuck high or a cold morning would
be 256 °C. Source: handbook jobs-and-hardware.md §1.4 (HAZ-2).
"""

from __future__ import annotations

from piod.hw.drivers.chip import Chip
from piod.hw.ports import ImplausibleReading, Read, Write

STEP_CELSIUS = 0.0625
LOWEST_CELSIUS, HIGHEST_CELSIUS = -20.0, 125.0
STUCK_HIGH = b"\xff\xff"
"""No temperature: the last four bits are always 0."""

_READ_TEMPERATURE = (Write(b"\x00"), Read(2))


class Tmp1075(Chip):
    """A Thermometer."""

    async def read_celsius(self) -> float:
        """See :meth:`piod.hw.ports.Thermometer.read_celsius`."""
        (answer,) = await self.bus.transfer(self.address, _READ_TEMPERATURE)
        celsius = to_celsius(answer)
        if answer == STUCK_HIGH or not LOWEST_CELSIUS <= celsius <= HIGHEST_CELSIUS:
            raise ImplausibleReading(
                f"The {self} reads {answer.hex().upper()}, {celsius:g} °C; only "
                f"{LOWEST_CELSIUS:g} to {HIGHEST_CELSIUS:g} °C can be true."
            )
        return celsius


def to_celsius(answer: bytes) -> float:
    """The temperature register: signed, twelve bits, left-justified."""
    return (int.from_bytes(answer, "big", signed=True) >> 4) * STEP_CELSIUS
