"""What measurements and fits are worth, in plain words, while it can still be mended.

Each ``judge_…`` looks at what a step has recorded so far and gives its verdicts, an empty list
when all is well. A protocol asks at the step where the person can still do something: after
each dose, each standard, at the end of a sweep. :func:`refuse_blocking` raises when one of them
means that no usable calibration can come of it; the others are shown
(:func:`told`) and kept with the result (:meth:`Verdict.view`).

Which protocol asks what, and when:

=====================  ====================================================================
``duration_based``     :func:`judge_tracer` at ``tracer_volume``; :func:`judge_doses` at each
                       ``test_run`` (its ``redo_last`` mends); :func:`judge_pump_fit` at the end
``dc_based``           :func:`judge_sweep`, then :func:`judge_rising` and
                       :func:`judge_outliers` of the fit
``standards``          :func:`judge_standards` of each channel and
                       :func:`judge_number_of_standards` at ``another_standard``;
                       :func:`judge_blank` at ``measure_blank``, before measuring;
                       :func:`judge_rising` of each fit
``od_fusion_…``        :func:`judge_levels`, :func:`judge_standards` of each angle;
                       :func:`judge_offset`
=====================  ====================================================================

Nothing here raises for finite numbers, but :func:`refuse_blocking`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from piod.calibrations.curves import CurveError
from piod.calibrations.fits import (
    FUSED_LEVELS,
    Fit,
    LogAffine,
    UnusablePoints,
    poly_fixed,
)
from piod.errors import BadRequest
from piod.events import JsonValue

LEAST_SWEEP_POINTS = 5
LEAST_DUTY_CYCLES = 3
LEAST_TRACER_ML = 0.05
"""Below it, the 0.01 mL that a scale shows are a fifth of it."""
SHORTEST_RUN_S = 0.1
"""Below it, a pump starts and stops more than it runs."""
INDISTINGUISHABLE_PART = 0.01
"""Two readings that differ by less than this part are one, but for noise."""
GOOD_STANDARDS = 5
"""With fewer levels, AICc admits a straight line only (handbook §4.9)."""

_FAR_RATE_PART = 0.2
_UNSURE_SLOPE_PART = 0.05
_OFFSET_PART = 0.1
_FALL_PART = 0.02
_OUTLIER_SPREADS = 5.0
_OUTLIER_PART = 0.03
_NORMAL_PER_MAD = 1.4826
_PLACES = 200  # at so many a curve is looked at


class UnusableMeasurement(BadRequest):
    """What was measured makes no usable calibration; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """One thing that is wrong: ``what``, with its figures, and how to ``mend`` it.

    ``code`` names the kind of it for programs. ``blocks``: no usable calibration can come of
    it, so the step must not be accepted.
    """

    code: str
    what: str
    mend: str
    blocks: bool = False

    def view(self) -> dict[str, JsonValue]:
        """As JSON: for metadata and results."""
        return {"code": self.code, "what": self.what, "mend": self.mend, "blocks": self.blocks}


def refuse_blocking(verdicts: Iterable[Verdict]) -> None:
    """Raise UnusableMeasurement when one of ``verdicts`` blocks, with all that do."""
    blocking = [verdict for verdict in verdicts if verdict.blocks]
    if blocking:
        raise UnusableMeasurement(
            "; ".join(verdict.what for verdict in blocking),
            remediation=" ".join(dict.fromkeys(verdict.mend for verdict in blocking)),
        )


def told(verdicts: Iterable[Verdict]) -> str:
    """``verdicts`` as text for the body of a step, one a line; empty when there are none."""
    return "\n".join(f"Note: {verdict.what}. {verdict.mend}" for verdict in verdicts)


# -- pumps ------------------------------------------------------------------------------


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
                "Start again with larger volumes or a lower duty cycle.",
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
                f"runs of {long:.3g} s moved {in_long:g} mL, those of {short:.3g} s {in_short:g} mL",
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
    if sure and abs(offset.value) > _OFFSET_PART * fmean(fit.y):
        verdicts.append(
            Verdict(
                "line_misses_origin",
                f"the line that fits best starts at {offset.value:+.3g} mL, not at 0: short and "
                "long doses will miss in opposite ways",
                "Calibrate for the volume that will be dosed, or look for a leak and for drops "
                "that hang on the tube.",
            )
        )
    return verdicts + judge_outliers(fit, "s", "mL")


# -- stirring ----------------------------------------------------------------------------


