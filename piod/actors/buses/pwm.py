"""The bus of PWM outputs: stirrer, pumps, heater. It lends them.

Messages: :class:`LeasePwm`, :class:`SetDuty`, :class:`ReleasePwm`, :class:`AwaitOff`,
:class:`Revoke`, and of :mod:`piod.actors.buses.bus`: AllReleased, RevokeAll, BusState,
FindHang.

A lease is exclusive and tied to the :class:`~piod.actors.actor.Life` of its
owner. When that life ends, however it ends, the output is turned off before
anything else happens, and again until the hardware confirms it. A bus holds no
reference to a job.

What is on is published (PwmChanged) when it changes. An output that has an off-time is turned
off by the port itself; soon after that the bus confirms it, so that it knows and tells of it
even if its owner does not.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from piod.actors.actor import Actor, AskTimeout, Life, Message, Ref
from piod.actors.buses.bus import (
    ASK_TIMEOUT_S,
    AllReleased,
    BusReport,
    BusState,
    FindHang,
    LeaseLost,
    Opening,
    OutputBus,
    RevokeAll,
    access,
)
from piod.actors.hub import Hub
from piod.clock import Clock, Timer
from piod.errors import BadRequest, BusError, DeviceMissing, LeaseTaken, PiodError
from piod.events import PwmChanged
from piod.hw.ports import PwmPort

log = logging.getLogger(__name__)

MIN_HZ = 0.1
MAX_HZ = 100_000.0
HANG_S = 2.0
"""Wall time after which a port that does not answer hangs."""
OFF_RETRY_S = 0.05
"""Pause between attempts to turn off an output that would not, wall time."""
OFF_KNOWN_S = 0.1
"""After an off-time its owner may confirm by itself that the output is off; then the bus does."""


@dataclass(frozen=True)
class PwmLease:
    """The right to drive one PWM output. ``hz`` is its frequency."""

    number: int
    pin: int
    hz: float
    owner: str


@dataclass(frozen=True)
class LeasePwm(Message["PwmBus", PwmLease]):
    """Lend the output on GPIO ``pin`` to ``life``, at 0 %.

    ``lost`` is called when the lease is taken away before its owner's end.
    Refused with LeaseTaken while another owner has it.
    """

    pin: int
    hz: float
    life: Life
    lost: Callable[[BusError], None]


@dataclass(frozen=True)
class SetDuty(Message["PwmBus", None]):
    """Drive a leased output; answered when the hardware holds it.

    ``off_after_s``: the output goes to 0 by itself after that time.
    """

    lease: PwmLease
    duty_percent: float
    off_after_s: float | None = None


@dataclass(frozen=True)
class ReleasePwm(Message["PwmBus", bool]):
    """Give a lease back; answered after the first attempt: whether the output is off."""

    lease: PwmLease


@dataclass(frozen=True)
class AwaitOff(Message["PwmBus", None]):
    """Answered when the output of a lease that was given back is off; refused while the bus
    is not open."""

    lease: PwmLease


@dataclass(frozen=True)
class Revoke(Message["PwmBus", None]):
    """End the lease of ``pin``: the guard turned that output off."""

    reason: str
    pin: int


PwmMessage = (
    LeasePwm
    | SetDuty
    | ReleasePwm
    | AwaitOff
    | AllReleased
    | Revoke
    | RevokeAll
    | BusState
    | FindHang
)


@dataclass
class _Lent:
    lease: PwmLease
    life: Life
    lost: Callable[[BusError], None]
    duty_percent: float = 0.0
    off_time: Timer | None = None
    """When the bus looks after an output whose off-time has come."""


@dataclass(frozen=True)
class _GoingOff:
    owner: str
    tried: asyncio.Future[bool]
    """The first attempt: whether the hardware confirmed it."""
    off: asyncio.Future[None]


class PwmBus(Actor[PwmMessage], OutputBus):
    """Owns the PWM outputs: stirrer, pumps, heater."""

    def __init__(self, port: PwmPort, clock: Clock, hub: Hub) -> None:
        super().__init__("pwm bus")
        self._port = port
        self._clock = clock
        self._hub = hub
        self._opening = Opening("pwm", port)
        self._lent: dict[int, _Lent] = {}
        self._lives: set[Life] = set()
        """Those that call back at their end: once, however often they lease."""
        self._going_off: dict[int, _GoingOff] = {}
        self._published: dict[int, float] | None = None
        self._numbers = itertools.count(1)

    async def starting(self) -> None:
        self.life.at_end(self._cut_everything)
        self.spawn(self._opening.keep_trying())
        await self._opening.first_attempt()
        self._publish()

    async def receive(self, message: PwmMessage) -> object:
        match message:
            case LeasePwm():
                return self._lend(message)
            case SetDuty(lease, duty_percent, off_after_s):
                await self._set_duty(lease, duty_percent, off_after_s)
                return None
            case ReleasePwm(lease):
                return self._take_back(lease)
            case AwaitOff(lease):
                self._opening.check()
                going = self._going_off.get(lease.pin)
                return None if going is None else going.off
            case AllReleased(owner):
                return self.later(self._all_off(owner))
            case Revoke(reason, pin):
                self._revoke(reason, pin)
                return None
            case RevokeAll(reason):
                self._revoke(reason, None)
                return None
            case BusState():
                problem = self._opening.problem
                return BusReport(
                    None if problem is None else problem.message,
                    {f"GPIO {pin}": lent.lease.owner for pin, lent in self._lent.items()},
                    {f"GPIO {pin}": going.owner for pin, going in self._going_off.items()},
                )
            case FindHang():
                return self.later(self._find_hang())
            case _:
                assert_never(message)

    async def ended(self) -> None:
        reason = LeaseLost("the pwm bus restarted")
        lent, self._lent = self._lent, {}
        for one in lent.values():
            _forget_off_time(one)
            one.lost(reason)

    def _cut_everything(self) -> None:
        for pin in self._port.pins:
            self._port.cut(pin)

    def _lend(self, request: LeasePwm) -> PwmLease:
        self._opening.check()
        if request.pin not in self._port.pins:
            known = ", ".join(map(str, self._port.pins))
            raise BadRequest(f"GPIO {request.pin} is not a PWM output; there are: {known}")
        if not (math.isfinite(request.hz) and MIN_HZ <= request.hz <= MAX_HZ):
            raise BadRequest(f"a PWM frequency must be {MIN_HZ} to {MAX_HZ} Hz, got {request.hz}")
        taken = self._lent.get(request.pin)
        if taken is not None:
            raise LeaseTaken(
                f"PWM output GPIO {request.pin} is in use by {taken.lease.owner}",
                remediation=f"Stop {taken.lease.owner} first.",
            )
        if request.pin in self._going_off:
            owner = self._going_off[request.pin].owner
            raise BusError(
                f"PWM output GPIO {request.pin} of {owner} could not be turned off yet",
                remediation="Check the HAT; piod keeps trying to turn it off.",
            )
        lease = PwmLease(next(self._numbers), request.pin, request.hz, request.life.name)
        self._lent[request.pin] = _Lent(lease, request.life, request.lost)
        if request.life not in self._lives:
            self._lives.add(request.life)
            request.life.at_end(lambda: self._life_ended(request.life))
        return lease

    def _life_ended(self, life: Life) -> None:
        self._lives.discard(life)
        for lent in tuple(self._lent.values()):
            if lent.life is life:
                self._end_lease(lent.lease)

    async def _set_duty(
        self, lease: PwmLease, duty_percent: float, off_after_s: float | None
    ) -> None:
        lent = self._lent.get(lease.pin)
        if lent is None or lent.lease != lease:
            raise LeaseLost(f"{lease.owner} has no lease of PWM output GPIO {lease.pin} any more")
        if not (math.isfinite(duty_percent) and 0 <= duty_percent <= 100):
            raise BadRequest(f"duty cycle must be 0 to 100 %, got {duty_percent}")
        if off_after_s is not None and not (math.isfinite(off_after_s) and off_after_s > 0):
            raise BadRequest(f"an off-time must be above 0 s, got {off_after_s}")
        self._opening.check()
        duty_percent = round(duty_percent, 5)
        _forget_off_time(lent)
        await self._drive(lease, duty_percent, off_after_s)
        if lent is not self._lent.get(lease.pin):
            return  # its owner ended meanwhile, and it is being turned off
        lent.duty_percent = duty_percent
        if off_after_s is not None and duty_percent > 0:
            due = self._clock.monotonic() + off_after_s + OFF_KNOWN_S
            lent.off_time = self._clock.call_at(due, lambda: self._off_time_came(lent))
        self._publish()

    def _off_time_came(self, lent: _Lent) -> None:
        if not self.life.ended and lent is self._lent.get(lent.lease.pin):
            self.spawn(self._confirm_off(lent, lent.off_time))

    async def _confirm_off(self, lent: _Lent, off_time: Timer | None) -> None:
        """The port has turned it off; if it has not, this does."""

        def is_due() -> bool:
            return lent is self._lent.get(lent.lease.pin) and lent.off_time is off_time

        if await self._insist_on_off(lent.lease, is_due) and is_due():
            lent.duty_percent, lent.off_time = 0.0, None
            self._publish()

    async def _drive(
        self, lease: PwmLease, duty_percent: float, off_after_s: float | None = None
    ) -> None:
        work = self._port.set_duty(lease.pin, duty_percent, hz=lease.hz, off_after_s=off_after_s)
        try:
            await access("pwm", work)
        except DeviceMissing as error:
            if self._opening.gone(error):
                self.spawn(self._opening.keep_trying())
            raise

    def _take_back(self, lease: PwmLease) -> asyncio.Future[bool] | bool:
        self._end_lease(lease)
        going = self._going_off.get(lease.pin)
        return True if going is None else going.tried

    def _end_lease(self, lease: PwmLease) -> None:
        """End a lease: off at once, then until the hardware confirms it."""
        lent = self._lent.get(lease.pin)
        if lent is None or lent.lease != lease:
            return
        self._port.cut(lease.pin)
        _forget_off_time(lent)
        del self._lent[lease.pin]
        if self.life.ended:
            return  # _cut_everything did it; nobody is left to confirm to
        loop = asyncio.get_running_loop()
        going = _GoingOff(lease.owner, loop.create_future(), loop.create_future())
        self._going_off[lease.pin] = going
        self.spawn(self._turn_off(lease, going))

    async def _turn_off(self, lease: PwmLease, going: _GoingOff) -> None:
        await self._insist_on_off(lease, lambda: True, going.tried)
        del self._going_off[lease.pin]
        going.off.set_result(None)
        self._publish()

    async def _insist_on_off(
        self, lease: PwmLease, is_due: Callable[[], bool], tried: asyncio.Future[bool] | None = None
    ) -> bool:
        """Turn it off, again and again; False: it is not due any more."""
        complained = False
        while is_due():
            try:
                await self._drive(lease, 0.0)
            except BusError as error:
                if not complained:
                    log.critical(
                        "PWM output GPIO %d of %s cannot be turned off: %s; trying on",
                        lease.pin,
                        lease.owner,
                        error.message,
                    )
                complained = True
                if tried is not None and not tried.done():
                    tried.set_result(False)
                await asyncio.sleep(OFF_RETRY_S)
                continue
            if complained:
                log.warning("PWM output GPIO %d of %s is off now", lease.pin, lease.owner)
            if tried is not None and not tried.done():
                tried.set_result(True)
            return True
        return False

    async def _all_off(self, owner: str) -> None:
        waits = [going.off for going in self._going_off.values() if going.owner == owner]
        if waits:
            await asyncio.wait(waits)

    def _revoke(self, reason: str, pin: int | None) -> None:
        if pin is None:
            self._cut_everything()
        else:
            self._port.cut(pin)
        for lent in tuple(self._lent.values()):
            if pin in (None, lent.lease.pin):
                self._end_lease(lent.lease)
                lent.lost(LeaseLost(f"the lease of {lent.lease.owner} was ended: {reason}"))

    async def _find_hang(self) -> str | None:
        on = {pin for pin, lent in self._lent.items() if lent.duty_percent}
        on |= self._going_off.keys()  # perhaps
        if not on:
            return None
        try:
            async with asyncio.timeout(HANG_S):
                await self._port.answer()
        except TimeoutError:
            outputs = ", ".join(f"GPIO {pin}" for pin in sorted(on))
            return f"the pwm bus hangs, and with it {outputs}, which may be on"
        except BusError:
            pass  # closed, or its device is missing: it has answered
        return None

    def _publish(self) -> None:
        on = {pin: lent.duty_percent for pin, lent in self._lent.items() if lent.duty_percent}
        if on != self._published:
            self._published = on
            self._hub.publish(PwmChanged(dict(on), self._clock.time()))


def _forget_off_time(lent: _Lent) -> None:
    if lent.off_time is not None:
        lent.off_time.cancel()
        lent.off_time = None


class LeasedPwm:
    """One leased PWM output, as a job drives it."""

    def __init__(self, bus: Ref[PwmBus], lease: PwmLease) -> None:
        self._bus = bus
        self._lease = lease

    async def set_duty(self, duty_percent: float, *, off_after_s: float | None = None) -> None:
        """Drive it; returns when the hardware holds ``duty_percent``."""
        await self._bus.ask(SetDuty(self._lease, duty_percent, off_after_s), timeout=ASK_TIMEOUT_S)

    async def release(self) -> bool:
        """See :meth:`piod.jobs.unit.PwmOutput.release`."""
        return await self._bus.ask(ReleasePwm(self._lease), timeout=ASK_TIMEOUT_S)

    async def off(self) -> None:
        """See :meth:`piod.jobs.unit.PwmOutput.off`."""
        while True:
            try:
                await self._bus.ask(AwaitOff(self._lease), timeout=ASK_TIMEOUT_S)
            except AskTimeout:
                continue
            except PiodError:  # the bus restarts, or looks for its device
                await asyncio.sleep(OFF_RETRY_S)
            else:
                return
