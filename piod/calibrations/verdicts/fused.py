"""Whether a fused OD model has enough standards, and whether one may be moved so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from piod.calibrations.fits import FUSED_LEVELS, LogAffine
from piod.calibrations.verdicts.verdict import Verdict


def judge_levels(ods: Sequence[float]) -> list[Verdict]:
    """Whether there are enough different ODs for the fused model."""
    counted = {math.log10(od) for od in ods if od > 0}
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