def judge_sweep(duty_percents: Sequence[float], rpms: Sequence[float]) -> list[Verdict]:
    """Whether a sweep, zeros included, saw enough to fit a curve to."""
    verdicts = []
    stopped = sorted({dc for dc, rpm in zip(duty_percents, rpms, strict=True) if not rpm > 0})
    turning = [dc for dc, rpm in zip(duty_percents, rpms, strict=True) if rpm > 0]
    enough = len(turning) >= LEAST_SWEEP_POINTS and len(set(turning)) >= LEAST_DUTY_CYCLES
    if not turning:
        verdicts.append(
            Verdict(
                "no_rpm",
                f"the stirrer was never seen to turn, at none of {len(rpms)} points",
                "Check that the vial is in with its stir bar, that the fan turns, and the hall "
                "sensor's cable; then run the sweep again.",
                blocks=True,
            )
        )
    elif stopped:
        places = ", ".join(f"{dc:g}" for dc in stopped)
        seen = len(rpms) - len(turning)
        verdicts.append(
            Verdict(
                "zero_rpm",
                f"{seen} of {len(rpms)} points saw no RPM, at {places} % duty cycle",
                "Raise [stirring.config] initial_duty_cycle, look whether the stir bar is caught, "
                "and run the sweep again.",
                blocks=not enough,
            )
        )
    elif not enough:
        verdicts.append(
            Verdict(
                "too_few_points",
                f"the sweep has {len(turning)} points at {len(set(turning))} duty cycles; it needs "
                f"{LEAST_SWEEP_POINTS} at {LEAST_DUTY_CYCLES}",
                "Run the sweep again over a wider range.",
                blocks=True,
            )
        )
    return verdicts


# -- curves ------------------------------------------------------------------------------


def judge_rising(
    fit: Fit, x_unit: str, y_unit: str, *, falling: bool = False, blocks: bool = False
) -> list[Verdict]:
    """Whether the curve rises all over its data (or falls, with ``falling``).

    Where it turns, one y stands for two x, and a job may take the wrong one.
    """
    low, high = min(fit.x), max(fit.x)
    sign = -1.0 if falling else 1.0
    places = [low + (high - low) * i / (_PLACES - 1) for i in range(_PLACES)]
    try:
        values = [sign * fit.curve.evaluate(x) for x in places]
    except CurveError as error:
        return [Verdict("no_curve", error.message, "Measure again.", blocks=True)]
    peak = 0
    worst, start, end = 0.0, 0, 0
    for i, value in enumerate(values):
        if value > values[peak]:
            peak = i
        if values[peak] - value > worst:
            worst, start, end = values[peak] - value, peak, i
    if worst <= _FALL_PART * (max(values) - min(values)):
        return []
    wrong, right = ("rises", "fall") if falling else ("falls", "rise")
    return [
        Verdict(
            "not_monotonic",
            f"the curve {wrong} by {worst:.3g} {y_unit} from {places[start]:.4g} to "
            f"{places[end]:.4g} {x_unit}, where it should {right}",
            "Measure again there; if it stays so, calibrate over a narrower range.",
            blocks,
        )
    ]


def judge_outliers(fit: Fit, x_unit: str, y_unit: str) -> list[Verdict]:
    """Points that lie far from the curve, beside how far the others do."""
    tallest = max(fit.y) - min(fit.y)
    usual = _NORMAL_PER_MAD * median(abs(residual) for residual in fit.residuals)
    limit = max(_OUTLIER_SPREADS * usual, _OUTLIER_PART * tallest)
    if not 0 < limit < math.inf:
        return []
    return [
        Verdict(
            "outlier",
            f"the point at {x:.4g} {x_unit} reads {y:.4g} {y_unit}; the curve through all has "
            f"{y - residual:.4g} there",
            "Check that number; if it is wrong, measure again.",
        )
        for x, y, residual in zip(fit.x, fit.y, fit.residuals, strict=True)
        if abs(residual) > limit
    ]


# -- standards ---------------------------------------------------------------------------


