"""Closed loops of the dosing automations on the simulated plant: what each did, beside the truth.

The pumps are calibrated, the vial holds 15 mL up to the efflux tube, the culture is kept at
37 °C. Where OD is measured, the photodiode is calibrated by standards, and the stirrer does not
stop for readings: a culture that starves for each would grow more slowly than the recipe says.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from piod.clock import SimulatedClock
from piod.events import ReadingTaken, SettingPublished
from tests.day import CONFIG, ENV, EXPERIMENT, START, calibrate, put_in
from tests.jobs.dosing.vial import calibrate_pumps
from tests.unit import Unit, running_unit

TUBE_ML = 15.0
MAX_FILL_ML = 18.0
"""Of the model."""
TARGET_CELSIUS = 37.0
TARGET_RPM = 500.0
SAMPLE_S = 30.0
"""How often the truth is looked at."""
TARGET_OD = 1.0
"""Of the turbidostat."""
EXCHANGE_ML, EXCHANGE_MIN = 0.5, 20.0
DILUTION_PER_H = EXCHANGE_ML / TUBE_ML * 60 / EXCHANGE_MIN
"""Of the chemostat."""
STEADY_BIOMASS = 4.74
"""Where that ends (handbook, jobs-and-hardware §6.5)."""
TARGET_GROWTH_PER_H, TARGET_NORMALIZED_OD = 0.15, 3.0
"""Of the morbidostat."""
OD_CHANNEL = "2"
VOLUMES = f"/unit_api/bioreactor/experiments/{EXPERIMENT.replace(' ', '%20')}"


@dataclass(frozen=True)
class Truth:
    """The plant at one instant."""

    at_s: float
    biomass: float
    substrate: float
    growth_per_h: float
    inhibitor: float
    volume_ml: float


@dataclass
class Loop:
    """What was seen. Times are seconds from the start of the automation."""

    name: str
    truths: list[Truth] = field(default_factory=list)
    readings: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By kind: of ``od``, those of the calibrated photodiode."""
    events: list[tuple[float, str]] = field(default_factory=list)
    """What the automation told: when, and the name of the event."""
    pumped_ml: dict[str, float] = field(default_factory=dict)
    """By the plant's pumps, in truth."""
    highest_ml: float = 0.0
    ledger: Mapping[str, Any] = field(default_factory=dict)
    """What the unit believes at the end."""
    automation: Mapping[str, str] = field(default_factory=dict)
    """What the automation publishes at the end; nothing if it has ended."""
    simulated_s: float = 0.0
    wall_s: float = 0.0

    @property
    def factor(self) -> float:
        """Simulated seconds per second."""
        return self.simulated_s / self.wall_s

    @property
    def hours(self) -> float:
        return self.simulated_s / 3600

    def first_dose_s(self) -> float:
        """When an exchange began for the first time; infinity: never."""
        return next((at_s for at_s, name in self.events if name == "DosingStarted"), math.inf)

    def count(self, event_name: str) -> int:
        """How often it has told of that."""
        return sum(name == event_name for _, name in self.events)

    def after(self, from_h: float) -> list[Truth]:
        """The truths from that hour on."""
        return [truth for truth in self.truths if truth.at_s >= 3600 * from_h]


