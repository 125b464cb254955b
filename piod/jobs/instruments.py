"""The instruments of a unit as jobs see them: LEDs, photodiodes, heater, memory, events.

What is leased here is the job's until it ends, and is turned off then. The
hardware's own protocols (ADC inputs, thermometer) are in :mod:`piod.hw.ports`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from piod.errors import Unavailable
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

    async def release(self) -> None:
        """Give them back before the job's end; returns when they are off."""
        ...


class HeaterTripped(Unavailable):
    """The interlock keeps the heater off."""

    default_remediation = (
        "Look after the heater's board, its sensor and the vial. Then set reset_interlock of a "
        "running temperature_automation to true."
    )


class Heater(Protocol):
    """The leased heater, behind the interlock of its bus (:mod:`piod.actors.heater`).

    The interlock reads the heater's board every 2 s while the duty cycle is above 0, and
    turns the heater off by itself when a reading fails, is implausible, too hot, frozen, or
    contradicts the duty cycle. That latches until :meth:`reset`.
    """

    @property
    def duty_percent(self) -> float:
        """What it is driven at now: 0 as soon as it is off, whoever turned it off."""
        ...

    @property
    def trip(self) -> str | None:
        """Why the interlock has turned the heater off; None: it has not."""
        ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back at each change of ``duty_percent`` or ``trip``, at once."""
        ...

    async def set_duty(self, duty_percent: float) -> float:
        """Drive it; the duty cycle that it has got, less than asked for while it is hot.

        To be set anew within 300 s, or it ends. Raises HeaterTripped (503) with the reason
        while the interlock is latched, BusError when the board cannot be read.
        """
        ...

    async def board_celsius(self) -> float:
        """The heater board's temperature: one reading. BusError."""
        ...

    async def reset(self) -> None:
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

    def keep_later(self, key: str, value: JsonValue) -> None:
        """Keep it within seconds, together with others: for what changes at each reading."""
        ...


class Events(Protocol):
    """What happens on the unit while one iterates over it; see :mod:`piod.events`."""

    def __aiter__(self) -> AsyncIterator[Event]: ...


class ReactorLimits(Protocol):
    """What the reactor model allows; see :class:`piod.hw.models.Limits`."""

    @property
    def key(self) -> tuple[str, str] | None:
        """Name and version; None: not known, and the strictest limits of all models hold."""
        ...

    @property
    def reactor_capacity_ml(self) -> float: ...

    @property
    def reactor_max_fill_volume_ml(self) -> float: ...

    @property
    def max_temp_to_reduce_heating(self) -> float:
        """°C, as the next two."""
        ...

    @property
    def max_temp_to_disable_heating(self) -> float: ...

    @property
    def max_temp_to_shutdown(self) -> float: ...


class LevelInput(Protocol):
    """A digital input, such as the button."""

    async def await_level(self, level: bool) -> None:
        """Return when it has that level (True: high, pressed), at once if it has. BusError."""
        ...


class DigitalOutput(Protocol):
    """A leased digital output, such as the LED of the PCB."""

    async def set_level(self, level: bool) -> None:
        """Drive it. BusError."""
        ...


class Peers(Protocol):
    """The other jobs of the unit."""

    def settings(self, job_name: str) -> Mapping[str, JsonValue] | None:
        """What a running job publishes now, native values; None: none of that name runs."""
        ...
