"""A day of a whole simulated unit, and what it was like on the wire and in the plant.

A blank and a calibration first, from standards that the unit's own od_reading has looked
at; then a fresh culture, and stirring, OD, temperature, light and growth rate together.
:mod:`tests.long.test_simulated_day` judges it, ``tools/day_plots.py`` draws it.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from piod.clock import SimulatedClock
from piod.events import ReadingTaken
from piod.jobs.growth.normalisation import trimmed_mean
from tests.unit import STIRRING_PIN, Unit, running_unit

START = 1_790_000_000.0
EXPERIMENT = "the day"
ENV = {"EXPERIMENT": EXPERIMENT}
CONFIG = "[leds]\nA=IR\nC=white\nD=blue\n[od_reading.config]\nref_normalization=unity\n"
IR = "A"
TARGET_RPM = 500.0
STIRRING = {"target_rpm": TARGET_RPM, "enable_dodging_od": True}
TARGET_CELSIUS = 37.0
LIGHT_MIN, DARK_MIN = 120, 60
FIRST_BIOMASS = 0.1

STANDARDS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
STANDARD_S = 300.0
STANDARD_SKIPPED = 6
"""Readings of a standard that smoothing still mixes with the one before."""

SAMPLE_S = 5.0
"""How often the truth is looked at."""


@dataclass(frozen=True)
class Truth:
    """The plant at one instant."""

    at_s: float
    liquid_celsius: float
    biomass: float
    rpm: float


@dataclass(frozen=True)
class Rate:
    """A growth rate that was published, and the true one: what the biomass did since the
    last one. (At the instant of a reading the stirrer stands still, and the culture starves.)
    """

    at_s: float
    per_h: float
    od: float
    true_per_h: float
    biomass: float


@dataclass(frozen=True)
class Cycle:
    """One cycle of the thermostat: what was inferred at its end, and the liquid in truth."""

    at_s: float
    inferred_celsius: float
    liquid_celsius: float
    mean_celsius: float


@dataclass
class Day:
    """What was seen. Times are seconds from the start of the jobs."""

    began_s: float
    first_reading_s: float = math.inf
    interval_s: float = 5.0
    lit: list[tuple[float, float]] = field(default_factory=list)
    """From when until when the IR LED shone for a reading."""
    stirrer: list[tuple[float, float, float]] = field(default_factory=list)
    """Each change of the stirrer's duty cycle: when, percent, and the RPM before it."""
    truths: list[Truth] = field(default_factory=list)
    cycles: list[Cycle] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    readings: list[tuple[float, str, float]] = field(default_factory=list)
    """Of OD, RPM and light: when, kind (``od``, ``raw_od``, ``rpm``, ``led``), value."""
    simulated_s: float = 0.0
    wall_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    """What jobs had to say about themselves at the end."""

    @property
    def factor(self) -> float:
        """Simulated seconds per second."""
        return self.simulated_s / self.wall_s

    def lateness_s(self) -> list[float]:
        """How much later than its schedule the IR LED shone, of each reading of the day."""
        late = []
        for lit_s, _ in self.lit:
            number = round((lit_s - self.first_reading_s) / self.interval_s)
            late.append(lit_s - self.first_reading_s - number * self.interval_s)
        return late

    def missed(self) -> int:
        """Readings of the schedule, from the first to the last, that did not take place."""
        numbers = [round((lit_s - self.first_reading_s) / self.interval_s) for lit_s, _ in self.lit]
        return numbers[-1] - numbers[0] + 1 - len(set(numbers))

    def disturbed(self) -> list[tuple[float, float]]:
        """Readings in which the stirrer's duty cycle changed."""
        changes = iter(self.stirrer)
        at_s = -1.0
        disturbed = []
        for begin_s, end_s in self.lit:
            while at_s < begin_s:
                at_s = next(changes, (float("inf"), 0.0, 0.0))[0]
            if at_s <= end_s:
                disturbed.append((begin_s, end_s))
        return disturbed

    def of(self, kind: str) -> list[tuple[float, float]]:
        """Times and values of the readings of one kind."""
        return [(at_s, value) for at_s, its_kind, value in self.readings if its_kind == kind]

    def slowed(self) -> list[tuple[float, float, float]]:
        """The changes of the stirrer that turn it off for a reading."""
        return [change for change in self.stirrer if change[1] == 0]

    def rates_between(self, from_s: float, to_biomass: float) -> list[Rate]:
        """From some time on, until the plant's biomass first reaches that."""
        reached_s = next((one.at_s for one in self.rates if one.biomass >= to_biomass), math.inf)
        return [one for one in self.rates if from_s <= one.at_s < reached_s]

    def errors_between(
        self, from_s: float, to_biomass: float, *, over_s: float = 0.0
    ) -> list[float]:
        """By what part of the true growth rate the published one is off.

        ``over_s``: the true one is that of so many seconds about the reading, 0: that since
        the reading before.
        """
        judged = self.rates_between(from_s, to_biomass)
        beside = round(over_s / 2 / self.interval_s)
        if beside == 0:
            return [one.per_h / one.true_per_h - 1 for one in judged]
        errors = []
        for before, one, after in zip(judged, judged[beside:], judged[2 * beside :], strict=False):
            hours = (after.at_s - before.at_s) / 3600
            true_per_h = math.log(after.biomass / before.biomass) / hours
            errors.append(one.per_h / true_per_h - 1)
        return errors


