"""The front end of one unit: who answers each route, and who may call.

Used by :mod:`piod.daemon` alone. The routes themselves are the lists in
:mod:`piod.http.table`; here they meet the actors and stores behind them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from piod import __version__
from piod.actors.actor import Ref
from piod.actors.hardware_check import HardwareCheck
from piod.actors.health import Health
from piod.actors.jobs import Jobs
from piod.actors.sessions import CalibrationSessions
from piod.actors.system import System
from piod.actors.tasks import Tasks
from piod.actors.volumes import VolumeLedger
from piod.calibrations.protocols.registry import ProtocolRegistry
from piod.calibrations.protocols.turn import Facts
from piod.clock import Clock
from piod.config import Config, ConfigFiles
from piod.http.application import build_application
from piod.http.archives import ArchiveHandlers
from piod.http.bioreactor import BioreactorHandlers
from piod.http.calibrations import CalibrationHandlers, EstimatorHandlers
from piod.http.files import FileHandlers
from piod.http.jobs import JobHandlers
from piod.http.pictures import PictureHandlers
from piod.http.plugins import PluginHandlers
from piod.http.readings import ReadingsHandlers
from piod.http.sessions import SessionHandlers
from piod.http.simulator import SimulatorHandlers
from piod.http.system import HardwareHandlers, SystemHandlers
from piod.http.table.bioreactor import bioreactor_routes
from piod.http.table.calibrations import calibration_routes, estimator_routes, session_routes
from piod.http.table.files import file_routes
from piod.http.table.jobs import job_routes
from piod.http.table.pictures import picture_routes
from piod.http.table.plugins import plugin_routes
from piod.http.table.readings import readings_routes
from piod.http.table.simulator import simulator_routes
from piod.http.table.system import system_routes
from piod.http.tasks import TaskHandlers
from piod.http.unit import UnitHandlers
from piod.hw.models import Models
from piod.plugins.plugins import Plugins
from piod.plugins.registry import JobRegistry
from piod.storage.tree import Tree
from piod.stores import Stores


@dataclass(frozen=True)
class _Access:
    """Who may call, by the configuration of this moment (piod.http.access)."""

    allowed_origins: Sequence[str]
    api_key: str | None
    unknown: str | None
    """Why it is not known who may call: the configuration could never be read."""

    @classmethod
    def of(cls, config: Config) -> _Access:
        origins = config.text("piod", "allowed_origins", "")
        return cls(
            [origin.strip() for origin in origins.split(",") if origin.strip()],
            config.text("ui_basic_auth", "api_key", None) or None,
            config.problem,
        )


def build_front(
    *,
    unit_name: str,
    leader_name: str,
    data_dir: Path,
    clock: Clock,
    config: ConfigFiles,
    models: Models,
    stores: Stores,
    health: Health,
    hardware_check: HardwareCheck,
    tasks: Ref[Tasks],
    jobs: Ref[Jobs],
    kinds: JobRegistry,
    plugins: Plugins,
    system: Ref[System],
    sessions: Ref[CalibrationSessions],
    protocols: ProtocolRegistry,
    facts: Callable[[], Facts],
    volumes: Ref[VolumeLedger],
    reload: Callable[[], Awaitable[None]],
    imported: Callable[[], None],
    simulator: SimulatorHandlers | None,
    before_answer: Callable[[], None] | None,
) -> web.Application:
    """The application of one unit.

    ``facts``: what protocols may know of the unit now. ``reload`` reads anew what an import
    has replaced; ``imported``, ``simulator`` and ``before_answer``: see
    :func:`piod.daemon.build`.
    """
    task_handlers = TaskHandlers(tasks, unit_name)
    tree = Tree(data_dir)
    routes = [
        *job_routes(
            UnitHandlers(
                unit_name=unit_name, version=__version__, clock=clock, examine=health.examine
            ),
            task_handlers,
            JobHandlers(jobs=jobs, tasks=task_handlers, ledger=stores.ledger, kinds=kinds),
        ),
        *plugin_routes(PluginHandlers(plugins, task_handlers)),
        *system_routes(
            SystemHandlers(
                system=system,
                tasks=task_handlers,
                clock=clock,
                config=config,
                is_leader=unit_name == leader_name,
            ),
            HardwareHandlers(tasks=task_handlers, models=models, check=hardware_check.check),
        ),
        *session_routes(SessionHandlers(sessions)),
        *picture_routes(PictureHandlers()),
        *calibration_routes(CalibrationHandlers(stores.calibrations, unit_name, protocols, facts)),
        *estimator_routes(EstimatorHandlers(stores.estimators, unit_name)),
        *bioreactor_routes(BioreactorHandlers(volumes)),
        *readings_routes(ReadingsHandlers(stores.readings, unit_name)),
        *file_routes(
            FileHandlers(tree, task_handlers, clock.hold),
            ArchiveHandlers(
                tree=tree,
                tasks=task_handlers,
                jobs=jobs,
                ledger=stores.ledger,
                unit_name=unit_name,
                leader_name=leader_name,
                version=__version__,
                clock=clock,
                reload=reload,
                imported=imported,
            ),
        ),
        *(simulator_routes(simulator) if simulator is not None else ()),
    ]

    async def flush() -> None:
        if before_answer is not None:
            before_answer()

    return build_application(
        routes,
        version=__version__,
        access=lambda: _Access.of(config.current()),
        before_answer=flush if before_answer is not None else None,
    )
