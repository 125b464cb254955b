"""piod as a user of its own on the data directory of an existing installation."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from unit_process import UnitProcess, all_off, environment, stirrer_duty

OWNER, GROUP, PIOD = 4321, 4322, 4323
"""Whom the installation belongs to, the group that shares it, and piod's own user and group."""

PUMP = """\
calibration_type: simple_peristaltic_pump
calibration_name: {name}
calibrated_on_pioreactor_unit: pio07
created_at: 2026-03-04T09:15:30.250Z
curve_data_: {{type: poly, coefficients: [0.125, 0.0]}}
recorded_data: {{x: [4.0, 8.0], y: [0.5, 1.0]}}
hz: 200.0
dc: 75.0
voltage: 11.9
"""

DROP = f"""
import os, runpy, sys
os.umask(0o022)  # as systemd has it
os.setgroups([{GROUP}])
os.setgid({PIOD})
os.setuid({PIOD})
runpy.run_module("piod", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="session")
def piod() -> tuple[str, ...]:
    """The command ``piod``, as a user of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root may act as other users")
    for python in (sys.executable, "/usr/bin/python3"):
        if not os.path.exists(python):
            continue
        # by exec: Python itself, or the checkout, may lie in a folder that is closed to others
        probe = [python, "-c", "import piod.serve"]
        as_other = f"import os; os.setuid({PIOD}); os.execv({python!r}, {probe!r})"
        found = subprocess.run([python, "-c", as_other], env=environment(), capture_output=True)
        if found.returncode == 0:
            return (python, "-c", DROP)
    pytest.skip("there is no Python here that another user may run")


@pytest.fixture
def installation(killed: Path) -> Iterator[Path]:
    """A unit that lost its power while it stirred, its files as an image makes them."""
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    data_dir = top / "pioreactor" / ".pioreactor"
    shutil.copytree(killed, data_dir)
    calibration = data_dir / "storage" / "calibrations" / "media_pump" / "pump-1.yaml"
    calibration.parent.mkdir(parents=True)
    calibration.write_text(PUMP.format(name="pump-1"))
    cache = data_dir / "storage" / "local_persistent_pioreactor_metadata.sqlite"
    with closing(sqlite3.connect(cache, isolation_level=None)) as upstream:
        upstream.execute("PRAGMA journal_mode = WAL")
        upstream.execute(
            "CREATE TABLE cache_active_calibrations (key BLOB PRIMARY KEY, value BLOB)"
        )
        upstream.execute("INSERT INTO cache_active_calibrations VALUES ('media_pump', 'pump-1')")
    for path in (data_dir.parent, data_dir, *data_dir.rglob("*")):
        os.chown(path, OWNER, GROUP)
        path.chmod(0o2775 if path.is_dir() else 0o664)
    cache.chmod(0o644)  # upstream's alone to write
    assert stirrer_duty(data_dir) > 0
    yield data_dir
    shutil.rmtree(top)


@pytest.fixture
def units() -> Iterator[list[UnitProcess]]:
    """Those that a test has started."""
    started: list[UnitProcess] = []
    yield started
    for unit in started:
        unit.close()


def test_it_is_used_as_it_is_and_what_piod_makes_is_the_groups_too(
    installation: Path, units: list[UnitProcess], piod: tuple[str, ...]
) -> None:
    config = (installation / "config.ini").stat()
    units.append(UnitProcess(installation, piod=piod))
    unit = units[0].wait_ready()
    assert unit.health()["problems"] == []
    assert unit.row("1")["state"] == "lost", "the ledger was used"
    active = unit.get("/unit_api/active_calibrations")
    assert active["media_pump"]["calibration_name"] == "pump-1"
    body = {"calibration_data": PUMP.format(name="pump-2")}
    unit.post("/unit_api/calibrations/waste_pump", body)

    made = {path for path in installation.rglob("*") if path.lstat().st_uid == PIOD}
    assert installation / "storage/calibrations/waste_pump/pump-2.yaml" in made
    assert installation / "simulator/outputs.json" in made, "replaced, so piod's now"
    for path in made:
        status = path.lstat()
        assert status.st_gid == GROUP, path
        assert status.st_mode & 0o060 == 0o060, path
        assert not path.is_dir() or status.st_mode & 0o2000, path
    after = (installation / "config.ini").stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (OWNER, GROUP, config.st_mode)


@pytest.mark.parametrize(
    ("closed", "mode"),
    [("storage", 0o2755), (".", 0o2755), ("config.ini", 0o600)],
)
def test_what_piod_may_not_use_is_refused_after_the_outputs_are_off(
    installation: Path, units: list[UnitProcess], piod: tuple[str, ...], closed: str, mode: int
) -> None:
    if closed == ".":
        (installation / "piod.lock").unlink()  # so that it cannot even be locked
    (installation / closed).chmod(mode)
    unit = UnitProcess(installation, piod=piod)
    units.append(unit)
    assert unit.wait_exit(20) == 2
    assert all_off(installation)
    assert f"piod, which runs as user {PIOD} in groups {GROUP}, {PIOD}, may not" in unit.stderr
    assert "Run: sudo chmod g+" in unit.stderr
    assert "Traceback" not in unit.stderr


def test_a_folder_that_is_closed_altogether_is_refused_in_words(
    installation: Path, units: list[UnitProcess], piod: tuple[str, ...]
) -> None:
    installation.parent.chmod(0o700)
    unit = UnitProcess(installation, piod=piod)
    units.append(unit)
    assert unit.wait_exit(20) == 2
    assert f"may not enter the folder {installation.parent} (drwx------" in unit.stderr
    assert "Traceback" not in unit.stderr


def test_a_cache_that_cannot_be_read_is_a_problem_in_health(
    installation: Path, units: list[UnitProcess], piod: tuple[str, ...]
) -> None:
    (installation / "storage" / "local_persistent_pioreactor_metadata.sqlite").chmod(0o600)
    units.append(UnitProcess(installation, piod=piod))
    [problem] = units[0].wait_ready().health()["problems"]
    assert "which calibrations were active before piod is not known" in problem
    assert "Permission denied" in problem
