"""What the daemon does beside its actors: bounding the history, and telling what fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from piod.config import ConfigFiles
from piod.serve import meanwhile, prune
from piod.storage.ledger import Ledger
from piod.storage.readings import Reading, Readings

DAY_S = 86_400


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    one = await Ledger.open(tmp_path / "ledger.sqlite", nullcontext)
    yield one
    await one.close()


@pytest.fixture
async def readings(tmp_path: Path) -> AsyncIterator[Readings]:
    """One of today, a younger and an older one than is usually kept."""
    one = Readings(tmp_path / "readings.sqlite", nullcontext)
    await one.open()
    now = time.time()
    for age_days in (0, 20, 730):
        one.add(Reading("pio01", "E", "od", "1", now - age_days * DAY_S, 1.0, {}))
    await one.flush()
    yield one
    await one.close()


@pytest.mark.parametrize("days", ["1e308", "99999999", "-5"])
async def test_an_age_that_cannot_be_is_told_and_does_not_keep_readings_from_being_pruned(
    tmp_path: Path,
    ledger: Ledger,
    readings: Readings,
    days: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "config.ini").write_text(f"[piod]\nkeep_history_days={days}\n")
    await prune(ledger, readings, ConfigFiles(tmp_path).current())
    assert "keep_history_days" in caplog.text
    assert (await readings.kinds())["od"].readings == 2


@pytest.mark.parametrize(
    "setting", ["keep_readings_days=1e300", "keep_readings_rows=99999999999999999999"]
)
async def test_a_bound_of_readings_that_cannot_be_is_told_and_costs_none(
    tmp_path: Path,
    ledger: Ledger,
    readings: Readings,
    setting: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "config.ini").write_text(f"[piod]\n{setting}\n")
    await prune(ledger, readings, ConfigFiles(tmp_path).current())
    assert setting.split("=")[0] in caplog.text
    assert (await readings.kinds())["od"].readings == 3


async def test_the_longest_ages_that_may_be_asked_for_work(
    tmp_path: Path, ledger: Ledger, readings: Readings, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.ini").write_text(
        "[piod]\nkeep_history_days=36500\nkeep_history_jobs=1000000000\n"
        "keep_readings_days=36500\nkeep_readings_rows=1000000000\n"
    )
    await prune(ledger, readings, ConfigFiles(tmp_path).current())
    assert caplog.text == ""
    assert (await readings.kinds())["od"].readings == 3


async def test_a_task_of_the_daemon_that_fails_is_logged_while_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails() -> None:
        raise OverflowError("too far")

    async def goes_on() -> None:
        await asyncio.Event().wait()

    async with meanwhile(fails(), goes_on()):
        for _ in range(5):
            await asyncio.sleep(0)
        assert "a task of the daemon failed" in caplog.text
        assert "too far" in caplog.text
