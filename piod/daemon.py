"""The composition root: hardware, then actors, then HTTP; and back in reverse.

The only module that sees everything. :func:`build` takes the parts that differ
between a Raspberry Pi, a simulated unit and a test, and makes a :class:`Daemon`
of them; :mod:`piod.serve` makes it a process with a port. Three parts of that have
modules of their own: :mod:`piod.hardware`, :mod:`piod.stores`, :mod:`piod.front`.

Start: outputs off (the buses open), ledger, jobs. End: jobs and their outputs,
actors, ledger, buses.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

from aiohttp import web

from piod.actors.actor import Actor, Life, Ref
from piod.actors.buses.i2c import BusAccess
from piod.actors.clock_watch import PATIENCE_S, AwaitTrust, ClockWatch, rebooted_since
from piod.actors.cluster import ClusterEstimators
from piod.actors.guardian import Guardian
from piod.actors.hardware_check import HardwareCheck
from piod.actors.health import Health
from piod.actors.heater import HeaterInterlock
from piod.actors.hub import Hub
from piod.actors.job import JobRecord, Publisher
from piod.actors.jobs import JobFilter, Jobs, ResumeLost, Run, Running, Stop
from piod.actors.model import ModelKey, UnitModel, remembered_model
from piod.actors.recorder import Recorder
from piod.actors.resume import RunRequest
from piod.actors.session_bench import Workshop, session_record
from piod.actors.sessions import CalibrationSessions
from piod.actors.supervisor import Supervisor
from piod.actors.system import (
    COMMAND_TIMEOUT_S,
    REST_OF_UPDATE_S,
    UPDATE_TIMEOUT_S,
    AwaitUpdate,
    PowerOff,
    System,
)
from piod.actors.tasks import POWER_LOCK, UPDATE_LOCK, AwaitFree, LookAtLock, Outliving, Tasks
from piod.actors.unit import JobUnit
from piod.actors.volumes import LEDGER_TIMEOUT_S, Unconfirm, VolumeLedger
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.registry import PROTOCOLS, ProtocolRegistry
from piod.calibrations.protocols.turn import Facts
from piod.clock import Clock
from piod.config import ConfigFiles
from piod.errors import PiodError
from piod.events import JsonValue
from piod.front import build_front
from piod.hardware import Board, Buses, close_port, open_buses
from piod.host import Host, LinuxHost
from piod.http.simulator import SimulatorHandlers
from piod.hw.drivers import thermometer
from piod.hw.guard import GuardLink
from piod.hw.models import Models
from piod.hw.wiring import Wiring
from piod.jobs.job import Job, Unit
from piod.jobs.registry import JOBS
from piod.plugins.packages import PackageInstaller
from piod.plugins.plugins import Plugins
from piod.plugins.registry import JobRegistry
from piod.plugins.simulated import SimulatedInstaller
from piod.restarts import FOR_EVER
from piod.storage.ledger import Ledger
from piod.storage.readings import Readings
from piod.storage.sessions import SessionRow, Sessions
from piod.storage.volumes import VolumeStore
from piod.stores import open_stores
from piod.system import SystemPort

log = logging.getLogger(__name__)

T = TypeVar("T")
ASK_TIMEOUT_S = 1.0
END_TIMEOUT_S = 3.5
"""Wall time in which jobs are expected to end when the daemon does."""
POWER_TIMEOUT_S = 0.5
"""Wall time in which a reboot or shutdown under way may tell its task that it was done."""


class Daemon:
    """One running unit: its actors and its HTTP application."""

    def __init__(
        self,
        *,
        unit_name: str,
        jobs: Ref[Jobs],
        buses: Buses,
        hub: Hub,
        ledger: Ledger,
        readings: Readings,
        clock_watch: Ref[ClockWatch],
        heater: Ref[HeaterInterlock],
        tasks: Ref[Tasks],
        own_jobs: Sequence[str],
        config: ConfigFiles,
        application: web.Application,
    ) -> None:
        self.unit_name = unit_name
        self.jobs = jobs
        self.pwm = buses.pwm
        self.buses = buses.by_name
        self.hub = hub
        self.ledger = ledger
        self.readings = readings
        self.clock_watch = clock_watch
        self.heater = heater
        self._tasks = tasks
        self._own_jobs = own_jobs
        self._config = config
        self.application = application

    async def end_jobs(self, reason: str) -> int:
        """Stop all jobs, the daemon's own too; how many have ended."""
        return await self.jobs.ask(Stop(JobFilter(), reason), timeout=END_TIMEOUT_S)

    async def end_all_jobs(self) -> None:
        """The same, for the daemon's own end: what goes wrong is logged."""
        try:
            ended = await self.end_jobs("the daemon ended")
        except PiodError as refusal:
            log.error("jobs may not have ended: %s", refusal.message)
        else:
            if ended:
                log.info("%d jobs have ended", ended)

    async def run_own_jobs(self) -> None:
        """Run the jobs that belong to the daemon; one that refuses is logged.

        ``[piod] run_<job name> = 0`` leaves one out. See :meth:`_updated`.
        """
        await self._updated()
        for job_name in self._own_jobs:
            try:
                if not self._config.current().boolean("piod", f"run_{job_name}", True):
                    continue
                await self.jobs.ask(Run(RunRequest(job_name, {}, job_source="piod")), timeout=600)
            except PiodError as refusal:
                log.error("%s does not run: %s", job_name, refusal.message)

    async def resume(self) -> list[str]:
        """Start what an outage ended, as far as the configuration says so.

        After a boot of the machine it first waits for the clock, PATIENCE_S at most; and
        in the middle of an update, for its end.
        """
        trusted = await self.clock_watch.ask(AwaitTrust(), timeout=PATIENCE_S + ASK_TIMEOUT_S)
        await self._updated()
        return await self.jobs.ask(ResumeLost(trusted), timeout=600)

    async def _updated(self) -> None:
        """Wait until no update is under way, for REST_OF_UPDATE_S at most: none takes jobs."""
        try:
            free = AwaitFree(UPDATE_LOCK)
            await self._tasks.ask(free, timeout=REST_OF_UPDATE_S + ASK_TIMEOUT_S)
        except PiodError as refusal:
            log.warning("the end of an update is not waited for: %s", refusal.message)


