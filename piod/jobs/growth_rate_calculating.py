"""Growth rate: follows normalised OD and its rate of growth, reading by reading.

Fed by the event hub with the OD readings of ``od_reading`` in its own experiment, or with
the fused ones where there are such. The first readings of an experiment are its measure:
their mean, less the blank of ``od_blank``, is a normalised OD of 1, once and for all: as
long as OD is by the same calibration, or by none. Then
an extended Kalman filter follows (:mod:`piod.jobs.growth.filter`). What it knows is kept,
and goes on after a restart.

A dose of media flags the next reading; the removal of waste leaves the OD as it is. After
the job slept or was started anew, nobody knows what happened meanwhile, so the first
reading counts as one after a dose. Without OD readings, what was published is taken back:
a growth rate of an hour ago must not steer anything.

Source: handbook jobs-and-hardware §2.4. Not copied from there: a sleeping job calculates
nothing; no event is lost under load; a clock that is set changes no interval.
"""

from __future__ import annotations

from collections.abc import Mapping

from piod.clock import Timer, timestamp
from piod.config import Config
from piod.errors import BadRequest
from piod.events import JsonValue, ReadingTaken
from piod.jobs.growth.filter import (
    LONGEST_GAP_H,
    FilterSettings,
    Growth,
    GrowthFilter,
    Sensor,
)
from piod.jobs.growth.kept import KeptFilter, Measure, other_units, read_units
from piod.jobs.growth.normalisation import (
    LEAST_READINGS,
    Normalisation,
    OdStatistics,
    UnusableReadings,
    read_by_channel,
)
from piod.jobs.growth.passes import FUSED_CHANNEL, OdPass, PassCollector, Source, Units
from piod.jobs.growth.state import FilterState
from piod.jobs.job import Job, Option, Options, Setting, Unit
from piod.jobs.od.photodiodes import CHANNELS, Photodiodes, signal_of

SKIPPED = 5
"""Readings left out whenever od_reading starts, and again once the measure is taken."""
SAMPLES = 35
STALE_S = 60.0
"""Without OD readings for so long, and ten intervals, the growth rate is not known."""
STALE_INTERVALS = 10.0
OLDEST_S = 30.0
"""From the instant of a reading to its arrival, at most."""

STATISTICS, FILTER = "od_statistics", "growth_filter"
BLANKS, BLANK_UNITS = "od_blank", "od_blank_units"
"""Keys of the memory; the latter are the job od_blank's."""


def sensors_of(config: Config) -> list[Sensor]:
    """The photodiodes that look at the culture. Raises ConfigurationError."""
    photodiodes = Photodiodes.of(config, [signal_of(channel) for channel in CHANNELS])
    return [Sensor(channel, angle) for channel, angle in photodiodes.angles.items()]


