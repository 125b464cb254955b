"""What measurements and fits are worth, in plain words, while it can still be mended.

Each ``judge_…`` looks at what a step has recorded so far and gives its verdicts, an empty list
when all is well. A protocol asks at the step where the person can still do something: after
each dose, each standard, at the end of a sweep. :func:`refuse_blocking` raises when one of them
means that no usable calibration can come of it; the others are shown
(:func:`told`) and kept with the result (:meth:`Verdict.view`).

Which protocol asks what, and when:

=====================  ====================================================================
``duration_based``     :func:`judge_tracer` at ``tracer_volume``; :func:`judge_doses` at each
                       ``test_run`` (its ``redo_last`` mends); :func:`judge_runs` and
                       :func:`judge_pump_fit` after the last, where ``confirm_fit`` shows them
``dc_based``           :func:`judge_sweep`, then :func:`judge_rising` and
                       :func:`judge_outliers` of the fit, shown at ``confirm_fit``
``standards``          :func:`judge_standards` of each channel and
                       :func:`judge_number_of_standards` at ``another_standard``;
                       :func:`judge_blank` at ``measure_blank``, before measuring;
                       :func:`judge_rising` and :func:`judge_stray_standard` of each curve,
                       shown at ``confirm_fit``
``od_fusion_…``        :func:`judge_levels`, :func:`judge_standards` of each angle;
                       :func:`judge_offset`
=====================  ====================================================================

Nothing here raises for finite numbers, but :func:`refuse_blocking`.
"""

from piod.calibrations.verdicts.curves import judge_outliers, judge_rising
from piod.calibrations.verdicts.fused import judge_levels, judge_offset
from piod.calibrations.verdicts.pumps import (
    judge_doses,
    judge_pump_fit,
    judge_runs,
    judge_tracer,
)
from piod.calibrations.verdicts.standards import (
    judge_blank,
    judge_number_of_standards,
    judge_standards,
    judge_stray_standard,
)
from piod.calibrations.verdicts.stirring import judge_sweep
from piod.calibrations.verdicts.verdict import UnusableMeasurement, Verdict, refuse_blocking, told

__all__ = [
    "UnusableMeasurement",
    "Verdict",
    "judge_blank",
    "judge_doses",
    "judge_levels",
    "judge_number_of_standards",
    "judge_offset",
    "judge_outliers",
    "judge_pump_fit",
    "judge_rising",
    "judge_runs",
    "judge_standards",
    "judge_stray_standard",
    "judge_sweep",
    "judge_tracer",
    "refuse_blocking",
    "told",
]
