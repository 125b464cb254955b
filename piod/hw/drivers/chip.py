"""What all drivers of I2C chips have in common."""

from __future__ import annotations

from piod.hw.ports import I2cAccess


class Chip:
    """One chip at a 7-bit address of ``bus``."""

    def __init__(self, bus: I2cAccess, address: int) -> None:
        self.bus = bus
        self.address = address

    async def present(self) -> bool:
        """Whether a chip answers at the address; nothing is written to it."""
        return await self.bus.probe(self.address)

    def __str__(self) -> str:
        return f"{type(self).__name__} at I2C address 0x{self.address:02X}"
