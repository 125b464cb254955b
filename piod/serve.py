"""``piod serve``: the daemon as a process, with a port, signals, a guard, and systemd.

End: SIGTERM or SIGINT, then jobs and outputs, the port, the daemon, the guard;
exit 0 within 5 s. A simulated machine that is shut down ends it the same way.

Within the process the daemon may start anew: when a simulated machine is rebooted,
and when its hardware, its models or its identity have changed by an import (or, on
SIGHUP, by hand, while no job runs). The listening sockets stay open meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from functools import partial

from piod import control, logs
from piod.actors.heater import keep_looking_while_off
from piod.actors.hub import Lagged
from piod.actors.jobs import JobFilter, Running
from piod.actors.watchdog import Watchdog
from piod.clock import Clock, SimulatedClock, SteppingEventLoop, WallClock
from piod.config import Config, ConfigFiles
from piod.daemon import Daemon
from piod.errors import PiodError
from piod.events import JobEnded, SettingPublished
from piod.hw.guard import BEAT_EVERY_S, GuardLink
from piod.hw.simulator.system import PowerAction, SimulatedSystem
from piod.launch import Launch
from piod.listening import Sockets, serving
from piod.storage.ledger import Ledger
from piod.storage.readings import Readings
from piod.systemd import FromSystemd, Notifier
from piod.units import Parts, real_unit, simulated_unit

log = logging.getLogger(__name__)

GIVE_UP_S = 4.0
"""From the signal to an exit without ceremony, wall time; a unit's stop takes under 5 s."""
GOING_DOWN_S = 0.2
"""How long a simulated machine takes from the command to the end of piod, wall time."""
STATUS_EVERY_S = 1.0
"""systemd is told of changes at most this often, wall time."""
ASK_TIMEOUT_S = 5.0
DAY_S = 86_400.0
KEEP_DAYS = 365.0
KEEP_JOBS = 10_000
KEEP_READINGS = 3_000_000
MOST_KEEP_DAYS, MOST_KEEP_ROWS = 36_500.0, 1_000_000_000
"""The most of each that can be asked for: times stay writable, numbers fit the database."""
"""About 150 MB: a month of OD every five seconds, with all that goes with it."""


def serve(launch: Launch, guard: GuardLink, given: FromSystemd) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    logs.set_up(launch.unit_name, logging.DEBUG if launch.verbose else logging.INFO)
    loop_factory = SteppingEventLoop if launch.simulate else asyncio.SelectorEventLoop
    with closing(given.notifier), asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            return runner.run(_serve(launch, guard, given))
        except PiodError as refusal:
            log.critical("%s %s", refusal.message, refusal.remediation)
            return 1


