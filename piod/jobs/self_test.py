"""Self test: whether what is connected to the HAT works, and is where it should be.

One test after the other, each published under its name as 1 or 0 and kept in the
experiment's memory (key :data:`RESULTS`); then ``all_tests_passed``. A test whose
instrument does not answer has failed, and the log says why. The vial should hold water or
media, and a stir bar. Source of tests and limits: handbook jobs-and-hardware §2.10.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Coroutine, Mapping, Sequence
from typing import TypeVar

from piod.clock import Clock
from piod.errors import BadRequest, BusError, Conflict, PiodError, Unavailable
from piod.events import JsonValue
from piod.jobs.instruments import Heater, LedOutputs
from piod.jobs.job import Job, Option, Options, PwmOutput, Setting, Unit
from piod.jobs.od.meter import SECTION
from piod.jobs.od.photodiodes import Photodiodes, signal_of
from piod.jobs.od.reader import DARK_SETTLE_S
from piod.jobs.od.sampling import READING, SamplingPlan
from piod.jobs.stirrer import KICK_S
from piod.jobs.stirring_speed import rpm_of
from piod.restarts import NEVER

T = TypeVar("T")

RESULTS = "self_test_results"
TIMEOUT_S = 180.0
EXCLUDED_BY = (
    "od_reading",
    "od_blank",
    "stirring",
    "temperature_automation",
    "led_automation",
    "dosing_automation",
)

IR_PERCENTS = (10.0, 70.0, 60.0, 40.0, 30.0, 20.0, 50.0, 80.0)
USUAL_IR_PERCENT = 80.0
TOGGLES = 8
STIR_SETTLE_S = 2.0
STIR_WINDOW_S = 2.0
HEATER_PERCENTS = tuple(float(percent) for percent in range(0, 30, 3))
HEATER_STEP_S = 1.5
AUX_DIVIDER = 0.134
"""Of the rail's voltage: what the ADC's input sees."""

LEAST_CORRELATION = 0.9
MOST_DARK_VOLTS = 0.080
MOST_BLANK_VOLTS = 0.035
REF_VOLTS = (0.02, 1.0)
MOST_REF_VARIANCE = 0.01
LEAST_STIR_EFFECT, MOST_REF_EFFECT, MOST_REF_SHARE = 0.002, 0.010, 0.5
"""Relative change of a photodiode's voltage between stirring and rest."""
MOST_AUX_VOLTS = 18.0

TESTS = (
    "test_pioreactor_HAT_present",
    "test_detect_heating_pcb",
    "test_aux_power_is_not_too_high",
    "test_ambient_light_interference",
    "test_all_positive_correlations_between_pds_and_leds",
    "test_REF_is_lower_than_0_dot_256_volts",
    "test_PD_is_near_0_volts_for_blank",
    "test_positive_correlation_between_rpm_and_stirring",
    "test_REF_is_in_correct_position",
    "test_positive_correlation_between_temperature_and_heating",
)
"""In the order in which they are done: the one that warms the vial is the last."""


class TestFailed(PiodError):
    """What a test has found. Its message says what was expected."""

    __test__ = False  # a name for people, not for pytest


