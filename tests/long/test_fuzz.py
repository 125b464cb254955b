"""Whatever is sent, the answer is one that the document describes, and never a 500.

schemathesis makes requests from swagger.json against a daemon of its own.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.unit_process import UnitProcess

LENGTH = float(os.environ.get("PIOD_LONG", "1"))
SEED = int(os.environ.get("PIOD_SEED", random.randrange(2**32)))

CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
LEFT_OUT = "^/simulator|shutdown|reboot|/jobs/settings/job_name/[^/]*$"
"""What ends the unit, is not the unit's API, or is documented to be a 503."""


@pytest.mark.long
def test_no_answer_is_outside_its_document(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    print(f"PIOD_SEED={SEED}")
    unit = UnitProcess(tmp_path / "unit")
    try:
        unit.wait_ready()
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"{unit.url}/unit_api/swagger.json",
            *("--checks", f"not_a_server_error,{CHECKS}"),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(max(5, int(400 * LENGTH)))),
            *("--exclude-path-regex", LEFT_OUT),
            *("--seed", str(SEED)),
            "--no-color",
        ]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=900)
        assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
        assert unit.health()["status"] == "ok"
    finally:
        unit.close()
