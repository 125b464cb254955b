"""A day of a whole unit: what all the jobs together must keep to, whatever the hour.

24 hours with ``PIOD_LONG=1``; shorter ones are never shorter than the growth that is judged.
Prints the figures of which ``docs/day.md`` is made, and how fast simulated time went.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import pytest

from tests.day import TARGET_CELSIUS, TARGET_RPM, Day, live_through
from tests.day_figures import (
    CYCLE_S,
    FROM_H,
    SETTLED_H,
    SOONER_H,
    TO_BIOMASS,
    figures,
    rate_table,
)

pytestmark = pytest.mark.long

LENGTH = float(os.environ.get("PIOD_LONG", "1"))
HOURS = max(24 * LENGTH, 8.0)
"""The culture's biomass reaches 2 in less than 8 hours."""
RAW_HOURS = 8.0

LATE_S = 0.05
NEAR_K, ABOVE_K = 0.5, 1.5
RATE_PART = 0.1


async def test_a_simulated_day_keeps_its_promises(tmp_path: Path) -> None:
    for folder in ("day", "raw"):
        (tmp_path / folder).mkdir()
    day = await live_through(tmp_path / "day", HOURS)
    raw = await live_through(tmp_path / "raw", RAW_HOURS, calibrated=False, blank=False)
    print("", *figures(day), "", *rate_table(day, raw), sep="\n")
    assert day.problems == []
    judge_schedule(day)
    judge_stirring(day)
    judge_temperature(day)
    judge_growth(day)


def judge_schedule(day: Day) -> None:
    """Every reading took place, in time, and undisturbed by the stirrer."""
    assert day.missed() == 0
    assert len(day.lit) >= 3600 * HOURS / day.interval_s - 2
    late = day.lateness_s()
    assert max(late) <= LATE_S
    assert min(late) >= -0.001
    assert day.disturbed() == []
    assert len(day.stirrer) > 2 * len(day.lit), "it has dodged"


def judge_stirring(day: Day) -> None:
    settled = [rpm for at_s, _, rpm in day.slowed() if at_s > 60]
    assert settled == pytest.approx([TARGET_RPM] * len(settled), rel=0.05)


def judge_temperature(day: Day) -> None:
    settled = [cycle for cycle in day.cycles if cycle.at_s > 3600 * SETTLED_H]
    assert len(settled) > 3600 * (HOURS - SETTLED_H) / 200 - 3
    for cycle in settled:
        assert cycle.liquid_celsius == pytest.approx(TARGET_CELSIUS, abs=NEAR_K)
        assert cycle.mean_celsius == pytest.approx(TARGET_CELSIUS, abs=NEAR_K)
    assert max(truth.liquid_celsius for truth in day.truths) <= TARGET_CELSIUS + ABOVE_K


def judge_growth(day: Day) -> None:
    judged = day.rates_between(3600 * FROM_H, TO_BIOMASS)
    assert judged[-1].biomass > 0.99 * TO_BIOMASS
    assert len(judged) > 3000
    for rate in judged:
        assert rate.per_h == pytest.approx(rate.true_per_h, rel=RATE_PART), rate
    sooner = day.errors_between(3600 * SOONER_H, TO_BIOMASS, over_s=CYCLE_S)
    assert max(map(abs, sooner)) <= RATE_PART
    ods = [rate.od * judged[0].biomass / judged[0].od / rate.biomass for rate in judged]
    assert statistics.fmean(ods) == pytest.approx(1.0, rel=0.02)
