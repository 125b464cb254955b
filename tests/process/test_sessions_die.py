"""kill -9 at each step of a pump's calibration: the session is there again, outputs off."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from unit_process import Start, UnitProcess, all_off, outputs, wait_until

pytestmark = pytest.mark.long

API = "/unit_api/calibrations/sessions"
MEDIA = "13"
INPUTS: dict[str, dict[str, object]] = {
    "name_input": {"calibration_name": "mine"},
    "volume_targets": {"mls_to_calibrate_for": [1.0]},
    "pwm_settings": {"hz": 250, "dc": 100},
    "prime_pump_duration": {"prime_duration_s": 5},
    "tracer_volume": {"volume_ml": 0.1},
    "test_volume": {"volume_ml": 0.5},
}
HARDWARE = ("prime_pump_duration", "tracer_run", "test_run")


def inputs_of(step_id: str) -> dict[str, object]:
    return {"inputs": INPUTS.get(step_id, {})}


def kill_while_it_pumps(unit: UnitProcess, session_id: str, step_id: str) -> None:
    path = f"{API}/{session_id}/inputs"

    def ask() -> None:
        try:
            unit.request("POST", path, inputs_of(step_id))
        except OSError:
            pass  # the daemon died while it was asked

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until("the pump", lambda: outputs(unit.data_dir)["pwm"][MEDIA] > 0, 10)
    unit.kill9()
    asking.join()
    wait_until("its end", lambda: all_off(unit.data_dir), 5)


def test_a_session_survives_a_kill_at_each_step(start: Start, tmp_path: Path) -> None:
    data_dir = tmp_path / "unit"
    session_id, seen = "", set[str]()
    before: dict[str, Any] = {}
    while "test_volume" not in seen:
        unit = start(data_dir, "--time-scale", "3")
        if not session_id:
            body = {"protocol_name": "duration_based", "target_device": "media_pump"}
            session_id = unit.post(API, body)["session"]["session_id"]
            before = unit.get(f"{API}/{session_id}")
        assert all_off(data_dir)
        assert unit.get(f"{API}/{session_id}") == before
        step_id = before["step"]["step_id"]
        if step_id in HARDWARE and step_id not in seen:
            kill_while_it_pumps(unit, session_id, step_id)
        else:
            before = unit.post(f"{API}/{session_id}/inputs", inputs_of(step_id))
            unit.kill9()
        seen.add(step_id)
    unit = start(data_dir, "--time-scale", "50")
    answer = unit.get(f"{API}/{session_id}")
    while answer["session"]["status"] == "in_progress":
        answer = unit.post(f"{API}/{session_id}/inputs", inputs_of(answer["step"]["step_id"]))
    assert answer["session"]["status"] == "complete"
    active = unit.get("/unit_api/active_calibrations")["media_pump"]
    assert active["calibration_name"] == "mine"


def test_sigterm_while_a_session_pumps_turns_it_off_and_ends_in_time(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    body = {"protocol_name": "duration_based", "target_device": "media_pump"}
    answer = unit.post(API, body)
    session_id = answer["session"]["session_id"]
    while (step_id := answer["step"]["step_id"]) != "prime_pump_duration":
        answer = unit.post(f"{API}/{session_id}/inputs", inputs_of(step_id))
    said: list[int] = []

    def ask() -> None:
        inputs = {"inputs": {"prime_duration_s": 60}}
        said.append(unit.request("POST", f"{API}/{session_id}/inputs", inputs)[0])

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until("the pump", lambda: outputs(unit.data_dir)["pwm"][MEDIA] > 0, 10)
    unit.signal(signal.SIGTERM)
    wait_until("its end", lambda: all_off(unit.data_dir), 1)
    assert unit.wait_exit(5) == 0
    asking.join()
    assert said == [409]
