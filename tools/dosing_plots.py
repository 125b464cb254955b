"""Plots and figures of the closed loops, for ``docs/dosing.md``.

``PYTHONPATH=. python tools/dosing_plots.py [LENGTH]`` runs the loops (1: in full length, some
minutes of real time), writes ``docs/dosing/*.svg`` and prints the table. It asserts nothing:
``tests/long/test_dosing_loops.py`` does.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from day_plots import Line, Plot, Points, hourly

from piod.clock import SteppingEventLoop
from tests.dosing_loops import (
    DILUTION_PER_H,
    MAX_FILL_ML,
    STEADY_BIOMASS,
    TARGET_GROWTH_PER_H,
    TARGET_OD,
    Loop,
    chemostat,
    fed_batch,
    figures,
    hourly_means,
    morbidostat,
    turbidostat,
)

FOLDER = Path("docs/dosing")
BLUE, ORANGE, GREY = "#1f5fa8", "#d8641c", "#999999"
ALL = (turbidostat, chemostat, morbidostat, fed_batch)
HOURS = (48.0, 48.0, 24.0, 6.0)


def plots(loops: Sequence[Loop]) -> dict[str, Plot]:
    """By name of the file."""
    turbid, chemo, morbid, fed = loops
    means = hourly_means(turbid.readings["od"])
    return {
        "turbidostat": Plot(
            f"Turbidostat at an OD of {TARGET_OD:g}: the signal, its hourly means, the biomass",
            *("hours", "OD"),
            ticks(turbid),
            [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1],
            [
                Line("od", BLUE, hourly(turbid.readings["od"]), dots=True),
                Line("biomass", GREY, of(turbid, "biomass")),
                Line("hourly mean", ORANGE, [(h + 0.5, m) for h, m in enumerate(means)]),
            ],
        ),
        "chemostat": Plot(
            f"Chemostat at {DILUTION_PER_H:g}/h: comes to a biomass of {STEADY_BIOMASS:g}",
            *("hours", "OD"),
            ticks(chemo),
            [0, 1, 2, 3, 4, 5, 6],
            [
                Line("biomass", BLUE, of(chemo, "biomass")),
                Line("steady state", GREY, [(0, STEADY_BIOMASS), (chemo.hours, STEADY_BIOMASS)]),
            ],
        ),
        "morbidostat": Plot(
            f"Morbidostat, target {TARGET_GROWTH_PER_H:g}/h",
            *("hours", "1/h; inhibitor; OD"),
            ticks(morbid),
            [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5],
            [
                Line("inhibitor", ORANGE, of(morbid, "inhibitor")),
                Line("true growth", GREY, of(morbid, "growth_per_h")),
                Line("growth_rate", BLUE, hourly(morbid.readings["growth_rate"])),
                Line("biomass", "#4a9c4a", of(morbid, "biomass")),
            ],
        ),
        "fed_batch": Plot(
            f"Fed batch: stops below {MAX_FILL_ML:g} mL",
            *("hours", "mL"),
            ticks(fed),
            [9, 10, 12, 14, 16, 18, 19],
            [
                Line("volume", BLUE, of(fed, "volume_ml")),
                Line("maximum", ORANGE, [(0, MAX_FILL_ML), (fed.hours, MAX_FILL_ML)]),
            ],
        ),
    }


def of(loop: Loop, what: str) -> Points:
    """A quantity of the plant, by hours."""
    return hourly((truth.at_s, getattr(truth, what)) for truth in loop.truths)


def ticks(loop: Loop) -> Sequence[float]:
    """Of the hours."""
    step = 1 if loop.hours < 13 else 2 if loop.hours < 25 else 4
    return list(range(0, int(loop.hours + 0.01) + 1, step))


async def all_loops(length: float) -> list[Loop]:
    """Each for its hours, ``length`` times."""
    loops = []
    runs: Iterable[tuple[Callable[[Path, float], Awaitable[Loop]], float]]
    runs = zip(ALL, HOURS, strict=True)
    for run, hours in runs:
        with tempfile.TemporaryDirectory() as folder:
            loops.append(await run(Path(folder), hours * length))
    return loops


def main() -> None:
    """Draw and print."""
    length = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with asyncio.Runner(loop_factory=SteppingEventLoop) as runner:
        loops = runner.run(all_loops(length))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, plot in plots(loops).items():
        (FOLDER / f"{name}.svg").write_text(plot.svg(), encoding="utf-8")
    print("", *figures(loops), sep="\n")


if __name__ == "__main__":
    main()
