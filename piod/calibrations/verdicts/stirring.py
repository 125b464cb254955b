"""What a sweep of the stirrer saw."""

from __future__ import annotations

from collections.abc import Sequence

from piod.calibrations.verdicts.verdict import Verdict

LEAST_SWEEP_POINTS = 5
LEAST_DUTY_CYCLES = 3


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
