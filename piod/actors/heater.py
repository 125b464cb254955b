"""The heater, and the interlock that stands between it and every job.

Messages: those of :mod:`.leased_heater`, :class:`InterlockState`, and
:class:`LookWhileOff`, which :func:`keep_looking_while_off` sends for the daemon.

The actor leases the heater's PWM output for as long as its lessee lives, and no longer.
While the duty cycle is above 0 it reads the heater's board every 2 s, whatever the job
does, and renews an off-time of the output only after a good reading: without one the
bus thread, or the guard, turns the heater off. These *trip* the interlock:

- a reading that fails, or cannot be true;
- one above the model's disable limit (above the shutdown limit, and confirmed 2 s later,
  the machine is powered off, too);
- a sensor that disagrees with the heater: :mod:`.board_watch`;
- an output that cannot be driven.

A trip ends the lease of the output at once and latches: in the ledger, so that neither a
restart of the job nor one of piod brings the heater back. Only ResetInterlock does.
A board that is too warm for full power, but not for a trip, costs a part of it:
:mod:`.heater_board`. A heater that was off for any reason is only turned on again by a new
SetHeater, never by itself.

A heater that is off may heat all the same: a transistor fails, or somebody else drives
the pin. So the board is looked at every minute while it is off, too, with or without a
job. What is too hot trips and is powered off as above, and the pin is driven low again.
A board that does not answer then proves nothing: not every unit has one.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import assert_never

from piod.actors.actor import Actor, Life, Message, Ref
from piod.actors.buses.bus import ASK_TIMEOUT_S, AllReleased, LeaseLost
from piod.actors.buses.pwm import LeasePwm, PwmBus, PwmLease, SetDuty
from piod.actors.heater_board import COOLED_CELSIUS, SAMPLE_S, HeaterBoard
from piod.actors.heater_latch import TripLatch
from piod.actors.leased_heater import (
    HEATER_ASK_TIMEOUT_S,
    HeaterLease,
    HeaterState,
    LeaseHeater,
    ReadBoard,
    ResetInterlock,
    SetHeater,
)
from piod.clock import Clock, timestamp
from piod.errors import BadRequest, BusError, LeaseTaken, PiodError
from piod.hw.models import Limits
from piod.hw.ports import Thermometer
from piod.jobs.instruments import HeaterTripped
from piod.storage.ledger import Ledger

log = logging.getLogger(__name__)

HEATER_HZ = 16.0
OFF_AFTER_S = 4.0
"""The heater is off so long after a good reading, unless another one follows.