def hourly_means(points: Iterable[tuple[float, float]], from_s: float = 0.0) -> Sequence[float]:
    """The mean of each whole hour from ``from_s`` on."""
    hours: dict[int, list[float]] = {}
    last_s = from_s
    for at_s, value in points:
        last_s = max(last_s, at_s)
        if at_s >= from_s:
            hours.setdefault(int((at_s - from_s) // 3600), []).append(value)
    whole = int((last_s - from_s + 2 * SAMPLE_S) // 3600)
    return [statistics.fmean(hours[hour]) for hour in range(whole)]


def figures(loops: Sequence[Loop]) -> list[str]:
    """What the loops were like, as a table in Markdown."""
    lines = [
        "| loop | hours | times real time | exchanges | media, alt media in, mL "
        "| highest level, mL | biomass at the end |",
        "|---|---|---|---|---|---|---|",
    ]
    for loop in loops:
        cells = [
            loop.name,
            f"{loop.hours:.0f}",
            f"{loop.factor:.0f}",
            f"{loop.count('DosingStarted') or loop.count('AddMediaEvent')}",
            f"{loop.pumped_ml['media']:.1f}, {loop.pumped_ml['alt_media']:.1f}",
            f"{loop.highest_ml:.2f}",
            f"{loop.truths[-1].biomass:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for loop in loops:
        if loop.name == "turbidostat":
            lines += ["", *_turbidostat_figures(loop)]
    return lines


def _turbidostat_figures(loop: Loop) -> list[str]:
    from_s = loop.first_dose_s()
    signal = hourly_means(loop.readings["od"], from_s)
    truth = hourly_means(((one.at_s, one.biomass) for one in loop.truths), from_s)
    return [
        f"Hourly means from the first exchange on: the OD {min(signal):.3f} to {max(signal):.3f}, "
        f"the biomass {min(truth):.3f} to {max(truth):.3f}, for a target of {TARGET_OD:g}.",
    ]


async def turbidostat(data_dir: Path, hours: float) -> Loop:
    """0.5 mL each; the culture begins at half the target."""
    options = {"target_biomass": TARGET_OD, "exchange_volume_ml": EXCHANGE_ML}
    return await _run(data_dir, "turbidostat", options, hours, biomass=TARGET_OD / 2, sees=True)


async def chemostat(data_dir: Path, hours: float) -> Loop:
    """From a fresh culture on."""
    options = {"exchange_volume_ml": EXCHANGE_ML, "duration": EXCHANGE_MIN}
    return await _run(data_dir, "chemostat", options, hours, biomass=0.1)


async def morbidostat(data_dir: Path, hours: float) -> Loop:
    """Each 20 minutes; the culture begins at a normalised OD of 1."""
    options = {
        "target_growth_rate": TARGET_GROWTH_PER_H,
        "target_normalized_od": TARGET_NORMALIZED_OD,
        "duration": 20,
    }
    return await _run(data_dir, "pid_morbidostat", options, hours, biomass=0.2, sees=True)


async def fed_batch(data_dir: Path, hours: float) -> Loop:
    """1 mL each half hour, from 10 mL on."""
    options = {"dosing_volume_ml": 1.0, "duration": 30}
    return await _run(data_dir, "fed_batch", options, hours, biomass=1.0, volume_ml=10.0)


async def _run(
    data_dir: Path,
    name: str,
    options: Mapping[str, object],
    hours: float,
    *,
    biomass: float,
    sees: bool = False,
    volume_ml: float = TUBE_ML,
) -> Loop:
    """``sees``: with what measures OD and growth."""
    clock = SimulatedClock(start_time=START)
    async with running_unit(data_dir, clock, config_ini=CONFIG) as unit:
        if sees:
            await calibrate(unit)
            await _blank(unit)
        await calibrate_pumps(unit)
        await unit.run("stirring", env=ENV, options={"target_rpm": TARGET_RPM})
        await unit.run(
            "temperature_automation",
            env=ENV,
            options={"automation_name": "thermostat", "target_temperature": TARGET_CELSIUS},
        )
        await clock.sleep(1800)  # the culture comes into a warm vial
        values = {"current_volume_ml": volume_ml, "efflux_tube_volume_ml": TUBE_ML}
        unit.plant.patch({"volume_ml": volume_ml, "efflux_ml": TUBE_ML})
        status, body = await unit.request("PATCH", VOLUMES, {"values": values})
        assert status == 200, body
        await put_in(unit, biomass=biomass)
        if sees:
            await unit.run("growth_rate_calculating", env=ENV)
            await unit.run("od_reading", env=ENV)
        loop = Loop(name)
        began_s, began_wall_s = clock.monotonic(), time.perf_counter()
        following = asyncio.ensure_future(_follow(unit, loop, began_s))
        given = {"automation_name": name, **options}
        await unit.run("dosing_automation", env=ENV, options=given)
        while (at_s := clock.monotonic() - began_s) < 3600 * hours:
            loop.truths.append(_truth(unit, at_s))
            await clock.sleep(SAMPLE_S)
        loop.simulated_s = clock.monotonic() - began_s
        loop.wall_s = time.perf_counter() - began_wall_s
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        loop.highest_ml = unit.plant.vial.highest_ml
        loop.pumped_ml = {role: pump.pumped_ml for role, pump in unit.plant.pumps.items()}
        loop.ledger = await unit.get(VOLUMES)
        loop.automation = await unit.settings("dosing_automation")
    return loop


async def _blank(unit: Unit) -> None:
    """What the photodiodes see without cells."""
    await put_in(unit, standard_od=0.0)
    job_id = await unit.run("od_blank", env=ENV)
    while any(job["job_id"] == job_id for job in await unit.get("/unit_api/jobs/running")):
        await unit.clock.sleep(5)


def _truth(unit: Unit, at_s: float) -> Truth:
    truth: Any = unit.board.truth()
    return Truth(
        at_s,
        truth["biomass"],
        truth["substrate"],
        truth["net_growth_per_h"],
        truth["inhibitor"],
        truth["volume_ml"],
    )


async def _follow(unit: Unit, loop: Loop, began_s: float) -> None:
    """Write down what is published."""
    with unit.daemon.hub.subscribe() as events:
        async for event in events:
            at_s = unit.clock.monotonic() - began_s
            match event:
                case ReadingTaken(kind="od" | "od_filtered" | "growth_rate" as kind):
                    if kind != "od" or event.channel == OD_CHANNEL:
                        loop.readings.setdefault(kind, []).append((at_s, event.value))
                case SettingPublished(setting="latest_event", text=str(text)):
                    if event.job.job_name == "dosing_automation":
                        loop.events.append((at_s, str(json.loads(text)["event_name"])))
                case _:
                    pass
