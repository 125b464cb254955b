"""Reboot and shutdown of a simulated unit: its process starts the daemon anew, or ends."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from unit_process import Start, UnitProcess, all_off, wait_until

pytestmark = pytest.mark.long  # processes that wait: too slow for the fast tests

WORKER = ("--leader", "leader01")
"""A worker goes down at once."""


def done(data_dir: Path) -> list[str]:
    """What the simulated machine did."""
    record = json.loads((data_dir / "simulator" / "system.json").read_text())
    return [entry["action"] for entry in record["done"]]


def began_anew(unit: UnitProcess) -> None:
    wait_until("a new start", lambda: "the simulated machine starts anew" in unit.stderr, 10)
    wait_until("an answer", lambda: health(unit), 10)


def health(unit: UnitProcess) -> Any:
    try:
        return unit.health()
    except (urllib.error.URLError, OSError):
        return None


def test_a_reboot_ends_the_jobs_and_starts_the_unit_anew_on_the_same_port(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit", *WORKER)
    job_id = unit.run_stirring(500)
    guard = unit.guard_pid()
    launched = unit.post("/unit_api/system/reboot")
    began_anew(unit)

    assert unit.health()["problems"] == []
    assert unit.health()["lost_jobs"] == []
    assert unit.running() == []
    assert all_off(unit.data_dir)
    row = unit.row(job_id)
    assert (row["state"], row["reason"]) == ("disconnected", "the unit was rebooted")
    assert unit.result(launched) is True, "the task is kept over the reboot"
    assert done(unit.data_dir) == ["reboot"]
    assert unit.guard_pid() == guard, "the guard stays"
    assert unit.stdout.count("\n") == 1

    again = unit.run_stirring(400)
    assert int(again) > int(job_id)
    assert unit.duty > 0
    unit.signal(signal.SIGTERM)
    assert unit.wait_exit(5) == 0
    assert all_off(unit.data_dir)
    assert "Traceback" not in unit.stderr


def test_a_shutdown_ends_the_process_with_0(start: Start, tmp_path: Path) -> None:
    unit = start(tmp_path / "unit", *WORKER)
    job_id = unit.run_stirring(500)
    launched = unit.post("/unit_api/system/shutdown")
    assert unit.wait_exit(5) == 0
    assert all_off(unit.data_dir)
    assert "Traceback" not in unit.stderr

    again = start(unit.data_dir, *WORKER)
    assert again.row(job_id)["reason"] == "the unit was shut down"
    assert again.result(launched) is True
    assert again.get("/simulator/system")["done"][-1]["action"] == "power_off"


def test_a_leader_answers_at_once_and_goes_down_after_five_seconds(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    unit.run_stirring(500)
    began = time.monotonic()
    unit.post("/unit_api/system/shutdown")
    assert time.monotonic() - began < 2
    assert unit.wait_exit(12) == 0
    assert 5 <= time.monotonic() - began < 10
    assert all_off(unit.data_dir)


def test_sigterm_while_a_leader_waits_to_reboot_ends_it_for_good(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    launched = unit.post("/unit_api/system/reboot")
    unit.signal(signal.SIGTERM)
    assert unit.wait_exit(5) == 0

    again = start(unit.data_dir)
    assert "piod ended while the task (reboot) was running" in again.failure(launched)
    assert again.get("/simulator/system")["done"] == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_an_update_outlives_the_daemon(start: Start, tmp_path: Path, end: signal.Signals) -> None:
    # an update takes a simulated second, and here that takes five
    unit = start(tmp_path / "unit", "--time-scale", "0.2")
    launched = unit.post("/unit_api/system/update", {"options": {"version": "26.2.3"}, "args": []})
    wait_until("its start", lambda: "start_update" in kept(unit.data_dir), 5)
    unit.signal(end)
    unit.wait_exit(5)

    again = start(unit.data_dir, "--time-scale", "1")
    busy = again.post("/unit_api/system/update", {"options": {}, "args": []})
    assert busy["task_id"] == launched["task_id"]
    assert (busy["status"], busy["lock"]) == ("in_progress", "update-lock")
    assert again.result(launched) is True
    assert done(again.data_dir) == ["start_update"], "nothing was started twice"


def kept(data_dir: Path) -> list[str]:
    try:
        return done(data_dir)
    except FileNotFoundError:
        return []
