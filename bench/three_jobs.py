"""A simulated unit on which three jobs can run that do nothing: ``idle_1`` to ``idle_3``.

The daemon and its application are piod's own, from :func:`piod.daemon.build`;
only the kinds of jobs are others. ``python -m bench.three_jobs DATA_DIR``.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from aiohttp import web

from piod.clock import Clock, SimulatedClock, SteppingEventLoop
from piod.config import ConfigFiles
from piod.daemon import build
from piod.defaults import write_defaults
from piod.hw.models import load_models
from piod.hw.simulator.setup import simulated_unit
from piod.hw.wiring import load_wiring
from piod.jobs.job import Job, Options, Unit
from piod.launch import DEFAULT_HAT, SIMULATED_MODEL
from piod.system import NoSystem

UNIT_NAME = "bench"


class Idle(Job):
    """Is ready and waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Idle:
        return cls(unit.clock)

    async def run(self) -> None:
        while True:
            await self._clock.sleep(60)


class Idle1(Idle):
    job_name = "idle_1"


class Idle2(Idle):
    job_name = "idle_2"


class Idle3(Idle):
    job_name = "idle_3"


async def serve(data_dir: Path) -> None:
    """Until SIGTERM, on a free port that is told on stdout."""
    write_defaults(data_dir, leader_hostname=UNIT_NAME)
    config = ConfigFiles(data_dir)
    wiring = load_wiring(data_dir / "hardware", DEFAULT_HAT, SIMULATED_MODEL)
    models = load_models(data_dir / "models")
    clock = SimulatedClock(scale=1.0)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with (
        simulated_unit(
            data_dir,
            clock,
            wiring=wiring,
            roles=config.current().pwm_roles(),
            capacity_ml=models.get(*SIMULATED_MODEL).limits.reactor_capacity_ml,
            resumed=None,
            seed=1,
            guard=None,
        ) as (board, silicon),
        build(
            board,
            clock,
            data_dir=data_dir,
            unit_name=UNIT_NAME,
            leader_name=UNIT_NAME,
            config=config,
            wiring=wiring,
            models=models,
            system=NoSystem("a benchmark has none"),
            default_model=SIMULATED_MODEL,
            kinds={kind.job_name: kind for kind in (Idle1, Idle2, Idle3)},
            before_answer=silicon.flush,
        ) as daemon,
    ):
        runner = web.AppRunner(daemon.application, access_log=None, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"three jobs: serving http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await over.wait()
        await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=SteppingEventLoop) as runner:
        runner.run(serve(Path(sys.argv[1])))
