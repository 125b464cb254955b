"""The instruments of a unit as jobs see them: LEDs, photodiodes, heater, memory, events.

What is leased here is the job's until it ends, and is turned off then. The
hardware's own protocols (ADC inputs, thermometer) are in :mod:`piod.hw.ports`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from piod.events import Event, JsonValue


class LedOutputs(Protocol):
    """Leased LEDs, channels ``A`` to ``D``."""

    @property
    def channels(self) -> str:
        """The leased channels, such as ``"CD"``."""
        ...

    async def set_levels(self, percent_by_channel: Mapping[str, float]) -> Mapping[str, float]:
        """Drive leased LEDs (0 to 100 %); the levels that they really get.

        Returns when the chip holds them. BusError: they may be at any level; the bus
        turns them off when the lease ends.
        """
        ...

    def others_dark(self) -> AbstractAsyncContextManager[None]:
        """Every LED that is not of this lease at 0 meanwhile, for 5 s at most.

        The bus restores them: at the end, after 5 s, and when the lease ends. Meanwhile
        their owners may set them; the new level counts from the restoration on.
        """
        ...


class Heater(Protocol):
    """The leased heater, behind the interlock of its bus.

    The bus reads the heater board every 2 s while the duty cycle is above 0, and turns
    the heater off by itself when a reading fails, is implausible, too hot, frozen, or
    contradicts the duty cycle. That latches until :meth:`reset`.
    """

    async def set_duty(self, duty_percent: float) -> None:
        """Drive it. Raises HeaterTripped (503) with the reason while it is latched."""
        ...

    async def board_celsius(self) -> float:
        """The heater board's temperature: one reading. BusError."""
        ...

    @property
    def trip(self) -> str | None:
        """Why the interlock has turned the heater off; None: it has not."""
        ...

    def reset(self) -> None:
        """Allow heating again; the reason must be gone, or it trips anew."""
        ...


class Memory(Protocol):
    """What a job remembers beyond its own life, on disk: by key, of one experiment."""

    async def recall(self, key: str) -> JsonValue:
        """What was kept; None: nothing."""
        ...

    async def keep(self, key: str, value: JsonValue) -> None:
        """Keep it, durable when this returns; None forgets it."""
        ...


class Events(Protocol):
    """What happens on the unit, from now on; see :mod:`piod.events`."""

    def __aiter__(self) -> AsyncIterator[Event]: ...


class Peers(Protocol):
    """The other jobs of the unit."""

    def settings(self, job_name: str) -> Mapping[str, JsonValue] | None:
        """What a running job publishes now, native values; None: none of that name runs."""
        ...