class SelfTest(Job):
    """Tests the instruments of the unit."""

    job_name = "self_test"
    help = "Test what is connected to this unit."
    restart_policy = NEVER
    options = (
        Option("k", "text", "only tests whose name contains this"),
        Option("retry_failed", "boolean", "only tests that failed the last time"),
    )
    settings = (
        *(Setting(name, "boolean", persist=True) for name in TESTS),
        Setting("all_tests_passed", "boolean", persist=True),
        Setting("correlations_between_pds_and_leds", "json", persist=True),
    )

    def __init__(
        self, unit: Unit, photodiodes: Photodiodes, names: Sequence[str], kept: Mapping[str, bool]
    ) -> None:
        self._unit = unit
        self._clock = unit.clock
        self._log = unit.log
        self._adc = unit.adc
        self._photodiodes = photodiodes
        self._names = names
        self._results = dict(kept)
        self._leds: LedOutputs | None = None
        self._stirrer: PwmOutput | None = None
        self._heater: Heater | None = None
        self._ir = unit.led_channel("IR")
        self._initial_duty_percent = unit.config.number(
            "stirring.config", "initial_duty_cycle", 30.0, minimum=0, maximum=80
        )
        self._ir_percent = USUAL_IR_PERCENT
        if unit.config.text(SECTION, "ir_led_intensity", "").strip().lower() != "auto":
            self._ir_percent = unit.config.number(
                SECTION, "ir_led_intensity", USUAL_IR_PERCENT, minimum=1, maximum=100
            )

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> SelfTest:
        for name in EXCLUDED_BY:
            if unit.peers.settings(name) is not None:
                raise Conflict(
                    f"the self test cannot be done while {name} runs",
                    remediation=f"Stop {name} first.",
                )
        kept = await _kept_results(unit)
        part = str(options.get("k") or "").lower()
        names = [name for name in TESTS if part in name.lower()]
        if options.get("retry_failed") is True:
            names = [name for name in names if kept.get(name) is False]
        if not names:
            raise BadRequest(
                "no test is to be done: none matches",
                remediation=f"The tests are: {', '.join(TESTS)}.",
            )
        return cls(unit, Photodiodes.of(unit.config, unit.adc.signals), names, kept)

    async def start(self) -> None:
        for name in (*self._names, "all_tests_passed"):
            self._unit.publish(name, None)

    async def run(self) -> None:
        passed: dict[str, bool] = {}
        for name in self._names:
            passed[name] = await self._passes(name)
            self._unit.publish(name, int(passed[name]))
            self._results[name] = passed[name]
            kept: dict[str, JsonValue] = dict(self._results)
            await self._unit.memory.keep(RESULTS, kept)
        self._unit.publish("all_tests_passed", int(all(passed.values())))
        failed = [name for name, well in passed.items() if not well]
        if failed:
            self._log.error(
                "%d of %d tests failed: %s", len(failed), len(passed), ", ".join(failed)
            )
        else:
            self._log.info("all %d tests passed", len(passed))

    async def sleep(self) -> None:
        await self._everything_off()

    async def _passes(self, name: str) -> bool:
        try:
            await _within(self._clock, TIMEOUT_S, self._do(name))
        except PiodError as error:
            self._log.warning("%s failed: %s", name, error.message)
            await self._everything_off()
            return False
        await self._everything_off()
        self._log.debug("%s passed", name)
        return True

    async def _do(self, name: str) -> None:
        """Raises TestFailed, or another PiodError when it cannot be done."""
        match name:
            case "test_pioreactor_HAT_present":
                await self._adc.sample([(0.0, signal) for signal in self._adc.signals])
            case "test_detect_heating_pcb":
                _expect(await self._unit.thermometer.present(), "no heating PCB answers")
            case "test_aux_power_is_not_too_high":
                (sample,) = await self._adc.sample([(0.0, "aux")])
                volts = sample.volts / AUX_DIVIDER
                _expect(volts <= MOST_AUX_VOLTS, f"the auxiliary power is {volts:.1f} V")
            case "test_ambient_light_interference":
                await self._test_ambient_light()
            case "test_all_positive_correlations_between_pds_and_leds":
                await self._test_light()
            case "test_REF_is_lower_than_0_dot_256_volts":
                await self._test_reference()
            case "test_PD_is_near_0_volts_for_blank":
                volts_by_channel = await self._look(self._ir_percent)
                for channel in self._photodiodes.angles:
                    volts = volts_by_channel[channel]
                    _expect(volts <= MOST_BLANK_VOLTS, f"photodiode {channel} reads {volts:.3f} V")
            case "test_positive_correlation_between_rpm_and_stirring":
                await self._test_stirring()
            case "test_REF_is_in_correct_position":
                await self._test_position_of_reference()
            case "test_positive_correlation_between_temperature_and_heating":
                await self._test_heating()
            case _:
                raise AssertionError(name)

    # -- the tests -----------------------------------------------------------------

    async def _test_ambient_light(self) -> None:
        leds = await self._lease_leds()
        async with leds.others_dark():
            await leds.set_levels({self._ir: 0.0})
            await self._clock.sleep(DARK_SETTLE_S)
            for channel, volts in (await self._sample(READING)).items():
                _expect(
                    volts < MOST_DARK_VOLTS,
                    f"photodiode {channel} reads {volts:.3f} V in the dark: keep light away",
                )

    async def _test_light(self) -> None:
        seen: dict[str, list[float]] = {name: [] for name in self._photodiodes.channels}
        for percent in IR_PERCENTS:
            for channel, volts in (await self._look(percent)).items():
                seen[channel].append(volts)
        found = {channel: round(correlation(IR_PERCENTS, seen[channel]), 4) for channel in seen}
        published: dict[str, JsonValue] = {self._ir: dict(found)}
        self._unit.publish("correlations_between_pds_and_leds", published)
        for channel, value in found.items():
            _expect(
                value >= LEAST_CORRELATION,
                f"photodiode {channel} does not follow the IR LED (correlation {value:.2f})",
            )

    async def _test_reference(self) -> None:
        reference = self._reference()
        seen = [(await self._look(self._ir_percent))[reference] for _ in range(5)]
        low, high = REF_VOLTS
        mean = statistics.fmean(seen)
        _expect(low < mean < high, f"REF reads {mean:.3f} V, not {low:g} to {high:g} V")
        _expect(statistics.variance(seen) < MOST_REF_VARIANCE, "REF is not steady")

    async def _test_stirring(self) -> None:
        stirrer = await self._lease_stirrer()
        duties = [self._initial_duty_percent * (1.2 - 0.4 * step / 7) for step in range(8)]
        await self._kick(stirrer)
        speeds: list[float] = []
        for duty in duties:
            await stirrer.set_duty(duty)
            await self._clock.sleep(STIR_SETTLE_S)
            speeds.append(rpm_of(await self._unit.hall_sensor.record_edges(STIR_WINDOW_S)))
        value = correlation(duties, speeds)
        _expect(
            value > LEAST_CORRELATION,
            f"the stirrer's speed does not follow its duty cycle (correlation {value:.2f})",
        )

    async def _test_position_of_reference(self) -> None:
        """What stirs swirls before the photodiodes at the vial, not before REF."""
        reference = self._reference()
        stirrer = await self._lease_stirrer()
        effects: dict[str, list[float]] = {name: [] for name in self._photodiodes.channels}
        for _ in range(TOGGLES):
            await stirrer.set_duty(0.0)
            await self._clock.sleep(STIR_SETTLE_S)
            still = await self._look(self._ir_percent)
            await self._kick(stirrer)
            await stirrer.set_duty(self._initial_duty_percent)
            await self._clock.sleep(STIR_SETTLE_S)
            stirred = await self._look(self._ir_percent)
            for channel, volts in still.items():
                change = abs(stirred[channel] - volts)
                effects[channel].append(change / volts if volts > 0 else math.inf)
        best = max(statistics.fmean(effects[name]) for name in self._photodiodes.angles)
        at_reference = statistics.fmean(effects[reference])
        _expect(best >= LEAST_STIR_EFFECT, "no photodiode at the vial sees the media stir")
        _expect(
            at_reference <= min(MOST_REF_EFFECT, MOST_REF_SHARE * best),
            f"REF (photodiode {reference}) sees the media stir: is it in the place of another?",
        )

    async def _test_heating(self) -> None:
        heater = await self._lease_heater()
        celsius: list[float] = []
        for percent in HEATER_PERCENTS:
            await heater.set_duty(percent)
            await self._clock.sleep(HEATER_STEP_S)
            celsius.append(await heater.board_celsius())
        value = correlation(HEATER_PERCENTS, celsius)
        _expect(
            value > LEAST_CORRELATION,
            f"the temperature does not follow the heater (correlation {value:.2f})",
        )

    # -- instruments ---------------------------------------------------------------

    def _reference(self) -> str:
        reference = self._photodiodes.reference
        if reference is None:
            raise TestFailed("no photodiode is REF in [od_config.photodiode_channel]")
        return reference

    async def _look(self, percent: float) -> Mapping[str, float]:
        """Mean volts by channel in the light of the IR LED alone."""
        leds = await self._lease_leds()
        async with leds.others_dark():
            await leds.set_levels({self._ir: percent})
            await self._clock.sleep(DARK_SETTLE_S)
            volts = await self._sample(READING)
            await leds.set_levels({self._ir: 0.0})
            return volts

    async def _sample(self, plan: SamplingPlan) -> Mapping[str, float]:
        channels = self._photodiodes.channels
        samples = await self._adc.sample(
            [(at_s, signal_of(channel)) for at_s in plan.offsets_s for channel in channels]
        )
        return {
            channel: statistics.fmean(one.volts for one in samples[index :: len(channels)])
            for index, channel in enumerate(channels)
        }

    async def _kick(self, stirrer: PwmOutput) -> None:
        await stirrer.set_duty(100.0)
        await self._clock.sleep(KICK_S)

    async def _lease_leds(self) -> LedOutputs:
        if self._leds is None:
            self._leds = await self._unit.lease_leds(self._ir)
        return self._leds

    async def _lease_stirrer(self) -> PwmOutput:
        if self._stirrer is None:
            hz = self._unit.config.number("stirring.config", "pwm_hz", 200.0, minimum=0.1)
            self._stirrer = await self._unit.lease_pwm("stirring", hz=hz)
        return self._stirrer

    async def _lease_heater(self) -> Heater:
        if self._heater is None:
            self._heater = await self._unit.lease_heater()
        return self._heater

    async def _everything_off(self) -> None:
        if self._heater is not None:
            await self._heater.set_duty(0.0)
        if self._stirrer is not None:
            await self._stirrer.set_duty(0.0)
        if self._leds is not None:
            try:
                await self._leds.set_levels({self._ir: 0.0})
            except BusError as error:  # the bus of LEDs goes on trying
                self._log.warning("the IR LED could not be turned off yet: %s", error.message)


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's; 0 when one of them does not vary."""
    try:
        return statistics.correlation(x, y)
    except statistics.StatisticsError:
        return 0.0


def _expect(fine: bool, finding: str) -> None:
    if not fine:
        raise TestFailed(finding)


async def _kept_results(unit: Unit) -> Mapping[str, bool]:
    kept = await unit.memory.recall(RESULTS)
    if not isinstance(kept, dict):
        return {}
    return {name: well for name, well in kept.items() if isinstance(well, bool)}


async def _within(clock: Clock, seconds: float, work: Coroutine[object, object, T]) -> T:
    """The result of ``work``. Raises Unavailable when it takes longer, by the job's clock."""
    doing = asyncio.ensure_future(work)
    timing = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({doing, timing}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Unavailable(f"it was not over within {seconds:g} s")
        return doing.result()
    finally:
        doing.cancel()
        timing.cancel()
        await asyncio.gather(doing, timing, return_exceptions=True)
