"""REF: dividing the LED's own dimming out of the signal."""

from __future__ import annotations

import math

import pytest

from piod.errors import BadRequest, ConfigurationError
from piod.jobs.od.reference import (
    FirstReference,
    Normalization,
    ReferenceLost,
    ReferenceTracker,
)


def tracker(
    normalization: Normalization = Normalization.UNITY,
    *,
    interval_s: float = 5.0,
    first: FirstReference | None = None,
) -> ReferenceTracker:
    return ReferenceTracker(normalization, interval_s=interval_s, first=first)


def test_unity_keeps_the_scale_of_the_first_reference() -> None:
    reference = tracker()
    reference.update(0.128)
    assert reference.normalise(0.3) == pytest.approx(0.3)
    for _ in range(60):
        assert reference.update(0.128 * 0.99)
    assert reference.normalise(0.3 * 0.99) == pytest.approx(0.3, rel=1e-6)


def test_unity_goes_on_in_the_same_scale_after_a_restart() -> None:
    before = tracker()
    before.update(0.128)
    assert before.first is not None
    after = tracker(first=FirstReference.from_json(before.first.to_json()))
    after.update(0.064)  # the LED has aged to a half
    assert after.normalise(0.15) == pytest.approx(0.3)
    assert after.brightness == pytest.approx(0.5)


def test_classic_is_a_ratio_of_voltages() -> None:
    reference = tracker(Normalization.CLASSIC)
    reference.update(0.128)
    assert reference.normalise(0.32) == pytest.approx(2.5)
    assert reference.first is None


def test_a_slow_change_is_smoothed() -> None:
    reference = tracker(Normalization.CLASSIC)
    reference.update(1.0)
    reference.update(1.01)
    assert reference.brightness == pytest.approx(0.75 * 1.0 + 0.25 * 1.01)


def test_an_unsteady_reference_is_held_until_it_is_steady() -> None:
    """The handbook's example of the spread: 1.20 is too far, the next reading is believed."""
    reference = tracker(Normalization.CLASSIC)
    assert all(reference.update(volts) for volts in (1.00, 1.01, 0.99))
    held = reference.brightness
    assert not reference.update(1.20)
    assert reference.brightness == held
    assert reference.update(1.20)
    assert held is not None
    assert reference.brightness == pytest.approx(0.75 * held + 0.25 * 1.20)


def test_a_longer_interval_allows_more_spread() -> None:
    assert not step_passes(interval_s=5.0)
    assert step_passes(interval_s=60.0)


def step_passes(interval_s: float) -> bool:
    """Whether a step of 20 % passes as steady."""
    reference = tracker(Normalization.CLASSIC, interval_s=interval_s)
    reference.update(1.0)
    return reference.update(1.2)


def test_a_new_interval_holds_from_then_on() -> None:
    reference = tracker(Normalization.CLASSIC)
    reference.update(1.0)
    reference.retime(60.0)
    assert reference.update(1.2)


def test_a_change_of_intensity_does_not_make_the_od_jump() -> None:
    reference = tracker()
    for _ in range(5):
        reference.update(0.128)
    reference.relight(0.5)
    assert reference.normalise(0.15) == pytest.approx(0.3)
    assert reference.update(0.064)
    assert reference.normalise(0.15) == pytest.approx(0.3)


@pytest.mark.parametrize("volts", [0.0, -0.01, math.nan, math.inf])
def test_a_reference_without_light_is_refused_and_changes_nothing(volts: float) -> None:
    reference = tracker()
    with pytest.raises(ReferenceLost):
        reference.update(volts)
    assert reference.first is None
    with pytest.raises(ReferenceLost):
        reference.normalise(0.3)
    reference.update(0.1)
    with pytest.raises(ReferenceLost):
        reference.update(volts)
    assert reference.normalise(0.3) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "kept", [None, {}, {"volts": 0}, {"volts": "0.1"}, {"volts": math.nan}, {"volts": True}, [0.1]]
)
def test_a_first_reference_that_cannot_be_is_refused(kept: object) -> None:
    with pytest.raises(BadRequest):
        FirstReference.from_json(kept)


def test_normalizations_are_known_by_name() -> None:
    assert Normalization.named(" Unity ") is Normalization.UNITY
    with pytest.raises(ConfigurationError, match="ref_normalization"):
        Normalization.named("none")


@pytest.mark.parametrize("keep", [-0.1, 1.0, math.nan])
def test_a_weight_that_would_never_follow_is_refused(keep: float) -> None:
    with pytest.raises(ConfigurationError, match="pd_reference_ema"):
        ReferenceTracker(Normalization.UNITY, interval_s=5, ema_keep=keep)


def test_an_interval_or_a_light_that_cannot_be_is_refused() -> None:
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(BadRequest):
            tracker(interval_s=bad)
        with pytest.raises(BadRequest):
            tracker().retime(bad)
        with pytest.raises(BadRequest):
            tracker().relight(bad)
