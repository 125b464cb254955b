"""The chips on the I2C bus of the simulated unit, byte for byte as a driver sees them.

A chip measures, and shines into, its :class:`Surroundings`. :func:`build_chips`
makes those of a unit. Each access tells the chip what time it is, in seconds on a
scale that never goes back; between two accesses a chip does nothing, and makes up
for it in closed form. Source: handbook jobs-and-hardware.md §1.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from piod.hw.wiring import Wiring

from .ads111x import SimulatedAds111x
from .dac43608 import SimulatedDac43608
from .rp2040 import SimulatedRp2040
from .tmp1075 import SimulatedTmp1075

AnalogInput: TypeAlias = Callable[[float], float]
"""What is on an input: volts, at that time in seconds."""


class SimulatedChip(Protocol):
    """One chip on the wire."""

    def write(self, data: bytes, now_s: float) -> None:
        """The bytes of a write message, at least one. BusError if an output could not be set."""
        ...

    def read(self, count: int, now_s: float) -> bytes:
        """The bytes of a read message."""
        ...

    def power_on(self, now_s: float) -> None:
        """Begin anew with the registers that it wakes up with."""
        ...


class Surroundings(Protocol):
    """What the chips measure and what they drive."""

    def analog_input(self, signal: str, kind: str) -> AnalogInput:
        """The voltage of a signal of the wiring (``pd1``, ``aux`` …) at a chip of this kind."""
        ...

    def pcb_celsius(self, now_s: float) -> float:
        """What the temperature sensor feels, with its noise, not quantised."""
        ...

    def set_led(self, channel: str, percent: float, now_s: float) -> None:
        """An LED gets this share of full on. BusError: it is as before."""
        ...


@dataclass(frozen=True)
class ChipWiring:
    """A kind of chip, and the signals on its analog inputs."""

    kind: str
    signals: Mapping[int, str] = field(default_factory=dict)


def chips_of(wiring: Wiring) -> Mapping[int, ChipWiring]:
    """The chips of a unit with that wiring, by their I2C address."""
    signals: dict[int, dict[int, str]] = {}
    kinds: dict[int, str] = {}
    for signal, entry in wiring.adc.items():
        kinds[entry.address] = entry.driver.upper()
        signals.setdefault(entry.address, {})[entry.channel] = signal
    kinds.setdefault(wiring.dac_address, "DAC43608")  # on later HATs the PICO is the DAC, too
    kinds.setdefault(wiring.temp_address, "TMP1075")
    return {address: ChipWiring(kind, signals.get(address, {})) for address, kind in kinds.items()}


def build_chips(
    chips: Mapping[int, ChipWiring], surroundings: Surroundings, now_s: float
) -> dict[int, SimulatedChip]:
    """The chips, just powered on. LEDs are not told to be off: nothing has turned them on."""
    return {address: _build(chip, surroundings, now_s) for address, chip in chips.items()}


def _build(chip: ChipWiring, surroundings: Surroundings, now_s: float) -> SimulatedChip:
    inputs = {
        channel: surroundings.analog_input(signal, chip.kind)
        for channel, signal in chip.signals.items()
    }
    match chip.kind:
        case "PICO":
            return SimulatedRp2040(inputs, surroundings.set_led, now_s)
        case "ADS1115":
            return SimulatedAds111x(inputs, has_multiplexer=True)
        case "ADS1114":
            return SimulatedAds111x(inputs, has_multiplexer=False)
        case "DAC43608":
            return SimulatedDac43608(surroundings.set_led)
        case "TMP1075":
            return SimulatedTmp1075(surroundings.pcb_celsius)
        case _:
            raise ValueError(f"there is no simulated {chip.kind}")
