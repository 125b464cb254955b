"""A job that does nothing but own what measurements lease, and what the wire holds meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from piod.clock import SimulatedClock
from piod.jobs import job
from piod.jobs.calibrating import Progress
from piod.jobs.registry import JOBS
from tests import unit as whole
from tests.jobs.test_od_reading import USUAL

R = TypeVar("R")
Q = TypeVar("Q")

IR = "A"


class Owner(job.Job):
    """Stands for the calibration session."""

    job_name = "calibration_session"
    units: ClassVar[list[job.Unit]] = []

    @classmethod
    async def create(cls, unit: job.Unit, options: job.Options) -> Owner:
        cls.units.append(unit)
        return cls()

    async def run(self) -> None:
        await asyncio.Event().wait()


class Bench:
    """A running unit (``whole``) and its parts as a session has them (``unit``)."""

    def __init__(self, whole: whole.Unit, unit: job.Unit) -> None:
        self.whole = whole
        self.unit = unit
        self.clock = whole.clock
        self.told: list[float] = []
        """The progress of the last measurement."""

    async def measure(self, run: Callable[[job.Unit, Q, Progress], Awaitable[R]], request: Q) -> R:
        """The result; everything is off then, and progress has gone from 0 to 1."""
        self.told.clear()
        try:
            result = await run(self.unit, request, self.told.append)
        finally:
            assert self.outputs_on() == {}
        assert (self.told[0], self.told[-1]) == (0.0, 1.0)
        assert self.told == sorted(self.told)
        return result

    def outputs_on(self) -> dict[str | int, float]:
        """What the wire holds above 0: pins and LED channels."""
        plant = self.whole.plant
        held: dict[str | int, float] = {**plant.duties, **plant.optics.levels}
        return {output: level for output, level in held.items() if level > 0}

    async def cancelled(
        self, run: Callable[[job.Unit, Q, Progress], Awaitable[R]], request: Q, after_s: float
    ) -> bool:
        """Whether anything was on when it was cancelled. All must be off when it has ended."""
        doing = asyncio.ensure_future(run(self.unit, request, self.told.append))
        await self.clock.sleep(after_s)
        assert not doing.done()
        was_on = bool(self.outputs_on())
        began_s = self.clock.monotonic()
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        assert doing.cancelled()
        assert self.outputs_on() == {}
        assert self.clock.monotonic() - began_s < 0.1
        return was_on


@asynccontextmanager
async def bench_on(tmp_path: Path, clock: SimulatedClock, **kwargs: Any) -> AsyncIterator[Bench]:
    """A bench; ``kwargs`` as of running_unit."""
    kwargs.setdefault("config_ini", USUAL)
    kinds = {**JOBS, Owner.job_name: Owner}
    async with whole.running_unit(tmp_path, clock, kinds=kinds, **kwargs) as unit:
        await unit.run(Owner.job_name)
        yield Bench(unit, Owner.units.pop())
        await asyncio.sleep(0)
