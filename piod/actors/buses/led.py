"""The bus of LEDs, channels A to D. It lends them.

Messages: those of :mod:`piod.actors.buses.led_lease`, and of :mod:`piod.actors.buses.bus`
AllReleased, RevokeAll, BusState, FindHang.

A lease is exclusive and tied to the :class:`~piod.actors.actor.Life` of its owner. When that
life ends, however it ends, the LEDs are turned off before all else that waits for the I2C
bus, and again until the chip confirms it. Beside a lease there is the *dim*: every LED that
is not of one lease at 0, for DIM_S at most, so that an OD reading can look in the dark. The
bus restores them, also when whoever wanted it is gone.

What an LED should show is derived (:meth:`LedBus._due`) whenever it is written, and written
again every REPEAT_S while it is lit: a chip that began anew has forgotten it. The guard
knows an LED as ``led:A``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, assert_never

from piod.actors.actor import Actor
from piod.actors.buses.bus import (
    AllReleased,
    BusHangs,
    BusReport,
    BusState,
    FindHang,
    LeaseLost,
    OutputBus,
    RevokeAll,
)
from piod.actors.buses.led_lease import (
    Darken,
    LeaseLeds,
    LedLease,
    LedMessage,
    ReleaseLeds,
    Restore,
    SetLevels,
)
from piod.actors.hub import Hub
from piod.clock import Clock, Timer
from piod.errors import BadRequest, BusError, LeaseTaken, Unavailable
from piod.events import LedsChanged
from piod.hw.ports import LedDriver

log = logging.getLogger(__name__)

DIM_S = 5.0
"""The longest that LEDs stay dark for somebody else, in the unit's time."""
REPEAT_S = 10.0
RETRY_S = (0.05, 2.0)
"""First and longest pause between attempts to turn an LED off, or on again."""
OFF_WAIT_S = 4.0
"""Wall time that a new lease waits for its LEDs to be off: above the longest timed list."""
FIRST_OFF_S = 5.0
"""Wall time that the start waits for everything to be off; then it goes on trying."""
LAST_OFF_S = 1.0
"""Wall time that the bus takes at its end to turn everything off; then the guard does it."""


class OutputGuard(Protocol):
    """What the guard process is told; see :class:`piod.hw.guard.GuardLink`."""

    def on(self, output: str) -> None: ...

    def off(self, output: str) -> None: ...


@dataclass
class _Lent:
    lease: LedLease
    lost: Callable[[BusError], None]
    percent: float = 0.0


