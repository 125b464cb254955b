"""Real daemons, and no process that outlives a test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit_process import Start, UnitProcess, stirrer_duty


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(data_dir, *arguments)``: a unit that serves, until the test ends."""
    units: list[UnitProcess] = []

    def start_one(data_dir: Path, *arguments: str) -> UnitProcess:
        units.append(UnitProcess(data_dir, *arguments))
        return units[-1].wait_ready()

    yield start_one
    for unit in units:
        unit.close()


@pytest.fixture(scope="session")
def left_running(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a unit that lost its power while it stirred. Only copies of it."""
    data_dir = tmp_path_factory.mktemp("left") / "unit"
    unit = UnitProcess(data_dir)
    try:
        unit.wait_ready()
        unit.run_stirring(
            320,
            env={"EXPERIMENT": "Exp7", "JOB_SOURCE": "experiment_profile"},
            config_overrides=[["stirring.config", "initial_duty_cycle", "35"]],
        )
        unit.kill9_with_guard()
    finally:
        unit.close()
    assert stirrer_duty(data_dir) > 0, "nobody was left to turn it off"
    return data_dir


@pytest.fixture
def killed(left_running: Path, tmp_path: Path) -> Path:
    """A copy of ``left_running`` for one test. Its job is the one with the id 1."""
    not_sockets = shutil.ignore_patterns("*.sock")  # they cannot be copied
    return Path(shutil.copytree(left_running, tmp_path / "unit", ignore=not_sockets))
