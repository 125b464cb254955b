"""Leasing the heater: what its interlock (:mod:`piod.actors.heater`) is asked for a job.

Messages: :class:`LeaseHeater`, :class:`SetHeater`, :class:`ReadBoard`,
:class:`ResetInterlock`. :class:`LeasedHeater` sends them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piod.actors.actor import Life, Message, Ref
from piod.actors.buses.bus import ASK_TIMEOUT_S, LeaseLost
from piod.errors import PiodError

if TYPE_CHECKING:
    from piod.actors.heater import HeaterInterlock

HEATER_ASK_TIMEOUT_S = 60.0
"""Wall time for asks that read the board: as long as an I2C access may take."""


@dataclass(frozen=True)
class HeaterLease:
    """The right to drive the heater."""

    number: int
    owner: str


@dataclass(frozen=True)
class HeaterState:
    """What the heater is driven at, and why it may not be (None: it may)."""

    duty_percent: float
    trip: str | None


@dataclass(frozen=True)
class LeaseHeater(Message["HeaterInterlock", HeaterLease]):
    """Lend the heater, at 0 %, to ``life``. LeaseTaken while another owner has it.

    ``changed`` is called with each change of its state, at once; ``lost`` when the lease
    is taken away before its owner's end.
    """

    life: Life
    changed: Callable[[HeaterState], None]
    lost: Callable[[PiodError], None]


@dataclass(frozen=True)
class SetHeater(Message["HeaterInterlock", float]):
    """Drive the leased heater; answered with the duty cycle that it has got.

    Above 0 only after a good reading. Refused with HeaterTripped.
    """

    lease: HeaterLease
    duty_percent: float


@dataclass(frozen=True)
class ReadBoard(Message["HeaterInterlock", float]):
    """One reading of the board, °C, checked like any other. Refused with BusError."""

    lease: HeaterLease


@dataclass(frozen=True)
class ResetInterlock(Message["HeaterInterlock", None]):
    """Allow heating again; on disk when answered."""


class LeasedHeater:
    """The leased heater, as a job drives it: a :class:`piod.jobs.instruments.Heater`."""

    def __init__(self, heater: Ref[HeaterInterlock]) -> None:
        self._heater = heater
        self._state = HeaterState(0.0, None)
        self._lease: HeaterLease | None = None
        self._on_change: Callable[[], None] = lambda: None

    async def lease(self, life: Life, lost: Callable[[PiodError], None]) -> None:
        """Lease it for ``life``."""
        request = LeaseHeater(life, self._changed, lost)
        self._lease = await self._heater.ask(request, timeout=ASK_TIMEOUT_S)

    @property
    def duty_percent(self) -> float:
        return self._state.duty_percent

    @property
    def trip(self) -> str | None:
        return self._state.trip

    def on_change(self, callback: Callable[[], None]) -> None:
        self._on_change = callback

    async def set_duty(self, duty_percent: float) -> float:
        message = SetHeater(self._leased(), duty_percent)
        return await self._heater.ask(message, timeout=HEATER_ASK_TIMEOUT_S)

    async def board_celsius(self) -> float:
        return await self._heater.ask(ReadBoard(self._leased()), timeout=HEATER_ASK_TIMEOUT_S)

    async def reset(self) -> None:
        await self._heater.ask(ResetInterlock(), timeout=ASK_TIMEOUT_S)

    def _leased(self) -> HeaterLease:
        if self._lease is None:
            raise LeaseLost("the heater has not been leased")
        return self._lease

    def _changed(self, state: HeaterState) -> None:
        self._state = state
        self._on_change()
