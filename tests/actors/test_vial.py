"""The arithmetic of the vial, against vials that really flow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piod.actors.vial import NOTHING, Vial
from piod.errors import PiodError
from piod.jobs.liquids import Amount, PumpRole, Volumes

CAPACITY_ML = 20.0
MAX_FILL_ML = 18.0
TUBE_ML = 14.0
ROUNDING_ML = 1e-6


def begins_with(volume_ml: float) -> Volumes:
    return Volumes(volume_ml, volume_ml, volume_ml, TUBE_ML, 0.0, 0.0, 0.0, 0.0)


def vial_of(volume_ml: float) -> Vial:
    return Vial({}, {}, initial=lambda: begins_with(volume_ml), capacity_ml=lambda: CAPACITY_ML)


@dataclass
class RealPump:
    """A pump that moves ``true_ml`` of what it was planned for, in steps."""

    dose_id: str
    role: PumpRole
    amount: Amount
    true_ml: float
    left: int = 4

    def flow(self, level_ml: float) -> float:
        """One step: the level afterwards."""
        self.left -= 1
        step_ml = self.true_ml / 4
        if self.role != "waste":
            return level_ml + step_ml
        return level_ml if level_ml <= TUBE_ML else max(level_ml - step_ml, TUBE_ML)


@dataclass
class Truth:
    """The real vial: what is in it at any time."""

    level_ml: float
    pumps: list[RealPump] = field(default_factory=list)


STEP = st.tuples(
    st.sampled_from(["media", "alt_media", "waste", "waste", "flow", "flow", "end", "crash"]),
    st.sampled_from(["one", "one", "two"]),
    st.sampled_from([0.25, 1.0, 2.5]),  # expected
    st.sampled_from([0.0, 0.5, 1.0]),  # how wide the range is
    st.sampled_from([0.0, 0.4, 1.0]),  # where the truth lies in it
    st.integers(0, 2),  # which pump
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([11.0, 13.5, TUBE_ML, 16.0, 17.5]), st.lists(STEP, max_size=25))
def test_the_truth_is_in_the_range_and_never_reaches_the_maximum(
    volume_ml: float, steps: list[tuple[str, str, float, float, float, int]]
) -> None:
    vial = vial_of(volume_ml)
    truth = Truth(volume_ml)

    def told(experiment: str) -> None:
        now = vial.look(experiment)
        assert now.lowest_ml <= now.current_volume_ml <= now.highest_ml
        assert 0 <= now.alt_media_fraction <= 1
        # what the pumps under way have moved so far is not in it yet
        assert truth.level_ml < MAX_FILL_ML
        if not truth.pumps:
            assert now.lowest_ml - ROUNDING_ML <= truth.level_ml <= now.highest_ml + ROUNDING_ML

    for number, (kind, experiment, expected, width, where, which) in enumerate(steps):
        if kind in ("media", "alt_media", "waste"):
            role = cast(PumpRole, kind)
            amount = Amount(expected * (1 - width), expected, expected * (1 + width))
            try:
                vial.check(role, experiment, amount, MAX_FILL_ML)
            except PiodError:
                continue
            vial.begin(str(number), experiment, role, amount)
            true_ml = amount.least_ml + where * (amount.most_ml - amount.least_ml)
            truth.pumps.append(RealPump(str(number), role, amount, true_ml))
        elif truth.pumps:
            pump = truth.pumps[which % len(truth.pumps)]
            if kind == "flow" and pump.left:
                truth.level_ml = pump.flow(truth.level_ml)
            elif kind == "crash":
                truth.pumps.remove(pump)
                part = Amount(0.0, pump.amount.expected_ml, pump.amount.most_ml)
                vial.end(pump.dose_id, part)
            elif kind == "end":
                while pump.left:
                    truth.level_ml = pump.flow(truth.level_ml)
                truth.pumps.remove(pump)
                vial.end(pump.dose_id, pump.amount)
        told(experiment)
    for pump in truth.pumps[:]:
        while pump.left:
            truth.level_ml = pump.flow(truth.level_ml)
        truth.pumps.remove(pump)
        vial.end(pump.dose_id, pump.amount)
        assert truth.level_ml < MAX_FILL_ML
    told("one")
    told("two")


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 0.5)), max_size=60))
def test_the_fraction_of_alt_media_is_that_of_a_mixture(doses: list[tuple[bool, float]]) -> None:
    """Each inflow mixes, then waste takes the surplus of the mixture."""
    vial = vial_of(TUBE_ML)
    alt_ml = 0.0
    for number, (is_alt, ml) in enumerate(doses):
        vial.begin(f"in {number}", "exp", "alt_media" if is_alt else "media", Amount(ml, ml, ml))
        vial.end(f"in {number}", Amount(ml, ml, ml))
        alt_ml = (alt_ml + is_alt * ml) / (TUBE_ML + ml) * TUBE_ML
        vial.begin(f"out {number}", "exp", "waste", Amount(1, 1, 1))
        vial.end(f"out {number}", Amount(1, 1, 1))
    now = vial.look("exp")
    assert now.alt_media_fraction * TUBE_ML == pytest.approx(alt_ml, abs=1e-6)
    assert (now.lowest_ml, now.highest_ml) == (TUBE_ML, TUBE_ML)


def test_an_empty_vial_takes_a_dose_of_nothing() -> None:
    vial = vial_of(0.0)
    vial.begin("1", "exp", "alt_media", Amount(0.0, 1.0, 1.0))
    assert vial.end("1", NOTHING).alt_media_fraction == 0.0
    vial.begin("2", "exp", "alt_media", Amount(0.0, 1.0, 1.0))
    assert vial.end("2", Amount(0.0, 0.0, 1.0)).alt_media_fraction == 0.0
    vial.begin("3", "exp", "alt_media", Amount(1.0, 1.0, 1.0))
    assert vial.end("3", Amount(1.0, 1.0, 1.0)).alt_media_fraction == 1.0


def test_ten_thousand_doses_leave_no_drift() -> None:
    vial = vial_of(TUBE_ML)
    for number in range(5000):
        for role, ml in (("media", 0.3), ("waste", 0.1)):
            vial.begin(str(number), "exp", cast(PumpRole, role), Amount(ml, ml, ml))
            now = vial.end(str(number), Amount(ml, ml, ml))
        if now.current_volume_ml > 17:
            vial.begin("all", "exp", "waste", Amount(9, 9, 9))
            now = vial.end("all", Amount(9, 9, 9))
    assert now.cumulative_media_added_ml == pytest.approx(1500, abs=1e-6)
    assert now.lowest_ml == now.current_volume_ml == now.highest_ml
