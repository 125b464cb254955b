"""The I2C bus: ADCs, LED drivers, the temperature sensor.

Messages: :class:`Probe`, :class:`~piod.actors.buses.bus.BusState`,
:class:`~piod.actors.buses.bus.FindHang`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from piod.actors.actor import Actor, Message
from piod.actors.buses.bus import Bus, BusReport, BusState, FindHang, Opening, access
from piod.errors import DeviceMissing
from piod.hw.ports import I2cPort


@dataclass(frozen=True)
class Probe(Message["I2cBus", bool]):
    """Whether a chip answers at the 7-bit I2C ``address``."""

    address: int


I2cBusMessage = Probe | BusState | FindHang


class I2cBus(Actor[I2cBusMessage], Bus):
    """Owns the I2C bus: ADCs, LED drivers, temperature sensor."""

    def __init__(self, port: I2cPort) -> None:
        super().__init__("i2c bus")
        self._port = port
        self._opening = Opening("i2c", port)

    async def starting(self) -> None:
        self.spawn(self._opening.keep_trying())
        await self._opening.first_attempt()

    async def receive(self, message: I2cBusMessage) -> object:
        match message:
            case Probe(address):
                self._opening.check()
                return self.later(self._probe(address))
            case BusState():
                problem = self._opening.problem
                return BusReport(None if problem is None else problem.message)
            case FindHang():
                return None  # it has no output yet
            case _:
                assert_never(message)

    async def _probe(self, address: int) -> bool:
        try:
            return await access("i2c", self._port.probe(address))
        except DeviceMissing as error:
            if self._opening.gone(error):
                self.spawn(self._opening.keep_trying())
            raise