class Wire:
    """Writes down what happens on the stirrer's pin and the IR LED, when it happens."""

    def __init__(self, unit: Unit, day: Day) -> None:
        self._unit = unit
        self._day = day
        self._lit_s: float | None = None

    def set_pwm(self, pin: int, duty_percent: float, now_s: float) -> None:
        plant = self._unit.plant
        if pin == STIRRING_PIN:
            plant.advance_to(now_s)
            change = (now_s - self._day.began_s, duty_percent, plant.stirrer.rpm)
            self._day.stirrer.append(change)
        type(plant).set_pwm(plant, pin, duty_percent, now_s)

    def set_led(self, channel: str, percent: float, now_s: float) -> None:
        plant = self._unit.plant
        if channel == IR:
            at_s = now_s - self._day.began_s
            if percent > 0 and self._lit_s is None:
                self._lit_s = at_s
            elif percent == 0 and self._lit_s is not None:
                if self._lit_s >= self._day.first_reading_s:
                    self._day.lit.append((self._lit_s, at_s))
                self._lit_s = None
        type(plant).set_led(plant, channel, percent, now_s)


@contextmanager
def watched(unit: Unit, day: Day) -> Iterator[None]:
    """The plant's inputs pass through a :class:`Wire` meanwhile."""
    wire = Wire(unit, day)
    inputs = {"set_pwm": wire.set_pwm, "set_led": wire.set_led}
    vars(unit.plant).update(inputs)
    try:
        yield
    finally:
        for name in inputs:
            del vars(unit.plant)[name]


def truth_of(unit: Unit, began_s: float) -> Truth:
    """The plant now."""
    truth: Any = unit.board.truth()
    return Truth(
        at_s=unit.clock.monotonic() - began_s,
        liquid_celsius=truth["liquid_celsius"],
        biomass=truth["biomass"],
        rpm=unit.plant.stirrer.rpm,
    )


async def put_in(unit: Unit, **vial: float) -> None:
    """Another vial."""
    status, body = await unit.request("PATCH", "/simulator/plant", {"vial": vial})
    assert status == 200, body


async def live_through(
    data_dir: Path,
    hours: float,
    *,
    seed: int = 1,
    calibrated: bool = True,
    blank: bool = True,
) -> Day:
    """``hours`` of all the jobs; before them the blank and the calibration, if wanted."""
    clock = SimulatedClock(start_time=START)
    async with running_unit(data_dir, clock, seed=seed, config_ini=CONFIG) as unit:
        if calibrated:
            await calibrate(unit)
        if blank:
            await put_in(unit, standard_od=0.0)
            job_id = await unit.run("od_blank", env=ENV)
            while any(job["job_id"] == job_id for job in await unit.get("/unit_api/jobs/running")):
                await clock.sleep(5)
        await put_in(unit, biomass=FIRST_BIOMASS)
        day = Day(began_s=clock.monotonic())
        began_wall_s = time.perf_counter()
        with watched(unit, day):
            following = asyncio.ensure_future(follow(unit, day))
            await run_jobs(unit, day)
            end_s = day.began_s + 3600 * hours
            while clock.monotonic() < end_s:
                await clock.sleep(SAMPLE_S)
                day.truths.append(truth_of(unit, day.began_s))
            day.simulated_s = clock.monotonic() - day.began_s
            day.wall_s = time.perf_counter() - began_wall_s
            await note_problems(unit, day)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return day


async def run_jobs(unit: Unit, day: Day) -> None:
    """All at once, as an experiment is begun."""
    await unit.run("stirring", env=ENV, options=STIRRING)
    await unit.run("growth_rate_calculating", env=ENV)
    await unit.run("od_reading", env=ENV)
    schedule = json.loads((await unit.settings("od_reading"))["schedule"])
    day.first_reading_s = schedule["first_s"] - day.began_s
    day.interval_s = schedule["interval_s"]
    await unit.run(
        "temperature_automation",
        env=ENV,
        options={"automation_name": "thermostat", "target_temperature": TARGET_CELSIUS},
    )
    await unit.run(
        "led_automation",
        env=ENV,
        options={
            "automation_name": "light_dark_cycle",
            "light_intensity": 30,
            "light_duration_minutes": LIGHT_MIN,
            "dark_duration_minutes": DARK_MIN,
        },
    )


