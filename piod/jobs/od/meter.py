"""The OD meter of a unit: photodiodes, reference and standards, one reading at a time.

:class:`OdMeter` is what ``od_reading`` and ``od_blank`` measure with;
:class:`FakeMeter` makes its readings up and touches no hardware.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from piod.calibrations.curves import CurveError
from piod.calibrations.fields import read_mapping, read_number, required, wrong
from piod.clock import Clock
from piod.config import Config
from piod.errors import BadRequest, PiodError, Unavailable
from piod.events import JsonValue
from piod.jobs.instruments import Memory
from piod.jobs.job import JobLog, Unit
from piod.jobs.od.calibrated import OdStandards, OtherIntensity
from piod.jobs.od.photodiodes import Photodiodes
from piod.jobs.od.reader import Light, PhotodiodeReader, ReaderSettings
from piod.jobs.od.reference import FirstReference, Normalization, ReferenceTracker
from piod.jobs.od.signal import prior_penalty

SECTION = "od_reading.config"
FIRST_REFERENCE = "ir_led_reference_normalization"
"""Under this key the experiment remembers its first REF."""
DECIMALS = 8


@dataclass(frozen=True)
class ChannelReading:
    """What one photodiode says. ``calibrated`` None: no calibration, or none that holds."""

    channel: str
    angle: str
    od: float
    """Without calibration: volts over the brightness of the IR LED (see ``reference``)."""
    calibrated: float | None
    calibration_name: str | None
    """Of the active calibration of this angle, even if it does not hold."""

    @property
    def published(self) -> float | None:
        """What counts as the OD: calibrated where there is a calibration; None: it fails."""
        return self.od if self.calibration_name is None else self.calibrated


@dataclass(frozen=True)
class OdReading:
    """One reading of the unit's OD. ``troubles``: what is wrong with it, by what it is about."""

    at: float
    """Unix time."""
    percent: float
    """Intensity of the IR LED."""
    channels: Mapping[str, ChannelReading]
    fused: float | None
    estimator_name: str | None
    """Of the active estimator."""
    brightness: float | None
    """Of the IR LED, as REF sees it; None: there is no REF."""
    troubles: Mapping[str, str]


class ReferenceUnusable(Unavailable):
    """REF was not read, so there is nothing to divide by."""

    default_remediation = "See the reason; the next readings are tried."


class Meter(Protocol):
    """Takes readings of OD."""

    @property
    def percent(self) -> float: ...

    @property
    def reading_s(self) -> float:
        """The longest that a reading takes."""
        ...

    async def start(self, percent: float | None) -> None:
        """Get ready; None: choose the intensity."""
        ...

    async def read(self) -> OdReading:
        """One reading. BusError and other PiodErrors: there is none; TooBright: never again."""
        ...

    async def dark(self) -> None:
        """The IR LED off. BusError: it may be on."""
        ...

    def relight(self, percent: float) -> None:
        """Read at that intensity from the next reading on."""
        ...

    def retime(self, interval_s: float) -> None:
        """Readings come every ``interval_s`` from now on."""
        ...


