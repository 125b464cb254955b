"""Stirring: the duty cycle of the stirrer, led by the turns that the hall sensor sees.

The first duty cycle, and each change of target, is fed forward: from the active
stirring calibration if there is one, else from a straight line through (5 %,
0 RPM) and (``initial_duty_cycle``, 500 RPM). Both are corrected by what measured
pairs of duty cycle and RPM teach; a PID controller trims the rest.

Better than upstream (handbook jobs-and-hardware §2.1): ``target_rpm`` 0 means 0;
a target above 0 after a target of 0 starts from a full estimate; kicks against a
stall are bounded, then the job says so (``stalled``), goes on at its estimate and
watches for the stirrer to turn again.

Settings: see :attr:`Stirring.settings`. Times are seconds, speeds RPM, duty
cycles percent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from piod.calibrations.curves import CurveError
from piod.clock import Clock, timestamp
from piod.config import Config
from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.feed_forward import CalibratedFeedForward, FeedForward, LineFeedForward
from piod.jobs.job import EdgeInput, Job, JobLog, Option, Options, PwmOutput, Setting, Unit
from piod.jobs.pid import Pid, clamp

T = TypeVar("T")


KICK_S = 0.5
"""Full duty cycle to get a stirrer at rest going, at start and wake."""
RETARGET_KICK_S = 0.35
"""The same, when a new target finds the stirrer off."""
STALL_KICK_S = 0.75
"""Length of each half (off, full on) of a kick against a stall."""
STALL_KICK_CEILING_PERCENT = 60.0
STALL_KICKS = 3
"""Kicks in a row before the job reports a stall and stops kicking."""

RAMP_STEP_PERCENT = 20.0
"""A turning stir bar is sped up in steps of at most this, or it may be thrown off."""
RAMP_STEP_S = 1.0

FIRST_POLL_S = 6.0
"""From a change of the duty cycle to the measurement that judges it."""
AIM_BAND = 0.01
"""A measurement further from the target than this part of it: feed forward anew…"""
AIMS = 3
"""…at most this often in a row. Then the PID trims."""
TRIM_LIMIT_PERCENT = 7.5
"""Largest trim of one PID update."""
MAX_TARGET_RPM = 5000.0


def rpm_of(edges: Sequence[float]) -> float:
    """RPM from falling edges, one a turn: 60·(n−1)/Σ intervals, to 0.1; 0 below two edges."""
    if len(edges) < 2:
        return 0.0
    return round(60.0 * (len(edges) - 1) / (edges[-1] - edges[0]), 1)


def observation_window_s(target_rpm: float) -> float:
    """How long to watch the hall sensor: ten turns, between 1 s and 5 s (handbook §2.1).

    A target so slow that two edges may not fall into 5 s gets two and a half turns,
    15 s at most.
    """
    if target_rpm <= 0:
        return 1.0
    return max(clamp(1.0, 600.0 / target_rpm, 5.0), min(150.0 / target_rpm, 15.0))


@dataclass(frozen=True)
class StirringSettings:
    """What stirring is told, from its options and ``[stirring.config]``."""

    use_rpm: bool
    target_rpm: float
    duty_percent: float
    """Duty cycle without RPM feedback, and the line's reference with it."""
    duty_is_given: bool
    """A person named the first duty cycle; it is used instead of the feed-forward."""
    period_s: float
    target_rpm_during_od_reading: float | None
    target_rpm_outside_od_reading: float | None
    enable_dodging_od: bool

    @classmethod
    def of(cls, options: Options, config: Config) -> StirringSettings:
        """Options win over the configuration."""
        section = "stirring.config"

        def number(option: str, key: str, default: float, high: float) -> float:
            given = options.get(option)
            if isinstance(given, int | float):
                return float(given)
            return config.number(section, key, default, minimum=0, maximum=high)

        def boolean(option: str, default: bool) -> bool:
            given = options.get(option)
            return given if isinstance(given, bool) else config.boolean(section, option, default)

        def optional(option: str) -> float | None:
            given = options.get(option)
            if isinstance(given, int | float):
                return float(given)
            return config.number(section, option, None, minimum=0, maximum=MAX_TARGET_RPM)

        return cls(
            use_rpm=boolean("use_rpm", True),
            target_rpm=number("target_rpm", "initial_target_rpm", 500.0, MAX_TARGET_RPM),
            duty_percent=number("duty_cycle", "initial_duty_cycle", 30.0, 100.0),
            duty_is_given="duty_cycle" in options,
            period_s=config.number(section, "duration_between_updates_seconds", 23.0, minimum=1.0),
            target_rpm_during_od_reading=optional("target_rpm_during_od_reading"),
            target_rpm_outside_od_reading=optional("target_rpm_outside_od_reading"),
            enable_dodging_od=boolean("enable_dodging_od", False),
        )


