"""The kinds of hardware that piod touches, as small Protocols.

``linux`` implements them on a Raspberry Pi, ``simulator`` on a virtual reactor.
Drivers, bus actors and jobs are the same code on both; one contract test
(``tests/hw/test_ports_contract.py``) runs against both.

Pins and lines are BCM GPIO numbers; duty cycles are percent of full on, 0 to
100; times are seconds. All coroutines run on the event loop; an implementation
that must block does so in its own thread. Every failed access raises
:class:`piod.errors.BusError`, a part that is not there
:class:`piod.errors.DeviceMissing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias


class PwmPort(Protocol):
    """PWM outputs, by GPIO number.

    An output that was given ``off_after_s`` goes to 0 by itself when that time
    is over, even when the event loop is blocked: the implementation's own
    thread keeps it, and so does the guard. A later ``set_duty`` of the same pin
    replaces the deadline; ``None`` removes it.
    """

    @property
    def pins(self) -> Sequence[int]:
        """The pins that this port can drive."""
        ...

    async def open(self) -> None:
        """Claim every pin and drive it to 0. May be called again after a failure."""
        ...

    async def close(self) -> None:
        """Drive every pin to 0 and let go of it."""
        ...

    async def set_duty(
        self, pin: int, duty_percent: float, *, hz: float, off_after_s: float | None = None
    ) -> None:
        """Drive ``pin``; returns when the hardware holds the new duty.

        ``hz`` is the PWM frequency. 0 % is always reachable, whatever ``hz``.
        """
        ...

    def cut(self, pin: int) -> None:
        """Drive ``pin`` to 0 as soon as can be; returns at once, never raises.

        Callable from any thread. Whether it worked is learned by a following
        ``set_duty(pin, 0)``.
        """
        ...


class GpioPort(Protocol):
    """Digital lines, by GPIO number."""

    async def open(self) -> None:
        """Claim the lines. May be called again after a failure."""
        ...

    async def close(self) -> None:
        """Drive outputs low and let go of every line."""
        ...

    async def read(self, line: int) -> bool:
        """The level of an input line; True is high."""
        ...

    async def write(self, line: int, level: bool) -> None:
        """Drive an output line."""
        ...

    async def record_edges(self, line: int, window_s: float) -> Sequence[float]:
        """Watch ``line`` for ``window_s`` and return the times of its falling edges.

        Times are in seconds on one monotonic scale whose zero means nothing;
        only differences do. An empty window gives an empty sequence.
        """
        ...


@dataclass(frozen=True)
class Read:
    """A message of an I2C transaction: ``count`` bytes (1 or more) from the chip."""

    count: int


@dataclass(frozen=True)
class Write:
    """A message of an I2C transaction: ``data`` to the chip; empty: its address alone."""

    data: bytes


I2cMessage: TypeAlias = Read | Write


class I2cPort(Protocol):
    """One I2C bus. Addresses are 7-bit.

    (A timed list of transactions, for sampling, joins it with the first chip
    that is read.)
    """

    async def open(self) -> None:
        """Open the bus. May be called again after a failure."""
        ...

    async def close(self) -> None:
        """Let go of the bus."""
        ...

    async def transfer(self, address: int, messages: Sequence[I2cMessage]) -> Sequence[bytes]:
        """One transaction: ``messages`` in order, a repeated start between them.

        Returns what each :class:`Read` got. A chip that does not answer is a
        BusError.
        """
        ...

    async def probe(self, address: int) -> bool:
        """Whether a chip answers at ``address``; it is only addressed, nothing is written.

        An adapter that cannot do that reads one byte instead.
        """
        ...