class OdMeter:
    """Measures OD with the photodiodes of the unit, whose IR LED it leases."""

    def __init__(
        self,
        *,
        reader: PhotodiodeReader,
        photodiodes: Photodiodes,
        tracker: ReferenceTracker | None,
        first_percent: float | None,
        standards: OdStandards,
        memory: Memory,
        smoothing_penalizer: float,
        interval_s: float,
        smooth: bool,
    ) -> None:
        self._reader = reader
        self._photodiodes = photodiodes
        self._tracker = tracker
        self._first_percent = first_percent
        """Of the IR LED, when the first REF was read; None: OD does not refer to one."""
        self._first_to_keep: JsonValue = None
        """The first REF as the experiment is to remember it, until it does."""
        self._followed_percent: float | None = None
        """Of the IR LED, as the tracker knows it: REF is expected to be that bright."""
        self._standards = standards
        self._memory = memory
        self._penalizer = smoothing_penalizer if smooth else 0.0
        self._interval_s = interval_s

    @classmethod
    async def create(cls, unit: Unit, *, interval_s: float, smooth: bool = True) -> OdMeter:
        """Lease the IR LED. ``smooth``: a reading leans on the one before.

        Raises ConfigurationError, BadRequest; Conflict when the LED is in use.
        """
        config = unit.config
        settings = ReaderSettings.of(config)
        photodiodes = Photodiodes.of(config, unit.adc.signals)
        penalizer = config.number(SECTION, "smoothing_penalizer", 3.0, minimum=0)
        tracker, first, first_percent = None, None, None
        if photodiodes.reference is not None:
            first, first_percent = await _first_reference(unit.memory, unit.log)
            tracker = ReferenceTracker(
                Normalization.named(config.text(SECTION, "ref_normalization", "classic")),
                interval_s=interval_s,
                ema_keep=config.number(SECTION, "pd_reference_ema", 0.75),
                first=first,
            )
        standards = await OdStandards.active(unit, set(photodiodes.angles.values()))
        channel = unit.led_channel("IR")
        reader = PhotodiodeReader(
            adc=unit.adc,
            leds=await unit.lease_leds(channel),
            ir_channel=channel,
            photodiodes=photodiodes,
            clock=unit.clock,
            settings=settings,
        )
        return cls(
            reader=reader,
            photodiodes=photodiodes,
            tracker=tracker,
            first_percent=first_percent,
            standards=standards,
            memory=unit.memory,
            smoothing_penalizer=penalizer,
            interval_s=interval_s,
            smooth=smooth,
        )

    @property
    def percent(self) -> float:
        return self._reader.percent

    @property
    def reading_s(self) -> float:
        return self._reader.reading_s

    async def start(self, percent: float | None) -> None:
        await self._reader.initialise(percent)

    async def dark(self) -> None:
        await self._reader.dark()

    def relight(self, percent: float) -> None:
        self._reader.relight(percent)

    def retime(self, interval_s: float) -> None:
        self._interval_s = interval_s
        if self._tracker is not None:
            self._tracker.retime(interval_s)

    async def read(self) -> OdReading:
        light = await self._reader.read(prior_penalty(self._penalizer, self._interval_s))
        troubles = {f"photodiode {name}": why for name, why in light.untrusted.items()}
        troubles.update({f"brightness of photodiode {n}": why for n, why in light.bright.items()})
        await self._follow_reference(light, troubles)
        channels: dict[str, ChannelReading] = {}
        for name, angle in self._photodiodes.angles.items():
            volts = light.volts.get(name)
            if volts is not None:
                channels[name] = self._channel(name, angle, volts, troubles)
        return OdReading(
            light.at,
            self.percent,
            channels,
            self._fused(channels, troubles),
            None if self._standards.estimator is None else self._standards.estimator.estimator_name,
            None if self._tracker is None else self._tracker.brightness,
            troubles,
        )

    @property
    def _now_to_first(self) -> float:
        """OD refers to the light of the experiment's first REF, standards to that of now."""
        if self._tracker is None or self._tracker.first is None or self._first_percent is None:
            return 1.0
        return self._reader.real_percent / self._first_percent

    async def _follow_reference(self, light: Light, troubles: dict[str, str]) -> None:
        tracker, reference = self._tracker, self._photodiodes.reference
        if tracker is None or reference is None:
            return
        if self._followed_percent is not None and light.real_percent != self._followed_percent:
            tracker.relight(light.real_percent / self._followed_percent)
        self._followed_percent = light.real_percent
        volts = light.volts.get(reference)
        if volts is None:
            why = light.untrusted[reference]
            raise ReferenceUnusable(f"nothing to normalise by: {why}")
        if not tracker.update(volts):
            troubles["steadiness of REF"] = (
                "the light of the IR LED is unsteady, its last steady brightness is used"
            )
        if tracker.first is not None and self._first_percent is None:
            self._first_percent = light.real_percent
            self._first_to_keep = {"volts": tracker.first.volts, "percent": self._first_percent}
        if self._first_to_keep is not None:
            await self._keep_first(troubles)

    async def _keep_first(self, troubles: dict[str, str]) -> None:
        """A disk that refuses costs no reading: it is tried again at the next one."""
        try:
            await self._memory.keep(FIRST_REFERENCE, self._first_to_keep)
        except PiodError as refusal:
            troubles["first REF"] = (
                f"the first REF of the experiment is not kept yet, which later OD would refer to: "
                f"{refusal.message}"
            )
        else:
            self._first_to_keep = None

    def _channel(
        self, name: str, angle: str, volts: float, troubles: dict[str, str]
    ) -> ChannelReading:
        od = volts if self._tracker is None else self._tracker.normalise(volts)
        od = round(od, DECIMALS)
        calibration = self._standards.calibrations.get(angle)
        calibrated: float | None = None
        try:
            found = self._standards.by_calibration(angle, od * self._now_to_first, self.percent)
        except (OtherIntensity, CurveError) as error:
            troubles[f"calibration of {angle}°"] = f"only raw OD at {angle}°: {error.message}"
        else:
            if found is not None:
                calibrated = round(found.od, DECIMALS)
                if found.clamped:
                    troubles[f"range of the calibration of {angle}°"] = (
                        f"the OD at {angle}° is outside the range of its calibration; the end of "
                        "that range is published"
                    )
        known = None if calibration is None else calibration.calibration_name
        return ChannelReading(name, angle, od, calibrated, known)

    def _fused(
        self, channels: Mapping[str, ChannelReading], troubles: dict[str, str]
    ) -> float | None:
        by_angle = {one.angle: one.od * self._now_to_first for one in channels.values()}
        try:
            found = self._standards.fused(by_angle, self.percent)
        except PiodError as error:
            troubles["estimator"] = f"no fused OD: {error.message}"
            return None
        if found is None:
            return None
        if found.clamped:
            troubles["range of the estimator"] = (
                "the fused OD is at the end of the estimator's range"
            )
        return round(found.od, DECIMALS)


