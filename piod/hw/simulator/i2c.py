"""The I2C bus of the simulated unit: chips at their addresses, on simulated time.

A byte takes its time on the wire, at 100 kHz, so that every access of a timed list
has an instant of its own; a transaction outside of such a list takes none. What goes
wrong on the wire is asked of the faults at every access.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from piod.clock import Clock, Timer
from piod.errors import BusError
from piod.hw.i2c import check, check_list, in_list, no_answer
from piod.hw.ports import (
    BusStuck,
    I2cMessage,
    I2cPort,
    Read,
    TimedAnswer,
    TimedTransfer,
    Write,
)

from .chips import SimulatedChip
from .faults import BusHeldLow, ChipReset, Faults, MissingChip, Nack

BYTE_S = 9 / 100_000
"""Eight bits and the acknowledgement, at 100 kHz."""
RUN_AHEAD_S = 0.002
"""How far a timed list may run ahead of the clock: the photodiodes are looked at one right
after the other, and a step of the clock for each would cost more than the look."""
ADDRESS_ALONE = Write(b"")


class SimulatedI2c(I2cPort):
    """The I2C port; ``chips`` by their addresses."""

    def __init__(self, chips: Mapping[int, SimulatedChip], faults: Faults, clock: Clock) -> None:
        self._chips = chips
        self._faults = faults
        self._clock = clock
        self._open = False
        self._free = asyncio.Lock()
        self._reset_by: set[str] = set()
        """The faults that have had their effect."""

    async def open(self) -> None:
        self._open = False
        self._faults.access("i2c")
        self._open = True

    async def close(self) -> None:
        self._open = False

    async def transfer(self, address: int, messages: Sequence[I2cMessage]) -> Sequence[bytes]:
        check(address, messages)
        async with self._free:
            return self.access(address, messages, self._clock.monotonic())

    async def transfer_at(self, items: Sequence[TimedTransfer]) -> Sequence[TimedAnswer]:
        check_list(items)
        async with self._free:
            self._require_open()
            timed = _TimedList(self, self._clock, items)
            timed.go_on()
            try:
                return await timed.answered
            finally:
                timed.stop()

    async def probe(self, address: int) -> bool:
        check(address, [ADDRESS_ALONE])
        async with self._free:
            return self._addressed(address) is not None

    async def recover(self) -> None:
        self._require_open()
        for fault in self._faults.of(BusHeldLow):
            if fault.recoverable:
                self._faults.remove(fault.id)

    def faults_changed(self) -> None:
        """Let what happens once, when its fault is put in, happen now."""
        now_s = self._clock.monotonic()
        for fault in self._faults.of(ChipReset):
            chip = self._chips.get(fault.address)
            if fault.id not in self._reset_by:
                self._reset_by.add(fault.id)
                if chip is not None:
                    chip.power_on(now_s)
                self._clock.call_at(now_s + fault.seconds, partial(self._wake, fault.id))

    def access(self, address: int, messages: Sequence[I2cMessage], now_s: float) -> list[bytes]:
        """One transaction at ``now_s``."""
        chip = self._addressed(address)
        if chip is None:
            raise no_answer(address, "a simulated chip that is not there, or does not answer")
        answer: list[bytes] = []
        for message in messages:
            if isinstance(message, Read):
                answer.append(chip.read(message.count, now_s))
            elif message.data:
                chip.write(message.data, now_s)
        return answer

    def _addressed(self, address: int) -> SimulatedChip | None:
        """The chip that acknowledges."""
        self._require_open()
        if self._faults:
            self._faults.access("i2c")
            if self._faults.of(BusHeldLow):
                raise BusStuck(
                    f"The I2C bus failed an access of address 0x{address:02X}: a line is held "
                    "low (a simulated fault)."
                )
            for nack in self._faults.of(Nack):
                if nack.address == address:
                    nack.count -= 1
                    if nack.count == 0:
                        self._faults.remove(nack.id)
                    return None
            silent = {fault.address for fault in self._faults.of(MissingChip)}
            silent |= {fault.address for fault in self._faults.of(ChipReset) if fault.seconds}
            if address in silent:
                return None
        return self._chips.get(address)

    def _wake(self, id: str) -> None:
        self._reset_by.discard(id)
        if any(fault.id == id for fault in self._faults.of(ChipReset)):
            self._faults.remove(id)

    def _require_open(self) -> None:
        if not self._open:
            raise BusError("The I2C bus is not open.")


class _TimedList:
    """A timed list under way: what is due is done in callbacks of the clock."""

    def __init__(self, bus: SimulatedI2c, clock: Clock, items: Sequence[TimedTransfer]) -> None:
        self.answered: asyncio.Future[Sequence[TimedAnswer]] = (
            asyncio.get_running_loop().create_future()
        )
        self._bus = bus
        self._clock = clock
        self._items = items
        self._answers: list[TimedAnswer] = []
        self._start_s = self._end_s = clock.monotonic()
        self._timer: Timer | None = None

    def go_on(self) -> None:
        """Do all that is due; come back for the rest."""
        if self.answered.done():
            return  # it was given up while this was due
        try:
            self._do_what_is_due()
        except Exception as error:  # whatever it is, it belongs to the caller
            self.answered.set_exception(error)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _do_what_is_due(self) -> None:
        now_s = self._clock.monotonic()
        items, answers = self._items, self._answers
        while (index := len(answers)) < len(items):
            offset_s, address, messages, pause_s = items[index]
            due_s = max(self._start_s + offset_s, self._end_s + pause_s)
            if due_s > now_s + RUN_AHEAD_S:
                self._timer = self._clock.call_at(due_s, self.go_on)
                return
            began_s = max(due_s, now_s)
            try:
                data = self._bus.access(address, messages, began_s)
            except BusError as error:
                raise in_list(error, index, len(items)) from error
            self._end_s = began_s + _wire_s(messages)
            answers.append(TimedAnswer(began_s - self._start_s, data))
        if self._end_s > now_s:
            self._timer = self._clock.call_at(self._end_s, self.go_on)
        else:
            self.answered.set_result(answers)


def _wire_s(messages: Sequence[I2cMessage]) -> float:
    count = len(messages)  # an address each
    for message in messages:
        count += message.count if isinstance(message, Read) else len(message.data)
    return count * BYTE_S
