"""Noise, drift and hum of OD readings against the truth of the simulated plant.

``PYTHONPATH=. python tools/od_figures.py`` prints a table; it asserts nothing.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piod.actors.hub import Subscription
from piod.clock import SimulatedClock, SteppingEventLoop
from piod.events import ReadingTaken
from tests.unit import running_unit

LIGHT = 204 / 257
"""What the LED driver makes of 80 %."""
BASE = "[leds]\nA=IR\n[od_reading.config]\nref_normalization=unity\n"
XR_CHANNELS = "[od_config.photodiode_channel]\n1=45\n2=90\n3=135\n4=REF\n"
XR: Mapping[str, Any] = {
    "wired_for": ("pioreactor_20ml_XR", "1.5"),
    "angles": {"pd1": "45", "pd2": "90", "pd3": "135", "pd4": "REF"},
}


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    od: float
    config: str = ""
    xr: bool = False
    without_ref: bool = False
    stirred: bool = True
    seconds: int = 1800


CASES = (
    Case("RP2040", 0.0),
    Case("RP2040", 0.1),
    Case("RP2040", 1.0),
    Case("RP2040", 5.0),
    Case("RP2040, not stirred", 1.0, stirred=False),
    Case("RP2040, no smoothing", 0.1, config="smoothing_penalizer=0\n"),
    Case(
        "RP2040, no smoothing, hum taken for 50 Hz", 0.1, "smoothing_penalizer=0\nlocal_ac_hz=50\n"
    ),
    Case("RP2040, no dark offset", 0.1, config="use_dark_offsets=0\n"),
    Case("RP2040, 24 h", 1.0, seconds=86_400),
    Case("RP2040 without REF, 24 h", 1.0, without_ref=True, seconds=86_400),
    Case("ADS1114", 0.1, xr=True),
    Case("ADS1114", 1.0, xr=True),
    Case("ADS1114", 5.0, xr=True),
)


async def measure(case: Case) -> list[float]:
    """The OD readings at 90° of one case."""
    clock = SimulatedClock(start_time=1_790_000_000.0)
    ini = BASE + case.config
    if case.xr:
        ini += XR_CHANNELS
    elif case.without_ref:
        ini += "[od_config.photodiode_channel]\n1=\n2=90\n"
    values: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        kwargs = XR if case.xr else {}
        async with running_unit(Path(directory), clock, config_ini=ini, **kwargs) as unit:
            change = {"vial": {"standard_od": case.od}}
            await unit.request("PATCH", "/simulator/plant", change)
            if case.stirred:
                await unit.run("stirring")
                await clock.sleep(60)
            events = unit.daemon.hub.subscribe()
            following = asyncio.ensure_future(follow(events, values))
            await unit.run("od_reading")
            await clock.sleep(case.seconds)
            events.close()
            await following
    return values


async def follow(events: Subscription, values: list[float]) -> None:
    """Collect the OD readings at 90°."""
    async for event in events:
        if isinstance(event, ReadingTaken) and event.details.get("angle") == "90":
            values.append(event.value)


def truth_volts(od: float) -> float:
    """Handbook §6.4."""
    return LIGHT * (0.019 + 0.375 * od / (1 + od / 10))


def main() -> None:
    """Print the table."""
    print("| ADC and settings | OD | truth mV | mean off by | noise (std) | drift | n |")
    print("|---|---|---|---|---|---|---|")
    loop = SteppingEventLoop()
    asyncio.set_event_loop(loop)
    for case in CASES:
        values = loop.run_until_complete(measure(case))
        truth = truth_volts(case.od)
        mean = statistics.fmean(values)
        tenth = max(len(values) // 10, 10)
        drift = statistics.fmean(values[-tenth:]) - statistics.fmean(values[:tenth])
        print(
            f"| {case.name} | {case.od:g} | {1000 * truth:.2f} | {mean / truth - 1:+.2%} | "
            f"{statistics.stdev(values) / truth:.2%} | {drift / truth:+.2%} | {len(values)} |",
            flush=True,
        )
    loop.close()


if __name__ == "__main__":
    main()
