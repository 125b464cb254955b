"""``piod safe-outputs``: alone, beside a daemon that lives, and beside one that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from unit_process import (
    Start,
    all_off,
    environment,
    run_module,
    run_piod,
    safe_outputs,
    stirrer_duty,
    wait_until,
)

from piod.cli import IN_USE

ON = '{"pwm": {"17": 40.0, "13": 100.0}, "led": {"A": 50.0}}'
UMASK = os.umask(0o022)
os.umask(UMASK)

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


SERVICE_RESULTS = {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited"}
"""What systemd tells ``ExecStopPost`` about a service that could not start."""


def after_the_service(exit_status: int, *options: str) -> subprocess.CompletedProcess[str]:
    """``safe-outputs`` as piod.service runs it."""
    environ = {**environment(), **SERVICE_RESULTS, "EXIT_STATUS": str(exit_status)}
    command = [sys.executable, "-m", "piod", "safe-outputs", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=30)


@pytest.mark.parametrize(
    ("options", "ignored"),
    [
        (["--leader", "x", "--unit=y", "--port", "80", "--time-scale=2", "--verbose"], None),
        (["--port", "http", "--seed="], "--port http --seed="),
        (["--frobnicate", "now", "stray"], "--frobnicate now stray"),
        (["--model", "nonsense"], None),
        (["--model", "../../x/1"], None),
        (["--hat", "../.."], None),
        (["--hat", "9.9"], None),
        (["--hat", "--model"], "--hat --model"),
        (["--help"], "--help"),
        (["--", "-h"], "-- -h"),
        (["--simulate=yes"], "--simulate=yes"),
    ],
)
def test_no_option_of_the_service_keeps_an_output_on(
    killed: Path, options: list[str], ignored: str | None
) -> None:
    (killed / "simulator" / "outputs.json").write_text(ON)
    done = after_the_service(2, "--simulate", *options, f"--data-dir={killed}")
    assert done.returncode == 0, done.stderr
    assert all_off(killed)
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if "ignoring" in line]
    expected = f"piod: ignoring what safe-outputs does not know: {ignored}"
    assert told == ([expected] if ignored else [])


def test_asking_for_help_by_hand_turns_nothing_off(killed: Path) -> None:
    done = run_piod("safe-outputs", "--simulate", "--data-dir", str(killed), "--help")
    assert done.returncode == 0
    assert "--hat" in done.stdout
    assert not all_off(killed)


def test_a_service_that_was_refused_beside_a_daemon_leaves_that_alone(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    unit.run_stirring(500)
    options = ("--simulate", "--data-dir", str(unit.data_dir))
    done = after_the_service(IN_USE, *options)
    assert done.returncode == 0
    assert done.stdout == (
        f"another piod lives on {unit.data_dir}: its jobs and its outputs are left to it\n"
    )
    assert unit.duty > 0
    assert len(unit.running()) == 1

    # after any other end of a service, its jobs are ended
    assert after_the_service(2, *options).returncode == 0
    assert unit.running() == []

    unit.run_stirring(600)
    unit.kill9_with_guard()
    assert unit.duty > 0
    done = after_the_service(IN_USE, *options)
    assert done.returncode == 0
    assert all_off(unit.data_dir), "it lives no more"


def test_root_follows_no_link_that_is_planted_in_the_data_directory(
    killed: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    plant = f"""
import os, sys
for name in (".outputs.json.off-{{}}", "plant.json.{{}}.new"):
    os.symlink({str(precious)!r}, {str(killed / "simulator")!r} + "/" + name.format(os.getpid()))
from piod.cli import main
sys.exit(main(["safe-outputs", "--simulate", "--data-dir", {str(killed)!r}]))
"""
    done = run_module("-c", plant)
    assert done.returncode == 0, done.stderr
    assert precious.read_text() == "mine"
    assert all_off(killed)
    for name in ("outputs.json", "plant.json"):
        made = killed / "simulator" / name
        assert not made.is_symlink()
        assert made.stat().st_mode & 0o777 == 0o664 & ~UMASK
    assert not [path for path in (killed / "simulator").iterdir() if path.is_symlink()]


@pytest.mark.parametrize("command", ["--version", "safe-outputs"])
def test_nothing_heavy_is_imported(command: str, killed: Path) -> None:
    arguments = ["--simulate", "--data-dir", str(killed)] if command == "safe-outputs" else []
    done = run_module("-X", "importtime", "-m", "piod", command, *arguments)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "piod.cli" in imported, sys.executable
    assert not {name.partition(".")[0] for name in imported} & HEAVY
