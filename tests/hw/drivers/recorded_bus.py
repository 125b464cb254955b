"""Buses under a driver that is tested: one that records the wire, one with a script."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from piod.clock import SimulatedClock
from piod.hw.ports import I2cAccess, I2cMessage, Read, TimedAnswer, TimedTransfer
from piod.hw.simulator.chips import SimulatedChip
from piod.hw.simulator.faults import Faults
from piod.hw.simulator.i2c import SimulatedI2c


class RecordedBus(I2cAccess):
    """A simulated bus; ``wire`` shows each transaction that was done.

    ``48 w01D383 w01 r8583``: at address 0x48 the bytes 01 D3 83 were written, then 01,
    then 85 83 read.
    """

    def __init__(self, clock: SimulatedClock, chips: Mapping[int, SimulatedChip]) -> None:
        self.clock = clock
        self.faults = Faults(lambda: self.bus.faults_changed())
        self.bus = SimulatedI2c(chips, self.faults, clock)
        self.wire: list[str] = []

    async def transfer(self, address: int, messages: Sequence[I2cMessage]) -> Sequence[bytes]:
        got = await self.bus.transfer(address, messages)
        self.wire.append(shown(address, messages, got))
        await asyncio.sleep(0)  # others get their turn, as with a bus that is an actor
        return got

    async def transfer_at(self, items: Sequence[TimedTransfer]) -> Sequence[TimedAnswer]:
        answers = await self.bus.transfer_at(items)
        for item, answer in zip(items, answers, strict=True):
            self.wire.append(shown(item.address, item.messages, answer.data))
        return answers

    async def probe(self, address: int) -> bool:
        return await self.bus.probe(address)


@dataclass
class ScriptedBus(I2cAccess):
    """Every read gets the next of ``answers``, in hexadecimal."""

    answers: list[str]
    wire: list[str] = field(default_factory=list)

    async def transfer(self, address: int, messages: Sequence[I2cMessage]) -> Sequence[bytes]:
        got = [bytes.fromhex(self.answers.pop(0)) for each in messages if isinstance(each, Read)]
        self.wire.append(shown(address, messages, got))
        return got

    async def transfer_at(self, items: Sequence[TimedTransfer]) -> Sequence[TimedAnswer]:
        return [
            TimedAnswer(item.offset_s, await self.transfer(item.address, item.messages))
            for item in items
        ]

    async def probe(self, address: int) -> bool:
        return True


def shown(address: int, messages: Sequence[I2cMessage], answers: Sequence[bytes]) -> str:
    got = iter(answers)
    return " ".join(
        [
            f"{address:02X}",
            *(
                f"r{next(got).hex().upper()}"
                if isinstance(message, Read)
                else f"w{message.data.hex().upper()}"
                for message in messages
            ),
        ]
    )


@dataclass
class Leds:
    """What the LEDs were told, and what they show."""

    told: list[tuple[str, float, float]] = field(default_factory=list)

    def set(self, channel: str, percent: float, now_s: float) -> None:
        self.told.append((channel, percent, now_s))

    def level(self, channel: str) -> float:
        return next((p for name, p, _ in reversed(self.told) if name == channel), 0.0)


class Volts:
    """A voltage on an input, to be changed by hand."""

    def __init__(self, volts: float = 0.0) -> None:
        self.volts = volts

    def __call__(self, now_s: float) -> float:
        return self.volts