async def follow(unit: Unit, day: Day) -> None:
    """Write down the readings as they are taken, beside the truth."""
    rate = None
    before: Truth | None = None
    cycle_began_s = 0.0
    with unit.daemon.hub.subscribe() as events:
        async for event in events:
            if not isinstance(event, ReadingTaken):
                continue
            at_s = event.at - unit.clock.time() + unit.clock.monotonic() - day.began_s
            match event.kind:
                case "growth_rate":
                    rate = event.value
                case "od_filtered" if rate is not None:
                    now = truth_of(unit, day.began_s)
                    if before is not None:
                        hours = (now.at_s - before.at_s) / 3600
                        true = math.log(now.biomass / before.biomass) / hours
                        day.rates.append(Rate(at_s, rate, event.value, true, now.biomass))
                    before = now
                case "temperature":
                    now = truth_of(unit, day.began_s)
                    within = [one for one in day.truths[-60:] if one.at_s > cycle_began_s] or [now]
                    mean = statistics.fmean(one.liquid_celsius for one in within)
                    day.cycles.append(Cycle(at_s, event.value, now.liquid_celsius, mean))
                    cycle_began_s = at_s
                case "od" | "raw_od" | "rpm" | "led":
                    day.readings.append((at_s, event.kind, event.value))
                case _:
                    pass


async def note_problems(unit: Unit, day: Day) -> None:
    """What the jobs say that is not well, and those that did not come to the end."""
    running = {job["job_name"]: job for job in await unit.get("/unit_api/jobs/running")}
    for name in (
        "stirring",
        "od_reading",
        "temperature_automation",
        "led_automation",
        "growth_rate_calculating",
    ):
        if name not in running:
            day.problems.append(f"{name} has ended")
            continue
        settings = await unit.settings(name)
        wrong = {
            "restarts": settings.get("restarts", "0") not in ("0", "None"),
            "problem": settings.get("problem", "None") not in ("None", ""),
            "stalled": settings.get("stalled", "False") != "False",
            "interlock": settings.get("interlock", "ok") != "ok",
        }
        day.problems += [
            f"{name}: {key} is {settings[key]}" for key, is_so in wrong.items() if is_so
        ]


# -- the calibration ----------------------------------------------------------------------


async def calibrate(unit: Unit) -> None:
    """An active calibration of od90, made of standards as a person would make it."""
    volts = []
    taken: list[float] = []

    async def listen() -> None:
        with unit.daemon.hub.subscribe() as events:
            async for event in events:
                if isinstance(event, ReadingTaken) and event.kind == "od":
                    taken.append(event.value)

    listening = asyncio.ensure_future(listen())
    await unit.run("stirring", env=ENV, options=STIRRING)
    await unit.run("od_reading", env=ENV)
    for standard in STANDARDS:
        await put_in(unit, standard_od=standard)
        taken.clear()
        await unit.clock.sleep(STANDARD_S)
        volts.append(trimmed_mean(taken[STANDARD_SKIPPED:]))
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await unit.post("/unit_api/jobs/stop", {"job_name": "od_reading"})
    await unit.post("/unit_api/jobs/stop", {"job_name": "stirring"})
    record = {
        "calibration_type": "od600",
        "calibration_name": "standards",
        "calibrated_on_pioreactor_unit": "pio01",
        "created_at": "2026-01-01T00:00:00Z",
        "curve_data_": {
            "type": "akima",
            "knots": STANDARDS,
            "coefficients": smooth_pieces(STANDARDS, volts),
        },
        "recorded_data": {"x": STANDARDS, "y": volts},
        "ir_led_intensity": 80.0,
        "angle": "90",
        "pd_channel": "2",
    }
    text = json.dumps(record).replace('"2026-01-01T00:00:00Z"', "2026-01-01T00:00:00Z")
    body = {"calibration_data": text, "set_as_active": True}
    status, answer = await unit.request("POST", "/unit_api/calibrations/od90", body)
    assert status == 201, answer


def smooth_pieces(xs: Sequence[float], ys: Sequence[float]) -> list[list[float]]:
    """Cubic pieces through the points; the slope at each is that of the parabola by its
    neighbours."""
    steps = [
        (right[0] - left[0], (right[1] - left[1]) / (right[0] - left[0]))
        for left, right in pairwise(zip(xs, ys, strict=True))
    ]
    inner = [
        (before[1] * after[0] + after[1] * before[0]) / (before[0] + after[0])
        for before, after in pairwise(steps)
    ]
    slopes = [2 * steps[0][1] - inner[0], *inner, 2 * steps[-1][1] - inner[-1]]
    pieces = []
    for y, (width, secant), (first, last) in zip(ys, steps, pairwise(slopes), strict=False):
        square = (3 * secant - 2 * first - last) / width
        cube = (first + last - 2 * secant) / width**2
        pieces.append([y, first, square, cube])
    return pieces
