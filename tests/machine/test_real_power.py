"""Reboot and shutdown over HTTP, of a machine that really does it."""

from __future__ import annotations

import pytest

from tests.machine.container import POWERED_OFF, REBOOTED
from tests.machine.installed import Installed

pytestmark = pytest.mark.machine


@pytest.mark.parametrize(
    ("command", "exit_status", "reason"),
    [
        ("reboot", REBOOTED, "the unit was rebooted"),
        ("shutdown", POWERED_OFF, "the unit was shut down"),
    ],
)
def test_it_goes_down_and_what_ran_is_in_the_history(
    unit: Installed, command: str, exit_status: int, reason: str
) -> None:
    before, job_id = unit.boot_id(), unit.run_stirring()
    launched = unit.post(f"/unit_api/system/{command}")
    assert unit.wait_down() == exit_status
    assert unit.all_off(), "nothing is left on while the machine is down"

    unit.boot()
    unit.wait_active()
    assert unit.boot_id() != before
    row = unit.row(job_id)
    assert (row["state"], row["reason"]) == ("disconnected", reason)
    assert unit.running() == []
    task = unit.finished(launched)
    assert (task["status"], task.get("result")) == ("complete", True), task
