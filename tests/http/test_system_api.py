"""Power, clock, web server, updates and the hardware check over HTTP."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from piod.actors import system as system_actor
from piod.clock import SimulatedClock
from piod.errors import Unavailable
from piod.http import unit as unit_handlers
from piod.hw.wiring import shipped_files
from piod.system import NoSystem, UpdateRequest
from tests.unit import Unit, running_unit

API = "/unit_api"
REBOOT = f"{API}/system/reboot"
SHUTDOWN = f"{API}/system/shutdown"
CLOCK = f"{API}/system/utc_clock"
UPDATE = f"{API}/system/update"
STATUS = f"{API}/system/web_server/status"
RESTART = f"{API}/system/web_server/restart"
CHECK = f"{API}/hardware/check"
FAULTS = "/simulator/faults"

MODEL_1_1 = {"model_name": "pioreactor_20ml", "model_version": "1.1"}
MODEL_1_5 = {"model_name": "pioreactor_20ml", "model_version": "1.5"}
TIME = {"utc_clock_time": "2026-01-31T12:45:00Z"}

COMMANDS = {
    REBOOT: None,
    SHUTDOWN: None,
    CLOCK: TIME,
    UPDATE: {"options": {}, "args": []},
    f"{UPDATE}/app": {"options": {}, "args": []},
    RESTART: None,
}


@pytest.fixture
async def leader(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Unit]:
    """A unit that is its own leader, and waits less than others before it goes down."""
    monkeypatch.setattr(system_actor, "LEADER_DELAY_S", 0.1)
    async with running_unit(tmp_path, clock, leader_name="pio01") as one:
        yield one


def assert_refusal(answer: tuple[int, Any], status: int, *words: str) -> None:
    """The error object, exactly, with ``words`` in it."""
    got, body = answer
    assert got == status, body
    assert set(body) == {"error", "error_info"}
    assert set(body["error_info"]) == {"cause", "remediation", "status"}
    assert body["error_info"]["status"] == status
    text = json.dumps(body)
    for word in words:
        assert word in text


async def done(unit: Unit) -> list[dict[str, Any]]:
    """What the simulated machine did, without the times."""
    record = await unit.get("/simulator/system")
    return [{k: v for k, v in entry.items() if k != "at"} for entry in record["done"]]


async def fault(unit: Unit, **fault: object) -> None:
    status, body = await unit.request("POST", FAULTS, fault)
    assert status == 201, body


async def succeeded(unit: Unit, path: str, body: object = None) -> object:
    task = await unit.post(path, body)
    assert task["status"] == "complete", task
    return task["result"]


# -- all commands --------------------------------------------------------------------


@pytest.mark.parametrize("path", COMMANDS)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_command_is_launched_and_complete(leader: Unit, path: str, method: str) -> None:
    status, accepted = await leader.request(method, path, COMMANDS[path])
    assert status == 202
    assert set(accepted) == {"unit", "task_id", "result_url_path"}
    assert accepted["unit"] == "pio01"
    task = await leader.task(accepted)
    assert (task["status"], task["result"]) == ("complete", True)
    assert len(await done(leader)) == 1


@pytest.mark.parametrize("path", COMMANDS)
async def test_without_a_machine_a_command_is_503_at_once_and_changes_nothing(
    tmp_path: Path, clock: SimulatedClock, path: str
) -> None:
    nobody = NoSystem("nobody is there")
    async with running_unit(tmp_path, clock, leader_name="pio01", system=nobody) as unit:
        job_id = await unit.run("stirring") if "update" not in path else None
        duty = unit.duty
        assert_refusal(await unit.request("POST", path, COMMANDS[path]), 503, "nobody is there")
        assert unit.duty == duty
        if job_id is not None:
            assert [row["job_id"] for row in await unit.get(f"{API}/jobs/running")] == [job_id]
        assert_refusal(await unit.request("GET", STATUS), 503, "nobody is there")
        assert (await unit.get(CLOCK))["status"] == "success"


@pytest.mark.parametrize("path", COMMANDS)
async def test_of_two_quick_requests_one_starts_and_the_other_is_told_which(
    leader: Unit, path: str
) -> None:
    # a machine that takes its time: the first of both is certainly under way
    gate = asyncio.Event()
    for call in ("set_time", "restart_units", "start_update"):
        hold(leader, call, gate)
    answers = await asyncio.gather(
        *(leader.request("POST", path, COMMANDS[path]) for _ in range(2))
    )
    (_, first), (_, second) = sorted(answers, key=lambda answer: "lock" in answer[1])
    assert [status for status, _ in answers] == [202, 202]
    assert second["status"] == "in_progress"
    assert second["lock"].endswith("-lock")
    assert second["task_id"] == first["task_id"]
    assert second["result_url_path"] == first["result_url_path"]
    gate.set()
    assert (await leader.task(first))["status"] == "complete"
    assert len(await done(leader)) == 1


def hold(unit: Unit, call: str, gate: asyncio.Event) -> None:
    """Let a call of the simulated machine wait for ``gate``."""
    original = getattr(unit.machine, call)

    async def held(*arguments: object) -> None:
        await gate.wait()
        await original(*arguments)

    setattr(unit.machine, call, held)


@pytest.mark.parametrize("path", [UPDATE, f"{UPDATE}/app", CLOCK, CHECK])
async def test_a_body_that_is_no_object_is_400(leader: Unit, path: str) -> None:
    deep = io.BytesIO(b'{"options": ' + b"[" * 200_000)
    for raw in (b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b"a=1", b"{}{}", b'{"a": NaN}', deep):
        async with leader.client.post(path, data=raw) as response:
            assert_refusal((response.status, await response.json()), 400)
    async with leader.client.post(path, data=io.BytesIO(b" " * 1_100_000)) as response:
        assert_refusal((response.status, await response.json()), 413)
    assert await done(leader) == []


@pytest.mark.parametrize("path", [REBOOT, SHUTDOWN, RESTART])
async def test_a_command_without_parameters_ignores_its_body(leader: Unit, path: str) -> None:
    async with leader.client.post(path, data=b"{ not json \0") as response:
        assert response.status == 202
        assert (await leader.task(await response.json()))["status"] == "complete"


# -- power ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "action", "reason"),
    [
        (REBOOT, "reboot", "the unit was rebooted"),
        (SHUTDOWN, "power_off", "the unit was shut down"),
        (f"{API}/reboot", "reboot", "the unit was rebooted"),
        (f"{API}/shutdown", "power_off", "the unit was shut down"),
    ],
)
async def test_jobs_and_outputs_end_before_the_machine_goes_down(
    unit: Unit, path: str, action: str, reason: str
) -> None:
    job_id = await unit.run("stirring")
    assert unit.duty > 0
    seen: list[tuple[float, list[object]]] = []
    original = getattr(unit.machine, action)

    async def watched() -> None:
        seen.append((unit.duty, await unit.get(f"{API}/jobs/running")))
        await original()

    setattr(unit.machine, action, watched)
    assert await succeeded(unit, path) is True
    assert seen == [(0, [])]
    assert unit.power == [action]
    assert await done(unit) == [{"action": action}]
    [row] = await unit.history()
    assert (row["job_id"], row["state"], row["reason"]) == (job_id, "disconnected", reason)


async def test_a_leader_answers_before_it_goes_down(
    leader: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_actor, "LEADER_DELAY_S", 0.5)
    await leader.run("stirring")
    status, accepted = await leader.request("POST", REBOOT)
    assert status == 202
    await asyncio.sleep(0.2)
    assert leader.power == []
    assert leader.duty > 0, "it goes on with its work until then"
    assert (await leader.task(accepted))["result"] is True
    assert leader.power == ["reboot"]
    assert leader.duty == 0


async def test_reboot_and_shutdown_share_a_lock(leader: Unit) -> None:
    _, first = await leader.request("POST", REBOOT)
    status, second = await leader.request("POST", SHUTDOWN)
    assert status == 202
    assert (second["status"], second["lock"]) == ("in_progress", "power-lock")
    assert second["task_id"] == first["task_id"]
    await leader.task(first)
    assert leader.power == ["reboot"]


async def test_a_second_power_action_within_fifteen_seconds_is_429(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await unit.post(REBOOT)
    assert_refusal(await unit.request("POST", SHUTDOWN), 429, "15 s", "Wait 1")
    assert unit.power == ["reboot"]
    monkeypatch.setattr(system_actor, "POWER_EVERY_S", 0.0)
    await unit.post(SHUTDOWN)
    assert unit.power == ["reboot", "power_off"]


async def test_a_machine_that_refuses_to_go_down_fails_the_task_with_outputs_off(
    unit: Unit,
) -> None:
    await fault(unit, kind="system_error", call="reboot", message="not authorised")
    await unit.run("stirring")
    task = await unit.post(REBOOT)
    assert task["status"] == "failed"
    assert "not authorised" in task["error"]
    assert task["error_info"]["status"] == 503
    assert unit.duty == 0
    assert unit.power == []


async def test_a_machine_that_hangs_fails_the_task(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_actor, "CALL_TIMEOUT_S", 0.05)
    hold(unit, "reboot", asyncio.Event())
    task = await unit.post(REBOOT)
    assert task["status"] == "failed"
    assert "did not go down within" in task["error"]


# -- clock ---------------------------------------------------------------------------


async def test_the_clock_tells_the_time_of_the_unit(unit: Unit) -> None:
    assert await unit.get(CLOCK) == {
        "status": "success",
        "clock_time": (await unit.get(f"{API}/health"))["utc_time"],
    }


@pytest.mark.parametrize(
    ("told", "then"),
    [
        ("2026-01-31T12:45:00Z", "2026-01-31T12:45"),
        ("2026-01-31T12:45:00.25Z", "2026-01-31T12:45"),
        ("2026-01-31T12:45:00+00:00", "2026-01-31T12:45"),
        ("2026-01-31T12:45:00-05:30", "2026-01-31T18:15"),
        ("2031-12-31T23:59:00Z", "2031-12-31T23:59"),
    ],
)
async def test_a_leader_sets_its_clock_and_what_follows_is_dated_by_it(
    leader: Unit, told: str, then: str
) -> None:
    assert await succeeded(leader, CLOCK, {"utc_clock_time": told}) is True
    assert (await leader.get(CLOCK))["clock_time"].startswith(then)
    await leader.run("stirring")
    assert (await leader.history())[0]["started_at"].startswith(then)


NO_TIMES = [
    "2026-01-31T12:45:00",
    "2026-01-31 12:45:00Z",
    "2026-01-31T12:45Z",
    "2026-02-30T12:45:00Z",
    "2026-01-31T12:45:60Z",
    "2026-01-31T12:45:00+99:99",
    "2026-01-31T12:45:00Z\n",
    "20260131T124500Z",
    "1970-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:00",
    "9999-12-31T23:59:59-23:00",
    "٢٠٢٦-01-31T12:45:00Z",
    "now",
    "",
    "x" * 300,
    1_769_863_500,
    None,
    True,
    ["2026-01-31T12:45:00Z"],
]


async def test_what_is_no_time_is_400_and_leaves_the_clock(leader: Unit) -> None:
    for told in NO_TIMES:
        answer = await leader.request("POST", CLOCK, {"utc_clock_time": told})
        assert_refusal(answer, 400, "utc_clock_time")
    assert await done(leader) == []


@pytest.mark.parametrize("body", [None, {}, {"time": "2026-01-31T12:45:00Z"}])
async def test_a_leader_needs_the_time(leader: Unit, body: object) -> None:
    assert_refusal(await leader.request("POST", CLOCK, body), 400, "utc_clock_time is missing")


@pytest.mark.parametrize("raw", [b"", b'{"utc_clock_time": 5}', b"\xff"])
async def test_a_worker_ignores_the_body_and_synchronises(unit: Unit, raw: bytes) -> None:
    async with unit.client.patch(CLOCK, data=raw) as response:
        assert response.status == 202
        task = await unit.task(await response.json())
    assert task["result"] is True
    assert await done(unit) == [{"action": "synchronise_clock"}]


async def test_a_clock_that_cannot_be_synchronised_fails_the_task(unit: Unit) -> None:
    await fault(unit, kind="system_error", call="synchronise_clock", message="no time server")
    task = await unit.post(CLOCK)
    assert task["status"] == "failed"
    assert "no time server" in task["error"]


# -- web server ----------------------------------------------------------------------


async def test_the_web_server_of_a_leader_is_ready(leader: Unit) -> None:
    async with leader.client.get(STATUS) as response:
        assert response.headers["Cache-Control"] == "public, max-age=3"
        assert await response.json() == {
            "service": "lighttpd.service,huey.service",
            "state": "ready",
            "raw_status": "lighttpd.service=active, huey.service=active",
        }


async def test_a_web_server_with_a_part_that_failed_is_disconnected(leader: Unit) -> None:
    await fault(leader, kind="service_down", service="huey.service")
    status = await leader.get(STATUS)
    assert status["state"] == "disconnected"
    assert status["raw_status"] == "lighttpd.service=active, huey.service=failed"


async def test_the_web_server_restarts(leader: Unit) -> None:
    assert await succeeded(leader, RESTART) is True
    assert await done(leader) == [
        {"action": "restart_units", "units": ["lighttpd.service", "huey.service"]}
    ]


async def test_a_worker_has_no_web_server(unit: Unit) -> None:
    assert_refusal(await unit.request("GET", STATUS), 403, "leader")
    assert_refusal(await unit.request("POST", RESTART), 403, "leader")
    assert await done(unit) == []


async def test_the_units_of_the_web_server_are_configured(leader: Unit) -> None:
    config = leader.data_dir / "config.ini"
    config.write_text("[piod]\nweb_server_units = nginx.service , my-web@1.target\n")
    assert (await leader.get(STATUS))["service"] == "nginx.service,my-web@1.target"
    await leader.post(RESTART)
    assert (await done(leader))[0]["units"] == ["nginx.service", "my-web@1.target"]


@pytest.mark.parametrize("units", ["", "nginx", "--force.service", "a.service;b", "../x.service"])
async def test_units_that_are_none_are_refused(leader: Unit, units: str) -> None:
    (leader.data_dir / "config.ini").write_text(f"[piod]\nweb_server_units = {units}\n")
    assert_refusal(await leader.request("GET", STATUS), 400, "web_server_units")
    assert_refusal(await leader.request("POST", RESTART), 400, "web_server_units")
    assert await done(leader) == []


# -- updates -------------------------------------------------------------------------


async def test_only_what_was_validated_reaches_the_machine(unit: Unit) -> None:
    body = {
        "options": {
            "branch": "feature/new_thing-2",
            "repo": "Owner-1/piod.fork",
            "sha": "DEADbeef",
            "version": "26.2.3rc1",
            "source": "/tmp/release_26.2.3.zip",
            "no-deps": None,
            "defer_web_restart": True,
        },
        "args": [],
        "env": {"PATH": "/evil"},
        "unknown": 1,
    }
    status, accepted = await unit.request("POST", UPDATE, body)
    assert status == 202
    await unit.task(accepted)
    [start] = await done(unit)
    assert start == {
        "action": "start_update",
        "request": {
            "request_id": accepted["task_id"],
            "branch": "feature/new_thing-2",
            "repo": "Owner-1/piod.fork",
            "sha": "DEADbeef",
            "version": "26.2.3rc1",
            "source": "/tmp/release_26.2.3.zip",
            "no_deps": True,
            "defer_web_restart": True,
        },
    }


async def test_an_option_that_is_wrong_is_400_and_starts_nothing(unit: Unit) -> None:
    # what else is wrong: tests/test_system.py
    for options, words in [
        ({"branches": "x"}, ["branches", "branch, repo, sha, version, source, no_deps"]),
        ({"": "x"}, ["options"]),
        ({"branch": None}, ["options.branch needs a value"]),
        ({"branch": "--upload"}, ["options.branch must be"]),
        ({"source": "/tmp/../etc/x"}, ["options.source"]),
        ({"x" * 300: None}, ["not an option"]),
        ([], ["options", "object"]),
        (None, ["options"]),
        ("branch", ["options"]),
    ]:
        answer = await unit.request("POST", UPDATE, {"options": options})
        assert_refusal(answer, 400, *words)
    assert await done(unit) == []


async def test_an_update_takes_no_arguments(unit: Unit) -> None:
    for args in (["app"], ["--version"], "app", None, {}, [None]):
        answer = await unit.request("POST", UPDATE, {"options": {}, "args": args})
        assert_refusal(answer, 400, "args")
    assert await done(unit) == []


async def test_an_update_needs_a_body(unit: Unit) -> None:
    assert_refusal(await unit.request("POST", UPDATE), 400, "JSON object")


async def test_another_target_is_404(unit: Unit) -> None:
    for target in ("firmware", "APP", "app%20", "..%2F", "app%00", "x" * 300):
        async with unit.client.post(f"{UPDATE}/{target}", data=b'{"options": {}}') as response:
            assert_refusal((response.status, await response.json()), 404)
    async with unit.client.post(URL(f"{UPDATE}/%FF", encoded=True)) as response:
        assert_refusal((response.status, await response.json()), 400)
    assert await done(unit) == []


async def test_an_update_while_jobs_run_is_409_unless_forced(unit: Unit) -> None:
    job_id = await unit.run("stirring")
    answer = await unit.request("POST", UPDATE, {"options": {}})
    assert_refusal(answer, 409, f"stirring (job {job_id})", "force")
    assert await done(unit) == []
    # a refused request uses no slot, and the jobs are left alone
    assert await succeeded(unit, UPDATE, {"options": {"force": None}}) is True
    assert len(await unit.get(f"{API}/jobs/running")) == 1


async def test_a_second_update_within_ten_seconds_is_429(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await unit.post(UPDATE, {"options": {}})
    assert_refusal(await unit.request("POST", UPDATE, {"options": {}}), 429, "10 s")
    monkeypatch.setattr(system_actor, "UPDATE_EVERY_S", 0.0)
    await unit.post(UPDATE, {"options": {}})
    assert len(await done(unit)) == 2


async def test_an_update_that_fails_tells_why(unit: Unit) -> None:
    await fault(unit, kind="system_error", call="update", message="no such version")
    task = await unit.post(UPDATE, {"options": {"version": "99.9"}})
    assert task["status"] == "failed"
    assert task["error"] == "the update failed: no such version"
    assert "result" not in task


async def test_the_outcome_of_an_update_is_told_after_a_restart_of_the_daemon(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    still = ExitStack()
    still.enter_context(clock.hold())  # the update is under way, and stays so
    async with running_unit(tmp_path, clock) as unit:
        started = asyncio.Event()
        original = unit.machine.start_update

        async def watched(request: UpdateRequest) -> None:
            await original(request)
            started.set()

        unit.machine.start_update = watched
        _, accepted = await unit.request("POST", UPDATE, {"options": {}})
        await started.wait()
    async with running_unit(tmp_path, clock) as unit:
        status, task = await unit.request("GET", accepted["result_url_path"])
        assert (status, task["status"]) == (202, "in_progress")
        _, busy = await unit.request("POST", UPDATE, {"options": {}})
        assert busy["task_id"] == accepted["task_id"]
        await fault(unit, kind="system_error", call="update", message="disk full")
        still.close()
        task = await unit.task(accepted)
        assert (task["status"], task["error"]) == ("failed", "the update failed: disk full")
    async with running_unit(tmp_path, clock) as unit:
        assert await unit.task(accepted) == task, "durable"


async def test_an_update_that_never_reached_the_machine_is_failed_after_a_restart(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock) as unit:
        hold(unit, "start_update", asyncio.Event())
        _, accepted = await unit.request("POST", UPDATE, {"options": {}})
    async with running_unit(tmp_path, clock) as unit:
        task = await unit.task(accepted)
        assert task["status"] == "failed"
        assert "before the update was started" in task["error"]
        assert await done(unit) == []


# -- hardware check ------------------------------------------------------------------


async def test_the_units_own_model_is_ok(unit: Unit) -> None:
    result = await succeeded(unit, CHECK, MODEL_1_1)
    assert result == {
        "status": "ok",
        "reason": "pioreactor_20ml 1.1 on HAT 1.2: every chip answers (0x2C, 0x4F)",
    }


async def test_another_model_is_a_warning_that_names_the_missing_addresses(unit: Unit) -> None:
    result: Any = await succeeded(unit, CHECK, MODEL_1_5)
    assert result["status"] == "warning"
    assert "0x49 (pd1), 0x4A (pd2)" in result["reason"]
    assert "0x2C" not in result["reason"]


async def test_a_chip_that_is_missing_is_found(unit: Unit) -> None:
    await fault(unit, kind="chip_missing", address=0x4F)
    result: Any = await succeeded(unit, CHECK, MODEL_1_1)
    assert result["status"] == "warning"
    assert "no answer from 0x4F (temperature sensor)" in result["reason"]


@pytest.mark.parametrize(
    "broken", [{"kind": "bus_error", "bus": "i2c"}, {"kind": "device_missing", "bus": "i2c"}]
)
async def test_a_bus_that_fails_is_a_warning(unit: Unit, broken: dict[str, object]) -> None:
    await fault(unit, **broken)
    result: Any = await succeeded(unit, CHECK, MODEL_1_1)
    assert result["status"] == "warning"
    assert "i2c bus" in result["reason"]


async def test_hat_1_0_with_the_optics_of_1_5_is_a_warning_and_touches_no_chip(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, hat_version="1.0") as unit:
        # commands for an ADC would set LEDs: it would answer, and that proves nothing
        await fault(unit, kind="bus_error", bus="i2c", message="somebody touched the bus")
        result: Any = await succeeded(unit, CHECK, MODEL_1_5)
        assert result["status"] == "warning"
        assert "HAT 1.0 cannot work with the model pioreactor_20ml/1.5" in result["reason"]
        await unit.request("DELETE", FAULTS)
        assert (await unit.post(CHECK, MODEL_1_1))["result"]["status"] == "ok"


async def test_a_hat_that_is_not_1_x_and_one_without_adc_are_skipped(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    for path, text in shipped_files():
        if path.startswith("hats/1.2/") and not path.endswith("adc.yaml"):
            for version in ("2.0", "1.9"):
                file = tmp_path / "hardware" / path.replace("1.2", version)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    for version in ("2.0", "1.9"):
        (tmp_path / f"hardware/hats/{version}/adc.yaml").write_text("{}")
    async with running_unit(tmp_path, clock, hat_version="2.0") as unit:
        result: Any = await succeeded(unit, CHECK, MODEL_1_1)
        assert result["status"] == "skipped"
        assert "2.0" in result["reason"]
    async with running_unit(tmp_path, clock, hat_version="1.9") as unit:
        result = await succeeded(unit, CHECK, MODEL_1_1)
        assert result["status"] == "skipped"
        assert "no ADC" in result["reason"]


async def test_a_model_that_is_unknown_or_unclear_is_400(unit: Unit) -> None:
    for name, version, word in [
        ("", "1.5", "model_name must not be empty"),
        (None, "1.5", "model_name must not be null"),
        ("pioreactor_20ml", 1.5, "model_version must be text"),
        ("pioreactor_20ml", "9", "pioreactor_20ml/9"),
        ("../..", "1.5", "../../1.5"),
        ("a\0b", "1.5", "NUL"),
        ("x" * 300, "1.5", "unknown reactor model"),
    ]:
        body = {"model_name": name, "model_version": version}
        assert_refusal(await unit.request("POST", CHECK, body), 400, word)
    for missing in ({}, {"model_name": "pioreactor_20ml"}):
        answer = await unit.request("POST", CHECK, missing)
        assert_refusal(answer, 400, "model_version is missing")


async def test_a_missing_i2c_bus_is_a_problem_in_health_until_it_is_back(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_handlers, "FRESH_S", 0.0)
    assert (await unit.get(f"{API}/health"))["problems"] == []
    await fault(unit, kind="device_missing", bus="i2c")
    await unit.post(CHECK, MODEL_1_1)
    [problem] = (await unit.get(f"{API}/health"))["problems"]
    assert problem.startswith("i2c bus")
    await unit.request("DELETE", FAULTS)
    for _ in range(100):
        await asyncio.sleep(0.05)
        if (await unit.post(CHECK, MODEL_1_1))["result"]["status"] == "ok":
            return
    raise AssertionError("the bus is not looked for again")


# -- the machine itself --------------------------------------------------------------


@pytest.mark.parametrize("text", ["{", "null", '{"done": 5, "update": null}', '{"done": []}', ""])
async def test_a_record_that_cannot_be_understood_is_begun_anew(
    tmp_path: Path, clock: SimulatedClock, text: str
) -> None:
    (tmp_path / "simulator").mkdir()
    (tmp_path / "simulator/system.json").write_text(text)
    async with running_unit(tmp_path, clock) as unit:
        assert await done(unit) == []
        await unit.post(REBOOT)
        assert await done(unit) == [{"action": "reboot"}]


async def test_a_machine_that_cannot_write_has_not_done_it(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    (tmp_path / "simulator/system.json").mkdir(parents=True)
    async with running_unit(tmp_path, clock) as unit:
        task = await unit.post(REBOOT)
        assert task["status"] == "failed"
        assert "cannot write" in task["error"]
        assert unit.power == []
        assert await done(unit) == []


async def test_an_unknown_machine_is_refused_in_words_that_stand_alone() -> None:
    with pytest.raises(Unavailable, match="this unit cannot control its machine: no way"):
        await NoSystem("no way").update_outcome("1")
