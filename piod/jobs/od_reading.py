"""OD readings: how much infrared light the culture scatters, at the exact schedule.

Each ``interval`` seconds the IR LED shines, the other LEDs are dark, the photodiodes are
looked at, and the readings are published and kept (kinds ``od``, ``raw_od``,
``od_fused``). How one is taken: :mod:`piod.jobs.od.reader`; what is made of its volts:
:mod:`piod.jobs.od.meter`.

Readings keep to their schedule, ``first_od_obs_time`` + n·``interval``, on the monotonic
clock; ``schedule`` says the same on that scale, for jobs that keep out of the way
(:mod:`piod.jobs.dodging`). One that would be late by a whole interval is left out.

A reading that fails changes nothing but ``problem``, which says why; the next ones are
tried. Two things end the job: a photodiode so bright that its ADC may be harmed, and an
IR LED that does not go off when the job is put to sleep.

Better than upstream (handbook jobs-and-hardware §2.2): dark offsets in volts; another
intensity moves no OD; readings that an ADC's wrap has falsified are recognised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from piod.clock import timestamp
from piod.errors import BadRequest, ConfigurationError, PiodError
from piod.events import JsonValue
from piod.jobs.dodging import OdSchedule
from piod.jobs.job import Job, Option, Options, Setting, Unit
from piod.jobs.od.complaints import Complaints
from piod.jobs.od.light import INTENSE_PERCENT
from piod.jobs.od.meter import SECTION, ChannelReading, FakeMeter, Meter, OdMeter, OdReading
from piod.jobs.od.photodiodes import CHANNELS
from piod.jobs.od.reader import TooBright

LEAST_INTERVAL_S = 1.0
MAX_INTERVAL_S = 86_400.0
USUAL_PERCENT = 80.0
AUTO = "auto"
BRIGHTNESS_EACH = 5
"""The brightness of the IR LED is published with each so-manieth reading."""
DARK_RETRY_S = 0.5


def interval_from(options: Options, unit: Unit) -> float:
    """Seconds between readings. Raises ConfigurationError."""
    given = options.get("interval")
    if isinstance(given, int | float):
        return float(given)
    rate = unit.config.number(
        SECTION,
        "samples_per_second",
        0.2,
        minimum=1 / MAX_INTERVAL_S,
        maximum=1 / LEAST_INTERVAL_S,
    )
    return round(1 / rate, 6)


def intensity_from(options: Options, unit: Unit) -> float | None:
    """Percent; None: to be chosen. Raises ConfigurationError."""
    given = options.get("ir_led_intensity")
    if isinstance(given, int | float):
        return float(given)
    key = "ir_led_intensity"
    if unit.config.text(SECTION, key, "").strip().lower() == AUTO:
        return None
    try:
        return unit.config.number(SECTION, key, USUAL_PERCENT, minimum=1, maximum=100)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error.message}; or {AUTO}") from None


class OdReadingJob(Job):
    """Reads the OD of the culture, again and again."""

    job_name = "od_reading"
    help = "Read the optical density of the culture."
    resumable = True
    options = (
        Option(
            "interval",
            "float",
            "seconds between readings",
            minimum=LEAST_INTERVAL_S,
            maximum=MAX_INTERVAL_S,
        ),
        Option("ir_led_intensity", "float range", "of the IR LED, %", minimum=1, maximum=100),
        Option("snapshot", "boolean", "take one reading, then end"),
        Option("fake_data", "boolean", "make the readings up, without hardware"),
    )
    settings = (
        Setting("first_od_obs_time", "float", unit="s"),
        Setting(
            "ir_led_intensity",
            "float",
            settable=True,
            unit="%",
            minimum=1,
            maximum=100,
            kept=True,
        ),
        Setting(
            "interval",
            "float",
            settable=True,
            unit="s",
            minimum=LEAST_INTERVAL_S,
            maximum=MAX_INTERVAL_S,
            kept=True,
        ),
        Setting("relative_intensity_of_ir_led", "json"),
        Setting("ods", "ODReadings"),
        *(Setting(f"od{channel}", "ODReading") for channel in CHANNELS),
        *(Setting(f"raw_od{channel}", "RawODReading") for channel in CHANNELS),
        *(Setting(f"calibrated_od{channel}", "CalibratedODReading") for channel in CHANNELS),
        Setting("od_fused", "ODFused"),
        Setting("schedule", "json"),
        Setting("problem", "text"),
    )

    def __init__(
        self,
        unit: Unit,
        meter: Meter,
        *,
        interval_s: float,
        percent: float | None,
        snapshot: bool,
    ) -> None:
        self._unit = unit
        self._clock = unit.clock
        self._publish = unit.publish
        self._log = unit.log
        self._meter = meter
        self._interval_s = interval_s
        self._percent = percent
        """What is wanted; None: to be chosen at the start."""
        self._snapshot = snapshot
        self._complaints = Complaints(unit.log, unit.clock)
        self._due_s: float | None = None
        """When the next reading begins, monotonic; None: none has been planned yet."""
        self._begun_s: float | None = None
        """When the last one began, or should have."""
        self._is_running = False
        self._wake_up = asyncio.Event()
        self._problem: str | None = None
        """As published."""
        self._taken = 0
        self._failed = 0
        """Readings in a row."""

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> OdReadingJob:
        interval_s = interval_from(options, unit)
        snapshot = options.get("snapshot") is True
        percent = intensity_from(options, unit)
        meter: Meter
        if options.get("fake_data") is True:
            meter = FakeMeter(unit.config, unit.clock, unit.experiment)
        else:
            meter = await OdMeter.create(unit, interval_s=interval_s, smooth=not snapshot)
        return cls(unit, meter, interval_s=interval_s, percent=percent, snapshot=snapshot)

    # -- the life of the job ------------------------------------------------------

    async def start(self) -> None:
        self._publish("interval", self._interval_s)
        if self._percent is not None and self._percent > INTENSE_PERCENT:
            self._log.warning(
                "an IR LED at %g %% ages fast; up to %g %% is better",
                self._percent,
                INTENSE_PERCENT,
            )
        await self._meter.start(self._percent)
        self._percent = self._meter.percent
        self._publish("ir_led_intensity", self._percent)

    async def run(self) -> None:
        self._is_running = True
        try:
            self._plan()
            while True:
                await self._wait_until_due()
                if not await self._take() or self._snapshot:
                    return
                await self._settle()
                self._plan_next()
        finally:
            self._is_running = False

    async def sleep(self) -> None:
        self._publish("schedule", None)
        await self._meter.dark()

    # -- settings -----------------------------------------------------------------

    def check(self, changes: Mapping[str, JsonValue]) -> None:
        if self._snapshot and changes:
            raise BadRequest("a snapshot is one reading: there is nothing to change")

    def change(self, setting: str, value: JsonValue) -> None:
        match setting, value:
            case "ir_led_intensity", int() | float():
                self._percent = float(value)
                self._publish(setting, self._percent)
            case "interval", int() | float():
                self._retime(float(value))
            case _:
                super().change(setting, value)

    def _retime(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._meter.retime(interval_s)
        self._publish("interval", interval_s)
        if self._due_s is not None and self._begun_s is not None:
            self._due_s = max(self._begun_s + interval_s, self._clock.monotonic())
            if self._is_running:  # asleep it reads nothing, so there is nothing to dodge
                self._tell_schedule()
            self._wake_up.set()

    # -- the schedule --------------------------------------------------------------

    def _plan(self) -> None:
        """The first reading is now; after sleep, the next one of the schedule that was."""
        now_s = self._clock.monotonic()
        if self._due_s is None:
            self._due_s = now_s
        else:
            self._due_s = self._schedule(self._due_s).next_s(now_s)
        self._tell_schedule()

    def _plan_next(self) -> None:
        assert self._begun_s is not None
        assert self._due_s is not None
        if self._due_s > self._begun_s:
            return  # the interval was changed during the reading
        due_s = self._begun_s + self._interval_s
        now_s = self._clock.monotonic()
        if due_s < now_s:
            left_out = self._schedule(due_s).next_s(now_s)
            self._log.warning(
                "%d OD readings were left out: the one before took %.1f s",
                round((left_out - due_s) / self._interval_s),
                now_s - self._begun_s,
            )
            due_s = left_out
        self._due_s = due_s

    def _schedule(self, first_s: float) -> OdSchedule:
        return OdSchedule(first_s, self._interval_s, self._meter.reading_s)

    def _tell_schedule(self) -> None:
        if self._snapshot or self._due_s is None:
            return
        begun_s = self._begun_s
        # from a reading that has begun, so that nobody disturbs it
        first_s = self._due_s
        if begun_s is not None and begun_s + self._interval_s == self._due_s:
            first_s = begun_s
        ahead_s = first_s - self._clock.monotonic()
        self._publish("first_od_obs_time", round(self._clock.time() + ahead_s, 3))
        self._publish("schedule", self._schedule(first_s).to_json())

    async def _wait_until_due(self) -> None:
        assert self._due_s is not None
        while self._clock.monotonic() < self._due_s:
            self._wake_up.clear()
            timer = self._clock.call_at(self._due_s, self._wake_up.set)
            try:
                await self._wake_up.wait()
            finally:
                timer.cancel()
        self._begun_s = self._due_s

    # -- a reading -----------------------------------------------------------------

    async def _take(self) -> bool:
        """One reading; False: there must not be another."""
        if self._percent is not None and self._percent != self._meter.percent:
            self._meter.relight(self._percent)
        try:
            reading = await self._meter.read()
        except TooBright as error:
            self._log.error("OD readings end: %s", error.message)
            self._publish_problem(error.message)
            return False
        except PiodError as error:
            self._failed += 1
            self._tell({"readings": f"none was taken, the next is tried: {error.message}"})
            return True
        if self._failed:
            self._log.info("OD is read again, after %d failed readings", self._failed)
            self._failed = 0
        self._tell(reading.troubles)
        self._publish_reading(reading)
        self._taken += 1
        return True

    def _tell(self, troubles: Mapping[str, str]) -> None:
        self._complaints.tell(troubles)
        self._publish_problem("; ".join(troubles.values()) or None)

    def _publish_problem(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            self._publish("problem", problem)

    async def _settle(self) -> None:
        """After a reading that failed the IR LED may be on: not for longer than it must be."""
        while self._failed:
            try:
                await self._meter.dark()
                return
            except PiodError:
                await self._clock.sleep(DARK_RETRY_S)

    def _publish_reading(self, reading: OdReading) -> None:
        at = timestamp(reading.at)
        ods: dict[str, JsonValue] = {}
        for channel, one in reading.channels.items():
            raw = self._od_fields(reading, one, one.od)
            if one.calibration_name is None:
                ods[channel] = raw
                self._publish(f"od{channel}", raw)
            else:
                self._publish(f"raw_od{channel}", raw)
                self._record("raw_od", one.od, reading, one)
                if one.calibrated is not None:
                    od = self._od_fields(reading, one, one.calibrated)
                    od.update(calibrated=1, calibration_name=one.calibration_name)
                    ods[channel] = od
                    self._publish(f"od{channel}", od)
                    self._publish(f"calibrated_od{channel}", od)
            if one.published is not None:
                self._record("od", one.published, reading, one)
        if ods:
            self._publish("ods", {"timestamp": at, "ods": ods})
        if reading.fused is not None:
            self._publish("od_fused", {"timestamp": at, "od_fused": reading.fused})
            self._unit.record(
                "od_fused", reading.fused, at=reading.at, estimator=reading.estimator_name
            )
        elif "estimator" in reading.troubles:
            self._publish("od_fused", None)
        if reading.brightness is not None and self._taken % BRIGHTNESS_EACH == 0:
            self._publish(
                "relative_intensity_of_ir_led",
                {
                    "relative_intensity_of_ir_led": round(reading.brightness, 6),
                    "timestamp": at,
                },
            )
        if self._snapshot:
            for one in reading.channels.values():
                self._log.info(
                    "OD of photodiode %s (%s°): %s", one.channel, one.angle, one.published
                )

    @staticmethod
    def _od_fields(reading: OdReading, one: ChannelReading, od: float) -> dict[str, JsonValue]:
        return {
            "calibrated": 0,
            "timestamp": timestamp(reading.at),
            "angle": one.angle,
            "od": od,
            "channel": one.channel,
            "ir_led_intensity": reading.percent,
        }

    def _record(self, kind: str, value: float, reading: OdReading, one: ChannelReading) -> None:
        details: dict[str, JsonValue] = {"angle": one.angle, "calibrated": False}
        if kind == "od" and one.calibrated is not None:
            details.update(calibrated=True, calibration=one.calibration_name)
        self._unit.record(kind, value, one.channel, at=reading.at, **details)