class Stirring(Job):
    """Keeps the stirrer at ``target_rpm``."""

    job_name = "stirring"
    help = "Stir the culture, led by the measured speed."
    resumable = True
    options = (
        Option(
            "target_rpm",
            "float range",
            "the speed to keep, RPM",
            minimum=0,
            maximum=1500,
            clamp=True,
        ),
        Option("use_rpm", "boolean", "lead the duty cycle by the measured speed"),
        Option("duty_cycle", "float range", "first duty cycle, %", minimum=0, maximum=100),
        Option(
            "target_rpm_during_od_reading",
            "float",
            "speed while OD is read, RPM",
            minimum=0,
            maximum=MAX_TARGET_RPM,
        ),
        Option(
            "target_rpm_outside_od_reading",
            "float",
            "speed between OD readings, RPM",
            minimum=0,
            maximum=MAX_TARGET_RPM,
        ),
        Option("enable_dodging_od", "boolean", "change speed around OD readings"),
    )
    settings = (
        Setting(
            "target_rpm",
            "float",
            settable=True,
            unit="RPM",
            minimum=0,
            maximum=MAX_TARGET_RPM,
            kept=True,
        ),
        Setting("measured_rpm", "MeasuredRPM", unit="RPM"),
        Setting("duty_cycle", "float", settable=True, unit="%", minimum=0, maximum=100, kept=True),
        Setting(
            "target_rpm_during_od_reading",
            "float",
            settable=True,
            unit="RPM",
            minimum=0,
            maximum=MAX_TARGET_RPM,
        ),
        Setting(
            "target_rpm_outside_od_reading",
            "float",
            settable=True,
            unit="RPM",
            minimum=0,
            maximum=MAX_TARGET_RPM,
        ),
        Setting("enable_dodging_od", "boolean", settable=True),
        Setting("currently_dodging_od", "boolean"),
        Setting("stalled", "boolean"),
    )

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
    ) -> None:
        self._pwm = pwm
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
        self._running_percent = 0.0
        """What the pin was last told."""
        self._asleep = False
        self._changed = asyncio.Event()
        self._aims_left = AIMS
        """How often the present target may still be fed forward anew."""
        self._kicks = 0

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Stirring:
        config = unit.config
        told = StirringSettings.of(options, config)
        feed_forward: FeedForward = LineFeedForward(
            config.number("stirring.config", "initial_duty_cycle", 30.0, minimum=0, maximum=100)
        )
        calibration = await unit.active_calibration("stirring") if told.use_rpm else None
        if calibration is not None:
            if calibration.y != "RPM":
                raise BadRequest(
                    f"the active stirring calibration {calibration.calibration_name!r} gives "
                    f"{calibration.y!r}, not RPM",
                    remediation="Make another calibration active, or none.",
                )
            feed_forward = CalibratedFeedForward(calibration)
        pid = Pid(
            kp=config.number("stirring.pid", "Kp", 0.005),
            ki=config.number("stirring.pid", "Ki", 0.0),
            kd=config.number("stirring.pid", "Kd", 0.0),
            setpoint=told.target_rpm,
            low=-TRIM_LIMIT_PERCENT,
            high=TRIM_LIMIT_PERCENT,
        )
        hz = config.number("stirring.config", "pwm_hz", 200.0, minimum=0.1, maximum=10_000)
        return cls(
            pwm=await unit.lease_pwm("stirring", hz=hz),
            hall_sensor=unit.hall_sensor,
            clock=unit.clock,
            unit=unit,
            settings=told,
            feed_forward=feed_forward,
            pid=pid,
        )

    # -- the life of the job ------------------------------------------------------

    async def start(self) -> None:
        self._publish("target_rpm", self._target)
        self._publish("enable_dodging_od", self._told.enable_dodging_od)
        self._publish("currently_dodging_od", False)
        self._publish("target_rpm_during_od_reading", self._told.target_rpm_during_od_reading)
        self._publish("target_rpm_outside_od_reading", self._told.target_rpm_outside_od_reading)
        self._publish("stalled", False)
        if self._target is not None and not self._told.duty_is_given:
            self._estimate = self._duty_for(self._target)
        if self._target == 0:
            self._estimate = 0.0
        self._changed.clear()
        self._begin_anew()
        await self._go(KICK_S)

    async def run(self) -> None:
        pause = FIRST_POLL_S
        while True:
            if not await self._wait(pause):
                await self._follow()
                pause = FIRST_POLL_S
            else:
                pause = await self._poll()

    async def sleep(self) -> None:
        self._asleep = True
        await self._drive(0.0)
        self._publish_rpm(0.0)

    async def wake(self) -> None:
        self._asleep = False
        self._changed.clear()
        self._begin_anew()
        await self._go(KICK_S)

    # -- settings -----------------------------------------------------------------

    def check(self, changes: Mapping[str, JsonValue]) -> None:
        if "target_rpm" in changes and self._target is None:
            raise BadRequest(
                "target_rpm cannot be set: this stirring runs without RPM feedback",
                remediation="Set duty_cycle, or run stirring with use_rpm.",
            )
        for setting in ("target_rpm_during_od_reading", "target_rpm_outside_od_reading"):
            if setting in changes:
                raise BadRequest(f"{setting} can be set only while stirring dodges OD readings")

    def change(self, setting: str, value: JsonValue) -> None:
        match setting, value:
            case "target_rpm", int() | float():
                self._target = float(value)
                self._estimate = 0.0 if value == 0 else self._duty_for(self._target)
                self._begin_anew()
                self._publish("target_rpm", self._target)
            case "duty_cycle", int() | float():
                self._estimate = float(value)
                self._begin_anew()
                self._aims_left = 0  # a person chose it: trim it, do not replace it
                if not self._asleep:
                    self._publish("duty_cycle", self._estimate)
            case "enable_dodging_od", bool():
                self._publish(setting, value)
                return
            case _:
                super().change(setting, value)
        self._changed.set()

    # -- what it does -------------------------------------------------------------

    async def _poll(self) -> float:
        """Measure, learn, trim or kick; the pause until the next poll."""
        target = self._target
        if target is None:
            return self._told.period_s
        rpm = await self._unless_changed(self._observe(target))
        if rpm is None:
            return 0.0
        self._publish_rpm(rpm)
        if target == 0:
            return self._told.period_s
        if rpm == 0:
            return await self._meet_stall()
        self._note_turning()
        self._feed_forward.learn(self._running_percent, rpm)
        if self._aims_left and abs(rpm - target) > AIM_BAND * target:
            self._aims_left -= 1
            self._estimate = self._duty_for(target)
            await self._go(0.0)
            return FIRST_POLL_S
        self._aims_left = 0
        await self._drive(clamp(0.0, self._estimate + self._trim(rpm), 100.0))
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
        if self._kicks >= STALL_KICKS:
            if self._kicks == STALL_KICKS:
                self._kicks += 1
                self._publish("stalled", True)
                self._log.error(
                    "no turn of the stirrer was seen after %d kicks: check the stir bar and the "
                    "hall sensor. Going on at %.1f %% without kicks.",
                    STALL_KICKS,
                    self._estimate,
                )
            return self._told.period_s
        self._kicks += 1
        self._log.warning(
            "the stirrer seems to have stalled; kick %d of %d", self._kicks, STALL_KICKS
        )
        await self._pwm.set_duty(0.0)
        await self._clock.sleep(STALL_KICK_S)
        await self._pwm.set_duty(100.0)
        await self._clock.sleep(STALL_KICK_S)
        await self._drive(min(1.01 * self._estimate, STALL_KICK_CEILING_PERCENT))
        return FIRST_POLL_S

    def _note_turning(self) -> None:
        if self._kicks > STALL_KICKS:
            self._log.info("the stirrer turns again")
            self._publish("stalled", False)
        self._kicks = 0

    async def _follow(self) -> None:
        """Do what a changed setting asks for."""
        self._changed.clear()
        await self._go(RETARGET_KICK_S if self._running_percent == 0 else 0.0)

    async def _go(self, kick_s: float) -> None:
        """To the estimate: with a kick from rest, in steps from a lower duty cycle."""
        estimate = self._estimate
        if kick_s and estimate > 0:
            await self._pwm.set_duty(100.0)
            await self._clock.sleep(kick_s)
        elif self._running_percent > 0:
            while estimate - self._running_percent > RAMP_STEP_PERCENT:
                await self._drive(self._running_percent + RAMP_STEP_PERCENT)
                if not await self._wait(RAMP_STEP_S):
                    return  # another setting counts now
        await self._drive(estimate)

    async def _drive(self, duty_percent: float) -> None:
        """Set the pin; a duty cycle above 0 becomes the estimate, unless a new setting waits."""
        await self._pwm.set_duty(duty_percent)
        self._running_percent = duty_percent
        if duty_percent > 0 and not self._changed.is_set():
            self._estimate = duty_percent
        self._publish("duty_cycle", round(duty_percent, 5))

    def _begin_anew(self) -> None:
        self._aims_left = AIMS
        if self._kicks > STALL_KICKS:
            self._publish("stalled", False)
        self._kicks = 0
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
        self._publish(
            "measured_rpm", {"measured_rpm": rpm, "timestamp": timestamp(self._clock.time())}
        )

    async def _wait(self, seconds: float) -> bool:
        """Whether ``seconds`` went by without a change of settings."""
        if seconds <= 0:
            return not self._changed.is_set()
        done = await self._unless_changed(self._slept(seconds))
        return done is not None

    async def _slept(self, seconds: float) -> bool:
        await self._clock.sleep(seconds)
        return True

    async def _unless_changed(self, work: Coroutine[object, object, T]) -> T | None:
        """The result of ``work``, or None when a setting was changed meanwhile."""
        doing = asyncio.ensure_future(work)
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({doing, changed}, return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() and not self._changed.is_set() else None
        finally:
            doing.cancel()
            changed.cancel()
            await asyncio.gather(doing, changed, return_exceptions=True)