class GrowthRateCalculating(Job):
    """Calculates the growth rate from OD readings."""

    job_name = "growth_rate_calculating"
    help = "Calculate the growth rate of the culture from its OD readings."
    resumable = True
    options = (
        Option(
            "ignore_cache",
            "boolean",
            "begin with the next reading, not with the kept growth rate and filtered OD",
        ),
        Option(
            "clear_cache",
            "boolean",
            "forget what is kept of this experiment, the measure of its OD too, and end",
        ),
    )
    settings = (
        Setting("growth_rate", "GrowthRate", unit="h⁻¹"),
        Setting("od_filtered", "ODFiltered"),
        Setting("kalman_filter_outputs", "KalmanFilterOutput"),
    )

    def __init__(
        self,
        unit: Unit,
        *,
        clears: bool,
        measure: Measure | None,
        kept: KeptFilter | None,
    ) -> None:
        config = unit.config
        self._unit = unit
        self._clock = unit.clock
        self._log = unit.log
        self._memory = unit.memory
        self._clears = clears
        self._sensors = sensors_of(config)
        self._collector = PassCollector([sensor.channel for sensor in self._sensors])
        self._samples_needed = config.integer(
            "growth_rate_calculating.config",
            "samples_for_od_statistics",
            SAMPLES,
            minimum=LEAST_READINGS,
        )
        self._measure = measure
        self._kept = kept
        self._settings_for(1.0)  # a wrong configuration is refused now
        self._source: Source | None = None
        self._units: Units | None = None
        """Of the readings that come in."""
        self._fused_seen = False
        self._od_job: str | None = None
        self._to_skip = 0
        self._skipped_at: float | None = None
        self._samples: list[Mapping[str, float]] = []
        self._normalisation: Normalisation | None = None
        self._is_new_measure = False
        """The measure of OD was taken in this life: the culture is at 1."""
        self._filter: GrowthFilter | None = None
        self._last_s: float | None = None
        """Monotonic time of the last reading that the filter took in."""
        self._doses_s: list[float] = []
        self._blind = False
        """The job could not see what was dosed before the next reading."""
        self._complained = False
        self._stale: Timer | None = None

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> GrowthRateCalculating:
        measure = Measure.read(unit.log, await unit.memory.recall(STATISTICS))
        kept = KeptFilter.read(unit.log, await unit.memory.recall(FILTER))
        # what a restarted job has kept itself, it goes on with
        own = unit.peers.settings(cls.job_name)
        restarted = own is not None and own.get("restarts") not in (None, 0)
        if options.get("ignore_cache") is True and not restarted:
            kept = None
        clears = options.get("clear_cache") is True
        return cls(unit, clears=clears, measure=measure, kept=kept)

    async def start(self) -> None:
        if self._clears:
            await self._memory.keep(FILTER, None)
            await self._memory.keep(STATISTICS, None)
            self._log.info("what was kept of the growth of %s is forgotten", self._unit.experiment)

    async def run(self) -> None:
        if self._clears:
            return
        self._expect_readings()
        try:
            async for event in self._unit.events():
                if isinstance(event, ReadingTaken):
                    await self._take(event)
        finally:
            if self._stale is not None:
                self._stale.cancel()

    async def sleep(self) -> None:
        self._blind = True
        self._doses_s.clear()
        self._take_back()

    # -- what comes in ------------------------------------------------------------

    async def _take(self, event: ReadingTaken) -> None:
        if event.kind == "dosing":
            # what leaves the vial takes its cells along: the OD stays
            if event.value > 0 and "remove_waste" not in (
                event.channel,
                event.details.get("event"),
            ):
                self._doses_s.append(self._monotonic(event.at))
        elif event.job.job_name == "od_reading" and event.job.experiment == self._unit.experiment:
            incomplete = self._collector.incomplete
            od_pass = self._collector.add(event)
            if self._collector.incomplete > incomplete:
                self._complain("an OD reading lacked a channel and was left out")
            if od_pass is not None:
                await self._observe(od_pass)

    async def _observe(self, od_pass: OdPass) -> None:
        if od_pass.job_id != self._od_job:
            self._od_job = od_pass.job_id
            self._to_skip = SKIPPED
            self._source, self._units, self._fused_seen = None, None, False
        self._expect_readings()
        if self._source is None and self._is_skipped(od_pass):
            return
        if self._source is None:
            self._source = "od_fused" if self._fused_seen else "od"
        if od_pass.source != self._source:
            return
        if od_pass.units != self._units:
            self._units = od_pass.units
            self._use_kept_measure(od_pass)
        if self._normalisation is None:
            await self._sample(od_pass)
        elif self._to_skip:
            self._to_skip -= 1
        else:
            self._calculate(od_pass, self._normalisation)

    def _is_skipped(self, od_pass: OdPass) -> bool:
        """Whether it is one of the first; what they are tells which readings there are."""
        if od_pass.source == "od_fused":
            self._fused_seen = True
        if od_pass.at == self._skipped_at:
            return True  # the fused reading of a pass that was left out
        if self._to_skip == 0:
            return False
        self._to_skip -= 1
        self._skipped_at = od_pass.at
        return True

    # -- the measure of OD --------------------------------------------------------

    def _use_kept_measure(self, od_pass: OdPass) -> None:
        self._samples = []
        measure = self._measure
        if measure is None:
            return
        if measure.source != od_pass.source or measure.statistics.mean.keys() != od_pass.od.keys():
            other = "photodiodes"
        elif other_units(measure.units, od_pass.units):
            other = "calibrations"
        else:
            return
        self._log.warning(
            "the kept measure of OD is of other %s: it is taken anew from the next %d readings",
            other,
            self._samples_needed,
        )
        self._measure = self._kept = self._normalisation = self._filter = None

    async def _sample(self, od_pass: OdPass) -> None:
        if self._measure is None:
            self._samples.append(od_pass.od)
            if len(self._samples) < self._samples_needed:
                return
            samples, self._samples = self._samples, []
            try:
                statistics = OdStatistics.of(samples)
                Normalisation(statistics, {})
            except UnusableReadings as error:
                self._log.warning("%s; the next readings are tried", error.message)
                return
            self._measure = Measure(od_pass.source, statistics, od_pass.units)
            self._is_new_measure = True
            self._to_skip = SKIPPED
            await self._memory.keep(STATISTICS, self._measure.json)
            self._log.info("the OD of this experiment is measured against %s", statistics.mean)
        measure = self._measure
        blanks = await self._blanks(od_pass.units) if measure.source == "od" else {}
        try:
            normalisation = Normalisation(measure.statistics, blanks)
        except UnusableReadings as error:
            self._log.warning("%s; it is taken anew", error.message)
            self._measure = None
            return
        if normalisation.ignored_blanks:
            self._log.warning(
                "the blank of channel %s is nearly the OD of the culture, or above it: not used",
                ", ".join(normalisation.ignored_blanks),
            )
        self._normalisation = normalisation
        if not self._is_new_measure:
            self._calculate(od_pass, normalisation)

    async def _blanks(self, units: Units) -> Mapping[str, float]:
        kept = await self._memory.recall(BLANKS)
        if kept is None:
            return {}
        try:
            blanks = read_by_channel(kept, BLANKS)
            blank_units = read_units(await self._memory.recall(BLANK_UNITS))
        except BadRequest as error:
            self._log.warning("the kept blank is not used: %s", error.message)
            return {}
        if other_units(blank_units, units):
            self._log.warning(
                "the kept blank is not used: it was measured with other calibrations. Run od_blank "
                "again before the next experiment."
            )
            return {}
        return blanks

    # -- the filter ---------------------------------------------------------------

    def _calculate(self, od_pass: OdPass, normalisation: Normalisation) -> None:
        now_s = self._monotonic(od_pass.at)
        dosed = self._blind or any(dose_s <= now_s for dose_s in self._doses_s)
        try:
            normalised = normalisation.normalise(od_pass.od)
            follower, dt_h = self._filter_now(od_pass, normalisation, now_s)
            growth = follower.step(normalised, dt_h, dosed=dosed)
        except UnusableReadings as error:
            self._complain(f"{error.message}; it is left out")
            return
        self._complained = False
        self._filter = follower
        self._last_s = now_s
        self._blind = False
        self._doses_s = [dose_s for dose_s in self._doses_s if dose_s > now_s]
        self._tell(od_pass, growth, follower.state)

    def _filter_now(
        self, od_pass: OdPass, normalisation: Normalisation, now_s: float
    ) -> tuple[GrowthFilter, float]:
        """The filter, for the interval of now, and the hours since it took in a reading."""
        sensors = self._sensors_of(od_pass.source)
        settings = self._settings_for(self._interval_s())
        if self._filter is not None and self._last_s is not None:
            dt_h = (now_s - self._last_s) / 3600
            return GrowthFilter(settings, sensors, self._filter.state), dt_h
        kept, self._kept = self._kept, None
        channels = [sensor.channel for sensor in sensors]
        if kept is not None and kept.source == od_pass.source and kept.channels == channels:
            dt_h = (od_pass.at - kept.at) / 3600
            if dt_h < 0:
                self._log.warning("the clock was set back: how old the kept state is, is not known")
                dt_h = 2 * LONGEST_GAP_H
            self._blind = True
            return GrowthFilter(settings, sensors, kept.state), dt_h
        follower = GrowthFilter.fresh(settings, sensors, normalisation.variances)
        # long after its measure was taken, the culture is wherever the reading says
        return follower, 0.0 if self._is_new_measure else 2 * LONGEST_GAP_H

    def _tell(self, od_pass: OdPass, growth: Growth, state: FilterState) -> None:
        if growth.is_outlier:
            self._log.debug("an outlier: %s", dict(od_pass.od))
        unit, at = self._unit, timestamp(od_pass.at)
        rate, od = growth.rate_per_h, growth.od
        unit.publish("growth_rate", {"growth_rate": rate, "timestamp": at})
        unit.publish("od_filtered", {"od_filtered": od, "timestamp": at})
        covariance: JsonValue = [
            [state.od_variance, state.covariance],
            [state.covariance, state.rate_variance],
        ]
        unit.publish(
            "kalman_filter_outputs",
            {"state": [od, rate], "covariance_matrix": covariance, "timestamp": at},
        )
        unit.record("growth_rate", rate, at=od_pass.at)
        unit.record("od_filtered", od, at=od_pass.at)
        channels = [sensor.channel for sensor in self._sensors_of(od_pass.source)]
        self._memory.keep_later(
            FILTER, KeptFilter(od_pass.source, channels, od_pass.at, state).json
        )

    # -- circumstances ------------------------------------------------------------

    def _sensors_of(self, source: Source) -> list[Sensor]:
        if source == "od_fused":
            return [Sensor(FUSED_CHANNEL, "90")]
        return sorted(self._sensors, key=lambda sensor: sensor.channel)

    def _settings_for(self, interval_s: float) -> FilterSettings:
        config = self._unit.config
        kalman = "growth_rate_kalman"
        return FilterSettings(
            expected_interval_h=interval_s / 3600,
            od_std=config.number(kalman, "od_std", 0.0025),
            rate_std=config.number(kalman, "rate_std", 0.25),
            obs_std=config.number(kalman, "obs_std", 1.0),
            outlier_std_threshold=config.number(
                "growth_rate_calculating.config", "ekf_outlier_std_threshold", 5.0
            ),
        )

    def _interval_s(self) -> float:
        """Of OD readings: what od_reading publishes, else what the configuration says."""
        published = (self._unit.peers.settings("od_reading") or {}).get("interval")
        if isinstance(published, int | float) and published > 0:
            return float(published)
        a_second = self._unit.config.number(
            "od_reading.config", "samples_per_second", 0.2, minimum=1e-6
        )
        return 1 / a_second

    def _monotonic(self, at: float) -> float:
        """The instant of an event of just now on a scale that nobody sets."""
        age_s = self._clock.time() - at
        if not 0 <= age_s <= OLDEST_S:
            age_s = 0.0  # the clock was set since
        return self._clock.monotonic() - age_s

    def _expect_readings(self) -> None:
        if self._stale is not None:
            self._stale.cancel()
        patience_s = max(STALE_S, STALE_INTERVALS * self._interval_s())
        self._stale = self._clock.call_at(
            self._clock.monotonic() + patience_s, lambda: self._go_stale(patience_s)
        )

    def _go_stale(self, patience_s: float) -> None:
        self._log.warning(
            "no OD readings of the experiment %s have come for %.0f s: the growth rate is not "
            "known. Run od_reading in the same experiment.",
            self._unit.experiment,
            patience_s,
        )
        self._take_back()

    def _take_back(self) -> None:
        for setting in self.settings:
            self._unit.publish(setting.name, None)

    def _complain(self, problem: str) -> None:
        """Once, until readings can be used again."""
        if not self._complained:
            self._log.warning("%s", problem)
            self._complained = True
