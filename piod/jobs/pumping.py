"""Pumping: one pump, and its runs, as pump actions and dosing automations use them.

    pump = await open_pump(unit, "media")
    moved_ml = await pump.dose(0.5, source="dosing_automation:chemostat")

Each run leases the output of its pump, is admitted by the ledger of volumes, durable, and only
then turns the pump on, with an off-time that the thread of the bus and the guard keep, not the
event loop. However a run ends, by its time, a stop, a sleep or a crash, the pump is off first;
then what it has moved is kept in the ledger. Nothing that was not pumped is made up for.

What is pumped is recorded as readings of the kind ``dosing`` (mL, the channel is the pump's
role): each slice before it is pumped, as upstream does, so that who measures OD knows of it; at
the end the difference to what was moved, which may be negative. They add up to what was moved.

On-times are counted so that the vial is never fuller than the ledger believes: of an inflow
from the command on to the confirmation off, of waste from confirmation to command. Both are at
most the off-time.

If the hardware refuses to turn off, nobody knows when it does: some time between command and
confirmation. Until then the ledger lets nothing be added; if it takes long, the run fails, and
the dose is over when the pump is. If the event loop hung, the guard may have turned the pump
off meanwhile, so it was surely on only until the loop was last seen alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import TypeVar

from piod.errors import BadRequest, ConfigurationError, PiodError
from piod.jobs.job import PwmOutput, Unit
from piod.jobs.liquids import Dose, Flow, Off, PumpRole
from piod.jobs.pump_rate import LONGEST_S, PumpRate, calibrated, following, uncalibrated

T = TypeVar("T")

ROLES: tuple[PumpRole, ...] = ("media", "alt_media", "waste")
EVENTS = {"media": "add_media", "alt_media": "add_alt_media", "waste": "remove_waste"}
SLICE_S = 5.0
"""Of a run, announced as one reading."""
RENEW_S, RENEWED_OFF_AFTER_S = 4.0, 10.0
"""A pump without an end is told anew to go on, or it stops."""
WINDOW_S = 30.0
"""Of a run without an end, one dose: what a power cut leaves in doubt at most."""
STEP_S, LAPSE_S = 1.0, 1.5
"""A run looks at the clock so often; after a longer pause, the event loop may have hung for so
long that the guard, which waits for LATE_AFTER_S, has turned everything off."""
SAME_ML = 1e-9


async def open_pump(unit: Unit, role: PumpRole) -> Pump:
    """The pump of ``role``, by its active calibration or without one. Leases nothing.

    ConfigurationError: no PWM channel has the role; UnusableCalibration.
    """
    if role not in unit.config.pwm_roles():
        raise ConfigurationError(
            f"no PWM channel has the role {role!r}",
            remediation=f"Give a channel the role in the section [PWM], such as 2={role}.",
        )
    calibration = await unit.active_calibration(f"{role}_pump")
    rate = uncalibrated(role) if calibration is None else calibrated(role, calibration)
    return Pump(unit, role, rate)


class Pump:
    """One pump, and how much it moves."""

    def __init__(self, unit: Unit, role: PumpRole, rate: PumpRate) -> None:
        self.unit = unit
        self.role = role
        self.rate = rate

    def run(self, source: str) -> PumpRun:
        """A run, to be entered with ``async with``. ``source``: who pumps, for the history."""
        return PumpRun(self, source)

    async def dose(self, volume_ml: float, *, source: str) -> float:
        """Pump a volume; what was moved, as expected by the calibration, mL.

        NotCalibrated; BadRequest for a volume that one run cannot move; LeaseTaken (Conflict)
        names who has the pump; what the ledger refuses: see :class:`.liquids.Liquids`.
        """
        return await self.pump_for(self.rate.seconds_for(volume_ml), source=source)

    async def pump_for(self, seconds: float, *, source: str) -> float:
        """Pump for so long; what was moved, as expected, mL. Raises as :meth:`dose`."""
        async with self.run(source) as run:
            await run.start(seconds)
            await run.wait()
        return run.moved_ml


class PumpRun:
    """A pump from its lease to the fact. Entered, it has the lease; left, the pump is off.

    Of its doses that are over: ``run_s``, how long it was on, and ``moved_ml``, as expected.
    """

    def __init__(self, pump: Pump, source: str) -> None:
        self._unit = pump.unit
        self._clock = pump.unit.clock
        self._role = pump.role
        self._rate = pump.rate
        self._source = source
        self._output: PwmOutput | None = None
        self._dose: Dose | None = None
        self._flow: Flow = pump.rate.flow
        self._announced_ml = 0.0
        self._on = _OnTime()
        self._alive_s = 0.0
        """When the event loop was last seen alive."""
        self._off: Off | None = None
        """The pump refuses to go off."""
        self._off_due_s = 0.0
        self.run_s = 0.0
        self.moved_ml = 0.0

    async def __aenter__(self) -> PumpRun:
        try:
            await unbroken(self._lease())
        except BaseException:  # whatever it was: nobody else would give it back
            await unbroken(self._end())
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await unbroken(self._end())

    # -- the usual runs -----------------------------------------------------------

    async def start(self, seconds: float) -> None:
        """Turn it on for so long, once that is admitted; :meth:`wait` waits for its end."""
        if not 0 < seconds <= LONGEST_S:
            raise BadRequest(
                f"a pump runs for more than 0 s and at most {LONGEST_S:g} s, got {seconds:g}"
            )
        await self.admit(self._rate.flow, seconds)
        await self.turn_on(seconds)

    async def wait(self) -> None:
        """Until the off-time; what will have been pumped is announced on the way."""
        while (left_s := self._off_due_s - self._clock.monotonic()) > 0:
            slice_s = min(left_s, SLICE_S)
            self.announce(slice_s)
            await self._rest(slice_s)

    async def start_endless(self) -> None:
        """Turn it on without an end, for waste alone; :meth:`go_on` keeps it on."""
        await self.admit(following(self._rate.flow, self.run_s), WINDOW_S + RENEWED_OFF_AFTER_S)
        await self.turn_on(RENEWED_OFF_AFTER_S)

    async def go_on(self) -> None:
        """Keep it on until cancelled. A blocked event loop turns it off."""
        while True:
            self.announce(RENEW_S)
            await self._rest(RENEW_S)
            if self._on.seconds(self._clock.monotonic()) >= WINDOW_S:
                await self.settle()
                await self.start_endless()
            else:
                await self.turn_on(RENEWED_OFF_AFTER_S)

    # -- their steps ----------------------------------------------------------------

    async def admit(self, flow: Flow, seconds: float) -> None:
        """Begin a dose of ``seconds`` on-time that moves ``flow``; none is under way."""
        self._dose = await self._unit.liquids.admit(self._role, flow, seconds, self._source)
        self._flow = flow
        self._announced_ml = 0.0

    async def turn_on(self, off_after_s: float) -> None:
        """Turn it on, or let it go on, for so long from now."""
        assert self._output is not None, "a run is entered first"
        asked_s = self._see_alive()
        if self._role != "waste":
            self._on.begin(asked_s, off_after_s)
        await self._output.set_duty(self._rate.duty_percent, off_after_s=off_after_s)
        confirmed_s = self._clock.monotonic()
        if self._role == "waste":
            self._on.begin(confirmed_s, off_after_s)
        self._off_due_s = confirmed_s + off_after_s

    async def _rest(self, seconds: float) -> None:
        """Wait, watching the event loop."""
        until_s = self._clock.monotonic() + seconds
        while (left_s := until_s - self._see_alive()) > 0:
            await self._clock.sleep(min(left_s, STEP_S))

    def _see_alive(self) -> float:
        """The event loop is alive now; if it was not seen for too long, the pump may be off."""
        now_s = self._clock.monotonic()
        if now_s - self._alive_s > LAPSE_S:
            self._on.lapse(self._alive_s, now_s)
        self._alive_s = now_s
        return now_s

    def announce(self, more_s: float) -> None:
        """Record what the dose moves within ``more_s`` from now, as far as it is to be on."""
        self._see_alive()
        seconds = self._on.seconds(self._clock.monotonic() + more_s)
        self._record(self._flow(seconds).expected_ml)

    async def settle(self) -> None:
        """Keep what the dose has moved, durable; the pump may go on."""
        if self._dose is None:
            return
        dose = self._dose
        seconds, unsure_s = self._on.take(self._clock.monotonic())
        try:
            if self._off is None:
                moved = await dose.finish(seconds, unsure_s=unsure_s)
            else:
                moved = await dose.still_on(seconds, unsure_s=unsure_s, off=self._off)
        except asyncio.CancelledError:  # it may not have been told
            self._on.give_back(seconds, unsure_s)
            raise
        except PiodError:
            self._record(self._flow(seconds).expected_ml)  # the ledger counts it all the same
            self._dose = None
            raise
        self._record(moved.expected_ml)
        self._dose = None
        self.run_s += seconds
        self.moved_ml += moved.expected_ml

    def _record(self, moved_ml: float) -> None:
        """Record the difference to what was announced of this dose."""
        change_ml = moved_ml - self._announced_ml
        if self._dose is None or abs(change_ml) < SAME_ML:
            return
        self._announced_ml = moved_ml
        self._unit.record(
            "dosing",
            change_ml,
            self._role,
            event=EVENTS[self._role],
            source_of_event=self._source,
            dose_id=self._dose.dose_id,
        )

    async def _lease(self) -> None:
        self._output = await self._unit.lease_pwm(self._role, hz=self._rate.hz)

    async def turn_off(self) -> None:
        """Off, and the lease given back; returns when the hardware confirms it."""
        output, self._output = self._output, None
        if output is None:
            return
        told_s, is_off = self._see_alive(), False
        try:
            is_off = await output.release()
        except PiodError as refusal:
            self._unit.log.error("the %s pump may be on: %s", self._role, refusal.message)
        off_s = self._clock.monotonic()
        if is_off:
            self._on.end(told_s if self._role == "waste" else off_s)
        else:
            self._off = output.off
            self._on.end_late(told_s, off_s)

    async def _end(self) -> None:
        """The pump off, then the fact."""
        try:
            await self.turn_off()
        finally:
            try:
                await self.settle()
            except PiodError as refusal:
                self._unit.log.error(
                    "what the %s pump moved could not be kept: %s", self._role, refusal.message
                )
                raise


class _OnTime:
    """How long an output was on: in the dose at hand."""

    def __init__(self) -> None:
        self._counted_s = 0.0
        self._unsure_s = 0.0
        self._since_s: float | None = None
        self._until_s = 0.0

    def begin(self, now_s: float, off_after_s: float) -> None:
        """It is on from ``now_s``, for so long at most."""
        if self._since_s is None or now_s >= self._until_s:
            self._counted_s = self.seconds(now_s)
            self._since_s = now_s
        self._until_s = now_s + off_after_s

    def seconds(self, at_s: float) -> float:
        """Until then."""
        if self._since_s is None:
            return self._counted_s
        return self._counted_s + max(0.0, min(at_s, self._until_s) - self._since_s)

    def lapse(self, from_s: float, to_s: float) -> None:
        """Between the two it may have been off."""
        if self._since_s is not None:
            self._unsure_s += self.seconds(to_s) - self.seconds(from_s)

    def take(self, now_s: float) -> tuple[float, float]:
        """Until now, and for how long of it it may have been off; it is counted anew then."""
        taken = self.seconds(now_s), self._unsure_s
        self._counted_s = self._unsure_s = 0.0
        if self._since_s is not None:
            self._since_s = max(now_s, self._since_s)
        return taken

    def give_back(self, seconds: float, unsure_s: float) -> None:
        """What was taken counts again."""
        self._counted_s += seconds
        self._unsure_s += unsure_s

    def end(self, off_s: float) -> None:
        """It is off since then, or since its off-time."""
        self._counted_s = self.seconds(off_s)
        self._since_s = None

    def end_late(self, told_s: float, now_s: float) -> None:
        """It refused to go off at ``told_s``; whether it is off now is not known."""
        self._until_s = max(self._until_s, now_s)
        self.lapse(told_s, now_s)
        self.end(now_s)


async def unbroken(work: Awaitable[T]) -> T:
    """Do ``work`` to its end, even if the caller is cancelled meanwhile; he is, afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # it has been told; the cancellation comes first
        raise cancelled
    return task.result()