def judge_standards(
    ods: Sequence[float], readings: Sequence[float], where: str, *, falling: bool = False
) -> list[Verdict]:
    """Whether denser standards read more (at 180°, less: ``falling``), and differ.

    ``where`` names the photodiode: ``90°``. Readings of one OD are averaged.
    """
    verdicts = []
    levels: dict[float, list[float]] = {}
    for od, reading in zip(ods, readings, strict=True):
        levels.setdefault(od, []).append(reading)
    means = [(od, fmean(levels[od])) for od in sorted(levels)]
    for (thin, at_thin), (dense, at_dense) in pairwise(means):
        rise = at_thin - at_dense if falling else at_dense - at_thin
        noise = INDISTINGUISHABLE_PART * max(abs(at_thin), abs(at_dense))
        figures = (
            f"OD {thin:g} reads {at_thin:.4g} and OD {dense:g} reads {at_dense:.4g} at {where}"
        )
        if abs(rise) <= noise:
            verdicts.append(
                Verdict(
                    "standards_indistinguishable",
                    f"{figures}: they cannot be told apart",
                    "Use standards that differ more, or redo the last; beyond its range the "
                    "photodiode tells nothing.",
                )
            )
        elif rise < 0:
            verdicts.append(
                Verdict(
                    "standards_out_of_order",
                    f"{figures}: the denser one should read {'less' if falling else 'more'}",
                    "Check that no vials were swapped and that the ODs are right; redo the last "
                    "standard.",
                )
            )
    return verdicts


def judge_number_of_standards(ods: Sequence[float]) -> list[Verdict]:
    """Whether the ODs, the blank among them, are enough for a curve."""
    levels = len(set(ods))
    if levels < 2:
        return [
            Verdict(
                "too_few_standards",
                f"there {'is one OD' if levels else 'are no ODs'}; a curve needs at least two",
                "Measure a standard of another OD.",
                blocks=True,
            )
        ]
    if levels < GOOD_STANDARDS:
        return [
            Verdict(
                "few_standards",
                f"with {levels} different ODs the curve can only be a straight line or nearly so",
                f"Measure {GOOD_STANDARDS - levels} or more further standards over the range of "
                "the cultures to come.",
            )
        ]
    return []


def judge_blank(od_blank: float, ods: Sequence[float]) -> list[Verdict]:
    """Whether the blank is less dense than every standard."""
    if not ods or od_blank < min(ods):
        return []
    return [
        Verdict(
            "blank_not_thinnest",
            f"the blank is said to have an OD of {od_blank:g}, and a standard has {min(ods):g}",
            "Enter the OD of the blank, 0 for clear medium; it must be less than that of every "
            "standard.",
            blocks=True,
        )
    ]


# -- fused OD ----------------------------------------------------------------------------


def judge_levels(ods: Sequence[float]) -> list[Verdict]:
    """Whether there are enough different ODs for the fused model."""
    counted = Counter(math.log10(od) for od in ods if od > 0)
    if len(counted) >= FUSED_LEVELS:
        return []
    missing = FUSED_LEVELS - len(counted)
    return [
        Verdict(
            "too_few_standards",
            f"there are {len(counted)} different ODs; the model needs at least {FUSED_LEVELS}",
            f"Measure {missing} more standard{'s' if missing > 1 else ''} of other ODs.",
            blocks=True,
        )
    ]


def judge_offset(
    moved: LogAffine,
    standard_ods: Sequence[float],
    estimated_ods: Sequence[float],
    *,
    min_logc: float,
    max_logc: float,
) -> list[Verdict]:
    """Whether a fused model, moved by two standards, can be believed.

    ``min_logc``, ``max_logc``: the range of the model before it was moved.
    """
    verdicts = []
    for standard, estimated in zip(standard_ods, estimated_ods, strict=True):
        logc = math.log10(estimated) if estimated > 0 else -math.inf
        edge = 0.01 * (max_logc - min_logc)
        if not min_logc + edge < logc < max_logc - edge:
            verdicts.append(
                Verdict(
                    "beyond_the_model",
                    f"the standard of OD {standard:g} is estimated at {estimated:.3g}, the end of "
                    f"the model's range ({10**min_logc:.3g} to {10**max_logc:.3g})",
                    "Use a standard that lies well within the range of the model.",
                )
            )
    if max(standard_ods) < 2 * min(standard_ods):
        low, high = sorted(standard_ods)[0], sorted(standard_ods)[-1]
        verdicts.append(
            Verdict(
                "standards_too_close",
                f"standards of OD {low:g} and {high:g} lie close together: their errors grow "
                "beyond them",
                "Use standards that differ by a factor of ten.",
            )
        )
    if not 0.5 <= moved.scale <= 2:
        verdicts.append(
            Verdict(
                "large_correction",
                f"the model is stretched by a factor of {moved.scale:.3g}: it hardly describes "
                "this unit",
                "Check the ODs of the standards; otherwise fit a model of its own to this unit.",
            )
        )
    return verdicts
