"""Every test runs on the event loop that a simulated clock can step."""

from __future__ import annotations

import asyncio

import pytest

from piod.clock import SimulatedClock, SteppingEventLoop


class _SteppingPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return SteppingEventLoop()


asyncio.set_event_loop_policy(_SteppingPolicy())


@pytest.fixture
async def clock() -> SimulatedClock:
    """The virtual clock: simulated time without a limit, started at a fixed date."""
    return SimulatedClock(start_time=1_790_000_000.0)
