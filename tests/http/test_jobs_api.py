"""Running, stopping, finding and setting jobs over HTTP, as a leader and a person would."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from piod.clock import SimulatedClock
from piod.http.unit import FRESH_S
from tests.unit import Unit, running_unit

RUN = "/unit_api/jobs/run/job_name/stirring"
STOP = "/unit_api/jobs/stop"


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


async def nothing_runs(unit: Unit) -> bool:
    await unit.clock.sleep(1)
    return await unit.get("/unit_api/jobs/running") == [] and unit.duty == 0


# -- running ------------------------------------------------------------------------


async def test_a_run_is_launched_then_complete_with_the_job_id(unit: Unit) -> None:
    body = {"options": {"target_rpm": "200"}, "env": {"EXPERIMENT": "Exp001"}, "args": []}
    status, accepted = await unit.request("POST", RUN, body)
    assert status == 202
    assert set(accepted) == {"unit", "task_id", "result_url_path"}
    assert accepted["unit"] == "pio01"
    status, pending = await unit.request("GET", accepted["result_url_path"])
    assert status == 202
    assert pending["status"] in ("pending", "in_progress")
    task = await unit.task(accepted)
    assert task["status"] == "complete"
    assert task["result"] == {"ok": True, "job_id": "1"}
    [row] = await unit.get("/unit_api/jobs/running")
    assert row["job_id"] == "1"
    assert row["job_name"] == "stirring"
    assert row["experiment"] == "Exp001"
    assert row["job_source"] == "user"
    assert row["is_running"] == 1
    assert row["ended_at"] is None
    assert row["unit"] == "pio01"
    assert row["leader"] == "leader01"


async def test_patch_runs_too_and_a_body_is_not_needed(unit: Unit) -> None:
    status, accepted = await unit.request("PATCH", RUN)
    assert status == 202
    assert (await unit.task(accepted))["status"] == "complete"
    [row] = await unit.get("/unit_api/jobs/running/stirring")
    assert row["experiment"] == "$experiment"


async def test_of_two_runs_at_once_one_is_refused_with_the_id_of_the_other(unit: Unit) -> None:
    answers = await asyncio.gather(
        unit.request("POST", RUN, {"options": {"target_rpm": 400}}),
        unit.request("POST", RUN, {"options": {"target_rpm": 500}}),
    )
    assert [status for status, _ in answers] == [202, 202]
    tasks = [await unit.task(accepted) for _, accepted in answers]
    complete = [task for task in tasks if task["status"] == "complete"]
    failed = [task for task in tasks if task["status"] == "failed"]
    assert len(complete) == len(failed) == 1
    running_id = complete[0]["result"]["job_id"]
    assert f"already running (job {running_id})" in failed[0]["error"]
    assert failed[0]["error_info"]["status"] == 409
    assert "result" not in failed[0]
    assert len(await unit.get("/unit_api/jobs/running")) == 1


async def test_the_same_run_within_a_second_is_429_and_starts_nothing(unit: Unit) -> None:
    first = await unit.request("POST", RUN, {"options": {"target_rpm": 400}})
    second = await unit.request("POST", RUN, {"options": {"target_rpm": "400"}})
    assert first[0] == 202
    assert_refusal(second, 429, "stirring")
    await unit.task(first[1])
    assert len(await unit.history()) == 1


async def test_a_rejected_request_uses_no_slot(unit: Unit) -> None:
    assert_refusal(await unit.request("POST", RUN, {"options": {"duty_cycle": 150}}), 400)
    assert (await unit.request("POST", RUN, {}))[0] == 202


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"options": {"speed": 3}}, ["speed", "target_rpm", "duty_cycle", "use_rpm"]),
        ({"options": {"duty_cycle": 150}}, ["duty_cycle", "0 to 100"]),
        ({"options": {"duty_cycle": "fast"}}, ["duty_cycle", "number"]),
        ({"options": {"duty_cycle": True}}, ["duty_cycle", "number"]),
        ({"options": {"duty_cycle": "nan"}}, ["duty_cycle", "finite"]),
        ({"options": {"duty_cycle": "1e999"}}, ["duty_cycle", "finite"]),
        ({"options": {"duty_cycle": None}}, ["duty_cycle", "needs a value"]),
        ({"options": {"duty_cycle": [1]}}, ["duty_cycle", "number"]),
        ({"options": {"use_rpm": "perhaps"}}, ["use_rpm", "true or false"]),
        ({"options": {"use_rpm": 1, "use-rpm": 1}}, ["use_rpm", "twice"]),
        ({"options": []}, ["options", "object"]),
        ({"args": ["now"]}, ["positional", "now"]),
        ({"args": "now"}, ["args", "list"]),
        ({"env": {"EXPERIMENT": 5}}, ["env.EXPERIMENT", "text"]),
        ({"env": {"EXPERIMENT": "x" * 300}}, ["EXPERIMENT", "255"]),
        ({"env": "Exp"}, ["env", "object"]),
        ({"config_overrides": [["stirring.config", "pwm_hz"]]}, ["config_overrides[0]", "three"]),
        ({"config_overrides": [["nowhere", "a", "b"]]}, ["nowhere"]),
        ({"config_overrides": "x"}, ["config_overrides", "list"]),
    ],
)
async def test_a_wrong_run_is_400_names_the_field_and_starts_nothing(
    unit: Unit, body: dict[str, object], words: list[str]
) -> None:
    assert_refusal(await unit.request("POST", RUN, body), 400, *words)
    assert await nothing_runs(unit)
    assert await unit.history() == []


async def test_an_unknown_job_is_404_and_the_known_ones_are_named(unit: Unit) -> None:
    answer = await unit.request("POST", "/unit_api/jobs/run/job_name/juggling", {})
    assert_refusal(answer, 404, "juggling", "stirring")
    assert await unit.history() == []


async def test_numbers_flags_and_dashes_are_understood_in_options(unit: Unit) -> None:
    options = {"target-rpm": "2000", "use_rpm": None, "enable_dodging_od": "0"}
    await unit.run("stirring", options=options)
    settings = await unit.settings()
    assert settings["target_rpm"] == "1500"  # pulled into the range, as upstream does
    assert settings["enable_dodging_od"] == "False"


async def test_an_inactive_unit_does_not_start_jobs(unit: Unit) -> None:
    task = await unit.post(RUN, {"env": {"ACTIVE": "0"}})
    assert task["status"] == "failed"
    assert "not active" in task["error"]


async def test_environment_of_a_leader_is_filtered(unit: Unit) -> None:
    env = {
        "EXPERIMENT": "", "JOB_SOURCE": "None", "DOT_PIOREACTOR": "/elsewhere", "PATH": "/x",
        "TESTING": "1", "ACTIVE": "1",
    }  # fmt: skip
    await unit.run("stirring", env=env)
    [row] = await unit.get("/unit_api/jobs/running")
    assert (row["experiment"], row["job_source"]) == ("$experiment", "user")


async def test_a_broken_configuration_value_fails_the_task_with_its_place(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[stirring.config]\npwm_hz=fast\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        task = await unit.post(RUN)
        assert task["status"] == "failed"
        assert "[stirring.config] pwm_hz must be a number" in task["error"]
        assert task["error_info"]["status"] == 400
        assert await nothing_runs(unit)


async def test_a_role_without_a_pin_fails_the_task(tmp_path: Path, clock: SimulatedClock) -> None:
    async with running_unit(tmp_path, clock, config_ini="[PWM]\n2=media\n") as unit:
        task = await unit.post(RUN)
        assert task["status"] == "failed"
        assert "no PWM channel has the role 'stirring'" in task["error"]


async def test_the_leader_names_the_model_once(unit: Unit) -> None:
    env = {"MODEL_NAME": "pioreactor_40ml", "MODEL_VERSION": "1.0"}
    await unit.run("stirring", env=env)
    assert (await unit.get("/unit_api/health"))["model"] == {
        "name": "pioreactor_40ml",
        "version": "1.0",
    }
    other = {"MODEL_NAME": "pioreactor_20ml", "MODEL_VERSION": "1.5"}
    assert_refusal(await unit.request("POST", RUN, {"env": other}), 409, "pioreactor_20ml 1.5")
    unknown = {"MODEL_NAME": "pioreactor_5l", "MODEL_VERSION": "9"}
    assert_refusal(await unit.request("POST", RUN, {"env": unknown}), 400, "pioreactor_5l")


async def test_a_fixed_model_is_not_changed_by_a_leader(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, fixed_model=("pioreactor_20ml", "1.0")) as unit:
        env = {"MODEL_NAME": "pioreactor_40ml", "MODEL_VERSION": "1.0"}
        assert_refusal(await unit.request("POST", RUN, {"env": env}), 409, "configured")
        assert (await unit.request("POST", RUN))[0] == 202


async def test_an_unknown_model_is_told_by_health(tmp_path: Path, clock: SimulatedClock) -> None:
    async with running_unit(tmp_path, clock, default_model=None) as unit:
        health = await unit.get("/unit_api/health")
        assert health["model"] is None
        assert any("strictest limits" in problem for problem in health["problems"])


# -- stopping -----------------------------------------------------------------------


async def test_stop_is_complete_when_the_job_has_ended_and_the_pin_is_off(unit: Unit) -> None:
    job_id = await unit.run("stirring", options={"target_rpm": 400})
    await unit.clock.sleep(30)
    assert unit.duty > 0
    status, accepted = await unit.request("POST", STOP, {"job_name": "stirring"})
    assert status == 202
    task = await unit.task(accepted)
    assert unit.duty == 0
    assert task["result"] == {"ok": True, "stopped": 1}
    assert await unit.get("/unit_api/jobs/running") == []
    [row] = await unit.history()
    assert row["job_id"] == job_id
    assert row["ended_at"] is not None
    assert row["is_running"] == 0
    assert row["state"] == "disconnected"


async def test_stop_during_start_up_leaves_the_pin_low(unit: Unit) -> None:
    _, running = await unit.request("POST", RUN)
    await unit.clock.sleep(0.1)
    assert unit.duty == 100  # in the kick
    task = await unit.post(STOP, {"job_name": "stirring"})
    assert task["result"]["stopped"] == 1
    assert unit.duty == 0
    started = await unit.task(running)
    assert started["status"] == "failed"
    assert "stopped before it was ready" in started["error"]
    assert await nothing_runs(unit)


async def test_a_stop_sent_right_behind_a_run_wins(unit: Unit) -> None:
    _, running = await unit.request("POST", RUN)
    await unit.post("/unit_api/jobs/stop/all")
    await unit.task(running)
    assert await nothing_runs(unit)


@pytest.mark.parametrize(
    "which",
    [
        {"job_id": "1"},
        {"job_id": 1},
        {"experiment": "Exp001"},
        {"job_source": "user"},
        {"job_name": "stirring", "experiment": "Exp001", "job_source": "user", "job_id": "1"},
    ],
)
async def test_filters_are_combined(unit: Unit, which: dict[str, object]) -> None:
    await unit.run("stirring", env={"EXPERIMENT": "Exp001"})
    none = await unit.post(STOP, {**which, "job_name": "od_reading"})
    assert none["status"] == "complete"
    assert none["result"]["stopped"] == 0
    assert "No running job matched" in none["result"]["msg"]
    assert (await unit.post(STOP, which))["result"]["stopped"] == 1


@pytest.mark.parametrize("body", [{}, {"job_name": ""}, {"job_name": None}, {"other": "x"}])
async def test_stop_without_a_filter_is_400(unit: Unit, body: dict[str, object]) -> None:
    assert_refusal(await unit.request("POST", STOP, body), 400, "job_name", "stop/all")


async def test_stop_without_a_body_is_400(unit: Unit) -> None:
    assert_refusal(await unit.request("POST", STOP), 400)


# -- finding ------------------------------------------------------------------------


async def test_running_jobs_are_found_by_name_and_experiment(unit: Unit) -> None:
    await unit.run("stirring", env={"EXPERIMENT": "A & B/é"})
    for path in (
        "/unit_api/jobs/running",
        "/unit_api/jobs/running/stirring",
        "/unit_api/jobs/running/experiments/A%20%26%20B%2F%C3%A9",
    ):
        assert len(await unit.get(path)) == 1
    for path in (
        "/unit_api/jobs/running/od_reading",
        "/unit_api/jobs/running/experiments/other",
        "/unit_api/jobs/running/experiments/$broadcast",
        "/unit_api/long_running_jobs/running",
    ):
        assert await unit.get(path) == []


async def test_history_is_newest_first_and_bounded_by_the_query(unit: Unit) -> None:
    for rpm in (100, 200, 300):
        await unit.run("stirring", options={"target_rpm": rpm})
        await unit.post("/unit_api/jobs/stop/all")
    assert [row["job_id"] for row in await unit.history()] == ["3", "2", "1"]
    assert [row["job_id"] for row in await unit.get("/unit_api/jobs?limit=1&offset=1")] == ["2"]
    assert_refusal(await unit.request("GET", "/unit_api/jobs?limit=0"), 400, "limit")
    assert_refusal(await unit.request("GET", "/unit_api/jobs?limit=x"), 400, "limit")


async def test_job_ids_are_not_used_again_after_a_restart(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    for expected in ("1", "2"):
        async with running_unit(tmp_path, clock) as unit:
            assert await unit.run("stirring", options={"target_rpm": expected + "00"}) == expected


async def test_task_results_can_be_read_again_and_after_a_restart(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock) as unit:
        _, accepted = await unit.request("POST", RUN)
        first = await unit.task(accepted)
        assert await unit.task(accepted) == first
    async with running_unit(tmp_path, clock) as unit:
        assert await unit.get(accepted["result_url_path"]) == first


async def test_an_unknown_task_is_404(unit: Unit) -> None:
    answer = await unit.request("GET", "/unit_api/task_results/nothing")
    assert_refusal(answer, 404, "nothing")


# -- settings -----------------------------------------------------------------------


async def test_settings_are_text_as_the_job_published_them(unit: Unit) -> None:
    await unit.run("stirring", options={"target_rpm": "200"})
    settings = await unit.settings()
    assert settings["target_rpm"] == "200"
    assert settings["$state"] == "ready"
    assert all(isinstance(value, str) for value in settings.values())
    one = "/unit_api/jobs/settings/job_name/stirring/setting"
    assert await unit.get(f"{one}/target_rpm") == {"target_rpm": "200"}
    assert await unit.get(f"{one}/$state") == {"$state": "ready"}
    assert_refusal(await unit.request("GET", f"{one}/colour"), 404, "colour")


async def test_settings_of_a_job_that_does_not_run_are_404(unit: Unit) -> None:
    for path in ("job_name/stirring", "job_name/stirring/setting/target_rpm", "job_id/1"):
        assert_refusal(await unit.request("GET", f"/unit_api/jobs/settings/{path}"), 404)
    assert_refusal(await unit.change("1", target_rpm=5), 404, "'1'")


async def test_the_documented_patch_is_503_and_names_the_endpoint_that_does_it(
    unit: Unit,
) -> None:
    answer = await unit.request("PATCH", "/unit_api/jobs/settings/job_name/stirring", {})
    assert_refusal(answer, 503, "/unit_api/jobs/settings/job_id/{job_id}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"colour": "red"}, ["colour", "target_rpm"]),
        ({"measured_rpm": 5}, ["measured_rpm", "read-only"]),
        ({"restarts": 0}, ["restarts", "read-only"]),
        ({"target_rpm": 5001}, ["target_rpm", "0 to 5000"]),
        ({"target_rpm": -1}, ["target_rpm", "0 to 5000"]),
        ({"target_rpm": "fast"}, ["target_rpm", "number"]),
        ({"target_rpm": None}, ["target_rpm", "number"]),
        ({"target_rpm": True}, ["target_rpm", "number"]),
        ({"duty_cycle": 100.5}, ["duty_cycle", "0 to 100"]),
        ({"$state": "lost"}, ["$state", "ready, sleeping, disconnected"]),
        ({"$state": 1}, ["$state"]),
        ({"target_rpm_during_od_reading": 5}, ["only while stirring dodges"]),
    ],
)
async def test_a_wrong_setting_is_400_and_nothing_is_changed(
    unit: Unit, settings: dict[str, object], words: list[str]
) -> None:
    job_id = await unit.run("stirring", options={"target_rpm": 200})
    before, duty = await unit.settings(), unit.duty
    path = f"/unit_api/jobs/settings/job_id/{job_id}"
    both = {"target_rpm": 300, **settings} if "target_rpm" not in settings else settings
    assert_refusal(await unit.request("PATCH", path, {"settings": both}), 400, *words)
    assert await unit.settings() == before
    assert unit.duty == duty


@pytest.mark.parametrize("body", [{}, {"settings": {}}, {"settings": 5}, {"settings": None}])
async def test_a_change_needs_settings(unit: Unit, body: dict[str, object]) -> None:
    job_id = await unit.run("stirring")
    answer = await unit.request("PATCH", f"/unit_api/jobs/settings/job_id/{job_id}", body)
    assert_refusal(answer, 400, "settings")


async def test_disconnected_as_state_stops_the_job(unit: Unit) -> None:
    job_id = await unit.run("stirring")
    status, body = await unit.change(job_id, state="disconnected")
    assert (status, body) == (200, {"settings": {"$state": "disconnected"}})
    await unit.clock.sleep(1)
    assert await nothing_runs(unit)


async def test_a_setting_while_the_job_starts_is_refused(unit: Unit) -> None:
    _, accepted = await unit.request("POST", RUN)
    await unit.clock.sleep(0.1)
    assert_refusal(await unit.change("1", target_rpm=5), 400, "still starting")
    await unit.task(accepted)


# -- crashes ------------------------------------------------------------------------


async def test_a_crash_turns_the_pin_off_and_the_job_is_restarted_with_its_target(
    unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await unit.run("stirring", options={"target_rpm": 400})
    await unit.change(job_id, target_rpm=650)
    await unit.clock.sleep(20)
    fault = {"kind": "bus_error", "bus": "gpio", "count": 1}
    assert (await unit.request("POST", "/simulator/faults", fault))[0] == 201
    while unit.duty > 0:
        await unit.clock.sleep(0.05)
    assert (await unit.settings())["$state"] == "init"
    await unit.clock.sleep(20)
    settings = await unit.settings()
    assert settings["restarts"] == "1"
    assert settings["$state"] == "ready"
    assert settings["target_rpm"] == "650"
    assert unit.duty > 0
    [row] = await unit.get("/unit_api/jobs/running")
    assert row["job_id"] == job_id
    assert "stirring (job 1) failed" in caplog.text


async def test_a_job_that_keeps_crashing_is_lost_with_the_reason(unit: Unit) -> None:
    await unit.run("stirring")
    await unit.request("POST", "/simulator/faults", {"kind": "bus_error", "bus": "gpio"})
    await unit.clock.sleep(300)
    assert await nothing_runs(unit)
    [row] = await unit.history()
    assert row["state"] == "lost"
    assert "gpio" in row["reason"]
    [lost] = (await unit.get("/unit_api/health"))["lost_jobs"]
    assert lost["job_id"] == row["job_id"]


async def test_a_job_asleep_is_still_asleep_after_a_restart_of_its_actor(unit: Unit) -> None:
    from piod.actors.buses.bus import RevokeAll

    job_id = await unit.run("stirring")
    await unit.change(job_id, state="sleeping")
    await unit.daemon.pwm.ask(RevokeAll("a test says so"), timeout=1)
    await unit.clock.sleep(60)
    settings = await unit.settings()
    assert settings["restarts"] == "1"
    assert settings["$state"] == "sleeping"
    assert unit.duty == 0


async def test_an_output_that_will_not_go_off_is_tried_until_it_does(unit: Unit) -> None:
    await unit.run("stirring")
    fault = {"kind": "bus_error", "bus": "pwm", "pin": 17}
    _, added = await unit.request("POST", "/simulator/faults", fault)
    _, accepted = await unit.request("POST", "/unit_api/jobs/stop/all")
    await unit.clock.sleep(1)
    assert unit.duty > 0
    await unit.request("DELETE", f"/simulator/faults/{added['id']}")
    await unit.task(accepted)
    await asyncio.sleep(0.1)  # the bus tries each 50 ms of wall time
    assert unit.duty == 0
    await unit.run("stirring", options={"target_rpm": 300})


async def test_a_missing_bus_is_503_with_the_reason_and_comes_back(unit: Unit) -> None:
    await unit.request("POST", "/simulator/faults", {"kind": "device_missing", "bus": "pwm"})
    for options in ({}, {"target_rpm": 300}):  # the first finds out, the second is told
        task = await unit.post(RUN, {"options": options})
        assert task["status"] == "failed"
        assert task["error_info"]["status"] == 503
        assert "no pwm bus" in task["error"]
    assert any("pwm" in problem for problem in await problems(unit))
    await unit.request("DELETE", "/simulator/faults")
    for _ in range(100):
        if not await problems(unit):
            break
        await asyncio.sleep(0.05)  # the bus is looked for in wall time
    await unit.run("stirring", options={"target_rpm": 400})


async def problems(unit: Unit) -> list[str]:
    """What health tells now."""
    await asyncio.sleep(FRESH_S + 0.01)
    return list((await unit.get("/unit_api/health"))["problems"])


# -- the rest -----------------------------------------------------------------------


async def test_capabilities_describe_stirring_as_upstream_does(unit: Unit) -> None:
    body = await unit.get("/unit_api/capabilities")
    [stirring] = [job for job in body["jobs"] if job["job_name"] == "stirring"]
    assert [option["name"] for option in stirring["options"]] == [
        "target_rpm",
        "use_rpm",
        "duty_cycle",
        "target_rpm_during_od_reading",
        "target_rpm_outside_od_reading",
        "enable_dodging_od",
    ]
    assert stirring["options"][0] == {
        "name": "target_rpm",
        "long_flag": "target-rpm",
        "help": "the speed to keep, RPM",
        "required": False,
        "multiple": False,
        "default": None,
        "type": "float range",
    }
    assert stirring["published_settings"]["target_rpm"] == {
        "datatype": "float",
        "settable": True,
        "unit": "RPM",
    }
    assert stirring["published_settings"]["$state"] == {"datatype": "text", "settable": True}
    assert {"job_name": "stirring", "setting": "measured_rpm", "datatype": "MeasuredRPM",
            "settable": False, "unit": "RPM"} in body["settings"]  # fmt: skip


async def test_version_and_health(unit: Unit) -> None:
    version = await unit.get("/unit_api/versions/app")
    assert version["version"].startswith("v")
    health = await unit.get("/unit_api/health")
    assert health["status"] == "ok"
    assert health["pioreactor_unit"] == "pio01"
    assert health["utc_time"].endswith("Z")
    assert health["problems"] == []
    async with unit.client.get("/unit_api/health") as response:
        assert response.headers["Cache-Control"] == "public, max-age=0"


async def test_every_route_is_documented(unit: Unit) -> None:
    document = await unit.get("/unit_api/swagger.json")
    assert "/unit_api/jobs/run/job_name/{job_name}" in document["paths"]
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            assert described["summary"], (method, path)
            good = [code for code in described["responses"] if int(code) < 400]
            only_refuses = (method, path) == (
                "patch", "/unit_api/jobs/settings/job_name/{job_name}")  # fmt: skip
            assert good or only_refuses, (method, path)


async def test_a_configuration_that_breaks_while_running_is_told_and_not_taken(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    good = "[stirring.config]\ninitial_target_rpm=600\n"
    async with running_unit(tmp_path, clock, config_ini=good) as unit:
        (tmp_path / "config.ini").write_text("initial_target_rpm=600\n[stirring.config]\n")
        await unit.run("stirring")
        assert (await unit.settings())["target_rpm"] == "600"
        [problem] = (await unit.get("/unit_api/health"))["problems"]
        assert "config.ini" in problem
        assert "line" in problem
