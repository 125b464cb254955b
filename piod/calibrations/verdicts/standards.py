"""Whether standards of known OD are enough, in order, and tell anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import fmean

from piod.calibrations.verdicts.verdict import Verdict

INDISTINGUISHABLE_PART = 0.01
"""Two readings that differ by less than this part are one, but for noise."""
NOISE_PART = 0.02
"""What a reading, and a standard that was made with care, may be off by."""
SURE_SPREADS = 3.0
GOOD_STANDARDS = 5
"""With fewer levels, AICc admits a straight line only (handbook §4.9)."""


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


def judge_stray_standard(
    ods: Sequence[float], readings: Sequence[float], where: str
) -> list[Verdict]:
    """Whether a standard does not belong to the others, though all are in order.

    Light per cell gets less as cells shade each other, so what each OD adds to the reading of
    the blank (the least OD) falls with OD. Where it rises by more than care can explain, one of
    the two standards has another OD than was typed; the worst pair is told.
    """
    (blank, at_blank), *others = sorted(zip(ods, readings, strict=True))
    seen = [
        (
            od,
            abs(reading - at_blank) / (od - blank),
            NOISE_PART * math.hypot(reading, at_blank) / (od - blank),
        )
        for od, reading in others
        if od > blank
    ]
    worst, told = SURE_SPREADS, ""
    for (thin, at_thin, thin_spread), (dense, at_dense, dense_spread) in combinations(seen, 2):
        spreads = (at_dense - at_thin) / math.hypot(thin_spread, dense_spread)
        if dense > thin and spreads > worst:
            worst = spreads
            told = (
                f"beside the blank, OD {dense:g} reads {at_dense:.3g} V per OD at {where}, and "
                f"OD {thin:g} {at_thin:.3g}: the denser one should read less per OD"
            )
    if not told:
        return []
    return [
        Verdict(
            "stray_standard",
            told,
            "Check the ODs that were typed and how the standards were diluted; measure the wrong "
            "one again.",
        )
    ]


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
