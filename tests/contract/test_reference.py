"""Every endpoint of the reference, on a fresh unit, against its example.

``unit_api.json`` is the reference as data. For each endpoint a situation is made
over HTTP, then status, content type, and the shape and types of the body are
compared with the example: keys may be added, none may be missing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from piod.actors import system
from piod.clock import SimulatedClock
from piod.jobs.job import Job, Options
from piod.jobs.job import Unit as Parts
from piod.jobs.registry import JOBS
from tests.unit import Unit, running_unit

ENDPOINTS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "unit_api.json").read_text())

CALIBRATION = """\
calibration_type: od600
calibration_name: cal_1
calibrated_on_pioreactor_unit: pio07
created_at: 2026-02-11T14:05:09.500Z
curve_data_: {type: poly, coefficients: [0.5, 0.04]}
x: OD600
y: Voltage
recorded_data: {x: [2.0, 1.0, 0.0], y: [1.04, 0.54, 0.04]}
ir_led_intensity: 80.0
angle: '90'
pd_channel: '2'
"""
ESTIMATOR = """\
estimator_type: od_fused_estimator
estimator_name: est_1
calibrated_on_pioreactor_unit: pioXR2
created_at: 2026-03-19T08:00:00Z
ir_led_intensity: 75.0
angles: ['45', '90', '135']
mu_splines:
  '45':  {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.5, 1.5, 0.0, 0.0]]}
  '90':  {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.4, 1.55, 0.0, 0.0]]}
  '135': {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.3, 1.6, 0.0, 0.0]]}
sigma_splines_log:
  '45':  {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.2, 0.1, 0.0, 0.0]]}
  '90':  {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.2, 0.0, 0.0, 0.0]]}
  '135': {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.2, -0.1, 0.0, 0.0]]}
min_logc: -1.9
max_logc: 0.1
sigma_floor: 0.04
recorded_data: {by_angle: {}}
"""


class Watch(Job):
    """A job of the daemon's own, that stop-all leaves alone."""

    job_name = "watch"
    is_long_running = True

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls()

    async def run(self) -> None:
        await asyncio.Event().wait()


@dataclass
class Situation:
    """What fills the path, and what is sent if not the example."""

    path: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    form: Callable[[], aiohttp.FormData] | None = None


Prepare = Callable[[Unit], Awaitable[Situation]]
PREPARE: dict[str, Prepare] = {}


def situation(*endpoints: str) -> Callable[[Prepare], Prepare]:
    def note(prepare: Prepare) -> Prepare:
        PREPARE.update(dict.fromkeys(endpoints, prepare))
        return prepare

    return note


async def upload(unit: Unit, *, active: bool = False) -> None:
    body = {"calibration_data": CALIBRATION, "set_as_active": active}
    status, answer = await unit.request("POST", "/unit_api/calibrations/od", body)
    assert status == 201, answer


def put(unit: Unit, path: str, text: str) -> None:
    """A file that a leader or a person put into the data directory."""
    (unit.data_dir / path).parent.mkdir(parents=True, exist_ok=True)
    (unit.data_dir / path).write_text(text)


@situation("GET /unit_api/task_results/{task_id}")
async def _(unit: Unit) -> Situation:
    _, accepted = await unit.request("POST", "/unit_api/jobs/run/job_name/stirring")
    await unit.task(accepted)
    return Situation({"task_id": accepted["task_id"]})


@situation("POST /unit_api/system/update/{target}")
async def _(unit: Unit) -> Situation:
    return Situation({"target": "app"})


@situation("POST /unit_api/system/remove_file")
async def _(unit: Unit) -> Situation:
    put(unit, "storage/cache.txt", "x")
    return Situation()


@situation("GET /unit_api/system/path/{req_path}")
async def _(unit: Unit) -> Situation:
    return Situation({"req_path": ""})


@situation("POST /unit_api/jobs/run/job_name/{job_name}")
async def _(unit: Unit) -> Situation:
    return Situation({"job_name": "stirring"})


