"""A daemon that is killed or frozen: outputs off, then a new one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.machine.container import wait_until
from tests.machine.installed import SERVICE, Installed

pytestmark = pytest.mark.machine

SAFE_S = 0.3
"""From the death of the daemon to outputs that are off."""
SLACK = 5.0
"""For a machine that is busy with other things."""
WATCHDOG_S = 2.0


def _restarted(unit: Installed, before: str) -> None:
    wait_until("a restart", lambda: unit.invocation() not in ("", before), 30)
    unit.wait_active()
    assert unit.all_off(), "a stirrer is not started by a restart"


def test_a_daemon_that_is_killed_leaves_outputs_off_and_is_restarted(unit: Installed) -> None:
    job_id = unit.run_stirring()
    before, pid = unit.invocation(), unit.outer_pid(unit.main_pid())
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    took_s = unit.time_until_off_s(begun)
    print(f"outputs off {took_s * 1000:.0f} ms after kill -9 of the daemon")
    assert took_s < SAFE_S * SLACK
    _restarted(unit, before)
    assert unit.row(job_id)["state"] == "lost"


def test_with_its_guard_killed_too_systemd_turns_outputs_off(unit: Installed) -> None:
    unit.run_stirring()
    before = unit.invocation()
    pids = [unit.outer_pid(int(pid)) for pid in unit.output("pgrep", "-u", "piod").split()]
    assert len(pids) >= 2, "the daemon and its guard"
    begun = time.monotonic()
    for pid in reversed(pids):  # the guard first: alone, the daemon would start another
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    took_s = unit.time_until_off_s(begun)
    print(f"outputs off {took_s * 1000:.0f} ms after kill -9 of daemon and guard")
    assert took_s < SAFE_S * SLACK
    _restarted(unit, before)


@pytest.fixture
def short_watchdog(unit: Installed) -> Iterator[None]:
    unit.with_drop_in(f"[Service]\nWatchdogSec={WATCHDOG_S:g}\n")
    unit.run("systemctl", "restart", SERVICE)
    unit.wait_active()
    yield
    unit.without_drop_in()
    unit.run("systemctl", "restart", SERVICE)


def test_the_watchdog_leaves_a_daemon_alone_that_lives(
    unit: Installed, short_watchdog: None
) -> None:
    before = unit.invocation()
    unit.run_stirring()
    time.sleep(2 * WATCHDOG_S)
    assert unit.invocation() == before


def test_a_frozen_daemon_is_restarted_and_outputs_are_off(
    unit: Installed, short_watchdog: None
) -> None:
    unit.run_stirring()
    before, pid = unit.invocation(), unit.outer_pid(unit.main_pid())
    begun = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    took_s = unit.time_until_off_s(begun)
    print(f"outputs off {took_s:.2f} s after SIGSTOP of the daemon")
    assert took_s < 3 * SLACK, "a guard waits 2 s for a heartbeat"
    _restarted(unit, before)
    print(f"serving again {time.monotonic() - begun:.2f} s after SIGSTOP")
    assert "watchdog" in unit.output("journalctl", "-b", "-o", "cat", "-u", SERVICE).lower()


def test_with_its_guard_frozen_too_outputs_are_off_after_the_watchdog(
    unit: Installed, short_watchdog: None
) -> None:
    unit.run_stirring()
    before = unit.invocation()
    pids = [unit.outer_pid(int(pid)) for pid in unit.output("pgrep", "-u", "piod").split()]
    begun = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    took_s = unit.time_until_off_s(begun)
    print(f"outputs off {took_s:.2f} s after SIGSTOP of daemon and guard")
    _restarted(unit, before)
