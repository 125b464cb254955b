"""The photodiodes in the light of the IR LED, for standards: the reader of ``od_reading``.

Voltages are divided by the brightness of the LED as ``od_reading`` does, so that a
calibration holds for what it reads. But they refer to the first REF of the session, not of
an experiment (:class:`Reference`): all standards of a session are seen in the same light.

A standard is measured once and believed for months: what ``od_reading`` may publish in
doubt, such as a REF that is dark or flickers, is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from piod.clock import Clock
from piod.errors import ConfigurationError, Conflict, PiodError, Unavailable
from piod.jobs.job import JobLog, Unit
from piod.jobs.od.calibrated import SAME_PERCENT
from piod.jobs.od.meter import SECTION
from piod.jobs.od.photodiodes import Photodiodes
from piod.jobs.od.reader import PhotodiodeReader, ReaderSettings, TooBright
from piod.jobs.od.reference import (
    FirstReference,
    Normalization,
    ReferenceLost,
    ReferenceTracker,
)
from piod.jobs.od_reading import intensity_from

USUAL_INTERVAL_S = 3.0
"""Between readings; what a REF that is unsteady means depends on it."""
FAILURES = 3
"""Readings in a row that may fail."""
LEAST_REFERENCE_VOLTS = 0.02 / 80
"""Of REF, for each percent of the IR LED: a fifth of what the optics give."""


class UnsteadyLight(Unavailable):
    """The IR LED flickers."""

    default_remediation = (
        "Check the cables of the IR LED and of the REF photodiode, and that no other light "
        "falls on the vial; then measure again."
    )


class NoLightSeen(Unavailable):
    """A photodiode at the vial sees nothing."""

    default_remediation = (
        "Check that the photodiodes are connected as [od_config.photodiode_channel] says, and "
        "that the vial holds a standard; then measure again."
    )


@dataclass(frozen=True)
class Reference:
    """The light in which the first standard of a session was seen; the others are told it."""

    percent: float
    """Of the IR LED, as its chip has made it."""
    volts: float | None
    """Of REF; None: nothing refers to a first one (``classic``, or there is no REF)."""


class Photometer:
    """Reads the photodiodes of ``angles`` (angle in degrees by channel).

    ``least_volts``: less than that, before it is normalised, is no light.
    """

    def __init__(
        self,
        *,
        reader: PhotodiodeReader,
        photodiodes: Photodiodes,
        channels: frozenset[str],
        tracker: ReferenceTracker | None,
        percent: float,
        reference: Reference | None,
        least_volts: float,
        clock: Clock,
        log: JobLog,
    ) -> None:
        self._reader = reader
        self._photodiodes = photodiodes
        self._channels = channels
        self._tracker = tracker
        self.percent = percent
        """What the IR LED is told to be."""
        self._told_reference = reference
        self._least_volts = least_volts
        self._clock = clock
        self._log = log
        self._begun_s: float | None = None
        """When the last reading began, monotonic."""

    @classmethod
    async def create(
        cls,
        errand: Unit,
        angles: Mapping[str, str],
        reference: Reference | None,
        *,
        least_volts: float = 0.0,
    ) -> Photometer:
        """Lease the IR LED.

        Raises ConfigurationError, also for an intensity that is chosen anew each time;
        Conflict when the LED is in use, or the photodiodes are not at ``angles`` any more.
        """
        config = errand.config
        photodiodes = Photodiodes.of(config, errand.adc.signals)
        _check_angles(photodiodes, angles)
        percent = intensity_from({}, errand)
        if percent is None:
            raise ConfigurationError(
                f"[{SECTION}] ir_led_intensity is auto: standards need one intensity for all",
                remediation=f"Set [{SECTION}] ir_led_intensity to a number, such as 80.",
            )
        tracker: ReferenceTracker | None = None
        if photodiodes.reference is not None:
            volts = None if reference is None else reference.volts
            tracker = ReferenceTracker(
                Normalization.named(config.text(SECTION, "ref_normalization", "classic")),
                interval_s=USUAL_INTERVAL_S,
                ema_keep=config.number(SECTION, "pd_reference_ema", 0.75),
                first=None if volts is None else FirstReference(volts),
            )
        channel = errand.led_channel("IR")
        settings = ReaderSettings.of(config)
        reader = PhotodiodeReader(
            adc=errand.adc,
            leds=await errand.lease_leds(channel),
            ir_channel=channel,
            photodiodes=photodiodes,
            clock=errand.clock,
            settings=settings,
        )
        return cls(
            reader=reader,
            photodiodes=photodiodes,
            channels=frozenset(angles),
            tracker=tracker,
            percent=percent,
            reference=reference,
            least_volts=least_volts,
            clock=errand.clock,
            log=errand.log,
        )

    @property
    def reference(self) -> Reference:
        """For the next standard of the session, after a reading."""
        first = None if self._tracker is None else self._tracker.first
        return Reference(self._reader.real_percent, None if first is None else first.volts)

    async def start(self) -> None:
        """Dark offsets, gains, hum. BusError; TooBright; Conflict: the light is another now."""
        await self._reader.initialise(self.percent)
        told, now = self._told_reference, self._reader.real_percent
        if told is not None and abs(told.percent - now) > SAME_PERCENT:
            raise Conflict(
                f"the IR LED shines at {now:.1f} %, but at {told.percent:.1f} % for the "
                "standards before: they cannot be compared",
                remediation=f"Set [{SECTION}] ir_led_intensity back, or begin a new session.",
            )

    async def take(
        self, count: int, every_s: float, told: Callable[[], None] = lambda: None
    ) -> list[Mapping[str, float]]:
        """``count`` readings: normalised volts by channel; each ``every_s`` after the one before.

        One that fails is made up for; the third in a row ends it with its reason
        (PiodError), TooBright at once. ``told`` is called after each that counts.
        """
        taken: list[Mapping[str, float]] = []
        failed = 0
        while len(taken) < count:
            if self._begun_s is not None:
                await self._clock.sleep(self._begun_s + every_s - self._clock.monotonic())
            self._begun_s = self._clock.monotonic()
            try:
                taken.append(await self._read())
            except TooBright:
                raise
            except PiodError as error:
                failed += 1
                if failed >= FAILURES:
                    raise
                self._log.warning("a reading of the standard failed: %s", error.message)
                with suppress(PiodError):  # the bus of LEDs goes on trying to turn it off
                    await self._reader.dark()
                continue
            failed = 0
            told()
        return taken

    async def _read(self) -> Mapping[str, float]:
        light = await self._reader.read(0.0)  # each for itself: their mean counts
        needed = {*self._channels, self._photodiodes.reference}
        doubts = [why for name, why in light.untrusted.items() if name in needed]
        if doubts:
            raise Unavailable(
                "; ".join(doubts),
                remediation=f"Lower [{SECTION}] ir_led_intensity and begin a new session, or "
                "take a standard that is less dense.",
            )
        self._follow_reference(light.volts)
        dark = [name for name in sorted(self._channels) if light.volts[name] < self._least_volts]
        if dark:
            at = " and ".join(f"{name} ({self._photodiodes.angles[name]}°)" for name in dark)
            raise NoLightSeen(f"photodiode {at} sees no light")
        return {name: self._normalised(light.volts[name]) for name in sorted(self._channels)}

    def _follow_reference(self, volts: Mapping[str, float]) -> None:
        tracker, reference = self._tracker, self._photodiodes.reference
        if tracker is None or reference is None:
            return
        if volts[reference] < LEAST_REFERENCE_VOLTS * self._reader.real_percent:
            raise ReferenceLost(
                f"the REF photodiode ({reference}) reads {volts[reference]:.4f} V in the light "
                f"of the IR LED at {self.percent:g} %: it is as good as dark"
            )
        if not tracker.update(volts[reference]):
            raise UnsteadyLight("the light of the IR LED is unsteady, as REF sees it")

    def _normalised(self, volts: float) -> float:
        return volts if self._tracker is None else self._tracker.normalise(volts)


def _check_angles(photodiodes: Photodiodes, angles: Mapping[str, str]) -> None:
    if not angles:
        raise ConfigurationError("no photodiode was named to look at the standard")
    for channel, angle in angles.items():
        if photodiodes.angles.get(channel) != angle:
            now = photodiodes.angles.get(channel)
            is_now = "sees no vial" if now is None else f"is at {now}°"
            raise Conflict(
                f"photodiode {channel} {is_now}, not at {angle}°: "
                "[od_config.photodiode_channel] has been changed",
                remediation="Change it back, or begin a new session.",
            )
