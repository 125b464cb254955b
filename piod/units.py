"""The two kinds of unit: a Raspberry Pi, and a simulated one. What :func:`piod.daemon.build` gets.

:class:`Parts` are what a unit reads from its files once, when it starts.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from piod import logs
from piod.actors.hub import Hub
from piod.clock import SimulatedClock, WallClock
from piod.config import DEFAULT_PWM_ROLES, Config
from piod.daemon import Daemon, build
from piod.dbus import SystemBus
from piod.errors import ConfigurationError
from piod.http.simulator import SimulatorHandlers
from piod.hw.guard import GuardLink
from piod.hw.models import Models, load_models
from piod.hw.safe import led_recipes
from piod.hw.simulator.system import SimulatedSystem
from piod.hw.wiring import Wiring, led_chip, load_wiring
from piod.launch import SIMULATED_MODEL, Identity, Launch
from piod.machine import Machine
from piod.storage.layout import NTP_NOTE_NAME
from piod.system import SystemPort
from piod.update_files import UpdateFiles


@dataclass(frozen=True)
class Parts:
    """Two are equal when a start with the one makes the same unit as one with the other."""

    identity: Identity
    wiring: Wiring
    models: Models
    plugged_in: Mapping[str, str]
    """What is connected to the board of a simulated unit: PWM channel by role."""

    @classmethod
    def read(cls, launch: Launch) -> Parts:
        """As the files are now. Blocks. Raises PiodError when no unit could start with them."""
        identity = launch.identity()
        wired = identity.wired
        models = load_models(launch.data_dir / "models")
        if wired.model is not None:
            models.get(*wired.model)
        return cls(
            identity,
            load_wiring(launch.data_dir / "hardware", wired.hat_version, wired.model),
            models,
            _plugged_in(launch.config.current()),
        )


def _machine(data_dir: Path, simulated: SystemPort | None = None) -> SystemPort:
    """What systemd runs here; or ``simulated``, unless the environment names a bus to use."""
    if simulated is not None and not os.environ.get("DBUS_SYSTEM_BUS_ADDRESS"):
        return simulated
    return Machine(SystemBus(), UpdateFiles(), data_dir / NTP_NOTE_NAME)


@asynccontextmanager
async def real_unit(
    launch: Launch, parts: Parts, imported: Callable[[], None], *, guard: GuardLink
) -> AsyncIterator[Daemon]:
    """The daemon of a Raspberry Pi. ``imported``: see :func:`piod.daemon.build`."""
    from piod.hw.linux.board import LinuxBoard
    from piod.hw.linux.gpio import LineSpec
    from piod.plugins.pip_installer import PipInstaller, choose_environment

    wiring = parts.wiring
    chip = led_chip(wiring.hat_version)
    for output, recipe in led_recipes(chip, wiring.dac_address).items():
        guard.register(output, recipe)
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
        models=parts.models,
        system=_machine(launch.data_dir),
        found_at_start=launch.problems,
        fixed_model=launch.wired.fixed_model,
        installer=PipInstaller(choose_environment(launch.data_dir)),
        guard=guard,
        keep_fds=(launch.lock_fd,),
        imported=imported,
    ) as daemon:
        with _logs_on(daemon.hub):
            yield daemon


@asynccontextmanager
async def simulated_unit(
    launch: Launch,
    parts: Parts,
    imported: Callable[[], None],
    *,
    guard: GuardLink,
    clock: SimulatedClock,
    system: SimulatedSystem,
) -> AsyncIterator[Daemon]:
    """The daemon of a simulated unit, with its plant and files."""
    from piod.hw.simulator.setup import simulated_unit as simulated_board

    model = parts.models.get(*(launch.wired.model or SIMULATED_MODEL))
    async with (
        simulated_board(
            launch.data_dir,
            clock,
            wiring=parts.wiring,
            roles=parts.plugged_in,
            capacity_ml=model.limits.reactor_capacity_ml,
            max_fill_ml=model.limits.reactor_max_fill_volume_ml,
            config=launch.config.current(),
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
            wiring=parts.wiring,
            models=parts.models,
            system=_machine(launch.data_dir, system),
            found_at_start=launch.problems,
            fixed_model=launch.wired.fixed_model,
            default_model=SIMULATED_MODEL,
            guard=guard,
            keep_fds=(launch.lock_fd,),
            simulator=SimulatorHandlers(board, clock, system),
            before_answer=silicon.flush,
            imported=imported,
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
