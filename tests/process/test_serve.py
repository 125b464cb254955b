"""``piod serve`` as a process: its start, one job from run to stop, its orderly end."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit_process import Start, UnitProcess, all_off, run_piod, wait_until

from piod.cli import IN_USE

OWN_FILES = {
    "ui/jobs/stirring.yaml": "display_name: my own\n",
    "hardware/hats/1.2/gpio.yaml": "# my own\nhall_sensor_pin: 21\n",
}
"""What the data directory of the shared unit held before its first start."""


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnitProcess]:
    """One unit for the tests that do not end it."""
    data_dir = tmp_path_factory.mktemp("serve") / "unit"
    for path, text in OWN_FILES.items():
        (data_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / path).write_text(text)
    unit = UnitProcess(data_dir)
    try:
        yield unit.wait_ready()
    finally:
        unit.close()


@pytest.fixture(scope="module", autouse=True)
def rival(unit: UnitProcess) -> Iterator[UnitProcess]:
    """A second daemon on the same data directory. It takes some seconds to give up."""
    rival = UnitProcess(unit.data_dir)
    try:
        yield rival
    finally:
        rival.close()


def test_a_start_tells_its_address_in_one_line_on_stdout(unit: UnitProcess) -> None:
    assert unit.stdout == f"piod: serving http://127.0.0.1:{unit.port}\n"
    assert unit.port > 0


def test_a_start_makes_the_files_that_are_missing(unit: UnitProcess) -> None:
    assert "[stirring.config]" in (unit.data_dir / "config.ini").read_text()
    assert (unit.data_dir / "hardware/hats/1.2/pwm.yaml").is_file()
    assert set(json.loads((unit.data_dir / "simulator/outputs.json").read_text())) == {"pwm", "led"}


def test_a_start_never_overwrites_a_file(unit: UnitProcess) -> None:
    for path, text in OWN_FILES.items():
        assert (unit.data_dir / path).read_text() == text


def test_health_answers_without_a_problem(unit: UnitProcess) -> None:
    health = unit.health()
    assert health["status"] == "ok"
    assert health["problems"] == []


def test_stirring_is_run_led_to_its_target_retargeted_and_stopped(unit: UnitProcess) -> None:
    status, launched = unit.request(
        "POST", "/unit_api/jobs/run/job_name/stirring", {"options": {"target_rpm": "400"}}
    )
    assert status == 202
    job_id = unit.result(launched)["job_id"]
    assert unit.settings(job_id)["$state"] == "ready"
    assert unit.duty > 0

    unit.advance(60)
    assert measured_rpm(unit, job_id) == pytest.approx(400, rel=0.05)

    changed = unit.patch(
        f"/unit_api/jobs/settings/job_id/{job_id}", {"settings": {"target_rpm": 700}}
    )
    assert changed == {"settings": {"target_rpm": "700"}}
    unit.advance(60)
    assert measured_rpm(unit, job_id) == pytest.approx(700, rel=0.05)

    stopping = unit.post("/unit_api/jobs/stop", {"job_name": "stirring"})
    assert unit.result(stopping) == {"ok": True, "stopped": 1}
    assert all_off(unit.data_dir)  # now, not soon
    assert unit.running() == []
    row = unit.row(job_id)
    assert (row["is_running"], row["state"]) == (0, "disconnected")
    assert row["ended_at"] > row["started_at"]


def measured_rpm(unit: UnitProcess, job_id: str) -> float:
    measured = json.loads(unit.settings(job_id)["measured_rpm"])
    return float(measured["measured_rpm"])


def test_a_port_that_is_in_use_is_refused_by_its_number(unit: UnitProcess, tmp_path: Path) -> None:
    refused = run_piod(
        *("serve", "--simulate", "--data-dir", str(tmp_path / "other"), "--port", str(unit.port))
    )
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert f"cannot listen on 127.0.0.1 port {unit.port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_sigterm_ends_jobs_and_outputs_and_exits_with_0(start: Start, tmp_path: Path) -> None:
    unit = start(tmp_path / "unit")
    job_id = unit.run_stirring(500)
    assert unit.duty > 0
    end_orderly(unit, signal.SIGTERM)

    again = start(unit.data_dir)
    row = again.row(job_id)
    assert (row["state"], row["reason"]) == ("disconnected", "the daemon ended")
    assert again.health()["lost_jobs"] == []


def test_sigint_while_a_job_starts_does_the_same(start: Start, tmp_path: Path) -> None:
    unit = start(tmp_path / "unit")
    unit.post("/unit_api/jobs/run/job_name/stirring")
    wait_until("the kick", lambda: unit.duty == 100, 5)
    end_orderly(unit, signal.SIGINT)


def end_orderly(unit: UnitProcess, number: signal.Signals) -> None:
    began = time.monotonic()
    unit.signal(number)
    assert unit.wait_exit(5) == 0
    assert time.monotonic() - began < 5
    assert all_off(unit.data_dir)
    assert "Traceback" not in unit.stderr
    assert unit.stdout.count("\n") == 1


def test_a_config_ini_broken_from_the_start_is_named_and_nothing_can_be_changed(
    start: Start, tmp_path: Path
) -> None:
    data_dir = tmp_path / "unit"
    data_dir.mkdir()
    (data_dir / "config.ini").write_text("[PWM]\n1 = stirring\n= what is this\n")
    unit = start(data_dir)
    problems = [problem for problem in unit.health()["problems"] if "config.ini" in problem]
    assert problems
    assert "line 3" in problems[0]

    status, refusal = unit.request("POST", "/unit_api/jobs/run/job_name/stirring")
    assert status == 503
    assert "config.ini, line 3" in refusal["error"]
    assert all_off(data_dir)
    assert [row for row in unit.running() if row["job_name"] != "monitor"] == []


def test_a_second_daemon_on_a_data_directory_is_refused(
    unit: UnitProcess, rival: UnitProcess
) -> None:
    assert rival.wait_exit(15) == IN_USE
    assert rival.stdout == ""
    assert f"another piod uses the data directory {unit.data_dir}" in rival.stderr
    assert "Traceback" not in rival.stderr
    assert unit.health()["status"] == "ok"


def test_the_monitor_runs_from_the_start_and_again_after_a_kill(
    start: Start, tmp_path: Path
) -> None:
    data_dir = tmp_path / "unit"
    data_dir.mkdir()
    (data_dir / "unit_config.ini").write_text("")
    for _ in range(2):
        unit = start(data_dir).wait_ready()
        wait_until("the monitor", unit.running, 5)
        [row] = unit.running()
        assert (row["job_name"], row["is_long_running_job"]) == ("monitor", 1)
        assert unit.health()["lost_jobs"] == []
        unit.kill9()
