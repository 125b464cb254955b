"""The figures of a simulated day, as lines of Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from tests.day import TARGET_CELSIUS, Day

SETTLED_H = 0.75
"""The thermostat has come to its target."""
FROM_H, TO_BIOMASS = 3.0, 2.0
"""Growth is judged from the third hour on, until the biomass reaches this."""
SOONER_H, CYCLE_S = 2.0, 200.0
"""An hour sooner against the mean of a cycle of the thermostat, in which the true rate swings."""
HOURS_TABLED = (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7)


def figures(day: Day) -> list[str]:
    """What the day was like, one figure a line."""
    late_ms = [1000 * late for late in day.lateness_s()]
    settled = [cycle for cycle in day.cycles if cycle.at_s > 3600 * SETTLED_H]
    peak = max(truth.liquid_celsius for truth in day.truths) - TARGET_CELSIUS
    rpm = [rpm for at_s, _, rpm in day.slowed() if at_s > 60]
    lines = {
        "simulated": f"{day.simulated_s / 3600:.1f} h, {day.factor:.0f} times as fast as real time",
        "OD readings": f"{len(late_ms)}, each {day.interval_s:g} s, {day.missed()} left out",
        "later than the schedule": f"{max(late_ms):.3f} ms at most",
        "disturbed by a change of the stirrer": f"{len(day.disturbed())}",
        "speed at the end of each spell of stirring": f"{_span(rpm, '.0f')} RPM",
        "liquid at the end of a pause, off target by": _kelvin(
            cycle.liquid_celsius for cycle in settled
        ),
        "liquid, mean of a cycle, off target by": _kelvin(cycle.mean_celsius for cycle in settled),
        "liquid, highest above target": f"{peak:+.2f} K",
        "inferred temperature, off the liquid by": _kelvin(
            cycle.inferred_celsius - cycle.liquid_celsius + TARGET_CELSIUS for cycle in settled
        ),
        f"growth rate from {FROM_H:g} h to an OD of {TO_BIOMASS:g}, off by": rate_error(day),
        f"from {SOONER_H:g} h, against the true mean of {CYCLE_S:g} s": _off(
            day.errors_between(3600 * SOONER_H, TO_BIOMASS, over_s=CYCLE_S)
        ),
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in lines.items())]


def rate_error(day: Day) -> str:
    """How far the growth rate was off, as parts of the true one."""
    return _off(day.errors_between(3600 * FROM_H, TO_BIOMASS))


def rate_table(day: Day, raw: Day) -> list[str]:
    """The growth rate hour by hour, beside that of a unit without calibration and blank."""
    lines = [
        "| h | biomass | true rate, 1/h | growth rate | off by | raw | off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for hour in HOURS_TABLED:
        cells = [f"{hour:g}"]
        for one in (day, raw):
            rate = next((rate for rate in one.rates if rate.at_s >= 3600 * hour), None)
            if rate is None or rate.biomass > TO_BIOMASS:
                break
            if one is day:
                cells += [f"{rate.biomass:.3f}", f"{rate.true_per_h:.3f}"]
            cells += [f"{rate.per_h:.3f}", f"{rate.per_h / rate.true_per_h - 1:+.1%}"]
        else:
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", f"The raw rate is off by {rate_error(raw)} in the same time."]


def _kelvin(celsius: Iterable[float]) -> str:
    return f"{_span([one - TARGET_CELSIUS for one in celsius], '+.2f')} K"


def _span(values: Sequence[float], form: str) -> str:
    return f"{min(values):{form}} to {max(values):{form}}"


def _off(parts: Sequence[float]) -> str:
    return f"{_span(parts, '+.1%')}, root mean square {_rms(parts):.1%}"


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))
