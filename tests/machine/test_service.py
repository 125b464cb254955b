"""The service: who runs it, what it may, how it starts, logs, reloads and restarts."""

from __future__ import annotations

import time

import pytest

from tests.machine.container import lines_of, wait_until
from tests.machine.installed import SERVICE, STIRRER, Installed, exposure
from tests.machine.load import Load

pytestmark = pytest.mark.machine

MAX_EXPOSURE = 2.0
SHIPPED_ENVIRONMENT = "PIOD_OPTIONS=\n"


ASK = """
import sys, urllib.request
body = b'{"options": {"target_rpm": 399}}'
request = urllib.request.Request(sys.argv[1] + "/jobs/run/job_name/stirring", body)
print(urllib.request.urlopen(request).read().decode())
"""
"""Starts stirring, of the unit whose API it is told."""


def test_it_starts_with_the_machine_as_its_own_user_and_answers_on_port_80(
    unit: Installed,
) -> None:
    pid = str(unit.main_pid())
    assert unit.output("ps", "-o", "user=,group=", "-p", pid).split() == ["piod", "piod"]
    assert unit.output("systemctl", "is-enabled", SERVICE, "piod.socket").split() == ["enabled"] * 2
    assert unit.unit(SERVICE, "Type") == "notify"
    assert unit.unit(SERVICE, "WatchdogUSec") == "10s"
    assert unit.get("/unit_api/health")["status"] == "ok"
    assert unit.output("systemctl", "is-system-running") == "running"


def test_it_holds_no_privilege(unit: Installed) -> None:
    status = unit.output("cat", f"/proc/{unit.main_pid()}/status")
    rows = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert [int(rows[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 4
    assert rows["NoNewPrivs"] == "1"
    assert rows["Seccomp"] == "2"


def test_systemd_finds_it_little_exposed(unit: Installed) -> None:
    found = exposure(unit.output("systemd-analyze", "security", "--no-pager", SERVICE))
    print(f"exposure {found}")
    assert found <= MAX_EXPOSURE


def test_status_says_what_runs(unit: Installed) -> None:
    unit.run_stirring()
    wait_until("a status", lambda: "stirring" in unit.unit(SERVICE, "StatusText"), 5)


def test_log_lines_of_a_job_carry_its_identity(unit: Installed) -> None:
    job_id = unit.run_stirring()
    unit.finished(unit.post("/unit_api/jobs/stop/all"))
    query = ["journalctl", "-o", "json", "-b", "PIOD_JOB_NAME=stirring", f"PIOD_JOB_ID={job_id}"]
    found = wait_until("log lines", lambda: unit.output(*query), 5)
    for line in lines_of(found):
        assert line["SYSLOG_IDENTIFIER"] == "piod"
        assert line["PIOD_EXPERIMENT"]
        assert line["_SYSTEMD_UNIT"] == SERVICE


def test_reload_reads_the_configuration_again_and_disturbs_no_job(unit: Installed) -> None:
    unit.run_stirring()
    before = unit.invocation()
    unit.run("systemctl", "reload", SERVICE)
    unit.wait_active()
    assert unit.invocation() == before
    assert [row["job_name"] for row in unit.running()] == ["stirring"]
    assert unit.outputs()["pwm"][STIRRER] > 0


def test_stop_turns_outputs_off_and_ends_within_its_time(unit: Installed) -> None:
    job_id = unit.run_stirring()
    begun = time.monotonic()
    unit.run("systemctl", "stop", SERVICE, "piod.socket")
    took_s = time.monotonic() - begun
    assert unit.all_off()
    assert unit.unit(SERVICE, "Result") == "success"
    assert took_s < 10, "5 s for the daemon, and safe-outputs"
    unit.run("systemctl", "start", SERVICE)
    unit.wait_active()
    assert unit.row(job_id)["is_running"] in (0, False)


def test_options_that_only_serve_knows_do_not_fail_the_stop(unit: Installed) -> None:
    environment = unit.tree / "etc/piod/environment"
    shipped = environment.read_text()
    try:
        environment.write_text(shipped.replace("--simulate", "--simulate --leader x"))
        unit.run("systemctl", "restart", SERVICE)
        unit.wait_active()
        unit.run_stirring()
        # and a slip, which counts from the end of the service on
        environment.write_text(shipped.replace("--simulate", "--simulate --leader x --bogus"))
        unit.run("systemctl", "stop", SERVICE, "piod.socket")
        assert unit.all_off()
        assert unit.state() == "inactive", unit.journal()
        assert unit.unit(SERVICE, "Result") == "success"
        assert "ignoring what safe-outputs does not know: --bogus" in unit.journal()
    finally:
        environment.write_text(shipped)
        unit.run("systemctl", "restart", SERVICE)


BY_HAND = """
cd /
runuser -u piod -- piod serve --simulate --data-dir /var/lib/piod --port 8123 > /dev/null 2>&1 &
echo $!
"""


def test_beside_a_piod_started_by_hand_the_service_leaves_its_jobs_alone(unit: Installed) -> None:
    unit.run("systemctl", "stop", SERVICE)
    by_hand = unit.output("sh", "-c", BY_HAND).strip()
    try:
        url = "http://127.0.0.1:8123/unit_api"
        ask = ("python3", "-c", ASK, url)
        started = wait_until("its answer", lambda: unit.run(*ask, check=False).stdout, 20)
        assert "result_url_path" in started
        wait_until("a stirrer that turns", lambda: unit.outputs()["pwm"][STIRRER] > 0, 10)
        refused = unit.run("systemctl", "start", SERVICE, check=False)
        assert refused.returncode != 0
        assert unit.state() == "failed"
        assert unit.unit(SERVICE, "ExecMainStatus") == "75"
        assert "another piod uses the data directory /var/lib/piod" in unit.journal()
        time.sleep(3)
        assert unit.state() == "failed", "it is not started over and over"
        assert unit.outputs()["pwm"][STIRRER] > 0, unit.journal()
    finally:
        unit.run("kill", by_hand)
    wait_until("its end", unit.all_off, 10)
    unit.run("systemctl", "start", SERVICE)
    unit.wait_active()


def test_safe_outputs_beside_the_daemon_ends_its_jobs(unit: Installed) -> None:
    job_id = unit.run_stirring()
    before = unit.invocation()
    unit.run("piod", "safe-outputs", "--simulate", "--data-dir", "/var/lib/piod")
    assert unit.all_off()
    assert unit.running() == []
    assert unit.row(job_id)["is_running"] in (0, False)
    assert unit.invocation() == before


def test_a_restart_under_load_drops_no_request(unit: Installed, load: Load) -> None:
    load.wait_for_answers()
    for _ in range(2):
        before = unit.invocation()
        unit.run("systemctl", "restart", SERVICE)
        unit.wait_active()
        assert unit.invocation() != before
        load.wait_for_answers()
    load.end()
    print(load.summary)
    assert set(load.answers) == {"200"}, load.answers


def test_as_shipped_without_its_hardware_it_serves_and_says_what_is_missing(
    unit: Installed,
) -> None:
    environment = unit.tree / "etc/piod/environment"
    simulated = environment.read_text()
    try:
        environment.write_text(SHIPPED_ENVIRONMENT)
        unit.run("systemctl", "restart", SERVICE)
        unit.wait_active()
        problems = " ".join(unit.get("/unit_api/health")["problems"])
        assert "/dev/i2c-1" in problems
        assert "PWM" in problems
    finally:
        environment.write_text(simulated)
        unit.run("systemctl", "restart", SERVICE)