async def _first_reference(
    memory: Memory, log: JobLog
) -> tuple[FirstReference | None, float | None]:
    """The first REF of the experiment, and the intensity that it was read at."""
    kept = await memory.recall(FIRST_REFERENCE)
    if kept is None:
        return None, None
    try:
        first = FirstReference.from_json(kept)
        percent = read_number(required(read_mapping(kept, FIRST_REFERENCE), "percent"), "percent")
        if percent <= 0:
            raise wrong("percent", "must be above 0", percent)
    except BadRequest as error:
        log.warning("the first REF of the experiment is unreadable, so begun anew: %s", error)
        return None, None
    return first, percent


class FakeMeter:
    """Made-up readings of a culture that grows: for trying out what reads them."""

    START_OD, LARGEST_OD, RATE_PER_H, NOISE = 0.05, 5.0, 0.3, 0.005

    def __init__(self, config: Config, clock: Clock, seed: str) -> None:
        told = Photodiodes.of(config, [f"pd{channel}" for channel in "1234"])
        self._angles = told.angles
        self._clock = clock
        self._random = random.Random(seed)
        self._began_s = clock.monotonic()
        self._percent = 0.0

    @property
    def percent(self) -> float:
        return self._percent

    @property
    def reading_s(self) -> float:
        return 1.0  # as usual

    async def start(self, percent: float | None) -> None:
        self._percent = 80.0 if percent is None else percent

    async def dark(self) -> None:
        """There is no light."""

    def relight(self, percent: float) -> None:
        self._percent = percent

    def retime(self, interval_s: float) -> None:
        """Growth does not depend on who looks."""

    async def read(self) -> OdReading:
        hours = (self._clock.monotonic() - self._began_s) / 3600
        room = self.LARGEST_OD / self.START_OD - 1
        od = self.LARGEST_OD / (1 + room * math.exp(-self.RATE_PER_H * hours))
        channels = {
            name: ChannelReading(
                name, angle, round(od * (1 + self._random.gauss(0, self.NOISE)), 8), None, None
            )
            for name, angle in self._angles.items()
        }
        return OdReading(self._clock.time(), self._percent, channels, None, None, None, {})
