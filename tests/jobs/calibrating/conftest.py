"""The unit as a calibration session has it: leases, clock and chips of a whole simulated unit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from tests.jobs.calibrating.bench import Bench, bench_on


@pytest.fixture
async def bench(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Bench]:
    """A unit with pumps, stirrer, a photodiode at 90° and REF."""
    async with bench_on(tmp_path, clock) as one:
        yield one
