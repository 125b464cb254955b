"""``piod calibrate`` runs beside a daemon on a small machine: it brings little of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("aiohttp", "asyncio", "marshmallow", "numpy", "plotext", "sqlite3")


def test_it_imports_nothing_heavy_before_it_draws() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, piod.terminal.command; print(*sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    loaded = set(done.stdout.split())
    assert "piod.terminal.walk" in loaded
    assert not loaded.intersection(HEAVY)
