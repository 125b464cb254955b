"""Every test runs on the event loop that a simulated clock can step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from piod.clock import SimulatedClock, SteppingEventLoop
from tests.unit import Unit, running_unit


class _SteppingPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return SteppingEventLoop()


asyncio.set_event_loop_policy(_SteppingPolicy())


@pytest.fixture
async def clock() -> SimulatedClock:
    """The virtual clock: simulated time without a limit, started at a fixed date."""
    return SimulatedClock(start_time=1_790_000_000.0)


@pytest.fixture
async def unit(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Unit]:
    """A whole simulated unit with an empty data directory, on the virtual clock."""
    async with running_unit(tmp_path, clock) as one:
        yield one
