"""Power, clock and web server over HTTP, down to the calls on a private system bus."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from piod.actors import system as system_actor
from piod.clock import SimulatedClock
from piod.dbus import SystemBus
from piod.machine import Machine
from piod.system import UpdateOutcome
from piod.update_files import UPDATE_UNIT, UpdateFiles
from tests.dbus.private_bus import (
    ACCESS_DENIED,
    AUTHORIZATION_REQUIRED,
    VANISH,
    ErrorReply,
    MachineServices,
    PrivateBus,
    machine_services,
    private_bus,
)
from tests.unit import Unit, running_unit

REBOOT = "/unit_api/system/reboot"
SHUTDOWN = "/unit_api/system/shutdown"
CLOCK = "/unit_api/system/utc_clock"
UPDATE = "/unit_api/system/update"
STATUS = "/unit_api/system/web_server/status"
RESTART = "/unit_api/system/web_server/restart"
HEALTH = "/unit_api/health"
TIME = {"utc_clock_time": "2026-01-31T12:45:00Z"}
TIME_US = 1_769_863_500_000_000

RunUnit = Callable[..., AbstractAsyncContextManager[Unit]]


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[PrivateBus]:
    (tmp_path / "bus").mkdir()
    async with private_bus(tmp_path / "bus") as daemon:
        yield daemon


@pytest.fixture
async def services(bus: PrivateBus) -> AsyncIterator[MachineServices]:
    async with machine_services(bus.address) as present:
        yield present


@pytest.fixture
def run_unit(
    bus: PrivateBus, tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> RunUnit:
    """Runs a unit whose machine is the one on the private bus."""
    monkeypatch.setattr(system_actor, "LEADER_DELAY_S", 0.05)
    data_dir = tmp_path / "unit"
    data_dir.mkdir()
    updates = UpdateFiles(data_dir / "update.json", data_dir / "outcome.json")
    machine = Machine(SystemBus(bus.address), updates, data_dir / "ntp")
    return partial(running_unit, data_dir, clock, system=machine)


@pytest.fixture
async def worker(run_unit: RunUnit) -> AsyncIterator[Unit]:
    async with run_unit() as one:
        yield one


@pytest.fixture
async def leader(run_unit: RunUnit) -> AsyncIterator[Unit]:
    async with run_unit(leader_name="pio01") as one:
        yield one


@pytest.mark.parametrize(
    ("path", "call", "reason"),
    [
        (REBOOT, ("Reboot", [False]), "the unit was rebooted"),
        (SHUTDOWN, ("PowerOff", [False]), "the unit was shut down"),
    ],
)
async def test_the_machine_goes_down_by_one_call_after_outputs_are_off_and_jobs_in_the_history(
    worker: Unit, services: MachineServices, path: str, call: object, reason: str
) -> None:
    await worker.run("stirring")
    assert worker.duty > 0
    duties = []
    services.logind.when_called = lambda member: duties.append(worker.duty)
    task = await worker.post(path)
    assert task["status"] == "complete"
    assert services.logind.calls == [call]
    assert duties == [0]
    assert [job["reason"] for job in await worker.history()] == [reason]


async def test_a_leader_reboots_its_machine_too(leader: Unit, services: MachineServices) -> None:
    assert (await leader.post(REBOOT))["status"] == "complete"
    assert services.logind.calls == [("Reboot", [False])]


@pytest.mark.parametrize("error_name", [ACCESS_DENIED, AUTHORIZATION_REQUIRED])
async def test_a_denied_reboot_fails_the_task_with_what_polkit_has_to_allow(
    worker: Unit, services: MachineServices, error_name: str
) -> None:
    services.logind.misbehave["Reboot"] = ErrorReply(error_name, "Interactive authentication…")
    await worker.run("stirring")
    task = await worker.post(REBOOT)
    assert task["status"] == "failed"
    assert "does not allow piod to call Reboot" in task["error"]
    assert "org.freedesktop.login1.reboot" in task["error"]
    assert "/etc/polkit-1/rules.d" in task["error_info"]["remediation"]
    assert services.logind.calls == [("Reboot", [False])]
    assert worker.duty == 0


async def test_a_logind_that_vanishes_fails_the_task_and_is_not_asked_twice(
    worker: Unit, services: MachineServices
) -> None:
    services.logind.misbehave["Reboot"] = VANISH
    task = await worker.post(REBOOT)
    assert task["status"] == "failed"
    assert "went away" in task["error"]
    assert services.logind.calls == [("Reboot", [False])]


async def test_a_bus_that_dies_in_the_middle_fails_the_task_and_harms_nothing_else(
    bus: PrivateBus, worker: Unit, services: MachineServices
) -> None:
    services.logind.misbehave["Reboot"] = "hang"
    status, accepted = await worker.request("POST", REBOOT)
    assert status == 202
    await services.logind.called("Reboot")
    await bus.kill()
    task = await worker.task(accepted)
    assert task["status"] == "failed"
    assert "connection to the system bus was lost" in task["error"]
    await worker.run("stirring")
    assert worker.duty > 0


async def test_without_a_bus_what_needs_it_is_refused_at_once_and_all_else_goes_on(
    bus: PrivateBus, leader: Unit
) -> None:
    await bus.kill()
    job_id = await leader.run("stirring")
    begun = time.monotonic()
    for method, path, body in (
        ("POST", REBOOT, None),
        ("POST", SHUTDOWN, None),
        ("POST", CLOCK, TIME),
        ("POST", UPDATE, {"options": {}}),
        ("POST", RESTART, None),
        ("GET", STATUS, None),
    ):
        status, answer = await leader.request(method, path, body)
        assert status == 503, (path, answer)
        assert "the system bus" in answer["error"]
        assert "systemctl status dbus" in answer["error_info"]["remediation"]
    assert time.monotonic() - begun < 2, "six refusals"

    assert leader.duty > 0
    assert (await leader.get(CLOCK))["status"] == "success"
    assert (await leader.get(HEALTH))["status"] == "ok"
    assert (await leader.change(job_id, target_rpm=400))[0] in (200, 202)


async def test_the_clock_of_a_leader_is_set_with_ntp_off_meanwhile(
    leader: Unit, services: MachineServices
) -> None:
    services.timedated.ntp = True
    assert (await leader.post(CLOCK, TIME))["status"] == "complete"
    ntp_off, (set_time, [usec, *flags]), ntp_on = services.timedated.calls
    assert ntp_off == ("SetNTP", [False, False])
    assert (set_time, flags) == ("SetTime", [False, False])
    assert TIME_US <= usec < TIME_US + 20e6
    assert ntp_on == ("SetNTP", [True, False])


async def test_ntp_stays_off_after_the_clock_was_set_if_the_body_says_so(
    leader: Unit, services: MachineServices
) -> None:
    services.timedated.ntp = True
    assert (await leader.post(CLOCK, {**TIME, "ntp": False}))["status"] == "complete"
    assert [member for member, _ in services.timedated.calls] == ["SetNTP", "SetTime"]
    status, refusal = await leader.request("POST", CLOCK, {**TIME, "ntp": "off"})
    assert status == 400, refusal


async def test_a_worker_synchronises_its_clock_by_ntp(
    worker: Unit, services: MachineServices
) -> None:
    services.timedated.synchronised = True
    assert (await worker.post(CLOCK))["status"] == "complete"
    assert services.timedated.calls == [("SetNTP", [True, False])]


async def test_the_web_servers_state_is_systemds(leader: Unit, services: MachineServices) -> None:
    services.systemd.units = {"lighttpd.service": "active"}
    status = await leader.get(STATUS)
    assert status["state"] == "disconnected"
    assert status["raw_status"] == "lighttpd.service=active, huey.service=not-found"


async def test_a_restart_restarts_the_configured_unit_and_no_other(
    leader: Unit, services: MachineServices
) -> None:
    (leader.data_dir / "config.ini").write_text("[piod]\nweb_server_units = nginx.service\n")
    services.systemd.units = {"nginx.service": "active", "lighttpd.service": "active"}
    assert (await leader.post(RESTART))["status"] == "complete"
    restarted = [body for member, body in services.systemd.calls if member == "RestartUnit"]
    assert restarted == [["nginx.service", "replace"]]


async def test_a_restart_that_fails_fails_the_task_with_the_result(
    leader: Unit, services: MachineServices
) -> None:
    services.systemd.units = {"lighttpd.service": "active", "huey.service": "active"}
    services.systemd.results = {"lighttpd.service": "failed"}
    task = await leader.post(RESTART)
    assert task["status"] == "failed"
    assert "lighttpd.service was not restarted" in task["error"]
    restarted = [body[0] for member, body in services.systemd.calls if member == "RestartUnit"]
    assert restarted == ["lighttpd.service"]


async def test_an_update_is_requested_started_and_its_outcome_told(
    worker: Unit, services: MachineServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.systemd.units = {UPDATE_UNIT: "inactive"}
    requests = []

    def begin(member: str) -> None:
        if member == "StartUnit":
            requests.append(json.loads((worker.data_dir / "update.json").read_text()))

    services.systemd.when_called = begin
    outcome = UpdateOutcome(False, "there is no such version")
    monkeypatch.setattr(UpdateFiles, "read_outcome", lambda files, request_id: outcome)
    task = await worker.post(UPDATE, {"options": {"version": "99.9"}})
    assert task["status"] == "failed"
    assert "there is no such version" in task["error"]
    [request] = requests
    assert (request["request_id"], request["version"]) == (task["task_id"], "99.9")
