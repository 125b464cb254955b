"""A whole unit inside the test's event loop: real HTTP, real SQLite, simulated wire.

Its clock is the virtual one: nothing takes longer than the machine needs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from piod.clock import SimulatedClock
from piod.config import DEFAULT_PWM_ROLES, ConfigFiles
from piod.daemon import Daemon, build
from piod.host import Host
from piod.http.simulator import SimulatorHandlers
from piod.hw.models import load_models
from piod.hw.ports import PwmPort
from piod.hw.simulator.board import SimulatedBoard
from piod.hw.simulator.chips import chips_of
from piod.hw.simulator.plant import Plant
from piod.hw.simulator.pumps import ROLES
from piod.hw.simulator.surroundings import USUAL_ANGLES
from piod.hw.simulator.system import PowerAction, SimulatedSystem
from piod.hw.wiring import load_wiring
from piod.jobs.job import Job
from piod.jobs.registry import JOBS
from piod.system import SystemPort

STIRRING_PIN = 17
MODEL = ("pioreactor_20ml", "1.1")


class Unit:
    """The unit under test and the ways a user has into it."""

    def __init__(
        self,
        daemon: Daemon,
        client: TestClient[Any, Any],
        clock: SimulatedClock,
        board: SimulatedBoard,
        plant: Plant,
        data_dir: Path,
        machine: SimulatedSystem,
        power: list[PowerAction],
    ) -> None:
        self.daemon = daemon
        self.client = client
        self.clock = clock
        self.board = board
        self.plant = plant
        self.data_dir = data_dir
        self.machine = machine
        self.power = power
        """What the simulated machine was told to do; nothing follows from it here."""

    @property
    def duty(self) -> float:
        """What the stirrer's pin holds, percent."""
        return self.plant.duties.get(STIRRING_PIN, 0.0)

    async def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of one request."""
        data = None if body is None else json.dumps(body)
        async with self.client.request(method, path, data=data) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> Any:
        """The JSON of a GET that must succeed."""
        status, body = await self.request("GET", path)
        assert status == 200, body
        return body

    async def task(self, accepted: Mapping[str, Any]) -> dict[str, Any]:
        """Wait for a task to be over; simulated time goes on meanwhile."""
        for _ in range(10_000):
            status, body = await self.request("GET", accepted["result_url_path"])
            if status == 200:
                return dict(body)
            await self.clock.sleep(0.01)
        raise AssertionError("the task is never over")

    async def post(self, path: str, body: object = None) -> dict[str, Any]:
        """A command that must be accepted; its finished task."""
        status, accepted = await self.request("POST", path, body)
        assert status == 202, accepted
        return await self.task(accepted)

    async def run(self, job_name: str, **body: object) -> str:
        """Run a job; its id once it is ready."""
        task = await self.post(f"/unit_api/jobs/run/job_name/{job_name}", body)
        assert task["status"] == "complete", task
        return str(task["result"]["job_id"])

    async def settings(self, job_name: str = "stirring") -> dict[str, str]:
        """What the job publishes."""
        body = await self.get(f"/unit_api/jobs/settings/job_name/{job_name}")
        return dict(body["settings"])

    async def change(self, job_id: str, **settings: object) -> tuple[int, Any]:
        """PATCH the settings of a job; ``state`` stands for ``$state``."""
        named = {("$state" if key == "state" else key): value for key, value in settings.items()}
        path = f"/unit_api/jobs/settings/job_id/{job_id}"
        return await self.request("PATCH", path, {"settings": named})

    async def measured_rpm(self) -> float:
        """The last measured speed."""
        return float(json.loads((await self.settings())["measured_rpm"])["measured_rpm"])

    async def history(self) -> list[dict[str, Any]]:
        """All jobs, newest first."""
        return list(await self.get("/unit_api/jobs"))


@asynccontextmanager
async def running_unit(
    data_dir: Path,
    clock: SimulatedClock,
    *,
    seed: int = 1,
    config_ini: str | None = None,
    kinds: Mapping[str, type[Job]] = JOBS,
    fixed_model: tuple[str, str] | None = None,
    default_model: tuple[str, str] | None = MODEL,
    leader_name: str = "leader01",
    hat_version: str = "1.2",
    wired_for: tuple[str, str] = MODEL,
    angles: Mapping[str, str] = USUAL_ANGLES,
    system: SystemPort | None = None,
    host: Host | None = None,
    pwm: PwmPort | None = None,
    plant: Plant | None = None,
) -> AsyncIterator[Unit]:
    """A unit on ``data_dir`` for as long as the context lasts.

    ``wired_for``: the model whose photodiodes it has; ``angles``: theirs, by signal.
    ``system``: instead of the simulated machine. ``host``: instead of this computer.
    ``pwm``: instead of the simulated outputs; the plant notices nothing of it then.
    ``plant``: that of a unit before, which was wired alike; its outputs are off from now on.
    """
    if config_ini is not None:
        (data_dir / "config.ini").write_text(config_ini)
    wiring = load_wiring(data_dir / "hardware", hat_version, wired_for)
    plant = plant or Plant(
        seed=seed,
        stirring_pin=STIRRING_PIN,
        heating_pin=wiring.pwm_pins[wiring.heater_pwm_channel],
        pump_pins={role: wiring.pwm_pins[DEFAULT_PWM_ROLES[role]] for role in ROLES},
        volume_ml=15,
        capacity_ml=20,
    )
    board = SimulatedBoard(
        clock,
        plant=plant,
        pwm_pins=tuple(wiring.pwm_pins.values()),
        hall_line=wiring.hall_pin,
        button_line=wiring.button_pin,
        led_line=wiring.led_pin,
        i2c_chips=chips_of(wiring),
        angles=angles,
    )
    if pwm is not None:
        board.pwm = pwm  # type: ignore[assignment] # the daemon only wants the port
    power: list[PowerAction] = []
    machine = SimulatedSystem(data_dir / "simulator", clock, power.append)
    machine.faults = board.faults
    async with (
        AsyncExitStack() as stack,
        build(
            board,
            clock,
            data_dir=data_dir,
            unit_name="pio01",
            leader_name=leader_name,
            config=ConfigFiles(data_dir),
            wiring=wiring,
            models=load_models(data_dir / "models"),
            system=system or machine,
            fixed_model=fixed_model,
            default_model=default_model,
            kinds=kinds,
            host=host,
            simulator=SimulatorHandlers(board, clock, machine),
        ) as daemon,
        TestClient(TestServer(daemon.application)) as client,
    ):
        stack.callback(machine.close)
        yield Unit(daemon, client, clock, board, plant, data_dir, machine, power)
        await asyncio.sleep(0)