class _Ending:
    """What ends a daemon: a signal, its machine that goes down, files that make another of it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.for_good = False

    def end(self) -> None:
        """For good."""
        self.for_good = True
        self.begun.set()

    def start_anew(self, why: str) -> None:
        """In this process."""
        log.warning("%s", why)
        self.begun.set()

    def power(self, action: PowerAction) -> None:
        """A moment later: the task that did it is to be complete, on disk, by then."""
        anew = partial(self.start_anew, "the simulated machine starts anew")
        down = self.end if action == "power_off" else anew
        asyncio.get_running_loop().call_later(GOING_DOWN_S, down)


def _give_up(guard: GuardLink) -> None:
    """Something hangs while the daemon ends: leave the outputs to the guard, and go."""
    log.critical("piod does not come to its end; it leaves the outputs to the guard and exits")
    guard.close()
    os._exit(0)


Unit = Callable[[Launch, Parts, Callable[[], None]], AbstractAsyncContextManager[Daemon]]
"""Makes the daemon of a unit; it ends with its context. The callback tells of an import."""


async def _serve(launch: Launch, guard: GuardLink, given: FromSystemd) -> int:
    ending = _Ending()
    loop = asyncio.get_running_loop()

    def end() -> None:
        given.notifier.stopping()
        ending.end()
        loop.call_later(GIVE_UP_S, _give_up, guard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if not launch.simulate:
        unit = partial(real_unit, guard=guard)
        await _Lives(launch, unit, WallClock(), ending, guard, given).run()
    else:
        resumed = launch.resumed_plant
        clock = SimulatedClock(launch.time_scale, None if resumed is None else resumed.start_time)
        with closing(SimulatedSystem(launch.data_dir / "simulator", clock, ending.power)) as system:
            unit = partial(simulated_unit, guard=guard, clock=clock, system=system)
            await _Lives(launch, unit, clock, ending, guard, given).run()
    await asyncio.to_thread(guard.close)
    return 0


class _Lives:
    """The daemons that live in this process, one after the other, on the same sockets."""

    def __init__(
        self,
        launch: Launch,
        unit: Unit,
        clock: Clock,
        ending: _Ending,
        guard: GuardLink,
        given: FromSystemd,
    ) -> None:
        self._launch = launch
        self._unit = unit
        self._clock = clock
        self._ending = ending
        self._guard = guard
        self._notifier = given.notifier
        self._watchdog_s = given.watchdog_s
        self._watchdog = Watchdog(given.notifier.watchdog, given.watchdog_s or 0.0)
        self._sockets = Sockets.inherited(given.listen_fds) if given.listen_fds else None
        self._announced = False
        self._imported = asyncio.Event()
        self._hung_up = asyncio.Event()
        """SIGHUP has come."""

    async def run(self) -> None:
        """Until the end for good."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up.set)
        feeding = [self._watchdog.keep_feeding()] if self._watchdog_s is not None else []
        try:
            async with meanwhile(*feeding):
                await self._live()
                while not self._ending.for_good:
                    await self._start_anew()
                    await self._live()
        finally:
            if self._sockets is not None:
                self._sockets.close()

    async def _start_anew(self) -> None:
        self._ending.begun.clear()
        self._notifier.reloading()
        async with meanwhile(_beat(self._guard)):
            with self._clock.hold():
                self._launch = await asyncio.to_thread(self._launch.anew)
        for line in self._launch.outputs_not_off:
            log.critical("%s", line)

    async def _live(self) -> None:
        """One daemon, from its start until an end has begun."""
        launch = self._launch
        parts = Parts.read(launch)
        self._imported.clear()
        self._hung_up.clear()
        async with AsyncExitStack() as stack:
            unit = self._unit(launch, parts, self._imported.set)
            daemon = await stack.enter_async_context(unit)
            # first, so that safe-outputs is heard from the first request on
            await stack.enter_async_context(
                control.serving(launch.data_dir, daemon.end_jobs, self._url)
            )
            if self._sockets is None:
                self._sockets = await Sockets.bound(launch.host, launch.port)
            server = await stack.enter_async_context(serving(daemon.application, self._sockets))
            if not self._announced:
                self._announced = True
                print(f"piod: serving {self._sockets.url}", flush=True)
            self._watchdog.buses = daemon.buses
            if not self._ending.for_good:
                self._notifier.ready()
            async with meanwhile(
                _prune_daily(daemon, launch.config),
                daemon.run_own_jobs(),
                _resume(daemon),
                keep_looking_while_off(daemon.heater, self._clock),
                self._start_anew_after_import(parts),
                self._reload_on_hangup(daemon, parts),
                *([_tell_status(daemon, self._notifier)] if self._notifier.listens else ()),
            ):
                await self._ending.begun.wait()
                log.info("ending")
                server.stop_accepting()
            await daemon.end_all_jobs()
            self._watchdog.buses = None

    def _url(self) -> str | None:
        return None if self._sockets is None else self._sockets.url

    # -- what the files say now -------------------------------------------------------

    async def _start_anew_after_import(self, parts: Parts) -> None:
        while True:
            await self._imported.wait()
            self._imported.clear()
            if await self._outdated(parts):
                self._ending.start_anew(
                    "the daemon starts anew: an import has changed how it is made"
                )

    async def _reload_on_hangup(self, daemon: Daemon, parts: Parts) -> None:
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            self._notifier.reloading()
            config = self._launch.config
            config.current()
            if config.problem is None:  # it has been logged otherwise
                log.info("the configuration was read again")
            if await self._outdated(parts):
                if await self._runs_something(daemon):
                    log.warning(
                        "the files of the hardware, the models or the identity of this unit have "
                        "changed; they count when piod is told again (SIGHUP) while no job runs"
                    )
                else:
                    self._ending.start_anew(
                        "the daemon starts anew: its files have changed how it is made"
                    )
                    continue  # it is ready when it lives again
            self._notifier.ready()

    async def _outdated(self, parts: Parts) -> bool:
        """Whether a start now would make another unit than ``parts``, and could."""
        try:
            with self._clock.hold():
                now = await asyncio.to_thread(Parts.read, self._launch)
        except PiodError as refusal:
            log.error("the unit stays as it was made when it started: %s", refusal.message)
            return False
        return now != parts

    async def _runs_something(self, daemon: Daemon) -> bool:
        which = JobFilter(long_running=False)
        try:
            return bool(await daemon.jobs.ask(Running(which), timeout=ASK_TIMEOUT_S))
        except PiodError as refusal:
            log.error("it is not known what runs: %s", refusal.message)
            return True


