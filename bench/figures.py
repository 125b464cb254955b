"""One line of the table: a figure, its baseline, their ratio and the aim."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What was measured, one value for each round; medians are shown.

    ``baseline`` names what ``baseline_values`` are; where both have a value for
    each round, the ratio is the median of the ratios of neighbours. The aim is at
    most one of ``aim_ratio_min`` and ``aim_ratio_max`` (of the ratio) and ``aim_max`` (of the
    figure).
    """

    what: str
    unit: str
    values: Sequence[float]
    baseline: str
    baseline_values: Sequence[float]
    aim_ratio_min: float | None = None
    aim_ratio_max: float | None = None
    aim_max: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def baseline_value(self) -> float:
        return statistics.median(self.baseline_values)

    @property
    def ratio(self) -> float:
        if len(self.values) == len(self.baseline_values):
            pairs = zip(self.values, self.baseline_values, strict=True)
            return statistics.median(value / baseline for value, baseline in pairs)
        return self.value / self.baseline_value

    @property
    def aim(self) -> str:
        """The aim and whether it is met; empty without one."""
        if self.aim_ratio_min is not None:
            return _verdict(f"ratio ≥ {self.aim_ratio_min:g}", self.ratio >= self.aim_ratio_min)
        if self.aim_ratio_max is not None:
            return _verdict(f"ratio ≤ {self.aim_ratio_max:g}", self.ratio <= self.aim_ratio_max)
        if self.aim_max is not None:
            return _verdict(f"≤ {self.aim_max:g} {self.unit}", self.value <= self.aim_max)
        return ""


HEADING = f"{'what':<46} {'figure':>13} {'baseline':>13} {'ratio':>6}  aim"


def line(figure: Figure) -> str:
    """``figure`` as one line of the table, and one more for the baseline's name and notes."""
    note = f"; {figure.note}" if figure.note else ""
    return (
        f"{figure.what:<46} {_amount(figure.value, figure.unit):>13} "
        f"{_amount(figure.baseline_value, figure.unit):>13} {figure.ratio:>6.2f}  {figure.aim}\n"
        f"    baseline: {figure.baseline}{note}"
    )


def _amount(value: float, unit: str) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def _verdict(aim: str, met: bool) -> str:
    return f"{aim}: {'met' if met else 'MISSED'}"
