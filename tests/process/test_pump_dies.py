"""A pump is off soon after the daemon has died or hangs; its dose is in doubt and not repeated."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from unit_process import Start, UnitProcess, outputs, safe_outputs, wait_until

pytestmark = pytest.mark.long  # processes that wait: too slow for the fast tests

MEDIA, WASTE = "13", "12"
EXPERIMENT = "exp"
VOLUMES = f"/unit_api/bioreactor/experiments/{EXPERIMENT}"


def duty(data_dir: Path, pin: str = MEDIA) -> float:
    return outputs(data_dir)["pwm"][pin]


def pump(unit: UnitProcess, job_name: str = "add_media", **options: object) -> str:
    """Run an action; its id once its pump turns."""
    body = {"options": options, "env": {"EXPERIMENT": EXPERIMENT}}
    task = unit.result(unit.post(f"/unit_api/jobs/run/job_name/{job_name}", body))
    return str(task["job_id"])


def assert_off_for(data_dir: Path, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert duty(data_dir) == duty(data_dir, WASTE) == 0
        time.sleep(0.05)


def truth_ml(unit: UnitProcess) -> float:
    return float(unit.get("/simulator/plant")["volume_ml"])


def test_a_killed_daemon_leaves_no_pump_on_and_its_dose_in_doubt(
    start: Start, tmp_path: Path
) -> None:
    """HAZ-5."""
    unit = start(tmp_path / "unit")
    job_id = pump(unit, duration=20)
    assert duty(unit.data_dir) == 100
    time.sleep(0.5)
    unit.kill9()
    wait_until("the pump off", lambda: duty(unit.data_dir) == 0, 1)  # the guard: at once

    again = start(unit.data_dir)
    assert_off_for(again.data_dir, 1)
    assert again.row(job_id)["state"] == "lost"
    told = again.get(VOLUMES)
    assert "in the middle of a dose" in told["doubt"]
    assert told["range_ml"]["lowest"] <= truth_ml(again) <= told["range_ml"]["highest"]
    body = {"options": {"duration": 1}, "env": {"EXPERIMENT": EXPERIMENT}}
    status, answer = again.request("POST", "/unit_api/jobs/run/job_name/add_media", body)
    assert status == 409
    assert "nothing may be added" in answer["error"]
    assert "remove_waste" in answer["error_info"]["remediation"]

    pump(again, "remove_waste", duration=70)
    again.advance(75)
    wait_until("the end of the pump", lambda: not again.running(), 5)
    assert again.get(VOLUMES)["doubt"] is None
    pump(again, duration=1)


def test_safe_outputs_turns_a_pump_off_when_the_guard_was_killed_too(
    start: Start, tmp_path: Path
) -> None:
    """HAZ-5."""
    unit = start(tmp_path / "unit")
    pump(unit, "remove_waste", continuously=None)
    unit.kill9_with_guard()
    assert duty(unit.data_dir, WASTE) == 100, "nobody was left to turn it off"
    assert safe_outputs(unit.data_dir).returncode == 0
    assert duty(unit.data_dir, WASTE) == 0
    again = start(unit.data_dir)
    assert_off_for(again.data_dir, 1)
    assert again.running() == []


def test_a_daemon_that_hangs_in_a_dose_does_not_lengthen_it(start: Start, tmp_path: Path) -> None:
    """The guard keeps its off-time, before it notices that the daemon hangs."""
    unit = start(tmp_path / "unit")
    pump(unit, duration=1)
    begun = time.monotonic()
    unit.signal(signal.SIGSTOP)
    wait_until("the pump off", lambda: duty(unit.data_dir) == 0, 5)
    assert time.monotonic() - begun < 1.9, "the heartbeat is 2 s late at the earliest"
    unit.signal(signal.SIGCONT)
    assert_off_for(unit.data_dir, 1)
    wait_until("the end of the action", lambda: not unit.running(), 5)
    told = unit.get(VOLUMES)
    # nothing, if simulated time did not go on between the pump's start and the stop
    assert 0 <= told["values"]["cumulative_media_added_ml"] <= 0.0911 + 1e-9
    assert told["doubt"] is None


def test_a_daemon_that_is_told_to_end_counts_its_dose(start: Start, tmp_path: Path) -> None:
    unit = start(tmp_path / "unit")
    pump(unit, duration=20)
    time.sleep(0.5)
    unit.signal(signal.SIGTERM)
    assert unit.wait_exit(5) == 0
    assert duty(unit.data_dir) == 0
    again = start(unit.data_dir)
    told = again.get(VOLUMES)
    assert told["doubt"] is None
    assert 0.04 < told["values"]["cumulative_media_added_ml"] < 0.5
    assert told["range_ml"]["lowest"] <= truth_ml(again) <= told["range_ml"]["highest"]
