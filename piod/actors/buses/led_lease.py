"""Leasing LEDs: what the LED bus (:mod:`piod.actors.buses.led`) is asked.

Messages: :class:`LeaseLeds`, :class:`SetLevels`, :class:`ReleaseLeds`, :class:`Darken`,
:class:`Restore`. :class:`LeasedLeds` sends them for a job.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piod.actors.actor import Life, Message, Ref
from piod.actors.buses.bus import AllReleased, BusState, FindHang, RevokeAll
from piod.errors import BusError, PiodError

if TYPE_CHECKING:
    from piod.actors.buses.led import LedBus

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 60.0
"""Wall time; the accesses behind it have deadlines of their own."""


@dataclass(frozen=True)
class LedLease:
    """The right to drive LEDs."""

    number: int
    channels: str
    owner: str


@dataclass(frozen=True)
class LeaseLeds(Message["LedBus", LedLease]):
    """Lend ``channels``, such as ``"CD"``, to ``life``, at 0 %.

    ``lost`` is called when the lease is taken away before its owner's end.
    Refused with LeaseTaken, which names the owner, while another one has any of them.
    """

    channels: str
    life: Life
    lost: Callable[[BusError], None]


@dataclass(frozen=True)
class SetLevels(Message["LedBus", Mapping[str, float]]):
    """Drive leased LEDs, percent by channel; answered with what they really get.

    An LED that is dim now shows its level when it is restored.
    """

    lease: LedLease
    percent: Mapping[str, float]


@dataclass(frozen=True)
class ReleaseLeds(Message["LedBus", None]):
    """Give a lease back; answered when its LEDs are off."""

    lease: LedLease


@dataclass(frozen=True)
class Darken(Message["LedBus", None]):
    """Every LED that is not of ``lease`` to 0; answered when they are."""

    lease: LedLease


@dataclass(frozen=True)
class Restore(Message["LedBus", None]):
    """End what :class:`Darken` began; answered when it has been tried."""

    lease: LedLease


LedMessage = (
    LeaseLeds
    | SetLevels
    | ReleaseLeds
    | Darken
    | Restore
    | AllReleased
    | RevokeAll
    | BusState
    | FindHang
)


class LeasedLeds:
    """Leased LEDs, as a job drives them (:class:`piod.jobs.instruments.LedOutputs`)."""

    def __init__(self, bus: Ref[LedBus], lease: LedLease) -> None:
        self._bus = bus
        self._lease = lease

    @property
    def channels(self) -> str:
        return self._lease.channels

    async def set_levels(self, percent_by_channel: Mapping[str, float]) -> Mapping[str, float]:
        """See :class:`piod.jobs.instruments.LedOutputs`."""
        message = SetLevels(self._lease, dict(percent_by_channel))
        return await self._bus.ask(message, timeout=ASK_TIMEOUT_S)

    @asynccontextmanager
    async def others_dark(self) -> AsyncIterator[None]:
        """See :class:`piod.jobs.instruments.LedOutputs`."""
        try:
            await self._bus.ask(Darken(self._lease), timeout=ASK_TIMEOUT_S)
            yield
        finally:
            try:
                await self._bus.ask(Restore(self._lease), timeout=ASK_TIMEOUT_S)
            except PiodError as refusal:  # the bus restores them by itself
                log.debug("darkness could not be ended: %s", refusal.message)

    async def release(self) -> None:
        """See :class:`piod.jobs.instruments.LedOutputs`."""
        await self._bus.ask(ReleaseLeds(self._lease), timeout=ASK_TIMEOUT_S)
