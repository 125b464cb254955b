"""``piod safe-outputs``: alone, beside a daemon that lives, and beside one that hangs."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from unit_process import (
    Start,
    all_off,
    run_module,
    run_piod,
    safe_outputs,
    stirrer_duty,
    wait_until,
)

HEAVY = {"aiohttp", "asyncio", "yaml", "marshmallow", "sqlite3"}


def test_what_a_dead_unit_left_on_is_turned_off(killed: Path) -> None:
    assert not all_off(killed)
    done = safe_outputs(killed)
    assert done.returncode == 0
    assert all_off(killed)
    assert "off" in done.stdout
    assert done.stderr == ""

    again = safe_outputs(killed)
    assert again.returncode == 0
    assert all_off(killed)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("hardware/hats/1.2/pwm.yaml", "pwm_to_pin: {1: 99}\n"),
        ("hardware/hats/1.2/gpio.yaml", "{ broken"),
        ("config.ini", "= broken\n"),
        ("unit_config.ini", "[piod]\nmodel_name = pioreactor_20ml\n"),
        ("unit_config.ini", "[piod]\nhat_version = ../..\n"),
        ("simulator/plant.json", "{ broken"),
        ("simulator/outputs.json", "{ broken"),
    ],
)
def test_no_file_that_is_broken_keeps_an_output_on(killed: Path, file: str, text: str) -> None:
    (killed / file).write_text(text)
    done = safe_outputs(killed)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert all_off(killed)
    assert stirrer_duty(killed) == 0


def test_a_start_that_is_refused_has_turned_everything_off(killed: Path) -> None:
    refused = run_piod(
        *("serve", "--simulate", "--port", "0", "--data-dir", str(killed), "--model", "nonsense")
    )
    assert refused.returncode == 2
    assert "a model is written NAME/VERSION" in refused.stderr
    assert all_off(killed)


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_data_directory_has_nothing_on_and_stays_empty(
    tmp_path: Path, exists: bool
) -> None:
    data_dir = tmp_path / "nothing"
    if exists:
        data_dir.mkdir()
    done = safe_outputs(data_dir)
    assert done.returncode == 0
    assert done.stderr == ""
    assert not exists or list(data_dir.iterdir()) == []
    assert data_dir.exists() is exists


def test_beside_a_daemon_the_jobs_are_ended_and_beside_a_frozen_one_the_outputs_are_off(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    job_id = unit.run_stirring(500)
    assert unit.duty > 0
    done = safe_outputs(unit.data_dir)
    assert done.returncode == 0, done.stderr
    assert all_off(unit.data_dir)
    assert "jobs ended by the daemon: 1" in done.stdout
    assert unit.running() == []
    row = unit.row(job_id)
    assert row["state"] == "disconnected"
    assert "safe-outputs" in row["reason"]

    # it lives, and takes the next job
    job_id = unit.run_stirring(600)
    assert unit.duty > 0
    unit.signal(signal.SIGSTOP)
    began = time.monotonic()
    done = safe_outputs(unit.data_dir)
    assert time.monotonic() - began < 1.5, "the guard would need longer"
    assert done.returncode == 0
    assert "does not answer" in done.stderr
    assert all_off(unit.data_dir)

    unit.signal(signal.SIGCONT)
    wait_until("the end of the job", lambda: unit.running() == [], 3)
    assert "safe-outputs" in unit.row(job_id)["reason"]
    assert all_off(unit.data_dir)


@pytest.mark.parametrize("command", ["--version", "safe-outputs"])
def test_nothing_heavy_is_imported(command: str, killed: Path) -> None:
    arguments = ["--simulate", "--data-dir", str(killed)] if command == "safe-outputs" else []
    done = run_module("-X", "importtime", "-m", "piod", command, *arguments)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "piod.cli" in imported, sys.executable
    assert not {name.partition(".")[0] for name in imported} & HEAVY
