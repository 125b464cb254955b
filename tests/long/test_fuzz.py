"""Whatever is sent, the answer is one that the document describes, and never a 500.

schemathesis makes requests from swagger.json against a daemon of its own.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.unit_process import UnitProcess, wait_until

LENGTH = float(os.environ.get("PIOD_LONG", "1"))
SEED = int(os.environ.get("PIOD_SEED", random.randrange(2**32)))

CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
ALL_CHECKS = f"not_a_server_error,{CHECKS}"
NOT_OF_THE_API = "^/simulator"
UNAVAILABLE = "/jobs/settings/job_name/[^/]*$"
"""Its PATCH is documented to answer 503, always."""
SHUTDOWN, REBOOT = "/shutdown$", "/reboot$"
RETRIES = 20
"""Of a request that meets a unit which is just starting anew."""


@contextmanager
def started(data_dir: Path, *arguments: str) -> Iterator[UnitProcess]:
    pytest.importorskip("schemathesis")
    print(f"PIOD_SEED={SEED}")
    unit = UnitProcess(data_dir, *arguments)
    try:
        unit.wait_ready()
        yield unit
    finally:
        unit.close()


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[UnitProcess]:
    with started(tmp_path / "unit") as unit:
        yield unit


def fuzz(unit: UnitProcess, checks: str, *options: str) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run"),
        f"{unit.url}/unit_api/swagger.json",
        *("--checks", checks),
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", str(max(5, int(400 * LENGTH)))),
        *("--seed", str(SEED)),
        "--no-color",
        *options,
    ]
    where = unit.data_dir.parent
    ran = subprocess.run(command, capture_output=True, text=True, cwd=where, timeout=900)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]


@pytest.mark.long
def test_no_answer_is_outside_its_document(unit: UnitProcess) -> None:
    left_out = "|".join((NOT_OF_THE_API, UNAVAILABLE, SHUTDOWN, REBOOT))  # their own tests: below
    fuzz(unit, ALL_CHECKS, "--exclude-path-regex", left_out)
    assert unit.health()["status"] == "ok"


@pytest.mark.long
def test_nor_where_a_503_is_what_is_documented(unit: UnitProcess) -> None:
    fuzz(unit, CHECKS, "--include-path-regex", UNAVAILABLE)
    assert unit.health()["status"] == "ok"


@pytest.mark.long
def test_nor_when_it_is_told_to_shut_down(unit: UnitProcess) -> None:
    """Its machine refuses in the end: there would be nobody left to ask."""
    fault = {"kind": "system_error", "call": "power_off", "message": "not authorised"}
    unit.post("/simulator/faults", fault)
    fuzz(unit, ALL_CHECKS, "--include-path-regex", SHUTDOWN)
    assert unit.health()["status"] == "ok"


@pytest.mark.long
def test_nor_when_it_is_rebooted_again_and_again(tmp_path: Path) -> None:
    """A worker, which waits for nothing: it goes down in the middle of the requests."""
    with started(tmp_path / "unit", "--unit", "pio01", "--leader", "leader01") as unit:
        retries = str(RETRIES)
        fuzz(unit, ALL_CHECKS, "--include-path-regex", REBOOT, "--request-retries", retries)
        wait_until("a reboot", lambda: rebooted(unit), 20)


def rebooted(unit: UnitProcess) -> bool:
    """Whether it has been, and answers again."""
    try:
        done = unit.get("/simulator/system")["done"]
        assert unit.health()["status"] == "ok"
    except OSError:
        return False
    return any(entry["action"] == "reboot" for entry in done)
