"""The kinds of hardware that piod touches, as small Protocols.

``linux`` implements them on a Raspberry Pi, ``simulator`` on a virtual reactor.
Drivers, bus actors and jobs are the same code on both; contract tests
(``tests/hw/test_ports_contract.py``, ``test_i2c.py``) run against both.

Above the I2C bus stand what its chips are to a job, whatever the chips:
:class:`AnalogInputs`, :class:`LedDriver`, :class:`Thermometer`. ``drivers``
implements them.

Pins and lines are BCM GPIO numbers; duty cycles are percent of full on, 0 to
100; times are seconds. All coroutines run on the event loop; an implementation
that must block does so in its own thread. Every failed access raises
:class:`piod.errors.BusError`, a part that is not there
:class:`piod.errors.DeviceMissing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from piod.errors import BusError


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

    async def answer(self) -> None:
        """Return when the port comes round to it, touching nothing: one that hangs never does.

        BusError when it is closed.
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

    async def await_level(self, line: int, level: bool) -> None:
        """Return when the input ``line`` has that level, at once if it has; True is high.

        The line must have been claimed for both edges, as the button's is.
        """
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


class TimedTransfer(NamedTuple):
    """A transaction of a timed list, with the earliest instant at which it may begin.

    That is ``offset_s`` after the start of the list and ``pause_s`` after the end
    of the transaction before it, whichever is later.
    """

    offset_s: float
    address: int
    messages: Sequence[I2cMessage]
    pause_s: float = 0.0


class TimedAnswer(NamedTuple):
    """What a timed transaction read, and when it began: seconds from the start of the list."""

    t_s: float
    data: Sequence[bytes]


class NoAnswer(BusError):
    """Nobody acknowledged the address: no such chip, or one that is busy or in reset."""


class BusStuck(BusError):
    """The bus does not come free: a chip, or a short circuit, holds a line low."""

    default_remediation = (
        "If it persists, switch the unit off and on; then check the HAT and its cables."
    )


class I2cAccess(Protocol):
    """What a chip's driver needs of its bus. Addresses are 7-bit."""

    async def transfer(self, address: int, messages: Sequence[I2cMessage]) -> Sequence[bytes]:
        """One transaction: ``messages`` in order, a repeated start between them.

        Returns what each :class:`Read` got. A chip that does not answer is
        NoAnswer, a bus that hangs BusStuck.
        """
        ...

    async def transfer_at(self, items: Sequence[TimedTransfer]) -> Sequence[TimedAnswer]:
        """Transactions at their instants, in order, as one piece: nobody else comes between.

        Each begins as soon as it may and the one before it is over, so late when
        those take long; the answers tell when. The first that fails ends the list:
        its error (BusError) names the address and the item, and the rest is not
        done. A caller that is cancelled ends it, too. ValueError: offsets that go
        back, or a list that would last longer than 2 s (``piod.hw.i2c``).
        """
        ...

    async def probe(self, address: int) -> bool:
        """Whether a chip answers at ``address``; it is only addressed, nothing is written.

        An adapter that cannot do that reads one byte instead.
        """
        ...


class I2cPort(I2cAccess, Protocol):
    """One I2C bus."""

    async def open(self) -> None:
        """Open the bus. May be called again after a failure."""
        ...

    async def close(self) -> None:
        """Let go of the bus."""
        ...

    async def recover(self) -> None:
        """Try to free a stuck bus, as a chip that was cut off in the middle of a byte holds it.

        Whether it worked is learned by the next access. BusError when the bus is
        closed.
        """
        ...


class Sample(NamedTuple):
    """A voltage, and when it was looked at: seconds from the start of the list.

    ``saturated``: at the end of the range, or so near to it that it is not to be
    trusted.
    """

    t_s: float
    volts: float
    saturated: bool


class AnalogInputs(Protocol):
    """The signals that the ADCs measure, named as in the wiring: ``pd1`` … ``pd4``, ``aux``.

    A name that is not among ``signals``, or a gain that an ADC has not, is a
    ValueError.
    """

    @property
    def signals(self) -> Sequence[str]:
        """Every signal that is wired."""
        ...

    async def sample(self, plan: Sequence[tuple[float, str]]) -> Sequence[Sample]:
        """Look at signals: ``(offset_s, signal)`` in order of time; one sample each.

        All of it is one timed list of the bus, whatever chips it takes. An ADC
        that is not ready yet is looked at late; the samples tell when. Raises
        BusError also for an ADC that lost its configuration on the way: what it
        measured meanwhile is not handed on.
        """
        ...

    def sampling_s(self, plan: Sequence[tuple[float, str]]) -> float:
        """How long :meth:`sample` takes with that plan, when nothing else wants the bus."""
        ...

    def full_scale_volts(self, signal: str) -> float:
        """Above it a sample is saturated, at the present gain."""
        ...

    def gain_for(self, signal: str, volts: float) -> float:
        """The finest gain that leaves ``volts`` some room; 1 for an ADC without gains."""
        ...

    def set_gain(self, signal: str, gain: float) -> None:
        """Measure with this gain from the next :meth:`sample` on; not while one is under way."""
        ...

    def carries_hum(self, signal: str) -> bool:
        """Whether hum of the mains may be on the signal, so that it is worth fitting."""
        ...


class LedDriver(Protocol):
    """The LEDs, channels ``A`` to ``D``; levels in percent of full on."""

    @property
    def channels(self) -> str: ...

    async def set_level(self, channel: str, percent: float) -> float:
        """Drive one LED and return the level that it really gets: hardware has steps.

        Returns when the chip holds it. After a BusError the level is unknown.
        """
        ...

    async def all_off(self) -> None:
        """Turn every LED off, with as few accesses as can be. BusError: it may be on."""
        ...

    async def present(self) -> bool:
        """Whether the chip answers."""
        ...


class ImplausibleReading(BusError):
    """A sensor answered what cannot be true."""

    default_remediation = "Check the sensor and its cable; the log of piod has the details."


class Thermometer(Protocol):
    """A temperature sensor."""

    async def read_celsius(self) -> float:
        """Measure. ImplausibleReading, or another BusError: nothing is known."""
        ...

    async def present(self) -> bool:
        """Whether the sensor answers."""
        ...