@situation(
    "GET /unit_api/jobs/running/experiments/{experiment}",
    "GET /unit_api/jobs/running",
    "GET /unit_api/jobs/running/{job_name}",
    "GET /unit_api/jobs/settings/job_name/{job_name}",
    "GET /unit_api/jobs/settings/job_name/{job_name}/setting/{setting}",
    "PATCH /unit_api/jobs/settings/job_name/{job_name}",
    "POST /unit_api/jobs/stop",
    "POST /unit_api/jobs/stop/all",
)
async def _(unit: Unit) -> Situation:
    await unit.run("stirring", options={"target_rpm": "200"}, env={"EXPERIMENT": "Exp001"})
    return Situation({"experiment": "Exp001", "job_name": "stirring", "setting": "target_rpm"})


@situation("GET /unit_api/long_running_jobs/running")
async def _(unit: Unit) -> Situation:
    await unit.run("watch")
    return Situation()


@situation("GET /unit_api/plugins/installed", "POST /unit_api/plugins/uninstall")
async def _(unit: Unit) -> Situation:
    await unit.post("/unit_api/plugins/install", {"args": ["pioreactor-my-plugin"]})
    return Situation()


@situation("POST /unit_api/plugins/install")
async def _(unit: Unit) -> Situation:
    return Situation(body={"args": ["pioreactor-my-plugin"]})  # its source is elided


@situation("GET /unit_api/plugins/installed/{filename}")
async def _(unit: Unit) -> Situation:
    put(unit, "plugins/mine.py", 'def my_plugin_entry():\n    return "ok"\n')
    return Situation({"filename": "mine.py"})


@situation("POST /unit_api/calibrations/{device}")
async def _(unit: Unit) -> Situation:
    return Situation({"device": "od"}, {"calibration_data": CALIBRATION})  # the example is elided


@situation(
    "GET /unit_api/calibrations",
    "GET /unit_api/active_calibrations",
    "GET /unit_api/calibrations/{device}",
    "GET /unit_api/calibrations/{device}/{cal_name}",
    "DELETE /unit_api/calibrations/{device}/{calibration_name}",
    "PATCH /unit_api/active_calibrations/{device}/{cal_name}",
    "DELETE /unit_api/active_calibrations/{device}",
    "GET /unit_api/zipped_calibrations",
)
async def _(unit: Unit) -> Situation:
    await upload(unit, active=True)
    return Situation({"device": "od", "cal_name": "cal_1", "calibration_name": "cal_1"})


@situation(
    "GET /unit_api/estimators",
    "GET /unit_api/active_estimators",
    "GET /unit_api/estimators/{device}",
    "GET /unit_api/estimators/{device}/{estimator_name}",
    "PATCH /unit_api/active_estimators/{device}/{estimator_name}",
    "DELETE /unit_api/active_estimators/{device}",
    "DELETE /unit_api/estimators/{device}/{estimator_name}",
)
async def _(unit: Unit) -> Situation:
    put(unit, "storage/estimators/od/est_1.yaml", ESTIMATOR)
    path = "/unit_api/active_estimators/od/est_1"
    assert (await unit.request("PATCH", path))[0] == 200
    return Situation({"device": "od", "estimator_name": "est_1"})


@situation("POST /unit_api/import_zipped_dot_pioreactor")
async def _(unit: Unit) -> Situation:
    async with unit.client.get("/unit_api/zipped_dot_pioreactor") as answer:
        archive = await answer.read()

    def form() -> aiohttp.FormData:
        data = aiohttp.FormData()
        data.add_field("archive", archive, filename="pio01_dot_pioreactor.zip")
        return data

    return Situation(form=form)


@situation(
    "GET /unit_api/calibrations/sessions/{session_id}",
    "POST /unit_api/calibrations/sessions/{session_id}/inputs",
    "POST /unit_api/calibrations/sessions/{session_id}/abort",
)
async def _(unit: Unit) -> Situation:
    body = {"protocol_name": "od_calibration", "target_device": "od"}
    status, answer = await unit.request("POST", "/unit_api/calibrations/sessions", body)
    assert status == 201, answer
    return Situation({"session_id": answer["session"]["session_id"]})


