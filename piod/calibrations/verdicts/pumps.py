"""What a pump moved: the tracer, each run, the line through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

from piod.calibrations.fits import Fit, UnusablePoints, poly_fixed
from piod.calibrations.verdicts.verdict import Verdict

SCALE_ML = 0.01
"""What a usual scale shows at least."""
LEAST_TRACER_ML = 0.05
"""Below it, the 0.01 mL that a scale shows are a fifth of it."""
SHORTEST_RUN_S = 0.1
"""Below it, a pump starts and stops more than it runs."""

_FAR_RATE_PART = 0.2
_FAR_VOLUME_PART = 0.1
_UNSURE_SLOPE_PART = 0.05
_OFFSET_PART = 0.1


def judge_tracer(
    volume_ml: float, targets_ml: Sequence[float], *, tracer_s: float, longest_s: float
) -> list[Verdict]:
    """Whether runs that are planned by ``volume_ml`` in ``tracer_s`` make sense.

    ``longest_s``: what a run may last at most.
    """
    verdicts = []
    if any(not 0 < target < math.inf for target in targets_ml) or not targets_ml:
        verdicts.append(
            Verdict(
                "target_not_positive",
                "a volume to calibrate for is not above 0 mL",
                "Give volumes such as those of a dose, 0.5 and 1 mL.",
                blocks=True,
            )
        )
    if not volume_ml > 0:
        return [
            *verdicts,
            Verdict(
                "nothing_pumped",
                f"the pump moved {volume_ml:g} mL in {tracer_s:g} s",
                "Check that the tube is in the water and filled, then weigh again.",
                blocks=True,
            ),
        ]
    if verdicts:
        return verdicts
    if volume_ml < LEAST_TRACER_ML:
        verdicts.append(
            Verdict(
                "tracer_too_small",
                f"{volume_ml:g} mL in {tracer_s:g} s is little: what a scale shows, ±0.01 mL, is "
                f"{100 * 0.01 / volume_ml:.0f} % of it",
                "Check that the tube is filled and, if it is, start again at a higher duty cycle.",
            )
        )
    shortest = min(targets_ml) * 0.8 * tracer_s / volume_ml
    longest = max(targets_ml) * 1.1 * tracer_s / volume_ml
    if shortest < SHORTEST_RUN_S:
        verdicts.append(
            Verdict(
                "runs_too_short",
                f"at {volume_ml / tracer_s:.3g} mL/s, {min(targets_ml):g} mL take runs of "
                f"{shortest:.2g} s: a pump starts and stops more than it runs",
                "Correct the volume if it was misread; otherwise start again with larger volumes "
                "or a lower duty cycle.",
                blocks=True,
            )
        )
    if longest > longest_s:
        verdicts.append(
            Verdict(
                "runs_too_long",
                f"at {volume_ml / tracer_s:.3g} mL/s, {max(targets_ml):g} mL take a run of "
                f"{longest:.0f} s; the longest is {longest_s:g} s",
                "Correct the volume if it was misread; otherwise start again with smaller volumes "
                "or a higher duty cycle.",
                blocks=True,
            )
        )
    return verdicts


def judge_doses(
    seconds: Sequence[float], volumes_ml: Sequence[float], *, tracer_ml_per_s: float | None = None
) -> list[Verdict]:
    """Whether the last of these runs agrees with those before it, and all with each other."""
    if not seconds or any(not s > 0 for s in seconds):
        return []
    verdicts = []
    *before, last = (ml / s for s, ml in zip(seconds, volumes_ml, strict=True))
    usual = median(before) if before else tracer_ml_per_s
    if usual is not None and usual > 0 and abs(last - usual) > _FAR_RATE_PART * usual:
        verdicts.append(
            Verdict(
                "dose_far_off",
                f"{volumes_ml[-1]:g} mL in {seconds[-1]:.3g} s is {last:.3g} mL/s; "
                f"{'the runs before' if before else 'the first run'} gave {usual:.3g} mL/s",
                "If it was misread, or the tube held air, redo the last run.",
            )
        )
    short, long = min(seconds), max(seconds)
    in_short, in_long = (
        median(ml for s, ml in zip(seconds, volumes_ml, strict=True) if s == length)
        for length in (short, long)
    )
    if short < long and in_long <= in_short:
        verdicts.append(
            Verdict(
                "volume_does_not_grow",
                f"runs of {long:.3g} s moved {in_long:g} mL, those of {short:.3g} s "
                f"{in_short:g} mL",
                "Check the tube for air and kinks, and the numbers for slips; redo the last run "
                "or start again.",
            )
        )
    return verdicts


def judge_pump_fit(fit: Fit) -> list[Verdict]:
    """Whether a line through the origin tells what this pump does."""
    verdicts = []
    slope = fit.parameter("slope")
    if not slope.value > 0:
        return [
            Verdict(
                "volume_does_not_grow",
                f"the line is {slope.value:.3g} mL/s: longer runs do not move more",
                "Check the tubes and the numbers, and calibrate again.",
                blocks=True,
            )
        ]
    if slope.std_error is not None and slope.std_error > _UNSURE_SLOPE_PART * slope.value:
        verdicts.append(
            Verdict(
                "slope_uncertain",
                f"the rate is {slope.value:.3g} ± {slope.std_error:.2g} mL/s, "
                f"{100 * slope.std_error / slope.value:.0f} % of it",
                "Calibrate again with larger volumes, and weigh instead of reading a scale by eye.",
            )
        )
    try:
        offset = poly_fixed(fit.x, fit.y, 1).parameter("x^0")
    except UnusablePoints:
        return verdicts  # of one length of time no offset can be told
    sure = offset.std_error is not None and abs(offset.value) > 3 * offset.std_error
    if sure and abs(offset.value) > max(_OFFSET_PART * fmean(fit.y), SCALE_ML):
        verdicts.append(
            Verdict(
                "line_misses_origin",
                f"the line that fits best starts at {offset.value:+.3g} mL, not at 0: short and "
                "long doses will miss in opposite ways",
                "Calibrate for the volume that will be dosed, or look for a leak and for drops "
                "that hang on the tube.",
            )
        )
    return verdicts


def judge_runs(seconds: Sequence[float], volumes_ml: Sequence[float]) -> list[Verdict]:
    """Which runs differ from the others of their length by more than care can explain."""
    by_length: dict[float, list[float]] = {}
    for length, volume_ml in zip(seconds, volumes_ml, strict=True):
        by_length.setdefault(length, []).append(volume_ml)
    verdicts = []
    for number, (length, volume_ml) in enumerate(zip(seconds, volumes_ml, strict=True), start=1):
        usual_ml = median(by_length[length])
        if abs(volume_ml - usual_ml) > _FAR_VOLUME_PART * abs(usual_ml) + 1.5 * SCALE_ML:
            verdicts.append(
                Verdict(
                    "outlier",
                    f"run {number} moved {volume_ml:g} mL in {length:.3g} s; the middle of the "
                    f"runs as long is {usual_ml:.3g} mL",
                    "Check that number; if it is wrong, measure again.",
                )
            )
    return verdicts
