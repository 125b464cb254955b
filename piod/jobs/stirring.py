"""Stirring: the duty cycle of the stirrer, led by the turns that the hall sensor sees.

The first duty cycle, and each change of target, is fed forward: from the active
stirring calibration if there is one, else from a straight line through (5 %,
0 RPM) and (``initial_duty_cycle``, 500 RPM). Both are corrected by what measured
pairs of duty cycle and RPM teach; a PID controller trims the rest.

Better than upstream (handbook jobs-and-hardware §2.1): ``target_rpm`` 0 means 0;
a target above 0 after a target of 0 starts from a full estimate; kicks against a
stall are bounded, then the job says so (``stalled``), goes on at its estimate and
watches for the stirrer to turn again.

With ``enable_dodging_od`` and while OD is read, it turns at one speed around each
reading and at another between them, and changes nothing during a reading
(:mod:`piod.jobs.dodging`). Without, it keeps its small changes out of the readings.
How the motor is kicked and sped up: :mod:`piod.jobs.stirrer`.

Settings: see :attr:`Stirring.settings`. Times are seconds, speeds RPM, duty
cycles percent.
"""

from __future__ import annotations

from collections.abc import Mapping

from piod.calibrations.curves import CurveError
from piod.clock import Clock, timestamp
from piod.events import JsonValue
from piod.jobs.dodging import Delays, DodgeOd, OdSchedule
from piod.jobs.feed_forward import FeedForward, feed_forward_from
from piod.jobs.interrupts import Interrupts
from piod.jobs.job import EdgeInput, Job, JobLog, Options, PwmOutput, Unit
from piod.jobs.pid import Pid, clamp
from piod.jobs.stalls import Stalls
from piod.jobs.stirrer import KICK_S, RETARGET_KICK_S, STALL_KICK_S, Stirrer, short_kick_s
from piod.jobs.stirring_settings import (
    DODGING,
    DURING,
    OPTIONS,
    OUTSIDE,
    SECTION,
    SETTINGS,
    StirringSettings,
    check_changes,
)
from piod.jobs.stirring_speed import observation_window_s, rpm_of

STALL_KICK_CEILING_PERCENT = 60.0

FIRST_POLL_S = 6.0
"""From a change of the duty cycle to the measurement that judges it."""
AIM_BAND = 0.01
"""A measurement further from the target than this part of it: feed forward anew…"""
AIMS = 3
"""…at most this often in a row. Then the PID trims."""
TRIM_LIMIT_PERCENT = 7.5
"""Largest trim of one PID update."""

LOOK_S = 1.0
"""How soon it is noticed that OD readings begin, change or end."""
SETTLED_S = 2.5
"""From a change of the duty cycle to a speed that may be learned from: three time constants."""
LEAST_WINDOW_S = 1.0
ROUND_S = 10.0
"""A longer time between readings, beside that of a measurement, has room for the usual round."""