A reading that is not there 2 s after it was due is one that failed; the bus may be busy
with a timed list of another job before that.
"""
HOLD_S = 300.0
"""A duty cycle that its job has not set again for so long is ended: the job hangs."""
OFF_SAMPLE_S = 60.0
CUT_AGAIN_TIMEOUT_S = 2.0
"""Wall time; whoever leases the heater meanwhile waits for it."""


@dataclass(frozen=True)
class InterlockState(Message["HeaterInterlock", HeaterState]):
    """How the heater is doing."""


@dataclass(frozen=True)
class LookWhileOff(Message["HeaterInterlock", None]):
    """Look at the board of a heater that is off and that no job reads; trips if it is hot."""


HeaterMessage = LeaseHeater | SetHeater | ReadBoard | ResetInterlock | InterlockState | LookWhileOff


async def keep_looking_while_off(heater: Ref[HeaterInterlock], clock: Clock) -> None:
    """Send LookWhileOff for ever."""
    while True:
        await clock.sleep(OFF_SAMPLE_S)
        try:
            await heater.ask(LookWhileOff(), timeout=HEATER_ASK_TIMEOUT_S)
        except PiodError as refusal:
            log.error("the board of the heater was not looked at: %s", refusal.message)


class _Lent:
    """The heater in the hands of one owner."""

    def __init__(self, lease: HeaterLease, request: LeaseHeater) -> None:
        self.lease = lease
        self.changed = request.changed
        self.lost = request.lost
        self.life = request.life
        self.output: PwmLease | None = None
        self.output_life = Life(request.life.name)
        """Ends with the owner, with the actor, and at each trip."""
        self.has_heated = False


class HeaterInterlock(Actor[HeaterMessage]):
    """Owns the heater on GPIO ``pin``.

    ``limits``: of the reactor model, as it is known now. ``power_off``: asks for the
    machine to be powered off, for the reason given.
    """

    def __init__(
        self,
        *,
        pwm: Ref[PwmBus],
        pin: int,
        thermometer: Thermometer,
        limits: Callable[[], Limits],
        ledger: Ledger,
        power_off: Callable[[str], Awaitable[None]],
        clock: Clock,
    ) -> None:
        super().__init__("heater")
        self._pwm = pwm
        self._pin = pin
        self._board = HeaterBoard(thermometer, limits, clock)
        self._power_off = power_off
        self._clock = clock
        self._lent: _Lent | None = None
        self._leases = 0
        self._duty_percent = 0.0
        self._command = 0
        """Number of the last SetHeater: one that is overtaken while it reads drives nothing."""
        self._set_s = -math.inf
        self._driven_s = -math.inf
        """When the output was driven last: its off-time counts from then."""
        self._latch = TripLatch(ledger)
        self._heating = asyncio.Event()
        self._leasing = asyncio.Lock()
        self._powering_off = False

    async def starting(self) -> None:
        self.life.at_end(self._cut)
        await self._latch.recall()
        self.spawn(self._sample_for_ever())

    async def ended(self) -> None:
        if self._lent is not None:
            self._lent.lost(LeaseLost("the interlock of the heater restarted"))
        await self._latch.keep_at_last()

    async def receive(self, message: HeaterMessage) -> object:
        match message:
            case LeaseHeater():
                return self.later(self._lend(message))
            case SetHeater(lease, duty_percent):
                lent = self._check_lease(lease)
                if not (math.isfinite(duty_percent) and 0 <= duty_percent <= 100):
                    raise BadRequest(f"duty cycle must be 0 to 100 %, got {duty_percent}")
                self._command += 1
                if duty_percent == 0:
                    return self.later(self._turn_off(lent))
                return self.later(self._heat(lent, duty_percent, self._command))
            case ReadBoard(lease):
                return self.later(self._read(self._check_lease(lease)))
            case ResetInterlock():
                return self.later(self._reset())
            case InterlockState():
                return self._state()
            case LookWhileOff():
                return self.later(self._look_while_off())
            case _:
                assert_never(message)

    # -- the lease ----------------------------------------------------------------

    async def _lend(self, request: LeaseHeater) -> HeaterLease:
        if self._lent is not None:
            raise LeaseTaken(
                f"the heater is in use by {self._lent.lease.owner}",
                remediation=f"Stop {self._lent.lease.owner} first.",
            )
        self._leases += 1
        lent = _Lent(HeaterLease(self._leases, request.life.name), request)
        self._lent = lent
        request.life.at_end(lambda: self._take_back(lent))
        try:
            await self._lease_output(lent)
        except PiodError:
            self._take_back(lent)
            raise
        self._check_lease(lent.lease)  # its owner may have ended meanwhile
        lent.changed(self._state())
        return lent.lease

    async def _lease_output(self, lent: _Lent) -> None:
        async with self._leasing:
            self._check_lease(lent.lease)  # what nobody owns, nobody would give back
            if lent.output is None:
                await self._lease_output_for(lent)

    async def _lease_output_for(self, lent: _Lent) -> None:
        if lent.output_life.ended:  # after a trip
            lent.output_life = Life(lent.life.name)
        life = lent.output_life

        def lost(error: BusError) -> None:
            if self._lent is lent and lent.output_life is life:
                life.end()
                self._off(lent)
                lent.lost(error)

        request = LeasePwm(self._pin, HEATER_HZ, life, lost)
        output = await self._pwm.ask(request, timeout=ASK_TIMEOUT_S)
        lent.output = None if life.ended else output

    def _check_lease(self, lease: HeaterLease) -> _Lent:
        if self._lent is None or self._lent.lease != lease:
            raise LeaseLost(f"{lease.owner} has no lease of the heater any more")
        return self._lent

    def _take_back(self, lent: _Lent) -> None:
        """The owner has ended: off before anything else."""
        lent.output_life.end()
        if self._lent is lent:
            self._off(lent)
            self._lent = None

    def _cut(self) -> None:
        if self._lent is not None:
            self._lent.output_life.end()

    def _off(self, lent: _Lent) -> None:
        """Note that the heater is off, and stays off until the next SetHeater."""
        self._command += 1
        if lent.output_life.ended:
            lent.output = None
        self._now_driven(lent, 0.0)

    def _now_driven(self, lent: _Lent, duty_percent: float) -> None:
        if duty_percent:
            self._heating.set()
        else:
            self._heating.clear()
        if duty_percent != self._duty_percent:
            self._duty_percent = duty_percent
            self._board.driven(duty_percent)
            lent.changed(self._state())

    def _state(self) -> HeaterState:
        return HeaterState(self._duty_percent, self._latch.reason)

    # -- what the job asks for --------------------------------------------------------

    async def _turn_off(self, lent: _Lent) -> float:
        self._now_driven(lent, 0.0)
        if lent.output is not None:
            await self._drive(lent, lent.output, 0.0)
        return 0.0

    async def _heat(self, lent: _Lent, duty_percent: float, command: int) -> float:
        self._refuse_if_tripped()
        await self._read(lent)
        self._refuse_if_tripped()
        if command == self._command and lent.output is None:
            await self._lease_output(lent)
        if command != self._command or lent.output is None:
            return self._duty_percent
        self._set_s = self._clock.monotonic()
        lent.has_heated = True
        self._now_driven(lent, min(duty_percent, self._board.ceiling_percent))
        await self._drive(lent, lent.output, self._duty_percent)
        return self._duty_percent

    async def _drive(self, lent: _Lent, output: PwmLease, duty_percent: float) -> None:
        off_after_s = OFF_AFTER_S if duty_percent else None
        self._driven_s = self._clock.monotonic()
        try:
            message = SetDuty(output, duty_percent, off_after_s)
            await self._pwm.ask(message, timeout=ASK_TIMEOUT_S)
        except PiodError as error:
            if self._lent is not lent or lent.output is not output:
                return  # the lease was ended meanwhile, and the output with it
            self._trip_with(lent, f"its output could not be driven: {error.message}")
            raise self._tripped() from error

    # -- the interlock ----------------------------------------------------------------

    async def _sample_for_ever(self) -> None:
        while True:
            await self._heating.wait()
            await self._clock.sleep(SAMPLE_S)
            lent = self._lent
            if lent is None or not self._duty_percent:
                continue
            command = self._command
            try:
                await self._read(lent)
                if self._command == command and lent.output is not None and self._duty_percent:
                    await self._renew(lent, lent.output)
            except PiodError:
                pass  # it has tripped, and told

    async def _renew(self, lent: _Lent, output: PwmLease) -> None:
        now_s = self._clock.monotonic()
        late_s = now_s - self._driven_s
        if late_s > OFF_AFTER_S:  # its off-time has come: it stays off
            why = f"its board was not read for {late_s:.1f} s"
        elif now_s - self._set_s > HOLD_S:
            why = f"{lent.lease.owner} has not asked for it for {HOLD_S:g} s"
        else:
            self._now_driven(lent, min(self._duty_percent, self._board.ceiling_percent))
            await self._drive(lent, output, self._duty_percent)
            return
        log.warning("the heater was turned off: %s", why)
        self._command += 1
        await self._turn_off(lent)

    async def _read(self, lent: _Lent) -> float:
        """A reading that has been checked. BusError; that trips, once the lease has heated."""
        try:
            celsius = await self._board.read_celsius()
        except BusError as error:
            if lent.has_heated:
                self._trip_with(lent, f"its board could not be read: {error.message}")
            raise
        self._judge(lent, celsius)
        return celsius

    def _judge(self, lent: _Lent, celsius: float) -> None:
        problem = self._board.judge(celsius, self._duty_percent)
        if self._board.is_too_hot(celsius):
            self._too_hot(celsius)
        elif problem is not None:
            self._trip_with(lent, problem)

    def _too_hot(self, celsius: float) -> None:
        limit = self._board.limit_celsius
        meanwhile = "" if self._duty_percent else " while it should be off"
        reason = f"its board is at {celsius:g} °C, above the limit of {limit:g} °C{meanwhile}"
        self._trip_with(self._lent, reason)
        if self._board.is_far_too_hot(celsius) and not self._powering_off:
            self._powering_off = True
            self.spawn(self._confirm_and_power_off())

    def _trip_with(self, lent: _Lent | None, reason: str) -> None:
        """Off at once, and until it is reset. The first reason counts."""
        if lent is not None:
            lent.output_life.end()
        if self._latch.reason is None:
            self._latch.reason = f"{reason} ({timestamp(self._clock.time())})"
            log.critical("the heater was turned off and stays off until it is reset: %s", reason)
            self.spawn(self._latch.insist_on_keeping())
        if lent is not None:
            self._off(lent)
            lent.changed(self._state())

    async def _look_while_off(self) -> None:
        now_s = self._clock.monotonic()
        is_read_by_its_job = now_s - self._board.judged_s < OFF_SAMPLE_S
        if self._duty_percent or (is_read_by_its_job and self._latch.reason is None):
            return
        try:
            celsius = await self._board.read_celsius()
        except BusError as error:
            log.debug("the board of the heater, which is off, was not read: %s", error.message)
            return
        lent = self._lent
        ends_a_lease = lent is not None and lent.output is not None
        is_long_off = not self._duty_percent and self._board.is_long_off(now_s)
        if self._board.is_too_hot(celsius):
            self._too_hot(celsius)
        elif celsius >= COOLED_CELSIUS and is_long_off:
            self._trip_with(lent, f"its board is at {celsius:g} °C long after it was turned off")
        else:
            return
        if not ends_a_lease:  # that drives it low itself
            await self._cut_again()

    async def _cut_again(self) -> None:
        """Whoever drives the pin: a lease that ends drives it low, until that is confirmed."""
        life = Life(self.name)
        async with self._leasing:
            try:
                request = LeasePwm(self._pin, HEATER_HZ, life, lambda lost: None)
                await self._pwm.ask(request, timeout=ASK_TIMEOUT_S)
                life.end()
                # until then it can be lent to nobody
                await self._pwm.ask(AllReleased(life.name), timeout=CUT_AGAIN_TIMEOUT_S)
            except PiodError as error:
                log.critical("the heater was not driven low again: %s", error.message)
            finally:
                life.end()

    async def _confirm_and_power_off(self) -> None:
        try:
            reason = await self._board.confirm_far_too_hot()
            if reason is None:
                return
            log.critical("the machine is powered off: %s", reason)
            try:
                await self._power_off(reason)
            except PiodError as refusal:
                log.critical("the machine is not powered off: %s", refusal.message)
        finally:
            self._powering_off = False

    # -- the latch ----------------------------------------------------------------------

    def _tripped(self) -> HeaterTripped:
        return HeaterTripped(f"the heater is off: {self._latch.reason}")

    def _refuse_if_tripped(self) -> None:
        if self._latch.reason is not None:
            raise self._tripped()

    async def _reset(self) -> None:
        reason = self._latch.reason
        if reason is None:
            return
        self._latch.reason = None
        self._board.forget()
        try:
            await self._latch.keep()
        except PiodError:
            if self._latch.reason is None:  # what is not kept has not happened
                self._latch.reason = reason
                self._trip_with(self._lent, reason)
            raise
        log.warning("the heater's interlock was reset; it had tripped: %s", reason)
        if self._lent is not None:
            self._lent.changed(self._state())
