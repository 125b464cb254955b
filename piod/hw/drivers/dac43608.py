"""DAC43608 of HAT 1.0: the LED driver.

A channel that is powered up drives what its register holds, after power-on full scale.
So a level is written **before** its channel is powered up, and an LED that goes off is
powered down. Source: handbook jobs-and-hardware.md §1.4 (HAZ-10).
"""

from __future__ import annotations

import asyncio

from piod.errors import BusError
from piod.hw.drivers.chip import Chip
from piod.hw.drivers.led import CHANNELS, led_level, led_number
from piod.hw.ports import I2cAccess, Read, Write

CONFIG = b"\x01"
FIRST_CHANNEL = 8
ALL_DOWN = 0x0100
CHANNELS_MASK = 0x00FF

_READ_CONFIG = (Write(CONFIG), Read(2))


class Dac43608(Chip):
    """An LedDriver; what the chip holds is asked of the chip."""

    channels = CHANNELS

    def __init__(self, bus: I2cAccess, address: int) -> None:
        super().__init__(bus, address)
        self._configuring = asyncio.Lock()
        """One at a time reads the configuration, changes it and writes it back."""

    async def set_level(self, channel: str, percent: float) -> float:
        """See :meth:`piod.hw.ports.LedDriver.set_level`."""
        level = led_level(percent)
        index = led_number(channel)
        async with self._configuring:
            if level == 0:
                await self._power(1 << index, down=True)
                return 0.0
            register = FIRST_CHANNEL + index
            value = (level << 4).to_bytes(2, "big")
            held = await self.bus.transfer(
                self.address, [Write(bytes([register]) + value), Write(bytes([register])), Read(2)]
            )
            if held != [value]:
                raise BusError(f"The {self} does not hold the level of LED {channel}.")
            await self._power(1 << index, down=False)
            return 100 * level / 255

    async def all_off(self) -> None:
        """Power everything down, by one write."""
        async with self._configuring:
            await self._configure(ALL_DOWN | CHANNELS_MASK)

    async def _power(self, bit: int, *, down: bool) -> None:
        (answer,) = await self.bus.transfer(self.address, _READ_CONFIG)
        before = int.from_bytes(answer, "big")
        # Bit 8 goes: it means all, and the channels' own bits say the same of each.
        mask = before & CHANNELS_MASK if not before & ALL_DOWN else CHANNELS_MASK
        after = mask | bit if down else mask & ~bit
        if after != before:
            await self._configure(after)

    async def _configure(self, config: int) -> None:
        written = CONFIG + config.to_bytes(2, "big")
        held = await self.bus.transfer(self.address, [Write(written), *_READ_CONFIG])
        if held != [written[1:]]:
            raise BusError(f"The {self} does not hold which of its channels are powered down.")
