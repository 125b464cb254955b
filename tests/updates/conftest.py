"""An updater on files of the test, none of whose processes outlives it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from updater_process import Updater


@pytest.fixture
def updater(tmp_path: Path) -> Iterator[Updater]:
    one = Updater(tmp_path)
    yield one
    one.close()
