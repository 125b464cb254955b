"""``piod serve``: the daemon as a process, with a port, signals and a guard.

End: SIGTERM or SIGINT, then jobs and outputs, the port, the daemon, the guard;
exit 0 within 5 s. A simulated machine that is shut down ends it the same way; one
that is rebooted starts the daemon anew, in this process and on the same port.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
)
from dataclasses import replace
from functools import partial

from aiohttp import web

from piod import control, logs
from piod.actors.hub import Hub
from piod.clock import SimulatedClock, SteppingEventLoop, WallClock
from piod.config import DEFAULT_PWM_ROLES, Config, ConfigFiles
from piod.daemon import Daemon, build
from piod.errors import ConfigurationError, PiodError
from piod.http.simulator import SimulatorHandlers
from piod.hw.guard import GuardLink
from piod.hw.models import load_models
from piod.hw.simulator.system import PowerAction, SimulatedSystem
from piod.hw.wiring import load_wiring
from piod.launch import SIMULATED_MODEL, Launch, started_anew
from piod.storage.ledger import Ledger
from piod.system import NoSystem

log = logging.getLogger(__name__)

CLOSE_HTTP_TIMEOUT_S = 0.5
GIVE_UP_S = 4.0
"""From the signal to an exit without ceremony, wall time; a unit's stop takes under 5 s."""
GOING_DOWN_S = 0.2
"""How long a simulated machine takes from the command to the end of piod, wall time."""
NO_SYSTEM = "this version of piod does not speak with systemd yet"
DAY_S = 86_400.0
KEEP_DAYS = 365.0
KEEP_JOBS = 10_000


def serve(launch: Launch, guard: GuardLink) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    logs.set_up(logging.DEBUG if launch.verbose else logging.INFO)
    loop_factory = SteppingEventLoop if launch.simulate else asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            return runner.run(_serve(launch, guard))
        except PiodError as refusal:
            log.critical("%s %s", refusal.message, refusal.remediation)
            return 1


class _Ending:
    """What ends a daemon: a signal, or its simulated machine that goes down."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.for_good = False

    def end(self) -> None:
        """For good."""
        self.for_good = True
        self.begun.set()

    def power(self, action: PowerAction) -> None:
        """A moment later: the task that did it is to be complete, on disk, by then."""
        down = self.end if action == "power_off" else self.begun.set
        asyncio.get_running_loop().call_later(GOING_DOWN_S, down)


def _give_up(guard: GuardLink) -> None:
    """Something hangs while the daemon ends: leave the outputs to the guard, and go."""
    log.critical("piod does not come to its end; it leaves the outputs to the guard and exits")
    guard.close()
    os._exit(0)


Unit = Callable[[Launch], AbstractAsyncContextManager[Daemon]]
"""Makes the daemon of a unit; it ends with its context."""


async def _serve(launch: Launch, guard: GuardLink) -> int:
    ending = _Ending()
    loop = asyncio.get_running_loop()

    def end() -> None:
        ending.end()
        loop.call_later(GIVE_UP_S, _give_up, guard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if not launch.simulate:
        await _live(launch, partial(_real, guard=guard), ending)
    else:
        resumed = launch.resumed_plant
        clock = SimulatedClock(launch.time_scale, None if resumed is None else resumed.start_time)
        with closing(SimulatedSystem(launch.data_dir / "simulator", clock, ending.power)) as system:
            unit = partial(_simulated, guard=guard, clock=clock, system=system)
            port = await _live(launch, unit, ending)
            while not ending.for_good:
                log.warning("the simulated machine starts anew")
                ending.begun.clear()
                guard.beat()  # nobody else does while there is no daemon
                with clock.hold():
                    launch = await asyncio.to_thread(started_anew, replace(launch, port=port))
                await _live(launch, unit, ending, tell=False)
    await asyncio.to_thread(guard.close)
    return 0


async def _live(launch: Launch, unit: Unit, ending: _Ending, *, tell: bool = True) -> int:
    """One daemon, from its start until ``ending`` has begun; the port that it had.

    ``tell``: say on stdout that it serves.
    """
    config = launch.config
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(unit(launch))
        # first, so that safe-outputs is heard from the first request on
        await stack.enter_async_context(control.serving(launch.data_dir, daemon.end_jobs))
        http = _http(daemon.application, launch.host, launch.port, tell=tell)
        port = await stack.enter_async_context(http)
        pruning = asyncio.create_task(_prune_daily(daemon.ledger, config))
        resuming = asyncio.create_task(_resume(daemon))
        await ending.begun.wait()
        log.info("ending")
        for task in (pruning, resuming):
            task.cancel()
        await asyncio.gather(pruning, resuming, return_exceptions=True)
        await daemon.end_all_jobs()
    return port


@asynccontextmanager
async def _http(
    application: web.Application, host: str, port: int, *, tell: bool
) -> AsyncIterator[int]:
    """The port, open; and, with ``tell``, the one line on stdout that says so."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigurationError(
                f"piod cannot listen on {host} port {port}: {error.strerror}",
                remediation="Name another --host or --port, or end what uses this one.",
            ) from error
        host, port = runner.addresses[0][:2]
        if tell:
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            print(f"piod: serving {url}", flush=True)
        yield port
    finally:
        try:
            await asyncio.wait_for(runner.cleanup(), CLOSE_HTTP_TIMEOUT_S)
        except TimeoutError:
            log.warning("some requests were still being answered and were cut off")