class LedBus(Actor[LedMessage], OutputBus):
    """Owns the LEDs behind ``driver``, whose accesses are to be urgent ones."""

    def __init__(
        self, driver: LedDriver, clock: Clock, hub: Hub, guard: OutputGuard | None
    ) -> None:
        super().__init__("led bus")
        self._driver = driver
        self._clock = clock
        self._hub = hub
        self._guard = guard
        self._lent: dict[str, _Lent] = {}
        self._dims: dict[int, Timer] = {}
        """By number of the lease that wants the others dark: the end of its time."""
        self._held: dict[str, float | None] = dict.fromkeys(driver.channels)
        """What the chip confirmed; None: it may be anything."""
        self._going_off: dict[str, tuple[str, asyncio.Future[None]]] = {}
        self._driving = asyncio.Lock()
        self._repeat = asyncio.Event()
        self._repeat_timer: Timer | None = None
        self._repeat_due_s = math.inf
        """When that calls."""
        self._problem: BusError | None = BusError("the LEDs have not been turned off yet")
        self._dark_once = False
        self._hangs: str | None = None
        self._numbers = itertools.count(1)

    async def starting(self) -> None:
        try:
            async with asyncio.timeout(FIRST_OFF_S):
                await self._all_off()
        except (BusError, TimeoutError) as failed:
            error = failed if isinstance(failed, BusError) else BusError("the i2c bus is too slow")
            log.error("the LEDs cannot be turned off: %s; trying on", error.message)
            self._problem = error
            self.spawn(self._keep_turning_all_off())
        self.spawn(self._keep_repeating())

    async def receive(self, message: LedMessage) -> object:
        match message:
            case LeaseLeds():
                return self.later(self._lend(message))
            case SetLevels(lease, percent):
                self._take_levels(lease, percent)
                return self.later(self._set_levels(percent))
            case ReleaseLeds(lease):
                self._end_lease(lease)
                return self.later(self._off(lease.owner, lease.channels))
            case Darken(lease):
                return self.later(self._darken(lease))
            case Restore(lease):
                self._end_dim(lease.number)
                return self.later(self._restored())
            case AllReleased(owner):
                return self.later(self._off(owner, self._driver.channels))
            case RevokeAll(reason):
                self._revoke(reason)
                return None
            case BusState():
                return BusReport(
                    None if self._problem is None else self._problem.message,
                    {f"LED {channel}": lent.lease.owner for channel, lent in self._lent.items()},
                    {f"LED {channel}": owner for channel, (owner, _) in self._going_off.items()},
                )
            case FindHang():
                lit = ", ".join(channel for channel, held in self._held.items() if held != 0)
                return f"{self._hangs}; LED {lit} may be on" if self._hangs and lit else None
            case _:
                assert_never(message)

    async def ended(self) -> None:
        for timer in (self._repeat_timer, *self._dims.values()):
            if timer is not None:
                timer.cancel()
        reason = LeaseLost("the led bus restarted")
        lent, self._lent = self._lent, {}
        for one in {each.lease.number: each for each in lent.values()}.values():
            one.lost(reason)
        if self._dark_once and all(held == 0 for held in self._held.values()):
            return
        try:
            async with asyncio.timeout(LAST_OFF_S):
                await self._all_off()
        except (BusError, TimeoutError):
            log.critical("the LEDs cannot be turned off; the guard looks after them")

    # -- leases -----------------------------------------------------------------------

    async def _lend(self, request: LeaseLeds) -> LedLease:
        channels = request.channels
        known = self._driver.channels
        if not channels or set(channels) - set(known) or len(set(channels)) < len(channels):
            raise BadRequest(f"there are no LED channels {channels!r}; there are: {known}")
        self._refuse_if_taken(channels)
        going = [self._going_off[each][1] for each in channels if each in self._going_off]
        if going:
            await asyncio.wait(going, timeout=OFF_WAIT_S)
            self._refuse_if_taken(channels)
        if not self._dark_once and self._problem is not None:
            raise Unavailable(
                f"the led bus is not available: {self._problem.message}",
                cause=self._problem.cause,
                remediation=self._problem.remediation,
            )
        for channel in channels:
            if channel in self._going_off:
                raise BusError(
                    f"LED {channel} of {self._going_off[channel][0]} could not be turned off yet",
                    remediation="Check the HAT; piod keeps trying to turn it off.",
                )
        lease = LedLease(next(self._numbers), channels, request.life.name)
        for channel in channels:
            self._lent[channel] = _Lent(lease, request.lost)
        request.life.at_end(lambda: self._end_lease(lease))
        return lease

    def _refuse_if_taken(self, channels: str) -> None:
        for channel in channels:
            taken = self._lent.get(channel)
            if taken is not None:
                raise LeaseTaken(
                    f"LED {channel} is in use by {taken.lease.owner}",
                    remediation=f"Stop {taken.lease.owner} first.",
                )

    def _require(self, lease: LedLease) -> None:
        if any(self._lease_of(channel) != lease for channel in lease.channels):
            raise LeaseLost(f"{lease.owner} has no lease of LED {lease.channels} any more")

    def _lease_of(self, channel: str) -> LedLease | None:
        lent = self._lent.get(channel)
        return None if lent is None else lent.lease

    def _end_lease(self, lease: LedLease) -> None:
        """End a lease: off, and again until the chip confirms it; then others are restored."""
        channels = [channel for channel in lease.channels if self._lease_of(channel) == lease]
        for channel in channels:
            del self._lent[channel]
        if self.life.ended:
            return  # everything is turned off at the end
        self._begin_to_turn_off(lease.owner, [c for c in channels if self._held[c] != 0])
        self._end_dim(lease.number)

    def _begin_to_turn_off(self, owner: str, channels: Collection[str]) -> None:
        for channel in channels:
            off: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._going_off[channel] = (owner, off)
        if channels:
            self.spawn(self._turn_off(owner, channels))

    async def _turn_off(self, owner: str, channels: Collection[str]) -> None:
        what = f"LED {', '.join(channels)} of {owner}"
        pause, longest = RETRY_S
        complained = False
        while True:
            try:
                await self._show(channels)
                break
            except BusError as error:
                if not complained:
                    log.critical("%s cannot be turned off: %s; trying on", what, error.message)
                complained = True
            await self._clock.sleep(pause)
            pause = min(2 * pause, longest)
        if complained:
            log.warning("%s is off now", what)
        for channel in channels:
            self._going_off.pop(channel)[1].set_result(None)
        self._publish()

    async def _off(self, owner: str, channels: str) -> None:
        """Wait for those of ``channels`` that ``owner`` had to be off."""
        waits = [
            off
            for channel, (name, off) in self._going_off.items()
            if name == owner and channel in channels
        ]
        if waits:
            await asyncio.wait(waits)

    def _revoke(self, reason: str) -> None:
        """The guard may have turned off what the chip was told: nothing is known of it."""
        self._held = dict.fromkeys(self._held)
        for one in {lent.lease.number: lent for lent in self._lent.values()}.values():
            self._end_lease(one.lease)
            one.lost(LeaseLost(f"the lease of {one.lease.owner} was ended: {reason}"))
        # nobody's, and nobody would look after them
        self._begin_to_turn_off("nobody", [c for c in self._held if c not in self._going_off])

    # -- levels -----------------------------------------------------------------------

    def _take_levels(self, lease: LedLease, percent: Mapping[str, float]) -> None:
        self._require(lease)
        for channel, level in percent.items():
            if channel not in lease.channels:
                raise BadRequest(f"LED {channel!r} is not leased by {lease.owner}")
            if not (math.isfinite(level) and 0 <= level <= 100):
                raise BadRequest(f"an LED's level must be 0 to 100 %, got {level}")
        for channel, level in percent.items():
            self._lent[channel].percent = level

    async def _set_levels(self, percent: Mapping[str, float]) -> Mapping[str, float]:
        try:
            got = await self._show(percent)
        except BusError:
            self._repeat.set()
            raise
        self._publish()
        self._repeat_later(REPEAT_S)
        # what is dim now is not 0 for its owner
        return {channel: got[channel] if got[channel] else percent[channel] for channel in percent}

    def _due(self, channel: str) -> float:
        """What ``channel`` should show at this moment, percent."""
        lent = self._lent.get(channel)
        if lent is None or any(number != lent.lease.number for number in self._dims):
            return 0.0
        return lent.percent

    async def _show(self, channels: Collection[str]) -> dict[str, float]:
        """Let the chip hold what is due; the levels that LEDs really get. BusError."""
        got: dict[str, float] = {}
        async with self._driving:
            for channel in channels:
                got[channel] = await self._drive(channel, self._due(channel))
        return got

    async def _drive(self, channel: str, percent: float) -> float:
        if percent > 0 and self._guard is not None:
            self._guard.on(f"led:{channel}")
        self._held[channel] = None
        with self._noting_hangs():
            got = await self._driver.set_level(channel, percent)
        self._held[channel] = percent
        if percent == 0 and self._guard is not None:
            self._guard.off(f"led:{channel}")
        return got

    @contextmanager
    def _noting_hangs(self) -> Iterator[None]:
        try:
            yield
        except BusHangs as error:
            self._hangs = error.message
            raise
        except BusError:
            self._hangs = None
            raise
        self._hangs = None

    async def _all_off(self) -> None:
        """Every LED off, each whatever becomes of the others; BusError."""
        failed: BusError | None = None
        async with self._driving:
            for channel in self._held:
                try:
                    await self._drive(channel, 0.0)
                except BusError as error:
                    failed = error
        if failed is not None:
            raise failed
        self._dark_once = True
        self._problem = None

    async def _keep_turning_all_off(self) -> None:
        pause, longest = RETRY_S
        while self._problem is not None:
            await self._clock.sleep(pause)
            pause = min(2 * pause, longest)
            try:
                await self._all_off()
            except BusError as error:
                self._problem = error
        log.warning("the LEDs are off now")

    # -- dark for somebody --------------------------------------------------------------

    async def _darken(self, lease: LedLease) -> None:
        self._require(lease)
        self._end_dim(lease.number)
        due_s = self._clock.monotonic() + DIM_S
        self._dims[lease.number] = self._clock.call_at(due_s, lambda: self._dim_is_over(lease))
        others = [c for c, held in self._held.items() if held != 0 and c not in lease.channels]
        try:
            await self._show(others)
        except BusError:
            self._end_dim(lease.number)
            raise

    def _dim_is_over(self, lease: LedLease) -> None:
        if lease.number in self._dims:
            log.warning("%s wanted darkness for more than %g s", lease.owner, DIM_S)
            self._end_dim(lease.number)

    def _end_dim(self, number: int) -> None:
        timer = self._dims.pop(number, None)
        if timer is not None:
            timer.cancel()
            self._repeat.set()

    async def _restored(self) -> None:
        """Try it; what fails is tried again by and by."""
        try:
            await self._show_what_is_due()
        except BusError:
            self._repeat.set()

    # -- again and again ------------------------------------------------------------------

    async def _keep_repeating(self) -> None:
        """Show what is not shown, whenever something changed; and repeat what is lit."""
        pause, longest = RETRY_S
        complained = False
        while True:
            await self._repeat.wait()
            self._repeat.clear()
            try:
                await self._show_what_is_due()
            except BusError as error:
                if not complained:
                    log.error("LEDs may not shine as they should: %s; trying on", error.message)
                complained = True
                self._problem = error
                self._repeat_later(pause)
                pause = min(2 * pause, longest)
                continue
            if complained:
                log.warning("the LEDs shine as they should")
                self._problem = None
            complained = False
            pause = RETRY_S[0]
            if any(self._due(channel) for channel in self._lent):
                self._repeat_later(REPEAT_S)

    def _repeat_later(self, seconds: float) -> None:
        """In so many seconds, or earlier if that is due."""
        due_s = self._clock.monotonic() + seconds
        if self._repeat_timer is not None:
            if self._repeat_due_s <= due_s:
                return
            self._repeat_timer.cancel()
        self._repeat_due_s = due_s
        self._repeat_timer = self._clock.call_at(due_s, self._repeat_now)

    def _repeat_now(self) -> None:
        self._repeat_timer = None
        for channel, held in self._held.items():
            if held:
                self._held[channel] = None  # who knows what the chip remembers
        self._repeat.set()

    async def _show_what_is_due(self) -> None:
        async with self._driving:
            for channel in tuple(self._lent):
                due = self._due(channel)
                if self._held[channel] != due:
                    await self._drive(channel, due)

    def _publish(self) -> None:
        percent = {
            channel: self._lent[channel].percent if channel in self._lent else 0.0
            for channel in self._driver.channels
        }
        self._hub.publish(LedsChanged(percent, self._clock.time()))