@asynccontextmanager
async def meanwhile(*works: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Let ``works`` go on while the context lasts. One that fails is logged at once."""
    tasks = [asyncio.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(_tell_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task of the daemon failed: %s", task.get_coro(), exc_info=error)


async def _beat(guard: GuardLink) -> None:
    """Nobody else does while there is no daemon."""
    while True:
        guard.beat()
        await asyncio.sleep(BEAT_EVERY_S)


async def _tell_status(daemon: Daemon, notifier: Notifier) -> None:
    """Keep ``systemctl status`` saying what runs."""
    told = None
    with daemon.hub.subscribe() as events:
        while True:
            try:
                which = JobFilter(long_running=False)
                running = await daemon.jobs.ask(Running(which), timeout=ASK_TIMEOUT_S)
            except PiodError as refusal:
                text = f"the jobs do not answer: {refusal.message}"
            else:
                names = ", ".join(view.row.job_name for view in running)
                count = len(running)
                text = f"{count} job{'s' if count > 1 else ''}: {names}" if names else "no job runs"
            if text != told:
                notifier.status(text)
                told = text
            async for event in events:
                match event:
                    case JobEnded() | Lagged():
                        break
                    case SettingPublished(setting="$state"):
                        break
            await asyncio.sleep(STATUS_EVERY_S)


async def _resume(daemon: Daemon) -> None:
    """Start what an outage ended, as far as the configuration says so."""
    try:
        await daemon.resume()
    except PiodError as refusal:
        log.error("lost jobs could not be resumed: %s", refusal.message)


async def _prune_daily(daemon: Daemon, config: ConfigFiles) -> None:
    """Bound the history by age and size; at start, then once a day of wall time."""
    while True:
        await prune(daemon.ledger, daemon.readings, config.current())
        await asyncio.sleep(DAY_S)


async def prune(ledger: Ledger, readings: Readings, config: Config) -> None:
    """Bound jobs and readings as ``[piod]`` says, each whatever becomes of the other."""

    async def prune_history() -> None:
        days = config.number(
            "piod", "keep_history_days", KEEP_DAYS, minimum=1, maximum=MOST_KEEP_DAYS
        )
        jobs = config.integer(
            "piod", "keep_history_jobs", KEEP_JOBS, minimum=1, maximum=MOST_KEEP_ROWS
        )
        await ledger.prune(time.time(), days, jobs)

    async def prune_readings() -> None:
        days = config.number(
            "piod", "keep_readings_days", KEEP_DAYS, minimum=1, maximum=MOST_KEEP_DAYS
        )
        rows = config.integer(
            "piod", "keep_readings_rows", KEEP_READINGS, minimum=1000, maximum=MOST_KEEP_ROWS
        )
        await readings.prune(time.time(), days, rows)

    for what, prune_them in (("history", prune_history), ("readings", prune_readings)):
        try:
            await prune_them()
        except PiodError as refusal:
            log.error("the %s could not be pruned: %s", what, refusal.message)
