"""Outputs are off soon after the daemon, its guard, a bus or a job has died or hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit_process import Start, UnitProcess, all_off, wait_until

GUARD_IS_MISSED = "the guard process is not running"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnitProcess]:
    unit = UnitProcess(tmp_path_factory.mktemp("crash") / "unit")
    try:
        yield unit.wait_ready()
    finally:
        unit.close()


@pytest.fixture
def unit(shared: UnitProcess) -> Iterator[UnitProcess]:
    """A unit that survives its tests: nothing runs and nothing is broken when they begin."""
    yield shared
    shared.signal(signal.SIGCONT)
    shared.delete("/simulator/faults")
    shared.stop_all()


def advance_until_the_stirrer_is_off(unit: UnitProcess, within_s: float) -> None:
    """Let time pass in steps so small that no restart hides between them."""
    for _ in range(round(within_s / 0.25)):
        unit.advance(0.25)
        if unit.duty == 0:
            return
    raise AssertionError(f"the stirrer is still on after {within_s} s")


# -- the daemon and the guard ---------------------------------------------------------


def test_kill9_of_the_daemon_leaves_the_outputs_on_for_less_than_a_second(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    unit.post("/unit_api/jobs/run/job_name/stirring")
    wait_until("the kick", lambda: unit.duty == 100, 5)
    unit.signal(signal.SIGKILL)
    wait_until("all outputs off", lambda: all_off(unit.data_dir), 1)


def test_a_start_after_a_power_cut_turns_off_before_the_port_opens(
    start: Start, killed: Path
) -> None:
    assert not all_off(killed)
    unit = start(killed)
    assert all_off(killed)  # at the line on stdout

    assert unit.running() == []
    lost = unit.row("1")
    assert (lost["job_name"], lost["state"], lost["is_running"]) == ("stirring", "lost", 0)
    assert lost["ended_at"] >= lost["started_at"]
    assert [job["job_id"] for job in unit.health()["lost_jobs"]] == ["1"]
    job_id = unit.run_stirring(500)
    assert job_id == "2"
    assert unit.duty > 0


def test_a_start_waits_for_the_guard_of_a_killed_daemon(start: Start, tmp_path: Path) -> None:
    unit = start(tmp_path / "unit")
    unit.run_stirring(500)
    guard = unit.guard_pid()
    assert guard is not None
    os.kill(guard, signal.SIGSTOP)
    unit.kill9()
    successor = UnitProcess(unit.data_dir)
    try:
        time.sleep(0.7)
        assert not successor.is_ready
        assert successor.exit_status is None
        os.kill(guard, signal.SIGCONT)
        successor.wait_ready()
        assert all_off(unit.data_dir)
    finally:
        successor.close()


def test_a_killed_guard_is_replaced_and_its_successor_guards(start: Start, tmp_path: Path) -> None:
    unit = start(tmp_path / "unit")
    job_id = unit.run_stirring(500)
    first = unit.guard_pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until("another guard", lambda: unit.guard_pid() not in (None, first), 3)
    wait_until("health", lambda: GUARD_IS_MISSED not in unit.health()["problems"], 3)
    assert unit.settings(job_id)["$state"] == "ready"
    assert unit.duty > 0, "the death of the guard alone stops nothing"

    unit.signal(signal.SIGKILL)
    wait_until("all outputs off", lambda: all_off(unit.data_dir), 1)


def test_a_frozen_daemon_loses_its_outputs_and_knows_it_when_it_wakes(unit: UnitProcess) -> None:
    job_id = unit.run_stirring(600)
    assert unit.duty > 0
    unit.signal(signal.SIGSTOP)
    wait_until("all outputs off", lambda: all_off(unit.data_dir), 3)

    unit.signal(signal.SIGCONT)
    restarted = wait_until(
        "the job's restart", lambda: unit.settings(job_id).get("restarts") == "1", 3
    )
    assert restarted
    wait_until("the job", lambda: unit.settings(job_id)["$state"] == "ready", 5)
    assert unit.duty == pytest.approx(float(unit.settings(job_id)["duty_cycle"]))
    assert unit.duty > 0
    assert "the daemon hung" in unit.stderr


# -- a bus ----------------------------------------------------------------------------


def test_a_bus_error_turns_off_at_once_and_the_job_comes_back_after_its_back_off(
    unit: UnitProcess,
) -> None:
    job_id = unit.run_stirring(450)
    unit.post("/simulator/faults", {"kind": "bus_error", "bus": "gpio", "count": 1})
    advance_until_the_stirrer_is_off(unit, within_s=8)

    settings = unit.settings(job_id)
    assert settings["$state"] == "init"
    assert "duty_cycle" not in settings, "of an output that is off"
    unit.advance(10)
    settings = unit.settings(job_id)
    assert (settings["$state"], settings["restarts"]) == ("ready", "1")
    assert settings["target_rpm"] == "450"
    assert unit.duty == pytest.approx(float(settings["duty_cycle"]))
    assert [row["job_id"] for row in unit.running()] == [job_id]


def test_a_bus_that_stays_broken_ends_the_job_after_bounded_restarts(unit: UnitProcess) -> None:
    job_id = unit.run_stirring(550)
    unit.post("/simulator/faults", {"kind": "bus_error", "bus": "gpio"})
    unit.advance(60)
    wait_until("the end of the job", lambda: unit.running() == [], 3)
    assert all_off(unit.data_dir)
    row = unit.row(job_id)
    assert (row["state"], row["is_running"]) == ("lost", 0)
    assert row["ended_at"] > row["started_at"]
    assert "gpio bus failed" in row["reason"]
    assert unit.stderr.count(f"stirring (job {job_id}) is restarted in") == 3
    lost = wait_until("health", lambda: unit.health()["lost_jobs"], 3)
    assert lost[0]["job_id"] == job_id


def test_the_guard_has_a_name_of_its_own(start: Start, tmp_path: Path) -> None:
    """Or ``pkill -9 -f "piod serve"`` would kill it together with the daemon."""
    unit = start(tmp_path / "unit")
    guard = unit.guard_pid()
    assert Path(f"/proc/{guard}/comm").read_text().strip() == "piod-guard"
    assert Path(f"/proc/{guard}/cmdline").read_bytes().strip(b"\0") == b"piod-guard"


def test_a_guard_that_hangs_is_replaced(start: Start, tmp_path: Path) -> None:
    unit = start(tmp_path / "unit")
    hung = unit.guard_pid()
    os.kill(hung, signal.SIGSTOP)
    wait_until("another guard", lambda: unit.guard_pid() not in (None, hung), 10)
    unit.post("/unit_api/jobs/run/job_name/stirring")
    wait_until("the kick", lambda: unit.duty == 100, 5)
    unit.signal(signal.SIGKILL)
    wait_until("all outputs off", lambda: all_off(unit.data_dir), 1)
