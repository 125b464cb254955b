"""What all bus actors share: opening a port, accesses with a deadline, their state.

A bus whose device is missing is not a bug: it is looked for again, for ever at a
capped pace, and refuses asks with the reason meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from piod.actors.actor import Message
from piod.errors import BusError, DeviceMissing, Unavailable
from piod.hw.ports import GpioPort, I2cPort, PwmPort

R = TypeVar("R")

ACCESS_TIMEOUT_S = 1.0
"""Wall time after which a hardware access counts as hung."""
RETRY_S = (0.05, 10.0)
"""First and longest pause between attempts to open a bus, wall time."""
ASK_TIMEOUT_S = 5.0
FIRST_ATTEMPT_S = 15.0
"""How long a bus actor waits for its first attempt to open, wall time: above what udev may take."""


@dataclass(frozen=True)
class BusReport:
    """How a bus is doing. ``problem`` is None when it works."""

    problem: str | None
    leases: dict[str, str] = field(default_factory=dict)
    """Owner by output, such as ``GPIO 17`` or ``LED A``."""
    going_off: dict[str, str] = field(default_factory=dict)
    """Former owner by output, of outputs that are not confirmed to be off yet."""


class Bus:
    """Any bus actor."""


class OutputBus(Bus):
    """A bus actor that lends outputs, each to one owner."""


class LeaseLost(BusError):
    """The lease has ended: its bus restarted, or the guard turned the outputs off."""

    default_remediation = "The job is restarted by its policy; look at the log of piod."


class BusHangs(BusError):
    """An access does not come to an end."""


@dataclass(frozen=True)
class AllReleased(Message[OutputBus, None]):
    """Answered when every output that ``owner`` had is confirmed to be off."""

    owner: str


@dataclass(frozen=True)
class RevokeAll(Message[OutputBus, None]):
    """End every lease: the guard turned the outputs off, or the machine goes down."""

    reason: str


@dataclass(frozen=True)
class BusState(Message[Bus, BusReport]):
    """How the bus is doing; answered as long as the bus actor lives."""


@dataclass(frozen=True)
class FindHang(Message[Bus, str | None]):
    """What hangs that keeps an output on, in words; None: nothing.

    For the watchdog. A missing or refusing device is no hang, and what hangs while
    every output is off can wait for its repair.
    """


async def access(bus: str, work: Coroutine[object, object, R]) -> R:
    """One access to the hardware, with a deadline."""
    try:
        async with asyncio.timeout(ACCESS_TIMEOUT_S):
            return await work
    except TimeoutError:
        raise BusHangs(f"the {bus} bus did not answer within {ACCESS_TIMEOUT_S:g} s") from None


class Opening:
    """Opens a port, again and again until it works; and anew when its device is gone."""

    def __init__(self, bus: str, port: PwmPort | GpioPort | I2cPort) -> None:
        self._bus = bus
        self._log = logging.getLogger(f"piod.buses.{bus}")
        self._port = port
        self.problem: BusError | None = BusError(f"the {bus} bus has not been opened yet")
        self._tried = asyncio.Event()

    async def first_attempt(self) -> None:
        """Wait for it, whether it works or not; one that hangs is not waited for."""
        try:
            async with asyncio.timeout(FIRST_ATTEMPT_S):
                await self._tried.wait()
        except TimeoutError:
            self._log.critical("the %s bus does not open, and does not refuse either", self._bus)

    async def keep_trying(self) -> None:
        pause, longest = RETRY_S
        while True:
            try:
                await self._port.open()
            except BusError as error:
                if self.problem is None or error.message != self.problem.message:
                    self._log.error("the %s bus is not available: %s", self._bus, error.message)
                self.problem = error
            else:
                self.problem = None
                self._log.info("the %s bus is open", self._bus)
            self._tried.set()
            if self.problem is None:
                return
            await asyncio.sleep(pause)  # wall time: this is about real devices
            pause = min(2 * pause, longest)

    def gone(self, error: DeviceMissing) -> bool:
        """An access found the device missing; whether it has to be looked for anew."""
        if self.problem is not None:
            return False
        self._log.error("the %s bus has lost its device: %s", self._bus, error.message)
        self.problem = error
        return True

    def check(self) -> None:
        """Refuse with the reason while the port is not open."""
        if self.problem is not None:
            raise Unavailable(
                f"the {self._bus} bus is not available: {self.problem.message}",
                cause=self.problem.cause,
                remediation=self.problem.remediation,
            )
