"""What goes on by itself after a power cut: only what ``[piod] resume_jobs`` names."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from unit_process import Start, all_off, wait_until

pytestmark = pytest.mark.long  # processes that wait: too slow for the fast tests


def configure(data_dir: Path, *lines: str) -> None:
    (data_dir / "unit_config.ini").write_text("\n".join(["[piod]", "run_monitor = 0", *lines, ""]))


def test_a_named_job_goes_on_as_a_new_one_with_all_that_it_was_run_with(
    start: Start, killed: Path
) -> None:
    configure(killed, "resume_jobs = stirring")
    unit = start(killed)
    (row,) = wait_until("the new job", unit.running, 5)
    assert row["job_id"] == "2"
    assert (row["job_name"], row["experiment"]) == ("stirring", "Exp7")
    assert row["job_source"] == "experiment_profile"
    settings = wait_until(
        "ready", lambda: unit.settings("2").get("$state") == "ready" and unit.settings("2"), 5
    )
    assert settings["target_rpm"] == "320"
    assert unit.duty == pytest.approx(5 + 320 * (35 - 5) / 500), "initial_duty_cycle overridden"
    assert unit.row("1")["state"] == "lost"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["resume_jobs = add_media"],
        ["resume_jobs = stirring", "resume_within_min = 0"],
        ["resume_jobs = stirring", "resume_within_min = soon"],
    ],
    ids=["not named", "another job named", "no outage allowed", "limit not understood"],
)
def test_nothing_starts_by_itself(start: Start, killed: Path, lines: list[str]) -> None:
    configure(killed, *lines)
    unit = start(killed)
    # a run takes longer than a resumption, and its id tells that none came before it
    assert unit.run_stirring(500) == "2"
    assert [row["job_id"] for row in unit.running()] == ["2"]
    assert unit.row("1")["state"] == "lost"
    if "resume_jobs = add_media" in lines:
        assert "resume_jobs: add_media is not resumed" in unit.stderr
    if "resume_within_min = 0" in lines:
        assert "stirring (job 1) is not resumed: the outage took" in unit.stderr
    if "resume_within_min = soon" in lines:
        assert "resume_within_min must be a number" in unit.stderr


def test_after_a_long_outage_nothing_starts_by_itself(start: Start, killed: Path) -> None:
    configure(killed, "resume_jobs = stirring")
    database = sqlite3.connect(killed / "storage" / "piod.sqlite")
    with database:
        database.execute(
            "UPDATE meta SET value = '2026-01-31T12:45:00.000Z' WHERE key = 'alive_at'"
        )
    database.close()
    unit = start(killed)
    wait_until("the log", lambda: "stirring (job 1) is not resumed" in unit.stderr, 5)
    assert unit.running() == []
    assert all_off(killed)