@asynccontextmanager
async def _real(launch: Launch, *, guard: GuardLink) -> AsyncIterator[Daemon]:
    """The daemon of a Raspberry Pi."""
    from piod.hw.linux.board import LinuxBoard
    from piod.hw.linux.gpio import LineSpec
    from piod.plugins.pip_installer import PipInstaller, choose_environment

    wiring = load_wiring(launch.data_dir / "hardware", launch.wired.hat_version, launch.wired.model)
    board = LinuxBoard(
        pwm_pins=tuple(wiring.pwm_pins.values()),
        lines=[
            LineSpec(wiring.hall_pin, direction="in", bias="pull_up", edge="falling"),
            LineSpec(wiring.button_pin, direction="in", bias="pull_down", edge="both"),
            LineSpec(wiring.led_pin, direction="out"),
        ],
        guard=guard,
    )
    async with build(
        board,
        WallClock(),
        data_dir=launch.data_dir,
        unit_name=launch.unit_name,
        leader_name=launch.leader_name,
        config=launch.config,
        wiring=wiring,
        models=load_models(launch.data_dir / "models"),
        system=NoSystem(NO_SYSTEM),
        fixed_model=launch.wired.fixed_model,
        installer=PipInstaller(choose_environment(launch.data_dir)),
        guard=guard,
        keep_fds=(launch.lock_fd,),
    ) as daemon:
        with _logs_on(daemon.hub):
            yield daemon


@asynccontextmanager
async def _simulated(
    launch: Launch, *, guard: GuardLink, clock: SimulatedClock, system: SimulatedSystem
) -> AsyncIterator[Daemon]:
    """The daemon of a simulated unit, with its plant and files."""
    from piod.hw.simulator.setup import simulated_unit

    wiring = load_wiring(launch.data_dir / "hardware", launch.wired.hat_version, launch.wired.model)
    models = load_models(launch.data_dir / "models")
    model = models.get(*(launch.wired.model or SIMULATED_MODEL))
    async with (
        simulated_unit(
            launch.data_dir,
            clock,
            wiring=wiring,
            roles=_plugged_in(launch.config.current()),
            capacity_ml=model.limits.reactor_capacity_ml,
            resumed=launch.resumed_plant,
            seed=launch.seed,
            guard=guard,
        ) as (board, silicon),
        build(
            board,
            clock,
            data_dir=launch.data_dir,
            unit_name=launch.unit_name,
            leader_name=launch.leader_name,
            config=launch.config,
            wiring=wiring,
            models=models,
            system=system,
            fixed_model=launch.wired.fixed_model,
            default_model=SIMULATED_MODEL,
            guard=guard,
            keep_fds=(launch.lock_fd,),
            simulator=SimulatorHandlers(board, clock, system),
            before_answer=silicon.flush,
        ) as daemon,
    ):
        system.faults = board.faults
        with _logs_on(daemon.hub):
            yield daemon


def _plugged_in(config: Config) -> Mapping[str, str]:
    """What is connected to the simulated board: what [PWM] says, else the usual.

    A file that cannot be read pulls no plug; jobs refuse to guess.
    """
    try:
        return config.pwm_roles()
    except ConfigurationError:
        return DEFAULT_PWM_ROLES


async def _resume(daemon: Daemon) -> None:
    """Start what an outage ended, as far as the configuration says so."""
    try:
        await daemon.resume()
    except PiodError as refusal:
        log.error("lost jobs could not be resumed: %s", refusal.message)


async def _prune_daily(ledger: Ledger, config: ConfigFiles) -> None:
    """Bound the history by age and size; at start, then once a day of wall time."""
    while True:
        current = config.current()
        try:
            await ledger.prune(
                time.time(),
                current.number("piod", "keep_history_days", KEEP_DAYS, minimum=1),
                current.integer("piod", "keep_history_jobs", KEEP_JOBS, minimum=1),
            )
        except PiodError as refusal:
            log.error("the history could not be pruned: %s", refusal.message)
        await asyncio.sleep(DAY_S)


@contextmanager
def _logs_on(hub: Hub) -> Iterator[None]:
    """Publish log records to the hub while the daemon runs."""
    handler = logs.HubHandler(hub, asyncio.get_running_loop().call_soon_threadsafe)
    root = logging.getLogger("piod")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
