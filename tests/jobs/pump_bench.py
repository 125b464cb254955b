"""Pumps under test: calibrated, watched on the wire, and what the ledger and the plant say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from piod.clock import SimulatedClock
from piod.events import ReadingTaken
from tests.unit import Unit, running_unit

RUN = "/unit_api/jobs/run/job_name"
PINS = {"media": 13, "alt_media": 16, "waste": 12}
EXPERIMENT = "exp"
VIAL = "[bioreactor]\ninitial_volume_ml = 15\nefflux_tube_volume_ml = 15\n"
MAX_FILL_ML = 18.0
DEVICE = """\
calibration_type: simple_peristaltic_pump
calibration_name: {name}
calibrated_on_pioreactor_unit: pio01
created_at: 2026-05-20T18:02:11Z
curve_data_: {curve}
recorded_data: {recorded}
hz: 200
dc: {dc}
voltage: 12
"""


@asynccontextmanager
async def bench(data_dir: Path, clock: SimulatedClock, **more: Any) -> AsyncIterator[Unit]:
    """A unit whose vial holds 15 mL up to its efflux tube, and its ledger knows it."""
    async with running_unit(data_dir, clock, config_ini=VIAL, **more) as unit:
        yield unit


def duty(unit: Unit, role: str) -> float:
    """What the pin of the pump holds, percent."""
    return unit.plant.duties.get(PINS[role], 0.0)


def duties(unit: Unit) -> dict[str, float]:
    return {role: duty(unit, role) for role in PINS}


ALL_OFF = dict.fromkeys(PINS, 0.0)


def flow_rate(unit: Unit, role: str) -> float:
    """The true rate at full duty, mL/s."""
    return unit.plant.pumps[role].ml_per_s


def pumped_ml(unit: Unit, role: str) -> float:
    """What the pump has really moved."""
    unit.board.truth()
    return unit.plant.pumps[role].pumped_ml


def pumped_s(unit: Unit, role: str) -> float:
    """How long the pump has really been on."""
    unit.board.truth()
    seconds = unit.plant.pumps[role].to_json()["pumped_s"]
    assert isinstance(seconds, float)
    return seconds


def in_vial_ml(unit: Unit) -> float:
    unit.board.truth()
    return unit.plant.vial.volume_ml


async def calibrate(
    unit: Unit,
    role: str,
    coefficients: list[float] | None = None,
    *,
    curve: str | None = None,
    recorded: str = "{x: [1, 10], y: [0.1, 1]}",
    dc: float = 100,
) -> None:
    """An active calibration; without more a true one, through the origin."""
    if curve is None:
        curve = f"{{type: poly, coefficients: {coefficients or [flow_rate(unit, role), 0]}}}"
    text = DEVICE.format(name=f"{role}_cal", curve=curve, recorded=recorded, dc=dc)
    status, body = await unit.request(
        "POST",
        f"/unit_api/calibrations/{role}_pump",
        {"calibration_data": text, "set_as_active": True},
    )
    assert status == 201, body


async def calibrate_all(unit: Unit) -> None:
    for role in PINS:
        await calibrate(unit, role)


async def pump(unit: Unit, job_name: str, **options: object) -> str:
    """Run an action; its id once its first pump turns."""
    return await unit.run(job_name, options=options, env={"EXPERIMENT": EXPERIMENT})


async def refused(unit: Unit, job_name: str, **options: object) -> tuple[int, dict[str, Any]]:
    """The refusal of a run before it is accepted."""
    body = {"options": options, "env": {"EXPERIMENT": EXPERIMENT}}
    status, answer = await unit.request("POST", f"{RUN}/{job_name}", body)
    assert status >= 400, answer
    return status, answer


async def failed(unit: Unit, job_name: str, **options: object) -> str:
    """The error of a run that was accepted and then failed."""
    body = {"options": options, "env": {"EXPERIMENT": EXPERIMENT}}
    task = await unit.post(f"{RUN}/{job_name}", body)
    assert task["status"] == "failed", task
    return str(task["error"])


async def volumes(unit: Unit) -> dict[str, Any]:
    """Variables and range of the ledger, in one."""
    answer = await unit.get(f"/unit_api/bioreactor/experiments/{EXPERIMENT}")
    return {**answer["values"], **answer["range_ml"], "doubt": answer["doubt"]}


async def idle(unit: Unit, step_s: float = 0.5, within_s: float = 600.0) -> None:
    """Wait until no job runs."""
    for _ in range(round(within_s / step_s)):
        if not await unit.get("/unit_api/jobs/running"):
            return
        await unit.clock.sleep(step_s)
    raise AssertionError("jobs run for ever")


async def row(unit: Unit, job_id: str) -> dict[str, Any]:
    [found] = [row for row in await unit.history() if row["job_id"] == job_id]
    return found


class Doses:
    """The readings of doses, since it was entered."""

    def __init__(self, unit: Unit) -> None:
        self._events = unit.daemon.hub.subscribe(capacity=100_000)

    def __enter__(self) -> Doses:
        self._events.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._events.close()

    async def taken(self) -> list[ReadingTaken]:
        self._events.close()
        return [
            event
            async for event in self._events
            if isinstance(event, ReadingTaken) and event.kind == "dosing"
        ]
