"""Plots and figures of a simulated day, for ``docs/day.md``.

``PYTHONPATH=. python tools/day_plots.py [HOURS]`` lives through the day (24 hours, some
minutes of real time), writes ``docs/day/*.svg`` and prints the tables. It asserts nothing:
``tests/long/test_simulated_day.py`` does.
"""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from piod.clock import SteppingEventLoop
from tests.day import TARGET_CELSIUS, Day, Truth, live_through
from tests.day_figures import figures, rate_table

FOLDER = Path("docs/day")
RAW_HOURS = 8.0
WIDTH, HEIGHT = 760, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 34, 40
MOST_POINTS = 500
"""Of a line: more cannot be told apart."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line of a plot."""

    name: str
    colour: str
    points: Points
    steps: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Plot:
    """Lines over one axis of time. ``ticks``: of x and of y."""

    title: str
    x_name: str
    y_name: str
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    lines: Sequence[Line]
    log: bool = False
    shaded: Sequence[tuple[float, float]] = ()

    def svg(self) -> str:
        """The plot as one SVG image."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
                'font-family="sans-serif" font-size="12">',
                f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
                *self._axes(),
                *self._curves(),
                *self._legend(),
                "</svg>",
                "",
            ]
        )

    def _x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        value = min(max(value, low), high)  # a plot shows what its axis does
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def _axes(self) -> Iterator[str]:
        bottom = HEIGHT - BOTTOM
        for begin, end in self.shaded:
            if begin >= self.x_ticks[-1]:
                continue
            left, right = self._x(begin), self._x(min(end, self.x_ticks[-1]))
            yield (
                f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" '
                f'height="{bottom - TOP}" fill="#fff3c4"/>'
            )
        for value in self.x_ticks:
            x = self._x(value)
            yield f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#ddd"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
        for value in self.y_ticks:
            y = self._y(value)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        middle = (TOP + bottom) / 2
        yield f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{self.x_name}</text>'
        yield (
            f'<text x="14" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 14 {middle})">{self.y_name}</text>'
        )
        yield f'<text x="{LEFT}" y="18" font-weight="bold">{self.title}</text>'

    def _curves(self) -> Iterator[str]:
        for line in self.lines:
            points = [(self._x(x), self._y(y)) for x, y in thinned(line.points)]
            if line.dots:
                dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
                yield (
                    f'<path d="{dots}" stroke="{line.colour}" stroke-width="2.5" '
                    'stroke-linecap="round"/>'
                )
                continue
            path, before = "", None
            for x, y in points:
                if line.steps and before is not None:
                    path += f"L{x:.1f} {before:.1f}"
                path += f"{'L' if path else 'M'}{x:.1f} {y:.1f}"
                before = y
            yield f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="1.3"/>'

    def _legend(self) -> Iterator[str]:
        x = WIDTH - RIGHT
        for line in reversed(self.lines):
            x -= 7 * len(line.name) + 24
            yield f'<path d="M{x} 14h14" stroke="{line.colour}" stroke-width="3"/>'
            yield f'<text x="{x + 18}" y="18">{line.name}</text>'


def thinned(points: Points) -> Points:
    """At most MOST_POINTS of them: the lowest and the highest of each stretch."""
    length = math.ceil(2 * len(points) / MOST_POINTS)
    if length <= 2:
        return points
    kept: list[tuple[float, float]] = []
    for begin in range(0, len(points), length):
        stretch = points[begin : begin + length]
        by_value = sorted(stretch, key=lambda point: point[1])
        kept += sorted((by_value[0], by_value[-1]))
    return kept


def plots(day: Day, raw: Day) -> dict[str, Plot]:
    """By name of the file."""
    hours = day.simulated_s / 3600
    all_day = [tick for tick in range(0, 25, 2) if tick <= hours + 0.01]
    light = list(spells(day))
    shaded = [(begin / 3600, end / 3600) for begin, end in light]
    blue, orange, grey = "#1f5fa8", "#d8641c", "#999999"
    growing = [tick for tick in range(9) if tick <= hours + 0.01]
    rates = [rate for rate in day.rates if rate.at_s < 3600 * growing[-1]]
    raws = [rate for rate in raw.rates if rate.at_s < 3600 * growing[-1]]
    minute = 3600.0 if hours > 1.1 else 1800.0
    return {
        "od": Plot(
            "OD by calibration, and the biomass (yellow: light)",
            *("hours", "OD"),
            all_day,
            [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
            [
                Line("biomass", grey, hourly((one.at_s, one.biomass) for one in day.truths)),
                Line("od2", blue, hourly(day.of("od")), dots=True),
            ],
            log=True,
            shaded=shaded,
        ),
        "growth": Plot(
            "Growth rate until the media is used up",
            *("hours", "1/h"),
            growing,
            [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            [
                Line("true", grey, hourly((one.at_s, one.true_per_h) for one in rates)),
                Line("growth_rate", blue, hourly((one.at_s, one.per_h) for one in rates)),
                Line("without blank, raw", orange, hourly((o.at_s, o.per_h) for o in raws)),
            ],
            shaded=shaded if growing[-1] * 3600 > 7200 else (),
        ),
        "temperature": Plot(
            f"Temperature, thermostat at {TARGET_CELSIUS:g} °C",
            *("hours", "°C"),
            all_day,
            [24, 28, 32, 35, 36, 37, 38, 39],
            [
                Line("liquid", grey, hourly((one.at_s, one.liquid_celsius) for one in day.truths)),
                Line(
                    "temperature",
                    blue,
                    hourly((one.at_s, one.inferred_celsius) for one in day.cycles),
                    dots=True,
                ),
            ],
        ),
        "swing": Plot(
            "The same for half an hour: the heater is paused in each cycle",
            *("minutes", "°C"),
            list(range(0, 31, 5)),
            [36, 36.5, 37, 37.5, 38],
            [
                Line("liquid", grey, minutes(swing(day), minute)),
                Line(
                    "temperature",
                    blue,
                    minutes(((o.at_s, o.inferred_celsius) for o in day.cycles), minute, 1800),
                    dots=True,
                ),
            ],
        ),
        "stirring": Plot(
            "The stirrer around OD readings (yellow: the IR LED shines)",
            *("seconds", "duty cycle, %"),
            list(range(0, 21, 2)),
            [0, 20, 40, 60, 80, 100],
            [
                Line(
                    "duty cycle",
                    blue,
                    [(at - minute, duty) for at, duty, _ in day.stirrer if 0 <= at - minute < 20],
                    steps=True,
                )
            ],
            shaded=[(at - minute, end - minute) for at, end in day.lit if 0 <= at - minute < 20],
        ),
    }


def hourly(points: Iterable[tuple[float, float]]) -> Points:
    """In hours instead of seconds."""
    return [(at_s / 3600, value) for at_s, value in points]


def minutes(
    points: Iterable[tuple[float, float]], from_s: float, length_s: float = 1800.0
) -> Points:
    """In minutes from some time on."""
    return [((at - from_s) / 60, y) for at, y in points if 0 <= at - from_s < length_s]


def swing(day: Day) -> Iterator[tuple[float, float]]:
    """The liquid's temperature."""
    truths: Sequence[Truth] = day.truths
    return ((one.at_s, one.liquid_celsius) for one in truths)


def spells(day: Day) -> Iterator[tuple[float, float]]:
    """From when until when there was light."""
    began_s: float | None = None
    for at_s, percent in day.of("led"):
        if percent > 0 and began_s is None:
            began_s = at_s
        elif percent == 0 and began_s is not None:
            yield began_s, at_s
            began_s = None
    if began_s is not None:
        yield began_s, day.simulated_s


async def both_days(hours: float) -> tuple[Day, Day]:
    """The day, and its first hours without calibration and blank."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        day = await live_through(Path(one), hours)
        raw_hours = min(hours, RAW_HOURS)
        return day, await live_through(Path(other), raw_hours, calibrated=False, blank=False)


def main() -> None:
    """Draw and print."""
    hours = float(sys.argv[1]) if len(sys.argv) > 1 else 24.0
    loop = SteppingEventLoop()
    asyncio.set_event_loop(loop)
    day, raw = loop.run_until_complete(both_days(hours))
    loop.close()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, plot in plots(day, raw).items():
        (FOLDER / f"{name}.svg").write_text(plot.svg(), encoding="utf-8")
    print("", *figures(day), "", *rate_table(day, raw), sep="\n")


if __name__ == "__main__":
    main()
