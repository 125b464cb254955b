"""Calibration protocols of owners: the example of docs/plugins.md, and some that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from piod.plugins.loading import load_file
from tests.http.test_sessions_api import API, abort, advance, post, shown, start
from tests.plugins.test_automation_plugins import install
from tests.unit import Unit

ONE_RUN = {"protocol_name": "one_run", "target_device": "media_pump"}


async def test_the_example_calibrates_a_pump_until_it_is_uninstalled(unit: Unit) -> None:
    await install(unit, "one_run")
    listed = {p["id"]: p for p in await unit.get("/unit_api/calibration_protocols")}
    assert listed["media_pump_one_run"]["description"].startswith("Run the media pump once")
    session_id = await start(unit, **ONE_RUN)
    await advance(unit, session_id, calibration_name="quick")
    await advance(unit, session_id)
    pump = unit.plant.pumps["media"]
    answer = await advance(unit, session_id, volume_ml=pump.pumped_ml)
    assert answer["session"]["status"] == "complete"
    active = (await unit.get("/unit_api/active_calibrations"))["media_pump"]
    assert active["calibration_name"] == "quick"
    assert active["curve_data_"]["coefficients"][0] == pytest.approx(pump.ml_per_s, rel=0.03)
    unfinished = await start(unit, **ONE_RUN)
    await unit.post("/unit_api/plugins/uninstall", {"args": ["one_run"]})
    assert "media_pump_one_run" not in {
        p["id"] for p in await unit.get("/unit_api/calibration_protocols")
    }
    assert (await unit.request("GET", f"{API}/{unfinished}"))[0] == 409
    assert (await abort(unit, unfinished))["session"]["status"] == "aborted"
    assert (await shown(unit, session_id))["session"]["status"] == "complete"


SOURCE = """\
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.steps import Step

async def go(turn):
    {go}

class Mine(CalibrationProtocol):
    name = {name!r}
    devices = {devices}
    title = "Mine"
    description = "Mine."
    steps = {steps}
"""
GOOD: dict[str, Any] = {
    "go": "return turn.complete({})",
    "name": "mine",
    "devices": "('my_scale',)",
    "steps": "(Step('a', 'info', 'A', then=go),)",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Mine!"}, "lower-case"),
        ({"devices": "'my_scale'"}, "devices"),
        ({"devices": "('../x',)"}, "../x"),
        ({"devices": "('sessions',)"}, "sessions"),
        ({"steps": "()"}, "at least one"),
        ({"steps": "(Step('a', 'info', 'A', then='b'),)"}, "'b'"),
        ({"steps": "(Step('a', 'info', 'A', then=print),)"}, "async def"),
        ({"steps": "(Step('a', 'info', 'A', then=go), Step('a', 'info', 'A', then=go))"}, "two"),
    ],
)
def test_a_wrong_protocol_is_told_and_not_added(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE.format(**GOOD))
    assert [one.name for one in load_file(path).protocols] == ["mine"]
    path.write_text(SOURCE.format(**{**GOOD, **changes}))
    loaded = load_file(path)
    assert loaded.protocols == ()
    assert said in "; ".join(loaded.problems)


async def test_a_protocol_with_a_bug_harms_its_own_step_alone(unit: Unit) -> None:
    plugins = unit.data_dir / "plugins"
    plugins.mkdir()
    source = unit.data_dir.parent / "mine.py"
    source.write_text(SOURCE.format(**{**GOOD, "go": "return 1 / 0"}))
    task = await unit.post(
        "/unit_api/plugins/install", {"args": ["mine"], "options": {"source": str(source)}}
    )
    assert task["status"] == "complete", task
    session_id = await start(unit, protocol_name="mine", target_device="my_scale")
    status, body = await post(unit, session_id)
    assert (status, "bug" in body["error"]) == (500, True)
    assert (await shown(unit, session_id))["step"]["step_id"] == "a"
    assert await start(unit)
