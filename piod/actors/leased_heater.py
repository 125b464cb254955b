"""The heater as a job sees it."""

from __future__ import annotations

from collections.abc import Callable

from piod.actors.actor import Life, Ref
from piod.actors.buses.bus import ASK_TIMEOUT_S, LeaseLost
from piod.actors.heater import (
    HEATER_ASK_TIMEOUT_S,
    HeaterInterlock,
    HeaterLease,
    HeaterState,
    LeaseHeater,
    ReadBoard,
    ResetInterlock,
    SetHeater,
)
from piod.errors import PiodError


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
