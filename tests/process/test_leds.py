"""LEDs go off with the daemon, however it ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from unit_process import Start, UnitProcess, outputs, wait_until

pytestmark = pytest.mark.long  # processes that wait: too slow for the fast tests


def light(unit: UnitProcess) -> None:
    unit.result(
        unit.post("/unit_api/jobs/run/job_name/led_intensity", {"options": {"A": 50, "D": 100}})
    )
    assert outputs(unit.data_dir)["led"] == {
        "A": pytest.approx(50, abs=0.5),
        "B": 0.0,
        "C": 0.0,
        "D": pytest.approx(99.2, abs=0.1),
    }


def is_dark(data_dir: Path) -> bool:
    return not any(outputs(data_dir)["led"].values())


def test_a_killed_daemon_leaves_no_led_on(start: Start, tmp_path: Path) -> None:
    unit = start(tmp_path / "unit")
    light(unit)
    unit.kill9()
    wait_until("darkness", lambda: is_dark(unit.data_dir), 1.5)


def test_a_frozen_daemon_leaves_no_led_on_and_its_job_learns_of_it(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    light(unit)
    [row] = [row for row in unit.running() if row["job_name"] == "led_intensity"]
    unit.signal(signal.SIGSTOP)
    wait_until("darkness", lambda: is_dark(unit.data_dir), 5)
    unit.signal(signal.SIGCONT)
    wait_until("a new life", lambda: unit.settings(row["job_id"]).get("restarts") == "1", 10)
