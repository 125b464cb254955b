"""The I2C bus: ADCs, LED drivers, the temperature sensor.

Messages: :class:`Transfer`, :class:`TransferAt`, :class:`Probe`,
:class:`DeviceStatistics`, :class:`~piod.actors.buses.bus.BusState`,
:class:`~piod.actors.buses.bus.FindHang`. :class:`BusAccess` sends them for a driver.

One access at a time: a transaction, or a timed list, which is one piece of 2 s at most;
urgent ones, such as LEDs that go off, come next. What goes wrong in passing is met here:

- an address that is not acknowledged is tried again, ATTEMPTS in all, while the access is
  not older than RETRY_WITHIN_S: later a list would be late for whoever measures;
- a stuck bus is freed (``port.recover``) and tried again; if it stays stuck, it is opened
  anew and tried at a slower and slower pace, and refuses asks with the reason meanwhile.

All chips are told absolute values, so that a transaction may be repeated.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

from piod.actors.actor import Actor, Life, Message, Ref
from piod.actors.buses.bus import (
    ACCESS_TIMEOUT_S,
    Bus,
    BusHangs,
    BusReport,
    BusState,
    FindHang,
    Opening,
    access,
)
from piod.actors.buses.turns import Turns
from piod.actors.hub import Hub
from piod.clock import Clock
from piod.errors import BusError, DeviceMissing, Unavailable
from piod.events import I2cCounts, I2cFailed
from piod.hw.i2c import check, check_list, length_s
from piod.hw.ports import (
    BusStuck,
    I2cAccess,
    I2cMessage,
    I2cPort,
    TimedAnswer,
    TimedTransfer,
    Write,
)

log = logging.getLogger(__name__)

R = TypeVar("R")

ATTEMPTS = 3
RETRY_PAUSE_S = 0.002
RETRY_WITHIN_S = 0.1
"""Age of an access, from its first attempt, up to which it is tried again."""
REPAIR_S = (0.1, 10.0)
"""First and longest pause between attempts to free a stuck bus."""
ASK_TIMEOUT_S = 60.0
"""Wall time for an access and those before it; each of them has its own deadline, and a
simulated unit may be slow."""


@dataclass(frozen=True)
class Transfer(Message["I2cBus", Sequence[bytes]]):
    """One transaction; see :meth:`piod.hw.ports.I2cAccess.transfer`."""

    address: int
    messages: Sequence[I2cMessage]
    urgent: bool = False


@dataclass(frozen=True)
class TransferAt(Message["I2cBus", Sequence[TimedAnswer]]):
    """A timed list; see :meth:`piod.hw.ports.I2cAccess.transfer_at`.

    It is given up when ``asker`` ends.
    """

    items: Sequence[TimedTransfer]
    asker: Life
    urgent: bool = False


@dataclass(frozen=True)
class Probe(Message["I2cBus", bool]):
    """Whether a chip answers at the 7-bit I2C ``address``."""

    address: int
    urgent: bool = False


@dataclass(frozen=True)
class DeviceStatistics(Message["I2cBus", Mapping[int, I2cCounts]]):
    """What has been counted since the start, by address."""


I2cBusMessage = Transfer | TransferAt | Probe | DeviceStatistics | BusState | FindHang


class I2cBus(Actor[I2cBusMessage], Bus):
    """Owns the I2C bus: ADCs, LED drivers, temperature sensor."""

    def __init__(self, port: I2cPort, clock: Clock, hub: Hub) -> None:
        super().__init__("i2c bus")
        self._port = port
        self._clock = clock
        self._hub = hub
        self._opening = Opening("i2c", port)
        self._turns = Turns()
        self._stuck: BusStuck | None = None
        self._counts: dict[int, _Counts] = {}

    async def starting(self) -> None:
        self.spawn(self._opening.keep_trying())
        await self._opening.first_attempt()

    async def receive(self, message: I2cBusMessage) -> object:
        match message:
            case Transfer(address, messages, urgent):
                self._check()
                return self.later(
                    self._access((address,), urgent, lambda: self._once(address, messages))
                )
            case TransferAt(items, asker, urgent):
                self._check()
                addresses = tuple(item.address for item in items)
                work = self._access(addresses, urgent, lambda: self._list(items))
                return self.later(_until_given_up(work, asker))
            case Probe(address, urgent):
                self._check()
                return self.later(
                    self._access(
                        (address,), urgent, lambda: access("i2c", self._port.probe(address))
                    )
                )
            case DeviceStatistics():
                return {address: each.now() for address, each in self._counts.items()}
            case BusState():
                problem = self._opening.problem or self._stuck
                return BusReport(None if problem is None else problem.message)
            case FindHang():
                return None  # what it drives are the LEDs, and their bus asks for them
            case _:
                assert_never(message)

    def _check(self) -> None:
        """Refuse with the reason while the bus cannot be used."""
        self._opening.check()
        if self._stuck is not None:
            raise BusStuck(self._stuck.message, cause=self._stuck.cause)

    # -- one access -----------------------------------------------------------------

    async def _access(
        self,
        addresses: Sequence[int],
        urgent: bool,
        attempt: Callable[[], Coroutine[None, None, R]],
    ) -> R:
        """``attempt`` until it works, or until that is hopeless; ``addresses`` by item."""
        async with self._turns.mine(urgent=urgent):
            for address in dict.fromkeys(addresses):
                self._counts.setdefault(address, _Counts()).accesses += 1
            began_s = self._clock.monotonic()
            for tried in itertools.count(1):
                self._check()
                try:
                    return await attempt()
                except BusError as error:
                    address = addresses[error.item or 0]
                    again = tried < ATTEMPTS and await self._may_work_now(error, began_s)
                    if isinstance(error, BusStuck) and not again:
                        self._is_stuck(error, address)
                    self._tell(address, error, again)
                    if not again:
                        raise
            raise AssertionError("an endless loop has ended")

    async def _may_work_now(self, error: BusError, began_s: float) -> bool:
        """Whether another attempt makes sense; does what it needs."""
        if isinstance(error, DeviceMissing):
            if self._opening.gone(error):
                self.spawn(self._opening.keep_trying())
            return False
        if isinstance(error, BusHangs) or self._clock.monotonic() - began_s > RETRY_WITHIN_S:
            return False
        if isinstance(error, BusStuck):
            await self._recover()
        else:
            await self._clock.sleep(RETRY_PAUSE_S)
        return True

    def _tell(self, address: int, error: BusError, again: bool) -> None:
        counts = self._counts[address]
        if again:
            counts.retries += 1
        else:
            counts.failures += 1
        log.debug("0x%02X: %s%s", address, error.message, " Trying again." if again else "")
        self._hub.publish(
            I2cFailed(address, error.message, again, counts.now(), self._clock.time())
        )

    async def _once(self, address: int, messages: Sequence[I2cMessage]) -> Sequence[bytes]:
        return await access("i2c", self._port.transfer(address, messages))

    async def _list(self, items: Sequence[TimedTransfer]) -> Sequence[TimedAnswer]:
        """It may take its own length in the unit's time, and then as long as any access."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as deadline:
                over = False

                def length_is_over() -> None:
                    if not over:
                        deadline.reschedule(loop.time() + ACCESS_TIMEOUT_S)

                due_s = self._clock.monotonic() + length_s(items)
                timer = self._clock.call_at(due_s, length_is_over)
                try:
                    return await self._port.transfer_at(items)
                finally:
                    over = True
                    timer.cancel()
        except TimeoutError:
            raise BusHangs(
                f"the i2c bus did not end a timed list of {length_s(items):g} s"
            ) from None

    # -- a bus that is stuck ----------------------------------------------------------

    async def _recover(self) -> None:
        try:
            await access("i2c", self._port.recover())
        except BusError as error:
            log.debug("the i2c bus cannot be recovered: %s", error.message)

    def _is_stuck(self, error: BusStuck, address: int) -> None:
        if self._stuck is None:
            log.error("the i2c bus is stuck: %s", error.message)
            self._stuck = error
            self.spawn(self._keep_freeing(address))

    async def _keep_freeing(self, address: int) -> None:
        """Free the bus, again and again, until the chip at ``address`` can be addressed."""
        pause, longest = REPAIR_S
        while True:
            await self._clock.sleep(pause)
            pause = min(2 * pause, longest)
            try:
                async with self._turns.mine(urgent=True):
                    await self._recover()
                    await access("i2c", self._port.open())
                    await access("i2c", self._port.probe(address))
            except DeviceMissing as error:
                if self._opening.gone(error):
                    self.spawn(self._opening.keep_trying())
                break  # that is the trouble now
            except BusError as error:
                log.debug("the i2c bus is still stuck: %s", error.message)
            else:
                log.warning("the i2c bus is free again")
                break
        self._stuck = None


