"""kill -9 at many random moments of an import, of a process and of a whole unit."""

from __future__ import annotations

import os
import random
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.import_process import MANY_NEW, Importer, check_recovery, moments
from tests.trees import zip_of

sys.path.append(str(Path(__file__).parents[1] / "process"))
from unit_process import UnitProcess

LENGTH = float(os.environ.get("PIOD_LONG", "1"))
SEED = int(os.environ.get("PIOD_SEED", random.randrange(2**32)))

print(f"PIOD_SEED={SEED}")

pytestmark = pytest.mark.long


def test_kills_at_50_moments_leave_the_whole_old_or_the_whole_new_tree(tmp_path: Path) -> None:
    importer = Importer(tmp_path)
    outcomes = [check_recovery(importer, part) for part in moments(50, SEED)]
    print(f"{outcomes.count(True)} of {len(outcomes)} had the new tree")
    assert False in outcomes


@pytest.fixture
def units() -> Iterator[list[UnitProcess]]:
    units: list[UnitProcess] = []
    yield units
    for unit in units:
        unit.close()


def test_a_unit_that_is_killed_while_it_imports_starts_with_one_whole_tree(
    tmp_path: Path, units: list[UnitProcess]
) -> None:
    data_dir = tmp_path / "unit"

    def start() -> UnitProcess:
        units.append(UnitProcess(data_dir, "--unit", "pio01"))
        return units[-1].wait_ready()

    unit = start()
    chance = random.Random(SEED)
    for generation in range(max(3, round(15 * LENGTH))):
        before = _generation(unit)
        files = {name: f"generation {generation}\n" for name in MANY_NEW if name != "config.ini"}
        files["config.ini"] = f"[generation]\nnumber = {generation}\n"
        launched = _upload(unit, zip_of(files))
        time.sleep(chance.random() * 0.25)
        unit.kill9()
        unit = start()
        assert _generation(unit) in (before, f"generation {generation}\n")
        task = unit.get(launched["result_url_path"])
        assert task["status"] in ("complete", "failed")
        if task["status"] == "complete":
            assert _generation(unit) == f"generation {generation}\n"
        assert not (data_dir / ".piod-import").exists()


def _upload(unit: UnitProcess, packed: bytes) -> dict[str, str]:
    body = b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'
    request = urllib.request.Request(
        f"{unit.url}/unit_api/import_zipped_dot_pioreactor",
        body + packed + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    import json

    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        launched: dict[str, str] = json.load(answer)
    return launched


def _generation(unit: UnitProcess) -> str:
    """Which import the tree is of; every file of one says the same."""
    tree = unit.data_dir
    said = {
        (tree / name).read_text() if (tree / name).exists() else ""
        for name in MANY_NEW
        if name != "config.ini"
    }
    assert len(said) == 1, said
    return said.pop()