CONTENT_TYPES = {"json": "application/json", "python": "text/plain", "text": "application/zip"}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e['method']} {e['path']}")
async def test_it_answers_as_the_reference_shows(
    endpoint: dict[str, Any],
    tmp_path: Path,
    clock: SimulatedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(system, "LEADER_DELAY_S", 0.01)
    name = f"{endpoint['method']} {endpoint['path']}"
    kinds = {**JOBS, "watch": Watch}
    config = "[od_config.photodiode_channel]\n1=REF\n2=90\n"
    async with running_unit(
        tmp_path, clock, leader_name="pio01", kinds=kinds, config_ini=config
    ) as unit:
        made = await PREPARE[name](unit) if name in PREPARE else Situation()
        example = endpoint.get("request", {}).get("example")
        body = made.body if made.body is not None else example
        data: Any = json.dumps(body) if body is not None else None
        if made.form is not None:
            data = made.form()
        path = endpoint["path"].format(**made.path)
        async with unit.client.request(endpoint["method"], path, data=data) as answer:
            content = await answer.read()
            charset = answer.charset
        expected = endpoint["response"]
        assert answer.status == expected["status"], content
        assert answer.content_type == CONTENT_TYPES[expected["type"]]
        if expected["type"] == "json":
            body = json.loads(content)
            assert_shape(body, expected["example"])
            if expected["status"] >= 400:
                assert_error_object(body, expected["status"])
            if expected["status"] == 202:
                await assert_task_ends_well(unit, body)
        elif expected["type"] == "python":
            assert charset == "utf-8"
            assert content.decode().strip() == expected["example"].strip()
        else:
            assert content.startswith(b"PK")


def assert_error_object(body: object, status: int) -> None:
    """The schema of errors among the conventions of the reference, exactly."""
    assert isinstance(body, dict)
    assert set(body) == {"error", "error_info"}
    assert set(body["error_info"]) == {"cause", "remediation", "status"}
    assert body["error_info"]["status"] == status
    for text in (body["error"], body["error_info"]["cause"], body["error_info"]["remediation"]):
        assert isinstance(text, str)
        assert text


async def assert_task_ends_well(unit: Unit, accepted: Mapping[str, Any]) -> None:
    """An async endpoint's 202, by the conventions: polled until it is complete."""
    assert accepted["unit"] == "pio01"
    assert accepted["result_url_path"] == f"/unit_api/task_results/{accepted['task_id']}"
    task = await unit.task(accepted)
    assert task["status"] == "complete", task
    assert task["task_id"] == accepted["task_id"]
    assert "result" in task


async def test_a_file_in_the_data_directory_comes_as_text(unit: Unit) -> None:
    """The other half of "directory contents or file contents"."""
    put(unit, "notes/a.bin", "some text\n")
    async with unit.client.get("/unit_api/system/path/notes/a.bin") as answer:
        assert (answer.status, answer.content_type) == (200, "text/plain")
        assert answer.charset == "utf-8"
        assert await answer.text() == "some text\n"


def assert_shape(got: object, example: object, where: str = "body") -> None:
    """``got`` has all that ``example`` has, of the same types; it may have more."""
    if isinstance(example, dict):
        assert isinstance(got, dict), f"{where} is {got!r}"
        assert example.keys() <= got.keys(), f"{where} lacks {example.keys() - got.keys()}"
        for key, value in example.items():
            assert_shape(got[key], value, f"{where}.{key}")
    elif isinstance(example, list):
        assert isinstance(got, list), f"{where} is {got!r}"
        if example:
            assert got, f"{where} is empty"
            for index, item in enumerate(got):
                assert_shape(item, example[0], f"{where}[{index}]")
    elif example is None:
        assert got is None, where
    else:
        assert type(got) is type(example), f"{where} is {got!r}, not like {example!r}"
