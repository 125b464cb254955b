"""The heater is off soon after the daemon has died or hangs, and stays off."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from unit_process import Start, UnitProcess, outputs, safe_outputs, wait_until

HEATER = "18"
JOB = "temperature_automation"


def heat(data_dir: Path) -> float:
    return outputs(data_dir)["pwm"][HEATER]


def run_thermostat(unit: UnitProcess) -> str:
    """A thermostat that heats; its job id."""
    options = {"automation_name": "thermostat", "target_temperature": 37}
    task = unit.result(unit.post(f"/unit_api/jobs/run/job_name/{JOB}", {"options": options}))
    unit.advance(14)
    assert heat(unit.data_dir) > 10
    return str(task["job_id"])


def assert_off_for(data_dir: Path, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert heat(data_dir) == 0
        time.sleep(0.05)


def test_the_guard_turns_the_heater_off_when_the_daemon_is_killed(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    run_thermostat(unit)
    unit.signal(signal.SIGKILL)
    wait_until("the heater off", lambda: heat(unit.data_dir) == 0, 2)
    assert_off_for(unit.data_dir, 1)


def test_safe_outputs_turns_the_heater_off_when_the_guard_is_killed_too(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    run_thermostat(unit)
    unit.kill9_with_guard()
    assert heat(unit.data_dir) > 10, "nobody was left to turn it off"
    began_s = time.monotonic()
    assert safe_outputs(unit.data_dir).returncode == 0
    assert time.monotonic() - began_s < 5, "it is to take a second, on a machine with time for it"
    assert heat(unit.data_dir) == 0
    again = start(unit.data_dir)
    again.advance(600)
    assert heat(unit.data_dir) == 0, "nobody has asked for it"


def test_a_daemon_that_hangs_loses_the_heater_and_does_not_bring_it_back(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    job_id = run_thermostat(unit)
    unit.signal(signal.SIGSTOP)
    wait_until("the heater off", lambda: heat(unit.data_dir) == 0, 5)
    unit.signal(signal.SIGCONT)
    wait_until("the job knows it", lambda: unit.settings(job_id).get("restarts") == "1", 10)
    for _ in range(15):
        unit.advance(10)
        assert heat(unit.data_dir) == 0


BLOCKING = """
import time

from piod.jobs.job import Job


class Blocking(Job):
    job_name = "blocking"

    @classmethod
    async def create(cls, unit, options):
        return cls()

    async def run(self):
        time.sleep(6)
"""


@pytest.mark.long
def test_a_blocked_event_loop_loses_the_heater_and_does_not_bring_it_back(
    start: Start, tmp_path: Path
) -> None:
    data_dir = tmp_path / "unit"
    (data_dir / "plugins").mkdir(parents=True)
    (data_dir / "plugins" / "blocking.py").write_text(BLOCKING)
    unit = start(data_dir)
    job_id = run_thermostat(unit)
    unit.post("/unit_api/jobs/run/job_name/blocking")
    # 2 s, and the slack of a busy machine; but before the loop is free again
    wait_until("the heater off", lambda: heat(data_dir) == 0, 5.5)
    wait_until("the job knows it", lambda: unit.settings(job_id).get("restarts") == "1", 20)
    for _ in range(15):
        unit.advance(10)
        assert heat(data_dir) == 0


@pytest.mark.long
def test_a_heater_that_is_stuck_on_beside_an_idle_daemon_is_told_and_ends_the_machine(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    unit.post("/simulator/faults", {"kind": "heater_stuck"})

    def told() -> bool:
        if unit.exit_status is None:
            unit.request("POST", "/simulator/advance", {"seconds": 10})
        return "the machine is powered off" in unit.stderr

    wait_until("the end of the machine", told, 30)
    assert "above the limit of 80 °C while it should be off" in unit.stderr
    assert unit.wait_exit(10) == 0
