"""The hardware of one unit in the hands of its buses: outputs off before anything else.

Used by :mod:`piod.daemon` alone, which opens the buses first and closes the ports last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from piod.actors.actor import Ref
from piod.actors.buses.bus import Bus, BusState, OutputBus
from piod.actors.buses.gpio import GpioBus
from piod.actors.buses.i2c import BusAccess, I2cBus
from piod.actors.buses.led import LedBus
from piod.actors.buses.pwm import PwmBus
from piod.actors.hub import Hub
from piod.clock import Clock
from piod.errors import BusError
from piod.hw.drivers import led_driver
from piod.hw.guard import GuardLink
from piod.hw.ports import GpioPort, I2cPort, PwmPort
from piod.hw.wiring import Wiring

log = logging.getLogger(__name__)

T = TypeVar("T")
OPEN_TIMEOUT_S = 30.0
"""Wall time that a bus has to turn its outputs off at the start."""
CLOSE_TIMEOUT_S = 1.0
"""Wall time that a bus has to turn everything off at the end; then the guard does it."""


class Board(Protocol):
    """The hardware of one unit."""

    @property
    def pwm(self) -> PwmPort: ...

    @property
    def gpio(self) -> GpioPort: ...

    @property
    def i2c(self) -> I2cPort: ...


class Start(Protocol):
    """Starts a standing actor, made by the factory, under that name."""

    def __call__(self, name: str, factory: Callable[[], T]) -> Ref[T]: ...


@dataclass(frozen=True)
class Buses:
    """The buses of one unit."""

    pwm: Ref[PwmBus]
    gpio: Ref[GpioBus]
    i2c: Ref[I2cBus]
    leds: Ref[LedBus]

    @property
    def by_name(self) -> Mapping[str, Ref[Bus]]:
        """All of them."""
        return {"pwm": self.pwm, "gpio": self.gpio, "i2c": self.i2c, "led": self.leds}

    @property
    def outputs(self) -> Sequence[Ref[OutputBus]]:
        """Those that lend outputs."""
        return (self.pwm, self.leds)


async def open_buses(
    board: Board, start: Start, *, wiring: Wiring, clock: Clock, hub: Hub, guard: GuardLink | None
) -> Buses:
    """The buses of ``board``, started; all outputs are off, or are being turned off."""
    pwm = start("pwm bus", lambda: PwmBus(board.pwm, clock, hub))
    gpio = start("gpio bus", lambda: GpioBus(board.gpio))
    i2c = start("i2c bus", lambda: I2cBus(board.i2c, clock, hub))
    await asyncio.sleep(0)
    leds = start(
        "led bus",
        lambda: LedBus(led_driver(BusAccess(i2c, urgent=True), wiring), clock, hub, guard),
    )
    await asyncio.sleep(0)
    buses = Buses(pwm, gpio, i2c, leds)
    for bus in buses.by_name.values():
        await bus.ask(BusState(), timeout=OPEN_TIMEOUT_S)
    return buses


async def close_port(port: PwmPort | GpioPort | I2cPort) -> None:
    """Turn off what ``port`` drives, and close it; what goes wrong is logged."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await port.close()
    except BusError as error:
        log.critical("a bus could not be closed, the guard looks after it: %s", error.message)
    except TimeoutError:
        log.critical("a bus does not close, the guard looks after it")
