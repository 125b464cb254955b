"""The dosing automations as closed loops on the simulated plant.

In full length with ``PIOD_LONG=1``; shorter ones are never shorter than what is judged takes.
Prints the figures of which ``docs/dosing.md`` is made, and how fast simulated time went.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.dosing_loops import (
    DILUTION_PER_H,
    MAX_FILL_ML,
    STEADY_BIOMASS,
    TARGET_GROWTH_PER_H,
    TARGET_NORMALIZED_OD,
    TARGET_OD,
    TUBE_ML,
    Loop,
    Truth,
    chemostat,
    fed_batch,
    figures,
    hourly_means,
    morbidostat,
    turbidostat,
)

pytestmark = pytest.mark.long

LENGTH = float(os.environ.get("PIOD_LONG", "1"))

LEVEL_ML = 0.02
"""What may be above the end of the tube between exchanges: the last drops of a dose."""
SETTLED_H = 22.0
"""The chemostat is where it stays (handbook, §6.5: after 24 h)."""


def judge_volumes(loop: Loop) -> None:
    """Never near the maximum, and the ledger knows what is in the vial."""
    print("", *figures([loop]), sep="\n")
    assert loop.highest_ml < MAX_FILL_ML
    lowest, highest = loop.ledger["range_ml"]["lowest"], loop.ledger["range_ml"]["highest"]
    volume_ml = loop.truths[-1].volume_ml
    assert lowest - 1e-6 <= volume_ml <= highest + 1e-6
    assert loop.ledger["values"]["current_volume_ml"] == pytest.approx(volume_ml, rel=0.01)
    assert loop.ledger["doubt"] is None


def mean(truths: Sequence[Truth], what: str) -> float:
    return statistics.fmean(getattr(truth, what) for truth in truths)


async def test_a_turbidostat_holds_the_hourly_mean_of_od(tmp_path: Path) -> None:
    loop = await turbidostat(tmp_path, max(48 * LENGTH, 6.0))
    judge_volumes(loop)
    from_s = loop.first_dose_s()
    assert from_s < 3 * 3600
    hours = int(loop.hours - from_s / 3600)
    signal = hourly_means(loop.readings["od"], from_s)
    assert len(signal) >= hours >= 3
    assert signal == pytest.approx([TARGET_OD] * len(signal), rel=0.05)
    truth = hourly_means(((one.at_s, one.biomass) for one in loop.truths), from_s)
    assert truth == pytest.approx([TARGET_OD] * len(truth), rel=0.05)
    assert loop.count("DilutionEvent") > 10 * hours, "the culture grows"
    settled = [one for one in loop.truths if one.at_s > from_s]
    assert loop.highest_ml == pytest.approx(TUBE_ML + 0.5, abs=0.05)
    assert min(one.volume_ml for one in settled) >= TUBE_ML - LEVEL_ML


async def test_a_chemostat_comes_to_the_steady_state_of_its_dilution_rate(tmp_path: Path) -> None:
    loop = await chemostat(tmp_path, max(48 * LENGTH, 26.0))
    judge_volumes(loop)
    settled = loop.after(SETTLED_H)
    for one in settled:
        assert one.biomass == pytest.approx(STEADY_BIOMASS, rel=0.03)
    diluted_per_h = loop.pumped_ml["media"] / TUBE_ML / loop.hours
    assert diluted_per_h == pytest.approx(DILUTION_PER_H, rel=0.03)
    assert statistics.median(one.volume_ml for one in settled) == pytest.approx(TUBE_ML, abs=0.001)
    assert loop.highest_ml == pytest.approx(TUBE_ML + 0.5, abs=0.05)


async def test_a_morbidostat_raises_the_inhibitor_as_growth_allows(tmp_path: Path) -> None:
    loop = await morbidostat(tmp_path, max(24 * LENGTH, 10.0))
    judge_volumes(loop)
    first_h = loop.first_dose_s() / 3600
    before = [one for one in loop.truths if one.at_s < loop.first_dose_s()]
    assert before[-1].growth_per_h > 2 * TARGET_GROWTH_PER_H
    assert before[-1].inhibitor == 0
    rising = [mean(hour_of(loop, first_h + hour), "inhibitor") for hour in range(3)]
    assert rising == sorted(rising)
    assert rising[0] > 0
    end = loop.after(loop.hours - 3)
    assert mean(end, "inhibitor") > 1.0
    assert TARGET_GROWTH_PER_H < mean(end, "growth_per_h") < 1.7 * TARGET_GROWTH_PER_H
    density = [value / TARGET_NORMALIZED_OD for _, value in loop.readings["od_filtered"][-1000:]]
    assert 0.7 < min(density) <= max(density) < 1.5


def hour_of(loop: Loop, from_h: float) -> Sequence[Truth]:
    return [one for one in loop.after(from_h) if one.at_s < 3600 * (from_h + 1)]


async def test_a_fed_batch_stops_before_the_maximum(tmp_path: Path) -> None:
    loop = await fed_batch(tmp_path, 6.0)
    judge_volumes(loop)
    assert loop.automation["$state"] == "sleeping"
    assert f"must stay below {MAX_FILL_ML:g} mL" in loop.automation["latest_event"]
    assert loop.highest_ml == loop.truths[-1].volume_ml
    assert loop.highest_ml > MAX_FILL_ML - 1.3, "a dose of 1 mL more might have flooded it"
    assert loop.count("AddMediaEvent") == 7
