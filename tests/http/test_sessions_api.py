"""Calibration sessions over HTTP, on the simulated plant: the pump's protocol from end to end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.http.test_calibrations_api import assert_refusal
from tests.unit import Unit

API = "/unit_api/calibrations/sessions"
PUMP = {"protocol_name": "duration_based", "target_device": "media_pump"}


async def start(unit: Unit, **body: object) -> str:
    status, answer = await unit.request("POST", API, {**PUMP, **body})
    assert status == 201, answer
    return str(answer["session"]["session_id"])


async def advance(unit: Unit, session_id: str, **inputs: object) -> dict[str, Any]:
    status, answer = await unit.request("POST", f"{API}/{session_id}/inputs", {"inputs": inputs})
    assert status == 200, answer
    return dict(answer)


async def step_id(unit: Unit, session_id: str) -> str:
    answer = await unit.get(f"{API}/{session_id}")
    assert answer["step"]["step_id"] == answer["session"]["step_id"]
    return str(answer["step"]["step_id"])


async def go_to(unit: Unit, session_id: str, target: str) -> dict[str, Any]:
    """Take the steps of a pump's session until it is at ``target``."""
    inputs: dict[str, dict[str, object]] = {
        "name_input": {"calibration_name": "mine"},
        "name_overwrite_confirm": {"overwrite": True},
        "volume_targets": {"mls_to_calibrate_for": [0.5, 1.0]},
        "pwm_settings": {"hz": 250, "dc": 100},
        "prime_pump_duration": {"prime_duration_s": 5},
        "tracer_volume": {"volume_ml": 0.1},
        "test_volume": {"volume_ml": 0.5},
    }
    answer = dict(await unit.get(f"{API}/{session_id}"))
    while answer["step"]["step_id"] != target:
        answer = await advance(unit, session_id, **inputs.get(answer["step"]["step_id"], {}))
    return answer


async def test_whole(unit: Unit) -> None:
    session_id = await start(unit)
    print(await go_to(unit, session_id, "complete"))