class _Counts:
    """What is counted of one chip."""

    def __init__(self) -> None:
        self.accesses = self.retries = self.failures = 0

    def now(self) -> I2cCounts:
        return I2cCounts(self.accesses, self.retries, self.failures)


async def _until_given_up(work: Coroutine[None, None, R], asker: Life) -> R:
    doing = asyncio.ensure_future(work)
    asker.at_end(lambda: _cancel(doing))
    try:
        return await doing
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise BusError("nobody waits for this timed list any more") from None


def _cancel(doing: asyncio.Task[R]) -> None:
    doing.cancel()


class BusAccess(I2cAccess):
    """The bus as the drivers of its chips see it. ``urgent``: its accesses come next."""

    def __init__(self, bus: Ref[I2cBus], *, urgent: bool = False) -> None:
        self._bus = bus
        self._urgent = urgent

    async def transfer(self, address: int, messages: Sequence[I2cMessage]) -> Sequence[bytes]:
        check(address, messages)
        message = Transfer(address, messages, self._urgent)
        return await _answer(self._bus.ask(message, timeout=ASK_TIMEOUT_S))

    async def transfer_at(self, items: Sequence[TimedTransfer]) -> Sequence[TimedAnswer]:
        check_list(items)
        if not items:
            return []
        asker = Life("who asks for a timed list")
        try:
            message = TransferAt(items, asker, self._urgent)
            return await _answer(self._bus.ask(message, timeout=ASK_TIMEOUT_S))
        finally:
            asker.end()

    async def probe(self, address: int) -> bool:
        check(address, [Write(b"")])
        return await _answer(self._bus.ask(Probe(address, self._urgent), timeout=ASK_TIMEOUT_S))


async def _answer(asked: Coroutine[None, None, R]) -> R:
    """A bus that is not there, or restarts, is to a driver like one that fails: BusError."""
    try:
        return await asked
    except BusError:
        raise
    except Unavailable as refusal:
        raise BusError(
            refusal.message, cause=refusal.cause, remediation=refusal.remediation
        ) from refusal