@asynccontextmanager
async def build(
    board: Board,
    clock: Clock,
    *,
    data_dir: Path,
    unit_name: str,
    leader_name: str,
    config: ConfigFiles,
    wiring: Wiring,
    models: Models,
    system: SystemPort,
    found_at_start: Sequence[str] = (),
    fixed_model: ModelKey | None = None,
    default_model: ModelKey | None = None,
    kinds: Mapping[str, type[Job]] = JOBS,
    protocols: Sequence[type[CalibrationProtocol]] = PROTOCOLS,
    installer: PackageInstaller | None = None,
    guard: GuardLink | None = None,
    keep_fds: Sequence[int] = (),
    host: Host | None = None,
    simulator: SimulatorHandlers | None = None,
    before_answer: Callable[[], None] | None = None,
    imported: Callable[[], None] = lambda: None,
) -> AsyncIterator[Daemon]:
    """A running daemon on ``board``; it ends, outputs off, when the context does.

    ``found_at_start``: problems for health to tell, that the start has found.
    ``kinds`` are the built-in jobs, ``protocols`` the calibration protocols; plugins add
    theirs. ``installer`` installs packages of plugins; without one an install is recorded
    and runs nothing.
    ``guard`` is the guard's link, if there is one; a new guard inherits
    ``keep_fds``. ``host`` is the computer, None: this one. ``simulator`` adds the
    simulator's doors; ``before_answer`` runs before each answer leaves. ``imported`` is
    called when an import is complete: ``wiring``, ``models`` and the names may be
    outdated then.
    """
    config.current()  # so that there is a last good one, should it be broken later
    hub = Hub()
    supervisor = Supervisor(clock)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(close_port, board.i2c)
        stack.push_async_callback(close_port, board.gpio)
        stack.push_async_callback(close_port, board.pwm)
        stack.push_async_callback(system.disconnect)
        stack.push_async_callback(supervisor.stop_all)

        def start(name: str, factory: Callable[[], T]) -> Ref[T]:
            # T is the actor that the factory makes; the supervisor need not know which
            made = cast("Callable[[], Actor[object]]", factory)
            return cast("Ref[T]", supervisor.start(name, made, FOR_EVER).ref)

        # outputs off before anything else
        buses = await open_buses(board, start, wiring=wiring, clock=clock, hub=hub, guard=guard)
        guardian: Ref[Guardian] | None = None
        if guard is not None:
            guardian = start("guardian", lambda: Guardian(guard, buses.pwm, keep_fds, [buses.leds]))

        # the databases close after the actors that write to them
        stores = await stack.enter_async_context(
            open_stores(data_dir, config, clock, writers_end=supervisor.stop_all)
        )
        ledger = stores.ledger
        rebooted = await rebooted_since(ledger)
        model = UnitModel(
            models, ledger, fixed_model, await remembered_model(models, ledger) or default_model
        )

        registry = JobRegistry(kinds)
        protocol_registry = ProtocolRegistry(protocols)
        plugins = Plugins(
            data_dir,
            registry,
            installer or SimulatedInstaller(data_dir, clock.hold),
            clock.hold,
            skip=bool(os.environ.get("SKIP_PLUGINS")),
            protocols=protocol_registry,
        )
        await plugins.load()

        def make_unit(
            record: JobRecord, life: Life, lost: Callable[[PiodError], None], publisher: Publisher
        ) -> Unit:
            return JobUnit(
                record=record,
                life=life,
                lost=lost,
                publisher=publisher,
                pwm=buses.pwm,
                gpio=buses.gpio,
                i2c=buses.i2c,
                leds=buses.leds,
                wiring=wiring,
                calibrations=stores.calibrations,
                estimators=stores.estimators,
                hub=hub,
                ledger=ledger,
                host=host or LinuxHost(data_dir),
                health=lambda: health.problems(),
                heater=heater,
                model=model,
                volumes=volumes,
                clock=clock,
            )

        def make_session_unit(
            session: SessionRow, life: Life, lost: Callable[[PiodError], None]
        ) -> Unit:
            record = session_record(session, unit_name, leader_name, config.current(), clock)
            return make_unit(record, life, lost, Publisher(record, hub, clock))

        def facts() -> Facts:
            return Facts(
                unit_name=unit_name,
                config=config.current(),
                now_unix_s=clock.time(),
                running_jobs=hub.running_jobs,
                model_name=None if model.key is None else model.key[0],
                pwm_channels=frozenset(wiring.pwm_pins) - {wiring.heater_pwm_channel},
                adc_signals=frozenset(wiring.adc),
            )

        async def power_off(reason: str) -> None:
            await machine.ask(PowerOff(), timeout=COMMAND_TIMEOUT_S)

        heater = start(
            "heater",
            lambda: HeaterInterlock(
                pwm=buses.pwm,
                pin=wiring.pwm_pins[wiring.heater_pwm_channel],
                thermometer=thermometer(BusAccess(buses.i2c, urgent=True), wiring),
                limits=lambda: model.limits,
                ledger=ledger,
                power_off=power_off,
                clock=clock,
            ),
        )
        start("recorder", lambda: Recorder(hub, ledger, stores.readings, clock))
        dose_owners: dict[str, Life] = {}
        volumes = start(
            "volumes",
            lambda: VolumeLedger(
                unit_name=unit_name,
                store=VolumeStore(ledger),
                config=config.current,
                limits=lambda: model.limits,
                hub=hub,
                clock=clock,
                owners=dose_owners,
            ),
        )
        jobs = start(
            "jobs",
            lambda: Jobs(
                unit_name=unit_name,
                leader_name=leader_name,
                kinds=registry,
                make_unit=make_unit,
                model=model,
                outputs=buses.outputs,
                ledger=ledger,
                config=config,
                hub=hub,
                clock=clock,
            ),
        )
        workshop = Workshop(
            sessions=Sessions(ledger.database),
            calibrations=stores.calibrations,
            estimators=stores.estimators,
            cluster=ClusterEstimators(
                unit_name=unit_name,
                leader_name=leader_name,
                store=stores.estimators,
                config=config.current,
                hold=clock.hold,
            ),
            jobs=jobs,
            make_unit=make_session_unit,
        )
        sessions = start(
            "calibration sessions",
            lambda: CalibrationSessions(
                protocols=protocol_registry, workshop=workshop, facts=facts, clock=clock
            ),
        )
        machine = start(
            "system",
            lambda: System(
                system,
                is_leader=unit_name == leader_name,
                jobs=jobs,
                outputs=buses.outputs,
                ledger=ledger,
            ),
        )
        clock_watch = start("clock watch", lambda: ClockWatch(clock, system, rebooted=rebooted))

        async def rest_of_update(request_id: str) -> JsonValue:
            await machine.ask(AwaitUpdate(request_id), timeout=UPDATE_TIMEOUT_S)
            return True

        # last, so that they end first: what their work waits for must not fail them at the end
        update = Outliving(UPDATE_LOCK, rest_of_update)
        tasks = start("tasks", lambda: Tasks(ledger, clock.time, update))
        await asyncio.sleep(0)
        await jobs.ask(Running(), timeout=30)
        # an update that goes on keeps jobs out before anybody can ask for one
        await tasks.ask(LookAtLock(UPDATE_LOCK), timeout=30)

        health = Health(
            config=config,
            model=model,
            ledger=ledger,
            buses=buses.by_name,
            i2c=buses.i2c,
            guardian=guardian,
            heater=heater,
            volumes=volumes,
            clock_watch=clock_watch,
            found_at_start=[*found_at_start, *([stores.problem] if stores.problem else ())],
        )

        async def reload_files() -> None:
            """After an import; the rest is read again whenever it has changed."""
            await stores.prepare()
            await plugins.load()
            await volumes.ask(Unconfirm(), timeout=LEDGER_TIMEOUT_S)

        application = build_front(
            unit_name=unit_name,
            leader_name=leader_name,
            data_dir=data_dir,
            clock=clock,
            config=config,
            models=models,
            stores=stores,
            health=health,
            hardware_check=HardwareCheck(
                buses.i2c, data_dir / "hardware", wiring.hat_version, clock.hold
            ),
            tasks=tasks,
            jobs=jobs,
            kinds=registry,
            plugins=plugins,
            system=machine,
            sessions=sessions,
            protocols=protocol_registry,
            facts=facts,
            volumes=volumes,
            reload=reload_files,
            imported=imported,
            simulator=simulator,
            before_answer=before_answer,
        )
        daemon = Daemon(
            unit_name=unit_name,
            jobs=jobs,
            buses=buses,
            hub=hub,
            ledger=ledger,
            readings=stores.readings,
            clock_watch=clock_watch,
            heater=heater,
            tasks=tasks,
            own_jobs=[name for name, kind in kinds.items() if kind.starts_with_daemon],
            config=config,
            application=application,
        )
        stack.push_async_callback(_power_settled, tasks)
        stack.push_async_callback(daemon.end_all_jobs)
        yield daemon


async def _power_settled(tasks: Ref[Tasks]) -> None:
    """A machine that goes down ends piod before it has answered that it does, or just after."""
    try:
        await tasks.ask(AwaitFree(POWER_LOCK), timeout=POWER_TIMEOUT_S)
    except PiodError:
        log.warning("the reboot or shutdown that was asked for has not begun")