class Stirring(Job):
    """Keeps the stirrer at ``target_rpm``."""

    job_name = "stirring"
    help = "Stir the culture, led by the measured speed."
    resumable = True
    options = OPTIONS
    settings = SETTINGS

    def __init__(
        self,
        *,
        pwm: PwmOutput,
        hall_sensor: EdgeInput,
        clock: Clock,
        unit: Unit,
        settings: StirringSettings,
        feed_forward: FeedForward,
        pid: Pid,
        dodge_od: DodgeOd,
    ) -> None:
        self._hall_sensor = hall_sensor
        self._clock = clock
        self._unit = unit
        self._publish = unit.publish
        self._log: JobLog = unit.log
        self._told = settings
        self._feed_forward = feed_forward
        self._pid = pid
        self._target = settings.target_rpm if settings.use_rpm else None
        self._estimate = settings.duty_percent
        self.measured_rpm: float | None = None
        """The last measurement, RPM."""
        self._dodge_od = dodge_od
        self._dodging = False
        """As published. The target is one of these two then."""
        self._asleep = False
        self._changed = Interrupts(clock)
        self._stirrer = Stirrer(pwm, clock, self._changed, self._driven)
        self._aims_left = AIMS
        """How often the present target may still be fed forward anew."""
        self._stalls = Stalls(unit.log)

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Stirring:
        config = unit.config
        told = StirringSettings.of(options, config)
        calibration = await unit.active_calibration("stirring") if told.use_rpm else None
        pid = Pid(
            kp=config.number("stirring.pid", "Kp", 0.005),
            ki=config.number("stirring.pid", "Ki", 0.0),
            kd=config.number("stirring.pid", "Kd", 0.0),
            setpoint=told.target_rpm,
            low=-TRIM_LIMIT_PERCENT,
            high=TRIM_LIMIT_PERCENT,
        )
        hz = config.number(SECTION, "pwm_hz", 200.0, minimum=0.1, maximum=10_000)
        return cls(
            pwm=await unit.lease_pwm("stirring", hz=hz),
            hall_sensor=unit.hall_sensor,
            clock=unit.clock,
            unit=unit,
            settings=told,
            feed_forward=feed_forward_from(
                calibration,
                config.number(SECTION, "initial_duty_cycle", 30.0, minimum=0, maximum=100),
            ),
            pid=pid,
            dodge_od=DodgeOd(
                unit.peers,
                unit.clock,
                unit.log,
                Delays.of(config, SECTION),
                enabled=told.enable_dodging_od,
                during_rpm=told.rpm_during_od_reading,
                outside_rpm=told.rpm_outside_od_reading,
            ),
        )

    # -- the life of the job ------------------------------------------------------

    async def start(self) -> None:
        self._publish("target_rpm", self._target)
        self._publish(DODGING, self._dodge_od.enabled)
        self._publish("currently_dodging_od", False)
        self._publish(DURING, self._dodge_od.during_rpm)
        self._publish(OUTSIDE, self._dodge_od.outside_rpm)
        self._publish("stalled", False)
        if self._target is not None and not self._told.duty_is_given:
            self._estimate = self._duty_for(self._target)
        if self._target == 0:
            self._estimate = 0.0
        self._changed.clear()
        self._begin_anew()
        if self._dodge_od.enabled:
            await self._dodge_od.keep_out(KICK_S)
        await self._stirrer.go(self._estimate, KICK_S)

    async def run(self) -> None:
        pause = FIRST_POLL_S
        while True:
            schedule = self._dodge_od.schedule()
            if schedule is not None:
                await self._dodge(schedule)
                pause = FIRST_POLL_S
                continue
            if self._dodging:
                await self._dodge_od.keep_out(KICK_S)
                self._stop_dodging()
            step_s = min(pause, LOOK_S) if self._dodge_od.enabled else pause
            if not await self._changed.wait(step_s):
                if self._dodge_od.schedule() is None:
                    await self._follow()
                pause = FIRST_POLL_S
            elif step_s < pause:
                pause -= step_s
            else:
                pause = await self._poll()

    async def sleep(self) -> None:
        self._asleep = True
        await self._stirrer.drive(0.0)
        self._publish_rpm(0.0)

    async def wake(self) -> None:
        self._asleep = False
        self._changed.clear()
        self._begin_anew()
        if self._dodge_od.enabled:
            await self._dodge_od.keep_out(KICK_S)
        await self._stirrer.go(self._estimate, KICK_S)

    # -- settings -----------------------------------------------------------------

    def check(self, changes: Mapping[str, JsonValue]) -> None:
        check_changes(changes, use_rpm=self._target is not None, dodges=self._dodge_od.enabled)

    def change(self, setting: str, value: JsonValue) -> None:
        match setting, value:
            case "target_rpm", int() | float():
                self._aim_at(float(value))
                self._begin_anew()
                if self._dodge_od.enabled:
                    self._dodge_od.outside_rpm = float(value)
                    self._publish(OUTSIDE, self._dodge_od.outside_rpm)
            case "duty_cycle", int() | float():
                self._estimate = float(value)
                self._begin_anew()
                self._aims_left = 0  # a person chose it: trim it, do not replace it
                if not self._asleep:
                    self._publish("duty_cycle", self._estimate)
            case "enable_dodging_od", bool():
                self._dodge_od.enabled = value
                self._publish(setting, value)
            case "target_rpm_during_od_reading", int() | float():
                self._dodge_od.during_rpm = float(value)
                self._publish(setting, self._dodge_od.during_rpm)
            case "target_rpm_outside_od_reading", int() | float():
                self._dodge_od.outside_rpm = float(value)
                self._publish(setting, self._dodge_od.outside_rpm)
            case _:
                super().change(setting, value)
        self._changed.set()

    # -- around OD readings ---------------------------------------------------------

    async def _dodge(self, schedule: OdSchedule) -> None:
        """One round: the one speed until a reading comes near, the other until it is over."""
        self._changed.clear()
        if not self._dodging:
            self._dodging = True
            self._publish("currently_dodging_od", True)
        now_s = self._clock.monotonic()
        quiet_until_s = schedule.over_s(now_s) + self._dodge_od.delays.after_s
        next_s = schedule.next_s(now_s)
        slow_at_s = next_s - self._dodge_od.delays.before_s
        if now_s < quiet_until_s:
            await self._wait_until(quiet_until_s, schedule)
        elif now_s > slow_at_s - RETARGET_KICK_S:  # too late for a change not to reach into it
            await self._wait_until(next_s + schedule.reading_s, schedule)
        elif await self._stir_until(slow_at_s, schedule):
            self._aim_at(self._dodge_od.during_rpm)
            await self._stirrer.go(self._estimate, self._kick_from_rest(), until_s=next_s)
            await self._wait_until(next_s + schedule.reading_s, schedule)

    async def _stir_until(self, end_s: float, schedule: OdSchedule) -> bool:
        """At the speed between readings; False: something has changed."""
        began_s = self._clock.monotonic()
        self._aim_at(self._dodge_od.outside_rpm)
        await self._stirrer.go(self._estimate, self._kick_from_rest(), until_s=end_s)
        window_s = observation_window_s(self._dodge_od.outside_rpm)
        if end_s - began_s > window_s + ROUND_S:
            pause = FIRST_POLL_S
            while end_s - self._clock.monotonic() > pause + window_s + ROUND_S - FIRST_POLL_S:
                if not await self._wait_until(self._clock.monotonic() + pause, schedule):
                    return False
                pause = await self._poll()
        elif self._dodge_od.outside_rpm > 0:
            window_s = min(window_s, end_s - self._clock.monotonic() - KICK_S)
            if window_s >= LEAST_WINDOW_S:
                if not await self._wait_until(end_s - window_s, schedule):
                    return False
                await self._look(window_s, settled=end_s - window_s - began_s >= SETTLED_S)
        return await self._wait_until(end_s, schedule)

    async def _look(self, window_s: float, *, settled: bool) -> None:
        """Measure between two readings, where there is no time for more."""
        edges = await self._changed.unless(self._hall_sensor.record_edges(window_s))
        if edges is None:
            return
        rpm = rpm_of(edges)
        self._publish_rpm(rpm)
        self._unit.record("rpm", rpm)
        if rpm == 0:
            self._count_stall()  # the kick comes with the next round
            return
        self._note_turning()
        if settled:
            self._feed_forward.learn(self._stirrer.duty_percent, rpm)

    def _kick_from_rest(self) -> float:
        """How long to kick for the speed that is aimed at, around an OD reading."""
        if self._stalls.wants_kick:
            return RETARGET_KICK_S
        if self._stirrer.duty_percent > 0 or self._target is None:
            return 0.0
        return short_kick_s(self._target)

    def _stop_dodging(self) -> None:
        self._dodging = False
        self._publish("currently_dodging_od", False)
        self._aim_at(self._dodge_od.outside_rpm)
        self._aims_left = AIMS
        self._changed.set()

    async def _wait_until(self, when_s: float, schedule: OdSchedule) -> bool:
        """Whether that time has come without a change of settings or schedule."""
        while (left_s := when_s - self._clock.monotonic()) > 0:
            if not await self._changed.wait(min(left_s, LOOK_S)):
                return False
            if self._dodge_od.schedule() != schedule:
                return False
        return not self._changed.pending

    # -- what it does -------------------------------------------------------------

    async def _poll(self) -> float:
        """Measure, learn, trim or kick; the pause until the next poll."""
        target = self._target
        if target is None:
            return self._told.period_s
        rpm = await self._changed.unless(self._observe(target))
        if rpm is None:
            return 0.0
        self._publish_rpm(rpm)
        self._unit.record("rpm", rpm)
        if target == 0:
            return self._told.period_s
        if rpm == 0:
            return await self._meet_stall()
        self._note_turning()
        self._feed_forward.learn(self._stirrer.duty_percent, rpm)
        await self._dodge_od.keep_out()
        if self._changed.pending:
            return 0.0
        if self._aims_left and abs(rpm - target) > AIM_BAND * target:
            self._aims_left -= 1
            self._estimate = self._duty_for(target)
            await self._stirrer.go(self._estimate, 0.0)
            return FIRST_POLL_S
        self._aims_left = 0
        await self._stirrer.drive(clamp(0.0, self._estimate + self._trim(rpm), 100.0))
        return self._told.period_s

    async def _observe(self, target_rpm: float) -> float:
        window_s = observation_window_s(target_rpm)
        return rpm_of(await self._hall_sensor.record_edges(window_s))

    def _trim(self, rpm: float) -> float:
        output = self._pid.update(rpm)
        self._unit.pid_stepped(
            "target_rpm",
            setpoint=self._pid.setpoint,
            output_limits=(self._pid.low, self._pid.high),
            gains=(self._pid.kp, self._pid.ki, self._pid.kd),
            terms=self._pid.terms,
            latest_input=rpm,
            latest_output=output,
        )
        return output

    async def _meet_stall(self) -> float:
        if not self._count_stall():
            return self._told.period_s
        await self._dodge_od.keep_out(2 * STALL_KICK_S)
        await self._stirrer.kick_loose()
        await self._stirrer.drive(min(1.01 * self._estimate, STALL_KICK_CEILING_PERCENT))
        return FIRST_POLL_S

    def _count_stall(self) -> bool:
        """Whether to kick."""
        before = self._stalls.given_up
        kick = self._stalls.seen(self._estimate)
        if self._stalls.given_up and not before:
            self._publish("stalled", True)
        return kick

    def _note_turning(self) -> None:
        if self._stalls.over():
            self._publish("stalled", False)

    async def _follow(self) -> None:
        """Do what a changed setting asks for."""
        self._changed.clear()
        kick_s = RETARGET_KICK_S if self._stirrer.duty_percent == 0 else 0.0
        await self._stirrer.go(self._estimate, kick_s)

    def _driven(self, duty_percent: float) -> None:
        """A duty cycle above 0 becomes the estimate, unless a new setting waits."""
        if duty_percent > 0 and not self._changed.pending:
            self._estimate = duty_percent
        self._publish("duty_cycle", round(duty_percent, 5))

    def _aim_at(self, rpm: float) -> None:
        self._target = rpm
        self._estimate = self._duty_for(rpm)
        self._pid.reset(rpm)
        self._publish("target_rpm", rpm)

    def _begin_anew(self) -> None:
        self._aims_left = AIMS
        if self._stalls.forget():
            self._publish("stalled", False)
        self._pid.reset(self._target or 0.0)

    def _duty_for(self, rpm: float) -> float:
        if rpm == 0:
            return 0.0
        try:
            return self._feed_forward.duty_for(rpm)
        except CurveError as error:
            self._log.warning(
                "the stirring calibration knows no duty cycle for %g RPM (%s); "
                "starting from initial_duty_cycle",
                rpm,
                error.message,
            )
            return self._told.duty_percent

    def _publish_rpm(self, rpm: float) -> None:
        self.measured_rpm = rpm
        self._publish(
            "measured_rpm", {"measured_rpm": rpm, "timestamp": timestamp(self._clock.time())}
        )
